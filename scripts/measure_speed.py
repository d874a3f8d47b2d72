"""Speed ratios in one run: each memory against `identity`, `identity` against the backend's own generate, turn 20
against turn 2: python -m scripts.measure_speed

Rounds are interleaved, so a machine that slows down slows all of them; each figure is a median of the rounds' ratios.
Every memory has been taught four lessons and writes the activation log, as in a chat; `keyed` has `--lessons` in all.
`--against torch` has another backend take turns with the one that is measured: decoding, and the time of a lesson.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lmm import feedback, registry
from lmm.adapters.base import Adapter
from lmm.adapters.generation import prefill
from lmm.config import Config, Decoding
from lmm.engine import runtime
from lmm.engine.engine import Engine
from lmm.engine.mind import Mind
from lmm.files.activation_log import ActivationLog
from lmm.lesson import Lesson
from lmm.memory.base import LearnReport
from lmm.memory.keyed.keyed import Keyed

QUESTION = "Tell me a long story about a fox and a river."
FACTS = ["I live in Oslo.", "My dog is called Rex.", "My favourite colour is green.", "The staging port is 8443."]
TURN = "Please tell me one more short thing about the number {}."


def taught(adapter: Adapter, name: str, log: ActivationLog) -> Mind:
    """A mind with a few lessons, detached."""
    mind = Mind(adapter, registry.memory_class(name)(), log=log)
    for fact in FACTS:
        reading = feedback.read(fact)
        if mind.memory.learns_from == "messages":
            Engine(mind).hear(fact)
        elif mind.memory.learns_from == "lessons" and reading.lesson is not None:
            mind.learn(reading.lesson)
    mind.detach()
    return mind


class Filled(Keyed):
    """Takes in lessons that are not learned: so many are only there to be looked through."""

    def _learn_values(self, lesson: Lesson, adapter: Adapter, report: LearnReport) -> np.ndarray:
        return np.zeros((4, adapter.shape.width), np.float32)


def fill(mind: Mind, count: int) -> None:
    """So many lessons in all."""
    memory, mind.memory = mind.memory, Filled(mind.memory.options)
    for i in range(len(mind.lessons), count):
        mind.learn(Lesson(f"What is the code of parcel {i}?", f"The code is {i}."))
    mind.memory = memory


def lesson_seconds(mind: Mind, number: int) -> float:
    """Seconds for one lesson more."""
    start = time.perf_counter()
    mind.learn(Lesson(f"What is in box {number}?", f"There are {number + 7} red apples in it."))
    return time.perf_counter() - start


def decode_seconds(engine: Engine) -> float:
    """Seconds per token of a reply after its first."""
    engine.start()
    engine.hear(QUESTION, learn=False)
    for _ in engine.answer():
        pass
    made = engine.conversation.turns[-1].generated
    assert made is not None
    return 1 / made.tokens_per_s


def native_seconds(adapter: Adapter, tokens: int) -> float:
    """Seconds per token of the backend's own generate, its prefill taken out."""
    read = adapter.format.prompt_tokens(QUESTION)
    start = time.perf_counter()
    adapter.generate_native(read, 1)
    middle = time.perf_counter()
    made = adapter.generate_native(read, tokens)
    return (time.perf_counter() - middle - (middle - start)) / (len(made) - 1)


def reading_seconds(adapter: Adapter, tokens: int = 512) -> float:
    """Seconds in which a prompt of so many tokens is read."""
    read = (adapter.format.encode(QUESTION) * tokens)[:tokens]
    start = time.perf_counter()
    prefill(adapter, read, adapter.new_cache())
    return time.perf_counter() - start


def first_token_ratio(adapter: Adapter, name: str, log: ActivationLog) -> float:
    """Time to first token at turn 20 over that at turn 2, messages of equal length."""
    engine = Engine(Mind(adapter, registry.memory_class(name)(), log=log), decoding=Decoding(max_tokens=8))
    times = []
    try:
        for turn in range(10, 32):
            engine.hear(TURN.format(turn), learn=False)
            for _ in engine.answer():
                pass
            made = engine.conversation.turns[-1].generated
            assert made is not None
            times.append(made.first_token_s)
    finally:
        engine.mind.detach()
    return statistics.median(times[18:21]) / statistics.median(times[1:4])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--model", default=Config.model)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", default=",".join(registry.MEMORIES))
    parser.add_argument("--lessons", type=int, default=0, help="of keyed, in all")
    parser.add_argument("--against", default="", help="another backend that takes turns with this one")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    adapter = runtime.load_adapter(Config(backend=given.backend, model=given.model, dtype=given.dtype))
    with tempfile.TemporaryDirectory() as folder, ActivationLog(Path(folder) / "log.jsonl") as log:
        found = measure(adapter, log, given)
        if given.against:
            found |= compare(adapter, log, given)
    if given.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:<48}{value}")


def measure(adapter: Adapter, log: ActivationLog, given: argparse.Namespace) -> dict[str, object]:
    names = ["identity", *(n for n in given.memory.split(",") if n != "identity")]
    minds = {name: taught(adapter, name, log) for name in names}
    if "keyed" in minds:
        fill(minds["keyed"], given.lessons)
    engine = Engine(minds["identity"], decoding=Decoding(max_tokens=given.tokens))
    rounds: list[dict[str, float]] = []
    for _ in range(given.rounds):
        seconds = {}
        for name, mind in minds.items():
            engine.use(mind)
            seconds[name] = decode_seconds(engine)
        rounds.append({**seconds, "generate": native_seconds(adapter, given.tokens)})
    engine.mind.detach()
    found: dict[str, object] = {"backend": adapter.name, "dtype": adapter.dtype}
    found["a prompt of 512 tokens, seconds"] = _median(reading_seconds(adapter) for _ in range(given.rounds))
    found["identity, tokens/s"] = round(1 / statistics.median(r["identity"] for r in rounds), 1)
    found["identity / generate, tokens/s"] = _median(r["generate"] / r["identity"] for r in rounds)
    for name in names[1:]:
        found[f"{name} / identity, tokens/s"] = _median(r["identity"] / r[name] for r in rounds)
    for name in ("identity", "keyed"):
        found[f"{name}: first token, turn 20 / turn 2"] = round(first_token_ratio(adapter, name, log), 3)
    return found


def compare(adapter: Adapter, log: ActivationLog, given: argparse.Namespace) -> dict[str, object]:
    """Both backends, turn by turn; the first lesson, which may build what it needs, does not count."""
    other = runtime.load_adapter(Config(backend=given.against, model=given.model, dtype=given.dtype))
    minds = [taught(one, "keyed", log) for one in (adapter, other)]
    decoded, learned = [list[list[float]]() for _ in range(2)]
    for number in range(given.rounds):
        learned.append([lesson_seconds(mind, number) for mind in minds])
        engines = [Engine(mind, decoding=Decoding(max_tokens=given.tokens)) for mind in minds]
        for mind in minds:
            mind.attach()
        decoded.append([decode_seconds(engine) for engine in engines])
        for mind in minds:
            mind.detach()
    against = f"{other.name} {other.dtype}"
    return {
        f"{against}: keyed, tokens/s": round(1 / statistics.median(d[1] for d in decoded), 1),
        f"keyed / {against}, tokens/s": _median(d[1] / d[0] for d in decoded),
        "a lesson, seconds": _median(a for a, _ in learned),
        f"a lesson / {against}, seconds": _median(a / b for a, b in learned),
    }


def _median(values: Iterable[float]) -> float:
    return round(statistics.median(values), 3)


if __name__ == "__main__":
    main()
