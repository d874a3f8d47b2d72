"""What glibc does with memory that is free; elsewhere, nothing is done.

A cache grows by being made anew. With a heap for each thread, as many as reply at once leave pieces behind into which
nothing fits: as much memory again as the caches take.
"""

from __future__ import annotations

import contextlib
import ctypes

M_ARENA_MAX = -8  # glibc's name for it


def of_one_heap() -> None:
    """From now on all threads share a heap; the model runs one at a time anyway."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def give_back() -> None:
    """What is free goes back to the system."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
