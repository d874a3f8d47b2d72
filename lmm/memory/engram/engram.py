"""`engram`: a table of rows addressed by hashed n-grams, with a context gate (Engram, arXiv:2601.07372).

At a position t of a reply, the ids of the 2- and 3-gram that ends there are hashed by 8 heads each into distinct prime
tables (`ngrams`). The rows found there, side by side, are a key and a value, k_t, v_t [D]; what nobody wrote is zero:

    v'_t  = W_V v_t;   v''_t = v'_t + SiLU(conv4(RMSNorm(v'_t)))          conv4: depthwise, causal, 4 wide
    s_t   = gain <RMSNorm(W_K k_t), RMSNorm(h_t - c)> / sqrt(D)
    alpha = sigmoid(sign(s_t) sqrt(max(|s_t|, 1e-6)) + bias)              bias -5
    h'_t  = h_t + alpha v''_t                                             before the attention of layer `depth`

A row that was never written adds nothing: the fresh memory is the model, and however many lessons there are, a text
that addresses none of their rows is read bitwise as before.

What is hashed. In a chat, the tokens before a reply are the template's: plain n-grams there are the same after every
question. So the first id of a reply's n-grams is the *turn's key*: the number of the stored question that is being
asked, plus the step j of the reply: (u + j, x_t) and (u + j, x_t-1, x_t), with u in place of the prompt's own tokens.
Which question that is, if any, is decided once per reply, on the user's words: those that share enough n-grams with
them (`votes`) are compared with them in context, by the cosine of the centred states at the last prompt token after
`context_depth` of the layers; cosine + `weight` x vote must reach `threshold`. The n-grams tell subjects apart, the
state tells what is asked about them; neither can do both (docs/engram.md).

Learning a lesson writes rows of its own: keys are the states met on the way, values come from a few Adam steps on the
margin cross-entropy of answer + end of turn (as in `keyed`), through the rows alone. A lesson that the model answers
rightly already, by that margin, writes none. W_K, W_V (identity) and conv (zero) change only in offline training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lmm.adapters.base import Site, as_tokens
from lmm.adapters.ops import Array
from lmm.errors import StateError
from lmm.lesson import Lesson, State
from lmm.memory.base import LearnReport, Prompt, Recall
from lmm.memory.batch import LEARNED, Batch, of_one_lesson
from lmm.memory.engram.ngrams import NGramHash, normal_ids
from lmm.memory.engram.offline import KERNEL, PAIRS, SHARED, with_room
from lmm.memory.engram.questions import Found, StoredQuestions, Words
from lmm.memory.engram.table import Table, block_problems, gathered, local, names, split
from lmm.memory.isolated import Isolated
from lmm.memory.keyed.gate import views
from lmm.memory.optim import BETAS, Optimizer, fit
from lmm.memory.states import last_states, number_of, plain_states, unit
from lmm.options import Options, learning, option
from lmm.text.sanitize import listed

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter, TapContext
    from lmm.adapters.ops import Ops

ORDERS = (2, 3)
KINDS = ("turns", "grams", "context", "slots", "keys", "values")  # the tensors of a block


@dataclass(frozen=True)
class EngramOptions(Options):
    """Numbers: docs/engram.md."""

    depth: float = option(0.8, "the site, as a share of the layers", "(0, 1)")
    context_depth: float = option(0.6, "where a question's state is read, as a share of the layers", "(0, 1)")
    heads: int = option(8, "hashes of each n-gram", "[1, 64]")
    slots: int = option(100_003, "rows of a head's table, were it held whole", "[100, 100000000]")
    bias: float = option(-5.0, "of the gate", "[-20, 20]")
    gain: float = option(4.0, "of the gate", "(0, 100]")
    vote: float = option(0.3, "share of n-grams from which a stored question may be meant", "(0, 1]")
    weight: float = option(0.25, "of the votes beside the cosine", "[0, 10]")
    threshold: float = option(0.65, "cosine + weight x vote from which a question is asked", "(0, 10]")
    margin: float = learning(6.0, "logits by which every token of the answer is to lead", "[0, 50]")
    lr: float = learning(0.2, "of Adam, in units of the hidden states' root mean square", "(0, 10]")
    steps: int = learning(40, "of Adam, at most", "[1, 1000]")

    def together(self) -> list[str]:
        if self.context_depth <= self.depth:
            return []
        return [f"context_depth must be at most depth, not {self.context_depth} and {self.depth}"]


class Engram(Isolated):
    name = "engram"
    summary = "rows addressed by hashed n-grams of the turn, opened by a context gate"
    Options: ClassVar[type] = EngramOptions

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.hash = NGramHash(ORDERS, self.options.heads, self.options.slots)
        self._asked: tuple[State, StoredQuestions] | None = None
        self._table: Table | None = None
        self._normal: np.ndarray | None = None

    # places --------------------------------------------------------------------------------------------------
    def sites(self, adapter: Adapter) -> tuple[Site, ...]:
        layers = adapter.shape.layers
        layer = int(self.options.depth * layers) if adapter.layer is None else adapter.layer
        return (adapter.site(layer, "pre_attention"),)

    def context_site(self, adapter: Adapter) -> Site:
        """Where the state is read that says what a prompt asks."""
        layer = int(self.options.context_depth * adapter.shape.layers)
        return adapter.site(min(layer, self.sites(adapter)[0].layer), "pre_attention")

    # what is asked -------------------------------------------------------------------------------------------
    def on_prompt(
        self, state: State, lessons: Sequence[Lesson], prompts: Sequence[Prompt], adapter: Adapter
    ) -> Recall | None:
        if not names(state, "turns"):
            return None
        asked = self._questions(state, adapter.ops)
        texts = [(b, view) for b, prompt in enumerate(prompts) for view in views(prompt.text)]
        stored = {lesson.id: lesson.prompt for lesson in lessons}
        votes = [asked.candidates(view, self.words(adapter), stored) for _, view in texts]
        looked_at = [i for i, row in enumerate(votes) if self._worth_a_look(row).any()]
        if not looked_at:
            return None
        tokens = [adapter.format.prompt_tokens(texts[i][1]) for i in looked_at]
        centre = adapter.ops.to_numpy(state["centre"])[0]
        cosines = unit(last_states(adapter, self.context_site(adapter), tokens) - centre) @ asked.context.T
        best: list[Found | None] = [None] * len(prompts)
        for i, row in zip(looked_at, cosines, strict=True):
            scores, b = self._scores(row, votes[i]), texts[i][0]
            found, before = Found(float(scores.max()), int(scores.argmax()), row), best[b]
            if found.score >= self.options.threshold and (before is None or found.score > before.score):
                best[b] = found
        if not any(best):
            return None
        fired = [[(asked.owner[found.question], found.score)] if found else [] for found in best]
        return Recall(fired, self._recalled(asked, best, adapter.ops))

    def _recalled(self, asked: StoredQuestions, best: Sequence[Found | None], ops: Ops) -> dict[str, Array]:
        """What `rewrite` needs to know of the question found for each of B prompts: its turn's key [B], 0 for none."""
        turns = [int(asked.turns[found.question]) if found else 0 for found in best]
        return {"turn": ops.asarray(np.array(turns, np.int64), "int64")}

    def _worth_a_look(self, votes: np.ndarray) -> np.ndarray:
        """Which of the Q stored questions a text could ask, by its votes alone."""
        return votes >= self.options.vote

    def _scores(self, cosines: np.ndarray, votes: np.ndarray) -> np.ndarray:
        """How far a text asks each of the Q stored questions, by its state in context [Q] and its votes [Q]."""
        return np.where(self._worth_a_look(votes), cosines + self.options.weight * votes, -np.inf)

    def words(self, adapter: Adapter) -> Words:
        """How this model's tokenizer reads words; with it, `rewrite` knows normalised ids."""
        self._normal = normal_ids(adapter)[0]
        return Words(adapter)

    def _questions(self, state: State, ops: Ops) -> StoredQuestions:
        if self._asked is None or self._asked[0] is not state:
            self._asked = (state, StoredQuestions(ops, state))
        return self._asked[1]

    # reading -------------------------------------------------------------------------------------------------
    def rewrite(
        self, ops: Ops, state: State, recall: Recall | None, x_in: Array, x_out: Array, context: TapContext
    ) -> Array:
        if recall is None or context.positions[-1] < recall.start:
            return x_out
        first = int(np.searchsorted(context.positions, recall.start))
        before = min(KERNEL - 1, int(context.positions[first]) - recall.start) if "conv" in state else 0
        slots = self._slots(ops, recall, context, int(context.positions[first]) - before)
        h = x_out[:, first:]
        change = self._change(ops, state, recall, slots, h)
        if change is None:
            return x_out
        new = h + ops.cast_like(change, h)
        return ops.concat([x_out[:, :first], new], 1) if first else new

    def _change(self, ops: Ops, state: State, recall: Recall, slots: np.ndarray, h: Array) -> Array | None:
        """What the rows `slots` [B, T, H] add to h [B, T, D]; None if nobody wrote any. `slots` may begin earlier."""
        found = self._rows(ops, state).read(state, slots, h.shape[-1])
        return None if found is None else self._gated(ops, state, *found, h)

    def _rows(self, ops: Ops, state: State) -> Table:
        if self._table is None or not self._table.fits(state):
            self._table = Table(ops, state)
        return self._table

    def _slots(self, ops: Ops, recall: Recall, context: TapContext, first: int) -> np.ndarray:
        """The rows [B, T, H] of the reply's n-grams that end at positions `first` to the last one; -1 where none."""
        turns = ops.to_numpy(recall.arrays["turn"]).astype(np.int64)
        read = np.concatenate([context.history, context.tokens], axis=1)
        slots = self.addresses(turns, read, np.arange(first, read.shape[1]), recall.start)
        return np.where((turns > 0)[:, None, None], slots, -1)

    def addresses(self, turns: np.ndarray, read: np.ndarray, positions: np.ndarray, start: int) -> np.ndarray:
        """Rows [B, T, H] of the n-grams at `positions` [T] of the tokens read [B, ..] in replies from `start` on."""
        assert self._normal is not None, "a turn's key comes from on_prompt or learn, which set the normal ids"
        ids = self._normal[read]
        places = [positions - back for back in range(max(ORDERS) - 2, -1, -1)]
        own = np.stack([np.where(at > start, ids[:, np.maximum(at, 0)], turns[:, None]) for at in places], axis=-1)
        return self.hash.rows(turns[:, None] + (positions - start)[None], own)

    def _gated(self, ops: Ops, state: State, keys: Array, values: Array, h: Array, conv: bool = True) -> Array:
        """alpha v'' [B, T, D], float32, for hidden states h [B, T, D]; keys and values may begin earlier."""
        if "value_proj" in state:
            keys, values = keys @ state["key_proj"], values @ state["value_proj"]
            if conv:
                values = values + self._conv(ops, state["conv"], normed(ops, values))
        keys, values = keys[:, -h.shape[1] :], values[:, -h.shape[1] :]
        s = self.cosines(ops, state, keys, h) * (self.options.gain * h.shape[-1] ** 0.5)
        root = ops.sqrt(ops.maximum(ops.abs(s), 1e-6))
        alpha = ops.sigmoid(ops.where(s > 0, root, -root) + self.options.bias)
        return alpha[..., None] * values

    @staticmethod
    def cosines(ops: Ops, state: State, keys: Array, h: Array) -> Array:
        """Of keys and centred hidden states [.., D], by RMSNorm: <RMSNorm(k), RMSNorm(h - c)> / D, [..]."""
        return ops.mean(normed(ops, keys) * normed(ops, ops.float32(h) - state["centre"][1]), -1)

    @staticmethod
    def _conv(ops: Ops, kernel: Array, x: Array) -> Array:
        """SiLU of the depthwise causal convolution of x [B, T, D] with `kernel` [4, D], the newest position last."""
        length = x.shape[1]
        padded = ops.concat([ops.zeros((x.shape[0], KERNEL - 1, x.shape[2])), x], 1)
        y = sum(padded[:, k : k + length] * kernel[k] for k in range(KERNEL))
        return y * ops.sigmoid(y)

    # offline training ----------------------------------------------------------------------------------------
    def trainable(self, state: State) -> tuple[str, ...]:
        """Rows made by `prepare`; while nothing was learned online, which counts on them, also what all rows share."""
        rows = [f"{kind}/{b}" for b in names(state) if b.startswith(PAIRS) for kind in ("values", "keys")]
        online = any(not b.startswith(PAIRS) for b in names(state))
        return (*rows, *(name for name in SHARED if name in state and not online))

    def prepare(self, state: State, pairs: Sequence[tuple[str, str]], adapter: Adapter) -> State:
        return with_room(self, state, pairs, adapter)

    # learning ------------------------------------------------------------------------------------------------
    def with_lesson(self, state: State, lesson: Lesson, adapter: Adapter, report: LearnReport) -> State:
        state = self.with_centre(state, adapter)
        questions = [question for question, _ in lesson.pairs]
        block = self.question_block(state, [(number_of(lesson.id), questions)], adapter)
        block |= self._answer_block(state, lesson, adapter, report)
        ops = adapter.ops
        return state | {
            f"{kind}/{lesson.id}": ops.asarray(block[kind], "int64" if block[kind].dtype == np.int64 else "float16")
            for kind in KINDS
        }

    def with_centre(self, state: State, adapter: Adapter) -> State:
        """The state with the mean state of general prompts, where questions are compared and where rows act: [2, D]."""
        if "centre" in state:
            return state
        sites = (self.context_site(adapter), self.sites(adapter)[0])
        means = [plain_states(adapter, site).mean(axis=0) for site in sites]
        return {"centre": adapter.ops.asarray(np.stack(means).astype(np.float32)), **state}

    def question_block(
        self, state: State, asked: Sequence[tuple[int, list[str]]], adapter: Adapter
    ) -> dict[str, np.ndarray]:
        """`turns` [Q], `grams` [N, 3] (question, n-gram, weight) and `context` [Q, D] of (turn, wordings)."""
        texts = [text for _, wordings in asked for text in wordings]
        found = [self.words(adapter).signature(text) for text in texts]
        grams = [np.stack([np.full(len(g), i), g, w], axis=1) for i, (g, w) in enumerate(found)]
        tokens = [adapter.format.prompt_tokens(text) for text in texts]
        states = [
            last_states(adapter, self.context_site(adapter), tokens[i : i + 16]) for i in range(0, len(tokens), 16)
        ]
        return {
            "turns": np.array([turn for turn, wordings in asked for _ in wordings], np.int64),
            "grams": np.concatenate(grams).astype(np.int64),
            "context": unit(np.concatenate(states) - adapter.ops.to_numpy(state["centre"])[0]),
        }

    def _answer_block(
        self, state: State, lesson: Lesson, adapter: Adapter, report: LearnReport
    ) -> dict[str, np.ndarray]:
        """`slots` [S, H], `keys` and `values` [R, d] that make the model answer the lesson's prompt as it says."""
        ops, options = adapter.ops, self.options
        prompt, answer = of_one_lesson(adapter, lesson.prompt, lesson.answer)
        batch = Batch(adapter, [(prompt, answer)], self.sites(adapter)[0])
        positions = len(prompt) - 1 + np.arange(len(answer))
        slots = self.addresses(np.array([number_of(lesson.id)]), as_tokens(prompt + answer), positions, positions[0])
        size, met = batch.size, ops.to_numpy(ops.float32(batch.h))[0]
        width = met.shape[1]
        keys = gathered(split(unit(met - ops.to_numpy(state["centre"])[1]) * width**0.5, slots.shape[-1]), slots[0])
        fixed = ops.asarray(keys[local(slots[0])].reshape(1, len(answer), -1)[..., :width].copy())
        index = ops.asarray(local(slots[0]), "int64")
        there = self._rows(ops, state).read(state, slots, width)  # what others wrote to the same rows
        fixed, base = (fixed, 0.0) if there is None else (fixed + there[0], there[1])

        def loss_of(params: State) -> Array:
            values = ops.take(params["values"], index).reshape(1, len(answer), -1)[..., :width] * size + base
            return batch.total(batch.plus(self._gated(ops, state, fixed, values, batch.h)), options.margin)

        start, adam = {"values": ops.zeros(keys.shape)}, Optimizer(ops, "adam", options.lr, betas=BETAS)
        found = fit(loss_of, start, adam, options.steps, report, LEARNED, step_back=True)
        if found.params is start:  # the model answers so by itself, or nothing helps: nothing to write
            slots, keys = slots[:, :0], keys[:0]
        values = ops.to_numpy(found.params["values"])[: len(keys)] * size
        return {"slots": slots[0], "keys": keys, "values": values}

    def forget(self, state: State, lesson_id: str) -> State:
        rest = super().forget(state, lesson_id)
        return rest if any("/" in name for name in rest) else {}

    def check_state(self, arrays: dict[str, Any], lessons: Sequence[Lesson], adapter: Adapter) -> None:
        width, heads = adapter.shape.width, self.options.heads * len(ORDERS)
        blocks = list(dict.fromkeys([x.id for x in lessons] + names(arrays, "turns")))
        shared = {
            "centre": (2, width),
            "key_proj": (width, width),
            "value_proj": (width, width),
            "conv": (KERNEL, width),
        }
        known = {f"{kind}/{block}" for block in blocks for kind in KINDS} | set(shared)
        problems = [f"unexpected tensor {name!r}" for name in sorted(arrays.keys() - known)]
        problems += [p for block in blocks for p in block_problems(arrays, block, heads, -(-width // heads), width)]
        problems += ["no tensor 'centre'"] if blocks and "centre" not in arrays else []
        trained = [name for name in SHARED if name in arrays]
        problems += [f"no tensor {name!r}" for name in SHARED if trained and name not in trained]
        for name in shared.keys() & arrays.keys():
            if arrays[name].shape != shared[name]:
                problems.append(f"tensor {name!r} has shape {arrays[name].shape}, expected {shared[name]}")
        if problems:
            raise StateError(f"the file does not fit memory {self.name!r} with these options: {listed(problems)}")


def normed(ops: Ops, x: Array) -> Array:
    """RMSNorm over the last axis; zero stays zero."""
    return x / ops.sqrt(ops.mean(x * x, -1, keepdims=True) + 1e-6)
