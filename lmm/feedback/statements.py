"""A sentence -> the fact in it, if there is one to keep."""

from __future__ import annotations

import re

from lmm.feedback import grammar, words
from lmm.feedback.about_me import having, i_am, name
from lmm.feedback.doings import doing
from lmm.feedback.facts import Fact
from lmm.feedback.gates import POLITE, TEACH, is_question
from lmm.feedback.grammar import trim
from lmm.feedback.things import colon, copula, custom, inverted, remembered
from lmm.feedback.words import anycase


def fact_of(clause: str, taught: bool = False) -> Fact | None:
    """The fact in one clause, or None. `taught`: the user asked for it to be remembered, so adjectives count too."""
    clause = re.sub(r"^(?:My|Our|The|This|Mum|Mom|Dad|We)\b", lambda m: m[0].lower(), trim(clause))
    if not clause or len(clause.split()) > 24:
        return None
    return (
        name(clause)
        or i_am(clause, taught)
        or having(clause)
        or custom(clause)
        or inverted(clause)
        or copula(clause, taught)
        or doing(clause)
        or (remembered(clause) if taught else None)
        or colon(clause, taught)
    )


USED_TO = anycase(
    r"^(\S.*?) (?:used to be|was) [^,;]+?[,;]? (?:but|and)? ?(?:now|since [^,]+?|today|nowadays|these days),? "
    r"(?:it is|it has been|they are|is) (?:now )?"
)


#: where one sentence goes on to state another fact; "her", "it" and the like would not stand on their own
NEXT_FACT = anycase(r"\s*(?:,? and|[,;])\s+(?=(?:I|my|our|we)\b)")


def statement_facts(part: str) -> list[tuple[str, Fact, str]]:
    """(clause, fact, why) of each fact in one sentence: several if every clause states one, else that of the whole."""
    clauses = NEXT_FACT.split(POLITE.sub("", part))
    found = [(clause, *statement_fact(clause)) for clause in clauses]
    facts = [(clause, fact, why) for clause, fact, why in found if fact]
    if len(facts) == len(clauses):
        return facts
    fact, why = statement_fact(part)
    return [(part, fact, why)] if fact else []


def statement_fact(part: str) -> tuple[Fact | None, str]:
    """The fact in one sentence; a teaching cue ("remember that ...") lets more through."""
    clause = grammar.repaired(POLITE.sub("", part).strip())
    if not clause:
        return None, ""
    clause = USED_TO.sub(r"\1 is ", clause)
    clause = re.sub(
        r"^((?:my|our|the) .+?) (is|are) not ([^,.]+?),? (?:but|it is|they are) (.+)$", r"\1 \2 \4", clause, flags=re.I
    )
    clause = re.sub(
        r"(?<!\bdo)(?<!\bis)(?<!\bare)(?<!\bwas)(?<!does)(?<!\bdid)(?<!were)(?<=\w),? not (?!(?:eat"
        r"|drink|like|stand|tolerate|speak|drive|smoke|wear)\b)[^,]+$",
        "",
        clause,
    )
    cue = TEACH.match(clause) or TEACH.match(part)
    if cue:
        inner = POLITE.sub("", (clause if TEACH.match(clause) else part)[cue.end() :])
        polite_request = re.match(r"(?:can|could|will) you\b", clause, re.I)
        if (inner.rstrip().endswith("?") and not polite_request) or re.match(
            r"(?:to|how|what|when|where|why|me|who|it|this|by)\b", inner, re.I
        ):
            return None, ""
        return fact_of(inner.rstrip("?"), taught=True), "told to remember"
    if is_question(clause) or (grammar.tokens(clause)[:1] or [""])[0] in words.COMMANDS:
        return None, ""
    return fact_of(clause), "statement"
