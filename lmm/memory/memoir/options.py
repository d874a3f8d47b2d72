"""The options of `memoir`, the paper's own settings, and the variables MEMOIR_... of the document."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from lmm.errors import UsageError
from lmm.memory.optim import OPTIMIZERS
from lmm.options import Options, learning, option

VIEWS = {"mean": 1, "both": 2}
SPANS = ("reply", "all")
STEPS = ("unit", *OPTIMIZERS)
#: variables of the document -> options; the others say where `lmm.memory.memoir` keeps things
ENVIRONMENT = {"MEMOIR_TOP_K": "k", "MEMOIR_SIMILARITY_THRESHOLD": "tau", "MEMOIR_MAX_EDITS": "max_edits"}
#: as published for Llama-3-8B, as far as it can be: see the deviations in memoir.py
PAPER: dict[str, Any] = {
    "depth": 0.84,  # layer 27 of 32
    "k": 0.286,  # 4096 of 14336
    "tau": 0.4,
    "views": "mean",
    "span": "all",
    "prefixes": 10,
    "margin": 0.0,
    "optimizer": "sgd",
    "lr": 1.0,
    "weight_decay": 1e-5,
    "clip": 1.0,
    "goal": 0.0,
}


@dataclass(frozen=True)
class MemoirOptions(Options):
    depth: float = option(0.8, "the site, as a share of the layers", "(0, 1)")
    k: float = option(0.286, "columns of a mask: a share of F below 1, else a number", "(0, inf)")
    tau: float = option(0.62, "overlap of masks from which a lesson fires", "(0, 1]")
    views: str = option("both", "fingerprints: the mean over the user's words, or the last token's, too", one_of=VIEWS)
    span: str = option("reply", "where the residual acts", one_of=SPANS)
    prefixes: int = learning(0, "copies with a sentence before the prompt", "[0, 10]")
    margin: float = learning(6.0, "logits by which every token of the answer is to lead", "[0, 50]")
    optimizer: str = learning("adam", "unit: each step is lr |h| / |m * x| long", one_of=STEPS)
    lr: float = learning(0.03, "learning rate", "(0, 10]")
    weight_decay: float = learning(0.0, "of the optimizer", "[0, inf)")
    clip: float = learning(0.0, "largest norm of a gradient; 0: any", "[0, inf)")
    steps: int = learning(30, "for each lesson, at most", "[1, 1000]")
    goal: float = learning(0.7, "mean loss that is good enough", "[0, inf)")
    max_edits: int = learning(0, "lessons it will hold; 0: any number", "[0, inf)")
    seed: int = option(0, "of the permutation", "[0, inf)")

    def together(self) -> list[str]:
        whole = self.k < 1 or self.k == int(self.k)
        return [] if whole else [f"k must be a share or a whole number, not {self.k}"]


def environment() -> dict[str, Any]:
    """Options that MEMOIR_... variables set. Raises UsageError for one that is no number."""
    found: dict[str, Any] = {}
    for name, key in ENVIRONMENT.items():
        if text := os.environ.get(name, "").strip():
            try:
                found[key] = int(text) if key == "max_edits" else float(text)
            except ValueError as error:
                raise UsageError(f"{name} must be a number, not {text!r}") from error
    return found
