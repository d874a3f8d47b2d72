"""The torch backend: any decoder that transformers can load, on CUDA or the CPU.

Parts of the model are run by standing in for the other layers: a layer that is skipped hands its input on, and the
last skipped one hands on the cached hidden states. So masks, rotary embeddings and caches stay the model's own.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, DynamicCache
from transformers.cache_utils import (
    DummyLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionCacheLayerMixin,
)

from lmm.adapters.base import Adapter, Cache, Rewrite, Shape, Site, Tap, TapContext, _of
from lmm.adapters.models import loadable
from lmm.adapters.models.chat_format import HFChatFormat, as_list
from lmm.adapters.models.source import source_in
from lmm.adapters.ops import Array
from lmm.adapters.structure import down_projection, find_layers, input_width, one_width
from lmm.adapters.threads import Threads
from lmm.adapters.torch_dtype import has_int8, is_finite, ranked_dtypes, wide_from
from lmm.adapters.torch_int8 import Int8
from lmm.adapters.torch_ops import TorchOps
from lmm.adapters.torch_step import Edit, Step, far, step_of
from lmm.adapters.torch_wide import widen
from lmm.errors import ModelError
from lmm.text.sanitize import listed

if TYPE_CHECKING:
    from lmm.adapters.models.source import ModelSource

ROUGH = 0.1  # standard deviations of the logits that int8 may be off: SmolLM2-135M's are .04


class TorchAdapter(Adapter):
    name = "torch"
    int8: Int8 | None = None  # what it decodes one conversation with, where that is asked for
    step: Step | None = None  # a faster decode step; not in a model of the caller's, whose layers may be hooked

    def __init__(
        self,
        source: ModelSource,
        dtype: str = "auto",
        layers_path: str | None = None,
        device: str | None = None,
    ) -> None:
        """`device` as torch names it; None: a card, where there is one."""
        super().__init__()
        self.source, self.model_id, self.revision = source, source.model_id, source.revision
        loadable.check(source, self.name)
        self.format = HFChatFormat(source.folder, source.trusted)
        target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.device = str(target)
        probe = self.format.encode("The quick brown fox jumps over 13 lazy dogs.\n")
        automatic = dtype in ("auto", "int8")
        for self.dtype in ranked_dtypes(source, target) if automatic else [dtype]:
            self.model = _load(source, getattr(torch, self.dtype)).to(target)
            if target.type == "cpu" and (rows := wide_from(self.dtype)):
                widen(self.model, rows)
            if not automatic or self.dtype == "float32" or is_finite(self.model, probe):
                break
            del self.model
            gc.collect()  # its parts refer to each other; two models may be more than the memory holds
        self.ops, self.step = TorchOps(target), step_of(self.model, probe)
        if target.type == "cpu":
            self.threads = Threads(torch.set_num_threads, torch.get_num_threads())
        self._find_parts(layers_path)
        if dtype == "int8":
            self._to_int8(probe)

    @classmethod
    def of(cls, model: Any, tokenizer: Any, layers_path: str | None = None) -> TorchAdapter:
        """Over a causal LM and a fast tokenizer that the caller has loaded; nothing of either is changed.

        Raises ModelError if the model's layers or the tokenizer are of a kind that lmm does not know.
        """
        made = cls.__new__(cls)
        Adapter.__init__(made)
        made.model, name = model, model.config._name_or_path or type(model).__name__
        made.model_id, made.revision = name, getattr(model.config, "_commit_hash", None)
        if Path(name).is_dir():
            made.source = source_in(name, Path(name))
            made.model_id, made.revision = made.source.model_id, made.source.revision
        made.format = HFChatFormat.of(tokenizer, as_list(model.generation_config.eos_token_id))
        made.dtype, made.device = str(model.dtype).removeprefix("torch."), str(model.device)
        made.ops = TorchOps(model.device)
        made._find_parts(layers_path)
        return made

    def _to_int8(self, probe: list[int]) -> None:
        """Decode with int8 weights from now on. Raises ModelError where that is no gain or no good."""
        if self.device != "cpu" or not has_int8(self.dtype):
            raise self._no_int8(f"products with int8 weights are no faster here ({self.device}) than in {self.dtype}")
        _, cache = self.forward(np.array([probe[:-1]]), self.new_cache())
        last = np.array([probe[-1:]])
        own, _ = self.forward(last, cache)
        self.int8, self.dtype = Int8([*self.layers, self.model.get_output_embeddings()]), "int8"
        found, _ = self.forward(last, cache)
        if (off := far(found, own)) > ROUGH:
            raise self._no_int8(f"its logits are {off:.2f} standard deviations off in it")

    def _no_int8(self, why: str) -> ModelError:
        way = "--dtype auto, or --backend llama_cpp with a GGUF file of 8 or 4 bit"
        return ModelError(f"{self.source.name} does not run in int8: {why}; use {way}")

    def _find_parts(self, layers_path: str | None) -> None:
        config = self.model.config.get_text_config()
        lists = [(n, list(m)) for n, m in self.model.named_modules() if isinstance(m, torch.nn.ModuleList)]
        _, self.layers = find_layers(self.model, lists, config.num_hidden_layers, layers_path)
        self.shape = Shape(
            len(self.layers),
            config.hidden_size,
            config.vocab_size,
            self._mlp_width(config),
            int(getattr(config, "max_position_embeddings", 0) or 0),
        )
        takes = inspect.signature(self.model.forward).parameters
        self._cached = "cache_params" if "cache_params" in takes else "past_key_values"
        self.shares = "reuse" in (getattr(config, "kv_sharing_modes", None) or ())
        self.recurrent = any(_has_state(layer) for layer in self._empty().layers)

    def _mlp_width(self, config: Any) -> int:
        """Of what enters the down-projections; 0 where there are none."""
        with contextlib.suppress(ModelError):
            return one_width(getattr(config, "intermediate_size", 0)) or input_width(down_projection(self.layers[-1]))
        return 0

    def site(self, layer: int, part: str = "residual") -> Site:
        found = super().site(layer, part)
        if part == "mlp.down_proj":
            down_projection(self.layers[layer])
        return found

    def _empty(self) -> DynamicCache:
        """A cache in which every layer keeps what it needs; all keys and values, also where a window sees few, since
        a cache with gaps cannot be cut."""
        try:
            made = DynamicCache(config=self.model.config)
        except (KeyError, AttributeError, TypeError, ValueError):  # a configuration that says nothing of its layers
            return DynamicCache()
        if not any(_has_state(layer) or isinstance(layer, DummyLayer) for layer in made.layers):
            return DynamicCache()
        for i, layer in enumerate(made.layers):
            if isinstance(layer, LinearAttentionAndSlidingWindowAttentionLayer):
                made.layers[i] = LinearAttentionAndFullAttentionLayer(layer.number_of_states)
            elif isinstance(layer, DynamicSlidingWindowLayer):
                made.layers[i] = DynamicLayer()
        return made

    @functools.cached_property
    def _outputs(self) -> int:
        """How many things a layer returns, the hidden states first; 0: these alone."""
        seen: list[int] = []
        with _hook(self.layers[0], lambda module, args, out: seen.append(len(out) if isinstance(out, tuple) else 0)):
            self.model(self._ids(np.zeros((1, 1), np.int64)), use_cache=False)
        return seen[0]

    # forward passes ------------------------------------------------------------------------------------------
    def new_cache(self, batch: int = 1) -> Cache:
        return Cache(np.zeros((batch, 0), np.int64), self._empty())

    @torch.no_grad()
    def forward(self, tokens: np.ndarray, cache: Cache, keep: int = 1) -> tuple[Array, Cache]:
        raw = _copy(cache.raw)
        with self._reading(tokens, cache) as context, self._in_int8(context, tokens):
            if self.step is not None and context.phase == "decode":
                return self.step(self._ids(tokens), [raw], self._edit()), self._appended(cache, tokens, raw)
            out = self.model(
                self._ids(tokens), use_cache=True, logits_to_keep=self._last(tokens, keep), **{self._cached: raw}
            )
        return out.logits, self._appended(cache, tokens, raw)

    @torch.no_grad()
    def forward_each(self, tokens: Sequence[int], caches: Sequence[Cache]) -> tuple[list[Array], list[Cache]]:
        if self.step is None:
            return super().forward_each(tokens, caches)
        ids, raws = np.asarray(tokens)[:, None], [_copy(cache.raw) for cache in caches]
        with self._reading(ids, None, "decode"), self._reading_each(tokens, caches):
            logits = self.step(self._ids(ids), raws, self._edit())
        new = [
            self._appended(cache, ids[i : i + 1], raw) for i, (cache, raw) in enumerate(zip(caches, raws, strict=True))
        ]
        return [logits[i : i + 1] for i in range(len(new))], new

    @torch.no_grad()
    def hidden(self, tokens: np.ndarray, first_layer: int, cache: Cache | None = None) -> Array:
        seen: list[Array] = []

        def last(h: Array) -> Array:
            seen.append(h)
            return h

        stand_ins: dict[int, Callable[[Array], Array]] = dict.fromkeys(range(first_layer, len(self.layers)), _hand_on)
        if stand_ins:
            stand_ins[first_layer] = last
            collecting: contextlib.AbstractContextManager = contextlib.nullcontext()
        else:
            collecting = _hook(self.layers[-1], lambda module, args, out: seen.append(_first(out)))
        self._shared = None

        def share(found: Any) -> None:
            self._shared = self._shared or (*_of(tokens, first_layer, cache), dict(found))

        below = self._acting(lambda site: site.layer < first_layer)
        with self._standing_in(stand_ins, share), collecting, below, self._reading(tokens, cache, "learn"):
            self.model(
                self._ids(tokens),
                logits_to_keep=self._last(tokens),
                **{self._cached: _copy(cache.raw) if cache else None},
            )
        return seen[-1]

    def upper(
        self,
        tokens: np.ndarray,
        h: Array,
        first_layer: int,
        cache: Cache | None = None,
        keep: Sequence[int] | None = None,
    ) -> Array:
        kept: Any = 0 if keep is None else torch.as_tensor(list(keep), device=self.device)
        raw = _copy(cache.raw) if cache else None
        self._share(tokens, first_layer, cache)
        above = self._acting(lambda site: site.layer >= first_layer)
        with self._starting_from(h, first_layer), above, self._reading(tokens, cache, "learn"):
            return self.model(
                self._ids(tokens), use_cache=raw is not None, logits_to_keep=kept, **{self._cached: raw}
            ).logits

    @torch.no_grad()
    def refill(self, cache: Cache, h: Array, first_layer: int) -> Cache:
        raw = self._empty()
        self._share(cache.tokens, first_layer, None)
        above = self._acting(lambda site: site.first_layer >= first_layer)
        with self._starting_from(h, first_layer), above, self._reading(cache.tokens, None):
            self.model(
                self._ids(cache.tokens), use_cache=True, logits_to_keep=self._last(cache.tokens), **{self._cached: raw}
            )
        merged = DynamicCache()
        merged.layers = list(cache.raw.layers[:first_layer]) + list(raw.layers[first_layer:])
        new = replace(cache, raw=merged, marks=())
        return self._marked(new, new) if self.recurrent else new

    def generate_native(self, tokens: Sequence[int], max_tokens: int) -> list[int]:
        ids = torch.as_tensor([list(tokens)], device=self.device)
        with self.quiet(), torch.no_grad():
            out = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=max_tokens,
                eos_token_id=sorted(self.format.stop_ids),
                pad_token_id=self.format.end_of_turn,
            )
        return out[0, ids.shape[1] :].tolist()

    # caches --------------------------------------------------------------------------------------------------
    def trim(self, cache: Cache, length: int) -> Cache:
        states: dict[int, Any] = {}
        if self.recurrent and length < cache.length:
            length, states = self._last_mark(cache, length)
            if not length:
                return self.new_cache(len(cache.tokens))
        raw = DynamicCache()
        raw.layers = [
            states.get(i) or _copied(layer, lambda x: x[..., :length, :]) for i, layer in enumerate(cache.raw.layers)
        ]
        return Cache(cache.tokens[:, :length], raw, tuple(mark for mark in cache.marks if mark[0] <= length))

    def _states(self, raw: DynamicCache) -> dict[int, Any]:
        """By layer; no pass changes them, as it works on copies."""
        return {i: layer for i, layer in enumerate(raw.layers) if _has_state(layer)}

    def select(self, cache: Cache, rows: Sequence[int]) -> Cache:
        index = torch.as_tensor(list(rows), device=self.device)
        chosen: Callable[[Any], Any] = lambda x: x.index_select(0, index)  # noqa: E731
        return Cache(cache.tokens[list(rows)], _copy(cache.raw, chosen, chosen))

    # taps ----------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def tap(self, site: Site, rewrite: Rewrite) -> Iterator[Tap]:
        self.site(site.layer, site.part)
        tap, layer = Tap(site, rewrite), self.layers[site.layer]
        if site.part == "residual":
            handle = layer.register_forward_hook(lambda module, args, out: self._on_output(tap, args, out))
        elif site.part == "pre_attention":
            handle = layer.register_forward_pre_hook(
                lambda module, args, kwargs: self._on_input(tap, args, kwargs), with_kwargs=True
            )
        else:
            handle = down_projection(layer).register_forward_hook(
                lambda module, args, out: self._on_projection(tap, args[0], out)
            )
        self.taps.append(tap)
        try:
            yield tap
        finally:
            self.taps.remove(tap)
            handle.remove()

    def _edit(self) -> Edit | None:
        """What the open taps around layers do in a decode step, which does not call layers; None if there are none."""
        at: dict[tuple[int, str], list[Tap]] = {}
        for tap in self.taps:
            if tap.site.part != "mlp.down_proj":  # a projection is called, and its hook acts
                at.setdefault((tap.site.layer, tap.site.part), []).append(tap)

        def edit(layer: int, part: str, h: Array) -> Array:
            for tap in at.get((layer, part), ()):
                h = self._rewritten(tap, h, h)
            return h

        return edit if at else None

    def _on_output(self, tap: Tap, args: Any, out: Any) -> Any:
        h = _first(out)
        new = self._rewritten(tap, h, h)
        return (new, *out[1:]) if isinstance(out, tuple) else new

    def _on_projection(self, tap: Tap, x: Array, out: Array) -> Array:
        """Of [B, T, F], which some models make rows [B * T, F]."""
        if x.dim() == 3 or self.context is None:
            return self._rewritten(tap, x, out)
        rows = self.context.tokens.shape
        return self._rewritten(tap, x.reshape(*rows, -1), out.reshape(*rows, -1)).reshape(out.shape)

    def _on_input(self, tap: Tap, args: Any, kwargs: Any) -> Any:
        h = args[0] if args else kwargs["hidden_states"]
        return _with_states(self._rewritten(tap, h, h), args, kwargs)

    def _in_int8(self, context: TapContext, tokens: np.ndarray) -> contextlib.AbstractContextManager:
        alone = context.phase == "decode" and len(tokens) == 1
        return self.int8() if self.int8 is not None and alone else contextlib.nullcontext()

    # running parts -------------------------------------------------------------------------------------------
    def _ids(self, tokens: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(tokens), device=self.device)

    def _hand_down(self, shared: Any) -> None:
        if self._shared is not None:
            shared.update(self._shared[-1])

    def _last(self, tokens: np.ndarray, keep: int = 1) -> torch.Tensor:
        """The last positions of tokens [B, T]. As a number, it would have some models drop the others on their way."""
        length = tokens.shape[1]
        return torch.arange(length - keep, length, device=self.device)

    @contextlib.contextmanager
    def _standing_in(
        self, stand_ins: dict[int, Callable[[Array], Array]], share: Callable[[Any], None] = lambda found: None
    ) -> Iterator[None]:
        """Replace layers by functions of their hidden states; the instance attribute hides the class's `forward`.
        `share` gets the keys and values that layers pass on to those above."""
        more = (None,) * (self._outputs - 1)
        for i, function in stand_ins.items():

            def stand_in(hidden_states: Array, *args: Any, _f: Any = function, **kwargs: Any) -> Any:
                if self.shares:
                    share(kwargs["shared_kv_states"])
                return (_f(hidden_states), *more) if self._outputs else _f(hidden_states)

            self.layers[i].forward = stand_in
        try:
            yield
        finally:
            for i in stand_ins:
                del self.layers[i].forward

    @contextlib.contextmanager
    def _starting_from(self, h: Array, first_layer: int) -> Iterator[None]:
        if first_layer == 0:
            handle = self.layers[0].register_forward_pre_hook(
                lambda module, args, kwargs: _with_states(h, args, kwargs), with_kwargs=True, prepend=True
            )
            try:
                yield
            finally:
                handle.remove()
            return
        stand_ins: dict[int, Callable[[Array], Array]] = dict.fromkeys(range(first_layer), _hand_on)
        stand_ins[first_layer - 1] = lambda _: h
        with self._standing_in(stand_ins, self._hand_down):
            yield


def auto_class(config: Any) -> Any:
    """What makes the model of a configuration: some that can look at pictures are no causal ones to transformers."""
    sees = type(config) in AutoModelForImageTextToText._model_mapping
    return (
        AutoModelForImageTextToText
        if sees and type(config) not in AutoModelForCausalLM._model_mapping
        else AutoModelForCausalLM
    )


def _load(source: ModelSource, dtype: torch.dtype) -> Any:
    transformers.utils.logging.disable_progress_bar()  # three seconds, and it would draw over the prompt
    try:
        here: dict[str, Any] = {"local_files_only": True, "trust_remote_code": source.trusted}
        config = AutoConfig.from_pretrained(str(source.folder), **here)
        kind = auto_class(config)
        with _telling(source):
            model, found = kind.from_pretrained(str(source.folder), dtype=dtype, output_loading_info=True, **here)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, TypeError, AttributeError) as error:
        raise loadable.refusal(source, "transformers", error) from error
    if missing := sorted(found["missing_keys"]):  # transformers would make them up
        raise loadable.refusal(source, "transformers", ValueError(f"it lacks {listed(missing)}"))
    return model.eval().requires_grad_(False)


@contextlib.contextmanager
def _telling(source: ModelSource) -> Iterator[None]:
    """Inside, what transformers would count in a bar, the weights it reads, is told to the source's `progress`."""
    told = source.progress
    if told is None:
        yield
        return

    def counted(items: Any) -> Iterator[Any]:
        known = list(items)
        for done, item in enumerate(known, 1):
            told(done, len(known), f"reading the weights, {source.model_id}")
            yield item

    def bar(make: Callable[..., Any], args: Any, options: Any) -> Any:
        return make(*map(counted, args[:1]), *args[1:], **options)

    before = transformers.utils.logging.set_tqdm_hook(bar)
    try:
        yield
    finally:
        transformers.utils.logging.set_tqdm_hook(before)


def _same(x: Any) -> Any:
    return x


def _copy(
    raw: DynamicCache, change: Callable[[Any], Any] = _same, state: Callable[[Any], Any] = torch.clone
) -> DynamicCache:
    """A cache of its own over the same keys and values, each changed so: an update concatenates those and never writes
    in place. It does write over states."""
    new = DynamicCache()
    new.layers = [_copied(layer, change, state) for layer in raw.layers]
    return new


def _copied(layer: Any, change: Callable[[Any], Any], state: Callable[[Any], Any] = torch.clone) -> Any:
    twin = copy.copy(layer)
    if isinstance(getattr(layer, "keys", None), torch.Tensor):
        twin.keys, twin.values = change(layer.keys), change(layer.values)
    if _has_state(layer):
        for name, value in vars(layer).items():
            if isinstance(value, dict):  # by number: a layer may have several states
                made = {i: state(x) if isinstance(x, torch.Tensor) else x for i, x in value.items()}
                setattr(twin, name, made)
    return twin


def _has_state(layer: Any) -> bool:
    return isinstance(layer, LinearAttentionCacheLayerMixin)


def _with_states(h: Array, args: Any, kwargs: Any) -> Any:
    """The arguments of a layer's call with `h` as its hidden states."""
    return ((h, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": h})


def _hand_on(h: Array) -> Array:
    return h


def _first(out: Any) -> Any:
    return out[0] if isinstance(out, tuple) else out


@contextlib.contextmanager
def _hook(module: Any, function: Callable[..., Any]) -> Iterator[None]:
    handle = module.register_forward_hook(lambda *call: (function(*call), None)[1])
    try:
        yield
    finally:
        handle.remove()
