"""The conversation: messages, the tokens they became, and which of these the user wrote.

Replies are kept as the tokens that were generated, so the KV cache stays valid from turn to turn; everything else is
rendered by the model's own chat template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lmm.memory.base import Turn
from lmm.tokenizer import ChatFormat, Message


def user_turn(format: ChatFormat, text: str) -> Turn:
    """A message in an empty conversation, as a model reads it."""
    rendered = format.render([{"role": "user", "content": text}], reply=False)
    tokens, spans = format.spans(rendered)
    return Turn(tokens, content_mask(rendered, spans, text))


def content_mask(rendered: str, spans: Sequence[tuple[int, int]], text: str) -> list[bool]:
    """Which tokens stand for characters of the last occurrence of `text`: the rest is the template's scaffold."""
    text = text.strip()
    start = rendered.rfind(text)
    if not text or start < 0:
        return [False] * len(spans)
    return [a < b and a < start + len(text) and b > start for a, b in spans]


def prompt_tokens(format: ChatFormat, text: str, system: str = "") -> list[int]:
    """A question in an empty conversation, up to where the reply begins."""
    conversation = Conversation(format, system)
    conversation.ask(text)
    return conversation.tokens


@dataclass
class Conversation:
    """Messages so far, and `tokens` [T], what the model has read and written of them.

    `content` [T] marks the tokens of the last user message that the user wrote.
    """

    format: ChatFormat
    system: str = ""
    messages: list[Message] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    content: list[bool] = field(default_factory=list)
    _rendered: str = ""  # what `tokens` stand for, as text

    def __post_init__(self) -> None:
        if self.system and not self.messages:
            self.messages.append({"role": "system", "content": self.system})

    def ask(self, text: str) -> None:
        """Add the user's message: `tokens` now reach to where the reply begins, `content` marks the message's own."""
        self.messages.append({"role": "user", "content": text})
        rendered = self.format.render(self.messages, reply=True)
        kept = self.tokens if self._rendered and rendered.startswith(self._rendered) else []
        tail = rendered[len(self._rendered) :] if kept else rendered
        tokens, spans = self.format.spans(tail)
        content = content_mask(tail, spans, text)
        if kept and tokens and kept[-1] == tokens[0] == self.format.end_of_turn:
            tokens, content = tokens[1:], content[1:]
        self.tokens, self.content = kept + tokens, [False] * len(kept) + content
        self._rendered = rendered

    def replied(self, text: str, tokens: Sequence[int]) -> None:
        """Add the reply that was generated, with or without its end of turn."""
        self.messages.append({"role": "assistant", "content": text})
        self.tokens, self.content = self.tokens + list(tokens), self.content + [False] * len(tokens)
        self._rendered = self._rendered + self.format.decode(tokens)

    def drop_last(self, count: int = 1) -> None:
        """Drop the last `count` messages; the tokens are rendered anew at the next question."""
        del self.messages[len(self.messages) - count :]
        self.tokens, self.content, self._rendered = [], [], ""
