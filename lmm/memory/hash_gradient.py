"""`hash_gradient`: a table of corrections, addressed by a binary hash of the middle layer's hidden states.

    bit_i(h) = [h[a_i] > h[b_i]]   for r fixed channel pairs (a_i, b_i)   -> a code of r bits
    h' = h + row(code)             the stored row of that code; on a miss the nearest stored row that shares at least
                                   `share` of the bits; otherwise nothing

The table is conceptually [2^r, D]; only rows that were learned are stored: `bits` [M, r] as -1/+1, `rows` [M, D].
On each user message, every content token with a cross-entropy above the mean updates the row of the position that
predicts it, by a few Adam steps on that token's loss alone, until it is below `goal`. Constants are the original's:
12 pairs, 80 % of the bits, 3-20 steps at 5e-2, goal 1.

With `target=reply` (preset `gentle`) the rows are trained on replies to the questions that the message answers, all
at once, and act only in replies: from the last prompt token on, and only if that token's row is a learned one. The
hash is then of h less its mean over general prompts (`centre` [D]), whose rows are stored as zero; `owner` [M] says
whose lesson a row is (0: nobody's).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lmm.lesson import Knowledge, Lesson, State
from lmm.memory.base import LearnReport, Memory, Prompt, Recall, UserMessage
from lmm.memory.batch import Batch, rows_of
from lmm.memory.message import TARGETS, Heard, above_mean, heard
from lmm.memory.optim import Optimizer, finite, fit
from lmm.memory.states import last_states, number_of, owners, plain_states
from lmm.options import Options, learning, option

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter, TapContext
    from lmm.adapters.ops import Array, Ops


@dataclass(frozen=True)
class HashOptions(Options):
    bits: int = option(12, "channel pairs that are compared", "[1, 4096]")
    share: float = option(0.8, "bits that the nearest stored row must share", "(0.5, 1]")
    lr: float = learning(5e-2, "of Adam", "(0, 10)")
    min_steps: int = learning(3, "for each token, at least", "[1, 1000]")
    max_steps: int = learning(20, "for each token, at most", "[1, 1000]")
    goal: float = learning(1.0, "cross-entropy that is good enough", "[0, inf)")
    seed: int = option(0, "of the channel pairs", "[0, inf)")
    target: str = option("message", "train on the message, or on replies to the questions it answers", one_of=TARGETS)

    def together(self) -> list[str]:
        if self.min_steps <= self.max_steps:
            return []
        return [f"min_steps must be at most max_steps, not {self.min_steps} and {self.max_steps}"]


class HashGradient(Memory):
    name = "hash_gradient"
    summary = "correction rows addressed by a binary hash of the middle layer's hidden states"
    Options = HashOptions
    rows = ("bits", "rows", "owner")
    learns_from = "messages"
    rewrites_history = True
    presets: ClassVar = {
        "gentle": {"target": "reply", "bits": 512, "share": 0.7, "lr": 1.0, "max_steps": 20, "goal": 0.1}
    }

    def fresh(self, adapter: Adapter, seed: int = 0) -> State:
        ops, width = adapter.ops, adapter.shape.width
        state = {"bits": ops.zeros((0, self.options.bits)), "rows": ops.zeros((0, width))}
        if self.options.target == "reply":
            state |= {"owner": ops.asarray(np.zeros(0), "int64"), "centre": ops.zeros((width,))}
        return state

    def on_prompt(
        self, state: State, lessons: Sequence[Lesson], prompts: Sequence[Prompt], adapter: Adapter
    ) -> Recall | None:
        if self.options.target == "message" or state["bits"].shape[0] == 0:
            return None
        ops = adapter.ops
        h = last_states(adapter, self.sites(adapter)[0], [prompt.tokens for prompt in prompts])
        hit, index = self._nearest(ops, state["bits"], self.signs(ops, ops.asarray(h) - state["centre"]))
        whose = ops.to_numpy(state["owner"])[ops.to_numpy(index)]
        gate = (ops.to_numpy(hit) > 0) & (whose > 0)
        if not gate.any():
            return None
        fired = [[(i, 1.0)] if g else [] for i, g in zip(owners(whose, lessons), gate, strict=True)]
        return Recall(fired, {"gate": ops.asarray(gate.astype(np.float32)[:, None])})

    def signs(self, ops: Ops, h: Array) -> Array:
        """Hidden states [.., D] -> the hash as -1/+1, [.., r]."""
        first, second = (
            ops.asarray(side, "int64") for side in _pairs(h.shape[-1], self.options.bits, self.options.seed)
        )
        higher = ops.take(h, first, h.ndim - 1) > ops.take(h, second, h.ndim - 1)
        return ops.where(higher, ops.asarray(1.0), ops.asarray(-1.0))

    def rewrite(
        self, ops: Ops, state: State, recall: Recall | None, x_in: Array, x_out: Array, context: TapContext
    ) -> Array:
        if state["bits"].shape[0] == 0:
            return x_out
        if self.options.target == "message":
            hit, index = self._nearest(ops, state["bits"], self.signs(ops, x_out))
            return x_out + ops.cast_like(ops.take(state["rows"], index) * hit[..., None], x_out)
        if recall is None or context.positions[-1] < recall.start:
            return x_out
        hit, index = self._nearest(ops, state["bits"], self.signs(ops, ops.float32(x_out) - state["centre"]))
        live = ops.asarray((context.positions >= recall.start).astype(np.float32)[None])
        return x_out + ops.cast_like(
            ops.take(state["rows"], index) * (hit * live * recall.arrays["gate"])[..., None], x_out
        )

    def _nearest(self, ops: Ops, stored: Array, signs: Array) -> tuple[Array, Array]:
        """For hashes [.., r]: 1. where a stored row is near enough (else 0.), and the index of the nearest."""
        agree = ops.einsum("...r,mr->...m", signs, stored)  # r - 2 x differing bits
        index = ops.argmax(agree)
        best = ops.take_along(agree, index[..., None])[..., 0]
        near = (best + self.options.bits) / (2 * self.options.bits) >= self.options.share - 1e-6
        return ops.where(near, ops.asarray(1.0), ops.asarray(0.0)), index

    def learn(
        self, known: Knowledge, lesson: Lesson, adapter: Adapter, message: UserMessage | None, report: LearnReport
    ) -> Knowledge:
        if self.options.target == "reply":
            return known.taught(self._learn_replies(known.state, lesson, adapter, report), lesson)
        said = heard(adapter, lesson, message, self.sites(adapter)[0])
        return known.taught(self._learn_message(known.state, said, adapter, report), lesson)

    def _learn_message(self, state: State, message: Heard, adapter: Adapter, report: LearnReport) -> State:
        ops = adapter.ops

        def rewrite(h: Array) -> Array:
            return self.rewrite(ops, state, None, h, h, message.context)

        losses = ops.to_numpy(message.losses(rewrite))
        report.details = message.describe(losses.tolist(), rewrite)
        high = [int(i) for i in np.flatnonzero(above_mean(losses))]
        signs = ops.to_numpy(self.signs(ops, message.h))[0]
        for i in high:
            state = self._learn_token(state, message, i, signs[message.sources[i]], report)
        report.loss_before = float(losses[high].mean())
        after = ops.to_numpy(message.losses(lambda h: self.rewrite(ops, state, None, h, h, message.context)))
        report.loss_after = finite(float(after[high].mean()))
        return state

    def _learn_token(self, state: State, message: Heard, i: int, code: np.ndarray, report: LearnReport) -> State:
        """The state with the row of `code` [r] moved until content token i costs less than the goal."""
        options, adapter = self.options, message.adapter
        ops = adapter.ops
        bits, rows = ops.to_numpy(state["bits"]), ops.to_numpy(state["rows"])
        found = np.flatnonzero((bits == code).all(axis=1))
        if len(found) == 0:
            bits, rows = np.vstack([bits, code]), np.vstack([rows, np.zeros((1, rows.shape[1]), np.float32)])
            found = np.array([len(bits) - 1])
        at = ops.asarray((np.arange(len(bits)) == found[0]).astype(np.float32)[:, None])  # [M, 1]
        table = {"bits": ops.asarray(bits.astype(np.float32)), "rows": ops.asarray(rows.astype(np.float32))}

        def with_row(row: Array) -> State:
            return {"bits": table["bits"], "rows": table["rows"] * (1.0 - at) + at * row}

        def loss_of(params: State) -> Array:
            edited = with_row(params["row"])
            return message.losses(lambda h: self.rewrite(ops, edited, None, h, h, message.context))[i]

        def noted(grads: State) -> State:
            norm = float(np.linalg.norm(ops.to_numpy(grads["row"])))
            report.details.setdefault("grad_row_norms", []).append(norm)
            return grads

        start, adam = {"row": table["rows"][int(found[0]) : int(found[0]) + 1]}, Optimizer(ops, "adam", options.lr)
        learned = fit(loss_of, start, adam, options.max_steps, report, options.goal, options.min_steps, noted)
        new = with_row(learned.params["row"])
        ops.evaluate(new["rows"])
        return new

    def _learn_replies(self, state: State, lesson: Lesson, adapter: Adapter, report: LearnReport) -> State:
        """One row for each reply token of each wording, moved together until every token costs less than the goal."""
        options, ops = self.options, adapter.ops
        pairs = lesson.pairs
        report.details = {"questions": [question for question, _ in pairs]}
        if not pairs:  # nothing one could ask about: nothing to learn
            return state
        batch = Batch(adapter, rows_of(adapter, pairs), self.sites(adapter)[0])
        bits, rows, owner, centre = self._table(state, adapter)
        codes = ops.to_numpy(self.signs(ops, ops.float32(batch.h) - ops.asarray(centre)))[batch.answers]  # [N, r]
        bits, rows, index = _with_rows(bits, rows, codes)
        owner = np.concatenate([owner, np.zeros(len(bits) - len(owner), np.int64)])
        owner[index] = number_of(lesson.id)
        where = np.zeros(batch.answers.shape, np.int64)  # the row of each position, [P, T]
        where[batch.answers] = index
        mine = np.unique(index)
        local = ops.asarray(np.searchsorted(mine, where).clip(0, len(mine) - 1), "int64")

        def loss_of(params: State) -> Array:
            losses = batch.losses(batch.plus(ops.take(params["rows"], local) * batch.live))
            return ops.sum(ops.maximum(losses - options.goal, 0.0))

        start, adam = {"rows": ops.asarray(rows[mine])}, Optimizer(ops, "adam", options.lr)
        rows[mine] = ops.to_numpy(fit(loss_of, start, adam, options.max_steps, report, 0.0).params["rows"])
        new = {"bits": ops.asarray(bits), "rows": ops.asarray(rows), "centre": ops.asarray(centre)}
        return new | {"owner": ops.asarray(owner, "int64")}

    def _table(self, state: State, adapter: Adapter) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Bits [M, r], rows [M, D], their owners [M], centre [D]; at first, those of what no lesson is about."""
        ops = adapter.ops
        bits, rows, owner, centre = (ops.to_numpy(state[name]) for name in ("bits", "rows", "owner", "centre"))
        if len(bits) == 0:
            plain = plain_states(adapter, self.sites(adapter)[0])
            centre = plain.mean(axis=0)
            bits = ops.to_numpy(self.signs(ops, ops.asarray(plain - centre)))
            rows, owner = np.zeros((len(bits), len(centre)), np.float32), np.zeros(len(bits), np.int64)
        return bits, rows, owner, centre


def _with_rows(bits: np.ndarray, rows: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The table with a row for each of codes [N, r], and the row of each, [N]. New rows are zero."""
    known = {code.tobytes(): i for i, code in enumerate(bits)}
    index = np.array([known.setdefault(code.tobytes(), len(known)) for code in codes])
    new = np.array([np.frombuffer(code, bits.dtype) for code in list(known)[len(bits) :]], bits.dtype)
    if len(new):
        bits = np.concatenate([bits, new])
        rows = np.concatenate([rows, np.zeros((len(new), rows.shape[1]), np.float32)])
    return bits, rows, index


@cache
def _pairs(width: int, bits: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The channels that are compared, [r] and [r]."""
    random = np.random.default_rng(seed)
    pairs = np.stack([random.choice(width, 2, replace=False) for _ in range(bits)])
    return pairs[:, 0].copy(), pairs[:, 1].copy()
