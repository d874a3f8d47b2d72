"""TopHash: activations -> a sparse mask that is the same on every machine. NumPy alone.

From "MEMOIR" (Wang, Qin, Dimitriadis, Favero and Frossard 2025, arXiv:2506.07899): the k largest of |f|, sent through a
fixed permutation, so that which columns an edit may write does not follow which channels are loud.

Shape letters: F channels, V views (fingerprints of one prompt), B prompts, M stored masks.
"""

from __future__ import annotations

import numpy as np

from lmm.errors import StateError


def permutation(width: int, seed: int) -> np.ndarray:
    """Where each of F channels is sent, [F] int64. It belongs in every saved state."""
    return np.random.default_rng(seed).permutation(width).astype(np.int64)


def check_permutation(found: np.ndarray, width: int) -> None:
    """Raises StateError if `found` does not send F channels to F different ones."""
    if found.shape != (width,) or not np.array_equal(np.sort(found), np.arange(width)):
        raise StateError(f"the permutation does not send {width} channels to {width} different ones")


def top_hash(features: np.ndarray, k: int, where: np.ndarray) -> np.ndarray:
    """Features [.., F] -> masks [.., F] bool with exactly k set. Of equal magnitudes the lower channel counts."""
    order = np.argsort(-np.abs(features), axis=-1, kind="stable")[..., :k]
    masks = np.zeros(features.shape, bool)
    np.put_along_axis(masks, where[order], True, axis=-1)
    return masks


def overlaps(queries: np.ndarray, stored: np.ndarray, k: int) -> np.ndarray:
    """Masks [B, V, F] and [M, V, F] -> [B, M], the share of k that both have, in the view that agrees least."""
    shared = np.einsum("bvf,mvf->bmv", queries.astype(np.float32), stored.astype(np.float32), optimize=True)
    return np.round(shared.min(axis=2) / k, 6)
