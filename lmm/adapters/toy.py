"""A toy decoder in NumPy: 4 layers of causal attention and an MLP over bytes, seeded weights, no downloads.

It says nothing sensible, but it has every part that the contract of an adapter asks for, so memories and the engine
are tested on it in milliseconds. Gradients are numerical (`NumpyOps`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lmm.adapters.base import Adapter, Cache, Rewrite, Shape, Site, Tap
from lmm.adapters.models.chat_format import ChatFormat, Message
from lmm.adapters.ops import Array, NumpyOps

END, SYSTEM, USER, ASSISTANT = 256, 257, 258, 259
ROLES = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}
MARKS = {"\x02s": SYSTEM, "\x02u": USER, "\x02a": ASSISTANT, "\x03": END}


class ToyFormat(ChatFormat):
    """Bytes, and one token for each role and for the end of a turn."""

    stop_ids = text_ends = frozenset({END})
    end_of_turn = END
    hash = "toy-bytes"

    def render(self, messages: Sequence[Message], reply: bool) -> str:
        text = "".join(f"\x02{m['role'][0]}{self.harmless(m['content'])}\x03" for m in messages)
        return text + "\x02a" if reply else text

    def harmless(self, text: str) -> str:
        return text.replace("\x02", " ").replace("\x03", " ")

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        tokens, spans, i = [], [], 0
        while i < len(text):
            mark = next((m for m in MARKS if text.startswith(m, i)), None)
            if mark:
                tokens.append(MARKS[mark])
                spans.append((i, i + len(mark)))
                i += len(mark)
                continue
            for byte in text[i].encode("utf-8", "replace"):
                tokens.append(byte)
                spans.append((i, i + 1))
            i += 1
        return tokens, spans

    def encode(self, text: str) -> list[int]:
        return self.spans(text)[0]

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(t for t in tokens if t < 256).decode("utf-8", "replace")

    def piece(self, token: int) -> str:
        return self.decode([token])

    def bytes_of(self, token: int) -> bytes:
        return bytes([token]) if token < 256 else b""

    def answer_tokens(self, rendered: str, answer: str) -> list[int]:
        return [*self.encode(self.harmless(answer)), END]


@dataclass(frozen=True)
class _Layer:
    query: Array
    key: Array
    value: Array
    out: Array
    up: Array
    down: Array


class ToyAdapter(Adapter):
    name = "toy"
    dtype, device, model_id, revision = "float32", "cpu", "toy", None

    def __init__(self, layers: int = 4, width: int = 16, seed: int = 0) -> None:
        super().__init__()
        random = np.random.default_rng(seed)
        self.ops, self.format = NumpyOps(), ToyFormat()
        self.shape = Shape(layers, width, 260, 2 * width)

        def matrix(rows: int, columns: int) -> Array:
            return random.normal(0, rows**-0.5, (rows, columns)).astype(np.float32)

        self.embedding = matrix(260, width) * 16.0
        sizes = [(width, width)] * 4 + [(width, 2 * width), (2 * width, width)]
        self.layers = [_Layer(*(matrix(*size) for size in sizes)) for _ in range(layers)]

    # forward passes ------------------------------------------------------------------------------------------
    def new_cache(self, batch: int = 1) -> Cache:
        empty = np.zeros((batch, 0, self.shape.width), np.float32)
        return Cache(np.zeros((batch, 0), np.int64), [(empty, empty)] * self.shape.layers)

    def forward(self, tokens: np.ndarray, cache: Cache, keep: int = 1) -> tuple[Array, Cache]:
        with self._reading(tokens, cache):
            h, raw = self._run(self._embed(tokens, cache.length), 0, self.shape.layers, cache.raw)
        return self._head(h[:, -keep:]), self._appended(cache, tokens, raw)

    def hidden(self, tokens: np.ndarray, first_layer: int, cache: Cache | None = None) -> Array:
        before = cache or self.new_cache(tokens.shape[0])
        with self._reading(tokens, before, "learn"):
            return self._run(self._embed(tokens, before.length), 0, first_layer, before.raw)[0]

    def upper(
        self,
        tokens: np.ndarray,
        h: Array,
        first_layer: int,
        cache: Cache | None = None,
        keep: Sequence[int] | None = None,
    ) -> Array:
        before = cache or self.new_cache(tokens.shape[0])
        with self._reading(tokens, before, "learn"):
            h, _ = self._run(h, first_layer, self.shape.layers, before.raw)
        return self._head(h if keep is None else h[:, list(keep)])

    def refill(self, cache: Cache, h: Array, first_layer: int) -> Cache:
        empty = self.new_cache(cache.tokens.shape[0])
        with self._reading(cache.tokens, empty):
            for tap in self.taps:
                if tap.site == Site(first_layer - 1):
                    h = self._rewritten(tap, h, h)
            _, raw = self._run(h, first_layer, self.shape.layers, empty.raw)
        return replace(cache, raw=[*cache.raw[:first_layer], *raw[first_layer:]])

    def generate_native(self, tokens: Sequence[int], max_tokens: int) -> list[int]:
        made: list[int] = []
        with self.quiet():
            while len(made) < max_tokens and (not made or made[-1] != END):
                seen = np.asarray([[*tokens, *made]])
                made.append(int(self.forward(seen, self.new_cache())[0][0, -1].argmax()))
        return made

    # caches --------------------------------------------------------------------------------------------------
    def trim(self, cache: Cache, length: int) -> Cache:
        return Cache(cache.tokens[:, :length], [(k[:, :length], v[:, :length]) for k, v in cache.raw])

    def select(self, cache: Cache, rows: Sequence[int]) -> Cache:
        rows = list(rows)
        return Cache(cache.tokens[rows], [(k[rows], v[rows]) for k, v in cache.raw])

    @contextlib.contextmanager
    def tap(self, site: Site, rewrite: Rewrite) -> Iterator[Tap]:
        self.site(site.layer, site.part)
        tap = Tap(site, rewrite)
        self.taps.append(tap)
        try:
            yield tap
        finally:
            self.taps.remove(tap)

    # the model -----------------------------------------------------------------------------------------------
    def _embed(self, tokens: np.ndarray, start: int) -> Array:
        positions = np.arange(start, start + tokens.shape[1])[:, None] / 10.0 ** np.linspace(0, 2, self.shape.width)
        return (self.embedding[tokens] + np.sin(positions)).astype(np.float32)

    def _run(self, h: Array, first: int, last: int, raw: list[Any]) -> tuple[Array, list[Any]]:
        raw = list(raw)
        for i in range(first, last):
            h, raw[i] = self._layer(i, h, raw[i])
        return h, raw

    def _layer(self, i: int, h: Array, cache: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        layer = self.layers[i]
        h = self._tapped(i, "pre_attention", h, h)
        x = _normed(h)
        keys = np.concatenate([cache[0], x @ layer.key], axis=1)
        values = np.concatenate([cache[1], x @ layer.value], axis=1)
        scores = (x @ layer.query) @ keys.transpose(0, 2, 1) / self.shape.width**0.5
        past = keys.shape[1] - h.shape[1]
        future = np.arange(keys.shape[1])[None] > np.arange(h.shape[1])[:, None] + past
        h = h + self.ops.softmax(np.where(future, -1e9, scores)) @ values @ layer.out
        x = np.maximum(_normed(h) @ layer.up, 0.0)
        h = h + self._tapped(i, "mlp.down_proj", x, x @ layer.down)
        return self._tapped(i, "residual", h, h), (keys, values)

    def _tapped(self, i: int, part: str, x_in: Array, x_out: Array) -> Array:
        for tap in self.taps:
            if tap.site == Site(i, part):
                x_out = self._rewritten(tap, x_in, x_out)
        return x_out

    def _head(self, h: Array) -> Array:
        return _normed(h) @ self.embedding.T


def _normed(x: Array) -> Array:
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-6)
