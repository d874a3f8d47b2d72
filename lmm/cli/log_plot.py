"""The activation log as a picture: a row for each reply or lesson read, a column for each token, coloured by change.

Change is how far the memory moved the hidden state at the last position of a forward pass, relative to its size:
|out - in| / |in| over the logged slice (the last five components).
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmm.errors import LmmError, UsageError
from lmm.files import own
from lmm.text.sanitize import clean_line

if TYPE_CHECKING:
    from rich.text import Text

_SHADES = " ░▒▓█"
_COLOURS = ("#ffffff", "#fee8c8", "#fdbb84", "#fc8d59", "#e34a33", "#b30000")


@dataclass
class PlotRow:
    """One stretch of forward passes: a prefill and the decoding after it, or a lesson."""

    label: str
    changes: list[float] = field(default_factory=list)


def rows(records: Iterable[Mapping[str, Any]], last: int = 40) -> list[PlotRow]:
    """The newest `last` rows of a log. A row begins with each prefill, at each site."""
    found: list[PlotRow] = []
    open_rows: dict[tuple[Any, ...], PlotRow] = {}
    for record in records:
        if record.get("kind") != "hook":
            continue
        site = tuple(str(record.get(name)) for name in ("module", "layer", "part"))
        if record.get("phase") != "decode" or site not in open_rows:
            name = clean_line(f"{record.get('module')} {record.get('layer')} {record.get('phase')}", 40)
            open_rows[site] = PlotRow(name)
            found.append(open_rows[site])
        open_rows[site].changes.append(change(record))
    return found[-last:]


def change(record: Mapping[str, Any]) -> float:
    """How far a record's memory moved the last position, relative to its size; NaN where the numbers are not finite."""
    try:
        before, after = (_flat(record.get(name)) for name in ("input_slice", "output_slice"))
    except RecursionError:
        return math.nan
    if len(before) != len(after) or not before:
        return math.nan
    moved, size = math.dist(before, after), math.hypot(*before)
    return moved / size if size > 0 else (0.0 if moved == 0 else math.nan)


def _flat(values: Any) -> list[float]:
    if isinstance(values, (list, tuple)):
        return [number for value in values for number in _flat(value)]
    try:
        return [float(values)]
    except (TypeError, ValueError, OverflowError):
        return [math.nan]


def scale(found: list[PlotRow]) -> float:
    """The change that gets the strongest colour."""
    finite = [c for row in found for c in row.changes if math.isfinite(c)]
    return max(finite, default=0.0) or 1.0


def as_text(found: list[PlotRow], width: int) -> Text:
    """For a terminal, with or without colours."""
    from rich.text import Text

    top, label = scale(found), max((len(row.label) for row in found), default=0)
    text = Text()
    for row in found:
        text.append(f"{row.label:<{label}} ", "dim")
        for value in row.changes[: max(1, width - label - 2)]:
            level = 0.0 if not math.isfinite(value) else min(1.0, value / top)
            text.append("?" if not math.isfinite(value) else _SHADES[math.ceil(level * (len(_SHADES) - 1))])
        text.append("\n")
    return text.append(f"{_SHADES[-1]} = {top:.3g}, one column a token: change relative to the hidden state", "dim")


def as_html(found: list[PlotRow]) -> str:
    """A page without scripts; every label is escaped."""
    top, lines = scale(found), []
    for row in found:
        cells = "".join(f'<td style="background:{_colour(v, top)}" title="{v:.4g}"></td>' for v in row.changes)
        lines.append(f"<tr><th>{html.escape(row.label)}</th>{cells}</tr>")
    style = "td{width:10px;height:14px;padding:0}th{font:12px monospace;text-align:left;padding-right:8px}"
    return (
        f"<!doctype html><meta charset=utf-8><title>activations</title><style>{style}</style>"
        f"<p>Change of the hidden state, relative to its size; darkest: {top:.4g}</p>"
        f"<table>{''.join(lines)}</table>\n"
    )


def _colour(value: float, top: float) -> str:
    if not math.isfinite(value):
        return "#9999ff"
    return _COLOURS[min(len(_COLOURS) - 1, math.ceil(value / top * (len(_COLOURS) - 1)))]


def write(found: list[PlotRow], path: Path) -> None:
    """A .html, .png, .svg or .pdf file. Raises UsageError, or LmmError if it cannot be written."""
    kind = path.suffix.lower()
    if kind not in (".html", ".png", ".svg", ".pdf"):
        raise UsageError(f"cannot plot to {path}; expected a name that ends in .html, .png, .svg or .pdf")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == ".html":
            own.write_out(path, [as_html(found).encode()])
        else:
            _draw(found, path)
    except OSError as error:
        raise LmmError(f"cannot write {path}: {error.strerror or error}; choose another place with --output") from error


def _draw(found: list[PlotRow], path: Path) -> None:
    from lmm.bench import pages

    try:
        pyplot = pages.pyplot()
    except ImportError as error:
        raise LmmError(
            f"a {path.suffix} file needs matplotlib: pip install matplotlib; --output FILE.html needs nothing"
        ) from error
    longest = max(len(row.changes) for row in found)
    grid = [[*row.changes, *[math.nan] * (longest - len(row.changes))] for row in found]
    figure, axes = pyplot.subplots(figsize=(min(24.0, 3 + longest * 0.15), 1 + 0.3 * len(found)))
    image = axes.imshow(grid, aspect="auto", cmap="OrRd", vmin=0.0, vmax=scale(found), interpolation="nearest")
    axes.set_yticks(range(len(found)), [row.label for row in found], fontsize=7)
    axes.set_xlabel("token")
    figure.colorbar(image, label="change of the hidden state, relative")
    own.check(path)
    figure.savefig(path, bbox_inches="tight", dpi=120)
    pyplot.close(figure)
