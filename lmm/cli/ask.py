"""One question, one lesson, one correction: `lmm ask`, `lmm teach`, `lmm correct`. stdout carries the answer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmm.cli.opening import check_place, opened, saved
from lmm.cli.options import Json, configured, given_or_piped, out, out_json, piped, say
from lmm.errors import LearningError, UsageError
from lmm.text.sanitize import clean_line
from lmm.text.utf8 import whole

if TYPE_CHECKING:
    from lmm.chat.talk import Talk
    from lmm.config import Config
    from lmm.engine.conversation import Turn
    from lmm.engine.mind import Mind
    from lmm.lesson import Lesson

Argument = typer.Argument


@configured("model", "memory", "files", "reply")
def ask(
    config: Config,
    question: Annotated[
        list[str] | None, Argument(help="the question; what is piped in is put below it, - waits for it")
    ] = None,
    as_json: Json = False,
) -> None:
    """Answer one question. Learns nothing; the next `lmm correct ANSWER` is about it."""
    words = [word for word in question or [] if word != "-"]
    asked, below = " ".join(words).strip(), piped(wait=not words or words != question).strip()
    text = "\n\n".join(part for part in (whole(asked, "the question"), below) if part)
    if not text:
        raise UsageError('nothing was asked; expected: lmm ask "QUESTION", or a question on stdin')
    with opened(config) as mind:
        talk = _talk(mind, config, as_json)
        _finished(config, talk.turn(text), as_json)
    if talk.view.failed is not None:  # nobody has seen the answer
        raise talk.view.failed


@configured("model", "memory", "files")
def teach(
    config: Config,
    question: Annotated[str | None, Argument(help="the question the lesson answers; - for stdin")] = None,
    answer: Annotated[str | None, Argument(help="the reply it should get")] = None,
    as_json: Json = False,
) -> None:
    """Teach the answer to a question, or the lessons on stdin: lines QUESTION => ANSWER, or JSON objects."""
    lessons = list(_lessons(question, answer))
    with opened(config) as mind:
        check_place(config, mind)
        learned, failed = _learn_all(mind, lessons)
        path = saved(config, mind) if learned else None
    if as_json:
        out_json({"learned": learned, "failed": failed, "path": str(path) if path else None})
    elif path:
        out(str(path))
    if failed:
        raise typer.Exit(1)


@configured("model", "memory", "files", "reply")
def correct(
    config: Config,
    answer: Annotated[str, Argument(help="what the last reply should have said")],
    as_json: Json = False,
) -> None:
    """Learn the right answer to the last question that was asked, in a chat or by `lmm ask`, and answer it again."""
    from lmm.chat.app import resumed_config
    from lmm.files import transcripts

    session = transcripts.find(oneshots=True)
    config = resumed_config(config, session)
    question = session.turns[-1][0]
    with opened(config) as mind:
        check_place(config, mind)
        talk = _talk(mind, config, as_json)
        talk.resume(session.records[-1:])
        say(f"about: {question}")
        turn = talk.correct(answer)
        path = saved(config, mind) if turn is not None else None
        _finished(config, turn, as_json, path, question)
    if talk.view.failed is not None:  # nobody has seen the answer
        raise talk.view.failed


# steps -------------------------------------------------------------------------------------------------------------
def _talk(mind: Mind, config: Config, as_json: bool) -> Talk:
    from lmm.chat import render
    from lmm.chat.talk import Talk
    from lmm.chat.view import ConsoleView, nowhere
    from lmm.engine.engine import Engine

    view = ConsoleView(nowhere() if as_json else render.make_console(), render.make_console(stderr=True))
    settings = dataclasses.replace(config, learn="off")
    return Talk(Engine(mind, config.system), view, lambda: settings, hint="")


def _finished(config: Config, turn: Turn | None, as_json: bool, path: Path | None = None, question: str = "") -> None:
    """Note the exchange for `lmm correct`, and print it as JSON if that is wanted."""
    from lmm.files.transcripts import Transcript

    if turn is None:
        raise typer.Exit(130)
    transcript = Transcript(**config.about, oneshot=True)
    file = path or (Path(config.mm_load_path) if config.mm_load_path else None)
    if file is not None and file.exists():
        transcript.add({"kind": "saved", "path": str(file.resolve())})
    transcript.add({**turn.record(), "user": question or turn.user})
    if transcript.error:
        say(f"{transcript.error}; `lmm correct` will not know of this")
    if as_json:
        out_json(_described(turn) | ({"path": str(path)} if path else {}))


def _described(turn: Turn) -> dict[str, Any]:
    made, recall = turn.generated, turn.recall
    assert made is not None
    fired = [{"lesson": i, "strength": round(s, 4)} for i, s in (recall.fired[0] if recall and recall.fired else [])]
    return {
        "question": turn.user,
        "answer": turn.text,
        "fired": fired,
        "learned": turn.lessons[0].to_dict() if turn.lessons else None,
        "tokens": len(made.tokens),
        "tokens_per_s": round(made.tokens_per_s, 2),
        "interrupted": turn.interrupted,
    }


def _lessons(question: str | None, answer: str | None) -> Iterator[Lesson]:
    from lmm.feedback import lesson_for

    if question is not None and (question, answer) != ("-", None):
        if answer is None:
            raise UsageError('the answer is missing; expected: lmm teach "QUESTION" "ANSWER"')
        yield lesson_for(question, answer)
        return
    lines = given_or_piped(None)
    if not lines:
        raise UsageError('nothing to teach; expected: lmm teach "QUESTION" "ANSWER", or lines on stdin')
    for number, line in enumerate(lines, 1):
        yield lesson_for(*_pair(line, number))


def _pair(line: str, number: int) -> tuple[str, str]:
    if line.lstrip().startswith("{"):
        try:
            values = json.loads(line)
            return str(values["question"]), str(values["answer"])
        except (ValueError, KeyError, RecursionError) as error:
            raise UsageError(f'line {number} of stdin: expected {{"question": ..., "answer": ...}}: {error}') from error
    question, arrow, answer = line.partition("=>")
    if not arrow:
        raise UsageError(f"line {number} of stdin: expected QUESTION => ANSWER, found {line[:80]!r}")
    return question, answer


def _learn_all(mind: Mind, lessons: list[Lesson]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    learned: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for lesson in lessons:
        try:
            report = mind.learn(lesson)
        except LearningError as error:
            failed.append({"question": lesson.prompt, "answer": lesson.answer, "error": str(error)})
            say(f"not learned: {clean_line(str(lesson), 120)}: {error}")
            continue
        figures = {"seconds": round(report.seconds, 3), "steps": report.steps, "loss": report.loss_after}
        learned.append({"id": lesson.id, "question": lesson.prompt, "answer": lesson.answer, **figures})
        say(f"learned: {lesson.prompt} => {lesson.answer.rstrip('.')}, {report.seconds:.1f} s")
    return learned, failed
