"""Sentences that say nothing about anybody, and the states they leave: what a channel's usual size is, and which words
say little."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmm.memory.batch import common

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter, Site

TOGETHER = 16  # messages that are read at once
GENERAL = (
    "What is the name of the tallest mountain?",
    "What is it called, and where is it?",
    "When was it made, and who made it?",
    "What do you have, and how many of them do you have?",
    "Where do you come from?",
    "How do you do this?",
    "Which one is it?",
    "Do you know what this is?",
    "Can you tell me what I can do?",
    "Please write a short text.",
    "I am going to do it as it was done before.",
    "My name is not in it, and neither is yours.",
    "It was there, and now it is here.",
    "They have one, and so do we.",
    "That is what I said to you.",
    "This is one of the things that we have.",
)


def states_of(adapter: Adapter, site: Site, tokens: Sequence[int] | np.ndarray, cache: Any = None) -> np.ndarray:
    """Hidden states [T, D] of tokens at a site in the untouched model, float32."""
    with adapter.quiet():
        h = adapter.hidden(np.asarray(tokens, np.int64)[None], site.first_layer, cache)
    return adapter.ops.to_numpy(adapter.ops.float32(h))[0]


def own_states(adapter: Adapter, site: Site, texts: Sequence[str]) -> list[np.ndarray]:
    """The states [T, D] of each text's own tokens, as a message in an empty conversation; what all messages begin with
    is read once, and those of one length together."""
    messages = [adapter.format.message_tokens(text) for text in texts]
    shared = min(common([tokens for tokens, _ in messages]), *(content.index(True) for _, content in messages))
    by_length: dict[int, list[int]] = {}
    for i, (tokens, _) in enumerate(messages):
        by_length.setdefault(len(tokens), []).append(i)
    found: dict[int, np.ndarray] = {}
    with adapter.quiet():
        before = adapter.new_cache()
        if shared:
            _, before = adapter.forward(np.array([messages[0][0][:shared]], np.int64), before)
        for group in by_length.values():
            for some in (group[i : i + TOGETHER] for i in range(0, len(group), TOGETHER)):
                rest = np.array([messages[i][0][shared:] for i in some], np.int64)
                h = adapter.hidden(rest, site.first_layer, adapter.select(before, [0] * len(some)))
                states = adapter.ops.to_numpy(adapter.ops.float32(h))
                found |= {i: row[np.array(messages[i][1][shared:])] for i, row in zip(some, states, strict=True)}
    return [found[i] for i in range(len(texts))]


def general_states(adapter: Adapter, site: Site) -> np.ndarray:
    """The states [G, D] of the general sentences' own tokens, each sentence as a message."""
    return np.concatenate(own_states(adapter, site, GENERAL))


def centre(adapter: Adapter, site: Site) -> np.ndarray:
    """Mean and deviation of each channel over them, [2, D]: a few channels are hundreds of times larger than others."""
    h = general_states(adapter, site)
    return np.stack([h.mean(0), h.std(0) + 1e-6]).astype(np.float32)
