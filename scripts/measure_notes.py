"""What notes can do with a reader that hears everything: python -m scripts.measure_notes --data FILE --out DIR MEMORY..

As `lmm bench use`, but what a fact's message says is kept as it is, with a crude echo. Whatever the reader's part in a
score is, this leaves it out. With --notes N instead: how long the first token of a reply takes among N notes.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from lmm.bench import report, use
from lmm.bench.use_data import StatedFact
from lmm.chat.talk import Talk
from lmm.config import Config, Decoding
from lmm.engine import runtime
from lmm.engine.engine import Engine
from lmm.engine.mind import Mind
from lmm.lesson import Lesson
from scripts.gate_data import to_you
from scripts.helps_data import blocks, from_blocks


def kept_as_said(talk: Talk, fact: StatedFact) -> Sequence[Lesson]:
    """Every message is a note; the one that teaches takes the place of those before it."""
    for message in (*fact.before, fact.teach):
        lesson = Lesson(statement=message, echo=to_you(message), subject=fact.id, relation="what was said")
        talk.mind.learn(lesson)
    return (lesson,)


ASKED = (
    "What is the capital of Australia?",
    "How do I boil an egg?",
    "Tell me about the history of tea.",
    "Why is the sky blue in the day?",
)


def first_token_seconds(mind: Mind, question: str) -> float:
    """From the message to the first token of the reply to it, in an empty conversation."""
    engine = Engine(mind, decoding=Decoding(max_tokens=1))
    start = time.perf_counter()
    engine.reply(question)
    return time.perf_counter() - start


def speed(config: Config, memory: str, count: int, rounds: int = 12) -> None:
    """The first token with no notes and with `count`, in turns; the median of each and their ratio."""
    adapter = runtime.load_adapter(config)
    times: dict[int, list[float]] = {0: [], count: []}
    minds = {}
    for size in times:
        with adapter.quiet():
            minds[size] = Mind(adapter, runtime.build_memory(dataclasses.replace(config, memory=memory)))
        minds[size].detach()
        for note in from_blocks(random.Random(0), 1 + size // len(blocks()))[:size]:
            minds[size].learn(Lesson(statement=note.note, echo=to_you(note.note)))
    for i in range(rounds * len(ASKED) + 2):
        for size, mind in minds.items():
            mind.attach()
            times[size].append(first_token_seconds(mind, ASKED[i % len(ASKED)]))
            mind.detach()
    medians = {size: statistics.median(found[2:]) for size, found in times.items()}
    print(f"first token: {medians} s, ratio {medians[count] / medians[0]:.3f}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("memory", nargs="+")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--notes", type=int)
    parser.add_argument("--model", default=Config.model)
    parser.add_argument("--threshold", type=float, help="of notes")
    options = parser.parse_args(arguments)
    config = Config(model=options.model, dtype="float32")
    if options.notes:
        speed(config, options.memory[0], options.notes)
        return
    own = {name: {_own(name, "threshold"): options.threshold} for name in options.memory if "notes" in name}
    request = use.UseRequest(
        options.data, tuple(options.memory), config, out=options.out, options=own if options.threshold else {}
    )
    result = use.run(request, teach=kept_as_said)
    print("\n".join(report.table_lines(result["rows"], use.COLUMNS, use.SHOWN)))
    for row in result["rows"]:
        print(row["memory"], {kind: f"{right}/{count}" for kind, (right, count) in row["kinds"].items()})


def _own(name: str, option: str) -> str:
    return f"notes.{option}" if "+" in name else option


if __name__ == "__main__":
    main()
