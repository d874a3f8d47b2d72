"""Long lives: a mind against a plain dictionary, a value forgotten everywhere, and a day of use in an hour."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import tempfile
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import scripted
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from campaign.program import STORE, Row, folder_with, run
from lmm.engine import memory_files
from lmm.engine.keeper import Keeper
from lmm.engine.mind import Mind
from lmm.feedback import lesson_for
from lmm.files import journal
from lmm.lesson import Lesson

QUESTIONS = st.sampled_from([f"Question {i}?" for i in range(6)])
ANSWERS = st.sampled_from(["Oslo", "Bern", "Rome", "Lima"])
STEPS = 50


def born(folder: Path, file: str = "mind.safetensors") -> Mind:
    mind = Mind(scripted.ScriptedAdapter(), _jotter())
    Keeper(mind, folder / file)
    return mind


def _jotter() -> scripted.Jotter:
    """With its lessons kept as every memory that is worth the name: one for each question."""

    class OneEach(scripted.Jotter):
        def learn(self, known: Any, lesson: Any, adapter: Any, message: Any, report: Any) -> Any:
            old = known.superseded(lesson)
            state = {name: a for name, a in known.state.items() if name[5:] not in {x.id for x in old}}
            new = super().learn(known, lesson, adapter, message, report).state
            return known.taught(state | {f"note/{lesson.id}": new[f"note/{lesson.id}"]}, lesson, old)

    return OneEach()


def by_question(lessons: Iterable[Lesson]) -> dict[str, str]:
    """What is answered to each question."""
    return {lesson.prompt: lesson.answer for lesson in lessons}


class Life(RuleBasedStateMachine):
    """`known` is what a mind should know, `past` and `future` what undo and redo should bring."""

    differences = steps = 0

    def __init__(self) -> None:
        super().__init__()
        self._place = tempfile.TemporaryDirectory()
        self.folder = Path(self._place.name)
        self.mind = born(self.folder)
        self.known: dict[str, str] = {}
        self.past: list[dict[str, str]] = []
        self.future: list[dict[str, str]] = []

    def _same(self) -> None:
        Life.steps += 1
        found = by_question(self.mind.lessons)
        on_disk = by_question(journal.load(self.mind.keeper.file)[1].lessons) if self._kept() else {}
        for one in (found, on_disk):
            Life.differences += one != self.known
        assert found == self.known and on_disk == self.known

    def _kept(self) -> bool:
        return self.mind.keeper is not None and self.mind.keeper.file.exists()

    def _changed(self, now: dict[str, str]) -> None:
        self.past.append(self.known)
        self.known, self.future = now, []

    def _take_over_history(self) -> None:
        """What is left of the past is taken from the mind, which the next steps must hold to."""
        self.past = [by_question(one.lessons) for one in self.mind.history.undo]
        self.future = [by_question(one.lessons) for one in self.mind.history.redo]

    @rule(question=QUESTIONS, answer=ANSWERS)
    def teach(self, question: str, answer: str) -> None:
        lesson = lesson_for(question, answer)
        self.mind.learn(lesson)
        rest = {q: a for q, a in self.known.items() if q != question}
        self._changed({**rest, question: lesson.answer})
        self._same()

    @rule(count=st.integers(1, 3))
    def undo(self, count: int) -> None:
        done = min(count, len(self.past))
        assert self.mind.undo(count) == done
        for _ in range(done):
            self.future.append(self.known)
            self.known = self.past.pop()
        self._same()

    @rule(count=st.integers(1, 3))
    def redo(self, count: int) -> None:
        done = min(count, len(self.future))
        assert self.mind.redo(count) == done
        for _ in range(done):
            self.past.append(self.known)
            self.known = self.future.pop()
        self._same()

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        """Only what is known now: the lesson, under its id, goes from the past and the future, too."""
        lesson = data.draw(st.sampled_from(list(self.mind.lessons)))
        self.mind.forget(lesson.id)
        del self.known[lesson.prompt]
        self._take_over_history()  # by id
        for one in (*self.mind.history.undo, *self.mind.history.redo):
            Life.differences += any(x.id == lesson.id for x in one.lessons)
        self._same()

    @rule(question=QUESTIONS, answer=ANSWERS)
    def taught_by_another(self, question: str, answer: str) -> None:
        """Another process, with a mind of its own on the same file."""
        if question in self.known:
            return
        other = born(self.folder)
        other.learn(lesson_for(question, answer))
        other.close()
        now = lesson_for(question, answer).answer
        with self.mind.keeper.turn():  # type: ignore[union-attr]
            pass
        self.known = {**self.known, question: now}
        self._take_over_history()
        self._same()

    @rule()
    def settle(self) -> None:
        self.mind.keeper.settle()  # type: ignore[union-attr]
        self._same()

    @rule()
    def crash(self) -> None:
        """The process is gone with all it had in memory; what was learned before the next start can still be undone."""
        self.mind = born(self.folder)
        self.past = [by_question(one.lessons) for one in self.mind.history.undo]
        self.future = []
        self._same()

    @rule()
    def save_and_load(self) -> None:
        copy = self.folder / "copy.safetensors"
        self.mind.save(copy)
        other = Mind(scripted.ScriptedAdapter(), _jotter())
        other.load(copy)
        Life.differences += by_question(other.lessons) != self.known
        self._same()

    @precondition(lambda self: self._kept())
    @rule(question=QUESTIONS, answer=ANSWERS)
    def merge(self, question: str, answer: str) -> None:
        other = born(self.folder, "other.safetensors")
        if not other.lessons:
            other.learn(lesson_for(question, answer))
        other.close()
        theirs = by_question(other.lessons)
        _, header = memory_files.merged(self.mind.keeper.file, other.keeper.file, "first")  # type: ignore[union-attr]
        Life.differences += by_question(header.lessons) != {**theirs, **self.known}
        self._same()

    def teardown(self) -> None:
        self._place.cleanup()


def stateful(steps: int) -> Row:
    Life.differences = Life.steps = 0
    quiet = settings(
        max_examples=max(1, round(1.3 * steps / STEPS)),  # many end early
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(Life, settings=quiet)
    except AssertionError as error:
        print("".join(traceback.format_exception(error)))
    return (
        f"teach, undo, redo, forget, other writers, settle, crash, save, load, merge in {Life.steps} steps against a "
        "dictionary: differences",
        "0",
        f"{Life.differences}",
    )


# forgetting -------------------------------------------------------------------------------------------------------
def forgotten(count: int) -> Row:
    """A value that was taught, corrected, repeated, asked for, typed, saved, copied and taken back, in some order."""
    chance, left = random.Random(0), 0
    for number in range(count):
        value = f"Zorb{chance.randrange(10**6):06d}"
        steps = [
            (["teach", "What is the code?", value], ""),
            (["teach", "What is the code?", "Other"], ""),
            (
                ["chat"],
                f"The vault's code is {value}.\nSo it is {value}, right?\nWhat is the code?\n/save copy.safetensors\n",
            ),
            (["ask", f"Is {value} the code?"], ""),
            (["correct", f"{value} it is"], ""),
            (["memory", "undo"], ""),
            (["teach", "What is it?", f"I said {value}.", "--mm-path", "artifacts/named.safetensors"], ""),
            (["chat", "--profile", "work"], f"My dog is called {value}.\n/undo\n"),
        ]
        with folder_with() as folder:
            for args, stdin in chance.sample(steps, len(steps)):
                run(folder, args, stdin)
            there = _with(folder, value)
            ran = run(folder, ["memory", "forget", "--everywhere", value, "--yes"])
            found = _with(folder, value)
            left += len(found)
            if found or ran.code or not there:
                print(number, ran.code, ran.err[-500:], found)
    return f"`memory forget --everywhere` after {count} histories: files that have the value", "0", f"{left}"


def _with(folder: Path, value: str) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if value.lower().encode() in path.read_bytes().lower()]


# a day ------------------------------------------------------------------------------------------------------------
def day(lessons: int, restart: int = 500) -> Row:
    """Two questions for each lesson, each in a conversation of its own; log, journal and undo file beside."""
    ratios, wrong, first = [], 0, ""
    with folder_with() as folder:
        for start in range(0, lessons, restart):
            figures = _lived(folder, start, min(restart, lessons - start))
            first = first or json.dumps(figures["answers"])
            wrong += json.dumps(figures["answers"]) != first
            ratios.append(figures["grown"])
    flat = max(ratios) / max(ratios[0], 1)
    return (
        f"{lessons} lessons, {2 * lessons} questions, a restart every {restart}: answers that changed / memory that a "
        f"stretch takes <= 1.2 x the first one's ({flat:.2f} x)",
        "0 / yes",
        f"{wrong} / {'yes' if flat <= 1.2 else 'no'}",
    )


def _lived(folder: Path, start: int, count: int) -> dict[str, Any]:
    """One process's life, in a child -> answers to the first lessons, and MB that it came to take."""
    kept = folder / "figures"
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            kept.write_text(json.dumps(_live(folder, start, count)))
        os._exit(0)
    os.waitpid(child, 0)
    return dict(json.loads(kept.read_text()))


def _live(folder: Path, start: int, count: int) -> dict[str, Any]:
    from lmm.engine.engine import Engine
    from lmm.files.activation_log import ActivationLog

    os.chdir(folder)
    mind = Mind(scripted.ScriptedAdapter(), scripted.Jotter(), log=ActivationLog("log.jsonl"))
    Keeper(mind, folder / STORE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    engine, chance = Engine(mind), random.Random(start)
    for number in range(start, start + count):
        mind.learn(lesson_for(f"What is number {number}?", f"value {number}"))
        for _ in range(2):
            engine.start()
            engine.reply(f"What is number {chance.randrange(number + 1)}?")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    answers = []
    for number in range(5):
        engine.start()
        answers.append(engine.reply(f"What is number {number}?").text)
    mind.close()
    return {"answers": answers, "grown": grown}
