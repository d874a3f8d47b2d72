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
from lmm.memory.keyed.cross import REPLACES, shared_cross
from lmm.memory.keyed.lookup import Lookup
from lmm.memory.notes.gate import TAUGHT, THRESHOLD, Notebook, logit, shared_gate
from lmm.options import Options, option
from lmm.text.fold import fold
from lmm.text.names import in_full
from lmm.text.sentences import clauses, sentences

if TYPE_CHECKING:
    import numpy as np

    from lmm.adapters.base import Adapter


Helping = tuple[Lesson, float]  # and the probability that it helps


@dataclass(frozen=True)
class NotesOptions(Options):
    threshold: float = option(THRESHOLD, "probability that a note helps from which it is shown", "(0, 1]")
    taught: float = option(TAUGHT, "the same for what was not said, but taught as question and answer", "(0, 1]")
    count: int = option(1, "notes shown at once, at most", "[1, 10]")
    chain: bool = option(True, "two notes are shown where only both help: who it is, and when their birthday is")
    opening: bool = option(True, "the reply begins with the note that helps most, and the model goes on")


class Notes(Isolated):
    name = "notes"
    summary = "what was said, shown to the model where it helps to reply"
    Options = NotesOptions
    instant = True

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.lookup = Lookup("views", _entries, Notebook)

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
        notes = [
            self._shown(text, _each_once(owners, row), notebook, owners, adapter)
            for text, row in zip(texts, notebook.match(texts, lowest), strict=True)
        ]
        again = ["\n".join(note.said for note in row) for row in notes]
        return Recall([[] for _ in prompts], notes=notes, text=again) if any(notes) else None

    def _shown(
        self, text: str, found: Sequence[Helping], notebook: Notebook, owners: Sequence[Lesson], adapter: Adapter
    ) -> list[Note]:
        """The notes that help, the best one last, next to the question, or two that help together. The reply begins
        with the last, or with both."""
        helping, begins = [one for one in found if self._helps(*one)], 1
        shown = helping[: self.options.count][::-1]
        if self.options.chain and (chain := notebook.chain(text, owners, helping[0][0] if helping else None)):
            shown, begins = [(owners[position], chain[2]) for position in chain[:2]], 2
        notes = [note_of(*one) for one in shown]
        for i in range(len(notes))[-begins:] if self.options.opening else ():
            notes[i] = replace(notes[i], opening=_opening(text, shown[i][0], notebook, adapter))
        return notes

    def _helps(self, lesson: Lesson, strength: float) -> bool:
        return strength >= (self.options.threshold if lesson.statement else self.options.taught)

    def outdated(self, known: Knowledge, lesson: Lesson, adapter: Adapter) -> list[str]:
        notebook, owners = self.lookup.of(known.state, known.lessons, adapter.ops)
        return list(dict.fromkeys(owners[position].id for position in notebook.outdated(lesson.statement)))

    def in_place_of(self, lesson: Lesson, old: Sequence[Lesson], adapter: Adapter) -> Lesson:
        """It is found by the old statements, too, and what still holds of them is not lost."""
        old = [x for x in old if x.statement and fold(x.statement) != fold(lesson.statement)]
        formerly = dict.fromkeys(text for x in old for text in (*x.formerly, x.statement))
        still = [text for x in old for text in _still_true(x, lesson.statement)]
        return replace(lesson, formerly=tuple(formerly)[-FORMERLY:], still=tuple(dict.fromkeys(still)))

    def with_lesson(self, state: State, lesson: Lesson, adapter: Adapter, report: LearnReport) -> State:
        texts = dict.fromkeys(text for text in (text_of(lesson), echo_of(lesson), lesson.prompt) if text)
        views = shared_gate().encoder.encode(list(texts))
        return {**state, f"views/{lesson.id}": adapter.ops.asarray(views, "float16")}

    def check_state(self, arrays: dict[str, Any], lessons: Sequence[Lesson], adapter: Adapter) -> None:
        self.check_rows(arrays, lessons, {"views": WIDTH})


FORMERLY = 3  # statements that are no longer true, by which one lesson is found
HOLDS = 0.5  # probability of being out of date up to which a sentence still holds


def _entries(lesson: Lesson, views: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """What a note is looked up by: its own text, and the statements in whose place it came, since it may say less of
    what it is about than they did ("Vera has moved to Oslo" after "My sister Vera lives in Bergen")."""
    encode = shared_gate().encoder.encode
    return [(text_of(lesson), views), *((text, encode([text])) for text in lesson.formerly)]


def _each_once(owners: Sequence[Lesson], row: Sequence[tuple[int, float]]) -> list[Helping]:
    """Lessons that were found, the best first, each as it was found first."""
    found: dict[str, Helping] = {}
    for position, score in row:
        found.setdefault(owners[position].id, (owners[position], score))
    return list(found.values())


def _still_true(old: Lesson, news: str) -> list[str]:
    """What holds of an old lesson beside the new statement, clause by clause; each is read with those before it that
    hold, since it may say less of what it is about than they do."""
    said, parts = (clauses(text, old.subject) for text in (old.statement, old.echo))
    second = shared_cross(REPLACES)
    if len(said) != len(parts):
        said = parts
    both = [*((text, text) for text in old.still), *zip(said, parts, strict=True)]
    if second is None or len(both) < 2:
        return []
    outdated, before = list[float](), ""
    for text, _ in both:
        outdated.append(second.look(news, f"{before}{text}").replaces)
        before += f"{text}, " if outdated[-1] < HOLDS else ""
    kept = (part for (_, part), p in zip(both, outdated, strict=True) if p < min(HOLDS, max(outdated)))
    return [_as_sentence(part) for part in kept]


OPENING = 30  # tokens of a longer note that a reply begins with
OVER = 2.0  # what it takes from the logit of a clause to say only what was said before, too


def _opening(text: str, lesson: Lesson, notebook: Notebook, adapter: Adapter) -> str:
    """The note as it is said back, or those sentences of a long one that help most with the question. Of news, the
    clause that helps most and what follows it: before it stands what is over ("The 47 was axed, so you take the 112").
    """
    if lesson.formerly:
        return _news(text, lesson, notebook, adapter)
    whole = said_back(lesson)
    parts = sentences(whole)
    sizes = [len(adapter.format.encode(part)) for part in parts]
    if len(parts) < 2 or sum(sizes) <= OPENING:
        return whole
    helping, chosen = _helping(text, parts, notebook), set[int]()
    for i in sorted(range(len(parts)), key=lambda i: -helping[i]):
        if not chosen or sum(sizes[j] for j in chosen) + sizes[i] <= OPENING:
            chosen.add(i)
    return " ".join(parts[i] for i in sorted(chosen))


def _news(text: str, lesson: Lesson, notebook: Notebook, adapter: Adapter) -> str:
    """The clause that helps most, of what still holds or of what is new, and as much of the new after it as fits."""
    parts = [*lesson.still, *clauses(echo_of(lesson), lesson.subject)]
    old = frozenset[str]().union(*(notebook.telling(before) for before in lesson.formerly))
    helping, asked = _helping(text, parts, notebook), notebook.telling(text)
    for i, part in enumerate(parts):
        told = notebook.telling(part) - asked
        helping[i] -= OVER * len(told & old) / max(1, len(told))
    best = max(range(len(parts)), key=helping.__getitem__)
    said = _as_sentence(parts[best])
    for part in parts[best + 1 :] if best >= len(lesson.still) else ():  # what holds is not followed by other news
        longer = f"{said} {_as_sentence(part)}"
        if len(adapter.format.encode(longer)) > OPENING:
            break
        said = longer
    return said


def _helping(text: str, parts: Sequence[str], notebook: Notebook) -> list[float]:
    """How surely each part of a note helps, as logits of the first look."""
    _, asked = notebook.gate.read(text)
    return [logit(notebook.gate.same(asked, notebook.lower(part))) for part in parts]


def _as_sentence(part: str) -> str:
    return f"{part[0].upper()}{part[1:].rstrip('. 。')}{'' if part[-1] in '?!。' else '.'}"


def said_back(lesson: Lesson) -> str:
    """What the assistant says to it, after what still holds of what was said before."""
    return " ".join((*lesson.still, echo_of(lesson)))


def text_of(lesson: Lesson) -> str:
    """What the gate reads of a lesson: the user's own words, of somebody with name and role, where both are known, or,
    where it was taught, question and answer."""
    return in_full(lesson.statement, lesson.subject) or f"{lesson.prompt} {lesson.answer}"


def echo_of(lesson: Lesson) -> str:
    """What the assistant says to it."""
    return lesson.echo or lesson.answer or lesson.statement


def note_of(lesson: Lesson, strength: float) -> Note:
    """The lesson as it is shown to the model."""
    return Note(lesson.id, strength, lesson.statement or lesson.prompt, said_back(lesson))
