"""`gated_lora`: a low-rank update, and a learned gate between the base model's states and the tuned ones.

    g  = sigmoid(w2 . relu(x W1 + b1) + b2)      x: the state at the last prompt token, centred, RMS 1; W1 [D, D/4]
    h' = (1 - g) h + g (h + h A B)               at the middle layer, from the last prompt token on

Option 2 of the Engram proof of concept, `gate * tuned + (1 - gate) * base` with that gate network, with two changes:
the mixture is made of hidden states, so that one pass is enough where two models' logits need two; and the gate decides
once per reply, at the end of the prompt. Below `open`, and for prompts unlike all the gate was fitted to, the reply
is bitwise the base model's. b2 begins at `bias`, w2 and B at zero: the fresh gate is shut, the fresh update is nothing.

A lesson first fits the gate: 1 for the states of all questions learned (`keys` [K, D] with `owner` [K]), 0 for those of
general questions (owner 0) and of its own questions asked about others (owner negative); no model is run for that. Then
A and B learn the replies to its questions, and to those of `rehearse` earlier lessons, until the loss is below `goal`.
What the gate did is in /why and in the log: (lesson, g).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmm.lesson import Knowledge, Lesson, State
from lmm.memory.base import LearnReport, Memory, Prompt, Recall, UserMessage
from lmm.memory.batch import Batch, rows_of, with_earlier
from lmm.memory.contrast import near_misses
from lmm.memory.lora_on_user import low_rank, low_rank_in_reply
from lmm.memory.optim import Optimizer, fit
from lmm.memory.states import known_keys, last_states, number_of, owners, unit
from lmm.options import Options, learning, option

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter, TapContext
    from lmm.adapters.ops import Array, Ops

GATE = ("gate_in", "gate_hidden", "gate_out", "gate_bias")  # W1, b1, w2, b2
UPDATE = ("A", "B")
GATE_GOAL = 0.02  # a loss of the gate that is good enough
SAME = 0.95  # the cosine of two states from which they are of the same question


@dataclass(frozen=True)
class GatedLoraOptions(Options):
    """Numbers: docs/engram.md."""

    rank: int = option(8, "columns of A", "[1, 512]")
    lr: float = learning(1e-2, "of AdamW on A and B", "(0, 10)")
    steps: int = learning(40, "on A and B, at most", "[1, 1000]")
    goal: float = learning(0.05, "mean loss that is good enough", "[0, inf)")
    rehearse: int = learning(4, "earlier lessons that are trained again", "[0, inf)")
    bias: float = learning(-5.0, "of the fresh gate", "[-20, 20]")
    open: float = option(0.5, "gate below which nothing is changed", "(0, 1)")
    near: float = option(0.6, "cosine to the nearest key below which the gate is shut", "[-1, 1]")
    gate_lr: float = learning(3e-3, "of Adam on the gate", "(0, 10)")
    gate_steps: int = learning(60, "on the gate, at most", "[1, 1000]")
    a_std: float = learning(0.02, "standard deviation of A", "[0, inf)")


class GatedLora(Memory):
    name = "gated_lora"
    summary = "a low-rank update behind a learned gate between base and tuned states"
    replies_per_lesson = 50.0  # measured: 81 and 166 s where a reply took 2.2 s
    Options = GatedLoraOptions
    rows = ("keys", "owner")

    def fresh(self, adapter: Adapter, seed: int = 0) -> State:
        ops, d, r = adapter.ops, adapter.shape.width, self.options.rank
        inner = max(1, d // 4)
        return {
            "A": ops.normal((d, r), seed, self.options.a_std),
            "B": ops.zeros((r, d)),
            "gate_in": ops.normal((d, inner), seed + 1, d**-0.5),
            "gate_hidden": ops.zeros((inner,)),
            "gate_out": ops.zeros((inner,)),
            "gate_bias": ops.asarray(np.array([self.options.bias], np.float32)),
            "keys": ops.zeros((0, d)),
            "owner": ops.asarray(np.zeros(0), "int64"),
            "centre": ops.zeros((d,)),
        }

    # reading -------------------------------------------------------------------------------------------------
    def on_prompt(
        self, state: State, lessons: Sequence[Lesson], prompts: Sequence[Prompt], adapter: Adapter
    ) -> Recall | None:
        if state["keys"].shape[0] == 0:
            return None
        ops = adapter.ops
        h = last_states(adapter, self.sites(adapter)[0], [prompt.tokens for prompt in prompts])
        x = unit(h - ops.to_numpy(state["centre"]))
        gate = ops.to_numpy(ops.sigmoid(self.gate_logits(ops, state, ops.asarray(x))))
        opened = gate >= self.options.open
        owner, keys = ops.to_numpy(state["owner"]), ops.to_numpy(state["keys"])
        learned = owner > 0
        to_own, to_others = (np.where(which, x @ keys.T, -np.inf) for which in (learned, not_learned(keys, learned)))
        nearest = to_own.argmax(axis=1)
        # A gate knows little of what is unlike all it was fitted to: there it is shut.
        opened &= to_own.max(axis=1) >= np.maximum(self.options.near, to_others.max(axis=1))
        if not opened.any():
            return None
        ids = owners(owner[nearest], lessons)  # whose question it is most like: the gate itself does not tell
        fired = [[(i, float(g))] if yes else [] for i, g, yes in zip(ids, gate, opened, strict=True)]
        return Recall(fired, {"gate": ops.asarray((gate * opened).astype(np.float32)[:, None, None])})

    @staticmethod
    def gate_logits(ops: Ops, state: State, x: Array) -> Array:
        """Unit states [N, D] -> what the gate is the sigmoid of, [N]."""
        inner = ops.maximum(x * x.shape[-1] ** 0.5 @ state["gate_in"] + state["gate_hidden"], 0.0)
        return inner @ state["gate_out"] + state["gate_bias"]

    def rewrite(
        self, ops: Ops, state: State, recall: Recall | None, x_in: Array, x_out: Array, context: TapContext
    ) -> Array:
        return low_rank_in_reply(ops, state, recall, x_out, context)

    # learning ------------------------------------------------------------------------------------------------
    def learn(
        self, known: Knowledge, lesson: Lesson, adapter: Adapter, message: UserMessage | None, report: LearnReport
    ) -> Knowledge:
        options, ops, state = self.options, adapter.ops, known.state
        self.needs_question_and_answer(lesson)
        pairs, site = lesson.pairs, self.sites(adapter)[0]
        batch = Batch(adapter, rows_of(adapter, with_earlier(pairs, known.lessons, options.rehearse)), site)
        states = batch.question_states()[: len(pairs)]
        state = self._with_keys(state, states, number_of(lesson.id), adapter)
        missed = [q for i, (question, _) in enumerate(pairs) for q in near_misses(question)[i % 3 :: 3]]
        if missed:
            others = last_states(adapter, site, [adapter.format.prompt_tokens(q) for q in missed])
            state = self._with_keys(state, others, -number_of(lesson.id), adapter)
        state = self._fitted(state, adapter)
        x = ops.asarray(unit(batch.question_states() - ops.to_numpy(state["centre"])))
        gate = ops.asarray(ops.to_numpy(ops.sigmoid(self.gate_logits(ops, state, x)))[:, None, None])

        def loss_of(params: State) -> Array:
            return batch.mean(low_rank(ops, params, batch.h, batch.live * gate))

        start, optimizer = {name: state[name] for name in UPDATE}, Optimizer(ops, "adamw", options.lr)
        found = fit(loss_of, start, optimizer, options.steps, report, options.goal)
        report.details = {"questions": [q for q, _ in pairs], "gate": ops.to_numpy(gate).reshape(-1).tolist()}
        return known.taught(state | found.params, lesson)

    def _with_keys(self, state: State, questions: np.ndarray, numbers: int | list[int], adapter: Adapter) -> State:
        """The state with the states [P, D] of questions, owned by `numbers`; the first time, with general ones'."""
        ops = adapter.ops
        keys, owner, centre = known_keys(state, adapter, self.sites(adapter)[0])
        keys = np.concatenate([keys, unit(questions - centre)]).astype(np.float32)
        owner = np.concatenate([owner, np.broadcast_to(np.asarray(numbers, np.int64), len(questions))])
        return state | {
            "keys": ops.asarray(keys), "owner": ops.asarray(owner, "int64"), "centre": ops.asarray(centre)
        }  # fmt: skip

    def _fitted(self, state: State, adapter: Adapter) -> State:
        """The state with the gate fitted to its keys: binary cross-entropy, both sides of equal weight."""
        options, ops = self.options, adapter.ops
        learned, keys = ops.to_numpy(state["owner"]) > 0, ops.to_numpy(state["keys"])
        general = not_learned(keys, learned)
        sign = ops.asarray(np.where(learned, 1.0, -1.0).astype(np.float32))
        share = learned * (0.5 / max(1, learned.sum())) + general * (0.5 / max(1, general.sum()))
        weights = ops.asarray(share.astype(np.float32))

        def loss_of(params: State) -> Array:
            margins = sign * self.gate_logits(ops, params, state["keys"])
            both = ops.concat([margins[:, None] * 0, -margins[:, None]], 1)
            return ops.sum(ops.logsumexp(both) * weights)  # log(1 + exp(-margin))

        start, optimizer = {name: state[name] for name in GATE}, Optimizer(ops, "adam", options.gate_lr)
        return state | fit(loss_of, start, optimizer, options.gate_steps, LearnReport(), GATE_GOAL).params

    # offline training ----------------------------------------------------------------------------------------
    def trainable(self, state: State) -> tuple[str, ...]:
        return UPDATE

    def prepare(self, state: State, pairs: Sequence[tuple[str, str]], adapter: Adapter) -> State:
        """The state with a gate that is open for the pairs' questions; A and B are what training then finds."""
        if not pairs:
            return state
        rows, site = rows_of(adapter, pairs), self.sites(adapter)[0]
        states = [Batch(adapter, rows[i : i + 8], site).question_states() for i in range(0, len(rows), 8)]
        numbers = [number_of("pair: " + question) for question, _ in pairs]
        return self._fitted(self._with_keys(state, np.concatenate(states), numbers, adapter), adapter)


def not_learned(keys: np.ndarray, learned: np.ndarray) -> np.ndarray:
    """Which of the keys [K, D] are of what no lesson is about, [K]: a lesson may be about a general question."""
    return ~learned & ~(keys @ keys[learned].T >= SAME).any(axis=1)
