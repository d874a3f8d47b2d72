"""Forgetting: a lesson in every memory and file of a session, in what was said and typed; a value wherever it is."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lmm.chat.history import JsonHistory, history_path
from lmm.engine import memory_files
from lmm.errors import LmmError, StillThereError, UsageError
from lmm.files import activation_log, atomic, jsonl, known, standing, transcripts
from lmm.files.activation_log import ActivationLog
from lmm.files.traces import Trace
from lmm.text.counted import counted
from lmm.text.fold import contains
from lmm.text.sanitize import listed

if TYPE_CHECKING:
    from lmm.chat.commands import AnyChat
    from lmm.chat.session import Chat
    from lmm.engine.mind import Mind
    from lmm.lesson import Lesson
    from lmm.store.base import Memo

EXPORTED = "exported before; it is yours to keep or delete"


@dataclass(frozen=True)
class Whereabouts:
    """Where a lesson may have left something, beside the mind that knew it: chats, the lines that were typed, logs, and
    the standing memories that may have a copy. None: all of these memories, and no line that was typed."""

    chats: Sequence[Path]
    logs: Sequence[ActivationLog]
    history: JsonHistory | None = None
    kept: Sequence[Path] | None = None

    @classmethod
    def of_user(cls, profile: str | None, lesson_id: str, log: Path) -> Whereabouts:
        """Those of one profile, for whoever may not be the person at the terminal. Lines that were typed and logs do
        not say whose they are: they are this one's where the lesson has been in a terminal, or nobody has a name."""
        chats, logs = standing.chats_of(profile), logs_with(lesson_id, log)
        here = profile is None or bool(logs) or any(_has(path, lesson_id) for path in chats)
        history = JsonHistory(history_path()) if here else None
        return cls(chats, logs, history, standing.files_of(profile))

    @property
    def paths(self) -> list[Path]:
        """What is rewritten."""
        logs = [at for log in self.logs for at in jsonl.rotated(log.path)]
        return [*self.chats, *([self.history.path] if self.history else []), *logs]

    def said_with(self, lesson_id: str) -> list[str]:
        """Whole messages that taught it, as far as the chats can be read."""
        with contextlib.suppress(UsageError):
            return transcripts.said_with(lesson_id, self.chats)
        return []

    def purge(self, trace: Trace, typed: str = "") -> list[Exception]:
        """Take out what is a lesson's, and the line `typed` -> why something could not be."""
        logs = [log for log in self.logs if trace.deep or any(_has(at, trace.id) for at in jsonl.rotated(log.path))]
        purges: list[Callable[[], object]] = [partial(transcripts.purge, trace, self.chats)]
        purges += [partial(self.history.purge, trace, typed)] if self.history else []
        return _failed([*purges, *(partial(log.purge, trace) for log in logs)])

    def saying(self, trace: Trace) -> dict[Path, int]:
        """How many lines of which file say a lesson's value, though they are not the lesson's."""
        deep, found = replace(trace, deep=True), dict[Path, int]()
        if not trace.value:
            return {}
        with contextlib.suppress(OSError):
            found = {path: jsonl.count(path, lambda line: transcripts.is_of(deep, line)) for path in self.chats}
            if self.history is not None:
                found[self.history.path] = self.history.count(deep)
            for log in self.logs:
                lines = {at: jsonl.count(at, lambda line: activation_log.mentions(line, deep))
                         for at in jsonl.rotated(log.path)}  # fmt: skip
                found |= lines
        return {path: count for path, count in found.items() if count}

    def left(
        self, trace: Trace, more: Iterable[Path] = (), name: Callable[[Path], str] = memory_files.from_here
    ) -> dict[str, list[Path]]:
        """What is to be said of where a lesson, or its value, still is, with the way to take it out there -> the files.
        `more`: exports that no chat tells of."""
        said, exports = self.saying(trace), exports_with(trace, more, self.chats)
        files = memory_files.still_holding(trace, memory_files.known_files(self.kept, self.chats))
        counts = listed([f"{name(path)} ({count})" for path, count in said.items()], most=5)
        told = {f"still said in {counts}; {everywhere_hint(trace)}": list(said)} if said else {}
        told |= {f"still in {name(path)}, which was {EXPORTED}": [path] for path in exports}
        return told | {memory_files.still_there(paths, one, name): paths for one, paths in files.items()}


def logs_with(lesson_id: str, log: Path) -> list[ActivationLog]:
    """Those of the logs that are known here, and of `log`, in which a lesson is named."""
    paths = sorted({Path(os.path.realpath(log)), *known.remembered("log")})
    named = [path for path in paths if any(_has(at, lesson_id) for at in jsonl.rotated(path))]
    return [ActivationLog(path, enabled=False) for path in named]


def logs_here(lesson_id: str, own: ActivationLog) -> list[ActivationLog]:
    """The log of a session or a command, and the others that name a lesson."""
    others = (log for log in logs_with(lesson_id, own.path) if log.path != Path(os.path.realpath(own.path)))
    return [own, *others]


def _has(path: Path, lesson_id: str) -> bool:
    """What cannot be read tells nobody."""
    with contextlib.suppress(OSError), jsonl.opened(path) as file:
        return lesson_id.encode() in file.read()
    return False


def take_out(
    mind: Mind, lesson_id: str, places: Whereabouts, typed: str = "", deep: bool = False
) -> tuple[Lesson, Trace, list[Exception]]:
    """Take a lesson out of a mind, and what it left behind, with the line `typed` that asked for it, out of `places`;
    with `deep`, also whatever else says its value -> how to know it, and why something could not be taken out.

    Raises LearningError with nothing changed, and what else `Mind.forget` does.
    """
    said, ever, left = places.said_with(lesson_id), mind.lessons_ever, list[Exception]()
    try:
        lesson = mind.forget(lesson_id, said)
    except StillThereError as error:
        lesson, left = next(x for x in ever if x.id == lesson_id), [error]
    trace = replace(Trace.of_lesson(lesson, said), deep=deep)
    return lesson, trace, [*left, *places.purge(trace, typed)]


def forget(chat: Chat, lesson_id: str, typed: str, deep: bool = False) -> Lesson:
    """Take a lesson, those in whose place it came, or undo would bring them back, and the line `typed` that asked for
    it, out of this session; with `deep`, or where the user agrees, also other turns that say their values. Says where
    they still are.

    Raises what `Mind.forget` does, with nothing changed.
    """
    said = set[str]()
    lesson = _forget_one(chat, lesson_id, typed, deep, said)
    for before in chat.mind.replaced_by(lesson):
        gone = _forget_one(chat, before.id, typed, deep, said)
        chat.view.say(f"forgotten with it, as it took the place of this: {gone}")
    return lesson


def _forget_one(chat: Chat, lesson_id: str, typed: str, deep: bool, said: set[str]) -> Lesson:
    """Where it still is is told once: what is in `said` was."""
    places = _places(chat, lesson_id)
    lesson, trace, failed = take_out(chat.mind, lesson_id, places, typed, deep)
    _forget_aside(chat, lesson.id)
    _purge(chat, trace, failed)
    left = {} if deep else places.saying(trace)
    lines = f"{counted(sum(left.values()), 'other line')} of chats, history and log"
    if left and _agrees(chat, f'{lines} say "{trace.value}", too. Take them out?'):
        trace = replace(trace, deep=True)
        _purge(chat, trace, places.purge(trace, typed))
    for line in (*places.left(trace, chat.exports), *memory_files.still_mixed(chat.mind.memory)):
        if line not in said:
            chat.view.say(line)
        said.add(line)
    return lesson


def _places(chat: Chat, lesson_id: str) -> Whereabouts:
    """All of this machine's: whoever sits at a terminal may read them."""
    log = chat.mind.log or ActivationLog(chat.config.activation_log_path, enabled=False)
    return Whereabouts(transcripts.paths(), logs_here(lesson_id, log), chat.history or JsonHistory(history_path()))


def offer(chat: AnyChat, lesson: Lesson, typed: str) -> bool:
    """Forget a lesson that the message `typed` takes back, if the user means it -> whether it went."""
    if chat.view.ask is None:
        chat.view.say(f"still known: {lesson}; to take it out: /forget {lesson.id}")
        return False
    chat.view.say(f"this takes back: {lesson}")
    if not _agrees(chat, "Forget it?"):
        return False
    chat.forget(lesson, typed)
    chat.view.say(said_of(lesson))
    return True


def everywhere_hint(trace: Trace) -> str:
    return f"to take it out everywhere: lmm memory forget --everywhere {shlex.quote(trace.value)}"


def _agrees(chat: AnyChat, question: str) -> bool:
    """Nobody in a pipe does."""
    if chat.view.ask is None:
        return False
    with contextlib.suppress(KeyboardInterrupt, EOFError):
        return chat.view.ask(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    return False


def _purge(chat: Chat, trace: Trace, failed: Sequence[Exception]) -> None:
    """Take out of this session what is nowhere else."""
    drop(chat, trace)
    files = _failed(partial(memory_files.forget_if_there, path, trace.id) for path in chat.files)
    for reason in (*failed, *files):
        chat.view.say(f"still on disk: {reason}")


def drop(chat: AnyChat, trace: Trace) -> None:
    if gone := chat.conversation.drop(trace):
        chat.view.say(f"{counted(gone, 'turn')} of this conversation went with it")


def _failed(steps: Iterable[Callable[[], object]]) -> list[Exception]:
    """Do each, whatever becomes of the others -> what went wrong."""
    failed: list[Exception] = []
    for step in steps:
        try:
            step()
        except (LmmError, OSError) as error:
            failed.append(error)
    return failed


def exports_with(trace: Trace, more: Iterable[Path] = (), chats: Sequence[Path] | None = None) -> list[Path]:
    """Conversations that were written out, by this session (`more`) and others, and have a lesson or its value in
    them."""
    paths, deep = {path.resolve() for path in more}, replace(trace, deep=True)
    with contextlib.suppress(UsageError):
        paths |= transcripts.written("exported", chats)
    found = []
    for path in sorted(paths):
        with contextlib.suppress(OSError), jsonl.opened(path) as file:
            if deep.is_named_in(file.read().decode(errors="replace")):
                found.append(path)
    return found


def everywhere(value: str, log: Path) -> tuple[list[str], dict[str, str]]:
    """Take whatever says a value out of every file that is known here -> what went, and where it may still be, with the
    reason."""
    trace = Trace.of_value(value)
    gone: list[str] = []
    logs = {Path(os.path.realpath(log)), *known.remembered("log")}
    left = {memory_files.from_here(path): EXPORTED for path in exports_with(trace)}
    for path in memory_files.known_files():  # as long as the transcripts say where they are
        try:
            atomic.remove_stale(path)
            gone += [f"{lesson}, in {path}" for lesson in memory_files.forget_value(path, value)]
        except (LmmError, OSError) as error:
            left[memory_files.from_here(path)] = str(error)
    for what, purge in (
        ("lines of chats", partial(transcripts.purge, trace)),
        ("lines that were typed", partial(JsonHistory(history_path()).purge, trace)),
        *(
            (f"log records of {memory_files.from_here(at)}", partial(ActivationLog(at, enabled=False).purge, trace))
            for at in sorted(logs)
        ),
        ("texts of `lmm recall`", partial(_recalled, value)),
    ):
        try:
            gone += [f"{count} {what}"] if (count := purge()) else []
        except (LmmError, OSError) as error:
            left[what] = str(error)
    return gone, left


def _recalled(value: str) -> int:
    """Take the texts that say a value out of the user's own store, with all versions of them. Raises LmmError."""
    from lmm.store.base import ALL
    from lmm.store.opening import default_store, open_store

    if not default_store().exists():
        return 0
    with contextlib.closing(open_store()) as store:
        return sum(
            store.forget(space, ids)
            for space in store.namespaces()
            if (ids := [x.id for x in store.scan(space, ALL, history=True) if _says(x, value)])
        )


def _says(memo: Memo, value: str) -> bool:
    return contains("\n".join((memo.text, memo.context, memo.about, *map(str, memo.metadata.values()))), value)


def _forget_aside(chat: Chat, lesson_id: str) -> None:
    """Forget a lesson in the memories that /memory put aside, too."""
    for name, mind in chat.shelf.items():
        saved = not mind.unsaved
        try:
            if any(lesson.id == lesson_id for lesson in mind.lessons_ever):
                mind.forget(lesson_id)
        except LmmError as error:
            chat.view.say(f"still known to memory {name!r}: {error}")
            continue
        if saved:
            mind.history.saved = mind.knowledge  # its file has been cleaned as well


def said_of(lesson: Lesson) -> str:
    """What is said of a lesson that is gone."""
    return f"forgotten: {str(lesson).rstrip('.。')}; this cannot be undone"
