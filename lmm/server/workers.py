"""Threads for what takes the model, and whose turn it is: a user has a few at most, all conversations together have so
many tokens, and whoever waits holds nothing."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from lmm.errors import LmmError

if TYPE_CHECKING:
    from lmm.server.guard import Settings
    from lmm.server.metrics import Metrics

T = TypeVar("T")
Size = Callable[[], int]


class TooMany(LmmError):
    """More wait than may."""


class Late(LmmError):
    """Something that was to end before its turn had come."""


class Stop(threading.Event):
    """Tells something to end: its client has left, its time is over, or the server ends. It stays set, so that what
    begins after that ends at once."""

    def clear(self) -> None: ...


class Room:
    """So many tokens, of which each that asks takes some, in the order in which they ask. For the event loop."""

    def __init__(self, size: int) -> None:
        self.size = self.free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @contextlib.asynccontextmanager
    async def taken(self, tokens: int) -> AsyncIterator[None]:
        """Wait for so many and have them; all there are, where it would be more."""
        tokens, turn = min(tokens, self.size), asyncio.get_running_loop().create_future()
        self._waiting.append((tokens, turn))
        self._admit()
        await turn
        try:
            yield
        finally:
            self.free += tokens
            self._admit()

    def _admit(self) -> None:
        while self._waiting and self._waiting[0][0] <= self.free:
            tokens, turn = self._waiting.popleft()
            if not turn.cancelled():
                self.free -= tokens
                turn.set_result(None)


class Workers:
    """Runs work of users, at most `most(user)` at once of each; the others of that user wait. For the event loop."""

    def __init__(self, settings: Settings, metrics: Metrics, most: Callable[[str], int]) -> None:
        self.settings, self.metrics, self.most = settings, metrics, most
        self._threads = ThreadPoolExecutor(settings.at_once, "reply")
        self._free = asyncio.Semaphore(settings.at_once)
        self.room = Room(settings.cache_tokens)
        self._gates: dict[str, asyncio.Semaphore] = {}
        self._asked: Counter[str] = Counter()
        self._running: dict[asyncio.Task[Any], Stop] = {}
        self._ending = False

    def begin(self, user: str, work: Callable[[Stop], T], stop: Stop, size: Size | None = None) -> asyncio.Task[T]:
        """Run it when its turn comes, and let it end at the time limit; `size` says how many tokens it may hold. Raises
        TooMany."""
        asked, most = self._asked, self.most(user)
        full = asked.total() >= self.settings.at_once + self.settings.waiting
        if full or asked[user] >= most + self.settings.waiting_each:
            raise TooMany("too many requests are waiting; try again later")
        asked[user] += 1
        gate = self._gates.setdefault(user, asyncio.Semaphore(most))
        task = asyncio.create_task(self._in_turn(gate, work, stop, size))
        self._running[task] = stop
        self._count()
        timer = asyncio.get_running_loop().call_later(self.settings.seconds, stop.set)
        if self._ending:
            stop.set()

        def ended(task: asyncio.Task[T]) -> None:
            timer.cancel()
            task.cancelled() or task.exception()  # it is no news to whoever has left
            del self._running[task]
            asked[user] -= 1
            if not asked[user]:
                del asked[user], self._gates[user]
            self._count()

        task.add_done_callback(ended)
        return task

    async def run(self, user: str, work: Callable[[Stop], T], size: Size | None = None) -> T:
        """What comes of it. Raises TooMany, Late, and what `work` does."""
        stop = Stop()
        task = self.begin(user, work, stop, size)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            stop.set()
            raise

    def cut(self) -> None:
        """All that runs, waits or comes now is to end."""
        self._ending = True
        for stop in self._running.values():
            stop.set()

    async def close(self) -> None:
        self.cut()
        await asyncio.to_thread(self._threads.shutdown)

    async def _in_turn(self, gate: asyncio.Semaphore, work: Callable[[Stop], T], stop: Stop, size: Size | None) -> T:
        async with gate:
            tokens = await asyncio.to_thread(size) if size is not None else 0
            async with self.room.taken(tokens), self._free:
                if stop.is_set():
                    raise Late("its turn had not come when it had to end: the time limit was over, or the server stops")
                return await asyncio.get_running_loop().run_in_executor(self._threads, work, stop)

    def _count(self) -> None:
        self.metrics.set("lmm_requests_running", len(self._running))
