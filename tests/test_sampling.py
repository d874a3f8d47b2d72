"""From logits to tokens: properties of sampling, and beam search against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from contracts import on_small
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lmm.adapters import generation
from lmm.adapters.base import Adapter, Cache
from lmm.adapters.generation import Generated
from lmm.adapters.ops import NumpyOps
from lmm.adapters.sampling import beam_search, picker
from lmm.config import Decoding
from lmm.errors import UsageError

FAST = settings(max_examples=80, deadline=None)
LOGITS = hnp.arrays(np.float32, st.integers(2, 12), elements=st.floats(-20, 20, width=32))


def probabilities(logits: np.ndarray, temperature: float) -> np.ndarray:
    scaled = logits.astype(np.float64) / temperature
    e = np.exp(scaled - scaled.max())
    return e / e.sum()


def drawn(logits: np.ndarray, count: int = 60, **settings) -> list[int]:
    pick = picker(Decoding(decoding_strategy="sample", **settings))
    return [int(pick(logits[None])[0]) for _ in range(count)]


# ---------------------------------------------------------------- sampling
@FAST
@given(LOGITS, st.floats(0.05, 1.0), st.floats(0.2, 3.0), st.integers(0, 5))
def test_top_p_draws_only_from_the_nucleus(logits, top_p: float, temperature: float, seed: int) -> None:
    p = probabilities(logits, temperature)
    for token in set(drawn(logits, top_p=top_p, temperature=temperature, seed=seed)):
        assert p[p > p[token]].sum() < top_p + 1e-9, "the more probable tokens alone make up the nucleus"


@FAST
@given(LOGITS, st.floats(0.0, 0.99), st.integers(0, 5))
def test_min_p_draws_nothing_improbable(logits, min_p: float, seed: int) -> None:
    p = probabilities(logits, 1.0)
    for token in set(drawn(logits, min_p=min_p, top_p=1.0, temperature=1.0, seed=seed)):
        assert p[token] >= min_p * p.max() * (1 - 1e-9)


@FAST
@given(LOGITS, st.integers(0, 1000))
def test_a_seed_decides(logits, seed: int) -> None:
    assert drawn(logits, seed=seed) == drawn(logits, seed=seed)


def test_another_seed_is_another_draw_and_frequencies_are_probabilities() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    settings = {"top_p": 1.0, "temperature": 1.0}
    assert drawn(logits, seed=1, **settings) != drawn(logits, seed=2, **settings)
    counts = np.bincount(drawn(logits, 4000, seed=3, **settings), minlength=3) / 4000
    np.testing.assert_allclose(counts, [0.5, 0.3, 0.2], atol=0.03)
    cold = np.bincount(drawn(logits, 500, temperature=0.05, top_p=1.0), minlength=3)
    assert cold[0] == 500


@FAST
@given(LOGITS)
def test_a_tiny_nucleus_and_deterministic_decoding_are_greedy(logits) -> None:
    best = float(logits.max())
    # probabilities are float32: what differs by less is as likely as the best
    assert all(logits[t] >= best - 1e-6 for t in drawn(logits, 5, top_p=1e-9))
    assert int(picker(Decoding())(logits[None])[0]) == int(logits.argmax())


def test_what_is_wrong_with_a_decoding_is_named_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        Decoding(decoding_strategy="best", max_tokens=0, temperature=0.0, top_p=1.5, min_p=1.0, beams=0)
    for word in ("strategy", "'best'", "max_tokens", "temperature", "top_p", "min_p", "beams"):
        assert word in str(caught.value)
    with pytest.raises(UsageError, match="temperature"):
        Decoding(temperature=float("nan"))
    assert Decoding().resolved == "greedy" and Decoding(deterministic=False).resolved == "sample"
    assert Decoding("beam", deterministic=False).resolved == "beam"


# ---------------------------------------------------------------- beam search
class Chain:
    """All that beam search asks of an adapter: the logits after a token are a row of a table."""

    def __init__(self, vocabulary: int, ends: frozenset[int], seed: int) -> None:
        self.table = np.random.default_rng(seed).normal(0, 2, (vocabulary, vocabulary)).astype(np.float32)
        self.ops = NumpyOps()
        self.format = type("Format", (), {"stop_ids": ends})()

    def forward(self, tokens: np.ndarray, cache: Cache) -> tuple[np.ndarray, Cache]:
        assert len(tokens) == len(cache.tokens)
        return self.table[tokens[:, -1:]], Cache(np.concatenate([cache.tokens, tokens], axis=1), None)

    def select(self, cache: Cache, rows: list[int]) -> Cache:
        return Cache(cache.tokens[list(rows)], None)

    def trim(self, cache: Cache, length: int) -> Cache:
        return Cache(cache.tokens[:, :length], None)

    def score(self, start: int, tokens: tuple[int, ...]) -> float:
        """Mean log-probability per token."""
        rows = self.table[[start, *tokens[:-1]]].astype(np.float64)
        log_p = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
        return float(log_p[range(len(tokens)), tokens].mean())


def search(chain: Chain, start: int, stop=lambda: False, **settings) -> tuple[list[int], Cache]:
    logits, cache = chain.forward(np.array([[start]]), Cache(np.zeros((1, 0), np.int64), None))
    return beam_search(chain, logits[0, 0], cache, Decoding("beam", **settings), stop)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(12))
def test_with_enough_beams_the_best_of_all_replies_is_found(seed: int) -> None:
    chain, length, ends = Chain(4, frozenset({0}), seed), 3, {0}
    replies = [
        tokens
        for n in range(1, length + 1)
        for tokens in itertools.product(range(4), repeat=n)
        if not ends & set(tokens[:-1]) and (n == length or tokens[-1] in ends)
    ]
    best = max(replies, key=lambda tokens: chain.score(2, tokens))
    found, cache = search(chain, 2, beams=64, max_tokens=length)
    assert tuple(found) == best
    assert cache.tokens.tolist() == [[2, *found[:-1]]], "the cache has read all but the last token"


@pytest.mark.parametrize("seed", range(6))
def test_more_beams_find_nothing_worse_than_greedy(seed: int) -> None:
    chain = Chain(12, frozenset(), seed)
    greedy, _ = search(chain, 1, beams=1, max_tokens=6)
    wide, _ = search(chain, 1, beams=64, max_tokens=6)
    assert chain.score(1, tuple(wide)) >= chain.score(1, tuple(greedy)) - 1e-12
    step, made = 1, []
    for _ in range(6):
        step = int(chain.table[step].argmax())
        made.append(step)
    assert greedy == made


def test_many_end_tokens_at_the_top_leave_a_beam() -> None:
    """A base model's reply ends at any token that begins with a line break, and they are all likely together."""
    ends = frozenset(range(20))
    chain = Chain(30, ends, 0)
    chain.table[:, :20] += 30.0
    found, _ = search(chain, 25, beams=2, max_tokens=5)
    assert len(found) == 1 and found[0] in ends
    chain.table[25, :20] -= 60.0  # the first token is a word, everything after it wants to end
    found, _ = search(chain, 25, beams=2, max_tokens=5)
    assert len(found) == 2 and found[0] not in ends and found[1] in ends


def test_stopping_beam_search_gives_the_best_beam_so_far() -> None:
    chain, calls = Chain(8, frozenset(), 3), []

    def stop() -> bool:
        calls.append(1)
        return len(calls) > 3

    found, cache = search(chain, 2, stop, beams=3, max_tokens=50)
    assert len(found) == 3
    # the last token has been read already; the cache may hold it, never more
    assert cache.tokens[0, : len(found)].tolist() == [2, *found[:-1]]
    assert search(chain, 2, lambda: True, max_tokens=5)[0] == []


@on_small
def test_one_beam_is_greedy_and_four_are_no_worse_on_a_model(adapter: Adapter) -> None:
    prompt = adapter.format.encode("What is the capital of France?")

    def reply(**settings) -> list[int]:
        out = Generated()
        decoding = Decoding(max_tokens=6, **settings)
        for _ in generation.stream(adapter, prompt, adapter.new_cache(), decoding, out, lambda: False):
            pass
        return out.tokens

    def score(tokens: list[int]) -> float:
        whole = np.array([[*prompt, *tokens]])
        logits = adapter.ops.to_numpy(adapter.forward(whole, adapter.new_cache(), keep=len(tokens) + 1)[0])[0]
        rows = logits[:-1].astype(np.float64)
        log_p = (
            rows
            - np.log(np.exp(rows - rows.max(-1, keepdims=True)).sum(-1, keepdims=True))
            - rows.max(-1, keepdims=True)
        )
        return float(log_p[range(len(tokens)), tokens].mean())

    greedy = reply(decoding_strategy="greedy")
    assert reply(decoding_strategy="beam", beams=1) == greedy
    assert score(reply(decoding_strategy="beam", beams=4)) >= score(greedy) - 1e-6
    sampled = {"decoding_strategy": "sample", "seed": 4}
    assert reply(**sampled) == reply(**sampled)
    assert reply(**sampled, temperature=5.0) != reply(**{**sampled, "seed": 5}, temperature=5.0)
