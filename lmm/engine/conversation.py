"""The conversation: messages, the tokens they became, and which of these the user wrote.

Replies are kept as the tokens that were generated, so the KV cache stays valid from turn to turn; everything else is
rendered by the model's own chat template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lmm.adapters.models.chat_format import ChatFormat, Message
from lmm.memory.base import UserMessage

MARK = "\u2063lmm\u2063"


def user_turn(format: ChatFormat, text: str) -> UserMessage:
    """A message in an empty conversation, as a model reads it."""
    messages = [{"role": "user", "content": text}]
    rendered = format.render(messages, reply=False)
    tokens, spans = format.spans(rendered)
    return UserMessage(
        tokens, content_mask(rendered, spans, format.harmless(text), _place(format, messages, reply=False))
    )


def content_mask(rendered: str, spans: Sequence[tuple[int, int]], text: str, place: int) -> list[bool]:
    """Which tokens stand for characters of `text`, which begins at or after `place`: the rest is the scaffold."""
    text = text.strip()
    start = rendered.find(text, max(place, 0))
    if not text or start < 0:
        return [False] * len(spans)
    return [a < b and a < start + len(text) and b > start for a, b in spans]


def _place(format: ChatFormat, messages: Sequence[Message], reply: bool) -> int:
    """Where the last message's own text begins in the rendering. Searching for the text would not do: a user who
    says "assistant" has said what the template says, too."""
    marked = [*messages[:-1], {**messages[-1], "content": MARK}]
    return format.render(marked, reply=reply).rfind(MARK)


def prompt_tokens(format: ChatFormat, text: str) -> list[int]:
    """A question in an empty conversation, up to where the reply begins."""
    return format.encode(format.render([{"role": "user", "content": text}], reply=True))


def lesson_tokens(format: ChatFormat, prompt: str, answer: str) -> tuple[list[int], list[int]]:
    """A question in an empty conversation, and the reply it should get with its end of turn."""
    rendered = format.render([{"role": "user", "content": prompt}], reply=True)
    return format.encode(rendered), format.answer_tokens(rendered, answer)


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
        start = len(self._rendered) if kept else 0
        tokens, spans = self.format.spans(rendered[start:])
        place = _place(self.format, self.messages, True) - start
        content = content_mask(rendered[start:], spans, self.format.harmless(text), place)
        self.tokens, self.content = kept + tokens, [False] * len(kept) + content
        self._rendered = rendered

    def replied(self, text: str, tokens: Sequence[int]) -> None:
        """Add the reply that was generated. The token that ended it is left out: the template closes every reply, also
        one that was interrupted or ended in another way."""
        self.messages.append({"role": "assistant", "content": text})
        body = list(tokens[:-1] if tokens and tokens[-1] in self.format.stop_ids else tokens)
        self.tokens, self.content = self.tokens + body, self.content + [False] * len(body)
        self._rendered = self._rendered + self.format.decode(body)

    def drop_last(self, count: int = 1) -> None:
        """Drop the last `count` messages; the tokens are rendered anew at the next question."""
        del self.messages[len(self.messages) - count :]
        self.tokens, self.content, self._rendered = [], [], ""
