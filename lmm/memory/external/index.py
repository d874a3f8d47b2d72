"""An index over many vectors, built in the background: FAISS narrows the search, the vectors themselves decide.

The principal `CODE` directions of the vectors, a byte for each (1M tokens: 64 MB), in sqrt(N) cells of which `PROBES`
are looked into (IVF: Jegou et al. 2011). The best `MORE` by code are compared exactly. Up to `FLAT` vectors all are.
"""

from __future__ import annotations

import importlib.util
import threading
from typing import Any

import numpy as np

from lmm.memory.external.search import largest, nearest

FLAT = 10_000  # vectors up to which all are compared: 12 ms, where the index takes 1
CODE = 64  # directions
PROBES = 32  # cells that are looked into
MORE = 128  # candidates that are compared exactly
TRAINED = 64  # vectors for each cell that the cells are found from
GROWN = 4  # times as many vectors as it was made from, from which an index is made anew

available = importlib.util.find_spec("faiss") is not None


class FaissIndex:
    """Over the rows `first` to `end` of a table; `made` is how many there were when its cells were found."""

    def __init__(self, index: Any, first: int, end: int, made: int) -> None:
        self.index, self.first, self.end, self.made = index, first, end, made

    @classmethod
    def over(cls, keys: np.ndarray, first: int) -> FaissIndex:
        """Of keys [N, D]; `first` is the row of the first of them. Seconds to a minute."""
        import faiss

        count, width = keys.shape
        cells = round(count**0.5)
        index = faiss.index_factory(width, f"PCA{min(CODE, width)},IVF{cells},SQ8")
        faiss.extract_index_ivf(index).nprobe = PROBES
        some = np.random.default_rng(0).permutation(count)[: TRAINED * cells]
        index.train(keys[np.sort(some)].astype(np.float32))
        made = cls(index, first, first, count)
        made._add(keys)
        return made

    def and_more(self, keys: np.ndarray) -> FaissIndex:
        """Another one, with the rows that follow."""
        import faiss

        more = FaissIndex(faiss.clone_index(self.index), self.first, self.end, self.made)
        more._add(keys)
        return more

    def _add(self, keys: np.ndarray, rows: int = 16_384) -> None:
        for i in range(0, len(keys), rows):
            self.index.add(keys[i : i + rows].astype(np.float32))
        self.end += len(keys)

    def search(
        self, queries: np.ndarray, table: np.ndarray, offset: int, least: int, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Products and rows [Q, k] as `nearest` gives them, -inf where fewer are found. `table` [.., D] begins with row
        `offset`; rows before `least` are gone."""
        _, found = self.index.search(np.ascontiguousarray(queries, np.float32), max(MORE, k))
        rows = found + self.first
        there = (found >= 0) & (rows >= least)
        close = table[np.where(there, rows - offset, least - offset)].astype(np.float32)
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
    """Search in a table that grows at its end and loses rows at its beginning. Row numbers count from the very first.

    Where there are more than `FLAT` rows that no index has, one is made in the background; until it is there, they are
    compared one by one.
    """

    def __init__(self, flat: int = FLAT) -> None:
        self.flat = flat
        self.index: FaissIndex | None = None
        self._work: threading.Thread | None = None

    def search(self, queries: np.ndarray, table: np.ndarray, first: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Products and rows [Q, k'] of the nearest in `table` [N, D], whose first row is row `first`."""
        self.grow(table, first)
        index = self.index
        if index is None or index.end <= first:
            found, rows = nearest(queries, table, k)
            return found, rows + first
        best, where = index.search(queries, table, first, first, k)
        if index.end < first + len(table):
            more, rows = nearest(queries, table[index.end - first :], k)
            best, where = largest(np.concatenate([best, more], 1), np.concatenate([where, rows + index.end], 1), k)
        if not np.isfinite(best).all():  # hardly any are left of those that were indexed
            found, rows = nearest(queries, table, k)
            return found, rows + first
        return best, where

    def grow(self, table: np.ndarray, first: int) -> None:
        """Begin to index what is not, if that is much."""
        index = self.index
        end = first + len(table)
        start = first if index is None else index.end
        if not available or self._busy() or end - start <= self.flat:
            return

        def work() -> None:
            try:
                if index is None or len(table) > GROWN * index.made or index.first < first - len(table):
                    self.index = FaissIndex.over(table, first)
                else:
                    self.index = index.and_more(table[index.end - first :])
            except (RuntimeError, MemoryError):  # FAISS cannot: then vectors are compared one by one, from now on
                self.flat = len(table) * GROWN

        self._work = threading.Thread(target=work, daemon=True, name="index")
        self._work.start()

    def _busy(self) -> bool:
        return self._work is not None and self._work.is_alive()

    def wait(self) -> None:
        """Until the index has what it is to have."""
        if self._work is not None:
            self._work.join()
