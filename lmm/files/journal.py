"""What became known since a memory file was written: a line for each change, on the disk before anyone is told.

Beside `m.safetensors` lie `m.safetensors.journal`, while there are changes that the file has not, and an empty
`.m.safetensors.lock`. Whoever changes what is known holds the lock, reads what others have added since, and adds a line
of its own: a lesson costs as much as it weighs, not as much as the file. `settle` puts the lines into the file, whole
and at once, and takes the journal away; a crash between the two does no harm, as a line that is there already changes
nothing. Only files and arrays are known here; `Keeper` (lmm/engine/keeper.py) ties them to a mind.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lmm.files import jsonl, safefile, state_file
from lmm.lesson import Lesson

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Change:
    """From one state of knowledge to the next: tensors and lessons that are new or other, and names and ids that go."""

    tensors: Mapping[str, np.ndarray] = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    lessons: tuple[Lesson, ...] = ()
    forgotten: tuple[str, ...] = ()

    def applied(self, arrays: Mapping[str, Any], lessons: Sequence[Lesson]) -> tuple[dict[str, Any], list[Lesson]]:
        """What is known after it. Twice is once."""
        kept = {name: array for name, array in arrays.items() if name not in self.gone}
        gone = {*self.forgotten, *(lesson.id for lesson in self.lessons)}
        return kept | dict(self.tensors), [*(x for x in lessons if x.id not in gone), *self.lessons]


def path_of(file: Path) -> Path:
    return file.with_name(file.name + ".journal")


@contextlib.contextmanager
def locked(file: Path, timeout: float = -1) -> Iterator[None]:
    """Alone with a memory file and its journal; other processes wait. Raises TimeoutError after so many seconds."""
    import filelock

    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = filelock.FileLock(file.with_name(f".{file.name}.lock"), mode=0o600, is_singleton=True)
    with lock.acquire(timeout=timeout):
        yield


def append(file: Path, change: Change) -> None:
    """Add a change; it is on the disk afterwards. Raises OSError, and nothing was added."""
    jsonl.append(path_of(file), [jsonl.line(_signed(_to_json(change)))], sync=True)


def read(file: Path, start: int = 0) -> tuple[list[Change], int]:
    """The changes from byte `start` of the journal on, and where they end: before a line that is cut short or damaged,
    which was never acknowledged. Raises OSError."""
    changes: list[Change] = []
    try:
        with open(path_of(file), "rb") as lines:
            lines.seek(start)
            for line in lines:
                change = _parsed(line)
                if change is None:
                    break
                changes.append(change)
                start += len(line)
    except FileNotFoundError:
        return [], 0
    return changes, start


def load(file: Path, expected: state_file.Expected | None = None) -> tuple[Arrays, state_file.Header]:
    """A memory file with the changes in its journal. Raises StateError."""
    arrays, header = state_file.load(file, expected)
    lessons = header.lessons
    for change in read(file)[0]:
        arrays, lessons = change.applied(arrays, lessons)
    return arrays, dataclasses.replace(header, lessons=list(lessons))


def settle(file: Path) -> int:
    """Put the journal's changes into the file, and take the journal away -> how many there were. Raises StateError."""
    if not path_of(file).exists():
        return 0
    with locked(file):
        count = len(read(file)[0])
        if count:
            state_file.save(file, *load(file), advice=f"what it lacks is still in {path_of(file)}")
        with contextlib.suppress(FileNotFoundError):
            path_of(file).unlink()
    return count


class Stamp(NamedTuple):
    """Which file, written when, and which journal were there; None where there was none."""

    file: tuple[int, int] | None
    journal: int | None


def stamp(file: Path) -> Stamp:
    def found(path: Path) -> os.stat_result | None:
        with contextlib.suppress(FileNotFoundError):
            return os.stat(path)
        return None

    main, added = found(file), found(path_of(file))
    return Stamp(main and (main.st_ino, main.st_mtime_ns), added and added.st_ino)


# lines --------------------------------------------------------------------------------------------------------------
def _to_json(change: Change) -> dict[str, Any]:
    def shown(array: np.ndarray) -> list[Any]:
        array = safefile.dense(array)
        return [array.dtype.name, list(array.shape), base64.b64encode(array.tobytes()).decode()]

    return {
        "tensors": {name: shown(array) for name, array in change.tensors.items()},
        "gone": list(change.gone),
        "lessons": [lesson.to_dict() for lesson in change.lessons],
        "forgotten": list(change.forgotten),
    }


def _from_json(values: Mapping[str, Any]) -> Change:
    tensors = {
        name: np.frombuffer(base64.b64decode(data), np.dtype(dtype)).reshape(shape).copy()
        for name, (dtype, shape, data) in values["tensors"].items()
    }
    lessons = tuple(map(Lesson.from_dict, values["lessons"]))
    return Change(tensors, tuple(values["gone"]), lessons, tuple(values["forgotten"]))


def _parsed(line: bytes) -> Change | None:
    """The change of a line; None if it was not written whole, or not by us."""
    values = jsonl.parse(line)
    if not line.endswith(b"\n") or not isinstance(values, dict):
        return None
    said = {key: value for key, value in values.items() if key != "sha256"}
    if _signed(said) != values:
        return None
    try:
        return _from_json(said)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _signed(values: dict[str, Any]) -> dict[str, Any]:
    return values | {"sha256": hashlib.sha256(jsonl.compact(values).encode()).hexdigest()}
