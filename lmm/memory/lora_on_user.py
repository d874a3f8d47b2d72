"""`lora_on_user`: one low-rank update at the middle layer, trained on what the user says.

    h' = h + h A B        h [.., D], A [D, r] normal, B [r, D] zero  =>  the fresh memory changes nothing

On each user message: the cross-entropy of its content tokens under the full previous context; tokens above the mean
enter the loss; by default exactly one AdamW step on A and B. The defaults are the original's. One direction that acts
on every token cannot be both strong and local: see the sweep in docs/sweeps.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmm.memory.base import LearnReport, Lesson, Memory, Recall, State, Turn
from lmm.memory.message import Message, above_mean, checked, turn_of
from lmm.memory.optim import OPTIMIZERS, Optimizer

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter, TapContext
    from lmm.adapters.ops import Array, Ops


@dataclass(frozen=True)
class LoraOptions:
    """`a_std`: standard deviation of A; with width 576 and rank 8, .02 gives h A a size of about .5 |h| per column."""

    rank: int = 8
    lr: float = 1e-3
    steps: int = 1
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    l2: float = 0.0
    a_std: float = 0.02

    def __post_init__(self) -> None:
        problems = []
        if not 1 <= self.rank <= 512:
            problems.append(f"rank must be 1 to 512, not {self.rank}")
        if not 0 < self.lr < 10:
            problems.append(f"lr must be above 0 and below 10, not {self.lr}")
        if not 1 <= self.steps <= 1000:
            problems.append(f"steps must be 1 to 1000, not {self.steps}")
        if self.optimizer not in OPTIMIZERS:
            problems.append(f"optimizer must be one of {', '.join(OPTIMIZERS)}, not {self.optimizer!r}")
        if min(self.weight_decay, self.l2, self.a_std) < 0:
            problems.append("weight_decay, l2 and a_std must not be negative")
        if problems:
            raise ValueError("; ".join(problems))


class LoraOnUser(Memory):
    name = "lora_on_user"
    summary = "h + h A B at the middle layer; one AdamW step on each user message"
    Options = LoraOptions
    learns_from = "messages"
    rewrites_history = True

    def fresh(self, adapter: Adapter, seed: int = 0) -> State:
        d, r = adapter.shape.width, self.options.rank
        return {"A": adapter.ops.normal((d, r), seed, self.options.a_std), "B": adapter.ops.zeros((r, d))}

    def rewrite(
        self, ops: Ops, state: State, recall: Recall | None, x_in: Array, x_out: Array, context: TapContext
    ) -> Array:
        return x_out + ops.cast_like(ops.float32(x_out) @ state["A"] @ state["B"], x_out)

    def learn(
        self,
        state: State,
        lesson: Lesson,
        adapter: Adapter,
        turn: Turn | None = None,
        report: LearnReport | None = None,
    ) -> State:
        options, ops = self.options, adapter.ops
        report = report or LearnReport()
        message = Message(adapter, turn or turn_of(adapter, lesson), self.sites(adapter)[0])

        def through(params: State) -> Callable[[Array], Array]:
            return lambda h: self.rewrite(ops, params, None, h, h, message.context)

        losses = ops.to_numpy(message.losses(through(state)))
        chosen = above_mean(losses)
        weights = ops.asarray(chosen.astype(np.float32) / chosen.sum())

        def loss_of(params: State) -> Array:
            loss = ops.sum(message.losses(through(params)) * weights)
            return loss + options.l2 * sum(ops.sum(p * p) for p in params.values()) if options.l2 else loss

        optimizer = Optimizer(ops, options.optimizer, options.lr, options.weight_decay)
        params: State = dict(state)
        grads: State = {}
        for _ in range(options.steps):
            loss, grads = ops.value_and_grad(loss_of, params)
            params = optimizer.step(params, grads)
            ops.evaluate(*params.values())
            checked(loss, params, adapter)
            report.step(loss)
        report.loss_after = ops.item(loss_of(params))
        report.details = message.describe(losses.tolist(), through(state)) | {
            f"grad_{name}_norm": float(np.linalg.norm(ops.to_numpy(g))) for name, g in grads.items()
        }
        checked(report.loss_after, params, adapter)
        return params
