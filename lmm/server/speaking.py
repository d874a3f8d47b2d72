"""One reply over HTTP: the same `Talk` as at a terminal, shown to a queue instead of a screen."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any

from lmm.adapters.generation import Generated
from lmm.chat.talk import Talk
from lmm.config import LONGEST, Config
from lmm.engine.conversation import Conversation, Turn
from lmm.errors import Cancelled, UsageError
from lmm.lesson import Lesson
from lmm.memory.base import LearnReport
from lmm.server.logprobs import Token, Tokens
from lmm.text.cutter import Cutter

if TYPE_CHECKING:
    from lmm.adapters.models.chat_format import Message
    from lmm.engine.engine import Engine

COLD = 1e-3  # a temperature below which the likeliest token is as good as sure, and logits divided by it overflow
Emit = Callable[[str, Sequence[Token]], None]


@dataclass
class Listener:
    """Where a turn is shown: `emit` gets the text as it comes and, where `tokens` are wanted, those it is made of;
    `said` gets the lines beside it."""

    emit: Emit
    stops: Sequence[str] = ()
    tokens: Tokens | None = None
    made: Callable[[], Generated | None] = lambda: None  # the reply that grows
    said: list[str] = field(default_factory=list)
    takes_back: list[Lesson] = field(default_factory=list)
    text: str = ""
    shown: list[Token] = field(default_factory=list)
    cut: bool = False  # by a stop sequence
    failed: OSError | None = None
    is_terminal = False

    def reply(self, chunks: Generator[str, None, object], stopped: Callable[[], bool], markdown: bool) -> None:
        cutter = Cutter(self.stops)
        with contextlib.closing(chunks):
            for chunk in chunks:
                self._show(cutter.feed(chunk))
                if cutter.found:
                    self.cut = True
                    return
        self._show(cutter.rest())

    def _show(self, text: str) -> None:
        if text:
            self.text += text
            made = self.made()
            new = self.tokens.shown(made, self.text) if self.tokens is not None and made is not None else []
            self.shown += new
            self.emit(text, new)

    def end(self) -> None:
        """The reply is whole, with tokens that no text was shown for."""
        made = self.made()
        if self.tokens is not None and made is not None and not self.cut:
            self.shown += self.tokens.rest(made)

    def say(self, text: str) -> None:
        self.said.append(text)

    def learning(self, summary: str, report: LearnReport | None) -> None: ...

    def confirm(self, lesson: Lesson) -> Lesson | None:
        return lesson

    def keeps(self, lesson: Lesson, typed: str) -> bool:
        """A message that takes a lesson back is no order to delete it: whoever sent it may give that."""
        self.takes_back.append(lesson)
        return False


@dataclass
class Spoken:
    """What came of a request: text, the turn it is of, and why it ended ("stop" or "length")."""

    text: str
    turn: Turn | None
    said: list[str]
    takes_back: list[Lesson]
    ended: str
    tokens: list[Token]


def reply(
    engine: Engine,
    messages: Sequence[Message],
    config: Config,
    emit: Emit,
    stop: Event,
    stops: Sequence[str] = (),
    tokens: Tokens | None = None,
) -> Spoken:
    """Answer the last of `messages`, and learn from it what it teaches, until `stop`. Raises UsageError for messages
    that are no conversation, TooLongError, ModelError."""
    system, turns, question = as_turns(messages)
    engine.conversation = Conversation(engine.adapter.format, system or config.system, turns)
    engine.scored = tokens is not None
    view = Listener(emit, stops, tokens, lambda: engine.conversation.turns[-1].generated)
    talk = Talk(engine, view, lambda: config, stop, hint="")
    talk.forget = view.keeps
    turn = None
    try:
        turn = talk.turn(question)
    except Cancelled as error:
        view.say(str(error))
    if turn is not None:
        view.end()
    ended = reason(turn.generated if turn is not None else None, view.cut)
    return Spoken(view.text, turn, view.said, view.takes_back, ended, view.shown)


def reason(made: Generated | None, at_stop: bool) -> str:
    """Why a reply ended, in OpenAI's words: "length" where there was no room or no time for more, also before it had
    begun (None). One that only repeated itself had ended, as one that came to a stop sequence."""
    cut = made is None or made.interrupted or made.cut in ("length", "context")
    return "length" if cut and not at_stop else "stop"


def as_turns(messages: Sequence[Message]) -> tuple[str, list[Turn], str]:
    """The system prompt, the turns before, and what is to be answered. Raises UsageError."""
    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
    turns: list[Turn] = []
    for message in messages:
        if message["role"] == "user" and turns and not turns[-1].answered:
            turns[-1].user += f"\n\n{message['content']}"
        elif message["role"] == "user":
            turns.append(Turn(message["content"]))
        elif message["role"] == "assistant":
            if not turns:  # a greeting answers nothing
                turns.append(Turn(""))
            last = turns[-1]
            last.reply = f"{last.reply}\n\n{message['content']}" if last.answered else message["content"]
            last.answered = True
    if not turns or turns[-1].answered or not turns[-1].user.strip():
        raise UsageError("the last message must be the user's, and say something")
    return system, turns[:-1], turns[-1].user


def decoding(
    config: Config,
    temperature: float | None,
    top_p: float | None,
    max_tokens: int | None,
    seed: int | None,
    learn: str | None,
) -> Config:
    """The settings of one request; without a seed, it draws as no other does. Raises UsageError."""
    seed = secrets.randbelow(2**31) if seed is None else seed % 2**64  # those below 0 have numbers of their own
    given = {
        "top_p": top_p or None,
        "max_tokens": max_tokens or config.max_tokens or LONGEST,
        "seed": seed,
        "learn": learn,
    }
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if top_p == 0 or (temperature is not None and temperature < COLD):
        changes |= {"decoding_strategy": "greedy"}
    elif temperature is not None:
        changes |= {"decoding_strategy": "sample", "temperature": temperature}
    return dataclasses.replace(config, **changes)
