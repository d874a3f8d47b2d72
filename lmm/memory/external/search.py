"""Exact search for the nearest of many vectors."""

from __future__ import annotations

import numpy as np

ROWS = 16_384  # vectors compared at once: float16 is made float32 in passing


def nearest(queries: np.ndarray, keys: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k of `keys` [N, D] with the largest inner products with each of `queries` [Q, D], largest first -> products
    and rows [Q, min(k, N)]; of equals the earlier."""
    best = np.empty((len(queries), 0), np.float32)
    rows = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(keys), ROWS):
        found = queries @ keys[start : start + ROWS].astype(np.float32).T
        some = np.argpartition(-found, min(k, found.shape[1]) - 1, axis=1)[:, :k]
        best = np.concatenate([best, np.take_along_axis(found, some, 1)], 1)
        best, rows = largest(best, np.concatenate([rows, some + start], 1), k)
    return best, rows


def largest(products: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest products [Q, N] of each query and their rows, largest first; of equals the earlier."""
    order = np.lexsort((rows, -products), axis=1)[:, :k]
    return np.take_along_axis(products, order, 1), np.take_along_axis(rows, order, 1)
