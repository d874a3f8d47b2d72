"""Optimisers over `Ops`: twenty lines that do the same on every backend.

AdamW: Loshchilov & Hutter, arXiv 1711.05101, algorithm 2; constants are its defaults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmm.errors import UsageError

if TYPE_CHECKING:
    from lmm.adapters.ops import Ops, Params

OPTIMIZERS = ("adamw", "adam", "sgd")


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
        self.ops, self.name, self.lr, self.decay, self.betas, self.eps = ops, name, lr, weight_decay, betas, eps
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
