"""What became known since a memory file was written: a line for each change, on the disk before anyone is told.

Beside `m.safetensors` lie `m.safetensors.journal`, while there are changes that the file has not, an empty
`.m.safetensors.lock`, and `m.safetensors.undo`, with what would take the last changes back. Whoever changes what is
known holds the lock, reads what others have added since, and adds a line of its own: a lesson costs as much as it
weighs, not as much as the file. `settle` puts the lines into the file, whole and at once, and takes the journal away; a
crash between the two does no harm, as a line that is there already changes nothing. Only files and arrays are known
here; `Keeper` (lmm/engine/keeper.py) ties them to a mind.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lmm.errors import StateError
from lmm.files import atomic, jsonl, safefile, state_file
from lmm.lesson import Lesson
from lmm.text.sanitize import listed

Arrays = dict[str, np.ndarray]
UNDO = 100  # changes that can be taken back another day
POLL_S = 0.01  # between looks whether the lock is free: about what a change takes


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

    def __bool__(self) -> bool:
        return bool(self.tensors or self.gone or self.lessons or self.forgotten)

    def is_like(self, other: Change) -> bool:
        """Whether both change the same tensors and lessons, as a change and the undo of its undo do."""
        return self._names() == other._names()

    def _names(self) -> tuple[set[str], set[str], set[str], set[str]]:
        return set(self.tensors), set(self.gone), {lesson.id for lesson in self.lessons}, set(self.forgotten)

    def without(self, lesson: Lesson) -> Change:
        """The change with no trace of one lesson, whose tensors are named after it."""

        def named(name: str) -> bool:
            return name.rpartition("/")[2] == lesson.id

        return Change(
            {name: array for name, array in self.tensors.items() if not named(name)},
            tuple(name for name in self.gone if not named(name)),
            tuple(x.relieved_of(lesson) for x in self.lessons if x.id != lesson.id),
            tuple(i for i in self.forgotten if i != lesson.id),
        )


def joined(changes: Iterable[Change]) -> Change:
    """Several, one after the other, as one."""
    tensors, gone, lessons, forgotten = dict[str, np.ndarray](), set[str](), dict[str, Lesson](), set[str]()
    for change in changes:
        for name in change.gone:
            tensors.pop(name, None)
        for lesson_id in (*change.forgotten, *(lesson.id for lesson in change.lessons)):
            lessons.pop(lesson_id, None)  # what is taught again comes last
        tensors.update(change.tensors)
        lessons.update((lesson.id, lesson) for lesson in change.lessons)
        gone.update(change.gone)
        forgotten.update(change.forgotten)
    return Change(tensors, tuple(gone), tuple(lessons.values()), tuple(forgotten))


def _beside(file: Path, name: str) -> Path:
    """A file beside a memory file, whose own name stands for {}: one, by whatever link the file is named."""
    target = Path(os.path.realpath(file))
    return target.with_name(name.format(target.name))


def path_of(file: Path) -> Path:
    return _beside(file, "{}.journal")


def undo_of(file: Path) -> Path:
    return _beside(file, "{}.undo")


def beside_of(file: Path) -> Path:
    """What spares a memory work when the file is loaded, and can be made again."""
    return _beside(file, "{}.faiss")


def _lock_of(file: Path) -> Path:
    return _beside(file, ".{}.lock")


@contextlib.contextmanager
def locked(file: Path, timeout: float = -1) -> Iterator[None]:
    """Alone with a memory file and its journal; other processes wait. Raises TimeoutError after so many seconds."""
    import filelock

    atomic.make_folder(_lock_of(file).parent)
    lock = filelock.FileLock(_lock_of(file), mode=0o600, is_singleton=True)
    with lock.acquire(timeout=timeout, poll_interval=POLL_S):
        yield


@contextlib.contextmanager
def _failing(file: Path) -> Iterator[None]:
    """What the disk refuses is a StateError that says of which file."""
    try:
        yield
    except OSError as error:
        named = isinstance(error.filename, (str, os.PathLike))  # a file that is open has a number
        what = Path(error.filename if named else path_of(file)).name
        raise StateError(
            f"{file} could not be brought up to date: {what}: {error.strerror or error}; nothing is lost, try again"
        ) from error


@contextlib.contextmanager
def alone(file: Path) -> Iterator[None]:
    """Alone with a file that has everything its journal had, to write it anew. Raises StateError."""
    if not (path_of(file).exists() or undo_of(file).exists() or _lock_of(file).exists()):  # nobody keeps anything there
        yield
        return
    with locked(file):
        settle(file)
        yield


def append(file: Path, change: Change, back: Change | None) -> None:
    """Add a change, and what would take it `back`; it is on the disk afterwards. Raises OSError, and nothing was added.

    `back` is None where the change itself takes an earlier one back, which then cannot be taken back again, and empty
    where the change is none that could be taken back.
    """
    if back is None:
        _drop_undo(file, change)
    elif back:  # first: an undo of what never was changes nothing
        jsonl.append(undo_of(file), [line_of(back)])
    # a last line that is no change was never acknowledged; what is added behind it would not be read
    jsonl.append(path_of(file), [line_of(change)], sync=True, good=lambda line: change_of(line) is not None)


def read(file: Path, start: int = 0) -> tuple[list[Change], int]:
    """The changes from byte `start` of the journal on, and where they end: before a last line that is cut short, which
    was never acknowledged. Raises OSError, and StateError where a line is damaged: those behind it were acknowledged,
    and are not to be lost for it."""
    changes, end = _changes(path_of(file), start)
    if _goes_on(path := path_of(file), end):
        number = path.read_bytes()[:end].count(b"\n") + 1
        raise StateError(
            f"line {number} of {path} is damaged; nothing is read or kept until it is gone. To go on without what it "
            f"taught: sed -i {number}d {shlex.quote(str(path))}"
        )
    return changes, end


def _goes_on(path: Path, end: int) -> bool:
    """Whether changes follow the line that begins at byte `end`."""
    with contextlib.suppress(FileNotFoundError), jsonl.opened(path) as lines:
        lines.seek(end)
        return any(change_of(line) is not None for line in lines)
    return False


def load(file: Path, expected: state_file.Expected | None = None) -> tuple[Arrays, state_file.Header]:
    """A memory file with the changes in its journal. Raises StateError."""
    arrays, header = state_file.load(file, expected)
    arrays, lessons = _waiting(file).applied(arrays, header.lessons)
    return arrays, dataclasses.replace(header, lessons=lessons)


def verify(file: Path) -> list[str]:
    """Everything that is wrong with a memory file and its journal; empty if it can be loaded."""
    problems = state_file.verify(file)
    if not problems:
        try:
            _waiting(file)
        except StateError as error:
            problems = [str(error)]
    return problems


def read_header(file: Path) -> state_file.Header:
    """The header alone, with the lessons of the journal. Raises StateError."""
    header = state_file.read_header(file)
    _, lessons = _waiting(file).applied({}, header.lessons)
    return dataclasses.replace(header, lessons=lessons)


def _waiting(file: Path) -> Change:
    """What the journal has and the file has not yet. Raises StateError."""
    try:
        change = joined(read(file)[0])
    except OSError as error:
        reason = error.strerror or error
        raise StateError(
            f"cannot read {path_of(file)}: {reason}. It has the last lessons of the file beside it"
        ) from error
    if problems := safefile.name_problems(change.tensors) + safefile.value_problems(change.tensors):
        raise StateError(
            f"{path_of(file)} has what no memory holds: {listed(problems)}. Without it, the file beside it is as it "
            "was before its last lessons"
        )
    return change


def settle(file: Path) -> int:
    """Put the journal's changes into the file, and take the journal away -> how many there were. Raises StateError."""
    if not path_of(file).exists():
        return 0
    with _failing(file), locked(file):
        count = len(read(file)[0])
        if count:
            state_file.save(file, *load(file), advice=f"what it lacks is still in {path_of(file)}")
        path_of(file).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # what cannot be shortened now is shortened when it is read
            if undo_of(file).exists() and undo_of(file).read_bytes().count(b"\n") > 2 * UNDO:
                _write_undos(file, undos(file))
    return count


def replace(file: Path, arrays: Mapping[str, np.ndarray], header: state_file.Header, advice: str) -> None:
    """Write a file in the place of the one that was there, with which its undo goes. Raises StateError."""
    with alone(file), _failing(file):
        state_file.save(file, arrays, header, advice)
        undo_of(file).unlink(missing_ok=True)
        beside_of(file).unlink(missing_ok=True)


# undo ---------------------------------------------------------------------------------------------------------------
def undos(file: Path) -> list[Change]:
    """What takes the last changes back, the oldest change first. Raises OSError."""
    found, end = _changes(undo_of(file))
    if found and b"\n" in undo_of(file).read_bytes()[end:]:  # damaged: the last one would be another change's
        return []
    return found[-UNDO:]


def take_back(file: Path, count: int) -> list[Change]:
    """Undo the last changes to a file -> what was done, the last change first. Raises StateError, OSError."""
    with locked(file):
        read(file)
        done = undos(file)[::-1][:count]
        for change in done:
            append(file, change, None)
        settle(file)
    return done


def purge(file: Path, lesson: Lesson) -> None:
    """Leave no trace of a lesson in what can be undone. Raises OSError."""
    beside_of(file).unlink(missing_ok=True)
    _write_undos(file, [change.without(lesson) for change in undos(file)])


def _drop_undo(file: Path, change: Change) -> None:
    known = undos(file)
    at = next((i for i in reversed(range(len(known))) if known[i].is_like(change)), None)
    if at is not None:
        _write_undos(file, known[:at] + known[at + 1 :])


def _write_undos(file: Path, changes: Sequence[Change]) -> None:
    if any(changes):
        atomic.write_atomically(undo_of(file), [line_of(change) for change in changes if change])
    else:
        undo_of(file).unlink(missing_ok=True)


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
def _changes(path: Path, start: int = 0) -> tuple[list[Change], int]:
    changes: list[Change] = []
    try:
        with jsonl.opened(path) as lines:
            lines.seek(start)
            for line in lines:
                change = change_of(line)
                if change is None:
                    break
                changes.append(change)
                start += len(line)
    except FileNotFoundError:
        return [], 0
    return changes, start


def line_of(change: Change) -> bytes:
    """A change as a line of JSON that says whether it is whole."""
    return jsonl.line(_signed(_to_json(change)))


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


def change_of(line: bytes) -> Change | None:
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
