"""A text in sentences, by its marks alone."""

from __future__ import annotations

import re

_END = re.compile(r"(?<=[.!?…;])\s+|(?<=[。！？；])\s*|\n+")
_NO_END = re.compile(r"(?:^|\s)(?:mr|mrs|ms|dr|prof|st|vs|no|[A-Z])\.$", re.I)


def sentences(text: str) -> list[str]:
    """Split at closing marks and lines, but not after initials and titles ("Dr.", "Rufus T.")."""
    out: list[str] = []
    for part in filter(None, _END.split(text)):
        if out and _NO_END.search(out[-1]) and len(out[-1]) > 3:
            out[-1] += " " + part
        elif part.strip(" .!?…;。！？；"):
            out.append(part.strip())
    return out
