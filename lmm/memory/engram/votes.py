"""Which stored question does a text share n-grams with? A vote of hashed n-grams, in NumPy on the host.

A question's signature is the set of its n-grams of orders 1 to 3 over the tokens that hold a letter or digit, each
weighted by the mean weight of its tokens (`ngrams.normal_ids`: rare words weigh most). Two signatures are as near as
the cosine of their weights: sum over shared n-grams / root of the product of both sums.

Shape letters: N n-grams, Q stored questions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmm.memory.engram.ngrams import NGramHash

ORDERS = (1, 2, 3)
UNIT = 1e6  # weights are kept as whole numbers of this fraction
_hash = NGramHash(ORDERS, heads=1)


def signature(ids: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normalised ids [T] and weights [T] of a text -> its n-grams, int64 [N], and their weights, int64 [N]."""
    ids, weights = ids[weights > 0], weights[weights > 0]
    grams, sums = [np.zeros(0, np.int64)], [np.zeros(0)]
    for n in ORDERS:
        if len(ids) >= n:
            windows = np.lib.stride_tricks.sliding_window_view(ids, n)
            grams.append((_hash.mix(windows) >> np.uint64(1)).astype(np.int64))
            sums.append(np.lib.stride_tricks.sliding_window_view(weights, n).mean(axis=-1))
    found, first = np.unique(np.concatenate(grams), return_index=True)
    return found, np.maximum(1, np.concatenate(sums)[first] * UNIT).astype(np.int64)


class Votes:
    """The signatures of Q questions, looked up by n-gram."""

    def __init__(
        self, questions: Sequence[np.ndarray], grams: Sequence[np.ndarray], weights: Sequence[np.ndarray], count: int
    ) -> None:
        """N-grams `grams` [N] with `weights` [N] belong to `questions` [N] below `count`, in parts to be joined."""
        question, gram, weight = (
            np.concatenate([np.zeros(0, np.int64), *part]) for part in (questions, grams, weights)
        )
        order = np.argsort(gram, kind="stable")
        self.question, self.gram, self.weight = question[order], gram[order], weight[order] / UNIT
        self.count = count
        self.total = np.bincount(self.question, self.weight, self.count)

    def cosines(self, grams: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """How near each of the Q questions is to one signature: float64 [Q], 0 to 1."""
        low, high = np.searchsorted(self.gram, grams, "left"), np.searchsorted(self.gram, grams, "right")
        entries = np.concatenate([np.zeros(0, np.int64), *(np.arange(a, b) for a, b in zip(low, high, strict=True))])
        shared = np.bincount(self.question[entries], self.weight[entries], self.count)
        return shared / np.sqrt(np.maximum(self.total * (weights.sum() / UNIT), 1e-12))
