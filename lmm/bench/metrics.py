"""Scores of replies, and how sure they are.

Exact match is after SQuAD's normalisation (Rajpurkar et al. 2016, arXiv:1606.05250): lower case, no punctuation, no
articles, single spaces. Intervals are percentile bootstraps (Efron 1979) over edits, not over prompts: prompts of one
edit stand or fall together.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

import numpy as np

from lmm.text import fold

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
Groups = Sequence[Sequence[float]]  # for each edit, a score for each of its prompts


def squad(text: str) -> str:
    """SQuAD's normalisation of an answer."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _comparable(text: str) -> str:
    """An answer that is all punctuation or articles ("A", "!") would vanish; it is compared as it stands."""
    return squad(text) or " ".join(text.lower().split())


def exact(reply: str, answers: Sequence[str]) -> bool:
    """Is the reply one of the answers, and nothing else?"""
    return any(_comparable(reply) == _comparable(answer) for answer in answers)


def contains(reply: str, answers: Sequence[str]) -> bool:
    """Does the reply hold one of the answers, in whole words? Generous: "not X" contains X."""
    return any(fold.contains(reply, answer) for answer in answers)


def mean(groups: Groups) -> float | None:
    """The share over all prompts; None if there are none."""
    values = [value for group in groups for value in group]
    return sum(values) / len(values) if values else None


def bootstrap(groups: Groups, seed: int = 0, draws: int = 1000, level: float = 0.95) -> tuple[float, float] | None:
    """The interval in which `mean` lies when edits are drawn anew, with replacement; None if there are none."""
    full = [group for group in groups if len(group)]
    if not full:
        return None
    sums, counts = np.array([[sum(group), len(group)] for group in full], float).T
    picks = np.random.default_rng(seed).integers(0, len(full), (draws, len(full)))
    means = sums[picks].sum(axis=1) / counts[picks].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if len(values) else None


def percentile(values: Sequence[float], q: float) -> float | None:
    return float(np.percentile(values, q)) if len(values) else None


def ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base else None
