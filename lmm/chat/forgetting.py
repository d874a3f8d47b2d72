"""Forgetting a lesson in a chat: in every memory and file of the session, in what was said and what was typed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from lmm.chat.history import JsonHistory, history_path
from lmm.engine import memory_files
from lmm.errors import LmmError, UsageError
from lmm.files import transcripts
from lmm.files.traces import Trace

if TYPE_CHECKING:
    from lmm.chat.session import Chat
    from lmm.lesson import Lesson


def forget(chat: Chat, lesson_id: str, typed: str) -> Lesson:
    """Take a lesson, and the line `typed` that asked for it, out of this session; says where it still is.

    Raises what `Mind.forget` does, with nothing changed.
    """
    said: list[str] = []
    with contextlib.suppress(UsageError):  # as far as the transcripts can be read
        said = transcripts.said_with(lesson_id)
    lesson = chat.mind.forget(lesson_id, said)
    trace = Trace.of_lesson(lesson, said)
    chat.talk.drop(trace)
    _forget_aside(chat, lesson.id)
    history = chat.history or JsonHistory(history_path())
    purges: list[Callable[[], object]] = [partial(transcripts.purge, trace), partial(history.purge, trace, typed)]
    purges += [partial(memory_files.forget_if_there, path, lesson.id) for path in chat.files]
    for purge in purges:
        try:
            purge()
        except (LmmError, OSError) as error:
            chat.view.say(f"still on disk: {error}")
    for path in sorted(chat.exports):
        with contextlib.suppress(OSError):
            if trace.is_named_in(path.read_text(encoding="utf-8", errors="replace")):
                chat.view.say(f"still in {path}, which was exported before; it is yours to keep or delete")
    left = memory_files.still_holding(lesson.id)
    if left:
        chat.view.say(memory_files.still_there(left, lesson.id))
    return lesson


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
