"""Speed ratios in one run: each memory against `identity`, `identity` against the backend's own generate, turn 20
against turn 2: python -m scripts.measure_speed

Rounds are interleaved, so a machine that slows down slows all of them; each figure is a median of the rounds' ratios.
Every memory has been taught four lessons and writes the activation log, as in a chat.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from lmm import feedback, registry
from lmm.adapters.base import Adapter
from lmm.adapters.sampling import Decoding
from lmm.config import Config
from lmm.engine import runtime
from lmm.engine.conversation import prompt_tokens
from lmm.engine.engine import Engine
from lmm.files.activation_log import ActivationLog
from lmm.lesson import Knowledge
from lmm.memory.base import Memory

QUESTION = "Tell me a long story about a fox and a river."
FACTS = ["I live in Oslo.", "My dog is called Rex.", "My favourite colour is green.", "The staging port is 8443."]
TURN = "Please tell me one more short thing about the number {}."


def taught(adapter: Adapter, name: str) -> tuple[Memory, Knowledge]:
    """A memory with a few lessons."""
    engine = Engine(adapter, registry.memory_class(name)())
    for fact in FACTS:
        reading = feedback.read(fact)
        if engine.memory.learns_from == "messages":
            engine.start()
            engine.hear(fact)
        elif engine.memory.learns_from == "lessons" and reading.lesson is not None:
            engine.learn(reading.lesson)
    engine.detach()
    return engine.memory, engine.version


def decode_seconds(engine: Engine) -> float:
    """Seconds per token of a reply after its first."""
    engine.start()
    engine.hear(QUESTION, learn=False)
    for _ in engine.answer():
        pass
    return 1 / engine.last.generated.tokens_per_s


def native_seconds(adapter: Adapter, tokens: int) -> float:
    """Seconds per token of the backend's own generate, its prefill taken out."""
    read = prompt_tokens(adapter.format, QUESTION)
    start = time.perf_counter()
    adapter.generate_native(read, 1)
    middle = time.perf_counter()
    made = adapter.generate_native(read, tokens)
    return (time.perf_counter() - middle - (middle - start)) / (len(made) - 1)


def first_token_ratio(adapter: Adapter, name: str, log: ActivationLog) -> float:
    """Time to first token at turn 20 over that at turn 2, messages of equal length."""
    engine = Engine(adapter, registry.memory_class(name)(), decoding=Decoding(max_tokens=8), log=log)
    times = []
    try:
        for turn in range(10, 32):
            engine.hear(TURN.format(turn), learn=False)
            for _ in engine.answer():
                pass
            times.append(engine.last.generated.first_token_s)
    finally:
        engine.detach()
    return statistics.median(times[18:21]) / statistics.median(times[1:4])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--model", default=Config.model)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", default=",".join(registry.MEMORIES))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    adapter = runtime.load_adapter(Config(backend=given.backend, model=given.model, dtype=given.dtype))
    with tempfile.TemporaryDirectory() as folder, ActivationLog(Path(folder) / "log.jsonl") as log:
        found = measure(adapter, log, given)
    if given.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:<48}{value}")


def measure(adapter: Adapter, log: ActivationLog, given: argparse.Namespace) -> dict[str, object]:
    names = ["identity", *(n for n in given.memory.split(",") if n != "identity")]
    memories = {name: taught(adapter, name) for name in names}
    engine = Engine(adapter, memories["identity"][0], decoding=Decoding(max_tokens=given.tokens), log=log)
    rounds: list[dict[str, float]] = []
    for _ in range(given.rounds):
        seconds = {}
        for name, (memory, version) in memories.items():
            engine.swap(memory, version)
            seconds[name] = decode_seconds(engine)
        rounds.append({**seconds, "generate": native_seconds(adapter, given.tokens)})
    engine.detach()
    found: dict[str, object] = {"backend": adapter.name, "dtype": adapter.dtype}
    found["identity, tokens/s"] = round(1 / statistics.median(r["identity"] for r in rounds), 1)
    found["identity / generate, tokens/s"] = _median(r["generate"] / r["identity"] for r in rounds)
    for name in names[1:]:
        found[f"{name} / identity, tokens/s"] = _median(r["identity"] / r[name] for r in rounds)
    for name in ("identity", "keyed"):
        found[f"{name}: first token, turn 20 / turn 2"] = round(first_token_ratio(adapter, name, log), 3)
    return found


def _median(values: Iterable[float]) -> float:
    return round(statistics.median(values), 3)


if __name__ == "__main__":
    main()
