"""The wrong value in a reply: where it stands, and the reply with the right one in its place."""

from __future__ import annotations

import re
from functools import lru_cache

from lmm.feedback import grammar, words
from lmm.feedback.grammar import as_name, flip, plain, sentence, with_preposition
from lmm.feedback.words import anycase
from lmm.text.sentences import sentences

FUNCTION = words.word_set(
    "a an the of in on at is are was were be been am to by for with from and or it its it's he she they that this "
    "these those there who which what when where how many much do does did not has have had his her their i you "
    "me my your our we as called named also so than then would will should must can could very just actually "
    "really think believe sure know yes no well right correct answer mean meant only located situated known "
    "considered here if old spelled written spelling"
)
REFUSAL = anycase(
    r"\b(?:don't|do not|didn't|cannot|can't|unable|not (?:sure|know|have)|no (?:information|idea"
    r"|way)|sorry|haven't|not been told|as an ai|i'm an ai)\b"
)


def runs(text: str, known: frozenset[str]) -> list[tuple[int, int]]:
    """Stretches of `text` (start, end) whose words are neither in `known` nor mere function words.

    Function words between two such words with capitals or numbers belong to the stretch ("Leonardo da Vinci"), and so
    does a known word with a capital before a name ("Lake Baikal" as the deepest lake).
    """
    found = re.finditer(r"([^\W_]+(?:['.,:/@_+-][^\W_]+)*)[+#]*", text)  # C++ and C# with all that is theirs
    spans = [(m.start(), m.end(), m[1].lower()) for m in found]
    new = [w not in known and stem(w) not in known and w not in FUNCTION for *_, w in spans]
    out: list[tuple[int, int]] = []
    last = -2
    for i, (start, end, _) in enumerate(spans):
        if not new[i]:
            continue
        gap = text[out[-1][1] : start] if out else ""
        bridge = (
            i - last == 2
            and re.fullmatch(r" (?:of|de|da|van|the|and|la) ", gap)
            and (text[start].isupper() or text[start].isdigit() or " of " in gap)
        )
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
    found = grammar.tokens(plain(text))
    more = {v for w in found for v in (words.IRREGULAR.get(w), words.BASES.get(w)) if v}
    return frozenset({stem(w) for w in found} | set(found) | {stem(w) for w in grammar.tokens(flip(text))} | more)


def shape(text: str) -> str:
    return "number" if grammar.is_number(text) else "name" if grammar.is_proper(text) else "word"


def with_epithet(text: str, span: tuple[int, int]) -> tuple[int, int]:
    """ "Pip" of "Pip the whale" with what is said of Pip, which is not true of another name."""
    start, end = span
    said = re.match(r" the [a-z]+(?=[.!]*$)", text[end:]) if shape(text[start:end]) == "name" else None
    return start, end + (said.end() if said else 0)


def wrong_span(question: str, reply: str, value: str, wrong: str = "") -> tuple[str, tuple[int, int]] | None:
    """The sentence of the reply that holds the wrong value, and where in it."""
    if wrong:
        for part in sentences(reply):
            m = re.search(rf"(?<!\w){re.escape(wrong)}(?!\w)", part, re.I)
            if m:
                names = [n for s in runs(part, known_words(question)) for n in _members(part, s)]
                name = [s for s in names if s[0] <= m.start() and m.end() <= s[1]]
                return part, with_epithet(part, name[0]) if name and shape(wrong) == "name" else m.span()
    parts = sentences(reply)
    if not parts or REFUSAL.search(parts[0]) or len(parts[0]) > 300:
        return None
    found = runs(parts[0], known_words(question))
    shapes = [shape(parts[0][slice(*s)]) for s in found]
    alike = [s for s, its in zip(found, shapes, strict=True) if its == shape(value)]
    if not alike and shape(value) == "word":
        alike = [s for s, its in zip(found, shapes, strict=True) if its == "name"]
    alike = alike or found
    return (parts[0], with_epithet(parts[0], alike[0])) if len(alike) == 1 else None


def _members(text: str, span: tuple[int, int]) -> list[tuple[int, int]]:
    """The names in a row of them: "Milo and Tom" are two, of which one may be right."""
    start, end = span
    names = re.finditer(r"(?:^|(?<= and ))(?:(?! and ).)+", text[start:end])
    return [(start + m.start(), start + m.end()) for m in names]


def about(question: str, rest: str) -> bool:
    """Does a sentence, without its value, speak of what was asked?

    Not if it lacks a word of the question and has another in its place: "The capital of Zorbia is" says nothing of who
    the king is. "It is" lacks words too, but has no others.
    """
    return not (runs(question, known_words(rest)) and runs(rest, known_words(question)))


_NUMBER = re.compile(r"\d+")


def _measures_twice(question: str, value: str, rest: str) -> bool:
    """Has a reply, beside the value, a part of a bracket, or another number: what the wrong one is in feet?"""
    others = set(_NUMBER.findall(rest)) - set(_NUMBER.findall(question))
    return rest.count("(") != rest.count(")") or (bool(others) and bool(_NUMBER.search(value)))


def from_reply(question: str, reply: str, value: str, wrong: str = "") -> str | None:
    """The reply with the wrong value replaced, or None where that is not clear or the reply is about something else."""
    if re.match(r"(?:yes|no)\b", reply, re.I) and re.match(rf"(?:{grammar.BE})\b", question.strip(), re.I):
        return None
    found = wrong_span(question, reply, value, wrong)
    if not found or re.search(r"\bnot\b|n't\b", found[0]):
        return None
    text, (start, end) = found
    old, before, after = text[start:end], text[:start], text[end:]
    unlike = not wrong and shape(old) != shape(value) and len(old.split()) > 2  # "trip lasts 40 minutes"
    if unlike or not about(question, before + after) or _measures_twice(question, value, before + after):
        return None
    if before.endswith(("the ", "The ", "a ", "an ")) and re.match(r"(?:an?|the) ", value, re.I):
        before = re.sub(r"(?:an?|the) $", "", before, flags=re.I)
    elif not re.search(r"\b(?:an?|the) $", before, re.I):
        value = re.sub(r"^An? ", "", value) if shape(old) == "name" else value
    elif shape(value) == "name":
        before = re.sub(r"\b(?:an?|the) $", "", before, flags=re.I)
    at = with_preposition(value, "where").split(" ")[0] if re.match(r"(?:in|on|at) ", value) else ""
    if at:
        before = re.sub(r"\b(?:in|on|at) $", "", before)
    unit = re.match(r"\S+(?P<u> [a-z-]+(?: [a-z-]+)?)$", old)
    if unit and shape(old) == "number" and len(value.split()) == 1 and grammar.is_number(value):
        after = unit["u"] + after  # "30 years" old, of which the 30 is wrong
    number = re.match(r"\d+[\d.,]* (.+)$", value)
    if number and re.match(rf" {re.escape(number[1])}\b", after):
        after = after[len(number[1]) + 1 :]
    return sentence((before + value + after).strip())


def like(value: str, question: str, reply: str) -> str:
    """The value with capitals if it was typed without any and the wrong one has them ("canberra")."""
    found = wrong_span(question, reply, value)
    old = found[0][slice(*found[1])] if found else ""
    name = shape(old) == "name" and not reply.startswith(old + ",")
    return as_name(value) if name and shape(value) == "word" and len(value.split()) <= 4 else value
