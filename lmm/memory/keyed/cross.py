"""A second look at what a gate has found: cross-encoders that read message and note together, in all of their layers.

multilingual-e5-small (`lmm.encoders.e5`) as a cross-encoder (Nogueira & Cho 2019, arXiv:1901.04085), and of English
MPNet (`lmm.encoders.mpnet`) beside it, fine-tuned by scripts/train_cross.py; what that changed is kept in low rank. One
takes some 25 ms a note and the other 70 where the pair model of the first look takes 3, so they read only what that one
leaves in doubt, and MPNet what it can still decide. The mean of their logits counts.

Shape letters: T word pieces in all, D width (384 and 768).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lmm.encoders.e5 import E5, LAYERS, shared_e5
from lmm.encoders.minilm import embed, load_trained, run_layers, with_lora
from lmm.encoders.mpnet import MPNet, shared_mpnet
from lmm.text.language import is_english

WEIGHTS = Path(__file__).with_name("cross-e5.safetensors")  # does a note help?
REPLACES = Path(__file__).with_name("replaces-e5.safetensors")  # is it out of date?
MAX_MESSAGE, MAX_NOTE = 80, 80  # word pieces that are read: the end of each


def shapes(width: int) -> dict[str, tuple[int, ...]]:
    """What is trained beside an encoder that is so wide."""
    hidden = width // 3
    return {
        "segment": (width,),
        "marks": (2, width),
        "head.hidden": (2 * width, hidden),
        "head.hidden_bias": (hidden,),
        "head.out": (hidden, 2),
        "head.out_bias": (2,),
    }


def pieces(encoder: E5 | MPNet, message: str, note: str) -> tuple[list[int], list[int], list[int]]:
    """<s> message </s></s> note </s> as word pieces [T], which of the two each belongs to, and whether the other has
    it, too: names and numbers must be the same ones."""
    asked, noted = (
        encoder.tokenizer.encode(text, add_special_tokens=False).ids[-most:]
        for text, most in ((message, MAX_MESSAGE), (note, MAX_NOTE))
    )
    ids = [encoder.cls, *asked, encoder.sep, encoder.sep, *noted, encoder.sep]
    segments = [0] * (len(asked) + 2) + [1] * (len(noted) + 2)
    marks = [0, *(int(i in noted) for i in asked), 0, 0, *(int(i in asked) for i in noted), 0]
    return ids, segments, marks


class Look(NamedTuple):
    """Probabilities: that the note helps with the message, and that it is no longer true if the message is."""

    helps: float
    replaces: float


#: what the first of the two holds less likely than that, of what each is asked for, the other does not save
HOPELESS = {WEIGHTS: Look(0.7, 1.0), REPLACES: Look(1.0, 0.05)}


class CrossEncoder:
    """Raises ModelError for a file that cannot be read or holds none."""

    def __init__(self, path: Path, encoder: E5 | MPNet) -> None:
        names = shapes(encoder.width)
        trained = load_trained(path, "cross-encoder", names, "train_cross")
        self.encoder, self.weights = encoder, with_lora(encoder.weights, trained)
        self.trained = {name: trained[name].astype(np.float32) for name in names}

    def look(self, message: str, note: str) -> Look:
        return _look(self, message, note)

    def helps(self, message: str, note: str) -> float:
        """Probability that the note helps with the message."""
        return self.look(message, note).helps


@lru_cache(maxsize=64)  # what a turn makes out of date is asked when it is read, and when it is learned
def _look(model: CrossEncoder, message: str, note: str) -> Look:
    ids, segments, marks = pieces(model.encoder, message, note)
    t = model.trained
    x = embed(model.weights, ids) + np.outer(segments, t["segment"]) + t["marks"][marks]
    x = run_layers(model.weights, x.astype(np.float32), 0, LAYERS)
    inner = np.tanh(np.concatenate([x[0], x.mean(axis=0)]) @ t["head.hidden"] + t["head.hidden_bias"])
    logits = np.clip(inner @ t["head.out"] + t["head.out_bias"], -15, 15)
    return Look(*(1.0 / (1.0 + np.exp(-logits.astype(float)))).tolist())


class BothEncoders(CrossEncoder):
    """One that reads all languages, and beside it one that reads English better."""

    def __init__(self, path: Path, encoder: E5, english: CrossEncoder) -> None:
        super().__init__(path, encoder)
        self.english, self.hopeless = english, HOPELESS[path]

    def look(self, message: str, note: str) -> Look:
        look = super().look(message, note)
        hopeless = look.helps < self.hopeless.helps and look.replaces < self.hopeless.replaces
        if hopeless or not is_english(f"{message} {note}"):
            return look
        return Look(*map(mean, look, self.english.look(message, note)))


def mean(p: float, q: float, share: float = 0.5) -> float:
    """The probability between two, by the mean of their logits, in which the second has this share."""
    odds = (p / (1 - p)) ** (1 - share) * (q / (1 - q)) ** share
    return odds / (1 + odds)


@lru_cache(maxsize=2)
def shared_cross(path: Path = WEIGHTS) -> CrossEncoder | None:
    """A packaged one, loaded once; None where its encoder is not installed."""
    encoder, english = shared_e5(), shared_mpnet()
    if encoder is None or english is None:
        return CrossEncoder(path, encoder) if encoder else None
    return BothEncoders(path, encoder, CrossEncoder(path.with_name(path.name.replace("e5", "mpnet")), english))
