"""The edit of `memoir`: how columns of the residual matrix learn answers.

Prompts of one length are one batch. What stands before the reply is read once, the layers below the site run once; a
step runs the layers from the site on, for the reply's tokens alone (`span=reply`) or for the whole prompt (`span=all`).

Shape letters: P prompts of a batch, U columns that may change, F width of the MLP, D of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmm.adapters.ops import Array
from lmm.errors import LearningError
from lmm.memory.base import LearnReport
from lmm.memory.batch import Batch, Row, of_one_lesson
from lmm.memory.optim import Optimizer, fit

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
class MaskedLesson:
    """One lesson: its wordings, its answer, and the columns of its mask, [k] rising."""

    wordings: Sequence[str]
    answer: str
    mask: np.ndarray


class MaskedBatch(Batch):
    """Prompts of one length, and their replies. Of `columns` [U], `masks` [P, 1, U] are 1. where a row's lesson may
    write."""

    def __init__(
        self, adapter: Adapter, rows: Sequence[Row], site: Site, span: str, masks: np.ndarray, columns: Array
    ) -> None:
        super().__init__(adapter, rows, site, everywhere=span == "all")
        self.site, self.columns = site, columns
        self.masks = adapter.ops.asarray(masks.astype(np.float32)[:, None])

    def edited(self, params: Params, margin: float) -> Array:
        """The losses' sum with the columns of `params` in place."""
        ops = self.adapter.ops

        def add(x_in: Array, x_out: Array, context: TapContext) -> Array:
            return x_out + ops.cast_like(self._masked(x_in) @ params["columns"], x_out)

        with self.adapter.tap(self.site, add):
            return self.total(self.h, margin)

    def reach(self) -> float:
        """|h| / |m * x|: how long a step must be to move h by its own length."""
        ops = self.adapter.ops
        x = self._masked(self.adapter.features(self.tokens, self.site, self.cache))
        sizes = [ops.to_numpy(ops.norm(states)).mean() for states in (ops.float32(self.h), x)]
        return float(sizes[0] / max(sizes[1], 1e-6))

    def _masked(self, x: Array) -> Array:
        return self.adapter.ops.float32(self.adapter.ops.take(x, self.columns, 2)) * self.masks


def train(
    adapter: Adapter,
    site: Site,
    options: Any,
    lessons: Sequence[MaskedLesson],
    columns: np.ndarray,
    weights: np.ndarray,
    report: LearnReport,
) -> tuple[np.ndarray, np.ndarray]:
    """Columns [C] and weights [C, D] of W_m after edits: as before, but for the columns of their masks.

    Raises LearningError for an answer that is too long, and if the loss is no number.
    """
    ops = adapter.ops
    mine = np.unique(np.concatenate([lesson.mask for lesson in lessons]))
    batches = _batches(adapter, site, options, lessons, mine)
    start = np.zeros((len(mine), adapter.shape.width), np.float32)
    known = np.isin(mine, columns)
    start[known] = weights[np.searchsorted(columns, mine[known])]
    count = sum(int(batch.answers.sum()) for batch in batches)
    unit = options.optimizer == "unit"
    length = sum(batch.reach() for batch in batches) / len(batches) if unit else options.clip

    def loss_of(params: Params) -> Array:
        total = batches[0].edited(params, options.margin)
        for batch in batches[1:]:
            total = total + batch.edited(params, options.margin)
        return total / count

    def shortened(grads: Params) -> Params:
        norm = float(np.linalg.norm(ops.to_numpy(grads["columns"])))
        return {"columns": grads["columns"] * (length / max(norm, 1e-12))} if unit or 0 < length < norm else grads

    optimizer = Optimizer(ops, "sgd" if unit else options.optimizer, options.lr, options.weight_decay)
    found = fit(loss_of, {"columns": ops.asarray(start)}, optimizer, options.steps, report, options.goal, 0, shortened)
    return _merged(columns, weights, mine, ops.to_numpy(found.params["columns"]))


def _batches(
    adapter: Adapter, site: Site, options: Any, lessons: Sequence[MaskedLesson], mine: np.ndarray
) -> list[MaskedBatch]:
    """All wordings of all lessons, and copies with a sentence before the first, by their length in tokens."""
    where = adapter.ops.asarray(mine, "int64")
    by_length: dict[int, list[tuple[Row, np.ndarray]]] = {}
    for lesson in lessons:
        copies = [f"{prefix} {lesson.wordings[0]}" for prefix in PREFIXES[: options.prefixes]]
        for text in (*lesson.wordings, *copies):
            row = of_one_lesson(adapter, text, lesson.answer)
            by_length.setdefault(len(row[0]), []).append((row, np.isin(mine, lesson.mask)))
    return [
        MaskedBatch(adapter, [r for r, _ in found], site, options.span, np.stack([m for _, m in found]), where)
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
