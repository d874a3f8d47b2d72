"""Memories for the tests of the benchmark, on the toy model: an honest one, and one for each way to cheat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from lmm.adapters.base import Adapter, Site, TapContext
from lmm.adapters.ops import Array, Ops
from lmm.adapters.toy import END, ToyAdapter
from lmm.bench.datasets import Edit
from lmm.errors import LearningError
from lmm.lesson import Knowledge, Lesson, State
from lmm.memory.base import LearnReport, Memory, Prompt, Recall, UserMessage

STEPS = 40


def adapter() -> ToyAdapter:
    """Wide enough that its replies differ from prompt to prompt."""
    return ToyAdapter(width=32)


def edits(count: int) -> list[Edit]:
    """ "capital A" is Rome; "size A" must not change."""
    places = ["Rome", "Oslo", "Paris", "Bern", "Kyiv"]
    return [
        Edit(f"capital {c}", places[i % 5], rephrases=(f"{c} capital",), locality=(f"size {c}", f"color {c}"))
        for i, c in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:count])
    ]


def speaking(embedding: np.ndarray, token: int) -> np.ndarray:
    """A hidden state [D] after which the toy model says `token`: the perceptron finds one."""
    h = embedding[token].astype(np.float64)
    for _ in range(1000):
        best = int((embedding @ h).argmax())
        if best == token:
            break
        h = h + embedding[token] - embedding[best]
    return h * 100


class Told(Memory):
    """Honest: fires if the words are the lesson's words, and then says the answer and stops."""

    name = "told"
    summary = "says the answer of the lesson with the same words"
    heard: ClassVar[list[tuple[str, str]]] = []  # what it was ever shown, over all instances
    learned = 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        cls.heard, cls.learned = [], 0

    def sites(self, adapter: Adapter) -> tuple[Site, ...]:
        return (adapter.site(adapter.shape.layers - 1),)

    def fires(self, lesson: Lesson, text: str) -> bool:
        return sorted(lesson.prompt.split()) == sorted(text.split())

    def says(self, lesson: Lesson, lessons: Sequence[Lesson]) -> str:
        return lesson.answer

    def check_state(self, arrays: dict[str, Any], lessons: Sequence[Lesson], adapter: Adapter) -> None:
        pass

    def on_prompt(
        self, state: State, lessons: Sequence[Lesson], prompts: Sequence[Prompt], adapter: Adapter
    ) -> Recall | None:
        type(self).heard += [("prompt", prompt.text) for prompt in prompts]
        fired = [[x for x in lessons if f"known/{x.id}" in state and self.fires(x, p.text)][-1:] for p in prompts]
        embedding = adapter.embedding  # type: ignore[attr-defined]
        states = np.zeros((len(prompts), STEPS, adapter.shape.width))
        for b, found in enumerate(fired):
            spoken = adapter.format.encode(self.says(found[0], lessons))[: STEPS - 1] if found else []
            for j, token in enumerate([*spoken, END] if found else []):
                states[b, j] = speaking(embedding, token)
        return Recall([[(x.id, 1.0) for x in found] for found in fired], {"states": states})

    def rewrite(
        self, ops: Ops, state: State, recall: Recall | None, x_in: Array, x_out: Array, context: TapContext
    ) -> Array:
        if recall is None or "states" not in recall.arrays:
            return x_out
        x_out = x_out.copy()
        for t, step in enumerate(context.positions - recall.start):
            if 0 <= step < STEPS:
                x_out[:, t] += recall.arrays["states"][:, step]
        return x_out

    def learn(
        self, known: Knowledge, lesson: Lesson, adapter: Adapter, message: UserMessage | None, report: LearnReport
    ) -> Knowledge:
        if not lesson.answer:
            raise LearningError("no answer")
        type(self).heard.append(("lesson", f"{lesson.prompt}|{lesson.answer}|{lesson.statement}|{lesson.wordings}"))
        type(self).learned += 1
        report.step(0.5)
        return known.taught({**known.state, f"known/{lesson.id}": adapter.ops.zeros((1,))}, lesson)


class Remembers(Told):
    """Keeps what it learned in itself, not in its state."""

    name = "remembers"

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.answers: dict[str, str] = {}

    def learn(self, known: Knowledge, lesson: Lesson, adapter: Adapter, *rest: Any) -> Knowledge:
        self.answers[lesson.id] = lesson.answer
        return super().learn(known, lesson, adapter, *rest)

    def says(self, lesson: Lesson, lessons: Sequence[Lesson]) -> str:
        return self.answers.get(lesson.id, "nothing")


class Loose(Told):
    """Fires on whatever shares the subject's letter: not dishonest, but its locality is bad."""

    name = "loose"

    def fires(self, lesson: Lesson, text: str) -> bool:
        return lesson.prompt.split()[-1] in text.split()


class PeeksAtTheBatch(Loose):
    """As loose, but only where a taught prompt is asked beside: it hopes that locality is asked elsewhere."""

    name = "peeks"

    def on_prompt(self, state: State, lessons: Sequence[Lesson], prompts: Sequence[Prompt], adapter: Adapter) -> Any:
        self.open = not {p.text for p in prompts}.isdisjoint(x.prompt for x in lessons)
        return super().on_prompt(state, lessons, prompts, adapter)

    def fires(self, lesson: Lesson, text: str) -> bool:
        return self.open and super().fires(lesson, text)


class KnowsTheOrder(PeeksAtTheBatch):
    """As loose, but only the first time it is asked: it hopes that locality comes last."""

    name = "order"
    asked = 0

    def on_prompt(self, state: State, lessons: Sequence[Lesson], prompts: Sequence[Prompt], adapter: Adapter) -> Any:
        self.open, self.asked = not self.asked, self.asked + 1
        return Loose.on_prompt(self, state, lessons, prompts, adapter)


class Echoes(Told):
    """Helps only when it sees the right answer fed in: many tokens at once, past the prompt."""

    name = "echoes"

    def rewrite(
        self, ops: Ops, state: State, recall: Recall | None, x_in: Array, x_out: Array, context: TapContext
    ) -> Array:
        if recall is None or context.positions[-1] <= recall.start or len(context.positions) == 1:
            return x_out
        return super().rewrite(ops, state, recall, x_in, x_out, context)


class Shotgun(Told):
    """Says every answer it knows: one of them will be right."""

    name = "shotgun"

    def says(self, lesson: Lesson, lessons: Sequence[Lesson]) -> str:
        return " ".join(dict.fromkeys(x.answer for x in lessons))


class Everywhere(Told):
    """Says its last answer whatever is asked."""

    name = "everywhere"

    def fires(self, lesson: Lesson, text: str) -> bool:
        return True


class Prompter(Told):
    """Writes all it knows before every prompt."""

    name = "prompter"

    def on_prompt(
        self, state: State, lessons: Sequence[Lesson], prompts: Sequence[Prompt], adapter: Adapter
    ) -> Recall | None:
        text = " ".join(f"{x.prompt} {x.answer}." for x in lessons)
        return Recall([[] for _ in prompts], {}, [text] * len(prompts))


class Mutates(Told):
    """Writes into the model."""

    name = "mutates"

    def learn(self, known: Knowledge, lesson: Lesson, adapter: Adapter, *rest: Any) -> Knowledge:
        adapter.layers[2].down[0, 0] += 1.0  # type: ignore[attr-defined]
        return super().learn(known, lesson, adapter, *rest)


class LeavesTap(Told):
    """Opens a tap of its own and never closes it."""

    name = "leaves_tap"
    left: ClassVar[list[Any]] = []

    def learn(self, known: Knowledge, lesson: Lesson, adapter: Adapter, *rest: Any) -> Knowledge:
        self.left.append(adapter.tap(adapter.site(0), lambda x_in, x_out, context: x_out + 1))
        self.left[-1].__enter__()
        return super().learn(known, lesson, adapter, *rest)


class Uneven(Told):
    """Writes more for a longer prompt, beside an array that is no lesson's."""

    name = "uneven"

    def learn(self, known: Knowledge, lesson: Lesson, adapter: Adapter, *rest: Any) -> Knowledge:
        new = super().learn(known, lesson, adapter, *rest)
        long = adapter.ops.zeros((1000 if lesson.prompt[-1] == "C" else 10,))
        return replace(new, state={**new.state, "centre": adapter.ops.zeros((5000,)), f"long/{lesson.id}": long})


class Shares(Told):
    """Keeps all lessons in one array, and something of their own for some."""

    name = "shares"

    def learn(self, known: Knowledge, lesson: Lesson, adapter: Adapter, *rest: Any) -> Knowledge:
        learned = super().learn(known, lesson, adapter, *rest)
        if lesson.prompt[-1] == "A":
            return learned
        return known.taught({**known.state, "all": adapter.ops.zeros((10,))}, lesson)


class Refuses(Told):
    """Cannot learn every other lesson."""

    name = "refuses"

    def learn(self, known: Knowledge, lesson: Lesson, adapter: Adapter, *rest: Any) -> Knowledge:
        if lesson.prompt[-1] in "BDFH":
            raise LearningError("too hard")
        return super().learn(known, lesson, adapter, *rest)
