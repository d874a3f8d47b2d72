"""Consolidation: lessons that a memory can hardly tell apart are merged and learned anew, and nothing is lost by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmm.engine.check import check
from lmm.lesson import Lesson
from lmm.memory.base import LearnReport

if TYPE_CHECKING:
    from lmm.engine.mind import Mind


@dataclass(frozen=True)
class Consolidated:
    """`groups`: how many sets of lessons were alike; `lost`: questions that were right and no longer are (put back)."""

    groups: int
    lessons_before: int
    lessons_after: int
    lost: tuple[str, ...] = ()


def consolidate(mind: Mind, on_step: Callable[[LearnReport], None] | None = None) -> Consolidated:
    """One step of the history: /undo takes it back. Raises LearningError where a memory keeps its lessons apart.

    Every lesson is asked for in the wordings it was taught in, before and after. If one is lost, all is put back.
    """
    start = mind.knowledge
    report = mind.stoppable(on_step, "consolidation was stopped; the memory is as before")
    with mind.adapter.quiet():
        new, groups = mind.memory.consolidate(start, mind.adapter, report)
    if not groups:
        return Consolidated(0, len(start.lessons), len(start.lessons))
    known, redo = _right(mind), mind.history.redo
    mind.commit(new)
    lost = tuple(sorted(known - _right(mind)))
    if lost:
        mind.undo()
        mind.history.redo = redo
        return Consolidated(groups, len(start.lessons), len(start.lessons), lost)
    return Consolidated(groups, len(start.lessons), len(new.lessons))


def _right(mind: Mind) -> set[str]:
    """Questions in wordings that were taught and are answered with what was."""

    def taught(lesson: Lesson) -> list[tuple[str, str]]:
        return [(text, lesson.answer) for text in (lesson.prompt, *lesson.wordings) if text]

    checked = check(mind, mind.lessons, taught)
    return {a.question for found in checked for a in found.asked if a.ok}
