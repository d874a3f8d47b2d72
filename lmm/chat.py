"""The chat: text in, text out. Knows no tensors.

Loading starts at launch, in the background, while the first message is typed.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from lmm import runtime, state
from lmm.config import Config
from lmm.errors import Cancelled, LmmError
from lmm.sanitize import Cleaner, clean

if TYPE_CHECKING:
    from lmm.engine import Engine

BYE = ("exit", "quit")


class Loading:
    """An engine that is being made in a background thread."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._engine: Engine | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._load, name="loading", daemon=True)
        self._thread.start()

    def _load(self) -> None:
        try:
            self._engine = runtime.open_engine(self._config, notice=say)
        except BaseException as error:
            self._error = error

    def engine(self) -> Engine:
        """The engine, waiting for it if need be. Raises what loading raised."""
        while self._thread.is_alive():
            self._thread.join(0.1)  # in short waits, so that Ctrl-C gets through
        if self._error is not None:
            raise self._error
        assert self._engine is not None
        return self._engine


def say(text: str) -> None:
    print(f"lmm: {clean(text)}", file=sys.stderr)


def run(config: Config) -> None:
    """Chat until the user leaves; save on `exit`, `quit` and end of input, not on Ctrl-C at the prompt."""
    runtime.check(config)
    loading = Loading(config)
    talking = sys.stdin.isatty() and sys.stdout.isatty()
    try:
        while (text := _read(talking)) is not None:
            if text.strip().lower() in BYE:
                break
            if text.strip():
                _turn(loading.engine(), text.strip())
    except KeyboardInterrupt:
        say("left without saving")
        raise
    engine = loading.engine()
    _save(engine, config)
    engine.close()
    if engine.log is not None:
        engine.log.close()


def _read(talking: bool) -> str | None:
    if talking:
        try:
            return input("> ")
        except EOFError:
            print()
            return None
    line = sys.stdin.readline()
    return line if line else None


def _turn(engine: Engine, text: str) -> None:
    cleaner = Cleaner()
    try:
        engine.hear(text)
        for chunk in engine.answer():
            print(cleaner.feed(chunk), end="", flush=True)
    except Cancelled as error:
        say(str(error))
    except LmmError as error:
        say(str(error))
    print(cleaner.flush())


def _save(engine: Engine, config: Config) -> None:
    path = config.mm_save_path or state.default_save_path(engine.memory.name)
    engine.save(path)
    say(f"saved to {path}")


if __name__ == "__main__":
    from lmm.cli import chat_main

    chat_main()
