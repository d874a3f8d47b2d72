"""lmm: a chat over a local language model that learns from what its user tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"
__all__ = ["attach"]

if TYPE_CHECKING:
    from lmm.engine.attached import attach


def __getattr__(name: str) -> Any:
    """`attach` and what it needs, torch above all, are imported when it is first asked for."""
    if name == "attach":
        from lmm.engine.attached import attach

        return attach
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
