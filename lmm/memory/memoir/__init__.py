"""The parts of MEMOIR under their names, for code that has a torch model of its own.

    TopHashFingerprinter   activations -> a sparse mask, the same in every process
    EditMaskDatabase       masks by name: add, find the closest, save and load
    ResidualMemoryLayer    W_m: zero when fresh; each edit in the columns of its mask
    MemoirTap              puts the three at a down-projection of a transformers model, and takes them out again

The mathematics is that of the memory `memoir` (memoir.py and tophash.py), which does all of this by itself:
`lmm chat --memory memoir`, or `lmm.attach` for a model in hand. docs/memoir.md has an example and the variables
MEMOIR_... . Importing this package imports no torch; the last two names do.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmm.memory.memoir.database import EditMaskDatabase
    from lmm.memory.memoir.fingerprint import TopHashFingerprinter
    from lmm.memory.memoir.layer import MemoirTap, ResidualMemoryLayer

__all__ = ["EditMaskDatabase", "MemoirTap", "ResidualMemoryLayer", "TopHashFingerprinter"]
_HOMES = {
    "EditMaskDatabase": "database",
    "MemoirTap": "layer",
    "ResidualMemoryLayer": "layer",
    "TopHashFingerprinter": "fingerprint",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
