"""What was said just before a turn."""

from __future__ import annotations

from dataclasses import dataclass

from lmm.feedback import replies
from lmm.feedback.words import anycase
from lmm.text.sentences import ends_asking


@dataclass(frozen=True)
class Exchange:
    """The question before this turn, and the reply it got."""

    user: str
    assistant: str


def asks(text: str) -> bool:
    """Does it end like a question, or begin like one?"""
    return ends_asking(text) or replies.is_factual(text)


ORDER = anycase(
    r"(?:(?:please|also|and|now|ok(?:ay)?|(?:can|could) you),? )*"
    r"(?:give|write|draft|suggest|recommend|explain|translate|help|tell|show|compose|summari[sz]e|list|find|plan|name)"
    r" (?:me|us|an?|some|my|the|this|these|two|three|five)\b"
)


def wants(text: str) -> bool:
    """Does a sentence ask for something, with a question mark or by an order ("Write a card for Dawn.")?"""
    return ends_asking(text) or bool(ORDER.match(text))
