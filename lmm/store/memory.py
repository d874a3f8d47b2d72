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
from lmm.store.base import ALL, Filters, Memo, Recalled, agreed, current, depth, fused, succeeded
from lmm.store.vectors import Vectors
from lmm.text.fold import words

K1, B = 1.2, 0.75  # of BM25: Robertson & Zaragoza 2009, Foundations and Trends in Information Retrieval 3


class InMemory:
    """Dictionaries: what the other stores do, in plain sight."""

    lessons = None

    def __init__(self) -> None:
        self._spaces: dict[str, list[Memo]] = {}
        self._about: dict[str, Any] = {}
        self._lock = threading.RLock()
        self._depth = 0

    def about(self) -> dict[str, Any]:
        return dict(self._about)

    def describe(self, values: Mapping[str, Any]) -> None:
        agreed(self._about, values)
        self._about = dict(values)

    def add(self, space: str, memos: Sequence[Memo]) -> list[str]:
        with self.transaction():
            return [self._add(space, memo) for memo in memos]

    def _add(self, space: str, memo: Memo) -> str:
        there = [x for x in self._spaces.get(space, []) if x.current]
        same = next((x for x in there if x.key == memo.key), None)
        if same is not None:
            return same.id
        if any(x.id == memo.id for x in self._spaces.get(space, [])):
            raise StoreError(f"there is an entry {memo.id} with another text")
        old = next((x for x in there if memo.about and x.about == memo.about), None)
        return self._replace(space, old, memo) if old else self._append(space, memo)

    def _append(self, space: str, memo: Memo) -> str:
        self._spaces.setdefault(space, []).append(memo)
        return memo.id

    def _replace(self, space: str, old: Memo, memo: Memo) -> str:
        memos = self._spaces[space]
        memos[memos.index(old)] = replace(old, replaced_by=memo.id, vector=None)
        return self._append(space, succeeded(old, memo))

    def get(self, space: str, ids: Sequence[str]) -> list[Memo]:
        found = {memo.id: memo for memo in self._spaces.get(space, [])}
        return [found[id] for id in ids if id in found]

    def search(self, space: str, vector: np.ndarray, text: str, k: int = 5, filters: Filters = ALL) -> list[Recalled]:
        with self._lock:
            memos = list(self.scan(space, filters))
        index = Vectors()
        rows = [(i, memo.vector) for i, memo in enumerate(memos) if memo.vector is not None]
        if rows:
            index.extend(np.array([i for i, _ in rows]), np.stack([row for _, row in rows]))
        near = index.nearest(vector, depth(k))
        best = fused([i for i, _ in near], bm25([memo.text for memo in memos], text)[: depth(k)], k)
        return [Recalled(memos[i], score, memos[i].cosine(vector)) for i, score in best]

    def supersede(self, space: str, id: str, memo: Memo) -> str:
        with self.transaction():
            old = current(self.get(space, [id]), id)
            return id if old.key == memo.key else self._replace(space, old, memo)

    def forget(self, space: str, ids: Sequence[str]) -> int:
        with self.transaction():
            gone = {memo.id for id in ids for memo in self.history(space, id)}
            kept = [memo for memo in self._spaces.get(space, []) if memo.id not in gone]
            self._spaces[space] = kept
            if not kept:
                del self._spaces[space]
            return len(gone)

    def scan(self, space: str, filters: Filters = ALL, history: bool = False) -> Iterator[Memo]:
        for memo in list(self._spaces.get(space, [])):
            if (history or memo.current) and filters.take(memo):
                yield memo

    def history(self, space: str, id: str) -> list[Memo]:
        memos = self._spaces.get(space, [])
        ids = {id}
        while more := {x.id for x in memos if x.replaces in ids or x.replaced_by in ids} - ids:
            ids |= more
        return [memo for memo in memos if memo.id in ids]

    def count(self, space: str) -> int:
        return sum(memo.current for memo in self._spaces.get(space, []))

    def has_any(self, space: str) -> bool:
        return any(memo.current for memo in self._spaces.get(space, []))

    def namespaces(self) -> list[str]:
        return sorted(self._spaces)

    def restore(self, space: str, memos: Sequence[Memo]) -> None:
        with self.transaction():
            ids = {memo.id for memo in self._spaces.get(space, [])}
            keys = {memo.key for memo in self.scan(space)}
            for memo in memos:
                if memo.id not in ids and not (memo.current and memo.key in keys):
                    self._append(space, memo)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        with self._lock:
            before = {space: list(memos) for space, memos in self._spaces.items()} if not self._depth else None
            self._depth += 1
            try:
                yield
            except BaseException:
                if before is not None:
                    self._spaces = before
                raise
            finally:
                self._depth -= 1

    def close(self) -> None: ...


def bm25(texts: Sequence[str], query: str) -> list[int]:
    """The texts that have a word of the query, the best first, as positions."""
    counts = [Counter(words(text).split()) for text in texts]
    lengths = [count.total() for count in counts]
    mean = sum(lengths) / max(len(lengths), 1)
    scores = [0.0] * len(texts)
    for word in set(words(query).split()):
        holders = [i for i, count in enumerate(counts) if word in count]
        weight = math.log(1 + (len(texts) - len(holders) + 0.5) / (len(holders) + 0.5))
        for i in holders:
            often = counts[i][word]
            scores[i] += weight * often * (K1 + 1) / (often + K1 * (1 - B + B * lengths[i] / mean))
    return [i for i in sorted(range(len(texts)), key=lambda i: -scores[i]) if scores[i] > 0]
