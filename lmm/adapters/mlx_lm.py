"""The MLX backend: any model that mlx-lm can load, on Metal or (on Linux) on the CPU.

MLX modules have no hooks. While something is tapped or stood in for, the module's `__class__` is a generated subclass
whose call goes through a wrapper; parameters, their names and all attributes stay where they are. A wrapper *object*
would break both.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import ArraysCache, CacheList, create_attention_mask, make_prompt_cache
from mlx_lm.utils import _get_classes, load_config, load_model

from lmm.adapters.base import Adapter, Cache, Rewrite, Shape, Site, Tap, _of
from lmm.adapters.mlx_config import OTHERWISE, older_keys, window
from lmm.adapters.mlx_ops import MlxOps
from lmm.adapters.mlx_unread import unread
from lmm.adapters.models import loadable
from lmm.adapters.models.chat_format import HFChatFormat
from lmm.adapters.ops import Array
from lmm.adapters.structure import down_projection, find_layers, get_path, one_width
from lmm.errors import ModelError, UsageError

if TYPE_CHECKING:
    from lmm.adapters.models.source import ModelSource

FINAL_NORMS = ("norm", "final_layernorm", "final_norm")
Change = Callable[[Array], Array]
Wrapper = Callable[[Callable[[Array], Any], Array], Any]


class LayerCache:
    """Keys and values [B, H, T, d] of one layer, as mlx-lm models expect it. Grows by concatenation, so that a copy
    is a new object over the same arrays and gradients flow through it."""

    def __init__(self, keys: Array | None = None, values: Array | None = None) -> None:
        self.keys, self.values = keys, values

    @property
    def offset(self) -> int:
        return 0 if self.keys is None else self.keys.shape[2]

    def update_and_fetch(self, keys: Array, values: Array) -> tuple[Array, Array]:
        if self.keys is not None and self.values is not None:
            keys = mx.concatenate([self.keys, keys], axis=2)
            values = mx.concatenate([self.values, values], axis=2)
        self.keys, self.values = keys, values
        return keys, values

    def make_mask(self, n: int, return_array: bool = False, window_size: int | None = None) -> Any:
        return create_attention_mask(n, self.offset, return_array, window_size)

    def copy(self, change: Change, state: Change) -> LayerCache:
        return LayerCache() if self.keys is None else LayerCache(change(self.keys), change(self.values))

    def arrays(self) -> list[Array]:
        return [] if self.keys is None else [self.keys, self.values]


class StateCache(ArraysCache):
    """mlx-lm's cache of a layer with linear attention or a state space: arrays [B, ...] that stand for all before."""

    def copy(self, change: Change, state: Change) -> StateCache:
        twin = StateCache(len(self.cache))
        twin.cache = [None if x is None else state(x) for x in self.cache]
        return twin

    def arrays(self) -> list[Array]:
        return [x for x in self.cache if x is not None]


class BothCaches(CacheList):
    """Of a layer with a state and attention side by side."""

    def copy(self, change: Change, state: Change) -> BothCaches:
        return BothCaches(*(part.copy(change, state) for part in self.caches))

    def arrays(self) -> list[Array]:
        return [x for part in self.caches for x in part.arrays()]


def _own(cache: Any) -> Any:
    """A cache of ours in the place of one of mlx-lm's; one that keeps a window's keys alone could not be cut."""
    if isinstance(cache, ArraysCache):
        return StateCache(len(cache.cache))
    return BothCaches(*map(_own, cache.caches)) if isinstance(cache, CacheList) else LayerCache()


class MlxAdapter(Adapter):
    name = "mlx_lm"

    def __init__(self, source: ModelSource, dtype: str = "auto", layers_path: str | None = None) -> None:
        super().__init__()
        if dtype == "int8":
            raise UsageError("mlx_lm runs no weights in int8 but those of a folder quantised by mlx-lm; --dtype auto")
        self.source, self.model_id, self.revision = source, source.model_id, source.revision
        loadable.check(source, self.name)
        if (kind := load_config(source.folder).get("model_type")) in OTHERWISE:
            raise ModelError(f"mlx-lm computes {kind} otherwise than transformers does; use --backend torch")
        self.ops = MlxOps()
        try:
            more = older_keys(load_config(source.folder))
            self.model, config = load_model(
                source.folder, model_config=more, get_model_classes=_classes, trust_remote_code=source.trusted
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, SystemExit) as error:
            raise loadable.refusal(source, "mlx-lm", error) from error
        self.format = HFChatFormat(source.folder, source.trusted)  # now: transformers warns of types that it lacks, too
        self.device = str(mx.default_device()).lower()
        self.dtype = self._set_dtype(dtype)
        config = config.get("text_config") or config
        lists = [(name, value) for name, value in _lists(self.model) if value]
        path, self.layers = find_layers(self.model, lists, config["num_hidden_layers"], layers_path)
        self.body = _parent(self.model, path)
        self.shape = Shape(
            len(self.layers),
            config["hidden_size"],
            config["vocab_size"],
            one_width(config.get("intermediate_size")),
            int(config.get("max_position_embeddings") or 0),
        )
        self.shape = replace(self.shape, context=self._context(config))
        self.shares = bool(self._outputs)
        self.recurrent = any(_has_state(cache) for cache in self._empty())

    def _context(self, config: dict[str, Any]) -> int:
        """How far it may read."""
        parts: list[Any] = [self.model, getattr(self.model, "language_model", None)]
        args = [part.args for part in parts if "num_hidden_layers" in vars(getattr(part, "args", Shape))]
        seen = window(config, args[0]) if args else 0
        return min(seen, self.shape.context or seen) if seen else self.shape.context

    def site(self, layer: int, part: str = "residual") -> Site:
        found = super().site(layer, part)
        if part == "mlp.down_proj":
            down_projection(self.layers[layer])
        return found

    def _empty(self) -> list[Any]:
        return [_own(cache) for cache in make_prompt_cache(self.model)]

    def _set_dtype(self, dtype: str) -> str:
        """On the CPU everything but float32 is emulated; on Metal the weights' own format is right."""
        if dtype == "auto":
            dtype = "float32" if not mx.metal.is_available() else "weights"
        if dtype != "weights":
            self.model.set_dtype(getattr(mx, dtype))
            mx.eval(self.model.parameters())
        return dtype

    # forward passes ------------------------------------------------------------------------------------------
    def new_cache(self, batch: int = 1) -> Cache:
        return Cache(np.zeros((batch, 0), np.int64), self._empty())

    def forward(self, tokens: np.ndarray, cache: Cache, keep: int = 1) -> tuple[Array, Cache]:
        raw = _copy(cache.raw)
        kept = range(tokens.shape[1] - keep, tokens.shape[1])
        with self._keeping(kept, tokens.shape[1]), self._reading(tokens, cache):
            logits = self.model(mx.array(tokens), cache=raw)
        mx.eval(logits, [c.arrays() for c in raw])
        return logits, self._appended(cache, tokens, raw)

    def hidden(self, tokens: np.ndarray, first_layer: int, cache: Cache | None = None) -> Array:
        seen: list[Array] = []

        def entering(call: Callable[[Array], Any], x: Array) -> Any:
            seen.append(x)
            return self._output(x)

        def leaving(call: Callable[[Array], Any], x: Array) -> Any:
            out = call(x)
            seen.append(_first(out))
            return out

        below = self._acting(lambda site: site.layer < first_layer)
        self._shared = None
        stand_ins: dict[int, Wrapper] = dict.fromkeys(range(first_layer, len(self.layers)), self._hand_on)
        with contextlib.ExitStack() as stack:
            if first_layer < len(self.layers):
                stand_ins[first_layer] = entering
            else:
                probe = stack.enter_context(_probing(self.layers[-1]))
                stack.enter_context(probe.wrapped(leaving, outermost=True))
            stack.enter_context(self._standing_in(stand_ins))
            passed = stack.enter_context(self._recording(first_layer))
            with below, self._reading(tokens, cache, "learn"):
                self.body(mx.array(tokens), cache=_copy(cache.raw) if cache else None)
        mx.eval(seen[-1])
        self._shared = (*_of(tokens, first_layer, cache), passed)
        return mx.stop_gradient(seen[-1])

    def upper(
        self,
        tokens: np.ndarray,
        h: Array,
        first_layer: int,
        cache: Cache | None = None,
        keep: Sequence[int] | None = None,
    ) -> Array:
        raw = _copy(cache.raw) if cache else None
        self._share(tokens, first_layer, cache)
        keeping = self._keeping(keep, tokens.shape[1]) if keep is not None else contextlib.nullcontext()
        above = self._acting(lambda site: site.layer >= first_layer)
        with self._starting_from(h, first_layer), keeping, above, self._reading(tokens, cache, "learn"):
            return self.model(mx.array(tokens), cache=raw)

    def refill(self, cache: Cache, h: Array, first_layer: int) -> Cache:
        raw = self._empty()
        if len(raw) != len(self.layers):  # which layer a cache belongs to is the model's own business
            return self.forward(cache.tokens, self.new_cache(len(cache.tokens)))[1]
        self._share(cache.tokens, first_layer, None)
        above = self._acting(lambda site: site.first_layer >= first_layer)
        with self._starting_from(h, first_layer), above, self._reading(cache.tokens, None):
            self.body(mx.array(cache.tokens), cache=raw)
        merged = [*cache.raw[:first_layer], *raw[first_layer:]]
        mx.eval([c.arrays() for c in raw[first_layer:]])
        new = replace(cache, raw=merged, marks=())
        return self._marked(new, new) if self.recurrent else new

    def generate_native(self, tokens: Sequence[int], max_tokens: int) -> list[int]:
        made: list[int] = []
        with self.quiet():
            for token, _ in generate_step(mx.array(np.asarray(tokens)), self.model, max_tokens=max_tokens):
                made.append(int(token))
                if made[-1] in self.format.stop_ids:
                    break
        return made

    # caches --------------------------------------------------------------------------------------------------
    def trim(self, cache: Cache, length: int) -> Cache:
        states: Any = None
        if self.recurrent and length < cache.length:
            length, states = self._last_mark(cache, length)
            if not length:
                return self.new_cache(len(cache.tokens))
        raw = _copy(cache.raw, lambda x: x[..., :length, :])
        raw = [state or one for state, one in zip(states or [None] * len(raw), raw, strict=True)]
        return Cache(cache.tokens[:, :length], raw, tuple(mark for mark in cache.marks if mark[0] <= length))

    def _states(self, raw: list[Any]) -> list[Any]:
        """Of each layer that keeps one; no pass changes them, as it works on copies."""
        return [cache if _has_state(cache) else None for cache in raw]

    def select(self, cache: Cache, rows: Sequence[int]) -> Cache:
        index = mx.array(list(rows))
        return Cache(cache.tokens[list(rows)], _copy(cache.raw, *[lambda x: mx.take(x, index, axis=0)] * 2))

    # taps ----------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def tap(self, site: Site, rewrite: Rewrite) -> Iterator[Tap]:
        self.site(site.layer, site.part)
        tap, layer = Tap(site, rewrite), self.layers[site.layer]

        def residual(call: Callable[[Array], Any], x: Array) -> Any:
            out = call(x)
            h = self._rewritten(tap, _first(out), _first(out))
            return (h, *out[1:]) if isinstance(out, tuple) else h

        def pre_attention(call: Callable[[Array], Any], x: Array) -> Any:
            return call(self._rewritten(tap, x, x))

        def at_down_projection(call: Callable[[Array], Any], x: Array) -> Any:
            return self._rewritten(tap, x, call(x))

        wrapper = {"residual": residual, "pre_attention": pre_attention, "mlp.down_proj": at_down_projection}[site.part]
        module = down_projection(layer) if site.part == "mlp.down_proj" else layer
        # the first opened acts first: on what enters from outside in, on what leaves from inside out
        with _probing(module) as probe, probe.wrapped(wrapper, outermost=site.part != "pre_attention"):
            self.taps.append(tap)
            try:
                yield tap
            finally:
                self.taps.remove(tap)

    # running parts -------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def _standing_in(self, stand_ins: dict[int, Wrapper]) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for i, wrapper in stand_ins.items():
                probe = stack.enter_context(_probing(self.layers[i]))
                probe.stand_in = wrapper
                stack.callback(setattr, probe, "stand_in", None)
            yield

    @functools.cached_property
    def _outputs(self) -> int:
        """How many things a layer returns, the hidden states first; 0: these alone."""
        seen: list[Any] = []

        def look(call: Callable[[Array], Any], x: Array) -> Any:
            seen.append(call(x))
            return seen[-1]

        with _probing(self.layers[0]) as probe, probe.wrapped(look, outermost=True):
            self.model(mx.array([[0]]))
        return len(seen[0]) if isinstance(seen[0], tuple) else 0

    def _output(self, h: Array, more: tuple[Any, ...] | None = None) -> Any:
        """Hidden states as a layer returns them."""
        return (h, *(more or (None,) * (self._outputs - 1))) if self._outputs else h

    def _hand_on(self, call: Callable[[Array], Any], x: Array) -> Any:
        return self._output(x)

    @contextlib.contextmanager
    def _recording(self, first_layer: int) -> Iterator[dict[int, tuple[Any, ...]]]:
        """What the layers below `first_layer` return beside hidden states, by layer."""
        found: dict[int, tuple[Any, ...]] = {}

        def recorder(i: int) -> Wrapper:
            def record(call: Callable[[Array], Any], x: Array) -> Any:
                out = call(x)
                found[i] = out[1:]
                return out

            return record

        with contextlib.ExitStack() as stack:
            for i in range(first_layer if self.shares else 0):
                probe = stack.enter_context(_probing(self.layers[i]))
                stack.enter_context(probe.wrapped(recorder(i), outermost=True))
            yield found

    @contextlib.contextmanager
    def _starting_from(self, h: Array, first_layer: int) -> Iterator[None]:
        if first_layer == 0:
            with _probing(self.layers[0]) as probe, probe.wrapped(lambda call, x: call(h), outermost=True):
                yield
            return
        passed = self._shared[-1] if self.shares and self._shared else {}

        def standing_in(i: int) -> Wrapper:
            return lambda call, x: self._output(h if i == first_layer - 1 else x, passed.get(i))

        stand_ins: dict[int, Wrapper] = {i: standing_in(i) for i in range(first_layer)}
        with self._standing_in(stand_ins):
            yield

    @contextlib.contextmanager
    def _keeping(self, positions: Sequence[int], total: int) -> Iterator[None]:
        """Only these positions reach the final norm and the output head: its matrix is a third of a small model."""
        norm = next((getattr(self.body, n) for n in FINAL_NORMS if hasattr(self.body, n)), None)
        if norm is None or len(positions) == total:
            yield
            return
        index = mx.array(list(positions))
        with _probing(norm) as probe:
            probe.stand_in = lambda call, x: call(mx.take(x, index, axis=1))
            try:
                yield
            finally:
                probe.stand_in = None


class _Probe:
    """What a call of a module goes through: what stands in for it, then the wrappers, the last one outermost."""

    def __init__(self, original: type) -> None:
        self.original, self.users = original, 0
        self.stand_in: Wrapper | None = None
        self.wrappers: list[Wrapper] = []

    @contextlib.contextmanager
    def wrapped(self, wrapper: Wrapper, outermost: bool) -> Iterator[None]:
        self.wrappers.insert(len(self.wrappers) if outermost else 0, wrapper)
        try:
            yield
        finally:
            self.wrappers.remove(wrapper)

    def run(self, module: Any, x: Array, *args: Any, **kwargs: Any) -> Any:
        def call(x: Array) -> Any:
            return self.original.__call__(module, x, *args, **kwargs)

        for wrapper in ([self.stand_in] if self.stand_in else []) + self.wrappers:
            call = functools.partial(wrapper, call)
        return call(x)


@contextlib.contextmanager
def _probing(module: Any) -> Iterator[_Probe]:
    """The module's probe; its class is swapped while anyone uses it, and is its own again afterwards."""
    probe = getattr(type(module), "_lmm_probe", None)
    if probe is None:
        probe = _Probe(type(module))
        swapped = {"__call__": lambda self, x, *a, **k: probe.run(self, x, *a, **k), "_lmm_probe": probe}
        module.__class__ = type(probe.original.__name__, (probe.original,), swapped)
    probe.users += 1
    try:
        yield probe
    finally:
        probe.users -= 1
        if probe.users == 0:
            module.__class__ = probe.original


def _classes(config: dict[str, Any]) -> tuple[type, type]:
    """mlx-lm's classes for a config.json. Raises ModelError where they leave out what it asks for."""
    model, arguments = _get_classes(config)
    if missed := unread(config, sys.modules[model.__module__]):
        raise ModelError(
            f"this model has {', '.join(missed)}, and mlx-lm computes {config['model_type']} without that; "
            "use --backend torch"
        )
    return model, arguments


def _same(x: Array) -> Array:
    return x


def _copy(raw: list[Any], change: Change = _same, state: Change = _same) -> list[Any]:
    """Caches of their own over the same arrays, or what these become by `change` (keys, values) and `state`."""
    return [cache.copy(change, state) for cache in raw]


def _has_state(cache: Any) -> bool:
    return isinstance(cache, StateCache | BothCaches)


def _first(out: Any) -> Any:
    return out[0] if isinstance(out, tuple) else out


def _lists(module: Any, prefix: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Every list of modules in the tree, with its path."""
    for name, child in module.children().items():
        if isinstance(child, list):
            yield prefix + name, child
        elif hasattr(child, "children"):
            yield from _lists(child, f"{prefix}{name}.")


def _parent(model: Any, path: str) -> Any:
    """The module that holds the layers: embeddings in, final norm out."""
    return get_path(model, path.rpartition(".")[0]) if "." in path else model
