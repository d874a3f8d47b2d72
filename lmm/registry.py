"""Names of memories, backends and encoders -> where they live. Nothing is imported before it is asked for.

Other packages add to the tables by the entry points `lmm.memories`, `lmm.adapters` and `lmm.encoders`; a name that is
taken twice is an error.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from lmm.errors import BackendError, LmmError, UnknownNameError

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter
    from lmm.adapters.models.source import ModelSource
    from lmm.memory.base import Memory

MEMORIES = {
    "keyed": "lmm.memory.keyed.keyed:Keyed",
    "notes": "lmm.memory.notes.notes:Notes",
    "identity": "lmm.memory.identity:Identity",
    "lora_on_user": "lmm.memory.lora_on_user:LoraOnUser",
    "hash_gradient": "lmm.memory.hash_gradient:HashGradient",
    "engram": "lmm.memory.engram.engram:Engram",
    "engram_hybrid": "lmm.memory.engram.hybrid:EngramHybrid",
    "gated_lora": "lmm.memory.gated_lora:GatedLora",
    "memoir": "lmm.memory.memoir.memoir:Memoir",
    "lm2": "lmm.memory.lm2.lm2:Lm2",
    "external": "lmm.memory.external.external:External",
}
ADAPTERS = {
    "torch": "lmm.adapters.torch_lm:TorchAdapter",
    "mlx_lm": "lmm.adapters.mlx_lm:MlxAdapter",
    "llama_cpp": "lmm.adapters.llama_cpp:LlamaCppAdapter",
}
ENCODERS = {
    "minilm": "lmm.encoders.sentences:MiniLM",
    "lam": "lmm.encoders.lam:Lam",
    "states": "lmm.encoders.sentences:States",
}
MODELS = {  # those that packages bring -> what files know them by
    "smollm2-135m-instruct": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "gemma-3-270m": "google/gemma-3-270m",
}
NEEDS = {"torch": "torch", "mlx_lm": "mlx_lm", "llama_cpp": "xllamacpp"}  # what must be installed for a backend
EXTRAS = {"torch": "torch", "mlx_lm": "mlx", "llama_cpp": "llama"}  # lmm[...] that brings it


@cache
def table(group: str) -> dict[str, str]:
    """The names of a group, with those that other packages add."""
    names = dict({"lmm.memories": MEMORIES, "lmm.adapters": ADAPTERS, "lmm.encoders": ENCODERS}[group])
    for point in entry_points(group=group):
        if point.name in names:
            raise LmmError(f"two packages define {point.name!r} in {group}: {names[point.name]} and {point.value}")
        names[point.name] = point.value
    return names


def check(group: str, kind: str, name: str) -> None:
    """Raises UnknownNameError."""
    if name not in table(group):
        raise UnknownNameError(kind, name, table(group))


def find(group: str, kind: str, name: str) -> Any:
    check(group, kind, name)
    module, _, attribute = table(group)[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def memory_class(name: str) -> type[Memory]:
    return find("lmm.memories", "memory", name)


def installed_backends() -> list[str]:
    """Backends whose framework is installed here, best first."""
    order = (*(("mlx_lm", "torch") if _apple() else ("torch", "mlx_lm")), "llama_cpp")
    return [name for name in order if importlib.util.find_spec(NEEDS[name])]


def pick_backend(name: str) -> str:
    """`auto` -> the best installed one. Raises UnknownNameError, or BackendError with what to install."""
    if name == "auto":
        if not installed_backends():
            raise BackendError("no backend is installed; run: pip install 'lmm[torch]' (or 'lmm[mlx]' on a Mac)")
        return installed_backends()[0]
    if name not in table("lmm.adapters"):
        raise UnknownNameError("backend", name, [*table("lmm.adapters"), "auto"])
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        raise BackendError(f"backend {name!r} is not installed; run: pip install 'lmm[{EXTRAS[name]}]'")
    return name


def load_adapter(backend: str, source: ModelSource, **options: Any) -> Adapter:
    return find("lmm.adapters", "backend", pick_backend(backend))(source, **options)


def _apple() -> bool:
    import platform

    return platform.system() == "Darwin" and platform.machine() == "arm64"
