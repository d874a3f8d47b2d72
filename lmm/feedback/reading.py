"""What a turn was read as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lmm.feedback import grammar, replies
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


def reading(
    kind: Literal["statement", "correction"],
    text: str,
    prompt: str,
    answer: str,
    value: str,
    questions: tuple[str, ...],
    why: str,
) -> Reading | None:
    if value.lower() not in answer.lower() or grammar.is_relative(answer, value):
        return None
    lesson = Lesson(prompt=prompt, answer=answer, statement=text.strip())
    return Reading(kind, lesson, value, questions, f"{replies.topic(prompt)} -> {value}", why)
