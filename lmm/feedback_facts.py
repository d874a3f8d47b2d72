"""From a statement to the question it answers, and from a question and a value to the reply.

"my sister's name is Vera" -> "What is my sister's name?" -> "Your sister's name is Vera."
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lmm import feedback_rules as rules
from lmm.feedback_rules import as_name, bare, base_form, capital, conjugate, flip, sentence, trim, with_preposition

MAX_VALUE = 200  # characters
MAX_WORDS = 12


@dataclass(frozen=True)
class Fact:
    """A statement taken apart: `questions[0]` is the question in the user's words, the rest are other wordings."""

    questions: tuple[str, ...]
    answer: str
    value: str
    why: str


def _fact(why: str, value: str, answer: str, *questions: str) -> Fact | None:
    value = bare(trim(value))
    first = rules.words(value)[:1]
    vague = {"it", "that", "this", "what", "you", "me", "him", "them", "so", "how", "why", "if", "whether", "not", "these", "those",
             "none", "nothing", "nobody", "whatever", "unknown", "irrelevant", "secret"}  # fmt: skip
    if not first or len(value) > MAX_VALUE or len(value.split()) > MAX_WORDS or first[0] in vague:
        return None
    value = value if value in answer else flip(value)  # "our pet": the reply says "your pet"
    if value not in answer:
        return None
    return Fact(tuple(dict.fromkeys(capital(q) for q in questions)), sentence(answer), value, why)


def ask(wh: str, subject: str, verb: str, tail: str = "") -> tuple[str, ...]:
    """Five wordings of one question: ("what", "my name", "is") -> "What is my name?", "Tell me what my name is.", ..."""
    short = {"is": f"{wh}'s"}.get(verb, f"{wh} {verb}")
    tail = f" {tail}" if tail else ""
    inner = f"{wh} {subject} {verb}{tail}"
    return (f"{wh} {verb} {subject}{tail}?", f"{short} {subject}{tail}?", f"Do you know {inner}?", f"Can you tell me {inner}?",
            f"Tell me {inner}.")  # fmt: skip


# ------------------------------------------------------------------ "I am ..."
NAME_CUE = re.compile(
    r"^(?:my (?:full |first |real )?name is|(?:you (?:can|may|should) |please |just )?call me|(?:everyone|everybody|people|(?:my )?friends|most people) "
    r"calls? me|i (?:would like|prefer|want|like) to be called|i go by|i am called|i am named|this is) (?P<v>\S.*)$|^(?P<here>[^\W\d_][\w'-]+) here$",
    re.I,
)
NAME = re.compile(r"[^\W\d_][\w'.-]*(?: (?:[^\W\d_][\w'.-]*|van|de|da|von|la)){0,3}$")
NOT_A_CALL = re.compile(r"^(?:a|an|the|when|later|back|tomorrow|if|that|it|by|at|on|after|crazy|names|old|for|any)\b", re.I)


def name(clause: str) -> Fact | None:
    cue = NAME_CUE.match(clause)
    if cue:
        value = trim(cue["v"] or cue["here"])
        called = clause.lower().startswith("my ") is False
        bad = NOT_A_CALL.match(value) if called else set(rules.words(value)) <= rules.TRANSIENT
        shy = clause.lower().startswith("this is ") or cue["here"]
        if bad or not NAME.match(value) or (shy and value.split()[0].lower() not in rules.NAMES):
            return None
    else:
        am = re.match(r"i am (?P<v>[^,]+)$", clause, re.I)
        value = trim(am["v"]) if am else ""
        if not looks_like_name(value):
            return None
    return name_fact(as_name(value))


def name_fact(value: str) -> Fact | None:
    return _fact("my name", value, f"Your name is {value}", "What is my name?", "What's my name?", "Who am I?", "What am I called?",
                 "Do you know my name?", "Do you remember my name?", "Tell me my name.")  # fmt: skip


def looks_like_name(value: str) -> bool:
    """A name: in the list, or one to three capitalised words none of which is an adjective, a nation, ..."""
    parts = value.split()
    lower = [p.lower().strip(".") for p in parts]
    if not parts or len(parts) > 3 or not NAME.match(value):
        return False
    known = rules.TRANSIENT | rules.LASTING | rules.NATIONS | rules.REMARKS | rules.COMMANDS
    if lower[0] in rules.NAMES:
        return all(w[0].isupper() or w in rules.NAMES for w in parts[1:]) or len(parts) == 1
    if any(w in known or re.search(r".{3}(?:ing|ed|ous|ful)$", w) for w in lower):
        return False
    return all(re.match(r"[A-Z][^\W\d_]", p) for p in parts) and (not value.isupper() or len(value) < 4)


VAGUE_ROLE = re.compile(
    r"(?:a|an|the) (?:\w+ )?(?:bit|little|lot|mess|genius|fool|idiot|wreck|loser|tad|fan of (?:that|this|it)|moron|failure|joke|god|legend|star|"
    r"machine|robot|burden|disaster|one|king|queen|guy|person|man|woman|human|beginner|bad|good|huge|best|worst|first|last|same|problem)\b",
    re.I,
)
I_AM: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("age", r"i am (?P<v>\d{1,3})(?: (?:years old|years of age|yo))?$", ("How old am I?", "What is my age?", "What's my age?", "Tell me how old I am."), "You are {v} years old"),
    ("height", r"i am (?P<v>\d[\d.,]* ?(?:cm|m|metres?|meters?|feet|ft|foot)(?: \d+)?(?: inches)?|\d'\d{1,2}\"?)(?: tall)?$", ("How tall am I?", "What is my height?", "Tell me how tall I am."), "You are {v} tall"),
    ("allergy", r"i am (?:very |severely |also |deadly )?allergic to (?P<v>.+)$", ("What am I allergic to?", "Which allergy do I have?", "Do I have any allergies?", "Tell me what I am allergic to."), "You are allergic to {v}"),
    ("intolerance", r"i am (?P<v>\w+[ -]intolerant)$", ("What intolerance do I have?", "Which food do I not tolerate?", "What should you know about my diet?"), "You are {v}"),
    ("origin", r"(?:i am originally|i am|i come|we are) from (?P<v>.+)$", ("Where am I from?", "Where do I come from?", "Tell me where I am from."), "You are from {v}"),
    ("marriage", r"i am (?:married|engaged) to (?P<v>.+)$", ("Who am I married to?", "What is the name of my spouse?", "Who is my partner?"), "You are married to {v}"),
    ("birth", r"i was born (?P<p>in|on|at|near) (?P<v>.+)$", (), "You were born {p} {v}"),
    ("home", r"i am (?:based|living) (?P<p>in|near|on) (?P<v>.+)$", ("Where do I live?", "Where am I based?", "Which place do I live in?"), "You live {p} {v}"),
)  # fmt: skip


def i_am(clause: str, taught: bool) -> Fact | None:
    for why, pattern, questions, answer in I_AM:
        m = re.match(pattern, clause, re.I)
        if m:
            value = trim(m["v"])
            if why == "birth":
                born = rules.TIME.search(value)
                questions = ("When was I born?", "What is my date of birth?", "In what year was I born?") if born else (
                    "Where was I born?", "What is my place of birth?", "Which place was I born in?")  # fmt: skip
            if set(rules.words(value)) <= rules.TRANSIENT:
                return None
            return _fact(why, value, answer.format(v=flip(value), p=m.groupdict().get("p")), *questions)
    m = re.match(r"i am (?P<v>.+)$", clause, re.I)
    if not m:
        return None
    value = trim(m["v"])
    low = value.lower()
    if re.match(r"(?:a|an|the) (?!\w+ing (?:a|an|to))", low) and (taught or not VAGUE_ROLE.match(value)):
        role = ("What do I do for a living?", "What is my job?", "What is my profession?") if low.endswith(JOB_ENDINGS) else ()
        return _fact("role", value, f"You are {flip(value)}", *(role or ("What am I?",)), *(("What am I?",) if role else ()),
                     "What did I tell you I am?", "What do you know about what I am?")  # fmt: skip
    first = low.split()[0] if low else ""
    if first in rules.NATIONS or low.split()[-1:] and low.split()[-1] in rules.NATIONS and first.startswith("half"):
        return _fact("nationality", value, f"You are {value}", "What is my nationality?", "What nationality am I?", "Which country am I from?")
    lasting = any(w in rules.LASTING for w in low.split()[:2]) and (taught or len(low.split()) <= 5)
    if lasting or (taught and first not in rules.TRANSIENT):
        diet = ("What is my diet?", "What diet do I follow?") if low in ("vegetarian", "vegan", "pescatarian", "kosher", "halal") else ()
        return _fact("trait", value, f"Yes, you are {flip(value)}", f"Am I {value}?", f"Is it true that I am {value}?",
                     f"Do you know whether I am {value}?", *diet)  # fmt: skip
    return None


JOB_ENDINGS = tuple(sorted(rules.word_set("er or ist ian ant nurse chef teacher doctor pilot student baker cook judge surgeon midwife clerk priest coach "
                    "mechanic architect analyst scientist barista paramedic carpenter dev ceo cto")))  # fmt: skip


# ------------------------------------------------------------------ "I live in ...", "my brother works at ..."
PLACE = "in|near|on|at|by|outside"
#: verb, what may follow it, the question's wh-word; the preposition stays in the answer
DOINGS: tuple[tuple[str, str, str], ...] = (
    ("live|reside|stay", PLACE, "where"), ("work", "as", "what"), ("work", "for", "who"), ("work", PLACE, "where"),
    ("grow up", PLACE, "where"), ("move|relocate", "to", "where"), ("study", "at|in", "where"), ("sit|park", PLACE, "where"),
    ("belong", "to", "who"), ("listen|run", "on", "what"), ("run", "every|at", "when"), ("graduate", "from", "where"),
    ("close|open|start|begin|end|leave|arrive|depart|expire|finish|launch|retire|meet|run", "at|on|in|every", "when"),
    ("get up|wake up|go to bed", "at|around|before", "when"), ("support|follow", "", "who"),
    ("study|speak|play|teach|drive|ride|own|use|wear|collect|love|like|hate|prefer|enjoy|dislike|detest|adore|support|weigh|cost"
     "|contain|eat|drink|sell|manage|run|host", "", "what"),
)  # fmt: skip
PAST = {"grew up": "grow up", "moved": "move", "graduated": "graduate", "studied": "study", "relocated": "relocate"}
BARRED = re.compile(
    r"(?:it|that|this|you|your|to|him|her|them|these|those|how|when|what|the (?:idea|way|answer|first|last|second|sound|rest|one)|a lot|some|more|"
    r"along|around|alone|hard|well|badly|together|dumb|fair|any|both|as|like|and|so|for|with|about|help|on|up|out|in|of|another|an? (?:poem|story|joke|question|list|new|bit|few|couple|better|break|answer))\b",
    re.I,
)
ADVERBS = (
    r"(?:(?:now|currently|also|usually|always|really|only|still|often|normally|mostly|absolutely|just|never|both|all"
    r"|recently) )*"
)


def doing(clause: str) -> Fact | None:
    """A person or thing of the user's world does something: "I live in Oslo", "our server runs on port 9000"."""
    m = re.match(rf"(?P<s>i|we|(?:my|our|the|mum|mom|dad)\b.{{0,60}}?) (?P<n>do not |cannot |can't )?{ADVERBS}(?P<r>[a-z].*)$", clause, re.I)
    if m is None:
        return None
    subject, rest, first = m["s"], trim(m["r"]), m["s"].lower() in ("i", "we")
    if m["n"]:
        return _refusal(subject, m["n"], rest) if first else None
    return _does(subject, first, rest) or (None if first else _longer(clause))


def _longer(clause: str) -> Fact | None:
    """The same for subjects of several words: try each later word as the verb."""
    parts = clause.split()
    if parts[0].lower() not in ("my", "our", "the", "mum", "mom", "dad"):
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
    return re.compile(rf"(?P<f>{'|'.join(forms)}) {follow}(?P<v>.+)$", re.I), forms


ROWS = {first: [(*_forms(v, p, first), wh) for v, p, wh in DOINGS] for first in (True, False)}


def _does(subject: str, first: bool, rest: str) -> Fact | None:
    """`rest` is what the subject does ("lives in Oslo"): the first row of DOINGS that fits."""
    for pattern, forms, wh in ROWS[first]:
        m = pattern.match(rest)
        if not m or (BARRED.match(m["v"]) and not (m["p"] and re.match(r"an? |the ", m["v"], re.I))):
            continue
        verb, aux = forms[m["f"].lower()]
        about_you = first and re.search(r"\b(?:you|your|this|that|it|yours)\b", m["v"], re.I)
        if about_you or subject.split()[-1].lower() in rules.REMARKS or re.match(r"(?:it|that|this|you)\b", m["v"], re.I):
            return None
        if verb != "use" or rules.is_proper(m["v"]):
            return _done(subject, first, verb, aux, m["p"], m["v"], wh)
    return None


def _done(subject: str, first: bool, verb: str, aux: str, prep: str, value: str, wh: str) -> Fact | None:
    split = re.match(r"(.+?) ((?:in|since|for|from) (?:\d{4}|\d+ years)|at an? .+|as an? .+)$", value)
    core = split[1] if split and not prep.startswith("a") else value
    if wh == "where" and rules.TIME.fullmatch(core):
        wh = "when"
    if wh == "when" and prep not in ("at", "around", "before", "every") and not rules.TIME.search(value):
        wh = "where"
    said = conjugate(verb.split()[0], aux) if " " not in verb else {"did": "grew up"}.get(aux, verb)
    dangling = prep if wh in ("what", "who") and prep else ""
    me = "I" if first else subject
    tail = f" {dangling}" if dangling else ""
    extra = {"live": ("Which place do I live in?", "What is my place of residence?"), "work": ("What is my workplace?", "What is my job?")}
    more = extra.get(verb, ()) if first and (verb == "live" or wh in ("where", "what")) else ()
    inner = f"{wh} {me} {said}{tail}"
    return _fact(f"{verb}", core, f"{flip(subject)} {said} {prep} {flip(value)}".replace("  ", " "), f"{wh} {aux} {me} {verb}{tail}?", *more,
                 f"Do you know {inner}?", f"Can you tell me {inner}?", f"Tell me {inner}.")  # fmt: skip


def _refusal(subject: str, negation: str, rest: str) -> Fact | None:
    m = re.match(r"(?P<verb>eat|drink|like|stand|tolerate|speak|drive|smoke|wear) ?(?P<v>.+)$", rest, re.I)
    if not m or BARRED.match(m["v"]):
        return None
    verb, no = m["verb"].lower(), "can't" if negation.lower().startswith("can") else "don't"
    ask_ = f"what {'can' if no == 'cannot' or no[0] == 'c' else 'do'} I not {verb}?"
    return _fact("refusal", m["v"], f"You {no} {verb} {flip(m['v'])}", ask_, f"What is it that I {no} {verb}?", f"Tell me what I {no} {verb}.")


HAVE = re.compile(rf"(?:i|we) (?:have got|have|own) (?:only |also )?(?P<n>an?|\d+|{'|'.join(sorted(rules.NUMBERS))}) (?P<v>.+)$", re.I)
HAVING = rules.KIN | rules.PETS | rules.word_set("child children kid kids twin twins sibling siblings allergy car bike boat motorcycle degree phd "
                                             "house flat apartment garden farm cabin tattoo piano guitar telescope")  # fmt: skip
CONDITION = re.compile(r"(?:i|we) have (?P<v>(?:type [12] )?(?:diabetes|asthma|epilepsy|adhd|dyslexia|autism|tinnitus|celiac disease|coeliac disease|"
                       r"arthritis|synesthesia|insomnia|migraines|hay fever|ms))$", re.I)  # fmt: skip


def having(clause: str) -> Fact | None:
    m = CONDITION.match(clause)
    if m:
        return _fact("condition", m["v"], f"You have {m['v']}", "What medical condition do I have?", "What do I suffer from?", "What do I have?")
    m = HAVE.match(clause)
    if not m:
        return None
    rest, count = trim(m["v"]), m["n"].lower()
    named = re.match(r"(?P<k>[\w -]+?),? (?:who is |that is )?(?:named|called) (?P<v>.+)$", rest)
    if named:
        k = named["k"]
        return _fact("has a name", named["v"], f"Your {k}'s name is {named['v']}", *ask("what", f"my {k}'s name", "is"), f"What is my {k} called?")
    kind = next((w for w in rest.lower().split()[:3] if w in HAVING or w.removesuffix("s") in HAVING), None)
    if kind is None or (count in ("a", "an") and len(rest.split()) > 5):
        return None
    answer, value = f"You have {count} {rest}", f"{'' if count in ('a', 'an') else count + ' '}{rest}"
    if count in ("a", "an"):
        return _fact("has", value, answer, f"Do I have a {kind}?", f"What {kind} do I have?", f"Tell me about my {kind}.")
    return _fact("has some", value, answer, f"How many {rest} do I have?", f"What is the number of {rest} I have?", f"Tell me how many {rest} I have.")


# ------------------------------------------------------------------ "X is Y"
SUBJECT = r"(?:(?:my|our|the|this (?:year|week|month)'s) \S.{0,80}?|(?:mum|mom|dad|grandma|grandpa|[A-Z][\w'-]+)(?:'s) \S.{0,60}?)"
IS = re.compile(rf"(?P<s>{SUBJECT}) (?P<be>is|are|was|were|will be) (?:now |also |actually |currently |always )?(?P<v>\S.*)$", re.I)
AT = re.compile(r"(?P<p>on|at|in|under|behind|near|next to|inside|above|below|beside|between) (?P<v>.+)$", re.I)
SPACE = re.compile(r"floor|street|road|avenue|shelf|page|corner|table|drawer|desk|kitchen|room\b|port", re.I)


def _head(subject: str) -> str:
    """The noun a subject is about: "the wifi at the cabin" -> wifi, "my wife's name" -> name."""
    core = re.split(r" (?:of|in|at|on|for|to|from|with|under|behind|near) ", subject, maxsplit=1)[0]
    return (rules.words(core) or [""])[-1].removesuffix("'s")


# what stays where it is; a train "at the station" does not
FIXED = rules.word_set("office desk room house flat apartment school shop key locker garage bathroom toilet kitchen printer cabin gym "
                   "parking meeting appointment party wedding exam church studio warehouse headquarter grave doctor dentist")  # fmt: skip


def lasting(subject: str, value: str) -> bool:
    """Is "SUBJECT is VALUE" worth keeping? Yes for attributes and for values that are names, numbers, kinds, places."""
    head, low = _head(subject), value.lower()
    found = rules.words(low)
    special = re.search(r"\bfavou?rite \w", subject, re.I) or (head == "day" and rules.TIME.search(value))
    if not found or head in ("favourite", "favorite") or (head in rules.REMARKS and not special) or len(found) > MAX_WORDS or re.search(r"\b(?:best|worst) (?:thing|part)\b", subject, re.I):
        return False
    opinion = {w.removesuffix("ly") for w in found} & rules.TRANSIENT
    if found[0] in {"not", "that", "what", "how", "why", "because", "to", "when", "where", "like", "your", "you", "something", "always", "never"}:
        return False
    if head in ("name", "nickname", "surname", "password", "passphrase", "codeword", "word", "code", "motto", "slogan"):
        return found[0] not in rules.TRANSIENT or rules.is_proper(value)
    if found[0] in rules.TRANSIENT and not value[0].isupper() and not AT.match(value):
        return False
    if re.search(r"^[a-z]{2,}ing$", value.split()[0]) and len(found) > 1 and head not in rules.ATTRIBUTES:
        return False
    if rules.is_proper(value) or re.search(r"\d", value) or rules.TIME.search(value):
        return True
    if (len(found) > 1 and found[-1] in rules.TRANSIENT - {"cold", "home", "outside"}):
        return False
    if head in rules.ATTRIBUTES or re.search(r"\bfavou?rite\b", subject, re.I):
        return not re.search(r"ing$", found[0]) or bool(re.search(r"\b(?:favou?rite|hobby|hobbies|sport|job|subject|talent)\b", subject))
    if found[0] in rules.LASTING | rules.NATIONS or (AT.match(value) and head.removesuffix("s") in FIXED):
        return True
    if subject.lower().startswith(("my", "our")) or " of " in subject:
        return bool(re.match(r"(?:an?|the) ", low) and not opinion and not VAGUE_ROLE.match(value))
    return False


def copula(clause: str, taught: bool) -> Fact | None:
    m = IS.match(clause)
    if not m:
        return None
    subject, be, value = m["s"].strip(), m["be"].lower(), trim(m["v"])
    if re.search(r"\b(?:if|you|your|it|that|this is|who|what)\b", subject, re.I) or (not taught and subject.lower().startswith("this ")):
        return None
    called = re.match(r"(?:called|named|nicknamed) (?!by|from|for|when|in|at|on|twice|once|after|every|if|as|with)\b(?P<v>.+)$", value, re.I)
    if called:
        single = (f"What {be} {subject}'s name?", f"What {be} the name of {subject}?") if be in ("is", "was") else (f"What {be} the names of {subject}?",)
        q = (f"what {be} {subject} called?", *single, f"Do you know what {subject} {be} called?")
        return _fact("is called", called["v"], f"{flip(subject)} {be} called {as_name(called['v']) if _head(subject) in rules.KIN | rules.PETS else called['v']}", *q)
    born = re.match(r"(?P<d>born|based|located|collected|due|kept|held|hidden|stored|scheduled|delivered|parked) (?P<r>.+)$", value, re.I)
    rest, done = (born["r"], born["d"]) if born else (value, "")
    allergic = re.match(r"(?:allergic) to (?P<v>.+)$", value, re.I)
    if allergic:
        return _fact("allergy", allergic["v"], f"{flip(subject)} {be} {value}", *ask("what", subject, be, "allergic to"))
    if not (taught and set(rules.words(value)) - rules.TRANSIENT) and not lasting(subject, rest):
        return None
    if born and not AT.match(rest) and not rules.TIME.search(rest):
        return None
    return _placed(subject, be, rest, done)


def _placed(subject: str, be: str, value: str, done: str) -> Fact | None:
    at, head = AT.match(value), _head(subject)
    time = rules.TIME.search(value) or (at and at["p"].lower() == "at" and re.match(r"\d{1,2}(?::\d\d)?$", at["v"]))
    if _head(subject) in ("name", "surname") or re.search(r"favou?rite (?:person|teacher|author|singer|actor|writer)", subject):
        value = as_name(value)
    alive = head in rules.KIN | rules.PETS | HAVING
    age = re.match(r"(?P<v>\d{1,3})(?: years? old| today| now)?$", value)
    if alive and age:
        years = f"{age['v']} year{'' if age['v'] == '1' else 's'} old"
        return _fact("age", age["v"], f"{flip(subject)} {be} {years}", *ask("how old", subject, be), f"What is the age of {subject}?")
    origin = re.match(r"(?:originally )?from (?P<v>[A-Z].*)$", value)
    if alive and origin:
        return _fact("origin", origin["v"], f"{flip(subject)} {be} from {origin['v']}", *ask("where", subject, be, "from"))
    if alive and re.match(r"an? .*$", value) and value.endswith(JOB_ENDINGS) and head not in rules.PETS:
        return _fact("job", value, f"{flip(subject)} {be} {value}", f"What is {subject}'s job?", f"What does {subject} do?",
                     f"What does {subject} do for a living?", f"What is {subject}?")  # fmt: skip
    answer = f"{flip(subject)} {be} {done + ' ' if done else ''}{flip(value)}"
    if (at or done) and not (time and not SPACE.search(value)):
        return _fact("where", at["v"] if at else value, answer, *ask("where", subject, be, done))
    if at or done or (time and head in ("birthday", "anniversary", "deadline", "meeting", "appointment", "wedding", "exam", "party")):
        return _fact("when", at["v"] if at else value, answer, *ask("when", subject, be, done), f"What is the date of {subject}?")
    if head in rules.KIN and rules.is_proper(value) and value.split()[0].lower() not in ("a", "an") and not set(rules.words(value)) & (rules.NATIONS | rules.LASTING):
        return _fact("who", value, answer, *ask("who", subject, be), f"What is the name of {subject}?", f"What is {subject}'s name?")
    owner = re.match(r"(.+?)'s? name$", subject)
    more = (f"What is {owner[1]} called?", f"What is the name of {owner[1]}?") if owner else ()
    return _fact("what", value, answer, *ask("what", subject, be)[:1], *more, *ask("what", subject, be)[1:])


INVERTED = re.compile(r"(?P<v>[A-Z][\w'.-]*(?: (?:[A-Z][\w'.-]*|of|the|de|van|da)){0,4}) (?:is|was) (?P<s>(?:my|our) \w[\w -]*|the [\w -]+ of [A-Z].*)$")


def inverted(clause: str) -> Fact | None:
    """ "Vera is my sister", "Poseidonis is the capital of Atlantis". """
    m = INVERTED.match(clause)
    if not m or re.match(r"(?:It|This|That|He|She|They|There|What|Here|Everything|Nothing|My|Our|The|You)\b", m["v"]):
        return None
    subject = trim(m["s"])
    head = _head(subject)
    if head in rules.REMARKS or not (head in rules.KIN | rules.PETS | rules.ATTRIBUTES):
        return None
    wh = "who" if head in rules.KIN else "what"
    return _fact("inverted", m["v"], f"{flip(subject)} is {m['v']}", *ask(wh, subject, "is"), f"Who is {m['v']}?" if wh == "who" else f"What is {m['v']}?")


def custom(clause: str, taught: bool) -> Fact | None:
    """Names that the user's world gives to things, and things that were moved."""
    m = re.match(r"(?:we|i) (?:all )?(?:call|nicknamed?|named) (?P<s>(?:our|my|the|this) .+?) (?:as )?(?P<v>[\"'][^\"']+[\"']|\S+)$", clause, re.I)
    if m:
        return _fact("we call", m["v"], f"You call {flip(m['s'])} {trim(m['v'])}", f"What do we call {m['s']}?", f"What is {m['s']} called?", f"What do I call {m['s']}?")
    m = re.match(r"(?:in|at|for|on) (?:my|our|this) [\w ]+?,? [\"'](?P<s>[\w -]{1,30})[\"'] (?:means|stands for|is short for) (?P<v>.+)$", clause, re.I) or re.match(
        r"(?:by )?[\"'](?P<s>[\w -]{1,30})[\"'] (?:means|stands for|is short for) (?P<v>.+)$", clause, re.I)
    if m:
        s = m["s"]
        return _fact("means", m["v"], f'"{s}" means {flip(trim(m["v"]))}', f'What does "{s}" mean?', f'What is the meaning of "{s}"?', f'What does "{s}" stand for?')
    m = re.match(r"(?:(?:we|i|they) (?:have )?moved (?P<s>(?:the|our|my) .+?)|(?P<t>(?:the|our|my) .+?) (?:has|have|was|were|got|is) (?:been )?(?:moved|rescheduled|postponed|changed|shifted)) to (?P<v>.+)$", clause, re.I)
    if m:
        s, v = m["s"] or m["t"], trim(m["v"])
        when = rules.TIME.search(v) or re.match(r"\d", v)
        wh = "when" if when else "what"
        placed = with_preposition(v, "when") if when else v
        return _fact("moved", v, f"{flip(s)} is {placed}", *ask(wh, s, "is"))
    return remembered(clause) if taught else None


def remembered(clause: str) -> Fact | None:
    """What the user asked to be remembered and no other rule reads: keep the sentence, ask about its subject."""
    m = re.match(r"(?P<s>(?:my|our|the|[A-Z][\w']*|\w+) ?[\w' -]{0,40}?) (?P<be>is|are|was|were|has|have|will|must|can|needs?|goes|go|\w{3,}s) (?P<v>\S.*)$", clause)
    if not m or m["s"].lower() in ("it", "that", "this", "you", "to", "there", "what", "how"):
        return None
    return _fact("asked to remember", m["v"], flip(clause), f"What do you know about {m['s']}?", f"What did I tell you about {m['s']}?", f"Tell me about {m['s']}.")


def fact_of(clause: str, taught: bool = False) -> Fact | None:
    """The fact in one clause, or None. `taught`: the user asked for it to be remembered, so adjectives count as well."""
    clause = re.sub(r"^(?:My|Our|The|This|Mum|Mom|Dad|We)\b", lambda m: m[0].lower(), trim(clause))
    if not clause or len(clause.split()) > 24:
        return None
    return (name(clause) or i_am(clause, taught) or having(clause) or custom(clause, False) or inverted(clause)
            or copula(clause, taught) or doing(clause) or (custom(clause, True) if taught else None) or _colon(clause, taught))  # fmt: skip


def _colon(clause: str, taught: bool) -> Fact | None:
    """ "my favourite number: 17", and with "remember" also "router password is q9". """
    m = re.match(r"(?P<s>(?:my|our|the) [\w' -]{2,40}): (?P<v>\S.*)$", clause, re.I)
    if m:
        return copula(f"{m['s']} is {m['v']}", taught)
    m = re.match(r"(?P<s>[a-z][\w' -]{1,40}?)(?: is|:| =) (?P<v>\S.*)$", clause, re.I)
    if not m or re.match(r"(?:it|that|this|he|she|they|there|what|here|your?|not|how|all|everything|nothing|i|we)\b", m["s"], re.I):
        return None
    timed = AT.match(m["v"]) if re.search(r"\d|day\b", m["v"]) and len(m["s"].split()) <= 2 else None
    bare_noun = m["s"].lower() in ("dinner", "lunch", "breakfast", "school", "work", "church", "practice", "rehearsal", "yoga")
    if bare_noun and timed:
        return _fact("when", timed["v"], clause, *ask("when", m["s"], "is"))
    return copula(f"the {m['s']} is {m['v']}", True) if taught or (timed and _head(m["s"]) not in rules.TRANSIENT | rules.REMARKS) else None
