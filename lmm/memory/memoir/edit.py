"""The edit of `memoir`: how columns of the residual matrix learn answers.

Prompts of one length are one batch. What stands before the reply is read once, the layers below the site run once; a
step runs the layers from the site on, for the reply's tokens alone (`span=reply`) or for the whole prompt (`span=all`).

Shape letters: R rows of a batch, S steps of a reply, U columns that may change, F width of the MLP, D of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lmm.adapters.ops import Array
from lmm.errors import LearningError
from lmm.memory.base import LearnReport
from lmm.memory.message import checked
from lmm.memory.optim import Optimizer
from lmm.memory.target import prompt_and_answer

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter, Site, TapContext
    from lmm.adapters.ops import Params

#: sentences put before a prompt; of few lengths in tokens, so that copies share a batch
PREFIXES = (
    "It was raining all morning.",
    "We had lunch by the river.",
    "The train came in late.",
    "Somebody left the door open.",
    "They played music until midnight.",
    "My bag is on the table.",
    "The market closes at six.",
    "She wrote a long letter.",
    "Winter was very cold there.",
    "He likes to walk home.",
)


@dataclass(frozen=True)
class Example:
    """One lesson: its wordings, its answer, and the columns of its mask, [k] rising."""

    wordings: Sequence[str]
    answer: str
    mask: np.ndarray


class Rows:
    """R prompts of one length and their replies, read up to the site.

    `h` [R, T, D] enters the site's layer; `columns` [U] and, of these, `masks` [R, 1, U] 1. where a row's lesson may
    write; `targets`, `weight` [R, S].
    """

    def __init__(
        self,
        adapter: Adapter,
        site: Site,
        span: str,
        rows: Sequence[tuple[list[int], list[int]]],
        masks: np.ndarray,
        columns: Array,
    ) -> None:
        ops, self.adapter, self.site = adapter.ops, adapter, site
        steps = max(len(answer) for _, answer in rows)
        filled = [answer + [adapter.format.end_of_turn] * (steps - len(answer)) for _, answer in rows]
        prompts = np.array([prompt for prompt, _ in rows], np.int64)
        read = prompts.shape[1] - 1 if span == "reply" else 0
        self.tokens = np.concatenate([prompts, np.array(filled, np.int64)[:, :-1]], axis=1)[:, read:]
        self.cache = self._read(prompts[:, :read]) if read else None
        self.columns = columns
        self.masks = ops.asarray(masks.astype(np.float32)[:, None])
        self.h, self.reach = self._look()
        self.keep = range(self.tokens.shape[1] - steps, self.tokens.shape[1])
        weight = np.array([[1.0] * len(answer) + [0.0] * (steps - len(answer)) for _, answer in rows], np.float32)
        self.targets, self.weight, self.count = ops.asarray(filled, "int64"), ops.asarray(weight), float(weight.sum())
        right = np.zeros((len(rows), steps, adapter.shape.vocab), bool)
        np.put_along_axis(right, np.array(filled)[..., None], True, axis=2)
        self.right = ops.asarray(right, "bool")

    def _look(self) -> tuple[Array, float]:
        """What enters the layer, [R, T, D]; and |h| / |m * x|: how long a step must be to move h by its own length."""
        ops, seen = self.adapter.ops, {}

        def look(x_in: Array, x_out: Array, context: TapContext) -> Array:
            seen[context.site] = x_in
            return x_out

        before = replace(self.site, part="pre_attention")
        with self.adapter.tap(before, look), self.adapter.tap(self.site, look):
            self.adapter.hidden(self.tokens, self.site.layer + 1, self.cache)
        h, x = seen[before], ops.float32(ops.take(seen[self.site], self.columns, 2)) * self.masks
        reach = ops.to_numpy(ops.norm(ops.float32(h))).mean() / max(ops.to_numpy(ops.norm(x)).mean(), 1e-6)
        return h, float(reach)

    def _read(self, prompts: np.ndarray) -> Any:
        """The cache of the prompts; what they begin with in common is read once."""
        differ = np.flatnonzero((prompts != prompts[0]).any(axis=0))
        shared = int(differ[0]) if len(differ) else prompts.shape[1]
        cache = self.adapter.new_cache()
        if shared:
            _, cache = self.adapter.forward(prompts[:1, :shared], cache)
        cache = self.adapter.select(cache, [0] * len(prompts))
        return self.adapter.forward(prompts[:, shared:], cache)[1] if shared < prompts.shape[1] else cache

    def loss(self, params: Params, margin: float) -> Array:
        """Summed cross-entropy of the reply tokens with the right one's logit lowered by `margin`."""
        ops = self.adapter.ops

        def add(x_in: Array, x_out: Array, context: TapContext) -> Array:
            delta = (ops.float32(ops.take(x_in, self.columns, 2)) * self.masks) @ params["columns"]
            return x_out + ops.cast_like(delta, x_out)

        with self.adapter.tap(self.site, add):
            logits = self.adapter.upper(self.tokens, self.h, self.site.layer, self.cache, keep=self.keep)
        logits = ops.float32(logits)
        logits = ops.where(self.right, logits - margin, logits) if margin else logits
        gold = ops.take_along(logits, self.targets[..., None])[..., 0]
        return ops.sum((ops.logsumexp(logits) - gold) * self.weight)


def train(
    adapter: Adapter,
    site: Site,
    options: Any,
    examples: Sequence[Example],
    columns: np.ndarray,
    weights: np.ndarray,
    report: LearnReport,
) -> tuple[np.ndarray, np.ndarray]:
    """Columns [C] and weights [C, D] of W_m after an edit: as before, but for the columns of the examples' masks.

    Raises LearningError for an answer that is too long, and if the loss is no number.
    """
    ops = adapter.ops
    mine = np.unique(np.concatenate([example.mask for example in examples]))
    batches = _batches(adapter, site, options, examples, mine)
    start = np.zeros((len(mine), adapter.shape.width), np.float32)
    known = np.isin(mine, columns)
    start[known] = weights[np.searchsorted(columns, mine[known])]
    params = {"columns": ops.asarray(start)}
    count = sum(batch.count for batch in batches)

    def loss_of(params: Params) -> Array:
        losses = [batch.loss(params, options.margin) for batch in batches]
        total = losses[0]
        for loss in losses[1:]:
            total = total + loss
        return total / count

    unit = options.optimizer == "unit"
    reach = sum(batch.reach for batch in batches) / len(batches)
    optimizer = Optimizer(ops, "sgd" if unit else options.optimizer, options.lr, options.weight_decay)
    for _ in range(options.steps):
        loss, grads = ops.value_and_grad(loss_of, params)
        checked(loss, {}, adapter)
        report.step(loss)
        if loss <= options.goal:
            break
        norm = float(np.linalg.norm(ops.to_numpy(grads["columns"])))
        if unit or (options.clip and norm > options.clip):
            grads = {"columns": grads["columns"] * ((reach if unit else options.clip) / max(norm, 1e-12))}
        params = optimizer.step(params, grads)
        ops.evaluate(*params.values())
    return _merged(columns, weights, mine, ops.to_numpy(params["columns"]))


def _batches(adapter: Adapter, site: Site, options: Any, examples: Sequence[Example], mine: np.ndarray) -> list[Rows]:
    """All wordings of all examples, and copies with a sentence before the first, by their length in tokens."""
    where = adapter.ops.asarray(mine, "int64")
    by_length: dict[int, list[tuple[tuple[list[int], list[int]], np.ndarray]]] = {}
    for example in examples:
        copies = [f"{prefix} {example.wordings[0]}" for prefix in PREFIXES[: options.prefixes]]
        for text in (*example.wordings, *copies):
            prompt, answer = prompt_and_answer(adapter, text, example.answer)
            by_length.setdefault(len(prompt), []).append(((prompt, answer), np.isin(mine, example.mask)))
    return [
        Rows(adapter, site, options.span, [row for row, _ in found], np.stack([mask for _, mask in found]), where)
        for found in by_length.values()
    ]


def _merged(
    columns: np.ndarray, weights: np.ndarray, mine: np.ndarray, learned: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The matrix with the learned columns in it. Raises LearningError where they are beyond float16."""
    if np.abs(learned).max() > np.finfo(np.float16).max:
        raise LearningError("the edit grew beyond what can be stored; the memory is as before. Try a smaller lr")
    every = np.union1d(columns, mine)
    merged = np.zeros((len(every), learned.shape[1]), np.float16)
    if len(columns):
        merged[np.searchsorted(every, columns)] = weights
    merged[np.searchsorted(every, mine)] = learned.astype(np.float16)
    return every, merged
