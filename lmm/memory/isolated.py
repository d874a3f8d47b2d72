"""Memories whose lessons have tensors of their own, named `<kind>/<lesson id>`: one can go without a trace."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lmm.lesson import Lesson, State
from lmm.memory.base import LearnReport, Memory, UserMessage
from lmm.text.fold import fold

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter


class Isolated(Memory):
    """A correction takes the place of what it corrects, and forgetting is taking away."""

    def learn_lesson(
        self,
        state: State,
        lessons: tuple[Lesson, ...],
        lesson: Lesson,
        adapter: Adapter,
        turn: UserMessage | None,
        report: LearnReport,
    ) -> tuple[State, tuple[Lesson, ...]]:
        """The new lesson takes the place of earlier ones with the very same question, and keeps the answer they had."""
        new = self.learn(state, lesson, adapter, turn, report)
        old = [x for x in lessons if fold(x.prompt) == fold(lesson.prompt)]
        for earlier in old:
            new = self.forget(new, earlier.id)
        if old:
            lesson = replace(lesson, replaces=old[-1].answer)
        return new, (*(x for x in lessons if x not in old), lesson)

    def forget(self, state: State, lesson_id: str) -> State:
        return {name: array for name, array in state.items() if name.partition("/")[2] != lesson_id}
