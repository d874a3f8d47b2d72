"""`engram_hybrid`: an engram whose table is addressed by hash and, where the hash finds nothing, by content.

Approach 4 of the Engram proof of concept, on the rows that `engram` holds:

    hash      the n-grams of the turn, as in `engram`: the rows that were written for exactly this
    content   p_i = cos(k_i, h_t - c) over the places i written for the `top_k` questions whose states in context are
              nearest to the prompt's; of these the `top_k` nearest places, weighted by softmax(p / TEMPERATURE)

    h'_t = h_t + alpha(k_hash) v_hash    where the hash finds rows
           h_t + alpha(k_near) v_near    elsewhere, if the nearest place has a cosine of at least `alone`

A question is recognised by n-grams and state as in `engram`, or by its state alone from `alone` on: other words for the
same thing hash elsewhere, but they are read alike. The proof of concept compares with every row of the table at every
position; here the table is looked up once per reply, and positions attend to what that found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmm.adapters.ops import Array, Ops
from lmm.lesson import State
from lmm.memory.base import Recall
from lmm.memory.engram.engram import Engram, EngramOptions
from lmm.memory.engram.questions import Found, StoredQuestions
from lmm.memory.engram.table import local, names
from lmm.options import option

TEMPERATURE = 0.05  # of the softmax over cosines


@dataclass(frozen=True)
class HybridOptions(EngramOptions):
    alone: float = option(0.8, "cosine from which the state alone decides what is asked", "(0, 1]")
    top_k: int = option(16, "rows found by content", "[1, 1000]")


class EngramHybrid(Engram):
    name = "engram_hybrid"
    summary = "an engram that is addressed by hash and, where that finds nothing, by content"
    Options = HybridOptions

    def _worth_a_look(self, votes: np.ndarray) -> np.ndarray:
        return votes >= 0

    def _scores(self, cosines: np.ndarray, votes: np.ndarray) -> np.ndarray:
        alike = np.where(self._worth_a_look(votes) & (cosines >= self.options.alone), cosines, -np.inf)
        return np.where(votes >= self.options.vote, cosines + self.options.weight * votes, alike)

    def _recalled(self, asked: StoredQuestions, best: Sequence[Found | None], ops: Ops) -> dict[str, Array]:
        """Beside the turn's key, `near` [B, K]: blocks of the questions nearest in context, -1 where there are less."""
        near = np.full((len(best), self.options.top_k), -1, np.int64)
        blocks = {name: i for i, name in enumerate(dict.fromkeys(asked.owner))}
        for b, found in enumerate(best):
            if found is not None:
                order = np.argsort(-found.cosines, kind="stable")[: self.options.top_k]
                near[b, : len(order)] = [blocks[asked.owner[q]] for q in order]
        return super()._recalled(asked, best, ops) | {"near": ops.asarray(near, "int64")}

    def _change(self, ops: Ops, state: State, recall: Recall, slots: np.ndarray, h: Array) -> Array | None:
        by_hash = super()._change(ops, state, recall, slots, h)
        turns = ops.to_numpy(recall.arrays["turn"])
        missed = ~np.isin(slots[:, -h.shape[1] :], self._rows(ops, state).slots).all(-1) & (turns > 0)[:, None]
        if not missed.any():
            return by_hash
        by_content = self._by_content(ops, state, recall, h)
        if by_content is None:
            return by_hash
        by_content = by_content * ops.asarray(missed.astype(np.float32)[..., None])
        return by_content if by_hash is None else by_hash + by_content

    def _by_content(self, ops: Ops, state: State, recall: Recall, h: Array) -> Array | None:
        """What the places nearest to h [B, T, D] add to it."""
        near = ops.to_numpy(recall.arrays["near"]).astype(np.int64)
        blocks, width = names(state, "turns"), h.shape[-1]
        wanted = [i for i in np.unique(near) if i >= 0 and state[f"slots/{blocks[i]}"].shape[0]]
        if not wanted:
            return None
        places = [local(ops.to_numpy(state[f"slots/{blocks[i]}"])) for i in wanted]

        def vectors(kind: str) -> Array:
            rows = [
                ops.take(ops.float32(state[f"{kind}/{blocks[i]}"]), ops.asarray(at, "int64")).reshape(len(at), -1)
                for i, at in zip(wanted, places, strict=True)
            ]
            return ops.concat(rows, 0)[:, :width]

        keys, values = vectors("keys"), vectors("values")  # [P, D]
        owner = np.concatenate([np.full(len(at), i) for i, at in zip(wanted, places, strict=True)])
        allowed = (owner[None] == near[:, :, None]).any(axis=1)[:, None, :]  # [B, 1, P]
        cosines = self.cosines(ops, state, keys[None, None], h[:, :, None])
        cosines = ops.where(ops.asarray(allowed, "bool"), cosines, cosines * 0 - 1.0)
        best, at = ops.top_k(cosines, min(self.options.top_k, len(owner)))
        weights = ops.softmax(best / TEMPERATURE) * ops.where(
            best[..., :1] >= self.options.alone, best * 0 + 1, best * 0
        )
        key, value = (ops.einsum("btk,btkd->btd", weights, ops.take(x, at)) for x in (keys, values))
        return self._gated(ops, state, key, value, h, conv=False)
