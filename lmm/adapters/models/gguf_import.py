"""A GGUF file as a Hugging Face folder: config.json, model*.safetensors, tokenizer.json and friends.

Needs NumPy, `gguf`, `safetensors` and the tokenizer half of `transformers`; neither torch nor mlx. Everything that
differs between architectures stands in `ARCHITECTURES`; tensor names come from gguf's own tables, read backwards.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmm.errors import ModelError

Progress = Callable[[int, int, str], None]  # bytes done, bytes in total (0: just a message), what is going on

SHARD_BYTES = 2 << 30  # converted weights held in memory at a time

_NAMES = ("model.embed_tokens", "model.norm", "lm_head")
_LAYER_NAMES = (
    "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm",
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "self_attn.q_norm", "self_attn.k_norm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
_FUSED_LAYER_NAMES = (
    "input_layernorm", "post_attention_layernorm", "self_attn.qkv_proj", "self_attn.o_proj",
    "mlp.gate_up_proj", "mlp.down_proj",
)  # fmt: skip

# GGUF key (after "<architecture>.") -> config.json key
_CONFIG_KEYS = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}


@dataclass(frozen=True)
class Architecture:
    """How one GGUF architecture maps to a Hugging Face model."""

    model_type: str
    model_class: str
    layer_names: tuple[str, ...] = _LAYER_NAMES
    interleaved_rope: bool = False  # llama.cpp stores q/k rows in pairs for its rotary kernel
    norm_offset: float = 0.0  # llama.cpp stores w + 1 where the model multiplies by 1 + w
    sliding_window: bool = False
    extra: tuple[tuple[str, Any], ...] = ()


ARCHITECTURES = {
    "llama": Architecture("llama", "LlamaForCausalLM", interleaved_rope=True),  # Mistral too
    "qwen2": Architecture("qwen2", "Qwen2ForCausalLM"),
    "qwen3": Architecture("qwen3", "Qwen3ForCausalLM"),
    "gemma3": Architecture(
        "gemma3_text", "Gemma3ForCausalLM", norm_offset=1.0, sliding_window=True,
        extra=(("sliding_window_pattern", 6), ("rope_local_base_freq", 10000.0)),
    ),
    "phi3": Architecture("phi3", "Phi3ForCausalLM", layer_names=_FUSED_LAYER_NAMES, sliding_window=True),
}  # fmt: skip

# Tensors that carry numbers of the configuration, see _rope_scaling.
_ROPE_TENSORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


class Gguf:
    """An opened GGUF file: `architecture`, `get(key)` for metadata, `tensors` by name."""

    def __init__(self, path: Path) -> None:
        from gguf import GGUFReader

        try:
            reader = GGUFReader(path)
            self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        except OSError as error:
            raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
        except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
            raise ModelError(
                f"{path} is not a complete GGUF file ({type(error).__name__}: {error}); download or copy it again"
            ) from error
        self.path, self._fields = path, reader.fields
        self.architecture = str(self.get("general.architecture", ""))
        if self.architecture not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise ModelError(
                f"{path.name} has the architecture {self.architecture!r}; lmm converts {known}. "
                "Use a Hugging Face folder of the model instead: lmm chat --model FOLDER"
            )
        self.kind = ARCHITECTURES[self.architecture]

    def get(self, key: str, default: Any = None) -> Any:
        """Metadata `key`, e.g. "tokenizer.ggml.tokens"."""
        field = self._fields.get(key)
        return default if field is None else field.contents()

    def own(self, key: str, default: Any = None) -> Any:
        """Metadata of the architecture: `own("block_count")` is "llama.block_count"."""
        return self.get(f"{self.architecture}.{key}", default)

    def values(self, name: str) -> np.ndarray:
        """Tensor `name` in fp32, rows first as in Hugging Face. Raises ModelError for an unknown quantisation."""
        from gguf import dequantize

        tensor = self.tensors[name]
        try:
            return np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        except (NotImplementedError, ValueError) as error:
            raise ModelError(
                f"{self.path.name}: cannot dequantise {name} ({tensor.tensor_type.name}); "
                "use a file in Q4_0, Q4_1, Q4_K, Q5_K, Q6_K, Q8_0, F16 or BF16"
            ) from error


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
    _write_tokenizer(source, folder)
    full = all(tensor.tensor_type.name == "F32" for tensor in source.tensors.values())
    try:
        dtype = _write_weights(source, names, folder, np.float32 if full else np.float16, progress)
    except OverflowError:
        dtype = _write_weights(source, names, folder, np.float32, progress)
    _write_json(folder / "config.json", _config(source, names, np.dtype(dtype).name))
    _write_json(folder / "generation_config.json", _generation_config(source))


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
    """GGUF tensor name -> Hugging Face parameter name, for every tensor of the file."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    layers = int(source.own("block_count", 0))
    arch = next(key for key, name in MODEL_ARCH_NAMES.items() if name == source.architecture)
    table = get_tensor_name_map(arch, layers)
    candidates = [*_NAMES, *(f"model.layers.{i}.{n}" for i in range(layers) for n in source.kind.layer_names)]
    stems = {table.get_name(name): name for name in candidates}
    names, unknown = {}, []
    for tensor in source.tensors:
        stem, _, suffix = tensor.rpartition(".")
        if stem in stems and suffix in ("weight", "bias"):
            names[tensor] = f"{stems[stem]}.{suffix}"
        elif tensor not in _ROPE_TENSORS:
            unknown.append(tensor)
    _check_complete(source, set(names.values()), unknown, layers)
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
    sizes = {name: int(source.tensors[name].n_elements) * size for name in names}
    shards = list(_shards(sizes))
    done, total = 0, sum(sizes.values())
    where: dict[str, str] = {}
    if (free := shutil.disk_usage(folder).free) < total:
        raise OSError(errno.ENOSPC, f"the weights need {total >> 20} MB, {free >> 20} MB are free")
    for number, shard in enumerate(shards, 1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        arrays = {}
        for name in shard:
            arrays[names[name]] = _narrow(_restore(source, name), dtype)
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


def _restore(source: Gguf, name: str) -> np.ndarray:
    """Tensor `name` in fp32 as the Hugging Face model has it."""
    values = source.values(name)
    if source.kind.norm_offset and name.endswith("norm.weight"):
        return values - source.kind.norm_offset
    if source.kind.interleaved_rope and (".attn_q." in name or ".attn_k." in name):
        heads = source.own("attention.head_count")
        return split_halves(values, source.own("attention.head_count_kv", heads) if ".attn_k." in name else heads)
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


# ---- config.json


def _config(source: Gguf, names: dict[str, str], dtype: str) -> dict[str, Any]:
    """config.json in the flat spelling (`rope_theta`, `rope_scaling`) that transformers 4 and 5 and mlx-lm all read."""
    kind = source.kind
    config: dict[str, Any] = {"model_type": kind.model_type, "architectures": [kind.model_class], "dtype": dtype}
    config |= {key: source.own(own) for own, key in _CONFIG_KEYS.items() if source.own(own) is not None}
    missing = sorted(set(_CONFIG_KEYS.values()) - {"num_key_value_heads", "rope_theta"} - set(config))
    if missing:
        raise ModelError(f"{source.path.name} does not say its {', '.join(missing)}; download or copy it again")
    heads = config["num_attention_heads"]
    config.setdefault("num_key_value_heads", heads)
    config.setdefault("rope_theta", 10000.0)  # llama.cpp's default when a file says nothing
    head_dim = int(source.own("attention.key_length", config["hidden_size"] // heads))
    stored = set(names.values())
    config |= {
        "head_dim": head_dim,
        "vocab_size": int(source.tensors["token_embd.weight"].shape[1]),
        "tie_word_embeddings": "lm_head.weight" not in stored,
        "attention_bias": "model.layers.0.self_attn.q_proj.bias" in stored,
        "mlp_bias": "model.layers.0.mlp.down_proj.bias" in stored,
        **dict(kind.extra),
        **_token_ids(source),
    }
    if kind.sliding_window:
        config["sliding_window"] = source.own("attention.sliding_window")
    if kind.model_type == "gemma3_text":
        # The 27B alone (62 layers) scales attention by the width per head: llama.cpp, src/models/gemma3.cpp.
        wide = config["num_hidden_layers"] == 62
        config["query_pre_attn_scalar"] = config["hidden_size"] // heads if wide else head_dim
    return config | _rope_scaling(source, head_dim, config)


def _token_ids(source: Gguf) -> dict[str, int | None]:
    keys = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "padding_token_id"}
    return {key: source.get(f"tokenizer.ggml.{stored}") for key, stored in keys.items()}


def _generation_config(source: Gguf) -> dict[str, Any]:
    """Special token ids; a chat model may end its turn with another token (eot) than the text (eos): both stop."""
    ids: dict[str, Any] = dict(_token_ids(source))
    ends = [ids["eos_token_id"], source.get("tokenizer.ggml.eot_token_id")]
    ends = list(dict.fromkeys(end for end in ends if end is not None))
    ids["eos_token_id"] = ends[0] if len(ends) == 1 else ends or None
    return {key: value for key, value in ids.items() if value is not None}


def _rope_scaling(source: Gguf, head_dim: int, config: dict[str, Any]) -> dict[str, Any]:
    """`rope_scaling` and what goes with it, from the metadata or from the tensors that llama.cpp made of it."""
    found: dict[str, Any] = {}
    rotary = source.own("rope.dimension_count", head_dim)
    if source.architecture == "phi3" and rotary != head_dim:
        found["partial_rotary_factor"] = rotary / head_dim
    original = source.own("rope.scaling.original_context_length")
    if "rope_factors_long.weight" in source.tensors:
        long, short = (source.values(f"rope_factors_{n}.weight").ravel().tolist() for n in ("long", "short"))
        found["original_max_position_embeddings"] = original or config["max_position_embeddings"]
        factors = {"long_factor": long, "short_factor": short}
        return found | {"rope_scaling": {"type": "longrope", "rope_type": "longrope", **factors}}
    if "rope_freqs.weight" in source.tensors:
        return found | {"rope_scaling": _llama3_scaling(source, head_dim, config["rope_theta"])}
    kind = source.own("rope.scaling.type", "none")
    if kind == "none":
        return found
    if kind not in ("linear", "yarn"):
        raise ModelError(f"{source.path.name} scales positions by {kind!r}; lmm knows linear, yarn, longrope, llama3")
    scaling: dict[str, Any] = {"type": kind, "rope_type": kind, "factor": float(source.own("rope.scaling.factor", 1.0))}
    if original is not None:
        scaling["original_max_position_embeddings"] = int(original)
    return found | {"rope_scaling": scaling}


def _llama3_scaling(source: Gguf, head_dim: int, theta: float) -> dict[str, Any]:
    """Llama 3.1's long-context parameters, which a GGUF keeps only as one factor per frequency.

    All published models use low 1, high 4, 8192 and differ in `factor`, the largest value; the factors are computed
    again (Llama 3.1 `apply_scaling`) and compared, so other parameters are found out rather than replaced.
    """
    stored = source.values("rope_freqs.weight").ravel()
    factor, low, high, context = float(stored.max()), 1.0, 4.0, 8192
    turns = context / (2 * np.pi) * theta ** -(np.arange(0, head_dim, 2) / head_dim)  # rotations within the context
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    if stored.shape != smooth.shape or not np.allclose(stored, 1 / ((1 - smooth) / factor + smooth), rtol=1e-3):
        raise ModelError(f"{source.path.name}: rotary factors are not Llama 3's; use the model's Hugging Face folder")
    return {
        "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
        "original_max_position_embeddings": context,
    }  # fmt: skip


# ---- tokenizer


def build_tokenizer(source: Gguf) -> Any:
    """The file's tokenizer as a fast transformers tokenizer, with its special tokens and chat template."""
    from tokenizers import pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.gguf import convert_gguf_tokenizer

    kind, tokens = source.get("tokenizer.ggml.model"), source.get("tokenizer.ggml.tokens")
    if not kind or not tokens:
        raise ModelError(f"{source.path.name} holds no tokenizer; use the model's Hugging Face folder")
    vocabulary = {"tokenizer_type": kind, "pre_tokenizer_type": source.get("tokenizer.ggml.pre"), "tokens": tokens}
    for key in ("scores", "token_type", "merges"):
        if (value := source.get(f"tokenizer.ggml.{key}")) is not None:
            vocabulary[key] = value
    try:
        backend, _ = convert_gguf_tokenizer(source.architecture, vocabulary)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ModelError(f"{source.path.name}: its tokenizer cannot be rebuilt: {error}") from error
    if vocabulary["pre_tokenizer_type"] == "smollm":
        # SmolLM was trained with every digit on its own, which transformers' GGUF reader does not know: "a  12" would
        # get its spaces cut differently.
        digits = pre_tokenizers.Digits(individual_digits=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=source.get("tokenizer.chat_template"),
        model_max_length=source.own("context_length"),
        clean_up_tokenization_spaces=False,
        **_special_tokens(source, tokens),
    )


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
