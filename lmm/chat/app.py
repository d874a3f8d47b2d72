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
from lmm.errors import Cancelled

if TYPE_CHECKING:
    from lmm.chat.view import ConsoleView
    from lmm.engine.engine import Engine
    from lmm.files.transcripts import Session

BYE = ("exit", "quit")


def run(config: Config, resume: str | None = None) -> None:
    """Chat until the user leaves. `resume` goes on with an earlier session: its id, or "" for the last one.

    `exit`, `quit` and end of input save; so do SIGTERM and SIGHUP. Ctrl-C twice at an empty prompt does not, and
    raises KeyboardInterrupt.
    """
    from lmm.files import transcripts

    talking = sys.stdin.isatty() and sys.stdout.isatty()
    resumed = transcripts.find(resume) if resume is not None else None
    if resumed is not None:
        config = resumed_config(config, resumed)
    transcript = transcripts.Transcript(resumed.path if resumed else None, **config.about)
    chat = Chat(config, Loading(lambda loading: _open(config, loading)), _make_view, transcript, resumed)
    if talking:
        _at_terminal(chat)
    else:
        _in_pipe(chat)


def _open(config: Config, loading: Loading) -> Engine:
    from lmm.engine import runtime

    runtime.check(config)
    return runtime.open_engine(config, progress=loading.report, notice=loading.notices.append)


def resumed_config(config: Config, session: Session) -> Config:
    """Go on with the memory that was saved then, unless another file was named."""
    if config.mm_load_path or not session.saved or not os.path.exists(session.saved):
        return config
    memory = session.about.get("memory")
    return dataclasses.replace(
        config, mm_load_path=session.saved, memory=memory if isinstance(memory, str) else config.memory
    )


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
    with typing_mode(shown=False), Interrupts(chat.cancel, repl.leave) as signals, _left(chat, signals):
        while not signals.leaving:
            prefill, chat.prefill = chat.prefill, ""
            text = repl.read(prefill, chat.loading.start)
            if text.strip().lower() in BYE:
                break
            chat.line(text)


def _in_pipe(chat: Chat) -> None:
    """Answer each line of stdin. Commands work here too; Ctrl-C leaves."""
    with contextlib.suppress(AttributeError):
        sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
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


@contextlib.contextmanager
def _left(chat: Chat, signals: Interrupts) -> Iterator[None]:
    """After it, save and close. A signal that comes while the model is still loading finds nothing to save."""
    try:
        yield
    except (EOFError, OSError, Leave):  # Ctrl-D, or a terminal that is gone
        pass
    except KeyboardInterrupt:
        chat.view.say("left without saving")
        raise
    if not signals.leaving:
        chat.stop.clear()
        if chat.loaded is None and not chat.loading.error:
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
            if chat.loaded is not None:
                chat.loaded.close()
    if signals.leaving:
        raise SystemExit(128 + signals.leaving)
