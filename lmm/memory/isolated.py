"""Memories whose lessons have tensors of their own, named `<kind>/<lesson id>`: one can go without a trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmm.lesson import Knowledge, Lesson, State
from lmm.memory.base import LearnReport, Memory, UserMessage

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

    def forget(self, state: State, lesson_id: str) -> State:
        return {name: array for name, array in state.items() if name.partition("/")[2] != lesson_id}
