"""Conversations for the training of `lm2`: python -m scripts.lm2_data --text DIR --out DIR

In each a fact is said, then up to `--turns` other things, all of it in turns that are not read any more ("before");
then it is asked for. A fifth is text instead: a sentence, after the two before it. `train`, `valid` and `test` share no
value, so what is learned is to store, not which values there are; `seen` has new conversations with `train`'s values.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

from scripts.measure_external import BETWEEN

FACTS = (  # said, asked, and the reply; {} is the value
    ("My sister's name is {}.", "What is my sister's name?", "Your sister's name is {}.", "names"),
    ("My boss is called {}.", "What is my boss called?", "Your boss is called {}.", "names"),
    ("I live in {}.", "Where do I live?", "You live in {}.", "places"),
    ("I was born in {}.", "Where was I born?", "You were born in {}.", "places"),
    ("I work as a {}.", "What do I work as?", "You work as a {}.", "jobs"),
    ("My favourite colour is {}.", "What is my favourite colour?", "Your favourite colour is {}.", "colours"),
)
VALUES = {
    kind: text.split()
    for kind, text in {
        "names": "Ada Tom Eva Max Anna Paul Rosa Leo Ruth Karl Nora Hugo Ella Ivan Mona Otto",
        "places": "Paris Rome Oslo Cairo Lima Berlin Madrid Vienna Tokyo Delhi London Dublin Boston Athens Prague Kiev",
        "jobs": "baker teacher nurse lawyer farmer pilot writer singer doctor driver painter tailor cook judge miner "
        "waiter",
        "colours": "red green blue yellow orange purple brown pink black white grey gold silver violet turquoise beige",
    }.items()
}
SHARES = {"train": slice(0, 12), "valid": slice(12, 14), "test": slice(14, 16), "seen": slice(0, 12)}
SIZES = {"train": 1.0, "valid": 0.1, "test": 0.1, "seen": 0.1}  # shares of --count


def conversation(rng: random.Random, split: str, turns: int) -> dict[str, Any]:
    said, asked, reply, kind = rng.choice(FACTS)
    value = rng.choice(VALUES[kind][SHARES[split]])
    others = rng.sample(BETWEEN, rng.randint(0, turns))
    return {
        "question": asked,
        "answer": reply.format(value),
        "before": [said.format(value), *others],
        "category": kind,
        "key": value,
    }


def texts(path: Path, rng: random.Random, count: int) -> list[dict[str, Any]]:
    """Sentences after those before them."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if len(line) > 200]
    found: list[dict[str, Any]] = []
    while len(found) < count:
        sentences = rng.choice(lines).replace(" , ", ", ").split(" . ")[:4]
        if len(sentences) == 4 and all(20 < len(s) < 160 for s in sentences):
            first, second, asked, answer = sentences
            made = {"question": asked + ".", "answer": answer + ".", "before": [first + ".", second + "."]}
            found.append(made | {"category": "text", "key": ""})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="a plain text, a paragraph on each line")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--count", type=int, default=600, help="conversations for training")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    for split, share in SIZES.items():
        size = max(20, round(share * args.count))
        rows = [conversation(rng, split, args.turns) for _ in range(size)]
        rows += texts(args.text, rng, size // 5) if split in ("train", "valid") else []
        (args.out / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        print(f"{split}: {len(rows)}")


if __name__ == "__main__":
    main()
