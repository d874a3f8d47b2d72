"""Room in an engram's table for pairs that are to be trained offline: rows with keys, and values of zero.

The addresses and the keys are those that a lesson would write; the values, the projections and the convolution are what
training then finds, by gradients through `rewrite`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lmm.lesson import State
from lmm.memory.batch import Batch, rows_of
from lmm.memory.engram.questions import StoredQuestions
from lmm.memory.engram.table import gathered, names, split
from lmm.memory.states import number_of, unit
from lmm.text.fold import fold

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter
    from lmm.memory.engram.engram import Engram

PAIRS = "pairs"  # blocks of such rows are named pairs0, pairs1, ...; a lesson's has the lesson's id
BATCH = 8
SHARED = ("key_proj", "value_proj", "conv")  # what training may change beside rows
SAME_WORDS = 0.999  # the vote from which two questions have all n-grams in common
KERNEL = 4  # of the convolution


def with_room(memory: Engram, state: State, pairs: Sequence[tuple[str, str]], adapter: Adapter) -> State:
    """The state with rows for the questions that have none yet; of two answers to a question, the later.

    A question that was taught in these words keeps its lesson's rows: training is then of what else there is.
    """
    ops, width = adapter.ops, adapter.shape.width
    state = memory.with_centre(state, adapter)
    if "conv" not in state:
        eye = np.eye(width, dtype=np.float32)
        state = state | {
            "key_proj": ops.asarray(eye),
            "value_proj": ops.asarray(eye),
            "conv": ops.zeros((KERNEL, width)),
        }
    blocks = names(state, "turns")
    known = {int(turn) for block in blocks for turn in ops.to_numpy(state[f"turns/{block}"])}
    new = {turn_of_pair(question): (question, answer) for question, answer in pairs}
    asked, words = StoredQuestions(ops, state), memory.words(adapter)
    new = {
        turn: pair
        for turn, pair in new.items()
        if turn not in known and asked.votes.cosines(*words.signature(pair[0])).max(initial=0.0) < SAME_WORDS
    }
    if not new:
        return state
    block = memory.question_block(state, [(turn, [question]) for turn, (question, _) in new.items()], adapter)
    block |= _answer_rows(memory, state, new, adapter)
    name = f"{PAIRS}{sum(b.startswith(PAIRS) for b in blocks)}"
    return state | {
        f"{kind}/{name}": ops.asarray(array, "int64" if array.dtype == np.int64 else "float32")
        for kind, array in block.items()
    }


def turn_of_pair(question: str) -> int:
    return number_of("pair: " + fold(question))


def _answer_rows(
    memory: Engram, state: State, pairs: dict[int, tuple[str, str]], adapter: Adapter
) -> dict[str, np.ndarray]:
    """`slots` [S, H], `keys` and `values` [R, d] of all answers."""
    ops, site, turns = adapter.ops, memory.sites(adapter)[0], list(pairs)
    centre, slots, keys = ops.to_numpy(state["centre"])[1], [], []
    for i in range(0, len(turns), BATCH):
        some = turns[i : i + BATCH]
        replies = Batch(adapter, rows_of(adapter, [pairs[turn] for turn in some]), site)
        h = ops.to_numpy(ops.float32(replies.h))
        for row, turn in enumerate(some):
            places = np.flatnonzero(replies.answers[row])
            read = replies.tokens[row : row + 1]
            slots.append(memory.addresses(np.array([turn]), read, places, replies.starts[row])[0])
            keys.append(unit(h[row, places] - centre) * h.shape[-1] ** 0.5)
    joined = np.concatenate(slots)
    rows = gathered(split(np.concatenate(keys), joined.shape[1]), joined)
    return {"slots": joined, "keys": rows, "values": np.zeros_like(rows)}
