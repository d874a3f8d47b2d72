"""Work on memory files without a conversation: forget, compare, merge, and teach the lessons to another model."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmm.config import Config
from lmm.errors import LearningError, StateError, UsageError
from lmm.files import journal, known, standing
from lmm.files import state_file as state
from lmm.files.state_file import Header
from lmm.files.traces import Trace
from lmm.lesson import Lesson, earlier, without
from lmm.text.fold import contains, fold
from lmm.text.sanitize import listed

if TYPE_CHECKING:
    from lmm.engine.mind import Mind
    from lmm.memory.base import Memory


def memory_of(header: Header) -> Memory:
    """The memory that a file belongs to. Raises UsageError if it is not installed here."""
    from lmm.engine import runtime

    return runtime.build_memory(Config(memory=header.module, options=header.options))


def forget(path: Path, lesson_id: str) -> Lesson:
    """Take one lesson, and those in whose place it came, out of a file, which is written anew. Raises StateError,
    UsageError or LearningError."""
    with journal.alone(path):
        arrays, header = state.load(path)
        lesson = next((x for x in header.lessons if x.id == lesson_id), None)
        if lesson is None:
            raise UsageError(f"{path} has no lesson {lesson_id!r}; see: lmm memory show {path}")
        arrays = memory_of(header).forget(arrays, lesson_id)
        rest = [x for x in header.lessons if x.id != lesson_id]
        state.save(path, arrays, dataclasses.replace(header, lessons=rest))
        undone = [x for change in journal.undos(path) for x in change.lessons]
        for gone in (lesson, *earlier(lesson, without(undone, rest))):
            journal.purge(path, gone)
    return lesson


def still_mixed(memory: Memory) -> list[str]:
    """What is to be said of a lesson that is forgotten where not every part of its memory can take one out."""
    return [f"{name} keeps what it made of it: its weights are shared by all that was said" for name in memory.mixing()]


def forget_if_there(path: Path, lesson_id: str) -> bool:
    """The same for a file that may not hold it, or be gone. Raises as `forget` does."""
    if not path.exists() or all(x.id != lesson_id for x in journal.read_header(path).lessons):
        return False
    forget(path, lesson_id)
    return True


def forget_value(path: Path, value: str) -> list[Lesson]:
    """Take every lesson that says a value out of a file, and of what can be undone -> those that were known. Raises as
    `forget` does."""

    def says(lesson: Lesson) -> bool:
        return any(contains(text, value) for text in (str(lesson), lesson.statement, lesson.echo, *lesson.wordings))

    def relieved(lesson: Lesson) -> Lesson:
        return lesson.relieved(lambda text: contains(text, value))

    known = journal.read_header(path).lessons
    gone = [lesson for lesson in known if says(lesson)]
    for lesson in gone:
        forget(path, lesson.id)
    with journal.alone(path):
        undone = [lesson for change in journal.undos(path) for lesson in change.lessons]
        for lesson in undone:
            if says(lesson) or relieved(lesson) != lesson:
                journal.purge(path, lesson)
        arrays, header = state.load(path)
        rest = [relieved(lesson) for lesson in header.lessons]
        if rest != header.lessons:
            state.save(path, arrays, dataclasses.replace(header, lessons=rest))
    return gone


def still_holding(trace: Trace, files: Iterable[Path] | None = None) -> dict[str, list[Path]]:
    """The files that have a lesson, or one in whose place it came, of some or of all that are known here, by its id."""
    files = known_files() if files is None else list(files)
    found = {one: [path for path in files if _holds(path, one)] for one in (trace.id, *trace.before)}
    return {one: paths for one, paths in found.items() if paths}


def known_files(kept: Sequence[Path] | None = None, chats: Sequence[Path] | None = None) -> list[Path]:
    """The files that were written on this machine, and those where saving puts them; others cannot be known. `kept`:
    the standing memories among them, and `chats`: the sessions that have saved, if not all."""
    from lmm.files import transcripts

    folder, kept = state.default_save_path("").parent, standing.files() if kept is None else kept
    paths = {Path(os.path.realpath(path)) for path in [*folder.glob("*.safetensors"), *kept]}
    with contextlib.suppress(UsageError):
        paths |= transcripts.written("saved", chats)
    return sorted(paths | {path for path in known.remembered("memory") if path.exists()})


def _holds(path: Path, lesson_id: str) -> bool:
    with contextlib.suppress(StateError, OSError, ValueError):  # what cannot be read tells no one
        return path.is_file() and any(x.id == lesson_id for x in journal.read_header(path).lessons)
    return False


def from_here(path: Path) -> str:
    """A path as one would type it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def still_there(paths: Sequence[Path], lesson_id: str, name: Callable[[Path], str] = from_here) -> str:
    """One line: where a forgotten lesson still is, and how to take it out there."""
    names = [shlex.quote(name(path)) for path in paths]
    file = names[0] if len(names) == 1 else "FILE"
    return f"still in {', '.join(names)}; take it out there with: lmm memory forget {file} {lesson_id} --yes"


# comparing --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Difference:
    """What differs from file a to file b. `changed` pairs lessons with the same question and another answer."""

    header: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    only_a: list[Lesson] = field(default_factory=list)
    only_b: list[Lesson] = field(default_factory=list)
    changed: list[tuple[Lesson, Lesson]] = field(default_factory=list)
    tensors: list[dict[str, Any]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.header or self.only_a or self.only_b or self.changed or self.tensors)


def compare(a: Path, b: Path) -> Difference:
    """Raises StateError if one of them cannot be read."""
    arrays_a, header_a = journal.load(a)
    arrays_b, header_b = journal.load(b)
    names = ("module", "options", "model_id", "revision", "layer", "layers", "width", "tokenizer_hash")
    headers = {n: (getattr(header_a, n), getattr(header_b, n)) for n in names}
    only_a, only_b = without(header_a.lessons, header_b.lessons), without(header_b.lessons, header_a.lessons)
    changed = conflicts(only_a, only_b)
    same = {x.id for pair in changed for x in pair}
    return Difference(
        {n: pair for n, pair in headers.items() if pair[0] != pair[1]},
        [x for x in only_a if x.id not in same],
        [x for x in only_b if x.id not in same],
        changed,
        _tensors(arrays_a, arrays_b),
    )


def _tensors(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Tensors that are not bit for bit the same: {"name", "a": shape or None, "b": ..., "largest": difference}."""
    found = []
    for name in sorted(a.keys() | b.keys()):
        x, y = a.get(name), b.get(name)
        if x is not None and y is not None and x.dtype == y.dtype and np.array_equal(x, y):
            continue
        row: dict[str, Any] = {
            "name": name,
            "a": x if x is None else list(x.shape),
            "b": y if y is None else list(y.shape),
        }
        if x is not None and y is not None and x.shape == y.shape and x.size and x.dtype.kind == "f":
            row["largest"] = float(np.abs(x.astype(np.float64) - y.astype(np.float64)).max())
        found.append(row)
    return found


def conflicts(a: Sequence[Lesson], b: Sequence[Lesson]) -> list[tuple[Lesson, Lesson]]:
    """Lessons with the same question (as `fold` has it) that want different answers."""
    by_question = {fold(x.prompt): x for x in a if x.prompt}
    pairs = [(by_question[fold(y.prompt)], y) for y in b if y.prompt and fold(y.prompt) in by_question]
    return [(x, y) for x, y in pairs if fold(x.answer) != fold(y.answer)]


# merging and migrating --------------------------------------------------------------------------------------------
def merged(a: Path, b: Path, prefer: str | None = None) -> tuple[dict[str, np.ndarray], Header]:
    """Both sets of lessons in one state. `prefer`: whose lesson to keep in a conflict, "first" or "second".

    Raises StateError if the files are of different memories, models or layers, and UsageError that names the
    conflicts. Memories that keep each lesson in tensors of its own merge exactly; others cannot.
    """
    arrays_a, header_a = journal.load(a)
    arrays_b, header_b = journal.load(b)
    _check_mergeable(a, b, header_a, header_b)
    found = conflicts(header_a.lessons, header_b.lessons)
    if found and prefer is None:
        raise UsageError(
            "the two files disagree: "
            + listed([f"{x.prompt!r}: {x.answer!r} or {y.answer!r}" for x, y in found])
            + ". Choose with --prefer first or --prefer second, or forget one of them: lmm memory forget FILE ID"
        )
    memory, ids_a = memory_of(header_a), {x.id for x in header_a.lessons}
    repeated = {fold(x.prompt) for x in header_a.lessons if x.prompt}
    lost_b = {y.id for y in header_b.lessons if y.id in ids_a or (y.prompt and fold(y.prompt) in repeated)}
    lost_a = {x.id for x, _ in found} if prefer == "second" else set()
    lost_b -= {y.id for _, y in found} if prefer == "second" else set()
    lessons_a, arrays_a = _without(memory, header_a.lessons, arrays_a, lost_a)
    lessons_b, arrays_b = _without(memory, header_b.lessons, arrays_b, lost_b)
    shared = arrays_a.keys() & arrays_b.keys()
    if any(not np.array_equal(arrays_a[name], arrays_b[name]) for name in shared):
        raise LearningError(
            f"memory {header_a.module!r} mixes its lessons in the same weights, and such files cannot be joined; "
            f"teach the lessons of one on top of the other: {_on_top(a, b, header_a, header_b)}"
        )
    lessons = [*lessons_a, *lessons_b]
    return memory.together(arrays_a, arrays_b, lessons), dataclasses.replace(header_a, lessons=lessons)


def _without(
    memory: Memory, lessons: Sequence[Lesson], arrays: dict[str, np.ndarray], ids: set[str]
) -> tuple[list[Lesson], dict[str, np.ndarray]]:
    for lesson_id in ids:
        arrays = memory.forget(arrays, lesson_id)
    return [x for x in lessons if x.id not in ids], arrays


def _check_mergeable(a: Path, b: Path, header_a: Header, header_b: Header) -> None:
    names = ("module", "model_id", "layer", "layers", "width", "tokenizer_hash")
    pairs = {n: (getattr(header_a, n), getattr(header_b, n)) for n in names}
    if header_a.module == header_b.module:
        read_a, read_b = memory_of(header_a).reading_options(), memory_of(header_b).reading_options()
        pairs |= {f"option {n}": (read_a[n], read_b[n]) for n in read_a}
    wrong = "; ".join(f"{n}: {x!r} and {y!r}" for n, (x, y) in pairs.items() if x != y)
    if wrong:
        raise StateError(
            f"{a} and {b} cannot be merged, they differ in {wrong}. Teach the lessons of one on top of the other: "
            f"{_on_top(a, b, header_a, header_b)}"
        )


def _on_top(a: Path, b: Path, header_a: Header, header_b: Header) -> str:
    """The command that teaches the lessons of b to what a is for."""
    flags = {"mm-load-path": str(a), "model": state.typable(header_a)}
    flags |= {"memory": header_a.module} if header_a.module != header_b.module else {}
    flags |= {"layer": str(header_a.layer)} if header_a.layer != header_b.layer else {}
    return shlex.join(["lmm", "memory", "migrate", str(b), *(x for n, y in flags.items() for x in (f"--{n}", y))])


def reteach(
    mind: Mind, lessons: Sequence[Lesson], progress: Callable[[int, Lesson, str], None]
) -> tuple[list[Lesson], list[tuple[Lesson, str]]]:
    """Teach lessons in text to a mind -> (learned, failed with the reason). `progress(number, lesson, problem)`."""
    learned: list[Lesson] = []
    failed: list[tuple[Lesson, str]] = []
    for number, lesson in enumerate(lessons, 1):
        problem = ""
        try:
            mind.learn(lesson)
            learned.append(lesson)
        except LearningError as error:
            problem = str(error)
            failed.append((lesson, problem))
        progress(number, lesson, problem)
    return learned, failed
