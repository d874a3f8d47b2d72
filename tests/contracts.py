"""What every memory and every backend must keep to; the tests that call this are one row per memory or backend."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from lmm import registry
from lmm.adapters.base import Adapter
from lmm.config import Decoding
from lmm.engine.asking import recall_many, tokens_asked
from lmm.engine.engine import Engine
from lmm.engine.mind import Mind
from lmm.lesson import Lesson
from lmm.memory.base import Memory, on_host

MARKS = {
    "torch": [pytest.mark.real],
    "mlx_lm": [pytest.mark.real, pytest.mark.mlx],
    "llama_cpp": [pytest.mark.real],
    # torch stands for the backends until `make test`
    "tiny-mlx": [pytest.mark.mlx, pytest.mark.slow],
    "tiny-llama": [pytest.mark.slow],
}


def on(*names: str) -> pytest.MarkDecorator:
    """Run a test on these adapters: "toy", "tiny-torch", "tiny-mlx", "tiny-llama" (milliseconds), "torch", "mlx_lm",
    "llama_cpp" (real)."""
    return pytest.mark.parametrize("adapter", [pytest.param(n, marks=MARKS.get(n, [])) for n in names], indirect=True)


on_small = on("toy", "tiny-torch", "tiny-mlx", "tiny-llama")
on_each_small = on("toy", "tiny-torch", "tiny-mlx")
#: For what is repeated for every memory, and says little of a backend: the toy stands for them until `make test`.
on_toy_first = pytest.mark.parametrize(
    "adapter",
    ["toy", *(pytest.param(n, marks=[*MARKS.get(n, []), pytest.mark.slow]) for n in ("tiny-torch", "tiny-mlx"))],
    indirect=True,
)


def numbers(adapter: Adapter, array: Any) -> np.ndarray:
    return np.asarray(adapter.ops.to_numpy(array), np.float32)


def close(a: np.ndarray, b: np.ndarray, atol: float = 2e-4) -> None:
    """Equal but for the order in which a backend adds numbers up; prints how far off."""
    off = np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64))
    print(f"max difference {off.max():.2e}, mean {off.mean():.2e}")
    assert off.max() <= atol * max(1.0, float(np.abs(b).max())), f"differ by up to {off.max():.2e}"


def same(adapter: Adapter, a: np.ndarray, b: np.ndarray) -> None:
    """Bit for bit; but with keys and values in float32 llama.cpp adds up by where tokens lie in its store."""
    if adapter.name == "llama_cpp" and adapter.store.precise:  # type: ignore[attr-defined]
        close(a, b, atol=1e-5)
    else:
        assert np.array_equal(a, b)


@dataclass(frozen=True)
class Row:
    """A memory in the contract suite: options that make it learn visibly in a few cheap steps, and what to teach."""

    options: dict[str, Any] = field(default_factory=dict)
    lessons: tuple[Lesson, ...] = (
        Lesson("What is my sister's name?", "Ada", "My sister's name is Ada."),
        Lesson("Where do I live?", "Oslo", "I live in Oslo."),
    )
    learns: bool = True
    #: does it take steps of an optimiser, which can be watched and stopped?
    steps: bool = True
    #: options that are wrong, and the names an error must give
    bad: dict[str, Any] = field(default_factory=dict)


ROWS: dict[str, Row] = {
    "identity": Row(learns=False, bad={"rank": 1, "lr": 2}),
    "lora_on_user": Row({"rank": 2, "lr": 0.05, "steps": 2}, bad={"rank": 0, "lr": -1.0, "optimizer": "lion"}),
    "hash_gradient": Row(
        {"bits": 6, "lr": 0.5, "min_steps": 1, "max_steps": 2}, bad={"bits": 0, "share": 2.0, "lr": -1.0}
    ),
    "memoir": Row(
        {"k": 0.1, "steps": 2, "lr": 0.05, "tau": 1.0, "prefixes": 1},
        bad={"depth": 1.5, "k": -1.0, "tau": 2.0, "views": "three", "span": "some", "lr": -1.0},
    ),
    "engram": Row({"steps": 2, "slots": 1000}, bad={"depth": 3.0, "heads": 0, "lr": -1.0, "steps": 0}),
    "engram_hybrid": Row({"steps": 2, "slots": 1000}, bad={"alone": 3.0, "top_k": 0, "heads": 0, "lr": -1.0}),
    "gated_lora": Row(
        {"rank": 1, "lr": 0.05, "steps": 2, "rehearse": 0, "gate_lr": 0.1, "gate_steps": 12, "open": 0.3},
        bad={"rank": 0, "open": 1.5, "gate_lr": -1.0, "steps": 0},
    ),
    "notes": Row({"threshold": 0.01}, steps=False, bad={"threshold": 2.0, "count": 0}),
    "lm2": Row(
        {"memory_slots": 3, "slot_width": 4, "num_mem_heads": 2, "steps": 2, "lr": 0.05},
        bad={"memory_slots": 0, "depth": 1.5, "reset": "daily", "lr": -1.0, "steps": 0},
    ),
    "external": Row(
        {"threshold": -1.0, "show": 0, "near": -0.9, "boost": 20.0},
        steps=False,
        bad={"depth": 1.5, "k": 0, "threshold": 2.0, "boost": -1.0},
    ),
    "keyed": Row({"steps": 2}, bad={"depth": 3.0, "lr": -1.0, "steps": 0}),
}


def memory(name: str) -> Memory:
    kind = registry.memory_class(name)
    return kind(kind.build_options(ROWS[name].options))


#: engines of the test that is running; the `adapter` fixture closes them, so that one failure stays one
opened: list[Engine] = []


def engine(adapter: Adapter, name: str = "identity", max_tokens: int = 6, system: str = "", **mind: Any) -> Engine:
    opened.append(Engine(Mind(adapter, memory(name), **mind), system, Decoding(max_tokens=max_tokens)))
    return opened[-1]


def close_all() -> None:
    while opened:
        opened.pop().close()


def logits_of(engine: Engine, prompt: str, reply: str = " I think so", chunks: int = 1) -> np.ndarray:
    """Logits [T + S, V] of a prompt in an empty conversation and of a given reply to it, read as in a chat: the
    prompt in `chunks`, then the reply token by token."""
    adapter, recall = engine.adapter, recall_many(engine.mind, [prompt], 1)[0]
    tokens, cache, found = tokens_asked(adapter.format, recall, prompt), adapter.new_cache(), []
    pieces = [p for p in np.array_split(np.asarray(tokens), chunks) if len(p)]
    with engine.mind.holding(recall, len(tokens) - 1):
        for piece in [*pieces, *([t] for t in adapter.format.encode(reply))]:
            out, cache = adapter.forward(np.asarray(piece).reshape(1, -1), cache, keep=len(piece))
            found.append(numbers(adapter, out)[0])
    return np.concatenate(found)


def frozen(engine: Engine) -> dict[str, np.ndarray]:
    """A copy of the state as it is now, to see later that nobody wrote into it."""
    return {name: np.array(on_host(engine.adapter.ops, a)) for name, a in engine.mind.knowledge.state.items()}


def same_state(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and np.array_equal(a[k], b[k]) for k in a)
