"""A config.json as transformers 5 writes it, with the keys that it had before: most models of mlx-lm know only those,
and without them they take their defaults and write nonsense, or do not load."""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]
#: what became fixed in transformers, and mlx-lm still asks for
#: what mlx-lm computes otherwise than transformers: rotary embeddings of whole heads, the choice of experts
OTHERWISE = ("glm", "ernie4_5_moe")
#: the language half of a model that sees -> the model, which is all that mlx-lm knows
WHOLE = {"qwen3_5_text": "qwen3_5", "qwen3_5_moe_text": "qwen3_5_moe"}
OLD_KINDS = ("granitemoehybrid", "jamba")
_OLD_NAMES = {"full_attention": "attention", "linear_attention": "mamba"}
FIXED: dict[str, Config] = {"apertus": {"mlp_bias": False, "post_norm": False, "qk_norm": True}}


def older_keys(config: Config) -> Config:
    """Keys to be added to a config.json; those it has stay as they are."""
    if whole := WHOLE.get(str(config.get("model_type"))):
        config = {"model_type": whole, "text_config": config}
        return {**config, **older_keys(config)}
    found = _text_keys(config)
    if isinstance(text := config.get("text_config"), dict):
        found["text_config"] = {**text, **_text_keys(text)}
    return found


def _text_keys(config: Config) -> Config:
    found = {**FIXED.get(str(config.get("model_type")), {}), **_aliases(config), **_rotary(config)}
    if isinstance(own := config.get("per_layer_config"), dict):  # what layers have of their own: those that see all
        found["global_head_dim"] = next(
            (c["head_dim"] for c in own.values() if "head_dim" in c), config.get("head_dim")
        )
    heads, width = config.get("num_attention_heads"), config.get("hidden_size")
    if isinstance(heads, int) and isinstance(width, int) and heads:
        found["head_dim"] = width // heads
    if "n_positions" in config:
        found["n_ctx"] = config["n_positions"]
    if str(config.get("model_type")).startswith("lfm2"):
        found["block_dim"] = width
    if isinstance(blocks := config.get("layers_block_type"), list):
        found["num_hidden_layers"] = len(blocks)
    return {key: value for key, value in found.items() if config.get(key) is None} | _renamed(config)


def _aliases(config: Config) -> Config:
    """Other names of what is there: transformers saves `n_embd` or `num_local_experts` under one of two."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    try:
        names: dict[str, str] = CONFIG_MAPPING[config.get("model_type")].attribute_map
    except KeyError:
        return {}
    return {other: config[name] for other, name in names.items() if name in config}


def _renamed(config: Config) -> Config:
    """Values that have other names by now."""
    found: Config = {}
    for key in ("layer_types", "layers_block_type"):
        if config.get("model_type") in OLD_KINDS and isinstance(config.get(key), list):
            found[key] = [_OLD_NAMES.get(kind, kind) for kind in config[key]]
    if config.get("model_type") == "granitemoehybrid" and config.get("position_embedding_type", "") is None:
        found["position_embedding_type"] = "nope"
    pattern = config.get("sliding_window_pattern")
    if config.get("model_type") == "exaone4" and isinstance(pattern, int):
        found["sliding_window_pattern"] = "L" * (pattern - 1) + "G"
    return found | _windows(config)


def _rotary(config: Config) -> Config:
    """`rope_parameters`, for all layers or for each kind of layers, as the keys of old."""
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict) or not rope:
        return {}
    found: Config = {}
    if isinstance(local := rope.get("sliding_attention"), dict):
        found["rope_local_base_freq"] = local.get("rope_theta")
        rope = rope.get("full_attention") or local
    found["rope_theta"] = found["rotary_emb_base"] = rope.get("rope_theta")
    if rope.get("partial_rotary_factor") is not None:
        found["partial_rotary_factor"] = found["rotary_pct"] = rope["partial_rotary_factor"]
    kind = rope.get("rope_type", "default")
    scaling = {key: value for key, value in rope.items() if key not in ("rope_theta", "partial_rotary_factor")}
    found["rope_scaling"] = None if kind == "default" else {**scaling, "rope_type": kind, "type": kind}
    return found


def _windows(config: Config) -> Config:
    """Which layers see a window alone, by a pattern: `layer_types` say it where both are there."""
    kinds = config.get("layer_types")
    if not isinstance(kinds, list) or not kinds:
        return {}
    if config.get("model_type") == "exaone4":
        letters = "".join("L" if kind == "sliding_attention" else "G" for kind in kinds)
        return {"sliding_window_pattern": letters if "L" in letters else None}
    every = kinds.index("full_attention") + 1 if "full_attention" in kinds else len(kinds) + 1
    return {"sliding_window_pattern": every}


def window(config: Config, args: Any) -> int:
    """How far a model may read where mlx-lm, with these arguments, leaves out the window it has; 0: it does not."""
    sliding, kinds = config.get("sliding_window"), config.get("layer_types")
    if not isinstance(sliding, int) or config.get("use_sliding_window") is False:
        return 0
    if isinstance(kinds, list) and "sliding_attention" not in kinds:
        return 0
    names = vars(args)
    left_out = "sliding_window" not in names or ("layer_types" in names and not kinds)
    return sliding if left_out else 0
