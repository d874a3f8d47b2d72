"""What users say about themselves: names, ages, jobs, allergies, what they have."""

from __future__ import annotations

import re

from lmm.feedback import grammar, words
from lmm.feedback.facts import VAGUE_ROLE, Fact, ask, fact, is_job
from lmm.feedback.grammar import as_name, flip, trim

# ------------------------------------------------------------------ "I am ..."
NAME_CUE = re.compile(
    r"^(?:my (?:full |first |real )?name is|(?:you (?:can|may|should) |please |just )?call me"
    r"|(?:everyone|everybody|people|(?:my )?friends|most people) "
    r"calls? me|i (?:would like|prefer|want|like) to be called|i go by|i am called|i am named"
    r"|this is) (?P<v>\S.*)$|^(?P<here>[^\W\d_][\w'-]+) here$",
    re.I,
)
NAME = re.compile(r"[^\W\d_][\w'.-]*(?: (?:[^\W\d_][\w'.-]*|van|de|da|von|la)){0,3}$")
NOT_A_CALL = re.compile(
    r"^(?:a|an|the|when|later|back|tomorrow|if|that|it|by|at|on|after|crazy|names|old|for|any)\b", re.I
)


#: what "my name is" may go on with, and no one is called
NO_NAME = re.compile(
    r"(?:on|in|at|with|from|not|hard|easy|difficult|too|very|so|really|quite|spelled|spelt|pronounced|written|often"
    r"|usually|always|long|short|common|rare|unusual|misspelled|mispronounced)\b"
)


def name(clause: str) -> Fact | None:
    cue = NAME_CUE.match(clause)
    if cue:
        value = trim(cue["v"] or cue["here"])
        called = clause.lower().startswith("my ") is False
        bad = NOT_A_CALL.match(value) if called else set(grammar.tokens(value)) <= words.TRANSIENT
        shy = clause.lower().startswith("this is ") or cue["here"]
        if (
            bad
            or NO_NAME.match(value)
            or not NAME.match(value)
            or (shy and value.split()[0].lower() not in words.NAMES)
        ):
            return None
    else:
        am = re.match(r"i am (?P<v>[^,]+)$", clause, re.I)
        value = trim(am["v"]) if am else ""
        if not looks_like_name(value) or value.lower() in words.FICTIONAL:
            return None
    return name_fact(as_name(value))


def name_fact(value: str) -> Fact | None:
    return fact(
        "my name",
        value,
        f"Your name is {value}",
        "What is my name?",
        "What's my name?",
        "Who am I?",
        "What am I called?",
        "Do you know my name?",
        "Do you remember my name?",
        "Tell me my name.",
    )


def looks_like_name(value: str) -> bool:
    """A name: in the list, or one to three capitalised words none of which is an adjective, a nation, ..."""
    parts = value.split()
    lower = [p.lower().strip(".") for p in parts]
    if not parts or len(parts) > 3 or not NAME.match(value):
        return False
    known = words.TRANSIENT | words.LASTING | words.NATIONS | words.REMARKS | words.COMMANDS
    if lower[0] in words.NAMES:
        return all(w[0].isupper() or w in words.NAMES for w in parts[1:]) or len(parts) == 1
    if any(w in known or re.search(r".{3}(?:ing|ed|ous|ful)$", w) for w in lower):
        return False
    return all(re.match(r"[A-Z][^\W\d_]", p) for p in parts) and (not value.isupper() or len(value) < 4)


I_AM: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    (
        "age",
        r"i am (?P<v>\d{1,3})(?: (?:years old|years of age|yo))?$",
        ("How old am I?", "What is my age?", "What's my age?", "Tell me how old I am."),
        "You are {v} years old",
    ),
    (
        "height",
        r"i am (?P<v>\d[\d.,]* ?(?:cm|m|metres?|meters?|feet|ft|foot)(?: \d+)?(?: inches)?"
        r"|\d'\d{1,2}\"?)(?: tall)?$",
        ("How tall am I?", "What is my height?", "Tell me how tall I am."),
        "You are {v} tall",
    ),
    (
        "allergy",
        r"i am (?:very |severely |also |deadly )?allergic to (?P<v>.+)$",
        (
            "What am I allergic to?",
            "Which allergy do I have?",
            "Do I have any allergies?",
            "Tell me what I am allergic to.",
        ),
        "You are allergic to {v}",
    ),
    (
        "intolerance",
        r"i am (?P<v>\w+[ -]intolerant)$",
        ("What intolerance do I have?", "Which food do I not tolerate?", "What should you know about my diet?"),
        "You are {v}",
    ),
    (
        "origin",
        r"(?:i am originally|i am|i come|we are) from (?P<v>.+)$",
        ("Where am I from?", "Where do I come from?", "Tell me where I am from."),
        "You are from {v}",
    ),
    (
        "marriage",
        r"i am (?:married|engaged) to (?P<v>.+)$",
        ("Who am I married to?", "What is the name of my spouse?", "Who is my partner?"),
        "You are married to {v}",
    ),
    ("birth", r"i was born (?P<p>in|on|at|near) (?P<v>.+)$", (), "You were born {p} {v}"),
    (
        "home",
        r"i am (?:based|living) (?P<p>in|near|on) (?P<v>.+)$",
        ("Where do I live?", "Where am I based?", "Which place do I live in?"),
        "You live {p} {v}",
    ),
)


def i_am(clause: str, taught: bool) -> Fact | None:
    for why, pattern, questions, answer in I_AM:
        m = re.match(pattern, clause, re.I)
        if m:
            value = trim(m["v"])
            if why == "birth":
                born = grammar.TIME.search(value)
                questions = (
                    ("When was I born?", "What is my date of birth?", "In what year was I born?")
                    if born
                    else ("Where was I born?", "What is my place of birth?", "Which place was I born in?")
                )
            if set(grammar.tokens(value)) <= words.TRANSIENT:
                return None
            return fact(why, value, answer.format(v=flip(value), p=m.groupdict().get("p")), *questions)
    m = re.match(r"i am (?P<v>.+)$", clause, re.I)
    return _kind(trim(m["v"]), taught) if m else None


def _kind(value: str, taught: bool) -> Fact | None:
    """ "a nurse", "Norwegian", "left-handed"; not "tired"."""
    low = value.lower()
    kind = re.sub(r"^an? ", "", low)
    belongs = kind in words.LASTING | words.NATIONS  # "a vegetarian", "a Norwegian": read as without the article
    if (
        not belongs
        and re.match(r"(?:a|an|the) (?!\w+ing (?:a|an|to))", low)
        and (taught or not VAGUE_ROLE.match(value))
    ):
        role = ("What do I do for a living?", "What is my job?", "What is my profession?") if is_job(value) else ()
        return fact(
            "role",
            value,
            f"You are {flip(value)}",
            *(role or ("What am I?",)),
            *(("What am I?",) if role else ()),
            "What did I tell you I am?",
            "What do you know about what I am?",
        )
    low = kind if belongs else low
    first = low.split()[0] if low else ""
    if first in words.NATIONS or (low.split()[-1:] and low.split()[-1] in words.NATIONS and first.startswith("half")):
        return fact(
            "nationality",
            value,
            f"You are {value}",
            "What is my nationality?",
            "What nationality am I?",
            "Which country am I from?",
        )
    lasting = any(w in words.LASTING for w in low.split()[:2]) and (taught or len(low.split()) <= 5)
    if lasting or (taught and first not in words.TRANSIENT):
        diet = (
            ("What is my diet?", "What diet do I follow?")
            if low in ("vegetarian", "vegan", "pescatarian", "kosher", "halal")
            else ()
        )
        return fact(
            "trait",
            value,
            f"Yes, you are {flip(value)}",
            f"Am I {value}?",
            f"Is it true that I am {value}?",
            f"Do you know whether I am {value}?",
            *diet,
        )
    return None


HAVE = re.compile(
    rf"(?:i|we) (?:have got|have|own) (?:only |also )?(?P<n>an?|\d+|{'|'.join(sorted(words.NUMBERS))}) (?P<v>.+)$", re.I
)
NAMES = re.compile(r"[A-Z][\w'-]+(?: [A-Z][\w'-]+)?(?:(?:, and |, | and | & )[A-Z][\w'-]+(?: [A-Z][\w'-]+)?)+$")


def _having_row(count: str, kind: str, names: str) -> Fact | None:
    """ "three kids: Ana, Ben and Carl": how many, and what they are called."""
    return fact(
        "has some, by name",
        names,
        f"You have {count} {kind}: {names}",
        f"What are my {kind} called?",
        f"What are the names of my {kind}?",
        f"Who are my {kind}?",
        f"How many {kind} do I have?",
        f"Tell me about my {kind}.",
    )


CONDITION = re.compile(
    r"(?:i|we) have (?P<v>(?:type [12] )?(?:diabetes|asthma|epilepsy|adhd|dyslexia|autism"
    r"|tinnitus|celiac disease|coeliac disease|"
    r"arthritis|synesthesia|insomnia|migraines|hay fever|ms))$",
    re.I,
)


def having(clause: str) -> Fact | None:
    m = CONDITION.match(clause)
    if m:
        return fact(
            "condition",
            m["v"],
            f"You have {m['v']}",
            "What medical condition do I have?",
            "What do I suffer from?",
            "What do I have?",
        )
    m = HAVE.match(clause)
    if not m:
        return None
    rest, count = trim(m["v"]), m["n"].lower()
    named = re.match(r"(?P<k>[\w -]+?),? (?:who is |that is )?(?:named|called) (?P<v>.+)$", rest)
    if named:
        k = named["k"]
        return fact(
            "has a name",
            named["v"],
            f"Your {k}'s name is {named['v']}",
            *ask("what", f"my {k}'s name", "is"),
            f"What is my {k} called?",
        )
    things = re.split(r",? and (?=(?:an?|\d+|[a-z]+) )", rest)[0]  # "cats" of "cats and a dog"
    row = re.match(r"(?P<k>[a-z][a-z -]*?)(?::| -|,) (?P<v>.+)$", rest)
    if (
        row
        and count not in ("a", "an")
        and NAMES.match(row["v"])
        and row["k"].split()[-1].removesuffix("s") in words.HAVING
    ):
        return _having_row(count, row["k"], row["v"])
    kind = next((w for w in rest.lower().split()[:3] if w in words.HAVING or w.removesuffix("s") in words.HAVING), None)
    if kind is None or (count in ("a", "an") and len(rest.split()) > 5):
        return None
    answer, value = f"You have {count} {rest}", f"{'' if count in ('a', 'an') else count + ' '}{rest}"
    if count in ("a", "an"):
        return fact(
            "has", value, answer, f"Do I have a {kind}?", f"What {kind} do I have?", f"Tell me about my {kind}."
        )
    return fact(
        "has some",
        value,
        answer,
        f"How many {things} do I have?",
        f"What is the number of {things} I have?",
        f"Tell me how many {things} I have.",
    )
