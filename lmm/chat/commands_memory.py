"""Commands that teach, show and steer the memory. Each takes the chat and the rest of its line."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lmm.errors import LmmError, UsageError
from lmm.feedback import lesson_for
from lmm.lesson import Lesson, without
from lmm.text.counted import counted
from lmm.text.fold import contains

if TYPE_CHECKING:
    from lmm.chat.commands import AnyChat
    from lmm.chat.session import Chat
    from lmm.chat.tables import Listing
    from lmm.engine.conversation import Turn


def teach(chat: Chat, rest: str) -> None:
    lesson = as_lesson(rest)
    chat.talk.teach(lesson)
    chat.record({"kind": "lesson", "id": lesson.id, "question": lesson.prompt, "answer": lesson.answer})


def as_lesson(rest: str) -> Lesson:
    """What /teach teaches. Raises UsageError."""
    question, arrow, answer = rest.partition("=>")
    if not arrow:
        raise UsageError("expected: /teach QUESTION => ANSWER, as in: /teach Who leads the choir? => Maria")
    return lesson_for(question, answer)


def correct(chat: Chat, rest: str) -> None:
    if not rest:
        raise UsageError("expected: /correct ANSWER")
    chat.done(chat.talk.correct(rest))


def undo(chat: AnyChat, rest: str) -> None:
    before = chat.lessons
    done = chat.undo(_count(rest))
    _travelled(chat, done, "nothing to undo", "undone", before)


def redo(chat: Chat, rest: str) -> None:
    before = chat.mind.lessons
    done = chat.mind.redo(_count(rest))
    _travelled(chat, done, "nothing to redo", "done again", before)


def _travelled(chat: AnyChat, done: int, none: str, word: str, before: Sequence[Lesson]) -> None:
    if not done:
        chat.view.say(none)
        return
    now = chat.lessons
    gone, back = [f"- {x}" for x in without(before, now)], [f"+ {x}" for x in without(now, before)]
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
    return by_id or [
        x for x in lessons if any(contains(said, text) for said in (x.prompt, x.answer, x.statement, *x.still))
    ]


def numbers(chat: AnyChat) -> dict[str, int]:
    """Ids of the lessons of the memory in use -> their numbers: as they were listed last, later ones behind them.

    So a number never comes to mean another lesson when one is forgotten.
    """
    listed = list(dict.fromkeys([*chat.listed, *(x.id for x in chat.lessons)]))
    return {lesson_id: number for number, lesson_id in enumerate(listed, 1)}


def named(chat: AnyChat, text: str) -> list[Lesson]:
    """The lessons that are meant by a number, an id, or words. Raises UsageError where a number may also be words."""
    known = chat.lessons
    said = found(known, text) or found(chat.lessons_ever, text)
    numbered = [x for x in known if str(numbers(chat)[x.id]) == text]
    others = [x for x in said if x not in numbered]
    if numbered and others:
        chat.view.show(_table(chat, [*numbered, *others]))
        raise UsageError(f"{text} is the number of one lesson and in another; name one by its id")
    return numbered or said


def forget(chat: AnyChat, rest: str) -> None:
    """Remove one lesson from memory, undo, log, this session's files, transcripts, history and conversation; with
    --deep, also whatever else says its value."""
    from lmm.chat.forgetting import said_of

    what = rest.removesuffix("--deep").rstrip()
    lesson = one(chat, "forget", what)
    chat.forget(lesson, f"/forget {rest}", deep=what != rest)
    chat.view.say(said_of(lesson))


def one(chat: AnyChat, command: str, text: str) -> Lesson:
    """The one lesson that is meant. Raises UsageError where it is none or several, which are then shown."""
    if not text:
        raise UsageError(f"expected: /{command} NUMBER|TEXT|ID; /lessons lists them")
    lessons = named(chat, text)
    if not lessons:
        none = f"there is no lesson {text}" if text.isdecimal() else f"no lesson has {text!r} in it"
        aside = [name for name, mind in chat.shelf.items() if found(mind.lessons, text)]
        there = f"; one of memory {aside[0]!r}, which was put aside, has: /memory {aside[0]}" if aside else ""
        raise UsageError(f"{none}{there}; /lessons lists them")
    if len(lessons) > 1:
        chat.view.show(_table(chat, lessons))
        example = numbers(chat).get(lessons[0].id, lessons[0].id)
        raise UsageError(
            f"{len(lessons)} lessons have {text!r} in them; name one by its number or id: /{command} {example}"
        )
    return lessons[0]


def lessons(chat: AnyChat, rest: str) -> None:
    known = chat.lessons
    history = rest.split()[:1] == ["--history"]
    rest = rest.strip().removeprefix("--history").strip() if history else rest
    chosen = found(known, rest) if rest else list(known)
    if not chosen:
        chat.view.say(f"no lesson has {rest!r} in it" if rest else "nothing was learned yet: /teach QUESTION => ANSWER")
        return
    chat.listed = [lesson.id for lesson in known]
    chat.view.show(_table(chat, chosen, history))


def _table(chat: AnyChat, lessons: list[Lesson], history: bool = False) -> Listing:
    from lmm.chat.tables import table
    from lmm.text.sanitize import clean_line
    from lmm.text.when import when

    number = numbers(chat)
    rows = [
        (
            number.get(x.id, "-"),
            clean_line(x.prompt or x.statement, 120),
            clean_line(" ".join((*x.still, x.answer or x.echo)), 120),
            *([clean_line(x.replaces, 120)] if history else []),
            when(x.time)[:16],
            x.source,
            x.id,
        )
        for x in lessons
    ]
    return table(("", "question", "answer", *(["before"] if history else []), "learned", "from", "id"), rows)


def why(chat: Chat, rest: str) -> None:
    """Which lessons fired for the last reply, how strongly, which notes were shown to the model, and what the memory
    changed, token by token.

    `/why NUMBER|TEXT|ID`: where one lesson comes from, and whether it fired.
    """
    from lmm.chat.explain import strengths
    from lmm.engine.conversation import notes_of

    if rest:
        last = chat.talk.last
        why_lesson(chat, one(chat, "why", rest), None if last is None else _fired(last))
        return
    turn = _last(chat)
    known, tokens = {x.id: x for x in chat.mind.lessons}, strengths(chat.engine, turn)
    fired, notes = _fired(turn), notes_of(turn.recall)
    if not fired and not notes:
        chat.view.show(
            "no lesson fired for the last reply" if "lessons" in chat.mind.memory.learns_from else _always(chat)
        )
    for lesson_id, strength in reversed(fired.items()):
        lesson = known.get(lesson_id)
        chat.view.show(f"{strength:.2f}  {lesson_id}  {lesson or '(no longer known)'}")
    for note in notes:
        chat.view.show(f"{note.strength:.2f}  {note.lesson_id}  shown to the model: {note.said} / {note.echo}")
    if any(strength for _, strength in tokens):
        _strip(chat, tokens)
    _pictures(chat, turn)


def _pictures(chat: Chat, turn: Turn) -> None:
    """What the memory does at each token of the last reply, if it can be drawn."""
    from lmm.text.heat import heat_map

    said, adapter = turn.generated.tokens if turn.generated else [], chat.engine.adapter
    for picture in chat.mind.memory.pictures(chat.mind.knowledge.state, [*turn.read, *said], adapter) if said else []:
        names = [adapter.format.piece(token) for token in said]
        chat.view.show(f"{picture.title}\n{heat_map(names, picture.values[-len(said) :].tolist())}")


def _fired(turn: Turn) -> dict[str, float]:
    """Ids of the lessons that fired for a reply -> how strongly, the weakest first."""
    hits = turn.recall.fired[0] if turn.recall is not None and turn.recall.fired else []
    return dict(sorted(hits, key=lambda hit: hit[1]))


def why_lesson(chat: AnyChat, lesson: Lesson, fired: Mapping[str, float] | None) -> None:
    """Where a lesson comes from. `fired`: those of the last reply, if there is one, and how strongly."""
    from lmm.chat.tables import table
    from lmm.text.when import when

    strength = fired.get(lesson.id) if fired is not None else None
    known = any(x.id == lesson.id for x in chat.lessons)
    rows = [
        ("question", lesson.prompt),
        ("answer", lesson.answer or lesson.echo),
        ("you said", lesson.statement),
        ("instead of", lesson.replaces),
        ("of it still true", " ".join(lesson.still)),
        ("also asked as", "\n".join(lesson.wordings)),
        ("learned", f"{when(lesson.time)[:16]}, from {lesson.source}"),
        ("last reply", f"fired, {strength:.2f}" if strength is not None else "did not fire"),
        ("state", "" if known else "taken back, /redo brings it back"),
        ("id", lesson.id),
    ]
    chat.view.show(table(("", ""), [row for row in rows if row[1] and (fired is not None or row[0] != "last reply")]))


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
    from lmm.chat.explain import told_before, without_memory
    from lmm.chat.render import side_by_side
    from lmm.text.sanitize import clean_line

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
    spoke = {*_fired(turn), *turn.fired}
    if said := told_before(chat.engine.conversation, [x for x in chat.mind.lessons if x.id in spoke]):
        chat.view.say(
            f'the conversation itself holds the answer ("{clean_line(said, 60)}"), so the model alone may have it from '
            "there; to see what the memory does: /new, and ask again"
        )
    elif not spoke and "lessons" in chat.mind.memory.learns_from:
        chat.view.say("no lesson fired for the last reply: both are the model's own")


def memory(chat: Chat, rest: str) -> None:
    from lmm import registry
    from lmm.chat.memories import use_memory
    from lmm.chat.tables import table

    if rest:
        before = chat.config.memory
        use_memory(chat, rest)
        nothing = "; it learns nothing" if chat.mind.memory.learns_from == "nothing" else ""
        chat.view.say(f"memory {rest}, {_known(len(chat.mind.lessons))}{nothing}")
        kept = {name: len(mind.lessons) for name, mind in chat.shelf.items() if name not in rest.split("+")}
        for name, left in kept.items():
            if left and (name == before or len(chat.mind.lessons) == 0):  # else what is here may be the same
                chat.view.say(f"{name} keeps its {counted(left, 'lesson')}: /memory {name} goes back")
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
    from lmm.chat.tables import table

    chat.view.show(table(("", ""), rows))
