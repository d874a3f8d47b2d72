"""Whose memory is whose: minds over one model, each user's kept in a file of its own, or in a database.

In files, a user is a profile of the command line, so what was taught in a terminal is known here, and the user without
a name has the standing memory. A user's requests that come at once each get a mind; all of them keep to the one file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmm.chat.forgetting import Whereabouts
from lmm.engine import runtime
from lmm.engine.engine import Engine
from lmm.engine.mind import Mind
from lmm.engine.shared import SharedKeeper
from lmm.errors import LmmError, NotKeptError, StateError
from lmm.files.standing import folder_of
from lmm.store.base import user_name

if TYPE_CHECKING:
    from lmm.config import Config
    from lmm.engine.seats import Seats
    from lmm.store.base import Lessons

AT_ONCE = 4  # minds of one user
CACHED, CACHED_S = 8, 300.0  # conversations whose caches are kept, in case they go on, and for how long
MINDS = 512  # that are held ready, of users that are not talking


class Unavailable(LmmError):
    """What a user has taught cannot be read, or nothing be kept of it, as things are on this machine."""


def without_folder(text: str, file: str | Path | None) -> str:
    """A text that may name a file, without the folder where that is: the client is told what went wrong, not where."""
    folders = {os.path.dirname(path) for path in (file, os.path.realpath(file))} if file else set()
    for folder in sorted(folders - {""}, key=len, reverse=True):
        text = text.replace(f"{folder}/", "")
    return text


class Users:
    """All who talk to one model."""

    def __init__(
        self, config: Config, seats: Seats, notice: Callable[[str], None], lessons: Lessons | None = None
    ) -> None:
        """`lessons`: where they are kept, if not in files."""
        self.config, self.notice, self.seats, self.lessons = config, notice, seats, lessons
        self._free: dict[str, list[Engine]] = {}
        self._busy: dict[str, int] = {}
        self._idle: OrderedDict[int, tuple[str, Engine]] = OrderedDict()  # by how long nobody has used them
        self._since: dict[int, float] = {}  # when a conversation ended that is still cached
        self.cached_tokens = 16_384  # of all that are
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def engine(self, user: str, stop: threading.Event | None = None, learns: bool = True) -> Iterator[Engine]:
        """An engine over the user's mind, up to date with what was taught elsewhere; nobody else has it meanwhile.
        `stop` ends what it does: reading, replying, learning, and waiting for others that learn. Where it does not
        learn, a user of whom nothing is known is a name that leaves no folder behind. Raises Unavailable."""
        with self._available(user_name(user)):
            stop, passing = stop or threading.Event(), not learns and self._is_new(user)
            engine = self._made(user, kept=False) if passing else self._taken(user, stop)
            engine.mind.cancelled = stop
            try:
                yield engine
            finally:
                engine.mind.cancelled = threading.Event()
                if passing:
                    self._close(engine.mind)
                else:
                    self._give_back(user, engine)

    @contextlib.contextmanager
    def _available(self, user: str) -> Iterator[None]:
        """What is wrong with the user's file, or the disk it is on, is nothing that the client could mend."""
        try:
            yield
        except (StateError, NotKeptError, OSError) as error:
            self.notice(f"the memory of {user!r}: {error}")
            reason = (isinstance(error, OSError) and error.strerror) or self.plainly(user, str(error))
            raise Unavailable(f"this user's memory cannot be used now: {reason.partition('. ')[0]}") from error

    def plainly(self, user: str, text: str) -> str:
        """A text without the folder where the user's file is."""
        config = self._config(user)
        return without_folder(text, config.mm_load_path or runtime.standing.file_of(config))

    @contextlib.contextmanager
    def newest(self, user: str) -> Iterator[Mind]:
        """The user's mind with a history that reaches back to what others have learned for it. What is kept of a
        conversation ends."""
        with self.engine(user, learns=False) as engine:
            mind = self._opened(user) if engine.mind.keeper is not None else engine.mind
            try:
                yield mind
            finally:
                if mind is not engine.mind:
                    self._close(mind)
                engine.start(self.config.system)

    def _taken(self, user: str, stop: threading.Event) -> Engine:
        with self._changed:
            self._changed.wait_for(lambda: self._free.get(user) or self._busy.get(user, 0) < self.most(user))
            self._busy[user] = self._busy.get(user, 0) + 1
            engine = self._free[user].pop() if self._free.get(user) else None
            self._idle.pop(id(engine), None)
            self._since.pop(id(engine), None)
        try:
            engine = engine or self._made(user)
            engine.mind.cancelled = stop
            if engine.mind.keeper is not None:
                engine.mind.keeper.catch_up()
            return engine
        except BaseException:
            if engine is not None:  # the next one is opened anew
                self._close(engine.mind)
            self._left(user)
            raise

    def _made(self, user: str, kept: bool = True) -> Engine:
        return Engine(self._opened(user, kept), self.config.system)

    def _is_new(self, user: str) -> bool:
        file = runtime.standing.file_of(self._config(user))
        return self.lessons is None and file is not None and not file.exists()

    def most(self, user: str) -> int:
        """How many minds a user has at once. Raises UsageError for what cannot name one."""
        user_name(user)
        return AT_ONCE if runtime.standing.file_of(self._config(user)) is not None else 1

    def _give_back(self, user: str, engine: Engine) -> None:
        dropped: list[Engine] = []
        with self._changed:
            self._free.setdefault(user, []).append(engine)
            self._idle[id(engine)] = user, engine
            self._since[id(engine)] = time.monotonic()
            self._let_go()
            while len(self._idle) > MINDS and self._keeps(next(iter(self._idle.values()))[1]):
                _, (owner, old) = self._idle.popitem(last=False)
                self._free[owner].remove(old)
                dropped.append(old)
            self._left(user)
        for old in dropped:
            self._close(old.mind)

    def let_go(self) -> None:
        """Drop the conversations of those who have not gone on for a while."""
        with self._changed:
            self._let_go()

    def _let_go(self) -> None:
        tokens, now = 0, time.monotonic()
        for i, (key, since) in enumerate(reversed(list(self._since.items()))):
            _, engine = self._idle[key]
            tokens += engine.cache.length
            if i >= CACHED or tokens > self.cached_tokens or now - since > CACHED_S:
                del self._since[key]
                with self._telling():
                    engine.start()

    @staticmethod
    def _keeps(engine: Engine) -> bool:
        return engine.mind.keeper is not None

    def _left(self, user: str) -> None:
        with self._changed:
            self._busy[user] -= 1
            if not self._busy[user]:
                del self._busy[user]
            if not self._free.get(user):
                self._free.pop(user, None)
            self._changed.notify_all()

    def _opened(self, user: str, kept: bool = True, options: Mapping[str, Any] | None = None) -> Mind:
        """`options`: of its memory, where they are not those of the user's file, or the server's."""
        config = self._config(user)
        file = runtime.standing.file_of(config)
        if self.lessons is None or file is None:
            made = runtime.as_saved(config) if options is None else dataclasses.replace(config, options=options)
            mind = Mind(self.seats.seat(), runtime.build_memory(made), config.seed)
            if kept:
                runtime.start(mind, config, self.notice, strict=True)
            return mind
        mind = Mind(self.seats.seat(), runtime.build_memory(config), config.seed)
        if mind.memory.learns_from != "nothing":
            SharedKeeper(mind, self.lessons(user, f"{file.parent.name}/{file.stem}"))
        return mind

    def _config(self, user: str) -> Config:
        if not user:
            return self.config
        return dataclasses.replace(self.config, profile=folder_of(user), mm_load_path=None, mm_save_path=None)

    def places(self, user: str, lesson_id: str) -> Whereabouts:
        """Where a lesson of a user may have left something on this machine."""
        return Whereabouts.of_user(self._config(user).profile, lesson_id, Path(self.config.activation_log_path))

    def adopt(self, user: str, file: Path) -> int:
        """Make a memory file what a user's mind knows -> its lessons. It must have been made with the options of what
        is known; who knows nothing yet begins with those of the file. Raises StateError, with nothing changed."""
        if self._is_new(user):
            return self._begun_with(user, file)
        with self.engine(user) as engine:
            try:
                known, wrong = engine.mind.read(file)[0], None
            except StateError as error:  # of this file, not of the user's
                known, wrong = engine.mind.knowledge, error
            else:
                engine.mind.commit(known)
        if wrong is not None:
            raise wrong
        return len(known.lessons)

    def _begun_with(self, user: str, file: Path) -> int:
        named = dataclasses.replace(self._config(user), mm_load_path=str(file))
        mind = self._opened(user, kept=False, options=runtime.as_saved(named).options)
        try:
            known, _ = mind.read(file)
            with self._available(user_name(user)):
                runtime.start(mind, self._config(user), self.notice, strict=True)
                mind.commit(known)
        finally:
            self._close(mind)
        self._drop(user)
        return len(known.lessons)

    def _drop(self, user: str) -> None:
        """Let go of a user's minds: the next request opens one anew."""
        with self._changed:
            engines = self._free.pop(user, [])
            for engine in engines:
                self._idle.pop(id(engine), None)
                self._since.pop(id(engine), None)
        for engine in engines:
            self._close(engine.mind)

    def close(self) -> None:
        """Put everything into its file, and leave the model as it was."""
        with self._changed:
            engines = [engine for _, engine in self._idle.values()]
            self._idle.clear()
            self._since.clear()
            self._free.clear()
        for engine in engines:
            self._close(engine.mind)
        self.seats.close()

    def _close(self, mind: Mind) -> None:
        with self._telling():
            mind.close()

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """What goes wrong when nobody waits for it is told to whoever runs the server."""
        try:
            yield
        except (LmmError, OSError) as error:
            self.notice(str(error))
