"""What lmm needs from a backend: run a model in parts, look inside, and leave it bitwise as it was.

The engine owns the decode loop; an adapter only runs forward passes. A *tap* rewrites hidden states at a `Site`
while its context manager is open. Learning runs the frozen lower layers once (`hidden`) and steps the upper ones
(`upper`), which is also how a cache is rebuilt above a site after a lesson (`refill`).
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lmm.adapters.models.chat_format import ChatFormat
from lmm.adapters.ops import Array, Ops
from lmm.adapters.threads import MANY, Threads
from lmm.errors import UsageError

PARTS = ("residual", "pre_attention", "mlp.down_proj")
MARKS = 4  # lengths that a cache with states can go back to: the last turns' ends and replies' beginnings


@dataclass(frozen=True)
class Site:
    """A place in the model: after layer `layer` ("residual"), before it ("pre_attention"), or its down-projection."""

    layer: int
    part: str = "residual"

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise UsageError(f"unknown part {self.part!r} of a layer; known: {', '.join(PARTS)}")

    @property
    def first_layer(self) -> int:
        """The first layer whose cache depends on what is written at this site."""
        return self.layer + 1 if self.part == "residual" else self.layer


@dataclass(frozen=True)
class Shape:
    layers: int
    width: int
    vocab: int
    mlp_width: int
    context: int = 0  # positions it was made for; 0: the model does not say


@dataclass(frozen=True)
class TapContext:
    """The slice in hand: `tokens` [B, T] ids, `positions` [T] absolute, `history` [B, T0] the ids before it.

    `phase` is "prefill", "decode" or "learn". In `forward_each` a tap sees one conversation at a time: number `row`.
    """

    tokens: np.ndarray
    positions: np.ndarray
    history: np.ndarray
    phase: str
    site: Site | None = None
    row: int = 0

    def at(self, site: Site) -> TapContext:
        """The same slice, at that place."""
        return TapContext(self.tokens, self.positions, self.history, self.phase, site, self.row)


@dataclass(frozen=True)
class Cache:
    """What is kept of what was read so far. A value: `forward` returns a new one, old ones stay usable.

    Keys and values can be cut; the state of a layer with linear attention or a state space cannot. `marks` are
    lengths to which such a cache can go back, with the states of then.
    """

    tokens: np.ndarray  # [B, T] ids read so far
    raw: Any
    marks: tuple[tuple[int, Any], ...] = ()

    @property
    def length(self) -> int:
        return int(self.tokens.shape[1])


Rewrite = Callable[[Array, Array, TapContext], Array]


class Tap:
    """One rewrite at one site; `enabled` is false while the adapter is quiet. While it `passes`, it gives back what it
    gets, and may get NumPy's arrays."""

    def __init__(self, site: Site, rewrite: Rewrite) -> None:
        self.site, self.rewrite, self.enabled = site, rewrite, True
        self.passes: Callable[[], bool] = lambda: False


class Adapter(ABC):
    """One loaded model on one backend."""

    name: str
    learns_apart: bool = False  # `upper` computes less exactly what `forward` does: what it learned is to be tried out
    ops: Ops
    shape: Shape
    format: ChatFormat
    model_id: str
    revision: str | None
    dtype: str
    device: str
    shares = False  # whether layers pass more on to those above than hidden states
    recurrent = False  # whether some layer keeps a state that cannot be cut

    def __init__(self) -> None:
        self.taps: list[Tap] = []
        self.context: TapContext | None = None
        self.threads: Threads | None = None  # where the backend's products run on threads that can be chosen
        self.layer: int | None = None  # chosen by --layer; None: the middle
        self._shared: tuple[np.ndarray, np.ndarray, int, Any] | None = None
        self._acts: Callable[[Site], bool] = _everywhere  # which taps act in the pass that is running
        self._each: Sequence[TapContext] = ()  # of `forward_each`, one for each conversation

    # forward passes ------------------------------------------------------------------------------------------
    @abstractmethod
    def new_cache(self, batch: int = 1) -> Cache:
        """The cache of `batch` empty conversations."""

    @abstractmethod
    def forward(self, tokens: np.ndarray, cache: Cache, keep: int = 1) -> tuple[Array, Cache]:
        """Read tokens [B, T] after `cache`, through the taps -> logits [B, keep, V] of the last, and the new cache."""

    def forward_each(self, tokens: Sequence[int], caches: Sequence[Cache]) -> tuple[list[Array], list[Cache]]:
        """One more token of each of several conversations, of whatever lengths -> logits [1, 1, V] and cache of each.

        As `forward` of each, but for the order in which numbers are added up. Taps see one conversation at a time.
        """
        with self._reading_each(tokens, caches) as contexts:
            found = []
            for token, cache, context in zip(tokens, caches, contexts, strict=True):
                self._each = (context,)
                found.append(self.forward(np.array([[token]]), cache))
        return [logits for logits, _ in found], [cache for _, cache in found]

    def decode(self, token: int, cache: Cache) -> tuple[np.ndarray, Cache]:
        """One token more of one conversation -> logits [V] of the next, in this process's memory, and the new cache."""
        logits, cache = self.forward(as_tokens([token]), cache)
        return self.ops.to_numpy(logits)[0, -1], cache

    def read(self, tokens: Sequence[int]) -> Cache:
        """The cache of a text, from its beginning."""
        return self.forward(as_tokens(tokens), self.new_cache())[1]

    @abstractmethod
    def hidden(self, tokens: np.ndarray, first_layer: int, cache: Cache | None = None) -> Array:
        """Hidden states [B, T, D] entering layer `first_layer` (or leaving the last), without gradients."""

    @abstractmethod
    def upper(
        self,
        tokens: np.ndarray,
        h: Array,
        first_layer: int,
        cache: Cache | None = None,
        keep: Sequence[int] | None = None,
    ) -> Array:
        """Layers from `first_layer` on, from hidden states h [B, T, D] entering it -> logits [B, len(keep) or T, V].

        What is tapped below `first_layer` is in `h` already, as `hidden` returns it. Differentiable in `h`; `cache`
        (what came before) is read, never changed. `keep`: positions of T wanted.
        """

    @abstractmethod
    def refill(self, cache: Cache, h: Array, first_layer: int) -> Cache:
        """`cache` with the layers from `first_layer` on run again, from h [B, T, D] as it was before any tap whose
        `Site.first_layer` is `first_layer` or above; these act."""

    # caches --------------------------------------------------------------------------------------------------
    @abstractmethod
    def trim(self, cache: Cache, length: int) -> Cache:
        """The first `length` tokens of a cache; of a `recurrent` model fewer, where it keeps no state of then."""

    @abstractmethod
    def select(self, cache: Cache, rows: Sequence[int]) -> Cache:
        """Rows of the batch, in that order; a row may be repeated (beam search)."""

    # looking inside ------------------------------------------------------------------------------------------
    @abstractmethod
    def tap(self, site: Site, rewrite: Rewrite) -> contextlib.AbstractContextManager[Tap]:
        """Rewrite hidden states at `site` while open; afterwards the model is bitwise as before."""

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """No tap that is open now acts inside; taps opened inside do."""
        were = [tap for tap in self.taps if tap.enabled]
        for tap in were:
            tap.enabled = False
        try:
            yield
        finally:
            for tap in were:
                tap.enabled = True

    def features(self, tokens: np.ndarray, site: Site, cache: Cache | None = None) -> Array:
        """What enters `site` in the untouched model: [B, T, D], or [B, T, F] before a down-projection."""
        seen: list[Array] = []

        def look(x_in: Array, x_out: Array, context: TapContext) -> Array:
            seen.append(x_in)
            return x_out

        with self.quiet(), self.tap(site, look):
            self.hidden(tokens, site.layer + 1, cache)
        # A backend may read in parts, and before them what the cache lacks.
        parts = [x for x in seen if x.shape[0] == len(tokens)]
        whole = parts[0] if len(parts) == 1 else self.ops.concat(parts, 1)
        return whole[:, -tokens.shape[1] :]

    # names and places ----------------------------------------------------------------------------------------
    def middle_site(self) -> Site:
        """After the middle layer, or the one chosen by `--layer`."""
        return self.site(self.shape.layers // 2 if self.layer is None else self.layer)

    def site(self, layer: int, part: str = "residual") -> Site:
        if not 0 <= layer < self.shape.layers:
            raise UsageError(f"layer {layer} does not exist; this model has layers 0 to {self.shape.layers - 1}")
        return Site(layer, part)

    @abstractmethod
    def generate_native(self, tokens: Sequence[int], max_tokens: int) -> list[int]:
        """Greedy tokens by the backend's own generate, untouched: what `identity` is compared with."""

    def use_threads(self, count: int | None = None) -> None:
        """Use so many threads of the processor; None: as many as are fastest, as measured. Not every backend can."""
        if self.threads is None:
            return
        if count is not None:
            self.threads.fix(count)
            return
        text = as_tokens((self.format.encode("The quick brown fox") * MANY)[:MANY])
        self.threads.measure(
            lambda: self.forward(text, self.new_cache())[1], lambda cache: self.forward(text[:, :1], cache)
        )

    # for subclasses ------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def _reading(self, tokens: np.ndarray, cache: Cache | None, phase: str | None = None) -> Iterator[TapContext]:
        history = cache.tokens if cache is not None else tokens[:, :0]
        start = history.shape[1]
        phase = phase or ("decode" if tokens.shape[1] == 1 and start else "prefill")
        before = self.context
        self.context = TapContext(tokens, np.arange(start, start + tokens.shape[1]), history, phase)
        try:
            with self.threads.at_work(tokens.size) if self.threads else contextlib.nullcontext():
                yield self.context
        finally:
            self.context = before

    @contextlib.contextmanager
    def _reading_each(self, tokens: Sequence[int], caches: Sequence[Cache]) -> Iterator[Sequence[TapContext]]:
        self._each = contexts = tuple(
            TapContext(as_tokens([token]), np.array([cache.length]), cache.tokens, "decode", row=row)
            for row, (token, cache) in enumerate(zip(tokens, caches, strict=True))
        )
        try:
            yield contexts
        finally:
            self._each = ()

    @contextlib.contextmanager
    def _acting(self, acts: Callable[[Site], bool]) -> Iterator[None]:
        """Only part of the model runs: the taps of layers that are stood in for would see nothing real."""
        before, self._acts = self._acts, acts
        try:
            yield
        finally:
            self._acts = before

    def _rewritten(self, tap: Tap, x_in: Array, x_out: Array) -> Array:
        if not tap.enabled or self.context is None or not self._acts(tap.site):
            return x_out
        if not self._each:
            return tap.rewrite(x_in, x_out, self.context.at(tap.site))
        rows = (slice(i, i + 1) for i in range(len(self._each)))
        contexts = (context.at(tap.site) for context in self._each)
        return self.ops.concat([tap.rewrite(x_in[r], x_out[r], c) for r, c in zip(rows, contexts, strict=True)], 0)

    def _share(self, tokens: np.ndarray, first_layer: int, cache: Cache | None) -> None:
        """Have at hand what the layers below `first_layer` pass on beside hidden states: `hidden` found it, if it ran
        last on the same."""
        if not self.shares:
            return
        known, (read, history, below) = self._shared, _of(tokens, first_layer, cache)
        if (
            known is None
            or known[2] != below
            or any(not np.array_equal(a, b) for a, b in ((known[0], read), (known[1], history)))
        ):
            self.hidden(tokens, first_layer, cache)

    def _appended(self, cache: Cache, tokens: np.ndarray, raw: Any) -> Cache:
        new = Cache(np.concatenate([cache.tokens, tokens], axis=1), raw, cache.marks)
        return self._marked(self._marked(new, cache), new) if self.recurrent and tokens.shape[1] > 1 else new

    def _marked(self, cache: Cache, at: Cache) -> Cache:
        """`cache`, which can go back to where `at` is."""
        last = cache.marks[-1][0] if cache.marks else 0
        return (
            replace(cache, marks=(*cache.marks, (at.length, self._states(at.raw)))[-MARKS:])
            if at.length > last
            else cache
        )

    def _last_mark(self, cache: Cache, length: int) -> tuple[int, Any]:
        """The last mark at `length` or before; (0, None) where there is none."""
        return max((mark for mark in cache.marks if mark[0] <= length), default=(0, None), key=lambda mark: mark[0])

    def _states(self, raw: Any) -> Any:
        """Of a `recurrent` model, the states in a cache."""
        raise NotImplementedError


def _of(tokens: np.ndarray, first_layer: int, cache: Cache | None) -> tuple[np.ndarray, np.ndarray, int]:
    """What the layers below `first_layer` have read: these tokens after those in the cache."""
    return tokens, tokens[:, :0] if cache is None else cache.tokens, first_layer


def _everywhere(site: Site) -> bool:
    return True


def as_tokens(tokens: Sequence[int] | np.ndarray) -> np.ndarray:
    """Token ids of one conversation as [1, T]."""
    return np.asarray(tokens, np.int64).reshape(1, -1)
