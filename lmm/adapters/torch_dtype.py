"""Which number format is fastest on this machine, measured once and remembered.

Decoding is bound by reading weights, so a narrow format wins where the processor computes in it (fp16 with
AVX-512-FP16, bf16 with AVX-512-BF16) and loses badly where it does not; reading a prompt is bound by computing, and
from some number of tokens on a narrow format is better computed in float32. The
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
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import linear

from lmm.adapters import torch_int8
from lmm.adapters.torch_wide import product

if TYPE_CHECKING:
    from lmm.adapters.models.source import ModelSource

CANDIDATES = ("float16", "bfloat16", "float32")
# Trained in bf16 with activations beyond fp16's 65,504; fp16 overflows in them.
NO_FLOAT16 = ("gemma",)
WIDE_ROWS = (4, 8, 16, 32)
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


def wide_from(dtype: str) -> int:
    """The rows from which products in this format are computed in float32 here (`torch_wide`); 0: never."""
    return 0 if dtype == "float32" else _remembered(f"wide {dtype}", lambda: measure_wide(dtype), _rows)


def has_int8(dtype: str) -> bool:
    """Whether one token is faster here with int8 weights than in this format."""
    return _remembered(f"int8 {dtype}", lambda: measure_int8(dtype), lambda known: isinstance(known, bool))


def _measured() -> Times:
    """What `measure` finds."""
    return _remembered(f"turn of {TURN}", measure, _valid)


def _remembered(what: str, make: Callable[[], Any], valid: Callable[[Any], bool]) -> Any:
    """What is measured, from the cache folder if this machine was measured before."""
    from lmm.adapters.models.source import cache_dir

    path = cache_dir() / "dtype.json"
    here = f"{platform.machine()} {_processor()} torch {torch.__version__} threads {torch.get_num_threads()}"
    key, known = f"{what}: {here}", _read(path)
    if not valid(known.get(key)):
        known[key] = make()
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
                written[name].append(_seconds(linear, token, matrix))
                if i % 8 == 0:
                    read[name].append(min(_seconds(how, prompt, matrix) for how in (linear, product)))
    return {name: _quartile(written[name]) + _quartile(read[name]) / TURN for name in CANDIDATES}


def measure_wide(dtype: str, width: int = 576, wide: int = 1536, matrices: int = 16, rounds: int = 4) -> int:
    """The fewest of WIDE_ROWS from which `product` is clearly faster than the format's own, for all above; 0: none."""
    weights = torch.ones(matrices, wide, width, dtype=getattr(torch, dtype))
    found = 0
    for rows in reversed(WIDE_ROWS):
        x, (own, in_float32) = weights[0, :rows], (list[float](), list[float]())
        for matrix in [*weights] * rounds:
            own.append(_seconds(linear, x, matrix))
            in_float32.append(_seconds(product, x, matrix))
        if _quartile(in_float32) > WORTH_IT * _quartile(own):
            break
        found = rows
    return found


def measure_int8(dtype: str, width: int = 576, wide: int = 1536, matrices: int = 16, rounds: int = 4) -> bool:
    weights = torch.ones(matrices, wide, width, dtype=getattr(torch, dtype))
    x, packed = weights[0, :1], [torch_int8.quantised(matrix) for matrix in weights]
    own, found = list[float](), list[float]()
    for matrix, small in [*zip(weights, packed, strict=True)] * rounds:
        own.append(_seconds(linear, x, matrix))
        found.append(_seconds(torch_int8.product, x, *small))
    return _quartile(found) < _quartile(own)


def _seconds(multiply: Any, x: torch.Tensor, *matrix: torch.Tensor) -> float:
    start = time.perf_counter()
    multiply(x, *matrix)
    return time.perf_counter() - start


def _quartile(samples: list[float]) -> float:
    return sorted(samples)[len(samples) // 4]


def _rows(known: Any) -> bool:
    return known in (0, *WIDE_ROWS) and not isinstance(known, bool)


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
