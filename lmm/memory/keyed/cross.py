"""A second look at what a gate has found: a cross-encoder that reads message and note together, in all of its layers.

multilingual-e5-small (`lmm.encoders.e5`) as a cross-encoder (Nogueira & Cho 2019, arXiv:1901.04085), fine-tuned by
scripts/train_cross.py; what that changed is kept in low rank. It takes some 25 ms a note where the pair model of the
first look takes 3, so it reads only what that one leaves in doubt; and it knows the languages that one does not.

Shape letters: T word pieces in all, D width (384).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lmm.encoders.e5 import E5, LAYERS, shared_e5
from lmm.encoders.minilm import WIDTH, embed, load_trained, merge_lora, run_layers

WEIGHTS = Path(__file__).with_name("cross-e5.safetensors")  # does a note help?
REPLACES = Path(__file__).with_name("replaces-e5.safetensors")  # is it out of date?
MAX_MESSAGE, MAX_NOTE = 80, 80  # word pieces that are read: the end of each
HIDDEN = 128
SHAPES = {
    "segment": (WIDTH,),
    "marks": (2, WIDTH),
    "head.hidden": (2 * WIDTH, HIDDEN),
    "head.hidden_bias": (HIDDEN,),
    "head.out": (HIDDEN, 2),
    "head.out_bias": (2,),
}  # what is trained beside the encoder


def pieces(encoder: E5, message: str, note: str) -> tuple[list[int], list[int], list[int]]:
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


class CrossEncoder:
    """Raises ModelError for a file that cannot be read or holds none."""

    def __init__(self, path: Path, encoder: E5) -> None:
        trained = load_trained(path, "cross-encoder", SHAPES, "train_cross")
        self.encoder, self.weights = encoder, merge_lora(encoder.weights, trained)
        self.trained = {name: trained[name].astype(np.float32) for name in SHAPES}

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


@lru_cache(maxsize=2)
def shared_cross(path: Path = WEIGHTS) -> CrossEncoder | None:
    """A packaged one, loaded once; None where its encoder is not installed."""
    encoder = shared_e5()
    return CrossEncoder(path, encoder) if encoder else None
