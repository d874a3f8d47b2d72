"""Optimisers over `Ops`, twenty lines that do the same on every backend, and the loop in which memories learn.

AdamW: Loshchilov & Hutter, arXiv 1711.05101, algorithm 2; constants are its defaults.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmm.errors import LearningError, UsageError

if TYPE_CHECKING:
    from lmm.adapters.ops import Array, Ops, Params
    from lmm.memory.base import LearnReport

OPTIMIZERS = ("adamw", "adam", "sgd")
BETAS = (0.9, 0.95)  # for a few dozen steps of Adam at most: the second moment must follow quickly


class Optimizer:
    """Steps of `params` against gradients. Holds first and second moments; `moments` and `t` can be saved and set."""

    def __init__(
        self,
        ops: Ops,
        name: str = "adamw",
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        if name not in OPTIMIZERS:
            raise UsageError(f"unknown optimizer {name!r}; known: {', '.join(OPTIMIZERS)}")
        self.ops, self.name, self.decay, self.betas, self.eps = ops, name, weight_decay, betas, eps
        self.restart(lr)

    def restart(self, lr: float) -> None:
        """Forget the moments, and go on with another learning rate."""
        self.lr = lr
        self.m: Params = {}
        self.v: Params = {}
        self.t = 0

    def step(self, params: Params, grads: Params) -> Params:
        """The parameters after one step; weight decay is decoupled from the gradient for every optimiser."""
        self.t += 1
        return {name: p - self.lr * (self._direction(name, grads[name]) + self.decay * p) for name, p in params.items()}

    def _direction(self, name: str, g):
        if self.name == "sgd":
            return g
        b1, b2 = self.betas
        self.m[name] = b1 * self.m[name] + (1 - b1) * g if name in self.m else (1 - b1) * g
        self.v[name] = b2 * self.v[name] + (1 - b2) * g * g if name in self.v else (1 - b2) * g * g
        m_hat, v_hat = self.m[name] / (1 - b1**self.t), self.v[name] / (1 - b2**self.t)
        return m_hat / (self.ops.sqrt(v_hat) + self.eps)


@dataclass(frozen=True)
class Fitted:
    """`params`, the `loss` they have, and the `grads` of the last step or look."""

    params: Params
    loss: float
    grads: Params


def fit(
    loss_of: Callable[[Params], Array],
    params: Params,
    optimizer: Optimizer,
    steps: int,
    report: LearnReport,
    goal: float = -math.inf,
    least: int = 0,
    shape: Callable[[Params], Params] = lambda grads: grads,
    step_back: bool = False,
) -> Fitted:
    """The parameters after at most `steps` steps, or as soon as the loss is at most `goal`, after `least` of them.

    `shape` has the gradients before each step. With `step_back`, a step that more than doubles the lowest loss so far
    went over an edge, often onto a plateau without gradients: it is taken back, and half as long from there; and where
    the goal is never met, the parameters are the best that were. Few lessons need that (6 of CounterFact's first 500),
    but those were never learned without. Raises LearningError if the loss is no number; `report.step` may raise, too.
    """
    lowest, best, before = math.inf, (params, params), report.steps
    for step in range(steps):
        loss, grads = optimizer.ops.value_and_grad(loss_of, params)
        if finite(loss) <= goal and step >= least:
            break
        if step_back and loss > 2 * lowest:
            optimizer.restart(optimizer.lr / 2)
            params, grads = best
        elif loss < lowest:
            lowest, best = loss, (params, grads)
        params = optimizer.step(params, shape(grads))
        optimizer.ops.evaluate(*params.values())
        report.step(loss)
    else:
        loss = finite(optimizer.ops.item(loss_of(params)))
        if step_back and loss > goal and loss >= lowest:
            loss, params = lowest, best[0]
    report.loss_before = loss if report.steps == before else report.loss_before
    report.loss_after = loss
    return Fitted(params, loss, grads)


def finite(loss: float) -> float:
    """The loss. Raises LearningError if it is NaN or infinite, so that nothing is kept that was made from it."""
    if not math.isfinite(loss):
        raise LearningError(
            f"learning ran into a loss of {loss}; the memory is as before. Try a smaller learning rate (--set lr=...)"
        )
    return loss
