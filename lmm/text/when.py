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


def day(seconds: Any) -> str:
    """The same as a day in a line of talk: "22 Nov", or "22 Nov 2025" where that is another year."""
    told = when(seconds)
    if told == "?":
        return told
    date = datetime.fromtimestamp(seconds)
    return f"{date:%-d %b}" if date.year == datetime.now().year else f"{date:%-d %b %Y}"
