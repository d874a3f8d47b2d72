"""Everything that is shown: replies as they stream, the strip of /why, two replies side by side, the status line.

Untrusted text passes `text.sanitize` on its way in, and reaches rich only as `Text`: consoles made here read no markup.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.control import ControlType
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from lmm.chat.busy import ERASE_BELOW
from lmm.chat.markdown import Line, MarkdownStream, render
from lmm.text.counted import counted
from lmm.text.sanitize import Cleaner, as_text, clean_line, fit

INTERRUPTED = "(interrupted)"
#: the live tail is redrawn at most this often, and never takes more than one part in REDRAW_SHARE of the time
REDRAWS_PER_SECOND = 15
REDRAW_SHARE = 8
#: lines of a reply that are redrawn; a block in progress that is longer shows its end
TAIL_LINES = 15

# No backgrounds: they look like bars on a light terminal.
_THEME = Theme({"markdown.code": "bold cyan", "markdown.code_block": "none", "markdown.table.header": "bold"})


def make_console(
    stderr: bool = False, file: IO[str] | None = None, environ: Mapping[str, str] | None = None
) -> Console:
    """A console that writes ANSI only to a terminal that can and may show it, and never reads markup.

    Without a terminal, with TERM=dumb or with NO_COLOR (https://no-color.org) not one escape sequence is written.
    FORCE_COLOR and the like are not heeded: what is piped is plain.
    """
    environ = os.environ if environ is None else environ
    file = file or (sys.stderr if stderr else sys.stdout)
    plain = not file.isatty() or bool(environ.get("NO_COLOR")) or environ.get("TERM", "").lower() in ("dumb", "unknown")
    if file.isatty():  # it knows its size best: COLUMNS is from before it was resized
        environ = {key: value for key, value in environ.items() if key not in ("COLUMNS", "LINES")}
    if hasattr(file, "reconfigure"):
        file.reconfigure(errors="replace")  # a character the terminal's encoding lacks must not end the chat
    return Console(
        file=file,
        force_terminal=not plain,
        force_jupyter=False,
        color_system=None if plain else "auto",
        no_color=plain,
        markup=False,
        emoji=False,
        highlight=False,
        theme=_THEME,
        _environ=environ,
    )


@dataclass(frozen=True)
class Shown:
    """A reply that stands on a screen so wide, with so many rows under it since; None: they were not counted."""

    text: str
    width: int
    below: int | None


class StreamRenderer:
    """Shows a reply while it is generated: `feed` its chunks, then `finish`; as a context manager, `finish` is sure.

    On a terminal, finished Markdown blocks go to the scrollback once and for good, and only the tail is redrawn.
    Elsewhere, or with `markdown=False`, the clean text is written as it comes. `text` is the clean text so far.
    `reflows`: does the terminal wrap its lines anew when it gets narrower? None: guessed from the environment.
    `begun` is a reply that goes on: at its very end, if that is still there, else from the beginning of its last block.
    """

    def __init__(
        self,
        console: Console,
        markdown: bool = True,
        clock: Callable[[], float] = time.monotonic,
        reflows: bool | None = None,
        begun: Shown | None = None,
    ) -> None:
        self.text = ""
        self._console = console
        self._cleaner = Cleaner()
        self._clock = clock
        self._due = 0.0
        self._markdown = MarkdownStream(console) if markdown and console.is_terminal else None
        self._tail = _Tail(console, _reflows(os.environ) if reflows is None else reflows)
        self._finished = False
        if begun is not None:
            self._go_on(begun)

    def _go_on(self, begun: Shown) -> None:
        self.text = begun.text
        self._cleaner.feed(begun.text)
        if self._markdown is None:
            return
        self._markdown.feed(begun.text)
        width = self._width()
        done, open_ = self._markdown.commit(width), self._markdown.live(width)
        if begun.below is None or begun.width != self._console.width:
            return
        stood, count = render(self._console, begun.text, width), len(done) + len(open_)
        below = begun.below + len(stood) - count  # it may have closed a fence
        if stood[:count] == done + open_ and below + len(open_) < self._console.height:
            self._tail.stands(open_, below)

    def __enter__(self) -> StreamRenderer:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.finish(interrupted=isinstance(error, KeyboardInterrupt) or (error is not None and bool(self.text)))

    def feed(self, chunk: str) -> None:
        text = self._cleaner.feed(chunk)
        if not text:
            return
        self.text += text
        if self._markdown is None:
            self._write(text)
            return
        self._markdown.feed(text)
        start = self._clock()
        if start >= self._due:
            self._redraw(self._markdown)
            end = self._clock()
            self._due = end + max(1 / REDRAWS_PER_SECOND, REDRAW_SHARE * (end - start))

    def finish(self, interrupted: bool = False) -> None:
        """Commits what is left. Further calls do nothing."""
        if self._finished:
            return
        self._finished = True
        if self._markdown is not None:
            lines = self._markdown.commit(self._width(), final=True)
            if interrupted:
                lines.append(list(Text(INTERRUPTED, style="dim", end="").render(self._console)))
            self._tail.draw(lines, [])
            return
        end = "" if not self.text or self.text.endswith("\n") else "\n"
        self._write(end + (INTERRUPTED + "\n" if interrupted else ""))

    def _redraw(self, markdown: MarkdownStream) -> None:
        width, height = self._width(), self._console.height
        done = markdown.commit(width)
        room = max(1, min(TAIL_LINES, height - 2))
        self._tail.draw(done, markdown.live(width)[-room:])

    def _width(self) -> int:
        # One column stays free: a terminal that finds a character wider than we do then need not wrap the line.
        return max(1, self._console.width - 1)

    def _write(self, text: str) -> None:
        if text:
            self._console.file.write(text)
            self._console.file.flush()


class _Tail:
    """The last lines on the screen, which may still change. What is above them belongs to the scrollback.

    The cursor rests at the end of the tail; with no tail, at the start of an empty line. Each change is one write,
    bracketed as a synchronized update (DEC mode 2026), and touches only lines that differ.
    """

    _BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"
    _WRAP, _NO_WRAP = "\x1b[?7h", "\x1b[?7l"

    def __init__(self, console: Console, reflows: bool) -> None:
        self._console = console
        self._reflows = reflows
        self._drawn: list[Line] = []
        self._below: int | None = None  # rows between the tail and the cursor, where there are any
        self._width = console.width

    def stands(self, lines: list[Line], below: int) -> None:
        """These lines are the tail already; what is in the rows below them goes when it is drawn next."""
        self._drawn, self._below = lines, below

    def draw(self, done: list[Line], tail: list[Line]) -> None:
        """The lines `done`, which are final, in place of the present tail, and below them the new one."""
        lines = done + tail
        keep = self._unchanged(lines, len(done))
        if keep == len(lines) == len(self._drawn) and (tail or not lines):
            self._drawn = tail
            return
        out = [_control(self._BEGIN), *self._back(), *self._move_to(keep)]
        fresh = keep < len(self._drawn) or not self._drawn  # the cursor is at the start of a line
        for index, line in enumerate(lines[keep:], keep):
            if index == max(keep, len(done)):
                out.append(_control(self._NO_WRAP))
            out += line if fresh else [Segment.line(), *line]
            fresh = False
        if lines and not tail:
            out.append(Segment.line())
        out += [_control(self._WRAP), _control(self._END)]
        self._drawn, self._width = tail, self._console.width
        self._console.print(Segments(out), end="", crop=False)

    def _unchanged(self, lines: list[Line], done: int) -> int:
        """How many lines from the top of the tail stand as they should.

        A final line is trusted only if it is ASCII: in others the terminal may have counted columns differently and
        cut the line, for the tail is not wrapped.
        """
        keep = 0
        for old, new in zip(self._drawn, lines, strict=False):
            if old != new or (keep < done and not all(segment.text.isascii() for segment in new)):
                break
            keep += 1
        return keep if keep == len(self._drawn) else min(keep, max(0, len(lines) - 1))

    def _back(self) -> Iterable[Segment]:
        """From below the tail to its end."""
        if self._below is not None:
            up = f"\x1b[{self._below}A" if self._below else ""
            end = f"\x1b[A\x1b[{_cells(self._drawn[-1])}C" if self._drawn else ""
            yield _control(f"{up}\r{ERASE_BELOW}{end}")
            self._below = None

    def _move_to(self, keep: int) -> Iterable[Segment]:
        """To the start of that line of the tail, and nothing from there on."""
        if keep < len(self._drawn):
            up = sum(self._rows(line) for line in self._drawn[keep:]) - 1
            yield _control((f"\x1b[{up}A" if up else "") + "\r" + ERASE_BELOW)

    def _rows(self, line: Line) -> int:
        """Rows that a line takes now: most terminals wrap it when they get narrower."""
        if not self._reflows or self._console.width >= self._width:
            return 1
        return max(1, math.ceil(_cells(line) / self._console.width))


def _cells(line: Line) -> int:
    return cell_len("".join(segment.text for segment in line))


def _control(codes: str) -> Segment:
    # Rich writes a segment as it is, and measures it as empty, if it has control codes; it has none for these.
    return Segment(codes, None, [(ControlType.BELL,)])


def _reflows(environ: Mapping[str, str]) -> bool:
    """Most terminals do; xterm, rxvt, GNU screen and the Linux console don't."""
    term = environ.get("TERM", "")
    old = term in ("linux", "vt100") or term.startswith(("screen", "rxvt")) or "XTERM_VERSION" in environ
    return "TMUX" in environ or not old


# --- /why -----------------------------------------------------------------------------------------------------------

#: how strongly a memory acted on a token: from this strength on, in this style (dark text on ever warmer ground)
_HEAT = (
    (0.05, "black on color(230)"),
    (0.2, "black on color(222)"),
    (0.4, "black on color(215)"),
    (0.6, "black on color(208)"),
    (0.8, "bold white on color(160)"),
)


def _strength(value: float) -> float:
    return min(1.0, max(0.0, value)) if math.isfinite(value) else 0.0


def strip(tokens: Iterable[tuple[str, float]]) -> Text:
    """A reply token by token, coloured by strength (0 to 1), with the scale below it. For a terminal with colours."""
    text, cleaner = Text(), Cleaner()
    for token, strength in tokens:
        style = next((style for least, style in reversed(_HEAT) if _strength(strength) >= least), "")
        text.append(cleaner.feed(token), style)
    text.rstrip()
    text.append("\n\n")
    for least, style in _HEAT:
        text.append(f" {least:g} ", style)
    return text.append(" strength", "dim")


def strip_plain(tokens: Iterable[tuple[str, float]]) -> str:
    """The same for pipes: per token a line `strength<TAB>token`, the token quoted as in JSON."""
    cleaner = Cleaner()
    return "".join(
        f"{_strength(strength):.2f}\t{json.dumps(cleaner.feed(token), ensure_ascii=False)}\n"
        for token, strength in tokens
    )


# --- /diff ----------------------------------------------------------------------------------------------------------


def side_by_side(left_title: str, left: str, right_title: str, right: str) -> Table:
    """Two texts next to each other; the words that only one of them has stand out."""
    left_text, right_text = as_text(left), as_text(right)
    left_words, right_words = (list(re.finditer(r"\S+", text.plain)) for text in (left_text, right_text))
    matcher = difflib.SequenceMatcher(None, [m[0] for m in left_words], [m[0] for m in right_words], autojunk=False)
    for kind, left_from, left_to, right_from, right_to in matcher.get_opcodes():
        if kind != "equal":
            _mark(left_text, left_words[left_from:left_to], "bold red")
            _mark(right_text, right_words[right_from:right_to], "bold green")
    table = Table(box=box.SIMPLE_HEAD, expand=True, show_edge=False, pad_edge=False)
    for title in (left_title, right_title):
        table.add_column(as_text(title, limit=60), ratio=1, overflow="fold")
    table.add_row(left_text, right_text)
    return table


def _mark(text: Text, words: Sequence[re.Match[str]], style: str) -> None:
    if words:
        text.stylize(style, words[0].start(), words[-1].end())


# --- status line ----------------------------------------------------------------------------------------------------


_TUNED = re.compile(r"[-_](instruct|chat|it)\b.*", re.IGNORECASE)  # what names of models end with


def status_line(
    *,
    model: str,
    backend: str,
    memory: str,
    lessons: int = 0,
    unsaved: bool = False,
    tokens_per_second: float | None = None,
    context_used: int | None = None,
    context: int = 0,
    width: int | None = None,
) -> str:
    """One line of plain text, at most `width` columns. Where room is short, what can be said shorter is, before what
    matters least goes: the backend, the speed, the model, the context."""
    parts = {
        "model": clean_line(model, 40),
        "backend": clean_line(backend, 20),
        "learned": f"{clean_line(memory, 30)}: {counted(lessons, 'lesson')}{', unsaved' if unsaved else ''}",
    }
    shorter = [("model", _TUNED.sub("", parts["model"]))]
    if tokens_per_second is not None:
        parts["speed"] = f"{tokens_per_second:.0f} tokens/s"
        shorter.append(("speed", f"{tokens_per_second:.0f} t/s"))
    if context_used is not None:
        parts["context"] = f"context {context_used:,}" + (f" of {context:,}" if context else "")
        if context:
            shorter.append(("context", f"{context_used:,}/{context:,}"))
    for name, form in [*shorter, ("backend", ""), ("speed", ""), ("model", ""), ("context", "")]:
        over = cell_len(_joined(parts)) - width if width is not None else 0
        if over <= 0:
            break
        room = cell_len(parts.get(name, "")) - over
        parts[name] = fit(parts[name], room) if name == "model" and not form and room >= 8 else form
    return _joined(parts) if width is None else fit(_joined(parts), width)


def _joined(parts: Mapping[str, str]) -> str:
    return " · ".join(filter(None, parts.values()))
