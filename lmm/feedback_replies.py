"""From a question and a value to the reply: "What is the capital of Australia?" + Canberra -> a full sentence.

Two ways: put the value where the wrong one stood in the reply that was given, or build the sentence from the
question's own form. Where neither is sure, the bare value.
"""

from __future__ import annotations

import re
from functools import lru_cache

from lmm import feedback_rules as rules
from lmm.feedback_rules import as_name, bare, capital, conjugate, flip, plain, sentence, with_preposition

OPENING = re.compile(
    r"^(?:(?:hi|hello|hey|ok|okay|so|well|thanks|thank you|please|and|but|quick question|just curious|one more thing|question|great|cool|now)\b(?: there)?[,.!: -]*"
    r"|(?:can|could|would|will) you (?:please )?(?:tell|remind|inform) me,?\s+|do you (?:know|remember|happen to know),?\s+|tell me,?\s+(?=who|what|when|where|which|how|whose)"
    r"|(?:please )?remind me,?\s+|i(?: am| was)? (?:wonder(?:ing)?|would like to know|want to know|need to know),?\s+)+",
    re.I,
)
CLOSING = re.compile(r"[,\s]+(?:please|pls|thanks|thank you|thx|by the way|btw|again|exactly)\s*(?=[?.!]*$)", re.I)
WH = r"what|who|whom|whose|where|when|which|why|how"


def core(question: str) -> str:
    """The question itself, as typed: without greeting, "can you tell me", "please", and with a question mark.

    Of several sentences, the last that asks something.
    """
    text = re.sub(r"\s+", " ", question.translate(rules.APOSTROPHES)).strip()
    asking = [s for s in rules.sentences(text) if s.endswith("?") or re.match(rf"(?:{WH})\b", s, re.I)]
    text = CLOSING.sub("", OPENING.sub("", asking[-1] if asking else text)).strip()
    if not text:
        return question.strip()
    text = re.sub(rf"^({WH}|how old) ((?:the|my|our) .+) ({BE})(?=[?!. ]*$)", r"\1 \3 \2", text, flags=re.I)
    asks = re.match(rf"(?:{WH}|whats|is|are|was|were|do|does|did)\b", text, re.I) or text.endswith("?")
    return capital(text.rstrip(" ?!.,") + ("?" if asks else "." if re.search(r"[.!]$", text) else ""))


NOT_FACTUAL = re.compile(
    r"(?:what (?:do|would) you|what (?:should|can|could|shall)|what about|how (?:are|do|can|should|would|could|about|come)\b(?! you spell)|why\b|who are you|what are you"
    r"|are you|do you|can you|could you|would you|will you|shall|may i|can i|should)\b",
    re.I,
)


def is_factual(question: str) -> bool:
    """Does it ask for a fact that a correction could put right (and not for a poem, an opinion or help)?"""
    text = plain(core(question))
    if NOT_FACTUAL.match(text):
        return False
    if re.match(rf"(?:{WH})\b|(?:is|are|was|were|do|does|did) (?!you\b)", text, re.I):
        return True
    if re.match(r"(?:name|list|(?:tell|give) me|state|spell) (?:the|my|our|a|an|all|some|three|five)\b|spell \w+", text, re.I):
        return not re.search(r"\b(?:joke|story|poem|idea|recipe|tips?|example|advice|list)s?\b", text, re.I)
    return question.strip().endswith("?") and len(text.split()) <= 10 and rules.words(text)[:1] != ["really"]


BE = r"is|are|was|were|am"
DONE = (r"born|founded|built|invented|discovered|written|made|located|based|spelled|spelt|called|named|held|painted|signed|composed|directed|"
        r"married to|engaged to|named after|allergic to|spoken|used|published|released|situated|buried|raised|pronounced|created|launched|opened|scheduled|kept|due|from|about")  # fmt: skip
UNITS = re.compile(r"(?:metres?|meters?|m|km|kilomet(?:re|er)s?|feet|ft|miles?|cm|inches|in|light[- ]years)$", re.I)


def _be(verb: str, subject: str) -> str:
    """The verb "be" after a flipped subject: am I -> you are, was I -> you were."""
    if subject.lower() in ("i", "we"):
        return "were" if verb in ("was", "were") else "are"
    return "are" if verb == "am" else verb


def _said(subject: str, verb: str, value: str) -> str:
    return f"{flip(subject)} {_be(verb, subject)} {value}"


def _with_be(wh: str, how: str, verb: str, rest: str, value: str) -> str:
    """who/what/where/when/how ADJ + be + subject (+ participle)."""
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
    at = next((i for i, w in enumerate(parts) if i and (pronoun or w.lower() in rules.VERBS)), None)
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
        return f"{said} {flip(after)} {value if after.endswith((' in', ' at', ' on')) else with_preposition(value, wh, 'at' if verb in ('work', 'study') else 'in')}"
    if after and not re.match(r"(?:in|at|on|for|to|with|from|about|of|stand for|as)$", after):
        return f"{said} {value} {flip(after)}"
    return f"{said} {after} {value}"


def _subject_question(wh: str, noun: str, rest: str, value: str) -> str:
    """who/what/which N + verb: the value is the subject ("Who wrote Dune?")."""
    most = re.match(r"(is|are|was|were) the (\w+est|most \w+|first|last|second|third)((?: \w+)*)$", rest)
    if noun and most and not most[3]:
        return f"the {most[2]} {noun} {most[1]} {value}"
    return f"{value} {flip(rest)}"


def _yes_no(verb: str, rest: str, value: str) -> str | None:
    m = re.match(r"(?P<s>(?:(?:an?|the|my|our) )?.+?) (?P<p>(?:an?|the|in|on|at|from|called|named|made|located|born|my|our|bigger|larger|\w+er than) ?.*|\w+)$", rest)
    if not m:
        return None
    if value.lower() in ("yes", "no", "true", "false"):
        yes = value.lower() in ("yes", "true")
        return f"{'Yes' if yes else 'No'}, {_said(m['s'], verb, ('' if yes else 'not ') + flip(m['p']))}"
    article = re.match(r"(an?|the) ", m["p"])
    keep = re.match(r"(?:in|on|at|from|called|named|made of|located in|born in) ", m["p"])
    if article and article[1] in ("a", "an") and not re.match(r"(?:an?|the) ", value) and not rules.is_proper(value) and not rules.is_number(value):
        value = ("an " if value[0] in "aeiou" else "a ") + value
    return f"no, {_said(m['s'], verb, (keep[0] if keep and not re.match(keep[0], value) else '') + value)}"


def from_question(question: str, value: str) -> str | None:
    """The reply in the question's own words, or None where its form is not known."""
    q = re.sub(r"\b(what|who|where|when)s (?=\w)", r"\1 is ", plain(core(question)), flags=re.I).rstrip("?.! ")
    q = re.sub(r"^([A-Z])(?=[a-z]+\b)", lambda m: m[1].lower(), q)
    m = re.match(rf"(?P<wh>what|who|where|when|how) ?(?P<how>(?<=how )(?!many|much)\w+)? (?P<be>{BE}) (?P<r>.+)$", q, re.I)
    if m and not re.match(r"(?:going|doing|happening|wrong|there)\b", m["r"]):
        wh, rest = m["wh"].lower(), m["r"]
        indirect = wh in ("who", "what") and re.match(rf"(?:{DONE}|\w+ing) ", rest) and not re.match(r"(?:called|named)$", rest)
        return f"{value} {m['be']} {flip(rest)}" if indirect else _with_be(wh, m["how"] or "", m["be"].lower(), rest, value)
    m = re.match(r"how (?:many|much) (?P<n>.+?) (?:are|is|were) (?:there|in)(?P<r>.*)$", q, re.I)
    if m:
        be = "is" if value.lower() in ("1", "one") else "are"
        inside = " in" if re.search(r"(?:are|is|were) in ", q) else ""
        return f"there {be} {_counted(value, m['n'])}{inside}{flip(m['r'])}"
    m = re.match(r"how (?:many|much)(?P<n> .+?)? (?P<aux>does|do|did) (?P<r>.+)$", q, re.I)
    if m:
        noun = (m["n"] or "").strip()
        return _with_do("how", m["aux"].lower(), m["r"], value, "" if noun.lower() in rules.words(value) else noun)
    m = re.match(r"(?:in )?(?P<wh>what|where|when|who|which|how)(?P<n> (?!(?:do|does|did)\b).+?)? (?P<aux>do|does|did) (?P<r>.+)$", q, re.I)
    if m:
        timed = re.match(r" (?:year|day|date|time|month|century)\b", m["n"] or "")
        placed = re.match(r"in (?:what|which) ", q)
        wh = "when" if timed else "where" if placed else m["wh"].lower()
        return None if wh == "how" else _with_do(wh, m["aux"].lower(), m["r"], value)
    m = re.match(rf"(?P<in>in )?(?P<wh>what|which)(?P<n> [a-z]+) (?P<be>{BE}) (?P<r>(?:the|my|our|a|an|[A-Z]).*)$", q)
    if m and (m["wh"] == "what" or m["in"]):
        wh = "where" if m["in"] else "when" if re.match(r" (?:year|day|date|time|month)$", m["n"]) else "what"
        return _with_be(wh, "", m["be"], m["r"], value)
    m = re.match(rf"(?P<wh>which|what|who)(?P<n> (?:\w+ ){{0,2}}?\w+)?? (?P<r>(?:{BE}|has|have|\w+ed|\w+s|{'|'.join(set(rules.IRREGULAR.values()))}) .+)$", q, re.I)
    if m and (m["wh"].lower() != "what" or m["n"]):
        return _subject_question(m["wh"].lower(), (m["n"] or "").strip(), m["r"], value)
    m = re.match(rf"(?P<wh>what|who|where|when|how old) (?P<s>(?:the|my|our) .+) (?P<be>{BE})$", q, re.I)
    if m:
        return _with_be(m["wh"].lower().split()[0], m["wh"].lower()[4:], m["be"], m["s"], value)
    m = re.match(rf"(?P<be>{BE}) (?P<r>.+)$", q, re.I)
    if m:
        return _yes_no(m["be"].lower(), m["r"], value)
    m = re.match(r"(?P<aux>do|does|did) (?P<r>.+)$", q, re.I)
    if m and value.lower() in ("yes", "no") and (found := split_do(m["r"])):
        subject, verb, after = found
        said = conjugate(verb, m["aux"].lower()) if value.lower() == "yes" else f"{m['aux'].lower()} not {verb}"
        return f"{value}, {flip(subject)} {said} {flip(after)}"
    m = re.match(r"(?:name|state|(?:tell|give) me) (?P<s>(?:the|my|our) .+)$", q, re.I) or re.match(
        r"(?P<s>(?:(?:the|my|our) )?(?:\w+ )?(?:capital|name|author|president|population|currency|symbol|age|height|date|number|ceo|founder)\b.*)$", q, re.I)
    if m:
        subject = m["s"] if re.match(r"(?:the|my|our)\b", m["s"], re.I) else "the " + m["s"]
        return f"{flip(subject)} {'are' if re.search(r'^the [a-z]+s$', subject) else 'is'} {value}"
    return None


def _counted(value: str, noun: str) -> str:
    return value if set(rules.words(noun)) & set(rules.words(value)) else f"{value} {noun}"


# ------------------------------------------------------------------ the wrong value in the reply
FUNCTION = rules.word_set(
    "a an the of in on at is are was were be been am to by for with from and or it its it's he she they that this these those there who which "
    "what when where how many much do does did not has have had his her their i you me my your our we as called named also so than then "
    "would will should must can could very just actually really think believe sure know yes no well right correct answer mean meant only "
    "located situated known considered here if old spelled written spelling"
)
REFUSAL = re.compile(
    r"\b(?:don't|do not|didn't|cannot|can't|unable|not (?:sure|know|have)|no (?:information|idea|way)|sorry|haven't|not been told|as an ai|i'm an ai)\b", re.I)


def runs(text: str, known: frozenset[str]) -> list[tuple[int, int]]:
    """Stretches of `text` (start, end) whose words are neither in `known` nor mere function words.

    Function words between two such words with capitals or numbers belong to the stretch ("Leonardo da Vinci"), and so
    does a known word with a capital before a name ("Lake Baikal" as the deepest lake).
    """
    spans = [(m.start(), m.end(), m[0].lower()) for m in re.finditer(r"[^\W_]+(?:['.,:/@_+-][^\W_]+)*", text)]
    new = [w not in known and stem(w) not in known and w not in FUNCTION for *_, w in spans]
    out: list[tuple[int, int]] = []
    last = -2
    for i, (start, end, _) in enumerate(spans):
        if not new[i]:
            continue
        gap = text[out[-1][1] : start] if out else ""
        bridge = i - last == 2 and re.fullmatch(r" (?:of|de|da|van|the|and|la) ", gap) and (text[start].isupper() or text[start].isdigit() or " of " in gap)
        if out and not re.search(r"[,;:!?]|\. ", gap) and (i - last == 1 or bridge):
            out[-1] = (out[-1][0], end)
        else:
            title = i and text[start].isupper() and text[spans[i - 1][0]].isupper() and spans[i - 1][2] not in FUNCTION
            out.append((spans[i - 1][0] if title and text[spans[i - 1][1] : start] == " " else start, end))
        last = i
    return out


def stem(word: str) -> str:
    word = word.removesuffix("'s")
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


@lru_cache(maxsize=64)
def known_words(text: str) -> frozenset[str]:
    found = rules.words(plain(text))
    more = {v for w in found for v in (rules.IRREGULAR.get(w), rules.BASES.get(w)) if v}
    return frozenset({stem(w) for w in found} | set(found) | {stem(w) for w in rules.words(flip(text))} | more)


def shape(text: str) -> str:
    return "number" if rules.is_number(text) else "name" if rules.is_proper(text) else "word"


def wrong_span(question: str, reply: str, value: str, wrong: str = "") -> tuple[str, tuple[int, int]] | None:
    """The sentence of the reply that holds the wrong value, and where in it."""
    if wrong:
        for part in rules.sentences(reply):
            m = re.search(rf"(?<!\w){re.escape(wrong)}(?!\w)", part, re.I)
            if m:
                name = [s for s in runs(part, known_words(question)) if s[0] <= m.start() and m.end() <= s[1]]
                return part, name[0] if name and shape(wrong) == "name" else m.span()
    parts = rules.sentences(reply)
    if not parts or REFUSAL.search(parts[0]) or len(parts[0]) > 300:
        return None
    found = runs(parts[0], known_words(question))
    alike = [s for s in found if shape(parts[0][slice(*s)]) == shape(value)] or [
        s for s in found if shape(parts[0][slice(*s)]) == "name" and shape(value) == "word"]
    alike = alike or (found if len(found) == 1 else [])
    return (parts[0], alike[0]) if len(alike) == 1 else None


def from_reply(question: str, reply: str, value: str, wrong: str = "") -> str | None:
    """The reply with the wrong value replaced, or None where the wrong value is not clear."""
    if re.match(r"(?:yes|no)\b", reply, re.I) and re.match(rf"(?:{BE})\b", question.strip(), re.I):
        return None
    found = wrong_span(question, reply, value, wrong)
    if not found or re.search(r"\bnot\b|n't\b", found[0]):
        return None
    text, (start, end) = found
    old, before = text[start:end], text[:start]
    if before.endswith(("the ", "The ", "a ", "an ")) and re.match(r"(?:an?|the) ", value, re.I):
        before = re.sub(r"(?:an?|the) $", "", before, flags=re.I)
    elif not re.search(r"\b(?:an?|the) $", before, re.I):
        value = value if re.match(r"an? ", value) or shape(old) != "name" else bare(value) if not value.lower().startswith("the ") else value
    elif shape(value) == "name":
        before = re.sub(r"\b(?:an?|the) $", "", before, flags=re.I)
    at = with_preposition(value, "where").split(" ")[0] if re.match(r"(?:in|on|at) ", value) else ""
    if at:
        before = re.sub(r"\b(?:in|on|at) $", "", before)
    number = re.match(r"\d+[\d.,]* (.+)$", value)
    after = text[end:]
    if number and re.match(rf" {re.escape(number[1])}\b", after):
        after = after[len(number[1]) + 1 :]
    return sentence((before + value + after).strip())


def like(value: str, question: str, reply: str) -> str:
    """The value with capitals if it was typed without any and the wrong one has them ("canberra")."""
    found = wrong_span(question, reply, value)
    name = found and shape(found[0][slice(*found[1])]) == "name" and not reply.startswith(found[0][slice(*found[1])] + ",")
    return as_name(value) if name and shape(value) == "word" and len(value.split()) <= 4 else value


def answer_to(question: str, value: str, reply: str = "", wrong: str = "") -> str:
    """The reply the question should get; contains the value."""
    said = from_reply(question, reply, value, wrong) if reply else None
    said = said or from_question(question, value)
    if not said or bare(value).lower() not in said.lower():
        return value
    return sentence(re.sub(r"\s+", " ", said).strip())


def reworded(question: str) -> tuple[str, ...]:
    """Other wordings of a question, made from its form."""
    q = core(question)
    flat = re.sub(r"^(what|who|where|when)'?s\b", r"\1 is", q, flags=re.I).rstrip("?.!")
    low = re.sub(r"^([A-Z])(?=[a-z]+\b)", lambda m: m[1].lower(), flat)
    m = re.match(rf"(what|who|where|when|how \w+) ({BE}) (.+)$", low, re.I)
    if m:
        wh, be, rest = m.groups()
        inner = f"{wh} {rest} {be}" if not re.search(rf" (?:{DONE})$", rest) else re.sub(rf" ({DONE})$", rf" {be} \1", f"{wh} {rest}")
        out = [f"{wh} {be} {rest}?", f"{wh}'s {rest}?" if be == "is" and " " not in wh else "", f"do you know {inner}?", f"can you tell me {inner}?", f"tell me {inner}."]
    elif re.match(r"(?:who|what|which|how many)\b(?!.* (?:do|does|did) )", low):
        out = [f"{low}?", f"do you know {low}?", f"can you tell me {low}?", f"tell me {low}."]
    elif (m := re.match(rf"((?:{WH})(?: [\w ]+?)?) (do|does|did) (.+)$", low)) and (found := split_do(m[3])):
        inner = f"{m[1]} {found[0]} {conjugate(found[1], m[2])} {found[2]}".strip()
        out = [f"{low}?", f"do you know {inner}?", f"can you tell me {inner}?", f"tell me {inner}."]
    elif re.match(rf"(?:{WH}|{BE}|do|does|did)\b", low):
        out = [f"{low}?", f"can you tell me: {low}?"]
    else:
        topic = re.sub(r"^(?:name|state|(?:tell|give) me) ", "", low)
        plural = re.match(r"the [a-z ]*[a-z]s(?: |$)", topic)
        topic = topic if re.match(r"(?:the|my|our|all)\b", topic) else "the " + topic
        out = [f"what {'are' if plural else 'is'} {topic}?", f"tell me {topic}.", f"can you name {topic}?"]
    return tuple(dict.fromkeys(capital(o) for o in out if o and capital(o) != q))


def topic(question: str) -> str:
    """What a question is about, for the dim line: "What is the capital of Australia?" -> "capital of Australia"."""
    q = re.sub(r"^(what|who|where|when)'?s\b", r"\1 is", plain(core(question)), flags=re.I).rstrip("?.! ")
    m = re.match(rf"(what|who|where|when|how \w+) ({BE}) (.+)$", q, re.I)
    if not m:
        return flip(q[:1].lower() + q[1:])
    rest = re.sub(r" (?:called|named)$", "", m[3])
    if rest == m[3] and re.search(rf"^(?:i|we)\b| (?:{DONE}|allergic to)$", rest, re.I):
        me, _, tail = rest.rpartition(" ") if not re.match(r"(?:i|we)\b", rest, re.I) else ("I", "", rest.partition(" ")[2])
        return flip(f"{m[1].lower()} {me} {m[2]} {tail}".strip())
    return flip(re.sub(r"^the ", "", rest, flags=re.I))
