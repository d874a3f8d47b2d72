"""`lm2`: a few learned slots beside the model, read by attention and written by gates at the end of each turn.

LM2: Large Memory Models (Kang et al., arXiv 2502.06049), section 2, for a model that is left alone. Slots M [M, S], at
first the identity; x [T, D] are the states after layer `depth`, standardised per channel; H heads of S / H. What is
written comes from the states after layer `write_depth`, standardised as well, where that is said.

    read    Q = x W_Q,  K = M W_K,  V = M W_V                       W_Q [D, S]; W_K, W_V [S, S]           (eq. 1)
            E = softmax(Q K^T / sqrt(S / H)) V                      [T, S], over the slots                (eq. 2)
            g = sigmoid(x w_g + b_g)                                [T, 1], the output gate               (eq. 4)
            h' = h + g (E W_O) * dev                                W_O [S, D], zero: fresh is no change  (eq. 5)
    write   A = softmax((M U_Q) (x U_K)^T / sqrt(S / H))            [M, T], over the turn's tokens
            N = A (x U_V),  new = tanh(N)                           [M, S]
            i = sigmoid(N W_i + b_i),  f = sigmoid(N W_f + b_f)     [M, S]; b_f = 1: what is there stays  (eq. 6, 7)
            M' = i * new + f * M                                                                          (eq. 8)

Deviations. The paper writes in every pass, from the same attention that reads; here slots attend to the tokens of a
turn that is over, so that what is read at a token depends on tokens before it and earlier turns alone, and a prompt in
chunks is a prompt at once. An output gate below `floor` is 0, and what has nothing to do with the slots stays bitwise
what it was. `dev` [D] are the channels' deviations, so that W_O need not know their sizes. One layer has
slots, not all; what is written may come from a lower one, where a state still tells its own token (late ones tell what
comes next); and the model is not pretrained with them: `lmm train` and scripts/train_lm2.py fit read, gates and slots
(`before`: what was said in earlier turns), while the model's own weights stay.

Beside other memories it `yields`: where one of them has something to say, slots are not read in that reply.

`slots` are those that memory begins with, `moved` is how far turns have brought them from there. A lesson takes a few
steps on W_O and on `taught`, which is added where slots are read and not where they are written: what turns make of the
slots is the same with it and without, so that either can go and the other stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmm.errors import LearningError
from lmm.lesson import Knowledge, Lesson, State
from lmm.memory.base import LearnReport, Memory, Picture, Prompt, Recall, UserMessage
from lmm.memory.batch import Batch, of_one_lesson
from lmm.memory.general import centre, own_states, states_of
from lmm.memory.optim import Optimizer, fit
from lmm.options import Options, learning, option

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter, Site, TapContext
    from lmm.adapters.ops import Array, Ops

WRITE = ("write_query", "write_key", "write_value", "input_gate", "input_bias", "forget_gate", "forget_bias")
READ = ("read_query", "read_key", "read_value", "read_out", "gate", "gate_bias")
CENTRE = "write_centre"
RESETS = ("turn", "session", "never")


@dataclass(frozen=True)
class Lm2Options(Options):
    """Numbers: docs/external.md."""

    memory_slots: int = option(16, "slots", "[1, 4096]")
    slot_width: int = option(16, "numbers in a slot", "[1, 4096]")
    num_mem_heads: int = option(4, "heads of the attention that reads and writes; they divide slot_width", "[1, 64]")
    depth: float = option(0.7, "the site, as a share of the layers", "[0, 1)")
    write_depth: float = option(-1.0, "the layer whose states are written, likewise; below 0: the site's", "[-1, 1)")
    floor: float = option(0.0, "an output gate below this is shut", "[0, 1)")
    reset: str = learning("never", "when slots are again as they were before any turn", one_of=RESETS)
    lr: float = learning(1e-2, "of AdamW, where a lesson is learned", "(0, 10)")
    steps: int = learning(20, "for each lesson, at most", "[1, 1000]")
    goal: float = learning(0.1, "mean loss that is good enough", "[0, inf)")

    def together(self) -> list[str]:
        if self.slot_width % self.num_mem_heads:
            return [f"num_mem_heads must divide slot_width, not {self.num_mem_heads} and {self.slot_width}"]
        return []


class Lm2(Memory):
    name = "lm2"
    summary = "a few learned slots, read by attention and written at the end of each turn"
    learns_from = "turns"
    yields = True
    Options = Lm2Options

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self._known: dict[str, int] = {}  # what was said in training: its place in `_said`
        self._said: list[np.ndarray] = []  # standardised states [T, D], each text's own tokens; the first has none

    def sites(self, adapter: Adapter) -> tuple[Site, ...]:
        layers = adapter.shape.layers
        return (adapter.site(int(self.options.depth * layers) if adapter.layer is None else adapter.layer),)

    def source(self, adapter: Adapter) -> Site:
        """Where the states come from that are written."""
        depth = self.options.write_depth
        return self.sites(adapter)[0] if depth < 0 else adapter.site(int(depth * adapter.shape.layers))

    def fresh(self, adapter: Adapter, seed: int = 0) -> State:
        ops, d, s = adapter.ops, adapter.shape.width, self.options.slot_width
        slots = ops.asarray(np.eye(self.options.memory_slots, s, dtype=np.float32))
        wide = dict.fromkeys(("read_query", "write_key", "write_value"), (d, s))
        square = dict.fromkeys(("read_key", "read_value", "write_query", "input_gate", "forget_gate"), (s, s))
        random = {
            name: ops.normal(shape, seed + i, shape[0] ** -0.5)
            for i, (name, shape) in enumerate((wide | square).items())
        }
        return {
            "slots": slots,
            "moved": slots * 0.0,
            "taught": slots * 0.0,
            **random,
            "read_out": ops.zeros((s, d)),
            "gate": ops.zeros((d, 1)),
            "gate_bias": ops.zeros((1,)),
            "input_bias": ops.zeros((s,)),
            "forget_bias": ops.zeros((s,)) + 1.0,
            "centre": ops.asarray(centre(adapter, self.sites(adapter)[0])),
            **({} if self.options.write_depth < 0 else {CENTRE: ops.asarray(centre(adapter, self.source(adapter)))}),
        }

    def held(self, ops: Ops, arrays: Mapping[str, Any]) -> State:
        return super().held(ops, _with_taught(arrays))

    def check_state(self, arrays: dict[str, Any], lessons: Sequence[Lesson], adapter: Adapter) -> None:
        super().check_state(_with_taught(arrays), lessons, adapter)

    @staticmethod
    def _now(state: State) -> Array:
        """Slots as they are read."""
        return state["slots"] + state["moved"] + state["taught"]

    # the mathematics -----------------------------------------------------------------------------------------
    def read(self, ops: Ops, state: State, slots: Array, x: Array) -> tuple[Array, Array, Array]:
        """What slots [B, M, S] say to states x [B, T, D] -> [B, T, S], the attention [B, H, T, M], and g [B, T, 1]."""
        queries, keys, values = x @ state["read_query"], slots @ state["read_key"], slots @ state["read_value"]
        found, attention = self._attend(ops, queries, keys, values)
        gate = ops.sigmoid(x @ state["gate"] + state["gate_bias"])
        return found, attention, ops.where(gate >= self.options.floor, gate, gate * 0.0)

    def written(
        self, ops: Ops, state: State, slots: Array, x: Array, live: Array | None = None
    ) -> tuple[Array, dict[str, Array]]:
        """Slots [B, M, S] after a turn with the states x [B, T, D], of which those count where `live` [B, T] is 1; and
        how that came: attention [B, H, M, T], gates `input` and `forget` [B, M, S]."""
        queries, keys, values = slots @ state["write_query"], x @ state["write_key"], x @ state["write_value"]
        seen, attention = self._attend(ops, queries, keys, values, live)
        gates = {
            name: ops.sigmoid(seen @ state[f"{name}_gate"] + state[f"{name}_bias"]) for name in ("input", "forget")
        }
        new = 2.0 * ops.sigmoid(2.0 * seen) - 1.0  # tanh
        return gates["input"] * new + gates["forget"] * slots, {"attention": attention, **gates}

    def _attend(
        self, ops: Ops, queries: Array, keys: Array, values: Array, live: Array | None = None
    ) -> tuple[Array, Array]:
        """Attention with H heads: [B, Q, S] over [B, K, S] -> [B, Q, S], and the weights [B, H, Q, K]."""
        heads, width = self.options.num_mem_heads, self.options.slot_width // self.options.num_mem_heads
        q, k, v = (a.reshape(*a.shape[:2], heads, width) for a in (queries, keys, values))
        scores = ops.einsum("bqhs,bkhs->bhqk", q, k) / width**0.5
        if live is not None:
            scores = scores + (live[:, None, None, :] - 1.0) * 1e9
        attention = ops.softmax(scores)
        return ops.einsum("bhqk,bkhs->bqhs", attention, v).reshape(*queries.shape), attention

    @staticmethod
    def standard(ops: Ops, state: State, h: Array, centre: str = "centre") -> Array:
        """Standardised states [.., D]: each channel of size about 1."""
        mean, deviation = state[centre][0], state[centre][1]
        return (ops.float32(h) - mean) / deviation

    def to_write(self, ops: Ops, state: State, h: Array) -> Array:
        """The states of `source`, standardised."""
        return self.standard(ops, state, h, CENTRE if CENTRE in state else "centre")

    def changed(self, ops: Ops, state: State, slots: Array, h: Array) -> Array:
        """h' [B, T, D]."""
        found, _, gate = self.read(ops, state, slots, self.standard(ops, state, h))
        return h + ops.cast_like(gate * (found @ state["read_out"]) * state["centre"][1], h)

    # reading -------------------------------------------------------------------------------------------------
    def on_prompt(
        self, state: State, lessons: Sequence[Lesson], prompts: Sequence[Prompt], adapter: Adapter
    ) -> Recall | None:
        """Which replies are another memory's; and in offline training which texts were said before each prompt, for the
        slots to be made of."""
        turns = max((len(prompt.before) for prompt in prompts), default=0)
        if not turns:
            quiet = [prompt.recited for prompt in prompts]
            return self._quiet(adapter.ops, quiet) if any(quiet) else None
        new = [text for text in {text: 0 for p in prompts for text in p.before} if text not in self._known]
        ops = adapter.ops
        if new:
            self._said = self._said or [np.zeros((0, adapter.shape.width), np.float32)]
            for text, h in zip(new, own_states(adapter, self.source(adapter), new), strict=True):
                self._known[text] = len(self._said)
                self._said.append(ops.to_numpy(self.to_write(ops, state, ops.asarray(h))))
        numbers = [[0] * (turns - len(p.before)) + [self._known[text] for text in p.before] for p in prompts]
        return Recall([[] for _ in prompts], {"turns": ops.asarray(np.array(numbers), "int64")})

    @staticmethod
    def _quiet(ops: Ops, replies: Sequence[bool]) -> Recall:
        """In which replies slots are not read."""
        return Recall([[] for _ in replies], {"quiet": ops.asarray(np.array(replies)[:, None, None], "bool")})

    def row(self, recall: Recall, b: int) -> Recall | None:
        if "quiet" in recall.arrays and not recall.arrays["quiet"][b].any():
            return None
        return Recall([[]], {name: array[b : b + 1] for name, array in recall.arrays.items()})

    def stack(self, ops: Ops, rows: Sequence[Recall | None]) -> Recall | None:
        """The turns of several prompts, filled up with none at the beginning."""
        if any(row is not None and "quiet" in row.arrays for row in rows):
            return self._quiet(ops, [row is not None for row in rows])
        some = [ops.to_numpy(row.arrays["turns"])[0] for row in rows if row is not None]
        if not some:
            return None
        turns = max(map(len, some))
        filled = np.array([[*(0 for _ in range(turns - len(row))), *row] for row in some])
        return Recall([[] for _ in rows], {"turns": ops.asarray(filled, "int64")})

    def rewrite(
        self, ops: Ops, state: State, recall: Recall | None, x_in: Array, x_out: Array, context: TapContext
    ) -> Array:
        slots = self._now(state)[None]
        if recall is not None and "turns" in recall.arrays:
            slots = self.after_training_turns(ops, state, recall)
        new = self.changed(ops, state, slots, x_out)
        return new if recall is None or "quiet" not in recall.arrays else ops.where(recall.arrays["quiet"], x_out, new)

    def after_training_turns(self, ops: Ops, state: State, recall: Recall) -> Array:
        """Slots [B, M, S] after the turns of `on_prompt`; a turn without a token changes nothing."""
        turns = ops.to_numpy(recall.arrays["turns"])
        slots = state["slots"][None] + ops.zeros((len(turns), 1, 1))
        for texts in turns.T:
            said = [self._said[i] for i in texts]
            x = np.zeros((len(said), max(map(len, said)), said[0].shape[1]), np.float32)
            live = np.zeros(x.shape[:2], np.float32)
            for b, own in enumerate(said):
                x[b, : len(own)], live[b, : len(own)] = own, 1.0
            new, _ = self.written(ops, state, slots, ops.asarray(x), ops.asarray(live))
            slots = ops.where(ops.asarray(texts > 0, "bool")[:, None, None], new, slots)
        return slots

    def pictures(self, state: State, tokens: Sequence[int], adapter: Adapter) -> list[Picture]:
        """Which slots each token reads, over all heads, and how far the gate is open."""
        ops, site = adapter.ops, self.sites(adapter)[0]
        x = self.standard(ops, state, ops.asarray(states_of(adapter, site, tokens)[None]))
        _, attention, gate = self.read(ops, state, self._now(state)[None], x)
        return [
            Picture("slots", ops.to_numpy(attention)[0].mean(axis=0)),
            Picture("gate", ops.to_numpy(gate)[0]),
        ]

    # learning ------------------------------------------------------------------------------------------------
    def after_turn(self, known: Knowledge, lesson: Lesson, message: UserMessage, adapter: Adapter) -> Knowledge:
        """What is known with the slots written, from the tokens of the turn that the user wrote."""
        if self.options.reset == "turn" or not any(message.content):
            return known
        ops, state = adapter.ops, known.state
        h = adapter.hidden(np.asarray([message.tokens]), self.source(adapter).first_layer, message.cache)
        own = ops.take(h, ops.asarray(np.flatnonzero(message.content), "int64"), 1)
        before = (state["slots"] + state["moved"])[None]
        slots, _ = self.written(ops, state, before, self.to_write(ops, state, own))
        return Knowledge(state | {"moved": slots[0] - state["slots"]}, known.lessons)

    def begun(self, known: Knowledge) -> Knowledge:
        """What is known at the beginning of a conversation."""
        if self.options.reset != "session":
            return known
        return Knowledge(known.state | {"moved": known.state["slots"] * 0.0}, known.lessons)

    def learn(
        self, known: Knowledge, lesson: Lesson, adapter: Adapter, message: UserMessage | None, report: LearnReport
    ) -> Knowledge:
        """The reply to a question, or a message's own tokens as the reply to nothing, into W_O and the slots."""
        ops, state, options = adapter.ops, known.state, self.options
        if lesson.prompt.strip() and lesson.answer.strip():
            row = of_one_lesson(adapter, lesson.prompt, lesson.answer)
        else:
            tokens, content = adapter.format.message_tokens(lesson.statement or lesson.answer or lesson.prompt)
            if not any(content):
                raise LearningError("the lesson is empty: there is nothing to learn")
            first = content.index(True)
            row = tokens[:first], tokens[first:]
        batch = Batch(adapter, [row], self.sites(adapter)[0], everywhere=True)

        def loss_of(params: State) -> Array:
            return batch.mean(self.changed(ops, state | params, self._now(state | params)[None], batch.h))

        start = {name: state[name] for name in ("taught", "read_out")}
        found = fit(loss_of, start, Optimizer(ops, "adamw", options.lr), options.steps, report, options.goal)
        return known.taught(state | found.params, lesson)

    # offline training ----------------------------------------------------------------------------------------
    def trainable(self, state: State) -> tuple[str, ...]:
        return ("slots", *READ, *WRITE)


def _with_taught(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """In a file of before it was a tensor of its own, what lessons brought is in `moved`. `arrays` may be a change."""
    whole = "slots" in arrays and "moved" in arrays
    return ({"taught": np.zeros_like(arrays["moved"])} if whole else {}) | dict(arrays)
