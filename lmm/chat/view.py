"""Where turns are shown: a terminal, or plain text on stdout with everything else on stderr."""

from __future__ import annotations

import base64
import contextlib
import os
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace

from rich.console import Console, RenderableType
from rich.text import Text

from lmm.chat import render
from lmm.chat.busy import Busy
from lmm.feedback import lesson_for
from lmm.lesson import Lesson
from lmm.memory.base import LearnReport
from lmm.text.sanitize import as_text, clean

Ask = Callable[[str], str]  # a question on the terminal -> the line typed


class ConsoleView:
    """`out` gets replies and what was asked for, `side` the lines beside the conversation (the same on a terminal)."""

    def __init__(self, out: Console, side: Console, ask: Ask | None = None) -> None:
        self.out, self.side, self.ask = out, side, ask
        self.busy: Busy | None = None  # the line that says what is going on
        self.failed: OSError | None = None  # what ended the showing
        self._shown: render.Shown | None = None  # the last reply
        self._more = False  # whether the next one goes on with it

    def reply(self, chunks: Generator[str, None, None], stopped: Callable[[], bool], markdown: bool) -> None:
        if self.busy is not None:
            self.busy.start()
        renderer = render.StreamRenderer(self.out, markdown, begun=self._shown if self._more else None)
        with contextlib.closing(chunks), self._going(wait=True), renderer:
            try:
                for chunk in chunks:
                    self._clear()
                    renderer.feed(chunk)
            finally:
                self._clear()
            apart = stopped() and self.out is not self.side  # stdout carries the reply, and nothing about it
            renderer.finish(interrupted=stopped() and not apart)
            if apart:
                self.say(render.INTERRUPTED)
            if self.out.is_terminal:
                self.out.print()
            self._shown = render.Shown(renderer.text, self.out.width, 1 + stopped())

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """Inside, a reply is more of the last one."""
        self._more = True
        try:
            yield
        finally:
            self._more = False

    def below(self, rows: int | None) -> None:
        """So many rows more stand under the last reply; None: nobody counts them."""
        if self._shown is not None:
            now = self._shown.below
            self._shown = replace(self._shown, below=None if rows is None or now is None else now + rows)

    def say(self, text: str) -> None:
        with self._going():
            self._print(self.side, as_text(text if self.side.is_terminal else f"lmm: {text}", "dim"))

    def show(self, what: RenderableType | str) -> None:
        """What a command was asked for. Text is cleaned here, other renderables are made of clean text."""
        with self._going():
            if isinstance(what, str):
                self._print(self.out, as_text(what))
            else:
                self.out.print(what)

    def _print(self, console: Console, text: Text) -> None:
        """Wrapped at words on a terminal, which would break them; elsewhere just as it is."""
        if console.file.isatty():
            console.print(text)
            self.below(len(text.wrap(console, console.width)))
        else:
            console.file.write(text.plain + "\n")
            console.file.flush()

    def write(self, text: str) -> None:
        """Text for machines: clean, and just as it is."""
        with self._going():
            self.out.file.write(clean(text))
            self.out.file.flush()

    def to_clipboard(self, text: str) -> bool:
        """Hand text to the terminal's clipboard (OSC 52 of xterm) -> False where there is no terminal that could."""
        if not self.out.file.isatty() or os.environ.get("TERM", "dumb") in ("dumb", "unknown", "linux"):
            return False
        with self._going():
            self.out.file.write(f"\x1b]52;c;{base64.b64encode(text.encode()).decode()}\a")
            self.out.file.flush()
        return True

    def learning(self, summary: str, report: LearnReport | None) -> None:
        if self.busy is None:
            return
        step = f", step {report.steps}" if report is not None and report.steps else ""
        self.busy.doing = "" if report is None else f"learning{step}: {summary}"  # a narrow screen cuts off the end
        if report is not None:
            self.busy.start()

    def _clear(self) -> None:
        if self.busy is not None:
            self.busy.stop()

    def confirm(self, lesson: Lesson) -> Lesson | None:
        """Enter learns it, n does not, anything else is the answer, or `QUESTION => ANSWER`, to learn instead."""
        if self.ask is None:
            self.say("not learned: --learn ask needs a terminal to ask at; --learn auto learns without asking")
            return None
        self.say(f"learn this? {lesson.prompt} => {lesson.answer}")
        try:
            while (typed := self.ask("Enter, n, or your version: ").strip()).startswith("/"):
                self.say("commands are read at the prompt; here: Enter learns it, n does not, or type your version")
        except (KeyboardInterrupt, EOFError):  # Ctrl-C and Ctrl-D here mean no, and leave nothing
            return None
        return edited(lesson, typed)

    @property
    def is_terminal(self) -> bool:
        return self.out.is_terminal

    @contextlib.contextmanager
    def _going(self, wait: bool = False) -> Iterator[None]:
        """A terminal that is gone, or a reader that has left, ends the showing, not the work. The line that says what
        is going on goes first, unless what comes is still waited for."""
        if not wait:
            self._clear()
        try:
            yield
        except OSError as error:
            self.failed = error
            self.out = self.side = nowhere()


def nowhere() -> Console:
    """A console that shows nothing: what is left when the terminal has closed."""
    return render.make_console(file=open(os.devnull, "w", encoding="utf-8"))


def edited(lesson: Lesson, typed: str) -> Lesson | None:
    """The lesson after the user's answer to "learn this?"."""
    said = typed.lower().rstrip(".!")
    if said in ("n", "no", "nope", "no thanks", "don't", "never mind"):
        return None
    if said in ("", "y", "yes", "ok", "okay"):
        return lesson
    question, arrow, answer = typed.partition("=>")
    if not arrow and not lesson.prompt:
        return replace(lesson, statement=typed, echo="", subject="", relation="")
    new = lesson_for(question, answer) if arrow else lesson_for(lesson.prompt, typed)
    return replace(lesson, prompt=new.prompt, answer=new.answer)


def make_view(talking: bool | None = None, ask: Ask | None = None) -> ConsoleView:
    """A view of this process's terminal, if it has one."""
    out = render.make_console()
    talking = sys.stdin.isatty() and sys.stdout.isatty() if talking is None else talking
    return ConsoleView(out, out if talking else render.make_console(stderr=True), ask)
