"""One session: what commands and the prompt work on. Knows text and files; no tensors, no keys."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmm.chat import commands
from lmm.chat.busy import Busy
from lmm.chat.loading import Loading
from lmm.config import LIVE, Config
from lmm.errors import Cancelled, LmmError, NotKeptError, StateError
from lmm.text.utf8 import whole

if TYPE_CHECKING:
    from lmm.chat.history import JsonHistory
    from lmm.chat.talk import Talk
    from lmm.chat.view import ConsoleView
    from lmm.engine.conversation import Dialogue, Turn
    from lmm.engine.engine import Engine
    from lmm.engine.mind import Mind
    from lmm.files.transcripts import Session, Transcript
    from lmm.lesson import Lesson


HINT = "Ctrl-C again to leave without saving, Ctrl-D to save and leave"
KEYS = (
    ("Ctrl-C", "stop; clear the line; twice at an empty line: leave without saving"),
    ("Ctrl-D", "save and leave, as do exit and quit"),
)


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
        self.coming: Loading | None = None  # another model, that is waited for
        self.prefill = ""
        self.files: set[Path] = set()  # memory files loaded or saved in this session
        self.exports: set[Path] = set()  # conversations written out
        self.listed: list[str] = []  # ids of the lessons as they were last listed: what a number means
        self.shelf: dict[str, Mind] = {}  # memories that are not in use, as they were when another took their place
        self.not_kept = 0  # lessons of commands that could not be written
        self.unanswered = 0  # messages that an error kept from being answered
        self.stop = threading.Event()
        self.history: JsonHistory | None = None  # of the prompt, if there is one
        self.make_view = view
        self.commands, self.live, self.hint, self.keys = commands.COMMANDS, LIVE, HINT, KEYS
        self.first_memory = config.memory  # for which a save path was given
        self.busy = Busy(self.doing)
        self._talk: Talk | None = None

    # what commands use -------------------------------------------------------------------------------------------
    @cached_property
    def view(self) -> ConsoleView:
        """Made when first needed: it imports rich, for which the prompt does not wait."""
        made = self.make_view()
        made.busy = self.busy
        return made

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

    @property
    def minds(self) -> dict[str, Mind]:
        """The memories of this session by name: the one in use, and those put aside."""
        return {self.config.memory: self.mind} | self.shelf

    @property
    def lessons(self) -> Sequence[Lesson]:
        """What is known. While the model loads, as the file has it: for that nobody need wait."""
        if self.loading.engine is None and self.loading.error is None:
            with contextlib.suppress(StateError, OSError):  # what is wrong with it is said once it is loaded
                return self.kept_lessons()
        self.mind.look()
        return self.mind.lessons

    @property
    def lessons_ever(self) -> Sequence[Lesson]:
        """Also those that undo or redo would bring back."""
        return self.mind.lessons_ever

    @property
    def offered(self) -> Sequence[Lesson]:
        """Those that a completion offers: it waits for nothing."""
        return self.loaded.mind.lessons if self.loaded else ()

    @property
    def conversation(self) -> Dialogue:
        return self.engine.conversation

    @property
    def about(self) -> dict[str, str]:
        """What an export says of where it was said."""
        return {"model": self.engine.adapter.model_id, "memory": self.mind.memory.name}

    def kept_lessons(self) -> Sequence[Lesson]:
        """What the file has from which this chat starts, if there is one. Raises StateError and OSError."""
        from lmm.files import standing

        file = Path(self.config.mm_load_path) if self.config.mm_load_path else standing.file_of(self.config)
        if file is None or not file.exists():
            return ()
        from lmm.files import journal  # brings NumPy, which an empty start does not wait for

        return journal.read_header(file).lessons

    def _begin(self) -> Talk:
        from lmm.chat import forgetting
        from lmm.chat.talk import Talk

        engine = self.loading.wait(self.stop.is_set)
        for notice in self.loading.notices:
            self.view.say(notice)
        talk = Talk(engine, self.view, lambda: self.config, self.stop)
        talk.forget = lambda lesson, typed: forgetting.offer(self, lesson, typed)
        if self.config.mm_load_path and os.path.exists(self.config.mm_load_path):
            self.files.add(Path(self.config.mm_load_path).resolve())
        if self.resumed is not None:
            talk.resume(self.resumed.records)
        return talk

    def cancel(self) -> None:
        """Ctrl-C while something is going on; called from a signal handler."""
        self.stop.set()
        self.busy.doing = ""  # what is said now is that it stops
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

    def done(self, turn: Turn | None, more: bool = False) -> None:
        """Note a turn in the transcript; with `more`, the last one has a longer reply now."""
        if turn is not None:
            self.record(turn.record() | ({"more": True} if more else {}))

    def undo(self, count: int) -> int:
        return self.mind.undo(count)

    def forget(self, lesson: Lesson, typed: str, deep: bool = False) -> None:
        """Take out a lesson, and what it has left behind."""
        from lmm.chat import forgetting

        forgetting.forget(self, lesson.id, typed, deep)

    def new(self) -> None:
        """Begin a new conversation."""
        self.engine.start(self.engine.conversation.system)
        self.record({"kind": "new"})

    def close(self) -> None:
        """Put what each memory of this session knows into its file, and leave the model as it was."""
        if self.loaded is not None:
            for mind in self.shelf.values():
                mind.close()
            self.loaded.close()

    def switch(self, config: Config, loading: Loading) -> None:
        """Go on with another engine, in a new conversation."""
        loading.changed = self.loading.changed
        self.config, self.loading, self.resumed, self._talk = config, loading, None, None
        self.shelf.clear()

    def doing(self) -> str:
        """What is going on while the user waits."""
        if self.coming is not None:
            return self.coming.progress
        if self.loading.engine is None:
            return self.loading.progress or f"loading {self.config.model_name}"
        if self.stop.is_set():
            return "stopping"
        if self._talk is not None and self._talk.doing:
            return self._talk.doing
        turn = self.loading.engine.conversation.last
        read = turn.generated.reading if turn is not None and turn.generated is not None else None
        return f"reading, {read[0]:,} of {read[1]:,} tokens" if read else "thinking"

    # the status line ---------------------------------------------------------------------------------------------
    def status(self, width: int) -> str:
        """One line under the prompt. Imports nothing while the model is loading."""
        engine = self.loading.engine
        if engine is None:
            from lmm.text.sanitize import clean

            what = f"failed to load {self.config.model_name}" if self.loading.error else self.doing()
            return clean(what)[: max(width, 0)]
        from lmm.chat.render import status_line

        last = self._talk.last if self._talk else None
        speed = last.generated.tokens_per_s if last and last.generated else None
        return status_line(
            model=self.config.model_name,
            backend=engine.adapter.name,
            memory=self.config.memory,
            lessons=len(engine.mind.lessons),
            unsaved=engine.mind.at_risk,
            tokens_per_second=speed or None,
            context_used=engine.conversation.length,
            context=engine.adapter.shape.context,
            width=width,
        )

    # one line of input -------------------------------------------------------------------------------------------
    def line(self, text: str) -> None:
        """A message or a command. Raises EOFError to leave, and what loading raised; other errors are shown."""
        self.stop.clear()
        self.busy.start(after=0.2 if commands.is_command(text) else 0.0)
        try:
            whole(text, "the message")
            self.view.below(1 if text.strip() == "/more" else None)
            if commands.is_command(text):
                commands.run(self, text)
            elif text.strip():
                turn = self.talk.turn(text.strip())
                self.done(turn)
                if turn is None and self.stop.is_set():  # else what it took back was forgotten
                    self._say_unanswered()
        except Cancelled as error:
            self.prefill = text if self._talk is None else ""
            self.view.say(str(error))
            if not self.prefill and not commands.is_command(text):
                self._say_unanswered()
        except LmmError as error:
            if error is self.loading.error:
                raise
            self.unanswered += not commands.is_command(text)
            self.not_kept += isinstance(error, NotKeptError)
            self.view.say(str(error))
        except EOFError:
            raise
        except Exception as error:
            if error is self.loading.error:
                raise
            self.unanswered += not commands.is_command(text)
            self._failed(error)
        finally:
            self.busy.stop()

    def _say_unanswered(self) -> None:
        self.view.say("your message was not answered" + ("; Up brings it back" if self.history else ""))

    def _failed(self, error: Exception) -> None:
        """A mistake of ours: what was learned is still here, so the session goes on."""
        import traceback

        what = f"{type(error).__name__}: {error}"
        self.view.say(f"internal error: {what}; the session goes on, /save keeps what it learned")
        if os.environ.get("LMM_DEBUG"):
            self.view.say("".join(traceback.format_exception(error)))
