"""The options of `memoir`, the paper's own settings, and the variables MEMOIR_... of the document."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from lmm.errors import UsageError
from lmm.memory.optim import OPTIMIZERS

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
class MemoirOptions:
    """`depth`: the site as a share of the layers. `k`: columns of a mask, as a share of F (below 1) or a number.

    `optimizer=unit`: every step is `lr` |h| / |m * x| long, so that it moves the reply's states by about that share.
    `prefixes`: copies with a sentence before the prompt. `goal`: stop when the mean loss is at most that. `clip`:
    largest norm of a gradient (0: any). `max_edits`: lessons it will hold (0: any number).
    """

    depth: float = 0.8
    k: float = 0.286
    tau: float = 0.62
    views: str = "both"
    span: str = "reply"
    prefixes: int = 0
    margin: float = 6.0
    optimizer: str = "adam"
    lr: float = 0.03
    weight_decay: float = 0.0
    clip: float = 0.0
    steps: int = 30
    goal: float = 0.7
    max_edits: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = [
            (not 0 < self.depth < 1, f"depth must be between 0 and 1, not {self.depth}"),
            (self.k <= 0 or (self.k >= 1 and self.k != int(self.k)), f"k must be a share or a number, not {self.k}"),
            (not 0 < self.tau <= 1, f"tau must be above 0 and at most 1, not {self.tau}"),
            (self.views not in VIEWS, f"views must be one of {', '.join(VIEWS)}, not {self.views!r}"),
            (self.span not in SPANS, f"span must be one of {', '.join(SPANS)}, not {self.span!r}"),
            (not 0 <= self.prefixes <= 10, f"prefixes must be 0 to 10, not {self.prefixes}"),
            (not 0 <= self.margin <= 50, f"margin must be 0 to 50 logits, not {self.margin}"),
            (self.optimizer not in STEPS, f"optimizer must be one of {', '.join(STEPS)}, not {self.optimizer!r}"),
            (not 0 < self.lr <= 10, f"lr must be above 0 and at most 10, not {self.lr}"),
            (not 1 <= self.steps <= 1000, f"steps must be 1 to 1000, not {self.steps}"),
            (
                self.weight_decay < 0 or self.clip < 0 or self.goal < 0,
                "weight_decay, clip and goal must not be below 0",
            ),
            (self.max_edits < 0, f"max_edits must not be below 0, is {self.max_edits}"),
            (self.seed < 0, f"seed must be 0 or above, not {self.seed}"),
        ]
        if problems := [text for bad, text in wrong if bad]:
            raise ValueError("; ".join(problems))


def environment() -> dict[str, Any]:
    """Options that MEMOIR_... variables set. Raises UsageError for one that is no number."""
    found: dict[str, Any] = {}
    for name, option in ENVIRONMENT.items():
        if text := os.environ.get(name, "").strip():
            try:
                found[option] = int(text) if option == "max_edits" else float(text)
            except ValueError as error:
                raise UsageError(f"{name} must be a number, not {text!r}") from error
    return found
