"""The stored questions of an engram's state, and which of them a text asks: n-gram votes, then states in context.

Shape letters: Q stored questions, D width.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmm.gate import other_person
from lmm.memory.base import State
from lmm.memory.table import names
from lmm.memory.votes import Votes

if TYPE_CHECKING:
    from lmm.adapters.ops import Ops


class Asked:
    """What is known of each stored question: its turn's key, its signature, its state in context, whose it is."""

    def __init__(self, ops: Ops, state: State) -> None:
        questions: list[np.ndarray] = []
        grams: list[np.ndarray] = []
        weights: list[np.ndarray] = []
        self.owner: list[str] = []
        turns, context = [np.zeros(0, np.int64)], []
        for block in names(state, "turns"):
            table = ops.to_numpy(state[f"grams/{block}"])
            questions.append(table[:, 0] + len(self.owner))
            grams.append(table[:, 1])
            weights.append(table[:, 2])
            turns.append(ops.to_numpy(state[f"turns/{block}"]))
            context.append(ops.to_numpy(state[f"context/{block}"]).astype(np.float32))
            self.owner += [block] * len(turns[-1])
        self.votes, self.turns = Votes(questions, grams, weights, len(self.owner)), np.concatenate(turns)
        self.context = np.concatenate(context) if context else np.zeros((0, 0), np.float32)

    def candidates(self, text: str, signature: tuple[np.ndarray, np.ndarray], stored: dict[str, str]) -> np.ndarray:
        """The votes [Q] of a text; -1 for questions that it cannot be: about another person, or other numbers.

        `stored`: the words of the questions, by owner; those of an owner that is not in it are not looked at.
        """
        votes = self.votes.cosines(*signature)
        for q, owner in enumerate(self.owner):
            if owner in stored and (other_person(text, stored[owner]) or other_numbers(text, stored[owner])):
                votes[q] = -1.0
        return votes


def other_numbers(text: str, stored: str) -> bool:
    """Does the stored question name a number that the text does not have? "key_12" is not "key_21" or "key_123"."""
    return not set(re.findall(r"\d+", stored)) <= set(re.findall(r"\d+", text))


@dataclass(frozen=True)
class Found:
    """The question that a prompt asks: `score`, and of the text looked at the `cosines` [Q] with all questions."""

    score: float
    question: int
    cosines: np.ndarray


def unit(x: np.ndarray) -> np.ndarray:
    return x / (np.linalg.norm(x, axis=-1, keepdims=True) + 1e-12)
