"""What teaches nothing, whatever it was learned to say: what no one typed, code, and facts that are framed as none."""

from __future__ import annotations

import re
import unicodedata

from lmm.feedback.facts import MAX_VALUE
from lmm.feedback.words import anycase

MAX_TEXT = 2000  # characters of a turn; longer ones are pasted text
MAX_WORDS, MAX_LINES = 150, 6


def unreadable(text: str) -> str:
    """Why a text is no message that was typed, or ""."""
    if not text.strip():
        return "empty"
    if len(text) > MAX_TEXT:
        return "too long"
    if any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn") and c not in "\n\r\t\u200d" for c in text):
        return "control characters"
    if len([line for line in text.splitlines() if line.strip()]) > MAX_LINES:
        return "several lines"
    if len(text.split()) > MAX_WORDS or max(map(len, text.split())) > MAX_VALUE:
        return "pasted text"
    return "" if any(c.isalnum() for c in text) else "no words"


VETOES = {
    "code": re.compile(
        r"```|\bSELECT\b.*\bFROM\b|</\w+>|\bTraceback\b|^\s*(?:[-*•]|>>>|\$) |\b\w+\(\"|[{;]\s*$|^`[^`]+`$"
    ),
    "a command": re.compile(r"^\s*[a-z][\w./-]*(?: [a-z][\w./-]*){0,2} --?[a-z][\w-]*(?:[ =]|$)"),
    "irony": anycase(
        r"\b(?:yeah,? right|just kidding|only kidding|just joking|jk)\b|(?:^|\s)/s\b|jajaja\b|^sure, and\b"
        r"|[,.…!]\s*(?:i['’]?m )?(?:kidding|joking)(?: aside)?[.!]*$"
    ),
    "hypothetical": anycase(
        r"^(?:(?:so|ok|and|but|hey),? )*(?:if i (?:were|was|lived|had)\b|suppose\b|supposing\b|imagine\b|pretend\b"
        r"|let'?s say\b|let us say\b|what if\b|hypothetically\b|angenommen\b|stell dir vor\b|imagine que\b|supposons\b"
        r"|supongamos\b|imagina que\b|假设|假如|想象一下)"
    ),
    "fiction": anycase(
        r"\bin (?:my|the|this|a|our) (?:new )?(?:novel|story|poem|dream|comic|screenplay)\b|\bonce upon\b"
        r"|\bin meinem (?:roman|traum)\b|\bdans mon (?:roman|rêve)\b|\ben mi (?:novela|cuento|sueño)\b|小说里"
    ),
    "asked to be put otherwise": anycase(
        r"^(?:please )?(?:translate|rewrite|rephrase|proofread|summari[sz]e|übersetz\w*|tradui\w+|traduce|翻译)\b"
    ),
    "an errand": anycase(r"^(?:(?:please|pls|ok|so|and),? )*(?:remember|don'?t forget|do not forget) to\b"),
    "not to be kept": anycase(
        r"\b(?:don'?t|do not|never) (?:you )?(?:remember|save|store|keep|note|learn|memori[sz]e) (?:this|that|it)\b"
        r"|\bforget (?:this|that|it) (?:afterwards?|again|later|immediately|right away)\b"
    ),
    "quotation": re.compile(r"^[\"“„«][^\"”“»]+[\"”“»][.!]?$"),
}


def vetoed(text: str) -> str:
    """Why a whole turn teaches nothing, or ""."""
    line = " ".join(text.split())
    return next((why for why, pattern in VETOES.items() if pattern.search(line)), "")


#: "no", "that's wrong": a denial that leaves the question open
DENIAL = anycase(
    r"(?:(?:no+|nope|nah|wrong|incorrect|false|(?:that|this|it)(?:'s| is)? ?(?:not (?:right|true|correct|it)|wrong"
    r"|incorrect|false)|thats (?:wrong|not (?:right|it))|you(?:'re| are) wrong|not (?:right|correct|true|quite)"
    r"|nein|nee?|falsch|das (?:ist falsch|stimmt nicht)|non|faux|c'est faux|ce n'est pas ça|mal|eso (?:está mal|no es)"
    r"|incorrecto|不对|错了|不是|不)[\s,.!。，！-]*){1,3}"
)


def is_denial(text: str) -> bool:
    return bool(DENIAL.fullmatch(text.strip().replace("’", "'")))


DENYING = anycase(rf"{DENIAL.pattern}(?!\w)")


def after_denial(text: str) -> str:
    """What follows "no" or "that's wrong" at the beginning of a turn; "" if it does not begin so."""
    found = DENYING.match(text.strip().replace("’", "'"))
    return found.string[found.end() :] if found else ""
