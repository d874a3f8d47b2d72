"""Questions as hidden states, and whose they are: how memories tell which lesson a prompt is about.

What a question resembles is read off the hidden state at the site, at the last prompt token, less the mean over PLAIN:
raw states of any two prompts have a cosine above .9, centred ones do not (SmolLM2-135M, layer 15: PLAIN's general
questions below .55 to "What is my name?", its rewordings .66 to .89).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lmm.lesson import Lesson, State
from lmm.memory.batch import padded
from lmm.memory.contrast import PLAIN

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter, Site


def number_of(lesson_id: str) -> int:
    """A lesson's id as a number above 0 that fits an int64 array: whose key or row it is. 0: nobody's."""
    return 1 + int.from_bytes(hashlib.sha256(lesson_id.encode()).digest()[:7], "big")


def owners(numbers: Sequence[int], lessons: Sequence[Lesson]) -> list[str]:
    """The ids of the lessons with these numbers; empty where there is none."""
    ids = {number_of(lesson.id): lesson.id for lesson in lessons}
    return [ids.get(int(number), "") for number in numbers]


def last_states(adapter: Adapter, site: Site, prompts: Sequence[Sequence[int]]) -> np.ndarray:
    """Hidden states [B, D] of the untouched model at the site, at the last token of each prompt; float32."""
    h = adapter.hidden(padded(prompts, adapter.format.end_of_turn), site.first_layer)
    rows = adapter.ops.asarray(np.arange(len(prompts)), "int64")
    ends = adapter.ops.asarray([len(p) - 1 for p in prompts], "int64")
    index = rows * h.shape[1] + ends
    return adapter.ops.to_numpy(adapter.ops.take(h.reshape(-1, h.shape[-1]), index)).astype(np.float32)


def plain_states(adapter: Adapter, site: Site) -> np.ndarray:
    """`last_states` of PLAIN, [len(PLAIN), D]."""
    return last_states(adapter, site, [adapter.format.prompt_tokens(text) for text in PLAIN])


def known_keys(state: State, adapter: Adapter, site: Site) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A state's `keys` [K, D] of questions at the site, their `owner` [K] and the `centre` [D] taken off them; before
    the first lesson, those of what no lesson is about."""
    keys, owner, centre = (adapter.ops.to_numpy(state[name]) for name in ("keys", "owner", "centre"))
    if len(keys):
        return keys, owner, centre
    plain = plain_states(adapter, site)
    centre = plain.mean(axis=0)
    return unit(plain - centre), np.zeros(len(plain), np.int64), centre


def unit(x: np.ndarray) -> np.ndarray:
    """Vectors [.., D] of length 1; zero stays zero."""
    return x / (np.linalg.norm(x, axis=-1, keepdims=True) + 1e-12)
