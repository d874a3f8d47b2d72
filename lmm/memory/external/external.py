"""`external`: every token the user wrote, as the state it left in the model; what is near comes back while it replies.

    keys    k_i [D]   the state after layer `depth` at token i of what was said, standardised (mean and deviation per
                      channel, over general sentences) and of unit length: similarities are cosines
    values  y_i       the token that came next, as in kNN-LM (Khandelwal et al., arXiv 1911.00172)

Once per reply: which spans (what was said in a turn) is the message about? Late interaction as in ColBERT (Khattab &
Zaharia, arXiv 2004.12832), over hidden states. With q the message's own tokens and w_q = (1 - the greatest cosine to a
token of the general sentences or of some with numbers)^2, so that "what is my" weighs nothing, and no sum is about
somebody's shoe size: the states of any two numbers are alike,

    score(span) = new(span) sum_q w_q max_i <q, k_i> / sum_q w_q        for the spans among the `k` nearest of each q
    new(span)   = max_i (1 - max_g <g, k_i>) (1 - max_q <q, k_i>)       g: the general sentences' tokens

so that a span which has no word that the message has not, the same question asked before, is nothing new. A span below
`threshold` is not near; where none is near, the reply is bitwise the model's own. The best `show` of them are shown to
the model, as an exchange where a lesson has its `echo`, else as text; those that tell nothing after all others.

Behind one that is no longer true, by the look that notes have, too, the latest that says so is shown.

At each position t of such a reply: the `k` nearest keys to its state, cosines s_j, attended to with `sharp`; each makes
its next token likelier, by at most `boost` logits, and by none at `near` or below,

    delta_y = boost sum_{j: y_j = y} softmax(sharp s)_j max(0, s_j - near) / (1 - near)
    h_t'    = h_t + rms(h_t) sum_y delta_y u_y                after the last layer; u_y: see `head`

The paper mixes probabilities; here logits are moved by the hidden states, so that it is a memory like all others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lmm.errors import LearningError, StateError
from lmm.lesson import TALK, Knowledge, Lesson, State
from lmm.memory.base import LearnReport, Note, Prompt, Recall, UserMessage
from lmm.memory.external.head import Head
from lmm.memory.external.store import Store
from lmm.memory.general import GENERAL, centre, own_states, states_of
from lmm.memory.isolated import Isolated
from lmm.memory.states import unit
from lmm.options import Options, learning, option
from lmm.text.fold import fold
from lmm.text.sanitize import listed

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter, Site, TapContext
    from lmm.adapters.ops import Array, Ops

NUMBERS = (
    "It is 7 or 25.",
    "There are 3 of them, and 10 more.",
    "In 1940 and in 2012.",
    "That makes 168, or 4590.",
    "Number 1, number 6, number 89.",
)
KINDS = ("keys", "tokens", "at")


Found = tuple[np.ndarray, np.ndarray, np.ndarray]  # the positions of a pass; cosines and rows [B, T, k] found in it
PASSES = 64  # of those that are running: rows of a batch that belong to other replies are a pass of their own


@dataclass(frozen=True)
class ExternalOptions(Options):
    """Numbers: docs/external.md."""

    depth: float = option(0.3, "the layer whose states are stored, as a share of the layers", "[0, 1)")
    size: int = learning(1_048_576, "tokens stored; beyond that the oldest spans go", "[1, inf)")
    k: int = option(8, "tokens found for each token", "[1, 1024]")
    chunk_size: int = learning(1, "store every so manieth token", "[1, 64]")
    update_freq: int = learning(1, "store every so manieth turn", "[1, inf)")
    threshold: float = option(0.35, "score from which a span is near", "[-1, 1]")
    show: int = option(1, "near spans shown to the model as text", "[0, 16]")
    boost: float = option(4.0, "logits by which the token that came next is made likelier, at most", "[0, 100]")
    near: float = option(0.5, "cosine below which a stored token is not near", "[-1, 1)")
    sharp: float = option(5.0, "of the attention over what was found", "[0, 1000]")


class External(Isolated):
    name = "external"
    summary = "every token said, as a hidden state; what is near comes back in a reply"
    learns_from = "turns"
    Options = ExternalOptions

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self._store: tuple[State, Store] | None = None
        self._head: tuple[Adapter, Head] | None = None
        self._general: tuple[Adapter, np.ndarray, np.ndarray] | None = None
        self._found: deque[Found] = deque(maxlen=PASSES)
        self._places: tuple[Site, Site] | None = None
        self._turns = 0
        self._sequence = 0  # of the conversation whose turns are stored

    def held(self, ops: Ops, arrays: Mapping[str, Any]) -> State:
        """As they are: they are searched where they lie, in a file that may be mapped."""
        return dict(arrays)

    # places --------------------------------------------------------------------------------------------------
    def sites(self, adapter: Adapter) -> tuple[Site, ...]:
        """Where states are read, and where logits are moved."""
        layers = adapter.shape.layers
        layer = int(self.options.depth * layers) if adapter.layer is None else adapter.layer
        self._places = adapter.site(layer), adapter.site(layers - 1)
        return tuple(dict.fromkeys(self._places))

    # what is near --------------------------------------------------------------------------------------------
    def on_prompt(
        self, state: State, lessons: Sequence[Lesson], prompts: Sequence[Prompt], adapter: Adapter
    ) -> Recall | None:
        if "centre" not in state:
            return None
        store = self.store(state)
        found = [self.spans_near(state, store, prompt.text, adapter) for prompt in prompts]
        if not any(found):
            return None
        self.head(adapter)
        said = {lesson.id: lesson for lesson in lessons}
        shown = [[] if p.recited else self._shown(row, said) for row, p in zip(found, prompts, strict=True)]
        on = np.array([float(bool(row)) for row in found], np.float32)[:, None, None]
        return Recall(
            found,
            {"on": adapter.ops.asarray(on)},
            text=["\n".join(note.said for note in row if not note.echo) for row in shown],
            notes=[[note for note in row if note.echo] for row in shown],
        )

    def _shown(self, found: Sequence[tuple[str, float]], said: Mapping[str, Lesson]) -> list[Note]:
        """Of near spans, the best first, those that the model is shown, the best last. One that tells nothing is shown
        where nothing else is, however near."""
        near = sorted(((said[i], s) for i, s in found if i in said), key=lambda hit: hit[0].source == TALK)
        shown = near[: self.options.show][::-1]
        over = {x.statement: score for x, score in shown if x.statement}
        news = [x for x in said.values() if over.keys() & {*x.formerly} and all(x is not y for y, _ in shown)]
        for x in sorted(news, key=lambda x: x.time)[-1:]:
            shown.append((x, max(over[text] for text in x.formerly if text in over)))
        return [Note(x.id, score, x.statement or x.prompt, x.echo or x.answer) for x, score in shown]

    def near(self, state: State, text: str, adapter: Adapter) -> list[tuple[str, float]]:
        return self.spans_near(state, self.store(state), text, adapter, 0.0) if "centre" in state else []

    def spans_near(
        self, state: State, store: Store, text: str, adapter: Adapter, least: float | None = None
    ) -> list[tuple[str, float]]:
        """The spans that a message is about, with their scores, best first; `least` in place of the threshold."""
        least = self.options.threshold if least is None else least
        tokens, content = adapter.format.message_tokens(text)
        rows = [i for i, mine in enumerate(content) if mine]
        if not rows or not len(store):
            return []
        asked, (general, numbers) = self.keys(state, tokens, adapter)[rows], self.general(state, adapter)
        weights = (1 - np.maximum((asked @ general.T).max(1), (asked @ numbers.T).max(1))).clip(0) ** 2
        if weights.max() < 1e-6:  # nothing but round-off: every word is a usual one
            return []
        _, hits = store.search(asked, self.options.k)
        scored = []
        for span in np.unique(store.spans(hits.reshape(-1))):
            keys = store.keys(int(span))
            cosines = asked @ keys.T
            new = ((1 - (keys @ general.T).max(1)).clip(0) * (1 - cosines.max(0))).max()
            score = float(new * (weights * cosines.max(1)).sum() / weights.sum())
            if score >= least:
                scored.append((store.ids[span], score))
        return sorted(scored, key=lambda hit: -hit[1])[: self.options.k]

    def keys(self, state: State, tokens: Sequence[int] | np.ndarray, adapter: Adapter, cache: Any = None) -> np.ndarray:
        """Standardised unit states [T, D] of the untouched model, float32."""
        return self._standard(state, states_of(adapter, self.sites(adapter)[0], tokens, cache))

    @staticmethod
    def _standard(state: State, h: np.ndarray) -> np.ndarray:
        mean, deviation = state["centre"]
        return unit((h - mean) / deviation).astype(np.float32)

    def general(self, state: State, adapter: Adapter) -> tuple[np.ndarray, np.ndarray]:
        """Keys [G, D] of the general sentences, and of those with numbers."""
        if self._general is None or self._general[0] is not adapter:
            site = self.sites(adapter)[0]
            found = (np.concatenate(own_states(adapter, site, texts)) for texts in (GENERAL, NUMBERS))
            general, numbers = (self._standard(state, h) for h in found)
            self._general = (adapter, general, numbers)
        return self._general[1:]

    def head(self, adapter: Adapter) -> Head:
        if self._head is None or self._head[0] is not adapter:
            self._head = (adapter, Head(adapter))
        return self._head[1]

    def store(self, state: State) -> Store:
        if self._store is None or self._store[0] is not state:
            before = self._store[1] if self._store else Store(state["centre"].shape[1])
            self._store = (state, before.follow(state))
        return self._store[1]

    # reading -------------------------------------------------------------------------------------------------
    def rewrite(
        self, ops: Ops, state: State, recall: Recall | None, x_in: Array, x_out: Array, context: TapContext
    ) -> Array:
        if recall is None or "on" not in recall.arrays or context.positions[-1] < recall.start:
            return x_out
        assert self._places is not None
        first = int(np.searchsorted(context.positions, recall.start))
        if context.site == self._places[0]:
            queries = self._standard(state, ops.to_numpy(ops.float32(x_out[:, first:])))
            shape = (*queries.shape[:2], -1)
            cosines, rows = self.store(state).search(queries.reshape(-1, queries.shape[-1]), self.options.k)
            self._found.append((context.positions, cosines.reshape(shape), rows.reshape(shape)))
        if context.site != self._places[1]:
            return x_out
        found = next((found for found in self._found if found[0] is context.positions), None)
        return x_out if found is None else self._moved(ops, state, x_out, first, *found[1:], recall.arrays["on"])

    def _moved(
        self, ops: Ops, state: State, h: Array, first: int, cosines: np.ndarray, rows: np.ndarray, on: Array
    ) -> Array:
        """h [B, T, D] with, from `first` on, the tokens after `rows` [B, T', k] made likelier."""
        options = self.options
        pull = np.exp(options.sharp * (cosines - cosines.max(-1, keepdims=True)))
        gate = np.maximum(0, (cosines - options.near) / (1 - options.near))
        delta = options.boost * pull / pull.sum(-1, keepdims=True) * gate
        if not delta.any():
            return h
        assert self._head is not None
        store = self.store(state)
        change = np.einsum("btk,btkd->btd", delta, self._head[1].rows(store.next(rows))).astype(np.float32)
        live = ops.float32(h[:, first:])
        size = ops.sqrt(ops.mean(live * live, -1, keepdims=True))
        new = h[:, first:] + ops.cast_like(ops.asarray(change) * size * on, h)
        return ops.concat([h[:, :first], new], 1) if first else new

    # storing -------------------------------------------------------------------------------------------------
    def learn(
        self, known: Knowledge, lesson: Lesson, adapter: Adapter, message: UserMessage | None, report: LearnReport
    ) -> Knowledge:
        """Store what was said or, where there are question and answer, these as an exchange."""
        if not _text(lesson):
            raise LearningError("the lesson is empty: there is nothing to store")
        return self.stored(known, lesson, message or said(lesson, adapter), adapter)

    def after_turn(self, known: Knowledge, lesson: Lesson, message: UserMessage, adapter: Adapter) -> Knowledge:
        self._turns += 1
        if self._turns % self.options.update_freq:
            return known
        return self.stored(known, self._news(known, lesson, adapter), message, adapter)

    def _news(self, known: Knowledge, lesson: Lesson, adapter: Adapter) -> Lesson:
        """A turn with the words of near ones that are no longer true if it is. They stay: they may tell more."""
        near = {i for i, _ in self.near(known.state, lesson.statement, adapter)} if lesson.echo else set()
        same = ("", fold(lesson.statement))
        old = [x for x in known.lessons if x.id in near and x.source != TALK and fold(x.statement) not in same]
        if not old:
            return lesson
        from lmm.memory.notes.gate import Notebook, shared_gate  # weights that only this needs

        over = set[int]()  # as the user said both, and as the assistant says them
        said, echoed = [x.statement for x in old], [x.echo or x.statement for x in old]
        for news, texts in ((lesson.statement, said), (lesson.echo, echoed)):
            over |= {*Notebook(texts, [shared_gate().fingerprint(text) for text in texts]).outdated(news)}
        return replace(lesson, formerly=tuple(old[position].statement for position in sorted(over)))

    def stored(self, known: Knowledge, lesson: Lesson, message: UserMessage, adapter: Adapter) -> Knowledge:
        """What is known with the tokens of a turn that the user wrote, as a span of its own, in the place of an earlier
        one that said the same."""
        state = known.state
        old = tuple(
            x for x in known.superseded(lesson) if f"keys/{x.id}" in state
        )  # what other memories have stays theirs
        for earlier in old:
            state = self.forget(state, earlier.id)
        if "centre" not in state:
            state = {"centre": centre(adapter, self.sites(adapter)[0])}
        tokens = np.asarray(message.tokens, np.int64)
        rows = np.flatnonzero(np.asarray(message.content, bool)[: len(tokens) - 1])[:: self.options.chunk_size]
        if not len(rows):
            return known
        start = message.cache.length if message.cache is not None else 0
        store = self.store(state)
        if not start or not self._sequence:
            self._sequence = store.sequence + 1  # others may have begun conversations in the meantime
        keys = self.keys(state, tokens, adapter, message.cache)[rows]
        span = {
            "keys": keys.astype(np.float16),
            "tokens": np.stack([tokens[rows], tokens[rows + 1]]),
            "at": np.array([store.number + 1, self._sequence, start]),
        }
        state = state | {f"{kind}/{lesson.id}": array for kind, array in span.items()}
        return self.within_size(known.taught(state, lesson, old), store.ids)

    def within_size(self, known: Knowledge, earlier: Sequence[str]) -> Knowledge:
        """Without the oldest of the `earlier` spans, as far as there are too many tokens."""
        state, lessons, gone = known.state, known.lessons, set()
        stored = sum(array.shape[1] for name, array in state.items() if name.startswith("tokens/"))
        for i in earlier:
            if stored <= self.options.size:
                break
            stored -= state[f"tokens/{i}"].shape[1]
            gone.add(i)
        if not gone:
            return known
        left = {name: array for name, array in state.items() if name.partition("/")[2] not in gone}
        return Knowledge(left, tuple(x for x in lessons if x.id not in gone))

    def together(self, one: State, other: State, lessons: Sequence[Lesson]) -> State:
        """Spans numbered anew by when they were said, conversations of the other after those of the one."""
        first = max((int(array[1]) for name, array in one.items() if name.startswith("at/")), default=0)
        at = {name[3:]: array.copy() for name, array in one.items() if name.startswith("at/")}
        at |= {name[3:]: array + np.array([0, first, 0]) for name, array in other.items() if name.startswith("at/")}
        order = sorted((x for x in lessons if x.id in at), key=lambda x: x.time)
        for number, lesson in enumerate(order, 1):
            at[lesson.id][0] = number
        return {**one, **other, **{f"at/{i}": array for i, array in at.items()}}

    def to_beside(self, state: State, ops: Ops) -> bytes | None:
        return self.store(state).index_to_bytes() if "centre" in state else None

    def from_beside(self, state: State, data: bytes, ops: Ops) -> None:
        if "centre" in state:
            self.store(state).index_from_bytes(data)

    def check_state(self, arrays: dict[str, Any], lessons: Sequence[Lesson], adapter: Adapter) -> None:
        width, vocab = adapter.shape.width, adapter.shape.vocab
        spans = {name.partition("/")[2] for name in arrays if "/" in name}
        problems = [f"no tensor {kind}/{i}" for i in spans for kind in KINDS if f"{kind}/{i}" not in arrays]
        problems += [f"a lesson without its vectors: {x.id}" for x in lessons if x.id not in spans]
        problems += [f"vectors of no lesson: {i}" for i in sorted(spans - {x.id for x in lessons})]
        problems += ["no tensor 'centre'"] if spans and "centre" not in arrays else []
        for name, array in arrays.items():
            kind, _, i = name.partition("/")
            rows = arrays.get(f"tokens/{i}", np.empty((2, 0))).shape[-1:] or (0,)
            wanted = {
                "centre": ("f", (2, width)),
                "keys": ("f", (*rows, width)),
                "tokens": ("i", (2, *rows)),
                "at": ("i", (3,)),
            }.get(kind)
            if wanted is None:
                problems.append(f"unexpected tensor {name!r}")
            elif (array.dtype.kind, array.shape) != wanted:
                problems.append(f"tensor {name!r} is {array.dtype.kind} {array.shape}, expected {wanted}")
            elif kind == "tokens" and array.size and not 0 <= array.min() <= array.max() < vocab:
                problems.append(f"tensor {name!r} has tokens that the model does not know")
        if problems:
            raise StateError(f"the file does not fit memory {self.name!r}: {listed(problems)}")


def said(lesson: Lesson, adapter: Adapter) -> UserMessage:
    """A lesson in an empty conversation: the exchange or, where there is none, the statement as a message."""
    if not (lesson.prompt.strip() and lesson.answer.strip()):
        return UserMessage(*adapter.format.message_tokens(_text(lesson)))
    asked, content = adapter.format.message_tokens(lesson.prompt, reply=True)
    reply = adapter.format.lesson_tokens(lesson.prompt, lesson.answer)[1]
    return UserMessage([*asked, *reply], [*content[:-1], True, *(True for _ in reply)])


def _text(lesson: Lesson) -> str:
    return lesson.statement or f"{lesson.prompt} {lesson.answer}".strip()
