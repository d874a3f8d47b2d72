"""config.json of a GGUF file. Everything that differs between architectures stands in `ARCHITECTURES`.

What a file says of its architecture is carried over, or is known to change nothing, or the file is refused with the
key's name: else the converted model would be another one than llama.cpp runs, and nobody would be told.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lmm.errors import ModelError

if TYPE_CHECKING:
    from lmm.adapters.models.gguf_file import Gguf

PARTS = (
    "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm",
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "self_attn.q_norm", "self_attn.k_norm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
    "mlp.gate", "mlp.experts.gate_proj", "mlp.experts.up_proj", "mlp.experts.down_proj",
)  # fmt: skip
_FUSED_PARTS = (
    "input_layernorm", "post_attention_layernorm", "self_attn.qkv_proj", "self_attn.o_proj",
    "mlp.gate_up_proj", "mlp.down_proj",
)  # fmt: skip
#: a flag of config.json, and the parts that then all have a bias
BIASES = {
    "attention_bias": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    "mlp_bias": ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
}

# GGUF key (after "<architecture>.") -> config.json key
_KEYS = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
_EXPERT_KEYS = {
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
}


@dataclass(frozen=True)
class Architecture:
    """How one GGUF architecture maps to a Hugging Face model."""

    model_type: str
    model_class: str
    parts: tuple[str, ...] = PARTS  # of a layer
    interleaved_rope: bool = False  # llama.cpp stores q/k rows in pairs for its rotary kernel
    norm_offset: float = 0.0  # llama.cpp stores w + 1 where the model multiplies by 1 + w
    keys: Mapping[str, str] = field(default_factory=dict)  # besides _KEYS
    config: Mapping[str, Any] = field(default_factory=dict)  # of config.json, where the file does not say otherwise
    biases: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: BIASES)
    window_period: int = 0  # every so manyth layer sees the whole context, the others a window
    partial_rotary: bool = False  # a part of each head may stay unrotated
    windowed: Architecture | None = None  # what it is where the file sets a window
    rope_by_layer: bool = False  # scaled in those layers alone that see the whole context
    tempered: bool = False  # attention grows with the position, by numbers among those of the rotation
    heeds: tuple[str, ...] = ()  # keys of _NO_EFFECT that do have an effect here


_WINDOW = {"attention.sliding_window": "sliding_window"}
_CAPPED = {"final_logit_softcapping": "final_logit_softcapping"}
ARCHITECTURES = {
    "llama": Architecture("llama", "LlamaForCausalLM", interleaved_rope=True),  # Mistral too
    "qwen2": Architecture("qwen2", "Qwen2ForCausalLM", biases={}),
    "qwen3": Architecture("qwen3", "Qwen3ForCausalLM"),
    "qwen3moe": Architecture(
        "qwen3_moe", "Qwen3MoeForCausalLM", keys=_EXPERT_KEYS,
        config={"norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []},
    ),
    "gemma": Architecture("gemma", "GemmaForCausalLM", norm_offset=1.0),
    "gemma2": Architecture(
        "gemma2", "Gemma2ForCausalLM", norm_offset=1.0, window_period=2,
        keys=_WINDOW | _CAPPED | {"attn_logit_softcapping": "attn_logit_softcapping"},
        config={"sliding_window": 4096, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    ),
    "gemma3": Architecture(
        "gemma3_text", "Gemma3ForCausalLM", norm_offset=1.0, window_period=6,
        keys=_WINDOW | _CAPPED | {"rope.freq_base_swa": "rope_local_base_freq"},
        config={"rope_local_base_freq": 10000.0, "final_logit_softcapping": None},
    ),
    "phi3": Architecture(
        "phi3", "Phi3ForCausalLM", parts=_FUSED_PARTS, biases={}, partial_rotary=True,
        keys=_WINDOW, config={"sliding_window": None},
    ),
    "smollm3": Architecture(
        "smollm3", "SmolLM3ForCausalLM", interleaved_rope=True, config={"no_rope_layer_interval": 4},
    ),
    "granite": Architecture(
        "granite", "GraniteForCausalLM", interleaved_rope=True, heeds=("rope.scaling.finetuned",),
        keys={
            "attention.scale": "attention_multiplier", "embedding_scale": "embedding_multiplier",
            "residual_scale": "residual_multiplier", "logit_scale": "logits_scaling",
        },
        config={"attention_multiplier": None, "embedding_multiplier": 1.0, "residual_multiplier": 1.0},
    ),
    "olmo2": Architecture(
        "olmo2", "Olmo2ForCausalLM",
        windowed=Architecture("olmo3", "Olmo3ForCausalLM", keys=_WINDOW, window_period=4, rope_by_layer=True),
    ),
    "mistral3": Architecture("ministral3", "Ministral3ForCausalLM", interleaved_rope=True, biases={}, tempered=True),
}  # fmt: skip

#: layers of a Gemma whose attention is scaled by the width per head: llama.cpp, src/models/gemma2.cpp and gemma3.cpp
_GEMMA_27B = {"gemma2": 46, "gemma3": 62}

#: keys that say what the tensors say too, or what only makers of files and of embeddings heed
_NO_EFFECT = (
    "vocab_size", "tensor_data_layout", "pooling_type", "rope.scaling.finetuned",
    "rope.scaling.original_context_length", "attention.layer_norm_epsilon",  # all here normalise by the square alone
    "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow",  # read where there is a YaRN
    "rope.dimension_sections", "rope.mrope_section", "spatial_merge_size",  # of pictures: text lies in one dimension
)  # fmt: skip
#: words in keys about what a model sees and hears, which change nothing for a text
_OF_OTHER_SENSES = {"mm", "vision", "image", "audio", "clip"}


def config_of(source: Gguf, names: Collection[str]) -> dict[str, Any]:
    """config.json but for its dtype, for the parameters `names`.

    In the flat spelling (`rope_theta`, `rope_scaling`) that transformers 4 and 5 and mlx-lm all read.
    Raises ModelError for a key that is missing, or that says what cannot be carried over.
    """
    kind = kind_of(source)
    config: dict[str, Any] = {"model_type": kind.model_type, "architectures": [kind.model_class], "dtype": None}
    config |= _stated(source, kind)
    heads, width = config["num_attention_heads"], config["hidden_size"]
    head_dim = int(source.own("attention.key_length", width // heads))
    biased = [name.removesuffix(".bias") for name in names if name.endswith(".bias")]
    config |= {
        "head_dim": head_dim,
        "vocab_size": int(source.tensors["token_embd.weight"].shape[1]),
        "tie_word_embeddings": "lm_head.weight" not in names,
        **{flag: any(name.endswith(parts) for name in biased) for flag, parts in BIASES.items()},
        **_token_ids(source),
    }
    if kind.window_period:
        config |= _windows(source, kind.window_period, config["num_hidden_layers"])
    if source.architecture in _GEMMA_27B:
        large = config["num_hidden_layers"] == _GEMMA_27B[source.architecture]
        config["query_pre_attn_scalar"] = width // heads if large else head_dim
    if "attention_multiplier" in config:
        config["attention_multiplier"] = config["attention_multiplier"] or head_dim**-0.5
    config |= _rope_scaling(source, kind, head_dim, config)
    if kind.tempered:
        config["rope_parameters"] = _tempered_rope(source, config)
    if kind.rope_by_layer:
        config["rope_parameters"] = _rope_by_layer(source, config)
    _check_unread(source, kind, config)
    return config


def kind_of(source: Gguf) -> Architecture:
    """Raises ModelError for an architecture that is not in the table."""
    if source.architecture not in ARCHITECTURES:
        raise ModelError(
            f"{source.path.name} has the architecture {source.architecture!r}; "
            f"lmm converts {', '.join(ARCHITECTURES)}. "
            "Use a Hugging Face folder of the model instead: lmm chat --model FOLDER"
        )
    kind = ARCHITECTURES[source.architecture]
    return kind.windowed if kind.windowed and source.own("attention.sliding_window") else kind


def _token_ids(source: Gguf) -> dict[str, int | None]:
    keys = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "padding_token_id"}
    return {key: source.get(f"tokenizer.ggml.{stored}") for key, stored in keys.items()}


def generation_config_of(source: Gguf) -> dict[str, Any]:
    """Special token ids; a chat model may end its turn with another token (eot) than the text (eos): both stop."""
    ids: dict[str, Any] = dict(_token_ids(source))
    ends = [ids["eos_token_id"], source.get("tokenizer.ggml.eot_token_id")]
    ends = list(dict.fromkeys(end for end in ends if end is not None))
    ids["eos_token_id"] = ends[0] if len(ends) == 1 else ends or None
    return {key: value for key, value in ids.items() if value is not None}


def _stated(source: Gguf, kind: Architecture) -> dict[str, Any]:
    """What the file says under keys that config.json has too, and what llama.cpp takes where it says nothing."""
    keys = _KEYS | dict(kind.keys)
    found = {key: value for own, key in keys.items() if (value := source.of_all_layers(own))}  # 0 is off
    found |= {key: value for key, value in kind.config.items() if key not in found}
    found.setdefault("num_key_value_heads", found.get("num_attention_heads"))
    found.setdefault("rope_theta", 10000.0)
    if missing := [f"{source.architecture}.{own}" for own, key in keys.items() if key not in found]:
        raise ModelError(
            f"{source.path.name} does not say its {', '.join(missing)}, without which llama.cpp does not run it "
            "either; use another GGUF file of the model, or its Hugging Face folder"
        )
    return found


def _windows(source: Gguf, period: int, layers: int) -> dict[str, Any]:
    """Which layers look back a window only, as a list for each and, for mlx-lm, as a period."""
    said = source.own("attention.sliding_window_pattern", period)
    flags = said if isinstance(said, list) else [(i + 1) % said != 0 if said else True for i in range(layers)]
    found: dict[str, Any] = {"layer_types": ["sliding_attention" if flag else "full_attention" for flag in flags]}
    period = next((i + 1 for i, flag in enumerate(flags) if not flag), layers + 1)
    if list(map(bool, flags)) == [(i + 1) % period != 0 for i in range(layers)]:
        found["sliding_window_pattern"] = period
    return found


def _rope_scaling(source: Gguf, kind: Architecture, head_dim: int, config: dict[str, Any]) -> dict[str, Any]:
    """`rope_scaling` and what goes with it, from the metadata or from the tensors that llama.cpp made of it."""
    found: dict[str, Any] = {}
    if kind.partial_rotary and (rotary := source.own("rope.dimension_count", head_dim)) != head_dim:
        found["partial_rotary_factor"] = rotary / head_dim
    scaled = source.own("rope.scaling.type", "linear")
    if "rope_factors_long.weight" in source.tensors:
        return found | _longrope(source, config)
    if "rope_freqs.weight" in source.tensors:
        return found | {"rope_scaling": _llama3_scaling(source, head_dim, config["rope_theta"])}
    factor = source.own("rope.scaling.factor") or source.own("rope.scale_linear") or 1.0  # the second is the older
    if scaled == "none" or (scaled == "linear" and factor == 1.0):
        return found
    if scaled not in ("linear", "yarn"):
        raise source.refused("rope.scaling.type", scaled)
    scaling: dict[str, Any] = {"type": scaled, "rope_type": scaled, "factor": float(factor)}
    if original := source.own("rope.scaling.original_context_length"):
        scaling["original_max_position_embeddings"] = int(original)
    return found | {"rope_scaling": scaling | (_yarn(source, factor) if scaled == "yarn" else {})}


def _rope_by_layer(source: Gguf, config: dict[str, Any]) -> dict[str, Any]:
    """The rotation as OLMo 3 has it, which in transformers takes none of the flat settings where it sees a window."""
    theta = config["rope_theta"]
    return {
        "sliding_attention": {"rope_type": "default", "rope_theta": source.own("rope.freq_base_swa", theta)},
        "full_attention": {"rope_type": "default", **config.pop("rope_scaling", {}), "rope_theta": theta},
    }


def _tempered_rope(source: Gguf, config: dict[str, Any]) -> dict[str, Any]:
    """The rotation as Ministral 3 alone has it, together with how attention grows with the position."""
    return {
        "rope_type": "default",
        "original_max_position_embeddings": config["max_position_embeddings"],
        **config.pop("rope_scaling", {}),
        "rope_theta": config["rope_theta"],
        "llama_4_scaling_beta": source.own("attention.temperature_scale", 0.0),
    }


def _longrope(source: Gguf, config: dict[str, Any]) -> dict[str, Any]:
    original = source.own("rope.scaling.original_context_length") or config["max_position_embeddings"]
    long, short = (source.values(f"rope_factors_{n}.weight").ravel().tolist() for n in ("long", "short"))
    scaling = {"type": "longrope", "rope_type": "longrope", "long_factor": long, "short_factor": short}
    if (attention := source.own("rope.scaling.attn_factor")) is not None:
        scaling["attention_factor"] = attention
    return {"original_max_position_embeddings": original, "rope_scaling": scaling}


def _yarn(source: Gguf, factor: float) -> dict[str, Any]:
    """YaRN's other numbers, as far as they are not those that everybody takes.

    Queries and keys are stretched by a (1 + g) / (1 + m g), where g = 0.1 ln factor. transformers and mlx-lm both read
    two multiples of g; a is put into the first.
    """
    growth = 0.1 * math.log(factor) if factor > 1 else 0.0
    less, more = source.own("rope.scaling.yarn_log_multiplier", 0.0), source.own("rope.scaling.attn_factor", 1.0)
    found: dict[str, Any] = {}
    if not growth and more != 1.0:
        raise source.refused("rope.scaling.attn_factor", more)
    if growth and (less or more != 1.0):
        stretch = more * (1 + growth) / (1 + less * growth)
        found = {"mscale": (stretch * (1 + growth) - 1) / growth, "mscale_all_dim": 1.0}
    for side in ("beta_fast", "beta_slow"):
        if (beta := source.own(f"rope.scaling.yarn_{side}")) is not None:
            found[side] = beta
    return found


def _llama3_scaling(source: Gguf, head_dim: int, theta: float) -> dict[str, Any]:
    """Llama 3.1's long-context parameters, which a GGUF keeps only as one factor per frequency.

    All published models use low 1, high 4, 8192 and differ in `factor`, the largest value; the factors are computed
    again (Llama 3.1 `apply_scaling`) and compared, so other parameters are found out rather than replaced.
    """
    import numpy as np

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


def _check_unread(source: Gguf, kind: Architecture, config: dict[str, Any]) -> None:
    """Raises ModelError where the file says more of its architecture than was carried over, and it matters."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    changes_nothing: dict[str, Any] = dict.fromkeys(
        ("attention.value_length", "attention.key_length_swa", "attention.value_length_swa", "attention.head_dim",
         "rope.dimension_count", "rope.dimension_count_swa"), config["head_dim"],
    ) | {
        "attention.causal": True, "rope.scaling.factor": 1.0, "rope.scale_linear": 1.0,
        "rope.scaling.attn_factor": 1.0, "rope.scaling.yarn_ext_factor": 1.0, "rope.scaling.yarn_attn_factor": 1.0,
        "rope.scaling.finetuned": True, "rope.freq_base_swa": config["rope_theta"], "expert_weights_scale": 1.0,
        "expert_weights_norm": True, "expert_gating_func": 1,
        "attention.temperature_length": rope.get("original_max_position_embeddings"),
        # in Ollama's spelling, which llama.cpp passes over: what it takes anyway
        "rope.global.freq_base": config["rope_theta"], "rope.local.freq_base": config.get("rope_local_base_freq"),
        "rope.scaling.beta_fast": rope.get("beta_fast", 32.0), "rope.scaling.beta_slow": rope.get("beta_slow", 1.0),
        "rope.scaling.extrapolation_factor": 1.0, "rope.scaling_beta": rope.get("llama_4_scaling_beta"),
        "norm_top_k_prob": True,
    }  # fmt: skip
    for key, value in source.unread():
        wide = key == "attention.sliding_window" and value >= config["max_position_embeddings"]
        if not wide and not _is_idle(key, kind) and value != changes_nothing.get(key, 0):
            raise source.refused(key, value)


def _is_idle(key: str, kind: Architecture) -> bool:
    """Whether a key changes nothing, whatever it says."""
    of_text = _OF_OTHER_SENSES.isdisjoint(re.split(r"[._]", key))
    return not of_text or (key in _NO_EFFECT and key not in kind.heeds)
