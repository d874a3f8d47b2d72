"""The comparison as Markdown tables, on the terminal, and as plots."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmm.bench import pages

if TYPE_CHECKING:
    from rich.table import Table

Row = Mapping[str, Any]
Lines = list[list[str]]


def overall(rows: Sequence[Row]) -> Lines:
    """One line for each memory; the first line is the heading."""
    head = ["memory", "taught", "other wording", "not taught", "known unchanged", "not taught unchanged"]
    lines = [[*head, "s per lesson", "training s", "reply time", "bytes"]]
    for row in rows:
        scores = [_share(row[k]) for k in ("taught", "wordings", "unseen", "known_unchanged", "unseen_unchanged")]
        costs = [_number(row.get("lesson_s_median"), "{:.2f}"), _number(row.get("training_s"), "{:.0f}")]
        costs += [_number(row.get("reply_s_ratio"), "x {:.2f}"), _number(row.get("state_bytes"), "{:,}")]
        lines.append([row["memory"], *scores, *costs])
    return lines


def by_category(rows: Sequence[Row], kind: str = "taught") -> Lines:
    names = sorted({name for row in rows for name in row[f"{kind}_by_category"]})
    lines = [["category", "n", *(row["memory"] for row in rows)]]
    for name in names:
        found = [row[f"{kind}_by_category"].get(name) for row in rows]
        lines.append([name, str(max(x["count"] for x in found if x)), *(_value(x) for x in found)])
    return lines


def by_distance(rows: Sequence[Row]) -> Lines:
    lines = [["tokens of other talk", *(row["memory"] for row in rows)]]
    for i, first in enumerate(rows[0]["by_distance"]):
        lines.append([str(first["tokens"]), *(_value(row["by_distance"][i]) for row in rows)])
    return lines


def by_length(rows: Sequence[Row]) -> Lines:
    """Milliseconds of a decode step, the memory's own part in brackets, and of the decision before a reply."""
    lines = [["tokens read", *(row["memory"] for row in rows)]]
    for i, first in enumerate(rows[0]["by_length"]):
        cells = []
        for row in rows:
            at = row["by_length"][i]
            cells.append(f"{at['step_s'] * 1e3:.1f} ({at['lookup_s'] * 1e3:.2f}); {at['recall_s'] * 1e3:.1f}")
        lines.append([str(first["tokens"]), *cells])
    return lines


def markdown(result: Mapping[str, Any]) -> str:
    """All tables, with what is needed to repeat them."""
    rows, about = result["rows"], result["run"]
    parts = [
        f"# Comparison on {about['data']}: {about['taught']} examples taught",
        "Free greedy decoding; exact match after SQuAD normalisation; [95 % interval].",
        _table(overall(rows)),
        "## Taught questions, by category",
        _table(by_category(rows)),
        "## In another wording, by category",
        _table(by_category(rows, "wordings")),
        "## After other talk",
        _table(by_distance(rows)),
        "## Time",
        "Milliseconds of a decode step (of these the memory's own); of what is decided once per reply.",
        _table(by_length(rows)),
        "\n".join(pages.repeated_by(about)),
    ]
    return "\n\n".join(parts) + "\n"


def terminal_tables(rows: Sequence[Row]) -> list[Table]:
    from rich.table import Table

    tables = []
    for lines in (overall(rows), by_category(rows), by_distance(rows), by_length(rows)):
        table = Table(*lines[0])
        for line in lines[1:]:
            table.add_row(*line)
        tables.append(table)
    return tables


def plots(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """`categories.png`, `distance.png` and `length.png`."""
    drawn = {"categories": _categories, "distance": _distances, "length": _lengths}
    return [pages.saved(_figure(draw, result["rows"]), folder / f"{name}.png") for name, draw in drawn.items()]


def _figure(draw: Callable[[Any, Sequence[Row]], None], rows: Sequence[Row]) -> Any:
    """One plot with its legend below, in as many columns as fit."""
    figure, axis = pages.pyplot().subplots(figsize=(8, 4.5), layout="constrained")
    draw(axis, rows)
    handles, labels = axis.get_legend_handles_labels()
    columns = max(1, min(len(labels), 120 // (max(map(len, labels)) + 9)))  # 120 letters are a line
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize="small")
    return figure


def _categories(axis: Any, rows: Sequence[Row]) -> None:
    names = sorted({name for row in rows for name in row["taught_by_category"]})
    width = 0.8 / len(rows)
    for i, row in enumerate(rows):
        values = [(row["taught_by_category"].get(name) or {}).get("value") or 0.0 for name in names]
        axis.bar([x + i * width for x in range(len(names))], values, width, label=row["memory"])
    axis.set_xticks([x + 0.4 - width / 2 for x in range(len(names))], names, rotation=30, ha="right")
    axis.set(title="taught questions, exact match", ylim=(0, 1.05))


def _distances(axis: Any, rows: Sequence[Row]) -> None:
    tokens = [str(x["tokens"]) for x in rows[0]["by_distance"]]
    width = 0.6 / len(rows)
    for i, (row, marker) in enumerate(zip(rows, itertools.cycle("osD^vPX"), strict=False)):
        values = [x["value"] for x in row["by_distance"]]  # the same for several: side by side, none hides another
        at = [x + (i - (len(rows) - 1) / 2) * width for x in range(len(tokens))]
        axis.plot(at, values, marker=marker, lw=0.8, label=row["memory"])
    axis.set_xticks(range(len(tokens)), tokens)
    axis.set(title="taught questions after other talk, exact match", xlabel="tokens before the question")
    axis.set(ylim=(-0.05, 1.05))


def _lengths(axis: Any, rows: Sequence[Row]) -> None:
    from matplotlib.ticker import LogFormatter

    for row in rows:
        found = row["by_length"]
        tokens = [x["tokens"] for x in found]
        (line,) = axis.plot(tokens, [x["step_s"] * 1e3 for x in found], marker="o", label=row["memory"])
        if any(x["lookup_s"] for x in found):
            own = [x["lookup_s"] * 1e3 for x in found]
            axis.plot(tokens, own, ls="--", color=line.get_color())
    title = "a decode step (dashed: the memory's own part of it)"
    axis.set(title=title, xlabel="tokens read", ylabel="ms", xscale="log", yscale="log")
    axis.set_xticks(tokens, list(map(str, tokens)))
    axis.xaxis.minorticks_off()
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(LogFormatter())  # which leaves them out where there are many


def _share(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return "-"
    low, high = found["interval"]
    return f"{found['value']:.3f} [{low:.2f}, {high:.2f}]"


def _value(found: Mapping[str, Any] | None) -> str:
    return _number(found["value"] if found else None, "{:.2f}")


def _number(value: Any, form: str) -> str:
    return "-" if value is None else form.format(value)


def _table(lines: Lines) -> str:
    return "\n".join(pages.table(lines))
