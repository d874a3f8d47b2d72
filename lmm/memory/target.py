"""The reply that a lesson should get, as a training signal for what is written at one site.

The prompt is read once and its cache frozen; the layers below the site run once on the reply; each step runs the layers
above it, and the head, on the reply's tokens. The loss is the cross-entropy with the right token's logit lowered by a
margin (additive margin, Wang et al. 2018, arXiv 1801.05599): it is only small when every token of the answer leads by
that much, which is what makes the reply the same in other wordings, in the middle of a chat, in other number formats.

Shape letters: S tokens of the answer and its end of turn, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from lmm.adapters.base import as_tokens
from lmm.adapters.ops import Array
from lmm.engine.conversation import lesson_tokens
from lmm.errors import LearningError
from lmm.lesson import State
from lmm.memory.base import LearnReport
from lmm.memory.message import checked
from lmm.memory.optim import Optimizer

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter, Site

MAX_ANSWER = 200  # tokens
BETAS = (0.9, 0.95)  # of Adam: a few dozen steps at most, so the second moment must follow quickly
LEARNED = float(np.log(2))  # a token's loss below it means that nothing comes within the margin of it


def prompt_and_answer(adapter: Adapter, prompt: str, answer: str) -> tuple[list[int], list[int]]:
    """The tokens of a question and of its reply with the end of turn. Raises LearningError for too long a reply."""
    before, after = lesson_tokens(adapter.format, prompt, answer)
    if len(after) > MAX_ANSWER:
        raise LearningError(f"the answer has {len(after)} tokens; at most {MAX_ANSWER} can be learned as one lesson")
    return before, after


class Target:
    """A question and its reply, read up to a site.

    `read` are the tokens of both but the last; `start` the position of the last prompt token, the reply's step 0; `h`
    [1, S, D] the hidden states from there on, as they enter the site's first layer; `size` their root mean square.
    """

    def __init__(self, adapter: Adapter, prompt: str, answer: str, site: Site) -> None:
        before, after = prompt_and_answer(adapter, prompt, answer)
        ops = adapter.ops
        self.adapter, self.first_layer, self.steps = adapter, site.first_layer, len(after)
        self.read, self.start = [*before, *after[:-1]], len(before) - 1
        self.cache = adapter.new_cache()
        if self.start:
            _, self.cache = adapter.forward(as_tokens(before[:-1]), self.cache)
        self.tokens = as_tokens(self.read[self.start :])
        self.h = adapter.hidden(self.tokens, self.first_layer, self.cache)
        self.size = float(np.sqrt(np.mean(ops.to_numpy(ops.float32(self.h)) ** 2)))
        right = np.zeros((self.steps, adapter.shape.vocab), bool)
        right[np.arange(self.steps), after] = True
        self._right, self._answer = ops.asarray(right, "bool"), ops.asarray(after, "int64")

    def loss(self, delta: Array, margin: float) -> Array:
        """Summed over the reply when `delta` [1, S, D] or [S, D], float32, is added to `h`."""
        ops = self.adapter.ops
        edited = self.h + ops.cast_like(delta, self.h)
        logits = ops.float32(self.adapter.upper(self.tokens, edited, self.first_layer, self.cache))[0]
        lowered = ops.where(self._right, logits - margin, logits)
        return ops.sum(ops.logsumexp(lowered) - ops.take_along(lowered, self._answer[:, None])[:, 0])


def fit(
    loss_of: Callable[[State], Array], params: State, options: Any, adapter: Adapter, report: LearnReport
) -> tuple[State, bool]:
    """The parameters after at most `options.steps` Adam steps of `options.lr`, and whether they were right as they
    came. Stops as soon as every token is learned; else the best that were met. Raises LearningError if the loss is
    no number.

    A step that more than doubles the lowest loss so far went over an edge, often onto a plateau without gradients: it
    is taken back, and half as long from there. Few lessons need that (6 of CounterFact's first 500), but those were
    never learned without.
    """
    ops, lr, lowest, best = adapter.ops, options.lr, float("inf"), (params, params)
    optimizer = Optimizer(ops, "adam", lr, betas=BETAS)
    for step in range(options.steps + 1):
        loss, grads = ops.value_and_grad(loss_of, params)
        checked(loss, {}, adapter)
        report.step(loss)
        if loss <= LEARNED:
            return params, step == 0
        if loss > 2 * lowest:
            lr /= 2
            optimizer = Optimizer(ops, "adam", lr, betas=BETAS)
            params, grads = best
        elif loss < lowest:
            lowest, best = loss, (params, grads)
        if step < options.steps:
            params = optimizer.step(params, grads)
            ops.evaluate(*params.values())
    return best[0], False
