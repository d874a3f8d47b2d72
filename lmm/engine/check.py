"""Does a memory still know what it was taught? Each lesson is asked for in its own and in two other wordings.

What fails can be taught again: with the wordings that failed, which memories that look at questions then know too.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lmm.engine.asking import ask_many
from lmm.errors import LearningError
from lmm.feedback import understood
from lmm.lesson import Knowledge, Lesson
from lmm.text.fold import contains

if TYPE_CHECKING:
    from lmm.engine.mind import Mind

OTHER_WORDINGS = 2
MAX_TOKENS = 64  # of a reply
BATCH = 32  # questions answered together


@dataclass(frozen=True)
class CheckedQuestion:
    """One question, the stored one (`stored`) or another wording, and whether the reply has the answer in it."""

    question: str
    answer: str
    reply: str
    ok: bool
    stored: bool


@dataclass(frozen=True)
class Checked:
    """A lesson and what came back; nothing, if it answers no question."""

    lesson: Lesson
    asked: list[CheckedQuestion]

    @property
    def ok(self) -> bool:
        return all(a.ok for a in self.asked)


@dataclass
class Report:
    """Before, and where something was taught again, after. `problems`: lessons that could not be learned, and why."""

    before: list[Checked]
    after: list[Checked] | None = None
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def now(self) -> list[Checked]:
        return self.before if self.after is None else self.after

    @property
    def better(self) -> bool:
        """Did teaching again put more right than it spoilt?"""
        return self.after is not None and right(self.after) > right(self.before)

    def to_dict(self) -> dict[str, Any]:
        return {
            "before": _summary(self.before),
            "after": None if self.after is None else _summary(self.after),
            "not_learned": self.problems,
        }


def questions_of(lesson: Lesson) -> list[tuple[str, str]]:
    """(question, answer): the lesson's own first, then up to two other wordings, those it was taught in first."""
    pairs = understood(lesson).pairs
    if not pairs:
        return []
    (stored, answer), *rest = pairs
    wordings = dict.fromkeys([*lesson.wordings, *(question for question, _ in rest)])
    wordings.pop(stored, None)
    return [(stored, answer), *((question, answer) for question in list(wordings)[:OTHER_WORDINGS])]


def check(
    mind: Mind, lessons: Sequence[Lesson], questions: Callable[[Lesson], list[tuple[str, str]]] = questions_of
) -> list[Checked]:
    """Ask for each lesson, each question in an empty conversation."""
    wanted = [questions(lesson) for lesson in lessons]
    texts = list(dict.fromkeys(question for pairs in wanted for question, _ in pairs))
    replies = {r.prompt: r.text for r in ask_many(mind, texts, MAX_TOKENS, BATCH)}
    return [
        Checked(
            lesson,
            [CheckedQuestion(q, a, replies[q], contains(replies[q], a), i == 0) for i, (q, a) in enumerate(pairs)],
        )
        for lesson, pairs in zip(lessons, wanted, strict=True)
    ]


def right(checked: Sequence[Checked]) -> int:
    """Questions answered with what was taught."""
    return sum(a.ok for c in checked for a in c.asked)


def failing(checked: Sequence[Checked]) -> list[Checked]:
    return [c for c in checked if not c.ok]


def check_and_fix(mind: Mind, fix: bool, progress: Callable[[str], None] = lambda text: None) -> Report:
    """Check every lesson of the mind; with `fix` teach those that fail again, and check them all once more.

    If that leaves no more right than before, the memory is put back as it was.
    """
    lessons = mind.knowledge.lessons
    report = Report(check(mind, lessons))
    wrong = failing(report.before)
    if not fix or not wrong:
        return report
    start = mind.knowledge
    for number, checked in enumerate(wrong, 1):
        progress(f"teaching again, {number} of {len(wrong)}: {checked.asked[0].question}")
        try:
            teach_again(mind, checked)
        except LearningError as error:
            report.problems[checked.lesson.id] = str(error)
    report.after = check(mind, mind.knowledge.lessons)
    if not report.better:
        mind.commit(start)
    return report


def teach_again(mind: Mind, checked: Checked) -> None:
    """Teach one lesson anew, in the place it has, together with the wordings that failed. Raises LearningError."""
    old, before = checked.lesson, mind.knowledge
    failed = [a.question for a in checked.asked if not a.ok and not a.stored] if old.prompt else []
    lesson = dataclasses.replace(old, wordings=tuple(dict.fromkeys((*old.wordings, *failed))))
    state = before.state
    with contextlib.suppress(LearningError):  # where lessons cannot be told apart, the new one comes on top
        state = mind.memory.forget(state, old.id)
    rest = tuple(x for x in before.lessons if x.id != old.id)
    mind.commit(Knowledge(state, rest))
    try:
        mind.learn(lesson)
    except BaseException:
        mind.commit(before)
        raise
    place = before.lessons.index(old)
    learned = [x for x in mind.knowledge.lessons if x not in rest]
    kept = [x for x in mind.knowledge.lessons if x in rest]
    mind.commit(Knowledge(mind.knowledge.state, (*kept[:place], *learned, *kept[place:])))


def _summary(checked: Sequence[Checked]) -> dict[str, Any]:
    return {
        "lessons": len(checked),
        "questions": sum(len(c.asked) for c in checked),
        "right": right(checked),
        "failed": [
            {
                "id": c.lesson.id,
                "answer": c.lesson.answer,
                "asked": [{"question": a.question, "reply": a.reply, "stored": a.stored} for a in c.asked if not a.ok],
            }
            for c in failing(checked)
        ],
        "not_asked": [c.lesson.id for c in checked if not c.asked],
    }


def lines(checked: Sequence[Checked], what: str) -> list[str]:
    """For people: every question that failed, and the sums."""
    found = [
        f"fails  {c.lesson.id}  {a.question}  ->  {a.reply or '(nothing)'}  (taught: {a.answer})"
        for c in failing(checked)
        for a in c.asked
        if not a.ok
    ]
    asked = sum(len(c.asked) for c in checked)
    count = len(failing(checked))
    return [*found, f"{what}: {right(checked)} of {asked} questions right; {count} of {len(checked)} lessons fail"]
