"""Where the decoder layers of a model are, found by shape rather than by name, on any module tree."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from lmm.errors import ModelError

_SENSES = re.compile(r"vision|visual|image|audio|speech", re.I)


def get_path(root: Any, path: str) -> Any:
    """`model.layers` -> root.model.layers."""
    for part in path.split("."):
        root = root[int(part)] if part.isdigit() else getattr(root, part)
    return root


def find_layers(
    model: Any, candidates: Iterable[tuple[str, Any]], count: int, path: str | None = None
) -> tuple[str, list[Any]]:
    """The list of `count` decoder layers among `candidates` (name, list of modules), or at `path` if one is given.

    A decoder layer has a self-attention and an MLP; where no list is of such layers, the one list of `count` modules
    will do. What looks at pictures or listens is no decoder. Raises ModelError that says how to name an unknown
    structure.
    """
    if path:
        try:
            return path, list(get_path(model, path))
        except (AttributeError, TypeError, IndexError) as error:
            raise ModelError(
                f"--layers-path {path!r} does not lead to a list of layers in this model: {error}"
            ) from error
    found = [(name, list(layers)) for name, layers in candidates]
    fitting = [(name, layers) for name, layers in found if len(layers) == count and not _SENSES.search(name)]
    usual = [one for one in fitting if all(hasattr(layer, "self_attn") and hasattr(layer, "mlp") for layer in one[1])]
    if len(usual or fitting) == 1 or usual:
        return (usual or fitting)[0]
    seen = ", ".join(f"{name} ({len(layers)})" for name, layers in found) or "none"
    raise ModelError(
        f"this model's decoder layers were not recognised: expected one list of {count} layers, "
        f"found lists: {seen}. Name it with --layers-path, e.g. --layers-path model.layers"
    )


def down_projection(layer: Any) -> Any:
    """The matrix that closes a layer's MLP. Raises ModelError where there is not one: experts, a state space."""
    for holder in (getattr(layer, name, None) for name in ("mlp", "feed_forward", "ffn")):
        for name in ("down_proj", "fc2", "c_proj", "dense_4h_to_h", "fc_out", "w2"):
            if hasattr(getattr(holder, name, None), "weight"):
                return getattr(holder, name)
    if hasattr(getattr(layer, "fc2", None), "weight"):  # OPT has no module around its MLP
        return layer.fc2
    raise ModelError(
        f"this model's layers ({type(layer).__name__}) have no single down-projection of an MLP, which this memory "
        "rewrites; keyed and notes need none"
    )


def input_width(module: Any) -> int:
    """How wide a projection's input is."""
    transposed = type(module).__name__ == "Conv1D"  # GPT-2's
    return int(module.weight.shape[0 if transposed else 1])


def one_width(width: Any) -> int:
    """A width, which some models have for each layer; 0 where these differ."""
    widths = set(width) if isinstance(width, list | tuple) else {width}
    return int(widths.pop() or 0) if len(widths) == 1 else 0
