"""Who does what: "I live in Oslo", "my brother works at the harbour", "the shop closes at 4"."""

from __future__ import annotations

import re

from lmm.feedback import grammar, words
from lmm.feedback.facts import Fact, fact, filled
from lmm.feedback.grammar import conjugate, flip, trim
from lmm.feedback.words import anycase

# ------------------------------------------------------------------ "I live in ...", "my brother works at ..."
PLACE = "in|near|on|at|by|outside"
#: verb, what may follow it, the question's wh-word; the preposition stays in the answer
DOINGS: tuple[tuple[str, str, str], ...] = (
    ("live|reside|stay", PLACE, "where"),
    ("work", "as", "what"),
    ("work", "for", "who"),
    ("work", PLACE, "where"),
    ("grow up", PLACE, "where"),
    ("move|relocate", "to", "where"),
    ("study", "at|in", "where"),
    ("sit|park", PLACE, "where"),
    ("go", "to", "where"),
    ("belong", "to", "who"),
    ("listen|run", "on", "what"),
    ("run", "every|at", "when"),
    ("graduate", "from", "where"),
    ("close|open|start|begin|end|leave|arrive|depart|expire|finish|launch|retire|meet|run", "at|on|in|every", "when"),
    ("get up|wake up|go to bed", "at|around|before", "when"),
    ("support|follow", "", "who"),
    (
        "study|speak|play|teach|drive|ride|own|use|wear|collect|love|like|hate|prefer|enjoy|dislike"
        "|detest|adore|support|weigh|cost"
        "|contain|eat|drink|sell|manage|run|host|hold|need|take",
        "",
        "what",
    ),
)
PAST = {
    "grew up": "grow up",
    "moved": "move",
    "graduated": "graduate",
    "studied": "study",
    "relocated": "relocate",
    "parked": "park",
}
BARRED = anycase(
    r"(?:it|that|this|you|your|to|him|her|them|these|those|how|when|what|the (?:idea|way|answer|first|last|second"
    r"|sound|rest|one)|a lot|some|more|along|around|alone|hard|well|badly|together|dumb|fair|any|both|as|like|and|so"
    r"|for|with|about|help|on|up|out|in|of|another|an? (?:poem|story|joke|question|list|new|bit|few|couple|better"
    r"|break|answer))\b"
)
# where everyone lives
NOWHERE = anycase(
    r"(?:an?|the) (?:\w+ )?(?:society|world|simulation|democracy|bubble|dream|moment|past|present|future|era|times?)\b"
)
NAME = r"(?-i:[A-Z][\w'-]+(?: [A-Z][\w'-]+)?)"
SUBJECT = anycase(
    rf"(?P<s>i|we|(?:my|our|the|mum|mom|dad)\b.{{0,60}}?|{NAME}) (?P<n>do not |cannot |can't )?(?:(?:now|currently|also"
    r"|usually|always|really|only|still|often|normally|mostly|absolutely|just|never|both|all|recently) )*"
    r"(?P<r>[a-z].*)$"
)


def doing(clause: str) -> Fact | None:
    """A person or thing of the user's world does something: "I live in Oslo", "our server runs on port 9000"."""
    m = SUBJECT.match(clause)
    if m is None:
        return None
    subject, rest, first = m["s"], trim(m["r"]), m["s"].lower() in ("i", "we")
    if m["n"]:
        return _refusal(m["n"], rest) if first else None
    return _does(subject, first, rest) or (None if first else _longer(clause))


def _longer(clause: str) -> Fact | None:
    """The same for subjects of several words: try each later word as the verb."""
    parts = clause.split()
    if not re.match(rf"(?:(?i:my|our|the|mum|mom|dad)|{NAME})\b", clause):
        return None
    for i in range(2, min(len(parts) - 1, 8)):
        fact = _does(" ".join(parts[:i]), False, trim(" ".join(parts[i:])))
        if fact:
            return fact
    return None


def _third(verb: str) -> str:
    head, _, tail = verb.partition(" ")
    return (conjugate(head, "does") + " " + tail).strip()


def _forms(verbs: str, preps: str, first: bool) -> tuple[re.Pattern[str], dict[str, tuple[str, str]]]:
    """One row of DOINGS compiled, and from each form ("lives", "grew up") the verb and its auxiliary."""
    names = verbs.split("|")
    forms = {v if first else _third(v): (v, "do" if first else "does") for v in names}
    forms |= {past: (v, "did") for past, v in PAST.items() if v in names}
    follow = rf"(?P<p>{preps}) " if preps else "(?P<p>)"
    return anycase(rf"(?P<f>{'|'.join(forms)}) {follow}(?P<v>.+)$"), forms


ROWS = {first: [(*_forms(v, p, first), wh) for v, p, wh in DOINGS] for first in (True, False)}


def _plural(subject: str) -> bool:
    """ "my parents", "our children"; "the boss" is one."""
    last = subject.split()[-1].lower()
    return last in ("children", "people", "men", "women", "folks") or bool(re.search(r"[^'s]s$", last))


def _does(subject: str, first: bool, rest: str) -> Fact | None:
    """`rest` is what the subject does ("lives in Oslo"): the first row of DOINGS that fits."""
    for pattern, forms, wh in ROWS[first or _plural(subject)]:
        m = pattern.match(rest)
        if not m or (BARRED.match(m["v"]) and not (m["p"] and re.match(r"an? |the ", m["v"], re.I))):
            continue
        if NOWHERE.match(m["v"]):
            return None
        verb, aux = forms[m["f"].lower()]
        about_you = first and re.search(r"\b(?:you|your|this|that|it|yours)\b", m["v"], re.I)
        vague = re.match(r"(?:it|that|this|you)\b", m["v"], re.I)
        if about_you or vague or subject.split()[-1].lower() in words.REMARKS:
            return None
        if verb != "use" or grammar.is_proper(m["v"]):
            return _done(subject, first, verb, aux, m["p"], m["v"], wh)
    return None


OF_ME = {
    "live": ("Which place do I live in?", "What is my place of residence?"),
    "work": ("What is my workplace?", "What is my job?"),
}


def _done(subject: str, first: bool, verb: str, aux: str, prep: str, value: str, wh: str) -> Fact | None:
    split = re.match(r"(.+?) ((?:in|since|for|from) (?:\d{4}|\d+ years)|at an? .+|as an? .+)$", value)
    core = split[1] if split and not prep.startswith("a") else value
    if wh == "where" and grammar.TIME.fullmatch(core):
        wh = "when"
    if wh == "when" and prep not in ("at", "around", "before", "every") and not grammar.TIME.search(value):
        wh = "where"
    said = conjugate(verb.split()[0], aux) if " " not in verb else {"did": "grew up"}.get(aux, verb)
    me = "I" if first else subject
    tail = f" {prep}" if wh in ("what", "who") and prep else ""
    more = OF_ME.get(verb, ()) if first and (verb == "live" or wh in ("where", "what")) else ()
    asked = filled("Do you know {i}? Can you tell me {i}? Tell me {i}.", i=f"{wh} {me} {said}{tail}")
    answer = f"{flip(subject)} {said} {prep} {flip(value)}".replace("  ", " ")
    return fact(verb, core, answer, f"{wh} {aux} {me} {verb}{tail}?", *more, *asked)


def _refusal(negation: str, rest: str) -> Fact | None:
    m = re.match(r"(?P<verb>eat|drink|like|stand|tolerate|speak|drive|smoke|wear) ?(?P<v>.+)$", rest, re.I)
    if not m or BARRED.match(m["v"]):
        return None
    verb, (aux, no) = m["verb"].lower(), ("can", "can't") if negation.lower().startswith("can") else ("do", "don't")
    asked = f"what {aux} I not {verb}? What is it that I {no} {verb}? Tell me what I {no} {verb}."
    return fact("refusal", m["v"], f"You {no} {verb} {flip(m['v'])}", *filled(asked))
