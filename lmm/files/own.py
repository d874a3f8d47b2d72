"""What of lmm's own is in a file already: nothing else is to be written over it by a slip of the hand."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from lmm.config import config_path
from lmm.errors import UsageError
from lmm.files import atomic, known
from lmm.files.transcripts import data_dir, sessions_dir

DATABASE, MEMORY, TENSORS, MODEL = "a database, as stores are", "a memory file", "a file of weights", "a model"
CONFIG, CHATS, LOG = "the config file", "a file of chats and what goes with them", "an activation log"
BEGINNINGS = {b"SQLite format 3\0": DATABASE, b"GGUF": MODEL}


def what_is(path: str | os.PathLike[str]) -> str:
    """One of these, or "" for a file that is none, or is not there."""
    with contextlib.suppress(OSError, ValueError):  # of a name that is none
        file = Path(os.path.realpath(path))
        if not file.is_file():
            return ""
        if file == Path(os.path.realpath(config_path())):
            return CONFIG
        if file.is_relative_to(os.path.realpath(sessions_dir())) or file in (
            Path(os.path.realpath(data_dir() / name)) for name in ("history.jsonl", "files.jsonl")
        ):
            return CHATS
        if file in known.remembered("log"):
            return LOG
        with file.open("rb") as opened:
            begin = opened.read(16)
        for mark, kind in BEGINNINGS.items():
            if begin.startswith(mark):
                return kind
        if begin[8:9] == b"{":
            from lmm.files import safefile  # NumPy, which no `--help` waits for

            with safefile.opened(file) as found:
                return MEMORY if found.metadata.get("format") == safefile.FORMAT else TENSORS
    return ""


def check(path: str | os.PathLike[str], *mine: str) -> None:
    """Raises UsageError where something is there that is not one of `mine`, which may be written over."""
    if (kind := what_is(path)) and kind not in mine:
        raise UsageError(f"{path} is {kind}, and stays as it is: name another file")


def write_out(path: str | os.PathLike[str], chunks: Iterable[bytes | memoryview]) -> bool:
    """`atomic.write_out` of what a user only wants to have. Raises UsageError, too."""
    check(path)
    return atomic.write_out(path, chunks)
