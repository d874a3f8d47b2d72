"""`identity`: returns hidden states unchanged and learns nothing. The yardstick for speed and for zero effect."""

from __future__ import annotations

from lmm.memory.base import Memory


class Identity(Memory):
    name = "identity"
    summary = "returns hidden states unchanged; learns nothing"
    learns_from = "nothing"
