"""What was known before and could be again: a step costs what changed in it, not what is known."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lmm.lesson import Knowledge


class Steps:
    """A stack of what was known. The newest is there whole, each older one as where it differs from the one after it:
    10,000 lessons that are known are so many names, and with a dictionary for each of 1,000 steps they took 300 MB."""

    def __init__(self, steps: Iterable[Knowledge] = ()) -> None:
        self._newest: Knowledge | None = None
        self._older: list[_Before] = []
        for known in steps:
            self.append(known)

    def __len__(self) -> int:
        return len(self._older) + (self._newest is not None)

    def __reversed__(self) -> Iterator[Knowledge]:
        """The newest first."""
        known = self._newest
        if known is not None:
            yield known
            for before in reversed(self._older):
                known = before.of(known)
                yield known

    def __iter__(self) -> Iterator[Knowledge]:
        return reversed(list(reversed(self)))

    @property
    def newest(self) -> Knowledge:
        """Raises IndexError where there is none."""
        if self._newest is None:
            raise IndexError("there is no step")
        return self._newest

    def append(self, known: Knowledge) -> None:
        if self._newest is not None:
            self._older.append(_Before.to(self._newest, known))
        self._newest = known

    def pop(self) -> Knowledge:
        """Take the newest off. Raises IndexError where there is none."""
        known = self.newest
        self._newest = self._older.pop().of(known) if self._older else None
        return known

    def drop_oldest(self) -> None:
        del self._older[0]

    def clear(self) -> None:
        self._newest, self._older = None, []


@dataclass
class History:
    """`saved` is what the file has."""

    undo: Steps = field(default_factory=Steps)
    redo: Steps = field(default_factory=Steps)
    saved: Knowledge | None = None


class _Piece(NamedTuple):
    """Where a sequence differs from a later one: so many items are the same at its `start`, so many at its `end`."""

    start: int
    middle: list[Any]
    end: int

    @classmethod
    def between(cls, before: Sequence[Any], after: Sequence[Any], same: Callable[[Any, Any], bool]) -> _Piece:
        most = min(len(before), len(after))
        start = next((i for i in range(most) if not same(before[i], after[i])), most)
        end = next((i for i in range(most - start) if not same(before[-1 - i], after[-1 - i])), most - start)
        return cls(start, list(before[start : len(before) - end]), end)

    def of(self, after: Sequence[Any]) -> list[Any]:
        return [*after[: self.start], *self.middle, *after[len(after) - self.end :]]


class _Before(NamedTuple):
    """What was known before a step; `itself` as long as someone has it, for who asks whether it is the same."""

    itself: weakref.ref[Knowledge]
    state: _Piece  # of (name, array)
    lessons: _Piece

    @classmethod
    def to(cls, before: Knowledge, after: Knowledge) -> _Before:
        return cls(
            weakref.ref(before),
            _Piece.between(list(before.state.items()), list(after.state.items()), _same_array),
            _Piece.between(before.lessons, after.lessons, lambda a, b: a is b),
        )

    def of(self, after: Knowledge) -> Knowledge:
        known = self.itself()
        if known is None:
            known = Knowledge(dict(self.state.of(list(after.state.items()))), tuple(self.lessons.of(after.lessons)))
        return known


def _same_array(a: tuple[str, Any], b: tuple[str, Any]) -> bool:
    return a[0] == b[0] and a[1] is b[1]
