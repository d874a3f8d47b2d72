"""What a config.json asks for and mlx-lm's model of that family does not read: it would write other text, unasked."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import sys
import typing
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from lmm.adapters.mlx_config import Config, older_keys
from lmm.text.sanitize import clean_line

#: in the names of settings that do not change what a trained model computes
NO_MATTER = re.compile(
    r"drop|jitter|init|loss|cache|sliding_window|^output_|^summary_|classifier|cross_attention|is_decoder|fp32|upcast"
    r"|kernel|mambapy|_scan$|time_step|rescale|overlap|dtype|_a_log_|_dt_|^mrope|finetuned|^(?:rope_)?type$"
)
#: one function under several names, or all but one
SAME = {"swish": "silu", "gelu_new": "gelu", "gelu_fast": "gelu", "gelu_python": "gelu", "gelu_pytorch_tanh": "gelu"}
OTHER_NAMES = {
    "rope_theta": {"rotary_emb_base", "rope_parameters"},
    "rope_scaling": {"rope_parameters"},
    "partial_rotary_factor": {"rotary_pct"},
}
Reads = Callable[[str], bool]


def unread(config: Config, module: ModuleType) -> list[str]:
    """Settings, as `name = value`, that change what is computed, that are not what the family has, and that the code
    of mlx-lm's `module` never names. Lengths and counts are left to the shapes of the weights. `config` has the
    `older_keys`."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    text = config.get("text_config") or config
    try:
        family = CONFIG_MAPPING[text.get("model_type")]
    except KeyError:
        return []  # what is usual in it is not known
    reads, usual = _reader(module), family()
    found = [*_settings(text, usual), *_rotary(text, usual), *_windows(text, reads)]
    names = {name: {name} | OTHER_NAMES.get(name, set()) | _aliases(usual, name) for name, _ in found}
    return [clean_line(f"{name} = {value!r}", 100) for name, value in found if not any(map(reads, names[name]))]


def _settings(text: Config, usual: Any) -> Iterator[tuple[str, Any]]:
    """What the family has otherwise."""
    from transformers import PretrainedConfig

    common = {field.name for field in dataclasses.fields(PretrainedConfig)}
    for field in dataclasses.fields(usual):
        name, kinds = field.name, {field.type, *typing.get_args(field.type)}
        if name in common or NO_MATTER.search(name) or not kinds & {float, bool, str}:
            continue
        if name in text and not _same(text[name], getattr(usual, name)):
            yield name, text[name]


def _rotary(text: Config, usual: Any) -> Iterator[tuple[str, Any]]:
    """Of rotary embeddings, in the keys of old; each setting of a scaling alone."""
    if not hasattr(usual, "rope_parameters"):
        return
    family: Config = {"partial_rotary_factor": 1.0, "rope_local_base_freq": text.get("rope_theta")}
    family |= older_keys(usual.to_dict())
    for name in ("rope_theta", "partial_rotary_factor", "rope_local_base_freq"):
        if text.get(name) not in (None, family.get(name)):
            yield name, text[name]
    scaling, known = text.get("rope_scaling") or {}, family.get("rope_scaling") or {}
    if scaling != known:
        yield "rope_scaling", scaling
    stretched = 0.1 * math.log(scaling.get("factor") or 1.0) + 1  # what yarn multiplies attention with, if not told
    for name, value in scaling.items():
        told = name == "attention_factor" and math.isclose(value or stretched, stretched, rel_tol=1e-3)
        if not (NO_MATTER.search(name) or told or _same(value, known.get(name))):
            yield name, value


def _windows(text: Config, reads: Reads) -> Iterator[tuple[str, Any]]:
    """Which layers see a window alone, where mlx-lm goes by a pattern that does not say the same."""
    kinds, pattern = text.get("layer_types"), text.get("sliding_window_pattern")
    if not isinstance(kinds, list) or not reads("sliding_window_pattern"):
        return
    sliding = [kind == "sliding_attention" for kind in kinds]
    if isinstance(pattern, str):
        seen = [pattern[i % len(pattern)] == "L" for i in range(len(kinds))]
    else:
        seen = [(i + 1) % int(pattern or 1) != 0 for i in range(len(kinds))]
    if seen != sliding:
        yield "layer_types", kinds


def _same(value: Any, usual: Any) -> bool:
    value, usual = (SAME.get(x, x) if isinstance(x, str) else x or None for x in (value, usual))
    return value == usual


def _aliases(usual: Any, name: str) -> set[str]:
    return {other for pair in usual.attribute_map.items() if name in pair for other in pair}


def _reader(module: ModuleType) -> Reads:
    """Whether a name is used by the code of a module of mlx-lm, and of those that it takes things from."""
    code = "\n".join(map(inspect.getsource, _with_imports(module, {})))
    used = set(re.findall(r"[.\"'](\w+)", code))
    return used.__contains__


def _with_imports(module: ModuleType, seen: dict[ModuleType, None]) -> dict[ModuleType, None]:
    if module not in seen:
        seen[module] = None
        for value in vars(module).values():
            near = value if inspect.ismodule(value) else sys.modules.get(getattr(value, "__module__", None) or "")
            if near is not None and near.__name__.startswith("mlx_lm.models."):
                _with_imports(near, seen)
    return seen
