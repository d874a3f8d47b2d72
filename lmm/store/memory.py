"""A store that lives as long as its process."""

from __future__ import annotations

import contextlib
import math
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lmm.errors import StoreError
from lmm.store.base import ALL, Filters, Memo, Recalled, TextStore, agreed, depth, fused
from lmm.store.vectors import Vectors
from lmm.text.fold import terms

K1, B = 1.2, 0.75  # of BM25: Robertson & Zaragoza 2009, Foundations and Trends in Information Retrieval 3


class InMemory(TextStore):
    """Dictionaries: what the other stores do, in plain sight."""

    def __init__(self) -> None:
        self._spaces: dict[str, list[Memo]] = {}
        self._about: dict[str, Any] = {}
        self._lock = threading.RLock()

    def about(self) -> dict[str, Any]:
        return dict(self._about)

    def describe(self, values: Mapping[str, Any]) -> None:
        with self._lock:
            self._about |= agreed(self._about, values)

    def _same(self, space: str, keys: Sequence[str]) -> dict[str, Memo]:
        return {memo.key: memo for memo in self.scan(space) if memo.key in keys}

    def _of_matter(self, space: str, matter: str) -> list[Memo]:
        return [memo for memo in self.scan(space) if memo.matter == matter]

    def _insert(self, space: str, memos: Sequence[Memo]) -> None:
        for memo in memos:
            if self._get(space, [memo.id]):
                raise StoreError(f"there is an entry {memo.id} with another text")
            self._spaces.setdefault(space, []).append(memo)

    def _retire(self, space: str, old: Memo, by: str) -> None:
        memos = self._spaces[space]
        memos[memos.index(old)] = replace(old, replaced_by=by, vector=None)

    def _delete(self, space: str, memos: Sequence[Memo]) -> None:
        kept = [memo for memo in self._spaces.pop(space, []) if memo not in memos]
        if kept:
            self._spaces[space] = kept

    def _get(self, space: str, ids: Sequence[str]) -> list[Memo]:
        return [memo for memo in self._spaces.get(space, []) if memo.id in ids]

    def _search(self, space: str, vector: np.ndarray, text: str, k: int, filters: Filters) -> list[Recalled]:
        with self._lock:
            memos = list(self.scan(space, filters))
        index = Vectors()
        rows = [(i, memo.vector) for i, memo in enumerate(memos) if memo.vector is not None]
        if rows:
            index.extend(np.array([i for i, _ in rows]), np.stack([row for _, row in rows]))
        near = index.nearest(vector, depth(k))
        best = fused([i for i, _ in near], bm25([memo.text for memo in memos], text)[: depth(k)], k)
        return [Recalled(memos[i], score, memos[i].cosine(vector)) for i, score in best]

    def scan(self, space: str, filters: Filters = ALL, history: bool = False) -> Iterator[Memo]:
        for memo in list(self._spaces.get(space, [])):
            if (history or memo.current) and filters.take(memo):
                yield memo

    def _history(self, space: str, id: str) -> list[Memo]:
        memos = self._spaces.get(space, [])
        ids = {id}
        while more := {x for m in memos for x in (m.id, m.replaced_by) if {m.id, m.replaced_by} & ids and x} - ids:
            ids |= more
        return [memo for memo in memos if memo.id in ids]

    def count(self, space: str) -> int:
        return sum(memo.current for memo in self._spaces.get(space, []))

    def has_any(self, space: str) -> bool:
        return any(memo.current for memo in self._spaces.get(space, []))

    def namespaces(self) -> list[str]:
        return sorted(self._spaces)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        with self._lock:
            before = {space: list(memos) for space, memos in self._spaces.items()}
            try:
                yield
            except BaseException:
                self._spaces = before
                raise

    def close(self) -> None: ...


def idf(texts: int, holders: int) -> float:
    """What a word weighs that so many of the texts have."""
    return math.log(1 + (max(texts - holders, 0) + 0.5) / (holders + 0.5))


def saturated(often: int, length: float) -> float:
    """What it counts for in a text of so many mean lengths."""
    return often * (K1 + 1) / (often + K1 * (1 - B + B * length))


def bm25(texts: Sequence[str], query: str) -> list[int]:
    """The texts that have a word of the query, the best first, as positions."""
    counts = [Counter(terms(text)) for text in texts]
    lengths = [count.total() for count in counts]
    mean = sum(lengths) / max(len(lengths), 1)
    scores = [0.0] * len(texts)
    for word in set(terms(query)):
        holders = [i for i, count in enumerate(counts) if word in count]
        weight = idf(len(texts), len(holders))
        for i in holders:
            scores[i] += weight * saturated(counts[i][word], lengths[i] / mean)
    return [i for i in sorted(range(len(texts)), key=lambda i: -scores[i]) if scores[i] > 0]
