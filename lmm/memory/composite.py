"""`a+b`: several memories at once, `--memory keyed+lora_on_user`.

The parts keep their own states, side by side under their names ("keyed:values/..."); each rewrites at its own sites, in
the order given; a lesson goes to every part that can take it, and what it replaces leaves them all. A part is told
which questions an earlier one has the answer to: `keyed+notes` recites, and where it does not, it reminds. One that
`yields` is asked after all others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

from lmm import registry
from lmm.errors import LearningError, StateError, UsageError
from lmm.lesson import Knowledge, Lesson, State
from lmm.memory.base import LearnReport, Memory, Picture, Prompt, Recall, UserMessage
from lmm.text.sanitize import listed

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter, Site, TapContext
    from lmm.adapters.ops import Array, Ops


class Composite(Memory):
    summary = "several memories at once"

    def __init__(self, parts: Sequence[Memory]) -> None:
        names = [part.name for part in parts]
        if len(set(names)) < len(names):
            raise UsageError(f"a memory can be in {'+'.join(names)} only once")
        super().__init__()
        self.parts = tuple(parts)
        self.name = "+".join(names)  # type: ignore[misc]
        kinds = {part.learns_from for part in parts} - {"nothing"}
        self.learns_from = "+".join(sorted(kinds)) or "nothing"  # type: ignore[misc]
        self.rewrites_history = any(part.rewrites_history for part in parts)  # type: ignore[misc]
        self._sites: dict[Memory, tuple[Site, ...]] = {}
        self._split: tuple[State, dict[Memory, State]] = ({}, {})

    @classmethod
    def named(cls, name: str, options: Mapping[str, Any] | None = None, preset: str | None = None) -> Composite:
        """`a+b` with options `a.key=value`, and the preset in the parts that have it. Raises UsageError for unknown
        names, and for options and presets of no part."""
        parts, left = [], dict(options or {})
        for part in name.split("+"):
            kind = registry.memory_class(part.strip())
            mine = {k.partition(".")[2]: left.pop(k) for k in list(left) if k.partition(".")[0] == kind.name}
            parts.append(kind(kind.build_options(kind.presets.get(preset or "", {}) | mine)))
        if preset is not None and not any(preset in part.presets for part in parts):
            raise UsageError(f"no part of {name} has a preset {preset!r}")
        if left:
            raise UsageError(
                f"options of {name} are named after their part, e.g. {parts[0].name}.{next(iter(left))}=..."
            )
        return cls(parts)

    def options_dict(self) -> dict[str, Any]:
        return {f"{p.name}.{key}": value for p in self.parts for key, value in p.options_dict().items()}

    def reading_options(self) -> dict[str, Any]:
        return {f"{p.name}.{key}": value for p in self.parts for key, value in p.reading_options().items()}

    def sites(self, adapter: Adapter) -> tuple[Site, ...]:
        self._sites = {part: part.sites(adapter) for part in self.parts}
        return tuple(dict.fromkeys(site for sites in self._sites.values() for site in sites))

    def fresh(self, adapter: Adapter, seed: int = 0) -> State:
        return self._joined({part: part.fresh(adapter, seed) for part in self.parts})

    def join(self, states: Mapping[str, State], otherwise: State) -> State:
        """The state with the parts' own `states`, by name; a part without one keeps what `otherwise` has of it."""
        return self._joined({part: states.get(part.name, self._of(part, otherwise)) for part in self.parts})

    def reader_of(self, name: str, lessons: bool = True) -> Memory | None:
        rest = [part for part in self.parts if part.name != name]
        if len(rest) == len(self.parts) - 1 and (not lessons or all(part.instant for part in rest)):
            return next(part for part in self.parts if part.name == name)
        return super().reader_of(name, lessons)

    def completed(self, reader: Memory, known: Knowledge, adapter: Adapter) -> Knowledge:
        """The other parts learn what the file has in text."""
        if reader is self:
            return known
        states = {part: part.fresh(adapter) for part in self.parts} | {reader: known.state}
        for part, lesson in product((p for p in self.parts if p is not reader), known.lessons):
            if part.takes(lesson):
                states[part] = part.learn(Knowledge(states[part]), lesson, adapter, None, LearnReport()).state
        return Knowledge(self._joined(states), known.lessons)

    def on_prompt(
        self, state: State, lessons: Sequence[Lesson], prompts: Sequence[Prompt], adapter: Adapter
    ) -> Recall | None:
        found: dict[Memory, Recall | None] = {}
        for part in sorted(self.parts, key=lambda part: part.yields):
            recall = found[part] = part.on_prompt(self._of(part, state), lessons, prompts, adapter)
            if recall is not None:
                prompts = [replace(p, recited=p.recited or bool(f)) for p, f in zip(prompts, recall.fired, strict=True)]
        recalls = [recall for recall in found.values() if recall is not None]
        if not recalls:
            return None
        rows = range(len(prompts))
        fired = [[hit for recall in recalls for hit in recall.fired[b]] for b in rows]
        texts = [[r.text[b] for r in recalls if r.text and r.text[b]] for b in rows]
        notes = [[note for r in recalls if r.notes for note in r.notes[b]] for b in rows]
        return Recall(fired, {"parts": found}, ["\n\n".join(t) for t in texts] if any(texts) else [], notes)

    def row(self, recall: Recall, b: int) -> Recall | None:
        found = {p: r and p.row(r, b) for p, r in recall.arrays["parts"].items()}
        if not any(found.values()):
            return None
        return Recall([recall.fired[b]], {"parts": found}, recall.text[b : b + 1], recall.notes[b : b + 1])

    def stack(self, ops: Ops, rows: Sequence[Recall | None]) -> Recall | None:
        if not any(rows):
            return None
        found = {p: p.stack(ops, [row and row.arrays["parts"][p] for row in rows]) for p in self.parts}
        return Recall([row.fired[0] if row else [] for row in rows], {"parts": found})

    def passes(self, recall: Recall | None) -> bool:
        return all(part.passes(recall.arrays["parts"][part] if recall else None) for part in self.parts)

    def rewrite(
        self, ops: Ops, state: State, recall: Recall | None, x_in: Array, x_out: Array, context: TapContext
    ) -> Array:
        for part in self.parts:
            if context.site in self._sites[part]:
                mine = recall.arrays["parts"][part] if recall else None
                if mine is not None and recall is not None:
                    mine.start = recall.start
                x_out = part.rewrite(ops, self._of(part, state), mine, x_in, x_out, context)
        return x_out

    def takes(self, lesson: Lesson) -> bool:
        return any(part.takes(lesson) for part in self.parts)

    def learn(
        self, known: Knowledge, lesson: Lesson, adapter: Adapter, message: UserMessage | None, report: LearnReport
    ) -> Knowledge:
        able = [part for part in self.parts if part.takes(lesson) and message is None] or [
            part for part in self.parts if part.learns_from in ("messages", "turns")
        ]
        if not able:
            kind = "lessons" if lesson.prompt and lesson.answer else "messages"
            raise LearningError(f"no part of memory {self.name!r} learns from {kind}")
        states, lessons = {part: self._of(part, known.state) for part in self.parts}, known.lessons
        for part in able:
            new = part.learn(Knowledge(states[part], known.lessons), lesson, adapter, message, report)
            states[part], lessons = new.state, new.lessons
        gone = {lesson.id for lesson in known.lessons} - {lesson.id for lesson in lessons}
        for part, lesson_id in product(set(self.parts) - set(able), gone):
            with contextlib.suppress(LearningError):  # where lessons cannot be told apart, the old one stays underneath
                states[part] = part.forget(states[part], lesson_id)
        return Knowledge(self._joined(states), lessons)

    def outdated(self, known: Knowledge, lesson: Lesson, adapter: Adapter, surely: bool = False) -> list[str]:
        parts = ((part, Knowledge(self._of(part, known.state), known.lessons)) for part in self.parts)
        return [old for part, of_part in parts for old in part.outdated(of_part, lesson, adapter, surely)]

    def in_place_of(self, lesson: Lesson, old: Sequence[Lesson], adapter: Adapter) -> Lesson:
        for part in self.parts:
            lesson = part.in_place_of(lesson, old, adapter)
        return lesson

    def after_turn(self, known: Knowledge, lesson: Lesson, message: UserMessage, adapter: Adapter) -> Knowledge:
        states, lessons = {part: self._of(part, known.state) for part in self.parts}, known.lessons
        for part in self.parts:
            new = part.after_turn(Knowledge(states[part], lessons), lesson, message, adapter)
            states[part], lessons = new.state, new.lessons
        return Knowledge(self._joined(states), lessons)

    def begun(self, known: Knowledge) -> Knowledge:
        states = {part: part.begun(Knowledge(self._of(part, known.state))).state for part in self.parts}
        same = all(states[part] is self._of(part, known.state) for part in self.parts)
        return known if same else Knowledge(self._joined(states), known.lessons)

    def near(self, state: State, text: str, adapter: Adapter) -> list[tuple[str, float]]:
        return [hit for part in self.parts for hit in part.near(self._of(part, state), text, adapter)]

    def pictures(self, state: State, tokens: Sequence[int], adapter: Adapter) -> list[Picture]:
        return [one for part in self.parts for one in part.pictures(self._of(part, state), tokens, adapter)]

    def together(self, one: State, other: State, lessons: Sequence[Lesson]) -> State:
        parts = [(part, dict(self._of(part, one))) for part in self.parts]
        return self._joined({part: part.together(mine, self._of(part, other), lessons) for part, mine in parts})

    def to_beside(self, state: State, ops: Ops) -> bytes | None:
        found = (part.to_beside(self._of(part, state), ops) for part in self.parts)
        return next((data for data in found if data is not None), None)

    def from_beside(self, state: State, data: bytes, ops: Ops) -> None:
        for part in self.parts:
            part.from_beside(self._of(part, state), data, ops)

    def forget(self, state: State, lesson_id: str) -> State:
        """Forget in the parts that hold the lesson on its own. Raises LearningError if there is none."""
        states, refusals, forgot = {}, [], False
        for part in self.parts:
            states[part] = old = self._of(part, state)
            try:
                states[part] = part.forget(old, lesson_id)
                forgot = forgot or states[part].keys() != old.keys()
            except LearningError as error:
                refusals.append(error)
        if refusals and not forgot:
            raise refusals[0]
        return self._joined(states)

    def mixing(self) -> tuple[str, ...]:
        return tuple(name for part in self.parts for name in part.mixing())

    def trainable(self, state: State) -> tuple[str, ...]:
        return tuple(f"{p.name}:{name}" for p in self.parts for name in p.trainable(self._of(p, state)))

    def prepare(self, state: State, pairs: Sequence[tuple[str, str]], adapter: Adapter) -> State:
        return self._joined({p: p.prepare(self._of(p, state), pairs, adapter) for p in self.parts})

    def check_state(self, arrays: dict[str, Any], lessons: Sequence[Lesson], adapter: Adapter) -> None:
        known = {part.name for part in self.parts}
        strange = sorted(f"unexpected tensor {name!r}" for name in arrays if name.partition(":")[0] not in known)
        if strange:
            raise StateError(f"the file does not fit memory {self.name!r}: {listed(strange)}")
        for part in self.parts:
            mine = {name.partition(":")[2]: a for name, a in arrays.items() if name.partition(":")[0] == part.name}
            held = {name.partition("/")[2] for name in mine}
            part.check_state(mine, [lesson for lesson in lessons if lesson.id in held], adapter)

    def held(self, ops: Ops, arrays: Mapping[str, Any]) -> State:
        return self._joined({part: part.held(ops, self._of(part, dict(arrays))) for part in self.parts})

    def _of(self, part: Memory, state: State) -> State:
        """A part's own state; the same object as long as the whole is the same, so that parts may cache by it."""
        if self._split[0] is not state:
            split: dict[Memory, State] = {p: {} for p in self.parts}
            by_name = {p.name: p for p in self.parts}
            for name, array in state.items():
                owner, _, own = name.partition(":")
                split[by_name[owner]][own] = array
            self._split = (state, split)
        return self._split[1][part]

    @staticmethod
    def _joined(states: Mapping[Memory, State]) -> State:
        return {f"{part.name}:{name}": array for part, state in states.items() for name, array in state.items()}
