"""Text to tokens: the model's own tokenizer and chat template, the same object on every backend.

A base model without a chat template gets a documented plain one: `Question: ... / Answer: ...`, a reply ends at the
first line break.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from lmm.adapters.models.loadable import asks_for_trust, untrusted
from lmm.errors import ModelError
from lmm.text.thoughts import OPEN

PLAIN_TEMPLATE = (
    "{% for m in messages %}"
    "{% if m.role == 'system' %}{{ m.content }}\n\n"
    "{% elif m.role == 'user' %}Question: {{ m.content }}\n"
    "{% else %}Answer: {{ m.content }}\n\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Answer:{% endif %}"
)

#: how tokens of bytes are written: those that can be seen as they are, the others as the characters from 256 on
SEEN = (*range(33, 127), *range(161, 173), *range(174, 256))
BYTES = {chr(b): b for b in SEEN} | {chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in SEEN)}
Message = dict[str, str]
MARK = "\u2063lmm\u2063"


class ChatFormat(Protocol):
    """How conversations become tokens, for one model: a format says how to render and encode, the rest follows."""

    stop_ids: frozenset[int]  # any of these ends a reply
    text_ends: frozenset[int]  # any of these ends a text that is no conversation: a new line does not
    end_of_turn: int  # the one that is learned as the end of an answer
    hash: str  # identifies the vocabulary
    lead: Sequence[int] = ()  # what the tokenizer itself puts before a text: without its <bos>, Gemma talks nonsense
    thinking: bool = True  # whether a model that can think before it answers is to do so

    def render(self, messages: Sequence[Message], reply: bool) -> str:
        """The conversation as text; with `reply`, up to where the model is to answer."""

    def harmless(self, text: str) -> str:
        """What someone said as `render` puts it into the template: nothing in it is a control token."""

    def encode(self, text: str) -> list[int]:
        """Rendered text as tokens."""

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Tokens, and for each the characters [start, end) it stands for."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Tokens as text, without special tokens."""

    def piece(self, token: int) -> str:
        """One token as text, for tables."""

    def bytes_of(self, token: int) -> bytes:
        """What one token adds to a text; it may be a part of a character."""

    def answer_tokens(self, rendered: str, answer: str) -> list[int]:
        """The tokens of a reply `answer` after the conversation `rendered`, with the end of turn."""

    def opens_a_thought(self, rendered: str) -> bool:
        """Whether a conversation, up to where the model is to answer, has begun a thought for it."""
        return rendered.rstrip().endswith(OPEN)

    # in an empty conversation --------------------------------------------------------------------------------
    def prompt_tokens(self, text: str) -> list[int]:
        """A question, up to where the reply begins."""
        return self.encode(self.render([_said(text)], reply=True))

    def lesson_tokens(self, prompt: str, answer: str) -> tuple[list[int], list[int]]:
        """A question, and the reply it should get with its end of turn."""
        rendered = self.render([_said(prompt)], reply=True)
        return self.encode(rendered), self.answer_tokens(rendered, answer)

    def message_tokens(self, text: str, reply: bool = False) -> tuple[list[int], list[bool]]:
        """A user's message, with `reply` up to where the reply begins, and which of its tokens the user wrote."""
        return self.marked([_said(text)], self.render([_said(text)], reply), reply)

    def marked(
        self, messages: Sequence[Message], rendered: str, reply: bool, start: int = 0
    ) -> tuple[list[int], list[bool]]:
        """The tokens of a rendered conversation from character `start` on, and which of them stand for the last
        message's own text: the rest is the scaffold.

        The text is not just searched for: a user who says "assistant" has said what the template says, too.
        """
        tokens, spans = self.spans(rendered[start:])
        text = self.harmless(messages[-1]["content"]).strip()
        mark = self.render([*messages[:-1], {**messages[-1], "content": MARK}], reply).rfind(MARK)
        begin = rendered.find(text, max(mark, start)) - start
        if not text or begin < 0:
            return tokens, [False] * len(tokens)
        return tokens, [a < b and a < begin + len(text) and b > begin for a, b in spans]


def _said(text: str) -> Message:
    return {"role": "user", "content": text}


class HFChatFormat(ChatFormat):
    """`ChatFormat` over a Hugging Face tokenizer folder; `trusted`: code in it may run."""

    def __init__(self, folder: Path, trusted: bool = False) -> None:
        from transformers import AutoTokenizer

        try:
            self.tokenizer = AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=trusted
            )
        except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
            if asks_for_trust(error):
                raise untrusted(folder.name, folder) from error
            raise ModelError(f"the tokenizer in {folder.name} cannot be read: {error}") from error
        if not self.tokenizer.is_fast:
            raise ModelError(f"the tokenizer in {folder.name} has no tokenizer.json; convert it to a fast tokenizer")
        self.tokenizer.model_max_length = int(1e30)  # the engine says what is too long; transformers would only warn
        self._take(_generation_eos(folder))

    @classmethod
    def of(cls, tokenizer: Any, stop_ids: Sequence[int] = ()) -> HFChatFormat:
        """Over a fast tokenizer that is loaded already; `stop_ids` end a reply beside its own end tokens."""
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError(f"lmm needs a fast tokenizer, not {type(tokenizer).__name__}; load it with use_fast=True")
        made = cls.__new__(cls)
        made.tokenizer = tokenizer
        made._take(stop_ids)
        return made

    def _take(self, stop_ids: Sequence[int]) -> None:
        self.plain = not self.tokenizer.chat_template
        self.lead = self._put_before()
        begins = self.tokenizer.bos_token_id is not None and self.lead[:1] == [self.tokenizer.bos_token_id]
        self._begin = self.tokenizer.bos_token if self.plain and begins else ""
        control = {t.content for t in self.tokenizer.added_tokens_decoder.values() if t.special}
        self._short = {token for token in control if len(token) == 1}
        self._control = re.compile(f"(?={'|'.join(map(re.escape, control)) or '(?!)'}).", re.DOTALL)
        self.stop_ids, self.end_of_turn = self._ends(stop_ids)
        self.text_ends = self._marks(stop_ids) if self.plain else self.stop_ids
        backend = self.tokenizer.backend_tokenizer
        self.hash = hashlib.sha256(backend.to_str().encode()).hexdigest()[:16]

    def _put_before(self) -> list[int]:
        plain, special = self.encode("a"), self.tokenizer.encode("a")
        return special[: next((i for i, token in enumerate(special) if [token] == plain[:1]), 0)]

    def _ends(self, stop_ids: Sequence[int]) -> tuple[frozenset[int], int]:
        marks = self._marks(stop_ids)
        if self.plain:
            pieces = self.tokenizer.batch_decode([[i] for i in range(len(self.tokenizer))])
            return marks | {i for i, piece in enumerate(pieces) if piece.startswith("\n")}, self.encode("\n")[-1]
        end = self._template_end()
        return marks | {end}, end

    def _marks(self, stop_ids: Sequence[int]) -> frozenset[int]:
        eos = self.tokenizer.eos_token_id
        return frozenset(stop_ids if eos is None else (*stop_ids, eos))

    def _template_end(self) -> int:
        """The token with which the template ends a reply: the first special one after the reply's text."""
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "zyx"}]
        tail = self.render(messages, reply=False).rpartition("zyx")[2]
        special = [i for i in self.encode(tail) if i in self.tokenizer.all_special_ids]
        if special:
            return special[0]
        if self.tokenizer.eos_token_id is None:
            raise ModelError(
                "this model has neither an end-of-turn nor an end-of-text token; lmm cannot tell where replies end"
            )
        return self.tokenizer.eos_token_id

    def render(self, messages: Sequence[Message], reply: bool) -> str:
        from jinja2.exceptions import TemplateError

        options: dict[str, Any] = {"chat_template": PLAIN_TEMPLATE} if self.plain else {}
        if not self.thinking:
            options["enable_thinking"] = False  # a template that knows no thoughts does not ask
        said = [{**message, "content": self.harmless(message["content"])} for message in messages]
        try:
            text = self.tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=reply, **options)
        except TemplateError as error:
            roles = ", ".join(message["role"] for message in messages)
            raise ModelError(f"this model's chat template refuses a conversation of {roles}: {error}") from error
        return self._begin + text

    def harmless(self, text: str) -> str:
        """A space after the first character of every control token, also inside another one, breaks it: someone who
        says "<|im_end|>" ends nobody's turn."""
        return self._control.sub(lambda first: " " if first[0] in self._short else f"{first[0]} ", text)

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return list(found["input_ids"]), [tuple(span) for span in found["offset_mapping"]]

    def decode(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.backend_tokenizer.decode(list(tokens), skip_special_tokens=True)

    def piece(self, token: int) -> str:
        return self.tokenizer.decode([token], clean_up_tokenization_spaces=False)

    def bytes_of(self, token: int) -> bytes:
        raw = self.tokenizer.convert_ids_to_tokens(token)
        if raw is None or token in self.tokenizer.added_tokens_decoder:
            return self.decode([token]).encode()
        if self._byte_level:
            return bytes(BYTES[character] for character in raw)
        byte = re.fullmatch("<0x([0-9A-F]{2})>", raw)
        return bytes.fromhex(byte[1]) if byte else raw.replace("\u2581", " ").encode()

    @cached_property
    def _byte_level(self) -> bool:
        decoder = self.tokenizer.backend_tokenizer.decoder
        return decoder is not None and b"ByteLevel" in decoder.__getstate__()

    def answer_tokens(self, rendered: str, answer: str) -> list[int]:
        lead = " " if self.plain else ""
        before = self.encode(rendered)
        answer = self.harmless(answer)
        tokens = self.encode(rendered + lead + answer)
        if tokens[: len(before)] != before:  # the border merged; tokenise the answer alone
            return [*self.encode(lead + answer), self.end_of_turn]
        return [*tokens[len(before) :], self.end_of_turn]


def _generation_eos(folder: Path) -> list[int]:
    import json

    path = folder / "generation_config.json"
    if not path.exists():
        return []
    try:
        return as_list(json.loads(path.read_text(encoding="utf-8")).get("eos_token_id"))
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{path} cannot be read: {error}; fetch the model anew") from error


def as_list(eos: Any) -> list[int]:
    """The end tokens of a generation config: one, several or none."""
    return eos if isinstance(eos, list) else [eos] if isinstance(eos, int) else []
