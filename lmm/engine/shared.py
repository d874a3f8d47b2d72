"""A database that has what a mind knows as soon as the mind knows it, for servers on many machines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from lmm.engine.keeper import Keeper, difference
from lmm.errors import StillThereError, StoreError
from lmm.files.journal import Change
from lmm.files.state_file import check_expected
from lmm.lesson import Knowledge, Lesson

if TYPE_CHECKING:
    from lmm.engine.mind import Mind
    from lmm.store.lessons import SharedMind

AGAIN = -1  # where everything is to be read once more


class SharedKeeper(Keeper):
    """Ties a mind to rows of a database instead of a file.

    Raises StoreError, and StateError for rows that do not fit; where something was forgotten, StillThereError.
    """

    def __init__(self, mind: Mind, rows: SharedMind) -> None:
        self.mind, self.rows, self._turns, self._seen = mind, rows, 0, 0
        self._changed = False  # in the transaction that goes on
        with self._alone(brief=True):
            if (header := rows.header()) is not None:
                check_expected(f"of {rows.user!r}", header, mind.expected())
            change, self._seen = rows.since(0)
            arrays, lessons = change.applied(self._arrays(mind.knowledge.state), mind.lessons)
            mind.memory.check_state(arrays, lessons, mind.adapter)
            mind.begin_from(Knowledge(mind.held(arrays), tuple(lessons)), list(rows.undos().values()))
        self.others = {lesson.id for lesson in mind.lessons}
        mind.keeper = self

    def catch_up(self) -> None:
        """What others have taught is there once they have been told so: nobody is waited for."""
        self._catch_up()

    def look(self) -> None:
        with contextlib.suppress(StoreError):
            self._catch_up()

    def keep(self, knowledge: Knowledge, back_to: Knowledge | None) -> None:
        before = self.mind.knowledge
        change = self._change(before, knowledge)
        if not change:
            return
        back = None if back_to is None else self._change(knowledge, back_to)
        self._changed = True
        if self.rows.header() is None:
            self.rows.begin(self.mind.header())
            self.rows.write(Change(self._arrays(before.state)), Change())
        self._seen = self.rows.write(change, back)

    def forget(self, lesson: Lesson) -> None:
        self._changed = True
        self.rows.purge(lesson)

    def settle(self, timeout: float = -1) -> None:
        """Nothing waits to be written."""

    def close(self) -> None: ...

    @contextlib.contextmanager
    def _alone(self, brief: bool = False) -> Iterator[None]:
        if self._turns:  # within the transaction that goes on
            yield
            return
        self._changed = False
        try:
            with self.rows.alone(self.mind.cancelled.is_set, brief):
                yield
        except StillThereError:  # and yet all of it is done
            raise
        except BaseException:
            if self._changed:  # what the mind has come to know the database does not have
                self._seen = AGAIN
            raise

    def _catch_up(self) -> None:
        change, number = self.rows.since(max(self._seen, 0))
        if self._seen == AGAIN:
            fresh = self._arrays(self.mind.memory.fresh(self.mind.adapter, self.mind.seed))
            arrays, lessons = change.applied(fresh, ())
            mine = Knowledge(self._arrays(self.mind.knowledge.state), self.mind.lessons)
            change = difference(mine, Knowledge(arrays, tuple(lessons)), np.array_equal)
        if change:
            self._adopt(change)
        self._seen = number
