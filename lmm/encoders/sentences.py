"""Encoders under one call, that of the sentence-transformers package: `encode(sentences, batch_size=32, ...)`.

Reimers & Gurevych 2019, arXiv:1908.10084. Shape letters: D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmm.encoders import minilm
from lmm.errors import ModelError, UsageError

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter

STATES_MAX = 512  # tokens of a text that a chat model reads


class SentenceEncoder:
    """What all encoders have: a name that says which vectors are theirs, their width, and `encode`."""

    name: str
    width: int
    max_length: int  # tokens that are read of a text, its first

    def vectors(self, texts: Sequence[str], max_length: int) -> np.ndarray:
        """Texts -> vectors [n, D] float32, of any length."""
        raise NotImplementedError

    def count_tokens(self, text: str) -> int:
        """How many tokens are read of a text."""
        raise NotImplementedError

    def encode(
        self,
        sentences: str | Sequence[str],
        batch_size: int = 32,
        show_progress_bar: bool = False,
        convert_to_numpy: bool = True,
        normalize_embeddings: bool = True,
        max_length: int | None = None,
    ) -> Any:
        """Vectors [n, D] float32, or [D] of a single text; as tensors of torch without `convert_to_numpy`.

        Raises UsageError for what is no text.
        """
        if batch_size < 1:
            raise UsageError(f"batch_size must be 1 or above, not {batch_size}")
        texts = [sentences] if isinstance(sentences, str) else list(sentences)
        if wrong := [type(text).__name__ for text in texts if not isinstance(text, str)]:
            raise UsageError(f"an encoder reads texts, not {wrong[0]}")
        found = np.zeros((len(texts), self.width), np.float32)
        for start in _shown(range(0, len(texts), batch_size), show_progress_bar):
            part = texts[start : start + batch_size]
            found[start : start + len(part)] = self.vectors(part, max_length or self.max_length)
        if normalize_embeddings:
            found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)
        one = found[0] if isinstance(sentences, str) else found
        if convert_to_numpy:
            return one
        import torch

        return torch.from_numpy(one)


class MiniLM(SentenceEncoder):
    """The packaged all-MiniLM-L6-v2 in NumPy."""

    name, width, max_length = "all-MiniLM-L6-v2", minilm.WIDTH, minilm.MAX_TOKENS

    def __init__(self) -> None:
        self.model = minilm.shared_encoder()

    def vectors(self, texts: Sequence[str], max_length: int) -> np.ndarray:
        return np.stack([self._mean(text, min(max_length, 512)) for text in texts])

    def count_tokens(self, text: str) -> int:
        return min(len(self.model.token_ids(text)) + 2, self.max_length)

    def _mean(self, text: str, limit: int) -> np.ndarray:
        model = self.model
        ids = [model.cls, *model.token_ids(text)[: limit - 2], model.sep]
        return minilm.run_layers(model.weights, minilm.embed(model.weights, ids)).mean(axis=0)


class States(SentenceEncoder):
    """The chat model's own states after its last layer, their mean: no second model, and a worse likeness."""

    max_length = STATES_MAX

    def __init__(self, adapter: Adapter) -> None:
        self.adapter, self.width = adapter, adapter.shape.width
        self.name = f"states of {adapter.model_id}"

    def vectors(self, texts: Sequence[str], max_length: int) -> np.ndarray:
        return np.stack([self._mean(text, max_length) for text in texts])

    def count_tokens(self, text: str) -> int:
        return len(self._tokens(text, self.max_length))

    def _tokens(self, text: str, limit: int) -> list[int]:
        return self.adapter.format.encode(self.adapter.format.harmless(text))[:limit]

    def _mean(self, text: str, limit: int) -> np.ndarray:
        tokens = np.array([self._tokens(text, limit) or [self.adapter.format.end_of_turn]])
        with self.adapter.quiet():
            states = self.adapter.hidden(tokens, self.adapter.shape.layers)
        return self.adapter.ops.to_numpy(states)[0].astype(np.float32).mean(axis=0)


class Transformer(SentenceEncoder):
    """A folder or id that the sentence-transformers package loads. Raises ModelError."""

    def __init__(self, name: str) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise ModelError(
                f"{name!r} is loaded by sentence-transformers, which is not installed; "
                "run: pip install 'lmm[encoders]', or take the packaged encoder: minilm"
            ) from None
        try:
            self.model = SentenceTransformer(name)
        except Exception as error:  # of files, of the hub, of code that a model brings
            raise ModelError(f"the encoder {name!r} cannot be loaded: {error}") from error
        self.name, self.width = name, self.model.get_sentence_embedding_dimension()
        self.max_length = self.model.max_seq_length

    def vectors(self, texts: Sequence[str], max_length: int) -> np.ndarray:
        self.model.max_seq_length = max_length
        return self.model.encode(list(texts), convert_to_numpy=True)

    def count_tokens(self, text: str) -> int:
        return min(len(self.model.tokenizer(text)["input_ids"]), self.max_length)


def _shown(starts: range, wanted: bool) -> Any:
    if not wanted:
        return starts
    from rich.progress import track

    return track(starts, description="encoding")
