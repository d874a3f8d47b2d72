"""What was typed before, for Up, Ctrl-R and suggestions: one JSON string per line, mode 0600, no entry twice."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_toolkit.history import History

if TYPE_CHECKING:
    from lmm.files.traces import Trace

KEPT = 5000


class JsonHistory(History):
    """A prompt_toolkit history in a file. A file that cannot be written costs the history, never the chat."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__()

    def load_history_strings(self) -> Iterable[str]:
        """Newest first, each once."""
        return list(dict.fromkeys(reversed(self._read())))

    def append_string(self, string: str) -> None:
        if not string.strip():
            return
        with contextlib.suppress(ValueError):
            self._loaded_strings.remove(string)  # typed again: it moves to the front
        super().append_string(string)

    def store_string(self, string: str) -> None:
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(file, (json.dumps(string) + "\n").encode())
            finally:
                os.close(file)

    def purge(self, trace: Trace, typed: str = "") -> int:
        """Take out what is a lesson's, and the line `typed`, on disk and here -> how many went. Raises OSError."""
        from lmm.text.fold import fold

        def stays(line: str) -> bool:
            return not trace.is_typed(line) and fold(line) != fold(typed)

        self._loaded_strings = [s for s in self._loaded_strings if stays(s)]
        return self._rewrite([s for s in self._read() if stays(s)])

    def compact(self) -> None:
        """Drop repetitions and what is very old, if there is much of it."""
        strings = self._read()
        if len(strings) > 2 * KEPT:
            with contextlib.suppress(OSError):
                self._rewrite(list(reversed(list(dict.fromkeys(reversed(strings)))[:KEPT])))

    def _rewrite(self, strings: Sequence[str]) -> int:
        from lmm.files.atomic import write_atomically

        gone = len(self._read()) - len(strings)
        if gone:
            write_atomically(self.path, [(json.dumps(s) + "\n").encode() for s in strings])
        return gone

    def _read(self) -> list[str]:
        found: list[str] = []
        with contextlib.suppress(OSError):
            for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError):
                    value = json.loads(line)
                    if isinstance(value, str):
                        found.append(value)
        return found


def history_path() -> Path:
    from lmm.files.transcripts import data_dir

    return data_dir() / "history.jsonl"
