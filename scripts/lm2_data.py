"""Conversations for the training of `lm2`: python -m scripts.lm2_data --text FILE .. --out DIR

In each a fact is said, then 0 to 19 other things, all of it in turns that are not read any more ("before"); then it is
asked for. A twentieth is text instead: a sentence, after the one before it. Values are words of the text that are one
token. `train`, `valid`, `seen` have the same values, the last two in facts that are not in `train` ("My dog is called
Vera." where only a boss was called so); `test` has others: whether what was learned is to tell these values apart, or
to store whatever is said. What `seen` and `test` talk of in the meantime is not in `train` either.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from lmm.config import Config
from lmm.engine import runtime
from scripts.measure_external import BETWEEN

FACTS = (  # said, asked, and of which kind the value {} is; the reply is "It's {}.": short ones are learned faster
    ("My sister's name is {}.", "What is my sister's name?", "names"),
    ("My brother's name is {}.", "What is my brother's name?", "names"),
    ("My boss is called {}.", "What is my boss called?", "names"),
    ("My dog is called {}.", "What is my dog called?", "names"),
    ("The name of my cat is {}.", "What is the name of my cat?", "names"),
    ("My neighbour is called {}.", "What is my neighbour called?", "names"),
    ("My teacher is called {}.", "What is my teacher called?", "names"),
    ("I live in {}.", "Where do I live?", "names"),
    ("I was born in {}.", "Where was I born?", "names"),
    ("My favourite city is {}.", "What is my favourite city?", "names"),
    ("My car is a {}.", "What car do I have?", "names"),
    ("My favourite word is {}.", "What is my favourite word?", "words"),
    ("The password is {}.", "What is the password?", "words"),
    ("My new book is about {}.", "What is my new book about?", "words"),
    ("I like to talk about {}.", "What do I like to talk about?", "words"),
    ("My daughter studies {}.", "What does my daughter study?", "words"),
)
OTHERS = (  # what else is said, of a name or a word
    ("My parents come from {}.", "names"),
    ("I work for {}.", "names"),
    ("My wedding was in {}.", "names"),
    ("The name of my best friend is {}.", "names"),
    ("I collect {}.", "words"),
    ("I am allergic to {}.", "words"),
    ("My favourite food is {}.", "words"),
    *((text, kind) for kind in ("names", "words") for text in (
        "Tell me about {}.", "What is {}?", "How do I make {}?", "Why do people like {}?", "Who was {}?",
        "Explain {} to me.", "I was thinking of {} today.", "Give me an idea about {}.", "Where can I find {}?",
        "Do you know {}?", "How old is {}?", "I read about {} last night.",
    )),
)  # fmt: skip
WORDS = 600  # of each kind, a sixth of them for `test`
LEAST = 60  # of each: fewer leave nothing to tell apart
FUNCTION = 500  # the most frequent words are left out: "than" and the like
SIZES = {"train": 1.0, "valid": 0.05, "seen": 0.05, "test": 0.05}  # shares of --count
TURNS = (0, 0, 0, 1, 1, 2, 4, 8, 19)  # others that were said since, at most `--turns`

Values = dict[str, list[str]]


def common_words(text: str, single: Callable[[str], bool]) -> Values:
    """The most frequent names (seldom in small letters) and other words of a text that are `single`."""
    counts = Counter(re.findall(r"(?<=[a-z,.] )[A-Za-z][a-z]{2,}", text))
    names = (w for w, n in counts.most_common() if w[0].isupper() and n > counts[w.lower()] and single(w))
    words = (w for w, n in counts.most_common()[FUNCTION:] if w.islower() and n >= 20 and single(w))
    return {"names": list(islice(names, WORDS)), "words": list(islice(words, WORDS))}


def facts_of(values: Values, rng: random.Random) -> dict[str, list[tuple[str, str, str, str]]]:
    """For each split what may be said: the statement, its question, the kind, the value."""
    found: dict[str, list[tuple[str, str, str, str]]] = {split: [] for split in SIZES}
    known = {kind: words[: -len(words) // 6] for kind, words in values.items()}
    for said, asked, kind in FACTS:
        own = rng.sample(known[kind], len(known[kind]))
        parts = {"train": own[20:], "valid": own[:10], "seen": own[10:20], "test": values[kind][len(own) :]}
        for split, words in parts.items():
            found[split] += [(said.format(word), asked, kind, word) for word in words]
    return found


def conversation(rng: random.Random, fact: tuple[str, str, str, str], others: list[str], turns: int) -> dict[str, Any]:
    said, asked, kind, value = fact
    since = rng.sample(others, min(rng.choice(TURNS), turns))
    return {
        "question": asked,
        "answer": f"It's {value}.",
        "before": [said, *since],
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
    parser.add_argument("--model", default=Config.model, help="whose tokens count")
    parser.add_argument("--turns", type=int, default=19)
    parser.add_argument("--count", type=int, default=3200, help="conversations for training")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, text = random.Random(args.seed), "\n".join(path.read_text(encoding="utf-8") for path in args.text)
    encode = runtime.load_adapter(Config(model=args.model)).format.encode
    values = common_words(text, lambda word: len(encode(f" {word}")) == 1)
    if few := {kind: len(words) for kind, words in values.items() if len(words) < LEAST}:
        parser.error(f"frequent words of one token: {few}, and {LEAST} are needed of each kind; give more --text")
    facts, read = facts_of(values, rng), passages(text, rng, args.count // 20)
    spoken = [said.format(rng.choice(values[kind])) for said, kind in OTHERS for _ in range(args.count // 160)]
    sentences = sorted({*spoken, *(sentence for three in read for sentence in three[:2])})
    args.out.mkdir(parents=True, exist_ok=True)
    for split, share in SIZES.items():
        size = max(20, round(share * args.count))
        others = sentences if split in ("train", "valid") else list(BETWEEN)
        said = rng.sample(facts[split], min(size, len(facts[split])))
        rows = [conversation(rng, fact, others, args.turns) for fact in said]
        if split == "train":
            rows += [{"question": b, "answer": c, "before": [a], "category": "text", "key": ""} for a, b, c in read]
        (args.out / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        print(f"{split}: {len(rows)}")


if __name__ == "__main__":
    main()
