"""Encoders under one call, that of the sentence-transformers package: `encode(sentences, ...)`.

Reimers & Gurevych 2019, arXiv:1908.10084. Shape letters: D width.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import cached_property
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmm.adapters.models.digest import folder_digest
from lmm.encoders import minilm
from lmm.errors import BackendError, ModelError, UsageError

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter
    from lmm.adapters.models.source import ModelSource

STATES_MAX = 512  # tokens of a text that a chat model reads
PROBE = "Two loads of one folder read this alike."
HUB_SECONDS = 10.0  # that the hub has to say whether it has a model
_HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair, without the other: no tokenizer takes it


class SentenceEncoder:
    """What all encoders have: a name, their width, and `encode`."""

    name: str  # what a user calls it
    width: int
    max_length: int  # tokens that are read of a text, its first, where nothing else is asked for
    longest: int | None = None  # the most that can be asked for; None: whatever the model makes of it
    device: str = "cpu"
    prompts: Mapping[str, str] = {}  # what stands before a text, by name
    default_prompt_name: str | None = None

    @property
    def identity(self) -> str:
        """What says which vectors are its own, wherever its files lie: by this a store knows it."""
        return self.name

    def vectors(self, texts: Sequence[str], max_length: int) -> np.ndarray:
        """Texts -> vectors [n, D] float32, of any length."""
        raise NotImplementedError

    def ids(self, text: str, limit: int) -> Sequence[int] | np.ndarray:
        """The tokens that are read of a text, `limit` at most."""
        raise NotImplementedError

    def count_tokens(self, text: str) -> int:
        """How many tokens are read of a text. Raises UsageError for what is no text."""
        [text] = texts_of(text)
        return len(self.ids(text, self.max_length))

    def encode(
        self,
        sentences: str | Iterable[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: str = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        normalize_embeddings: bool = True,
        truncate_dim: int | None = None,
        pool: Any = None,
        chunk_size: int | None = None,
        *,
        max_length: int | None = None,
    ) -> Any:
        """Vectors [n, D] float32, or [D] of a single text: the call of sentence-transformers, where vectors have length
        1 unless told otherwise, and `max_length`, the tokens that are read of a text, is new.

        A `prompt` (or that of a name) is put before each text. `truncate_dim` keeps the first numbers of each vector.
        `precision` may be "binary" or "ubinary": a bit for each number, eight in an int8 or uint8. With
        `convert_to_tensor` one tensor of torch, without it and `convert_to_numpy` a list of them. Where an encoder
        computes is said when it is made: `device` is refused if it is another. Refused, too, are `output_value` other
        than vectors of sentences, precisions whose scale would depend on the other texts, and processes (`pool`);
        `chunk_size` is theirs. Raises UsageError, also for what is no text, and BackendError for tensors without torch.
        """
        self._check(output_value, precision, device, pool)
        size = whole_number("batch_size", batch_size, 1)
        limit = self.max_length if max_length is None else whole_number("max_length", max_length, 2, self.longest)
        width = self.width if truncate_dim is None else whole_number("truncate_dim", truncate_dim, 1)
        before = self._prompt(prompt_name, prompt)
        texts = [before + text for text in texts_of(sentences)]
        found: np.ndarray = np.zeros((len(texts), self.width), np.float32)
        for start in _shown(range(0, len(texts), size), show_progress_bar):
            part = texts[start : start + size]
            found[start : start + len(part)] = self.vectors(part, limit)
        found = found[:, :width]
        if normalize_embeddings:
            found = _units(found)
        if precision != "float32":
            found = np.packbits(found > 0, axis=-1)
            found = (found - 128).view(np.int8) if precision == "binary" else found
        single = isinstance(sentences, str)
        if convert_to_numpy and not convert_to_tensor:
            return found[0] if single else found
        tensor = _tensor(found[0] if single else found)
        return tensor if single or convert_to_tensor else list(tensor)

    def encode_query(
        self,
        sentences: str | Iterable[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        *args: Any,
        **options: Any,
    ) -> Any:
        """`encode` with the prompt "query", where the encoder has one."""
        return self.encode(sentences, self._prompt_for(("query",), prompt_name, prompt), prompt, *args, **options)

    def encode_document(
        self,
        sentences: str | Iterable[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        *args: Any,
        **options: Any,
    ) -> Any:
        """`encode` with the prompt "document", "passage" or "corpus", where the encoder has one."""
        names = ("document", "passage", "corpus")
        return self.encode(sentences, self._prompt_for(names, prompt_name, prompt), prompt, *args, **options)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """The cosine of each vector of one with each of the other: [n, D] and [m, D] -> [n, m]. Tensors give a tensor.
        Raises UsageError."""
        a, b = _two(embeddings1, embeddings2)
        return _as_given(a @ b.T, embeddings1)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """The cosine of each vector of one with the other's that has its place: [n, D] twice -> [n]. Raises
        UsageError."""
        a, b = _two(embeddings1, embeddings2)
        if len(a) != len(b):
            raise UsageError(f"{len(a)} vectors and {len(b)} are not pairs")
        return _as_given((a * b).sum(axis=-1), embeddings1)

    def _check(self, output_value: str | None, precision: str, device: Any, pool: Any) -> None:
        if output_value != "sentence_embedding":
            raise UsageError(f"output_value {output_value!r}: an encoder gives 'sentence_embedding' alone")
        if precision in ("int8", "uint8"):
            raise UsageError(f"precision {precision!r} scales by the texts beside a text; expected float32 or binary")
        if precision not in ("float32", "binary", "ubinary"):
            raise UsageError(f"precision {precision!r}: expected float32, binary or ubinary")
        if device is not None and str(device) != self.device:
            raise UsageError(
                f"{self.name} computes on {self.device!r}, not on {device!r}; that is said when it is made"
            )
        if pool is not None:
            raise UsageError("an encoder computes in one process; expected no pool")

    def _prompt(self, name: str | None, prompt: str | None) -> str:
        if prompt is not None:
            [prompt] = texts_of([prompt])
            return prompt
        name = self.default_prompt_name if name is None else name
        if name is None:
            return ""
        if not isinstance(name, str) or name not in self.prompts:
            raise UsageError(f"{self.name} has no prompt {name!r}; it has: {', '.join(self.prompts) or 'none'}")
        return self.prompts[name]

    def _prompt_for(self, names: Sequence[str], name: str | None, prompt: str | None) -> str | None:
        if name is None and prompt is None:
            return next((one for one in names if one in self.prompts), None)
        return name


def texts_of(sentences: str | Iterable[str]) -> list[str]:
    """A text, or several in a list, an array or what else has an order. Raises UsageError for what is no text."""
    given = sentences.tolist() if hasattr(sentences, "tolist") else sentences
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, Iterable) or isinstance(given, Mapping | Set):
        raise UsageError(f"an encoder reads a text or a list of texts, not {type(sentences).__name__}")
    texts = list(given)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise UsageError(f"an encoder reads texts, not {type(text).__name__}")
        if not text.isascii() and (half := _HALF.search(text)):
            raise UsageError(
                f"text {i + 1} is not Unicode: half a surrogate pair (U+{ord(half[0]):04X}) at {half.start()}"
            )
    return texts


def whole_number(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Raises UsageError for what is none from `least` to `most`."""
    fits = isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= least
    if not fits or (most is not None and value > most):
        bounds = f"of {least} or above" if most is None else f"from {least} to {most}"
        raise UsageError(f"{name} must be a whole number {bounds}, not {value!r}")
    return int(value)


def _units(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-9)


def _two(*given: Any) -> list[np.ndarray]:
    """Vectors of length 1, [n, D] each, of one width. Raises UsageError."""
    try:
        rows = [np.atleast_2d(np.asarray(one, np.float32)) for one in given]
    except (TypeError, ValueError) as error:
        raise UsageError(f"these are no vectors: {error}") from None
    if any(one.ndim != 2 for one in rows) or rows[0].shape[1] != rows[1].shape[1]:
        shapes = " and ".join(str(one.shape) for one in rows)
        raise UsageError(f"expected vectors [n, D] and [m, D] of one width, not {shapes}")
    return [_units(one) for one in rows]


def _tensor(x: np.ndarray) -> Any:
    try:
        import torch
    except ImportError:
        raise BackendError(
            "tensors need torch; run: pip install 'lmm[torch]', or leave out convert_to_tensor"
        ) from None
    return torch.from_numpy(x)


def _as_given(found: np.ndarray, given: Any) -> Any:
    return _tensor(found) if hasattr(given, "detach") else found


class MiniLM(SentenceEncoder):
    """The packaged all-MiniLM-L6-v2 in NumPy."""

    name, width, max_length, longest = "all-MiniLM-L6-v2", minilm.WIDTH, minilm.MAX_TOKENS, 512

    def __init__(self) -> None:
        self.model = minilm.shared_encoder()

    def vectors(self, texts: Sequence[str], max_length: int) -> np.ndarray:
        return np.stack([self._mean(self.ids(text, max_length)) for text in texts])

    def ids(self, text: str, limit: int) -> list[int]:
        return [self.model.cls, *self.model.token_ids(text)[: limit - 2], self.model.sep]

    def _mean(self, ids: list[int]) -> np.ndarray:
        weights = self.model.weights
        return minilm.run_layers(weights, minilm.embed(weights, ids)).mean(axis=0)


class States(SentenceEncoder):
    """The chat model's own states after its last layer, their mean: no second model, and a worse likeness."""

    max_length = STATES_MAX

    def __init__(self, adapter: Adapter) -> None:
        self.adapter, self.width = adapter, adapter.shape.width
        self.name = f"states of {adapter.model_id}"

    @cached_property
    def identity(self) -> str:
        source: ModelSource | None = getattr(self.adapter, "source", None)
        return self.name if source is None else f"states of a model {_digest(self.name, lambda: source.folder)}"

    def vectors(self, texts: Sequence[str], max_length: int) -> np.ndarray:
        return np.stack([self._mean(self.ids(text, max_length)) for text in texts])

    def ids(self, text: str, limit: int) -> list[int]:
        return self.adapter.format.encode(self.adapter.format.harmless(text))[:limit]

    def _mean(self, ids: list[int]) -> np.ndarray:
        tokens = np.array([ids or [self.adapter.format.end_of_turn]])
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
        self._one = threading.Lock()  # what it is told of lengths lasts for a call, and its tokenizer is of one thread
        problem = "" if Path(name).exists() else _not_on_the_hub(name)
        try:
            with _nothing_at_random(), _told_of_what_works("sentence_transformers"):
                self.model = SentenceTransformer(name, local_files_only=bool(problem) or Path(name).exists())
        except Exception as error:  # of files, of the hub, of code that a model brings
            raise ModelError(f"the encoder {name!r} cannot be loaded: {problem or error}") from error
        if not np.isfinite(self.model.encode(PROBE, prompt="")).all():
            raise ModelError(f"the encoder {name!r} lacks weights that its vectors come from: they would be random")
        self.name, self.width = name, self.model.get_sentence_embedding_dimension()
        self.max_length, self.device = self.model.max_seq_length, str(self.model.device)
        self.longest = getattr(self.model.tokenizer, "model_max_length", self.max_length)
        self.prompts, self.default_prompt_name = self.model.prompts, self.model.default_prompt_name

    @cached_property
    def identity(self) -> str:
        return f"sentence-transformers {_digest(self.name, self._folder)}"

    def _folder(self) -> Path:
        """Where it was loaded from."""
        if Path(self.name).exists():
            return Path(self.name)
        from huggingface_hub import snapshot_download

        place = os.environ.get("SENTENCE_TRANSFORMERS_HOME")
        return Path(snapshot_download(_hub_id(self.name), cache_dir=place, local_files_only=True))

    def vectors(self, texts: Sequence[str], max_length: int) -> np.ndarray:
        with self._one:
            self.model.max_seq_length = max_length
            return self.model.encode(list(texts), prompt="", batch_size=len(texts), convert_to_numpy=True)

    def ids(self, text: str, limit: int) -> np.ndarray:
        with self._one:
            self.model.max_seq_length = limit
            return np.ravel(self.model.tokenize([text])["input_ids"])


def _digest(name: str, folder: Callable[[], Path]) -> str:
    try:
        return folder_digest(folder())
    except OSError as error:
        raise ModelError(f"what the encoder {name!r} was loaded from cannot be read: {error}") from error


@contextlib.contextmanager
def _nothing_at_random() -> Iterator[None]:
    """Weights that a folder lacks, which would be drawn at random, are NaN, and so is what comes from them."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Drawn(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = func(*args, **(kwargs or {}))
            if torch.Tag.nondeterministic_seeded in func.tags:
                for one in tree_leaves(found):
                    if isinstance(one, torch.Tensor) and one.is_floating_point():
                        one.fill_(np.nan)
            return found

    with Drawn():
        yield


@contextlib.contextmanager
def _told_of_what_works(name: str) -> Iterator[None]:
    """What a package logs meanwhile is logged when all went well: else an error says it."""
    package, held = logging.getLogger(name), MemoryHandler(1_000_000, flushLevel=logging.CRITICAL + 1)
    before = package.propagate
    package.addHandler(held)
    package.propagate = False
    try:
        yield
    finally:
        package.removeHandler(held)
        package.propagate = before
    for record in held.buffer:
        logging.getLogger(record.name).handle(record)


def _hub_id(name: str) -> str:
    return name if "/" in name else f"sentence-transformers/{name}"


def _not_on_the_hub(name: str) -> str:
    """Why the hub gives no model of this name, known within HUB_SECONDS; "" if it has one.

    To load it would be tried again and again, for minutes, file by file.
    """
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(_hub_id(name), timeout=HUB_SECONDS)
    except Exception as error:  # no network, no such model, no such name
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        return f"it is no folder, nor on the hub ({reason})"
    return ""


def _shown(starts: range, wanted: bool | None) -> Any:
    if not wanted:
        return starts
    from rich.progress import track

    return track(starts, description="encoding")
