"""A user's message as a training signal: the cross-entropy of each token the user wrote, under the full context.

Shared by the memories that learn from messages. The layers below the site are frozen and run once; each step runs
those above on top of the frozen prefix's KV cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from lmm.adapters.base import TapContext, as_tokens
from lmm.adapters.ops import Array, token_cross_entropy
from lmm.errors import LearningError
from lmm.lesson import Lesson
from lmm.memory.base import UserMessage

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter, Site

TARGETS = ("message", "reply")  # what is learned from a message: its own tokens, or replies to what it answers


class Heard:
    """One message, read up to the site.

    `h` [1, T, D] hidden states at the site; `sources` [N] positions from which the N content tokens `targets` [N] are
    predicted.
    """

    def __init__(self, adapter: Adapter, turn: UserMessage, site: Site) -> None:
        self.adapter, self.cache, self.first_layer = adapter, turn.cache, site.first_layer
        self.tokens = as_tokens(turn.tokens)
        self.sources = [i - 1 for i, mine in enumerate(turn.content) if mine and i > 0]
        if not self.sources:
            raise LearningError("the message has no content to learn from")
        self.targets = [int(turn.tokens[i + 1]) for i in self.sources]
        self.h = adapter.hidden(self.tokens, self.first_layer, self.cache)
        history = turn.cache.tokens if turn.cache is not None else self.tokens[:, :0]
        positions = np.arange(history.shape[1], history.shape[1] + self.tokens.shape[1])
        self.context = TapContext(self.tokens, positions, history, "learn")

    def losses(self, rewrite: Callable[[Array], Array]) -> Array:
        """Cross-entropy [N] of each content token when the site's hidden states are rewritten."""
        h = rewrite(self.h)
        logits = self.adapter.upper(self.tokens, h, self.first_layer, self.cache, keep=self.sources)
        return token_cross_entropy(self.adapter.ops, logits[0], self.adapter.ops.asarray(self.targets, "int64"))

    def raw_losses(self, rewrite: Callable[[Array], Array]) -> list[float]:
        """Cross-entropy of every token of the message, scaffold and all, but the first (nothing precedes it)."""
        logits = self.adapter.upper(self.tokens, rewrite(self.h), self.first_layer, self.cache)
        targets = self.adapter.ops.asarray(self.tokens[0, 1:], "int64")
        return self.adapter.ops.to_numpy(token_cross_entropy(self.adapter.ops, logits[0, :-1], targets)).tolist()

    def describe(self, losses: list[float], rewrite: Callable[[Array], Array]) -> dict[str, Any]:
        """The named forms of the token losses, for the log."""
        return {
            "user_response_target_token_ids": self.targets,
            "user_response_token_losses": losses,
            "user_response_raw_target_token_ids": self.tokens[0, 1:].tolist(),
            "user_response_raw_token_losses": self.raw_losses(rewrite),
        }


def heard(adapter: Adapter, lesson: Lesson, message: UserMessage | None, site: Site) -> Heard:
    """The message or, where there is none, the lesson's statement in an empty conversation."""
    text = lesson.statement or f"{lesson.prompt} {lesson.answer}".strip()
    if not text:
        raise LearningError("the lesson is empty: it has neither a statement nor a question and answer")
    return Heard(adapter, message or UserMessage(*adapter.format.message_tokens(text)), site)


def above_mean(losses: np.ndarray) -> np.ndarray:
    """Which tokens enter the loss: those strictly above the mean. All, if none is (a single token, equal losses)."""
    chosen = losses > losses.mean()
    return chosen if chosen.any() else np.ones_like(chosen)
