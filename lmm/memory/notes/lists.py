"""Lists that grow and shrink by what is said: "shopping: rice, soap" and "got the rice, put limes on the list" are
"Shopping: soap, limes"; "I have a red van and a grey scooter" without the van that was sold. English, and lists with a
name in German, French and Spanish, too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lmm.text.fold import contains, fold, words
from lmm.text.language import FREQUENT_WORDS
from lmm.text.sentences import sentences

if TYPE_CHECKING:
    from lmm.lesson import Lesson

#: no clause: "the vet was clear: it is not fleas, it is mites"
_ITEM = (
    r"(?!(?:and )?(?:(?:I|you|he|she|it|we|they|this|that|there|es|er|sie|il|elle|on|not)\b"
    r"|\w+ (?:is|are|was|were|has)\b))[^:?!.\n,]+"
)
_LIST = re.compile(rf"(?P<name>[^:?!.\n]{{2,60}}): (?P<items>{_ITEM}(?:, (?:and )?{_ITEM})+)[.!]?")
_THE_LIST = (
    r"(?:the|my|our|that|die|meine|unsere|la|ma|notre|mi|nuestra)\s(?P<whose>(?:[\w-]+ ){0,2}?)(?:[\w-]*liste?|lista)\b"
)
_PUT = re.compile(
    rf"\b(?:add|put|adds?|write|stick|setz\w*|schreib\w*|pack|ajoute[rz]?|mets|añad\w+|pon|agrega)\s+(?P<items>[^.!?]+?)\s+"
    rf"(?:to|on|onto|in|auf|à|sur|dans|a|en)\s+{_THE_LIST}",
    re.I,
)
#: of the list that was spoken of last: "add pickles and cheese"
_ADD = re.compile(
    r"(?:(?<=and )|(?<=, )|(?<=[.!;] )|^(?:(?:also|please|and|now|ok(?:ay)?),? )*)(?:add|put)\s+(?P<items>[\w'’ ,-]+?)"
    r"(?: (?:on|to|in) (?:it|there)| too| as well)?[.!]?$(?P<whose>)",
    re.I,
)
#: "not leeks, onions"
_NOT = re.compile(
    r"(?:(?:no|sorry|wait),? )?not (?:the )?(?P<old>[\w '’-]+?)(?:,|;| but) (?:but )?(?P<new>[\w '’-]+?)[.!]?", re.I
)
_GOT = re.compile(
    r"\b(?:got|bought|found|ordered|picked up|took|take|remove|cross|strike|scratch|drop|delete|gekauft"
    r"|(?:don['’]t|no longer) need|besorgt|streich\w*|achet\w+|trouvé|enl[eè]ve\w*|raye|compr\w+|quita|tacha)\b",
    re.I,
)
_AND = re.compile(r"\s*,\s*(?:and |und |et |y )?|\s+(?:and|und|et|y|&)\s+")
#: one of several things, and no more than that: "Sold the Surly."
_GONE = re.compile(
    r"^(?:i |we |i['’]ve |we['’]ve |have |has )*(?:just |finally )?(?:sold|gave away|lost|binned|scrapped|donated"
    r"|returned|threw out|got rid of|dropped|quit|cancelled|stopped)"
    r" (?:the|my|our) (?P<what>[\w'’-]+(?: [\w'’-]+)?)[.!]*$",
    re.I,
)
_ARTICLE = re.compile(
    r"^(?:an?|the|some|more|also|ein\w*|die|der|das|noch|d[eu]s?|le|la|les|une?|el|los|las|un) ", re.I
)


#: "a red van and a grey scooter", "two cats, a dog and my aunt's parrot"
_A = r"(?:an?|one|two|three|four|five|six|\d+|some|my|your|our)"
_THING = rf"{_A} (?:(?!(?:and|or|with|in|on|at|to|from|of|for|who|which|that)\b)[\w'’-]+ ?){{1,4}}?"
_THINGS = re.compile(
    rf"(?P<things>{_THING}(?:, {_THING})*,? and {_THING})(?=[.,;!?]|$| (?:in|on|at|from|for|with)\b)", re.I
)


#: "to Netflix, Spotify and The Economist", "tennis, chess and the oboe", "are Miska and Pontus"
_WORD = r"(?:the )?[\w'’-]+"
_HAS = "to play are have own grow keep speak eat take like love drink use read"
_NAMES = re.compile(
    rf"(?:{'|'.join(f'(?<= {word} )' for word in _HAS.split())})"
    rf"(?P<things>{_WORD}(?:, {_WORD})*,? and {_WORD})(?=[.,;!?]|$)",
    re.I,
)


def _things(text: str) -> tuple[str, list[str], str] | None:
    """What stands before the several things of a sentence, the things, and what stands after them."""
    found = _THINGS.search(text) or _NAMES.search(text)
    if found is None:
        return None
    return text[: found.start()], [x.strip() for x in re.split(r",? and |, ", found["things"])], text[found.end() :]


def several(text: str) -> list[tuple[str, str]]:
    """Of a sentence with several things, each with the sentence that has it alone; none of any other."""
    before, things, after = _things(text) or ("", [], "")
    return [(thing, f"{before}{thing}{after}") for thing in things]


def without_gone(text: str, news: str) -> str:
    """A sentence with several things without those that the news name, by the last word of each; "" where they name
    none of them, or all, or bring something new in their place."""
    if (found := _things(text)) is None:
        return _without_last(text, news)
    before, things, after = found
    left = [thing for thing in things if not contains(news, thing.split()[-1])]
    if not left or len(left) == len(things):
        return ""
    said = " and ".join(filter(None, (", ".join(left[:-1]), left[-1])))
    return f"{before}{said}{after}"


def _without_last(text: str, news: str) -> str:
    """ "You work Monday to Wednesday at the library and Thursday at the archive" without the archive that was left."""
    kept, cut, last = text.rpartition(" and ")
    verb = words(kept).split()[1:2]
    first, then = ({w for w in words(part).split() if len(w) > 3} - FREQUENT_WORDS for part in (kept, last))
    of_first, of_last = (any(contains(news, w) for w in one) for one in (first - then - {*verb}, then - first))
    return f"{kept}." if cut and of_last and not of_first and contains(news, " ".join(verb) or news) else ""


def is_list(text: str) -> bool:
    return bool(_LIST.fullmatch(text))


def latest(known: Sequence[Lesson], news: str) -> Lesson | None:
    """The last of these that tells a list which the news change."""
    if gone := _GONE.search(news):
        return next((x for x in reversed(known) if _names(x.echo, gone["what"]) and without_gone(x.echo, news)), None)
    if not any(pattern.search(news) for pattern in (_PUT, _ADD, _GOT, _NOT)):
        return None  # most news are of no list, and there may be thousands of lessons
    return next((lesson for lesson in reversed(known) if changed(lesson, news)), None)


def _names(text: str, what: str) -> bool:
    """Is it one of the several things of a sentence?"""
    return any(thing.split()[-1:] == what.split()[-1:] for thing, _ in several(text))


def changed(known: Lesson, news: str) -> str:
    """The list that a lesson tells, as it is after the news; "" where it tells none, or the news leave it as it is."""
    said = next((m for text in (*known.still, *sentences(known.echo)) if (m := _LIST.fullmatch(text))), None)
    put = _PUT.search(news) or _ADD.search(news)
    if said is None or (put and not _is_meant(put["whose"] or "", said["name"])):
        return ""
    items = _AND.split(said["items"])
    if (swap := _NOT.fullmatch(news.strip())) and any(fold(item) == fold(swap["old"]) for item in items):
        now = [swap["new"] if fold(item) == fold(swap["old"]) else item for item in items]
        return f"{said['name']}: {', '.join(now)}."
    rest = news[: put.start()] + news[put.end() :] if put else news
    left = [item for item in items if not (_GOT.search(rest) and contains(rest, _ARTICLE.sub("", item)))]
    more = [_ARTICLE.sub("", item.strip()) for item in _AND.split(put["items"])] if put else []
    now = [*left, *(item for item in more if item and fold(item) not in map(fold, left))]
    return f"{said['name']}: {', '.join(now)}." if now and now != items else ""


def _is_meant(whose: str, name: str) -> bool:
    """ "The list", or one by its name."""
    return not whose.strip() or bool(set(words(whose).split()) & set(words(name).split()))
