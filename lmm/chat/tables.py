"""Tables of untrusted values. Words stay whole: on a narrow terminal a row becomes a short paragraph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lmm.text.sanitize import as_text

SHORT = 16  # a column that is no wider is never broken
BETWEEN = 3  # blanks between two columns
COMFORT = 12  # columns that a longer text needs at least; fewer read like a list of words


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> Listing:
    """Columns that hold only numbers are set to the right."""
    return Listing([as_text(header, limit=40) for header in headers], [list(row) for row in rows])


@dataclass(frozen=True)
class Listing:
    """A table where it fits, else each row by itself: what it is about, and below it the rest with its headers."""

    headers: list[Text]
    rows: list[list[object]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        cells = [[as_text(value) for value in row] for row in self.rows]
        columns = [[header, *column] for header, *column in zip(self.headers, *cells, strict=True)]
        if sum(map(_needed, columns)) + BETWEEN * (len(columns) - 1) <= options.max_width:
            yield self._side_by_side(columns, cells)
        else:
            for row in cells:
                yield from self._stacked(row)

    def _numeric(self, index: int) -> bool:
        return bool(self.rows) and all(isinstance(row[index], (int, float)) for row in self.rows)

    def _side_by_side(self, columns: list[list[Text]], cells: list[list[Text]]) -> Table:
        titled = any(header.plain for header in self.headers)
        out = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_header=titled)
        for index, column in enumerate(columns):
            justify = "right" if self._numeric(index) else "left"
            out.add_column(column[0], justify=justify, overflow="fold", no_wrap=_stiff(column))  # type: ignore[arg-type]
        for row in cells:
            out.add_row(*row)
        return out

    def _stacked(self, row: list[Text]) -> RenderResult:
        about = 2 if self._numeric(0) and len(row) > 1 else 1  # a number alone says nothing
        yield Text("  ").join(row[:about])
        rest = Table.grid(padding=(0, 1))
        rest.add_column(style="dim", no_wrap=True)
        rest.add_column(overflow="fold")
        labels = any(header.plain for header in self.headers[about:])
        for header, cell in zip(self.headers[about:], row[about:], strict=True):
            if cell.plain:
                rest.add_row(*([header, cell] if labels else ["", cell]))
        yield Padding(rest, (0, 0, 0, 2 if labels else 1))


def _width(cell: Text) -> int:
    return max(map(cell_len, cell.plain.split("\n")))


def _longest(column: list[Text]) -> int:
    return max((cell_len(word) for cell in column for word in cell.plain.split()), default=0)


def _stiff(column: list[Text]) -> bool:
    """Is it never broken? Short texts and single words, such as ids, are not."""
    width = max(map(_width, column))
    return width <= SHORT or width == _longest(column) <= 2 * SHORT


def _needed(column: list[Text]) -> int:
    """Columns that a column needs so that its words stay whole; a word that is longer than most has to be broken."""
    return max(map(_width, column)) if _stiff(column) else max(COMFORT, min(_longest(column), 2 * SHORT))
