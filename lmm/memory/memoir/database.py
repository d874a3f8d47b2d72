"""Masks by name, and which of them is closest to another: by FAISS where it is installed, by NumPy where it is not."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from lmm.errors import StateError, UsageError
from lmm.files.atomic import write_atomically
from lmm.memory.memoir.fingerprint import as_bits, from_environment

METRICS = ("cosine", "overlap")
MAX_EDITS = 10_000
FILE = "masks.safetensors"
PathLike = str | os.PathLike[str]


def sizes(hidden_size: int | None, max_edits: int | None) -> tuple[int, int]:
    """Both, from the environment where they are not given. Raises UsageError for what cannot be."""
    hidden_size = hidden_size if hidden_size is not None else from_environment("MEMOIR_HIDDEN_SIZE")
    max_edits = max_edits if max_edits is not None else from_environment("MEMOIR_MAX_EDITS", MAX_EDITS)
    if hidden_size < 1 or max_edits < 1:
        raise UsageError(f"hidden_size and max_edits must be at least 1, not {hidden_size}, {max_edits}")
    return hidden_size, max_edits


class EditMaskDatabase:
    """Masks [F], each under an id with what is known of it. The similarity of two masks of p and q ones that share s:

        cosine    s / sqrt(p q)        overlap    s / max(p, q)

    `storage_dir` is where `save` and `load` go (MEMOIR_STORAGE_DIR); `backend` is "faiss", "numpy" or None: the first
    that is there. Of masks that are equally close the last one added counts. Raises UsageError for sizes that cannot
    be, and names that it does not know.
    """

    def __init__(
        self,
        hidden_size: int | None = None,
        similarity_metric: str = "cosine",
        storage_dir: PathLike | None = None,
        max_edits: int | None = None,
        backend: str | None = None,
    ) -> None:
        if similarity_metric not in METRICS:
            raise UsageError(f"similarity_metric must be one of {', '.join(METRICS)}, not {similarity_metric!r}")
        if backend not in (None, "faiss", "numpy"):
            raise UsageError(f"backend must be faiss or numpy, not {backend!r}")
        if backend == "faiss" and importlib.util.find_spec("faiss") is None:
            raise UsageError("faiss is not installed; pip install 'lmm[faiss]', or leave backend out")
        self.hidden_size, self.max_edits = sizes(hidden_size, max_edits)
        self.metric, self.storage_dir = similarity_metric, storage_dir or os.environ.get("MEMOIR_STORAGE_DIR")
        self.backend = backend or ("faiss" if importlib.util.find_spec("faiss") else "numpy")
        self.metadata: dict[str, dict[str, Any]] = {}
        self._masks: dict[str, np.ndarray] = {}  # packed bits, [ceil(F / 8)] uint8
        self._index: _Index | None = None

    def __len__(self) -> int:
        return len(self._masks)

    def __contains__(self, edit_id: object) -> bool:
        return edit_id in self._masks

    def add(self, edit_id: str, mask: Any, metadata: dict[str, Any] | None = None) -> None:
        """Keep a mask (what is not 0 is set). Raises UsageError for an id that is taken, a mask that does not fit, a
        full database, and metadata that JSON cannot say."""
        if edit_id in self._masks:
            raise UsageError(f"there is an edit {edit_id!r} already; remove it first")
        if len(self._masks) >= self.max_edits:
            raise UsageError(f"the database holds {self.max_edits} edits at most (max_edits)")
        try:
            json.dumps(metadata or {})
        except (TypeError, ValueError) as error:
            raise UsageError(f"the metadata of {edit_id!r} cannot be saved as JSON: {error}") from error
        self._masks[edit_id], self.metadata[edit_id] = self._packed(mask), dict(metadata or {})
        self._index = None

    def remove(self, edit_id: str) -> None:
        """Raises UsageError if there is none of this id."""
        if edit_id not in self._masks:
            raise UsageError(f"there is no edit {edit_id!r}")
        del self._masks[edit_id], self.metadata[edit_id]
        self._index = None

    def get(self, edit_id: str) -> np.ndarray:
        """The mask [F], float32 of 0. and 1. Raises UsageError if there is none of this id."""
        if edit_id not in self._masks:
            raise UsageError(f"there is no edit {edit_id!r}")
        return np.unpackbits(self._masks[edit_id])[: self.hidden_size].astype(np.float32)

    def find_closest(self, mask: Any, threshold: float = 0.8) -> tuple[str, np.ndarray, float] | None:
        """(id, its mask [F], similarity) of the closest edit, if its similarity is at least `threshold`; else None."""
        query = self._packed(mask)
        if not self._masks:
            return None
        if self._index is None:
            self._index = _Index(list(self._masks.values()), self.backend, self.metric)
        position, similarity = self._index.closest(query)
        if similarity < threshold:
            return None
        edit_id = list(self._masks)[position]
        return edit_id, self.get(edit_id), similarity

    def _packed(self, mask: Any) -> np.ndarray:
        bits = as_bits(mask)
        if bits.shape != (self.hidden_size,) or not bits.any():
            raise UsageError(
                f"a mask must have shape ({self.hidden_size},) and at least one bit; this one has shape {bits.shape} "
                f"and {int(bits.sum())} bits"
            )
        return np.packbits(bits)

    # files ---------------------------------------------------------------------------------------------------
    def save(self, path: PathLike | None = None) -> Path:
        """Write everything as safetensors, whole or not at all. Raises UsageError without a place, StateError."""
        from safetensors.numpy import save

        target, ids = self._place(path), list(self._masks)
        about = {"format": "lmm-masks", "version": 1, "hidden_size": self.hidden_size, "metric": self.metric}
        about |= {"ids": ids, "metadata": [self.metadata[i] for i in ids]}
        masks = np.stack([self._masks[i] for i in ids]) if ids else np.zeros((0, -(-self.hidden_size // 8)), np.uint8)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, [save({"masks": masks}, {"lmm": json.dumps(about)})])
        except OSError as error:
            raise StateError(f"the masks cannot be saved to {target}: {error}") from error
        return target

    def load(self, path: PathLike | None = None) -> None:
        """Take what a file holds in place of what is here. Raises StateError, and then nothing has changed."""
        from safetensors import safe_open

        target = self._place(path)
        try:
            with safe_open(str(target), "numpy") as file:
                about, masks = json.loads((file.metadata() or {})["lmm"]), file.get_tensor("masks")
            ids, metadata = list(map(str, about["ids"])), list(about["metadata"])
            size, version = about["hidden_size"], about["version"]
        except Exception as error:
            raise StateError(f"{target} holds no masks of lmm: {error}") from error
        wide = -(-self.hidden_size // 8)
        if version != 1 or size != self.hidden_size or masks.dtype != np.uint8 or masks.shape != (len(ids), wide):
            raise StateError(
                f"{target} does not fit: version {version}, {size} channels, masks {masks.shape} of {len(ids)} ids; "
                f"expected version 1 and {self.hidden_size} channels"
            )
        beyond = bool(np.unpackbits(masks, axis=1)[:, size:].any())
        told = len(metadata) == len(ids) and all(isinstance(entry, dict) for entry in metadata)
        if len(set(ids)) != len(ids) or not told or beyond or any(not m.any() for m in masks):
            raise StateError(f"{target} is damaged: ids that repeat, masks that are none, or metadata of another kind")
        if len(ids) > self.max_edits:
            raise StateError(f"{target} holds {len(ids)} edits; this database takes {self.max_edits} (max_edits)")
        self._masks, self.metadata = dict(zip(ids, masks, strict=True)), dict(zip(ids, metadata, strict=True))
        self._index = None

    def _place(self, path: PathLike | None) -> Path:
        if path is not None:
            return Path(path)
        if not self.storage_dir:
            raise UsageError("name a file, or a folder with storage_dir or MEMOIR_STORAGE_DIR")
        return Path(self.storage_dir) / FILE


class _Index:
    """Exact search. Masks with the same number of ones are one group: in it, the nearest in Hamming distance H is the
    most similar, as p + q = H + 2 s."""

    def __init__(self, masks: list[np.ndarray], backend: str, metric: str) -> None:
        ones = np.array([np.unpackbits(m).sum() for m in masks])
        self.metric = metric
        self.groups = [
            (
                int(q),
                np.flatnonzero(ones == q),
                _search(np.stack([m for m, o in zip(masks, ones, strict=True) if o == q]), backend),
            )
            for q in np.unique(ones)
        ]

    def closest(self, query: np.ndarray) -> tuple[int, float]:
        p, found = int(np.unpackbits(query).sum()), []
        for q, positions, nearest in self.groups:
            row, distance = nearest(query)
            shared = (p + q - distance) / 2
            found.append((shared / (math.sqrt(p * q) if self.metric == "cosine" else max(p, q)), int(positions[row])))
        similarity, position = max(found)
        return position, similarity


def _search(masks: np.ndarray, backend: str) -> Any:
    """A function: query [n] uint8 -> (the last of the nearest rows, its Hamming distance)."""
    if backend == "numpy":

        def by_numpy(query: np.ndarray) -> tuple[int, int]:
            distances = np.unpackbits(masks ^ query, axis=1).sum(axis=1)
            return len(distances) - 1 - int(distances[::-1].argmin()), int(distances.min())

        return by_numpy
    import faiss

    index = faiss.IndexBinaryFlat(masks.shape[1] * 8)
    index.add(np.ascontiguousarray(masks))

    def by_faiss(query: np.ndarray) -> tuple[int, int]:
        best = int(index.search(query[None], 1)[0][0, 0])
        _, _, rows = index.range_search(query[None], best + 1)  # all below best + 1: those that are equally near
        return int(rows.max()), best

    return by_faiss
