"""The decode loop: prefill, then one token at a time, on any backend.

It knows tokens, caches and stopping; what a memory does happens in the taps while it runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from lmm.adapters.models.chat_format import ChatFormat
from lmm.adapters.sampling import Score, beam_search, picker, score
from lmm.config import LONGEST, Decoding
from lmm.text.cutter import Cutter
from lmm.text.sentences import sentences

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter, Cache

Stop = Callable[[], bool]
# Tokens read at once: a second or two on a CPU, for 4 to 5 % more work than in parts of 512. Parts by the
# clock would make a reply's last digits, and so a near tie between two tokens, hang on how busy the machine is.
PREFILL_PART = 128
AT_ONCE = 512  # tokens to read before which a reply's opening is shown already
DECODED = 8  # tokens of a reply that are decoded at once, or a few more
# A loop: one piece of text over and over. Three times the same line is a refrain, and short pieces may draw a line.
SHORT, OFTEN, SELDOM, LOOP = 64, 4, 3, 48  # pieces up to so many tokens come so often, others so; so many in all
SEEN = 8  # tokens in a row that were seen before, so that a piece may have come again


@dataclass
class Generated:
    """A reply as it grows. `tokens` includes the end of turn if the model reached it; times are in seconds."""

    tokens: list[int] = field(default_factory=list)
    text: str = ""
    ended: bool = False  # the model stopped by itself
    interrupted: bool = False
    cut: str = ""  # why it ended early, if the user did not stop it: "length", "context" or "repeats"
    before: int = 0  # tokens of it that an earlier run made
    scores: list[Score] | None = None  # of each of the tokens, if somebody wants to know
    continues: bool = False  # the text before it, so that its first blanks count
    prefill_tokens: int = 0
    read: int = 0  # of the prompt's tokens, so far
    first_token_s: float = 0.0
    seconds: float = 0.0

    @property
    def reading(self) -> tuple[int, int] | None:
        """How far the prompt is read: tokens, of how many. None once it is."""
        return (self.read, self.prefill_tokens) if self.read < self.prefill_tokens else None

    @property
    def tokens_per_s(self) -> float:
        """Decoding speed: tokens after the first, per second."""
        spent, made = self.seconds - self.first_token_s, len(self.tokens) - self.before
        return (made - 1) / spent if spent > 0 and made > 1 else 0.0


class Detokenizer:
    """Tokens -> text as they come. Holds back what may still change: half a character, a lone leading space."""

    def __init__(self, format: ChatFormat, before: Sequence[int] = ()) -> None:
        """`before`: tokens that the text goes on from."""
        self.format, self.tokens = format, list(before)
        self.shown = format.decode(self.tokens)

    def feed(self, token: int) -> str:
        self.tokens.append(token)
        text = self.format.decode(self.tokens)
        if text.endswith("\ufffd"):
            return ""
        new, self.shown = text[len(self.shown) :], text
        if len(self.tokens) >= DECODED:
            self._start_afresh()
        return new

    def _start_afresh(self) -> None:
        """So that a long reply is not decoded over and over; but not from nothing, or some tokenizers drop the space
        that comes next, nor from half a character."""
        last = self.format.decode(self.tokens[-1:])
        if last and "\ufffd" not in last:
            self.tokens, self.shown = self.tokens[-1:], last

    def flush(self) -> str:
        """What was held back at the end of the reply."""
        return self.format.decode(self.tokens)[len(self.shown) :]


def prefill(
    adapter: Adapter,
    tokens: Sequence[int],
    cache: Cache,
    stop: Stop = lambda: False,
    so_far: Callable[[int], object] = lambda read: None,
) -> tuple[np.ndarray, Cache]:
    """Read what `cache` has not read yet of `tokens` -> logits [V] of the last, float32, and the cache.

    Long prompts are read in parts, so that `stop` need not wait; then the cache is shorter than `tokens`. `so_far` gets
    how many tokens were read after each part.
    """
    start = cache.length
    while True:
        new = np.asarray(tokens[cache.length : cache.length + PREFILL_PART], np.int64).reshape(1, -1)
        logits, cache = adapter.forward(new, cache)
        so_far(cache.length - start)
        if cache.length >= len(tokens) or stop():
            return adapter.ops.to_numpy(logits)[0, -1], cache


def stream(
    adapter: Adapter, tokens: Sequence[int], cache: Cache, decoding: Decoding, out: Generated, stop: Stop
) -> Generator[str, None, Cache]:
    """Reply to `tokens`, of which `cache` has read a prefix. Yields text; fills `out`; returns (via the generator's
    value) the cache, which has read everything but the reply's last token.

    An `out` with tokens is a reply that goes on: `tokens` end with those. Without their text, they are its opening; the
    reply ends before a sentence of that comes again.
    """
    start = time.perf_counter()
    text = Detokenizer(adapter.format, tokens[-1:] if out.continues else ())
    begun = "".join(map(text.feed, out.tokens))
    whole = len(out.tokens)  # of them are surely a part of the reply
    made = whole if out.text else 0  # an opening counts among the most that may come
    out.before, out.prefill_tokens, out.read = len(out.tokens), len(tokens) - cache.length, 0
    out.first_token_s, out.cut, out.interrupted = 0.0, "", False
    if decoding.resolved == "beam":
        out.scores = None
    elif out.scores is not None:
        out.scores += [Score(0.0)] * (whole - len(out.scores))  # nobody picked an opening
    room = adapter.shape.context - len(tokens) if adapter.shape.context else None
    longest = decoding.max_tokens or LONGEST
    most = longest if room is None else max(1, min(longest, room))
    cutter = Cutter([] if out.text or not decoding.stop_repeats else [x for x in sentences(begun) if " " in x])
    opening = begun if not out.text else ""
    if opening and out.prefill_tokens <= AT_ONCE:
        yield _grown(out, opening)
    logits, cache = prefill(adapter, tokens, cache, stop, lambda read: setattr(out, "read", read))
    if cache.length < len(tokens):
        out.interrupted, out.seconds = True, time.perf_counter() - start
        return cache
    if opening and not out.text:  # a reply that has begun and then stands still looks finished
        yield _grown(out, opening)
    pick, loop = picker(decoding), Loop()
    ends = adapter.format.text_ends if out.continues else adapter.format.stop_ids
    if decoding.resolved == "beam":
        found, cache = beam_search(adapter, logits, cache, replace(decoding, max_tokens=most), stop)
        out.first_token_s = time.perf_counter() - start
        for token in found:
            out.tokens.append(token)
            if token not in ends:
                yield _grown(out, text.feed(token))
    while decoding.resolved != "beam":
        token = int(pick(logits[None])[0])
        out.first_token_s = out.first_token_s or time.perf_counter() - start
        out.tokens.append(token)
        if out.scores is not None:
            out.scores.append(score(logits, token))
        if token in ends:
            break
        if chunk := cutter.feed(text.feed(token)):
            yield _grown(out, chunk)
        if cutter.found:  # the model only says the opening again
            break
        whole = whole if cutter.held else len(out.tokens)
        if stop():
            break
        if decoding.stop_repeats and loop.feed(token):
            out.cut = "repeats"
            break
        if len(out.tokens) - made >= most:
            break
        logits, cache = adapter.decode(token, cache)
    if cutter.found:
        del out.tokens[whole:], (out.scores or [])[whole:]
    out.ended = cutter.found or (bool(out.tokens) and out.tokens[-1] in ends)
    out.interrupted = not out.ended and stop()
    if not (out.ended or out.interrupted or out.cut):
        out.cut = "length" if most == longest else "context"
    if not cutter.found and (rest := cutter.feed(text.flush()) + cutter.rest()):
        yield _grown(out, rest)
    out.seconds = time.perf_counter() - start
    return cache


class Loop:
    """Finds out, token by token and at about the same cost for each, whether a reply has come into a loop."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._seen: dict[tuple[int, ...], int] = {}  # where a run of SEEN tokens last ended
        self._again: dict[int, int] = {}  # periods, and how many tokens up to the last are those one period before

    def feed(self, token: int) -> bool:
        """The reply's next token -> whether its end is one piece over and over by now."""
        self._again = {period: n + 1 for period, n in self._again.items() if token == self._tokens[-period]}
        self._tokens.append(token)
        length, run = len(self._tokens), tuple(self._tokens[-SEEN:])
        if run in self._seen:
            self._again.setdefault(length - self._seen[run], SEEN)
        self._seen[run] = length
        return any(
            n + period >= max((OFTEN if period <= SHORT else SELDOM) * period, LOOP)
            for period, n in self._again.items()
        )


def _grown(out: Generated, chunk: str) -> str:
    if not (out.text or out.continues):
        chunk = chunk.lstrip(" ")
    out.text += chunk
    return chunk


def batch(adapter: Adapter, prompts: np.ndarray, max_tokens: int, cache: Cache | None = None) -> list[list[int]]:
    """Greedy replies to prompts [B, T] of equal length -> tokens of each, without the end of turn. `cache`: what all of
    them begin with, if that was read already; `prompts` are the rest.

    The batch keeps its shape until the last row has ended: with the same prompts, a row's arithmetic then does not
    depend on how long its neighbours talk.
    """
    ends = adapter.format.stop_ids
    cache = adapter.new_cache(len(prompts)) if cache is None else adapter.select(cache, [0] * len(prompts))
    logits, cache = adapter.forward(prompts, cache)
    replies: list[list[int]] = [[] for _ in prompts]
    open_rows = set(range(len(prompts)))
    for step in range(max_tokens):
        picked = adapter.ops.to_numpy(adapter.ops.argmax(logits[:, -1]))
        for row in list(open_rows):
            if int(picked[row]) in ends:
                open_rows.remove(row)
            else:
                replies[row].append(int(picked[row]))
        if not open_rows or step == max_tokens - 1:
            break
        logits, cache = adapter.forward(picked.reshape(-1, 1).astype(np.int64), cache)
    return replies
