"""Numbers as a picture of characters."""

from __future__ import annotations

from collections.abc import Sequence

from lmm.text.sanitize import clean_line

SHADES = " .:-=+*#%@"
WIDE = 16  # characters of a row's name


def heat_map(rows: Sequence[str], values: Sequence[Sequence[float]]) -> str:
    """A line for each row: its name, and a shade for each of its values, which are 0 to the largest of all."""
    most = max((max(row, default=0.0) for row in values), default=0.0) or 1.0
    shades = ("".join(SHADES[min(int(v / most * len(SHADES)), len(SHADES) - 1)] for v in row) for row in values)
    return "\n".join(f"{clean_line(name, WIDE):>{WIDE}} |{line}|" for name, line in zip(rows, shades, strict=True))
