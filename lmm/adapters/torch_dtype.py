"""Which number format is fastest on this machine, measured once and remembered.

Decoding is bound by reading weights, so a narrow format wins where the processor computes in it (fp16 with
AVX-512-FP16, bf16 with AVX-512-BF16) and loses badly where it does not. The choice is kept in the cache folder: it
must not change between two sessions, or the same memory could answer differently.
"""

from __future__ import annotations

import json
import platform
import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from lmm.models import ModelSource

CANDIDATES = ("float16", "bfloat16", "float32")
# Trained in bf16 with activations beyond fp16's 65,504; fp16 overflows in them.
NO_FLOAT16 = ("gemma",)


def pick_dtype(source: ModelSource, device: torch.device) -> str:
    """The fastest safe dtype for this model here: "float16", "bfloat16" or "float32"."""
    from lmm.models import cache_dir

    config = json.loads((source.folder / "config.json").read_text())
    safe = [c for c in CANDIDATES if c != "float16" or not str(config.get("model_type", "")).startswith(NO_FLOAT16)]
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else safe[0]
    path = cache_dir() / "dtype.json"
    key = f"{platform.machine()} {_processor()} torch {torch.__version__} threads {torch.get_num_threads()}"
    times = _read(path).get(key)
    if times is None:
        times = {name: _decode_time(getattr(torch, name)) for name in CANDIDATES}
        _remember(path, key, times)
    return min(safe, key=lambda name: times[name])


def _decode_time(dtype: torch.dtype, width: int = 576, wide: int = 6144, repeats: int = 30) -> float:
    """Seconds of a decode-like step: one token through matrices too large for the cache to keep."""
    x = torch.ones(1, width).to(dtype)
    weights = [torch.ones(wide, width).to(dtype) for _ in range(8)]
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        for w in weights:
            torch.nn.functional.linear(x, w)
        best = min(best, time.perf_counter() - start)
    return best


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            found = {line.split(":")[0].strip(): line.split(":")[1].strip() for line in lines if ":" in line}
        return f"{found.get('model name', '')} {hash_flags(found.get('flags', ''))}"
    except (OSError, IndexError):
        return platform.processor()


def hash_flags(flags: str) -> str:
    """The instruction sets that decide: two machines of one name may differ in them."""
    return " ".join(
        flag for flag in ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16") if flag in flags.split()
    )


def _read(path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _remember(path, key: str, times: dict[str, float]) -> None:
    known = _read(path)
    known[key] = times
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known, indent=1))
    except OSError:
        pass  # measured again next time
