"""A PEFT LoRA adapter, merged into the weights of its base: W + s B A (Hu et al. 2021, arXiv:2106.09685).

The result is a model like any other, so every backend that reads safetensors runs it, at the base's speed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmm.adapters.models.loadable import ADAPTER, read_json
from lmm.errors import BackendError, ModelError
from lmm.text.sanitize import listed

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
#: settings of PEFT under which W + s B A is not what the adapter does
OTHERWISE = ("use_dora", "use_qalora", "alora_invocation_tokens", "trainable_token_indices", "layer_replication")


def files(adapter: Path) -> tuple[Path, Path]:
    """Settings and weights of an adapter. Raises ModelError where the folder has none that can be merged."""
    settings, weights = adapter / ADAPTER, adapter / WEIGHTS
    if missing := [path.name for path in (settings, weights) if not path.is_file()]:
        raise ModelError(f"{adapter} is no PEFT adapter: it has no {listed(missing)}")
    config = read_json(settings)
    if config.get("peft_type") != "LORA":
        raise ModelError(f"{adapter} is no LoRA adapter but {config.get('peft_type')}; merge it with PEFT")
    if odd := [name for name in OTHERWISE if config.get(name)]:
        raise ModelError(f"{adapter} uses {listed(odd)}, which lmm does not merge; merge it with PEFT")
    return settings, weights


def merge(base: Path, adapter: Path, target: Path, told: Callable[[int, int], object]) -> None:
    """Write the model of folder `base` with the adapter in it into folder `target`; `told` counts files of weights.

    Sums are made in float32. Raises ModelError where the adapter is not one for this base.
    """
    try:
        from safetensors.torch import load_file, save_file
    except ImportError:
        raise BackendError("an adapter is merged with torch; run: pip install torch") from None
    settings, weights = files(adapter)
    config, changes = read_json(settings), load_file(weights)
    changes = {name.removeprefix(PREFIX): tensor for name, tensor in changes.items()}
    ends = [name for name in changes if "embed" in name or name.startswith("lm_head")]
    if ends and read_json(base / "config.json").get("tie_word_embeddings"):
        raise ModelError(
            f"{adapter} changes {listed(ends)} of a model whose head is its embeddings; merge it with PEFT"
        )
    shards = sorted(base.glob("*.safetensors"))
    for done, shard in enumerate(shards):
        told(done, len(shards))
        tensors = {name: _changed(name, tensor, changes, config) for name, tensor in load_file(shard).items()}
        save_file(tensors, target / shard.name, {"format": "pt"})
    if changes:
        raise ModelError(f"{adapter} is not for this model: nothing in it is called {listed(sorted(changes)[:3])}")
    for path in base.iterdir():
        if path.suffix in (".json", ".jinja", ".model", ".txt") and path.name != "lmm.json":
            shutil.copy(path, target)


def _changed(name: str, tensor: Tensor, changes: dict[str, Tensor], config: dict[str, Any]) -> Tensor:
    """A weight with what the adapter does to it, which is taken out of `changes`."""
    module = name.removesuffix(".weight")
    tensor = changes.pop(f"{module}.base_layer.weight", tensor)  # PEFT keeps embeddings beside what it does to them
    if name in changes:  # one of modules_to_save
        return changes.pop(name).to(tensor.dtype)
    embedded = f"{module}.lora_embedding_A" in changes
    a, b = (f"{module}.lora_embedding_{x}" if embedded else f"{module}.lora_{x}.weight" for x in "AB")
    if a not in changes or b not in changes:
        return tensor
    down, up = changes.pop(a).float(), changes.pop(b).float()
    by = (up @ down) * _scale(module, len(down), config)
    by = by.T if embedded or config.get("fan_in_fan_out") else by
    if by.shape != tensor.shape:
        raise ModelError(f"the adapter is not for this model: {name} is {list(tensor.shape)}, not {list(by.shape)}")
    return (tensor.float() + by).to(tensor.dtype).contiguous()


def _scale(module: str, rank: int, config: dict[str, Any]) -> float:
    """s: alpha / r, or alpha / sqrt(r) (Kalajdzievski 2023, arXiv:2312.03732)."""
    patterns = config.get("alpha_pattern") or {}
    own = (alpha for key, alpha in patterns.items() if re.match(rf"(.*\.)?({key})$", module))
    alpha = next(own, config.get("lora_alpha", rank))
    return float(alpha) / (rank**0.5 if config.get("use_rslora") else rank)
