"""What offline training can be told, in a file of its own: flags are made of it before anything heavy is imported."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lmm.options import Options, option


@dataclass(frozen=True)
class Pace(Options):
    """How long is trained, and how fast."""

    epochs: int = option(20, "passes over the examples that are trained on, at most", "[1, inf)")
    lr: float = option(1e-2, "highest learning rate of the training", "(0, 10)")


@dataclass(frozen=True)
class TrainingSettings(Pace):
    batch_size: int = option(16, "examples in a step", "[1, inf)")
    weight_decay: float = option(0.0, "of AdamW", "[0, inf)")
    warmup: float = option(0.05, "share of the steps in which the rate rises", "[0, 1)")
    clip: float = option(1.0, "largest global norm of the gradients; 0: any", "[0, inf)")
    patience: int = option(3, "epochs without a better loss after which to stop", "[1, inf)")
    goal: float = option(0.01, "a loss that is good enough", "[0, inf)")
    seed: int = option(0, "of the order of examples", "[0, inf)")
    save_every_s: float = option(60.0, "seconds between checkpoints", "[0, inf)")

    def lr_at(self, step: int, steps: int) -> float:
        """Linear from 0 in the warm-up, then half a cosine down to 0."""
        warm = round(self.warmup * steps)
        if step < warm:
            return self.lr * (step + 1) / (warm + 1)
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))
