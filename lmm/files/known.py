"""Which memory files and logs lie outside the user's data folder: forgetting has to find them.

`files.jsonl` in that folder has a line for each, from the first time that one is written. A place that cannot be noted
stops nothing.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Literal

from lmm.files import jsonl
from lmm.files.transcripts import data_dir

Kind = Literal["memory", "log"]
_noted: set[tuple[Path, Kind, Path]] = set()  # by this process


def _list() -> Path:
    return data_dir() / "files.jsonl"


def remember(path: str | os.PathLike[str], kind: Kind) -> None:
    with contextlib.suppress(OSError, ValueError):  # of a name that is none
        file, notes = Path(os.path.realpath(path)), _list()
        if (notes, kind, file) in _noted or file.is_relative_to(os.path.realpath(notes.parent)):
            return
        if file not in remembered(kind):
            jsonl.append(notes, [jsonl.line({"kind": kind, "path": str(file)})])
        _noted.add((notes, kind, file))


def remembered(kind: Kind) -> set[Path]:
    """Those that were noted, also where they are gone by now."""
    with contextlib.suppress(OSError):
        rows = [row for row in jsonl.values(_list()) if isinstance(row, dict) and row.get("kind") == kind]
        return {Path(row["path"]) for row in rows if isinstance(row.get("path"), str)}
    return set()
