"""A conversation and its cache over a mind. One turn: hear, answer."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lmm.adapters import generation
from lmm.adapters.generation import Generated
from lmm.config import Decoding
from lmm.engine.asking import asked
from lmm.engine.below import Below
from lmm.engine.conversation import Conversation, Turn, opening_of, surely
from lmm.errors import LmmError, TooLongError, UsageError
from lmm.feedback import Exchange, said_back
from lmm.lesson import TALK, TURN, Lesson
from lmm.memory.base import LearnReport, UserMessage

if TYPE_CHECKING:
    from lmm.adapters.base import Cache
    from lmm.engine.mind import Mind

log = logging.getLogger("lmm")
ROOM = 512  # tokens that are left for a reply


class Engine:
    """The engine knows a conversation as tokens and a memory as a mind; it knows no terminal and no array library."""

    def __init__(self, mind: Mind, system: str = "", decoding: Decoding | None = None) -> None:
        self.mind, self.adapter = mind, mind.adapter
        self.decoding = decoding or Decoding()
        self.conversation = Conversation(self.adapter.format, system)
        self.cache: Cache = self.adapter.new_cache()
        self._below = Below()  # hidden states below the memory, in step with the cache
        self._read_with = mind.knowledge  # when the cache was filled
        self.scored = False  # whether it is kept how likely the tokens of replies were
        self._heard: UserMessage | None = None  # what the memory takes in once it is answered
        self._begin()

    def start(self, system: str = "") -> None:
        """A new conversation; what was learned stays."""
        self.conversation = Conversation(self.adapter.format, system)
        self._clear_cache()
        self._begin()

    def _begin(self) -> None:
        if "turns" in self.mind.memory.learns_from:
            self.mind.begin()

    def use(self, mind: Mind) -> None:
        """Go on with another mind in the same model; the one before is detached. What was said is read anew."""
        self.mind.detach()
        try:
            mind.attach()
        except BaseException:
            self.mind.attach()
            raise
        self.mind = mind
        self._clear_cache()

    def close(self) -> None:
        self.mind.close()

    # one turn ----------------------------------------------------------------------------------------------------
    def hear(self, text: str, learn: bool = True) -> LearnReport | None:
        """Take in the user's message. A memory that learns from messages learns from it here, if it may.

        If that fails or is cancelled, the message was not heard: `hear(text, learn=False)` takes it in without. Where
        the conversation outgrows the model, its oldest turns are read no more. Raises TooLongError if the message alone
        is longer than the model can read.
        """
        self.conversation.ask(text)
        try:
            self._make_room()
            self._trim_to(self.conversation.tokens)
            if learn and "messages" in self.mind.memory.learns_from:
                return self._learn_from_message(text)
            self._heard = self._message() if learn and "turns" in self.mind.memory.learns_from else None
        except BaseException:
            self.conversation.unask()
            raise
        for stage in ("pre_hooks", "post_hooks"):  # as of every user message, also where nothing is learned
            self.mind.log_update(stage, {"last_user_response": text})
        return None

    def _make_room(self) -> None:
        """So much that it need not be made again, and all read anew, at every turn."""
        most = self.adapter.shape.context
        if not most:
            return
        if len(self.conversation.tokens) > most - min(ROOM, most // 8):
            self.conversation.shorten(most - max(most // 3, min(ROOM, most // 8)))
        if len(self.conversation.tokens) >= most:
            raise TooLongError(
                f"the message alone has {len(self.conversation.tokens):,} tokens, and the model reads fewer than "
                f"{most:,}; ask in fewer words"
            )

    def _learn_from_message(self, text: str) -> LearnReport:
        self.refresh()
        return self.mind.learn(Lesson(statement=text), self._message())

    def _message(self) -> UserMessage:
        """What was asked last, after what the cache has read."""
        start = self.cache.length
        tokens, content = self.conversation.tokens[start:], self.conversation.content[start:]
        return UserMessage(tokens, content, self.cache if start else None)

    def end_turn(self, turn: Turn) -> None:
        message, self._heard = self._heard, None
        if message is not None:
            try:
                before = self.conversation.turns[-2:-1]
                echo = said_back(turn.user, Exchange(before[0].user, before[0].text) if before else None)
                self.mind.end_turn(Lesson(statement=turn.user, echo=echo, source=TURN if echo else TALK), message)
            except LmmError as error:  # the reply was given all the same
                turn.problem = error.plain
                if error.detail:
                    log.warning(error)

    def answer(self, about: str = "", decoding: Decoding | None = None) -> Iterator[str]:
        """Stream the reply to the last message heard; afterwards the conversation's last turn is the whole of it.

        `about` is the question whose lessons apply, where it is not the message itself: "no, it's Canberra" is about
        the question before it; `decoding`, where it is not the engine's own. Stops within one token of the mind's
        `cancelled`, and keeps what was said.
        """
        turn = self.conversation.turns[-1]
        self.mind.cancelled.clear()
        turn.about, turn.generated = about, Generated(scores=[] if self.scored else None)
        self.refresh()
        turn.recall = self.mind.recall_of([asked(self.adapter, turn.question)])
        turn.generated.tokens = self.adapter.format.encode(opening_of(turn.recall))
        turn.asked, turn.read = list(self.conversation.tokens), self._prompt(turn)
        yield from self._reply(turn, turn.generated, decoding or self.decoding)
        self.end_turn(turn)

    def more(self, decoding: Decoding | None = None) -> Iterator[str]:
        """Go on with the last reply, which was cut short. Raises UsageError at once if it was not."""
        turn = self.conversation.last
        out = turn.generated if turn is not None else None
        if turn is None or out is None or out.ended or not out.tokens:
            raise UsageError("the last reply is whole; /retry gives another one")
        self.mind.cancelled.clear()
        self.refresh()
        return self._reply(turn, out, decoding or self.decoding)

    def _reply(self, turn: Turn, out: Generated, decoding: Decoding) -> Iterator[str]:
        """Stream what comes after the text that `out` has already, in the conversation as in the cache."""
        mind, tokens, old = self.mind, [*turn.read, *out.tokens], len(out.tokens) if out.text else 0
        self._trim_to(tokens)
        try:
            with mind.holding(turn.recall, len(turn.read) - 1, self._below.add):
                self.cache = yield from self._steps(tokens, decoding, out)
        finally:
            turn.interrupted, turn.fired = out.interrupted, surely(turn.recall)
            self.conversation.replied(out.text, out.tokens[old:])
            self._trim_to(self.conversation.tokens, unread=0)
            if mind.log is not None:
                mind.log.flush()

    def reply(self, text: str) -> Turn:
        """Hear a message and answer it, without streaming."""
        self.hear(text)
        for _ in self.answer():
            pass
        return self.conversation.turns[-1]

    def _prompt(self, turn: Turn) -> list[int]:
        """What is read before the reply, with what the memory says if it speaks through the prompt."""
        if turn.recall is None or not turn.recall.in_prompt:
            return list(self.conversation.tokens)
        return self.conversation.tokens_with(turn.recall)

    def _steps(self, tokens: Sequence[int], decoding: Decoding, out: Generated) -> Generator[str, None, Cache]:
        stop = self.mind.cancelled.is_set
        try:
            return (yield from generation.stream(self.adapter, tokens, self.cache, decoding, out, stop))
        except GeneratorExit:
            out.interrupted = True
            raise

    # the cache ---------------------------------------------------------------------------------------------------
    def _clear_cache(self) -> None:
        self.cache, self._below = self.adapter.new_cache(), Below()
        self._read_with = self.mind.knowledge

    def _trim_to(self, tokens: Sequence[int], unread: int = 1) -> None:
        """Keep of the cache what `tokens` begin with, but for the last `unread`: reading at least one token is what
        gives the next one's logits."""
        read, now = self.cache.tokens[0], np.asarray(tokens, np.int64)
        n = min(len(read), max(len(now) - unread, 0))
        differ = np.flatnonzero(read[:n] != now[:n])
        n = int(differ[0]) if len(differ) else n
        if n < len(read):
            self.cache = self.adapter.trim(self.cache, n)

    def refresh(self) -> None:
        """Where a lesson changes how earlier turns are read, the layers above the memory read them anew; those below
        stand."""
        if self._read_with is self.mind.knowledge:
            return
        self._read_with = self.mind.knowledge
        if not self.mind.memory.rewrites_history:
            return
        self._below.cut(self.cache.length)
        if self._below.length < self.cache.length:
            self.cache = self.adapter.trim(self.cache, self._below.length)
        if self._below.length:
            first = min(site.first_layer for site in self.mind.memory.sites(self.adapter))
            self.cache = self.adapter.refill(self.cache, self._below.joined(self.adapter.ops), first)
