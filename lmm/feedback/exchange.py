"""What was said just before a turn."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Exchange:
    """The question before this turn, and the reply it got."""

    user: str
    assistant: str
