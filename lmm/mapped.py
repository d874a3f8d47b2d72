"""Arrays that lie in a file that is mapped into memory."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def file_of(array: np.ndarray) -> mmap.mmap | None:
    """The mapped file that an array is a view of, if it is one's."""
    base: Any = array
    while not isinstance(base, mmap.mmap):
        if base is None:
            return None
        base = base.obj if isinstance(base, memoryview) else getattr(base, "base", None)
    return base


def release(array: np.ndarray) -> None:
    """Let what was read of its mapped file go from memory: it is read again when it is looked at."""
    mapped = file_of(array)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
