"""Somebody by role, by name, and by both: "my sister", "Vera", "my sister Vera". English, German, French, Spanish."""

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


_IS = re.compile(
    r"(?P<role>.+?) (?:is|ist|heißt|est|s['’]appelle|es|se llama)(?: called| named)? (?P<name>[^,;]+?)[.!]?$"
)


_NAME = re.compile(r"[^\W\d_]+[.]?|[^\W\d_][^\W\d]*['’-][^\W\d]+")  # no code


def says_who(text: str) -> tuple[str, str] | None:
    """ "My dentist is Dr Osei." -> "My dentist" and "Dr Osei"; None of what says more, or something else."""
    found = _IS.match(text.strip())
    both = role_and_name(f"{found['role']} {found['name']}") if found else None
    return both if both and all(_NAME.fullmatch(part) for part in both[1].split()) else None


_LEAVES = re.compile(
    r"\b(?:left|leaves|leaving|quit|quits|retire[sd]?|resign(?:s|ed)|died|dead|gone|fired|passed away|no longer"
    r"|any ?more|not|never|replaced|sold|hört auf|aufgehört|gekündigt|gegangen|ruhestand|gestorben|tot|plus|parti"
    r"|partie|retraite|mort|morte|ya no|jubil\w+|murió|muerto|dejó)\b|去世|离开|辞职|退休|不再",
    re.I,
)


def leaves(text: str) -> bool:
    """Does somebody go for good?"""
    return bool(_LEAVES.search(text))


def in_full(text: str, subject: str) -> str:
    """The text with both where a sentence begins with the role or the name alone: "Vera has moved." of my sister Vera
    is "my sister Vera has moved."."""
    both = role_and_name(subject)
    if both is None or subject.lower() in text.lower():
        return text
    either = "|".join(map(re.escape, both))
    return re.sub(rf"(?:^|(?<=[.!?,:;] ))(?:{either})(?!\w)", lambda _: subject, text, count=1, flags=re.I)
