"""What a decode step takes beside the model's own forward, on torch: python -m scripts.measure_step [MODEL..]

Processor time of one token, step / own forward, each after the other; the median of the pairs. Without models, of a
tiny one of each family that has a step, in float32.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmm.adapters.models.source import ModelSource
from lmm.adapters.torch_lm import TorchAdapter, _copy
from lmm.config import Config
from lmm.engine import runtime
from scripts.check_models import make

PASTS, PAIRS = (40, 700), 15  # tokens read before
FAMILIES = (
    "llama", "mistral", "ministral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "smollm3", "olmo2",
    "olmo3", "seed_oss",
)  # fmt: skip


def ratio(adapter: TorchAdapter, past: int) -> float:
    import torch

    step, ids = adapter.step, torch.arange(5, 5 + past, device=adapter.device)[None]
    if step is None:
        raise SystemExit(f"{adapter.model_id} has no step of its own")

    def seconds(call: Any) -> float:
        cache = _copy(raw)
        start = time.process_time()
        call(cache)
        return time.process_time() - start

    with torch.no_grad():
        raw = adapter.model(ids, use_cache=True, past_key_values=adapter.new_cache().raw).past_key_values
        last = ids[:, -1:]
        pairs = [
            (seconds(lambda c: step(last, [c])), seconds(lambda c: adapter.model(last, past_key_values=c)))
            for _ in range(PAIRS)
        ]
    return statistics.median(a / b for a, b in pairs)


def adapters(models: list[str]) -> Iterator[TorchAdapter]:
    for model in models:
        loaded = runtime.load_adapter(Config(backend="torch", model=model))
        assert isinstance(loaded, TorchAdapter)
        yield loaded
    for kind in () if models else FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            make(kind, Path(folder), {"max_position_embeddings": 1024, "vocab_size": 1024})
            yield TorchAdapter(ModelSource(kind, Path(folder), kind, None), dtype="float32")


def main(models: list[str]) -> None:
    for adapter in adapters(models):
        found = ", ".join(f"{ratio(adapter, past):.2f} after {past} tokens" for past in PASTS)
        print(f"{adapter.model_id:38}{adapter.dtype:10}{found}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
