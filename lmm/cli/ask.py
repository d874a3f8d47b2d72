"""One question, one lesson, one correction: `lmm ask`, `lmm teach`, `lmm correct`. stdout carries the answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmm.cli.options import Json, configured, out, out_json, piped, say
from lmm.errors import LearningError, UsageError

if TYPE_CHECKING:
    from lmm.chat.talk import Talk
    from lmm.config import Config
    from lmm.engine.conversation import Turn
    from lmm.engine.engine import Engine
    from lmm.engine.mind import Mind
    from lmm.lesson import Lesson

Argument = typer.Argument


@configured("model", "memory", "files", "reply")
def ask(
    config: Config,
    question: Annotated[list[str] | None, Argument(help="the question; what is piped in is put below it")] = None,
    as_json: Json = False,
) -> None:
    """Answer one question. Learns nothing; the next `lmm correct ANSWER` is about it."""
    text = "\n\n".join(part for part in (" ".join(question or []).strip(), piped().strip()) if part)
    if not text:
        raise UsageError('nothing was asked; expected: lmm ask "QUESTION", or a question on stdin')
    engine = _open(config)
    talk = _talk(engine, config, as_json)
    _finished(config, engine, talk.turn(text), as_json)


@configured("model", "memory", "files")
def teach(
    config: Config,
    question: Annotated[str | None, Argument(help="the question the lesson answers")] = None,
    answer: Annotated[str | None, Argument(help="the reply it should get")] = None,
    as_json: Json = False,
) -> None:
    """Teach the answer to a question, or the lessons on stdin: lines QUESTION => ANSWER, or JSON objects."""
    lessons = list(_lessons(question, answer))
    mind = _open(config).mind
    learned, failed = _learn_all(mind, lessons)
    path = _saved(config, mind) if learned else None
    mind.close()
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
    engine = _open(config)
    talk = _talk(engine, config, as_json)
    talk.resume(session.records[-1:])
    say(f"about: {session.turns[-1][0]}")
    turn = talk.correct(answer)
    path = _saved(config, engine.mind) if turn is not None else None
    _finished(config, engine, turn, as_json, path, question=session.turns[-1][0])


# steps -------------------------------------------------------------------------------------------------------------
def _open(config: Config) -> Engine:
    from lmm.engine import runtime

    shown: set[str] = set()

    def progress(done: int, total: int, text: str) -> None:
        if text not in shown:
            shown.add(text)
            say(text)

    runtime.check(config)
    return runtime.open_engine(config, progress, say)


def _talk(engine: Engine, config: Config, as_json: bool) -> Talk:
    from lmm.chat import render
    from lmm.chat.talk import Talk
    from lmm.chat.view import ConsoleView, nowhere

    shown = nowhere() if as_json else render.make_console()
    talk = Talk(engine, ConsoleView(shown, render.make_console(stderr=True), config.markdown), learn="off")
    talk.hint = ""
    return talk


def _finished(
    config: Config,
    engine: Engine,
    turn: Turn | None,
    as_json: bool,
    path: Path | None = None,
    question: str | None = None,
) -> None:
    """Note the exchange for `lmm correct`, print it as JSON if that is wanted, and close."""
    if turn is None:
        raise typer.Exit(130)
    _transcript(config, path).add({**turn.record(), "user": question or turn.user})
    if as_json:
        out_json(_described(turn) | ({"path": str(path)} if path else {}))
    engine.close()


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

    if question is not None:
        if answer is None:
            raise UsageError('the answer is missing; expected: lmm teach "QUESTION" "ANSWER"')
        yield lesson_for(question, answer)
        return
    lines = [line for line in piped().splitlines() if line.strip()]
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
            say(f"not learned: {lesson.prompt} => {lesson.answer}: {error}")
            continue
        figures = {"seconds": round(report.seconds, 3), "steps": report.steps, "loss": report.loss_after}
        learned.append({"id": lesson.id, "question": lesson.prompt, "answer": lesson.answer, **figures})
        say(f"learned: {lesson.prompt} => {lesson.answer}, {report.seconds:.1f} s")
    return learned, failed


def _saved(config: Config, mind: Mind) -> Path:
    from lmm.files import state_file

    path = mind.save(config.mm_save_path or state_file.default_save_path(mind.memory.name))
    say(f"saved to {path}")
    return path


def _transcript(config: Config, path: Path | None) -> Any:
    from lmm.files.transcripts import Transcript

    transcript = Transcript(
        model=config.model, memory=config.memory, backend=config.backend, system=config.system, oneshot=True
    )
    saved = path or (Path(config.mm_load_path) if config.mm_load_path else None)
    if saved is not None and saved.exists():
        transcript.add({"kind": "saved", "path": str(saved.resolve())})
    return transcript
