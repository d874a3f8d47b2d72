"""The stored questions of an engram's state, and which of them a text asks: n-gram votes, then states in context.

Shape letters: Q stored questions, D width.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmm.lesson import State
from lmm.memory.contrast import named_in
from lmm.memory.engram.ngrams import normal_form, normal_ids
from lmm.memory.engram.table import names
from lmm.memory.engram.votes import Votes, signature
from lmm.text.questions import other_person

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter
    from lmm.adapters.ops import Ops


class StoredQuestions:
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

    def candidates(self, text: str, words: Words, stored: dict[str, str]) -> np.ndarray:
        """The votes [Q] of a text; -1 for questions that share words with it and yet cannot be meant: they are about
        another person, another number or another thing.

        `stored`: the questions by owner; those of an owner that is not in it (a pair) are not looked at.
        """
        votes = self.votes.cosines(*words.signature(text))
        for q in np.flatnonzero(votes):
            other = stored.get(self.owner[q])
            if other and (other_person(text, other) or other_numbers(text, other) or words.other_thing(text, other)):
                votes[q] = -1.0
        return votes


class Words:
    """The words of a text by one tokenizer: normalised ids, and how rare each is."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter

    def read(self, text: str) -> dict[str, tuple[list[int], float]]:
        """The words of a text, without punctuation: normal form -> normalised ids, weight.

        A word of several tokens is rarer than any that has one: it weighs 1.
        """
        ids, weights = normal_ids(self.adapter)
        found: dict[str, tuple[list[int], float]] = {}
        for word in re.findall(r"\w+", text):
            tokens = [t for t in self.adapter.format.encode(" " + word) if weights[t] > 0]
            weight = float(weights[tokens[0]]) if len(tokens) == 1 else 1.0
            if tokens:
                found[normal_form(word)] = ([int(ids[t]) for t in tokens], weight)
        return found

    def signature(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """N-grams and weights of a text's words, in order, for `votes`."""
        found = self.read(text)
        order = [found[form] for word in re.findall(r"\w+", text) if (form := normal_form(word)) in found]
        ids = [i for word, _ in order for i in word]
        return signature(np.array(ids, np.int64), np.array([w for word, w in order for _ in word], np.float32))

    def other_thing(self, text: str, stored: str) -> bool:
        """Has each of the two a rarest word that the other has not, or the stored one a name that the text lacks?
        "Capital of France" is not "capital of Zembla"."""
        a, b = self.read(text), self.read(stored)
        name = {normal_form(word) for found in named_in(stored) for word in re.findall(r"\w+", found[0])} & b.keys()
        if name and not name & a.keys():
            return True
        return bool(a and b) and not (_rarest(a) & b.keys()) and not (_rarest(b) & a.keys())


def _rarest(words: dict[str, tuple[list[int], float]]) -> set[str]:
    top = max(weight for _, weight in words.values())
    return {word for word, (_, weight) in words.items() if weight >= top}


def other_numbers(text: str, stored: str) -> bool:
    """Does the stored question name a number that the text does not have? "key_12" is not "key_21" or "key_123"."""
    return not set(re.findall(r"\d+", stored)) <= set(re.findall(r"\d+", text))


@dataclass(frozen=True)
class Found:
    """The question that a prompt asks: `score`, and of the text looked at the `cosines` [Q] with all questions."""

    score: float
    question: int
    cosines: np.ndarray
