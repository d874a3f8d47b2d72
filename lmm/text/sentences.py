"""A text in sentences, by its marks alone."""

from __future__ import annotations

import re

_END = re.compile(r"(?<=[.!?…;])\s+|(?<=[。！？；])\s*|\n+")
_NO_END = re.compile(r"(?:^|\s)(?:mr|mrs|ms|dr|prof|st|vs|no|[A-Z])\.$", re.I)


def sentences(text: str) -> list[str]:
    """Split at closing marks and lines, but not after initials and titles ("Dr.", "Rufus T.")."""
    out: list[str] = []
    for part in filter(None, _END.split(text)):
        if out and _NO_END.search(out[-1]) and len(out[-1]) > 3:
            out[-1] += " " + part
        elif part.strip(" .!?…;。！？；"):
            out.append(part.strip())
    return out


# not what is another word in another language: "en" is "and" and "in", "ma" is "but" and "my", "also" is "so" and "too"
_AND = r"and|but|und|aber|et|mais|pero|maar"
_SO = r"so|deshalb|donc|así que|por eso|quindi|dus"
_THEN = r"(?:i|you|we|he|she|it|its|it's|they|the|my|your|our|now)\b"  # "so it is", not "so tired"
_WHY = r"because|weil|denn|parce que|porque|perché|omdat"  # stays with what it gives the reason for
_CLAUSE = re.compile(
    rf"\s*[,;:]\s+(?:(?:{_AND}|{_SO})\s+)?|\s+(?:{_AND})\s+|\s+so\s+(?={_THEN})|\s+(?=(?:{_WHY})\s)|[，；：]", re.I
)
_WORDS, _SIGNS = 3, 5  # of a clause, at least; of one in Chinese


def clauses(text: str) -> list[str]:
    """Its sentences, and of these what stands between commas, an "and", a "so" or a "because" and is long enough to say
    something."""
    return [clause for sentence in sentences(text) for clause in _clauses(sentence)]


def _clauses(sentence: str) -> list[str]:
    out, start = list[str](), 0
    for cut in _CLAUSE.finditer(sentence):
        if _says(sentence[start : cut.start()]) and _says(sentence[cut.end() :]):
            out.append(sentence[start : cut.start()])
            start = cut.end()
    return [*out, sentence[start:]]


def _says(part: str) -> bool:
    return len(part.split()) >= _WORDS or len(re.findall(r"[\u3400-\u9fff]", part)) >= _SIGNS
