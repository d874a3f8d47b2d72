"""Is a user's turn nothing, a statement, a correction, an update, a retraction? And what is to be learned from it?

A small model decides what kind of turn it is and where its facts stand (`model`); rules forbid a few things whatever it
says (`vetoes`), and put what it found into sentences and questions. In doubt nothing is read, because `/teach` and
`/correct` are always there, while a lesson nobody asked for has to be found and undone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from lmm.errors import ModelError, UsageError
from lmm.feedback import replies
from lmm.feedback.exchange import Exchange
from lmm.feedback.facts import MAX_VALUE
from lmm.feedback.reading import NOTHING, SAID, UNSURE, Reading
from lmm.feedback.vetoes import MAX_TEXT, is_denial, unreadable, vetoed
from lmm.lesson import Lesson

__all__ = [
    "DENIED",
    "SAID",
    "UNSURE",
    "Exchange",
    "Reading",
    "is_denial",
    "lesson_for",
    "read",
    "replies",
    "said_back",
    "understood",
]

DENIED = "denied, with nothing in its place"  # why a bare "no" teaches nothing


def read(text: str, last: Exchange | None = None, known: Sequence[Lesson] = ()) -> Reading:
    """Read one user turn; `last` is the exchange before it, `known` what was learned before. Raises on no text."""
    reason = unreadable(text) or vetoed(text)
    if reason:
        return replace(NOTHING, why=reason)
    if last is not None:
        if unreadable(last.user):
            last = None
        elif is_denial(text):
            return replace(NOTHING, why=DENIED)
    from lmm.feedback import lessons, model  # NumPy and the weights, when the first turn is read

    if last is not None:
        last = Exchange(last.user, last.assistant[:MAX_TEXT])
    try:
        found = lessons.reading(model.shared_reader(), text, last, known)
    except ModelError as error:
        return replace(NOTHING, why=str(error))
    said = last is not None and found.kind == "nothing" and lessons.said_already(text, last)
    return replace(found, why=SAID) if said else found


SMALL = re.compile(
    r"^(?:At|In|On|By|From|To|With|Near|Under|Behind|Beside|Inside|After|Before|About|Around|Every|An?|The)(?= [a-z\d])"
)


def lesson_for(question: str, value: str) -> Lesson:
    """The lesson that `question` is to be answered with `value`, phrased as a reply would read.

    A value that is a sentence already stays as it is. Raises UsageError if one of them is empty.
    """
    question, value = question.strip(), value.strip()
    if not question or not value:
        missing = "question" if not question else "answer"
        raise UsageError(f"the {missing} is empty; expected both: /teach QUESTION => ANSWER")
    full = (re.search(r"[.!?]$", value) and " " in value) or re.search(r"\n|\b(?:is|are|was|were)\b", value)
    if full or len(value) > MAX_VALUE or len(question) > MAX_TEXT:
        return Lesson(prompt=question, answer=value)
    inner = SMALL.sub(lambda word: word[0].lower(), value)  # "You work at the harbour."
    return Lesson(prompt=question, answer=replies.answer_to(question, inner))


def said_back(text: str, last: Exchange | None = None) -> str:
    """What a message tells that lasts, as the assistant says it: "I play chess. Do you?" -> "You play chess."; ""
    where it only asks, or wants something done. `last` is what it may be about that says nothing by itself: "No, Max."
    """
    found = read(text)
    if found.lesson is None and last is not None:
        found = read(text, last)
    return " ".join(told.lesson.echo for told in (found, *found.also) if told.lesson is not None)


def understood(lesson: Lesson) -> Lesson:
    """The lesson with its `reading`: the question that a statement answers, and every wording that the rules know."""
    if lesson.prompt and lesson.answer:
        wordings = dict.fromkeys((*replies.reworded(lesson.prompt), *lesson.wordings))
        return replace(lesson, reading=replace(lesson, wordings=tuple(wordings), reading=None))
    heard = None if lesson.echo else read(lesson.statement)  # with an echo it was read when it was heard
    if heard is None or heard.lesson is None:
        return replace(lesson, reading=replace(lesson, reading=None))
    return replace(lesson, reading=replace(heard.lesson, id=lesson.id))
