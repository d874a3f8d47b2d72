"""From a question and a value to the reply: "What is the capital of Australia?" + Canberra -> a full sentence.

Two ways: put the value where the wrong one stood in the reply that was given, or build the sentence from the
question's own form. Where neither is sure, the bare value.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from lmm.feedback import grammar, words
from lmm.feedback.grammar import bare, capital, conjugate, flip, plain, sentence, with_preposition
from lmm.feedback.spans import from_reply, known_words, runs
from lmm.feedback.words import anycase
from lmm.text.fold import contains
from lmm.text.sentences import sentences

OPENING = anycase(
    r"^(?:(?:hi|hello|hey|ok|okay|so|well|thanks|thank you|please|and|but|quick question|just curious|one more thing"
    r"|question|great|cool|now)\b(?: there)?[,.!: -]*|(?:can|could|would|will) you (?:please )?(?:tell|remind"
    r"|inform) me,?\s+|do you (?:know|remember|happen to know),?\s+|tell me,?\s+(?=who|what|when|where|which|how"
    r"|whose)|(?:please )?remind me,?\s+|i(?: am| was)? (?:wonder(?:ing)?|would like to know|want to know"
    r"|need to know),?\s+)+"
)
CLOSING = anycase(r"[,\s]+(?:please|pls|thanks|thank you|thx|by the way|btw|again|exactly)\s*(?=[?.!]*$)")
MAX_SPLICED = 16  # words of a reply in which only the value is replaced
WH = r"what|who|whom|whose|where|when|which|why|how"


def core(question: str) -> str:
    """The question itself, as typed: without greeting, "can you tell me", "please", and with a question mark.

    Of several sentences, the last that asks something.
    """
    text = re.sub(r"\s+", " ", question.translate(grammar.APOSTROPHES)).strip()
    asking = [s for s in sentences(text) if s.endswith("?") or re.match(rf"(?:{WH})\b", s, re.I)]
    text = CLOSING.sub("", OPENING.sub("", asking[-1] if asking else text)).strip()
    if not text:
        return question.strip()
    text = re.sub(rf"^({WH}|how old) ((?:the|my|our) .+) ({grammar.BE})(?=[?!. ]*$)", r"\1 \3 \2", text, flags=re.I)
    asks = re.match(rf"(?:{WH}|whats|is|are|was|were|do|does|did)\b", text, re.I) or text.endswith("?")
    return capital(text.rstrip(" ?!.,") + ("?" if asks else "." if re.search(r"[.!]$", text) else ""))


NOT_FACTUAL = anycase(
    r"(?:what (?:do|would) you|what (?:should|can|could|shall)|what about|how (?:are|do|can"
    r"|should|would|could|about|come)\b(?! you spell)|why\b|who are you|what are you"
    r"|are you|do you|can you|could you|would you|will you|shall|may i|can i|should)\b"
)


ORDERED = anycase(r"(?:name|list|(?:tell|give) me|state|spell) (?:the|my|our|a|an|all|some|three|five)\b|spell \w+")


def is_factual(question: str) -> bool:
    """Does it ask for a fact that a correction could put right (and not for a poem, an opinion or help)?"""
    text = plain(core(question))
    if NOT_FACTUAL.match(text):
        return False
    if re.match(rf"(?:{WH})\b|(?:is|are|was|were|do|does|did) (?!you\b)", text, re.I):
        return True
    if ORDERED.match(text):
        return not re.search(r"\b(?:joke|story|poem|idea|recipe|tips?|example|advice)s?\b", text, re.I)
    return question.strip().endswith("?") and len(text.split()) <= 10 and grammar.tokens(text)[:1] != ["really"]


DONE = (
    r"born|founded|built|invented|discovered|written|made|located|based|spelled|spelt|called|named|held|painted|signed"
    r"|composed|directed|married to|engaged to|named after|allergic to|spoken|used|published|released|situated|buried"
    r"|raised|pronounced|created|launched|opened|scheduled|kept|due|from|about"
)
UNITS = anycase(r"(?:metres?|meters?|m|km|kilomet(?:re|er)s?|feet|ft|miles?|cm|inches|in|light[- ]years)$")


def _be(verb: str, subject: str) -> str:
    """The verb "be" after a flipped subject: am I -> you are, was I -> you were."""
    if subject.lower() in ("i", "we"):
        return "were" if verb in ("was", "were") else "are"
    return "are" if verb == "am" else verb


def _said(subject: str, verb: str, value: str) -> str:
    return f"{flip(subject)} {_be(verb, subject)} {value}"


def _with_be(wh: str, how: str, verb: str, rest: str, value: str) -> str:
    """who/what/where/when/how ADJ + be + subject (+ participle)."""
    if far := re.match(r"it (?=(?:from|to|until|till|in|at|on|between)\b)", rest):
        return f"it {verb} {value} {flip(rest[far.end() :])}"
    done = re.match(rf"(?P<s>.+?) (?P<d>{DONE})(?P<r>(?: (?:in|by|on|at|for|of|to|with)\b.*)?)$", rest)
    subject, tail = (done["s"], f" {done['d']}{done['r']}") if done else (rest, "")
    if wh in ("where", "when") and not re.search(r" (?:in|at|on|from)$", tail):
        return _said(subject, verb, (tail + " " + with_preposition(value, wh)).strip())
    if wh == "how" and how == "old" and re.fullmatch(r"\d{1,3}", value):
        value += " years old"
    elif wh == "how" and how in ("tall", "high", "long", "deep", "wide", "far") and UNITS.search(value):
        value += f" {how}" if how != "far" else " away"
    return _said(subject, verb, (tail + " " + value).strip())


def split_do(rest: str) -> tuple[str, str, str] | None:
    """ "the Titanic sink in 1912" -> ("the Titanic", "sink", "in 1912"); None if no word is a known verb."""
    parts = rest.split()
    pronoun = parts[0].lower() in ("i", "we", "you", "they", "he", "she", "it")
    at = next((i for i, w in enumerate(parts) if i and (pronoun or w.lower() in words.VERBS)), None)
    return None if at is None else (" ".join(parts[:at]), parts[at].lower(), " ".join(parts[at + 1 :]))


def _with_do(wh: str, aux: str, rest: str, value: str, counted: str = "") -> str | None:
    """wh + do/does/did + subject + verb (+ rest): the verb is found by the list, else there is no answer."""
    found = split_do(rest)
    if found is None:
        return None
    subject, verb, after = found
    said = f"{flip(subject)} {conjugate(verb, aux)}"
    if verb == "do" and not after:
        return None
    if counted:
        return f"{said} {value} {counted} {flip(after)}"
    if wh in ("where", "when"):
        place = "at" if verb in ("work", "study") else "in"
        placed = value if after.endswith((" in", " at", " on")) else with_preposition(value, wh, place)
        return f"{said} {flip(after)} {placed}"
    if after and not re.match(r"(?:in|at|on|for|to|with|from|about|of|stand for|as)$", after):
        return f"{said} {value} {flip(after)}"
    return f"{said} {after} {value}"


def _subject_question(noun: str, rest: str, value: str) -> str:
    """who/what/which N + verb: the value is the subject ("Who wrote Dune?")."""
    most = re.match(r"(is|are|was|were) the (\w+est|most \w+|first|last|second|third)((?: \w+)*)$", rest)
    if noun and most and not most[3]:
        return f"the {most[2]} {noun} {most[1]} {value}"
    return f"{value} {flip(rest)}"


def _yes_no(verb: str, rest: str, value: str) -> str | None:
    m = re.match(
        r"(?P<s>(?:(?:an?|the|my|our) )?.+?) (?P<p>(?:an?|the|in|on|at|from|called|named|made"
        r"|located|born|my|our|bigger|larger|\w+er than) ?.*|\w+)$",
        rest,
    )
    if not m:
        return None
    if value.lower() in ("yes", "no", "true", "false"):
        yes = value.lower() in ("yes", "true")
        return f"{'Yes' if yes else 'No'}, {_said(m['s'], verb, ('' if yes else 'not ') + flip(m['p']))}"
    keep = re.match(r"(?:in|on|at|from|called|named|made of|located in|born in) ", m["p"])
    special = re.match(r"(?:an?|the) ", value) or grammar.is_proper(value) or grammar.is_number(value)
    if re.match(r"an? ", m["p"]) and not special:
        value = ("an " if value[0] in "aeiou" else "a ") + value
    return f"no, {_said(m['s'], verb, (keep[0] if keep and not re.match(keep[0], value) else '') + value)}"


def _plain_be(m: re.Match[str], value: str) -> str | None:
    """ "what is X", "where was X born", "how old is X"; and "who is coming to X", where the value is the subject."""
    wh, rest = m["wh"].lower(), m["r"]
    if re.match(r"(?:going|doing|happening|wrong|there)\b", rest):
        return None
    if wh in ("who", "what") and re.match(rf"(?:{DONE}|\w+ing) ", rest):
        return f"{value} {m['be']} {flip(rest)}"
    return _with_be(wh, m["how"] or "", m["be"].lower(), rest, value)


def _count_there(m: re.Match[str], value: str) -> str:
    be = "is" if value.lower() in ("1", "one") else "are"
    return f"there {be} {_counted(value, m['n'])}{' in' if m['in'] == 'in' else ''}{flip(m['r'])}"


def _count_done(m: re.Match[str], value: str) -> str:
    noun = (m["n"] or "").strip()
    counted = "" if noun.lower() in grammar.tokens(value) else noun
    return _with_do("how", m["aux"].lower(), m["r"], value, counted) or ""


def _doing(m: re.Match[str], value: str) -> str:
    timed = re.match(r" (?:year|day|date|time|month|century)\b", m["n"] or "")
    wh = "when" if timed else "where" if m["in"] else m["wh"].lower()
    return "" if wh == "how" else _with_do(wh, m["aux"].lower(), m["r"], value) or ""


def _attribute(m: re.Match[str], value: str) -> str | None:
    """ "what colour is X", "what kind of animal is X", "what time is X", "in which city is X", "which city is X in"."""
    if placed := re.match(r"(?P<s>.+) (?P<at>in|on|at|from)$", m["r"]):
        at = "" if re.match(r"(?:in|on|at|from) ", value) else f"{placed['at']} "
        return _said(placed["s"], m["be"], at + value)
    named = re.match(r"(?:the|my|our|an?)\b|(?-i:[A-Z])", m["r"], re.I) and m["wh"].lower() == "what"
    if not (named or m["in"] or ATTRIBUTE.match(m["n"])):
        return None
    wh = "where" if m["in"] else "when" if re.match(r" (?:year|day|date|time|month)$", m["n"]) else "what"
    return _with_be(wh, "", m["be"], m["r"], value)


#: what a thing has one of
ATTRIBUTE = anycase(
    r" (?:colou?r|kind|sort|type|size|age|shape|make|model|brand|breed|species|material|flavou?r|nationality|height"
    r"|length|width|depth|weight|temperature)\b(?! are\b)"
)


def _as_subject(m: re.Match[str], value: str) -> str | None:
    if m["wh"].lower() == "what" and not m["n"]:
        return None
    return _subject_question((m["n"] or "").strip(), m["r"], value)


def _did(m: re.Match[str], value: str) -> str | None:
    found = split_do(m["r"])
    if not found or value.lower() not in ("yes", "no"):
        return None
    subject, verb, after = found
    said = conjugate(verb, m["aux"].lower()) if value.lower() == "yes" else f"{m['aux'].lower()} not {verb}"
    return f"{value}, {flip(subject)} {said} {flip(after)}"


def _topic_only(m: re.Match[str], value: str) -> str:
    """ "name the largest ocean", "capital of Canada?"."""
    subject = m["s"] if re.match(r"(?:the|my|our)\b", m["s"], re.I) else "the " + m["s"]
    return f"{flip(subject)} {'are' if re.search(r'^the [a-z]+s$', subject) else 'is'} {value}"


PAST = "|".join(sorted(words.BASES))
#: forms of questions, in the order they are tried; a builder that returns None leaves it to the next, "" gives up
FORMS: tuple[tuple[str, Callable[[re.Match[str], str], str | None]], ...] = (
    (
        rf"(?P<wh>what|who|where|when|how) ?(?P<how>(?<=how )(?!many|much)\w+)? (?P<be>{grammar.BE}) (?P<r>.+)",
        _plain_be,
    ),
    (r"how (?:many|much) (?P<n>.+?) (?:are|is|were) (?P<in>there|in)(?P<r>.*)", _count_there),
    (r"how (?:many|much)(?P<n> .+?)? (?P<aux>does|do|did) (?P<r>.+)", _count_done),
    (
        r"(?P<in>in )?(?P<wh>what|where|when|who|which|how)(?P<n> (?!(?:do|does|did)\b).+?)? "
        r"(?P<aux>do|does|did) (?P<r>.+)",
        _doing,
    ),
    (
        rf"(?P<in>in )?(?P<wh>what|which)(?P<n> [a-z]+(?: of [a-z]+)?) (?P<be>{grammar.BE}) (?P<r>.+)",
        _attribute,
    ),
    (
        rf"(?P<wh>which|what|who)(?P<n> (?:\w+ ){{0,2}}?\w+)?? (?P<r>(?:{grammar.BE}|has|have|\w+ed|\w+s|{PAST}) .+)",
        _as_subject,
    ),
    (rf"(?P<be>{grammar.BE}) (?P<r>.+)", lambda m, value: _yes_no(m["be"].lower(), m["r"], value)),
    (r"(?P<aux>do|does|did) (?P<r>.+)", _did),
    (r"(?:name|state|(?:tell|give) me) (?P<s>(?:the|my|our) .+)", _topic_only),
    (
        r"(?P<s>(?:(?:the|my|our) )?(?:\w+ )?(?:capital|name|author|president|population|currency|symbol|age|height"
        r"|date|number|ceo|founder)\b.*)",
        _topic_only,
    ),
)
BUILDERS = tuple((anycase(pattern + "$"), build) for pattern, build in FORMS)


def from_question(question: str, value: str) -> str | None:
    """The reply in the question's own words, or None where its form is not known."""
    q = _small(re.sub(r"\b(what|who|where|when)s (?=\w)", r"\1 is ", plain(core(question)), flags=re.I).rstrip("?.! "))
    for pattern, build in BUILDERS:
        m = pattern.match(q)
        said = build(m, value) if m else None
        if said is not None:
            return said or None
    return None


def _counted(value: str, noun: str) -> str:
    return value if set(grammar.tokens(noun)) & set(grammar.tokens(value)) else f"{value} {noun}"


def answer_to(question: str, value: str, reply: str = "", wrong: str = "", own: str = "") -> str:
    """The reply the question should get; contains the value. `own`: the value in a sentence of the user's."""
    said = (from_reply(question, reply, value, wrong) if reply else None) or _in_full(question, own, value)
    if not said or _rambles(said):
        said = from_question(question, value) or (said if said and not said.count('"') % 2 else None)
    if not said or not contains(said, bare(value)):
        return value
    return sentence(re.sub(r"\s+", " ", said).strip())


def _in_full(question: str, own: str, value: str) -> str | None:
    """The user's own sentence, if it says all that was asked and no more: "The king of Zorbia is Hulo"."""
    before, found, after = own.rstrip(" .!").partition(value)
    asked = known_words(question)
    if not found or runs(question, known_words(before + after)) or runs(before + after, asked):
        return None
    return flip(own)


def _rambles(said: str) -> bool:
    """A reply that was put right in one place, and is best left alone for what else it says."""
    return len(said.split()) > MAX_SPLICED or bool(said.count('"') % 2)


IS_SHORT = anycase(r"^(what|who|where|when)'?s\b")
ABOUT_BE = anycase(rf"(what|who|where|when|how \w+) ({grammar.BE}) (.+)$")


def _small(question: str) -> str:
    """Its first word in small letters, unless that is a code or a name with inner capitals."""
    return re.sub(r"^([A-Z])(?=[a-z]+\b)", lambda m: m[1].lower(), question)


def _asked(inner: str) -> tuple[str, str, str]:
    return f"do you know {inner}?", f"can you tell me {inner}?", f"tell me {inner}."


def reworded(question: str) -> tuple[str, ...]:
    """Other wordings of a question, made from its form."""
    q = core(question)
    low = _small(IS_SHORT.sub(r"\1 is", q).rstrip("?.!"))
    m = ABOUT_BE.match(low)
    if m:
        wh, be, rest = m.groups()
        done = re.search(rf" ({DONE})$", rest)
        inner = f"{wh} {rest[: done.start()]} {be} {done[1]}" if done else f"{wh} {rest} {be}"
        short = [f"{wh}'s {rest}?"] if be == "is" and " " not in wh else []
        out = [f"{low}?", *short, *_asked(inner)]
    elif re.match(r"(?:who|what|which|how many)\b(?!.* (?:do|does|did) )", low):
        out = [f"{low}?", *_asked(low)]
    elif (m := re.match(rf"((?:{WH})(?: [\w ]+?)?) (do|does|did) (.+)$", low)) and (found := split_do(m[3])):
        out = [f"{low}?", *_asked(f"{m[1]} {found[0]} {conjugate(found[1], m[2])} {found[2]}".strip())]
    elif re.match(rf"(?:{WH}|{grammar.BE}|do|does|did)\b", low):
        out = [f"{low}?", f"can you tell me: {low}?"]
    else:
        topic = re.sub(r"^(?:name|state|(?:tell|give) me) ", "", low)
        plural = re.match(r"the [a-z ]*[a-z]s(?: |$)", topic)
        topic = topic if re.match(r"(?:the|my|our|all)\b", topic) else "the " + topic
        out = [f"what {'are' if plural else 'is'} {topic}?", f"tell me {topic}.", f"can you name {topic}?"]
    return tuple(dict.fromkeys(capital(o) for o in out if o and capital(o) != q))


def topic(question: str) -> str:
    """What a question is about, for the dim line: "What is the capital of Australia?" -> "capital of Australia"."""
    q = IS_SHORT.sub(r"\1 is", plain(core(question))).rstrip("?.! ")
    q = re.sub(r"^(?:please )?(?:tell|give|show|remind) me (?:of |about )?(?:the )?", "", q, flags=re.I)
    m = ABOUT_BE.match(q)
    if not m:
        return flip(q[:1].lower() + q[1:])
    rest = re.sub(r" (?:called|named)$", "", m[3])
    if rest == m[3] and re.search(rf"^(?:i|we)\b| (?:{DONE}|allergic to)$", rest, re.I):
        first = re.match(r"(?:i|we)\b", rest, re.I)
        me, tail = ("I", rest.partition(" ")[2]) if first else rest.rsplit(" ", 1)
        return flip(f"{m[1].lower()} {me} {m[2]} {tail}".strip())
    return flip(re.sub(r"^the ", "", rest, flags=re.I))


ASKING = frozenset(("who", "what", "which", "where", "when", "why", "how", "does", "do", "did"))


def in_a_line(question: str, answer: str, value: str) -> str:
    """What was learned, for the dim line: "capital of Australia -> Canberra", or the answer where only a question says
    what it is about."""
    about = topic(question)
    return answer.rstrip(".。") if about.partition(" ")[0] in ASKING else f"{about} -> {value}"
