"""Replies on a terminal: what is committed equals one rendering of the whole, whatever the chunks, times and widths."""

from __future__ import annotations

import io
import itertools
import os
import random
import re
import threading

import pyte
import pytest
from payloads import payloads
from rich.console import Console
from rich.segment import Segment, Segments

from lmm.chat import markdown, render
from lmm.chat.render import StreamRenderer, make_console, side_by_side, status_line, strip, strip_plain
from lmm.chat.tables import table
from lmm.text.sanitize import clean

ENVIRON = {"TERM": "xterm-256color"}
PYTHON = [f'def f{i}(x):\n    """Doc {i}."""\n    return x + {i}  # comment\n' for i in range(500)]
REPLIES = {
    "everything": """# A *title*

Some **bold** text with `code`, a [link](http://example.org/a), <http://auto.example> and ![an image](x.png).
A second line, <b>html</b> and [a reference][1].

- one
- two, which is long enough to be wrapped onto another line of an eighty-column terminal, and on
  1. nested
  2. list

     with a paragraph
- three
  ```py
  def f(x): return "a"
  ```

9. nine
10. ten
11. eleven

> quoted
> > twice

| left | right |
|------|------:|
| 1    |     2 |
| a long cell | 東京 |

***

```python
def f(x):

    return x


```
Done.

[1]: http://example.org/reference
""",
    "long prose": "\n\n".join(f"Paragraph {i}: " + "lorem ipsum dolor sit amet " * (i % 9) for i in range(24)),
    "one paragraph, longer than the screen": "word " * 500,
    "code": "Here:\n\n```python\n" + "".join(PYTHON[:30]) + "```\nThat was it.",
    "wide": "东京都 " * 60
    + "\n\n- 日本語の項目\n- 한국어 항목 😀👍🏽\n\n```\n" + "表 = 1\n" * 20 + "```\n\n한국어 " * 30,
    "emoji": "👨\u200d👩\u200d👧 family ❤\ufe0f heart " * 20 + "\n\n" + "1\ufe0f\u20e3 and 🇨🇭 " * 30,
    "tables": "\n\n".join(
        "| n | square |\n|--:|:-------|\n" + "".join(f"| {i} | {i * i} |\n" for i in range(n)) for n in (3, 30, 1)
    ),
    "nested lists": "".join(f"{'  ' * (i % 5)}- item {i} with some words\n" for i in range(60)),
    "numbered": "".join(f"{i}. item {i}\n\n   more of it\n" for i in range(1, 60)),
    "unclosed fence": "Look:\n```js\n" + "let x = 1;\n" * 50,
    "unclosed fence, blank end": "Look:\n```\na\n" + "\n" * 40,
    "late definition": "See [the page] and [it][x].\n\nMore.\n\n[the page]: http://a.example\n[x]: http://b.example",
    "indented lists": "  - a\n  - b\n   - c\n - d\n\n   1) x\n   2) y\n  3) z\n",
    "table of long words": f"| key | value |\n|---|---|\n| {'k' * 50} | {'v' * 150} |\n",
    "deep": "".join("> " * i + f"level {i}\n" for i in range(1, 24)),
    "nothing": "",
    "blank": "\n \n\n",
}  # fmt: skip


class Tty(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Terminal(Tty):
    """A pyte screen with history behind a tty: what a person sees, and scrolls back to."""

    def __init__(self, columns: int = 80, lines: int = 24) -> None:
        super().__init__()
        self.screen = pyte.HistoryScreen(columns, lines, history=100_000)
        self._stream = pyte.Stream(self.screen)

    def write(self, text: str) -> int:
        super().write(text)
        # pyte drops the rest of a run at a zero-width character; the tty makes \n a \r\n
        self._stream.feed(re.sub("[\u200d\ufe0f]", "", text).replace("\n", "\r\n"))
        return len(text)

    def rows(self) -> list[str]:
        history = ["".join(row[x].data for x in range(max(row, default=-1) + 1)) for row in self.screen.history.top]
        rows = [row.rstrip() for row in [*history, *self.screen.display]]
        while rows and not rows[-1]:
            rows.pop()
        return rows


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def console_on(file: io.StringIO, columns: int = 80, lines: int = 24) -> Console:
    console = make_console(file=file, environ=ENVIRON)
    console.size = (columns, lines)  # type: ignore[assignment]
    return console


def one_shot(text: str, columns: int = 80, lines: int = 24) -> list[str]:
    terminal = Terminal(columns, lines)
    console = console_on(terminal, columns, lines)
    for line in markdown.render(console, text, columns - 1):
        console.print(Segments([*line, Segment.line()]), end="", crop=False)
    return terminal.rows()


def chunks(text: str, seed: int) -> list[str]:
    chance = random.Random(seed)
    largest = [1, 12, 200][seed % 3]
    out = []
    while text:
        size = chance.randint(1, largest)
        out.append(text[:size])
        text = text[size:]
    return out


# --- streaming ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("size", [(80, 24), (40, 8)])
@pytest.mark.parametrize("name", REPLIES)
def test_what_is_committed_equals_one_rendering_of_the_whole(name, size):
    text = REPLIES[name]
    want = one_shot(text, *size)
    for seed in range(3) if size[0] == 80 else [2]:
        terminal, clock, chance = Terminal(*size), Clock(), random.Random(seed)
        with StreamRenderer(console_on(terminal, *size), clock=clock, reflows=False) as renderer:
            for chunk in chunks(text, seed):
                renderer.feed(chunk)
                clock.now += chance.choice([0, 0.001, 0.01, 0.04])
                if chance.random() < 0.02:  # nothing in the scrollback is there twice, or too early
                    above = terminal.rows()[: -render.TAIL_LINES]
                    assert above == want[: len(above)], seed
        assert terminal.rows() == want, seed
        assert terminal.screen.cursor.x == 0
        assert renderer.text == clean(text)


@pytest.mark.slow
@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_that_goes_on_is_as_if_it_had_never_stopped(name):
    text = clean(REPLIES[name])
    want, chance, in_place = one_shot(text), random.Random(0), 0
    for _ in range(12 if want and name != "emoji" else 0):  # whose columns pyte counts in another way
        cut, notes = chance.randint(0, len(text)), chance.randint(0, 3)
        terminal, clock = Terminal(), Clock()
        console = console_on(terminal)
        with StreamRenderer(console, clock=clock, reflows=False) as renderer:
            renderer.feed(text[:cut])
        console.print("a note\n" * notes, end="")
        begun = render.Shown(renderer.text, console.width, notes)
        with StreamRenderer(console, clock=clock, reflows=False, begun=begun) as renderer:
            stands = renderer._tail._below is not None
            for chunk in chunks(text[cut:], 2):
                renderer.feed(chunk)
                clock.now += 1
        assert renderer.text == text
        assert terminal.rows() == want if stands else terminal.rows()[-3:] == want[-3:], cut
        in_place += stands
    assert in_place or not want or name == "emoji"


@pytest.mark.slow
def test_a_code_block_of_2000_lines():
    text = "```python\n" + "".join(PYTHON) + "\n".join(f"y{i} = {i}" for i in range(500)) + "\n```\nEnd."
    terminal, clock = Terminal(), Clock()
    with StreamRenderer(console_on(terminal), clock=clock, reflows=False) as renderer:
        for line in text.splitlines(keepends=True):
            renderer.feed(line)
            clock.now += 0.008
    assert terminal.rows() == one_shot(text)
    assert len(terminal.rows()) > 2000


def test_colours_of_streamed_code_are_those_of_the_whole():
    console = console_on(io.StringIO())
    long_string = 'x = """\n' + "not def code\n" * 200 + '"""\ndef g(): return 1\n'
    for text in (
        "```python\n" + "".join(PYTHON[:100]) + long_string + "".join(PYTHON[:50]) + "```",
        REPLIES["everything"],
    ):
        stream, lines = markdown.MarkdownStream(console), []
        for line in text.splitlines(keepends=True):
            stream.feed(line)
            lines += stream.commit(79)
        lines += stream.commit(79, final=True)
        assert lines == markdown.render(console, text, 79)


PIECES = [
    "a", "b **c** d", "- ", "1. ", "2) ", "* ", "  ", "    ", "> ", "```", "~~~", "```py", "\n", "\n\n", "\n", "---",
    "| a | b |", "--|--", "-|-", "a | b", "# ", "[x]: y", "<b>", "`", "\t", "x = '''", "===", "10. ", " - ", " \n",
    "\\", "`````", "![i](u)", "[l](u)",
]  # fmt: skip


@pytest.mark.parametrize("seed", range(25))
def test_random_markdown_is_the_same_in_parts(seed):
    console, chance = console_on(io.StringIO()), random.Random(seed)
    text = "".join(chance.choice(PIECES) for _ in range(chance.randint(1, 60)))
    stream, lines = markdown.MarkdownStream(console), []
    for chunk in chunks(text, seed):
        stream.feed(chunk)
        lines += stream.commit(59)
        stream.live(59)
    assert lines + stream.commit(59, final=True) == markdown.render(console, text, 59), text


def test_no_word_is_lost():
    names = itertools.count()
    source = re.sub(r"\w+", lambda _: f"w{next(names)}", REPLIES["everything"])
    for columns in (200, 80, 30, 12):
        shown = "".join(one_shot(source, columns)).replace(" ", "")
        assert [word for word in re.findall(r"w\d+", source) if word not in shown] == [], columns
    shown = "".join(one_shot(REPLIES["table of long words"], 60))
    assert (shown.count("k"), shown.count("v")) == (51, 151)


@pytest.mark.parametrize("marker", ["> ", "- "])
def test_deep_nesting_hides_nothing(marker):
    for depth in (5, 29, 30, 31, 58, 59, 60, 61, 200):
        text = marker * depth + "word" if marker == "> " else "".join("  " * i + "- word\n" for i in range(depth))
        shown = "".join(one_shot(text, 400))
        assert shown.count("word") == text.count("word"), depth


@pytest.mark.slow
def test_the_tail_is_small_and_redrawn_rarely():
    terminal, clock = Terminal(), Clock()
    with StreamRenderer(console_on(terminal), clock=clock) as renderer:
        for i in range(3000):
            renderer.feed(f"w{i} ")
            clock.now += 0.001
        updates = terminal.getvalue().count("\x1b[?2026h")
        assert 0.8 * 3 * render.REDRAWS_PER_SECOND <= updates <= 3 * render.REDRAWS_PER_SECOND + 1
        assert len(terminal.rows()) <= render.TAIL_LINES
    assert len(terminal.rows()) > 100
    assert 0 < max(int(up) for up in re.findall(r"\x1b\[(\d+)A", terminal.getvalue())) < render.TAIL_LINES


def test_lines_that_stay_are_not_written_again():
    terminal, clock = Terminal(), Clock()
    with StreamRenderer(console_on(terminal), clock=clock) as renderer:
        for line in range(9):
            renderer.feed(f"line number {line}\n")
            clock.now += 1
    assert all(terminal.getvalue().count(f"line number {line}") == 1 for line in range(9))


# --- width ----------------------------------------------------------------------------------------------------------

PROSE = "".join(
    f"Part {i} " + " ".join(f"w{i}.{j}" for j in range(3 * i))
    + f"\n\n- item {i}\n- more {i}\n\n```\nc{i} = {i}\n```\n\n"
    for i in range(14)
)  # fmt: skip


class Reflowing:
    """A terminal that keeps logical lines and wraps them anew at each width. Knows only the codes that we send."""

    encoding = "utf-8"

    def __init__(self, columns: int, lines: int) -> None:
        self.columns, self.height = columns, lines
        self.lines, self.line, self.at = [""], 0, 0

    def isatty(self) -> bool:
        return True

    def flush(self) -> None:
        pass

    def _rows(self) -> list[tuple[int, int]]:
        """(logical line, offset) of each row."""
        return [(n, at) for n, line in enumerate(self.lines) for at in range(0, max(1, len(line)), self.columns)]

    def _row(self, rows: list[tuple[int, int]]) -> int:
        return max(i for i, (n, at) in enumerate(rows) if n == self.line and (at < self.at or at == 0))

    def write(self, text: str) -> int:
        for up, code, plain in re.findall(r"\x1b\[(\d+)A|(\x1b\[[?0-9;]*[A-Za-z]|[\r\n])|([^\x1b\r\n]+)", text):
            rows = self._rows()
            if up:
                row = max(self._row(rows) - int(up), len(rows) - self.height, 0)
                self.line, self.at = rows[row]
            elif code == "\r":
                self.line, self.at = rows[self._row(rows)]
            elif code == "\n":
                assert self.line == len(self.lines) - 1, "the cursor leaves a line in the middle of the screen"
                self.lines.append("")
                self.line, self.at = self.line + 1, 0
            elif code == "\x1b[J":
                self.lines[self.line :] = [self.lines[self.line][: self.at]]
            elif plain:
                line = self.lines[self.line]
                self.lines[self.line] = line[: self.at] + plain + line[self.at + len(plain) :]
                self.at += len(plain)
        return len(text)


def words(rows: list[str]) -> list[str]:
    return " ".join(rows).split()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_no_line_is_lost_or_doubled_when_the_width_changes(seed):
    chance, clock = random.Random(seed), Clock()
    for terminal in (Reflowing(80, 50), Terminal(80, 50)):
        reflows = isinstance(terminal, Reflowing)
        console = console_on(terminal, 80, 50)
        with StreamRenderer(console, clock=clock, reflows=reflows) as renderer:
            for chunk in chunks(PROSE, seed):
                renderer.feed(chunk)
                clock.now += 0.03
                if chance.random() < 0.1:
                    # pyte cuts lines off when it gets narrower, so it only ever gets wider
                    width = chance.choice([50, 64, 80, 120]) if reflows else console.width + 1
                    console.size = (width, 50)
                    if reflows:
                        terminal.columns = width
                    else:
                        terminal.screen.resize(columns=width)
        shown = terminal.lines if reflows else terminal.rows()
        assert words(shown) == words(one_shot(PROSE)), seed


def test_narrower_without_reflow_keeps_what_is_above():
    terminal, clock = Terminal(80, 24), Clock()
    console = console_on(terminal)
    with StreamRenderer(console, clock=clock, reflows=False) as renderer:
        for i in range(200):
            renderer.feed(f"- item {i}\n")
            clock.now += 1
            if i == 100:
                console.size = (40, 24)
                terminal.screen.resize(columns=40)
    assert [row.strip(" •") for row in terminal.rows()] == [f"item {i}" for i in range(200)]


# --- plain, interrupted, hostile ------------------------------------------------------------------------------------


def stream(file, text: str, environ=ENVIRON, markdown: bool = True, interrupted: bool = False) -> str:
    console = make_console(file=file, environ=environ)
    with StreamRenderer(console, markdown=markdown) as renderer:
        for chunk in chunks(text, 1):
            renderer.feed(chunk)
        renderer.finish(interrupted)
    return file.getvalue()


@pytest.mark.parametrize(
    ("file", "environ", "markdown"),
    [
        (io.StringIO, {"TERM": "xterm", "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "COLORTERM": "truecolor"}, True),
        (Terminal, {"TERM": "xterm", "NO_COLOR": "1"}, True),
        (Terminal, {"TERM": "dumb"}, True),
        (Terminal, {"TERM": "xterm"}, False),
    ],
)
def test_plain_output_is_the_clean_text(file, environ, markdown):
    text = REPLIES["everything"] + "\x1b[31mred\x1b[0m"
    assert stream(file(), text, environ, markdown) == clean(text) + "\n"
    assert stream(file(), "a", environ, markdown, interrupted=True) == "a\n(interrupted)\n"
    assert stream(file(), "", environ, markdown) == ""


@pytest.mark.parametrize("environ", [{"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}])
def test_no_escape_sequence_without_colour(environ):
    terminal = Terminal()
    console = make_console(file=terminal, environ=environ)
    console.print(strip([("a", 1.0)]), side_by_side("a", "b", "c", "d"), table(["x"], [[1]]), style="bold red")
    assert "\x1b" not in terminal.getvalue() and "a" in terminal.getvalue()


def test_colours_on_a_terminal():
    terminal = Terminal()
    make_console(file=terminal, environ=ENVIRON).print(strip([("a", 1.0)]))
    assert "\x1b[1;37;48;5;160ma" in terminal.getvalue()


def test_an_interrupted_reply_is_kept_and_marked():
    terminal = Terminal()
    with pytest.raises(KeyboardInterrupt), StreamRenderer(console_on(terminal)) as renderer:
        renderer.feed("# Title\n\nThe capital of Austr")
        raise KeyboardInterrupt
    assert terminal.rows() == ["Title", "", "The capital of Austr", "(interrupted)"]


@pytest.mark.slow
def test_payloads_reach_no_terminal():
    ours = re.compile(r"\x1b\[(\d+(;\d+)*)?m|\x1b\[\d*[ACDJK]|\x1b\[\?(2026|7)[hl]|[\r\n]")
    for number, payload in enumerate(payloads()):
        for text in (
            f"before {payload} after",
            f"- `{payload}`\n\n```{payload}\n{payload}\n```\n[{payload}](http://{payload})",
        ):
            terminal = Tty()
            with StreamRenderer(console_on(terminal)) as renderer:
                for chunk in text if number % 20 == 0 else [text[:9], text[9:]]:
                    renderer.feed(chunk)
            left = ours.sub("", terminal.getvalue())
            assert clean(left) == left and "\x1b" not in left, ascii(payload)


def test_through_a_real_pseudo_terminal():
    master, slave = os.openpty()
    received = []

    def read() -> None:
        while chunk := os.read(master, 4096):
            received.append(chunk)
            if b"\x00" in chunk:
                return

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(slave, "w", encoding="utf-8") as file:
        console = make_console(file=file, environ=ENVIRON | {"COLUMNS": "80", "LINES": "24"})
        with StreamRenderer(console) as renderer:
            for chunk in chunks(REPLIES["everything"], 3):
                renderer.feed(chunk)
        file.write("\x00")
        file.flush()
        reader.join(timeout=10)
    os.close(master)
    terminal = Terminal()
    terminal.write(b"".join(received).decode().replace("\r\n", "\n").replace("\x00", ""))
    assert terminal.rows() == one_shot(REPLIES["everything"])


# --- strip, diff, tables, status line -------------------------------------------------------------------------------


def test_strip():
    tokens = [("The", 0.0), (" capital", 0.3), (" is\x1b[31m", float("nan")), ("\n[red]Can", 0.95), ("berra", 7.0)]
    text = strip(tokens)
    assert text.plain.startswith("The capital is\n[red]Canberra\n\n")
    assert [text.plain[span.start : span.end] for span in text.spans[:3]] == [" capital", "\n[red]Can", "berra"]
    assert text.spans[0].style != text.spans[1].style == text.spans[2].style
    assert strip_plain(tokens) == '0.00\t"The"\n0.30\t" capital"\n0.00\t" is"\n0.95\t"\\n[red]Can"\n1.00\t"berra"\n'


def test_side_by_side():
    file = io.StringIO()
    console = make_console(file=file, environ={"COLUMNS": "60"})
    left, right = "The capital of Australia is Sydney.", "The capital of Australia is Canberra. [b]\x1b[1m"
    shown = side_by_side("without memory", left, "with memory", right)
    console.print(shown)
    rows = [row.rstrip() for row in file.getvalue().splitlines()]
    assert rows[0].split() == ["without", "memory", "with", "memory"]
    assert "Sydney." in file.getvalue() and "Canberra. [b]" in file.getvalue()
    left_cell, right_cell = (column._cells[0] for column in shown.columns)
    assert [left_cell.plain[s.start : s.end] for s in left_cell.spans] == ["Sydney."]
    assert [right_cell.plain[s.start : s.end] for s in right_cell.spans] == ["Canberra. [b]"]


def test_table():
    file = io.StringIO()
    make_console(file=file, environ={"COLUMNS": "40"}).print(
        table(["lesson", "n"], [["[red]a\x1b]0;t\x07", 5], ["b", 10]])
    )
    assert file.getvalue().split() == ["lesson", "n", file.getvalue().split()[2], "[red]a", "5", "b", "10"]


def test_status_line():
    values = {"model": "SmolLM2", "backend": "torch", "memory": "memoir", "lessons": 12, "unsaved": True}
    values |= {"tokens_per_second": 38.6}
    line = status_line(**values, context_used=819)
    assert line == "SmolLM2 · torch · memoir: 12 lessons, unsaved · 39 tokens/s · context 819"
    values |= {"model": "smollm2-135m-instruct", "memory": "keyed", "context_used": 373, "context": 8192}
    assert [status_line(**values, width=width) for width in (100, 90, 80, 60, 52, 46, 40, 30)] == [
        "smollm2-135m-instruct · torch · keyed: 12 lessons, unsaved · 39 tokens/s · context 373 of 8,192",
        "smollm2-135m · torch · keyed: 12 lessons, unsaved · 39 tokens/s · context 373 of 8,192",
        "smollm2-135m · torch · keyed: 12 lessons, unsaved · 39 t/s · 373/8,192",
        "smollm2-135m · keyed: 12 lessons, unsaved · 373/8,192",
        "smollm2-13… · keyed: 12 lessons, unsaved · 373/8,192",
        "keyed: 12 lessons, unsaved · 373/8,192",
        "keyed: 12 lessons, unsaved · 373/8,192",
        "keyed: 12 lessons, unsaved",
    ]
    values |= {"lessons": 3, "unsaved": False}
    assert status_line(**values, width=60) == "smollm2-135m · torch · keyed: 3 lessons · 39 t/s · 373/8,192"
    assert status_line(**values, width=40) == "smollm2-… · keyed: 3 lessons · 373/8,192"
    assert status_line(**values, width=5) == "keye…"
    assert status_line(model="a\x1b[31m\nb", backend="[red]", memory="m", lessons=1) == "a b · [red] · m: 1 lesson"


def shown_table(width: int) -> list[str]:
    file = io.StringIO()
    rows = [
        [1, "What is the capital of Australia?", "The capital is Canberra.", "df04490ecef2"],
        [2, "Who?", "Bo", "e6"],
    ]
    make_console(file=file, environ={"COLUMNS": str(width)}).print(table(["", "question", "answer", "id"], rows))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_no_width_cuts_a_word_of_a_table():
    rows = [("activation_log_path", "logs/memory_activations.jsonl", "default")]
    for width in range(40, 70):
        file = io.StringIO()
        make_console(file=file, environ={"COLUMNS": str(width)}).print(table(("key", "value", "from"), rows))
        assert set(rows[0]) <= set(file.getvalue().split()), file.getvalue()


def test_a_narrow_table_breaks_at_words_and_a_narrower_one_becomes_paragraphs():
    assert "What is the capital of Australia?" in shown_table(80)[2]
    assert shown_table(46)[2:4] == ["1   What is the    The capital    df04490ecef2", "    capital of     is Canberra."]
    assert shown_table(26) == [
        "1  What is the capital of",
        "Australia?",
        "  answer The capital is",
        "         Canberra.",
        "  id     df04490ecef2",
        "2  Who?",
        "  answer Bo",
        "  id     e6",
    ]
