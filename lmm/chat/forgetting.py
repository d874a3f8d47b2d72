"""Forgetting: a lesson in every memory and file of a session, in what was said and typed; a value wherever it is."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lmm.chat.history import JsonHistory, history_path
from lmm.engine import memory_files
from lmm.errors import LmmError, UsageError
from lmm.files import activation_log, atomic, jsonl, known, transcripts
from lmm.files.activation_log import ActivationLog
from lmm.files.traces import Trace
from lmm.text.counted import counted
from lmm.text.fold import contains
from lmm.text.sanitize import listed

if TYPE_CHECKING:
    from lmm.chat.session import Chat
    from lmm.lesson import Lesson
    from lmm.store.base import Memo

EXPORTED = "exported before; it is yours to keep or delete"


def forget(chat: Chat, lesson_id: str, typed: str, deep: bool = False) -> Lesson:
    """Take a lesson, and the line `typed` that asked for it, out of this session; with `deep`, or where the user
    agrees, also other turns that say its value. Says where it still is.

    Raises what `Mind.forget` does, with nothing changed.
    """
    said: list[str] = []
    with contextlib.suppress(UsageError):  # as far as the transcripts can be read
        said = transcripts.said_with(lesson_id)
    lesson = chat.mind.forget(lesson_id, said)
    trace = Trace.of_lesson(lesson, said)
    _forget_aside(chat, lesson.id)
    _purge(chat, trace, typed)
    log = chat.mind.log.path if chat.mind.log is not None else Path(chat.config.activation_log_path)
    if left := _said(trace, log):
        lines = f"{counted(sum(left.values()), 'other line')} of chats, history and log"
        if deep or _agrees(chat, f'{lines} say "{trace.value}", too. Take them out?'):
            _purge(chat, replace(trace, deep=True), typed)
            left = _said(trace, log)
    if left:
        places = listed([f"{memory_files.from_here(path)} ({count})" for path, count in left.items()], most=5)
        chat.view.say(f"still said in {places}; {everywhere_hint(trace)}")
    _name_exports(chat, trace)
    files = memory_files.still_holding(lesson.id)
    if files:
        chat.view.say(memory_files.still_there(files, lesson.id))
    for before in chat.mind.replaced_by(lesson):  # or undo would bring it back
        chat.view.say(f"forgotten with it, as it took the place of this: {forget(chat, before.id, typed, deep)}")
    return lesson


def offer(chat: Chat, lesson: Lesson, typed: str) -> bool:
    """Forget a lesson that the message `typed` takes back, if the user means it -> whether it went."""
    if chat.view.ask is None:
        chat.view.say(f"still known: {lesson}; to take it out: /forget {lesson.id}")
        return False
    chat.view.say(f"this takes back: {lesson}")
    if not _agrees(chat, "Forget it?"):
        return False
    forget(chat, lesson.id, typed)
    chat.view.say(said_of(lesson))
    return True


def everywhere_hint(trace: Trace) -> str:
    return f"to take it out everywhere: lmm memory forget --everywhere {shlex.quote(trace.value)}"


def _agrees(chat: Chat, question: str) -> bool:
    """Nobody in a pipe does."""
    if chat.view.ask is None:
        return False
    with contextlib.suppress(KeyboardInterrupt, EOFError):
        return chat.view.ask(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    return False


def _purge(chat: Chat, trace: Trace, typed: str) -> None:
    if gone := chat.talk.drop(trace):
        chat.view.say(f"{counted(gone, 'turn')} of this conversation went with it")
    history = chat.history or JsonHistory(history_path())
    purges: list[Callable[[], object]] = [partial(transcripts.purge, trace), partial(history.purge, trace, typed)]
    purges += [partial(memory_files.forget_if_there, path, trace.id) for path in chat.files]
    if trace.deep and chat.mind.log is not None:  # else the mind has done it
        purges.append(partial(chat.mind.log.purge, trace))
    for purge in purges:
        try:
            purge()
        except (LmmError, OSError) as error:
            chat.view.say(f"still on disk: {error}")


def _name_exports(chat: Chat, trace: Trace) -> None:
    for path in exports_with(trace, chat.exports):
        chat.view.say(f"still in {memory_files.from_here(path)}, which was {EXPORTED}")


def exports_with(trace: Trace, more: Iterable[Path] = ()) -> list[Path]:
    """Conversations that were written out, by this session (`more`) and others, and have a lesson or its value in
    them."""
    paths, deep = {path.resolve() for path in more}, replace(trace, deep=True)
    with contextlib.suppress(UsageError):
        paths |= transcripts.written("exported")
    found = []
    for path in sorted(paths):
        with contextlib.suppress(OSError), jsonl.opened(path) as file:
            if deep.is_named_in(file.read().decode(errors="replace")):
                found.append(path)
    return found


def _said(trace: Trace, log: Path) -> dict[Path, int]:
    """How many lines of which file say a lesson's value, though they are not the lesson's."""
    deep, found = replace(trace, deep=True), {}
    if not trace.value:
        return {}
    with contextlib.suppress(OSError):
        found = {path: jsonl.count(path, lambda line: transcripts.is_of(deep, line)) for path in transcripts.paths()}
        found[history_path()] = JsonHistory(history_path()).count(deep)
        found |= {at: jsonl.count(at, lambda line: activation_log.mentions(line, deep)) for at in jsonl.rotated(log)}
    return {path: count for path, count in found.items() if count}


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
