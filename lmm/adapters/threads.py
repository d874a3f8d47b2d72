"""How many threads of the processor a model uses: measured at start, and one at once where others need the cores.

A product of a small model is a few microseconds of work, after which all its threads wait for the slowest. Where one of
them has to share its core, the others wait for the scheduler: with one of two cores busy, two threads decode at a
thirtieth of one thread's speed. A large model is bound by reading weights, and gains from every core.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator

ROUNDS = 3
GAIN = 0.9  # of fewer threads' time: what more threads must reach to be worth it
CROWDED = 2.0  # times one thread's time: so slow are many threads only where others use the cores
SLOW, OFTEN = 4.0, 3  # times the best time per token, so often in a row: then one thread goes on alone
PAUSE_S = 30.0  # until more threads are tried again
MANY = 16  # tokens from which a pass is bound by computing


class Threads:
    """`set_count` makes a number of threads what the calling thread's products use."""

    def __init__(self, set_count: Callable[[int], None], most: int | None = None) -> None:
        self._set, self.most = set_count, most or cores()
        self.decoding = self.reading = self.most
        self.fixed = False
        self._now, self._slow, self._alone_until = 0, 0, 0.0
        self._best: dict[bool, float] = {}  # seconds per token: of decoding (False) and of reading (True)

    def fix(self, count: int) -> None:
        """Use so many, whatever the time."""
        self.decoding = self.reading = count
        self.fixed = True

    def measure(self, step: Callable[[], object]) -> None:
        """Choose by the time of a decode step. They take turns, and the median counts: a lucky one decides nothing."""
        counts = [1 << i for i in range(self.most.bit_length()) if 1 << i < self.most] + [self.most]
        if self.fixed or len(counts) == 1:
            return
        times: dict[int, list[float]] = {count: [] for count in counts}
        for _ in range(ROUNDS + 1):
            for count in counts:
                self.fix(count)
                start = time.perf_counter()
                step()
                times[count].append(time.perf_counter() - start)
        took = {count: statistics.median(times[count][1:]) for count in counts}  # the first one wakes the threads
        self.fixed, self.decoding = False, 1
        for count in counts[1:]:
            if took[count] < GAIN * took[self.decoding]:
                self.decoding = count
        self.reading = 1 if took[self.most] > CROWDED * took[1] else self.most

    @contextlib.contextmanager
    def at_work(self, tokens: int) -> Iterator[None]:
        """A pass over so many tokens, with the threads that suit it."""
        many = tokens >= MANY
        count = self.reading if many else self.decoding
        start = time.perf_counter()
        self._use(count if self.fixed or start >= self._alone_until else 1)
        yield
        if self._now > 1 and not self.fixed:
            self._watch(many, (time.perf_counter() - start) / tokens)

    def _watch(self, many: bool, seconds: float) -> None:
        best = self._best[many] = min(seconds, self._best.get(many, seconds))
        self._slow = self._slow + 1 if seconds > SLOW * best else 0
        if self._slow >= OFTEN:
            self._slow, self._alone_until = 0, time.perf_counter() + PAUSE_S

    def _use(self, count: int) -> None:
        if count != self._now:
            self._set(count)
            self._now = count


def cores() -> int:
    """Those this process may use."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1
