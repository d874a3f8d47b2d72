"""What a turn was read as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lmm.feedback import grammar, replies
from lmm.feedback.facts import Fact
from lmm.lesson import Lesson


@dataclass(frozen=True)
class Exchange:
    """The question before this turn, and the reply it got."""

    user: str
    assistant: str


@dataclass(frozen=True)
class Reading:
    """What a turn was read as. `lesson` is None if and only if `kind` is "nothing".

    `value` is what the reply must contain, `questions` are other wordings of `lesson.prompt`, `summary` fits a line
    ("capital of Australia -> Canberra"), `why` names the rule. `also` are further facts that the
    turn states.
    """

    kind: Literal["nothing", "statement", "correction"]
    lesson: Lesson | None = None
    value: str = ""
    questions: tuple[str, ...] = ()
    summary: str = ""
    why: str = ""
    also: tuple[Reading, ...] = ()


def reading(kind: Literal["statement", "correction"], text: str, fact: Fact, why: str) -> Reading | None:
    """The user's words `text` read as a fact. None if it would not be true tomorrow."""
    if fact.value.lower() not in fact.answer.lower() or grammar.is_relative(fact.answer, fact.value):
        return None
    prompt, *others = fact.questions
    lesson = Lesson(prompt=prompt, answer=fact.answer, statement=text.strip())
    return Reading(kind, lesson, fact.value, tuple(others), f"{replies.topic(prompt)} -> {fact.value}", why)
