"""The prompt: keys, completion, history and the status line, by prompt_toolkit. Knows a `Chat`, and no model."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from prompt_toolkit import PromptSession, print_formatted_text
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.filters import has_focus, is_searching
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import UIContent, Window
from prompt_toolkit.output import create_output
from prompt_toolkit.patch_stdout import StdoutProxy
from prompt_toolkit.styles import Style
from prompt_toolkit.utils import get_cwidth

from lmm.chat import commands
from lmm.chat.busy import ERASE_BELOW
from lmm.text.sanitize import clean, clean_line
from lmm.text.wrapped import wrapped

if TYPE_CHECKING:
    from lmm.chat.commands import AnyChat

PROMPT = "> "
TAB = 4
HINT_SECONDS = 2.0
# No backgrounds of our own: they would look wrong on half of all terminals.
STYLE = Style.from_dict(
    {"bottom-toolbar": "noreverse fg:ansibrightblack", "prompt": "bold", "auto-suggestion": "fg:ansibrightblack"}
)


class Completions(Completer):
    """Commands and what follows them; nothing in messages."""

    def __init__(self, chat: AnyChat) -> None:
        self._chat = chat
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        line = document.text_before_cursor
        if not commands.is_command(line) or "\n" in document.text:
            return
        name, rest = commands.parse(line) if " " in line else ("", "")
        if name == "export":
            _, blank, rest = rest.partition(" ")
        if (name == "export" and blank) or (name in self._chat.commands and self._chat.commands[name].takes_path):
            yield from self._files(rest, complete_event)
            return
        for text, start, about in commands.complete(self._chat, line):
            yield Completion(text, start, display=clean_line(text, 60), display_meta=clean_line(about, 70))

    def _files(self, rest: str, event: CompleteEvent) -> Iterator[Completion]:
        for found in self._paths.get_completions(Document(rest), event):
            if clean_line(found.text, None) == found.text:  # a name that hides something is to be typed by hand
                yield Completion(found.text, found.start_position, display=clean_line(found.display_text, 60))


class Repl:
    """Reads lines from the terminal. `leave()` may be called from a signal handler."""

    def __init__(self, chat: AnyChat, history: History | None = None, **session: Any) -> None:
        self._chat = chat
        self._hinted = 0.0
        self._started: Callable[[], None] | None = None
        output = session.pop("output", None) or create_output()
        output.erase_down = lambda: output.write_raw(ERASE_BELOW)  # type: ignore[method-assign]
        output.disable_bracketed_paste = lambda: None  # type: ignore[method-assign]  # `typing_mode` does, in the end
        self._session: PromptSession[str] = PromptSession(
            multiline=True,
            output=output,
            history=history or InMemoryHistory(),
            completer=session.pop("completer", None) or Completions(chat),
            complete_while_typing=True,
            auto_suggest=AutoSuggestFromHistory(),
            enable_open_in_editor=True,
            key_bindings=self._keys(),
            bottom_toolbar=self._toolbar,
            prompt_continuation=lambda width, line, wrapped: " " * width,
            reserve_space_for_menu=6,
            erase_when_done=True,  # it shows what has room, and breaks words: what was typed is printed in its place
            style=STYLE,
            include_default_pygments_style=False,
            **session,
        )
        _scroll_by_rows(self._session.layout.current_window)
        self._current = self._session

    def read(self, prefill: str = "", started: Callable[[], None] | None = None) -> str:
        """One message or command. `started` is called once the prompt is on the screen.

        Raises EOFError at Ctrl-D, KeyboardInterrupt at a second Ctrl-C.
        """
        self._hinted = 0.0
        self._started = started
        text = self._prompt(self._session, PROMPT, default=prefill)
        output = self._session.output
        indent = " " * len(PROMPT)
        rows = _at_words(clean(text).rstrip().expandtabs(TAB), output.get_size().columns - 1 - len(PROMPT))
        typed = FormattedText([("class:prompt", PROMPT), ("", f"\n{indent}".join(rows))])
        print_formatted_text(typed, output=output, style=STYLE)
        return text

    def show(self, text: str) -> None:
        """A dim line before the first prompt, in the place of what was typed before there was one; without the
        libraries that a reply is shown with."""
        output = self._session.output
        output.write_raw("\r\x1b[K")
        line = wrapped(clean_line(text), output.get_size().columns - 1)
        print_formatted_text(FormattedText([("fg:ansibrightblack", line)]), output=output)

    def ask(self, question: str) -> str:
        """A short answer, outside of the history. Raises EOFError and KeyboardInterrupt."""
        return self._prompt(
            PromptSession(style=STYLE, input=self._session.input, output=self._session.output), question
        )

    def _prompt(self, session: PromptSession[str], message: str, **options: Any) -> str:
        self._current = session
        session.app.after_render += self._rendered
        try:
            with _printing_above():
                return session.prompt(message, **options)
        finally:
            session.app.after_render -= self._rendered

    def _rendered(self, sender: object) -> None:
        started, self._started = self._started, None
        if started is not None:
            started()

    def leave(self) -> None:
        """End the prompt that is open, as Ctrl-D does."""
        app = self._current.app
        if app.is_running and app.loop is not None:
            app.loop.call_soon_threadsafe(self._exit)

    def _exit(self) -> None:
        with contextlib.suppress(Exception):  # it may have ended meanwhile
            self._current.app.exit(exception=EOFError())

    def refresh(self) -> None:
        """Draw the status line anew; from any thread."""
        with contextlib.suppress(RuntimeError):
            self._current.app.invalidate()

    def _toolbar(self) -> FormattedText:
        columns = self._session.app.output.get_size().columns
        if time.monotonic() - self._hinted < HINT_SECONDS:
            return FormattedText([("bold", clean_line(self._chat.hint, columns))])
        return FormattedText([("", self._chat.status(columns))])

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()
        here = has_focus("DEFAULT_BUFFER") & ~is_searching

        @keys.add("enter", filter=here)
        def send(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            if buffer.complete_state and buffer.complete_state.current_completion:
                buffer.complete_state = None  # the chosen completion stands; Enter once more sends
                return
            buffer.validate_and_handle()

        @keys.add("escape", "enter", filter=here)
        def new_line(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        @keys.add("c-c", filter=here)
        def clear_or_leave(event: KeyPressEvent) -> None:
            if event.current_buffer.text:
                event.current_buffer.reset()
                self._hinted = 0.0
            elif time.monotonic() - self._hinted < HINT_SECONDS:
                event.app.exit(exception=KeyboardInterrupt())
            else:
                self._hinted = time.monotonic()
                asyncio.get_running_loop().call_later(HINT_SECONDS, event.app.invalidate)

        return keys


def _at_words(text: str, width: int) -> list[str]:
    """Rows of at most so many columns; a line keeps its indent, and a word that is longer than a row stays whole."""
    rows: list[str] = []
    for line in text.split("\n"):
        row = ""
        for word in re.findall(r"\s*\S+", line):
            if row and get_cwidth(row + word) > width:
                rows.append(row)
                row, word = "", word.lstrip()
            row += word
        rows.append(row)
    return rows


def _scroll_by_rows(window: Window) -> None:
    """Keep the cursor in sight, and as much as there is room for above it. prompt_toolkit shows a line that is taller
    than the window only while the cursor is in it: a long paste that ends with a newline is not to be seen."""

    def scroll(content: UIContent, width: int, height: int) -> None:
        def tall(line: int, stop: int | None = None) -> int:
            return content.get_height_for_line(line, width, window.get_line_prefix, stop)

        def up(line: int, row: int) -> tuple[int, int]:
            """The line, and its row, that is at the top if this one is at the bottom."""
            by = height - 1
            while by > row and line:
                line, by = line - 1, by - row - 1
                row = tall(line) - 1
            return line, max(0, row - by)

        end = content.line_count - 1
        cursor = content.cursor_position.y, tall(content.cursor_position.y, content.cursor_position.x + 1) - 1
        before = window.vertical_scroll, window.vertical_scroll_2
        lowest = min(cursor, up(end, tall(end) - 1))
        window.vertical_scroll, window.vertical_scroll_2 = min(max(before, up(*cursor)), lowest)

    window._scroll_when_linewrapping = scroll  # type: ignore[assignment, method-assign]


@contextlib.contextmanager
def _printing_above() -> Iterator[None]:
    """What is printed meanwhile, by a library that loads say, goes above the prompt. A redirected stderr stays so."""
    if not sys.stdout.isatty():
        yield
        return
    kept = sys.stdout, sys.stderr
    with StdoutProxy(sleep_between_writes=0.05) as proxy:
        sys.stdout = proxy
        if kept[1].isatty():
            sys.stderr = proxy
        try:
            yield
        finally:
            proxy.flush()
            sys.stdout, sys.stderr = kept
