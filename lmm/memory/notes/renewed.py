"""What an old statement says now: its sentence, with what is new in the place of what is over.

"My friend Dorothea lives in Ludlow." and then "I'm at Dorothea's, she's been in Whitby since she left Ludlow": "Your
friend Dorothea lives in Whitby." News tell it in words of their own, beside other things and what is over; in the
sentence in whose place they come they say what holds, and no more.

What news tell is known from reading them (`Lesson.values`); that it belongs where the old value stood is asked of the
chat model. Having read the news, would it go on with that, sooner than with any other word of theirs of its kind, from
what stands before the old value?
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmm.adapters.base import as_tokens
from lmm.text.fold import contains, fold, words
from lmm.text.sentences import clauses

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter
    from lmm.lesson import Lesson

#: log-probability of its first token from which it may be meant; of a number whatever it is, none is likely
LIKELY = {"name": -11.0, "thing": -6.0, "number": -math.inf}
#: the same of a name, and of a thing, that reading did not find
ALONE = {"name": -5.5, "thing": -1.0}
#: by how much that must be likelier than the next one, and a place in the old statement than another
LEAD, APART = 3.0, 1.0

Telling = Callable[[str], Collection[str]]  # the words of a text that are not in any text


@dataclass(frozen=True)
class Renewed:
    """`said`: the clause of the old statement, as the assistant says it, with the value `new` where it had `old`."""

    old: str
    new: str
    said: str


def renewed(old: Lesson, news: Lesson, telling: Telling, adapter: Adapter) -> Renewed | None:
    """None where nothing takes the place of what is over, or not surely."""
    known = f"{old.says} {old.echo}"
    new = [value for value in news.values if not contains(known, value)]
    found = [
        (score, Renewed(value, instead, _joined(before, instead, after)))
        for before, value, after in _slots(old)
        if not _another_day(before + after, news.says)
        for score, instead in _instead(before, value, new, known, news.says, telling, adapter)
    ]
    score, best = max(found, key=lambda one: one[0], default=(0.0, None))
    if best is None or any(score - other < APART for other, one in found if one.old != best.old):
        return None
    return best


def _slots(old: Lesson) -> Iterator[tuple[str, str, str]]:
    """What stands before a value in its clause, the value, and what stands after it."""
    for clause in (*old.still, *clauses(old.echo, old.subject)):
        for value in (ARTICLE.sub("", value) for value in old.values):
            before, found, after = clause.partition(value)
            if before and found and value not in after and (_kind(value) != "thing" or ENDS.match(after)):
                yield before, value, after


def _instead(
    before: str, value: str, new: Sequence[str], known: str, news: str, telling: Telling, adapter: Adapter
) -> Iterator[tuple[float, str]]:
    """What the news have for a value, with how likely the model goes on with it: at most one."""
    kind, blanks = _kind(value), not SIGNS.search(value)
    told = [ARTICLE.sub("", one) for one in new if _alike(value, one) and (blanks or before[-1:] + one in news)]
    others = [
        word
        for word in dict.fromkeys((NAME if kind == "name" else WORD).findall(news))
        if _alike(value, word) and telling(word) and not contains(known, word)
    ]
    others = [word for word in others if not any(contains(one, word) or contains(word, one) for one in new)]
    if not told and (kind == "number" or not others or not blanks):
        return
    scores = _likely(before, [*told, *others], news, adapter)
    best = int(np.argmax(scores))
    if best < len(told):
        sure = scores[best] >= LIKELY[kind]
    else:
        sure = scores[best] >= ALONE[kind] and all(scores[best] - x >= LEAD for i, x in enumerate(scores) if i != best)
        sure = sure and not _stems([*told, *others][best]) & _stems(known)
    if sure:
        yield scores[best], [*told, *others][best]


def _likely(before: str, several: Sequence[str], news: str, adapter: Adapter) -> list[float]:
    """Log-probability of the first token of each, as what the model goes on with from `before` in reply to the news."""
    encode = adapter.format.encode
    tokens = [*adapter.format.prompt_tokens(news), *encode(before.rstrip())][-adapter.shape.context :]
    logits, _ = adapter.forward(as_tokens(tokens), adapter.new_cache())
    row = adapter.ops.to_numpy(logits)[0, -1].astype(np.float64)
    blank = before[len(before.rstrip()) :]
    return [float(row[encode(blank + one)[0]] - np.logaddexp.reduce(row)) for one in several]


def _alike(value: str, new: str) -> bool:
    """Can one take the place of the other: a name of a name, a number of a number, a thing of a thing?"""
    less = bool(DAY.search(value)) and not DAY.search(new)  # "Tuesday at 9" is no "10"
    return _kind(value) == _kind(new) and not less and bool(DIGIT.search(value) or not DIGIT.search(new))


def _kind(value: str) -> str:
    if any(not DAY.fullmatch(word) for word in CAPITAL.findall(value)):
        return "name"
    return "number" if DIGIT.search(value) else "thing"


def _another_day(kept: str, news: str) -> bool:
    """Do the news name a day or a month, and not the one that would be kept beside the new value?"""
    there, told = ({fold(day) for day in DAY.findall(text)} for text in (kept, news))
    return bool(there) and bool(told - there)


def _joined(before: str, new: str, after: str) -> str:
    """Without a word twice: "on port" and "port 8080"."""
    first, *rest = new.split()
    again = rest and fold(before).split()[-1:] == [fold(first)]
    return f"{before}{' '.join(rest) if again else new}{after}"


def _stems(text: str) -> set[str]:
    return {word[:STEM] for word in words(text).split()}


STEM = 5  # letters
ARTICLE = re.compile(r"^(?:an?|the) ", re.I)
SIGNS = re.compile(r"[\u3400-\u9fff]")  # no blanks part words
WORD = re.compile(r"[^\W_](?:[\w'’.:/@-]*\w)?")
_CAPITAL = r"[^\W\d_a-zß-ÿ]"
CAPITAL = re.compile(rf"\b{_CAPITAL}[^\W\d_]+")
NAME = re.compile(rf"{_CAPITAL}[\w'’&-]+(?:\.? {_CAPITAL}[\w'’&-]+)*")
DIGIT = re.compile(r"\d")
#: not "raised" of "in the raised bed": what is after a thing that is all of it
ENDS = re.compile(
    r"\s*(?:$|[^\w\s]|[\u3400-\u9fff]|(?:in|on|at|of|for|with|without|by|from|to|into|near|under|behind|and|or|but"
    r"|since|because|where|who|that|which|when|while|as|if|now|every|each|here|there|any|a|an|the|my|your|our|his|her|btw|am|im|in|auf"
    r"|bei|mit|und|von|le|la|les|à|au|dans|et|avec|de|en|el|los|las|con|y|il|e|nel|per|a|di)\b)",
    re.I,
)
DAY = re.compile(
    r"\b(?:(?:mon|tues|wednes|thurs|fri|satur|sun)days?|(?:mon|diens|donners|frei|sams|sonn)tags?|mittwochs?|lundi|mardi"
    r"|mercredi|jeudi|vendredi|samedi|dimanche|lunes|martes|miércoles|jueves|viernes|sábado|domingo|lunedì|martedì"
    r"|mercoledì|giovedì|venerdì|sabato|domenica|january|february|march|april|may|june|july|august|september|october"
    r"|november|december)\b",
    re.I,
)
