"""A child process on a pseudo-terminal, and the screen it draws: for the tests of the chat, and to record a session."""

from __future__ import annotations

import contextlib
import copy
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pexpect
import pyte

SCRIPTED = str(Path(__file__).with_name("scripted.py"))


def environment(folder: Path) -> dict[str, str]:
    """Of a program that has its files in a folder, and nobody's settings."""
    values = {k: v for k, v in os.environ.items() if not k.startswith(("LMM_", "NO_COLOR", "COLUMNS", "LINES"))} | {
        "TERM": "xterm-256color", "LMM_DATA_DIR": str(folder / "data"), "LMM_CONFIG": str(folder / "none.toml"),
        "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(SCRIPTED).parents[1]),
    }  # fmt: skip
    cache = os.environ.get("LMM_CACHE_DIR")
    return values | ({"LMM_CACHE_DIR": cache} if cache else {})


Open = Callable[..., "Terminal"]


class Screen(pyte.HistoryScreen):
    """As tmux has it: what erases all from the top left on puts the screen into the scrollback."""

    def erase_in_display(self, how: int = 0, *args: object, **kwargs: object) -> None:
        if how == 0 and (self.cursor.x, self.cursor.y) == (0, 0):
            used = [
                self.buffer[y] for y in range(self.lines) if any(char.data.strip() for char in self.buffer[y].values())
            ]
            self.history.top.extend(copy.deepcopy(used))
        super().erase_in_display(how, *args, **kwargs)


class Terminal:
    """A child process on a pseudo-terminal, and the screen it draws."""

    def __init__(
        self,
        folder: Path,
        *args: str,
        program: tuple[str, ...] = (SCRIPTED,),
        rows: int = 24,
        columns: int = 80,
        command: tuple[str, ...] = ("chat",),
        **env: str,
    ) -> None:
        self.folder, self.rows, self.columns = folder, rows, columns
        self.screen = Screen(columns, rows, history=5000, ratio=0.5)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        values = environment(folder) | env
        memory = ("--memory", "jotter") if program == (SCRIPTED,) and command == ("chat",) else ()
        self.started = time.monotonic()
        self.child = pexpect.spawn(
            sys.executable,
            [*program, *command, *memory, *args],
            cwd=str(folder),
            env=values,
            dimensions=(rows, columns),
        )
        self.child.delaybeforesend = None

    def type(self, text: str) -> None:
        self.child.send(text)

    def line(self, text: str) -> None:
        self.type(text + "\r")

    @property
    def shown(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display)

    @property
    def all(self) -> str:
        """What scrolled away, and the screen."""
        above = ["".join(row[x].data for x in range(self.columns)).rstrip() for row in self.screen.history.top]
        return "\n".join([*above, self.shown])

    def see(self, wanted: str | Callable[[str], bool], timeout: float = 90.0) -> str:
        """Read until it is on the screen."""
        there = wanted if callable(wanted) else lambda text: wanted in text
        end = time.monotonic() + timeout
        while not there(self.shown):
            if time.monotonic() > end:
                raise AssertionError(f"not seen in {timeout} s: {wanted!r}\n{self.shown}")
            self._read()
        return self.shown

    def prompts(self, count: int, timeout: float = 90.0) -> None:
        """Read until that many prompts are on the screen."""
        self.see(lambda text: sum(line[:1] == ">" for line in text.splitlines()) >= count, timeout)

    def rest(self, timeout: float = 90.0) -> int:
        """Read to the end -> the exit code, or minus the signal."""
        end = time.monotonic() + timeout
        while self.child.isalive() or self._read():
            assert time.monotonic() < end, f"still alive after {timeout} s\n{self.shown}"
            self._read()
        self.child.close()
        return self.child.exitstatus if self.child.exitstatus is not None else -(self.child.signalstatus or 0)

    def resize(self, columns: int, rows: int) -> None:
        self.columns = columns
        self.screen.resize(rows, columns)
        self.child.setwinsize(rows, columns)

    def _read(self) -> bool:
        try:
            data = self.child.read_nonblocking(65536, timeout=0.05)
        except pexpect.TIMEOUT:
            return False
        except pexpect.EOF:
            time.sleep(0.02)
            return False
        self.raw += data
        *before, last = data.split(b"\x1b[6n")  # prompt_toolkit asks where the cursor is
        for part in before:
            self._stream.feed(part)
            with contextlib.suppress(OSError):
                self.child.send(f"\x1b[{self.screen.cursor.y + 1};{self.screen.cursor.x + 1}R")
        self._stream.feed(last)
        return True
