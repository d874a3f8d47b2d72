"""The gate: is this incoming prompt the question that a stored lesson answers?

Two looks. First, cosines of sentence vectors (all-MiniLM-L6-v2) find the few lessons that could be meant; below a floor
nothing can, and the look-up ends. Then a pair model reads query and stored prompt together and says how likely it is
that they ask the same. Its lower layers are the sentence encoder's own, run on each text apart (so the query's are at
hand, and a lesson's are kept); the upper ones attend across both texts, as in a cross-encoder (Nogueira & Cho 2019,
arXiv:1901.04085; the split after MacAvaney et al. 2020, arXiv:2004.14255), with a LoRA from scripts/train_gate.py. Two
training runs are shipped, and what they say is averaged.

Everything is a function of the texts: the same query and lessons give the same answer, whatever else is asked.

Shape letters: T tokens, D width (384), V views of a text, L lessons.
"""

from __future__ import annotations

import copy
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from lmm.encoders.minilm import (
    LAYERS,
    MATRICES,
    WIDTH,
    Encoder,
    embed,
    load_trained,
    merge_lora,
    run_layers,
    shared_encoder,
    unit_mean,
)
from lmm.encoders.narrow import fast
from lmm.errors import StateError
from lmm.text.fold import fold
from lmm.text.questions import another_question

WEIGHTS = tuple(Path(__file__).with_name(f"gate-{run}.safetensors") for run in (1, 2))
JOINT_FROM = 3  # the first layer that sees both texts; below, a lesson's states can be kept
LIMIT = 64  # word pieces of a text that the pair model reads (its end)
HIDDEN = 32  # width of the head
FEATURES = 3 * WIDTH + 4  # what the head sees

#: chosen on validation pairs: docs/lab-log.md
THRESHOLD = 0.5
EQUAL = 0.06  # lessons whose score + cosine differ by less are equally meant
_KEPT_STATES = 4096  # lessons whose lower states stay in memory, about 20 KB each


def views(text: str) -> list[str]:
    """The whole text, its last sentence and its last question: a question may hide behind other sentences."""
    text = " ".join(text.split())
    parts = [part for part in re.split(r"(?<=[.!?)\"])\s+", text) if len(part) >= 8]
    found = [text, *parts[-1:], *[part for part in parts if part.endswith("?")][-1:]]
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Lower:
    """What the joint layers start from: a text's word pieces [T] and their states [T, D]."""

    ids: np.ndarray
    states: np.ndarray


def compare(query: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """Joint states of both texts [Tq, D], [Ts, D] -> what the head sees, [FEATURES].

    The first state, product and difference of both means (Conneau et al. 2017, arXiv:1705.02364), and how well each
    text's word pieces find a counterpart in the other, on average and at worst (Khattab & Zaharia 2020,
    arXiv:2004.12832).
    """
    u, v = (unit_mean(x) * np.float32(np.sqrt(WIDTH)) for x in (query, stored))
    q, s = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9) for x in (query, stored))
    cosines = q @ s.T
    found = [value for best in (cosines.max(axis=1), cosines.max(axis=0)) for value in (best.mean(), best.min())]
    return np.concatenate([query[0], u * v, np.abs(u - v), 4 * np.asarray(found, np.float32)])


class PairModel:
    """One training run's upper layers and head. Raises ModelError for a file that cannot be read or holds none."""

    def __init__(self, path: Path, encoder: Encoder, narrow: bool = False) -> None:
        trained = load_trained(path, "gate", ("segment", "marks", "head.hidden", "head.out"), "train_gate")
        self.upper = merge_lora(encoder.weights, trained)
        for name in joint_matrices() if narrow else ():
            self.upper[name] = fast(np.ascontiguousarray(self.upper[name].T))
        self.segment, self.marks = (trained[name].astype(np.float32) for name in ("segment", "marks"))
        self.head = {
            name: trained[f"head.{name}"].astype(np.float32) for name in ("hidden", "hidden_bias", "out", "out_bias")
        }

    def same(self, query: Lower, stored: Lower) -> float:
        """Probability that two texts ask the same.

        Each word piece is marked with whether the other text has it too: names and numbers must be the same ones.
        """
        q = query.states + self.marks[np.isin(query.ids, stored.ids).astype(int)]
        s = stored.states + self.marks[np.isin(stored.ids, query.ids).astype(int)] + self.segment
        joint = run_layers(self.upper, np.concatenate([q, s]), JOINT_FROM, LAYERS)
        inner = np.tanh(compare(joint[: len(q)], joint[len(q) :]) @ self.head["hidden"] + self.head["hidden_bias"])
        logit = float(inner @ self.head["out"] + self.head["out_bias"][0])
        return 1.0 / (1.0 + float(np.exp(-logit)))


def joint_matrices() -> list[str]:
    return [f"encoder.layer.{layer}.{matrix}.weight" for layer in range(JOINT_FROM, LAYERS) for matrix in MATRICES]


class Gate:
    """Fingerprints and pair scores. Loading takes about 0.3 s and 150 MB; `shared_gate()` keeps one. `narrow`: pairs
    are read in bfloat16 where that is faster, and their scores differ in the fourth digit."""

    def __init__(self, paths: Sequence[Path] = WEIGHTS, encoder: Encoder | None = None, narrow: bool = False) -> None:
        self.encoder = encoder or shared_encoder()
        self.models = [PairModel(path, self.encoder, narrow) for path in paths]

    def fingerprint(self, text: str) -> np.ndarray:
        """What a lesson keeps of its prompt: unit vectors of its views, [V, D] float16, V <= 3 (2.3 KB)."""
        return self.encoder.encode(views(text)).astype(np.float16)

    def lower(self, text: str) -> Lower:
        """The text as the layers below the joint ones leave it."""
        return _lower(self.encoder, text)

    def read(self, text: str) -> tuple[np.ndarray, Lower]:
        """A query, read once: vectors of its views [V, D], and what the pair model goes on from.

        The pair model's lower layers are those that the first view's vector needed anyway.
        """
        return _read(self.encoder, text)

    def same(self, query: Lower, stored: Lower) -> float:
        """Probability that two texts ask the same: the mean over the pair models."""
        return sum(model.same(query, stored) for model in self.models) / len(self.models)

    def score(self, query: str, stored: str) -> float:
        """Probability that `query` asks what the stored prompt asks; 1 for the very same text."""
        if fold(query) == fold(stored):
            return 1.0
        if another_question(query, stored):
            return 0.0
        return self.same(self.lower(" ".join(query.split())), self.lower(" ".join(stored.split())))


def _lower(encoder: Encoder, text: str) -> Lower:
    ids = encoder.ids(text, LIMIT)
    return Lower(np.asarray(ids), run_layers(encoder.weights, embed(encoder.weights, ids), 0, JOINT_FROM))


@lru_cache(maxsize=64)  # two gates look at the same prompts, a batch of them one after the other
def _read(encoder: Encoder, text: str) -> tuple[np.ndarray, Lower]:
    weights, (whole, *others) = encoder.weights, views(text)
    ids = encoder.ids(whole)
    states = run_layers(weights, embed(weights, ids), 0, JOINT_FROM)
    vector = unit_mean(run_layers(weights, states, JOINT_FROM, LAYERS))
    vectors = np.concatenate([vector[None], encoder.encode(others)])
    return vectors, Lower(np.asarray(ids), states) if len(ids) <= LIMIT else _lower(encoder, whole)


@lru_cache(maxsize=1)
def shared_gate() -> Gate:
    """The packaged gate, loaded once."""
    return Gate()


Table = TypeVar("Table", bound="Index")


class Index:
    """The lessons' prompts and fingerprints, in the order they were taught; exact search.

    Of lessons with the very same prompt only the last one counts. Raises StateError where lengths or shapes differ.
    """

    floor = 0.45  # cosine below which nothing can be meant; chosen on validation pairs, too
    margin = 0.15  # a candidate must come this close to the best one's cosine: others are there for another question
    most = 3  # candidates that the pair model looks at

    def __init__(self, prompts: Sequence[str], fingerprints: Sequence[np.ndarray], gate: Gate | None = None) -> None:
        if len(prompts) != len(fingerprints):
            raise StateError(
                f"{len(prompts)} prompts but {len(fingerprints)} fingerprints; expected one for each lesson"
            )
        bad = [i for i, f in enumerate(fingerprints) if f.ndim != 2 or f.shape[1] != WIDTH]
        if bad:
            raise StateError(
                f"fingerprints of lessons {bad[:5]} have another shape than [views, {WIDTH}]; re-teach these lessons"
            )
        self.prompts = list(prompts)
        self._gate = gate
        self._latest = {fold(prompt): position for position, prompt in enumerate(prompts)}
        live = sorted(self._latest.values())
        rows = [np.asarray(fingerprints[i], np.float32) for i in live]
        self._vectors = np.concatenate(rows) if rows else np.zeros((0, WIDTH), np.float32)
        self._owner = np.repeat(np.asarray(live, np.int64), [len(r) for r in rows])
        self._states: OrderedDict[str, Lower] = OrderedDict()

    def extended(self: Table, prompts: Sequence[str], fingerprints: Sequence[np.ndarray]) -> Table:
        """The index with more lessons at the end: what a new one of all would be, without making it anew."""
        more, new, start = Index(prompts, fingerprints, self._gate), copy.copy(self), len(self.prompts)
        taught_again = [self._latest[prompt] for prompt in more._latest.keys() & self._latest.keys()]
        kept = ~np.isin(self._owner, taught_again)
        new.prompts = self.prompts + more.prompts
        new._latest = self._latest | {prompt: start + position for prompt, position in more._latest.items()}
        new._vectors = np.concatenate([self._vectors[kept], more._vectors])
        new._owner = np.concatenate([self._owner[kept], start + more._owner])
        return new

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def gate(self) -> Gate:
        """The gate is loaded when the first question is asked, not for an empty memory."""
        self._gate = self._gate or shared_gate()
        return self._gate

    def match(self, texts: Sequence[str], threshold: float = THRESHOLD) -> list[list[tuple[int, float]]]:
        """For each text, the lessons it asks for as (position, score), best first; score in [threshold, 1].

        Best is the sum of score and cosine; lessons that are as good as equal in it come in reverse order of teaching,
        so a correction wins over what it corrects.
        """
        return [self._match(text, threshold) for text in texts]

    def candidates(self, vectors: np.ndarray) -> list[tuple[int, float]]:
        """Lessons that could be meant by a text with these view vectors [V, D], as (position, cosine), best first."""
        if not len(self._owner):
            return []
        # rounded, so that no order hangs on the last bits of a matrix product
        cosines = np.round((self._vectors @ vectors.T).max(axis=1), 4)
        best = float(cosines.max())
        near = np.flatnonzero(cosines >= max(self.floor, best - self.margin))
        found: dict[int, float] = {}
        for row in near[np.lexsort((-self._owner[near], -cosines[near]))]:
            if found.setdefault(int(self._owner[row]), float(cosines[row])) and len(found) == self.most:
                break
        return list(found.items())

    def _match(self, text: str, threshold: float) -> list[tuple[int, float]]:
        exact = self._latest.get(fold(text))
        if exact is not None:
            return [(exact, 1.0)]
        if not self.prompts or not text.strip():
            return []
        vectors, query = self.gate.read(text)
        near = [c for c in self.candidates(vectors) if not another_question(text, self.prompts[c[0]])]
        scored = [(p, self.gate.same(query, self.lower(self.prompts[p])), cosine) for p, cosine in near]
        fired = [found for found in scored if found[1] >= threshold]
        # Several lessons may ask the same in other words. What differs little in likeness counts as equal: later first.
        best = max((score + cosine for _, score, cosine in fired), default=0.0)
        fired.sort(key=lambda f: (f[1] + f[2] >= best - EQUAL, f[0] if f[1] + f[2] >= best - EQUAL else f[1] + f[2]))
        return [(position, score) for position, score, _ in reversed(fired)]

    def lower(self, text: str) -> Lower:
        """Lower states of a text of a lesson: computed when first needed, then kept."""
        prompt = " ".join(text.split())
        if prompt not in self._states:
            self._states[prompt] = self.gate.lower(prompt)
            if len(self._states) > _KEPT_STATES:
                self._states.popitem(last=False)
        self._states.move_to_end(prompt)
        return self._states[prompt]
