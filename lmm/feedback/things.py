"""What is what in the user's world: "the staging port is 8443", "Vera is my sister", "we call it yeet"."""

from __future__ import annotations

import re

from lmm.feedback import grammar, words
from lmm.feedback.facts import MAX_WORDS, VAGUE_ROLE, Fact, Rule, ask, fact, filled, is_job
from lmm.feedback.grammar import as_name, flip, trim, with_preposition
from lmm.feedback.words import anycase

# ------------------------------------------------------------------ "X is Y"
SUBJECT = (
    r"(?:(?:my|our|the|this (?:year|week|month)'s) \S.{0,80}?|(?:mum|mom|dad|grandma|grandpa"
    r"|[A-Z][\w'-]+)(?:'s) \S.{0,60}?)"
)
A_NAME = r"(?-i:[A-Z][\w'-]+(?: [A-Z][\w'-]+)?)"
IS = anycase(
    rf"(?P<s>{SUBJECT}|{A_NAME}) (?P<be>is|are|was|were|will be) (?:now |also |actually |currently |always )?"
    r"(?P<v>\S.*)$"
)
AT = anycase(r"(?P<p>on|at|in|under|behind|near|next to|inside|above|below|beside|between) (?P<v>.+)$")
SPACE = anycase(r"floor|street|road|avenue|shelf|page|corner|table|drawer|desk|kitchen|room\b|port")


def _head(subject: str) -> str:
    """The noun a subject is about: "the wifi at the cabin" -> wifi, "my wife's name" -> name."""
    core = re.split(r" (?:of|in|at|on|for|to|from|with|under|behind|near) ", subject, maxsplit=1)[0]
    return (grammar.tokens(core) or [""])[-1].removesuffix("'s")


# what stays where it is; a train "at the station" does not
NAMING = words.word_set("name nickname surname password passphrase codeword word code motto slogan")
FIXED = words.word_set(
    "office desk room house flat apartment school shop key locker garage bathroom toilet kitchen printer cabin "
    "gym parking meeting appointment party wedding exam church studio warehouse headquarter grave doctor dentist"
)


# what has been and is no more, what happened to a thing, and where things are for a while only
FORMER = anycase(r"\b(?:old|previous|former|earlier|prior|last(?! name)|past)\b")
HAPPENED = re.compile(
    r"(?:just |already |recently |finally )?(?:[a-z]{3,}ed|stolen|broken|lost|sold|taken|found|hacked|gone|over|torn)"
    r"(?: (?:again|yesterday|by|on|at|in|last|from|off|out|up)\b.*)?$"
)
PASSING = anycase(
    r"(?:on (?:fire|hold|time|sale|strike|holiday|vacation|leave|loan|track|the way|its way|(?:his|her|their) way)"
    r"|in (?:trouble|danger|pieces|ruins|surgery|progress|use|bed|hospital|a (?:mess|hurry|meeting|bad mood|good mood))"
    r"|at (?:risk|work|home|school|stake)|under (?:attack|construction|water|pressure|repair))"
    r"(?: (?:again|until|till|since|because)\b.*)?$"
)
NO_VALUE = words.word_set("not that what how why because to when where like your you something always never")


def lasting(subject: str, value: str) -> bool:
    """Is "SUBJECT is VALUE" worth keeping? Yes for attributes and for values that are names, numbers, kinds, places."""
    head, low = _head(subject), value.lower()
    found = grammar.tokens(low)
    special = (
        re.search(r"\bfavou?rite \w", subject, re.I)
        or (head == "day" and grammar.TIME.search(value))
        or (re.search(r"\b\w+ing point\b", subject, re.I) and re.match(r"-?\d", value))
    )
    if (
        not found
        or head in ("favourite", "favorite")
        or (head in words.REMARKS and not special)
        or len(found) > MAX_WORDS
        or re.search(r"\b(?:best|worst) (?:thing|part)\b", subject, re.I)
    ):
        return False
    event = (
        HAPPENED.match(value)
        and found[0] not in words.LASTING
        and not re.search(rf"{grammar.MONTH}|\d{{4}}", value, re.I)
    )
    fixed = head in FIXED and low.startswith("at ")  # an office at home is there for good
    if (PASSING.match(value) and not fixed) or (event and head not in NAMING and not special):
        return False
    opinion = {w.removesuffix("ly") for w in found} & words.TRANSIENT
    if found[0] in NO_VALUE:
        return False
    if head in NAMING:
        return found[0] not in words.TRANSIENT or grammar.is_proper(value)
    if found[0] in words.TRANSIENT and not value[0].isupper() and not AT.match(value):
        return False
    if AT.match(value) and re.search(r"\b(?:line|page|screen|list|picture|image)\b", low):
        return False
    if re.search(r"^[a-z]{2,}ing$", value.split()[0]) and len(found) > 1 and head not in words.ATTRIBUTES:
        return False
    if grammar.is_proper(value) or re.search(r"\d", value) or grammar.TIME.search(value):
        return True
    if len(found) > 1 and found[-1] in words.TRANSIENT - {"cold", "home", "outside"}:
        return False
    if head in words.ATTRIBUTES or re.search(r"\bfavou?rite\b", subject, re.I):
        return not re.search(r"ing$", found[0]) or bool(
            re.search(r"\b(?:favou?rite|hobby|hobbies|sport|job|subject|talent)\b", subject)
        )
    if found[0] in words.LASTING | words.NATIONS or (AT.match(value) and head.removesuffix("s") in FIXED):
        return True
    if subject.lower().startswith(("my", "our")) or " of " in subject:
        return bool(re.match(r"(?:an?|the) ", low) and not opinion and not VAGUE_ROLE.match(value))
    return False


def copula(clause: str, taught: bool) -> Fact | None:
    """ "my sister's name is Vera", "the office is on the 4th floor", "our cat is called Miso"."""
    m = IS.match(clause)
    if not m:
        return None
    subject, be, value = m["s"].strip(), m["be"].lower(), trim(m["v"])
    if re.search(r"\b(?:if|you|your|it|that|this is|who|what)\b", subject, re.I) or (
        not taught and subject.lower().startswith("this ")
    ):
        return None
    if (be in ("was", "were") and FORMER.search(subject)) or subject.endswith("'s"):  # "my dad's", of what was said
        return None
    if not taught and re.match(r"\w+ing (?:an?|the|my|me|us|it)\b", value, re.I):
        return None  # what it is doing now
    called = re.match(
        r"(?:called|named|nicknamed) (?!(?:by|from|for|when|in|at|on|twice|once|after|every|if|as|with)\b)(?P<v>.+)$",
        value,
        re.I,
    )
    if called:
        one = (
            "What {be} {s}'s name? What {be} the name of {s}?" if be in ("is", "was") else "What {be} the names of {s}?"
        )
        asked = f"what {{be}} {{s}} called? {one} Do you know what {{s}} {{be}} called?"
        value = as_name(called["v"]) if _head(subject) in words.KIN | words.PETS else called["v"]
        return fact("is called", value, f"{flip(subject)} {be} called {value}", *filled(asked, s=subject, be=be))
    spelled = re.match(r"spel(?:led|t) (?P<v>\S+(?: \S+)?)$", value, re.I)
    if spelled:
        value = spelled["v"]
        how = f"how {subject} {be} spelled"
        asked_how = (
            f"how {be} {subject} spelled?",
            f"How do you spell {subject}?",
            f"Do you know {how}?",
            f"Tell me {how}.",
        )
        return fact("spelling", value, f"{flip(subject)} {be} spelled {value}", *asked_how)
    born = re.match(
        r"(?P<d>born|based|located|collected|due|kept|held|hidden|stored|scheduled|delivered|built|founded|opened"
        r"|published|invented|discovered|established|painted|released|finished|completed|signed|parked) (?P<r>.+)$",
        value,
        re.I,
    )
    rest, done = (born["r"], born["d"]) if born else (value, "")
    allergic = re.match(r"(?:allergic) to (?P<v>.+)$", value, re.I)
    if allergic:
        return fact("allergy", allergic["v"], f"{flip(subject)} {be} {value}", *ask("what", subject, be, "allergic to"))
    if not (taught and set(grammar.tokens(value)) - words.TRANSIENT) and not lasting(subject, rest):
        return None
    if born and not AT.match(rest) and not grammar.TIME.search(rest):
        return None
    return _placed(subject, be, rest, done)


def _living(subject: str, be: str, value: str) -> Fact | None:
    """What people and pets are: so many years old, from somewhere, of some profession."""
    age = re.match(r"(?P<v>1[01]\d|\d{1,2})(?: years? old| today| now)?$", value)
    if age:
        years = f"{age['v']} year{'' if age['v'] == '1' else 's'} old"
        asked = (*ask("how old", subject, be), f"What is the age of {subject}?")
        return fact("age", age["v"], f"{flip(subject)} {be} {years}", *asked)
    origin = re.match(r"(?:originally )?from (?P<v>[A-Z].*)$", value)
    if origin:
        place = origin["v"]
        return fact("origin", place, f"{flip(subject)} {be} from {place}", *ask("where", subject, be, "from"))
    if re.match(r"an? .*$", value) and is_job(value) and _head(subject) not in words.PETS:
        jobs = "What is {s}'s job? What does {s} do? What does {s} do for a living? What is {s}?"
        return fact("job", value, f"{flip(subject)} {be} {value}", *filled(jobs, s=subject))
    return None


def _placed(subject: str, be: str, value: str, done: str) -> Fact | None:
    at, head = AT.match(value), _head(subject)
    time = grammar.TIME.search(value) or (at and at["p"].lower() == "at" and re.match(r"\d{1,2}(?::\d\d)?$", at["v"]))
    if head in ("name", "surname") or re.search(r"favou?rite (?:person|teacher|author|singer|actor|writer)", subject):
        value = as_name(value)
    lives = head in words.KIN | words.PETS | words.HAVING or (grammar.is_proper(subject) and "'s " not in subject)
    living = _living(subject, be, value) if lives else None
    if living:
        return living
    answer = f"{flip(subject)} {be} {done + ' ' if done else ''}{flip(value)}"
    placed = at["v"] if at else value
    if (at or done) and not (time and not SPACE.search(value)):
        return fact("where", placed, answer, *ask("where", subject, be, done))
    if at or done or (time and head in DATED):
        return fact("when", placed, answer, *ask("when", subject, be, done), f"What is the date of {subject}?")
    named = grammar.is_proper(value) and not re.match(r"an? ", value, re.I)
    if head in words.KIN and named and not set(grammar.tokens(value)) & (words.NATIONS | words.LASTING):
        more = filled("What is the name of {s}? What is {s}'s name?", s=subject)
        return fact("who", value, answer, *ask("who", subject, be), *more)
    owner = re.match(r"(.+?)'s? name$", subject)
    more = filled("What is {s} called? What is the name of {s}?", s=owner[1]) if owner else []
    plainly, *others = ask("what", subject, be)
    return fact("what", value, answer, plainly, *more, *others)


DATED = ("birthday", "anniversary", "deadline", "meeting", "appointment", "wedding", "exam", "party")
INVERTED = re.compile(
    r"(?P<v>[A-Z][\w'.-]*(?: (?:[A-Z][\w'.-]*|of|the|de|van|da)){0,4}) (?:is|was) (?P<s>(?:my"
    r"|our) \w[\w -]*|the [\w -]+ of [A-Z].*)$"
)


def inverted(clause: str) -> Fact | None:
    """ "Vera is my sister", "Poseidonis is the capital of Atlantis"."""
    m = INVERTED.match(clause)
    if not m or re.match(r"(?:It|This|That|He|She|They|There|What|Here|Everything|Nothing|My|Our|The|You)\b", m["v"]):
        return None
    subject = trim(m["s"])
    head = _head(subject)
    person = head in words.KIN or (
        head.endswith(("er", "or", "ist", "ian", "man", "woman")) and subject.startswith(("my", "our"))
    )
    if head in words.REMARKS or not (person or head in words.PETS | words.ATTRIBUTES):
        return None
    wh, value = "who" if person else "what", m["v"]
    return fact("inverted", value, f"{flip(subject)} is {value}", *ask(wh, subject, "is"), f"{wh} is {value}?")


NAMED = (
    Rule(
        "we call",
        r"(?:we|i) (?:all )?(?:call|nicknamed?|named) (?P<s>(?:our|my|the|this) .+?) "
        r"(?:as )?(?P<v>[\"'][^\"']+[\"']|\S+)",
        "What do we call {s}? What is {s} called? What do I call {s}? => You call {s} {v}",
    ),
    Rule(
        "means",
        r"(?:(?:in|at|for|on) (?:my|our|this) [\w ]+?,? |(?:by )?)[\"'](?P<s>[\w -]{1,30})[\"'] (?:means|stands for"
        r"|is short for) (?P<v>.+)",
        'What does "{s}" mean? What is the meaning of "{s}"? What does "{s}" stand for? => "{s}" means {v}',
    ),
)
MOVED = anycase(
    r"(?:(?:we|i|they) (?:have )?moved (?P<s>(?:the|our|my) .+?)|(?P<t>(?:the|our|my|(?-i:[A-Z])[\w-]+['’]s) .+?"
    r"|[\w-]+)"
    r"(?: (?:has|have|was|were|got|is))?(?: been)? (?:moved|rescheduled|postponed|changed|shifted)) to (?P<v>.+)$"
)


def custom(clause: str) -> Fact | None:
    """Names that the user's world gives to things, and things that were moved."""
    for rule in NAMED:
        m = rule.match(clause)
        if m:
            return rule.fact(m)
    m = MOVED.match(clause)
    if not m:
        return None
    subject, value = m["s"] or m["t"], trim(m["v"])
    if " " not in subject:  # "choir moved to Tuesdays"
        if NO_SUBJECT.match(subject):
            return None
        subject = f"the {subject.lower()}"
    when = grammar.TIME.search(value) or re.match(grammar.MONTH, value, re.I)  # a code is changed to a number
    if not when and "moved" in clause.lower().split():
        return None  # where the roses were moved to, they are not
    placed, be = with_preposition(value, "when") if when else value, _be(subject)
    return fact("moved", value, f"{flip(subject)} {be} {placed}", *ask("when" if when else "what", subject, be))


NO_SUBJECT = anycase(
    r"(?:it|that|this|he|she|they|there|what|here|your?|not|how|all|everything|nothing|i|we|my|our|the)\b"
)
#: what happens at a time, and stands without an article: "dinner: 7"
BARE_NOUNS = words.word_set("dinner lunch breakfast school work church practice rehearsal yoga")


def colon(clause: str, taught: bool) -> Fact | None:
    """ "my favourite number: 17", and with "remember" also "router password is q9"."""
    m = re.match(
        r"(?P<s>(?:my|our|the) (?!.*\b(?:has|have|had|got|is|are)\b.*:)[\w' -]{2,40}): (?P<v>\S.*)$", clause, re.I
    )
    if m:
        return copula(f"{m['s']} {_be(m['s'])} {m['v']}", taught)
    m = re.match(r"(?P<s>[a-z][\w' -]{1,40}?)(?: is|:| =) (?P<v>\S.*)$", clause, re.I)
    if not m or NO_SUBJECT.match(m["s"]):
        return None
    subject, value = m["s"], m["v"]
    timed = AT.match(value) if re.search(r"\d|day\b", value) and len(subject.split()) <= 2 else None
    if timed and subject.lower() in BARE_NOUNS:
        return fact("when", timed["v"], clause, *ask("when", subject, "is"))
    if taught or (timed and _head(subject) not in words.TRANSIENT | words.REMARKS):
        return None if grammar.is_proper(subject) else copula(f"the {subject} {_be(subject)} {value}", True)
    return None


def _be(subject: str) -> str:
    return "are" if re.search(r"[^su'’]s$", subject) else "is"
