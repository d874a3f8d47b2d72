"""Which number format is fastest on this machine, measured once and remembered.

Decoding is bound by reading weights, so a narrow format wins where the processor computes in it (fp16 with
AVX-512-FP16, bf16 with AVX-512-BF16) and loses badly where it does not; reading a prompt is bound by computing. The
choice is kept in the cache folder: it must not change between two sessions, or the same memory could answer
differently. A busy machine is measured again.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from lmm.adapters.models.source import ModelSource

CANDIDATES = ("float16", "bfloat16", "float32")
# Trained in bf16 with activations beyond fp16's 65,504; fp16 overflows in them.
NO_FLOAT16 = ("gemma",)
TURN = 32  # tokens of a short question, and of a short reply
WORTH_IT = 0.85  # of float32's time: a narrow format that is not clearly faster only costs precision
Times = dict[str, float]


def ranked_dtypes(source: ModelSource, device: torch.device) -> list[str]:
    """Formats to try for this model here, best first; "float32", which always works, is the last."""
    config = json.loads((source.folder / "config.json").read_text())
    no_float16 = str(config.get("model_type", "")).startswith(NO_FLOAT16)
    safe = [name for name in CANDIDATES if not (no_float16 and name == "float16")]
    if device.type == "cuda":
        return ["bfloat16", "float32"] if torch.cuda.is_bf16_supported() else [*safe[:1], "float32"]
    return rank(_measured(), safe)


def rank(times: Times, safe: list[str]) -> list[str]:
    """The formats worth their loss of precision, fastest first, and float32."""
    narrow = [name for name in safe if name != "float32" and times[name] < WORTH_IT * times["float32"]]
    return [*sorted(narrow, key=lambda name: times[name]), "float32"]


def is_finite(model: Any, tokens: list[int]) -> bool:
    """Whether a forward pass over `tokens` gives numbers: a format that overflows does not."""
    with torch.no_grad():
        return bool(torch.isfinite(model(torch.as_tensor([tokens], device=model.device)).logits).all())


def _measured() -> Times:
    """What `measure` finds, from the cache folder if this machine was measured before."""
    from lmm.adapters.models.source import cache_dir

    path = cache_dir() / "dtype.json"
    here = f"{platform.machine()} {_processor()} torch {torch.__version__} threads {torch.get_num_threads()}"
    key = f"turn of {TURN}: {here}"
    known = _read(path)
    if not _valid(known.get(key)):
        known[key] = measure()
        if _calm():
            _remember(path, known)
    return known[key]


def measure(width: int = 576, wide: int = 6144, matrices: int = 16, rounds: int = 8) -> Times:
    """Seconds that one matrix takes in a short turn, TURN tokens read at once and TURN written one by one, per token
    written; together the matrices are too large for most caches.

    A processor may be quick with a narrow format for one token, which is bound by reading weights, and slow for many,
    which is bound by computing. The formats take turns on the same memory, and the lower quartile counts: neither a
    lucky cache nor another program that takes the processor away for a while decides.
    """
    weights = torch.ones(matrices, wide, width)
    formats = {name: weights.view(getattr(torch, name)).flatten()[: weights.numel()] for name in CANDIDATES}
    written, read = ({name: list[float]() for name in CANDIDATES} for _ in range(2))
    for _ in range(rounds):
        for name, flat in formats.items():
            token, prompt = (torch.ones(rows, width).to(flat.dtype) for rows in (1, TURN))
            for i, matrix in enumerate(flat.view(weights.shape)):
                written[name].append(_seconds(token, matrix))
                if i % 8 == 0:
                    read[name].append(_seconds(prompt, matrix))
    return {name: _quartile(written[name]) + _quartile(read[name]) / TURN for name in CANDIDATES}


def _seconds(x: torch.Tensor, matrix: torch.Tensor) -> float:
    start = time.perf_counter()
    torch.nn.functional.linear(x, matrix)
    return time.perf_counter() - start


def _quartile(samples: list[float]) -> float:
    return sorted(samples)[len(samples) // 4]


def _calm() -> bool:
    """Whether the processors are mostly ours: on a busy machine all formats look alike."""
    try:
        return os.getloadavg()[0] <= (os.cpu_count() or 1)
    except OSError:
        return True


def _valid(times: Any) -> bool:
    return isinstance(times, dict) and all(
        isinstance(times.get(name), float) and 0 < times[name] < math.inf for name in CANDIDATES
    )


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


def _read(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember(path: Path, known: dict[str, Any]) -> None:
    from lmm.files.atomic import write_atomically

    with contextlib.suppress(OSError):  # measured again next time
        write_atomically(path, [json.dumps(known, indent=1).encode()])
