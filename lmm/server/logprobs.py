"""How likely the tokens of a reply were: which of them a text that was shown is made of, in OpenAI's two forms."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmm.adapters.generation import Generated
    from lmm.adapters.models.chat_format import ChatFormat


@dataclass(frozen=True)
class Token:
    """One that was shown, with the likeliest ones in its place."""

    bytes: bytes
    logprob: float
    top: Sequence[Token] = ()

    @property
    def text(self) -> str:
        return self.bytes.decode("utf-8", "replace")


class Tokens:
    """Those of a reply, as more and more of its text is shown."""

    def __init__(self, format: ChatFormat, top: int) -> None:
        """`top`: how many of the likeliest ones each has."""
        self.format, self.top = format, top
        self._next, self._at = 0, 0  # the next token, and where in the text that is shown it begins, in bytes
        self._begun = False

    def shown(self, made: Generated, text: str) -> list[Token]:
        """Those that are new now that `text`, all of it, is shown: one that is a part of a character or of what is
        held back comes later."""
        if not self._begun:
            self._begun = True
            if not made.text.startswith(text):  # there is a thought before it
                self._at = -len(made.text[: max(made.text.rfind(text), 0)].encode())
        return self._until(made, len(text.encode()))

    def rest(self, made: Generated) -> list[Token]:
        """Those of a reply that is whole: bytes that were no characters are longer in its text."""
        return self._until(made, None)

    def _until(self, made: Generated, size: int | None) -> list[Token]:
        found, scores = list[Token](), made.scores or []
        ends = self.format.text_ends if made.continues else self.format.stop_ids
        while self._next < min(len(scores), len(made.tokens)):
            token, score = made.tokens[self._next], scores[self._next]
            added = self.format.bytes_of(token)
            if not (self._next or made.continues):
                added = added.lstrip(b" ")
            if token in ends or (size is not None and self._at + len(added) > size):
                break
            self._next, self._at = self._next + 1, self._at + len(added)
            if self._at > 0:
                top = [Token(self.format.bytes_of(other), value) for other, value in score.top[: self.top]]
                found.append(Token(self.format.bytes_of(token), score.logprob, top))
        return found


def of_chat(tokens: Sequence[Token]) -> dict[str, Any]:
    def row(token: Token) -> dict[str, Any]:
        return {"token": token.text, "logprob": token.logprob, "bytes": list(token.bytes)}

    return {"content": [{**row(token), "top_logprobs": [row(other) for other in token.top]} for token in tokens]}


class Places:
    """Where the tokens of a text begin, one after the other, in characters; one that is a part of a character, where
    that does."""

    def __init__(self) -> None:
        self._decoder, self._at = codecs.getincrementaldecoder("utf-8")("replace"), 0

    def next(self, token: Token) -> int:
        at = self._at
        self._at += len(self._decoder.decode(token.bytes))
        return at


def of_text(tokens: Sequence[Token], places: Places) -> dict[str, Any]:
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{other.text: other.logprob for other in token.top} for token in tokens],
        "text_offset": [places.next(token) for token in tokens],
    }
