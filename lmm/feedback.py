"""Is a user's turn nothing, a statement, or a correction of the last answer? If the latter, what is to be learned?

Rules only: no model, the same result every time, well under a millisecond a turn. In doubt nothing is read, because
`/teach` and `/correct` are always there, while a lesson nobody asked for has to be found and undone.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from lmm import feedback_facts as facts
from lmm import feedback_replies as replies
from lmm import feedback_rules as rules
from lmm.errors import UsageError
from lmm.memory.base import Lesson

MAX_TEXT = 2000  # characters of a turn; longer ones are pasted text
MAX_VALUE = facts.MAX_VALUE


@dataclass(frozen=True)
class Exchange:
    """The question before this turn, and the reply it got."""

    user: str
    assistant: str


@dataclass(frozen=True)
class Reading:
    """What a turn was read as. `lesson` is None if and only if `kind` is "nothing".

    `value` is what the reply must contain, `questions` are other wordings of `lesson.prompt`, `summary` fits a line
    ("capital of Australia -> Canberra"), `why` names the rule.
    """

    kind: Literal["nothing", "statement", "correction"]
    lesson: Lesson | None = None
    value: str = ""
    questions: tuple[str, ...] = ()
    summary: str = ""
    why: str = ""


def read(text: str, last: Exchange | None = None) -> Reading:
    """Read one user turn; `last` is the exchange before it. Never raises on any text."""
    reason = unreadable(text)
    if reason:
        return Reading("nothing", why=reason)
    line = rules.plain(text)
    reason = blocked(line)
    if reason:
        return Reading("nothing", why=reason)
    if last is not None and not unreadable(last.user):
        last = Exchange(last.user, last.assistant[:MAX_TEXT])
        reading = read_correction(text, line, last)
        if reading:
            return reading
    return read_statement(text, line) or Reading("nothing", why="no rule applies")


def lesson_for(question: str, value: str) -> Lesson:
    """The lesson that `question` is to be answered with `value`, phrased as a reply would read.

    A value that is a sentence already stays as it is. Raises UsageError if one of them is empty.
    """
    question, value = question.strip(), value.strip()
    if not question or not value:
        missing = "question" if not question else "answer"
        raise UsageError(f"the {missing} is empty; expected both: /teach QUESTION => ANSWER")
    full = re.search(r"[.!?]$", value) and " " in value or re.search(r"\n|\b(?:is|are|was|were)\b", value)
    answer = value if full or len(value) > MAX_VALUE or len(question) > MAX_TEXT else replies.answer_to(question, value)
    return Lesson(prompt=question, answer=answer)


# ------------------------------------------------------------------ what teaches nothing
def unreadable(text: str) -> str:
    """Why a text is no single line of typed words, or ""."""
    if not text.strip():
        return "empty"
    if len(text) > MAX_TEXT:
        return "too long"
    if any(unicodedata.category(c) in ("Cc", "Cs", "Co", "Cn") and c not in "\n\r\t" for c in text):
        return "control characters"
    if len([line for line in text.splitlines() if line.strip()]) > 1:
        return "several lines"
    if len(text.split()) > 60 or max(map(len, text.split())) > MAX_VALUE:
        return "pasted text"
    letters = [c for c in text if c.isalpha()]
    if not letters and not any(c.isdigit() for c in text):
        return "no words"
    if sum("LATIN" not in unicodedata.name(c, "") for c in letters) > 0.2 * len(letters):
        return "not English"
    return ""


BLOCKS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("code", re.compile(r"```|[{}]|==|\S\(|\w\(\)|^\s*[$>#]|^\s*(?:[-*•]|\d+[.)]) |https?://|\s=\s|\bSELECT\b|</?\w+>|;$|\bTraceback\b|\b[A-Z]\w*Error\b")),
    ("irony", re.compile(r"\b(?:lol|lmao|rofl|haha\w*|hehe|jk|just kidding|only kidding|yeah right|santa claus|just joking)\b|(?:^|\s)/s\b|[;:]-?[)P]|[😂🤣😜😉🙃😏]|\bqueen of england\b|^sure, and\b", re.I)),
    ("hypothetical", re.compile(r"\b(?:if|suppose|supposing|imagine|assuming|assume|pretend|hypothetical(?:ly)?|perhaps|maybe|might|may be|could|wish|unless|let's say|what if|possibly|in a world|probably|pretending)\b|^say\b|^let \w\b|^when i am\b|\bwould (?!be\b|like to be called)|\b(?:i|it|name) would be\b(?! called)", re.I)),
    ("fiction", re.compile(r"\b(?:in|for|of|from) (?:my|the|this|a|our|his|her) (?:new )?(?:novel|film|movie|book|story|game|song|show|play|dream|poem|series|comic|campaign|script)\b|\b(?:character|protagonist|horoscope|song goes|lyrics?|villain)\b|\bonce upon\b", re.I)),
    ("reported", re.compile(r"(?<!\bi )(?<!\bi have )\b(?:said|says|saying|told|tells|thinks|thought|believes?d?|claims?|claimed|insists?|wrote|writes|reckons|swears|argues|heard|mentioned)\b(?! me to remember)"
                            r"|\baccording to\b|\bi (?:read|heard|thought|saw|dreamt|dreamed)\b|\bapparently\b|\brumou?r|\bsupposedly\b|\ballegedly\b|\b(?:people|they|some|you) (?:say|think|claim|said)\b|\b(?:the|this) (?:text|prompt|article|page|email|sign|label|log|output) (?:was|is|reads|says|goes)\b", re.I)),
)  # fmt: skip
CLAUSE_QUOTE = re.compile(r"\"[^\"]*\b(?:i|my|is|am|are|was|i'm|me|we|our)\b[^\"]*\"|(?:^|\s)'[^']*\b(?:i|my|is|am|are|was)\b[^']*'|^\"[^\"]+\"[.!]?$", re.I)
FOREIGN_CUE = re.compile(r"^(?:nein|non|nee|não|nej|nie|oui|ja|hola|ciao|bonjour)\b", re.I)


def blocked(line: str) -> str:
    """Why a whole turn teaches nothing whatever it contains, or ""."""
    own = re.sub(r"\bi (?:think|reckon) you will find\b|\bi (?:already )?(?:said|told you)\b", "", line, flags=re.I)
    for why, pattern in BLOCKS:
        if pattern.search(own):
            return why
    if CLAUSE_QUOTE.search(line):
        return "quotation"
    tokens = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", line)
    foreign = sum(t in rules.FOREIGN for t in tokens)
    english = sum(t.lower() in rules.ENGLISH for t in tokens)
    return "not English" if FOREIGN_CUE.match(line) or (foreign and foreign >= english) else ""


ASKS = re.compile(
    r"(?:what|who|whom|whose|where|when|which|why|how|is|are|was|were|do|does|did|can|could|would|will|shall|should|have|has|am|may|isn't|aren't|don't you|doesn't)\b"
    r"|(?:i|we) (?:am |was |were )?(?:wonder|asking|curious)|(?:and|so|but|or) (?:what|who|where|when|how|why)\b|remind me|any idea",
    re.I,
)
TAG = re.compile(r"(?:, ?(?:right|no|correct|eh|huh|why|yes|true|ok|okay)|,? (?:isn't it|is not it|is it not|is it|don't you think|innit|what again|or not))[.!]?$", re.I)


def is_question(clause: str) -> bool:
    return clause.rstrip().endswith("?") or bool(ASKS.match(clause) or TAG.search(clause))


POLITE = re.compile(
    r"^(?:(?:hi|hello|hey|yo|hiya|good (?:morning|evening|afternoon)|ok(?:ay)?|cool|great|nice|thanks(?: a lot)?|thank you|good to know|yes|yeah|yep|sure|oh|ah|alright|so|and|also|well|"
    r"sorry|typo|actually|in fact|hm+|um+|btw|by the way|no|nope|anyway|haha|please|look|listen|from now on|just to be clear|to be clear|one more thing|correction|i (?:already )?(?:told you|said)(?: that)?)\b(?: (?:there|all|everyone|everybody))?\s*(?:[,.!:;-]+\s*|\s+(?=\S)))+",
    re.I,
)
TEACH = re.compile(
    r"^(?:(?:please|can you|could you|will you|i want you to|i would like you to|i need you to|you should|you must|always|do)\s+)*"
    r"(?:remember|note|keep in mind|bear in mind|do not forget|don't forget|never forget|learn|memori[sz]e|save|store|know|take note|make a note)(?: for (?:later|next time|me))?"
    r"(?: (?:this|that|the following|it)\b)*\s*[:,-]?\s*(?:that )?(?=\S)"
    r"|^(?:fyi|for your information|for the record|for (?:future )?reference|for later|just so you know|so you know|let me teach you (?:something|this)|"
    r"here is (?:a fact|something to remember)|fact|note to self|note|reminder|from now on|psa|heads up|you should know that|let me tell you|i want you to know that|i need you to know that)\s*[:,-]*\s*(?:that )?(?=\S)",
    re.I,
)


# ------------------------------------------------------------------ statements
def read_statement(text: str, line: str) -> Reading | None:
    parts = rules.sentences(line)
    if len(parts) > 4:
        return None
    for part in parts:
        fact, why = statement_fact(part)
        if fact:
            return _reading("statement", text, fact.questions[0], fact.answer, fact.value, fact.questions[1:], f"{why}: {fact.why}")
    return None


def statement_fact(part: str) -> tuple[facts.Fact | None, str]:
    """The fact in one sentence; a teaching cue ("remember that ...") lets more through."""
    clause = POLITE.sub("", part).strip()
    clause = re.sub(r"^((?:my|our|the) .+?) (is|are) not ([^,.]+?),? (?:but|it is|they are) (.+)$", r"\1 \2 \4", clause, flags=re.I)
    clause = re.sub(r"(?<!\bdo)(?<!\bis)(?<!\bare)(?<!\bwas)(?<!does)(?<!\bdid)(?<!were)(?<=\w),? not (?!(?:eat|drink|like|stand|tolerate|speak|drive|smoke|wear)\b)[^,]+$", "", clause)
    cue = TEACH.match(clause) or TEACH.match(part)
    if cue:
        inner = POLITE.sub("", (clause if TEACH.match(clause) else part)[cue.end() :])
        polite_request = re.match(r"(?:can|could|will) you\b", clause, re.I)
        if (inner.rstrip().endswith("?") and not polite_request) or re.match(r"(?:to|how|what|when|where|why|me|who|it|this|by)\b", inner, re.I):
            return None, ""
        return facts.fact_of(inner.rstrip("?"), taught=True), "told to remember"
    if is_question(clause) or (rules.words(clause)[:1] or [""])[0] in rules.COMMANDS:
        return None, ""
    return facts.fact_of(clause), "statement"


def _reading(kind: Literal["statement", "correction"], text: str, prompt: str, answer: str, value: str, questions: tuple[str, ...], why: str) -> Reading | None:
    if value.lower() not in answer.lower():
        return None
    lesson = Lesson(prompt=prompt, answer=answer, statement=text.strip())
    return Reading(kind, lesson, value, questions, f"{replies.topic(prompt)} -> {value}", why)


# ------------------------------------------------------------------ corrections
CUE = re.compile(
    r"^(?:(?P<neg>no+|nope|nah|nay|naw|wrong(?: again| answer)?|incorrect|false|untrue|not (?:quite|right|exactly|correct|true|really)|"
    r"(?:that|this|it)(?: is|'s)? (?:a mistake|an error|not (?:quite )?(?:right|correct|true|it)|wrong|incorrect|false)|you are (?:wrong|mistaken|incorrect)|"
    r"you (?:got|have|had) (?:that|it|this) wrong|you (?:made a|are making a) mistake|you (?:mixed|mix|messed) (?:that|it|this|them|something) up|close(?: enough)?|almost|nearly|(?:small |quick )?correction|not)"
    r"|(?P<act>actually|in fact|in truth|rather|(?:i am )?(?:pretty|quite|very|fairly|absolutely)? ?(?:sure|certain|positive)(?: that)?(?= (?:it|that|he|she|they|the)\b)|i think you will find(?: that)?|(?:everyone|everybody|anyone) knows(?: that)?|as far as i know|"
    r"i (?:already )?(?:said|told you)(?: that)?|(?:do not|don't) you remember|are you (?:sure|certain)(?: about that)?|really|you know|remember)"
    r"|(?P<self>sorry|oops|whoops|my bad|my mistake|typo|i mean|i mistyped|i misspoke|i made a mistake)|(?P<fill>but|well|oh|hm+|um+|uh|er+|erm|so|and|yes|ok|okay|thanks|hey|though|guys?))"
    r"(?:\s*[,.!?:;-]+\s*|\s+|$)",
    re.I,
)
YES = re.compile(r"^(?:yes|yeah|yep|right|correct|exactly|indeed|true|agreed|thanks)\b", re.I)
CHATTER = rules.word_set(
    "thanks thank thx please way problem idea worries need matter shorter longer again more less stop try don't do not never mind forget it's "
    "tell ask explain make use give show write say add google check look think because i'm i you it that this those these something nothing else another "
    "other better simpler funnier first second third last next why how who what when where if then just only enough there offense offence doubt chance joke "
    "comment shame deal clue rush pressure change changed used window pity mess luck pain kidding good fine ok okay right wrong same one ones both neither all none any some maybe translate continue go keep wait let lets let's want meant mean asked "
    "really way bueno gracias danke sorry is isn't isnt yes yeah no nope answer question bad kind pun thats that's but however"
)


def read_correction(text: str, line: str, last: Exchange) -> Reading | None:
    """A correction of the last answer, or of the user's own last statement; None if it is neither."""
    if YES.match(line) or is_question(rules.sentences(line)[-1]):
        return None
    cues, rest = strip_cues(line)
    rest = re.sub(r"^(?:that|this) (?:would be|should be|should have been|has to be|must be)\b|^it (?:should be|should have been|must be|has to be)\b", "it is", rest, flags=re.I)
    if not rest or is_question(rest) and not re.match(r"is (?!it)", rest):
        return None
    own = own_statement(last.user)
    if own:
        return _self_correction(text, cues, rest, own)
    question = replies.core(last.user)
    if not replies.is_factual(last.user):
        return None
    forgotten = re.match(r"you (?:forgot|missed|left out|omitted|did not mention|skipped)(?: about)? (?P<v>.+)$", rest, re.I)
    if forgotten:
        return _forgotten(text, question, last.assistant, rules.trim(forgotten["v"]))
    found = corrected(cues, rest, question, last.assistant)
    if found is None:
        return None
    phrase, wrong = found
    phrase = replies.like(phrase, question, last.assistant)
    value = rules.bare(phrase)
    if not 0 < len(value) <= MAX_VALUE or (_within(value, last.assistant) and not wrong and not _within(value, question)):
        return None
    answer = replies.answer_to(question, phrase, last.assistant, wrong)
    return _reading("correction", text, question, answer, value, replies.reworded(question), "correction: " + "+".join(sorted(cues) or ["plain"]))


def strip_cues(line: str) -> tuple[set[str], str]:
    """({"neg", "act", "self"}, what is left): "no, actually it's X" -> ({"neg", "act"}, "it is X")."""
    cues: set[str] = set()
    rest = line.strip()
    while m := CUE.match(rest):
        if m["neg"] and m["neg"].lower() == "not" or m["self"] and m["self"].lower() == "i mean":
            break
        after = rest[m.end() :]
        glued = m[0][-1:] == " " and not re.search(r"[,.!?:;-]\s*$", m[0])
        if m["neg"] and not re.match(r"n", m["neg"], re.I) and glued and not re.match(r"[A-Z\d]|(?:it|that|the|he|she|they|there|but|in fact|actually|its)\b", after):
            break  # "wrong book", "almost there"
        cues |= {k for k, v in m.groupdict().items() if v and k != "fill"}
        rest = rest[m.end() :].strip()
    return cues, rest


def own_statement(said: str) -> facts.Fact | None:
    """The fact in the user's own last turn, if that taught one."""
    line = rules.plain(said)
    if blocked(line) or is_question(line):
        return None
    return next((fact for part in rules.sentences(line)[:3] if (fact := statement_fact(part)[0])), None)


def _self_correction(text: str, cues: set[str], rest: str, own: facts.Fact) -> Reading | None:
    """The user puts their own last statement right: "sorry, I meant Oslo" after "I live in Bergen"."""
    meant = re.match(r"i mean(?:t)?(?: to say| to type)? (?P<v>.+)$", rest, re.I) or re.match(r"(?P<v>.+?),? i mean(?:t)?[.!]*$", rest, re.I)
    it = re.match(r"it (?:is|was|should be|is actually) (?:actually )?(?:(?:in|on|at|called) )?(?P<v>.+)$", rest, re.I)
    again, _ = statement_fact(rest)
    if again and again.questions[0] == own.questions[0] and again.value.lower() != own.value.lower():
        fact = again
        return _reading("correction", text, fact.questions[0], fact.answer, fact.value, fact.questions[1:], "correction of own statement")
    m = meant or (it if cues else None)
    phrase = rules.trim(m["v"]) if m else rest.rstrip(".!") if "self" in cues and len(rest.split()) <= 3 and not again else ""
    value = rules.bare(re.sub(r"^(?:it is|that is) ", "", re.sub(r",? not\b.*$", "", phrase)))
    if not value or set(rules.words(value)) & (CHATTER | rules.TRANSIENT) or len(value) > MAX_VALUE or len(value.split()) > 6:
        return None
    value = rules.as_name(value) if rules.is_proper(own.value) else value
    answer = re.sub(rf"(?<!\w){re.escape(own.value)}(?!\w)", lambda _: value, own.answer, count=1, flags=re.I)
    return None if value not in answer else _reading("correction", text, own.questions[0], answer, value, own.questions[1:], "correction of own statement")


def _forgotten(text: str, question: str, reply: str, value: str) -> Reading | None:
    first = (rules.words(value) or ["the"])[0]
    if len(value.split()) > 4 or first in CHATTER | {"to", "the", "a", "about", "my", "your", "half"} or _within(value, reply) or not replies.runs(reply, replies.known_words(question)):
        return None
    said = (rules.sentences(reply) or [reply])[0].rstrip(".! ")
    parts = re.match(r"(?P<a>.+?),? and (?P<b>[^,]+?)(?P<c> (?:is|are|was|were) .+)?$", said)
    answer = f"{parts['a']}, {parts['b']} and {value}{parts['c'] or ''}." if parts else f"{said} and {value}."
    return _reading("correction", text, question, answer, value, replies.reworded(question), "correction: forgotten")


def _within(value: str, text: str) -> bool:
    return bool(re.search(rf"(?<!\w){re.escape(value)}(?!\w)", rules.plain(text), re.I))


NOT_BUT: tuple[re.Pattern[str], ...] = tuple(re.compile(p, re.I) for p in (
    r"(?:it is |it was |that is |he is |she is |i said )?not (?:in |on |at )?(?P<y>[^,.!;]+?)(?:,? but|[,.!;-]+)(?: rather)? (?:(?:it|that|he|she) (?:is|was) )?(?P<x>.+)$",
    r"(?P<s>.+?) (?:is|was|are|were) not (?P<y>[^,.;]+?)(?: but|[,.;]+(?: but)?) (?:(?:it|that|he|she|they) (?:is|was|are|were) )?(?P<x>.+)$",
    r"(?:i said |i meant |i mean )?(?P<x>[^,]+?),? (?:and )?not (?:in |on |at |a |an |the )?(?P<y>[^,.!]+)(?:, (?:is|was) (?P<t>.+))?[.!]*$",
    r"(?P<x>.+?) (?:instead of|rather than) (?P<y>[^,.!]+)[.!]*$",
))  # fmt: skip


def corrected(cues: set[str], rest: str, question: str, reply: str) -> tuple[str, str] | None:
    """(right value, wrong value or ""), from what is left of the turn without its cues."""
    whole = rest
    for pattern in NOT_BUT:
        m = pattern.match(rest)
        wrong = rules.trim(m["y"]) if m else ""
        if m and wrong and _within(rules.bare(wrong), reply):
            value = _novel(m["x"], question, True)
            return (value, rules.bare(wrong)) if value else None
    if re.search(r"\bnot\b|n't\b", rest) and not re.search(r"\bnot\b", question):
        parts = rules.sentences(rest)
        rest = parts[-1] if len(parts) > 1 and re.search(r"\bnot\b|n't\b", parts[0]) and not re.search(r"\bnot\b|n't\b", parts[-1]) else ""
        if not rest:
            return None
    parts = rules.sentences(rest)
    if len(parts) > 1 and any(w in CHATTER | rules.COMMANDS for w in rules.words(parts[0])[:1]) and "neg" not in cues:
        rest = parts[-1]
    elif parts:
        rest = parts[0]
    wrong_one = re.match(r"(?P<y>[^,.]+?) (?:is|was) (?:wrong|incorrect|not (?:right|correct|it))[,.;:!]+ (?P<r>.+)$", whole, re.I)
    if wrong_one and _within(rules.bare(wrong_one["y"]), reply):
        cues, rest = cues | {"neg"}, wrong_one["r"]
    contrast = re.match(r".+? but (?P<r>\S.* (?:is|was) .+)$", rest, re.I)
    rest = contrast["r"] if contrast else rest
    m = re.match(r"(?P<v>.+?),? (?:is|was|would be) (?:the )?(?:correct|right)(?: (?:one|answer))?[.!]*$", rest, re.I)
    if m and _fits(m["v"], question, reply, 1):
        return rules.trim(m["v"]), ""
    m = re.match(r"(?P<v>.+?),? (?:you|i) mean(?:t)?[.!]*$|you mean(?:t)? (?P<w>.+)$", rest, re.I)
    if m:
        value = rules.trim(m["v"] or m["w"])
        return (value, "") if _fits(value, question, reply, 1) else None
    if re.match(r"i (?:mean|meant)\b|(?:let's|let us)\b", rest, re.I):
        return None
    return _claimed(cues, rest, question, reply)


POINTER = re.compile(r"(?:it|that|this|he|she|they|there|which|the (?:correct |right |actual |real |true )?(?:answer|one|spelling|name|word|number|date|year))"
                     r"(?: (?:is|was|are|were|will be|should be|would be|must be))(?: (?:actually|really|in fact|called|named|spelled|spelt|definitely|clearly|simply|just|always))*(?:,? in fact,)? (?P<v>.+)$", re.I)  # fmt: skip


def _same(question: str) -> str:
    return " ".join(rules.words(rules.plain(question)))


def _claimed(cues: set[str], rest: str, question: str, reply: str) -> tuple[str, str] | None:
    """The value in "it is X", "the answer is X", "X is the capital", "he was born in X", or a bare "X"."""
    fact, _ = statement_fact(rest)
    if fact and _same(question) in map(_same, fact.questions):
        return fact.value, ""
    pointer = POINTER.match(rest)
    answer = re.match(r"the (?:\w+ )?(?:answer|spelling)", rest, re.I)
    if pointer:
        value = _novel(pointer["v"], question, bool(cues or answer))
        return (value, "") if value and _fits(value, question, reply, 0 if answer else 1 if cues else 2) else None
    clause = re.match(r"(?P<s>.+?) (?:is|was|are|were|did|does|has|have|am|[a-z]+ed|[a-z]{3,}s|live|speak|work|wrote|made|won|led)\b", rest)
    subject = re.match(r"(?:i|my|we|our)\b", rest, re.I)
    if subject and not re.search(r"\b(?:i|my|we|our|me)\b", question, re.I):
        return None
    if clause and len(rest.split()) > 1:
        about = set(map(replies.stem, rules.words(rest))) & (replies.known_words(question) - replies.FUNCTION)
        pronoun = re.match(r"(?:he|she|they|it|there|i|we|her|his|their|its)\b", rest, re.I) and cues
        value = _novel(rest, question, bool(cues)) if about or pronoun or re.search(r" (?:did|does)[.!]*$", rest) else ""
        return (value, "") if value and _fits(value, question, reply, 1 if about or cues else 2) else None
    if not cues & {"neg", "act"}:
        return None
    value = re.sub(r"^(?:in|on|at|by|from) ", "", rules.trim(rest)) if re.match(r"(?:where|when|who|in |on )|what (?:year|day|date|time)|how is", question, re.I) else rules.trim(rest)
    return (value, "") if _fits(value, question, reply, 3) else None


def _novel(clause: str, question: str, loose: bool) -> str:
    """The one stretch of a clause that the question did not hold, with its article; "" if there is none or several."""
    clause = rules.trim(re.sub(r"^.*,? er,? | since \d+.*$", "", clause))
    known = replies.known_words(question)
    found = replies.runs(clause, known)
    if len(found) > 1:
        solid = [s for s in found if replies.shape(clause[slice(*s)]) != "word"]
        doubtful = any(w in rules.TRANSIENT for s in found if s not in solid for w in rules.words(clause[slice(*s)]))
        found = solid if len(solid) == 1 and not doubtful else found
    if len(found) != 1:
        whole = rules.bare(clause)
        return whole if loose and found == [] and len(whole.split()) <= 3 and re.search(r"\bspell", question) else ""
    start, end = found[0]
    article = re.search(r"\b(?:an?|the) $", clause[:start], re.I)
    if rules.words(clause[start:end]) and replies.is_factual(question):
        start = article.start() if article else start
    return clause[start:end] if len(clause[end:].strip(" \"'.!)")) < 40 else ""


def _fits(value: str, question: str, reply: str, strict: int) -> bool:
    """Could this be what the question asked for? `strict`: 0 after "the answer is" ... 3 for a bare "no, X"."""
    found = rules.words(rules.bare(value))
    if not found or len(value) > MAX_VALUE or len(found) > (MAX_BARE if strict == 3 else facts.MAX_WORDS):
        return False
    kind = replies.shape(rules.bare(value))
    there = replies.wrong_span(question, reply, value)
    old = there[0][slice(*there[1])] if there else ""
    if old and strict and rules.TIME.match(value) and not re.search(r"\d", value) and not rules.TIME.search(old):
        return False
    if strict and old and kind == "word" and replies.shape(old) != "word" and re.match(r"an? ", value):
        return False
    title = len(found) > 1 and all(w[:1].isupper() or w in ("of", "the", "de") for w in value.split())
    if title:
        return True
    odd = set(found) & CHATTER or {w.removesuffix("ly") for w in found} & rules.TRANSIENT
    if kind != "word" and not (found[0] in CHATTER | rules.COMMANDS | rules.TRANSIENT):
        return True
    if odd or found[0] in rules.COMMANDS or strict and re.match(r"\w{3,}ed$", found[0]) or strict == 2 and kind == "word":
        return False
    if strict == 3 and re.match(r"(?:in|on|at|to|for|with|about|like|as|by|from|an?)\b", value, re.I):
        return False
    if re.match(r"how (?:many|much|old|tall|high)|when\b", question, re.I) and not re.match(r"when\b", question, re.I):
        return kind == "number"
    return strict < 3 or len(found) <= 3


MAX_BARE = 6  # words of a bare "no, X"
