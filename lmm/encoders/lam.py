"""`lam`: all-MiniLM-L6-v2 with linear attention, over `Ops`. A text may have 1,572,864 tokens.

Embeddings and feed-forward layers are MiniLM's (`lmm.encoders.minilm`); what was trained (scripts/train_lam.py) is a
small file: the maps below, and changes of low rank to MiniLM's matrices. In place of softmax, head h of a layer weighs
the value of token j for token i by a product of positive features, as in Hedgehog (Zhang et al. 2024,
arXiv:2402.04347), and those of its neighbours by their place too, as in a dynamic convolution (Wu et al. 2019,
arXiv:1901.10430):

    w_ij = sum_m exp(A_m q_i + a_m) exp(B_m k_j + b_m)  +  exp(C_(j-i) q_i + c_(j-i)) where |j - i| <= 3
    out_i = sum_j w_ij v_j / sum_j w_ij

The first term is a sum over j that no i takes part in (Katharopoulos et al. 2020, arXiv:2006.16236): its cost is
linear, and the order of the summands does not matter. A text longer than a page (256 tokens, what MiniLM was trained to
read) is two levels deep: a token sees its own page as it is, with positions counted in it, and all other pages with
weight 256 / T, so that the whole of a long text counts as much as one page more. Nothing is padded, and no text sees
another.

Shape letters: T tokens, L tokens of a page, D width (384), H heads (12), E = D / H, M features of a head (64).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from lmm.adapters.ops import Array, Ops
from lmm.encoders import minilm
from lmm.encoders.minilm import HEADS, LAYERS, NUMPY, WIDTH
from lmm.encoders.sentences import SentenceEncoder
from lmm.errors import ModelError, UsageError

WEIGHTS = Path(__file__).with_name("lam.safetensors")
MAX_LENGTH = 1_572_864  # tokens, with both special ones
PAGE = minilm.MAX_TOKENS
FEATURES = 64
TAPS = (-3, -2, -1, 0, 1, 2, 3)
BLOCK = 4 * PAGE  # tokens that are computed together
HALF_FROM = 1 << 17  # tokens of a text from which on its states are kept in float16
EXPONENT = 15.0  # exponents are kept within this: neither overflow nor a division by zero
_BLANK = re.compile(r"[ \t\n\r]")


def new_maps(seed: int) -> dict[str, np.ndarray]:
    """Maps before training: random directions, each with its opposite, since q and k are about as wide as softmax
    likes them after a division by E^1/4; neighbours count little."""
    rng, inner = np.random.default_rng(seed), WIDTH // HEADS
    maps = {}
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}.attention.self"
        half = np.stack([np.linalg.qr(rng.normal(size=(inner, inner)))[0] for _ in range(HEADS)])
        both = np.concatenate([half, -half], -1) * inner**0.25
        for name in ("query_map", "key_map"):
            maps[f"{at}.{name}"] = both.astype(np.float32)
            maps[f"{at}.{name}_bias"] = np.zeros((HEADS, FEATURES), np.float32)
        maps[f"{at}.local"] = np.zeros((HEADS, inner, len(TAPS)), np.float32)
        maps[f"{at}.local_bias"] = np.zeros((HEADS, len(TAPS)), np.float32)
    return maps


def load_weights(path: Path, base: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """MiniLM's weights, changed as the file says, and the maps; all float32. Raises ModelError."""
    from safetensors.numpy import load_file

    if not path.exists():
        raise ModelError(f"the weights of lam are not here ({path.name}); python -m scripts.train_lam makes them")
    try:
        changes = load_file(str(path))
    except Exception as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    maps = {name: np.asarray(changes[name], np.float32) for name in new_maps(0) if name in changes}
    if missing := new_maps(0).keys() - maps.keys():
        raise ModelError(f"{path} is not of lam: no {min(missing)}")
    return {**minilm.merge_lora(base, changes), **maps}


class Pages:
    """Pages that are computed together, with `ops`, and where each begins and ends."""

    def __init__(self, ops: Ops, pages: Sequence[np.ndarray]) -> None:
        self.ops, self.pages = ops, pages
        lengths = [len(page) for page in pages]
        ends = np.cumsum(lengths).tolist()
        self.spans = [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
        place = np.concatenate([np.arange(length) for length in lengths])[:, None] + np.array(TAPS)
        self.near = ops.asarray((place >= 0) & (place < np.repeat(lengths, lengths)[:, None]))  # [T, taps]

    def embed(self, weights: Mapping[str, Array]) -> Array:
        return self.ops.concat([minilm.embed(weights, page, self.ops) for page in self.pages], axis=0)


class Attention:
    """The heads of one layer over the states [T, D] of some pages; `weights` are all of the model's."""

    def __init__(self, weights: Mapping[str, Array], layer: int, x: Array, pages: Pages) -> None:
        self.weights, self.at, self.x = weights, f"encoder.layer.{layer}.attention.self", x
        self.pages, self.ops = pages, pages.ops
        ones = self.ops.zeros((HEADS, len(x), 1)) + 1.0
        self.values = self.ops.concat([self._heads("value"), ones])  # [H, T, E + 1]: numerators, denominator
        self.keys = self._positive("key_map", self._heads("key"))  # [H, T, M]

    def _heads(self, name: str) -> Array:
        x = minilm.linear(self.weights, f"{self.at}.{name}", self.x)
        return x.reshape(len(x), HEADS, -1).swapaxes(0, 1)

    def _positive(self, name: str, x: Array) -> Array:
        exponent = x @ self.weights[f"{self.at}.{name}"]
        exponent += self.weights[f"{self.at}.{name}_bias"][:, None]
        for _ in range(2):  # from below, then from above
            exponent = self.ops.maximum(exponent, -EXPONENT)
            exponent *= -1
        return self.ops.exp(exponent)

    def sums(self, span: slice = slice(None)) -> Array:
        """[H, M, E + 1] over the tokens of a span."""
        return self.keys[:, span].swapaxes(1, 2) @ self.values[:, span]

    def mixed(self, rest: Array | None, share: float) -> Array:
        """[H, T, E]. `rest`, where there are more pages, are the sums over the whole text, and `share` their weight."""
        q = self._heads("query")
        features, near = self._positive("query_map", q), self._positive("local", q) * self.pages.near

        def seen(span: slice) -> Array:
            sums = self.sums(span)
            return sums if rest is None else sums + share * (rest - sums)

        mixed = self.ops.concat([features[:, span] @ seen(span) for span in self.pages.spans], axis=1)
        before, after = (self.ops.zeros((HEADS, taps, mixed.shape[-1])) for taps in (-TAPS[0], TAPS[-1]))
        padded = self.ops.concat([before, self.values, after], axis=1)
        for tap in range(len(TAPS)):
            mixed += near[..., tap : tap + 1] * padded[:, tap : tap + len(self.x)]
        return mixed[..., :-1] / mixed[..., -1:]


def run_layer(
    weights: Mapping[str, Array],
    layer: int,
    x: Array,
    pages: Pages,
    rest: Array | None = None,
    share: float = 0.0,
) -> Array:
    """[T, D] -> [T, D]"""
    mixed = Attention(weights, layer, x, pages).mixed(rest, share)
    return minilm.after_attention(weights, f"encoder.layer.{layer}.", x, mixed, pages.ops)


def short_means(ops: Ops, weights: Mapping[str, Array], texts: Sequence[np.ndarray]) -> np.ndarray:
    """Texts of one page each -> the means of their states, [n, D]. They share matrix products, and nothing else."""
    pages = Pages(ops, texts)
    x = pages.embed(weights)
    for layer in range(LAYERS):
        x = run_layer(weights, layer, x, pages)
    return ops.to_numpy(ops.concat([ops.mean(x[span], axis=0, keepdims=True) for span in pages.spans], axis=0))


def long_mean(ops: Ops, weights: Mapping[str, Array], ids: np.ndarray, block: int = BLOCK) -> np.ndarray:
    """A text of several pages -> the mean of its states, [D], `block` tokens at a time.

    The states of all layers take one place, outside of the backend, in half precision for texts whose memory they
    would be; the sums over the whole text that a layer needs are gathered, in double precision, while the layer below
    is computed.
    """
    states = np.empty((len(ids), WIDTH), np.float32 if len(ids) <= HALF_FROM else np.float16)
    share, rest, total = PAGE / len(ids), None, np.zeros(WIDTH)
    for layer in range(-1, LAYERS):
        above: np.ndarray = np.zeros(())
        for start in range(0, len(ids), block):
            pages = Pages(ops, [ids[at : at + PAGE] for at in range(start, min(start + block, len(ids)), PAGE)])
            mine = states[start : start + block]
            if layer < 0:
                x = pages.embed(weights)
            else:
                x = run_layer(weights, layer, ops.asarray(mine.astype(np.float32)), pages, rest, share)
            if layer + 1 < LAYERS:
                mine[...] = ops.to_numpy(x)
                above = above + ops.to_numpy(Attention(weights, layer + 1, x, pages).sums()).astype(np.float64)
            else:
                total += ops.to_numpy(ops.sum(x, axis=0))
        rest = ops.asarray(above)
    return (total / len(ids)).astype(np.float32)


class Lam(SentenceEncoder):
    """The encoder `lam`, computed with `ops`. `path` is a file of scripts/train_lam.py, and its checksum a part of the
    name."""

    width, max_length = WIDTH, MAX_LENGTH

    def __init__(self, path: Path = WEIGHTS, ops: Ops = NUMPY) -> None:
        base, self.ops = minilm.Encoder(), ops
        self.weights = {name: ops.asarray(value) for name, value in load_weights(path, base.weights).items()}
        self.name = f"lam {hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
        self.tokenizer, self.cls, self.sep = base.tokenizer, base.cls, base.sep

    def vectors(self, texts: Sequence[str], max_length: int) -> np.ndarray:
        if not 2 <= max_length <= MAX_LENGTH:
            raise UsageError(f"max_length must be from 2 to {MAX_LENGTH}, not {max_length}")
        found = np.empty((len(texts), WIDTH), np.float32)
        short: list[int] = []
        rows: list[np.ndarray] = []
        for i, text in enumerate(texts):
            ids = self.ids(text, max_length)
            if len(ids) > PAGE:
                found[i] = long_mean(self.ops, self.weights, ids)
                continue
            if sum(map(len, rows)) + len(ids) > BLOCK:
                found[short] = short_means(self.ops, self.weights, rows)
                short, rows = [], []
            short.append(i)
            rows.append(ids)
        if rows:
            found[short] = short_means(self.ops, self.weights, rows)
        return found

    def ids(self, text: str, limit: int = MAX_LENGTH) -> np.ndarray:
        """[CLS] word pieces [SEP], at most `limit`; a long text is cut, and read piece by piece up to there."""
        pieces = (id for part in parts(text) for id in self.tokenizer.encode(part, add_special_tokens=False).ids)
        return np.array([self.cls, *islice(pieces, limit - 2), self.sep], np.int32)

    def count_tokens(self, text: str) -> int:
        return len(self.ids(text))


def parts(text: str, size: int = 1 << 16) -> Iterator[str]:
    """A text in parts that are tokenized as the whole is: they end before a blank."""
    start = 0
    while start < len(text):
        blank = _BLANK.search(text, start + size)
        end = blank.start() if blank else len(text)
        yield text[start:end]
        start = end


def export(folder: Path, encoder: Lam | None = None) -> None:
    """A folder that the sentence-transformers package loads, without lmm. Needs torch."""
    import torch

    from lmm.encoders import lam_torch

    encoder = encoder or Lam()
    config = {"page": PAGE, "layers": LAYERS, "heads": HEADS, "max_length": MAX_LENGTH}
    weights = {name: torch.from_numpy(encoder.ops.to_numpy(value)) for name, value in encoder.weights.items()}
    lam_torch.LamModule(weights, config, encoder.tokenizer).save(str(folder))
    module = {"idx": 0, "name": "0", "path": "", "type": "lam_torch.LamModule"}
    (Path(folder) / "modules.json").write_text(json.dumps([module]))
