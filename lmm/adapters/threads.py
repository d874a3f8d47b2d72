"""How many threads of the processor a model uses: measured at start, and one as long as others need the cores.

A product of a small model is a few microseconds of work, after which all its threads wait for the slowest. Where one of
them has to share its core, the others wait for the scheduler: with one of two cores busy, two threads decode at a
thirtieth of one thread's speed, and read at half of it. A large model is bound by reading weights, and gains from every
core.

So what a token takes with several threads is compared with what it took with one. Where several are not faster, one
goes on alone; they are tried again after so much of its work that the try costs little.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeVar

ROUNDS = 3
GAIN = 0.9  # of fewer threads' time: what more threads must reach to be worth it
OFTEN = 3  # decode steps in a row that say how fast they are: a single one may be unlucky
PATIENCE = 8  # times the seconds that trying several threads again would cost: so long does one work before
MANY = 16  # tokens from which a pass is bound by computing

Read = TypeVar("Read")  # what a pass leaves for the next one


class Threads:
    """`set_count` makes a number of threads what the calling thread's products use."""

    def __init__(self, set_count: Callable[[int], None], most: int | None = None) -> None:
        self._set, self.most = set_count, most or cores()
        self.decoding = self.reading = self.most
        self.fixed = False
        self._now = 0
        self._paces = {False: _Pace(OFTEN), True: _Pace(1)}  # of decoding, and of reading

    def fix(self, count: int) -> None:
        """Use so many, whatever the time."""
        self.decoding = self.reading = count
        self.fixed = True

    def measure(self, read: Callable[[], Read], step: Callable[[Read], object]) -> None:
        """Choose by the time of a decode step after what was read. They take turns, and the median counts: a lucky one
        decides nothing. `read`, a pass over MANY tokens, says whether others use the cores."""
        counts = [1 << i for i in range(self.most.bit_length()) if 1 << i < self.most] + [self.most]
        if self.fixed or len(counts) == 1:
            return
        self.fix(1)
        cache = read()  # the weights come from the disk
        times: dict[int, list[float]] = {count: [] for count in counts}
        for _ in range(ROUNDS + 1):
            for count in counts:
                times[count].append(self._timed(lambda: step(cache), count))
        took = {count: statistics.median(times[count][1:]) for count in counts}  # the first one wakes the threads
        self._paces[False].note(1, took[1], 1)
        for count in (1, self.most):
            self._paces[True].note(count, self._timed(read, count), MANY)
        self.fixed, self.decoding, self.reading = False, 1, self.most
        for count in counts[1:]:
            if took[count] < GAIN * took[self.decoding]:
                self.decoding = count

    def _timed(self, work: Callable[[], object], count: int) -> float:
        self.fix(count)
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    @contextlib.contextmanager
    def at_work(self, tokens: int) -> Iterator[None]:
        """A pass over so many tokens, with the threads that suit it."""
        many = tokens >= MANY
        count, pace = self.reading if many else self.decoding, self._paces[many]
        self._use(1 if not self.fixed and pace.is_better_alone(tokens) else count)
        start = time.perf_counter()
        yield
        if not self.fixed:
            pace.note(self._now, time.perf_counter() - start, tokens)

    def _use(self, count: int) -> None:
        if count != self._now:
            self._set(count)
            self._now = count


class _Pace:
    """Seconds per token of the last `often` passes of a kind, with one thread and with several."""

    def __init__(self, often: int) -> None:
        self._alone, self._several = deque[float](maxlen=often), deque[float](maxlen=often)
        self._spent = 0.0  # seconds that one thread has worked since several were tried

    def is_better_alone(self, tokens: int) -> bool:
        """Whether one thread is to read so many tokens."""
        if not self._alone or len(self._several) != self._several.maxlen:
            return False
        several = min(self._several)
        return several > min(self._alone) and self._spent < PATIENCE * several * tokens

    def note(self, count: int, seconds: float, tokens: int) -> None:
        """A pass over so many tokens has taken so long."""
        (self._alone if count == 1 else self._several).append(seconds / tokens)
        self._spent = self._spent + seconds if count == 1 else 0.0


def cores() -> int:
    """Those this process may use."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1
