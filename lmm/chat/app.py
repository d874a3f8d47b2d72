"""The chat: text in, text out. Knows no tensors.

Loading starts at launch, in the background, while the first message is typed: nothing heavy is imported before the
prompt is on the screen.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from lmm.chat.interrupts import Interrupts, Leave, typing_mode
from lmm.chat.loading import Loading
from lmm.chat.session import Chat
from lmm.config import Config
from lmm.errors import Cancelled, LmmError, StateError
from lmm.text.counted import counted
from lmm.text.utf8 import keep_bytes
from lmm.text.when import day

if TYPE_CHECKING:
    from lmm.chat.view import ConsoleView
    from lmm.engine.engine import Engine
    from lmm.files.transcripts import Session

BYE = ("exit", "quit")


def run(config: Config, resume: str | None = None) -> None:
    """Chat until the user leaves. `resume` goes on with an earlier session: its id, or "" for the last one.

    `exit`, `quit` and end of input save a copy of what was learned; so do SIGTERM and SIGHUP. Ctrl-C twice at an empty
    prompt does not, and raises KeyboardInterrupt. In a standing memory, what was learned stays either way.
    """
    from lmm.files import transcripts

    talking = sys.stdin.isatty() and sys.stdout.isatty()
    resumed = transcripts.find(resume, piped=not talking) if resume is not None else None
    if resumed is not None:
        config = resumed_config(config, resumed)
    _check_names(config)
    transcript = transcripts.Transcript(resumed.path if resumed else None, **config.about, piped=not talking)
    chat = Chat(config, Loading(lambda loading: _open(config, loading)), _make_view, transcript, resumed)
    if talking:
        _at_terminal(chat)
    else:
        _in_pipe(chat)
        if chat.view.failed is not None:  # nobody has seen the replies
            raise chat.view.failed
        if lost := chat.not_kept + (chat.talk.not_kept if chat.loaded is not None else 0):
            raise LmmError(f"{counted(lost, 'lesson')} could not be kept")
        if chat.unanswered:
            raise LmmError(f"{counted(chat.unanswered, 'message')} could not be answered")


def _check_names(config: Config) -> None:
    """What is wrong with a name is said before anything else is shown. Raises UsageError."""
    from lmm import registry
    from lmm.adapters.models import source
    from lmm.files import standing

    for part in config.memory.split("+"):
        registry.check("lmm.memories", "memory", part)
    source.check_name(config.model)
    standing.file_of(config)


def _open(config: Config, loading: Loading) -> Engine:
    from lmm.engine import runtime

    runtime.check(config)
    return runtime.open_engine(config, progress=loading.report, notice=loading.notices.append)


def resumed_config(config: Config, session: Session) -> Config:
    """Go on with the memory of then, the standing one or the one that was saved, unless another file was named."""
    about = session.about
    memory = about.get("memory")
    then = dataclasses.replace(config, memory=memory) if isinstance(memory, str) else config
    if config.mm_load_path:
        return config
    if about.get("fresh") is False and not (about.get("mm_load_path") or about.get("mm_save_path")):
        profile = about.get("profile")
        return dataclasses.replace(then, profile=config.profile or (profile if isinstance(profile, str) else None))
    if session.saved and os.path.exists(session.saved):
        return dataclasses.replace(then, mm_load_path=session.saved)
    return config


def _make_view(ask: Callable[[str], str] | None = None) -> ConsoleView:
    from lmm.chat.view import make_view

    return make_view(ask=ask)


def _at_terminal(chat: Chat) -> None:
    from lmm.chat.history import JsonHistory, history_path
    from lmm.chat.repl import Repl

    history = JsonHistory(history_path())
    history.compact()
    repl = Repl(chat, history)
    chat.history = history  # to forget also what it offers with Up
    chat.make_view = lambda: _make_view(repl.ask)
    chat.loading.changed = lambda: repl.leave() if chat.loading.error else repl.refresh()
    repl.show(_greeting(chat))
    for line in _going_on(chat):
        repl.show(line)
    with typing_mode(shown=False), Interrupts(chat.cancel, repl.leave) as signals, _left(chat, signals):
        while not signals.leaving:
            prefill, chat.prefill = chat.prefill, ""
            text = repl.read(prefill, chat.loading.start)
            if text.strip().lower() in BYE:
                break
            chat.line(text)
    if chat.transcript is not None and chat.transcript.path.exists():
        chat.view.say("go on with: lmm chat --continue")


def _in_pipe(chat: Chat) -> None:
    """Answer each line of stdin. Commands work here too; Ctrl-C leaves."""
    keep_bytes(sys.stdin)
    chat.loading.start()
    with Interrupts(chat.cancel) as signals, _left(chat, signals):
        while not signals.leaving:
            with signals.reading():
                line = sys.stdin.readline()
            if not line or line.strip().lower() in BYE:
                break
            chat.line(line.rstrip("\n"))
            if chat.stop.is_set() and not signals.leaving:
                raise KeyboardInterrupt


def _greeting(chat: Chat) -> str:
    """One line: what this is, what it talks with, and what it knows. It waits for no model."""
    import lmm

    config, known = chat.config, ""
    with contextlib.suppress(StateError, OSError):  # what is wrong with it is said once it is loaded
        if lessons := chat.kept_lessons():
            known = f", {counted(len(lessons), 'lesson')} since {day(min(x.time for x in lessons))}"
    fresh = " · fresh, nothing stays known" if config.fresh and not config.mm_load_path else ""
    return f"lmm {lmm.__version__} · {config.model_name} · {config.memory}{known}{fresh} · /help"


def _going_on(chat: Chat) -> list[str]:
    """Where an earlier session was left."""
    if chat.resumed is None or not chat.resumed.turns:
        return []
    user, reply = chat.resumed.turns[-1]
    return [f"going on with {counted(len(chat.resumed.turns), 'turn')}; the last:", f"> {user}", reply]


def _left_behind(chat: Chat) -> str:
    """What becomes of what was learned, where nothing is saved."""
    keepers = [mind.keeper for mind in chat.minds.values() if mind.keeper] if chat.loaded else []
    for keeper in keepers:
        if keeper.named:
            keeper.discard()
    taught = [lesson for keeper in keepers for lesson in keeper.taught]
    if not taught:
        return "left without saving"
    stay, last = ("stays", "it") if len(taught) == 1 else ("stay", "the last one")
    return f"left; {counted(len(taught), 'lesson')} of this chat {stay} known. To take {last} back: lmm memory undo"


@contextlib.contextmanager
def _left(chat: Chat, signals: Interrupts) -> Iterator[None]:
    """After it, save and close. A signal that comes while the model is still loading finds nothing to save."""
    try:
        yield
    except (EOFError, OSError, Leave):  # Ctrl-D, or a terminal that is gone
        pass
    except KeyboardInterrupt:
        chat.view.say(_left_behind(chat))
        chat.close()
        raise
    if not signals.leaving:
        chat.stop.clear()
        if chat.loaded is None and not chat.loading.error:
            if chat.history is not None and not (chat.config.mm_load_path or chat.config.mm_save_path):
                return  # nobody waits for a model that has learned nothing
            chat.view.say("saving as soon as the model is loaded; Ctrl-C leaves without")
    if not signals.leaving or chat.loaded is not None:
        from lmm.chat.saving import save_all

        chat.stop.clear()
        try:
            for path in save_all(chat):
                chat.view.say(f"saved to {path}")
        except Cancelled:
            raise KeyboardInterrupt from None
        finally:
            chat.close()
    if signals.leaving:
        raise SystemExit(128 + signals.leaving)
