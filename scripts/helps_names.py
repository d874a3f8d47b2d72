"""What goes into the slots of scripts/helps_notes.txt."""

from __future__ import annotations

import random
import re
from functools import partial

from scripts.gate_names import DATA, Names, read_phrases

WORDS = read_phrases(DATA / "helps_words.txt")
SLOT = re.compile(r"\{(\w+)\}")


def filled(text: str, slots: dict[str, str], rng: random.Random) -> str:
    """The text with its slots filled; those already in `slots` as they are there, the others are added."""

    def value(found: re.Match[str]) -> str:
        slot = found[1]
        if slot not in slots:
            kind = slot.rstrip("23")
            taken = {other for name, other in slots.items() if name.rstrip("23") == kind}
            slots[slot] = next(v for v in iter(partial(made, kind, rng), None) if v not in taken)
        return slots[slot]

    said = SLOT.sub(value, text)
    return said[:1].upper() + said[1:] if text[:1] == "{" and rng.random() < 0.9 else said


def made(kind: str, rng: random.Random) -> str:
    """One value of a kind of slot."""
    names = Names(rng)
    if kind == "name":
        return names._pick("first") if rng.random() < 0.5 else names._coin(2)
    if kind == "num":
        return str(rng.choice([rng.randint(2, 12), rng.randint(13, 99), rng.randint(100, 9999)]))
    if kind == "long":
        return f"{rng.randint(30, 999)} {rng.randint(1000, 99999)}"
    if kind == "time":
        return rng.choice([f"{rng.randint(6, 22)}:{rng.choice(['00', '15', '30', '45'])}", f"{rng.randint(1, 12)} pm"])
    if kind == "date":
        return f"{rng.randint(1, 28)} {rng.choice(WORDS['month'])}"
    if kind == "code":
        return f"{names._coin(2)}-{rng.randint(10, 9999)}"
    if kind == "project":
        return names._coin(2)
    if kind == "work":
        return names.make("work")
    if kind == "path":
        return f"/{rng.choice(['srv', 'var', 'data', 'mnt'])}/{names._coin(2).lower()}"
    return rng.choice(WORDS[kind])
