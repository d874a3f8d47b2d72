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
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from lmm.adapters.base import as_tokens
from lmm.memory.notes.gate import beginnings
from lmm.text.fold import contains, fold, words
from lmm.text.language import FREQUENT_WORDS, language
from lmm.text.names import leaves
from lmm.text.sentences import SINCE, clauses, sentences, without
from lmm.text.values import CAPITAL, DAY, NAME, atoms

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter, Cache
    from lmm.lesson import Lesson

#: by how much it must be likelier than the old value (mean log-probability of a token), what reading did not find be
#: likelier than the next word, and a place in the old statement than another
NEWER, LEAD, APART = 1.0, 3.0, 1.0
ALONE, ALONE_NAME = -1.0, -5.5  # mean log-probability that what reading did not find must have
NAMED, ALIKE = 2.0, 1.0  # what a place gains whose name the news have, and where old and new have one shape
OF_IT = 3.0  # or what else its clause tells,
OTHER = 2.0  # and loses that had a code, where a number is new
CHANGES = 4  # values of an old statement that news change, at most
ROOM = 16  # tokens of a value, at most

COUNTS = ("number", "counted", "sum", "measure", "code")
BY_SHAPE = ("clock", "range", "street", "label")  # whose kind says where they belong
INSTEAD_OF = {  # kinds of which one takes the place of others, beside its own
    "thing": ("typed small",),  # a name as it is typed here
    "name": ("typed small",),
    "number": ("counted", "code", "clock"),
    "code": ("number",),
    "sum": ("number",),
    "measure": ("number",),
}

Telling = Callable[[str], Collection[str]]  # the words of a text that are not in any text
Likely = Callable[[str, str], float]  # how likely a text goes on with a value: mean log-probability of its tokens


@dataclass(frozen=True)
class Renewed:
    """`said`: a clause of the old statement, as the assistant says it, with `new` in the place of `old`, in order."""

    said: str
    old: tuple[str, ...] = ()
    new: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Slot:
    """The place of a value in a sentence, or in a clause that has others `beside` it: what it is, what stands before
    it and after it."""

    kind: str
    before: str
    value: str
    after: str
    beside: tuple[str, ...] = ()

    @property
    def first(self) -> bool:
        """Does the sentence begin with it?"""
        return not THE.sub("", self.before)


def renewed(old: Lesson, news: Lesson, telling: Telling, adapter: Adapter) -> list[Renewed]:
    """What sentences, or clauses, of an old statement say now; none where nothing takes the place of what is over, or
    not surely. What is made of several things changes in one: "It is on Friday at 14:40" and "15:05 now" are "It is on
    Friday at 15:05"."""
    known, spent = f"{old.says} {old.echo}", list[str]()
    said = [Renewed(text) for text in (*old.still, *sentences(old.echo))]
    new = [part for part in _told(news) if not contains(known, part[1])]
    likely = _likelihood(news.says, adapter)
    for _ in range(CHANGES):
        left = [part for part in new if part[1] not in spent]
        found = [
            (score + _fit(slot, instead, news.says), i, slot, instead)
            for i, one in enumerate(said)
            for slot in _slots(one.said, old, news.says)
            if slot.value not in one.new and _opens(slot, news.says, telling)
            for score, instead in _instead(slot, left, known, news.says, telling, likely)
            if instead not in spent
            and not _unfit(slot, instead, news.says)
            and (slot.kind != "thing" or _says_so(slot.before, instead, old.subject, news.says, telling))
        ]
        score, i, slot, instead = max(found, key=lambda one: one[0], default=(0.0, 0, None, ""))
        if slot is None:
            break
        spent.append(instead)
        if any(score - other < APART for other, _, at, value in found if value == instead and at.value != slot.value):
            continue  # it could be in the place of either
        one = said[i]
        now = Renewed(_joined(slot.before, instead, slot.after, news.says), (*one.old, slot.value), (*one.new, instead))
        said[i : i + 1] = [now, *map(Renewed, slot.beside)]
    over = [value for value in old.values if _leaves(value, news.says)]
    changed = (one for one in said if one.new and not any(contains(one.said, value) for value in over))
    return [one for one in changed if not _another_day(one.said, news.says)]


def _told(news: Lesson) -> list[tuple[str, str]]:
    """What news tell, each with its kind: what reading found, and the one date or time of day that it missed."""
    found = [part for value in news.values for part in _parts(value, news.says)]
    for kind in ("date", *BY_SHAPE):
        missed = {x.text for x in atoms(news.says) if x.kind == kind}
        if len(missed) == 1 and all(kind != one for one, _ in found):
            found += [(kind, text) for text in missed]
    return found


def _fit(slot: _Slot, new: str, news: str) -> float:
    """How much likelier the place is where the news name it ("key code 5520" and "the key code is 7714 now"), or what
    its clause is about ("the scanner is on 10.0.4.29"), and where both look alike."""
    named = words(f"{slot.before}{slot.value if slot.kind == 'label' else ''}").split()
    label = named[-2:-1] if slot.kind == "label" else named[-1:]
    first, last = CUT.split(slot.before)[-1], CUT.split(slot.after)[0]
    rest = f"{slot.before.removesuffix(first)} {slot.after.removeprefix(last)}"
    alone = (
        {x for x in words(f"{first} {last}").split() if not DIGIT.search(x)} - set(words(rest).split()) - FREQUENT_WORDS
    )
    hits = sum(contains(news, word) for word in alone) if rest.strip(" .") else 0
    of_it = hits / max(len(alone), 1)
    said = contains(f"{new} {news}", " ".join(label) or news)
    other = slot.kind == "code" and new.isdigit()
    return NAMED * said + OF_IT * of_it + ALIKE * (_shape(slot.value) == _shape(new)) - OTHER * other


def _unfit(slot: _Slot, new: str, news: str) -> bool:
    """Is a name one of somebody that one is with now, where the old sentence says in which place, or one without an
    article, where it has "the treasurer"; is a thing what somebody is, where they cook in one; or is who would stand in
    somebody's place only named with them: "Mia sold the harp to Ben"?"""
    if slot.first and slot.kind in ("name", "typed small") and not _leaves(slot.value, news):
        return any(contains(one, slot.value) and contains(one, new) for one in PARTS.split(news))
    placed = words(THE.sub("", slot.before)).split()[-1:] in (["in"], ["at"], ["to"], ["from"])
    if slot.kind == "thing":
        return placed and bool(THE.search(slot.before) and re.search(rf"{IS_A}{re.escape(new)}(?!\w)", news, re.I))
    if slot.kind != "name":
        return False
    bare = THE.search(slot.before) and not re.search(rf"{THE.pattern.rstrip('$')}{re.escape(new)}", news, re.I)
    with_them = not THE.search(slot.before) and placed and re.search(rf"\b(?:with|by) {re.escape(new)}", news)
    return bool((bare and not _leaves(slot.value, news)) or with_them)


def _shape(value: str) -> str:
    return re.sub(r"[^\W\d_]", "a", re.sub(r"\d", "9", value)) if DIGIT.search(value) else ""


def _leaves(value: str, news: str) -> bool:
    """Do the news name a value only to leave it, or to deny it: "from Helmia to Corvo", "the Volvo for a Kia"?"""
    if contains(news, value) and not contains(without(news, [value]), value):
        return True
    named = "|".join(re.escape(name) for name in (value, *CAPITAL.findall(value)))
    given = (
        rf"\b{SINCE}(?:{named})(?!\w)|{GIVES}(?:{named})(?!\w).*? (?:for|with|by|to)\b|{FOLLOWS}(?:{named})(?!\w)"
        rf"|\b(?:{named}) {HANDS}"
    )
    return bool(re.search(given, news, re.I))


def _opens(slot: _Slot, news: str, telling: Telling) -> bool:
    """May another name or thing stand there? Not where the news speak of what would be kept after it; and where a
    sentence begins with somebody only if the news have them go."""
    if slot.kind not in ("name", "thing", "typed small"):
        return True
    if not WORD.search(THE.sub("", slot.before) + slot.after):
        return False  # "a Fiat Panda", between commas
    if not slot.first:
        return not _spoken_of(slot.after, news, telling)
    said = [one for one in clauses(news) if contains(one, slot.value)]
    does = beginnings(telling(slot.after))
    if slot.kind == "name" and does and does <= beginnings(telling(news)):
        return True  # "It's Hannah who babysits now"
    parted = any(contains(news, name) for name in CAPITAL.findall(slot.after))  # who left Tom is here
    gone = any(leaves(one, slot.value) or re.search(f"{re.escape(slot.value)}{OFF}", one, re.I) for one in said)
    return _leaves(slot.value, news) or (gone and not parted)


def _whom(clause: str, old: Lesson) -> tuple[str, str] | None:
    """Of whom a clause says something by name, which may have been typed small."""
    small = re.match(rf"{re.escape(old.subject)}(?!\w)", clause, re.I) if old.subject.isalpha() else None
    if small and old.subject.islower() and old.subject not in FREQUENT_WORDS and not DAY.match(old.subject):
        return "typed small", small[0]
    named = NAME.match(clause)
    name = THE_FIRST.sub("", named[0]) if named else ""
    return ("name", name) if name and not set(words(name).split()) & FREQUENT_WORDS else None


def _begun(denied: str, sentence: str) -> str:
    """As much of what is denied as the sentence has: "Methodist hall" of "Methodist hall any more"."""
    parts = denied.split()
    runs = (" ".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((run for run in runs if contains(sentence, run) and run in sentence), "")


def _parts(value: str, text: str) -> list[tuple[str, str]]:
    """What a value in a text is made of, each with its kind; a thing or a name is one."""
    if value not in text or any(x.text == value for x in atoms(value)):
        text = value  # of "from 9:20 to 10:45" the last is no part of a range
    if MODEL.fullmatch(value) and not any(x.kind in ("date", *BY_SHAPE) for x in atoms(value)):
        return [("name", value)]
    start = text.find(value)
    typed = [x for x in atoms(text) if x.start < start + len(value) and x.end > start and x.kind != "counted"]
    if all(x.kind == "name" for x in typed):
        return [(_kind(value), ARTICLE.sub("", value))]
    return [(x.kind, x.text) for x in typed]


def _slots(sentence: str, old: Lesson, news: str) -> Iterator[_Slot]:
    """The places of values in a sentence: of all that has digits or is a date, of the names and things that reading has
    found or the news deny, which take what else their clause says, and no more, with them; and of whom it speaks."""
    left = [value for denied in DENIED.findall(news) if (value := _begun(denied, sentence))]
    for x in atoms(sentence):
        if x.kind != "name":
            yield _Slot(x.kind, sentence[: x.start], x.text, sentence[x.end :])
    several = clauses(sentence, old.subject)
    for i, clause in enumerate(several):
        beside = (*several[:i], *several[i + 1 :])
        said = [*(part for one in old.values for part in _parts(one, clause)), *((_kind(x), x) for x in left)]
        said += [who] if (who := _whom(clause, old)) else []
        for kind, value in dict.fromkeys(said):
            before, found, after = clause.partition(value)
            if kind not in ("name", "thing", "typed small") or not found or value in after:
                continue
            if kind == "thing" and not before:
                continue
            if kind != "thing" or ENDS.match(after):
                # ", lovely man" is of who was named, ", due on the 1st" of the thing that costs so much
                yield _Slot(kind, before, value, APPOSED.sub("", after) if kind == "name" else after, beside)


def _instead(
    slot: _Slot, new: Sequence[tuple[str, str]], known: str, news: str, telling: Telling, likely: Likely
) -> Iterator[tuple[float, str]]:
    """What the news have for a value, with how likely the model goes on with it: at most one."""
    blanks = not SIGNS.search(slot.value)
    told = [value for kind, value in new if _takes_place(kind, slot.kind)]
    told = [value for value in told if blanks or slot.before[-1:] + value in news]
    if slot.kind in COUNTS:
        told = [value for value in told if _is_now(value, news)]
    others = (
        []
        if PARTED.search(news) or (told and slot.first)
        else _others(slot.kind, slot.value, [x for _, x in new], known, news, telling)
    )
    if slot.first:
        others = [name for name in others if not re.search(rf"\b(?:to|in|at|from) {re.escape(name)}", news)]
    if not told and (not others or not blanks):
        return
    several = [*told, *others]
    *scores, of_old = (likely(slot.before, one) for one in (*several, slot.value))
    best = int(np.argmax(scores))
    sure = (
        slot.kind in (*COUNTS, *BY_SHAPE) or slot.first or scores[best] - of_old >= NEWER or _leaves(slot.value, news)
    )
    if best >= len(told):
        lead = all(scores[best] - score >= LEAD for i, score in enumerate(scores) if i != best)
        alone = scores[best] >= (ALONE_NAME if slot.kind == "name" else ALONE)
        sure = sure and lead and alone and not _stems(several[best]) & _stems(known)
    if sure:
        yield scores[best], several[best]


def _takes_place(new: str, old: str) -> bool:
    """Can what is of one kind take the place of what is of the other? A bare number counts what the old one did."""
    return new == old or old in INSTEAD_OF.get(new, ())


def _others(kind: str, value: str, new: Sequence[str], known: str, news: str, telling: Telling) -> list[str]:
    """What else the news have of the value's kind, and nobody has read as theirs. Of German none: any noun has a
    capital there."""
    if language(news) == "de" or kind not in ("name", "thing", "date"):
        return []
    if kind == "date":
        said = dict.fromkeys(x.text for x in atoms(news) if x.kind == kind)
    else:
        shape = NAME if kind == "name" else WORD
        said = dict.fromkeys(POSSESSIVE.sub("", word) for one in sentences(news) for word in shape.findall(one))
    found = [word for word in said if (kind == "date" or _kind(word) == kind) and telling(word)]
    found = [word for word in found if not contains(known, word) and not DIGIT.search(word)]
    found = [word for word in found if not any(contains(one, word) or contains(word, one) for one in new)]
    if kind == "name":  # a capital may only begin a sentence
        found = [word for word in found if not any(part.startswith(word) for part in sentences(news))]
    return found


def _is_now(value: str, news: str) -> bool:
    """Do the news say what the number is, and not by how much it has changed, or how many of them?"""
    before, _, after = news.partition(value)
    return not (BY.search(before) or MORE.match(after)) and bool(IS.search(before) or NOW.match(after))


def _likelihood(news: str, adapter: Adapter) -> Likely:
    """The news are read once, and what comes after them once, when it is asked for."""
    encode, ops = adapter.format.encode, adapter.ops
    prompt = list(adapter.format.prompt_tokens(news))[-adapter.shape.context // 2 :]
    read: Cache | None = None

    @cache
    def likely(before: str, value: str) -> float:
        nonlocal read
        begun, blank = encode(before.rstrip()), before[len(before.rstrip()) :]
        ids = encode(blank + value)[: ROOM - 1]
        tokens = as_tokens([prompt[-1], *begun, *ids[:-1]])
        read = read if read is not None else adapter.read(prompt[:-1])
        logits, after = adapter.forward(tokens, read, keep=len(ids))
        rows = ops.to_numpy(logits)[0].astype(np.float64)
        read = adapter.trim(after, len(prompt) - 1)
        return float(np.mean([row[i] - np.logaddexp.reduce(row) for row, i in zip(rows, ids, strict=True)]))

    return likely


def _kind(value: str) -> str:
    """Of what has no digits."""
    if any(not DAY.fullmatch(word) for word in CAPITAL.findall(value)):
        return "name"
    return "date" if DAY.search(value) else "thing"


def _says_so(before: str, new: str, subject: str, news: str, telling: Telling) -> bool:
    """Do the news say of a thing what the old sentence does, and not another thing: "he drives a bus" makes no baker a
    bus, and who fences is not allergic to it."""
    who = set(telling(" ".join([subject, *CAPITAL.findall(before)])))
    does, said = (beginnings(set(telling(text)) - who - set(telling(new))) for text in (before, news))
    return bool(not said or does & said or re.search(rf"{IS_A}{re.escape(new)}(?!\w)", news, re.I))


def _another_day(kept: str, news: str) -> bool:
    """Do the news name a day or a month that they do not leave, and not the one that would be kept?"""
    there, told = ({fold(day) for day in DAY.findall(text)} for text in (kept, news))
    return bool(there) and any(not _leaves(day, news) for day in told - there)


def _spoken_of(after: str, news: str, telling: Telling) -> bool:
    """Do the news speak of what would be kept after the new value: "with her husband Tom", whom she has left?"""
    return any(contains(news, word) for word in WORD.findall(after) if telling(word) and not DIGIT.search(word))


def _joined(before: str, new: str, after: str, news: str) -> str:
    """Without a word twice: "on port" and "port 8080"; with the article that the news have for it."""
    if THE.search(before):
        said = re.search(rf"\b(the |an? )?{re.escape(new)}(?!\w)", news, re.I)
        before = f"{THE.sub('', before)}{said[1] or '' if said else 'the '}"
    first, *rest = new.split()
    again = rest and fold(before).split()[-1:] == [fold(first)]
    return f"{before}{' '.join(rest) if again else new}{after}"


def _stems(text: str) -> frozenset[str]:
    return beginnings(words(text).split())


THE = re.compile(r"\b(?:the|an?) $", re.I)
CUT = re.compile(r"[,;:]| and ")
IS_A = r"(?:\b(?:is|are|am|be|been|become|becomes|became|as|call\w*)|['’](?:s|re|m))(?: now| an?| the| my| our){0,2} "
ARTICLE = re.compile(r"^(?:an?|the) ", re.I)
#: what is gone leaves its place empty, whoever has it now
PARTED = re.compile(
    r"\b(?:sold|gave|given|lost|threw|thrown|binned|scrapped|donated|returned|stole|stolen|nicked)\b", re.I
)
THE_FIRST = re.compile(r"^The ")
PARTS = re.compile(r"[,;:.!?]\s|\b(?:so|and|but)\b")
OFF = (  # behind somebody who is not there any more
    r"(?:(?:['’]s| is| has|s)? (?:been )?(?:off|away|out|moved|moving|injured|ill|sick|on \w+ leave)"
    r"| (?:went (?:off|back|to)|got into|did (?:his|her) \w+ in))\b"
)
POSSESSIVE = re.compile(r"['’]s$")
MODEL = re.compile(r"(?=[a-z]*[A-Z])(?=\w*[a-z])[A-Za-z][\w-]+(?: [A-Z][\w-]+)* \d+\w?")  # "iPhone 13", "Pixel 6"
DENIED = re.compile(
    r"\b(?:not|no longer|instead of|rather than)(?: in| at| on)? (?:the |my |our |an? )?([^,.;!?]+)", re.I
)
_A = r"(?:(?:an?|the|my|our|his|her|their) )?"
GIVES = rf"\b(?:swap\w*|trad(?:e|ed|es|ing)|exchang\w+|replac\w+|switch\w*) {_A}"
FOLLOWS = (
    rf"\b(?:replac(?:es|ed|ing)|succeed\w*|follow(?:s|ed|ing)|t(?:ook|aken|akes?|aking) over (?:\w+ ){{0,4}}from) {_A}"
)
HANDS = r"(?:has |have )?(?:handed|passed|turned)\b.*? (?:over |on )?to\b"
SIGNS = re.compile(r"[\u3400-\u9fff]")  # no blanks part words
WORD = re.compile(r"[^\W_](?:[\w'’.:/@-]*\w)?")
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
