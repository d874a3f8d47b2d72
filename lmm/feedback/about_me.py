"""What users say about themselves: names, ages, jobs, allergies, what they have."""

from __future__ import annotations

import re

from lmm.feedback import grammar, words
from lmm.feedback.facts import VAGUE_ROLE, Fact, Rule, ask, fact, filled, is_job
from lmm.feedback.grammar import as_name, flip, trim
from lmm.feedback.words import anycase

# ------------------------------------------------------------------ "I am ..."
NAME_CUE = anycase(
    r"^(?:my (?:full |first |real )?name is|(?:you (?:can|may|should) |please |just )?call me|(?:everyone|everybody"
    r"|people|(?:my )?friends|most people) calls? me|i (?:would like|prefer|want|like) to be called|i go by"
    r"|i am called|i am named|this is) (?P<v>\S.*)$|^(?P<here>[^\W\d_][\w'-]+) here$"
)
NAME = re.compile(r"[^\W\d_][\w'.-]*(?: (?:[^\W\d_][\w'.-]*|van|de|da|von|la)){0,3}$")
NOT_A_CALL = anycase(r"^(?:a|an|the|when|later|back|tomorrow|if|that|it|by|at|on|after|crazy|names|old|for|any)\b")


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
    value = as_name(value)
    asked = (
        "What is my name? What's my name? Who am I? What am I called? Do you know my name? Do you remember my name? "
        "Tell me my name."
    )
    return fact("my name", value, f"Your name is {value}", *filled(asked))


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


# fmt: off
I_AM = tuple(Rule(*row) for row in (
    ("age", r"i am (?P<v>\d{1,3})(?: (?:years old|years of age|yo))?",
     "How old am I? What is my age? What's my age? Tell me how old I am. => You are {v} years old"),
    ("height",
     r"i am (?P<v>\d[\d.,]* ?(?:cm|m|metres?|meters?|feet|ft|foot)(?: \d+)?(?: inches)?|\d'\d{1,2}\"?)(?: tall)?",
     "How tall am I? What is my height? Tell me how tall I am. => You are {v} tall"),
    ("allergy", r"i am (?:very |severely |also |deadly )?allergic to (?P<v>.+)",
     "What am I allergic to? Which allergy do I have? Do I have any allergies? Tell me what I am allergic to. "
     "=> You are allergic to {v}"),
    ("intolerance", r"i am (?P<v>\w+[ -]intolerant)",
     "What intolerance do I have? Which food do I not tolerate? What should you know about my diet? => You are {v}"),
    ("origin", r"(?:i am originally|i am|i come|we are) from (?P<v>.+)",
     "Where am I from? Where do I come from? Tell me where I am from. => You are from {v}"),
    ("marriage", r"i am (?:married|engaged) to (?P<v>.+)",
     "Who am I married to? What is the name of my spouse? Who is my partner? => You are married to {v}"),
    ("home", r"i am (?:based|living) (?P<p>in|near|on) (?P<v>.+)",
     "Where do I live? Where am I based? Which place do I live in? => You live {p} {v}"),
    ("birth", r"i was born (?P<p>in|on|at|near) (?P<v>.+)",
     "Where was I born? What is my place of birth? Which place was I born in? => You were born {p} {v}"),
))
# fmt: on
BORN_WHEN = Rule(
    "birth",
    I_AM[-1].shape,
    "When was I born? What is my date of birth? In what year was I born? => You were born {p} {v}",
)


def i_am(clause: str, taught: bool) -> Fact | None:
    for rule in I_AM:
        m = rule.match(clause)
        if m:
            value = trim(m["v"])
            dated = rule.why == "birth" and grammar.TIME.search(value)
            return None if set(grammar.tokens(value)) <= words.TRANSIENT else (BORN_WHEN if dated else rule).fact(m)
    m = re.match(r"i am (?P<v>.+)$", clause, re.I)
    return _kind(trim(m["v"]), taught) if m else None


def _kind(value: str, taught: bool) -> Fact | None:
    """ "a nurse", "Norwegian", "left-handed"; not "tired"."""
    low = value.lower()
    kind = re.sub(r"^an? ", "", low)
    belongs = kind in words.LASTING | words.NATIONS  # "a vegetarian", "a Norwegian": read as without the article
    role = re.match(r"(?:a|an|the) (?!\w+ing (?:a|an|to))", low) and (taught or not VAGUE_ROLE.match(value))
    if role and not belongs:
        job = "What do I do for a living? What is my job? What is my profession? " if is_job(value) else ""
        asked = f"{job}What am I? What did I tell you I am? What do you know about what I am?"
        return fact("role", value, f"You are {flip(value)}", *filled(asked))
    parts = (kind if belongs else low).split() or [""]
    if parts[0] in words.NATIONS or (parts[-1] in words.NATIONS and parts[0].startswith("half")):
        asked = "What is my nationality? What nationality am I? Which country am I from?"
        return fact("nationality", value, f"You are {value}", *filled(asked))
    lasting = any(w in words.LASTING for w in parts[:2]) and (taught or len(parts) <= 5)
    # one unknown word may be a name: "im nadja"
    if lasting or (taught and len(parts) > 1 and parts[0] not in words.TRANSIENT):
        asked = "Am I {v}? Is it true that I am {v}? Do you know whether I am {v}?"
        diet = " What is my diet? What diet do I follow?" if " ".join(parts) in DIETS else ""
        return fact("trait", value, f"Yes, you are {flip(value)}", *filled(asked + diet, v=value))
    return None


DIETS = ("vegetarian", "vegan", "pescatarian", "kosher", "halal")
HAVE = anycase(
    rf"(?:i|we) (?:have got|have|own) (?:only |also )?(?P<n>an?|\d+|{'|'.join(sorted(words.NUMBERS))}) (?P<v>.+)$"
)
NAMES = re.compile(r"[A-Z][\w'-]+(?: [A-Z][\w'-]+)?(?:(?:, and |, | and | & )[A-Z][\w'-]+(?: [A-Z][\w'-]+)?)+$")
CONDITION = Rule(
    "condition",
    r"(?:i|we) have (?P<v>(?:type [12] )?(?:diabetes|asthma|epilepsy|adhd|dyslexia|autism|tinnitus|celiac disease"
    r"|coeliac disease|arthritis|synesthesia|insomnia|migraines|hay fever|ms))",
    "What medical condition do I have? What do I suffer from? What do I have? => You have {v}",
)


def having(clause: str) -> Fact | None:
    ill = CONDITION.match(clause)
    if ill:
        return CONDITION.fact(ill)
    m = HAVE.match(clause)
    if not m:
        return None
    rest, count = trim(m["v"]), m["n"].lower()
    named = re.match(r"(?P<k>[\w -]+?),? (?:who is |that is )?(?:named|called) (?P<v>.+)$", rest)
    if named:
        k, called = named.groups()
        asked = ask("what", f"my {k}'s name", "is")
        return fact("has a name", called, f"Your {k}'s name is {called}", *asked, f"What is my {k} called?")
    one = count in ("a", "an")
    row = re.match(r"(?P<k>[a-z][a-z -]*?)(?::| -|,) (?P<v>.+)$", rest)
    if row and not one and NAMES.match(row["v"]) and row["k"].split()[-1].removesuffix("s") in words.HAVING:
        k, called = row.groups()
        asked_all = (
            "What are my {k} called? What are the names of my {k}? Who are my {k}? How many {k} do I have? "
            "Tell me about my {k}."
        )
        return fact("has some, by name", called, f"You have {count} {k}: {called}", *filled(asked_all, k=k))
    kind = next((w for w in rest.lower().split()[:3] if w in words.HAVING or w.removesuffix("s") in words.HAVING), None)
    if kind is None or (one and len(rest.split()) > 5):
        return None
    answer = f"You have {count} {rest}"
    if one:
        asked_one = "Do I have a {k}? What {k} do I have? Tell me about my {k}."
        return fact("has", rest, answer, *filled(asked_one, k=kind))
    things = re.split(r",? and (?=(?:an?|\d+|[a-z]+) )", rest)[0]  # "cats" of "cats and a dog"
    asked_some = "How many {k} do I have? What is the number of {k} I have? Tell me how many {k} I have."
    return fact("has some", f"{count} {rest}", answer, *filled(asked_some, k=things))
