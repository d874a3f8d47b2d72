"""Conversations for the training of `lm2`: python -m scripts.lm2_data --text FILE .. --out DIR

In each a fact is said, then 0 to 19 other things, all of it in turns that are not read any more ("before"); then it is
asked for. A twentieth is text instead: a sentence, after the one before it. `train`, `valid` and `seen` have the same
values in conversations of their own, `test` has others: whether what was learned is to tell these values apart, or to
store whatever is said. What `seen` and `test` talk of in the meantime is not in `train` either.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path
from typing import Any

from scripts.measure_external import BETWEEN

FACTS = (  # said, asked, and of which kind the value {} is; the reply is "It is {}.": short ones are learned faster
    ("My sister's name is {}.", "What is my sister's name?", "names"),
    ("My boss is called {}.", "What is my boss called?", "names"),
    ("My dog is called {}.", "What is my dog called?", "names"),
    ("I live in {}.", "Where do I live?", "places"),
    ("I was born in {}.", "Where was I born?", "places"),
    ("My favourite word is {}.", "What is my favourite word?", "words"),
    ("The password is {}.", "What is the password?", "words"),
    ("My new book is about {}.", "What is my new book about?", "words"),
    ("I like to talk about {}.", "What do I like to talk about?", "words"),
)
VALUES = {
    kind: text.split()
    for kind, text in {
        "names": "Ada Tom Eva Max Anna Paul Rosa Leo Ruth Karl Nora Hugo Ella Ivan Mona Otto",
        "places": "Paris Rome Oslo Cairo Lima Berlin Madrid Vienna Tokyo Delhi London Dublin Boston Athens Prague Kiev",
        "words": "river winter music bread horse silver garden coffee paper window doctor summer bridge pepper castle "
        "violin",
    }.items()
}
SHARES = {"train": slice(0, 12), "valid": slice(0, 12), "seen": slice(0, 12), "test": slice(12, 16)}
SIZES = {"train": 1.0, "valid": 0.1, "seen": 0.1, "test": 0.1}  # shares of --count
TURNS = (0, 0, 0, 1, 1, 2, 4, 8, 19)  # others that were said since, at most `--turns`


def conversation(rng: random.Random, split: str, others: list[str], turns: int) -> dict[str, Any]:
    said, asked, kind = rng.choice(FACTS)
    value = rng.choice(VALUES[kind][SHARES[split]])
    since = rng.sample(others, min(rng.choice(TURNS), turns))
    return {
        "question": asked,
        "answer": f"It is {value}.",
        "before": [said.format(value), *since],
        "category": kind,
        "key": value,
    }


def passages(text: str, rng: random.Random, count: int) -> list[list[str]]:
    """Three short sentences that follow each other, so many times."""
    found = []
    for line in text.splitlines():
        said = [re.sub(r" ([,.;:?!'])", r"\1", part).strip() for part in re.split(r"(?<=[.?!])\s+", line)]
        found += [said[i : i + 3] for i in range(0, len(said) - 2, 3)]
    short = [three for three in found if all(20 < len(s) < 90 and not re.search(r"[<@=|]", s) for s in three)]
    return rng.sample(short, min(count, len(short)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, nargs="+", required=True, help="plain texts, a paragraph on each line")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--turns", type=int, default=19)
    parser.add_argument("--count", type=int, default=2000, help="conversations for training")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, text = random.Random(args.seed), "\n".join(path.read_text(encoding="utf-8") for path in args.text)
    read = passages(text, rng, args.count // 20)
    sentences = sorted({sentence for three in read for sentence in three[:2]})
    args.out.mkdir(parents=True, exist_ok=True)
    for split, share in SIZES.items():
        size = max(20, round(share * args.count))
        others = sentences if split in ("train", "valid") else list(BETWEEN)
        rows = [conversation(rng, split, others, args.turns) for _ in range(size)]
        if split == "train":
            rows += [{"question": b, "answer": c, "before": [a], "category": "text", "key": ""} for a, b, c in read]
        (args.out / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        print(f"{split}: {len(rows)}")


if __name__ == "__main__":
    main()
