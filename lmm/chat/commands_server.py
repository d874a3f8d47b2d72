"""Commands of a chat with a server that ask the server. Each takes the chat and the rest of its line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmm.chat.commands_memory import as_lesson, one, why_lesson
from lmm.errors import UsageError
from lmm.lesson import Lesson

if TYPE_CHECKING:
    from lmm.chat.remote import RemoteChat
    from lmm.engine.conversation import Turn


def teach(chat: RemoteChat, rest: str) -> None:
    lesson = as_lesson(rest)
    values = chat.server.call("POST", "/v1/lessons", {"question": lesson.prompt, "answer": lesson.answer})
    _learned(chat, Lesson.from_dict(values))


def correct(chat: RemoteChat, rest: str) -> None:
    from lmm.engine.conversation import Turn

    if not rest:
        raise UsageError("expected: /correct ANSWER")
    asked, reply = _question(chat.last), chat.last.text
    found = chat.server.call("POST", "/v1/lessons/correct", {"question": asked, "reply": reply, "answer": rest})
    taught = tuple(map(Lesson.from_dict, found["lessons"]))
    chat.view.reply((text for text in [found["reply"]]), chat.stop.is_set, chat.config.markdown)
    chat.conversation.turns.append(Turn(rest, found["reply"], about=asked, lessons=taught, answered=True))
    for lesson in taught:
        _learned(chat, lesson)


def _learned(chat: RemoteChat, lesson: Lesson) -> None:
    from lmm.chat.talk import UNDO, told

    chat.view.say(f"learned: {told(lesson)}{UNDO}")


def _question(turn: Turn) -> str:
    """What the reply answers: that to a message which teaches is about what it taught."""
    return turn.about or next((lesson.prompt for lesson in turn.lessons if lesson.prompt), turn.user)


def why(chat: RemoteChat, rest: str) -> None:
    """Which lessons and notes speak for the last question, as things are now; `/why NUMBER|TEXT|ID`: where one lesson
    comes from."""
    if rest:
        lesson, last = one(chat, "why", rest), chat.conversation.last
        fired = None if last is None else {hit["id"]: hit["strength"] for hit in _fired(chat, last)}
        why_lesson(chat, lesson, fired)
        return
    found = _fired(chat, chat.last)
    for hit in found:
        note = f"shown to the model: {hit['statement'] or hit['prompt']} / {hit['echo'] or hit['answer']}"
        shown = note if hit["as"] == "note" else Lesson.from_dict(hit)
        chat.view.show(f"{hit['strength']:.2f}  {hit['id']}  {shown}")
    if not found:
        chat.view.show("no lesson fired for the last reply")


def _fired(chat: RemoteChat, turn: Turn) -> list[dict[str, Any]]:
    return chat.server.call("POST", "/v1/lessons/why", {"question": _question(turn)})["fired"]


def retry(chat: RemoteChat, rest: str) -> None:
    chat.retry()


def save(chat: RemoteChat, rest: str) -> None:
    """The memory as it is, to a file here."""
    from lmm.files import known, own
    from lmm.files.atomic import write_atomically
    from lmm.files.state_file import default_save_path

    path = Path(rest).expanduser() if rest else default_save_path("server")
    own.check(path, own.MEMORY)
    try:
        write_atomically(path, [chat.server.download("/v1/memory")])
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}; name another file") from error
    known.remember(path, "memory")
    chat.view.say(f"saved to {path}")


def load(chat: RemoteChat, rest: str) -> None:
    """Make a file what the server knows of its user."""
    from lmm.text.counted import counted

    if not rest:
        raise UsageError("expected: /load PATH")
    try:
        data = Path(rest).expanduser().read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {rest}: {error.strerror or error}") from error
    count = chat.server.call("PUT", "/v1/memory", data)["lessons"]
    chat.view.say(f"loaded {rest}: {counted(count, 'lesson')} known; /undo goes back")


def stats(chat: RemoteChat, rest: str) -> None:
    from lmm.chat.tables import table

    rows = [
        ("model", chat.model),
        ("server", chat.server.url),
        ("memory of", chat.server.user or "the user without a name"),
        ("lessons", str(len(chat.lessons))),
        ("messages", str(len(chat.conversation.messages))),
    ]
    chat.view.show(table(("", ""), rows))
