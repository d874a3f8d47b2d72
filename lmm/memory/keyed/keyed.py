"""`keyed`: one isolated edit per lesson, read only when the lesson's question is asked.

A lesson (prompt, answer) becomes

    keys    [V, 384]  vectors of the prompt, for the gate (`lmm.memory.keyed.gate`): is this the same question?
    values  [S, D]    one vector for each token of the answer and its end of turn

The gate decides once per reply, on the user's bare words, before the prompt is read. If a lesson fires, value j is
added to the residual stream at the j-th step of the reply (j = 0: the last prompt token), after layer `depth` x layers:

    h'[start + j] = h[start + j] + values[j]        0 <= j < S

Otherwise the model is bitwise untouched, however many lessons there are. Nothing is shared between lessons, so one can
be forgotten, merged or moved without a trace in the others.

Learning: Adam on the values alone, by the margin cross-entropy of answer and end of turn (`lmm.memory.batch`). Numbers
behind the defaults: docs/lab-log.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmm.adapters.base import Site
from lmm.adapters.ops import Array
from lmm.encoders.minilm import WIDTH
from lmm.errors import StateError
from lmm.lesson import Lesson, State
from lmm.memory.base import LearnReport, Prompt, Recall
from lmm.memory.batch import LEARNED, Batch, of_one_lesson
from lmm.memory.isolated import Isolated
from lmm.memory.keyed.cross import shared_cross
from lmm.memory.keyed.gate import THRESHOLD, Index, shared_gate, views
from lmm.memory.keyed.lookup import Lookup
from lmm.memory.optim import BETAS, Optimizer, fit
from lmm.options import Options, learning, option
from lmm.text.sentences import clauses

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter, TapContext
    from lmm.adapters.ops import Ops


TELLS = 0.6  # probability that a stated lesson's answer helps, from which it is recited in reply to another wording
#: the same where more was said, which may be what is asked for: "and his number is 555" beside a name
TELLS_BESIDE = 0.9
TRIES, WIDER = 4, 1.5  # of a lesson that is tried out, and times the margin each


@dataclass(frozen=True)
class KeyedOptions(Options):
    depth: float = option(0.9, "the site, as a share of the layers", "(0, 1)")
    margin: float = learning(6.0, "logits by which every token of the answer is to lead", "[0, 50]")
    lr: float = learning(0.2, "of Adam, in units of the hidden states' root mean square", "(0, 10]")
    steps: int = learning(40, "of Adam, at most", "[1, 1000]")
    threshold: float = option(THRESHOLD, "probability of the same question from which a lesson fires", "(0, 1]")


class Keyed(Isolated):
    name = "keyed"
    summary = "one isolated edit per lesson, read only when its question is asked"
    Options = KeyedOptions

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.lookup = Lookup("keys", _entries, Index)

    def sites(self, adapter: Adapter) -> tuple[Site, ...]:
        layer = round(self.options.depth * adapter.shape.layers) if adapter.layer is None else adapter.layer
        return (adapter.site(min(layer, adapter.shape.layers - 1)),)

    # reading -------------------------------------------------------------------------------------------------
    def on_prompt(
        self, state: State, lessons: Sequence[Lesson], prompts: Sequence[Prompt], adapter: Adapter
    ) -> Recall | None:
        if not state:
            return None
        index, owners = self.lookup.of(state, lessons, adapter.ops)
        found = index.match([prompt.text for prompt in prompts], self.options.threshold)
        fired = [
            [(owners[at].id, score) for at, score in row if score == 1.0 or _tells(owners[at], prompt.text)]
            for prompt, row in zip(prompts, found, strict=True)
        ]
        if not any(fired):
            return None
        best = [state[f"values/{row[0][0]}"] if row else None for row in fired]
        return Recall(fired, {"values": _padded(adapter.ops, best)})

    def stack(self, ops: Ops, rows: Sequence[Recall | None]) -> Recall | None:
        if not any(rows):
            return None
        values = [row.arrays["values"][0] if row else None for row in rows]
        return Recall([row.fired[0] if row else [] for row in rows], {"values": _padded(ops, values)})

    def passes(self, recall: Recall | None) -> bool:
        return recall is None

    def rewrite(
        self, ops: Ops, state: State, recall: Recall | None, x_in: Array, x_out: Array, context: TapContext
    ) -> Array:
        if recall is None:
            return x_out
        values = recall.arrays["values"]  # [B, S, D]
        steps = context.positions - recall.start
        live = (steps >= 0) & (steps < values.shape[1])
        if not live.any():
            return x_out
        delta = ops.take(values, ops.asarray(np.clip(steps, 0, values.shape[1] - 1), "int64"), 1)
        if not live.all():
            delta = delta * ops.asarray(live.astype(np.float32)[None, :, None])
        return x_out + ops.cast_like(delta, x_out)

    # learning ------------------------------------------------------------------------------------------------
    def with_lesson(self, state: State, lesson: Lesson, adapter: Adapter, report: LearnReport) -> State:
        values = self._learn_values(lesson, adapter, report)
        gate = shared_gate()
        keys = np.concatenate([gate.fingerprint(text) for text in (lesson.prompt, *lesson.wordings)])
        ops = adapter.ops
        return {
            **state,
            f"keys/{lesson.id}": ops.asarray(keys, "float16"),
            f"values/{lesson.id}": ops.asarray(values.astype(np.float16), "float16"),
        }

    def _learn_values(self, lesson: Lesson, adapter: Adapter, report: LearnReport) -> np.ndarray:
        """The values [S, D] that make the model answer `lesson.prompt` with exactly `lesson.answer`.

        Where the layers that learn are not those that reply, the reply is tried out, and a wider margin learned until
        it is given.
        """
        ops, options, margin = adapter.ops, self.options, self.options.margin
        batch = Batch(adapter, [of_one_lesson(adapter, lesson.prompt, lesson.answer)], self.sites(adapter)[0])
        size = batch.size

        def loss_of(params: State) -> Array:
            return batch.total(batch.plus(params["values"] * size), margin)

        params = {"values": ops.zeros(batch.h.shape[1:])}
        for _ in range(TRIES):
            adam = Optimizer(ops, "adam", options.lr, betas=BETAS)
            params = fit(loss_of, params, adam, options.steps, report, LEARNED, step_back=True).params
            if not adapter.learns_apart or batch.said(params["values"] * size):
                break
            margin *= WIDER
        return ops.to_numpy(params["values"]) * size

    def check_state(self, arrays: dict[str, Any], lessons: Sequence[Lesson], adapter: Adapter) -> None:
        self.check_rows(arrays, lessons, {"keys": WIDTH, "values": adapter.shape.width})
        for lesson in lessons:
            _entries(lesson, arrays[f"keys/{lesson.id}"])


def _padded(ops: Ops, rows: Sequence[Array | None]) -> Array:
    """Values [S_b, D] of each row as [B, S, D], zero where there are none."""
    steps, width = max(r.shape[0] for r in rows if r is not None), next(r.shape[1] for r in rows if r is not None)
    full = []
    for row in rows:
        some = ops.float32(row) if row is not None else ops.zeros((0, width))
        full.append(ops.concat([some, ops.zeros((steps - some.shape[0], width))], 0)[None])
    return ops.concat(full, 0)


def _tells(lesson: Lesson, text: str) -> bool:
    """Does the answer of a lesson tell what is asked? The question of one that was stated, and not taught, was made of
    the statement, and others are easily taken for it: "What does my cleaner charge?" for "What is my cleaner?"
    """
    if not lesson.stated or (second := shared_cross()) is None:
        return True
    is_part = len(clauses(lesson.echo)) > 1
    return second.helps(text, lesson.answer) >= (TELLS_BESIDE if is_part else TELLS)


def _entries(lesson: Lesson, keys: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """A lesson's prompt and wordings, each with its fingerprint: these are stored as one array. Raises StateError."""
    prompts = (lesson.prompt, *lesson.wordings)
    sizes = [len(views(text)) for text in prompts]
    if sum(sizes) != len(keys):
        raise StateError(
            f"lesson {lesson.id} has {len(keys)} key vectors for {sum(sizes)}; re-teach it: lmm memory migrate"
        )
    return list(zip(prompts, np.split(keys, np.cumsum(sizes)[:-1]), strict=True))
