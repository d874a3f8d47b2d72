"""What a speaker leaves out, put back: "name's Lena" is "my name is Lena", "the younger one" a dog. English."""

from __future__ import annotations

import re

from lmm.feedback.exchange import Exchange, asks
from lmm.feedback.words import anycase
from lmm.text.names import KIN

#: "name's Benedikt", not in reply to what something else is called
NAME_IS = re.compile(r"^((?:[Hh]i|[Hh]ey|[Hh]ello)\b[\s,.!]*)?(?:[Tt]he )?[Nn]ame(?:['’]?s| is)(?= [A-Z])")
WHAT = anycase(r"['’]s ((?!is\b|are\b|was\b)[a-z][\w-]*(?: (?!is\b|are\b|was\b)[a-z][\w-]*)?) (?:is|are|was|were)\b")
OF_WHOM = re.compile(
    r"(?:\b(?:[Mm]y|[Oo]ur|[Hh]is|[Hh]er|[Tt]heir) [\w-]+(?: [A-Z]\w+)?"
    r"|\b(?!It|That|What|There|He|She|Who|Here)[A-Z][\w-]+)['’]s (?=(?:is|are|was|were)\b)"
)
#: "Actually it's the 13th, Mum's birthday" says of what behind it
BEHIND = re.compile(
    r"^(?P<no>(?:(?:[Aa]ctually|[Nn]o|[Ss]orry|[Ww]ait|[Oo]h),? )*)[Ii]t(?:['’]s| is) (?P<value>[^,.!?]+), "
    r"(?P<what>(?:(?:my|our|the) )?[\w-]+['’]s [\w-]+|(?:my|our|the) [\w-]+(?: [\w-]+)?)[.!]*$"
)


#: "We have two dogs, the younger one is Mirko"
ONE_OF = re.compile(
    r"\b([Tt]he (?:[a-z]+er|[a-z]+est|other|first|second|third|left|right|big|small|black|white|male|female)) one\b"
)
SEVERAL = anycase(r"\b(?:two|three|four|both|\d|my|our|the) (?:[a-z]+ )??([a-z]{2,}[^\Ws])s\b")


#: "Ferdinand here, I drive a tram, wife is Odile"
HERE = re.compile(
    r"^(?:[\w'’ ]{2,20}: |(?:[Hh]i|[Hh]ey|[Hh]ello)(?: (?:there|all))?[,.!]* )?"
    r"([A-Z][a-zà-ÿ]+) here(?=[,.!:;-]| and\b)"
)
KIN_IS = re.compile(
    rf"(?<=[,;.] )((?:{'|'.join(sorted(KIN, key=len, reverse=True))}|twins|kids|son|daughter)s?) (?=(?:is|are) [A-Z])"
)
#: "I'm Rosalind, a vet from Ghent"
AND_WHAT = re.compile(r"\b(I['’]?m|I am) ([A-Z][a-zà-ÿ]+), (?=an? [a-z])")
#: "My first manager is Tilda, my second is Ruprecht"
_NTH = r"(?:[a-z]+er|[a-z]+est|other|first|second|third|left|right|old|new)"
NTH_OF = re.compile(
    rf"\b((?:[Mm]y|[Oo]ur|[Tt]he) {_NTH}) ([a-z]+)( (?:is|are) [^,;.]+?(?:,|;|\.| and) (?:(?:and|but) )?"
    rf"(?:my|our|the) {_NTH})(?= (?:is|are)\b)"
)


def with_what(said: str, last: Exchange | None) -> str:
    """What a speaker leaves out: "name's Lena" is "my name is Lena", and "my dad's is 9 August", after what was said of
    somebody's birthday, "my dad's birthday is 9 August". English."""
    if (several := SEVERAL.search(said)) and (one := ONE_OF.search(said, several.end())):
        said = f"{said[: one.start()]}{ONE_OF.sub(lambda m: f'{m[1]} {several[1]}', said[one.start() :])}"
    said = NTH_OF.sub(r"\1 \2\3 \2", AND_WHAT.sub(r"\1 \2. \1 ", said))
    if (name := HERE.match(said)) and (last is None or not asks(last.assistant)):
        said = f"my name is {name[1]}{KIN_IS.sub(lambda m: f'my {m[1]} ', said[name.end() :])}"
    said = BEHIND.sub(lambda m: f"{m['no']}{m['what']} is {m['value']}", said)
    if last is None or not asks(last.assistant):
        said = NAME_IS.sub(lambda m: f"{m[1] or ''}my name is", said)
    if not (whose := OF_WHOM.search(said)):
        return said
    before = [*WHAT.findall(f"{last.user} {last.assistant}" if last else ""), *WHAT.findall(said[: whose.start()])]
    return f"{said[: whose.end()]}{before[-1]} {said[whose.end() :]}" if before else said
