"""What a store of texts is: entries in namespaces, found by meaning and by words.

A namespace is one user's: whatever is asked of a store is asked within one, and nothing of another comes back. Entries
are values. One that was superseded is kept as history until its fact is forgotten, and then all of it goes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lmm.errors import StoreError, UsageError
from lmm.text.fold import fold

if TYPE_CHECKING:
    from lmm.store.lessons import SharedMind

Lessons = Callable[[str, str], "SharedMind"]  # of a user, and of the name of a model and memory
#: of reciprocal rank fusion. Its paper has 60 and no weights; among hundreds of texts, nearly all of which share some
#: word with a query, the first places must count for more: docs/store.md
CONSTANT, MEANING = 2, 1.5
DEPTH = 50  # how far down each ranking is looked before they are fused, at least
LONGEST = 200  # characters of a user's name


@dataclass(frozen=True)
class Memo:
    """One text as it was memorized. `about` names the matter: the next entry about the same takes its place.

    `vector` [D] float32 is of length 1; superseded entries have none. `replaces` and `replaced_by` are ids, "" where
    there is none. `time` is in seconds since 1970.
    """

    text: str
    context: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""
    time: float = field(default_factory=time.time)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    replaces: str = ""
    replaced_by: str = ""
    vector: np.ndarray | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise UsageError("there is nothing to memorize in an empty text")
        for text in (self.text, self.context, self.about, self.id):
            storable(text)
        if not math.isfinite(self.time):
            raise UsageError(f"{self.time} is no time")

    @property
    def key(self) -> str:
        """The same for two spellings of the very same text."""
        return hashlib.sha256(fold(self.text).encode()).hexdigest()[:32]

    @property
    def current(self) -> bool:
        return not self.replaced_by

    def cosine(self, vector: np.ndarray) -> float:
        """The likeness to a unit vector [D]; 0 without a vector."""
        return float(self.vector @ vector) if self.vector is not None else 0.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; without the vector, which is made again from the text."""
        names = ("id", "text", "context", "metadata", "about", "time", "replaces", "replaced_by")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Memo:
        """Raises UsageError for what is no entry."""
        texts = ("id", "text", "context", "about", "replaces", "replaced_by")
        known = {name: values[name] for name in (*texts, "metadata", "time") if name in values}
        wrong = [name for name in texts if not isinstance(known.get(name, ""), str)]
        wrong += ["metadata"] if not isinstance(known.get("metadata", {}), Mapping) else []
        wrong += ["time"] if not isinstance(known.get("time", 0.0), int | float) else []
        if wrong or "text" not in known:
            raise UsageError(f"no entry: {', '.join(wrong) or 'text'} is missing or of another type")
        return cls(**known)


@dataclass(frozen=True)
class Filters:
    """Which entries: of a time (seconds since 1970; `until` itself is not in it), and with these values in their
    metadata."""

    since: float | None = None
    until: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.since is not None or self.until is not None or bool(self.metadata)

    def take(self, memo: Memo) -> bool:
        after = self.since is None or memo.time >= self.since
        before = self.until is None or memo.time < self.until
        return after and before and all(memo.metadata.get(k) == v for k, v in self.metadata.items())

    def sql(self, since: str, until: str, metadata: str) -> tuple[str, list[Any]]:
        """Further conditions of a query and their values; each is given in the words of one database."""
        parts: list[tuple[str, list[Any]]] = []
        if self.since is not None:
            parts.append((since, [self.since]))
        if self.until is not None:
            parts.append((until, [self.until]))
        parts += [(metadata, [name, json.dumps(value)]) for name, value in self.metadata.items()]
        return "".join(f" AND {text}" for text, _ in parts), [value for _, values in parts for value in values]


ALL = Filters()


@dataclass(frozen=True)
class Recalled:
    """An entry that was recalled; `score` is that of the fused ranking, `cosine` the likeness of meaning."""

    memo: Memo
    score: float
    cosine: float


class TextStore(Protocol):
    """All of it raises StoreError where the store itself fails; what was not acknowledged may then be missing."""

    @property
    def lessons(self) -> Lessons | None:
        """Where servers that share this store keep what their users' minds know; None: in files."""

    def about(self) -> dict[str, Any]:
        """What was written once of the whole: the name and width of the encoder that its vectors are of."""

    def describe(self, values: Mapping[str, Any]) -> None:
        """Write it. Raises StoreError if it says something else already."""

    def add(self, space: str, memos: Sequence[Memo]) -> list[str]:
        """-> the id of each: of the entry that is there, where the same text is. One about the same matter as an
        entry that is there supersedes it. On the disk when it returns."""

    def get(self, space: str, ids: Sequence[str]) -> list[Memo]:
        """Those of the ids that are in the namespace, in that order, with their vectors."""

    def search(self, space: str, vector: np.ndarray, text: str, k: int = 5, filters: Filters = ALL) -> list[Recalled]:
        """The k best current entries by meaning, `vector` [D], and by the words of `text`, best first."""

    def supersede(self, space: str, id: str, memo: Memo) -> str:
        """Put an entry in another's place -> its id. Raises UsageError if that is not there, or not current."""

    def forget(self, space: str, ids: Sequence[str]) -> int:
        """Remove facts with all their history -> how many entries went. No table, index or file of the store holds a
        byte of them then."""

    def scan(self, space: str, filters: Filters = ALL, history: bool = False) -> Iterator[Memo]:
        """The entries in the order in which they came; with `history`, superseded ones among them."""

    def history(self, space: str, id: str) -> list[Memo]:
        """All that was ever said of the fact, the oldest first."""

    def count(self, space: str) -> int:
        """How many current entries there are."""

    def has_any(self, space: str) -> bool:
        """Whether there is a current entry; as quick in a namespace of many."""

    def namespaces(self) -> list[str]: ...

    def restore(self, space: str, memos: Sequence[Memo]) -> None:
        """Put entries back as another store had them, superseded ones among them; those that are there stay."""

    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """What is changed inside is changed together or, after an error, not at all."""

    def close(self) -> None: ...


def storable(text: str) -> None:
    """Raises UsageError for what no store can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the text has a character that is not Unicode: {error.object[error.start]!r}") from None
    if "\0" in text:
        raise UsageError("the text has a zero byte in it")


def user_name(text: str) -> str:
    """Raises UsageError for what cannot name a user."""
    storable(text)
    if len(text) > LONGEST:
        raise UsageError(f"a user's name has at most {LONGEST} characters")
    return text


def agreed(there: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Raises StoreError where a store says something else already of the whole."""
    if there and there != dict(values):
        raise StoreError(f"the store is of {there}, not of {dict(values)}")


def batches(memos: Iterable[Memo], size: int) -> Iterator[list[Memo]]:
    rest = iter(memos)
    while batch := list(islice(rest, size)):
        yield batch


def entries(store: TextStore, space: str) -> int:
    """How many there are, superseded ones among them."""
    return sum(1 for _ in store.scan(space, history=True))


def current(found: Sequence[Memo], id: str) -> Memo:
    """The one that was looked for. Raises UsageError where it is not there, or is history."""
    if not found or not found[0].current:
        raise UsageError(f"there is no current entry {id!r}")
    return found[0]


def succeeded(old: Memo, new: Memo) -> Memo:
    """`new` in the place of `old`, of whose matter it is."""
    return replace(new, replaces=old.id, about=new.about or old.about)


def fused(by_meaning: Sequence[int], by_words: Sequence[int], k: int) -> list[tuple[int, float]]:
    """Two rankings, the best first, as one -> the k best with their scores.

    Reciprocal rank fusion: Cormack, Clarke & Buettcher 2009, SIGIR.
    """
    scores: dict[int, float] = {}
    for ranking, weight in ((by_meaning, MEANING), (by_words, 1.0)):
        for rank, one in enumerate(ranking, 1):
            scores[one] = scores.get(one, 0.0) + weight / (CONSTANT + rank)
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:k]


def depth(k: int) -> int:
    return max(DEPTH, 4 * k)
