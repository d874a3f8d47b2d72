"""The llama.cpp backend: a GGUF file as it is, read and decoded by llama.cpp on the CPU.

Taps act in llama.cpp's own graph: at the nodes that carry the hidden states, its evaluation callback reads and rewrites
them in place. Learning needs gradients, which llama.cpp has not: the layers above a memory are built in torch from the
same weights when the first lesson comes (`llama_cpp_upper`), and what enters them comes from llama.cpp.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lmm.adapters import llama_cpp_api as api
from lmm.adapters.base import Adapter, Cache, Rewrite, Shape, Site, Tap, as_tokens
from lmm.adapters.llama_cpp_context import AT_ONCE, Context, Handler, Model, Text, own_greedy
from lmm.adapters.models import loadable
from lmm.adapters.models.chat_format import HFChatFormat
from lmm.adapters.models.source import gguf_of
from lmm.adapters.ops import Array
from lmm.adapters.threads import Threads
from lmm.adapters.torch_ops import TorchOps
from lmm.errors import LmmError, ModelError, UsageError

if TYPE_CHECKING:
    from lmm.adapters.llama_cpp_upper import UpperLayers
    from lmm.adapters.models.source import ModelSource

PROBE = "The quick brown fox jumps over 13 lazy dogs.\n"


@dataclass
class Read:
    """Who has read the rows of a cache, the taps that acted, and by the first of the layers in torch: what these have
    made of it, and what of a prompt enters them [B, T, D]."""

    texts: list[Text]
    taps: tuple[Tap, ...] = ()
    above: dict[int, Cache] = field(default_factory=dict)
    entering: dict[int, Array] = field(default_factory=dict)


class LlamaCppAdapter(Adapter):
    name = "llama_cpp"
    learns_apart = True

    def __init__(self, source: ModelSource, dtype: str = "auto", layers_path: str | None = None) -> None:
        super().__init__()
        if dtype not in ("auto", "float32"):
            raise UsageError(
                f"llama.cpp runs the file's own weights, not {dtype}; --dtype auto, or float32 for the cache"
            )
        if layers_path is not None:
            raise UsageError("llama.cpp finds the layers of a file by itself; leave out --layers-path")
        self.source, self.model_id, self.revision = source, source.model_id, source.revision
        loadable.check(source, self.name)
        self.format = HFChatFormat(source.folder, source.trusted)
        self.file = Model(gguf_of(source))
        if (own := self.file.encode(PROBE)) != (read := self.format.encode(PROBE)):
            raise ModelError(f"{source.name}: llama.cpp reads {PROBE!r} as {own}, its tokenizer's files as {read}")
        self.device, self.dtype, self.ops = "cpu", self.file.kind, TorchOps(torch.device("cpu"))
        self.store = Context(self.file, precise=dtype == "float32")
        self.threads = Threads(self._set_threads, torch.get_num_threads())
        config = loadable.read_json(source.folder / "config.json")
        self._check_positions(config)
        self.shape = Shape(
            self.file.layers,
            self.file.width,
            self.file.tokens,
            int(config.get("intermediate_size") or 0),
            int(config.get("max_position_embeddings") or 0),
        )
        self._upper: UpperLayers | None = None
        self._learning: int | None = None  # the first layer that a lesson has run above a prompt
        self._last: Cache | None = None  # what `read` has read last
        self._shown: set[Site] = set()  # sites whose nodes were seen in the graph
        self._first_node = self._entering_the_first()

    def _check_positions(self, config: Mapping[str, Any]) -> None:
        """Raises ModelError where llama.cpp reads a text otherwise than the model was made to be read."""
        ropes = [config.get(key) or {} for key in ("rope_parameters", "rope_scaling")]
        if any("longrope" in (rope.get("rope_type"), rope.get("type")) for rope in ropes):
            why = "turns its positions by the room that there is, not by a text's length"
        elif self._misses_a_window(config):
            why = f"leaves out its sliding window of {config['sliding_window']} tokens"
        else:
            return
        raise ModelError(f"llama.cpp {why}; {self.source.name} runs with --backend torch")

    def _misses_a_window(self, config: Mapping[str, Any]) -> bool:
        """Whether some layers see less of the longest text than llama.cpp shows them."""
        window, longest = config.get("sliding_window") or math.inf, config.get("max_position_embeddings") or math.inf
        return window < longest and config.get("use_sliding_window", True) and not self.file.window

    def _set_threads(self, count: int) -> None:
        torch.set_num_threads(count)
        self.store.set_threads(count)

    # forward passes ------------------------------------------------------------------------------------------
    def new_cache(self, batch: int = 1) -> Cache:
        return Cache(np.zeros((batch, 0), np.int64), Read([self.store.new() for _ in range(batch)]))

    def forward(self, tokens: np.ndarray, cache: Cache, keep: int = 1) -> tuple[Array, Cache]:
        phase = "decode" if tokens.shape[1] == 1 and cache.length else "prefill"
        parts, at, layer = [], self._to_keep(tokens, cache), self._learning
        for part, some in self._parts(tokens, keep):
            logits, cache = self._pass(part, cache, some, phase, at)
            parts.append(torch.from_numpy(logits))
        if at is not None and layer is not None:
            cache.raw.entering[layer] = torch.cat(at.taken, 1)
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1), cache

    def decode(self, token: int, cache: Cache) -> tuple[np.ndarray, Cache]:
        """Without torch, whose code the weights have driven out of the processor's caches."""
        logits, cache = self._pass(as_tokens([token]), cache, 1, "decode")
        return logits[0, -1], cache

    def read(self, tokens: Sequence[int]) -> Cache:
        """As the last text began, which is how a chat template begins all of them, is not read again."""
        known, new = self._last, as_tokens(tokens)
        lacks = known is not None and self._learning is not None and self._learning not in known.raw.entering
        if known is None or lacks or known.raw.taps or self._nodes():
            known = self.new_cache()
        most = min(known.length, new.shape[1] - 1)
        differs = np.flatnonzero(known.tokens[0, :most] != new[0, :most])
        begun = self.trim(known, int(differs[0]) if len(differs) else most)
        self._last = self.forward(new[:, begun.length :], begun)[1]
        return self._last

    def hidden(self, tokens: np.ndarray, first_layer: int, cache: Cache | None = None) -> Array:
        cache = cache or self.new_cache(len(tokens))
        texts = [self.store.branch(text, cache.length) for text in self._texts(cache)]  # above it, nothing real is kept
        cache, at = replace(cache, raw=Read(texts, cache.raw.taps)), _At(self._entering(first_layer))
        with self._acting(lambda site: site.layer < first_layer):
            for part, _ in self._parts(tokens, 0):
                _, cache = self._pass(part, cache, 0, "learn", at)
        return torch.cat(at.taken, 1)

    def upper(
        self,
        tokens: np.ndarray,
        h: Array,
        first_layer: int,
        cache: Cache | None = None,
        keep: Sequence[int] | None = None,
    ) -> Array:
        layers = self._layers_from(first_layer)
        before = self._above(cache, first_layer) if cache is not None and cache.length else None
        acting = self._acting(lambda site: site.layer >= first_layer)
        with layers.tapped(self.taps, self._rewritten), acting, self._reading(tokens, cache, "learn"):
            return layers.upper(tokens, h, first_layer - layers.first, before, keep)

    def refill(self, cache: Cache, h: Array, first_layer: int) -> Cache:
        """llama.cpp cannot begin in the middle: all layers run, as long as a prompt of that length takes."""
        new, start = self.new_cache(len(cache.tokens)), 0
        for part, _ in self._parts(cache.tokens, 0):
            put = h[:, start : start + part.shape[1]]
            with self._acting(lambda site: site.first_layer >= first_layer):
                _, new = self._pass(part, new, 0, "prefill", _At(self._entering(first_layer), put=put))
            start += part.shape[1]
        return new

    def generate_native(self, tokens: Sequence[int], max_tokens: int) -> list[int]:
        return own_greedy(self.store, tokens, max_tokens, self.format.stop_ids)

    # caches --------------------------------------------------------------------------------------------------
    def trim(self, cache: Cache, length: int) -> Cache:
        entering = {layer: h[:, :length] for layer, h in cache.raw.entering.items()}
        return Cache(cache.tokens[:, :length], Read(cache.raw.texts, cache.raw.taps, entering=entering))

    def select(self, cache: Cache, rows: Sequence[int]) -> Cache:
        texts, chosen = [cache.raw.texts[row] for row in rows], list(rows)
        entering = {layer: h[chosen] for layer, h in cache.raw.entering.items()}
        return Cache(cache.tokens[chosen], Read(texts, cache.raw.taps, entering=entering))

    # taps ----------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def tap(self, site: Site, rewrite: Rewrite) -> Iterator[Tap]:
        self.site(site.layer, site.part)
        self._check_shown(site)
        tap = Tap(site, rewrite)
        self.taps.append(tap)
        try:
            yield tap
        finally:
            self.taps.remove(tap)

    def _entering(self, layer: int) -> str:
        """The node of the hidden states that enter a layer, or leave the last."""
        return f"l_out-{layer - 1}" if layer else self._first_node

    def _node(self, site: Site) -> str:
        if site.part == "mlp.down_proj":
            return f"ffn_out-{site.layer}"
        return self._entering(site.layer + (site.part == "residual"))

    def _entering_the_first(self) -> str:
        """Its name differs: some models scale their embeddings, and some normalise no sooner than their queries."""
        seen = self._look_at("norm-0")
        tensor = api.operand(seen[0], 0) if seen else 0
        while tensor and api.name_of(tensor).endswith("-0"):  # a product within the layer: weights, and what enters
            tensor = api.operand(tensor, 1)
        return api.name_of(tensor) if tensor else "embd"

    def _check_shown(self, site: Site) -> None:
        """Raises LmmError where the graph has no node for a site, or one of another kind, as a mixture of experts."""
        if site in self._shown:
            return
        seen = self._look_at(self._node(site))
        wide = self.store.lib.ggml_nelements(api.operand(seen[0], 1)) if seen and site.part == "mlp.down_proj" else 0
        if not seen or wide not in (0, self.shape.mlp_width):
            raise LmmError(
                f"llama.cpp does not show {site.part} of layer {site.layer} of this model, where the memory acts; "
                "use --backend torch, or another memory"
            )
        self._shown.add(site)

    def _look_at(self, name: str) -> list[int]:
        """The node of that name, if there is one, in a pass over one token."""
        seen: list[int] = []

        def look(tensor: int) -> bool:
            seen.append(tensor)
            return False

        self.store.read(np.zeros((1, 1), np.int64), [self.store.new()], 1, {name: look})
        return seen

    # one pass ------------------------------------------------------------------------------------------------
    def _parts(self, tokens: np.ndarray, keep: int) -> Iterator[tuple[np.ndarray, int]]:
        """Tokens [B, T] in parts that llama.cpp reads in one pass, and how many of a part are among the last `keep`."""
        size, length = max(1, AT_ONCE // len(tokens)), tokens.shape[1]
        for start in range(0, length, size):
            end = min(start + size, length)
            yield tokens[:, start:end], max(0, end - max(start, length - keep))

    def _pass(
        self, tokens: np.ndarray, cache: Cache, keep: int, phase: str, at: _At | None = None
    ) -> tuple[np.ndarray, Cache]:
        """Tokens [B, T] through the taps -> logits [B, keep, V] of the last, and the cache after them."""
        texts = self.store.to_read_on(self._texts(cache), cache.length)
        nodes, shape = self._nodes(at), (len(tokens), tokens.shape[1])
        last = self.shape.layers - 1
        whole = nodes.keys() & {f"l_out-{last}", f"ffn_out-{last}"}  # else the last layer runs for the wanted only
        shown = shape[1] if whole else keep

        def handler(name: str) -> Handler:
            def handle(tensor: int) -> bool:
                return self._at_node(tensor, shape, nodes[name], at if at and at.node == name else None)

            return handle

        with self._reading(tokens, cache, phase):
            logits = self.store.read(tokens, texts, shown, {name: handler(name) for name in nodes})
        taps = tuple({*cache.raw.taps, *(tap for acting in nodes.values() for tap in acting)})
        return logits[:, shown - keep :], self._appended(cache, tokens, Read(texts, taps))

    def _texts(self, cache: Cache) -> list[Text]:
        """Those of a cache; read again if what is to be read on would miss something of them."""
        if any(cache.length < text.whole for text in cache.raw.texts):
            new = self.new_cache(len(cache.tokens))
            with self._as_when(cache.raw):
                for part, _ in self._parts(cache.tokens, 0):
                    _, new = self._pass(part, new, 0, "prefill")
            cache.raw.texts = new.raw.texts
        return cache.raw.texts

    def _nodes(self, at: _At | None = None) -> dict[str, list[Tap]]:
        """The taps that act in a pass, by their nodes."""
        nodes: dict[str, list[Tap]] = {at.node: []} if at else {}
        acting = [tap for tap in self.taps if tap.enabled and self._acts(tap.site)]
        for tap in sorted(acting, key=lambda tap: tap.site.part == "pre_attention"):  # after the layer before it
            nodes.setdefault(self._node(tap.site), []).append(tap)
        return nodes

    def _at_node(self, tensor: int, shape: tuple[int, int], taps: list[Tap], at: _At | None) -> bool:
        if at is not None and at.put is not None:
            self.store.set(tensor, at.put)
        looked_at = at is None and all(tap.passes() for tap in taps)
        h = found = self.store.look(tensor, shape) if looked_at else self.store.get(tensor, shape)
        for tap in taps:
            inside = tap.site.part == "mlp.down_proj"
            h = self._rewritten(tap, self.store.get(api.operand(tensor, 1), shape) if inside else h, h)
        if h is not found:
            self.store.set(tensor, h)
        if at is None or at.put is not None:
            return True
        at.taken.append(h)
        return at.goes_on

    # the layers that learn -----------------------------------------------------------------------------------
    def _layers_from(self, first_layer: int) -> UpperLayers:
        first = min(first_layer, self.shape.layers - 1)
        if self._upper is None or self._upper.first != first:
            from lmm.adapters.llama_cpp_upper import UpperLayers  # a second and 120 MB, which only learning needs

            self._upper = UpperLayers(self.source, self.format, first)
        return self._upper

    def _to_keep(self, tokens: np.ndarray, cache: Cache) -> _At | None:
        """Where a pass over a prompt shows what enters the layers that learn: a lesson then need not read it again."""
        layer = self._learning
        if layer is None or tokens.shape[1] == 1 or any(tap.site == Site(layer, "pre_attention") for tap in self.taps):
            return None
        taken = [cache.raw.entering[layer]] if layer in cache.raw.entering else []
        whole = cache.length == sum(h.shape[1] for h in taken)
        return _At(self._entering(layer), taken=taken, goes_on=True) if whole else None

    def _above(self, cache: Cache, first_layer: int) -> Cache | None:
        """What the layers in torch keep of the tokens of a cache; the head alone keeps nothing."""
        above, layers = cache.raw.above, self._layers_from(first_layer)
        if first_layer == self.shape.layers:
            return None
        if first_layer not in above:
            self._learning, h = first_layer, cache.raw.entering.get(first_layer)
            with self._as_when(cache.raw):
                if h is None or h.shape[1] < cache.length:
                    h = self.hidden(cache.tokens, first_layer)
                acting = self._acting(lambda site: site.layer >= first_layer)
                with layers.tapped(self.taps, self._rewritten), acting, self._reading(cache.tokens, None):
                    above[first_layer] = layers.refill(layers.empty(cache.tokens), h, 0)
        return above[first_layer]

    @contextlib.contextmanager
    def _as_when(self, read: Read) -> Iterator[None]:
        """Inside, the taps act that acted when it was read."""
        before = [(tap, tap.enabled) for tap in self.taps]
        for tap in self.taps:
            tap.enabled = tap in read.taps
        try:
            yield
        finally:
            for tap, was in before:
                tap.enabled = was


@dataclass
class _At:
    """A node where states [B, T, D] are put in, or taken out, and then the pass ends or goes on."""

    node: str
    put: Array | None = None
    taken: list[Array] = field(default_factory=list)
    goes_on: bool = False
