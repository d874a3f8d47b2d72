"""Many vectors as one table, and exact search for the nearest of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from lmm.mapped import file_of, release

ROWS = 16_384  # vectors compared at once: float16 is made float32 in passing
QUERIES = 128  # and queries: a message may have thousands of tokens
LEAST = 1024  # rows of the smallest block


class Rows:
    """Rows [.., D], numbered as they come: they are added at the end and go at the beginning.

    They lie in blocks. Those that lie one behind the other in memory, as in a file that is mapped, stay there if they
    are many; others are copied. `first` is the first row there is, `end` the one to come.
    """

    def __init__(self, width: int, dtype: str = "float16") -> None:
        self.first = self.end = 0
        self._starts: list[int] = []  # of each block, which is never changed but behind its last row
        self._blocks: list[np.ndarray] = []
        self._empty, self.width = np.empty((0, width), dtype), width

    def __len__(self) -> int:
        return self.end - self.first

    def add(self, arrays: Sequence[np.ndarray]) -> None:
        """Arrays [N_i, D], one after the other."""
        for run in _runs(arrays):
            whole = run[0] if len(run) == 1 else _as_one(run)
            if whole is not None and len(whole) >= LEAST:
                self._starts.append(self.end)
                self._blocks.append(whole)
                self.end += len(whole)
            else:
                for array in run:
                    self._copy(array)

    def _copy(self, array: np.ndarray) -> None:
        used = self.end - self._starts[-1] if self._blocks else 0
        if not self._blocks or used + len(array) > len(self._blocks[-1]):
            if self._blocks:
                self._blocks[-1] = self._blocks[-1][:used]
            room = max(LEAST, min(2 * used, ROWS), len(array))
            self._starts.append(self.end)
            self._blocks.append(np.empty((room, *self._empty.shape[1:]), self._empty.dtype))
            used = 0
        self._blocks[-1][used : used + len(array)] = array
        self.end += len(array)

    def drop(self, first: int) -> None:
        """Without the rows before `first`."""
        self.first = first
        while len(self._starts) > 1 and self._starts[1] <= first:
            del self._starts[0], self._blocks[0]

    def now(self) -> Rows:
        """The rows there are, whatever comes and goes later."""
        new = Rows.__new__(Rows)
        new.__dict__ = self.__dict__ | {"_starts": list(self._starts), "_blocks": list(self._blocks)}
        return new

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Rows [..] -> [.., D]."""
        rows = np.asarray(rows)
        found = np.empty((*rows.shape, *self._empty.shape[1:]), self._empty.dtype)
        blocks = np.searchsorted(self._starts, rows, side="right") - 1
        for block in np.unique(blocks):
            mine = blocks == block
            found[mine] = self._blocks[block][rows[mine] - self._starts[block]]
        return found

    def pieces(self, first: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """All from `first` on, at most ROWS at a time, each with its first row; not copied."""
        at = self.first if first is None else first
        while at < self.end:
            block = int(np.searchsorted(self._starts, at, side="right")) - 1
            start = self._starts[block]
            last = min(at + ROWS, self.end, start + len(self._blocks[block]))
            yield at, self._blocks[block][at - start : last - start]
            release(self._blocks[block])
            at = last

    def release(self) -> None:
        """Let what was read of mapped files go from memory."""
        for block in self._blocks:
            release(block)


def _runs(arrays: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Those that lie one behind the other in memory."""
    run: list[np.ndarray] = []
    for array in arrays:
        if run and _address(run[-1]) + run[-1].nbytes != _address(array):
            yield run
            run = []
        run.append(array)
    if run:
        yield run


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def _as_one(run: list[np.ndarray]) -> np.ndarray | None:
    """Arrays that lie one behind the other, as one, if it is one mapped file that they are views of."""
    owner = file_of(run[0])
    if owner is None or any(file_of(array) is not owner for array in run):
        return None
    whole = np.frombuffer(owner, np.uint8)
    start, size = _address(run[0]) - _address(whole), sum(array.nbytes for array in run)
    return whole[start : start + size].view(run[0].dtype).reshape(-1, *run[0].shape[1:])


def nearest(queries: np.ndarray, pieces: Iterable[tuple[int, np.ndarray]], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k rows with the largest inner products with each of `queries` [Q, D], largest first -> products and rows
    [Q, min(k, N)]; of equals the earlier. `pieces` [N_i, D], each with the number of its first row."""
    parts = np.array_split(queries, range(QUERIES, len(queries), QUERIES))
    best = [np.empty((len(part), 0), np.float32) for part in parts]
    rows = [np.empty((len(part), 0), np.int64) for part in parts]
    for start, keys in pieces:
        wide = keys.astype(np.float32, copy=False).T
        for i, part in enumerate(parts):
            found = part @ wide
            some = np.argpartition(-found, min(k, found.shape[1]) - 1, axis=1)[:, :k]
            more = np.take_along_axis(found, some, 1)
            best[i], rows[i] = largest(
                np.concatenate([best[i], more], 1), np.concatenate([rows[i], some + start], 1), k
            )
    return np.concatenate(best), np.concatenate(rows)


def largest(products: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest products [Q, N] of each query and their rows, largest first; of equals the earlier."""
    order = np.lexsort((rows, -products), axis=1)[:, :k]
    return np.take_along_axis(products, order, 1), np.take_along_axis(rows, order, 1)
