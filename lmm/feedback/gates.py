"""What teaches nothing: questions, commands, hypotheticals, quotations, code, irony, other languages."""

from __future__ import annotations

import re
import unicodedata

from lmm.feedback import words
from lmm.feedback.facts import MAX_VALUE
from lmm.feedback.words import anycase

MAX_TEXT = 2000  # characters of a turn; longer ones are pasted text


def unreadable(text: str) -> str:
    """Why a text is no single line of typed words, or ""."""
    if not text.strip():
        return "empty"
    if len(text) > MAX_TEXT:
        return "too long"
    if any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn") and c not in "\n\r\t\u200d" for c in text):
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


BLOCKS = {
    "code": re.compile(
        r"```|`[^`]*(?: is |=)[^`]*`|[{}]|==|\S\(|\w\(\)|^\s*[$>#]|^\s*(?:[-*•]|\d+[.)]) |https?://|\s=\s|\bSELECT\b"
        r"|</?\w+>|;$|\bTraceback\b|\b[A-Z]\w*Error\b"
    ),
    "irony": anycase(
        r"\b(?:lol|lmao|rofl|haha\w*|hehe|jk|just kidding|only kidding|yeah right|santa claus"
        r"|just joking)\b|(?:^|\s)/s\b|[;:]-?[)P]|[😂🤣😜😉🙃😏]|\bqueen of england\b|^sure, and\b"
    ),
    "hypothetical": anycase(
        r"\b(?:if|suppose|supposing|imagine|assuming|assume|pretend|hypothetical(?:ly)?|perhaps|maybe|might|may be"
        r"|could|wish|unless|let's say|what if|possibly|in a world|probably|pretending)\b|^say\b|^let \w\b"
        r"|^when i am\b|\bwould (?!be\b|like to be called)|\b(?:i|it|name) would be\b(?! called)"
    ),
    "fiction": anycase(
        r"\b(?:in (?:my|the|this|a|our|his|her)|(?:for|of|from) (?:my|a|our)) (?:new )?(?:novel|film|movie|book"
        r"|story|game|song|show|play|dream|poem|series|comic|campaign|script)\b|\b(?:character|protagonist"
        r"|horoscope|song goes|lyrics?|villain)\b|\bonce upon\b"
    ),
    "reported": anycase(
        r"(?<!\bi )(?<!\bi have )\b(?:said|says|saying|told|tells|thinks|thought|believes?d?|claims?"
        r"|claimed|insists?|reckons|swears|argues|heard|mentioned)\b(?! me to remember)"
        r"|\b(?:wrote|writes)(?: that\b|:| ?['\"])"
        r"|\baccording to\b|\bi (?:read|heard|thought|saw|dreamt|dreamed)\b|\bapparently\b|\brumou?r"
        r"|\bsupposedly\b|\ballegedly\b|\b(?:people|they|some|you) (?:say|think|claim|said)\b"
        r"|\b(?:the|this) (?:text|prompt|article|page|email|sign|label|log|output) (?:was|is|reads"
        r"|says|goes)\b"
    ),
}
CLAUSE_QUOTE = anycase(
    r"\"[^\"]*\b(?:i|my|is|am|are|was|i'm|me|we|our)\b[^\"]*\"|(?:^|\s)'[^']*\b(?:i|my|is|am|are"
    r"|was)\b[^']*'|^\"[^\"]+\"[.!]?$"
)
FOREIGN_CUE = anycase(r"^(?:nein|non|nee|não|nej|nie|oui|ja|hola|ciao|bonjour)\b")


def blocked(line: str) -> str:
    """Why a whole turn teaches nothing whatever it contains, or ""."""
    own = re.sub(r"\bi (?:think|reckon) you will find\b|\bi (?:already )?(?:said|told you)\b", "", line, flags=re.I)
    own = re.sub(r"\bnot what(?:ever)? you (?:just )?(?:said|told me|claimed)\b", "", own, flags=re.I)
    for why, pattern in BLOCKS.items():
        if pattern.search(own):
            return why
    if CLAUSE_QUOTE.search(line):
        return "quotation"
    tokens = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", line)
    foreign = sum(t in words.FOREIGN for t in tokens)
    english = sum(t.lower() in words.ENGLISH for t in tokens)
    return "not English" if FOREIGN_CUE.match(line) or (foreign and foreign >= english) else ""


ASKS = anycase(
    r"(?:what|who|whom|whose|where|when|which|why|how|is|are|was|were|do|does|did|can|could"
    r"|would|will|shall|should|have|has|am|may|isn't|aren't|don't you|doesn't)\b"
    r"|(?:i|we) (?:am |was |were )?(?:wonder|asking|curious)|(?:and|so|but|or) (?:what|who|where"
    r"|when|how|why)\b|remind me|any idea"
)
TAG = anycase(
    r"(?:, ?(?:right|no|correct|eh|huh|why|yes|true|ok|okay)|,? (?:isn't it|is not it|is it not"
    r"|is it|don't you think|innit|what again|or not|then))[.!]?$"
)


def is_question(clause: str) -> bool:
    return clause.rstrip().endswith("?") or bool(ASKS.match(clause) or TAG.search(clause))


POLITE = anycase(
    r"^(?:(?:hi|hello|hey|yo|hiya|good (?:morning|evening|afternoon)|ok(?:ay)?|cool|great|nice|thanks(?: a lot)?"
    r"|thank you|good to know|yes|yeah|yep|sure|oh|ah|alright|so|and|also|well|sorry|typo|actually|in fact|hm+|um+|btw"
    r"|by the way|no|nope|anyway|haha|please|look|listen|from now on|just to be clear|to be clear|one more thing"
    r"|correction|i (?:already )?(?:told you|said)(?: that)?)\b(?: (?:there|all|everyone"
    r"|everybody))?\s*(?:[,.!:;-]+\s*|\s+(?=\S)))+"
)
TEACH = anycase(
    r"^(?:(?:please|can you|could you|will you|i want you to|i would like you to|i need you to"
    r"|you should|you must|always|do)\s+)*"
    r"(?:remember|note|keep in mind|bear in mind|do not forget|don't forget|never forget|learn"
    r"|memori[sz]e|save|store|know|take note|make a note)(?: for (?:later|next time|me))?"
    r"(?: (?:this|that|the following|it)\b)*\s*[:,-]?\s*(?:that )?(?=\S)"
    r"|^(?:fyi|for your information|for the record|for (?:future )?reference|for later"
    r"|just so you know|so you know|let me teach you (?:something|this)"
    r"|here is (?:a fact|something to remember)|fact|note to self|note|reminder|from now on|psa"
    r"|heads up|you should know that|let me tell you|i want you to know that"
    r"|i need you to know that)\s*[:,-]*\s*(?:that )?(?=\S)"
)
