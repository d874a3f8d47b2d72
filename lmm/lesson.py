"""What is learned, in text, and what is known: the values everything else passes on."""

from __future__ import annotations

import dataclasses
import functools
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from lmm.text.fold import fold, words
from lmm.text.sentences import sentences

TURN = "turn"  # the source of a lesson that is what the user said, and is read no further
TALK = "talk"  # the same, where it tells nothing that lasts

Array = Any  # of whichever backend holds it
State = dict[str, Array]


@dataclass(frozen=True)
class Lesson:
    """What is to be learned, in text: it outlives the weights and can be re-taught to another model.

    `prompt` is the question the lesson answers, `answer` the reply it should get, `statement` the user's own words.
    A lesson heard rather than taught may have only a `statement`, and `echo`, the same said by the assistant ("Your
    sister is called Zorbina."). `wordings` are other forms of the question. `subject` and `relation` say what it is
    about ("my sister", "name"), where that is known: the next lesson about both takes its place, as this one takes that
    of the lessons with the ids `supersedes`. `replaces` is the answer of an earlier lesson that this one corrects,
    `formerly` are the statements in whose place this one came (what they were found by finds it, too), and `still` what
    holds of them all the same, as the assistant says it. `values` are what the statement tells, in its own words
    ("Zorbina", "level 3"), where a reader found it, and `over` those of `formerly`.
    `reading` is the lesson as a reader of the language understands it, with the question that a statement answers and
    with more wordings; it is not kept in files.
    """

    prompt: str = ""
    answer: str = ""
    statement: str = ""
    source: str = "user"
    time: float = field(default_factory=time.time)
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    wordings: tuple[str, ...] = ()
    replaces: str = ""
    echo: str = ""
    subject: str = ""
    relation: str = ""
    supersedes: tuple[str, ...] = ()
    formerly: tuple[str, ...] = ()
    still: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    reading: Lesson | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.prompt} => {self.answer}" if self.prompt else self.statement

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(question, reply) in every wording, as read; none if the lesson says nothing one could ask about."""
        read = self.reading or self
        questions = dict.fromkeys((read.prompt, *read.wordings)) if read.prompt and read.answer else ()
        return [(question, read.answer) for question in questions]

    @functools.cached_property
    def keys(self) -> frozenset[tuple[str, str]]:
        """What it is about: two lessons that share one of these cannot both hold."""
        said = [("asked", self.prompt)] if self.prompt else [("said", self.statement)]
        about = [(f"about {fold(self.subject)}", self.relation)] if self.subject else []
        return frozenset((kind, fold(text)) for kind, text in (*said, *about) if text)

    @property
    def stated(self) -> bool:
        """Whether what the user said is about what the question is about, as in no mere answer ("No, it's Bern."), to
        which the answer is said back."""
        asked = set(words(self.prompt).split())
        return self.echo not in ("", self.answer) or any(
            len(word) > 3 and word in asked for word in words(self.statement).split()
        )

    @property
    def says(self) -> str:
        """What it says by itself: the user's words, or the answer where they were a mere answer."""
        said = set(words(self.statement).split())
        mere = self.prompt and not self.stated and any(len(w) > 3 and w not in said for w in words(self.answer).split())
        return self.answer if mere else self.statement

    def relieved(self, gone: Callable[[str], bool]) -> Lesson:
        """The lesson without what it has of others that are `gone`."""
        formerly, still, over = (
            tuple(text for text in texts if not gone(text)) for texts in (self.formerly, self.still, self.over)
        )
        replaces = "" if gone(self.replaces) else self.replaces
        return dataclasses.replace(self, replaces=replaces, formerly=formerly, still=still, over=over)

    def relieved_of(self, other: Lesson) -> Lesson:
        """The lesson without what it has of another one."""
        said = {other.answer, other.statement, *other.still, *other.values, *sentences(other.echo)}
        return self.relieved(said.__contains__)

    def to_dict(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in _kept()}
        return values | {name: list(values[name]) for name in LISTS}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Lesson:
        known = {name: values[name] for name in _kept() if name in values}
        return cls(**known | {name: tuple(map(str, known.get(name, ()))) for name in LISTS})


LISTS = ("wordings", "supersedes", "formerly", "still", "values", "over")


def _kept() -> list[str]:
    return [field.name for field in dataclasses.fields(Lesson) if field.name != "reading"]


def without(lessons: Iterable[Lesson], others: Iterable[Lesson]) -> list[Lesson]:
    """Those that are not among the others, by id."""
    ids = {lesson.id for lesson in others}
    return [lesson for lesson in lessons if lesson.id not in ids]


def earlier(lesson: Lesson, others: Iterable[Lesson]) -> list[Lesson]:
    """Those of `others` in whose place it came, and in whose place those did."""
    found, left = list[Lesson](), list(others)
    for one in (later := [lesson]):
        before = Knowledge({}, tuple(left)).superseded(one)
        left = [x for x in left if x not in before]
        later += before
        found += before
    return found


@dataclass(frozen=True)
class Knowledge:
    """What was known at one time. States share what they have in common, so keeping old ones is cheap."""

    state: State
    lessons: tuple[Lesson, ...] = ()

    def superseded(self, *lessons: Lesson) -> tuple[Lesson, ...]:
        """What `lessons` take the place of: what one of them names, lessons with the very question of one, or about the
        same relation of the same subject; where it says neither, with the very same statement."""
        keys = {key for lesson in lessons for key in lesson.keys}
        ids = {old for lesson in lessons for old in lesson.supersedes}
        return tuple(x for x in self.lessons if x.id in ids or not keys.isdisjoint(x.keys))

    def taught(self, state: State, lesson: Lesson, instead_of: tuple[Lesson, ...] = ()) -> Knowledge:
        """`state`, and one lesson more, in the place of others: it then `replaces` what the last of them said."""
        if instead_of:
            lesson = dataclasses.replace(lesson, replaces=instead_of[-1].answer or instead_of[-1].statement)
        return Knowledge(state, (*(x for x in self.lessons if x not in instead_of), lesson))
