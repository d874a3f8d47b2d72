"""How long it takes to look a prompt up among many lessons, at sizes nobody has taught yet.

All lessons but those asked for have synthetic unit vectors: exact search costs the same for any. A question in other
words than its lesson's goes through all parts of a look-up: it is read, the nearest lessons are searched, and the pair
model decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lmm.bench.settings import LookupSettings
    from lmm.memory.keyed.gate import Index

TAUGHT = (
    "What is the capital of Zembla?",
    "Who painted the blue door?",
    "When does the ferry to Hven leave?",
    "How old is the mill?",
)
ASKED = (
    "Which city is the capital of Zembla?",
    "By whom was the blue door painted?",
    "At what time does the ferry to Hven leave?",
    "What is the age of the mill?",
)


@dataclass(frozen=True)
class Timing:
    """Medians in seconds among `size` lessons: a whole look-up (and its p95), the search in it, and what a new lesson
    adds to the first look-up after it."""

    size: int
    whole_s: float
    whole_p95_s: float
    search_s: float
    added_s: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def unit_vectors(count: int, width: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, width), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def index_of(size: int, seed: int = 0) -> Index:
    """The table that `keyed` looks prompts up in, with `size` lessons; the last ones are TAUGHT."""
    from lmm.encoders.minilm import WIDTH
    from lmm.memory.keyed.gate import Index, shared_gate

    gate = shared_gate()
    count = size - len(TAUGHT)
    keys = [*unit_vectors(count, WIDTH, seed)[:, None], *(gate.fingerprint(prompt) for prompt in TAUGHT)]
    return Index([*(f"key {i}" for i in range(count)), *TAUGHT], keys, gate)


def time_lookups(how: LookupSettings) -> list[Timing]:
    """Each size with as many look-ups of each kind; what the very first pays is not timed."""
    return [_timed(index_of(size), how.repeats) for size in how.sizes]


def _timed(index: Index, repeats: int) -> Timing:
    from lmm.encoders.minilm import WIDTH

    vectors = unit_vectors(repeats, WIDTH, 1)[:, None]
    whole = _seconds(lambda i: index.match([ASKED[i % len(ASKED)]]), repeats)
    search = _seconds(lambda i: index.candidates(vectors[i]), repeats)
    added = _seconds(lambda i: index.extended([f"new {i}"], [vectors[i]]), repeats)
    p95 = float(np.percentile(whole, 95))
    return Timing(len(index), float(np.median(whole)), p95, float(np.median(search)), float(np.median(added)))


def _seconds(call: Callable[[int], object], repeats: int) -> list[float]:
    for i in range(min(repeats, len(ASKED))):
        call(i)
    seconds = []
    for i in range(repeats):
        start = time.perf_counter()
        call(i)
        seconds.append(time.perf_counter() - start)
    return seconds
