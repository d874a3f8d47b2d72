"""What was said just before a turn."""

from __future__ import annotations

from dataclasses import dataclass

from lmm.feedback import replies
from lmm.text.sentences import ends_asking


@dataclass(frozen=True)
class Exchange:
    """The question before this turn, and the reply it got."""

    user: str
    assistant: str


def asks(text: str) -> bool:
    """Does it end like a question, or begin like one?"""
    return ends_asking(text) or replies.is_factual(text)
