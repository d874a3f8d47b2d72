"""From a state and its lessons to the table in which prompts are looked up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic

from lmm.memory.keyed.gate import Table

if TYPE_CHECKING:
    import numpy as np

    from lmm.adapters.ops import Ops
    from lmm.lesson import Lesson, State


class Lookup(Generic[Table]):
    """Makes the table when the first question is asked of a state, and extends it where lessons were only added since.

    `entries` gives the texts of a lesson that are looked up, each with its fingerprint, from the lesson's own array,
    `<kind>/<lesson id>`.
    """

    def __init__(
        self,
        kind: str,
        entries: Callable[[Lesson, np.ndarray], list[tuple[str, np.ndarray]]],
        table: type[Table],
    ) -> None:
        self.kind, self._entries, self._table = kind, entries, table
        self._state: State = {}
        self._lessons: list[Lesson] = []
        self.index, self._owners = table([], []), list["Lesson"]()

    def of(self, state: State, lessons: Sequence[Lesson], ops: Ops) -> tuple[Table, list[Lesson]]:
        """The table, and the lesson that each position of it belongs to."""
        if self._state is not state:
            lessons = [lesson for lesson in lessons if self._name(lesson) in state]  # others are another part's
            names = [self._name(lesson) for lesson in self._lessons]
            same = all(state.get(name) is self._state[name] for name in names)
            if lessons[: len(names)] != self._lessons or not same:
                self._lessons, self.index, self._owners = [], self._table([], []), []
            new = lessons[len(self._lessons) :]
            rows = [(lesson, *e) for lesson in new for e in self._entries(lesson, self._array(state, lesson, ops))]
            texts, prints = [text for _, text, _ in rows], [fingerprint for *_, fingerprint in rows]
            self.index = self.index.extended(texts, prints) if self._lessons else self._table(texts, prints)
            self._owners = self._owners + [lesson for lesson, *_ in rows]
            self._state, self._lessons = state, list(lessons)
        return self.index, self._owners

    def _name(self, lesson: Lesson) -> str:
        return f"{self.kind}/{lesson.id}"

    def _array(self, state: State, lesson: Lesson, ops: Ops) -> np.ndarray:
        return ops.to_numpy(state[self._name(lesson)])
