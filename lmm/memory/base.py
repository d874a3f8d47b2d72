"""What a memory is: plain mathematics over `Ops`, with its state as a value.

A memory sees text and arrays through the `Adapter` it is handed; it knows no backend. `learn` and `forget` return a
*new* state and leave the old one alone, so undo, roll-back, hot-swap and saving need no help from the memory.

Shape letters, used everywhere: B batch, T tokens, D width, V vocabulary, S steps of an answer, M slots or rows,
K neighbours, L lessons.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from lmm.errors import LearningError, StateError, UsageError
from lmm.lesson import Knowledge, Lesson, State
from lmm.options import Options
from lmm.text.sanitize import listed

if TYPE_CHECKING:
    import numpy as np

    from lmm.adapters.base import Adapter, Site, TapContext
    from lmm.adapters.ops import Array, Ops


@dataclass(frozen=True)
class Prompt:
    """One question as a reply is about to be given: the user's bare text, and the tokens the model will read.

    `recited`: another memory beside this one has the answer already. `before`: what the user said in turns that are not
    read any more, in offline training.
    """

    text: str
    tokens: Sequence[int]
    recited: bool = False
    before: tuple[str, ...] = ()


@dataclass(frozen=True)
class Note:
    """A lesson shown to the model before it replies, as an exchange that went before: `said` by the user, `echo` the
    assistant's. `strength` is how surely it helps; with `opening` the reply begins."""

    lesson_id: str
    strength: float
    said: str
    echo: str
    opening: str = ""


@dataclass
class Recall:
    """What a memory decided once per reply, at prefill, and holds while the reply is decoded.

    `fired[b]` lists (lesson id, strength) for row b of the batch; `arrays` is the memory's own.
    What a memory that works through the prompt has to say about row b stands in `notes[b]`, exchanges that are put
    before the question, in `text[b]`, put into the question itself, or in `system[b]`, put into the system prompt.
    """

    fired: list[list[tuple[str, float]]] = field(default_factory=list)
    arrays: dict[str, Any] = field(default_factory=dict)
    text: list[str] = field(default_factory=list)
    notes: list[list[Note]] = field(default_factory=list)
    system: list[str] = field(default_factory=list)
    start: int = 0  # absolute position of the last prompt token: step 0 of the reply. Set by the engine.

    @property
    def in_prompt(self) -> bool:
        """Does the memory speak through the prompt of any row?"""
        return any(self.text) or any(self.notes) or any(self.system)


@dataclass(frozen=True)
class Picture:
    """What a memory does at each of T tokens: `values` [T, C], 0 or above."""

    title: str
    values: Any


@dataclass(frozen=True)
class UserMessage:
    """A user message as the model reads it, on top of what came before.

    `tokens` [T] are the message's tokens with its scaffold, `content` [T] marks those the user wrote, `cache` holds
    what came before (None: an empty conversation).
    """

    tokens: Sequence[int]
    content: Sequence[bool]
    cache: Any = None


@dataclass
class LearnReport:
    """What a lesson did, for the log and the user. Filled in by `learn`."""

    loss_before: float | None = None
    loss_after: float | None = None
    steps: int = 0
    seconds: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)
    on_step: Callable[[LearnReport], None] | None = None

    def step(self, loss: float) -> None:
        """One step was taken. May raise `Cancelled`: the lesson is then rolled back whole."""
        self.loss_before = loss if self.steps == 0 else self.loss_before
        self.loss_after = loss
        self.steps += 1
        if self.on_step is not None:
            self.on_step(self)


class Memory:
    """Base class. A memory is one file: options, sites, four functions of a state."""

    name: ClassVar[str]
    summary: ClassVar[str]
    Options: ClassVar[type[Options]] = Options
    #: what it learns from: "nothing", "messages" (every user message), "lessons" (question and answer) or "turns" (what
    #: the user said, once it was answered)
    learns_from: ClassVar[str] = "lessons"
    #: as long as how many replies of 32 tokens a lesson takes, where that is to be said before it begins
    replies_per_lesson: ClassVar[float] = 0.0
    #: True if a lesson changes how earlier turns would be read, so the cache above the site must be rebuilt
    rewrites_history: ClassVar[bool] = False
    #: tensors that grow together, a row of each for whatever is stored
    rows: ClassVar[tuple[str, ...]] = ()

    #: of several at once, it is asked last, and told where another has something to say
    yields: ClassVar[bool] = False

    #: a lesson is learned at once, from its text alone: a file that has only the lessons can be completed
    instant: ClassVar[bool] = False

    #: named sets of options, for --preset
    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    def __init__(self, options: Any = None) -> None:
        self.options: Any = options if options is not None else self.Options()

    @classmethod
    def build_options(cls, values: dict[str, Any]) -> Any:
        """Options from plain values. Raises UsageError that names every unknown key and bad value."""
        try:
            return cls.Options.of(values)
        except UsageError as error:
            raise UsageError(f"memory {cls.name!r}: {error}") from None

    def held(self, ops: Ops, arrays: Mapping[str, Any]) -> State:
        """A state of the NumPy arrays of a file: in the backend's memory, each in a dtype that it has."""
        return {name: ops.asarray(array, dtype_of(array)) for name, array in arrays.items()}

    def sites(self, adapter: Adapter) -> tuple[Site, ...]:
        """Where it touches the model. Default: the residual stream after the middle layer."""
        return (adapter.middle_site(),)

    def fresh(self, adapter: Adapter, seed: int = 0) -> State:
        """The state before any lesson; with it, the model behaves exactly as without the memory."""
        return {}

    def on_prompt(
        self, state: State, lessons: Sequence[Lesson], prompts: Sequence[Prompt], adapter: Adapter
    ) -> Recall | None:
        """Decide, once per reply, which lessons apply to each of B prompts. None: nothing applies."""
        return None

    def row(self, recall: Recall, b: int) -> Recall | None:
        """The recall of one prompt of a batch; None where nothing fired."""
        arrays = {k: v[b : b + 1] for k, v in recall.arrays.items()}
        own = (recall.text[b : b + 1], recall.notes[b : b + 1], recall.system[b : b + 1])
        row = Recall([recall.fired[b]], arrays, *own)
        return row if recall.fired[b] or row.in_prompt else None

    def stack(self, ops: Ops, rows: Sequence[Recall | None]) -> Recall | None:
        """The recalls of several prompts as one batch: arrays [B, ...], zero where nothing fired."""
        some = next((row for row in rows if row is not None), None)
        if some is None:
            return None
        arrays = {k: ops.concat([row.arrays[k] if row else v * 0 for row in rows], 0) for k, v in some.arrays.items()}
        return Recall([row.fired[0] if row else [] for row in rows], arrays)

    def rewrite(
        self, ops: Ops, state: State, recall: Recall | None, x_in: Array, x_out: Array, context: TapContext
    ) -> Array:
        """Hidden states [B, T, D] at a site -> hidden states [B, T, D]. Must not change its arguments."""
        return x_out

    def passes(self, recall: Recall | None) -> bool:
        """Does `rewrite` surely give back `x_out` itself, of whatever kind the arrays are? Then a backend may spare
        itself to make its own kind of them."""
        return type(self).rewrite is Memory.rewrite

    def learn(
        self, known: Knowledge, lesson: Lesson, adapter: Adapter, message: UserMessage | None, report: LearnReport
    ) -> Knowledge:
        """A transaction: what is known with the lesson (`known.taught`), or LearningError and nothing has changed.

        `message` is the user's message in its conversation, for memories that learn from messages; without it they
        take `lesson.statement` in an empty conversation. `report.step` is called after every step.
        """
        raise LearningError(f"memory {self.name!r} does not learn; pick another with --memory (see: lmm memories)")

    def outdated(self, known: Knowledge, lesson: Lesson, adapter: Adapter, surely: bool = False) -> list[str]:
        """Ids of lessons that are no longer true if a new one is, beside those that it supersedes by what it says of
        itself; `surely` leaves out what is likely alone."""
        return []

    def in_place_of(self, lesson: Lesson, old: Sequence[Lesson], adapter: Adapter) -> Lesson:
        """The lesson, with what it takes over of those in whose place it comes."""
        return lesson

    def after_turn(self, known: Knowledge, lesson: Lesson, message: UserMessage, adapter: Adapter) -> Knowledge:
        """What is known once a turn is over, for memories that learn from turns: `lesson.statement` is what the user
        said, `message` the same as the model has read it. Unlike a lesson, it is no step that could be undone."""
        return known

    def begun(self, known: Knowledge) -> Knowledge:
        """What is known where a conversation begins."""
        return known

    def takes(self, lesson: Lesson) -> bool:
        """Is there something in a lesson for a memory that learns from lessons?"""
        return self.learns_from == "lessons" and bool(lesson.prompt.strip() and lesson.answer.strip())

    def needs_question_and_answer(self, lesson: Lesson) -> None:
        """For memories that learn from lessons: raises LearningError where there is nothing to ask or to answer."""
        if not lesson.prompt.strip() or not lesson.answer.strip():
            raise LearningError(
                f"a lesson of {self.name!r} needs a question and an answer; teach it with: /teach QUESTION => ANSWER"
            )

    def forget(self, state: State, lesson_id: str) -> State:
        """The state without one lesson. Raises LearningError where lessons cannot be told apart."""
        raise LearningError(
            f"memory {self.name!r} mixes its lessons in the same weights and cannot forget one; "
            "/undo steps back in time"
        )

    def mixing(self) -> tuple[str, ...]:
        """Names of the memories in it that keep, when a lesson is forgotten, what it did to weights that all share."""
        return () if self.learns_from == "nothing" or type(self).forget is not Memory.forget else (self.name,)

    def consolidate(self, known: Knowledge, adapter: Adapter, report: LearnReport) -> tuple[Knowledge, int]:
        """Merge lessons that are hard to tell apart -> what is then known, and how many sets of them there were.

        Raises LearningError where lessons do not get into each other's way.
        """
        raise LearningError(f"memory {self.name!r} has nothing to consolidate: only memoir's lessons share their room")

    def trainable(self, state: State) -> tuple[str, ...]:
        """Names of the float tensors of `state` that offline training may change. Default: none.

        `rewrite` must be differentiable in them: training calls it with `state | params`, `params` these tensors.
        """
        return ()

    def prepare(self, state: State, pairs: Sequence[tuple[str, str]], adapter: Adapter) -> State:
        """The state with room for (question, answer) pairs before offline training, e.g. allotted rows of a table.

        The model behaves with it as with `state`. Default: `state` itself.
        """
        return state

    def check_state(self, arrays: dict[str, Any], lessons: Sequence[Lesson], adapter: Adapter) -> None:
        """Raises StateError if what a file holds does not fit this memory and model; all mismatches at once."""
        import numpy as np  # here: reading a user's turn needs lessons, not numbers

        fresh = {name: adapter.ops.to_numpy(array) for name, array in self.fresh(adapter).items()}
        problems = [f"no tensor {name!r}" for name in fresh if name not in arrays]
        problems += [f"unexpected tensor {name!r}" for name in arrays if name not in fresh]
        for name in fresh.keys() & arrays.keys():
            found, expected = tuple(arrays[name].shape), tuple(fresh[name].shape)
            if len(found) != len(expected) or any(e not in (0, f) for f, e in zip(found, expected, strict=True)):
                problems.append(f"tensor {name!r} has shape {found}, expected {expected}")
            elif np.asarray(arrays[name]).dtype.kind != fresh[name].dtype.kind:
                problems.append(f"tensor {name!r} holds {arrays[name].dtype}, expected {fresh[name].dtype}")
        grown = {name: len(arrays[name]) for name in self.rows if name in arrays and arrays[name].ndim}
        if len(set(grown.values())) > 1:
            problems.append(f"as many rows are expected in each of {grown}")
        if problems:
            raise StateError(f"the file does not fit memory {self.name!r} with these options: {listed(problems)}")

    def together(self, one: State, other: State, lessons: Sequence[Lesson]) -> State:
        """The states of two files as one, where neither has a tensor that the other has as something else; `lessons`:
        those of both."""
        return {**one, **other}

    def to_beside(self, state: State, ops: Ops) -> bytes | None:
        """What is kept in a file beside the memory file since it takes long to make; None for nothing. It can always be
        made again, and says itself what it belongs to."""
        return None

    def from_beside(self, state: State, data: bytes, ops: Ops) -> None:
        """Take it over, unless it belongs to another state: then it is made again."""

    def near(self, state: State, text: str, adapter: Adapter) -> list[tuple[str, float]]:
        """Ids of what is stored, and how near each is to a text, the nearest first."""
        return []

    def pictures(self, state: State, tokens: Sequence[int], adapter: Adapter) -> list[Picture]:
        """What it does at each of some tokens, to be looked at."""
        return []

    def reader_of(self, name: str, lessons: bool = True) -> Memory | None:
        """Which memory reads the file of a memory of this name, with or without lessons: itself, or the part of a
        composition that is all of it but what `completed` adds."""
        return self if name == self.name else None

    def completed(self, reader: Memory, known: Knowledge, adapter: Adapter) -> Knowledge:
        """What is known to this memory where `reader` has read a file of its own."""
        return known

    def reading_options(self) -> dict[str, Any]:
        """The options that decide how a state is read: a file is loaded only with those it was made with."""
        return {name: getattr(self.options, name) for name, one in self.options.declared().items() if not one.learning}

    def options_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self.options)

    def resident_bytes(self, state: State) -> int:
        """Bytes of state held, for reports."""
        return sum(int(array.nbytes) for array in state.values())


def dtype_of(array: Any) -> str:
    """Which of the dtypes that every backend has a NumPy array is held in."""
    return {"f": "float16" if array.dtype.itemsize == 2 else "float32", "b": "bool"}.get(array.dtype.kind, "int64")


def on_host(ops: Ops, array: Array) -> np.ndarray:
    """An array of a state as NumPy has it; what a memory holds as such is not copied."""
    import numpy as np

    return array if isinstance(array, np.ndarray) else ops.to_numpy(array)
