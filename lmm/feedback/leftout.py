"""What a speaker leaves out, put back: "name's Lena" is "my name is Lena", "the younger one" a dog, and "my uncle in
Genoa" lives there as an aunt before does in Turin. English."""

from __future__ import annotations

import re
from dataclasses import replace

from lmm.feedback.exchange import Exchange, asks
from lmm.feedback.model import Span
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
    rf"(?<=[,;.] )((?:{'|'.join(sorted(KIN, key=len, reverse=True))}|twins|kids)s?) (?=(?:is|are) [A-Z])"
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


# ------------------------------------------------------------------ by a later fact of a sentence
#: "of the gym 88", after "the PIN of the card is 33"
OF = anycase(r"^(?P<of>of|for) (?=\w)")
OF_BEFORE = anycase(r"\band (?P<of>of|for) $")
OF_A = anycase(r"(?P<what>(?:my|our|the) [\w -]+?) (?P<of>of|for) .+ (?P<is>is|are|was|costs?) $")
#: "my mum's 8 June", after "my dad's birthday is 3 May"
WHOSE = anycase(r"(?:my|our|[A-Z]).*['’]s ")
OF_THEIRS = anycase(r"['’]s (?P<what>[a-z][\w -]*?) (?P<is>is|are|was) $")
AND = re.compile(r"(?:\band|&|,|;)\s*$")
DOES_AT = re.compile(r"(?P<does>\w+ )(?P<at>(?i:at|on|in|to)(?: .*)?)")


def in_full_of(text: str, fact: Span, first: Span) -> Span:
    """A later fact that leaves out what the first one has: "45 for the shed" after "Rent is 780 for the flat", "of the
    gym 88" after "The PIN of the card is 33", "my mum's 8 June" after "My dad's birthday is 3 May", and "my uncle in
    Genoa" after "My aunt lives in Turin"."""
    if re.search(r"[.!?;]\s", text[max(first.at, 0) : fact.at]) or fact is first:
        return fact
    begun, before = first.clause.partition(first.value)[0], text[: max(fact.at, 0)]
    of, whose = OF.match(fact.clause) or OF_BEFORE.search(before), OF_A.match(begun)
    numbers = AND.search(before) and all(re.search(r"\d", one.value) for one in (fact, first))
    if fact.clause.startswith(fact.value) and numbers and begun:
        return replace(fact, clause=f"{begun}{fact.clause}", subject=first.subject)
    if of and whose and of["of"].lower() == whose["of"].lower():
        which, value, rest = OF.sub("", fact.clause).partition(fact.value)
        subject = f"{whose['what']} {whose['of']} {which.strip()}"
        return replace(fact, clause=f"{subject} {whose['is']} {value}{rest}", subject=subject)
    owner, what = WHOSE.fullmatch(fact.clause.partition(fact.value)[0]), OF_THEIRS.search(begun)
    if owner and what:
        subject = f"{owner[0]}{what['what']}"
        return replace(fact, clause=f"{subject} {what['is']} {fact.clause[owner.end() :]}", subject=subject)
    said = DOES_AT.fullmatch(does(first))
    if said and fact.subject and first.subject and said["at"] == does(fact):
        after = fact.clause.removeprefix(fact.subject).lstrip()
        return replace(fact, clause=f"{fact.subject} {said['does']}{after}")
    return fact


def does(fact: Span) -> str:
    """What stands between the subject of a fact and its value: "lives in"."""
    rest = fact.clause.removeprefix(fact.subject)
    return rest.partition(fact.value)[0].strip() if rest != fact.clause else ""


def says_whose(fact: Span) -> bool:
    """Does it say of a thing whose it is, and no more: "my son's yellow bike"?"""
    return fact.clause.startswith(fact.subject) and does(fact) in ("", "'s", "’s")
