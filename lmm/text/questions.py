"""What the gate's pair model does not hear: rules that tell two questions apart before it is asked.

All words of "Who loves Tom?" are in "Who does Tom love?", and "the largest city" is much like "the capital". A rule
says that two texts ask different things, never that they ask the same. English only; in doubt it says nothing.
"""

from __future__ import annotations

import re

_COURTESY = re.compile(
    r"(?:\W*\b(?:thanks?|thank you|thx|ty|cheers|danke|merci|gracias|grazie|a lot|so much|very much|for now|ok(?:ay)?"
    r"|that(?:['’]?s| is| will be) all|great|cool|nice|perfect|super|fine|good|lovely|awesome|brilliant|yes|yeah|yep|no"
    r"|nope|sure|lol|haha|hello|hi|hey|bye|goodbye|good (?:night|morning|evening)|see you|later|tomorrow|got it|i see"
    r"|never ?mind|wow|please|again|lmm|all|ciao|hallo|tschüss|bonjour|hola|adiós|谢谢|好的?|再见|你好)(?!\w))+\W*",
    re.I,
)


def is_courtesy(text: str) -> bool:
    """Is it "Thanks a lot!" or "ok, good night", which asks for nothing?"""
    return bool(_COURTESY.fullmatch(text.strip()))


def another_question(query: str, stored: str) -> bool:
    """Does any rule tell the two apart?"""
    if other_person(query, stored):
        return True
    query, stored = (" ".join(text.lower().split()) for text in (query, stored))
    return any(
        rule(query, stored) for rule in (swapped, transposed, turned_round, ranked, earlier, other_ask, counted, made)
    )


def other_person(query: str, stored: str) -> bool:
    """One asks about the user ("my name"), the other about the one they talk to ("your name")."""
    sides = []
    for text in (query, stored):
        words = set(re.findall(r"[a-z]+", text.lower()))
        yours = words & {"your", "yours"} or ("you" in words and "me" not in words)
        sides.append((bool(words & {"my", "mine", "i", "myself"}), bool(yours)))
    return (sides[0], sides[1]) in (((True, False), (False, True)), ((False, True), (True, False)))


_SLOT = re.compile(r"\b(from|than|by)\s+(?:(?:the|an?|my|our|your)\s+)?([\w'-]+)")


def swapped(query: str, stored: str) -> bool:
    """The same two things the other way round: "from A to B" and "from B to A", "A larger than B" and "B than A"."""
    ours, theirs = dict(_SLOT.findall(query)), dict(_SLOT.findall(stored))
    apart = [(ours[word], theirs[word]) for word in ours.keys() & theirs.keys() if ours[word] != theirs[word]]
    both = [_words(text) for text in (stored, query)]
    return any(mine in both[0] and other in both[1] for mine, other in apart)


def transposed(query: str, stored: str) -> bool:
    """The same words but for two that have changed places: "Did Bob beat Alice?" and "Did Alice beat Bob?"."""
    a, b = _words(query), _words(stored)
    if len(a) != len(b):
        return False
    apart = [(x, y) for x, y in zip(a, b, strict=True) if x != y]
    return len(apart) == 2 and apart[0] == apart[1][::-1]


_DOES = re.compile(r"who (?:does|do|did) (?P<name>[\w'-]+) (?P<verb>[\w'-]+)")
_WHO = re.compile(r"who (?P<verb>[\w'-]+) (?P<name>[\w'-]+)")


def turned_round(query: str, stored: str) -> bool:
    """Who does it, and to whom: "Who loves Tom?" and "Who does Tom love?"."""
    for a, b in ((query, stored), (stored, query)):
        to_whom, who = _DOES.match(a), _WHO.match(b)
        if to_whom and who and to_whom["name"] == who["name"] and _same_verb(to_whom["verb"], who["verb"]):
            return True
    return False


def _same_verb(base: str, other: str) -> bool:
    """ "teach" and "teaches", "love" and "loved", "carry" and "carries"."""
    stem = base.rstrip("ey")
    return other.startswith(stem) and re.fullmatch(r"e?|y|e?s|e?d|ies|ied", other[len(stem) :]) is not None


_RANK = (
    r"(?:larg|bigg|small|tall|high|low|long|short|old|young|deep|fast|slow|near|clos|hott|cold|rich)est|former|previous"
)
_RANKED = re.compile(
    r"\W*(?:(?:what|who|which)(?:'s| is| was| are| were) )?(?:the |my |our |your |(?:[\w'-]+ ){0,3}?[\w-]+'s )?"
    rf"(?:{_RANK})\b"
)
_LIKEWISE = re.compile(rf"\b(?:{_RANK}|most|least|top|main|best|greatest|elder|younger|ex|then|before|used to)\b")


def ranked(query: str, stored: str) -> bool:
    """One asks for the largest or the former of a kind, the other for no such thing: "the largest city"."""
    return any(_RANKED.match(a) and not _LIKEWISE.search(b) for a, b in ((query, stored), (stored, query)))


_EARLIER = re.compile(r"\b(?:before|previously|formerly|in the past|back then)\W*$|\bdid (?:i|we) used? to\b")
_PAST = re.compile(r"\b(?:before|previous\w*|former\w*|earlier|once|past|then|used to|ex|old)\b")


def earlier(query: str, stored: str) -> bool:
    """One asks how it was before: "Where did I work before?" and "Where do I work?"."""
    return any(_EARLIER.search(a) and not _PAST.search(b) for a, b in ((query, stored), (stored, query)))


_BEFORE = re.compile(
    r"[,\s]*\b(?:before(?: (?:that|then|now|it changed|(?-i:[A-Z][\w'’-]+)))?|previously|formerly|in the past|back then"
    r"|originally)(?=\W*$)"
    r"|(?<=\bmy) (?:old|previous|former)(?= \w)|(?<=\bour) (?:old|previous|former)(?= \w)"
    r"|(?<=\bdid i) used? to(?= \w)|(?<=\bdid we) used? to(?= \w)"
    r"|[,\s]+(?:vorher|zuvor|davor|früher|avant|auparavant|antes|prima)\b|(?:以前|之前|原来)的?",
    re.I,
)
_NOW = re.compile(r"(?<!before )\b(?:now|today|nowadays|these days|currently)\b", re.I)
_ASKS = re.compile(
    r"(?:and |so |but )?(?:what|which|who|whose|where|when|how)\b|¿?(?:was|wer|wo|wann|welche[rs]?|wie|quel\w*|que|qui"
    r"|où|quand|comment|qué|quién|dónde|cuándo|cuál|cómo|cosa|chi|dove|quando|come|qual[ei]?)\b|.*(?:什么|谁|哪|几|多少)",
    re.I,
)
_AND_BEFORE = re.compile(
    r"\W*(?:(?:and|so) )?(?:(?:what|who|which|where|when|how much|how) (?:was|were) (?:it|that|this|he|she|they) )?"
    r"(?:before|previously)(?: (?:that|then|it changed))?\W*$"
    r"|\W*(?:und |et |y |e )?(?:(?:was|wer|wo|wann|wie) war (?:das|es) )?(?:vorher|davor|zuvor|früher|avant|antes"
    r"|prima)\W*$"
    r"|\W*(?:那)?(?:以前|之前)呢?\W*$",
    re.I,
)
_HIS = re.compile(r"\b(?:(?P<whose>his|her(?= [a-z]))|(?P<who>he|she|him|her))\b", re.I)


def now_asked(text: str) -> str:
    """What a question about before asks of today: "What was my code before?" -> "What was my code?"; "" of others, and
    of what is so now and was not before."""
    if _NOW.search(text):
        return ""
    asked = _BEFORE.sub("", text.strip())
    return asked if asked != text.strip() and _ASKS.match(asked) else ""


_TOLD_BEFORE = re.compile(
    r"\b(?:used to|before (?:that|now|then)|previously|formerly|früher|vorher|avant|auparavant|antes|prima)\b"
    r"|以前|原来|之前",
    re.I,
)


def tells_before(text: str) -> bool:
    """Does a statement say itself how it was: "I used to live in Riga but now it's Tartu"?"""
    return bool(_TOLD_BEFORE.search(text))


def asked_in_full(text: str, before: str, subject: str) -> str:
    """A question that goes on with the one before it, as one by itself: "And before?", "What's his number?"; "" of what
    does not. `subject`: of what was answered."""
    if _AND_BEFORE.match(text):
        return f"{before.rstrip(' ?？。.!')} before?" if _ASKS.match(before) and not now_asked(before) else ""
    found = _HIS.search(text) if subject and _ASKS.match(text) else None
    if found is None or len({one[0].lower() for one in _HIS.finditer(text)}) > 1:
        return ""
    whose = "'s" if found["whose"] else ""
    return f"{text[: found.start()]}{subject}{whose}{text[found.end() :]}"


_WAY = re.compile(r"how (?:do|can|could|should|would) (?:i|we|you|one)\b|how to\b")
_TELL = re.compile(r"(?:what|which|who|whose|where|when|how (?:many|much|old))\b")


def other_ask(query: str, stored: str) -> bool:
    """One asks how something is done, the other what it is: "How do I change my password?", "What is my password?"."""
    return any(_WAY.match(a) and _TELL.match(b) for a, b in ((query, stored), (stored, query)))


_MAKE = re.compile(
    r"(?:please |can you |could you |help me )*(?:write|draft|compose|suggest|recommend|plan|make|create)\b"
)


def made(query: str, stored: str) -> bool:
    """In one something is to be made, in the other to be told: "Write a card to my sister, with her name."."""
    return bool(_MAKE.match(query)) != bool(_MAKE.match(stored))


_COUNT = re.compile(r"how (?:many|much) ([a-z'-]+)")
_ALIKE = (
    "people persons inhabitants residents citizens", "employees staff workers people", "children kids sons daughters",
    "siblings brothers sisters", "floors storeys stories levels", "legs limbs", "moons satellites", "members players",
    "goals points", "money cash", "seats places", "countries nations states", "islands isles",
)  # fmt: skip


def counted(query: str, stored: str) -> bool:
    """How many of one thing and of another: "How many customers has it?" and "How many employees has it?"."""
    ours, theirs = _COUNT.search(query), _COUNT.search(stored)
    if not ours or not theirs:
        return False
    a, b = ours[1], theirs[1]
    if "times" in (a, b) or a[:4] == b[:4] or a in _words(stored) or b in _words(query):
        return False
    return not any({a, b} <= set(group.split()) for group in _ALIKE)


def _words(text: str) -> list[str]:
    return re.findall(r"[\w'-]+", text)
