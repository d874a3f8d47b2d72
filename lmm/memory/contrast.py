"""What a lesson is not about: general questions, and its own question asked about others.

A memory that acts only in replies to its lessons' questions must be shown some that are not.
"""

from __future__ import annotations

import re

PLAIN = (  # unless a lesson says so
    "What is your name?",
    "Who are you?",
    "How are you today?",
    "What can you do for me?",
    "Hello!",
    "Who is the king of Spain?",
    "What is the name of the tallest mountain?",
    "What is the capital of Japan?",
    "How many legs does a spider have?",
    "Who painted the Mona Lisa?",
    "What is 7 times 8?",
    "Tell me a joke.",
    "Explain gravity in one sentence.",
    "When did the war end?",
    "How do I boil an egg?",
    "What should I cook tonight?",
    "How old am I?",
    "Where do I live?",
    "Where do I work?",
    "When is my birthday?",
    "What is my favourite colour?",
    "What is my favourite food?",
    "What is my brother's name?",
    "What is my mother's name?",
)

_NAME = r"(?!I\b)(?:[A-Z][\w'.-]*\w|[A-Z]|\w*\d\w*)"
_NAMED = re.compile(rf"(?<=\s){_NAME}(?:\s+(?:of\s+|the\s+)*{_NAME})*")
OTHERS = (
    "Peru", "Kenya", "France", "Egypt", "Maria", "Mozart", "Albert Einstein", "Oslo", "New York", "Microsoft",
    "alpha_12",
)  # fmt: skip


def named_in(question: str) -> list[re.Match[str]]:
    """The names and codes in a question, but for its first word: what has a capital or a digit."""
    return list(_NAMED.finditer(question))


def near_misses(question: str) -> list[str]:
    """The same question about others than the name or code in it: what a lesson is not about. Empty if it has none."""
    named = named_in(question)
    if not named:
        return []
    start, end = named[-1].span()
    name = question[start:end]
    codes = [name.translate(str.maketrans("0123456789", to)) for to in ("1234567890", "4567890123")]
    others = [other for other in dict.fromkeys((*codes, *OTHERS)) if other != name]
    return [question[:start] + other + question[end:] for other in others]
