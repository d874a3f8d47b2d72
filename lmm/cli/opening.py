"""A model with its memory for as long as a command runs, and the file it leaves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lmm.cli.options import say
from lmm.errors import UsageError

if TYPE_CHECKING:
    from lmm.config import Config
    from lmm.engine.mind import Mind


@contextlib.contextmanager
def opened(config: Config) -> Iterator[Mind]:
    """The mind of a configuration, closed in the end; what a user should know about loading it goes to stderr."""
    from lmm.chat.busy import Busy
    from lmm.chat.loading import step
    from lmm.engine import runtime

    busy = Busy(lambda: f"loading {config.model_name}", beside=True)

    def progress(done: int, total: int, text: str) -> None:
        if total:
            busy.doing = step(done, total, text)
        else:
            notice(text)

    def notice(text: str) -> None:
        busy.stop()
        say(text)
        busy.start()

    runtime.check(config)
    busy.start()
    try:
        mind = runtime.open_mind(config, progress, notice)
    finally:
        busy.stop()
    try:
        yield mind
    finally:
        mind.close()


def check_place(config: Config, mind: Mind) -> None:
    """Find out before anything is learned that it cannot be saved where that was asked for. Raises UsageError."""
    from lmm.files import atomic, own

    if mind.keeper is not None or not config.mm_save_path:
        return
    own.check(config.mm_save_path, own.MEMORY)
    try:
        atomic.check_writable(config.mm_save_path)
    except OSError as error:
        reason = f"{config.mm_save_path} cannot be written: {error.strerror or error}"
        raise UsageError(f"nothing was learned: {reason}; name another file with --mm-save-path") from error


def saved(config: Config, mind: Mind) -> Path:
    """Where it was saved: the place that was asked for, where it is kept anyway, or else a new file."""
    from lmm.files import state_file

    if mind.keeper is not None and mind.keeper.file.exists():
        mind.keeper.settle()
        return mind.keeper.file
    path = mind.save(config.mm_save_path or state_file.default_save_path(mind.memory.name))
    say(f"saved to {path}")
    return path
