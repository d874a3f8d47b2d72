"""Hashed n-grams of normalised token ids: where a table's rows for a piece of text are.

Normalised ids (Engram, arXiv:2601.07372, section 2.2): tokens whose text is the same after NFKC, lower case, without
accents and outer spaces share an id, so " Paris", "paris" and "PARIS" (as one token each) hash alike.

Addresses: an n-gram's ids, each times an odd multiplier of its place, are XORed; the mix modulo a head's own prime is
that head's row. Heads of one order share the mix and differ in their primes, so two n-grams that meet in one head part
in the others.

Shape letters: T tokens, W window (the largest order), H heads of all orders.
"""

from __future__ import annotations

import unicodedata
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter

_lookups: OrderedDict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = OrderedDict()


def normal_form(text: str) -> str:
    """NFKC, lower case, no accents, no outer spaces."""
    text = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text).lower())
    return "".join(c for c in text if not unicodedata.combining(c)).strip()


def normal_ids(adapter: Adapter) -> tuple[np.ndarray, np.ndarray]:
    """For each of V tokens its normalised id, int64 [V], and the weight of the word it is part of, float32 [V].

    The id is the lowest of the tokens with the same normal form; a token without text (a part of a character, a
    control token) keeps its own. The weight is (log id / log V)^8 of a word, 1/2 of a number, else 0: a vocabulary is
    listed by how early its merges were found, so frequent words have low ids. Computed once per tokenizer.
    """
    format, vocab = adapter.format, adapter.shape.vocab
    key = (format.hash, vocab)
    if key not in _lookups:
        first: dict[str, int] = {}
        ids, weights = np.arange(vocab), np.zeros(vocab, np.float32)
        for token in range(vocab):
            form = normal_form(format.piece(token))
            if form and "\ufffd" not in form:
                ids[token] = first.setdefault(form, token)
            if any(c.isdigit() for c in form):
                weights[token] = 0.5
            elif any(c.isalnum() for c in form):
                weights[token] = (np.log1p(ids[token]) / np.log1p(vocab)) ** 8
        _lookups[key] = (ids, weights)
        while len(_lookups) > 4:
            _lookups.popitem(last=False)
    return _lookups[key]


@lru_cache(maxsize=64)
def primes_from(start: int, count: int) -> tuple[int, ...]:
    """The first `count` primes that are at least `start`."""
    found: list[int] = []
    number = max(2, start)
    while len(found) < count:
        if all(number % d for d in range(2, int(number**0.5) + 1)):
            found.append(number)
        number += 1
    return tuple(found)


class NGramHash:
    """Addresses of n-grams: `heads` rows for each of `orders`, in tables of about `slots` rows, one after the other."""

    def __init__(self, orders: Sequence[int] = (2, 3), heads: int = 8, slots: int = 100_003, seed: int = 0) -> None:
        self.orders, self.heads = tuple(orders), heads
        self.primes = np.array(primes_from(slots, len(self.orders) * heads), np.uint64)
        self.offsets = np.concatenate([[0], np.cumsum(self.primes)[:-1]]).astype(np.int64)
        random = np.random.default_rng(seed)
        self.multipliers = random.integers(1, 2**62, max(orders), np.uint64) * np.uint64(2) + np.uint64(1)

    @property
    def size(self) -> int:
        """Rows of the table, could it be held whole."""
        return int(self.primes.sum())

    def mix(self, ids: np.ndarray) -> np.ndarray:
        """XOR of ids [.., n] times the multiplier of their place, uint64 [..]."""
        places = ids.astype(np.uint64) * self.multipliers[: ids.shape[-1]]
        return np.bitwise_xor.reduce(places, axis=-1)

    def rows(self, first: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """The n-gram of order n is `first` [..] and the last n - 1 of ids [.., W - 1] -> rows of the table, int64
        [.., H]: head by head of the first order, then of the next."""
        grams = [np.concatenate([first[..., None], ids[..., ids.shape[-1] - n + 1 :]], axis=-1) for n in self.orders]
        mixes = np.stack([mix for gram in grams for mix in [self.mix(gram)] * self.heads], axis=-1)
        return (mixes % self.primes).astype(np.int64) + self.offsets
