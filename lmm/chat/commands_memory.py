"""Commands that teach, show and steer the memory. Each takes the chat and the rest of its line."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lmm.errors import LmmError, UsageError
from lmm.feedback import lesson_for
from lmm.lesson import Lesson
from lmm.text.counted import counted
from lmm.text.fold import contains

if TYPE_CHECKING:
    from rich.table import Table

    from lmm.chat.session import Chat
    from lmm.engine.conversation import Turn


def teach(chat: Chat, rest: str) -> None:
    question, arrow, answer = rest.partition("=>")
    if not arrow:
        raise UsageError("expected: /teach QUESTION => ANSWER, as in: /teach Who leads the choir? => Maria")
    lesson = lesson_for(question, answer)
    chat.talk.teach(lesson)
    chat.record({"kind": "lesson", "id": lesson.id, "question": lesson.prompt, "answer": lesson.answer})


def correct(chat: Chat, rest: str) -> None:
    if not rest:
        raise UsageError("expected: /correct ANSWER")
    chat.done(chat.talk.correct(rest))


def undo(chat: Chat, rest: str) -> None:
    before = chat.mind.lessons
    done = chat.mind.undo(_count(rest))
    _travelled(chat, done, "nothing to undo", "undone", before)


def redo(chat: Chat, rest: str) -> None:
    before = chat.mind.lessons
    done = chat.mind.redo(_count(rest))
    _travelled(chat, done, "nothing to redo", "done again", before)


def _travelled(chat: Chat, done: int, none: str, word: str, before: tuple[Lesson, ...]) -> None:
    if not done:
        chat.view.say(none)
        return
    now = chat.mind.lessons
    ids, ids_now = {x.id for x in before}, {x.id for x in now}
    gone = [f"- {x}" for x in before if x.id not in ids_now]
    back = [f"+ {x}" for x in now if x.id not in ids]
    chat.view.say(f"{word}: {counted(done, 'step')}; {_known(len(now))}")
    for line in gone + back:
        chat.view.say(f"  {line}")


def _known(count: int) -> str:
    return f"{counted(count, 'lesson')} known"


def _count(rest: str) -> int:
    if not rest:
        return 1
    if not rest.isascii() or not rest.isdecimal() or int(rest[:9]) == 0:
        raise UsageError(f"expected a number of steps, found {rest!r}")
    return int(rest[:9])


def found(lessons: Sequence[Lesson], text: str) -> list[Lesson]:
    """Lessons with this id or the beginning of it, or that say this, in whole words."""
    by_id = [x for x in lessons if x.id == text] or [x for x in lessons if len(text) >= 4 and x.id.startswith(text)]
    return by_id or [x for x in lessons if any(contains(said, text) for said in (x.prompt, x.answer, x.statement))]


def forget(chat: Chat, rest: str) -> None:
    """Remove one lesson from memory, undo, log, this session's files, transcripts, history and conversation."""
    from lmm.chat import forgetting

    if not rest:
        raise UsageError("expected: /forget TEXT|ID; /lessons lists them")
    lessons = found(chat.mind.lessons, rest) or found(chat.mind.lessons_ever, rest)
    if not lessons:
        raise UsageError(f"no lesson has {rest!r} in it; /lessons lists them")
    if len(lessons) > 1:
        chat.view.show(_table(lessons))
        raise UsageError(f"{len(lessons)} lessons have {rest!r} in them; name one by its id: /forget {lessons[0].id}")
    lesson = forgetting.forget(chat, lessons[0].id, f"/forget {rest}")
    chat.view.say(f"forgotten: {lesson}; this cannot be undone")


def lessons(chat: Chat, rest: str) -> None:
    known = chat.mind.lessons
    chosen = found(known, rest) if rest else list(known)
    if not chosen:
        chat.view.say(f"no lesson has {rest!r} in it" if rest else "nothing was learned yet: /teach QUESTION => ANSWER")
        return
    chat.view.show(_table(chosen))


def _table(lessons: list[Lesson]) -> Table:
    from lmm.chat.render import table
    from lmm.text.sanitize import clean_line
    from lmm.text.when import when

    rows = [
        (x.id, clean_line(x.prompt or x.statement, 60), clean_line(x.answer, 60), when(x.time)[:16], x.source)
        for x in lessons
    ]
    return table(("id", "question", "answer", "learned", "from"), rows)


def why(chat: Chat, rest: str) -> None:
    """Which lessons fired for the last reply, how strongly, which notes were shown to the model, and what the memory
    changed, token by token."""
    from lmm.chat.explain import strengths
    from lmm.engine.conversation import notes_of

    turn = _last(chat)
    known = {x.id: x for x in chat.mind.lessons}
    hits = turn.recall.fired[0] if turn.recall is not None and turn.recall.fired else []
    fired = dict(sorted(hits, key=lambda hit: hit[1]))  # a lesson may have fired in several wordings
    notes = notes_of(turn.recall)
    if not fired and not notes:
        chat.view.show(
            "no lesson fired for the last reply" if "lessons" in chat.mind.memory.learns_from else _always(chat)
        )
    for lesson_id, strength in reversed(fired.items()):
        lesson = known.get(lesson_id)
        chat.view.show(f"{strength:.2f}  {lesson_id}  {lesson or '(no longer known)'}")
    for note in notes:
        chat.view.show(f"{note.strength:.2f}  {note.lesson_id}  shown to the model: {note.said} / {note.echo}")
    tokens = strengths(chat.engine, turn)
    if tokens:
        _strip(chat, tokens)


def _always(chat: Chat) -> str:
    memory = chat.mind.memory
    if memory.learns_from == "nothing":
        return f"memory {memory.name!r} learns nothing, so nothing was changed"
    return f"memory {memory.name!r} acts on every token; it does not tell lessons apart"


def _strip(chat: Chat, tokens: list[tuple[str, float]]) -> None:
    from lmm.chat.render import strip, strip_plain

    if chat.view.is_terminal:
        chat.view.show(strip(tokens))
    else:
        chat.view.write(strip_plain(tokens))


def _last(chat: Chat) -> Turn:
    turn = chat.talk.last
    if turn is None:
        raise UsageError("there is no reply yet; ask something first")
    return turn


def diff(chat: Chat, rest: str) -> None:
    from lmm.chat.explain import without_memory
    from lmm.chat.render import side_by_side

    turn = _last(chat)
    bare = without_memory(chat.engine, turn, chat.config, chat.talk.stop.is_set)
    if bare.interrupted:
        chat.view.say("stopped")
        return
    name = f"with {chat.mind.memory.name}"
    if chat.view.is_terminal:
        chat.view.show(side_by_side("without memory", bare.text.rstrip(), name, turn.text))
    else:
        chat.view.write(f"without memory:\n{bare.text.rstrip()}\n\n{name}:\n{turn.text}\n")


def memory(chat: Chat, rest: str) -> None:
    from lmm import registry
    from lmm.chat.memories import use_memory
    from lmm.chat.render import table

    if rest:
        use_memory(chat, rest)
        chat.view.say(f"memory {rest}, {_known(len(chat.mind.lessons))}")
        return
    rows = []
    for name in registry.table("lmm.memories"):
        mind = chat.minds.get(name)
        state = "" if mind is None else "in use" if mind is chat.mind else "kept"
        rows.append((name, state, len(mind.lessons) if mind else 0, registry.memory_class(name).summary))
    chat.view.show(table(("memory", "", "lessons", ""), rows))


def consolidate(chat: Chat, rest: str) -> None:
    """Merge lessons that are hard to tell apart, learn them anew, and put all back if anything known is lost."""
    from lmm.engine.consolidate import consolidate

    found = chat.talk.watched("consolidating", lambda on_step: consolidate(chat.mind, on_step))
    if found.lost:
        chat.view.say(f"nothing was changed: it would have lost {'; '.join(found.lost[:5])}")
    elif not found.groups:
        chat.view.say(f"all lessons are well apart; {_known(found.lessons_after)}")
    else:
        sets = f"{counted(found.groups, 'set')} of lessons"
        chat.view.say(
            f"{sets} learned anew; {_known(found.lessons_after)}, before {found.lessons_before}; /undo goes back"
        )


def save(chat: Chat, rest: str) -> None:
    from lmm.chat import saving

    chat.view.say(f"saved to {saving.save(chat, chat.config.memory, rest)}")


def load(chat: Chat, rest: str) -> None:
    if not rest:
        raise UsageError("expected: /load PATH")
    path, keeper = Path(rest).expanduser(), chat.mind.keeper
    header = chat.mind.load(path)
    chat.files.add(path.resolve())
    chat.view.say(f"loaded {path}: {_known(len(header.lessons))}; /undo goes back")
    if keeper is not None:
        chat.view.say(f"{keeper.file} stays as it was; what is learned from now on is kept only where you /save it")


def reset(chat: Chat, rest: str) -> None:
    chat.mind.reset(chat.config.seed)
    chat.view.say("a fresh memory; /undo goes back")


def stats(chat: Chat, rest: str) -> None:
    mind, conversation, turn = chat.mind, chat.engine.conversation, chat.talk.last
    rows: list[tuple[str, object]] = [
        ("memory", mind.memory.name),
        ("lessons", str(len(mind.lessons))),
        ("state", f"{mind.memory.resident_bytes(mind.knowledge.state) / 1024:.1f} KiB"),
        ("kept in", str(mind.keeper.file) if mind.keeper is not None else "no file until it is saved"),
        ("saved", "no" if mind.unsaved else "yes"),
        ("undo / redo", f"{len(mind.history.undo)} / {len(mind.history.redo)} steps"),
        ("messages", str(len(conversation.messages))),
        ("context", f"{len(conversation.tokens)} tokens"),
    ]
    if turn is not None and turn.generated is not None:
        out = turn.generated
        rows += [
            ("last reply", f"{len(out.tokens)} tokens, {out.tokens_per_s:.1f} tokens/s"),
            ("first token", f"{out.first_token_s:.2f} s, {out.prefill_tokens} tokens read"),
        ]
    with contextlib.suppress(LmmError, OSError):
        if mind.log is not None and mind.log.enabled:
            rows.append(("activation log", f"{mind.log.path}"))
    from lmm.chat.render import table

    chat.view.show(table(("", ""), rows))
