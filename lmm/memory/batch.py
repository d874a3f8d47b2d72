"""Questions with the replies they should get: a training signal for what is written at one site of the model.

What stands before the replies is read once and its cache frozen, as far as the questions share it; the layers below the
site run once; each step runs the layers above it, and the head. The loss may ask for a margin (additive margin, Wang et
al. 2018, arXiv 1801.05599): the right token's logit is lowered by it, so the loss is only small when every token of the
reply leads by that much, which is what makes it the same in other wordings, in the middle of a chat, in other number
formats.

Shape letters: P questions, T tokens, K positions of replies, D width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lmm.adapters.ops import Array, token_cross_entropy
from lmm.errors import LearningError

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter, Site, TapContext
    from lmm.lesson import Lesson

MAX_ANSWER = 200  # tokens
LEARNED = math.log(2)  # a reply's loss with a margin, below which nothing comes within the margin of any of its tokens
Row = tuple[list[int], list[int]]  # the tokens of a question up to where the reply begins, and the reply's


def of_one_lesson(adapter: Adapter, prompt: str, answer: str) -> Row:
    """A question and its reply as tokens. Raises LearningError for too long a reply."""
    before, after = adapter.format.lesson_tokens(prompt, answer)
    if len(after) > MAX_ANSWER:
        raise LearningError(f"the answer has {len(after)} tokens; at most {MAX_ANSWER} can be learned as one lesson")
    return before, after


def with_earlier(pairs: Sequence[tuple[str, str]], lessons: Sequence[Lesson], count: int) -> list[tuple[str, str]]:
    """(question, reply) pairs, and the first ones of the last `count` lessons about other questions, each with the
    newest reply it was given."""
    firsts = dict(x.pairs[0] for x in lessons if x.pairs)
    earlier = [pair for pair in firsts.items() if pair[0] not in dict(pairs)]
    return [*pairs, *(earlier[-count:] if count else ())]


def rows_of(adapter: Adapter, pairs: Sequence[tuple[str, str]]) -> list[Row]:
    """Questions and replies as tokens."""
    return [adapter.format.lesson_tokens(question, reply) for question, reply in pairs]


class Batch:
    """P questions with their replies, padded on the right, read up to the site.

    The first `prefix` tokens are in `cache`: what all questions begin with and, where they are of one length, all of
    them but for the last token. Where the memory acts `everywhere`, there is none. `tokens` [P, T] are the others, `h`
    [P, T, D] their hidden states as they enter the site's first layer, `starts` [P] the questions' last tokens. `live`
    [P, T, 1] is 1. where the memory acts, from these on; `answers` [P, T] are the same places on the host. `targets`,
    `mask` [P, K]: the replies' tokens, predicted from the last K positions.
    """

    def __init__(self, adapter: Adapter, rows: Sequence[Row], site: Site, everywhere: bool = False) -> None:
        ops, self.adapter, self.site, self.first_layer = adapter.ops, adapter, site, site.first_layer
        before = [prompt[:-1] for prompt, _ in rows]
        one_length = len({len(prompt) for prompt in before}) == 1
        self.prefix = 0 if everywhere else len(before[0]) if one_length else common(before)
        self.starts = [len(prompt) - self.prefix for prompt in before]
        first, unread = min(self.starts), [(prompt[self.prefix :], answer) for prompt, answer in rows]
        self.tokens, targets, self.answers = laid_out(unread, adapter.format.end_of_turn)
        self.keep = range(first, self.tokens.shape[1])
        self.live = ops.asarray((self.answers | everywhere).astype(np.float32)[..., None])
        self.targets = ops.asarray(targets[:, first:].copy(), "int64")
        self.mask = ops.asarray(self.answers[:, first:].astype(np.float32))
        self.cache = self._read(before) if self.prefix else None
        self.h = adapter.hidden(self.tokens, self.first_layer, self.cache)

    def _read(self, prompts: list[list[int]]) -> Any:
        """The cache of the first `prefix` tokens; those that all prompts begin with are read once."""
        shared = min(common(prompts), self.prefix)
        cache = self.adapter.read(prompts[0][:shared]) if shared else self.adapter.new_cache()
        cache = self.adapter.select(cache, [0] * len(prompts))
        if shared == self.prefix:
            return cache
        return self.adapter.forward(np.array([p[shared : self.prefix] for p in prompts], np.int64), cache)[1]

    def losses(self, h: Array, margin: float = 0.0) -> Array:
        """Cross-entropy [P, K] of each reply token where the site's hidden states are h [P, T, D]; 0 at the padding."""
        ops = self.adapter.ops
        logits = ops.float32(self.adapter.upper(self.tokens, h, self.first_layer, self.cache, keep=self.keep))
        if margin:
            logits = ops.where(self._right, logits - margin, logits)
        return token_cross_entropy(ops, logits, self.targets) * self.mask

    @cached_property
    def _right(self) -> Array:
        """The targets as [P, K, V], True at the right token."""
        right = np.zeros((*self.targets.shape, self.adapter.shape.vocab), bool)
        np.put_along_axis(right, self.adapter.ops.to_numpy(self.targets)[..., None], True, axis=-1)
        return self.adapter.ops.asarray(right, "bool")

    def total(self, h: Array, margin: float = 0.0) -> Array:
        """The losses' sum."""
        return self.adapter.ops.sum(self.losses(h, margin))

    def mean(self, h: Array) -> Array:
        """The losses' mean over the reply tokens."""
        return self.total(h) / self.adapter.ops.sum(self.mask)

    def said(self, delta: Array) -> bool:
        """Whether the model, decoding greedily with `delta` [T, D] added at the site, gives the reply of the one
        question exactly: each of its tokens is the likeliest after those before it, which are read in one pass."""
        ops, adapter = self.adapter.ops, self.adapter

        def written(x_in: Array, x_out: Array, context: TapContext) -> Array:
            at = ops.asarray(context.positions - self.prefix, "int64")
            return x_out + ops.cast_like(ops.take(delta, at)[None], x_out)

        cache = self.cache if self.cache is not None else adapter.new_cache()
        with adapter.quiet(), adapter.tap(self.site, written):
            logits, _ = adapter.forward(self.tokens, cache, keep=len(self.keep))
        return np.array_equal(ops.to_numpy(ops.argmax(logits)), ops.to_numpy(self.targets))

    def plus(self, delta: Array) -> Array:
        """The hidden states with `delta` [.., T, D], float32, added, in their own type."""
        return self.h + self.adapter.ops.cast_like(delta, self.h)

    @property
    def size(self) -> float:
        """The root mean square of the hidden states."""
        return float(np.sqrt(np.mean(self.adapter.ops.to_numpy(self.adapter.ops.float32(self.h)) ** 2)))

    def question_states(self) -> np.ndarray:
        """Hidden states [P, D] at the questions' last tokens, float32."""
        h = self.adapter.ops.to_numpy(self.h).astype(np.float32)
        return h[np.arange(len(self.starts)), self.starts]


def laid_out(rows: Sequence[Row], fill: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As [P, T]: questions and replies as read, what is to come after each token, and where that counts."""
    tokens = padded([[*prompt, *answer[:-1]] for prompt, answer in rows], fill)
    targets, counts = np.zeros_like(tokens), np.zeros(tokens.shape, bool)
    for i, (prompt, answer) in enumerate(rows):
        at = slice(len(prompt) - 1, len(prompt) - 1 + len(answer))
        targets[i, at], counts[i, at] = answer, True
    return tokens, targets, counts


def padded(rows: Sequence[Sequence[int]], fill: int) -> np.ndarray:
    """Rows of tokens as [B, T]; attention is causal, so what is filled in on the right is never seen."""
    length = max(len(row) for row in rows)
    return np.array([[*row, *[fill] * (length - len(row))] for row in rows], np.int64)


def common(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with."""
    shortest = min(len(row) for row in rows)
    return next((i for i in range(shortest) if len({row[i] for row in rows}) > 1), shortest)
