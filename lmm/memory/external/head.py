"""What a model's output layer answers to: the direction that makes a token likelier, read off the model from outside.

Behind the last layer a model has a norm and a linear map, z = W (g * h / rms(h)). For h = sqrt(D) e_i the norm passes
on sqrt(D) e_i, so D such states show the matrix g * W [V, D] column by column, on every backend, by forward passes of
the output layer alone. Half the difference to the states -sqrt(D) e_i leaves out a bias.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter

ROWS = 64  # states at once: their logits are 64 x V numbers


class Head:
    """`rows(tokens)`: for each token the vector [D] that, times the states' root mean square, adds 1 to its logit."""

    def __init__(self, adapter: Adapter) -> None:
        shape = adapter.shape
        self.matrix = np.empty((shape.vocab, shape.width), np.float16)
        probes = np.eye(shape.width, dtype=np.float32) * shape.width**0.5
        for i in range(0, shape.width, ROWS):
            found = [_logits(adapter, sign * probes[i : i + ROWS]) for sign in (1.0, -1.0)]
            self.matrix[:, i : i + ROWS] = ((found[0] - found[1]) / (2 * shape.width**0.5))[:, : shape.vocab].T

    def rows(self, tokens: np.ndarray) -> np.ndarray:
        """Tokens [..] -> [.., D], float32."""
        found = self.matrix[tokens].astype(np.float32)
        return found / np.maximum((found**2).sum(-1, keepdims=True), 1e-12)


def _logits(adapter: Adapter, states: np.ndarray) -> np.ndarray:
    """States [N, D] leaving the last layer -> logits [N, V]."""
    tokens, layers = np.zeros((1, len(states)), np.int64), adapter.shape.layers
    like = adapter.hidden(tokens[:, :1], layers)
    h = adapter.ops.cast_like(adapter.ops.asarray(states[None]), like)
    with adapter.quiet():
        return np.asarray(adapter.ops.to_numpy(adapter.upper(tokens, h, layers)), np.float32)[0]
