"""What an old statement says now: its sentence, with what is new in the place of what is over.

"My friend Dorothea lives in Ludlow." and then "I'm at Dorothea's, she's been in Whitby since she left Ludlow": "Your
friend Dorothea lives in Whitby." News tell it in words of their own, beside other things and what is over; in the
sentence in whose place they come they say what holds, and no more.

What news tell is known from reading them (`Lesson.values`); that it belongs where the old value stood is asked of the
chat model. Having read the news, would it go on with that, sooner than with any other word of theirs of its kind, from
what stands before the old value?
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmm.adapters.base import as_tokens
from lmm.memory.notes.gate import beginnings
from lmm.text.fold import contains, fold, words
from lmm.text.language import language
from lmm.text.sentences import clauses, sentences

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter
    from lmm.lesson import Lesson

#: by how much it must be likelier than the old value (mean log-probability of a token), what reading did not find be
#: likelier than the next word, and a place in the old statement than another
NEWER, LEAD, APART = 1.0, 3.0, 1.0
ALONE = {"name": -5.5, "thing": -1.0, "number": 0.0}  # mean log-probability that what reading did not find must have
ROOM = 16  # tokens of a value, at most

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
        if not _another_day(before + after, news.says) and not _spoken_of(after, news.says, telling)
        for score, instead in _instead(before, value, new, known, news.says, telling, adapter)
        if _kind(value) != "thing" or _says_so(before, instead, old.subject, news.says, telling)
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
                # ", lovely man" is of who was named, ", due on the 1st" of the thing that costs so much
                yield before, value, APPOSED.sub("", after) if _kind(value) == "name" else after


def _instead(
    before: str, value: str, new: Sequence[str], known: str, news: str, telling: Telling, adapter: Adapter
) -> Iterator[tuple[float, str]]:
    """What the news have for a value, with how likely the model goes on with it: at most one."""
    kind, blanks = _kind(value), not SIGNS.search(value)
    told = [ARTICLE.sub("", one) for one in new if _alike(value, one) and (blanks or before[-1:] + one in news)]
    if kind == "number":
        told = [one for one in told if _is_now(one, news)]
    others = [] if PARTED.search(news) else _others(kind, value, new, known, news, telling)
    if not told and (kind == "number" or not others or not blanks):
        return
    several = [*told, *others]
    *scores, of_old = _likely(before, [*several, value], news, adapter)
    best = int(np.argmax(scores))
    sure = kind == "number" or scores[best] - of_old >= NEWER
    if best >= len(told):
        lead = all(scores[best] - score >= LEAD for i, score in enumerate(scores) if i != best)
        sure = sure and lead and scores[best] >= ALONE[kind] and not _stems(several[best]) & _stems(known)
    if sure:
        yield scores[best], several[best]


def _others(kind: str, value: str, new: Sequence[str], known: str, news: str, telling: Telling) -> list[str]:
    """What else the news have of the value's kind, and nobody has read as theirs. Of German none: any noun has a
    capital there."""
    if language(news) == "de":
        return []
    said = dict.fromkeys((NAME if kind == "name" else WORD).findall(news))
    found = [word for word in said if _alike(value, word) and telling(word) and not contains(known, word)]
    found = [word for word in found if not any(contains(one, word) or contains(word, one) for one in new)]
    if kind == "name":  # a capital may only begin a sentence
        found = [word for word in found if not any(part.startswith(word) for part in sentences(news))]
    return found


def _is_now(value: str, news: str) -> bool:
    """Do the news say what the number is, and not by how much it has changed, or how many of them?"""
    before, _, after = news.partition(value)
    return not (BY.search(before) or MORE.match(after)) and bool(IS.search(before) or NOW.match(after))


def _likely(before: str, several: Sequence[str], news: str, adapter: Adapter) -> list[float]:
    """Mean log-probability of the tokens of each, as what the model goes on with from `before` in reply to the news."""
    encode, ops = adapter.format.encode, adapter.ops
    start = [*adapter.format.prompt_tokens(news), *encode(before.rstrip())][-adapter.shape.context + ROOM :]
    blank, found = before[len(before.rstrip()) :], list[float]()
    cache = adapter.read(start[:-1])
    for one in several:
        ids = encode(blank + one)[: ROOM - 1]
        logits, after = adapter.forward(as_tokens([start[-1], *ids[:-1]]), cache, keep=len(ids))
        rows = ops.to_numpy(logits)[0].astype(np.float64)
        cache = adapter.trim(after, len(start) - 1)
        found.append(float(np.mean([row[i] - np.logaddexp.reduce(row) for row, i in zip(rows, ids, strict=True)])))
    return found


def _alike(value: str, new: str) -> bool:
    """Can one take the place of the other: a name of a name, a number of a number, a thing of a thing?"""
    less = bool(DAY.search(value)) and not DAY.search(new)  # "Tuesday at 9" is no "10"
    return _kind(value) == _kind(new) and not less and bool(DIGIT.search(value) or not DIGIT.search(new))


def _kind(value: str) -> str:
    if any(not DAY.fullmatch(word) for word in CAPITAL.findall(value)):
        return "name"
    return "number" if DIGIT.search(value) else "thing"


def _says_so(before: str, new: str, subject: str, news: str, telling: Telling) -> bool:
    """Do the news say of a thing what the old sentence does, and not another thing: "he drives a bus" makes no baker a
    bus, and who fences is not allergic to it."""
    if DAY.search(new):
        return True  # a day is one of whatever it is of
    who = set(telling(" ".join([subject, *CAPITAL.findall(before)])))
    does, said = (beginnings(set(telling(text)) - who - set(telling(new))) for text in (before, news))
    return bool(not said or does & said or re.search(rf"{IS_A}{re.escape(new)}(?!\w)", news, re.I))


def _another_day(kept: str, news: str) -> bool:
    """Do the news name a day or a month, and not the one that would be kept beside the new value?"""
    there, told = ({fold(day) for day in DAY.findall(text)} for text in (kept, news))
    return bool(there) and bool(told - there)


def _spoken_of(after: str, news: str, telling: Telling) -> bool:
    """Do the news speak of what would be kept after the new value: "with her husband Tom", whom she has left?"""
    return any(contains(news, word) for word in WORD.findall(after) if telling(word))


def _joined(before: str, new: str, after: str) -> str:
    """Without a word twice: "on port" and "port 8080"."""
    first, *rest = new.split()
    again = rest and fold(before).split()[-1:] == [fold(first)]
    return f"{before}{' '.join(rest) if again else new}{after}"


def _stems(text: str) -> frozenset[str]:
    return beginnings(words(text).split())


IS_A = r"(?:\b(?:is|are|am|be|been|become|becomes|became|as|call\w*)|['’](?:s|re|m))(?: now| an?| the| my| our){0,2} "
ARTICLE = re.compile(r"^(?:an?|the) ", re.I)
#: what is gone leaves its place empty, whoever has it now
PARTED = re.compile(
    r"\b(?:sold|gave|given|lost|threw|thrown|binned|scrapped|donated|returned|stole|stolen|nicked)\b", re.I
)
SIGNS = re.compile(r"[\u3400-\u9fff]")  # no blanks part words
WORD = re.compile(r"[^\W_](?:[\w'’.:/@-]*\w)?")
_CAPITAL = r"[^\W\d_a-zß-ÿ]"
CAPITAL = re.compile(rf"\b{_CAPITAL}[^\W\d_]+")
NAME = re.compile(rf"{_CAPITAL}[\w'’&-]+(?:\.? {_CAPITAL}[\w'’&-]+)*")
_SUM = r"\s*[€$£]?\s*$"
IS = re.compile(
    r"(?:\b(?:is|are|am|be|now|to|at|on|until|till|from|number|size|port|version|code|pin|room|bay|line|bus|seat|floor|the"
    r"|about|around|only|just|meant|means|want|pay|charge|own|keep|weigh|costs?|ist|sind|um|auf|jetzt|bis|est|à|maintenant"
    rf"|es|son|las?|ahora|pago|è|alle|adesso)|['’]s|[:=是到成为])(?: (?:an?|the|number))?{_SUM}",
    re.I,
)
BY = re.compile(
    r"\b(?:by|another|extra|lost|gained|saved?s?|(?:raise|rise|drop|increase) of|sold|bought|put on|took|added|gave"
    rf"|um weitere|de plus de)(?: (?:us|me|about|another))?{_SUM}",
    re.I,
)
NOW = re.compile(r"\s*(?:[\w%€$£]+ ){0,2}?(?:now|instead|from|these days|jetzt|ahora|maintenant|adesso)\b", re.I)
MORE = re.compile(
    r"\s*(?:[\w%€$£]+ )?(?:more|less|fewer|earlier|later|longer|shorter|cheaper|extra|older|younger|ago|off|mehr"
    r"|weniger|de plus|más|menos)\b",
    re.I,
)
DIGIT = re.compile(r"\d")
APPOSED = re.compile(r"^, [^,;.!?]+")
#: not "raised" of "in the raised bed": what is after a thing that is all of it
ENDS = re.compile(
    r"\s*(?:$|[^\w\s]|[\u3400-\u9fff]|(?:in|on|at|of|for|with|without|by|from|to|into|near|under|behind|and|or|but"
    r"|since|because|where|who|that|which|when|while|as|if|now|every|each|here|there|any|a|an|the|my|your|our|his|her"
    r"|btw|am|im|in|auf|bei|mit|und|von|le|la|les|à|au|dans|et|avec|de|en|el|los|las|con|y|il|e|nel|per|a|di)\b)",
    re.I,
)
DAY = re.compile(
    r"\b(?:(?:mon|tues|wednes|thurs|fri|satur|sun)days?|(?:mon|diens|donners|frei|sams|sonn)tags?|mittwochs?|lundi|mardi"
    r"|mercredi|jeudi|vendredi|samedi|dimanche|lunes|martes|miércoles|jueves|viernes|sábado|domingo|lunedì|martedì"
    r"|mercoledì|giovedì|venerdì|sabato|domenica|january|february|march|april|may|june|july|august|september|october"
    r"|november|december)\b",
    re.I,
)
