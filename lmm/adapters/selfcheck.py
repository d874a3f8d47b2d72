"""Whether a model runs right here: its parts make the whole, what is kept of a text is the text, and greedy decoding is
the backend's own. An architecture that is not in the test suite is checked when a model of it is first loaded."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lmm.adapters.models.loadable import read_json
from lmm.adapters.models.source import cache_dir
from lmm.errors import LmmError, ModelError

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter, Cache
    from lmm.adapters.ops import Array

#: what the tests of the adapters run on each of these backends
TESTED = ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma3_text")
PACKAGES = {"torch": "transformers", "mlx_lm": "mlx-lm"}  # whose code the model is
TEXT = "The quick brown fox jumps over 13 lazy dogs, and they look up.\n"
MOST = 40  # tokens of the comparison
MADE = 8  # tokens that are decoded
FAR = 0.1  # root mean square of a difference, in standard deviations of the logits: more than number formats make


def once(adapter: Adapter) -> None:
    """Check an adapter of an architecture that no test runs, if this was not done before. Raises ModelError."""
    source = getattr(adapter, "source", None)
    if adapter.name not in PACKAGES or source is None:
        return
    config = read_json(source.folder / "config.json")
    if config.get("model_type") in TESTED:
        return
    path, key = cache_dir() / "checked.json", _key(adapter, config)
    known = read_json(path)
    if key in known:
        return
    if wrong := problem(adapter):
        other = next(name for name in PACKAGES if name != adapter.name)
        raise ModelError(
            f"{source.name} ({config.get('model_type')}) does not run right on {adapter.name}: {wrong}; "
            f"try --backend {other}, a GGUF file of it, or another model"
        )
    _remember(path, known | {key: source.name})


def problem(adapter: Adapter) -> str:
    """What does not run right, in words; "" if everything does."""
    try:
        with adapter.quiet():
            return _problem(adapter)
    except LmmError:
        raise
    except Exception as error:  # whatever an unknown model raises when it is run in parts
        return f"running it in parts raises {type(error).__name__} ({' '.join(str(error).split())[:200]})"


def _problem(adapter: Adapter) -> str:
    tokens = np.asarray([(adapter.format.encode(TEXT) * MOST)[:MOST]], np.int64)
    whole, full = _read(adapter, tokens, adapter.new_cache())
    if not np.isfinite(whole).all():
        return f"it gives no numbers in {adapter.dtype}"
    first, cache = _read(adapter, tokens[:, :-9], adapter.new_cache())
    second, longer = _read(adapter, tokens[:, -9:-1], cache)
    third, _ = _read(adapter, tokens[:, -1:], longer)
    if far(np.concatenate([first, second, third]), whole):
        return "read in parts, it is not what it is when read at once"
    cut = adapter.trim(full, MOST - 5)
    if far(_read(adapter, tokens[:, cut.length :], cut)[0][-5:], whole[-5:]):
        return "a cache that was cut is not that of the shorter text"
    layers = adapter.shape.layers
    for begin in dict.fromkeys((layers // 2, layers - 1)):
        h = adapter.hidden(tokens, begin)
        if tuple(h.shape) != (1, MOST, adapter.shape.width):
            return (
                f"its layers pass on {tuple(h.shape)}, where a memory knows one state of {adapter.shape.width} a token"
            )
        if far(_numbers(adapter, adapter.upper(tokens, h, begin)), whole):
            return f"the layers below and from {begin} on do not make the whole"
        after = adapter.hidden(tokens[:, -9:], begin, cache)
        if far(_numbers(adapter, adapter.upper(tokens[:, -9:], after, begin, cache)), whole[-9:]):
            return f"after a text, the layers below and from {begin} on do not make the whole"
        again = adapter.refill(longer, adapter.hidden(tokens[:, :-1], begin), begin)
        if far(_read(adapter, tokens[:, -1:], again)[0], whole[-1:]):
            return f"a cache rebuilt from layer {begin} on is not the one that was read"
    return _decoding(adapter, tokens)


def _decoding(adapter: Adapter, tokens: np.ndarray) -> str:
    """Each token of the backend's own greedy reply must be about the likeliest here, one by one."""
    made = adapter.generate_native(tokens[0].tolist(), MADE)
    logits, cache = _read(adapter, tokens, adapter.new_cache())
    for token in made:
        if logits[-1].max() - logits[-1][token] > FAR * logits[-1].std():
            return f"it does not write what {PACKAGES.get(adapter.name, 'its library')} writes with it"
        logits, cache = _read(adapter, np.array([[token]]), cache)
    return ""


def far(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether logits [T, V] are others than expected, beyond what number formats do."""
    return bool(np.sqrt(np.mean((found - expected) ** 2)) > FAR * expected.std())


def _read(adapter: Adapter, tokens: np.ndarray, cache: Cache) -> tuple[np.ndarray, Cache]:
    logits, cache = adapter.forward(tokens, cache, keep=tokens.shape[1])
    return _numbers(adapter, logits), cache


def _numbers(adapter: Adapter, logits: Array) -> np.ndarray:
    """Logits [1, T, V] as [T, V]."""
    return adapter.ops.to_numpy(adapter.ops.float32(logits))[0]


def _key(adapter: Adapter, config: dict) -> str:
    what = [adapter.name, importlib.metadata.version(PACKAGES[adapter.name]), adapter.dtype, config]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:24]


def _remember(path: Path, known: dict) -> None:
    from lmm.files.atomic import write_atomically

    with contextlib.suppress(OSError):  # checked again next time
        write_atomically(path, [json.dumps(known, indent=1).encode()])
