"""A GGUF file as a Hugging Face folder: config.json, model*.safetensors, tokenizer.json and friends.

Needs NumPy, `gguf`, `safetensors` and the tokenizer half of `transformers`; neither torch nor mlx. What differs between
architectures stands in `gguf_config.ARCHITECTURES`; tensor names come from gguf's own tables, read backwards.

Precision: float16 (11 significant bits) keeps what bfloat16 (8 bits) rounds away. Measured against fp32 on SmolLM2's
Q4_1 file: mean weight error 1.8e-5 and 1.6e-4, KL of the next-token distribution 1e-4 and 2e-3 nats. bfloat16's one
advantage, range, is checked: a weight beyond float16's makes the whole model float32. A float32 file stays float32.
In which dtype the model then computes is the backend's choice (Gemma's activations overflow in float16).
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lmm.adapters.models.gguf_config import config_of, generation_config_of, kind_of
from lmm.adapters.models.gguf_file import Gguf
from lmm.errors import ModelError

Progress = Callable[[int, int, str], None]  # bytes done, bytes in total (0: just a message), what is going on

SHARD_BYTES = 2 << 30  # converted weights held in memory at a time

_NAMES = ("model.embed_tokens", "model.norm", "lm_head")
# Tensors that carry numbers of the configuration.
_ROPE_TENSORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
# What sees and hears: Ollama keeps it in the model's own file, llama.cpp in another (mmproj). A text needs none of it.
_OF_OTHER_SENSES = ("v.", "mm.", "a.")


def convert_gguf(path: str | Path, folder: str | Path, progress: Progress | None = None) -> None:
    """Write the model in the GGUF file `path` into the existing, empty `folder`.

    `progress(done, total, text)` is called with bytes of the written weights. Not atomic and without checksums:
    `source.py` does that around it. Raises ModelError for a broken file or an architecture that is not in the table,
    OSError when the disk does not take the files.
    """
    path, folder = Path(path), Path(folder)
    if progress:
        progress(0, max(1, path.stat().st_size if path.exists() else 0), "reading the file")
    source = Gguf(path)
    names = _hugging_face_names(source)
    config = config_of(source, names.values())
    _write_tokenizer(source, folder)
    full = all(tensor.tensor_type.name == "F32" for tensor in source.tensors.values())
    try:
        dtype = _write_weights(source, names, folder, np.float32 if full else np.float16, progress)
    except OverflowError:
        dtype = _write_weights(source, names, folder, np.float32, progress)
    _write_json(folder / "config.json", config | {"dtype": np.dtype(dtype).name})
    _write_json(folder / "generation_config.json", generation_config_of(source))


def _write_tokenizer(source: Gguf, folder: Path) -> None:
    """Raises OSError: the library says with a bare Exception that the disk does not take a file."""
    tokenizer = build_tokenizer(source)
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise OSError(f"the tokenizer cannot be written: {error}") from error


# ---- weights


def _hugging_face_names(source: Gguf) -> dict[str, str]:
    """GGUF tensor name -> Hugging Face parameter name, for all tensors of a text model and the biases that it lacks."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    kind = kind_of(source)
    layers = int(source.own("block_count", 0))
    arch = next(key for key, name in MODEL_ARCH_NAMES.items() if name == source.architecture)
    table = get_tensor_name_map(arch, layers)
    candidates = [*_NAMES, *(f"model.layers.{i}.{n}" for i in range(layers) for n in kind.parts)]
    stems = {table.get_name(name): name for name in candidates}
    names, unknown = {}, []
    for tensor in source.tensors:
        stem, _, suffix = tensor.rpartition(".")
        if stem in stems and suffix in ("weight", "bias"):
            names[tensor] = f"{stems[stem]}.{suffix}"
        elif tensor not in _ROPE_TENSORS and not tensor.startswith(_OF_OTHER_SENSES):
            unknown.append(tensor)
    _check_complete(source, set(names.values()), unknown, layers)
    for parts in kind.biases.values():  # a Hugging Face layer has them in all of these parts or in none
        group = {f"{stem}.bias": f"{name}.bias" for stem, name in stems.items() if stem and name.endswith(parts)}
        names |= {} if group.keys().isdisjoint(names) else group
    return names


def _check_complete(source: Gguf, found: set[str], unknown: list[str], layers: int) -> None:
    """Every layer must have what layer 0 has, and nothing may be left over: else weights would be made up silently."""
    first = "model.layers.0."
    parts = [name.removeprefix(first) for name in found if name.startswith(first)]
    wanted = {f"model.layers.{i}.{part}" for i in range(layers) for part in parts}
    missing = sorted({"model.embed_tokens.weight", "model.norm.weight", *wanted} - found)
    if unknown or missing or not parts:
        raise ModelError(
            f"{source.path.name} does not look like a {source.architecture} decoder: "
            f"missing {_few(missing)}; not understood {_few(unknown)}"
        )


def _few(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") if names else "nothing"


def _write_weights(
    source: Gguf, names: dict[str, str], folder: Path, dtype: type[np.floating], progress: Progress | None
) -> type[np.floating]:
    """Write model.safetensors, or numbered parts of at most SHARD_BYTES.

    Raises OverflowError if `dtype` is too narrow for a weight, OSError if the disk is too full.
    """
    from safetensors.numpy import save_file

    size = np.dtype(dtype).itemsize
    sizes = {name: _elements(source, name) * size for name in names}
    shards = list(_shards(sizes))
    done, total = 0, sum(sizes.values())
    where: dict[str, str] = {}
    if (free := shutil.disk_usage(folder).free) < total:
        raise OSError(errno.ENOSPC, f"the weights need {total >> 20} MB, {free >> 20} MB are free")
    for number, shard in enumerate(shards, 1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        arrays: dict[str, np.ndarray] = {}
        for name in shard:
            arrays |= _one_by_one(names[name], _narrow(_restore(source, name), dtype))
            done += sizes[name]
            if progress:
                progress(done, total, "converting the model")
        save_file(arrays, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(arrays, file)
    if len(shards) > 1:
        _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": where})
    return dtype


def _shards(sizes: dict[str, int]) -> Iterator[list[str]]:
    shard: list[str] = []
    held = 0
    for name, size in sizes.items():
        if shard and held + size > SHARD_BYTES:
            yield shard
            shard, held = [], 0
        shard.append(name)
        held += size
    yield shard


def _elements(source: Gguf, name: str) -> int:
    """A bias that is not in the file has one for each row of the weight."""
    if name in source.tensors:
        return int(source.tensors[name].n_elements)
    return int(source.tensors[name.removesuffix("bias") + "weight"].shape[1])


def _one_by_one(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """GGUF keeps a layer's experts in one tensor, Hugging Face each in its own."""
    before, experts, part = name.partition(".experts.")
    if not experts:
        return {name: values}
    return {f"{before}.experts.{i}.{part}": expert for i, expert in enumerate(values)}


def _restore(source: Gguf, name: str) -> np.ndarray:
    """Tensor `name` in fp32 as the Hugging Face model has it."""
    kind = kind_of(source)
    values = source.values(name) if name in source.tensors else np.zeros(_elements(source, name), np.float32)
    if kind.norm_offset and name.endswith("norm.weight"):
        return values - kind.norm_offset
    if kind.interleaved_rope and (".attn_q." in name or ".attn_k." in name):
        heads = source.of_all_layers("attention.head_count")
        own = source.of_all_layers("attention.head_count_kv", heads) if ".attn_k." in name else heads
        return split_halves(values, own)
    return values


def split_halves(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows [heads * D, ...] from llama.cpp's order (x0 y0 x1 y1 ...) to Hugging Face's (x0 x1 ... y0 y1 ...), per head.

    Undoes `LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py: both rotate the pair (x_i, y_i) by the same angle.
    """
    half = values.shape[0] // heads // 2
    return values.reshape(heads, half, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def _narrow(values: np.ndarray, dtype: type[np.floating]) -> np.ndarray:
    if not np.isfinite(values).all():
        raise ModelError("the file holds weights that are NaN or infinite; download or copy it again")
    if np.abs(values).max(initial=0.0) > np.finfo(dtype).max:
        raise OverflowError
    return np.ascontiguousarray(values, dtype=dtype)


# ---- tokenizer

# How byte-level vocabularies split text before they join bytes, by the names that llama.cpp gives to it: as GPT-2; so,
# after each digit was put on its own; and as another name that transformers knows.
AS_GPT2 = ("gpt-2", "mpt", "olmo", "jais", "granite-docling", "exaone4", "a.x-4.0", "mellum")
DIGITS_FIRST = ("smollm", "refact", "starcoder", "command-r", "codeshell", "exaone", "minerva-7b")
AS = {"stablelm2": "qwen2", "hunyuan": "qwen2", "glm4": "llama-bpe", "chatglm-bpe": "llama-bpe"}
# What llama.cpp does where a file says nothing: these, one after the other.
DEFAULT = (
    r"[\p{P}\$\+<=>\^~\|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    r"\p{N}+",
    r"[0-9][0-9][0-9]",
)


def build_tokenizer(source: Gguf) -> Any:
    """The file's tokenizer as a fast transformers tokenizer, with its special tokens and chat template."""
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.gguf import convert_gguf_tokenizer

    kind, tokens = source.get("tokenizer.ggml.model"), source.get("tokenizer.ggml.tokens")
    if not kind or not tokens:
        raise ModelError(f"{source.path.name} holds no tokenizer; use the model's Hugging Face folder")
    split = source.get("tokenizer.ggml.pre", "default")
    vocabulary = {"tokenizer_type": kind, "pre_tokenizer_type": AS.get(split, split), "tokens": tokens}
    for key in ("scores", "token_type", "merges"):
        if (value := source.get(f"tokenizer.ggml.{key}")) is not None:
            vocabulary[key] = value
    try:
        backend, _ = convert_gguf_tokenizer(source.architecture, vocabulary)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ModelError(f"{source.path.name}: its tokenizer cannot be rebuilt: {error}") from error
    if kind == "gpt2":
        _split_as(source, backend, split)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=source.get("tokenizer.chat_template"),
        model_max_length=source.own("context_length"),
        clean_up_tokenization_spaces=False,
        **_special_tokens(source, tokens),
    )


def _split_as(source: Gguf, tokenizer: Any, split: str) -> None:
    """How text is split, where transformers' reader of GGUF does not know it. Raises ModelError where lmm does not."""
    from tokenizers import Regex, pre_tokenizers
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    first: list[Any]
    if split in DIGITS_FIRST:
        first = [pre_tokenizers.Digits(individual_digits=True)]
    elif split == "default":
        first = [pre_tokenizers.Split(Regex(part), "isolated") for part in DEFAULT]
    elif split in AS_GPT2 or AS.get(split, split) in GGUF_PRE_TOKENIZER_SPLITS:
        return
    else:
        raise ModelError(
            f"{source.path.name} splits text as {split!r}, which lmm does not know; "
            "use the model's Hugging Face folder: lmm chat --model FOLDER"
        )
    joined = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split != "default")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*first, joined])


def _special_tokens(source: Gguf, tokens: list[str]) -> dict[str, Any]:
    stored = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    ids = {name: source.get(f"tokenizer.ggml.{key}_token_id") for name, key in stored.items()}
    named: dict[str, Any] = {name: tokens[index] for name, index in ids.items() if index is not None}
    # Files before the flag existed mean: sentencepiece and Llama 3 vocabularies start with BOS.
    llama3 = source.get("tokenizer.ggml.pre") in ("llama3", "llama-bpe")
    implied = llama3 or source.get("tokenizer.ggml.model") == "llama"
    named["add_bos_token"] = bool(source.get("tokenizer.ggml.add_bos_token", implied))
    named["add_eos_token"] = bool(source.get("tokenizer.ggml.add_eos_token", False))
    return named


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
