"""Who "she" is, and who "works as a nurse": a later fact of a turn, with the one that the turn is about."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from lmm.feedback import about, grammar
from lmm.feedback.model import Span
from lmm.feedback.words import VERBS, anycase, word_set
from lmm.text.fold import contains
from lmm.text.names import role_and_name, says_who
from lmm.text.sentences import shares_subject

_OWN = re.compile(
    r"\b(?:[Mm]y|[Oo]ur) [a-z][\w'-]*(?: [a-z][\w'-]*){0,2}?(?: [A-Z][\w'-]*)*"
    r"(?= (?:is|was|has|had|and|but|or|who|with|in|at|on|to|for|from|[a-z]+s|[a-z]+ed)\b|[,.;:!?]|\s*$)"
)
PRONOUN = anycase(r"(?P<who>he|she|it)(?= )|(?P<whose>his|her|its)(?= )")
PARTICIPLE = anycase(r"(?:\w+ed|kept|built|made|left|hidden|hung|bought|stuck)\b")
LINKED = anycase(r" (?:is|are|was|were) ")  # "my bike is red, locked behind the mill"
#: somebody whom the user does something for or with, by name alone: "a card for Dawn"
_BY_NAME = re.compile(
    r"\b(?i:for|with|about|call|phone|text\w*|e?mail\w*|invit\w+|thank\w*|visit\w*|me+t\w*|seen?|seeing|saw|from)"
    r" ([A-Z][a-zà-ÿ]+)(?=[,.;:!?]| (?![A-Z])|$)"
)
#: and all names; a word that begins a sentence is one, unless it is what somebody does: "Met Farah", "Draft a note"
_NAMES = re.compile(
    r"(?:(?<=[a-z,;] )|^(?!\w+ (?:an?|the|my|our|me|us|for|with|to|at|from|lunch|dinner|coffee|tea|[A-Z]\w+)\b|My\b))"
    r"(?!(?:I|What|Who|How|Where|When|Which|Why|Can|Could|Do|Does|Is|Any)\b)[A-Z][a-zà-ÿ]+"
)
_HIM = word_set("brother father dad son husband uncle grandpa grandfather grandad granddad nephew boyfriend stepson")
_HER = word_set("sister mother mum mom daughter wife aunt grandma grandmother gran nan niece girlfriend stepdaughter")


def with_subject(text: str, fact: Span, first: Span, known: Iterable[str] = ()) -> Span:
    """The fact with a subject where it is clear which: "my sister Vera is a nurse" for "she's a nurse". `known` are the
    subjects of what was said before. English."""
    if fact.subject and fact.subject in fact.clause:
        return fact
    clause = grammar.plain(fact.clause)
    if PRONOUN.match(clause):
        whom, clause = named_in_full(clause, text[: fact.at], first, known)
    elif fact is first:
        return fact
    else:
        speaks = about.subject_of("", first.subject) in ("I", "we")
        verb, *after = clause.split() or [""]
        acts = verb in VERBS if speaks else shares_subject(clause, first.subject) and not VERBS & set(after[:1])
        whom = first.subject if acts and first.clause.startswith(first.subject) else ""
        linked = LINKED.search(first.clause) if text[: fact.at].endswith(", ") and PARTICIPLE.match(clause) else None
        clause = f"{whom}{linked[0] if linked else ' '}{clause}" if whom else ""
    return replace(fact, clause=clause, subject=whom) if clause and fact.value in clause else fact


def named_in_full(clause: str, before: str, first: Span, known: Iterable[str]) -> tuple[str, str]:
    """Whom the pronoun means that a plain clause begins with, and the clause with them in its place; "" in doubt."""
    found = PRONOUN.match(clause)
    whom = _meant(before, first, found[0].lower(), known) if found else ""
    return (whom, with_whom(clause, whom)) if whom else ("", "")


def with_whom(sentence: str, whom: str) -> str:
    """A sentence with somebody named in the place of the pronoun that it begins with."""
    clause = grammar.plain(sentence)
    found = PRONOUN.match(clause)
    if found is None or contains(clause, whom):
        return sentence
    owner = f"{whom}'s" if found["whose"] else whom
    return f"{owner}{clause[found.end() :]}"


def _meant(before: str, first: Span, pronoun: str, known: Iterable[str]) -> str:
    """The one person that the pronoun can stand for; "" if there are none, or several."""
    others = _HER if pronoun in ("he", "his") else _HIM if pronoun in ("she", "her") else _HER | _HIM
    subject = about.subject_of("", first.subject)
    if pronoun in ("it", "its") and not first.clause.startswith((f"{subject} is ", f"{subject} was ")):
        return ""  # "my boss has a boat, it's called Erna"
    named = [subject] if subject not in ("", "I", "we") else []
    by_name = [subject for subject in known if (both := role_and_name(subject)) and contains(before, both[1])]
    alone = _BY_NAME.findall(before) if pronoun not in ("it", "its") and len(_NAMES.findall(before)) == 1 else []
    named = sorted({*named, *by_name, *_OWN.findall(before), *alone}, key=len, reverse=True)
    named = [name for i, name in enumerate(named) if not any(contains(other, name) for other in named[:i])]
    people = [name for name in named if not others & set(name.lower().split())]
    called = says_who(first.clause) if people == [subject] else None  # another may have the role tomorrow
    return " ".join(called) if called else people[0] if len(people) == 1 else ""
