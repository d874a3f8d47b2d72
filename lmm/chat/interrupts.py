"""Signals while a session runs. Nothing is torn out of the engine's hands: a signal sets flags, work looks at them.

Ctrl-C asks the work in hand to stop. SIGTERM and SIGHUP ask to leave: the work stops, what was learned is saved, the
terminal is put back in order.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

LEAVE = (signal.SIGTERM, signal.SIGHUP)


class Leave(BaseException):
    """Raised by SIGTERM or SIGHUP in a read that would otherwise block on."""


class Interrupts:
    """While open, `on_stop` is called at Ctrl-C and `on_leave` at SIGTERM and SIGHUP, which sets `leaving`."""

    def __init__(self, on_stop: Callable[[], None], on_leave: Callable[[], None] = lambda: None) -> None:
        self._on_stop, self._on_leave = on_stop, on_leave
        self.leaving: int | None = None
        self._reading = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        with contextlib.suppress(ValueError):  # not the main thread: no signals here
            for number in (signal.SIGINT, *LEAVE):
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
                    self._before[number] = signal.signal(number, self._caught)
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGINT:
            self.leaving = number
        self._on_stop()
        if self._reading:
            self._reading = False
            raise KeyboardInterrupt if number == signal.SIGINT else Leave
        if number != signal.SIGINT:
            self._on_leave()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """A blocking read inside is broken off: by KeyboardInterrupt or Leave."""
        self._reading = True
        try:
            yield
        finally:
            self._reading = False


@contextlib.contextmanager
def typing_mode(shown: bool) -> Iterator[None]:
    """Inside, keys are echoed and come line by line, as an editor expects them; or, where not `shown`, they are kept
    for the next prompt and not echoed into the reply, and a paste is kept as one. Ctrl-C works either way.

    Silence has to last from prompt to prompt: the line mode would swallow a Ctrl-D typed in between.
    """
    import termios

    try:
        file = sys.stdin.fileno()
        before = termios.tcgetattr(file) if os.isatty(file) else None
    except (OSError, ValueError, termios.error):
        before = None
    if before is None:
        yield
        return
    line_mode = termios.ECHO | termios.ICANON
    inside = [*before[:3], before[3] | line_mode if shown else before[3] & ~line_mode, *before[4:]]
    try:
        _tell_pastes(not shown)
        with contextlib.suppress(termios.error):
            termios.tcsetattr(file, termios.TCSADRAIN, inside)
        yield
    finally:
        _tell_pastes(shown)
        with contextlib.suppress(termios.error):  # the terminal may be gone
            termios.tcsetattr(file, termios.TCSADRAIN, before)


def _tell_pastes(wanted: bool) -> None:
    """Have the terminal say where a paste begins and ends ("bracketed paste" of xterm), or not."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown"):
            sys.stdout.write("\x1b[?2004h" if wanted else "\x1b[?2004l")
            sys.stdout.flush()
