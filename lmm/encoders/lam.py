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

Shape letters: T tokens, L tokens of a page, D width (384), H heads (12), E = D / H, M features of a head (16).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from itertools import groupby, islice
from pathlib import Path

import numpy as np

from lmm.adapters.ops import Array, Ops
from lmm.encoders import minilm
from lmm.encoders.minilm import HEADS, LAYERS, NUMPY, WIDTH
from lmm.encoders.sentences import SentenceEncoder
from lmm.errors import ModelError

WEIGHTS = Path(__file__).with_name("lam.safetensors")
MAX_LENGTH = 1_572_864  # tokens, with both special ones
PAGE = minilm.MAX_TOKENS
FEATURES = 16  # more are slower than MiniLM's softmax, and no better
TAPS = (-3, -2, -1, 0, 1, 2, 3)
PAIRS = 64  # tokens of a page up to which the products of all its pairs are the faster way to the same
BLOCK = 4 * PAGE  # tokens that are computed together
HALF_FROM = 1 << 17  # tokens of a text from which on its states are kept in float16
EXPONENT = 15.0  # exponents are kept within this: neither overflow nor a division by zero
#: where a text may be cut: before a blank, and after a mark or a Chinese character, which are tokens of their own
_CUT = re.compile(r"(?=[ \t\n\r])|(?<=[!-/:-@\\^-`{-~\u4e00-\u9fff])")


def new_maps(seed: int, features: int = FEATURES) -> dict[str, np.ndarray]:
    """Maps before training: random directions, each with its opposite, since q and k are about as wide as softmax
    likes them after a division by E^1/4; neighbours count little."""
    rng, inner = np.random.default_rng(seed), WIDTH // HEADS
    maps = {}
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}.attention.self"
        half = np.stack([np.linalg.qr(rng.normal(size=(inner, inner)))[0] for _ in range(HEADS)])[..., : features // 2]
        both = np.concatenate([half, -half], -1) * inner**0.25
        for name in ("query_map", "key_map"):
            maps[f"{at}.{name}"] = both.astype(np.float32)
            maps[f"{at}.{name}_bias"] = np.zeros((HEADS, features), np.float32)
        maps[f"{at}.local"] = np.zeros((HEADS, inner, len(TAPS)), np.float32)
        maps[f"{at}.local_bias"] = np.zeros((HEADS, len(TAPS)), np.float32)
    return maps


def load_weights(path: Path, base: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """MiniLM's weights, changed as the file says, and the maps, of states instead of queries and keys; all float32.
    Raises ModelError."""
    from safetensors.numpy import load_file

    if not path.exists():
        raise ModelError(f"the weights of lam are not here ({path.name}); python -m scripts.train_lam makes them")
    try:
        changes = load_file(str(path))
    except Exception as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    if missing := new_maps(0).keys() - changes.keys():
        raise ModelError(f"{path} is not of lam: no {min(missing)}")
    weights = minilm.merge_lora(base, changes)
    for layer in range(LAYERS):
        _fold(weights, f"encoder.layer.{layer}.attention.self", changes)
    return weights


def _fold(weights: dict[str, np.ndarray], at: str, maps: Mapping[str, np.ndarray]) -> None:
    """A map of what a matrix gives is one matrix: from the states [D] to all heads' exponents, [H M]."""
    for name, below in (("query_map", "query"), ("local", "query"), ("key_map", "key")):
        matrix, bias = weights[f"{at}.{below}.weight"], weights[f"{at}.{below}.bias"]
        each, own = (np.asarray(maps[f"{at}.{name}{end}"], np.float32) for end in ("", "_bias"))
        both = np.concatenate([matrix, bias[None]]).reshape(-1, HEADS, WIDTH // HEADS)
        exponents = np.einsum("dhe,hem->dhm", both, each)
        weights[f"{at}.{name}.weight"] = np.ascontiguousarray(exponents[:-1].reshape(WIDTH, -1))
        weights[f"{at}.{name}.bias"] = (exponents[-1] + own).reshape(-1)
    for below in ("query", "key"):
        del weights[f"{at}.{below}.weight"], weights[f"{at}.{below}.bias"]


class Pages:
    """Pages that are computed together, with `ops`; those of one length side by side are a group, ids [n, L]."""

    def __init__(self, ops: Ops, pages: Sequence[np.ndarray]) -> None:
        self.ops, self.groups = ops, [np.stack(list(same)) for _, same in groupby(pages, len)]

    def embed(self, weights: Mapping[str, Array]) -> Array:
        """[T, D]"""
        embedded = [minilm.embed(weights, ids, self.ops).reshape(-1, WIDTH) for ids in self.groups]
        return self.ops.concat(embedded, axis=0)

    def split(self, x: Array, axis: int) -> Iterator[Array]:
        """What the tokens have, T along `axis`, group by group: n, L in place of T."""
        start = 0
        for ids in self.groups:
            part = x[(slice(None),) * axis + (slice(start, start + ids.size),)]
            yield part.reshape(*x.shape[:axis], *ids.shape, *x.shape[axis + 1 :])
            start += ids.size


class Attention:
    """The heads of one layer over the states [T, D] of some pages; `weights` are all of the model's."""

    def __init__(self, weights: Mapping[str, Array], layer: int, x: Array, pages: Pages) -> None:
        self.weights, self.at, self.x = weights, f"encoder.layer.{layer}.attention.self", x
        self.pages, self.ops = pages, pages.ops
        ones = self.ops.zeros((HEADS, len(x), 1)) + 1.0
        self.values = self.ops.concat([self._heads(self._linear("value")), ones])  # [H, T, E + 1]: also a denominator
        self.keys = self._positive("key_map")  # [H, T, M]

    def _linear(self, name: str) -> Array:
        return minilm.linear(self.weights, f"{self.at}.{name}", self.x)

    def _heads(self, x: Array) -> Array:
        return x.reshape(len(x), HEADS, -1).swapaxes(0, 1)

    def _positive(self, name: str) -> Array:
        return self._heads(self.ops.exp(self.ops.clip(self._linear(name), -EXPONENT, EXPONENT)))

    def sums(self) -> Array:
        """[H, M, E + 1] over all tokens."""
        return self.keys.swapaxes(1, 2) @ self.values

    def mixed(self, rest: Array | None, share: float) -> Array:
        """[H, T, E]. `rest`, where there are more pages, are the sums over the whole text, and `share` their weight."""
        parts = (self._positive("query_map"), self.keys, self._positive("local"), self.values)
        a, b, near, values = (self.pages.split(x, 1) for x in parts)
        found = [self._page(*group, rest, share) for group in zip(a, b, near, values, strict=True)]
        mixed = self.ops.concat([group.reshape(HEADS, -1, group.shape[-1]) for group in found], axis=1)
        return mixed[..., :-1] / mixed[..., -1:]

    def _page(self, a: Array, b: Array, near: Array, values: Array, rest: Array | None, share: float) -> Array:
        """Pages of one length: features of queries and of keys [H, n, L, M], [H, n, L, taps] and values
        [H, n, L, E + 1] -> [H, n, L, E + 1]."""
        if rest is None and a.shape[2] <= PAIRS:
            return self._with_near(a @ b.swapaxes(2, 3), near) @ values
        sums = b.swapaxes(2, 3) @ values
        if rest is not None:
            sums = sums + share * (rest[:, None] - sums)
        return a @ sums + self._neighbours(near, values)

    def _with_near(self, w: Array, near: Array) -> Array:
        """Weights [H, n, L, L], and on seven of their diagonals those by place, [H, n, L, taps]."""
        length = w.shape[-1]
        flat = w.reshape(*w.shape[:-2], length * length)
        for tap, shift in enumerate(TAPS):
            first, last = max(0, -shift), length - max(0, shift)  # tokens that have such a neighbour
            if first < last:
                place = slice(first * length + max(0, shift), last * length, length + 1)
                flat[..., place] += near[..., first:last, tap]
        return flat.reshape(w.shape)

    def _neighbours(self, near: Array, values: Array) -> Array:
        """The sum over a page's seven neighbours, [H, n, L, taps] and [H, n, L, E + 1] -> [H, n, L, E + 1]."""
        length = values.shape[2]
        before, after = (self.ops.zeros((*values.shape[:2], taps, values.shape[3])) for taps in (-TAPS[0], TAPS[-1]))
        padded = self.ops.concat([before, values, after], axis=2)
        found = near[..., :1] * padded[:, :, :length]
        for tap in range(1, len(TAPS)):
            found += near[..., tap : tap + 1] * padded[:, :, tap : tap + length]
        return found


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
    return ops.to_numpy(ops.concat([ops.mean(group, axis=1) for group in pages.split(x, 0)], axis=0))


def long_mean(ops: Ops, weights: Mapping[str, Array], ids: np.ndarray, block: int = BLOCK) -> np.ndarray:
    """A text of several pages -> the mean of its states, [D], `block` tokens at a time.

    The states of all layers take one place, outside of the backend, in half precision for texts whose memory they
    would be; the sums over the whole text that a layer needs are gathered, in double precision, while the layer below
    is computed.
    """
    states = np.empty((len(ids), WIDTH), np.float32 if len(ids) <= HALF_FROM else np.float16)
    share, rest, means = PAGE / len(ids), None, []
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
                means += [ops.to_numpy(ops.mean(group, axis=1)) for group in pages.split(x, 0)]
        rest = ops.asarray(above)
    return pooled(np.concatenate(means), np.diff([*range(0, len(ids), PAGE), len(ids)]))


def pooled(means: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The means of pages' states, [P, D], and the pages' tokens [P] -> the vector of the text, [D]."""
    return np.average(means, axis=0, weights=lengths).astype(np.float32)


class Lam(SentenceEncoder):
    """The encoder `lam`, computed with `ops`. `path` is a file of scripts/train_lam.py, and its checksum a part of the
    name."""

    width, max_length, longest = WIDTH, MAX_LENGTH, MAX_LENGTH

    def __init__(self, path: Path = WEIGHTS, ops: Ops = NUMPY) -> None:
        base, self.ops = minilm.Encoder(), ops
        self.device = str(getattr(ops, "device", "cpu"))
        self.weights = {name: ops.asarray(value) for name, value in load_weights(path, base.weights).items()}
        self.name = f"lam {hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
        self.tokenizer, self.cls, self.sep = base.tokenizer, base.cls, base.sep

    def vectors(self, texts: Sequence[str], max_length: int) -> np.ndarray:
        found = np.empty((len(texts), WIDTH), np.float32)
        rows = [self.ids(text, max_length) for text in texts]
        block: list[int] = []
        for i in sorted(range(len(rows)), key=lambda i: len(rows[i])):  # equal lengths are computed in one
            if len(rows[i]) > PAGE:
                found[i] = long_mean(self.ops, self.weights, rows[i])
                continue
            if sum(len(rows[j]) for j in block) + len(rows[i]) > BLOCK:
                found[block] = short_means(self.ops, self.weights, [rows[j] for j in block])
                block = []
            block.append(i)
        if block:
            found[block] = short_means(self.ops, self.weights, [rows[j] for j in block])
        return found

    def ids(self, text: str, limit: int = MAX_LENGTH) -> np.ndarray:
        """[CLS] word pieces [SEP], at most `limit`; a long text is cut, and read piece by piece up to there."""
        pieces = (id for part in parts(text) for id in self.tokenizer.encode(part, add_special_tokens=False).ids)
        return np.array([self.cls, *islice(pieces, limit - 2), self.sep], np.int32)


def parts(text: str, size: int = 1 << 16) -> Iterator[str]:
    """A text in parts that are tokenized as the whole is."""
    start = 0
    while start < len(text):
        cut = _CUT.search(text, start + size)
        end = cut.start() if cut else len(text)
        yield text[start:end]
        start = end


CARD = """---
license: apache-2.0
language: en
library_name: sentence-transformers
pipeline_tag: sentence-similarity
base_model: sentence-transformers/all-MiniLM-L6-v2
---

# {name}

[all-MiniLM-L6-v2](https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2) with linear attention in place of
softmax: vectors of 384 numbers near MiniLM's, of texts of up to 1,572,864 tokens, in time and memory that grow with the
length alone. `lam_torch.py` is the whole of the model; how it was made and what it was measured to do is told by lmm,
which wrote this folder.

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("this/folder", trust_remote_code=True)
vectors = model.encode(["one", "two"], normalize_embeddings=True)
```

Without `normalize_embeddings` a vector is the mean of its text's states, of any length. Weights are stored in float16.
The states of all tokens of a batch are in memory at once.

Changed from all-MiniLM-L6-v2, which is licensed under Apache-2.0 as this is (LICENSE): the attention, and, by training
towards its vectors, all matrices of its layers, biases and norms. The pooler and the positions over 256 are left out.
"""


def export(folder: Path, encoder: Lam | None = None) -> None:
    """A folder that the sentence-transformers package loads, without lmm. Needs torch."""
    import torch

    from lmm.encoders import lam_torch

    encoder, folder = encoder or Lam(), Path(folder)
    config = {"page": PAGE, "layers": LAYERS, "heads": HEADS, "max_length": MAX_LENGTH}
    weights = {name: torch.from_numpy(encoder.ops.to_numpy(value)) for name, value in encoder.weights.items()}
    positions = "embeddings.position_embeddings.weight"
    weights = {name: value for name, value in weights.items() if not name.startswith("pooler.")}
    weights[positions] = weights[positions][:PAGE]
    lam_torch.LamModule(weights, config, encoder.tokenizer, _license()).save(str(folder))
    for name, found in {
        "modules.json": [{"idx": 0, "name": "0", "path": "", "type": "lam_torch.LamModule"}],
        "config_sentence_transformers.json": {"model_type": "SentenceTransformer", "similarity_fn_name": "cosine"},
    }.items():
        (folder / name).write_text(json.dumps(found))
    (folder / "README.md").write_text(CARD.format(name=encoder.name))


def _license() -> str:
    """lmm's own, where it is installed or checked out."""
    try:
        text = metadata.distribution("lmm").read_text("licenses/LICENSE")
    except metadata.PackageNotFoundError:
        text = None
    return text or Path(__file__).parents[2].joinpath("LICENSE").read_text()
