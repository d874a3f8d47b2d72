"""Which entries are versions of one fact: those that corrections link, in whatever order they come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmm.store.base import Memo


class Facts:
    """What of one namespace belongs together, by ids alone (union-find: Tarjan 1975, Journal of the ACM 22)."""

    def __init__(self, memos: Iterable[Memo]) -> None:
        self.entries = 0
        self._up: dict[str, str] = {}  # an id -> another of the same fact; the last has none
        for memo in memos:
            self.entries += 1
            self.link(memo)
        self._sizes = Counter(map(self.of, {*self._up, *self._up.values()}))

    def link(self, memo: Memo) -> None:
        for other in filter(None, (memo.replaces, memo.replaced_by)):
            one, last = self.of(memo.id), self.of(other)
            if one != last:
                self._up[one] = last

    def of(self, id: str) -> str:
        """The same for all versions of a fact."""
        while (up := self._up.get(id)) is not None:
            self._up[id] = id = self._up.get(up, up)  # the next way is half as long
        return id

    def is_whole(self, versions: dict[str, Memo], fact: str) -> bool:
        return len(versions) >= self._sizes[fact] and any(memo.current for memo in versions.values())

    def batches(self, memos: Iterable[Memo], size: int) -> Iterator[list[Memo]]:
        """About so many entries each, and no fact is in two of them: its versions wait until all have come. What was
        corrected since these facts were looked at waits for its correction; what has none comes last."""
        batch: list[Memo] = []
        waiting: dict[str, dict[str, Memo]] = {}
        for memo in memos:
            self.link(memo)
            fact = self.of(memo.id)
            versions = waiting.setdefault(fact, {})
            add(versions, memo)
            if self.is_whole(versions, fact):
                batch += waiting.pop(fact).values()
            if len(batch) >= size:
                yield batch
                batch = []
        batch += (memo for versions in waiting.values() for memo in versions.values())
        if batch:
            yield batch


def add(versions: dict[str, Memo], memo: Memo) -> None:
    """One id is one entry: where it comes twice, it may have been corrected since."""
    if memo.id not in versions or not memo.current:
        versions[memo.id] = memo


def facts_of(memos: Iterable[Memo]) -> list[dict[str, Memo]]:
    """The entries of each fact, by id, in the order in which the current ones came."""
    memos = list(memos)
    known, last = Facts(memos), dict[str, int]()
    found: dict[str, dict[str, Memo]] = {}
    for number, memo in enumerate(memos):
        fact = known.of(memo.id)
        add(found.setdefault(fact, {}), memo)
        if memo.current or fact not in last:
            last[fact] = number
    return [found[fact] for fact in sorted(found, key=last.__getitem__)]
