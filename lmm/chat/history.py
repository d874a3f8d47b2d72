"""What was typed before, for Up, Ctrl-R and suggestions: one JSON string per line, mode 0600, no entry twice."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_toolkit.history import History

from lmm.files import jsonl

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
            jsonl.append(self.path, [jsonl.line(string)])

    def purge(self, trace: Trace, typed: str = "") -> int:
        """Take out what is a lesson's, and the line `typed`, on disk and here -> how many went. Raises OSError."""
        from lmm.text.fold import fold

        def goes(line: str) -> bool:
            return trace.is_typed(line) or fold(line) == fold(typed)

        self._loaded_strings = [s for s in self._loaded_strings if not goes(s)]
        return jsonl.remove(self.path, lambda line: not isinstance(s := jsonl.parse(line), str) or goes(s))

    def count(self, trace: Trace) -> int:
        """How many lines on disk are a lesson's. Raises OSError."""
        return jsonl.count(self.path, lambda line: isinstance(s := jsonl.parse(line), str) and trace.is_typed(s))

    def compact(self) -> None:
        """Drop repetitions and what is very old, if there is much of it."""
        strings = self._read()
        if len(strings) > 2 * KEPT:
            old, left = set(list(dict.fromkeys(reversed(strings)))[KEPT:]), Counter(strings)

            def goes(line: bytes) -> bool:
                string = jsonl.parse(line)
                if not isinstance(string, str):
                    return True
                left[string] -= 1  # below zero: another process has added it since
                return left[string] >= (0 if string in old else 1)

            with contextlib.suppress(OSError):
                jsonl.remove(self.path, goes)

    def _read(self) -> list[str]:
        with contextlib.suppress(OSError):
            return [value for value in jsonl.values(self.path) if isinstance(value, str)]
        return []


def history_path() -> Path:
    from lmm.files.transcripts import data_dir

    return data_dir() / "history.jsonl"
