"""The result as JSON, as a table on the terminal and in Markdown, and as plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmm.bench import pages
from lmm.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

Row = Mapping[str, Any]
SCORES = ("reliability", "generalization", "locality")

#: heading, where its value stands in a row, how it is written
Columns = Sequence[tuple[str, str, str]]
COLUMNS: Columns = (
    ("memory", "memory", "{}"),
    ("N", "edits", "{}"),
    ("reliability", "reliability", "{:.3f}"),
    ("generalization", "generalization", "{:.3f}"),
    ("locality", "locality", "{:.3f}"),
    ("mean", "mean_score", "{:.3f}"),
    ("reliability, contains", "reliability_contains", "{:.3f}"),
    ("generalization, contains", "generalization_contains", "{:.3f}"),
    ("mean, contains", "mean_score_contains", "{:.3f}"),
    ("known unchanged", "known_unchanged", "{:.3f}"),
    ("later answer", "later_answer", "{:.3f}"),
    ("earlier answer", "earlier_answer", "{:.3f}"),
    ("portability", "portability", "{:.3f}"),
    ("teacher-forced", "teacher_forced.reliability", "{:.3f}"),
    ("t.f. rephrase", "teacher_forced.generalization", "{:.3f}"),
    ("perplexity ratio", "ppl_ratio", "{:.4f}"),
    ("first tenth", "retention_first", "{:.3f}"),
    ("last tenth", "retention_last", "{:.3f}"),
    ("s/lesson", "lesson_s_median", "{:.3f}"),
    ("s/lesson p95", "lesson_s_p95", "{:.3f}"),
    ("lesson/reply", "lesson_vs_reply", "{:.2f}"),
    ("bytes/lesson", "bytes_per_lesson", "{:.0f}"),
    ("speed ratio", "tokens_per_s_ratio", "{:.3f}"),
)


def cell(row: Row, path: str, form: str, scores: Sequence[str] = SCORES) -> str:
    """One value as text; the main scores with their interval, nothing where there is none."""
    value: Any = row
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    if value is None:
        return ""
    interval = (row.get("intervals") or {}).get(path) if path in scores else None
    shown = form.format(value)
    return f"{shown} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else shown


def cells(
    rows: Sequence[Row], columns: Columns = COLUMNS, scores: Sequence[str] = SCORES
) -> tuple[list[str], list[list[str]]]:
    """Headings and lines, without the columns that no row has a value for."""
    lines = [[cell(row, path, form, scores) for _, path, form in columns] for row in rows]
    kept = [i for i in range(len(columns)) if any(line[i] for line in lines)]
    return [columns[i][0] for i in kept], [[line[i] for i in kept] for line in lines]


def table_lines(rows: Sequence[Row], columns: Columns = COLUMNS, scores: Sequence[str] = SCORES) -> list[str]:
    """The rows as a table in Markdown."""
    headings, lines = cells(rows, columns, scores)
    return pages.table([headings, *lines])


def markdown(result: Mapping[str, Any]) -> str:
    """The table with what is needed to repeat it."""
    about = result["run"]
    return "\n".join(
        [
            f"# Editing benchmark: {about['data']['file']} ({about['data']['format']})",
            "",
            "Free greedy decoding in empty conversations; exact match after SQuAD normalisation; [95 % interval].",
            "",
            *table_lines(result["rows"]),
            "",
            *pages.repeated_by(about),
            f"- data sha256: {about['data']['sha256']}",
            "",
        ]
    )


def terminal_table(rows: Sequence[Row], columns: Columns = COLUMNS, scores: Sequence[str] = SCORES) -> Table:
    """Memories side by side, one line for each score: it fits a terminal."""
    from rich.table import Table

    headings, lines = cells(rows, columns, scores)
    table = Table()
    table.add_column("")
    for line in lines:
        table.add_column(f"{line[0]}, {headings[1]}={line[1]}", justify="right")
    for i, heading in enumerate(headings[2:], 2):
        table.add_row(heading, *(line[i] for line in lines))
    return table


def plots(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """`scores.png` and, if lessons were timed, `lesson_seconds.png`."""
    pyplot, rows = pages.pyplot(), result["rows"]
    several = len({row["edits"] for row in rows}) > 1
    draw = _lines if several else _bars
    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.6), sharey=True, layout="constrained")
    for axis, score in zip(axes, SCORES, strict=True):
        draw(axis, rows, score)
        axis.set(title=_title(score, rows), ylim=(0, 1.05))
    if several:
        axes[0].legend()
    figure.suptitle(f"{result['run']['data']['file']}, free decoding, {result['run']['model']}")
    made = [pages.saved(figure, folder / "scores.png")]
    if any(row.get("lesson_s_median") for row in rows):
        figure, axis = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
        draw(axis, rows, "lesson_s_median")
        axis.set(title="seconds per lesson (median)", yscale="log" if several else "linear")
        made.append(pages.saved(figure, folder / "lesson_seconds.png"))
    return made


def read(path: Path) -> Mapping[str, Any]:
    """A result, from its file or its folder. Raises UsageError if it is none."""
    file = path / "result.json" if path.is_dir() else path
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
        _ = [(row["memory"], row["edits"]) for row in result["rows"]], result["run"]["data"]["file"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file} is no result of `lmm bench edit`: {error}") from error
    return result


def together(results: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Several results in one picture: a panel for each score, a group of bars for each data set and size."""
    groups: dict[str, dict[str, Row]] = {}
    for result in results:
        for row in result["rows"]:
            where = f"{Path(result['run']['data']['file']).stem}\nN={row['edits']}"
            groups.setdefault(where, {})[row["memory"]] = row
    memories = list(dict.fromkeys(name for rows in groups.values() for name in rows))
    size = (4 + 2.2 * len(groups), 3.4)
    figure, axes = pages.pyplot().subplots(1, 3, figsize=size, sharey=True, layout="constrained")
    for axis, score in zip(axes, SCORES, strict=True):
        for i, name in enumerate(memories):
            _group(axis, [rows.get(name) for rows in groups.values()], score, i, len(memories), name)
        title = _title(score, [row for rows in groups.values() for row in rows.values()])
        axis.set(title=title, ylim=(0, 1.05), xticks=range(len(groups)), xticklabels=list(groups))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(memories))
    return pages.saved(figure, path)


def _group(axis: Any, rows: Sequence[Row | None], score: str, i: int, count: int, name: str) -> None:
    """The bars of one memory, the i-th of `count`, in every group that has it."""
    width = 0.8 / count
    places = [x for x, row in enumerate(rows) if row and row.get(score) is not None]
    mine, at = [row for x in places if (row := rows[x])], [x - 0.4 + width * (i + 0.5) for x in places]
    axis.bar(at, [row[score] for row in mine], width, label=name, color=f"C{i}")
    _outline(axis, at, mine, score, width)


def _contained(rows: Sequence[Row], score: str) -> list[float]:
    """The score of each row if an answer need only be contained in the reply; of those that have it."""
    return [row[f"{score}_contains"] for row in rows if row.get(f"{score}_contains") is not None]


def _title(score: str, rows: Sequence[Row]) -> str:
    return f"{score} (dotted: contains)" if _contained(rows, score) else score


def _outline(axis: Any, at: Sequence[Any], rows: Sequence[Row], score: str, width: float = 0.8) -> None:
    """Around the bars of exact match, what would count if the answer need only be contained."""
    found = [(x, value) for x, row in zip(at, rows, strict=True) for value in _contained([row], score)]
    if found:
        axis.bar(*zip(*found, strict=True), width, fill=False, linestyle=":")


def _lines(axis: Any, rows: Sequence[Row], score: str) -> None:
    for name in dict.fromkeys(row["memory"] for row in rows):
        mine = [row for row in rows if row["memory"] == name and row.get(score) is not None]
        if not mine:
            continue
        sizes, values = [row["edits"] for row in mine], [row[score] for row in mine]
        (line,) = axis.plot(sizes, values, marker="o", label=name)
        if contained := _contained(mine, score):
            axis.plot(sizes, contained, linestyle=":", color=line.get_color())
        found = [(row.get("intervals") or {}).get(score) for row in mine]
        if all(found):
            axis.fill_between(sizes, [f[0] for f in found], [f[1] for f in found], alpha=0.15)  # type: ignore[index]
    axis.set(xlabel="edits", xscale="log")


def _bars(axis: Any, rows: Sequence[Row], score: str) -> None:
    mine = [row for row in rows if row.get(score) is not None]
    values = [row[score] for row in mine]
    found = [(row.get("intervals") or {}).get(score) or (v, v) for row, v in zip(mine, values, strict=True)]
    errors = [
        [max(v - f[0], 0.0) for v, f in zip(values, found, strict=True)],
        [max(f[1] - v, 0.0) for v, f in zip(values, found, strict=True)],
    ]
    names = [row["memory"] for row in mine]
    axis.bar(names, values, yerr=errors if mine else None, capsize=3)
    _outline(axis, names, mine, score)
    axis.tick_params(axis="x", labelrotation=30)
