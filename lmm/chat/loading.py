"""An engine that is made in the background, while the first message is typed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from lmm.errors import Cancelled

if TYPE_CHECKING:
    from lmm.engine.engine import Engine


def step(done: int, total: int, text: str) -> str:
    """In words, how far it is first: a narrow screen cuts off the end."""
    return f"loading, {100 * done // total} %: {text}" if total else f"loading: {text}"


class Loading:
    """An engine that is being made in a background thread, once `start` was called."""

    def __init__(self, open_engine: Callable[[Loading], Engine]) -> None:
        self.notices: list[str] = []
        self.progress = ""
        self.engine: Engine | None = None
        self.error: BaseException | None = None
        self.changed: Callable[[], object] = lambda: None  # called from the loading thread
        self._open = open_engine
        self._thread = threading.Thread(target=self._load, name="loading", daemon=True)
        self._begin = threading.Lock()

    def start(self) -> None:
        with self._begin:
            if self._thread.ident is None:
                self._thread.start()

    def _load(self) -> None:
        try:
            self.engine = self._open(self)
        except BaseException as error:
            self.error = error
        self.changed()

    def report(self, done: int, total: int, text: str) -> None:
        """A step of it, as `gguf_import.Progress` says it."""
        self.progress = step(done, total, text)
        self.changed()

    def wait(self, stopped: Callable[[], bool]) -> Engine:
        """The engine. Raises what loading raised, or Cancelled; then loading goes on behind the prompt."""
        self.start()
        while self._thread.is_alive():
            self._thread.join(0.05)  # in short waits, so that signals get through
            if stopped():
                raise Cancelled("stopped waiting; the model goes on loading")
        if self.error is not None:
            raise self.error
        assert self.engine is not None
        return self.engine
