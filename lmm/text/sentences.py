"""A text in sentences, by its marks, and in clauses, by words of English, German, French, Spanish and a few more.

`lmm.feedback` makes lessons of what `notes` and `keyed` say back, and all cut alike: these rules stand below them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_END = re.compile(r"(?<=[.!?…;])\s+|(?<=[。！？；])\s*|\n+")
_NO_END = re.compile(r"(?:^|\s)(?:mr|mrs|ms|dr|prof|st|vs|no|[A-Z])\.$", re.I)
_NTH = re.compile(r"(?:^|\s)\d{1,2}\.$")  # "am 14. Mai", "im 3. Stock"
_OF_NTH = re.compile(
    r"(?:jän|jan|feb|mär|apr|mai|jun|jul|aug|sep|okt|nov|dez|stock|etage|klasse|platz|tag|woche|monat|jahr|geburt|mal\b)",
    re.I,
)


def sentences(text: str) -> list[str]:
    """Split at closing marks and lines, but not after initials and titles ("Dr.", "Rufus T."), nor within "14. Mai"."""
    out: list[str] = []
    for part in filter(None, _END.split(text)):
        title = out and _NO_END.search(out[-1]) and len(out[-1]) > 2 and out[-1].casefold() != "no."
        if title or (out and _NTH.search(out[-1]) and _OF_NTH.match(part)):
            out[-1] += " " + part
        elif part.strip(" .!?…;。！？；"):
            out.append(part.strip())
    return out


def ends_asking(text: str) -> bool:
    """Is a question mark the last of its marks?"""
    return bool(re.search(r"[?？]\W*$", text))


# not what is another word in another language: "en" is "and" and "in", "ma" is "but" and "my", "also" is "so" and "too"
_AND = r"and|but|und|aber|et|mais|pero|maar|(?:(?<!il )y(?! a\b)|ed?)(?=\s(?-i:[a-zà-ÿ]))"
_SO = r"so|deshalb|donc|así que|por eso|quindi|dus"
_THEN = r"(?:i|you|we|he|she|it|its|it's|they|the|my|your|our|now)\b"  # "so it is", not "so tired"
_WHY = r"because|weil|denn|parce que|porque|perché|omdat"  # stays with what it gives the reason for
_WHO = r"(?:who|whose|whom|which)\b"  # says more of what stands before it
_CLAUSE = re.compile(
    rf"\s*[,;:]\s+(?!{_WHO})(?:(?:{_AND}|{_SO})\s+)?|\s+(?:{_AND})\s+|\s+so\s+(?={_THEN})|\s+(?=(?:{_WHY})\s)|[，；：]|,(?=[\u3400-\u9fff])",
    re.I,
)
_WORDS, _SIGNS = 3, 5  # of a clause, at least; of one in Chinese


def clauses(text: str, subject: str = "") -> list[str]:
    """Its sentences, and of these what stands between commas, an "and", a "so" or a "because" and is long enough to say
    something. English ones that share the `subject` at the beginning of their sentence have it each: "Vera lives in
    Bergen", "Vera works as a nurse"."""
    return [clause for sentence in sentences(text) for clause in _each_with(subject, _clauses(sentence))]


_OTHERS = (  # what a clause begins with that has a subject of its own, or is a part of another
    r"(?!(?:the|an?|my|your|our|his|her|its|their|i|you|we|he|she|it|they|this|that|these|those|there|who|which|what"
    r"|where|when|how|why|if|so|not|no|in|on|at|to|of|for|from|with|by|about|as|than|because|since|some|any|both|one"
    r"|besides|perhaps|maybe|sometimes|always|mostly|near|next|behind|under|over|between|without|after|before|quite"
    r"|(?:mon|tues|wednes|thurs|fri|satur|sun)days|(?:week(?:day|end)|morning|evening|night)s"
    r"|very|also|then|now|just|only|still|even|plus|every|each|all|two|three)\b"
    r"|[a-z]+ (?:is|are|was|were|has|have|can|will|do|does)\b)"
)
_DID = (
    r"took|gave|bought|sold|left|began|became|made|found|lost|won|broke|chose|wrote|rode|ran|came|kept|met|paid|said|saw|sent"
    r"|spent|taught|told|thought|wore|grew|fell|felt|flew|drew|drove|built|caught|quit|swam|sang|slept|spoke|stood"
)
_ITS_VERB = re.compile(rf"{_OTHERS}(?:is|was|has|had|can|will|does|did|went|got|{_DID}|[a-z]+[^\Ws]s|[a-z]{{3,}}ed)\b")
_GAPPED = (  # "and metformin at night", after what is taken in the morning
    r"(?!(?!work|sleep|eat|run|swim|train|study|cook|read|play|drive|rest|pray|walk|teach|live|sit|meet|go|do|am|was|get)"
    r"[a-z]+ (?:at (?:night|noon|lunch|breakfast|dinner|bedtime)|in the (?:morning|afternoon|evening)|every|each"
    r"|on [a-z]+days?)\b)"
)
_YOUR_VERB = re.compile(rf"{_OTHERS}{_GAPPED}(?![a-z]*[^\Ws]s\b)[a-z]+\b")  # not "plays", which somebody else does


def _each_with(subject: str, found: list[str]) -> list[str]:
    named = " ".join(found[0].split()[: len(subject.split()) or 1])
    if not subject and re.match(r"[A-Z]", named) and _ITS_VERB.match(found[0].removeprefix(named).lstrip()):
        subject = named  # "Max gave up the cello"
    if not (subject or _speaks(named)) or not (_speaks(named) or named.split()[-1:] == subject.split()[-1:]):
        return found
    return [found[0], *(f"{named} {clause}" if shares_subject(clause, named) else clause for clause in found[1:])]


def shares_subject(clause: str, subject: str) -> bool:
    """Does an English clause begin with what the subject of the one before it does?"""
    return bool(subject) and bool((_YOUR_VERB if _speaks(subject) else _ITS_VERB).match(clause))


def _speaks(subject: str) -> bool:
    return subject.lower() in ("i", "we", "you")


def _clauses(sentence: str) -> list[str]:
    out, start = list[str](), 0
    for cut in _CLAUSE.finditer(sentence):
        aside = sentence.count("(", start, cut.start()) > sentence.count(")", start, cut.start())
        if not aside and _says(sentence[start : cut.start()]) and _says(sentence[cut.end() :]):
            out.append(sentence[start : cut.start()])
            start = cut.end()
    return [*out, sentence[start:]]


#: what says something in two words: "can't swim", "he's vegan"
_DOES = re.compile(
    r"\s*(?:(?:is|are|was|were|can|do|does|did|will|has|have)(?:n['’]t)?|can['’]t|won['’]t|cannot"
    r"|(?:i['’]m|(?:he|she|it)['’]s|(?:you|we|they)['’]re))\s+\w",
    re.I,
)


def _says(part: str) -> bool:
    words, signs = part.split(), re.findall(r"[\u3400-\u9fff]", part)
    return len(words) >= _WORDS or len(signs) >= _SIGNS or bool(_DOES.match(part))


_A = (
    r"(?:\s+(?:in|at|on|im|bei|à|en|the|an?|my|your|our|his|her|de[rmn]|die|das|ein\w*|le|la|les|une?|el|los|las)){0,2}"
)
_NOT = (
    r",?\s+(?:(?:and|but|und|et|y)\s+)?(?:(?<!do )(?<!does )(?<!did )(?<!can )(?<!will )not|no longer|instead of"
    rf"|rather than|nicht(?: mehr)?|kein\w*|statt|anstatt|pas|au lieu d[eu]|no|ya no|en (?:vez|lugar) del?){_A}"
)
_ONCE = (
    r",\s+(?:it |that )?(?:formerly|previously|once|used to be|was|were|früher|vorher|war|avant|autrefois|antes|era)"
)
_FROM = rf"(?:^|\s+)(?:from|out of|von|vom|aus|de|du|des|desde|del){_A}(?:\s+[^\W_]+\.?)?"
_ON = (
    r"(?=\s+(?:to|into|onto|over|for|by|and|since|seit|depuis|desde|da|nach|zu[mr]?|auf|in|und|sondern|à|au|aux|et|a|al"
    r"|y|en|por|para|par)\b|\s*(?:[,.;:!?]|$))"
)


SINCE = r"(?:since|now that|seit|seitdem|depuis que?|desde que|da quando)\s+"  # before what has ended, or begun


_AFTER = r"(?:after|because|as|when|nachdem|weil|après que?|parce que|después de que|porque|dopo che|perché)\s+"


def without(sentence: str, words: Iterable[str]) -> str:
    """A sentence without what some words say, where it names that only to deny or to leave it: "You moved from Bergen
    to Oslo" and "It is 675, not 312" without Bergen and 312 are "You moved to Oslo" and "It is 675", as is "It is 675
    (was 312)"; "It is 675 since the 312 was scrapped" is, too."""
    said = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    if not said:
        return sentence
    over = rf"(?:{_NOT}|{_FROM})(?:\s+(?:{said})(?!\w))+(?:,?\s+(?:but|sondern|mais|sino)\b|{_ON})"
    it = rf"[^，,。]*?(?:{said})[^，,。]*?"
    aside = rf"\s*[(（][^()（）]*(?<!\w)(?:{said})(?!\w)[^()（）]*[)）]|{_ONCE}\s+(?:{said}){_ON}"
    as_such = rf"(?<=\bas )(?:(?:an?|the|my|our)\s+)?(?:{said})\b"  # "from Ida as treasurer"
    since = rf",?\s+(?:ever )?(?:{SINCE}|{_AFTER})(?!when\b|{as_such})[^,.;!?]*?(?<!\w)(?:{said})(?!\w)[^,.;!?]*"
    signs = rf"[从由自]{it}(?=[搬到改换调迁转])|不是{it}[，,]?而?(?=是)"
    return re.sub(rf"{aside}|{over}|{since}|{signs}", "", sentence, flags=re.I).strip()
