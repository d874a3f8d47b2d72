"""One model for many conversations at once: each has a seat, which is an adapter to whoever sits there.

What a seat's taps rewrite are the states of its own conversation, and nobody else's. Everything but decoding runs one
at a time. The next tokens of all that are being decoded are made in one pass (continuous batching: Yu et al. 2022,
Orca, OSDI): whoever comes first waits a moment for the others, then runs the pass for all of them.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmm.adapters.base import Adapter, Cache, Rewrite, Site, Tap, TapContext

if TYPE_CHECKING:
    from lmm.adapters.ops import Array

MOST, TOKENS = 32, 16_384  # conversations in one pass, and what they have read: a pass makes their caches anew
WAIT_S = 0.004  # for those who were in the last passes
STALE = 3.0  # passes of the same length after which somebody is not waited for


@dataclass(eq=False)
class _Step:
    """One token of one conversation, and what came of it."""

    seat: Seat
    token: int
    cache: Cache
    found: tuple[Array, Cache] | None = None
    error: BaseException | None = None

    @property
    def done(self) -> bool:
        return self.found is not None or self.error is not None


class Seats:
    """A model and who sits at it."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self._model = threading.Lock()  # held while the model runs
        self._arrived = threading.Condition()
        self._waiting: list[_Step] = []
        self._lately: dict[Seat, float] = {}  # when each was in a pass
        self._took = 0.0  # seconds of the last pass
        self._now: Sequence[Seat] = ()  # whose conversations the pass that runs is of
        self._sites: set[Site] = set()
        self._taps = contextlib.ExitStack()
        self.passes = self.tokens = 0  # of decoding, for the record

    def seat(self) -> Seat:
        return Seat(self)

    def close(self) -> None:
        """Leave the model bitwise as it was."""
        with self._model:
            self._taps.close()
            self._sites.clear()

    @contextlib.contextmanager
    def alone(self, seat: Seat) -> Iterator[Adapter]:
        """The model for one seat."""
        with self._model:
            self._now = (seat,)
            try:
                yield self.adapter
            finally:
                self._now = ()

    def open(self, site: Site) -> None:
        """From now on the taps of all seats act there."""
        if site in self._sites:  # a mind that is opened need not wait for those who talk
            return
        with self._model:
            if site not in self._sites:
                self._taps.enter_context(self.adapter.tap(site, self._rewriter(site)))
                self._sites.add(site)

    def _rewriter(self, site: Site) -> Rewrite:
        between = site.part != "mlp.down_proj"  # what comes in is what the tap before gave out

        def rewrite(x_in: Array, x_out: Array, context: TapContext) -> Array:
            for tap in self._now[context.row].taps if self._now else ():
                if tap.enabled and tap.site == site:
                    x_out = tap.rewrite(x_out if between else x_in, x_out, context)
            return x_out

        return rewrite

    # decoding ----------------------------------------------------------------------------------------------------
    def step(self, seat: Seat, token: int, cache: Cache) -> tuple[Array, Cache]:
        mine = _Step(seat, token, cache)
        with self._arrived:
            self._waiting.append(mine)
            self._arrived.notify_all()
        with self._model:
            while not mine.done:  # others may wait in front, more than one pass takes
                self._run(self._gathered())
        if mine.error is not None:
            raise mine.error
        assert mine.found is not None
        return mine.found

    def _gathered(self) -> list[_Step]:
        """Those who wait, with those who are sure to come in a moment."""
        now = time.perf_counter()
        recent = now - STALE * self._took - WAIT_S
        self._lately = {seat: at for seat, at in self._lately.items() if at >= recent}
        with self._arrived:
            waiting = {step.seat for step in self._waiting}
            expected = min(len(waiting | self._lately.keys()), MOST)
            self._arrived.wait_for(lambda: len(self._waiting) >= expected, WAIT_S)
            read = np.cumsum([step.cache.length for step in self._waiting[:MOST]])
            count = max(1, int(np.searchsorted(read, TOKENS, "right")))
            some, self._waiting = self._waiting[:count], self._waiting[count:]
        return some

    def _run(self, steps: Sequence[_Step]) -> None:
        start = time.perf_counter()
        self._now = [step.seat for step in steps]
        try:
            if len(steps) == 1:
                [step] = steps
                step.found = self.adapter.forward(np.array([[step.token]]), step.cache)
            else:
                tokens, caches = [step.token for step in steps], [step.cache for step in steps]
                for step, logits, cache in zip(steps, *self.adapter.forward_each(tokens, caches), strict=True):
                    step.found = logits, cache
        except BaseException as error:
            for step in steps:
                step.error = error
        finally:
            self._now = ()
        now = time.perf_counter()
        self._took = now - start
        self._lately |= dict.fromkeys([step.seat for step in steps], now)
        self.passes, self.tokens = self.passes + 1, self.tokens + len(steps)


class Seat(Adapter):
    """The model as one conversation has it: taps that are open here act on nobody else's states."""

    def __init__(self, seats: Seats) -> None:
        super().__init__()
        real = seats.adapter
        self.seats, self.layer = seats, real.layer
        self.name, self.ops, self.shape, self.format = real.name, real.ops, real.shape, real.format
        self.model_id, self.revision, self.dtype, self.device = real.model_id, real.revision, real.dtype, real.device
        self.learns_apart, self.source = real.learns_apart, getattr(real, "source", None)

    def new_cache(self, batch: int = 1) -> Cache:
        with self.seats.alone(self) as model:  # a backend may make room for it among those that are read
            return model.new_cache(batch)

    def forward(self, tokens: np.ndarray, cache: Cache, keep: int = 1) -> tuple[Array, Cache]:
        if tokens.shape == (1, 1) and cache.length and keep == 1:
            return self.seats.step(self, int(tokens[0, 0]), cache)
        with self.seats.alone(self) as model:
            return model.forward(tokens, cache, keep)

    def read(self, tokens: Sequence[int]) -> Cache:
        with self.seats.alone(self) as model:
            return model.read(tokens)

    def hidden(self, tokens: np.ndarray, first_layer: int, cache: Cache | None = None) -> Array:
        with self.seats.alone(self) as model:
            return model.hidden(tokens, first_layer, cache)

    def upper(
        self,
        tokens: np.ndarray,
        h: Array,
        first_layer: int,
        cache: Cache | None = None,
        keep: Sequence[int] | None = None,
    ) -> Array:
        with self.seats.alone(self) as model:
            return model.upper(tokens, h, first_layer, cache, keep)

    def refill(self, cache: Cache, h: Array, first_layer: int) -> Cache:
        with self.seats.alone(self) as model:
            return model.refill(cache, h, first_layer)

    def trim(self, cache: Cache, length: int) -> Cache:
        with self.seats.alone(self) as model:
            return model.trim(cache, length)

    def select(self, cache: Cache, rows: Sequence[int]) -> Cache:
        with self.seats.alone(self) as model:
            return model.select(cache, rows)

    @contextlib.contextmanager
    def tap(self, site: Site, rewrite: Rewrite) -> Iterator[Tap]:
        self.site(site.layer, site.part)
        self.seats.open(site)
        tap = Tap(site, rewrite)
        self.taps.append(tap)
        try:
            yield tap
        finally:
            self.taps.remove(tap)

    def generate_native(self, tokens: Sequence[int], max_tokens: int) -> list[int]:
        with self.seats.alone(self) as model:
            return model.generate_native(tokens, max_tokens)
