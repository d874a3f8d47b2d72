"""Exact recall of taught keys, and what it leaves alone: python -m scripts.measure_exact --memory engram --pairs 500

Teaches synthetic key -> value pairs one after another, then asks, greedily and each in an empty conversation:

    taught        every question again: exact match (case and closing punctuation aside)
    other words   two other wordings of the question, never taught
    distraction   the question after 50, 100, 200 and 400 tokens of unrelated text in the same message
    known         true facts (--known FILE, in any format of lmm bench edit): the same string as without the memory
    untaught      keys that look like taught ones and were not: the same string as without the memory

Prints a JSON line for each part as it is done. The pairs are those of lmm data exact-match, seed 0.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from lmm.bench.exact_match import TaskExample, exact_match
from lmm.config import Config
from lmm.engine.asking import ask_many
from lmm.engine.engine import Engine
from lmm.engine.runtime import open_engine
from lmm.lesson import Lesson

LENGTHS = (50, 100, 200, 400)
UNRELATED = (
    "The harbour was quiet that morning, and the fishermen had not yet come back.",
    "A heron stood at the edge of the reeds and waited without moving.",
    "Somewhere behind the hill a train went by, slowly, as it did on every weekday.",
    "The baker opened his shutters and put out the first loaves, still warm.",
    "Two children counted the boats and could not agree how many there were.",
    "By noon the wind had turned, and the flags on the pier pointed to the town.",
)


def pairs(count: int, real: bool) -> list[TaskExample]:
    """Distinct examples: synthetic ones, or true facts of every other category."""
    from lmm.bench.exact_match import REAL

    kinds = tuple(REAL) if real else ("synthetic",)
    splits = exact_match(count, seed=0, categories=kinds)
    return [x for examples in splits.values() for x in examples if not x.seen][:count]


def same(reply: str, answer: str) -> bool:
    return reply.strip(" .").casefold() == answer.strip(" .").casefold()


def share(replies: Sequence[str], examples: Sequence[TaskExample]) -> float:
    """Of the replies, those that are exactly the example's answer."""
    return float(np.mean([same(reply, x.answer) for reply, x in zip(replies, examples, strict=True)]))


def distracted(engine: Engine, question: str, length: int) -> str:
    """The question after `length` tokens of unrelated sentences, to the nearest sentence."""
    text = ""
    for i in range(length):
        if len(engine.adapter.format.encode(text)) >= length:
            break
        text += UNRELATED[i % len(UNRELATED)] + " "
    return text + question


def ask(engine: Engine, questions: Sequence[str], max_tokens: int = 24) -> list[str]:
    return [reply.text for reply in ask_many(engine.mind, questions, max_tokens)]


def show(part: str, **values: Any) -> None:
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"part": part, **rounded}), flush=True)


def teach(engine: Engine, examples: Sequence[TaskExample]) -> None:
    start, seconds = time.process_time(), []
    for i, example in enumerate(examples, 1):
        before = time.process_time()
        engine.mind.learn(Lesson(example.question, example.answer))
        seconds.append(time.process_time() - before)
        if i % 50 == 0:
            show("teaching", lessons=i, cpu_seconds=time.process_time() - start)
    size = engine.mind.memory.resident_bytes(engine.mind.knowledge.state) / len(examples)
    show("lesson", cpu_median=float(np.median(seconds)), cpu_p95=float(np.quantile(seconds, 0.95)), bytes=size)


def measure(
    engine: Engine, examples: list[TaskExample], others: list[str], untaught: list[TaskExample], sample: int
) -> None:
    alone = ask(engine, others), ask(engine, [x.question for x in untaught])
    replies = ask(engine, [x.question for x in examples])
    before = [same(reply, x.answer) for reply, x in zip(replies, examples, strict=True)]
    show("without memory", exact=float(np.mean(before)), n=len(before))
    teach(engine, examples)
    replies = ask(engine, [x.question for x in examples])
    hits = [same(r, x.answer) for r, x in zip(replies, examples, strict=True)]
    show("taught", exact=float(np.mean(hits)), n=len(hits))
    lost = [not h for h, b in zip(hits, before, strict=True) if b]
    show("right before, wrong now", n=int(sum(lost)), of=len(lost))
    for category in sorted({x.category for x in examples}):
        mine = [h for h, x in zip(hits, examples, strict=True) if x.category == category]
        show("category", name=category, exact=float(np.mean(mine)), n=len(mine))
    for reply, x, hit in zip(replies, examples, hits, strict=True):
        if not hit:
            show("missed", question=x.question, answer=x.answer, reply=reply)
    some = examples[:sample]
    for length in LENGTHS:
        found = ask(engine, [distracted(engine, x.question, length) for x in some])
        show("distraction", tokens=length, exact=share(found, some), n=len(some))
    worded = [(wording, x) for x in some for wording in x.wordings]
    found = ask(engine, [wording for wording, _ in worded])
    show("other words", exact=share(found, [x for _, x in worded]), n=len(worded))
    for part, questions, own in (("known", others, alone[0]), ("untaught", [x.question for x in untaught], alone[1])):
        if questions:
            unchanged = [a == b for a, b in zip(ask(engine, questions), own, strict=True)]
            show(part, unchanged=float(np.mean(unchanged)), n=len(questions))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", default="engram")
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--real", action="store_true", help="true facts of the other categories instead")
    parser.add_argument("--known", help="file of true facts")
    parser.add_argument(
        "--sample", type=int, default=40, help="how many are asked in other words and after distraction"
    )
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    from lmm.bench.datasets import prompts_of

    examples = pairs(args.pairs + (0 if args.real else args.sample), args.real)
    others = prompts_of(args.known) if args.known else []
    engine = open_engine(Config(memory=args.memory, dtype=args.dtype, log=False))
    measure(engine, examples[: args.pairs], others, examples[args.pairs :], args.sample)


if __name__ == "__main__":
    main()
