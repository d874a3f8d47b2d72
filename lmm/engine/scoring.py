"""Scores by teacher forcing: which tokens of an answer are the model's first choice, and the loss of a text.

They read with the memory in place, as the engine's replies do, but in one forward pass; nothing is decoded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lmm.adapters.base import as_tokens
from lmm.adapters.ops import token_cross_entropy
from lmm.adapters.sampling import softmax_at
from lmm.engine.asking import equal_lengths, recall_many
from lmm.engine.conversation import as_asked
from lmm.memory.base import Prompt

if TYPE_CHECKING:
    from lmm.engine.mind import Mind
    from lmm.memory.base import Recall


def token_hits(mind: Mind, prompts: Sequence[str], answers: Sequence[str], batch_size: int = 32) -> list[list[bool]]:
    """For each answer [S], the end of turn last: is each token the argmax after the prompt and the tokens before it?

    What the memory recalls for the prompt is held over the answer, as in a reply. Each in an empty conversation.
    """
    format = mind.adapter.format
    recalls = recall_many(mind, prompts, batch_size)
    read = [
        format.render(as_asked(recall, prompt), reply=True) for recall, prompt in zip(recalls, prompts, strict=True)
    ]
    tokens = [format.encode(text) for text in read]
    targets = [format.answer_tokens(text, answer) for text, answer in zip(read, answers, strict=True)]
    hits: list[list[bool]] = [[] for _ in prompts]
    for rows in equal_lengths(tokens, batch_size):
        found = _batch_hits(mind, [tokens[i] for i in rows], [targets[i] for i in rows], [recalls[i] for i in rows])
        for i, row in zip(rows, found, strict=True):
            hits[i] = row
    return hits


def _batch_hits(
    mind: Mind, tokens: list[list[int]], targets: list[list[int]], recalls: Sequence[Recall | None]
) -> list[list[bool]]:
    """Shorter answers are filled up on the right: in a causal model that changes nothing before it."""
    adapter = mind.adapter
    steps = max(map(len, targets))
    filled = np.array([t + [adapter.format.end_of_turn] * (steps - len(t)) for t in targets])
    read = np.concatenate([np.array(tokens), filled[:, :-1]], axis=1)
    with mind.holding(mind.memory.stack(adapter.ops, recalls), len(tokens[0]) - 1):
        logits, _ = adapter.forward(read, adapter.new_cache(len(read)), keep=steps)
    right = adapter.ops.to_numpy(adapter.ops.argmax(logits)) == filled
    return [row[: len(t)].tolist() for row, t in zip(right, targets, strict=True)]


def probabilities(
    mind: Mind, tokens: Sequence[int], targets: Sequence[int], recall: Recall | None, memory: bool = True
) -> np.ndarray:
    """How likely each of `targets` [N] is in its place after the last N of `tokens`, with or without the memory.

    `recall` is that of the reply which they are, as it was held then.
    """
    start = recall.start if recall is not None else 0
    with mind.holding(recall, start), contextlib.nullcontext() if memory else mind.adapter.quiet():
        logits, _ = mind.adapter.forward(as_tokens(tokens), mind.adapter.new_cache(), len(targets))
    return softmax_at(mind.adapter.ops.to_numpy(logits)[0], targets)


def text_losses(mind: Mind, tokens: Sequence[int]) -> np.ndarray:
    """Cross-entropy [T - 1] of each token of a plain text but the first, read as a prompt of its own.

    A memory that recalls something for it holds it from the first token on.
    """
    adapter, format = mind.adapter, mind.adapter.format
    text = format.decode(tokens)
    recall = mind.recall_of([Prompt(text, tokens)])
    recall = None if recall is None else mind.memory.row(recall, 0)
    before = [*format.lead]
    if recall is not None and recall.in_prompt:
        *exchanges, asked = as_asked(recall, "")
        before += format.encode(format.render(exchanges, reply=False) if exchanges else asked["content"])
    read = as_tokens([*before, *tokens])
    with mind.holding(recall, 0):
        logits, _ = adapter.forward(read, adapter.new_cache(), keep=len(tokens))
    targets = adapter.ops.asarray(read[:, -len(tokens) + 1 :], "int64")
    return adapter.ops.to_numpy(token_cross_entropy(adapter.ops, logits[:, :-1], targets))[0]
