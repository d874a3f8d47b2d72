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
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from lmm.errors import StoreError, UsageError
from lmm.store.checks import (
    LATEST,
    alike,
    has,
    json_values,
    named,
    not_too_large,
    number_of,
    small_values,
    storable,
    time_of,
    user_name,
)
from lmm.store.facts import facts_of
from lmm.text.fold import fold

if TYPE_CHECKING:
    from lmm.store.lessons import SharedMind

Lessons = Callable[[str, str], "SharedMind"]  # of a user, and of the name of a model and memory
#: of reciprocal rank fusion. Its paper has 60 and no weights; among hundreds of texts, nearly all of which share some
#: word with a query, the first places must count for more: docs/store.md
CONSTANT, MEANING = 2, 1.5
ASKED = 2000  # characters of a query in which words are looked for
PRESENT_S = 3600.0  # for which a time is now: many texts are embedded between
GONE = "what it says was corrected, and the correction is gone"
DEPTH = 50  # how far down each ranking is looked before they are fused, at least


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

    def kept(self) -> Memo:
        """As every store gives it back, also what an earlier version took. Raises UsageError for what none holds."""
        for text, what in ((self.text, "the text"), (self.context, "the context"), (self.about, "what it is about")):
            storable(text, what)
        for id in (self.id, self.replaces, self.replaced_by):
            storable(id, "an id")
        if not self.text.strip():
            raise UsageError("there is nothing to memorize in an empty text")
        if not self.id or self.id in (self.replaces, self.replaced_by):
            raise UsageError(f"an entry cannot have the id {self.id!r}, and replace {self.replaces!r}")
        vector = self.vector if self.current else None
        return replace(self, metadata=json_values(self.metadata), time=number_of(self.time), vector=vector)

    def checked(self, known: Memo | None = None) -> Memo:
        """The same for a new entry, of which what `known` has, too, is not new. Raises UsageError also for what is too
        large."""
        memo = self.kept()
        for name, limit in LIMITS.items():
            if known is None or getattr(memo, name) != getattr(known, name):
                limit(getattr(memo, name))
        return memo

    @property
    def key(self) -> str:
        """The same for two spellings of the very same text."""
        return folded_key(self.text)

    @property
    def matter(self) -> str:
        """The same for two spellings of what it is about; "" for nothing."""
        return folded_key(self.about)

    @property
    def current(self) -> bool:
        return not self.replaced_by

    def says(self, other: Memo) -> bool:
        """Whether it tells nothing that another entry does not."""
        mine, others = (self.key, self.context, self.matter), (other.key, other.context, other.matter)
        return mine == others and alike(self.metadata, other.metadata)

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
        if wrong or "text" not in known:
            raise UsageError(f"no entry: {', '.join(wrong) or 'text'} is missing or of another type")
        # without an id of its own it has the same one whenever it is read
        own = {"id": hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:32]}
        return cls(**(own | known)).kept()


#: of what is new in an entry; each raises UsageError
LIMITS: Mapping[str, Callable[[Any], object]] = {
    "text": partial(not_too_large, what="the text"),
    "context": partial(not_too_large, what="the context"),
    "about": partial(named, what="what it is about"),
    "id": partial(named, what="an id"),
    "replaces": partial(named, what="an id"),
    "replaced_by": partial(named, what="an id"),
    "metadata": small_values,
    "time": time_of,
}


@dataclass(frozen=True)
class Filters:
    """Which entries: of a time (seconds since 1970; `until` itself is not in it), and with these values in their
    metadata."""

    since: float | None = None
    until: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises UsageError for what no store can look for."""
        for bound in (self.since, self.until):
            time_of(0 if bound is None else bound)
        object.__setattr__(self, "metadata", small_values(self.metadata))

    def __bool__(self) -> bool:
        return self.since is not None or self.until is not None or bool(self.metadata)

    def take(self, memo: Memo) -> bool:
        after = self.since is None or memo.time >= self.since
        before = self.until is None or memo.time < self.until
        return after and before and all(has(memo.metadata, k, v) for k, v in self.metadata.items())

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


class TextStore(ABC):
    """What all stores do alike is here, in terms of what each does in its own way: the methods with an underscore.

    All of it raises StoreError where the store itself fails (what was not acknowledged may then be missing), and
    UsageError, with nothing changed, for what no store can hold.
    """

    @property
    def lessons(self) -> Lessons | None:
        """Where servers that share this store keep what their users' minds know; None: in files."""
        return None

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """What was written once of the whole: the encoder that its vectors are of, by what it is, its name where that
        says something else, and its width."""

    @abstractmethod
    def describe(self, values: Mapping[str, Any]) -> None:
        """Write it, unless it is there. Raises StoreError if something else is."""

    # changes -----------------------------------------------------------------------------------------------------
    def add(self, space: str, memos: Iterable[Memo]) -> list[str]:
        """-> the id of each: of the entry that is there, where the same text is and nothing more is said of it. One
        with more supersedes it and has all that was said of it before; so does one about the same matter, with what is
        said of itself alone; where it is older than what is there of the matter, it becomes its history. On the disk
        when it returns."""
        memos, ids, new = [memo.checked() for memo in memos], list[str](), list[Memo]()
        keys = [memo.key for memo in memos]
        with self.changing(user_name(space)):
            known = self._same(space, keys)
            for memo in memos:
                old = known.get(memo.key)
                if old is not None:
                    memo = _filled(memo, old)
                if old is not None and memo.says(old):
                    memo = old
                elif old is None and not memo.matter:
                    new.append(memo)
                    known[memo.key] = memo
                else:  # it may take the place of what was just to be added
                    self._insert(space, new)
                    new.clear()
                    self._put(space, memo)
                    known = self._same(space, keys)
                ids.append(memo.id)
            self._insert(space, new)
        return ids

    def supersede(self, space: str, id: str, memo: Memo) -> str:
        """Put an entry in another's place -> its id. Whatever its time says, it is later than what it corrects: stores
        tell by that which of two stands. Raises UsageError if that is not there, or not current."""
        with self.changing(user_name(space)):
            found = self.get(space, [id])
            if not found or not found[0].current:
                raise UsageError(f"there is no current entry {id!r}")
            memo = memo.checked(found[0])
            spelled = (memo.text, memo.about) == (found[0].text, found[0].about)
            same = spelled and memo.says(found[0])  # a correction may be one of case alone
            return id if same else self._put(space, memo, found[0])

    def _put(self, space: str, memo: Memo, old: Memo | None = None) -> str:
        """One entry in the place of another, of that with the same text and of that of its matter."""
        same = self._same(space, [memo.key]).get(memo.key)
        if same is not None and old is not None and same.id != old.id:  # a correction that makes one of both
            memo = _filled(memo, same)
        olds = [one for one in (old, same) if one is not None]
        matter = self._of_matter(space, memo.matter) if memo.matter else []
        later = [one for one in matter if _is_before(memo, one)] if old is None else []
        olds += [one for one in matter if one not in later]
        for one in {one.id: one for one in olds}.values():
            self._retire(space, one, memo.id)
        if any(one.time > memo.time or (old is not None and _age(one) > _age(memo)) for one in olds):
            memo = replace(memo, time=min(math.nextafter(max(one.time for one in olds), math.inf), LATEST))
        by = later[0].id if later else ""
        memo = replace(memo, replaces=olds[0].id if olds else "", replaced_by=by, vector=None if by else memo.vector)
        self._insert(space, [memo])
        return memo.id

    def restore(self, space: str, memos: Iterable[Memo]) -> dict[str, str]:
        """Put entries back as another store had them, superseded ones among them. Those that are there stay, but where
        they were superseded in the other; of two lines of corrections of one fact, and of two current entries of one
        text or matter, the one with the later end stands. Versions of a fact that are given together come together.

        -> the ids of those that this store cannot hold, or not their correction, and why. All others are there.
        """
        user_name(space)
        good, left = list[Memo](), dict[str, str]()
        for memo in memos:
            try:
                good.append(memo.kept())
            except UsageError as error:
                left[memo.id] = str(error)
        return left | self._restored(space, facts_of(good))

    def _restored(self, space: str, facts: Sequence[Mapping[str, Memo]]) -> dict[str, str]:
        """What this store cannot hold, though another did, is found by halves; then the rest of its fact is tried."""
        left = dict[str, str]()
        while True:
            try:
                with self.changing(space):
                    there = {memo.id: memo for memo in self.get(space, [id for fact in facts for id in fact])}
                    return left | {id: GONE for fact in facts for id in self._put_back(space, fact, there)}
            except _CannotHoldError as error:
                if len(facts) > 1:
                    half = len(facts) // 2
                    return self._restored(space, facts[:half]) | self._restored(space, facts[half:])
                left[error.id] = str(error)
                facts = [{id: memo for id, memo in fact.items() if id != error.id} for fact in facts]

    def _put_back(self, space: str, fact: Mapping[str, Memo], there: dict[str, Memo]) -> Iterable[str]:
        """The versions of one fact, of which one is current afterwards -> those that have none to lead to. Whatever is
        retired makes room for an end that comes with it or is there, so that nothing leads nowhere or in a circle."""
        new = {id: memo for id, memo in fact.items() if id not in there}
        known = self._versions(space, fact, there)
        heads = [memo for memo in known.values() if memo.current]
        corrected = {memo.id for memo in fact.values() if not memo.current} | {one.replaces for one in fact.values()}
        ends = [memo for memo in (*new.values(), *heads) if memo.id not in corrected] or heads
        if not ends:
            return new
        last = max(ends, key=_age)
        rivals = [one for one in self._rivals(space, last) if one.id not in known] if last.id in new else []
        later = max(rivals, key=_age, default=last)
        by = later.id if _age(later) > _age(last) else ""
        for one in heads if by else (*heads, *rivals):
            if one.id != last.id:
                self._retire(space, one, last.id)
                there[one.id] = replace(one, replaced_by=last.id, vector=None)
        for memo in new.values():
            leads = memo.replaced_by in new or memo.replaced_by in known
            own = by if memo is last else memo.replaced_by if leads else last.id
            self._insert_back(space, replace(memo, replaced_by=own, vector=None if own else memo.vector))
        return ()

    def _versions(self, space: str, fact: Mapping[str, Memo], there: Mapping[str, Memo]) -> dict[str, Memo]:
        """What is there of a fact of which some versions are given, by id; of most it is one, or none."""
        found = dict[str, Memo]()
        named = {id for memo in fact.values() for id in (memo.id, memo.replaces, memo.replaced_by) if id}
        for id in sorted(named - (fact.keys() - there.keys())):
            if id in there and there[id].current:
                found[id] = there[id]
            elif id not in found:
                found |= {memo.id: memo for memo in self.history(space, id)}
        return found

    def _rivals(self, space: str, memo: Memo) -> list[Memo]:
        """The current entries with its text, or about its matter."""
        found = self._of_matter(space, memo.matter) if memo.matter else []
        return list({one.id: one for one in (*self._same(space, [memo.key]).values(), *found)}.values())

    def _insert_back(self, space: str, memo: Memo) -> None:
        try:
            self._insert(space, [memo])
        except UsageError as error:
            raise _CannotHoldError(memo.id, str(error)) from error

    def forget(self, space: str, ids: Sequence[str]) -> int:
        """Remove facts with all their history -> how many entries went. No table, index or file of the store holds a
        byte of them then, or after the transaction that it is in. Raises StillThereError where one still does: the
        next call takes it out, of whatever entry, or `clean_up`."""
        with self.changing(user_name(space)):
            gone = {memo.id: memo for id in ids for memo in self.history(space, id)}
            self._delete(space, list(gone.values()))
        return len(gone)

    def clean_up(self) -> None:
        """Take out the bytes that forgetting had to leave, if that can be done at once."""
        return

    @abstractmethod
    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """What is changed inside is changed together or, after an error, not at all."""

    def changing(self, space: str) -> contextlib.AbstractContextManager[Any]:
        """The same for one writer of the namespace at a time."""
        return self.transaction()

    @abstractmethod
    def _same(self, space: str, keys: Sequence[str]) -> dict[str, Memo]:
        """The current entries with these keys, by key."""

    @abstractmethod
    def _of_matter(self, space: str, matter: str) -> list[Memo]:
        """The current entries about it, however it is spelled."""

    @abstractmethod
    def _insert(self, space: str, memos: Sequence[Memo]) -> None:
        """Raises StoreError where there is one with the same id."""

    @abstractmethod
    def _retire(self, space: str, old: Memo, by: str) -> None:
        """A current entry becomes history: nobody finds it any more."""

    @abstractmethod
    def _delete(self, space: str, memos: Sequence[Memo]) -> None:
        """Leave no byte of them, nor of what was deleted before."""

    # reading -----------------------------------------------------------------------------------------------------
    def get(self, space: str, ids: Sequence[str]) -> list[Memo]:
        """Those of the ids that are in the namespace, in that order, with their vectors."""
        found = {memo.id: memo for memo in self._get(user_name(space), [storable(id, "an id") for id in ids])}
        return [found[id] for id in ids if id in found]

    def history(self, space: str, id: str) -> list[Memo]:
        """All that was ever said of the fact, the oldest first."""
        return self._history(user_name(space), storable(id, "an id"))

    def search(self, space: str, vector: np.ndarray, text: str, k: int = 5, filters: Filters = ALL) -> list[Recalled]:
        """The k best current entries by meaning, `vector` [D], and by the words of `text`, of which the first 2,000
        characters are read; best first."""
        return self._search(user_name(space), vector, storable(text, "the query")[:ASKED], k, filters)

    @abstractmethod
    def _get(self, space: str, ids: Sequence[str]) -> list[Memo]:
        """In any order."""

    @abstractmethod
    def _history(self, space: str, id: str) -> list[Memo]: ...

    @abstractmethod
    def _search(self, space: str, vector: np.ndarray, text: str, k: int, filters: Filters) -> list[Recalled]: ...

    @abstractmethod
    def scan(self, space: str, filters: Filters = ALL, history: bool = False) -> Iterator[Memo]:
        """The entries in the order in which they came; with `history`, superseded ones among them."""

    @abstractmethod
    def count(self, space: str) -> int:
        """How many current entries there are."""

    @abstractmethod
    def has_any(self, space: str) -> bool:
        """Whether there is a current entry; as quick in a namespace of many."""

    @abstractmethod
    def namespaces(self) -> list[str]: ...

    @abstractmethod
    def close(self) -> None: ...


def folded_key(text: str) -> str:
    """The same for two spellings of a text, and short enough for any index; "" for none."""
    folded = fold(text)
    return hashlib.sha256(folded.encode()).hexdigest()[:32] if folded else ""


class _CannotHoldError(UsageError):
    """An entry that another store had."""

    def __init__(self, id: str, why: str) -> None:
        super().__init__(why)
        self.id = id


def _age(memo: Memo) -> tuple[float, str]:
    """By which any store finds the same one of two the later."""
    return memo.time, memo.id


def _is_before(memo: Memo, other: Memo) -> bool:
    """Whether it was said before another. What is said now is not before anything, though a clock that was wrong, or an
    import, has dated the other one in the future."""
    now = time.time()
    return memo.time < other.time and not now - PRESENT_S < memo.time <= now < other.time


def _of_one_matter(new: Memo, old: Memo) -> None:
    """Raises UsageError where the same text is said of another matter: it is one fact, and the first is not to be
    lost."""
    if new.matter and old.matter and new.matter != old.matter:
        raise UsageError(
            f"the very same text is known about {old.about!r}; say in the text that it is about {new.about!r}"
        )


def _filled(new: Memo, old: Memo) -> Memo:
    """What was not said later of the same text is as it was, each piece of its metadata, too; another context stands
    beside the one there is. Raises UsageError where that becomes too large."""
    _of_one_matter(new, old)
    both = old.context and new.context and new.context not in old.context.split("\n")
    context = f"{old.context}\n{new.context}" if both else old.context or new.context
    first, last = (new, old) if _is_before(new, old) else (old, new)
    about, metadata = last.about or first.about, {**first.metadata, **last.metadata}
    return replace(last, id=new.id, context=context, about=about, metadata=metadata).checked(old)


def agreed(there: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """What is to be written of the whole so that it says `values`, too. Raises StoreError where a store says something
    else already.

    An encoder is known by what it is, and has its `name` beside that where this says something else. Earlier versions
    wrote its name alone: who comes by that name is taken for it, and from then on it is known by what it is.
    """
    if not there:
        return dict(values)
    rest = [{name: value for name, value in one.items() if name not in ("encoder", "name")} for one in (there, values)]
    old = "name" not in there and "name" in values and there.get("encoder") == values["name"]
    older = "name" in there and "name" not in values and there["name"] == values.get("encoder")
    if rest[0] != rest[1] or not (old or older or there.get("encoder") == values.get("encoder")):
        raise StoreError(
            "the vectors of this store are another encoder's; name its encoder, or export and import into a new store",
            f"it is of {dict(there)}, not of {dict(values)}",
        )
    return dict(values) if old else {}


def batches(memos: Iterable[Memo], size: int) -> Iterator[list[Memo]]:
    """One after another, as they come."""
    rest = iter(memos)
    while batch := list(islice(rest, size)):
        yield batch


def entries(store: TextStore, space: str) -> int:
    """How many there are, superseded ones among them."""
    return sum(1 for _ in store.scan(space, history=True))


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
