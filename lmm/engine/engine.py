"""One turn: hear, learn, answer, log. Owns the memory's life: attach, swap, undo, save, load.

The engine knows a conversation as tokens and a memory as a value; it knows no terminal and no array library. Every
lesson, from the chat, the command line or the benchmark, goes through `learn`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmm.adapters import generation
from lmm.adapters.generation import Generated
from lmm.adapters.sampling import Decoding, softmax_at
from lmm.engine.below import Below
from lmm.engine.conversation import Conversation, prompt_tokens
from lmm.errors import Cancelled, LearningError, TooLongError
from lmm.files import state_file as state_files
from lmm.files.traces import Trace
from lmm.lesson import Knowledge, Lesson, State
from lmm.memory.base import LearnReport, Memory, Prompt, Recall, UserMessage

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter, Cache, Site, TapContext
    from lmm.adapters.ops import Array
    from lmm.files.activation_log import ActivationLog

MAX_UNDO = 1000


@dataclass
class Reply:
    """An answer and how it came about. `recall` says which lessons fired."""

    prompt: str
    generated: Generated = field(default_factory=Generated)
    recall: Recall | None = None
    learned: LearnReport | None = None
    read: list[int] = field(default_factory=list)  # the tokens it is a reply to

    @property
    def text(self) -> str:
        return self.generated.text.rstrip()


def without(memory: Memory, lesson_id: str, *stacks: list[Knowledge]) -> list[list[Knowledge]]:
    """Versions without one lesson, stack by stack; those it is not in are the same objects. Raises LearningError."""

    def rest(version: Knowledge) -> Knowledge:
        if all(lesson.id != lesson_id for lesson in version.lessons):
            return version
        kept = tuple(lesson for lesson in version.lessons if lesson.id != lesson_id)
        return Knowledge(memory.forget(version.state, lesson_id), kept)

    return [[rest(version) for version in stack] for stack in stacks]


class Engine:
    """A model, a memory and a conversation."""

    def __init__(
        self,
        adapter: Adapter,
        memory: Memory,
        system: str = "",
        decoding: Decoding | None = None,
        log: ActivationLog | None = None,
        seed: int = 0,
    ) -> None:
        self.adapter, self.memory, self.log, self.seed = adapter, memory, log, seed
        self.decoding = decoding or Decoding()
        self.version = Knowledge(memory.fresh(adapter, seed))
        self.undo_stack: list[Knowledge] = []
        self.redo_stack: list[Knowledge] = []
        self.saved: Knowledge | None = self.version
        self.cancelled = threading.Event()
        self.recall: Recall | None = None
        self.cache: Cache = adapter.new_cache()
        self._below: Below | None = Below()  # for `_rebuild`; None: not this conversation is being read
        self.start(system)
        self._attached = self._attach(memory)

    # the conversation ----------------------------------------------------------------------------------------
    def start(self, system: str = "") -> None:
        """A new conversation; what was learned stays."""
        self.conversation = Conversation(self.adapter.format, system)
        self._clear_cache()

    def hear(self, text: str, learn: bool = True) -> LearnReport | None:
        """Take in the user's message. A memory that learns from messages learns from it here, if it may.

        If that fails or is cancelled, the message was not heard: `hear(text, learn=False)` takes it in without.
        Raises TooLongError if the conversation would be longer than the model can read.
        """
        before = replace(self.conversation, messages=list(self.conversation.messages))
        self.conversation.ask(text)
        read, most = len(self.conversation.tokens), self.adapter.shape.context
        if most and read >= most:
            self.conversation = before
            raise TooLongError(
                f"the conversation would have {read:,} tokens, and the model reads fewer than {most:,}; "
                "ask in fewer words, or begin a new conversation (/new)"
            )
        self._trim_to(self.conversation.tokens)
        if "messages" not in self.memory.learns_from or not learn:
            for stage in ("pre_hooks", "post_hooks"):  # as of every user message, also where nothing is learned
                self._log_update(stage, {"last_user_response": text})
            return None
        start = self.cache.length
        tokens, content = self.conversation.tokens[start:], self.conversation.content[start:]
        try:
            return self.learn(Lesson(statement=text), UserMessage(tokens, content, self.cache if start else None))
        except BaseException:
            self.conversation = before
            raise

    def answer(self, about: str = "") -> Iterator[str]:
        """Stream the reply to the last message heard; afterwards `self.last` is the whole of it.

        `about` is the question whose lessons apply, where it is not the message itself: "no, it's Canberra" is about
        the question before it. Stops within one token of `self.cancelled`, and keeps what was said.
        """
        self.cancelled.clear()
        text = self.conversation.messages[-1]["content"]
        self._trim_to(self.conversation.tokens)
        self.recall = self._recall([about or text])
        self.last = Reply(text, recall=self.recall)
        out = self.last.generated
        tokens = self.conversation.tokens
        if self.recall is not None:
            tokens = self._with_text(tokens, text, self.recall)
            self.recall.start = len(tokens) - 1
        self.last.read = list(tokens)
        try:
            self.cache = yield from self._steps(tokens, out)
        finally:
            self.recall = None
            self.conversation.replied(out.text, out.tokens)
            self._trim_to(self.conversation.tokens, unread=0)
            if self.log is not None:
                self.log.flush()

    def reply(self, text: str) -> Reply:
        """Hear a message and answer it, without streaming."""
        report = self.hear(text)
        for _ in self.answer():
            pass
        self.last.learned = report
        return self.last

    def _steps(self, tokens: Sequence[int], out: Generated) -> Generator[str, None, Cache]:
        cache = self.cache
        try:
            cache = yield from generation.stream(self.adapter, tokens, cache, self.decoding, out, self.cancelled.is_set)
        except GeneratorExit:
            out.interrupted = True
            raise
        return cache

    def _with_text(self, tokens: list[int], text: str, recall: Recall) -> list[int]:
        """The tokens to read when the memory speaks through the prompt: the last message with its text before it."""
        if not recall.text or not recall.text[0]:
            return tokens
        conversation = Conversation(self.adapter.format, messages=list(self.conversation.messages[:-1]))
        conversation.ask(f"{recall.text[0]}\n\n{text}")
        self._trim_to(conversation.tokens)
        return conversation.tokens

    # questions in empty conversations ----------------------------------------------------------------------------
    def ask_many(
        self,
        prompts: Sequence[str],
        max_tokens: int = 32,
        batch_size: int = 32,
        progress: Callable[[int], None] | None = None,
    ) -> list[Reply]:
        """Greedy replies, each in an empty conversation. Prompts of equal length are answered together."""
        from lmm.engine import asking

        return asking.ask_many(self, prompts, max_tokens, batch_size, progress)

    def probabilities(
        self, tokens: Sequence[int], targets: Sequence[int], recall: Recall | None, memory: bool = True
    ) -> np.ndarray:
        """How likely each of `targets` [N] is in its place after the last N of `tokens`, with or without the memory."""
        below, self._below, self.recall = self._below, None, recall
        try:
            with contextlib.nullcontext() if memory else self.adapter.quiet():
                read = np.asarray(tokens, np.int64).reshape(1, -1)
                logits, _ = self.adapter.forward(read, self.adapter.new_cache(), len(targets))
        finally:
            self._below, self.recall = below, None
        return softmax_at(self.adapter.ops.to_numpy(logits)[0], targets)

    def recall_many(self, prompts: Sequence[str], batch_size: int) -> list[Recall | None]:
        """What the memory decides about each prompt in an empty conversation."""
        recalls: list[Recall | None] = []
        for i in range(0, len(prompts), batch_size):
            some = prompts[i : i + batch_size]
            recall = self._recall(some)
            recalls += [None if recall is None else self.memory.row(recall, j) for j in range(len(some))]
        return recalls

    def score(self, prompts: Sequence[str], answers: Sequence[str], batch_size: int = 32) -> list[list[bool]]:
        """Teacher forcing: which tokens of each answer, the end of turn last, the model would have chosen itself."""
        from lmm.engine import scoring

        return scoring.token_hits(self, prompts, answers, batch_size)

    @contextlib.contextmanager
    def holding(self, recall: Recall | None, start: int) -> Iterator[None]:
        """Forward passes inside belong to a reply that begins at position `start`, outside the conversation."""
        if recall is not None:
            recall.start = start
        below, self._below = self._below, None
        self.recall = recall
        try:
            yield
        finally:
            self.recall, self._below = None, below

    def recall_of(self, prompts: Sequence[Prompt]) -> Recall | None:
        """What the memory decides about a batch of prompts."""
        with self.adapter.quiet():
            return self.memory.on_prompt(self.version.state, self.version.lessons, prompts, self.adapter)

    def _recall(self, texts: Sequence[str]) -> Recall | None:
        return self.recall_of([Prompt(text, prompt_tokens(self.adapter.format, text)) for text in texts])

    # learning ----------------------------------------------------------------------------------------------------
    def learn(
        self,
        lesson: Lesson,
        turn: UserMessage | None = None,
        on_step: Callable[[LearnReport], None] | None = None,
    ) -> LearnReport:
        """Teach one lesson: all of it or, after an error or `self.cancelled`, nothing.

        Raises LearningError, or Cancelled.
        """
        self.cancelled.clear()
        start = time.perf_counter()
        report = LearnReport(on_step=self._stepper(on_step))
        self._log_update("pre_hooks", {"lesson_id": lesson.id, "last_user_response": lesson.statement})
        with self.adapter.quiet():
            new = self.memory.learn(*_understood(self.version, lesson), self.adapter, turn, report)
        self._check_finite(new.state)
        self.commit(new)
        report.seconds = time.perf_counter() - start
        self._log_update("post_hooks", _update_info(lesson, report, self.adapter.format.piece))
        return report

    def commit(self, version: Knowledge) -> None:
        """Make `version` what is known, so that it can be undone."""
        self.undo_stack = [*self.undo_stack[-MAX_UNDO:], self.version]
        self.redo_stack = []
        self._become(version)

    def undo(self, count: int = 1) -> int:
        """Step back in time, bit for bit; returns how many steps there were."""
        return self._travel(self.undo_stack, self.redo_stack, count)

    def redo(self, count: int = 1) -> int:
        return self._travel(self.redo_stack, self.undo_stack, count)

    def _travel(self, back: list[Knowledge], forth: list[Knowledge], count: int) -> int:
        done = min(count, len(back))
        version = self.version
        for _ in range(done):
            forth.append(version)
            version = back.pop()
        if done:
            self._become(version)
        return done

    @property
    def lessons_ever(self) -> list[Lesson]:
        """Those known now, then those that undo or redo would bring back."""
        versions = (self.version, *self.undo_stack, *self.redo_stack)
        return list({lesson.id: lesson for version in versions for lesson in version.lessons}.values())

    def forget(self, lesson_id: str, said: Sequence[str] = ()) -> Lesson:
        """Remove one lesson from the state, the header, the history of undo and the log. Raises LearningError.

        `said`: whole messages that taught it, if it is one of several facts in them.
        """
        lesson = next((x for x in self.lessons_ever if x.id == lesson_id), None)
        if lesson is None:
            raise LearningError(f"there is no lesson {lesson_id!r}; see /lessons")

        [new], self.undo_stack, self.redo_stack = without(
            self.memory, lesson_id, [self.version], self.undo_stack, self.redo_stack
        )
        self._become(new)
        if self.log is not None:
            self.log.purge(Trace.of_lesson(lesson, said))
        return lesson

    def reset(self) -> None:
        """Back to the fresh memory; can be undone."""
        self.commit(Knowledge(self.memory.fresh(self.adapter, self.seed)))

    def _become(self, version: Knowledge) -> None:
        self.version = version
        if self.memory.rewrites_history:
            self._rebuild()

    def _check_finite(self, state: State) -> None:
        for name, array in state.items():
            if array is self.version.state.get(name):
                continue
            values = self.adapter.ops.to_numpy(array)
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise LearningError(f"the lesson made {name} NaN or infinite; the memory is as before it")

    def _stepper(self, on_step: Callable[[LearnReport], None] | None) -> Callable[[LearnReport], None]:
        def step(report: LearnReport) -> None:
            if on_step is not None:
                on_step(report)
            if self.cancelled.is_set():
                raise Cancelled("learning was stopped; the memory is as before")

        return step

    @property
    def unsaved(self) -> bool:
        return self.version is not self.saved

    # attaching ---------------------------------------------------------------------------------------------------
    def swap(self, memory: Memory, version: Knowledge | None = None) -> None:
        """Put another memory in place while the conversation goes on. What was said is read anew with it."""
        fresh = version or Knowledge(memory.fresh(self.adapter, self.seed))
        attached = self._attach(memory)  # where that fails, nothing has changed
        self.detach()
        self._attached = attached
        self.memory, self.version, self.saved = memory, fresh, fresh
        self.undo_stack, self.redo_stack = [], []
        self._clear_cache()

    def detach(self) -> None:
        """Leave the model bitwise as it was."""
        self._attached.close()

    close = detach

    def _attach(self, memory: Memory) -> contextlib.ExitStack:
        sites = memory.sites(self.adapter)
        with contextlib.ExitStack() as stack:
            if memory.rewrites_history:
                lowest = min(sites, key=lambda site: site.first_layer)
                below = "residual" if lowest.part == "residual" else "pre_attention"
                stack.enter_context(self.adapter.tap(self.adapter.site(lowest.layer, below), self._capture))
            for site in sites:
                stack.enter_context(self.adapter.tap(site, self._rewriter(site)))
            return stack.pop_all()

    def _rewriter(self, site: Site) -> Callable[[Array, Array, TapContext], Array]:
        def rewrite(x_in: Array, x_out: Array, context: TapContext) -> Array:
            new = self.memory.rewrite(self.adapter.ops, self.version.state, self.recall, x_in, x_out, context)
            if self.log is not None:
                self._log_hook(site, context, x_out, new)
            return new

        return rewrite

    # the cache ---------------------------------------------------------------------------------------------------
    def _clear_cache(self) -> None:
        self.cache = self.adapter.new_cache()
        self._below = Below()

    def _capture(self, x_in: Array, x_out: Array, context: TapContext) -> Array:
        if self._below is not None:
            self._below.add(int(context.positions[0]), x_out)
        return x_out

    def _trim_to(self, tokens: Sequence[int], unread: int = 1) -> None:
        """Keep of the cache what `tokens` begin with, but for the last `unread`: reading at least one token is what
        gives the next one's logits."""
        read, now = self.cache.tokens[0], np.asarray(tokens, np.int64)
        n = min(len(read), max(len(now) - unread, 0))
        differ = np.flatnonzero(read[:n] != now[:n])
        n = int(differ[0]) if len(differ) else n
        if n < len(read):
            self.cache = self.adapter.trim(self.cache, n)

    def _rebuild(self) -> None:
        """After a lesson: the layers above the memory read the conversation anew, those below stand."""
        below = self._below
        if below is None:
            return
        below.cut(self.cache.length)
        if below.length < self.cache.length:
            self.cache = self.adapter.trim(self.cache, below.length)
        if below.length == 0:
            return
        first = min(site.first_layer for site in self.memory.sites(self.adapter))
        self._below = None  # what is read now is known already
        try:
            self.cache = self.adapter.refill(self.cache, below.joined(self.adapter.ops), first)
        finally:
            self._below = below

    # files -------------------------------------------------------------------------------------------------------
    def save(self, path: str | Path) -> Path:
        """Write what is known. Raises StateError; nothing that was learned is lost then."""
        arrays = {name: self.adapter.ops.to_numpy(array) for name, array in self.version.state.items()}
        state_files.save(path, arrays, self.header())
        self.saved = self.version
        return Path(path)

    def load(self, path: str | Path) -> state_files.Header:
        """Make a file what is known. Raises StateError before anything changes."""
        arrays, header = state_files.load(path, self.expected())
        self.memory.check_state(arrays, header.lessons, self.adapter)
        ops = self.adapter.ops
        state = {name: ops.asarray(array, _dtype_name(array)) for name, array in arrays.items()}
        self.commit(Knowledge(state, tuple(header.lessons)))
        self.saved = self.version
        return header

    def header(self) -> state_files.Header:
        adapter = self.adapter
        return state_files.Header(
            module=self.memory.name,
            options=self.memory.options_dict(),
            model_id=adapter.model_id,
            revision=adapter.revision,
            layer=self.memory.sites(adapter)[0].layer,
            layers=adapter.shape.layers,
            width=adapter.shape.width,
            tokenizer_hash=adapter.format.hash,
            backend=adapter.name,
            lessons=list(self.version.lessons),
        )

    def expected(self) -> state_files.Expected:
        header = self.header()
        return state_files.Expected(
            header.model_id, header.layer, header.layers, header.width, header.tokenizer_hash, header.module
        )

    # the log -----------------------------------------------------------------------------------------------------
    def _log_hook(self, site: Site, context: TapContext, before: Array, after: Array) -> None:
        assert self.log is not None
        x_in, x_out = (self.adapter.ops.to_numpy(x[:, -1, -5:]) for x in (before, after))
        shape = tuple(before.shape)
        self.log.hook(self.memory.name, site, context.phase, context.positions, x_in, x_out, shape)

    def _log_update(self, stage: str, info: dict[str, Any]) -> None:
        if self.log is not None:
            self.log.update(stage, info, module=self.memory.name)


def _understood(known: Knowledge, lesson: Lesson) -> tuple[Knowledge, Lesson]:
    """Both as the reader understands them; of what is known, the lessons that have no question of their own."""
    from lmm.feedback import understood

    lessons = tuple(x if x.prompt or x.reading else understood(x) for x in known.lessons)
    return replace(known, lessons=lessons), understood(lesson)


def _update_info(lesson: Lesson, report: LearnReport, piece: Callable[[int], str]) -> dict[str, Any]:
    from lmm.files.activation_log import loss_by_decoded_token

    info = {
        "lesson_id": lesson.id,
        "last_user_response": lesson.statement,
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


def _dtype_name(array: np.ndarray) -> str:
    return {"f": "float16" if array.dtype == np.float16 else "float32", "b": "bool"}.get(array.dtype.kind, "int64")
