"""Decoders of a few thousand random weights in Hugging Face layout: every backend loads them in milliseconds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmm.adapters.models.source import ModelSource

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
COMMON = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 262, "max_position_embeddings": 256, "tie_word_embeddings": True,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
}  # fmt: skip
EXTRA: dict[str, dict] = {
    "llama": {},
    "mistral": {"sliding_window": None, "head_dim": 8},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "phi3": {"partial_rotary_factor": 1.0},
    "gemma3_text": {
        "num_hidden_layers": 6, "head_dim": 8, "sliding_window": 16, "query_pre_attn_scalar": 8,
        "sliding_window_pattern": 3, "rope_local_base_freq": 10000.0,
    },
}  # fmt: skip
KINDS = tuple(EXTRA)
EXTRA |= {
    "qwen3_moe": {
        "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "norm_topk_prob": True,
    },
    "gemma": {"head_dim": 8},
    "gemma2": {
        "head_dim": 8, "sliding_window": 16, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
    },
    "smollm3": {},
    "granite": {
        "attention_multiplier": 0.5, "embedding_multiplier": 3.0, "residual_multiplier": 0.7, "logits_scaling": 2.0,
    },
    "olmo2": {"tie_word_embeddings": False},
    "olmo3": {
        "tie_word_embeddings": False, "sliding_window": 16,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
    "ministral3": {
        "head_dim": 8, "tie_word_embeddings": False,
        "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16,
            "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1,
        },
    },
}  # fmt: skip


def tokenizer(template: str | None = TEMPLATE, decoder=None):
    """One token per byte, three special ones; `decoder` for tokenizers of another family."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġa", "th", "Ġth"]
    merges = [("Ġ", "a"), ("t", "h"), ("Ġ", "th")]
    raw = Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary)}, merges))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoder or decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=SPECIAL[1], eos_token=SPECIAL[2], pad_token=SPECIAL[0],
        additional_special_tokens=SPECIAL, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    made.chat_template = template
    return made


def source(folder: Path, kind: str = "llama", template: str | None = TEMPLATE) -> ModelSource:
    """A model of `kind` with seeded weights in `folder`. Needs torch, as transformers makes the weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **COMMON | EXTRA[kind])
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # far from their start, so that every part matters
            parameter.normal_(1.0 if "norm" in name and not kind.startswith("gemma") else 0.0, 0.2)
    model.save_pretrained(folder)
    # transformers 5 moves the rotary settings to "rope_parameters"; models on the hub, and mlx-lm, have them here
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(written | COMMON | EXTRA[kind]))
    tokenizer(template).save_pretrained(folder)
    return ModelSource(f"tiny-{kind}", folder, f"tiny/{kind}", None)


#: GGUF architecture -> the kind of model that its files hold
FAMILIES = {
    "llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "qwen3moe": "qwen3_moe", "gemma": "gemma", "gemma2": "gemma2",
    "gemma3": "gemma3_text", "phi3": "phi3", "smollm3": "smollm3", "granite": "granite", "olmo2": "olmo2",
    "mistral3": "ministral3",
}  # fmt: skip
#: config.json -> what llama.cpp's converter makes of it
GGUF_KEYS = {
    "max_position_embeddings": "context_length", "num_hidden_layers": "block_count", "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length", "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv", "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base", "vocab_size": "vocab_size", "sliding_window": "attention.sliding_window",
    "sliding_window_pattern": "attention.sliding_window_pattern",
    "attn_logit_softcapping": "attn_logit_softcapping", "final_logit_softcapping": "final_logit_softcapping",
    "num_experts": "expert_count", "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length", "attention_multiplier": "attention.scale",
    "embedding_multiplier": "embedding_scale", "residual_multiplier": "residual_scale", "logits_scaling": "logit_scale",
}  # fmt: skip

YARN_KEYS = {
    "rope_type": "type", "factor": "factor", "original_max_position_embeddings": "original_context_length",
    "beta_fast": "yarn_beta_fast", "beta_slow": "yarn_beta_slow", "mscale_all_dim": "yarn_log_multiplier",
}  # fmt: skip


def write_gguf(
    folder: Path,
    kind: str = "F32",
    family: str = "llama",
    metadata: Mapping[str, Any] | None = None,
    pieces: int = 1,
    biased: Sequence[str] = (),
    besides: Mapping[str, np.ndarray] | None = None,
    name: str = "tiny.gguf",
) -> Path:
    """The model of `source` in that folder as a GGUF file beside it, as llama.cpp's converter writes it, of the same
    weights, rounded to `kind`; `metadata` is what the architecture says besides, None for nothing after all, `biased`
    are parts of a layer that get a bias, and `besides` tensors of no layer."""
    import gguf

    config = json.loads((folder / "config.json").read_text())
    said = {stored: config[key] for key, stored in GGUF_KEYS.items() if config.get(key) is not None}
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type") == "yarn":
        said |= {f"rope.scaling.{stored}": rope[key] for key, stored in YARN_KEYS.items() if key in rope}
        said["attention.temperature_scale"] = rope.get("llama_4_scaling_beta")
    if width := config.get("head_dim"):
        said |= dict.fromkeys(("attention.key_length", "attention.value_length", "rope.dimension_count"), width)
    tensors = _as_stored(folder, config, family, biased) | dict(besides or {})
    out = gguf.GGUFWriter(folder / name, family, split_max_tensors=-(-len(tensors) // pieces) if pieces > 1 else 0)
    for key, value in (said | dict(metadata or {})).items():
        if value is not None:
            out.add_key_value(f"{family}.{key}", value, *_type_of(value))
    _add_tokenizer(out, config)
    for tensor, values in tensors.items():
        stored = gguf.GGMLQuantizationType[kind if values.ndim == 2 else "F32"]
        out.add_tensor(tensor, gguf.quants.quantize(values.copy(), stored), raw_dtype=stored)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return min(folder.glob(f"{Path(name).stem}*.[gG]*"))


def _type_of(value: Any) -> tuple[Any, ...]:
    import gguf

    kinds = gguf.GGUFValueType
    if isinstance(value, list):
        return kinds.ARRAY, *_type_of(value[0])
    return ({bool: kinds.BOOL, int: kinds.UINT32, float: kinds.FLOAT32, str: kinds.STRING}[type(value)],)


def _as_stored(folder: Path, config: dict[str, Any], family: str, biased: Sequence[str]) -> dict[str, np.ndarray]:
    """The model's tensors under llama.cpp's names."""
    import gguf
    from safetensors.numpy import load_file

    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == family)
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    stored: dict[str, np.ndarray] = {}
    experts: dict[str, list[np.ndarray]] = {}
    weights = load_file(folder / "model.safetensors")
    for name in [
        name.removesuffix(".weight") for name in weights if name.removesuffix(".weight").endswith(tuple(biased))
    ]:
        weights[f"{name}.bias"] = np.linspace(-1, 1, len(weights[f"{name}.weight"]), dtype=np.float32)
    for name, values in sorted(weights.items()):
        part = name.split(".")[-2]
        if family.startswith("gemma") and "norm" in name:
            values = values + 1
        if family in ("llama", "smollm3", "granite", "mistral3") and part in heads:
            count, rows = config[heads[part]], values.shape[0]  # llama.cpp rotates neighbours, not halves of a head
            values = values.reshape(count, 2, rows // count // 2, -1).swapaxes(1, 2).reshape(values.shape)
        if ".experts." in name:
            experts.setdefault(re.sub(r"experts\.\d+", "experts", name), []).append(values)
        else:
            stored[names.get_name(name, (".weight", ".bias"))] = values
    return stored | {names.get_name(name, (".weight",)): np.stack(parts) for name, parts in experts.items()}


def _add_tokenizer(out: Any, config: dict[str, Any]) -> None:
    import gguf

    made = tokenizer()
    tokens = sorted(made.get_vocab(), key=made.get_vocab().get)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list(tokens)
    out.add_token_types([gguf.TokenType.CONTROL if t in SPECIAL else gguf.TokenType.NORMAL for t in tokens])
    out.add_token_merges(["Ġ a", "t h", "Ġ th"])
    out.add_bos_token_id(config["bos_token_id"])
    out.add_eos_token_id(config["eos_token_id"])
