"""Somebody by role, by name, and by both: "my sister", "Vera", "my sister Vera"."""

from __future__ import annotations

import re

_MINE = re.compile(r"(?:my|our|mein\w*|unser\w*|mon|ma|mes|notre|nos|mi|mis|nuestr\w+)\b", re.I)
_PLACED = re.compile(r"\b(?:in|of|on|at|for|from|with|near|im|am|von|aus|à|de|du|en)\b")


def role_and_name(subject: str) -> tuple[str, str] | None:
    """ "our dentist Dr Osei" -> "our dentist" and "Dr Osei"; None of what is no such pair, as "my Volvo" is not."""
    parts = subject.split()
    if _MINE.match(subject) and not _PLACED.search(subject):
        for cut in range(2, len(parts)):
            if all(part[0].isupper() for part in parts[cut:]):
                return " ".join(parts[:cut]).rstrip(","), " ".join(parts[cut:])
    return None


def in_full(text: str, subject: str) -> str:
    """The text with both where a sentence begins with the role or the name alone: "Vera has moved." of my sister Vera
    is "my sister Vera has moved."."""
    both = role_and_name(subject)
    if both is None or subject.lower() in text.lower():
        return text
    either = "|".join(map(re.escape, both))
    return re.sub(rf"(?:^|(?<=[.!?,:;] ))(?:{either})(?!\w)", lambda _: subject, text, count=1, flags=re.I)
