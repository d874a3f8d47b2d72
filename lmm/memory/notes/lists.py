"""Lists that grow and shrink by what is said: "shopping: rice, soap" and "got the rice, put limes on the list" are
"Shopping: soap, limes"; "I have a red van and a grey scooter" without the van that was sold. English, and lists with a
name in German, French and Spanish, too."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lmm.text.fold import contains, fold, words
from lmm.text.sentences import sentences

if TYPE_CHECKING:
    from lmm.lesson import Lesson

_LIST = re.compile(r"(?P<name>[^:?!.\n]{2,60}): (?P<items>[^:?!.\n,]+(?:, (?:and )?[^:?!.\n,]+)+)[.!]?")
_THE_LIST = (
    r"(?:the|my|our|that|die|meine|unsere|la|ma|notre|mi|nuestra)\s(?P<whose>(?:[\w-]+ ){0,2}?)(?:[\w-]*liste?|lista)\b"
)
_PUT = re.compile(
    rf"\b(?:add|put|adds?|write|stick|setz\w*|schreib\w*|pack|ajoute[rz]?|mets|añad\w+|pon|agrega)\s+(?P<items>[^.!?]+?)\s+"
    rf"(?:to|on|onto|in|auf|à|sur|dans|a|en)\s+{_THE_LIST}",
    re.I,
)
_GOT = re.compile(
    r"\b(?:got|bought|found|ordered|picked up|took|take|remove|cross|strike|scratch|drop|delete|gekauft"
    r"|(?:don['’]t|no longer) need|besorgt|streich\w*|achet\w+|trouvé|enl[eè]ve\w*|raye|compr\w+|quita|tacha)\b",
    re.I,
)
_AND = re.compile(r"\s*,\s*(?:and |und |et |y )?|\s+(?:and|und|et|y|&)\s+")
_ARTICLE = re.compile(
    r"^(?:an?|the|some|more|also|ein\w*|die|der|das|noch|d[eu]s?|le|la|les|une?|el|los|las|un) ", re.I
)


#: "a red van and a grey scooter", "two cats, a dog and my aunt's parrot"
_A = r"(?:an?|one|two|three|four|five|six|\d+|some|my|your|our)"
_THING = rf"{_A} (?:(?!(?:and|or|with|in|on|at|to|from|of|for|who|which|that)\b)[\w'’-]+ ?){{1,4}}?"
_THINGS = re.compile(
    rf"(?P<things>{_THING}(?:, {_THING})*,? and {_THING})(?=[.,;!?]|$| (?:in|on|at|from|for|with)\b)", re.I
)


def several(text: str) -> list[tuple[str, str]]:
    """Of a sentence with several things, each with the sentence that has it alone; none of any other."""
    found = _THINGS.search(text)
    things = re.split(r",? and |, ", found["things"]) if found else []
    if found is None or any(not re.match(rf"{_A} ", thing, re.I) for thing in things):
        return []
    return [(thing.strip(), f"{text[: found.start()]}{thing.strip()}{text[found.end() :]}") for thing in things]


def without_gone(text: str, news: str) -> str:
    """A sentence with several things without those that the news name, by the last word of each; "" where they name
    none of them, or all, or bring something new in their place."""
    things = [thing for thing, _ in several(text)]
    left = [thing for thing in things if not contains(news, thing.split()[-1])]
    if not left or len(left) == len(things):
        return ""
    found = _THINGS.search(text)
    assert found is not None
    said = " and ".join(filter(None, (", ".join(left[:-1]), left[-1])))
    return f"{text[: found.start()]}{said}{text[found.end() :]}"


def is_list(text: str) -> bool:
    return bool(_LIST.fullmatch(text))


def changed(known: Lesson, news: str) -> str:
    """The list that a lesson tells, as it is after the news; "" where it tells none, or the news leave it as it is."""
    said = next((m for text in (*known.still, *sentences(known.echo)) if (m := _LIST.fullmatch(text))), None)
    put = _PUT.search(news)
    if said is None or (put and not _is_meant(put["whose"], said["name"])):
        return ""
    items = _AND.split(said["items"])
    rest = _PUT.sub("", news)
    left = [item for item in items if not (_GOT.search(rest) and contains(rest, _ARTICLE.sub("", item)))]
    more = [_ARTICLE.sub("", item.strip()) for item in _AND.split(put["items"])] if put else []
    now = [*left, *(item for item in more if item and fold(item) not in map(fold, left))]
    return f"{said['name']}: {', '.join(now)}." if now and now != items else ""


def _is_meant(whose: str, name: str) -> bool:
    """ "The list", or one by its name."""
    return not whose.strip() or bool(set(words(whose).split()) & set(words(name).split()))
