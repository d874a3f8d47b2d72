"""Many questions to a mind, each in an empty conversation: those of equal length are read and answered together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lmm.adapters import generation
from lmm.adapters.generation import Generated
from lmm.engine.conversation import as_asked, opening_of
from lmm.memory.base import Prompt, Recall

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter, Cache
    from lmm.adapters.models.chat_format import ChatFormat
    from lmm.engine.mind import Mind


@dataclass
class Reply:
    """An answer and how it came about. `recall` says which lessons fired."""

    prompt: str
    generated: Generated = field(default_factory=Generated)
    recall: Recall | None = None

    @property
    def text(self) -> str:
        return self.generated.text.rstrip()


def ask_many(
    mind: Mind,
    prompts: Sequence[str],
    max_tokens: int = 32,
    batch_size: int = 32,
    progress: Callable[[int], None] | None = None,
) -> list[Reply]:
    """Greedy replies in the order of the prompts; `progress` hears how many more there are."""
    recalls = recall_many(mind, prompts, batch_size)
    replies = [Reply(prompt, recall=recall) for prompt, recall in zip(prompts, recalls, strict=True)]
    for reply in replies:
        reply.generated.tokens = mind.adapter.format.encode(opening_of(reply.recall))[:max_tokens]
    tokens = [[*tokens_asked(mind.adapter.format, r.recall, r.prompt), *r.generated.tokens] for r in replies]
    shared = _read_once(mind.adapter, tokens)
    for rows in equal_lengths(tokens, batch_size):
        _answer(mind, [replies[i] for i in rows], np.array([tokens[i] for i in rows]), max_tokens, shared)
        if progress is not None:
            progress(len(rows))
    return replies


def recall_many(mind: Mind, prompts: Sequence[str], batch_size: int = 32) -> list[Recall | None]:
    """What the memory decides about each prompt in an empty conversation."""
    recalls: list[Recall | None] = []
    for i in range(0, len(prompts), batch_size):
        some = prompts[i : i + batch_size]
        recall = mind.recall_of([asked(mind.adapter, text) for text in some])
        recalls += [None if recall is None else mind.memory.row(recall, j) for j in range(len(some))]
    return recalls


def asked(adapter: Adapter, text: str) -> Prompt:
    """A question as a memory gets it: in an empty conversation."""
    return Prompt(text, adapter.format.prompt_tokens(text))


LONG = 256  # tokens that all prompts begin with, from which these are read once: a system prompt


def _read_once(adapter: Adapter, prompts: Sequence[Sequence[int]]) -> Cache | None:
    """What all prompts begin with, read without the memory, where it is long."""
    if len(prompts) < 2:
        return None
    first, last = min(map(list, prompts)), max(map(list, prompts))
    count = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(map(len, prompts)) - 1)
    if count < LONG:
        return None
    with adapter.quiet():
        return generation.prefill(adapter, first[:count], adapter.new_cache())[1]


def _answer(
    mind: Mind, replies: Sequence[Reply], prompts: np.ndarray, max_tokens: int, shared: Cache | None = None
) -> None:
    """Fill in replies to prompts of one length [B, T], of which `shared` has read what they begin with.

    A prompt ends with what the reply to it has already.
    """
    start = time.perf_counter()
    recall = mind.memory.stack(mind.adapter.ops, [reply.recall for reply in replies])
    read = shared.length if shared is not None else 0
    with mind.holding(recall, prompts.shape[1] - 1):
        most = max_tokens - min(len(reply.generated.tokens) for reply in replies)
        found = generation.batch(mind.adapter, prompts[:, read:], most, shared)
    for reply, made in zip(replies, found, strict=True):
        out = reply.generated
        out.tokens = [*out.tokens, *made][:max_tokens]
        out.text = mind.adapter.format.decode(out.tokens).strip()
        out.seconds = (time.perf_counter() - start) / len(replies)


def tokens_asked(format: ChatFormat, recall: Recall | None, text: str) -> list[int]:
    """A question in an empty conversation, up to where the reply begins, with what the memory says in the prompt."""
    return format.encode(format.render(as_asked(recall, text), reply=True))


def equal_lengths(tokens: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
    """Indices of prompts of equal length, at most `batch_size` together, shortest first."""
    by_length: dict[int, list[int]] = {}
    for i, row in enumerate(tokens):
        by_length.setdefault(len(row), []).append(i)
    for length in sorted(by_length):
        rows = by_length[length]
        yield from (rows[i : i + batch_size] for i in range(0, len(rows), batch_size))
