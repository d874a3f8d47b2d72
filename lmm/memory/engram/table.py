"""A hashed table of which only the rows that were written are held, in blocks: one for each lesson.

The table is conceptually [size, 2 d]: a key and a value part in each row. A block holds rows it has written to, as
`slots/<name>` [S, H] (the rows' numbers, place by place), `keys/<name>` and `values/<name>` [R, d] (the R distinct ones
in rising order). Where two blocks write to the same row, its content is their sum; so a block can be taken away without
a trace, and versions of a state share all blocks but the newest.

Shape letters: B batch, T tokens, S places of a block, R its rows, H heads, d width of a head, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lmm.lesson import State

if TYPE_CHECKING:
    from lmm.adapters.ops import Array, Ops


def names(state: State, kind: str = "slots") -> list[str]:
    """The blocks of a state, in the order in which they were written."""
    return [name.partition("/")[2] for name in state if name.startswith(kind + "/")]


class Table:
    """Where the rows of a state's blocks are. Made from row numbers alone: the contents are read anew each time."""

    def __init__(self, ops: Ops, state: State) -> None:
        self.ops, self.blocks = ops, names(state)
        self.made_of = [state[f"slots/{name}"] for name in self.blocks]
        slots = [np.unique(ops.to_numpy(array)) for array in self.made_of]
        numbers = [np.zeros(0, np.int64), *slots]
        owners = [np.zeros(0, np.int64), *(np.full(len(s), i) for i, s in enumerate(slots))]
        rows = [np.zeros(0, np.int64), *(np.arange(len(s)) for s in slots)]
        order = np.argsort(np.concatenate(numbers), kind="stable")
        self.slots, self.owner, self.row = (np.concatenate(part)[order] for part in (numbers, owners, rows))

    def fits(self, state: State) -> bool:
        """Was it made from the blocks of this state?"""
        held = [array for name, array in state.items() if name.startswith("slots/")]
        return len(held) == len(self.made_of) and all(a is b for a, b in zip(held, self.made_of, strict=True))

    def read(self, state: State, slots: np.ndarray, width: int) -> tuple[Array, Array] | None:
        """Keys and values [B, T, D] of the table's rows `slots` [B, T, H], heads side by side; rows that nobody wrote
        are zero. None if nobody wrote any."""
        low, high = np.searchsorted(self.slots, slots, "left"), np.searchsorted(self.slots, slots, "right")
        deepest = int((high - low).max(initial=0))
        if deepest == 0:
            return None
        entries = [(np.minimum(low + k, len(self.slots) - 1), low + k < high) for k in range(deepest)]
        wanted = np.unique(np.concatenate([self.owner[at[hit]] for at, hit in entries]))
        keys, values, starts = self._joined(state, wanted)
        found: list[Array] = [0.0, 0.0]
        for at, hit in entries:
            index = np.where(hit, starts[self.owner[at]] + self.row[at], 0)
            mask = self.ops.asarray(hit.astype(np.float32)[..., None])
            for i, part in enumerate((keys, values)):
                found[i] = found[i] + self.ops.take(part, self.ops.asarray(index, "int64")) * mask
        shape = (*slots.shape[:-1], -1)
        return found[0].reshape(shape)[..., :width], found[1].reshape(shape)[..., :width]

    def _joined(self, state: State, blocks: np.ndarray) -> tuple[Array, Array, np.ndarray]:
        """Keys and values of some blocks one after the other, and where each block begins [blocks of the table]."""
        starts, at = np.zeros(len(self.blocks), np.int64), 0
        for block in blocks:
            starts[block] = at
            at += state[f"keys/{self.blocks[block]}"].shape[0]
        parts = [
            self.ops.concat([self.ops.float32(state[f"{kind}/{self.blocks[b]}"]) for b in blocks], 0)
            for kind in ("keys", "values")
        ]
        return parts[0], parts[1], starts


def split(x: np.ndarray, heads: int) -> np.ndarray:
    """Vectors [S, D] as one piece for each head, [S, H, d]; the last pieces are filled up with zeros."""
    d = -(-x.shape[1] // heads)
    return np.pad(x, ((0, 0), (0, d * heads - x.shape[1]))).reshape(len(x), heads, d)


def gathered(pieces: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """Pieces [S, H, d] for the rows slots [S, H] -> the R distinct rows in rising order, [R, d]; the mean where a
    row is meant twice."""
    rows, index = np.unique(slots, return_inverse=True)
    sums = np.zeros((len(rows), pieces.shape[-1]), np.float32)
    np.add.at(sums, index.reshape(-1), pieces.reshape(-1, pieces.shape[-1]))
    return sums / np.bincount(index.reshape(-1), minlength=len(rows))[:, None]


def local(slots: np.ndarray) -> np.ndarray:
    """For rows slots [S, H]: which of the distinct rows each is, int64 [S, H]."""
    return np.unique(slots, return_inverse=True)[1].reshape(slots.shape)


def block_problems(arrays: dict[str, np.ndarray], name: str, heads: int, width: int, vectors: int) -> list[str]:
    """What is wrong with the tensors of one block; `vectors` is the model's width."""
    expected: dict[str, Sequence[int | None]] = {
        "turns": (None,),
        "grams": (None, 3),
        "context": (None, vectors),
        "slots": (None, heads),
        "keys": (None, width),
        "values": (None, width),
    }
    problems = [f"no tensor '{kind}/{name}'" for kind in expected if f"{kind}/{name}" not in arrays]
    if problems:
        return problems
    for kind, wanted in expected.items():
        shape = arrays[f"{kind}/{name}"].shape
        if len(shape) != len(wanted) or any(w not in (None, s) for s, w in zip(shape, wanted, strict=True)):
            shown = ", ".join("n" if w is None else str(w) for w in wanted)
            problems.append(f"tensor '{kind}/{name}' has shape {shape}, expected ({shown})")
        elif (arrays[f"{kind}/{name}"].dtype.kind == "f") != (kind in ("context", "keys", "values")):
            problems.append(f"tensor '{kind}/{name}' holds {arrays[f'{kind}/{name}'].dtype}")
    if problems:
        return problems
    rows, questions = len(np.unique(arrays[f"slots/{name}"])), arrays[f"turns/{name}"].shape[0]
    for kind, count in (("keys", rows), ("values", rows), ("context", questions)):
        if arrays[f"{kind}/{name}"].shape[0] != count:
            found = arrays[f"{kind}/{name}"].shape[0]
            problems.append(f"tensor '{kind}/{name}' has {found} rows, expected {count}")
    grams = arrays[f"grams/{name}"]
    if len(grams) and not (grams[:, 0].min() >= 0 and grams[:, 0].max() < questions and grams[:, 2].min() > 0):
        problems.append(f"tensor 'grams/{name}' names questions that are not there")
    return problems
