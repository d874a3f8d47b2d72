"""Memories whose lessons have tensors of their own, named `<kind>/<lesson id>`: one can go without a trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lmm.errors import StateError
from lmm.lesson import Knowledge, Lesson, State
from lmm.memory.base import LearnReport, Memory, UserMessage
from lmm.text.sanitize import listed

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter


class Isolated(Memory):
    """A correction takes the place of what it corrects, and forgetting is taking away."""

    def learn(
        self, known: Knowledge, lesson: Lesson, adapter: Adapter, message: UserMessage | None, report: LearnReport
    ) -> Knowledge:
        """The new lesson takes the place of those it supersedes, and keeps the answer they had."""
        if not self.takes(lesson):
            self.needs_question_and_answer(lesson)
        state, old = known.state, known.superseded(lesson)
        for earlier in old:
            state = self.forget(state, earlier.id)
        return known.taught(self.with_lesson(state, lesson, adapter, report), lesson, old)

    def with_lesson(self, state: State, lesson: Lesson, adapter: Adapter, report: LearnReport) -> State:
        """The state with the tensors of one lesson more."""
        raise NotImplementedError

    def check_rows(self, arrays: dict[str, Any], lessons: Sequence[Lesson], widths: Mapping[str, int]) -> None:
        """`check_state` where a lesson's tensors are rows [n, width], of the `widths` of their kinds, n above 0.

        Raises StateError.
        """
        expected = {f"{kind}/{lesson.id}" for lesson in lessons for kind in widths}
        problems = [f"no tensor {name!r}" for name in sorted(expected - arrays.keys())]
        problems += [f"unexpected tensor {name!r}" for name in sorted(arrays.keys() - expected)]
        for name in sorted(expected & arrays.keys()):
            wanted = widths[name.partition("/")[0]]
            if arrays[name].ndim != 2 or arrays[name].shape[1] != wanted or not len(arrays[name]):
                problems.append(f"tensor {name!r} has shape {arrays[name].shape}, expected (n, {wanted})")
            elif arrays[name].dtype.kind != "f":
                problems.append(f"tensor {name!r} holds {arrays[name].dtype}, expected floating point")
        if problems:
            raise StateError(f"the file does not fit memory {self.name!r}: {listed(problems)}")

    def forget(self, state: State, lesson_id: str) -> State:
        return {name: array for name, array in state.items() if name.partition("/")[2] != lesson_id}
