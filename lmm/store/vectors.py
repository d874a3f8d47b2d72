"""Unit vectors by number, and the nearest of them: all are looked at while they are few, later some lists of them.

The lists are an inverted file (Jégou, Douze & Schmid 2011, IEEE TPAMI 33): rows lie in the order of their nearest
centroid, and a query reads the lists of its nearest centroids only, and rows that came since. Nothing of it is on disk:
it is made again from the rows.

Shape letters: N rows, D width, C centroids.
"""

from __future__ import annotations

import numpy as np

from lmm.errors import StoreError

EXACT = 50_000  # up to so many rows all are looked at
READ = 0.05  # share of the rows that a query reads beyond that
LISTS = 256  # at most: to place the rows takes as long as there are lists
SAMPLE = 64  # rows for each centroid that are used to place it
ROUNDS = 6
BLOCK = 16_384


class Vectors:
    """Rows that can be added and taken out."""

    def __init__(self, exact: int = EXACT) -> None:
        self.exact = exact
        self._rows = np.zeros((0, 0), np.float32)  # [capacity, D], of which N are filled
        self._numbers = np.zeros(0, np.int64)
        self._count = 0
        self._centroids: np.ndarray | None = None  # [C, D]
        self._starts = np.zeros(1, np.int64)  # [C + 1], where each list begins; the rows after the last have none

    def __len__(self) -> int:
        return self._count

    def extend(self, numbers: np.ndarray, rows: np.ndarray) -> None:
        """Raises StoreError for rows of another width."""
        if not len(rows):
            return
        if self._count and rows.shape[1] != self._rows.shape[1]:
            raise StoreError(f"vectors of width {rows.shape[1]} cannot be compared with those of {self._rows.shape[1]}")
        end = self._count + len(rows)
        if end > len(self._rows):
            room = max(end, 2 * self._count) - self._count
            empty = np.empty((room, rows.shape[1]), np.float32)
            self._rows = np.concatenate([self._rows[: self._count].reshape(-1, rows.shape[1]), empty])
            self._numbers = np.concatenate([self._numbers[: self._count], np.empty(room, np.int64)])
        self._rows[self._count : end], self._numbers[self._count : end] = rows, numbers
        self._count = end

    def remove(self, numbers: set[int]) -> None:
        """Their rows become zero, and are found no more."""
        gone = np.isin(self._numbers[: self._count], list(numbers))
        self._rows[: self._count][gone] = 0
        self._numbers[: self._count][gone] = -1

    def nearest(self, vector: np.ndarray, k: int, allowed: np.ndarray | None = None) -> list[tuple[int, float]]:
        """(number, cosine) of the k nearest to a unit vector [D], of those `allowed`; the nearest first."""
        if not self._count:
            return []
        if self._count - self._starts[-1] > max(self.exact, self._starts[-1] // 4):
            self._arrange()
        if len(vector) != self._rows.shape[1]:
            raise StoreError(f"a vector of width {len(vector)} cannot be compared with those of {self._rows.shape[1]}")
        numbers, cosines = self._all(vector) if allowed is not None else self._near(vector)
        keep = numbers >= 0 if allowed is None else np.isin(numbers, allowed)
        numbers, cosines = numbers[keep], cosines[keep]
        best = np.argpartition(-cosines, k)[:k] if len(cosines) > k else np.arange(len(cosines))
        best = best[np.lexsort((numbers[best], -cosines[best]))]
        return [(int(numbers[i]), float(cosines[i])) for i in best]

    def _all(self, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._numbers[: self._count], self._rows[: self._count] @ vector

    def _near(self, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._centroids is None:
            return self._all(vector)
        most, parts, read = READ * self._starts[-1], [slice(self._starts[-1], self._count)], 0
        for c in np.argsort(-(self._centroids @ vector)):
            if read >= most:
                break
            parts.append(slice(self._starts[c], self._starts[c + 1]))
            read += parts[-1].stop - parts[-1].start
        return (
            np.concatenate([self._numbers[part] for part in parts]),
            np.concatenate([self._rows[part] @ vector for part in parts]),
        )

    def _arrange(self) -> None:
        """Put the rows in lists."""
        rows, random = self._rows[: self._count], np.random.default_rng(0)
        count = min(int(self._count**0.5), LISTS)
        sample = rows[random.choice(self._count, min(self._count, SAMPLE * count), replace=False)]
        centroids = sample[random.choice(len(sample), count, replace=False)]
        for _ in range(ROUNDS):
            own = _nearest_of(sample, centroids)
            order = np.argsort(own, kind="stable")
            filled, starts = np.unique(own[order], return_index=True)
            sums = np.add.reduceat(sample[order], starts, axis=0)
            centroids[filled] = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
        own = _nearest_of(rows, centroids)
        order = np.argsort(own, kind="stable")
        self._rows, self._numbers = rows[order], self._numbers[: self._count][order]
        self._centroids, self._starts = centroids, np.searchsorted(own[order], np.arange(count + 1))


def _nearest_of(rows: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The nearest centroid of each row, [N]."""
    blocks = (rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK))
    return np.concatenate([(block @ centroids.T).argmax(axis=1) for block in blocks])
