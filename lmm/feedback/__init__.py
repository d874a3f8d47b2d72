"""Is a user's turn nothing, a statement, or a correction of the last answer? If the latter, what is to be learned?

Rules only: no model, the same result every time, well under a millisecond a turn. In doubt nothing is read, because
`/teach` and `/correct` are always there, while a lesson nobody asked for has to be found and undone.
"""

from __future__ import annotations

import re
from dataclasses import replace

from lmm.errors import UsageError
from lmm.feedback import grammar, replies
from lmm.feedback.corrections import read_correction
from lmm.feedback.facts import MAX_VALUE
from lmm.feedback.gates import MAX_TEXT, blocked, unreadable
from lmm.feedback.reading import Exchange, Reading, reading
from lmm.feedback.statements import statement_facts
from lmm.lesson import Lesson

__all__ = ["Exchange", "Reading", "lesson_for", "read", "understood"]


def read(text: str, last: Exchange | None = None) -> Reading:
    """Read one user turn; `last` is the exchange before it. Never raises on any text."""
    reason = unreadable(text)
    if reason:
        return Reading("nothing", why=reason)
    line = grammar.plain(text)
    reason = blocked(line)
    if reason:
        return Reading("nothing", why=reason)
    if last is not None and not unreadable(last.user):
        last = Exchange(last.user, last.assistant[:MAX_TEXT])
        correction = read_correction(text, line, last)
        if correction:
            return correction
    return _statement(text, line) or Reading("nothing", why="no rule applies")


SMALL = re.compile(r"^(?:At|In|On|By|From|To|With|Near|Under|After|Before|About|Around|Every|An?|The)(?= [a-z\d])")


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


def understood(lesson: Lesson) -> Lesson:
    """The lesson with its `reading`: the question that a statement answers, and every wording that the rules know."""
    if lesson.prompt and lesson.answer:
        wordings = dict.fromkeys((*replies.reworded(lesson.prompt), *lesson.wordings))
        return replace(lesson, reading=replace(lesson, wordings=tuple(wordings), reading=None))
    heard = read(lesson.statement)
    if heard.lesson is None:
        return replace(lesson, reading=replace(lesson, reading=None))
    return replace(lesson, reading=replace(heard.lesson, wordings=heard.questions, id=lesson.id))


# ------------------------------------------------------------------ statements
def _statement(text: str, line: str) -> Reading | None:
    parts = grammar.sentences(line)
    if len(parts) > 4:
        return None
    facts = {f.questions[0]: (clause, f, why) for part in parts for clause, f, why in statement_facts(part)}
    found: list[Reading] = []
    for clause, fact, why in facts.values():
        # Each of several lessons keeps its own words only: one may be forgotten, and the others stay.
        said = text if len(facts) == 1 else clause
        one = reading("statement", said, fact, f"{why}: {fact.why}")
        found += [one] if one else []
    return replace(found[0], also=tuple(found[1:])) if found else None
