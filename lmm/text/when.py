"""When something was, as people read it."""

from __future__ import annotations

from datetime import datetime
from typing import Any


def when(seconds: Any) -> str:
    """Local date and time of seconds since 1970, "?" where they are none: what a file says is not to be trusted."""
    try:
        return f"{datetime.fromtimestamp(float(seconds)):%Y-%m-%d %H:%M:%S}"
    except (TypeError, ValueError, OverflowError, OSError):
        return "?"
