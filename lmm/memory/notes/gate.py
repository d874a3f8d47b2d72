"""The gate of notes: does what was said help to answer, or to do, what is asked now?

Two looks, as of the gate of `keyed` and with its parts: cosines of sentence vectors find the few notes that could
matter, and a pair model reads question and note together. Below the joint layers both gates read a question the same,
so it is read once. The model is trained by scripts/train_helps.py: what helps is what one needs to know, not what
sounds alike. A near miss (another person, another matter of the same person, how things were before) does not.

What the pair model holds possible, a larger cross-encoder decides, where its weights are installed (`cross`).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lmm.memory.keyed.cross import REPLACES, mean, shared_cross
from lmm.memory.keyed.gate import Gate, Index
from lmm.memory.notes.lists import several
from lmm.text.fold import contains, fold, words
from lmm.text.names import (
    head,
    leaves,
    new_in_post,
    of_another_relative,
    of_another_thing,
    of_others,
    renames,
    says_who,
)
from lmm.text.sentences import sentences
from lmm.text.values import without_counts

if TYPE_CHECKING:
    from lmm.lesson import Lesson

WEIGHTS = (Path(__file__).with_name("helps-1.safetensors"),)
#: docs/notes.md says how they were chosen
THRESHOLD = 0.9
TAUGHT = 0.9955  # of facts about the world there are many about one subject, and the model knows some of them itself
POSSIBLE = 0.03  # what the pair model holds less likely is not looked at again
FIRST_LOOK = 0.25  # what the pair model's logit counts for beside the cross-encoder's
OUTDATED = 0.5  # probability from which a new note takes the place of an old one whose first words it has
SHARED = 0.55  # the same, where the two have another word in common that tells what they are about,
UNNAMED = 0.8  # and where they have none
BESIDE = 0.95  # and of one that says less of what the news say than another does
CERTAIN = 0.9  # of one note, beside which the others must be as sure as one that shares no word
IN_POST = 0.15  # and where both are of whom, or what, there is one of at a time
FIRST = 4  # words of a note that mostly say what it is about
BEGINNING = 5  # letters of a word
NEAR = 0.25  # cosine below which it is about something else
LIKENESS = 0.5  # how much the cosine counts, beside the probability, in which of several notes is shown first


LEADS = 0.994  # probability from which a note is shown with the one that leads to it
WORD, FEW = 3, 5  # letters of a word that leads from one note to another, and notes that may have it
UNKNOWN, COMMON = 100, 2300  # of the vocabulary: "the" is 1996, "school" 2082, "level" 2504


_SIGNS = "\u2e80"  # the first character of the scripts without blanks

_CAPITAL = re.compile(r"(?<=[\w,;:] )[A-Z]\w*")  # not at the beginning of a sentence


_TITLES = frozenset(("mrs", "miss", "herr", "frau", "madame", "monsieur", "señor", "señora", "signora"))


@lru_cache(maxsize=4096)
def _capitals(text: str) -> frozenset[str]:
    return frozenset(words(word) for word in _CAPITAL.findall(text))


@lru_cache(maxsize=4096)
def _words(text: str) -> frozenset[str]:
    return frozenset(words(text).split())


#: what one has by contract or buys, which is named only where something happens to it
_SERVES = re.compile(
    r"(?:provider|bank|gym|insurance|insurer|employer|supplier|carrier|operator|contract|plan|tariff|brand|host|car|bike|phone"
    r"|laptop|computer|school|club|company|airline|browser|editor)s?$",
    re.I,
)


def _presupposed(note: str, news: str) -> bool:
    """Does a note say who somebody is, and the news speak of them by that name? "My dentist is Dr Osei." holds where
    "Dr Osei has moved", and may not where "Dr Osei is no longer my dentist", has left, or goes by another name."""
    who = says_who(note)
    if who is None or _SERVES.search(who[0]) or not contains(news, who[1]):
        return False
    return not (contains(news, who[0].split()[-1]) or leaves(news, who[1]) or renames(news))


_WEEK = re.compile(r"\b(?:weekdays|(?:mon|tues|wednes|thurs|fri)days)\b", re.I)
_END = re.compile(r"\b(?:weekends?|(?:satur|sun)days)\b", re.I)
_CHANGES = re.compile(
    r"\b(?:now|instead|no longer|any ?more|since|moved?|shifted|switched|changed|from|actually|sorry|meant)\b", re.I
)


#: "New password: kiwi-3" does not say which, where there are several
_NEW_ONE = re.compile(
    r"(?:\w+[,!.]? )?(?:new|neue[srn]?|nouve(?:au|lle)|nuev[oa]|nuov[oa]) [^:.!?]{2,30}:|新的?[^:：]{1,12}[:：]", re.I
)


def _on_other_days(note: str, news: str) -> bool:
    """Is one of weekdays, and the other of the weekend, and nothing said to have changed? Then both may hold."""
    week, end = ([bool(days.search(text)) for text in (note, news)] for days in (_WEEK, _END))
    return week == [not x for x in end] and week[0] != week[1] and not _CHANGES.search(news)


_RANKS = (  # words for one of several of a kind
    "first second third fourth fifth 1st 2nd 3rd 4th 5th",
    "left right",
    "upstairs downstairs",
    "upper lower",
    "front back rear",
    "inner outer",
    "older elder eldest oldest younger youngest",
    "north south east west",
    "erste zweite dritte",
    "linke rechte",
    "obere untere",
    "ältere jüngere",
    "premier première deuxième seconde troisième",
    "primer primera segundo segunda tercero tercera",
)
_RANK = {word: kind for kind, several in enumerate(_RANKS) for word in several.split()}


def _of_another(note: str, news: str) -> bool:
    """Is one of the first of a kind, and the other of the second, and nothing said to have changed? "My first car was
    a Fiat" and "My second car was a Saab"."""
    first, then = (_ranked(text) for text in (note, news))
    return any(
        first[what] != then[what] and _RANK[first[what]] == _RANK[then[what]] for what in first.keys() & then.keys()
    ) and not _CHANGES.search(news)


def _ranked(text: str) -> dict[str, str]:
    """What a text has one of several of, and which: "car" and "first"."""
    return {what: word for word, what in pairwise(words(text).split()) if word in _RANK}


def _told(parts: Sequence[str]) -> str:
    """The sentences but for those that ask: what is asked beside news would hide them."""
    return " ".join(part for part in parts if not part.endswith(("?", "？")))


def _of_one(one: Lesson, other: Lesson) -> bool:
    """Two facts about the same do not lead to each other."""
    return bool(one.subject) and fold(one.subject) == fold(other.subject)


def beginnings(some: Iterable[str]) -> frozenset[str]:
    """Of words, so that "fences" and "fencing", "Wednesdays" and "wednesday" are alike."""
    return frozenset(word[:BEGINNING] for word in some)


def logit(p: float) -> float:
    return math.log(max(p, 1e-6) / max(1 - p, 1e-6))


@lru_cache(maxsize=1)
def shared_gate() -> Gate:
    """The packaged gate, loaded once."""
    return Gate(WEIGHTS, narrow=True)


class Notebook(Index):
    """The notes and their vectors, looked up by what they help with: each by the sentence that helps most, since beside
    others what is asked for counts less."""

    floor = 0.1
    margin = 0.3  # what a note came in the place of may be much nearer than the note
    most = 6  # what is asked for in other words may be the fifth nearest
    again = 4  # that the second look reads: a message takes its time
    leading = 3  # that may lead to another, and that each may lead to: every one takes a look of its own

    @property
    def gate(self) -> Gate:
        self._gate = self._gate or shared_gate()
        return self._gate

    def outdated(self, text: str, surely: bool = False) -> list[int]:
        """Positions of the notes that are no longer true once this is: a change, or a slip put right. None where the
        second look is not installed. `surely`: it may tell nothing at all, and more is asked of it."""
        second = shared_cross(REPLACES) if self.prompts and text.strip() else None
        if second is None:
            return []
        vectors, _ = self.gate.read(text)
        if len(parts := sentences(text)) > 1:  # news stand among other things
            vectors = np.concatenate([vectors, self.gate.encoder.encode(parts)])
        near = [position for position, cosine in self.candidates(vectors) if cosine >= NEAR]
        beside = (_presupposed, of_others, of_another_relative, _on_other_days, _of_another)
        near = [p for p in near if not any(holds(self.prompts[p], text) for holds in beside)]
        begins = head(text)
        if any(head(self.prompts[p]) == begins for p in near):  # what the news begin with is known
            near = [p for p in near if not of_another_thing(self.prompts[p], text)]
        told = _told(parts) or text
        said, news = self._beginnings(without_counts(_CHANGES.sub(" ", told))), dict.fromkeys((text, told))
        sure = {p: max(second.look(one, part).replaces for part in self._apart(p, text) for one in news) for p in near}
        # most news end one thing: beside it, what sounds alike is another of the same person's
        least = UNNAMED if max(sure.values(), default=0.0) >= CERTAIN else 0.0
        shared = {p: said & self._beginnings(self.prompts[p]) for p in near}
        gone = [
            p
            for p in near
            if sure[p] >= (UNNAMED if surely else self._doubt(text, said, self.prompts[p], shared[p], least))
            # the news may say more of another of which they are: "the build server", and not the one for staging
            and (sure[p] >= BESIDE or all(sure[q] < SHARED or not shared[p] < shared[q] for q in near))
        ]
        return gone if len(gone) < 2 or not _NEW_ONE.match(text) else []

    def _apart(self, position: int, news: str) -> list[str]:
        """A note, and of one with several things the sentence with each that the news name alone: who has sold the van
        has the scooter yet."""
        note = self.prompts[position]
        return [note, *(alone for thing, alone in several(note) if contains(news, thing.split()[-1]))]

    def _doubt(self, news: str, said: frozenset[str], note: str, shared: frozenset[str], least: float) -> float:
        """From which probability a note is out of date: the less it and the news name alike (`said` is what these do,
        `shared` what both), the surer that must be, and `least` where it is not of one in the same post."""
        if new_in_post(note, news):
            return IN_POST
        if said & self._beginnings(" ".join(note.split()[:FIRST])):
            return max(OUTDATED, least)
        return max(SHARED, least) if shared else UNNAMED

    def _beginnings(self, text: str) -> frozenset[str]:
        return beginnings(self.telling(text))

    def chain(self, text: str, owners: Sequence[Lesson], known: Lesson | None = None) -> tuple[int, int, float] | None:
        """Positions of two notes that are needed together to answer, the earlier one first, and how likely it is: "My
        manager is Celandra" and "Celandra's birthday is 3 May" where the manager's birthday is asked for. Read with the
        question, one leads to the other, which says a word that it brings up. `known`: the owner of a note that helps
        by itself, must be the one that leads, and comes first, since the other may be one too many. What was taught as
        question and answer leads nowhere: of the world there are many facts with one name in common. None where there
        are none, or the second look is not installed."""
        second = shared_cross() if len(self.prompts) > 1 and text.strip() else None
        if second is None:
            return None
        vectors, _ = self.gate.read(text)

        def holds(position: int) -> bool:  # what is over leads nowhere
            return bool(owners[position].statement) and self.prompts[position] not in owners[position].formerly

        near = [first for first, _ in self.candidates(vectors)[: self.leading] if holds(first)]
        leads = [first for first in near if known is None or owners[first] is known]
        found = [
            (second.helps(f"{text} {self.prompts[first]}", self.prompts[then]), first, then)
            for first in leads
            for then in self._told_of(first, text, vectors)
            if holds(then) and owners[then] is not owners[first] and not _of_one(owners[then], owners[first])
        ]
        score, first, then = max(found, default=(0.0, 0, 0))
        if score < LEADS:
            return None
        return (first, then, score) if known or first < then else (then, first, score)

    def _told_of(self, first: int, text: str, vectors: np.ndarray) -> list[int]:
        """Notes with a name that the one at `first` brings up and few have, the nearest to the question first."""
        counts = self._counts()
        brought = _words(self.prompts[first]) - _words(text) - _TITLES
        few = max(FEW, len(self.prompts) / FEW**2)
        rare = {w for w in brought if 1 < counts[w] <= few and len(w) >= WORD and not self._is_common(w)}
        told = [p for p in self._latest.values() if p != first and self._linked(rare, first, p)] if rare else []
        cosines = (self._vectors[np.isin(self._owner, told)] @ vectors.T).max(axis=1)
        near = self._owner[np.isin(self._owner, told)][np.argsort(-cosines, kind="stable")]
        return list(dict.fromkeys(near.tolist()))[: self.leading]

    def telling(self, *texts: str) -> frozenset[str]:
        """The words of texts but for those that are in any text; pairs of characters where no blanks part words."""
        found = set[str]()
        for text in texts:
            said = words(text).split()
            signs = [len(word) == 1 and word >= _SIGNS for word in said]
            found |= {a + b for (a, b), both in zip(pairwise(said), pairwise(signs), strict=True) if all(both)}
            alone = (word for word, sign in zip(said, signs, strict=True) if not sign)
            found |= {word for word in alone if not word.isalpha() or not self._is_common(word)}
        return frozenset(found)

    def _linked(self, rare: set[str], first: int, then: int) -> bool:
        """Do two notes share one of these words, and does it name something: with a capital in one of them, a digit,
        or not in the vocabulary ("mudlark")?"""
        notes = self.prompts[first], self.prompts[then]
        return any(
            not word.isalpha() or len(self._pieces(word)) > 1 or any(word in _capitals(note) for note in notes)
            for word in rare & _words(notes[1])
            if len(word) > WORD or not word.isdigit()  # the 555 of two phone numbers names neither
        )

    def _pieces(self, word: str) -> list[int]:
        return self.gate.encoder.tokenizer.encode(word, add_special_tokens=False).ids

    def _is_common(self, word: str) -> bool:
        """One of the first words of the encoder's vocabulary, which has them by how frequent they are. Before them it
        has what stands for a word that it does not know."""
        ids = self._pieces(word)
        return len(ids) == 1 and UNKNOWN < ids[0] < COMMON

    def _counts(self) -> Counter[str]:
        """In how many notes a word is; of more notes, the new ones are added."""
        done, counts = getattr(self, "_counted", (0, Counter[str]()))
        if done < len(self.prompts):
            counts = counts + Counter(w for prompt in self.prompts[done:] for w in _words(prompt))
            self._counted = len(self.prompts), counts
        return counts

    def _match(self, text: str, threshold: float) -> list[tuple[int, float]]:
        if not self.prompts or not text.strip():
            return []
        vectors, query = self.gate.read(text)
        scored = []
        for position, cosine in self.candidates(vectors):
            said = self.prompts[position]
            score = max(self.gate.same(query, self.lower(part)) for part in sentences(said) or [said])
            scored.append((score, position, cosine))
        if (second := shared_cross()) is not None:
            worth = sorted((one for one in scored if one[0] >= min(POSSIBLE, threshold)), reverse=True)[: self.again]
            scored = [
                (mean(second.helps(text, self.prompts[p]), score, FIRST_LOOK), p, cosine) for score, p, cosine in worth
            ]
        found = [
            (score + LIKENESS * cosine, position, score) for score, position, cosine in scored if score >= threshold
        ]
        return [(position, score) for _, position, score in sorted(found, reverse=True)]
