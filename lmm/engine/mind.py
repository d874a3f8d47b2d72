"""A mind: a memory in a model, what it knows, how it came to know it, and its file.

Every lesson, from the chat, the command line or the benchmark, goes through `learn`; every file that becomes what is
known goes through `load`. A mind knows no conversation: `Engine` has one over it.
"""

from __future__ import annotations

import contextlib
import hashlib
import operator
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmm.engine.history import History, Steps
from lmm.engine.keeper import difference
from lmm.errors import Cancelled, LearningError
from lmm.feedback import understood
from lmm.files import journal, state_file
from lmm.files.atomic import write_atomically
from lmm.files.journal import Change
from lmm.files.traces import Trace
from lmm.lesson import TALK, TURN, Knowledge, Lesson, State, earlier, without
from lmm.memory.base import LearnReport, Memory, Prompt, Recall, UserMessage, on_host

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter, Site, TapContext
    from lmm.adapters.ops import Array
    from lmm.engine.keeper import Keeper
    from lmm.files.activation_log import ActivationLog

MAX_UNDO = 1000
Watch = Callable[[int, "Array"], None]  # a position, and the states [B, T, D] below the memory from there on


class Mind:
    """A memory that is attached to a model until `detach`."""

    def __init__(self, adapter: Adapter, memory: Memory, seed: int = 0, log: ActivationLog | None = None) -> None:
        self.adapter, self.memory, self.seed, self.log = adapter, memory, seed, log
        self.knowledge = Knowledge(memory.fresh(adapter, seed))
        self._history, self._theirs = History(saved=self.knowledge), list[tuple[int, Change]]()
        self.cancelled = threading.Event()
        self.recall: Recall | None = None  # of the reply that is being read or given
        self.keeper: Keeper | None = None  # of the file that has at once what is known, if there is one
        self._watch: Watch | None = None
        self._taps = contextlib.ExitStack()
        self.attach()

    # in the model ------------------------------------------------------------------------------------------------
    def attach(self) -> None:
        """Let the memory act. Where that fails, the model is as it was."""
        sites = self.memory.sites(self.adapter)
        with contextlib.ExitStack() as stack:
            if self.memory.rewrites_history:
                lowest = min(sites, key=lambda site: site.first_layer)
                below = "residual" if lowest.part == "residual" else "pre_attention"
                stack.enter_context(self.adapter.tap(self.adapter.site(lowest.layer, below), self._seen))
            for site in sites:
                tap = stack.enter_context(self.adapter.tap(site, self._rewriter(site)))
                tap.passes = lambda: self.memory.passes(self.recall)
            self._taps = stack.pop_all()

    def detach(self) -> None:
        """Leave the model bitwise as it was."""
        self._taps.close()

    def close(self) -> None:
        """Detach, close the log, and put what is kept in its file."""
        self.detach()
        if self.keeper is not None:
            self.keeper.close()
        if self.log is not None:
            self.log.close()

    def _rewriter(self, site: Site) -> Callable[[Array, Array, TapContext], Array]:
        def rewrite(x_in: Array, x_out: Array, context: TapContext) -> Array:
            new = self.memory.rewrite(self.adapter.ops, self.knowledge.state, self.recall, x_in, x_out, context)
            if self.log is not None:
                self._log_hook(site, context, x_out, new)
            return new

        return rewrite

    def _seen(self, x_in: Array, x_out: Array, context: TapContext) -> Array:
        if self._watch is not None:
            self._watch(int(context.positions[0]), x_out)
        return x_out

    @contextlib.contextmanager
    def holding(self, recall: Recall | None, start: int = 0, watch: Watch | None = None) -> Iterator[None]:
        """Forward passes inside belong to a reply that begins at position `start`; `watch` gets what is read."""
        if recall is not None:
            recall.start = start
        before = self.recall, self._watch
        self.recall, self._watch = recall, watch
        try:
            yield
        finally:
            self.recall, self._watch = before

    def recall_of(self, prompts: Sequence[Prompt]) -> Recall | None:
        """What the memory decides about a batch of prompts."""
        with self.adapter.quiet():
            return self.memory.on_prompt(self.knowledge.state, self.knowledge.lessons, prompts, self.adapter)

    # learning ----------------------------------------------------------------------------------------------------
    def learn(
        self,
        lesson: Lesson,
        message: UserMessage | None = None,
        on_step: Callable[[LearnReport], None] | None = None,
        beside: Collection[str] = (),
    ) -> LearnReport:
        """Teach one lesson: all of it or, after an error or `self.cancelled`, nothing. `beside`: ids of lessons that
        were said in the same breath, which it therefore does not make out of date.

        Raises LearningError, or Cancelled.
        """
        self._check_length(lesson)
        start = time.perf_counter()
        report = self.stoppable(on_step, "learning was stopped; the memory is as before")
        self.log_update("pre_hooks", {"lesson_id": lesson.id, "last_user_response": lesson.statement})
        with self._turn(), self.adapter.quiet():
            known = replace(self.knowledge, lessons=tuple(_read(x) for x in self.knowledge.lessons))
            if lesson.statement and message is None:
                outdated = (old for old in self.outdated_by(lesson) if old not in beside)
                lesson = replace(lesson, supersedes=(*lesson.supersedes, *outdated))
                old = known.superseded(lesson)
                lesson = replace(lesson, supersedes=tuple(dict.fromkeys((*lesson.supersedes, *(x.id for x in old)))))
                lesson = self.memory.in_place_of(lesson, old, self.adapter)
            knowledge = self.memory.learn(known, understood(lesson), self.adapter, message, report)
            self._check_finite(knowledge.state)
            self.commit(knowledge)
        report.seconds = time.perf_counter() - start
        self.log_update("post_hooks", _update_info(lesson, report, self.adapter.format.piece))
        return report

    def look(self) -> None:
        """Take over what others have changed in the file that is kept."""
        if self.keeper is not None:
            self.keeper.look()

    def outdated_by(self, lesson: Lesson, surely: bool = False) -> tuple[str, ...]:
        """Ids of what is no longer true if this is."""
        return tuple(self.memory.outdated(self.knowledge, lesson, self.adapter, surely))

    def end_turn(self, lesson: Lesson, message: UserMessage) -> None:
        """Let a memory that learns from turns take in what was said: from then on it was always known, and undo takes
        back lessons only. Raises LearningError, or Cancelled, and nothing has changed."""
        with self._turn(), self.adapter.quiet():
            after = self.memory.after_turn(self.knowledge, lesson, message, self.adapter)
            self._check_finite(after.state)
            self._drift(after)

    def begin(self) -> None:
        """A conversation begins. Raises LearningError, or Cancelled, and nothing has changed."""
        with self._turn():
            self._drift(self.memory.begun(self.knowledge))

    def _drift(self, after: Knowledge) -> None:
        """Come to know something without a step that could be undone."""
        before, history = self.knowledge, self.history
        if after is not before:
            self._become(after, back_to=after)
            change = difference(before, after, operator.is_)
            history.undo, history.redo = (Steps(_changed(x, change) for x in s) for s in (history.undo, history.redo))

    def _check_length(self, lesson: Lesson) -> None:
        """What the model cannot read at once it cannot be taught: said before anything is computed."""
        format, most = self.adapter.format, self.adapter.shape.context
        if not most:
            return
        asked = max(len(format.prompt_tokens(text)) for text in (lesson.prompt, lesson.statement, *lesson.wordings))
        found = asked + len(format.encode(lesson.answer or lesson.echo))
        if found >= most:
            raise LearningError(
                f"it has {found:,} tokens, and the model reads fewer than {most:,}; say it in fewer words"
            )

    def stoppable(self, on_step: Callable[[LearnReport], None] | None, said: str) -> LearnReport:
        """A report whose steps raise Cancelled with `said` once `self.cancelled` is set, from now on."""
        self.cancelled.clear()

        def step(report: LearnReport) -> None:
            if on_step is not None:
                on_step(report)
            if self.cancelled.is_set():
                raise Cancelled(said)

        return LearnReport(on_step=step)

    def commit(self, knowledge: Knowledge) -> None:
        """Make it what is known, so that it can be undone. Raises LearningError where it cannot be kept."""
        with self._turn():
            before, history = self.knowledge, self._history
            self._become(knowledge, before)
            history.undo.append(before)
            history.redo = Steps()
            if len(history.undo) > MAX_UNDO:
                history.undo.drop_oldest()
                self._theirs = [(steps - 1, change) for steps, change in self._theirs]

    def undo(self, count: int = 1) -> int:
        """Step back in time, bit for bit; returns how many steps there were."""
        return self._travel(lambda history: (history.undo, history.redo), count, undoing=True)

    def redo(self, count: int = 1) -> int:
        return self._travel(lambda history: (history.redo, history.undo), count, undoing=False)

    def _travel(self, stacks: Callable[[History], tuple[Steps, Steps]], count: int, undoing: bool) -> int:
        with self._turn():
            back, forth = stacks(self.history)
            done = min(count, len(back))
            for _ in range(done):
                before = self.knowledge
                self._become(back.newest, None if undoing else before)
                back.pop()
                forth.append(before)
            return done

    def _become(self, knowledge: Knowledge, back_to: Knowledge | None) -> None:
        if self.keeper is not None:
            self.keeper.keep(knowledge, back_to)
        self.knowledge = knowledge

    def _turn(self) -> contextlib.AbstractContextManager[None]:
        """Inside, nobody else changes what is known and kept in a file."""
        return contextlib.nullcontext() if self.keeper is None else self.keeper.turn()

    def adopt(self, change: Change) -> None:
        """Take over what another mind has written into the file that both keep. What was taught there was always known
        here: undo takes back this mind's own lessons, and neither it nor redo brings back what was superseded there.
        Where lessons share their weights, it cannot, and the history ends."""
        history, before = self._history, self.knowledge
        shared = any(name in before.state for name in change.tensors)
        change = replace(change, tensors=self.held(change.tensors))
        self.knowledge = _changed(before, change)
        if history.saved is before:
            history.saved = self.knowledge
        if shared:
            self.history = History(saved=history.saved)
        else:
            self._theirs.append((len(history.undo), change))

    @property
    def history(self) -> History:
        """What was known before and could be again, with what others have taught since. That is put into the steps when
        these are asked for: with several who teach, most of them never are."""
        if self._theirs:
            history, theirs, later, undo = self._history, list(self._theirs), Change(), list[Knowledge]()
            for number, known in zip(range(len(history.undo), 0, -1), reversed(history.undo), strict=True):
                while theirs and theirs[-1][0] >= number:
                    later = journal.joined((theirs.pop()[1], later))
                undo.append(self._adopted(known, later))
            # a redo is older than all of them: what is learned here ends it
            later = journal.joined((*(change for _, change in theirs), later))
            redo = [self._adopted(one, later) for one in history.redo]
            self.history = History(_steps(undo[::-1], self.knowledge), _steps(redo, self.knowledge), history.saved)
        return self._history

    @history.setter
    def history(self, history: History) -> None:
        self._history, self._theirs = history, []

    def _adopted(self, known: Knowledge, change: Change) -> Knowledge:
        new = {lesson.id for lesson in change.lessons}
        old = {x.id for x in known.superseded(*change.lessons)} - new
        known = _changed(known, change)
        for lesson_id in old:
            known = self._without(lesson_id, known)
        return known

    def reset(self, seed: int | None = None) -> None:
        """Back to the fresh memory, of another seed if one is given; can be undone."""
        self.commit(Knowledge(self.memory.fresh(self.adapter, self.seed if seed is None else seed)))

    @property
    def lessons(self) -> tuple[Lesson, ...]:
        return self.knowledge.lessons

    @property
    def lessons_ever(self) -> list[Lesson]:
        """Those known now, then those that undo or redo would bring back."""
        known = (self.knowledge, *self.history.undo, *self.history.redo)
        return list({lesson.id: lesson for one in known for lesson in one.lessons}.values())

    def replaced_by(self, lesson: Lesson) -> list[Lesson]:
        """What is known no longer because of a lesson, and undo would bring back."""
        return earlier(lesson, without(self.lessons_ever, self.lessons))

    def forget(self, lesson_id: str, said: Sequence[str] = ()) -> Lesson:
        """Remove one lesson from what is known, the history and the log. Raises LearningError, and StillThereError when
        it is gone, but for bytes of it.

        `said`: whole messages that taught it, if it is one of several facts in them.
        """
        with self._turn():
            lesson = next((x for x in self.lessons_ever if x.id == lesson_id), None)
            if lesson is None:
                raise LearningError(f"there is no lesson {lesson_id!r}; see /lessons")
            history = self.history
            undo, redo = ([_relieved(one, lesson) for one in stack] for stack in (history.undo, history.redo))
            undo, redo = ([self._without(lesson_id, one) for one in stack] for stack in (undo, redo))
            before = _relieved(self.knowledge, lesson)
            knowledge = self._without(lesson_id, before)
            self._become(knowledge, before)
            history.undo, history.redo = _steps(undo, knowledge), _steps(redo, knowledge)
            if self.keeper is not None:
                self.keeper.forget(lesson)
            if self.log is not None:
                self.log.purge(Trace.of_lesson(lesson, said))
        return lesson

    def _without(self, lesson_id: str, knowledge: Knowledge) -> Knowledge:
        if all(lesson.id != lesson_id for lesson in knowledge.lessons):
            return knowledge
        kept = tuple(lesson for lesson in knowledge.lessons if lesson.id != lesson_id)
        return Knowledge(self.memory.forget(knowledge.state, lesson_id), kept)

    def _check_finite(self, state: State) -> None:
        for name, array in state.items():
            if array is self.knowledge.state.get(name):
                continue
            values = on_host(self.adapter.ops, array)
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise LearningError(f"the lesson made {name} NaN or infinite; the memory is as before it")

    # files -------------------------------------------------------------------------------------------------------
    @property
    def unsaved(self) -> bool:
        """Whether something was learned since the start or the last save."""
        return self.knowledge is not self.history.saved

    @property
    def at_risk(self) -> bool:
        """Whether something that was learned is in no file."""
        return self.unsaved and self.keeper is None

    def save(self, path: str | Path, about: dict[str, Any] | None = None, advice: str = "") -> Path:
        """Write what is known; `about` goes into the header. Raises StateError (its message ends with `advice`);
        nothing that was learned is lost then."""
        path = Path(path)
        if self.keeper is not None and path.exists() and path.resolve() == self.keeper.file.resolve():
            self.keeper.settle()
        else:
            arrays = {name: on_host(self.adapter.ops, array) for name, array in self.knowledge.state.items()}
            header = replace(self.header(), extra=about or {})
            journal.replace(path, arrays, header, advice or state_file.IN_A_SESSION)
            self.save_beside(path)
        self.history.saved = self.knowledge
        return path

    def save_beside(self, path: Path) -> None:
        """Keep beside a file what would take long to make again; not being able to is no loss."""
        data = self.memory.to_beside(self.knowledge.state, self.adapter.ops)
        if data is not None:
            beside, whole = journal.beside_of(path), hashlib.sha256(data).digest() + data
            with contextlib.suppress(OSError):
                if not beside.exists() or beside.read_bytes() != whole:
                    write_atomically(beside, [whole])

    def _load_beside(self, path: Path, state: State) -> None:
        with contextlib.suppress(OSError):
            data = journal.beside_of(path).read_bytes()
            if hashlib.sha256(data[32:]).digest() == data[:32]:
                self.memory.from_beside(state, data[32:], self.adapter.ops)

    def load(self, path: str | Path) -> state_file.Header:
        """Make a file what is known. Raises StateError before anything changes: for a file that is damaged, of another
        memory, made with other options (a seed, a number of bits decide how a state is read), or of another model. A
        composition also reads the file of its one part that takes steps to learn.

        The file that the mind has kept stays as it is: from then on nothing is kept there.
        """
        knowledge, header = self.read(Path(path))
        if self.keeper is not None:
            self.keeper.settle()
            self.keeper = None
        self.commit(knowledge)
        self.history.saved = self.knowledge
        return header

    def begin_with(self, path: Path, undos: Sequence[Change] = ()) -> None:
        """The same at the very beginning: to go back to are only the changes before, which `undos` take back."""
        self.begin_from(self.read(path)[0], undos)

    def begin_from(self, known: Knowledge, undos: Sequence[Change] = ()) -> None:
        self.knowledge = known
        steps = [self.knowledge]
        for change in reversed(undos):
            steps.append(_changed(steps[-1], replace(change, tensors=self.held(change.tensors))))
        self.history = History(undo=Steps(steps[:0:-1]), saved=self.knowledge)

    def read(self, path: Path) -> tuple[Knowledge, state_file.Header]:
        """What a file has, as this mind could know it. Raises StateError."""
        header = state_file.read_header(path)
        memory = self.memory.reader_of(header.module, bool(header.lessons)) or self.memory
        arrays, header = journal.load(path, self.expected(memory))
        memory.check_state(arrays, header.lessons, self.adapter)
        known = Knowledge(memory.held(self.adapter.ops, arrays), tuple(header.lessons))
        with self.adapter.quiet():
            known = self.memory.completed(memory, known, self.adapter)
        self._load_beside(path, known.state)
        return known, header

    def held(self, arrays: Mapping[str, np.ndarray]) -> State:
        """Arrays as the model's backend has them."""
        return self.memory.held(self.adapter.ops, arrays)

    def header(self) -> state_file.Header:
        adapter = self.adapter
        return state_file.Header(
            module=self.memory.name,
            options=self.memory.options_dict(),
            model_id=adapter.model_id,
            revision=adapter.revision,
            layer=self.memory.sites(adapter)[0].layer,
            layers=adapter.shape.layers,
            width=adapter.shape.width,
            tokenizer_hash=adapter.format.hash,
            backend=adapter.name,
            lessons=list(self.knowledge.lessons),
        )

    def expected(self, memory: Memory | None = None) -> state_file.Expected:
        """What a file must say of itself to become what is known; `memory`: which reads it, if it is a part of ours."""
        header, memory = self.header(), memory or self.memory
        source = getattr(self.adapter, "source", None)
        return state_file.Expected(
            model_id=header.model_id,
            layer=memory.sites(self.adapter)[0].layer,
            layers=header.layers,
            width=header.width,
            tokenizer_hash=header.tokenizer_hash,
            module=memory.name,
            options=memory.reading_options(),
            typed=source and source.name,
            folder=source and source.folder.name,
        )

    # the log -----------------------------------------------------------------------------------------------------
    def _log_hook(self, site: Site, context: TapContext, before: Array, after: Array) -> None:
        assert self.log is not None
        x_in = self._slice(before)
        x_out = x_in if after is before else self._slice(after)
        self.log.hook(self.memory.name, site, context.phase, context.positions, x_in, x_out, tuple(before.shape))

    def _slice(self, x: Array) -> np.ndarray:
        """hidden_states[:, -1, -5:]; cut in NumPy, which does that faster than others."""
        return self.adapter.ops.to_numpy(x)[:, -1, -5:].copy()

    def log_update(self, stage: str, info: dict[str, Any]) -> None:
        if self.log is not None:
            self.log.update(stage, info, module=self.memory.name)


def _changed(known: Knowledge, change: Change) -> Knowledge:
    state, lessons = change.applied(known.state, known.lessons)
    return Knowledge(state, tuple(lessons))


def _relieved(known: Knowledge, lesson: Lesson) -> Knowledge:
    """With nothing in other lessons that they have of this one."""
    lessons = tuple(x.relieved_of(lesson) for x in known.lessons)
    return known if lessons == known.lessons else Knowledge({**known.state}, lessons)


def _steps(stack: Sequence[Knowledge], now: Knowledge) -> Steps:
    """Those of a stack that differ from what comes after them: to go back to the same would be no step."""
    following = [*stack, now][1:]
    return Steps(one for one, then in zip(stack, following, strict=True) if not _same(one, then))


def _same(a: Knowledge, b: Knowledge) -> bool:
    shared = a.lessons == b.lessons and a.state.keys() == b.state.keys()
    return shared and all(a.state[name] is b.state[name] for name in a.state)


def _read(lesson: Lesson) -> Lesson:
    """A lesson of an earlier day as the reader understands it, if it has no question of its own."""
    return lesson if lesson.prompt or lesson.reading or lesson.source in (TURN, TALK) else understood(lesson)


def _update_info(lesson: Lesson, report: LearnReport, piece: Callable[[int], str]) -> dict[str, Any]:
    from lmm.files.activation_log import loss_by_decoded_token

    info = {
        "lesson_id": lesson.id,
        "last_user_response": lesson.statement,
        "question": lesson.prompt,
        "answer": lesson.answer,
        "steps": report.steps,
        "loss_before": report.loss_before,
        "loss_after": report.loss_after,
        "seconds": round(report.seconds, 4),
        **report.details,
    }
    ids, losses = info.get("user_response_target_token_ids"), info.get("user_response_token_losses")
    if ids and losses:
        info["user_response_token_loss_by_decoded_token"] = loss_by_decoded_token([piece(i) for i in ids], losses)
    return info
