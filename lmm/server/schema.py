"""What requests hold and what replies look like: OpenAI's, and what is lmm's own beside it."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from lmm.errors import UsageError
from lmm.server.logprobs import Places, Token, of_chat, of_text
from lmm.store.checks import LARGEST, LONGEST, json_values, not_too_large, storable

MOST_STOPS = 4
MOST_INPUTS = 2048
MOST_MESSAGES, MOST_PARTS = 10_000, 1000
#: of OpenAI's fields, those that would change a reply and cannot be had here
UNSUPPORTED = (
    *("tools", "functions", "response_format", "logit_bias", "presence_penalty", "frequency_penalty", "suffix"),
    *("audio", "prediction"),
)
NEUTRAL: tuple[Any, ...] = (None, 0, "", [], {}, {"type": "text"})  # values of these that change nothing


def _checked(check: Callable[[str, str], str], text: str) -> str:
    """As a store checks it. Raises ValueError."""
    try:
        return check(text, "it")
    except UsageError as error:
        raise ValueError(str(error)) from None


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError("it is empty")
    return text


def _no_tokens(given: Any) -> Any:
    if isinstance(given, list) and any(isinstance(x, int | list) for x in given):
        raise ValueError("it has tokens, which are numbers of another model's vocabulary; send the text itself")
    return given


def _at_most(count: int) -> Any:
    """Of a list, asked before its items are looked at; and of those the first that is wrong is enough. Or a body of a
    million would be a million errors."""

    def short(given: Any) -> Any:
        if isinstance(given, list) and len(given) > count:
            raise ValueError(f"it has {len(given):,} items, and at most {count:,} are taken")
        return given

    return BeforeValidator(short)


def holdable(metadata: Mapping[str, Any], limited: bool = False) -> dict[str, Any]:
    """What every store can hold, and every client read. Raises ValueError."""
    try:
        plain = json_values(metadata, limited)
    except UsageError as error:
        raise ValueError(str(error)) from None
    return json.loads(json.dumps(plain), parse_int=_of_64_bits)


def _of_64_bits(digits: str) -> int:
    if not -(2**63) <= (number := int(digits)) < 2**63:
        raise ValueError("it has a whole number of more than 64 bits")
    return number


# limits stand right after `str`: behind a check of ours they would be those of a list, and said to be of "items"
Text = Annotated[str, StringConstraints(max_length=1_000_000), AfterValidator(partial(_checked, storable))]
Kept = Annotated[
    str, Field(json_schema_extra={"maxLength": LARGEST}), AfterValidator(partial(_checked, not_too_large))
]  # of more bytes, it is too large
Said = Annotated[
    str,
    StringConstraints(min_length=1),
    Field(json_schema_extra={"maxLength": LARGEST}),
    AfterValidator(partial(_checked, not_too_large)),
    AfterValidator(_said),
]
About = Annotated[str, StringConstraints(max_length=LONGEST), AfterValidator(partial(_checked, storable))]
Metadata = Annotated[dict[str, Any], AfterValidator(partial(holdable, limited=True))]
Time = Annotated[float, Field(allow_inf_nan=False)]  # seconds since 1970


class Part(BaseModel):
    type: Literal["text"]
    text: Text


class ChatMessage(BaseModel):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[Part], Field(fail_fast=True), _at_most(MOST_PARTS)] | None = None

    @property
    def text(self) -> str:
        content = self.content or ""
        return content if isinstance(content, str) else "\n".join(part.text for part in content)


class StreamOptions(BaseModel):
    include_usage: bool = False


class AnyRequest(BaseModel):
    """What completions have in common. Fields that are not named here are ignored, as other servers do, but for those
    that would change the reply."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Text | Annotated[list[Text], Field(fail_fast=True), _at_most(MOST_STOPS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    user: str | None = None

    @model_validator(mode="after")
    def _says_what_it_cannot(self) -> AnyRequest:
        wanted = {name for name, value in (self.model_extra or {}).items() if value not in NEUTRAL}
        if missing := [name for name in UNSUPPORTED if name in wanted]:
            raise ValueError(f"not supported here: {', '.join(missing)}")
        return self

    @property
    def stops(self) -> list[str]:
        """Raises UsageError for too many, and for empty ones."""
        found = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(found) > MOST_STOPS or not all(found):
            raise UsageError(f"stop takes up to {MOST_STOPS} texts that are not empty")
        return found

    @property
    def scored(self) -> bool:
        """Whether it wants logprobs."""
        return getattr(self, "logprobs", None) not in (None, False)

    @property
    def with_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(AnyRequest):
    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True), _at_most(MOST_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    lmm_learn: Literal["auto", "off"] | None = None

    @property
    def texts(self) -> list[str]:
        return [message.text for message in self.messages]

    @property
    def most(self) -> int | None:
        """Tokens of a reply; None: it does not say."""
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(AnyRequest):
    prompt: Annotated[
        Text | Annotated[list[Text], Field(min_length=1, max_length=1, fail_fast=True)], BeforeValidator(_no_tokens)
    ]
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    best_of: Literal[1] | None = None

    @property
    def text(self) -> str:
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]

    @property
    def texts(self) -> list[str]:
        return [self.text]

    @property
    def most(self) -> int:
        """As OpenAI's, where it does not say."""
        return self.max_tokens or 16


class EmbeddingRequest(BaseModel):
    input: Annotated[
        Text | Annotated[list[Text], Field(min_length=1, fail_fast=True), _at_most(MOST_INPUTS)],
        BeforeValidator(_no_tokens),
    ]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None


class MemorizeRequest(BaseModel):
    """What is said of a text that is there is added to what was said of it before."""

    text: Said
    context: Kept | None = None
    metadata: Metadata | None = None
    about: About = ""
    user: str | None = None


class UpdateRequest(BaseModel):
    """What is not given stays as it was, each piece of metadata, too; an empty `about` takes a text out of its matter,
    and empty metadata all of it away."""

    text: Said
    context: Kept | None = None
    metadata: Metadata | None = None
    about: About | None = None
    user: str | None = None


class RecallRequest(BaseModel):
    query: Said
    top_k: Annotated[int, Field(ge=1, le=1000)] = 5
    since: Time | None = None
    until: Time | None = None
    metadata: Metadata | None = None
    user: str | None = None


class TeachRequest(BaseModel):
    question: Said
    answer: Said
    user: str | None = None


class CorrectRequest(BaseModel):
    """A question, what was replied, and what should have been."""

    question: Said
    reply: Text = ""
    answer: Said
    user: str | None = None


class WhyRequest(BaseModel):
    question: Said
    user: str | None = None


class UndoRequest(BaseModel):
    count: Annotated[int, Field(ge=1, le=1000)] = 1
    user: str | None = None


def new_id(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex}"


def problem(
    message: str, kind: str = "invalid_request_error", param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def usage(read: int, made: int) -> dict[str, int]:
    return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}


class Completion:
    """The parts of one reply, whole or in chunks; they share an id."""

    def __init__(self, kind: Literal["chat", "text"], model: str) -> None:
        self.chat = kind == "chat"
        self._tokens, self._places = 0, Places()  # of those that chunks have had
        self.model, self.id, self.created = model, new_id("chatcmpl" if self.chat else "cmpl"), int(time.time())

    def _of(self, choices: list[dict[str, Any]], chunk: bool) -> dict[str, Any]:
        kind = ("chat.completion.chunk" if chunk else "chat.completion") if self.chat else "text_completion"
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}

    def whole(
        self,
        text: str,
        ended: str,
        used: Mapping[str, int],
        tokens: Sequence[Token] | None,
        about: Mapping[str, Any],
    ) -> dict[str, Any]:
        said: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choice = {"index": 0, **said, "logprobs": self._logprobs(tokens), "finish_reason": ended}
        return self._of([choice], chunk=False) | {"usage": dict(used)} | self._beside(about)

    def first(self) -> dict[str, Any]:
        return self._chunk({"role": "assistant", "content": ""})

    def part(self, text: str, tokens: Sequence[Token] | None) -> dict[str, Any]:
        return self._chunk({"content": text} if self.chat else text, tokens=tokens)

    def last(self, ended: str, tokens: Sequence[Token] | None, about: Mapping[str, Any]) -> dict[str, Any]:
        """`tokens`: all of the reply."""
        rest = tokens[self._tokens :] if tokens is not None else None
        return self._chunk({} if self.chat else "", ended, rest or None) | self._beside(about)

    def used(self, used: Mapping[str, int]) -> dict[str, Any]:
        return self._of([], chunk=True) | {"usage": dict(used)}

    def _beside(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """What lmm says of a chat's reply."""
        return {"lmm": dict(about)} if self.chat else {}

    def _chunk(self, said: Any, ended: str | None = None, tokens: Sequence[Token] | None = None) -> dict[str, Any]:
        name, logprobs = "delta" if self.chat else "text", self._logprobs(tokens)
        return self._of([{"index": 0, name: said, "logprobs": logprobs, "finish_reason": ended}], chunk=True)

    def _logprobs(self, tokens: Sequence[Token] | None) -> dict[str, Any] | None:
        if tokens is None:
            return None
        self._tokens += len(tokens)
        return of_chat(tokens) if self.chat else of_text(tokens, self._places)


def embedding(index: int, vector: np.ndarray, encoding: str | None) -> dict[str, Any]:
    packed: Any = vector.tolist()
    if encoding == "base64":
        packed = base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return {"object": "embedding", "index": index, "embedding": packed}
