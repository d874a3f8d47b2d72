"""An index over many vectors, built in the background: FAISS narrows the search, the vectors themselves decide.

The principal `CODE` directions of the vectors, a byte for each (1M tokens: 128 MB), in sqrt(N) cells of which `PROBES`
are looked into (IVF: Jegou et al. 2011). The best `MORE` by code are compared exactly. Up to `FLAT` vectors all are.
"""

from __future__ import annotations

import importlib.util
import threading
from typing import Any

import numpy as np

from lmm.memory.external.search import Rows, largest, nearest

FLAT = 10_000  # vectors up to which all are compared: 12 ms, where the index takes 1
CODE = 128  # directions
PROBES = 32  # cells that are looked into
MORE = 512  # candidates that are compared exactly
AT_ONCE = 16  # queries whose candidates are held at once: 28 MB at a width of 576
TRAINED = 64  # vectors for each cell that the cells are found from
GROWN = 4  # times as many vectors as it was made from, from which an index is made anew

available = importlib.util.find_spec("faiss") is not None


class FaissIndex:
    """Over the rows `first` to `end` of a table; `made` is how many there were when its cells were found."""

    def __init__(self, index: Any, first: int, end: int, made: int) -> None:
        self.index, self.first, self.end, self.made = index, first, end, made

    @classmethod
    def over(cls, table: Rows) -> FaissIndex:
        """Of all rows of a table. Seconds to minutes."""
        import faiss

        count, cells = len(table), round(len(table) ** 0.5)
        some = np.sort(np.random.default_rng(0).permutation(count)[: TRAINED * cells])
        sample = table.take(table.first + some).astype(np.float32)
        index = faiss.index_factory(sample.shape[1], f"PCA{min(CODE, sample.shape[1])},IVF{cells},SQ8")
        faiss.extract_index_ivf(index).nprobe = PROBES
        index.train(sample)
        made = cls(index, table.first, table.first, count)
        made._add(table)
        return made

    def and_more(self, table: Rows) -> FaissIndex:
        """Another one, with the rows of a table that follow."""
        import faiss

        more = FaissIndex(faiss.clone_index(self.index), self.first, self.end, self.made)
        more._add(table)
        return more

    def _add(self, table: Rows) -> None:
        for _, keys in table.pieces(self.end):
            self.index.add(keys.astype(np.float32))
        self.end = table.end

    def search(self, queries: np.ndarray, table: Rows, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Products and rows [Q, k] as `nearest` gives them, -inf where fewer are found; rows that are gone are not."""
        parts = np.array_split(queries, range(AT_ONCE, len(queries), AT_ONCE))
        found = [self._some(np.ascontiguousarray(part, np.float32), table, k) for part in parts]
        table.release()
        return np.concatenate([best for best, _ in found]), np.concatenate([rows for _, rows in found])

    def _some(self, queries: np.ndarray, table: Rows, k: int) -> tuple[np.ndarray, np.ndarray]:
        _, found = self.index.search(queries, max(MORE, k))
        rows = found + self.first
        there = (found >= 0) & (rows >= table.first)
        close = table.take(np.where(there, rows, table.first)).astype(np.float32)
        products = np.where(there, np.einsum("qd,qrd->qr", queries, close), -np.inf)
        return largest(products.astype(np.float32), rows, k)

    def to_bytes(self, begin: int) -> bytes:
        """With rows counted from row `begin`."""
        import faiss

        head = np.array([self.first - begin, self.end - begin, self.made], np.int64).tobytes()
        return head + faiss.serialize_index(self.index).tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> FaissIndex:
        """Raises ValueError if it is none."""
        import faiss

        try:
            first, end, made = map(int, np.frombuffer(data[:24], np.int64))
            index = faiss.deserialize_index(np.frombuffer(data[24:], np.uint8))
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"no index: {error}") from error
        if index.ntotal != end - first:
            raise ValueError(f"an index of {index.ntotal} vectors, not {end - first}")
        return cls(index, first, end, made)


class Indexed:
    """Search in a table that grows at its end and loses rows at its beginning.

    Where there are more than `FLAT` rows that no index has, one is made in the background; until it is there, they are
    compared one by one.
    """

    def __init__(self, flat: int = FLAT) -> None:
        self.flat = flat
        self.index: FaissIndex | None = None
        self._work: threading.Thread | None = None
        self._few: tuple[int, np.ndarray] = (
            0,
            np.empty((0, 0), np.float32),
        )  # rows in float32, and the first's number

    def search(self, queries: np.ndarray, table: Rows, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Products and rows [Q, k'] of the nearest in a table."""
        self.grow(table)
        index = self.index
        if index is None or index.end <= table.first:
            return self._compared(queries, table, table.first, k)
        best, where = index.search(queries, table, k)
        if index.end < table.end:
            more, rows = self._compared(queries, table, index.end, k)
            best, where = largest(np.concatenate([best, more], 1), np.concatenate([where, rows], 1), k)
        if not np.isfinite(best).all():  # hardly any are left of those that were indexed
            return self._compared(queries, table, table.first, k)
        return best, where

    def _compared(self, queries: np.ndarray, table: Rows, first: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        """With all rows from `first` on. A few are kept in float32: making it of float16 takes longer than the rest."""
        if table.end - first > self.flat:
            return nearest(queries, table.pieces(first), k)
        start, few = self._few
        if not len(few) or not start <= first <= start + len(few) <= table.end:
            start, few = first, np.empty((0, queries.shape[1]), np.float32)
        if start + len(few) < table.end or start < first:
            new = [keys.astype(np.float32) for _, keys in table.pieces(start + len(few))]
            self._few = first, np.concatenate([few[first - start :], *new])
        return nearest(queries, [self._few], k)

    def grow(self, table: Rows) -> None:
        """Begin to index what is not, if that is much."""
        index = self.index
        start = table.first if index is None else index.end
        if not available or self._busy() or table.end - start <= self.flat:
            return
        now = table.now()

        def work() -> None:
            try:
                if index is None or len(now) > GROWN * index.made or index.first < now.first - len(now):
                    self.index = FaissIndex.over(now)
                else:
                    self.index = index.and_more(now)
            except (RuntimeError, MemoryError):  # FAISS cannot: then vectors are compared one by one, from now on
                self.flat = len(now) * GROWN

        self._work = threading.Thread(target=work, daemon=True, name="index")
        self._work.start()

    def _busy(self) -> bool:
        return self._work is not None and self._work.is_alive()

    def wait(self) -> None:
        """Until the index has what it is to have."""
        if self._work is not None:
            self._work.join()
