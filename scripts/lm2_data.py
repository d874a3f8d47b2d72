"""Conversations for the training of `lm2`: python -m scripts.lm2_data --text FILE .. --out DIR

In each a fact is said, then 0 to 20 other things, all of it in turns that are not read any more ("before"); then it is
asked for. A twentieth is text instead: a sentence, after the two before it. What can be said are words of the text;
`train`, `valid` and `test` share none, so what is learned is to store, not which words there are. `seen` has new
conversations with `train`'s words. What `valid` and `test` talk of in the meantime is not in `train` either.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

from scripts.measure_external import BETWEEN

FACTS = (  # said, asked, and of which kind the value {} is; the reply is "It is {}.": short ones are learned faster
    ("My sister's name is {}.", "What is my sister's name?", "names"),
    ("My boss is called {}.", "What is my boss called?", "names"),
    ("My dog is called {}.", "What is my dog called?", "names"),
    ("I live in {}.", "Where do I live?", "names"),
    ("I was born in {}.", "Where was I born?", "names"),
    ("My favourite word is {}.", "What is my favourite word?", "words"),
    ("The password is {}.", "What is the password?", "words"),
    ("My new book is about {}.", "What is my new book about?", "words"),
    ("I like to talk about {}.", "What do I like to talk about?", "words"),
)
KINDS = {"names": r"(?<=[a-z] )[A-Z][a-z]{2,8}\b(?=[ ,])", "words": r"(?<= )[a-z]{4,9}\b(?=[ ,])"}
OFTEN = 20  # times that a word is in the text
SHARES = {"train": (0.0, 0.9), "valid": (0.9, 0.95), "test": (0.95, 1.0), "seen": (0.0, 0.9)}
SIZES = {"train": 1.0, "valid": 0.03, "test": 0.03, "seen": 0.03}  # shares of --count
TURNS = (0, 0, 0, 0, 1, 1, 2, 4, 8, 19)  # others that were said since, at most `--turns`


def values_of(text: str) -> dict[str, list[str]]:
    """Words of each kind, in an order that says nothing."""
    found = {}
    for kind, pattern in KINDS.items():
        words = sorted(word for word, count in Counter(re.findall(pattern, text)).items() if count >= OFTEN)
        random.Random(0).shuffle(words)
        found[kind] = words
    return found


def conversation(
    rng: random.Random, values: dict[str, list[str]], split: str, others: list[str], turns: int
) -> dict[str, Any]:
    said, asked, kind = rng.choice(FACTS)
    first, end = (round(share * len(values[kind])) for share in SHARES[split])
    value = rng.choice(values[kind][first:end])
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
    values, read = values_of(text), passages(text, rng, args.count // 20)
    sentences = sorted({sentence for three in read for sentence in three[:2]})
    args.out.mkdir(parents=True, exist_ok=True)
    for split, share in SIZES.items():
        size = max(20, round(share * args.count))
        others = sentences if split in ("train", "seen") else list(BETWEEN)
        rows = [conversation(rng, values, split, others, args.turns) for _ in range(size)]
        if split == "train":
            rows += [{"question": b, "answer": c, "before": [a], "category": "text", "key": ""} for a, b, c in read]
        (args.out / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        print(f"{split}: {len(rows)}")
    print(", ".join(f"{kind}: {len(words)}" for kind, words in values.items()))


if __name__ == "__main__":
    main()
