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

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lmm.encoders.minilm import WIDTH
from lmm.lesson import Knowledge, Lesson, State
from lmm.memory.base import LearnReport, Note, Prompt, Recall
from lmm.memory.isolated import Isolated
from lmm.memory.keyed.lookup import Lookup
from lmm.memory.notes import lists, news
from lmm.memory.notes.gate import TAUGHT, THRESHOLD, Notebook, shared_gate
from lmm.options import Options, option
from lmm.text.fold import contains
from lmm.text.language import is_english
from lmm.text.names import in_full, in_other_roles, of_another, role_and_name
from lmm.text.questions import is_courtesy, now_asked, tells_before
from lmm.text.sentences import clauses, sentences
from lmm.text.values import atoms

if TYPE_CHECKING:
    import numpy as np

    from lmm.adapters.base import Adapter
    from lmm.encoders.minilm import Encoder


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
        texts = ["" if prompt.recited or is_courtesy(prompt.text) else prompt.text for prompt in prompts]
        lowest = min(self.options.threshold, self.options.taught)
        notes = [
            self._before(now_asked(text), notebook, owners, adapter)
            or self._shown(text, _each_once(owners, row), notebook, owners, adapter)
            for text, row in zip(texts, notebook.match(texts, lowest), strict=True)
        ]
        again = ["\n".join(note.said for note in row) for row in notes]
        return Recall([[] for _ in prompts], notes=notes, text=again) if any(notes) else None

    def _shown(
        self, text: str, found: Sequence[Helping], notebook: Notebook, owners: Sequence[Lesson], adapter: Adapter
    ) -> list[Note]:
        """The notes that help, the best one last, next to the question, or two that help together. The reply begins
        with the last, or with both."""
        helping = [one for one in found if self._helps(*one) and not of_another(text, text_of(one[0]))]
        begins = 1
        if helping and (rather := news.asked_for(text, helping[0][0], owners, text_of)) is not helping[0][0]:
            helping = [(rather, helping[0][1]), *(one for one in helping if one[0] is not rather)]
        shown = helping[: self.options.count][::-1]
        if self.options.chain and (chain := notebook.chain(text, owners, helping[0][0] if helping else None)):
            shown, begins = [(owners[position], chain[2]) for position in chain[:2]], 2
        notes = [note_of(*one) for one in shown]
        for i in range(len(notes))[-begins:] if self.options.opening else ():
            lesson, begun = shown[i][0], _opening(text, shown[i][0], notebook, adapter)
            # of news the model reads no more than that: it would go on with what is over
            notes[i] = replace(notes[i], opening=begun, echo=begun if lesson.formerly else notes[i].echo)
        return notes

    def _before(self, asked: str, notebook: Notebook, owners: Sequence[Lesson], adapter: Adapter) -> list[Note]:
        """What a note that would answer the question about today came in the place of, or that says so itself."""
        [row] = notebook.match([asked], self.options.threshold) if asked else [[]]
        helping = (one for one in _each_once(owners, row) if self._helps(*one))
        found = next((one for one in helping if one[0].replaces or tells_before(one[0].statement)), None)
        if found is None:
            return []
        if not found[0].replaces:
            return self._shown(asked, [found], notebook, owners, adapter)
        lesson, strength = found
        told = f"Before that I knew: {lesson.replaces}"
        if lesson.replaces in lesson.formerly:  # in the user's own words
            told = f'Before that you said: "{lesson.replaces}"'
        return [Note(lesson.id, strength, lesson.replaces, told, told if self.options.opening else "")]

    def _helps(self, lesson: Lesson, strength: float) -> bool:
        return strength >= (self.options.threshold if lesson.statement else self.options.taught)

    def outdated(self, known: Knowledge, lesson: Lesson, adapter: Adapter, surely: bool = False) -> list[str]:
        notebook, owners = self.lookup.of(known.state, known.lessons, adapter.ops)
        old = dict.fromkeys(owners[position] for position in notebook.outdated(lesson.says, surely))
        gone = [
            one
            for one in old
            if not (_of_somebody_else(one, lesson) or news.stays(one, text_of(one), lesson, notebook.telling))
        ]
        listed = lists.latest(known.lessons, lesson.says)
        return list(dict.fromkeys(one.id for one in (*gone, listed) if one is not None))

    def in_place_of(self, lesson: Lesson, old: Sequence[Lesson], adapter: Adapter) -> Lesson:
        return news.in_place_of(lesson, old, self.lookup.index.telling, adapter) if old else lesson

    def with_lesson(self, state: State, lesson: Lesson, adapter: Adapter, report: LearnReport) -> State:
        texts = dict.fromkeys(text for text in (text_of(lesson), echo_of(lesson), lesson.prompt) if text)
        views = shared_gate().encoder.encode(list(texts))
        return {**state, f"views/{lesson.id}": adapter.ops.asarray(views, "float16")}

    def check_state(self, arrays: dict[str, Any], lessons: Sequence[Lesson], adapter: Adapter) -> None:
        self.check_rows(arrays, lessons, {"views": WIDTH})


def _of_somebody_else(old: Lesson, lesson: Lesson) -> bool:
    """ "My friend Anna plays chess" leaves it true that my friend Tom does, and that my sister Anna does."""
    theirs, ours = role_and_name(old.subject), role_and_name(lesson.subject)
    if theirs is None or ours is None:
        return False
    named = contains(f"{ours[1]} {lesson.statement}", theirs[1])
    return not named or (in_other_roles(theirs[0], ours[0]) and not contains(lesson.statement, theirs[0]))


def _entries(lesson: Lesson, views: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """What a note is looked up by: its own text, and the statements in whose place it came, since it may say less of
    what it is about than they did ("Vera has moved to Oslo" after "My sister Vera lives in Bergen")."""
    encoder = shared_gate().encoder
    return [(text_of(lesson), views), *((text, _encoded(encoder, text)) for text in lesson.formerly)]


@lru_cache(maxsize=4096)  # 1.5 KB each; the table is made anew when a lesson goes
def _encoded(encoder: Encoder, text: str) -> np.ndarray:
    return encoder.encode([text])


def _each_once(owners: Sequence[Lesson], row: Sequence[tuple[int, float]]) -> list[Helping]:
    """Lessons that were found, the best first, each as it was found first."""
    found: dict[str, Helping] = {}
    for position, score in row:
        found.setdefault(owners[position].id, (owners[position], score))
    return list(found.values())


OPENING = 30  # tokens of a longer note that a reply begins with
TELLS = 5.0  # what it gives to the logit of a sentence to have a value in it,
TELLS_ELSEWHERE = 0.5  # and where it is not English, of which the reader finds fewer values


def _opening(text: str, lesson: Lesson, notebook: Notebook, adapter: Adapter) -> str:
    """The note as it is said back, or those sentences of a long one, or clauses of a long one of these, that help most
    and tell something."""

    def size(said: str) -> int:
        return len(adapter.format.encode(said))

    if lesson.formerly and not lists.is_list(echo_of(lesson)):
        return news.told(text, lesson, echo_of(lesson), notebook, lambda said: size(said) <= OPENING)
    whole = said_back(lesson)
    parts = [
        part
        for one in sentences(whole)
        for part in ([one] if size(one) <= OPENING else map(news.as_sentence, clauses(one, lesson.subject)))
    ]
    sizes = [size(part) for part in parts]
    if len(parts) < 2 or sum(sizes) <= OPENING:
        return whole
    helping, chosen = news.helping_by_part(text, parts, notebook, in_context=True), set[int]()
    worth = TELLS if is_english(whole) else TELLS_ELSEWHERE
    tells = [worth * news.says_any(part, lesson.values) for part in parts]
    if WHEN.search(text):
        tells = [told + TELLS * _timed(part) for told, part in zip(tells, parts, strict=True)]
    for i in sorted(range(len(parts)), key=lambda i: -helping[i] - tells[i]):
        if not chosen or sum(sizes[j] for j in chosen) + sizes[i] <= OPENING:
            chosen.add(i)
    return " ".join(parts[i] for i in sorted(chosen))


WHEN = re.compile(
    r"\b(?:when|what (?:time|day|date)|wann|wie viel uhr|welche[mnr]? tag|quand|quel jour|quelle heure|cuándo"
    r"|qué (?:día|hora)|quando|che (?:giorno|ora))\b|几点|什么时候|哪天|星期几|几号",
    re.I,
)


def _timed(part: str) -> bool:
    return any(x.kind in ("date", "clock", "range") for x in atoms(part))


def said_back(lesson: Lesson) -> str:
    """What the assistant says to it, after what still holds of what was said before."""
    return " ".join((*lesson.still, echo_of(lesson)))


def text_of(lesson: Lesson) -> str:
    """What the gate reads of a lesson: the user's own words, of somebody with name and role, where both are known, or,
    where it was taught, or they were a mere answer, question and answer."""
    said = lesson.statement if lesson.says == lesson.statement else ""
    return in_full(said, lesson.subject) or f"{lesson.prompt} {lesson.answer}"


def echo_of(lesson: Lesson) -> str:
    """What the assistant says to it."""
    return lesson.echo or lesson.answer or lesson.statement


def note_of(lesson: Lesson, strength: float) -> Note:
    """The lesson as it is shown to the model."""
    return Note(lesson.id, strength, lesson.statement or lesson.prompt, said_back(lesson))
