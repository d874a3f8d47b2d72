"""Everything that is stored, as one table: vectors, what followed each, and whose they are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from lmm.memory.external.index import FaissIndex, Indexed, available
from lmm.memory.external.search import Rows, nearest

DIGEST = 32  # bytes


class Store:
    """Rows of unit vectors `keys` [D], of the tokens `own` and `next`, span after span, the oldest first.

    It follows a state as that grows at the end and loses spans at the beginning; what stays keeps its row. Vectors of a
    file that is mapped stay in it.
    """

    def __init__(self, width: int) -> None:
        self.ids: list[str] = []
        self.number = 0  # of the newest span: spans are numbered as they come
        self.sequence = 0  # the highest of a conversation
        self._starts = [0]  # the first row of each span, and of the one to come
        self._keys = Rows(width)
        self._tokens = Rows(2, "int32")
        self.indexed = Indexed()
        self._arrays: dict[str, np.ndarray] = {}  # of each span, as the state has it: another array is another span

    def __len__(self) -> int:
        return len(self._keys)

    def keys(self, span: int) -> np.ndarray:
        """The vectors [T, D] of a span, float32."""
        return self._keys.take(np.arange(self._starts[span], self._starts[span + 1])).astype(np.float32)

    def own(self, rows: np.ndarray) -> np.ndarray:
        return self._tokens.take(rows)[..., 0]

    def next(self, rows: np.ndarray) -> np.ndarray:
        return self._tokens.take(rows)[..., 1]

    def spans(self, rows: np.ndarray) -> np.ndarray:
        """Which span each row belongs to, as an index into `ids`."""
        return np.searchsorted(self._starts, rows, side="right") - 1

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Similarities and rows [Q, k'] of the nearest vectors to `queries` [Q, D] of unit length."""
        return self.indexed.search(queries, self._keys, k)

    def exact(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The same by comparing all."""
        return nearest(queries, self._keys.pieces(), k)

    def index_to_bytes(self) -> bytes | None:
        """The index, tied to the spans it is of; None while there is none."""
        index = self.indexed.index
        if index is None:
            return None
        return self._digest(index.end - self._starts[0]) + index.to_bytes(self._starts[0])

    def index_from_bytes(self, data: bytes) -> bool:
        """Take over the index of another table with the same spans at its beginning -> whether it was one."""
        if not available:
            return False
        try:
            index = FaissIndex.from_bytes(data[DIGEST:])
        except ValueError:
            return False
        begin = self._starts[0]
        fits = index.end <= len(self) and data[:DIGEST] == self._digest(index.end)
        if fits:
            index.first, index.end = index.first + begin, index.end + begin
            self.indexed.index = index
        return fits

    def _digest(self, end: int) -> bytes:
        """Of the spans in the first `end` rows: an id is never given twice."""
        starts = [start - self._starts[0] for start in self._starts]
        known = [f"{i} {start}\n" for i, start in zip(self.ids, starts, strict=False) if start < end]
        return hashlib.sha256("".join((*known, str(end))).encode()).digest()

    def follow(self, state: Mapping[str, np.ndarray]) -> Store:
        """The table of a state: this one, with what is new and without what has gone; or another one, where that is not
        at its ends."""
        arrays = {name[5:]: array for name, array in state.items() if name.startswith("keys/")}
        gone = next((n for n, i in enumerate(self.ids) if arrays.get(i) is self._arrays[i]), len(self.ids))
        if any(arrays.get(i) is not self._arrays[i] for i in self.ids[gone:]):
            return Store(self._keys.width).follow(state)
        new = sorted((*state[f"at/{i}"].tolist(), i) for i in arrays.keys() - set(self.ids[gone:]))
        if new and new[0][0] <= self.number and gone < len(self.ids):
            return Store(self._keys.width).follow(state)
        for i in self.ids[:gone]:
            del self._arrays[i]
        del self.ids[:gone], self._starts[:gone]
        ids = [i for *_, i in new]
        if new:
            self.number, self.sequence = new[-1][0], max(self.sequence, *(conversation for _, conversation, *_ in new))
            self._keys.add([arrays[i] for i in ids])
            self._tokens.add([np.concatenate([state[f"tokens/{i}"] for i in ids], 1, dtype=np.int32).T])
        for rows in (self._keys, self._tokens):
            rows.drop(self._starts[0])
        self.ids += ids
        self._arrays |= {i: arrays[i] for i in ids}
        self._starts += (self._starts[-1] + np.cumsum([len(arrays[i]) for i in ids], dtype=np.int64)).tolist()
        return self
