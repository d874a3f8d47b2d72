"""Everything that is stored, as one table: vectors, what followed each, and whose they are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lmm.memory.external.index import FaissIndex, Indexed, available

if TYPE_CHECKING:
    from lmm.adapters.ops import Ops

LEAST = 1024  # rows of the smallest table
DIGEST = 32  # bytes


class Store:
    """Rows of unit vectors `keys` [D], of the tokens `own` and `next`, span after span, the oldest first.

    It follows a state as that grows at the end and loses spans at the beginning, without copying what stays; row
    numbers hold until the next `follow`.
    """

    def __init__(self, width: int) -> None:
        self.ids: list[str] = []
        self.number = 0  # of the newest span: spans are numbered as they come
        self.sequence = 0  # and its conversation's
        self._starts = [0]  # the first row of each span, and of the one to come
        self._keys = np.empty((0, width), np.float16)
        self._tokens = np.empty((2, 0), np.int64)
        self.indexed = Indexed()
        self._base = 0  # rows that were there before the table's first
        self._arrays: dict[str, Any] = {}  # of each span, as the state has it: another array is another span

    def __len__(self) -> int:
        return self._starts[-1] - self._starts[0]

    def keys(self, span: int) -> np.ndarray:
        """The vectors [T, D] of a span, float32."""
        return self._keys[self._starts[span] : self._starts[span + 1]].astype(np.float32)

    def own(self, rows: np.ndarray) -> np.ndarray:
        return self._tokens[0, rows]

    def next(self, rows: np.ndarray) -> np.ndarray:
        return self._tokens[1, rows]

    def spans(self, rows: np.ndarray) -> np.ndarray:
        """Which span each row belongs to, as an index into `ids`."""
        return np.searchsorted(self._starts, rows, side="right") - 1

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Similarities and rows [Q, k'] of the nearest vectors to `queries` [Q, D] of unit length."""
        first, end = self._starts[0], self._starts[-1]
        found, rows = self.indexed.search(queries, self._keys[first:end], self._base + first, k)
        return found, rows - self._base

    def index_to_bytes(self) -> bytes | None:
        """The index, tied to the spans it is of; None while there is none."""
        index = self.indexed.index
        if index is None:
            return None
        begin = self._base + self._starts[0]
        return self._digest(index.end - begin) + index.to_bytes(begin)

    def index_from_bytes(self, data: bytes) -> bool:
        """Take over the index of another table with the same spans at its beginning -> whether it was one."""
        if not available:
            return False
        try:
            index = FaissIndex.from_bytes(data[DIGEST:])
        except ValueError:
            return False
        begin = self._base + self._starts[0]
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

    def follow(self, state: Mapping[str, Any], ops: Ops) -> Store:
        """The table of a state: this one, with what is new and without what has gone; or another one, where that is not
        at its ends."""
        arrays = {name[5:]: array for name, array in state.items() if name.startswith("keys/")}
        gone = next((n for n, i in enumerate(self.ids) if arrays.get(i) is self._arrays[i]), len(self.ids))
        if any(arrays.get(i) is not self._arrays[i] for i in self.ids[gone:]):
            return Store(self._keys.shape[1]).follow(state, ops)
        new = sorted((*ops.to_numpy(state[f"at/{i}"]).tolist(), i) for i in arrays.keys() - set(self.ids[gone:]))
        if new and new[0][0] <= self.number and gone < len(self.ids):
            return Store(self._keys.shape[1]).follow(state, ops)
        for i in self.ids[:gone]:
            del self._arrays[i]
        del self.ids[:gone], self._starts[:gone]
        for number, sequence, _, i in new:
            self._add(i, ops.to_numpy(arrays[i]), ops.to_numpy(state[f"tokens/{i}"]))
            self._arrays[i], self.number, self.sequence = arrays[i], number, sequence
        return self

    def _add(self, span: str, keys: np.ndarray, tokens: np.ndarray) -> None:
        if self._starts[-1] + len(keys) > len(self._keys):
            self._move(max(2 * (len(self) + len(keys)), LEAST))
        start, end = self._starts[-1], self._starts[-1] + len(keys)
        self._keys[start:end], self._tokens[:, start:end] = keys, tokens
        self.ids.append(span)
        self._starts.append(end)

    def _move(self, room: int) -> None:
        """Into a table of so many rows, from its beginning on."""
        first, end = self._starts[0], self._starts[-1]
        keys, tokens = np.empty((room, self._keys.shape[1]), np.float16), np.empty((2, room), np.int64)
        keys[: end - first], tokens[:, : end - first] = self._keys[first:end], self._tokens[:, first:end]
        self._keys, self._tokens = keys, tokens
        self._starts = [start - first for start in self._starts]
        self._base += first
