"""One session: what commands and the prompt work on. Knows text and files; no tensors, no keys."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmm.chat import commands
from lmm.chat.loading import Loading
from lmm.config import Config
from lmm.errors import Cancelled, LearningError, LmmError
from lmm.lesson import Knowledge

if TYPE_CHECKING:
    from lmm.chat.talk import Talk
    from lmm.chat.view import ConsoleView
    from lmm.engine.conversation import Turn
    from lmm.engine.engine import Engine
    from lmm.engine.mind import Mind
    from lmm.files.traces import Trace
    from lmm.files.transcripts import Session, Transcript
    from lmm.lesson import Lesson


class Chat:
    """One session: what commands and the prompt work on."""

    def __init__(
        self,
        config: Config,
        loading: Loading,
        view: Callable[[], ConsoleView],
        transcript: Transcript | None = None,
        resumed: Session | None = None,
    ) -> None:
        self.config, self.loading, self.transcript, self.resumed = config, loading, transcript, resumed
        self.prefill = ""
        self.files: set[Path] = set()  # memory files loaded or saved in this session
        self.exports: set[Path] = set()  # conversations written out
        self.shelf: dict[str, Mind] = {}  # memories that are not in use, as they were when another took their place
        self.stop = threading.Event()
        self.purge_history: Callable[[Trace, str], object] = _purge_history
        self.make_view = view
        self._made_view: ConsoleView | None = None
        self._talk: Talk | None = None
        self._first_memory = config.memory

    # what commands use -------------------------------------------------------------------------------------------
    @property
    def view(self) -> ConsoleView:
        """Made when first needed: it imports rich, for which the prompt does not wait."""
        if self._made_view is None:
            self._made_view = self.make_view()
        return self._made_view

    @property
    def loaded(self) -> Engine | None:
        return self.loading.engine

    @property
    def talk(self) -> Talk:
        if self._talk is None:
            self._talk = self._begin()
        return self._talk

    @property
    def engine(self) -> Engine:
        return self.talk.engine

    @property
    def mind(self) -> Mind:
        return self.engine.mind

    def _begin(self) -> Talk:
        from lmm.chat.talk import Talk

        engine = self.loading.wait(self.stop.is_set)
        for notice in self.loading.notices:
            self.view.say(notice)
        talk = Talk(engine, self.view, lambda: self.config)
        talk.stop = self.stop
        if self.config.mm_load_path and os.path.exists(self.config.mm_load_path):
            self.files.add(Path(self.config.mm_load_path).resolve())
        if self.resumed is not None:
            talk.resume(self.resumed.records)
        return talk

    def cancel(self) -> None:
        """Ctrl-C while something is going on; called from a signal handler."""
        self.stop.set()
        if self.loading.engine is not None:
            self.loading.engine.mind.cancelled.set()

    def record(self, values: Mapping[str, Any]) -> None:
        """Add to the transcript."""
        if self.transcript is None:
            return
        failed = self.transcript.error
        self.transcript.add(values)
        if self.transcript.error and not failed:
            self.view.say(f"{self.transcript.error}; the chat goes on without it")

    def done(self, turn: Turn | None) -> None:
        """Note a turn in the transcript."""
        if turn is not None:
            self.record(turn.record())

    def edit(self, text: str) -> str | None:
        """A text written in $EDITOR. Raises UsageError if none can be run."""
        import click

        from lmm.chat.interrupts import typing_mode
        from lmm.errors import UsageError

        if self.view.ask is None:
            raise UsageError("/edit needs a terminal")
        try:
            with typing_mode(shown=True):
                return click.edit(text, require_save=False)
        except click.ClickException as error:
            raise UsageError(f"{error.message}; set EDITOR to the editor you like") from error

    # memories ----------------------------------------------------------------------------------------------------
    def use_memory(self, name: str) -> None:
        """Put another memory in place; the one before keeps its state. Raises UsageError."""

        if name == self.config.memory:
            return
        mind, before = self.shelf.get(name) or self._new_mind(name), self.mind
        self.engine.use(mind)
        self.shelf.pop(name, None)
        self.shelf[self.config.memory] = before
        self.config = self._config_of(mind)

    def _config_of(self, mind: Mind) -> Config:
        """The configuration that makes a mind's memory: its options may come from a file, or from the parts of it."""
        options = mind.memory.options_dict()
        return dataclasses.replace(self.config, memory=mind.memory.name, preset=None, options=options)

    def _new_mind(self, name: str) -> Mind:
        """A mind for a memory; a composition has its parts as they are in this session, with what they know."""
        from lmm.engine import runtime
        from lmm.engine.mind import Mind
        from lmm.memory.composite import Composite

        mine = self.mind
        minds = self.shelf | {self.config.memory: mine}
        parts = {part: minds[part] for part in name.split("+") if part in minds}
        options = {f"{part}.{key}": v for part, mind in parts.items() for key, v in mind.memory.options_dict().items()}
        memory = runtime.build_memory(dataclasses.replace(self.config, memory=name, preset=None, options=options))
        new = Mind(mine.adapter, memory, self.config.seed, mine.log)
        new.detach()
        if isinstance(memory, Composite):
            known = {part: mind.knowledge for part, mind in parts.items()}
            state = memory.join({name: one.state for name, one in known.items()}, new.knowledge.state)
            lessons = {x.id: x for one in known.values() for x in one.lessons}
            new.knowledge = new.history.saved = Knowledge(state, tuple(lessons.values()))
        return new

    def use_model(self, name: str) -> None:
        """Go on with another model, in a new conversation.

        States belong to a model, so those with something unsaved are written first, and the lessons of the memory in
        use are then taught to the new model; what it does not learn is said. Raises LmmError or Cancelled; until the
        new model is there, the old one goes on.
        """
        from lmm.chat.talk import Talk
        from lmm.engine import runtime

        old, view = self.engine, self.view
        mine = self._config_of(old.mind)
        config = dataclasses.replace(mine, model=name, revision=None, mm_load_path=None, mm_save_path=None)
        runtime.check(config)
        coming = Loading(lambda new: runtime.open_engine(config, progress=new.report, notice=new.notices.append))
        view.say(f"loading {name}")
        engine = coming.wait(self.stop.is_set)
        if any(mind.unsaved for mind in (old.mind, *self.shelf.values())):
            for path in self.save_all():
                view.say(f"saved to {path}, which fits the model before")
        lessons = old.mind.lessons
        old.close()
        coming.changed = self.loading.changed
        self.config, self.loading, self.shelf, self.resumed = config, coming, {}, None
        self._talk = Talk(engine, view, lambda: self.config)
        self._talk.stop = self.stop
        self.record({"kind": "model", "model": name})
        for lesson in lessons:
            try:
                self._talk.teach(lesson, "" if lesson.prompt else lesson.statement)
            except LearningError as error:
                view.say(f"not learned: {lesson.prompt or lesson.statement}: {error}")

    def kept(self, name: str) -> tuple[int, str]:
        """(how many lessons a memory knows in this session, whether it is in use)."""
        if name == self.config.memory:
            return len(self.mind.lessons), "in use"
        return (len(self.shelf[name].lessons), "kept") if name in self.shelf else (0, "")

    def save(self, path: str | None = None) -> Path:
        """Write the memory in use. Raises StateError."""
        return self._save(self.mind, Path(path).expanduser() if path else self._save_path(self.config.memory))

    def _save(self, mind: Mind, target: Path) -> Path:
        mind.save(target)
        self.files.add(target.resolve())
        self.record({"kind": "saved", "path": str(target.resolve())})
        return target

    def _save_path(self, memory: str) -> Path:
        """The save path that was given is meant for the memory the session was started with."""
        from lmm.files import state_file

        chosen = self.config.mm_save_path if memory == self._first_memory else None
        return Path(chosen) if chosen else state_file.default_save_path(memory)

    def save_all(self) -> list[Path]:
        """Write the memory in use, and those on the shelf with something unsaved. Raises StateError; where only the
        place that was asked for is no good, what was learned is in another one by then."""
        from lmm.errors import StateError

        failed: StateError | None = None
        paths: list[Path] = []
        aside = {name: mind for name, mind in self.shelf.items() if mind.unsaved}
        for name, mind in ({self.config.memory: self.mind} | aside).items():
            try:
                paths.append(self._save(mind, self._save_path(name)))
            except StateError as error:
                failed = error
                paths.append(self._save_elsewhere(mind))
                self.view.say(f"saved to {paths[-1]} instead")
        if failed is not None:
            raise failed
        return paths

    def _save_elsewhere(self, mind: Mind) -> Path:
        """In the usual place, with the user's data, or where temporary files go. Raises StateError if none will do."""
        import tempfile

        from lmm.errors import StateError
        from lmm.files import state_file
        from lmm.files.transcripts import data_dir

        for folder in (Path("artifacts"), data_dir() / "artifacts", Path(tempfile.gettempdir())):
            with contextlib.suppress(StateError):
                return self._save(mind, state_file.default_save_path(mind.memory.name, folder))
        raise StateError(f"nowhere could the memory be saved: {state_file.IN_A_SESSION}")

    def said_with(self, lesson_id: str) -> list[str]:
        """The messages that taught a lesson, as far as the transcripts can be read."""
        from lmm.errors import UsageError
        from lmm.files import transcripts

        with contextlib.suppress(UsageError):
            return transcripts.said_with(lesson_id)
        return []

    def forgotten(self, lesson: Lesson, typed: str, said: Sequence[str]) -> None:
        """After `Mind.forget`: take the lesson out of this session's files, what was typed and what was said."""
        from lmm.engine import memory_files
        from lmm.files import transcripts
        from lmm.files.traces import Trace

        trace = Trace.of_lesson(lesson, said)
        self.talk.drop(trace)
        self._forget_aside(lesson.id)
        problems: list[str] = []
        for path in sorted(self.files):
            with _noted(problems):
                memory_files.forget_if_there(path, lesson.id)
        with _noted(problems):
            transcripts.purge(trace)
        with _noted(problems):
            self.purge_history(trace, typed)
        for problem in problems:
            self.view.say(f"still on disk: {problem}")
        for path in sorted(self.exports):
            with contextlib.suppress(OSError):
                if trace.is_named_in(path.read_text(encoding="utf-8", errors="replace")):
                    self.view.say(f"still in {path}, which was exported before; it is yours to keep or delete")
        left = memory_files.still_holding(lesson.id)
        if left:
            self.view.say(memory_files.still_there(left, lesson.id))

    def _forget_aside(self, lesson_id: str) -> None:
        """Forget a lesson in the memories that /memory put aside, too."""
        for name, mind in self.shelf.items():
            saved = not mind.unsaved
            try:
                if any(lesson.id == lesson_id for lesson in mind.lessons_ever):
                    mind.forget(lesson_id)
            except LmmError as error:
                self.view.say(f"still known to memory {name!r}: {error}")
                continue
            if saved:
                mind.history.saved = mind.knowledge  # its file has been cleaned as well

    # the status line ---------------------------------------------------------------------------------------------
    def status(self, width: int) -> str:
        """One line under the prompt. Imports nothing while the model is loading."""
        engine = self.loading.engine
        if engine is None:
            from lmm.text.sanitize import clean

            what = "failed to load" if self.loading.error else f"loading {self.config.model}"
            return clean(f"{what} {self.loading.progress}".strip())[: max(width, 0)]
        from lmm.chat.render import status_line

        last = self._talk.last if self._talk else None
        speed = last.generated.tokens_per_s if last and last.generated else None
        return status_line(
            model=self.config.model,
            backend=engine.adapter.name,
            memory=self.config.memory,
            lessons=len(engine.mind.lessons),
            unsaved=engine.mind.unsaved,
            tokens_per_second=speed or None,
            context_used=len(engine.conversation.tokens),
            width=width,
        )

    # one line of input -------------------------------------------------------------------------------------------
    def line(self, text: str) -> None:
        """A message or a command. Raises EOFError to leave, and what loading raised; other errors are shown."""
        self.stop.clear()
        try:
            if commands.is_command(text):
                commands.run(self, text)
            elif text.strip():
                self.done(self.talk.turn(text.strip()))
        except Cancelled as error:
            self.prefill = text if self._talk is None else ""
            self.view.say(str(error))
        except LmmError as error:
            if error is self.loading.error:
                raise
            self.view.say(str(error))
        except EOFError:
            raise
        except Exception as error:
            if error is self.loading.error:
                raise
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        """A mistake of ours: what was learned is still here, so the session goes on."""
        import traceback

        self.view.say(
            f"internal error: {type(error).__name__}: {error}; the session goes on, /save keeps what it learned"
        )
        if os.environ.get("LMM_DEBUG"):
            self.view.say("".join(traceback.format_exception(error)))


def _purge_history(trace: Trace, typed: str) -> None:
    """What was typed in other chats, where this one has no prompt."""
    from lmm.chat.history import JsonHistory, history_path

    JsonHistory(history_path()).purge(trace, typed)


@contextlib.contextmanager
def _noted(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except (LmmError, OSError) as error:
        problems.append(str(error))
