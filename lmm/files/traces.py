"""What a lesson leaves behind when it is forgotten: which turns and typed lines are its own, and which share a word.

A corrected value ("7", "Paul", "yes") is in countless other turns, so it never decides alone. What decides is the
lesson's id, or a question or sentence of it that is long enough to be no other's. Where the user asks for it (`deep`),
so does the value, wherever it is said.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lmm.text.fold import contains, has_run, words

if TYPE_CHECKING:
    from lmm.lesson import Lesson

SAID = ("user", "reply", "learned", "question", "answer")  # fields of a transcript's record that someone said
#: words of an answer that are no part of its value
LITTLE = frozenset((
    "a", "an", "and", "are", "at", "by", "for", "i", "in", "is", "it", "its", "me", "my", "of", "on", "our", "that",
    "the", "this", "to", "was", "we", "were", "you", "your",
))  # fmt: skip
_COMMAND = re.compile(r"/(?:teach|correct|forget)\b\s*", re.I)


@dataclass(frozen=True)
class Trace:
    """How to know a lesson: its id, what names it wherever it stands, all its texts, and what only its answer says."""

    id: str
    names: tuple[str, ...]
    texts: frozenset[str]
    own: frozenset[str] = frozenset()
    value: str = ""  # what a lesson says that its questions do not: "4711" of "Your code is 4711."
    deep: bool = False
    before: tuple[str, ...] = ()  # ids of the lessons in whose place it came: some of it was told by them

    @classmethod
    def of(cls, id: str, questions: Iterable[str], said: Iterable[str]) -> Trace:
        """`questions` are those the lesson answers, `said` its answer and the user's own words."""
        asked, told = _all_words(questions), _all_words(said)
        names = [text for text in asked if _is_long(text)] + [text for text in told if _is_sentence(text, asked)]
        return cls(id, tuple(names), frozenset([*asked, *told]))

    @classmethod
    def of_lesson(cls, lesson: Lesson, said: Iterable[str] = ()) -> Trace:
        """`said`: messages that taught it, among other things."""
        questions = (lesson.prompt, *lesson.wordings)
        found = cls.of(lesson.id, questions, (lesson.answer, lesson.statement, lesson.echo, *said))
        told = lesson.answer or lesson.echo or lesson.statement
        own = set(words(told).split()) - set(" ".join(_all_words(questions)).split())
        value = _longest_run(words(told).split(), own - LITTLE)
        return replace(found, own=frozenset(own), value=value, before=lesson.supersedes)

    @classmethod
    def of_value(cls, text: str) -> Trace:
        """Of no lesson: of whatever says a text, in whole words."""
        return cls("", (), frozenset(), value=words(text), deep=True)

    def is_named_in(self, text: str) -> bool:
        """Does a text have in it, in whole words, what can only be this lesson, or (deep) its value?"""
        return any(has_run(words(text), name) for name in self.names) or (self.deep and contains(text, self.value))

    def is_text(self, text: str) -> bool:
        """Is it one of the lesson's texts, however short?"""
        return words(text) in self.texts

    def is_typed(self, line: str) -> bool:
        """Is a line that was typed the lesson's: one of its texts, bare or after a command that takes it?"""
        rest = _COMMAND.sub("", line, count=1) if _COMMAND.match(line) else line
        return self.is_named_in(line) or any(self.is_text(part) for part in (rest, *rest.split("=>")) if part.strip())

    def has_turn(self, record: Mapping[str, Any]) -> bool:
        """Is a record of a transcript the lesson's: it taught it, names it, or is a reply in which it spoke?"""
        fields = record.keys() - {"kind"} if self.deep else SAID
        said = [record[name] for name in fields if isinstance(record.get(name), str)]
        if self.id and (self.id == record.get("id") or self.id in taught_by(record)):
            return True
        if any(self.is_named_in(text) for text in said):
            return True
        fired = record.get("fired")
        if isinstance(fired, list) and self.id in fired and any(contains(" ".join(said), word) for word in self.own):
            return True
        # A record that knows which lesson it taught is not this one's for a word they share.
        return "lessons" not in record and isinstance(record.get("user"), str) and self.is_text(record["user"])


def taught_by(record: Mapping[str, Any]) -> list[str]:
    """Ids of the lessons that a turn taught, as its record in a transcript has them."""
    ids = record.get("lessons")
    return [str(x) for x in ids] if isinstance(ids, list) else []


def _all_words(texts: Iterable[str]) -> list[str]:
    return [text for text in dict.fromkeys(map(words, texts)) if text]


def _longest_run(said: Sequence[str], wanted: Collection[str]) -> str:
    """The longest piece of a text that is made of some words only."""
    runs = (list(run) for own, run in itertools.groupby(said, wanted.__contains__) if own)
    return max(map(" ".join, runs), key=len, default="")


def _is_long(text: str) -> bool:
    return len(text.split()) >= 3 or len(text) >= 12


def _is_sentence(text: str, asked: Sequence[str]) -> bool:
    """Not a bare value, which may be long, too ("New York City"): a sentence takes up words of its question."""
    shared = set(text.split()) & set(" ".join(asked).split())
    return len(text.split()) >= 3 and len(text) >= 12 and (len(shared) >= 2 or not asked)
