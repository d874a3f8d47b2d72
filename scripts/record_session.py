"""Record a real chat as a picture: python -m scripts.record_session --out docs/session.svg

A pseudo-terminal runs `lmm chat` with the default model, twice, as on two days; each line is typed when the one before
it was answered. What the screens then show is written as SVG, and as text with `--text`. Nothing is edited.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

DAYS = (
    ("What is the capital of Turkey?", "no, it's Ankara", "My sister's name is Vera."),
    (
        "Which city is Turkey's capital?",
        "What's my sister called?",
        "/why",
        "What is the capital of France?",
        "/lessons",
    ),
)
TIMEOUT = 120.0


def play(lines: Sequence[str], folder: Path, rows: int) -> tuple[list[Text], int]:
    """Type the lines into a chat -> what the screen shows then, and its width."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from terminals import Terminal

    terminal = Terminal(folder, program=("-m", "lmm"), rows=rows, OMP_NUM_THREADS="1")
    terminal.see(loaded, TIMEOUT)
    for said, line in enumerate(lines, 1):
        terminal.line(line)
        terminal.see(lambda text, n=said: answered(text, n), TIMEOUT)
    terminal.see(loaded, TIMEOUT)  # the status line is drawn last
    found = list(used(terminal.screen))
    terminal.line("exit")
    terminal.rest()
    return found, terminal.screen.columns


def loaded(text: str) -> bool:
    return "lesson" in text.splitlines()[-1]


def answered(text: str, said: int) -> bool:
    """Whether an empty prompt waits below the `said` lines that were typed."""
    prompts = [line.rstrip() for line in text.splitlines() if line.startswith(">")]
    return len(prompts) == said + 1 and prompts[-1] == ">"


def coloured(row, columns: int) -> Text:
    """A line of the screen as rich shows it."""
    line = Text()
    for x in range(columns):
        cell = row[x]
        front, back = (cell.bg, cell.fg) if cell.reverse else (cell.fg, cell.bg)
        parts = [colour(front), f"on {colour(back)}" if colour(back) else "", "bold" if cell.bold else ""]
        line.append(cell.data, " ".join(filter(None, parts)))
    line.rstrip()
    return line


def colour(name: str) -> str:
    """A colour as pyte names it -> as rich does."""
    if name == "default":
        return ""
    return f"#{name}" if re.fullmatch(r"[0-9a-f]{6}", name) else {"brown": "yellow"}.get(name, name)


def used(screen) -> Iterator[Text]:
    lines = [coloured(screen.buffer[y], screen.columns) for y in range(screen.lines)]
    while len(lines) > 1 and not lines[-2].plain.strip():  # the status line stays at the bottom of the screen
        del lines[-2]
    yield from lines


def svg(lines: Sequence[Text], width: int) -> str:
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in lines:
        console.print(line)
    own_fonts = re.sub(r"@font-face\s*{{.*?}}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)  # fetch none from the web
    return console.export_svg(title="lmm chat", code_format=own_fonts)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/session.svg"))
    parser.add_argument("--text", type=Path, help="write the screen as plain text, too")
    parser.add_argument("--rows", type=int, default=60, help="height of the terminal; everything must fit")
    parser.add_argument("--line", action="append", help="type this instead of the built-in session; may be repeated")
    given = parser.parse_args(arguments)
    lines: list[Text] = []
    with tempfile.TemporaryDirectory() as folder:
        for day in [given.line] if given.line else DAYS:
            shown, width = play(day, Path(folder), given.rows)
            lines += [*([Text(""), Text("the next day".center(width), "dim"), Text("")] if lines else []), *shown]
    given.out.write_text(svg(lines, width), encoding="utf-8")
    if given.text:
        given.text.write_text("\n".join(line.plain for line in lines) + "\n", encoding="utf-8")
    print(f"wrote {given.out}")


if __name__ == "__main__":
    main()
