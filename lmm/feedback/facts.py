"""A fact taken out of a statement, and the questions it answers.

"my sister's name is Vera" -> "What is my sister's name?" -> "Your sister's name is Vera."
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lmm.feedback import grammar, words
from lmm.feedback.grammar import bare, capital, flip, sentence, trim
from lmm.feedback.words import anycase

MAX_VALUE = 200  # characters
MAX_WORDS = 12
VAGUE = words.word_set(
    "it that this what you me him them so how why if whether not these those none nothing nobody whatever unknown "
    "irrelevant secret"
)


UNDECIDED = anycase(r"^(?:either|neither)\b|\w or \w")


@dataclass(frozen=True)
class Fact:
    """A statement taken apart: `questions[0]` is the question in the user's words, the rest are other wordings."""

    questions: tuple[str, ...]
    answer: str
    value: str
    why: str


def fact(why: str, value: str, answer: str, *questions: str) -> Fact | None:
    value = bare(trim(value))
    first = grammar.tokens(value)[:1]
    long = len(value) > MAX_VALUE or len(value.split()) > MAX_WORDS
    if not first or long or first[0] in VAGUE or UNDECIDED.search(value):
        return None
    value = value if value in answer else flip(value)  # "our pet": the reply says "your pet"
    if value not in answer or grammar.is_relative(answer, value):
        return None
    return Fact(tuple(dict.fromkeys(capital(q) for q in questions)), sentence(answer), value, why)


def filled(questions: str, **parts: str) -> list[str]:
    """Each question of a text, with the parts put in: "Who is {s}? Tell me about {s}.", s="my vet" -> two questions."""
    return [question.format(**parts) for question in re.split(r"(?<=[?.]) ", questions)]


@dataclass(frozen=True)
class Rule:
    """A shape of clause and what it states: "QUESTIONS => ANSWER", filled with the groups of the shape.

    `v` is the value. The answer has the groups as a reply says them: "your sister" for "my sister".
    """

    why: str
    shape: str
    states: str

    def match(self, clause: str) -> re.Match[str] | None:
        return re.match(f"(?:{self.shape})$", clause, re.I)

    def fact(self, m: re.Match[str]) -> Fact | None:
        parts = m.groupdict("") | {"v": trim(m["v"])}
        questions, answer = self.states.split(" => ")
        said = answer.format(**{name: flip(part) for name, part in parts.items()})
        return fact(self.why, parts["v"], said, *filled(questions, **parts))


def ask(wh: str, subject: str, verb: str, tail: str = "") -> tuple[str, ...]:
    """Five wordings of one question: "what", "my name", "is" -> "What is my name?", "Tell me what my name is.", ..."""
    short = {"is": f"{wh}'s"}.get(verb, f"{wh} {verb}")
    tail = f" {tail}" if tail else ""
    inner = f"{wh} {subject} {verb}{tail}"
    return (
        f"{wh} {verb} {subject}{tail}?",
        f"{short} {subject}{tail}?",
        f"Do you know {inner}?",
        f"Can you tell me {inner}?",
        f"Tell me {inner}.",
    )


NO_JOB = words.word_set(
    "father mother brother sister gamer smoker drinker teenager immigrant foreigner libertarian survivor swimmer "
    "stranger member owner dreamer believer lover vegetarian pescatarian"
)


def is_job(kind: str) -> bool:
    """Is "a nurse" what someone works as? Most words for it end alike; a vegetarian and a Norwegian do too."""
    last = kind.lower().split()[-1]
    return last.endswith(words.JOB_ENDINGS) and last not in NO_JOB | words.LASTING | words.NATIONS


VAGUE_ROLE = anycase(
    r"(?:a|an|the) (?:\w+ )?(?:bit|little|lot|mess|genius|fool|idiot|wreck|loser|tad|fan of (?:that|this|it)|moron"
    r"|failure|joke|god|legend|star|machine|robot|burden|disaster|one|king|queen|guy|person|man|woman|human|beginner"
    r"|bad|good|huge|best|worst|first|last|same|problem)\b"
)
