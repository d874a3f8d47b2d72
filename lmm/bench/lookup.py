"""How long it takes to look a prompt up among many lessons, at sizes nobody has taught yet.

The keys are synthetic unit vectors, and the queries are some of them: exact search costs the same for any keys. What is
timed is the look-up alone; reading the prompt does not depend on the number of lessons.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Lookup = Callable[[np.ndarray], object]  # the query's vectors [V, D] -> whatever was found
SIZES = (1_000, 10_000, 100_000)


@dataclass(frozen=True)
class Timing:
    """Seconds of one look-up among `size` keys."""

    size: int
    median_s: float
    p95_s: float


def unit_vectors(count: int, width: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, width), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def gate_lookup(size: int, seed: int = 0) -> Lookup:
    """The gate's exact search, as `keyed` uses it, over `size` lessons with one vector each."""
    from lmm.encoder import WIDTH
    from lmm.gate import Index

    keys = unit_vectors(size, WIDTH, seed)
    return Index([f"key {i}" for i in range(size)], list(keys[:, None])).candidates


def time_lookups(
    build: Callable[[int], Lookup] = gate_lookup,
    sizes: Sequence[int] = SIZES,
    repeats: int = 50,
    width: int = 384,
    seed: int = 0,
) -> list[Timing]:
    """`build(size)` makes the index; each of `repeats` queries is another one."""
    found = []
    for size in sizes:
        lookup = build(size)
        queries = unit_vectors(repeats + 1, width, seed)
        lookup(queries[:1])  # what the first query alone pays is not timed
        seconds = []
        for query in queries[1:]:
            start = time.perf_counter()
            lookup(query[None])
            seconds.append(time.perf_counter() - start)
        found.append(Timing(size, float(np.median(seconds)), float(np.percentile(seconds, 95))))
    return found
