"""A line that says what is going on, from the moment Enter is pressed, and leaves no trace. Imports nothing heavy."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import TextIO

from lmm.text.sanitize import clean_line

#: Erase from the start of a line on. Not `CSI J` alone: at the top left of the screen tmux, and others, take that for
#: the screen being cleared, and put a copy of it into the scrollback.
ERASE_BELOW = "\x1b[K\x1b[C\x1b[J\x1b[D"

FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
EVERY_S = 0.1


class Busy:
    """`start` shows a line that turns and is drawn anew until `stop`; both may be called at any time."""

    def __init__(self, told: Callable[[], str], beside: bool = False) -> None:
        """`told` says what is going on; it is called from another thread. `beside`: on stderr, for a reply on stdout
        that may go elsewhere."""
        self._told, self.doing = told, ""  # `doing`, where it is set, is what goes on
        self._beside = beside
        self._lock = threading.Lock()
        self._ends: threading.Event | None = None
        self._frame, self._drawn = 0, False

    def start(self, after: float = 0.0) -> None:
        """Show it, or show it if it is not stopped within `after` seconds."""
        if self._ends is not None or not _can_turn(self._out):
            return
        self._ends = threading.Event()
        if not after:
            self._draw(self._ends)
        threading.Thread(target=self._turn, args=(self._ends, after), name="busy", daemon=True).start()

    def stop(self) -> None:
        """The line is gone when this returns."""
        ends, self._ends = self._ends, None
        if ends is not None:
            with self._lock:
                ends.set()
                if self._drawn:
                    _write(self._out, "\r\x1b[K")
                self._drawn = False

    @property
    def _out(self) -> TextIO:
        return sys.stderr if self._beside else sys.stdout

    def _turn(self, ends: threading.Event, after: float) -> None:
        while not ends.wait(after or EVERY_S):
            self._draw(ends)
            after = 0.0

    def _draw(self, ends: threading.Event) -> None:
        line = clean_line(self.doing or self._told(), max(10, _columns(self._out) - 3))
        with self._lock:
            if not ends.is_set():
                self._frame, self._drawn = self._frame + 1, True
                dim, plain = ("", "") if os.environ.get("NO_COLOR") else ("\x1b[2m", "\x1b[0m")
                _write(self._out, f"\r{dim}{FRAMES[self._frame % len(FRAMES)]} {line}{plain}\x1b[K")


def _can_turn(out: TextIO) -> bool:
    return out.isatty() and os.environ.get("TERM") not in ("dumb", "")


def _columns(out: TextIO) -> int:
    try:
        return os.get_terminal_size(out.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _write(out: TextIO, text: str) -> None:
    try:
        out.write(text)
        out.flush()
    except (OSError, ValueError):  # the terminal is gone
        pass
