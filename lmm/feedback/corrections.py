"""Corrections of the last answer, or of what the user said last."""

from __future__ import annotations

import re
from dataclasses import replace

from lmm.feedback import grammar, replies, spans, words
from lmm.feedback.facts import MAX_VALUE, MAX_WORDS, Fact
from lmm.feedback.gates import blocked, is_question
from lmm.feedback.reading import Exchange, Reading, reading
from lmm.feedback.statements import statement_fact
from lmm.feedback.words import anycase

CUE = anycase(
    r"^(?:(?P<neg>no+|nope|nah|nay|naw|wrong(?: again| answer)?|incorrect|false|untrue"
    r"|(?:you are )?off by [\w ]+|not (?:quite|right|exactly|correct|true|really)|"
    r"(?:that|this|it)(?: is|'s)? (?:a mistake|an error|not (?:quite )?(?:right|correct|true|it)"
    r"|wrong|incorrect|false)|you are (?:wrong|mistaken|incorrect)|"
    r"you (?:got|have|had) (?:that|it|this) wrong|you (?:made a|are making a) mistake"
    r"|you (?:mixed|mix|messed) (?:that|it|this|them|something) up"
    r"|(?:please )?(?:try|think) again(?=\s*[:-]\s*\S)|close(?: enough)?|almost"
    r"|nearly|(?:small |quick )?correction|not)"
    r"|(?P<act>actually|in fact|in truth|rather|(?:i am )?(?:pretty|quite|very|fairly"
    r"|absolutely)? ?(?:sure|certain|positive)(?: that)?(?= (?:it|that|he|she|they|the)\b)"
    r"|i think you will find(?: that)?|(?:everyone|everybody|anyone) knows(?: that)?"
    r"|as far as i know|"
    r"i (?:already )?(?:said|told you)(?: that)?|(?:do not|don't) you remember|are you (?:sure"
    r"|certain)(?: about that)?|really|you know|remember)"
    r"|(?P<self>sorry|oops|whoops|my bad|my mistake|typo|i mean|i mistyped|i misspoke"
    r"|i made a mistake)|(?P<fill>i am afraid(?: that(?= (?:it|he|she|they|the)\b))?"
    r"|but|wait|well|oh|hm+|um+|uh|er+|erm|so|and|yes|ok|okay|thanks"
    r"|hey|though|guys?))"
    r"(?:\s*[,.!?:;-]+\s*|\s+|$)"
)
MAX_BARE = 6  # words of a bare "no, X"
YES = anycase(r"^(?:yes|yeah|yep|right|correct|exactly|indeed|true|agreed|thanks)\b")
CHATTER = words.word_set(
    "thanks thank thx please way problem idea worries need matter shorter longer again more less stop try don't "
    "do not never mind forget it's tell ask explain make use give show write say add google check look think "
    "because i'm i you it that this those these something nothing else another other better simpler funnier first "
    "second third last next why how who what when where if then just only enough there offense offence doubt "
    "chance joke anyway comment shame deal clue rush pressure change changed used window pity mess luck pain "
    "kidding good fine ok okay right wrong same one ones both neither all none any some maybe translate continue "
    "go keep wait let lets let's want meant mean asked really way bueno gracias danke sorry is isn't isnt yes "
    "yeah no nope answer question bad kind pun thats that's but however bye goodbye goodnight cheers hello hi hey "
    "damn ouch mate dude bro exactly honestly nevermind wow nonsense rubbish said u lol haha ugh seriously clearly "
    "obviously definitely absolutely"
)


def read_correction(text: str, line: str, last: Exchange) -> Reading | None:
    """A correction of the last answer, or of the user's own last statement; None if it is neither."""
    line = re.sub(r"^(?=(?:should|ought to|must|has to) (?:be|have been)\b)", "it ", line, flags=re.I)
    if YES.match(line) or is_question(grammar.sentences(line)[-1]):
        return None
    cues, rest = strip_cues(grammar.repaired(line))
    late = re.match(r"(?P<r>.+?),? (?:actually|in fact)[.!]*$", rest, re.I)
    if late:
        cues, rest = cues | {"act"}, late["r"]
    cues, rest = _said_plainly(cues, rest, replies.core(last.user))
    if not rest or (is_question(rest) and not re.match(r"is (?!it)", rest)):
        return None
    own = own_statement(last.user)
    if own:
        return _self_correction(text, cues, rest, own)
    question = replies.core(last.user)
    if not replies.is_factual(last.user):
        return None
    forgotten = FORGOTTEN.match(rest)
    if forgotten:
        return _forgotten(text, question, last.assistant, grammar.trim(forgotten["v"]))
    found = corrected(cues, rest, question, last.assistant)
    if found is None:
        return None
    phrase, wrong = found
    if grammar.RELATIVE.search(phrase):
        return None
    phrase = spans.like(phrase, question, last.assistant)
    value = grammar.bare(phrase)
    said_already = not wrong and _within(value, last.assistant) and not _within(value, question)
    if not 0 < len(value) <= MAX_VALUE or said_already:
        return None
    answer = replies.answer_to(question, phrase, last.assistant, wrong, rest)
    return _put_right(text, question, answer, value, "+".join(sorted(cues) or ["plain"]))


def _put_right(text: str, question: str, answer: str, value: str, why: str) -> Reading | None:
    fact = Fact((question, *replies.reworded(question)), answer, value, why)
    return reading("correction", text, fact, f"correction: {why}")


FORGOTTEN = anycase(r"you (?:forgot|missed|left out|omitted|did not mention|skipped)(?: about)? (?P<v>.+)$")
OUGHT = anycase(
    r"(?:(?:that|this) would be|(?:(?:that|this|it) )?(?:should be|should have been|ought to be|has to be|must be))\b"
)
BEFORE = anycase(
    r"(?P<s>it|that|he|she|they|the .+?) (?:(?:was|were|had) .+? (?:before|once|earlier|until .+?|in the past)"
    r"|used to be .+?)[,;]* (?:(?:but|and) )?(?:now|since .+?|today|nowadays|these days),? (?P<r>.+)$"
)


def _said_plainly(cues: set[str], rest: str, question: str) -> tuple[set[str], str]:
    """Other ways to say "no, it is X" in the words of that one."""
    ought = OUGHT.match(rest)
    if ought:
        return cues, "it is" + rest[ought.end() :]
    before = BEFORE.match(rest)
    if before and (" " not in before["s"] or known_in(before["s"], question)):
        return cues | {"act"}, before["r"]
    said = re.match(r"(?P<r>.+?),? (?:and )?not what(?:ever)? you (?:just )?(?:said|told me|claimed)[.!]*$", rest, re.I)
    return (cues | {"neg"}, said["r"]) if said else (cues, rest)


CLAIM = re.compile(r"[A-Z\d]|(?:it|that|the|he|she|they|there|but|in fact|actually|its)\b")


def strip_cues(line: str) -> tuple[set[str], str]:
    """({"neg", "act", "self"}, what is left): "no, actually it's X" -> ({"neg", "act"}, "it is X")."""
    cues: set[str] = set()
    rest = line.strip()
    while m := CUE.match(rest):
        if (m["neg"] and m["neg"].lower() == "not") or (m["self"] and m["self"].lower() == "i mean"):
            break
        glued = m[0][-1:] == " " and not re.search(r"[,.!?:;-]\s*$", m[0])
        if m["neg"] and glued and not re.match(r"n", m["neg"], re.I) and not CLAIM.match(rest[m.end() :]):
            break  # "wrong book", "almost there"
        cues |= {k for k, v in m.groupdict().items() if v and k != "fill"}
        rest = rest[m.end() :].strip()
    return cues, rest


def own_statement(said: str) -> Fact | None:
    """The fact in the user's own last turn, if that taught one."""
    line = grammar.plain(said)
    if blocked(line) or is_question(line):
        return None
    return next((fact for part in grammar.sentences(line)[:3] if (fact := statement_fact(part)[0])), None)


def _self_correction(text: str, cues: set[str], rest: str, own: Fact) -> Reading | None:
    """The user puts their own last statement right: "sorry, I meant Oslo" after "I live in Bergen"."""
    meant = re.match(r"i mean(?:t)?(?: to say| to type)? (?P<v>.+)$", rest, re.I) or re.match(
        r"(?P<v>.+?),? i mean(?:t)?[.!]*$", rest, re.I
    )
    it = re.match(r"it (?:is|was|should be|is actually) (?:actually )?(?:(?:in|on|at|called) )?(?P<v>.+)$", rest, re.I)
    again, _ = statement_fact(rest)
    if again and again.questions[0] == own.questions[0] and again.value.lower() != own.value.lower():
        return reading("correction", text, again, "correction of own statement")
    m = meant or (it if cues else None)
    phrase = grammar.trim(m["v"]) if m else ""
    if not m and "self" in cues and len(rest.split()) <= 3 and not again:
        phrase = rest.rstrip(".!")
    value = grammar.bare(re.sub(r"^(?:it is|that is) ", "", re.sub(r",? not\b.*$", "", phrase)))
    odd = set(grammar.tokens(value)) & (CHATTER | words.TRANSIENT)
    if not value or odd or len(value) > MAX_VALUE or len(value.split()) > MAX_BARE:
        return None
    value = grammar.as_name(value) if grammar.is_proper(own.value) else value
    answer = re.sub(rf"(?<!\w){re.escape(own.value)}(?!\w)", lambda _: value, own.answer, count=1, flags=re.I)
    if value not in answer:
        return None
    return reading("correction", text, replace(own, answer=answer, value=value), "correction of own statement")


def _forgotten(text: str, question: str, reply: str, value: str) -> Reading | None:
    first = (grammar.tokens(value) or ["the"])[0]
    if (
        len(value.split()) > 4
        or first in CHATTER | {"to", "the", "a", "about", "my", "your", "half"}
        or _within(value, reply)
        or not spans.runs(reply, spans.known_words(question))
    ):
        return None
    said = (grammar.sentences(reply) or [reply])[0].rstrip(".! ")
    parts = re.match(r"(?P<a>.+?),? and (?P<b>[^,]+?)(?P<c> (?:is|are|was|were) .+)?$", said)
    answer = f"{parts['a']}, {parts['b']} and {value}{parts['c'] or ''}." if parts else f"{said} and {value}."
    return _put_right(text, question, answer, value, "forgotten")


def _within(value: str, text: str) -> bool:
    return bool(re.search(rf"(?<!\w){re.escape(value)}(?!\w)", grammar.plain(text), re.I))


NOT_BUT = [
    anycase(denied)
    for denied in (
        r"(?:it is |it was |that is |he is |she is |i said )?not (?:in |on |at )?(?P<y>[^,.!;]+?)(?:,? but"
        r"|[,.!;-]+)(?: rather)? (?:(?:it|that|he|she) (?:is|was) )?(?P<x>.+)$",
        r"(?P<s>.+?) (?:is|was|are|were) not (?P<y>[^,.;]+?)(?: but|[,.;]+(?: but)?) (?:(?:it|that"
        r"|he|she|they) (?:is|was|are|were) )?(?P<x>.+)$",
        r"(?:i said |i meant |i mean )?(?P<x>[^,]+?),? (?:and )?not (?:in |on |at |a |an "
        r"|the )?(?P<y>[^,.!]+)(?:, (?:is|was) (?P<t>.+))?[.!]*$",
        r"(?P<x>.+?) (?:instead of|rather than) (?P<y>[^,.!]+)[.!]*$",
    )
]


NOT = re.compile(r"\bnot\b|n't\b")


def corrected(cues: set[str], rest: str, question: str, reply: str) -> tuple[str, str] | None:
    """(right value, wrong value or ""), from what is left of the turn without its cues."""
    whole = rest
    if "act" not in cues and DENIED.match(rest) and len(grammar.sentences(rest)) == 1:
        return None
    for pattern in NOT_BUT:
        m = pattern.match(rest)
        wrong = grammar.trim(m["y"]) if m else ""
        if m and wrong and _within(grammar.bare(wrong), reply):
            right = re.sub(rf" (?:\w+ed|{replies.PAST}) (?:it|that|this|them)$", "", m["x"])  # "Picasso painted it"
            value = _novel(right, question, True)
            return (value, grammar.bare(wrong)) if value else None
    if NOT.search(rest) and not re.search(r"\bnot\b", question):
        parts = grammar.sentences(rest)
        if len(parts) < 2 or not NOT.search(parts[0]) or NOT.search(parts[-1]):
            return None
        rest = parts[-1]
    parts = grammar.sentences(rest)
    claims = [part for part in parts[1:] if re.search(r" (?:is|was|are|were|[a-z]+ed|wrote|made|won) ", part)]
    better = max(claims, key=lambda part: len(known_in(part, question)), default="")
    if better and len(known_in(better, question)) > len(known_in(parts[0], question)):
        rest, parts = better, [better]  # "No, that's the largest city. The capital is Canberra."
    chatter = len(parts) > 1 and set(grammar.tokens(parts[0])[:1]) & (CHATTER | words.COMMANDS)
    if chatter and "neg" not in cues:
        rest = parts[-1]
    elif parts:
        rest = parts[0]
    wrong_one = re.match(
        r"(?P<y>[^,.]+?) (?:is|was) (?:wrong|incorrect|not (?:right|correct|it))[,.;:!]+ (?P<r>.+)$", whole, re.I
    )
    if wrong_one and _within(grammar.bare(wrong_one["y"]), reply):
        cues, rest = cues | {"neg"}, wrong_one["r"]
    said = max(rest.split(";"), key=lambda part: len(known_in(part, question)))
    rest = said.strip() if known_in(said, question) else rest
    contrast = re.match(r".+? but (?P<r>\S.* (?:is|was) .+)$", rest, re.I)
    rest = contrast["r"] if contrast else rest
    m = re.match(r"(?P<v>.+?),? (?:is|was|would be) (?:the )?(?:correct|right)(?: (?:one|answer))?[.!]*$", rest, re.I)
    if m and _fits(m["v"], question, reply, 1):
        return grammar.trim(m["v"]), ""
    m = re.match(
        r"(?P<v>.+?),? (?:you|i) mean(?:t)?[.!]*$|(?:i (?:think|believe|guess|suppose) )?you mean(?:t)? (?P<w>.+)$",
        rest,
        re.I,
    ) or (None if _named(question) else re.match(r"i meant (?P<v>)(?P<w>[A-Z].*)$", rest, re.I))
    if m:
        value = grammar.trim(m["v"] or m["w"])
        return (value, "") if _fits(value, question, reply, 1) else None
    if re.match(r"i (?:mean|meant)\b|(?:let's|let us)\b", rest, re.I):
        return None
    return _claimed(cues, rest, question, reply)


POINTER = anycase(
    r"(?:(?P<own>mine|ours)|it|that|this|he|she|they|there|which|the (?:correct |right |actual |real |true )?(?:answer"
    r"|one|spelling|name|word|number|date|year))(?: (?:is|was|are|were|will be|should be|would be"
    r"|must be))(?: (?:actually|really|in fact|called|named|spelled|spelt|definitely|clearly|simply|just"
    r"|always))*(?:,? in fact,)? (?P<v>.+)$"
)


#: what "that" is, whatever the reply said: "No, that's the largest city", "that is my sister's name"
DENIED = anycase(r"that is (?:(?:an?|the|my|your|our|his|her|its|their|what|where|who|in|on|at|to|not)\b|\S+'s )")


def _who_did(rest: str, question: str) -> bool:
    """Asked who did it, told what else they did: "No, he wrote Bleak House"."""
    said = re.match(r"(?:he|she|they) (?P<verb>[a-z]+)\b", rest, re.I)
    return bool(said and re.match(r"who\b", question, re.I) and said["verb"].lower() in grammar.tokens(question))


def _same(question: str) -> str:
    return " ".join(grammar.tokens(grammar.plain(question)))


MEASURE = anycase(r"\d[\d.,]*(?: (?P<unit>[a-z]+))?(?: (?:high|tall|long|deep|wide|old|away))?[.!]*$")
UNIT = re.compile(
    r"(?:second|minute|hour|day|week|month|year|gram|kilo|kg|litre|liter|degree|percent)s?$|million$|billion$"
)


def _other_number(rest: str, question: str, reply: str, loose: bool) -> bool:
    """Is it a number for the number in the reply? "2210 metres" has no verb, whatever it ends in."""
    said, there = MEASURE.match(rest), spans.wrong_span(question, reply, rest)
    if not said or not there or not grammar.is_number(there[0][slice(*there[1])]):
        return False
    unit = (said["unit"] or "").lower()
    known = not unit or unit in grammar.tokens(f"{question} {reply}")
    return known or (loose and bool(replies.UNITS.match(unit) or UNIT.match(unit)))


def known_in(clause: str, question: str) -> set[str]:
    """The words of the question that a clause has too."""
    return set(map(spans.stem, grammar.tokens(clause))) & (spans.known_words(question) - spans.FUNCTION)


def _named(question: str) -> bool:
    """Is there a name or a number in the question that "I meant X" could be about?"""
    return any(re.match(r"[A-Z\d]", w) for w in question.split()[1:])


def _claimed(cues: set[str], rest: str, question: str, reply: str) -> tuple[str, str] | None:
    """The value in "it is X", "the answer is X", "X is the capital", "he was born in X", or a bare "X"."""
    fact, _ = statement_fact(rest)
    if fact and _same(question) in map(_same, fact.questions):
        return fact.value, ""
    if "act" not in cues and _who_did(rest, question):
        return None
    pointer = POINTER.match(rest)
    answer = re.match(r"the (?:\w+ )?(?:answer|spelling)", rest, re.I)
    if pointer and (not pointer["own"] or re.search(r"\b(?:my|our)\b", question, re.I)):
        value = _novel(pointer["v"], question, bool(cues or answer))
        return (value, "") if value and _fits(value, question, reply, 0 if answer else 1 if cues else 2) else None
    clause = re.match(
        r"(?P<s>.+?) (?:is|was|are|were|did|does|has|have|am|[a-z]+ed|[a-z]{3,}s|live|speak|work|wrote|made|won|led)\b",
        rest,
    )
    known = spans.known_words(question)
    clause_like = clause or any(w in known and w in words.BASES for w in grammar.tokens(rest)[1:])  # "it sank in 1912"
    subject = re.match(r"(?:i|my|we|our)\b", rest, re.I)
    if subject and not re.search(r"\b(?:i|my|we|our|me)\b", question, re.I):
        return None
    if clause_like and len(rest.split()) > 1 and not _other_number(rest, question, reply, "neg" in cues):
        about = known_in(rest, question)
        pronoun = re.match(r"(?:he|she|they|it|there|i|we|her|his|their|its)\b", rest, re.I) and cues
        whole = about or pronoun or re.search(r" (?:did|does)[.!]*$", rest)
        value = _novel(rest, question, bool(cues)) if whole else ""
        return (value, "") if value and _fits(value, question, reply, 1 if about or cues else 2) else None
    if not cues & {"neg", "act"} and not ("self" in cues and _other_number(rest, question, reply, False)):
        return None
    value = grammar.trim(rest)
    if re.match(r"(?:where|when|who|in |on )|what (?:year|day|date|time)|how is", question, re.I):
        value = re.sub(r"^(?:in|on|at|by|from) ", "", value)
    return (value, "") if _fits(value, question, reply, 3) else None


def _novel(clause: str, question: str, loose: bool) -> str:
    """The one stretch of a clause that the question did not hold, with its article; "" if there is none or several."""
    clause = grammar.trim(re.sub(r"^.*,? er,? | since \d+.*$", "", clause))
    known = spans.known_words(question)
    found = spans.runs(clause, known)
    if len(found) > 1:
        solid = [s for s in found if spans.shape(clause[slice(*s)]) != "word"]
        doubtful = any(w in words.TRANSIENT for s in found if s not in solid for w in grammar.tokens(clause[slice(*s)]))
        found = solid if len(solid) == 1 and not doubtful else found
    if len(found) != 1:
        whole = grammar.trim(re.sub(r"^.*\bspel(?:led|t) ", "", grammar.bare(clause)))
        return whole if loose and found == [] and len(whole.split()) <= 3 and re.search(r"\bspell", question) else ""
    start, end = spans.with_epithet(clause, found[0])
    article = re.search(r"\b(?:an?|the) $", clause[:start], re.I)
    start = article.start() if article else start
    return clause[start:end] if len(clause[end:].strip(" \"'.!)")) < 40 else ""


def _fits(value: str, question: str, reply: str, strict: int) -> bool:
    """Could this be what the question asked for? `strict`: 0 after "the answer is" ... 3 for a bare "no, X"."""
    found = grammar.tokens(grammar.bare(value))
    if not found or len(value) > MAX_VALUE or len(found) > (MAX_BARE if strict == 3 else MAX_WORDS):
        return False
    kind = spans.shape(grammar.bare(value))
    there = spans.wrong_span(question, reply, value)
    old = there[0][slice(*there[1])] if there else ""
    if old and strict and grammar.TIME.match(value) and not re.search(r"\d", value) and not grammar.TIME.search(old):
        return False
    if strict and old and kind == "word" and spans.shape(old) != "word" and re.match(r"an? ", value):
        return False
    if len(found) > 1 and all(w[:1].isupper() or w in ("of", "the", "de") for w in value.split()):
        return True
    odd = set(found) & CHATTER or {w.removesuffix("ly") for w in found} & words.TRANSIENT
    if kind != "word" and found[0] not in CHATTER | words.COMMANDS | words.TRANSIENT:
        return True
    if odd or found[0] in words.COMMANDS or (strict == 2 and kind == "word"):
        return False
    if strict and re.match(r"\w{3,}ed$", found[0]):
        return False
    if strict == 3 and re.match(r"(?:in|on|at|to|for|with|about|like|as|by|from|an?)\b", value, re.I):
        return False
    if re.match(r"how (?:many|much|old|tall|high)\b", question, re.I):
        return kind == "number"
    return strict < 3 or len(found) <= 3
