"""A memory file that has what a mind knows as soon as the mind knows it, also with several minds at once."""

from __future__ import annotations

import contextlib
import itertools
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmm.errors import Cancelled, LearningError, NotKeptError, StateError
from lmm.files import atomic, journal, state_file
from lmm.files.journal import Change
from lmm.lesson import Knowledge
from lmm.memory.base import on_host

if TYPE_CHECKING:
    from lmm.engine.mind import Mind
    from lmm.lesson import Lesson

MOST = 16_000_000  # bytes of a journal from which it is put into the file
LOOK_S = 0.3  # that one who only asks waits for one who writes
WAIT_S = 0.2  # between looks whether the user wants to stop
TELL_S = 2.0  # after which it is said that another is waited for


class Keeper:
    """Ties a mind to a file: what the file has is what the mind knows, from now on both ways.

    What was learned before can be undone as if it had been learned now. Raises StateError for a file that does not fit,
    and NotKeptError where nothing can be kept; then nothing has changed.
    """

    def __init__(
        self, mind: Mind, file: Path, named: bool = False, notice: Callable[[str], object] = lambda text: None
    ) -> None:
        """`named`: the user named the file, and may leave without having it changed. `notice` is told where the file is
        waited for, and where it is about to become another memory's."""
        self._notice = notice
        self.mind, self.file, self.named, self._turns, self._end = mind, file, named, 0, 0
        with self._alone(), self._readable():
            atomic.remove_stale(file)
            journal.settle(file)
            self._new = not file.exists()
            whose = mind.memory.name if self._new else state_file.read_header(file).module
            self._own = whose == mind.memory.name
            if not self._new:  # what a part of the memory has changed in a file of its own is not undone with it
                mind.begin_with(file, journal.undos(file) if self._own else ())
            if not self._own:
                notice(f"{file} is a file of {whose}; what is learned now makes it one of {mind.memory.name}, which "
                       f"{whose} alone cannot read")  # fmt: skip
            self._stamp, self._begun = journal.stamp(file), len(mind.history.undo)
        self.others = {lesson.id for lesson in mind.lessons}  # known before, or taught by other minds
        mind.keeper = self

    @property
    def taught(self) -> list[Lesson]:
        """What was learned since, here, and is known."""
        return [lesson for lesson in self.mind.lessons if lesson.id not in self.others]

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Alone with the file, and up to date with what others have taught. Raises Cancelled while it waits."""
        with self._alone():
            self._turns += 1
            try:
                if self._turns == 1:
                    with self._readable():
                        self._catch_up()
                yield
            finally:
                self._turns -= 1

    def catch_up(self) -> None:
        """Take over what others have taught until now. Raises Cancelled while it waits for one who is at it."""
        with self.turn():
            pass

    def look(self) -> None:
        """Take over what others have taught or taken back since, if they have and the file is soon free: who only asks
        wants to know it, too, and need not wait long."""
        if self._is_as_it_was():
            return
        with contextlib.suppress(TimeoutError, OSError, StateError, LearningError), journal.locked(self.file, LOOK_S):
            self._catch_up()

    def _is_as_it_was(self) -> bool:
        with contextlib.suppress(OSError):
            now = journal.stamp(self.file)
            waiting = 0 if now.journal is None else journal.path_of(self.file).stat().st_size
            return now == self._stamp and (now.journal is None or waiting == self._end)
        return True

    def keep(self, knowledge: Knowledge, back_to: Knowledge | None) -> None:
        """Write how `knowledge` differs from what the mind knows, and where undo leads from there: to itself where that
        is no step, and None where it takes an earlier change back. Raises LearningError; then the file is as before."""
        before = self.mind.knowledge
        change = self._change(before, knowledge)
        back = None if back_to is None else self._change(knowledge, back_to)
        if not change:
            return
        try:
            if not self._own or not self.file.exists():
                journal.replace(self.file, self._arrays(before.state), self.mind.header(), advice="")
                self._own = True
            journal.append(self.file, change, back)
            self._end = journal.path_of(self.file).stat().st_size
        except (OSError, StateError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise NotKeptError(f"nothing was learned: it cannot be kept in {self.file}: {reason}") from error
        self._stamp = journal.stamp(self.file)
        if self._end > MOST:
            with contextlib.suppress(StateError, OSError):  # it is in the journal, and may stay there
                self.settle()

    def forget(self, lesson: Lesson) -> None:
        """Leave no trace of a lesson that is known no longer. Raises StateError, or NotKeptError."""
        self.settle()  # or it would still be in the journal
        try:
            journal.purge(self.file, lesson)
        except OSError as error:
            raise NotKeptError(f"still on disk: {journal.undo_of(self.file)}: {error.strerror or error}") from error

    def settle(self, timeout: float = -1) -> None:
        """Put everything into the file itself. Raises StateError."""
        with contextlib.suppress(TimeoutError), journal.locked(self.file, timeout):
            self._catch_up()
            journal.settle(self.file)
            self._end, self._stamp = 0, journal.stamp(self.file)

    def close(self) -> None:
        """Put everything into the file, and beside it what would take long to make again. Raises StateError."""
        self.settle(timeout=1.0)
        self.mind.save_beside(self.file)

    def discard(self) -> None:
        """Take back what was learned since, as far as it can be undone. Raises StateError, LearningError."""
        with self.turn():
            self.mind.undo(len(self.mind.history.undo) - self._begun)
            self.settle()
            if self._new and not self.mind.lessons:
                with contextlib.suppress(OSError):  # then it stays, and has nothing in it
                    self.file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for tries in itertools.count(1):
                try:
                    stack.enter_context(journal.locked(self.file, WAIT_S))
                    break
                except TimeoutError:
                    if self.mind.cancelled.is_set():
                        raise Cancelled("stopped waiting for another lmm that is learning; nothing was done") from None
                    if tries * WAIT_S == TELL_S:
                        self._notice(f"waiting for another lmm that holds {self.file}; Ctrl-C stops")
                except OSError as error:
                    raise self._error(error) from error
            yield

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._error(error) from error

    def _error(self, error: OSError) -> NotKeptError:
        return NotKeptError(f"{self.file} cannot be kept: {error.strerror or error}")

    def _catch_up(self) -> None:
        """Take over what others have added or taken out since."""
        now, before = journal.stamp(self.file), self._stamp
        if now.file == before.file and before.journal in (now.journal, None):
            changes, self._end = journal.read(self.file, self._end if before.journal else 0)
            if changes:
                self._adopt(journal.joined(changes))
        elif self.file.exists():
            arrays, header = journal.load(self.file, self.mind.expected())
            self.mind.memory.check_state(arrays, header.lessons, self.mind.adapter)
            mine = Knowledge(self._arrays(self.mind.knowledge.state), self.mind.lessons)
            # by value: a file that was written anew has the same tensors as other arrays
            self._adopt(difference(mine, Knowledge(arrays, tuple(header.lessons)), np.array_equal))
            self._end = journal.read(self.file)[1]
        self._stamp = journal.stamp(self.file)

    def _adopt(self, change: Change) -> None:
        self.others |= {lesson.id for lesson in change.lessons}
        self.mind.adopt(change)

    def _change(self, before: Knowledge, after: Knowledge) -> Change:
        """By identity: what a lesson leaves alone are the same arrays."""
        change = difference(before, after, operator.is_)
        return replace(change, tensors=self._arrays(change.tensors))

    def _arrays(self, state: Mapping[str, Any]) -> dict[str, np.ndarray]:
        return {name: on_host(self.mind.adapter.ops, array) for name, array in state.items()}


def difference(before: Knowledge, after: Knowledge, same: Callable[[Any, Any], bool]) -> Change:
    """From one to the other; `same` compares two arrays of one name."""
    known = {lesson.id: lesson for lesson in before.lessons}
    return Change(
        {name: a for name, a in after.state.items() if name not in before.state or not same(before.state[name], a)},
        tuple(before.state.keys() - after.state.keys()),
        tuple(x for x in after.lessons if (old := known.get(x.id)) is not x and old != x),
        tuple(known.keys() - {lesson.id for lesson in after.lessons}),
    )
