"""From logits to the next token: greedy, temperature with top-p and min-p, and beam search, the same on every backend.

Beam search keeps the `beams` most probable continuations; scores are mean log-probabilities per token (length penalty
1, as in transformers), so a short and a long reply compare fairly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter, Cache
    from lmm.config import Decoding

Picker = Callable[[np.ndarray], np.ndarray]


def picker(decoding: Decoding) -> Picker:
    """A function from logits [B, V] to tokens [B]; sampling draws from its own seeded stream."""
    if decoding.resolved != "sample":
        return lambda logits: logits.argmax(axis=-1)
    random = np.random.default_rng(decoding.seed)
    return lambda logits: np.array([_draw(row, decoding, random) for row in logits])


def _draw(logits: np.ndarray, decoding: Decoding, random: np.random.Generator) -> int:
    """One token from the nucleus: the smallest set of tokens whose probability reaches top_p (Holtzman 2020)."""
    p = _softmax(logits.astype(np.float64) / decoding.temperature)
    order = np.argsort(-p, kind="stable")
    kept = np.cumsum(p[order]) - p[order] < decoding.top_p
    kept &= p[order] >= decoding.min_p * p[order[0]]
    chosen = order[kept]
    return int(random.choice(chosen, p=p[chosen] / p[chosen].sum()))


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def _log_softmax(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    top = x.max(axis=-1, keepdims=True)
    return x - top - np.log(np.exp(x - top).sum(axis=-1, keepdims=True))


@dataclass(frozen=True)
class Score:
    """How likely a token was, and the likeliest ones in its place, the first first: (token, log-probability)."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def score(logits: np.ndarray, token: int, top: int = 20) -> Score:
    """Of a token that was picked from logits [V], at temperature 1."""
    logprobs = _log_softmax(logits)
    best = np.argsort(-logprobs, kind="stable")[:top]
    return Score(float(logprobs[token]), tuple((int(t), float(logprobs[t])) for t in best))


def beam_search(
    adapter: Adapter, logits: np.ndarray, cache: Cache, decoding: Decoding, stop: Callable[[], bool]
) -> tuple[list[int], Cache]:
    """The most probable reply found from first logits [V] -> its tokens, and the cache that has read all but the last.

    `stop()` is asked before every step; when it says so, the best beam so far is returned.
    """
    ends = adapter.format.stop_ids
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    scores, done = _log_softmax(logits)[None], []
    while not stop():
        # enough of each row that its best `beams` going on are among them, however many tokens end a reply
        candidates = [
            (total + scores[i, t], i, int(t))
            for i, (total, _) in enumerate(beams)
            for t in np.argsort(-scores[i], kind="stable")[: 2 * decoding.beams + len(ends)]
        ]
        candidates.sort(key=lambda c: -c[0])
        grown: list[tuple[float, list[int]]] = []
        rows: list[int] = []
        for rank, (total, i, token) in enumerate(candidates):
            tokens = [*beams[i][1], token]
            if token not in ends and len(grown) < decoding.beams:
                grown.append((total, tokens))
                rows.append(i)
            elif token in ends and rank < 2 * decoding.beams:
                done.append((total / len(tokens), tokens, adapter.select(cache, [i])))
        done = sorted(done, key=lambda d: -d[0])[: decoding.beams]
        beams = grown
        full = decoding.max_tokens is not None and len(beams[0][1]) >= decoding.max_tokens
        settled = len(done) >= decoding.beams and done[-1][0] >= beams[0][0] / len(beams[0][1])
        if full or settled:
            cache = adapter.select(cache, rows)
            break
        cache = adapter.select(cache, rows)
        out, cache = adapter.forward(np.array([[tokens[-1]] for _, tokens in beams]), cache)
        scores = _log_softmax(adapter.ops.to_numpy(out)[:, -1])
    else:
        rows = list(range(len(beams)))
    best = max(range(len(beams)), key=lambda i: beams[i][0] / max(len(beams[i][1]), 1))
    score = beams[best][0] / max(len(beams[best][1]), 1)
    if done and done[0][0] >= score:
        return done[0][1], done[0][2]
    return beams[best][1], adapter.trim(adapter.select(cache, [best]), cache.length)


def softmax_at(logits: np.ndarray, targets: Sequence[int]) -> np.ndarray:
    """Logits [T, V], targets [T] -> the probability of each target [T]."""
    logits = logits.astype(np.float64)
    top = logits.max(-1, keepdims=True)
    total = np.exp(logits - top).sum(-1)
    return np.exp(logits[np.arange(len(targets)), list(targets)] - top[:, 0]) / total
