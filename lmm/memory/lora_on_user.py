"""`lora_on_user`: one low-rank update at the middle layer, trained on what the user says.

    h' = h + h A B        h [.., D], A [D, r] normal, B [r, D] zero  =>  the fresh memory changes nothing

On each user message: the cross-entropy of its content tokens under the full previous context; tokens above the mean
enter the loss; by default exactly one AdamW step on A and B. The defaults are the original's. One direction that acts
on every token cannot be both strong and local: see the sweep in docs/sweeps.md.

With `target=reply` (preset `gentle`) it is trained on replies to the questions that the message answers, and

    h' = h + g h A B       g = 1 in replies to a question whose nearest stored key has a cosine of at least `gate`

at the last prompt token and after, g = 0 elsewhere. `keys` [K, D] are the centred, normalised states of the questions
learned and of general ones, `owner` [K] says whose (0: nobody's); with `gate=0` it acts on every token, as without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lmm.lesson import Knowledge, Lesson, State
from lmm.memory.base import LearnReport, Memory, Prompt, Recall, UserMessage
from lmm.memory.batch import Batch, rows_of, with_earlier
from lmm.memory.message import TARGETS, Heard, above_mean, heard
from lmm.memory.optim import OPTIMIZERS, Optimizer, fit
from lmm.memory.states import known_keys, last_states, number_of, owners, unit
from lmm.options import Options, learning, option

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter, TapContext
    from lmm.adapters.ops import Array, Ops

MARGIN = 0.01  # of the cosine by which a general question must be nearer than a learned one


@dataclass(frozen=True)
class LoraOptions(Options):
    """With width 576 and rank 8, an `a_std` of .02 gives h A a size of about .5 |h| per column.

    A and B are shared, and the last lesson would overwrite the others: `rehearse` trains them again, by their first
    question. Numbers: docs/sweeps.md.
    """

    rank: int = option(8, "columns of A", "[1, 512]")
    lr: float = learning(1e-3, "learning rate", "(0, 10)")
    steps: int = learning(1, "for each message", "[1, 1000]")
    optimizer: str = learning("adamw", "which steps", one_of=OPTIMIZERS)
    weight_decay: float = learning(0.01, "of the optimizer", "[0, inf)")
    l2: float = learning(0.0, "weight of |A|^2 + |B|^2 in the loss", "[0, inf)")
    a_std: float = learning(0.02, "standard deviation of the fresh A", "[0, inf)")
    target: str = option("message", "train on the message, or on replies to the questions it answers", one_of=TARGETS)
    gate: float = option(0.0, "cosine that a question needs to a learned one; 0: no gate", "[0, 1)")
    goal: float = learning(0.0, "mean loss that is good enough", "[0, inf)")
    rehearse: int = learning(0, "earlier lessons that are trained again", "[0, inf)")

    def together(self) -> list[str]:
        keyless = self.gate and self.target == "message"
        return ["gate needs target=reply: only questions have a key"] if keyless else []


class LoraOnUser(Memory):
    name = "lora_on_user"
    summary = "h + h A B at the middle layer; one AdamW step on each user message"
    Options = LoraOptions
    rows = ("keys", "owner")
    learns_from = "messages"
    rewrites_history = True
    presets: ClassVar = {
        "gentle": {"target": "reply", "gate": 0.7, "lr": 1e-2, "steps": 30, "goal": 0.05, "rehearse": 16}
    }

    def fresh(self, adapter: Adapter, seed: int = 0) -> State:
        ops, d, r = adapter.ops, adapter.shape.width, self.options.rank
        state = {"A": ops.normal((d, r), seed, self.options.a_std), "B": ops.zeros((r, d))}
        if self.options.gate:
            state |= {"keys": ops.zeros((0, d)), "owner": ops.asarray(np.zeros(0), "int64"), "centre": ops.zeros((d,))}
        return state

    def trainable(self, state: State) -> tuple[str, ...]:
        return () if self.options.gate else ("A", "B")  # a gate opens for lessons only: without one, no gradient

    def on_prompt(
        self, state: State, lessons: Sequence[Lesson], prompts: Sequence[Prompt], adapter: Adapter
    ) -> Recall | None:
        if not self.options.gate or state["keys"].shape[0] == 0:
            return None
        ops = adapter.ops
        keys, owner, centre = (ops.to_numpy(state[name]) for name in ("keys", "owner", "centre"))
        h = last_states(adapter, self.sites(adapter)[0], [prompt.tokens for prompt in prompts])
        cosine = unit(h - centre) @ keys.T
        nearest = (cosine + MARGIN * (owner > 0)).argmax(axis=1)
        strength, whose = cosine[np.arange(len(h)), nearest], owner[nearest]
        gate = (whose > 0) & (strength >= self.options.gate)
        if not gate.any():
            return None
        ids = owners(whose, lessons)
        fired = [[(i, float(c))] if g else [] for i, c, g in zip(ids, strength, gate, strict=True)]
        return Recall(fired, {"gate": ops.asarray(gate.astype(np.float32)[:, None, None])})

    def rewrite(
        self, ops: Ops, state: State, recall: Recall | None, x_in: Array, x_out: Array, context: TapContext
    ) -> Array:
        if not self.options.gate:
            return x_out + ops.cast_like(ops.float32(x_out) @ state["A"] @ state["B"], x_out)
        return low_rank_in_reply(ops, state, recall, x_out, context)

    def learn(
        self, known: Knowledge, lesson: Lesson, adapter: Adapter, message: UserMessage | None, report: LearnReport
    ) -> Knowledge:
        if self.options.target == "reply":
            return known.taught(self._learn_replies(known, lesson, adapter, report), lesson)
        said = heard(adapter, lesson, message, self.sites(adapter)[0])
        return known.taught(self._learn_message(known.state, said, adapter, report), lesson)

    def _learn_message(self, state: State, message: Heard, adapter: Adapter, report: LearnReport) -> State:
        ops = adapter.ops

        def through(params: State) -> Callable[[Array], Array]:
            return lambda h: self.rewrite(ops, params, None, h, h, message.context)

        losses = ops.to_numpy(message.losses(through(state)))
        chosen = above_mean(losses)
        weights = ops.asarray(chosen.astype(np.float32) / chosen.sum())

        def loss_of(params: State) -> Array:
            return ops.sum(message.losses(through(params)) * weights)

        params, norms = self._train(state, loss_of, adapter, report)
        report.details = message.describe(losses.tolist(), through(state)) | norms
        return params

    def _learn_replies(self, known: Knowledge, lesson: Lesson, adapter: Adapter, report: LearnReport) -> State:
        options, ops, site, state = self.options, adapter.ops, self.sites(adapter)[0], known.state
        pairs = lesson.pairs
        if not pairs:
            report.details = {"questions": []}  # nothing one could ask about: nothing to learn
            return state
        rows = rows_of(adapter, with_earlier(pairs, known.lessons, options.rehearse))
        batch = Batch(adapter, rows, site, everywhere=not options.gate)

        def loss_of(params: State) -> Array:
            return batch.mean(low_rank(ops, params, batch.h, batch.live))

        params, norms = self._train(state, loss_of, adapter, report)
        report.details = {"questions": [question for question, _ in pairs], "answer": pairs[0][1]} | norms
        keys = batch.question_states()[: len(pairs)]
        return params | self._keys(state, lesson, keys, adapter) if options.gate else params

    def _keys(self, state: State, lesson: Lesson, questions: np.ndarray, adapter: Adapter) -> State:
        """The stored keys, and before them those of this lesson, from its questions' states [P, D].

        Before the first lesson, those of what no lesson is about.
        """
        ops = adapter.ops
        keys, owner, centre = known_keys(state, adapter, self.sites(adapter)[0])
        new = unit(questions - centre)
        keys, owner = np.concatenate([new, keys]), np.concatenate([np.full(len(new), number_of(lesson.id)), owner])
        return {"keys": ops.asarray(keys), "owner": ops.asarray(owner, "int64"), "centre": ops.asarray(centre)}

    def _train(
        self, state: State, loss_of: Callable[[State], Array], adapter: Adapter, report: LearnReport
    ) -> tuple[State, dict[str, float]]:
        """A and B after at most `steps` steps, and the norms of the last gradients."""
        options, ops = self.options, adapter.ops

        def penalised(params: State) -> Array:
            return loss_of(params) + options.l2 * sum(ops.sum(p * p) for p in params.values())

        optimizer = Optimizer(ops, options.optimizer, options.lr, options.weight_decay)
        start, loss = {name: state[name] for name in ("A", "B")}, penalised if options.l2 else loss_of
        found = fit(loss, start, optimizer, options.steps, report, options.goal or -np.inf)
        norms = {f"grad_{name}_norm": float(np.linalg.norm(ops.to_numpy(g))) for name, g in found.grads.items()}
        return found.params, norms


def low_rank_in_reply(ops: Ops, state: State, recall: Recall | None, x_out: Array, context: TapContext) -> Array:
    """`low_rank` from the last prompt token on, as far as the recalled gate [B, 1, 1] is open."""
    if recall is None or context.positions[-1] < recall.start:
        return x_out
    live = ops.asarray((context.positions >= recall.start).astype(np.float32)[None, :, None])
    return low_rank(ops, state, x_out, recall.arrays["gate"] * live)


def low_rank(ops: Ops, state: State, h: Array, g: Array) -> Array:
    """h + g h A B for hidden states h [B, T, D] and a gate g that is broadcast to them."""
    return h + ops.cast_like(ops.float32(h) @ state["A"] @ state["B"] * g, h)
