"""`notes`: what was said, shown to the model where it helps to reply.

A lesson is kept as

    views   [V, 384]  sentence vectors of what the user said, of its echo, and of the question it answers

Once per reply a gate (`lmm.memory.notes.gate`) reads the user's bare words: does one of the notes help to answer, or to
do, this? Those that do are put before the question, as an exchange that went before (the user said it, and the
assistant said it back), and the user's words once more in front of the question itself: a small model uses the two
together nearly twice as often as either (docs/notes.md). Beside `keyed`, which recites where the very question of a
lesson is asked, notes are for all that needs what was said and does not ask for it. Where no note helps the prompt is
as it was, and so is the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lmm.encoders.minilm import WIDTH
from lmm.lesson import Knowledge, Lesson, State
from lmm.memory.base import LearnReport, Note, Prompt, Recall
from lmm.memory.isolated import Isolated
from lmm.memory.keyed.gate import Index
from lmm.memory.keyed.lookup import Lookup
from lmm.memory.notes.gate import TAUGHT, THRESHOLD, Notebook, shared_gate
from lmm.options import Options, option
from lmm.text.sentences import sentences

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter


@dataclass(frozen=True)
class NotesOptions(Options):
    threshold: float = option(THRESHOLD, "probability that a note helps from which it is shown", "(0, 1]")
    taught: float = option(TAUGHT, "the same for what was not said, but taught as question and answer", "(0, 1]")
    count: int = option(1, "notes shown at once, at most", "[1, 10]")
    opening: bool = option(True, "the reply begins with the note that helps most, and the model goes on")


class Notes(Isolated):
    name = "notes"
    summary = "what was said, shown to the model where it helps to reply"
    Options = NotesOptions
    instant = True

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.lookup = Lookup("views", lambda lesson, views: [(text_of(lesson), views)], Notebook)

    def takes(self, lesson: Lesson) -> bool:
        return bool(lesson.statement.strip()) or super().takes(lesson)

    def on_prompt(
        self, state: State, lessons: Sequence[Lesson], prompts: Sequence[Prompt], adapter: Adapter
    ) -> Recall | None:
        if not state or all(prompt.recited for prompt in prompts):
            return None
        notebook, owners = self.lookup.of(state, lessons, adapter.ops)
        texts = ["" if prompt.recited else prompt.text for prompt in prompts]
        lowest = min(self.options.threshold, self.options.taught)
        found = [
            [note for position, score in row if self._helps(note := note_of(owners[position], score), owners[position])]
            for row in notebook.match(texts, lowest)
        ]
        notes = [row[: self.options.count][::-1] for row in found]  # the best one last, next to the question
        for text, row in zip(texts, notes, strict=True) if self.options.opening else ():
            row[-1:] = [replace(note, opening=_opening(text, note, notebook, adapter)) for note in row[-1:]]
        again = ["\n".join(note.said for note in row) for row in notes]
        return Recall([[] for _ in prompts], notes=notes, text=again) if any(notes) else None

    def _helps(self, note: Note, lesson: Lesson) -> bool:
        return note.strength >= (self.options.threshold if lesson.statement else self.options.taught)

    def outdated(self, known: Knowledge, lesson: Lesson, adapter: Adapter) -> list[str]:
        notebook, owners = self.lookup.of(known.state, known.lessons, adapter.ops)
        return [owners[position].id for position in notebook.outdated(lesson.statement)]

    def with_lesson(self, state: State, lesson: Lesson, adapter: Adapter, report: LearnReport) -> State:
        texts = dict.fromkeys(text for text in (text_of(lesson), echo_of(lesson), lesson.prompt) if text)
        views = shared_gate().encoder.encode(list(texts))
        return {**state, f"views/{lesson.id}": adapter.ops.asarray(views, "float16")}

    def check_state(self, arrays: dict[str, Any], lessons: Sequence[Lesson], adapter: Adapter) -> None:
        self.check_rows(arrays, lessons, {"views": WIDTH})


OPENING = 30  # tokens of a longer note that a reply begins with


def _opening(text: str, note: Note, notebook: Index, adapter: Adapter) -> str:
    """The note as it is said back, or those sentences of a long one that help most with the question."""
    parts = sentences(note.echo)
    sizes = [len(adapter.format.encode(part)) for part in parts]
    if len(parts) < 2 or sum(sizes) <= OPENING:
        return note.echo
    _, asked = notebook.gate.read(text)
    helping, chosen = [notebook.gate.same(asked, notebook.lower(part)) for part in parts], set[int]()
    for i in sorted(range(len(parts)), key=lambda i: -helping[i]):
        if not chosen or sum(sizes[j] for j in chosen) + sizes[i] <= OPENING:
            chosen.add(i)
    return " ".join(parts[i] for i in sorted(chosen))


def text_of(lesson: Lesson) -> str:
    """What the gate reads of a lesson: the user's own words or, where it was taught, question and answer."""
    return lesson.statement or f"{lesson.prompt} {lesson.answer}"


def echo_of(lesson: Lesson) -> str:
    """What the assistant says to it."""
    return lesson.echo or lesson.answer or lesson.statement


def note_of(lesson: Lesson, strength: float) -> Note:
    """The lesson as it is shown to the model."""
    return Note(lesson.id, strength, lesson.statement or lesson.prompt, echo_of(lesson))
