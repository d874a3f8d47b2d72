"""What both reports are made of: a table in Markdown, what repeats it, and pictures where matplotlib is installed"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmm.files import own

Result = Mapping[str, Any]  # "rows", and "run": what they were measured with


def table(lines: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown; the first line is its heading."""
    rule = ["---", *["---:"] * (len(lines[0]) - 1)]
    return ["| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:])]


def repeated_by(about: Mapping[str, Any]) -> list[str]:
    """What a result has to say to be measured again, as a list in Markdown."""
    facts = [f"- {key}: {about[key]}" for key in ("model", "backend", "dtype", "lmm_version", "commit", "date")]
    return [*facts, f"- command: `{about['command']}`"]


def write(
    result: Result, folder: Path, markdown: Callable[[Result], str], plots: Callable[[Result, Path], object]
) -> None:
    """`table.md`, and the plots: an optional dependency, which the numbers do not need."""
    (folder / "table.md").write_text(markdown(result), encoding="utf-8")
    if importlib.util.find_spec("matplotlib") is not None:
        plots(result, folder)


def pyplot() -> Any:
    """matplotlib's, without a window."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def saved(figure: Any, path: Path) -> Path:
    own.check(path)
    figure.savefig(path, dpi=120)
    pyplot().close(figure)
    return path
