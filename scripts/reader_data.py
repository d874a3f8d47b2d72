"""Labelled user turns by a grammar for each language, for scripts/train_reader.py.

    python -m scripts.reader_data --out FILE [--count 2000] [--seed 0]

Half of them teach something; what does not looks as if it did: the same facts asked for, supposed, quoted, reported.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("reader_phrases")
LANGUAGES = ("en", "de", "fr", "es", "zh")
SHARES = {"statement": 0.27, "correction": 0.13, "update": 0.11, "retraction": 0.04, "nothing": 0.35, "deny": 0.10}
SLOT = re.compile(r"<([a-z_0-9]+)(#\d)?>")


class Grammar:
    """One language's phrases: `turn(rng)` writes a labelled turn."""

    def __init__(self, language: str) -> None:
        self.language = language
        self.rules: dict[str, list[str]] = {}
        for line in (FOLDER / f"{language}.txt").read_text(encoding="utf-8").splitlines():
            if line and not line.startswith("#"):
                name, _, alternatives = line.partition(": ")
                self.rules[name] = [part.strip() for part in alternatives.split(" | ")]

    def expand(self, text: str, rng: random.Random, known: dict[str, str]) -> str:
        """The text with every slot filled; `known` holds what numbered slots, a and b stand for."""

        def fill(m: re.Match[str]) -> str:
            name = m[1] + (m[2] or "")
            if name in known:
                return known[name]
            found = self.expand(rng.choice(self.rules[m[1]]), rng, known)
            if m[2]:
                known[name] = found
            return found

        return SLOT.sub(fill, text)

    def exchange(self, rng: random.Random) -> tuple[dict[str, str], dict[str, str]]:
        """A question with a wrong answer, and the right and the wrong value."""
        question, reply, kind = rng.choice(self.rules["qa"]).split(" ~ ")
        known: dict[str, str] = {}
        values = {self.expand(f"<{kind}>", rng, known) for _ in range(8)}
        known["a"], known["b"] = rng.sample(sorted(values), 2)
        said = {name: self.expand(text, rng, known) for name, text in (("user", question), ("assistant", reply))}
        return {name: sentence(text) for name, text in said.items()}, {name: known[name] for name in "ab"}

    def turn(self, rng: random.Random) -> dict[str, Any]:
        rule = rng.choices(list(SHARES), list(SHARES.values()))[0]
        last: dict[str, str] | None = None
        known: dict[str, str] = {}
        if rule in ("correction", "deny"):
            last, known = self.exchange(rng)
        elif rng.random() < 0.35:
            last, _ = self.exchange(rng)
        said = self.expand(rng.choice(self.rules["fix" if rule == "correction" else rule]), rng, known)
        text, facts = marked(styled(said, rng, self.language))
        kind = "nothing" if rule == "deny" else rule
        row = {"text": text, "last": last, "kind": kind, "language": self.language, "facts": facts}
        unmarked = rule != "correction" and not all(fact["subject"] for fact in facts)
        return row | ({"unlabelled": ["subject"]} if unmarked else {})


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def styled(text: str, rng: random.Random, language: str) -> str:
    """The text as someone types: in small letters, without marks, with a slip, or with care."""
    if language == "zh":
        return text if rng.random() < 0.8 else text.rstrip("。！")
    style = rng.random()
    if style < 0.3:
        text = text.lower()
    elif style < 0.65:
        text = re.sub(r"^([^\w]*)(\w)", lambda m: m[1] + m[2].upper(), text)
        text += "" if re.search(r"[.?!🙂)]\W*$", text) else rng.choice([".", ".", "!", ""])
    if rng.random() < 0.2:
        text = text.replace("'", "")
    if rng.random() < 0.12:
        text = re.sub(r"[,.;:](?= )", "", text)
    return slip(text, rng) if rng.random() < 0.12 else text


def slip(text: str, rng: random.Random) -> str:
    """Two letters of one longer word in the wrong order, outside values."""
    words = [m.span() for m in re.finditer(r"(?<![\w\[<])[a-z]{5,}(?![\w\]>])", text)]
    if not words:
        return text
    start, end = rng.choice(words)
    if text.rfind("[", 0, start) > text.rfind("]", 0, start):
        return text
    at = rng.randrange(start + 1, end - 2)
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def marked(text: str) -> tuple[str, list[dict[str, str]]]:
    """The text without its marks, and the facts they stood around; a subject in words, or ""."""
    clean: list[str] = []
    at: dict[str, list[int]] = {mark: [] for mark in "{}[]«»"}
    for char in text:
        if char in at:
            at[char].append(len(clean))
        else:
            clean.append(char)
    plain = "".join(clean)
    clauses, values, subjects = (list(zip(at[a], at[b], strict=True)) for a, b in ("{}", "[]", "«»"))
    facts = []
    for number, (start, end) in enumerate(clauses):
        value = values[number]
        subject = next((span for span in subjects if start <= span[0] < end), (0, 0))
        clause = (start, max(end, value[1]))
        spans = zip(("clause", "value", "subject"), (clause, value, subject), strict=True)
        facts.append({name: plain[slice(*span)] for name, span in spans})
    return plain, facts


def turns(count: int, rng: random.Random, languages: Sequence[str] = LANGUAGES) -> list[dict[str, Any]]:
    """`count` turns of each language, no two of them the same."""
    found = []
    for language in languages:
        grammar = Grammar(language)
        seen: set[str] = set()
        while len(seen) < count:
            turn = grammar.turn(rng)
            if turn["text"] not in seen:
                seen.add(turn["text"])
                found.append(turn)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=2000, help="turns of each language")
    parser.add_argument("--language", nargs="+", default=LANGUAGES, choices=LANGUAGES)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    rows = turns(options.count, random.Random(options.seed), options.language)
    with options.out.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    main()
