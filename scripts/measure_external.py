"""What `external` and `lm2` bring, and what they cost: python -m scripts.measure_external WHAT [--out DIR] ...

    recall      a fact stated many turns ago, in a conversation that was trimmed since, asked for again; and replies
                that have nothing to do with it
    perplexity  a long text read with 512 tokens of context, what was read before being stored
    search      seconds and recall@8 of the index, against exact search
    speed       tokens per second with so many tokens stored, against none
    files       saving and loading so many tokens

Each writes WHAT.jsonl, a row for each measurement, into --out and prints it.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmm.config import Config, Decoding
from lmm.engine import runtime
from lmm.engine.asking import ask_many
from lmm.engine.engine import Engine
from lmm.engine.mind import Mind
from lmm.text.fold import contains

FACTS = (  # said, asked, and what a right reply has in it; the thresholds were chosen on others (TUNING)
    ("My neighbour's name is Kasimir.", "What is my neighbour's name?", "Kasimir"),
    ("I keep my bicycle in Lund.", "Where do I keep my bicycle?", "Lund"),
    ("My parrot is called Biscuit.", "What is my parrot called?", "Biscuit"),
    ("My shoe size is 43.", "What is my shoe size?", "43"),
    ("My daughter studies geology.", "What does my daughter study?", "geology"),
    ("The alarm code of the shed is 5512.", "What is the alarm code of the shed?", "5512"),
    ("My grandfather was a baker.", "What was my grandfather?", "baker"),
    ("My dentist is Doctor Okafor.", "Who is my dentist?", "Okafor"),
    ("My flight leaves from gate B17.", "Which gate does my flight leave from?", "B17"),
    ("Our wedding was in Porto.", "Where was our wedding?", "Porto"),
)
TUNING = (
    ("My sister's name is Zorbina.", "What is my sister's name?", "Zorbina"),
    ("I live in Tromso.", "Where do I live?", "Tromso"),
    ("My dog is called Quark.", "What is my dog called?", "Quark"),
    ("My favourite colour is teal.", "What is my favourite colour?", "teal"),
    ("I work as a plumber.", "What do I work as?", "plumber"),
    ("My car is a Volvo.", "What car do I have?", "Volvo"),
    ("My brother was born in 1987.", "When was my brother born?", "1987"),
    ("The password of the wifi is banana.", "What is the password of the wifi?", "banana"),
    ("My boss is named Ivan.", "What is the name of my boss?", "Ivan"),
    ("I was born in Lima.", "Where was I born?", "Lima"),
)
BETWEEN = (  # what is talked about in the meantime
    "Tell me about the history of tea.", "How do I boil an egg?", "Why is the sky blue?", "What is a prime number?",
    "I slept badly last night.", "Give me an idea for dinner.", "How far away is the moon?", "Who wrote Hamlet?",
    "It rains a lot here in autumn.", "What is the largest ocean?", "Explain how a bicycle stays upright.",
    "What does a beaver eat?", "I want to read more this year.", "How many bones has a hand?", "What is jazz?",
    "Name three rivers in Europe.", "My back hurts after gardening.", "How is glass made?", "What is a sonnet?",
    "When was the telephone invented?", "The bus was late again today.", "How do bees make honey?",
    "What is the speed of light?", "Say something nice about Mondays.",
)  # fmt: skip
UNRELATED = [
    *(f"What is the capital of {x}?" for x in ("France", "Japan", "Kenya", "Peru", "Norway", "Egypt", "India", "Cuba",
      "Chile", "Spain", "Italy", "Ghana", "China", "Iran", "Mali", "Nepal", "Oman", "Qatar", "Sudan", "Togo")),
    *(f"What is {a} plus {b}?" for a, b in itertools.product((3, 8, 12, 25), (4, 7, 19, 30, 41))),
    *(f"Who wrote {x}?" for x in ("Hamlet", "Faust", "Emma", "Ulysses", "Dracula", "Walden", "Candide", "Medea",
      "The Trial", "Don Quixote", "War and Peace", "Moby-Dick", "The Odyssey", "Middlemarch", "Les Miserables",
      "Jane Eyre", "The Iliad", "Frankenstein", "Lolita", "Macbeth")),
    *(f"What does the word {x} mean?" for x in ("brisk", "arid", "candid", "dusk", "ember", "frugal", "gaunt", "haste",
      "idle", "jovial", "keen", "lucid", "meek", "novel", "opaque", "prone", "quaint", "rural", "shrewd", "timid")),
    *(f"Write one sentence about {x}." for x in ("the sea", "snow", "a mountain", "bread", "music", "winter", "a river",
      "the moon", "trains", "gardens", "clouds", "books", "fire", "spring", "chess", "maps", "a lighthouse", "rain",
      "coffee", "stars")),
]  # fmt: skip


def told(engine: Engine, text: str, reply: str) -> None:
    """A turn with a reply that was given before: what is measured is what was said."""
    engine.hear(text)
    turn = engine.conversation.turns[-1]
    tokens = engine.adapter.format.answer_tokens("", reply)
    _, engine.cache = engine.adapter.forward(
        np.array([engine.conversation.tokens[engine.cache.length :]]), engine.cache
    )
    engine.conversation.replied(reply, tokens)
    engine.end_turn(turn)


def minds(config: Config, memories: Sequence[str]) -> Iterator[tuple[str, Mind]]:
    """One after the other in one model: NAME, or NAME=FILE to start from a file."""
    adapter = runtime.load_adapter(config)
    for memory in memories:
        name, _, file = memory.partition("=")
        mind = Mind(adapter, runtime.build_memory(dataclasses.replace(config, memory=name)))
        if file:
            mind.load(file)
        yield memory, mind
        mind.detach()


def recall(config: Config, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    facts = TUNING if args.tuning else FACTS
    replies: dict[str, str] = {}
    without: list[str] = []
    for name, mind in minds(config, args.memories):
        if not replies:
            texts = [*BETWEEN, *(said for said, _, _ in facts)]
            with mind.adapter.quiet():  # nothing is known yet
                replies = {r.prompt: r.text for r in ask_many(mind, texts, 16)}
                without = [r.text for r in ask_many(mind, UNRELATED, 16)] if args.unrelated else []
        engine = Engine(mind, decoding=Decoding(max_tokens=args.max_tokens))
        for said, _, _ in facts:
            told(engine, said, replies[said])
        for turns in args.turns:
            while len(engine.conversation.turns) < len(facts) + turns:
                text = BETWEEN[(len(engine.conversation.turns) - len(facts)) % len(BETWEEN)]
                told(engine, text, replies[text])
            engine.conversation.shorten(args.context)  # the facts are read no more
            fresh = [(q, right, _asked_after(engine, q)) for _, q, right in facts]
            hits = [contains(reply, right) for _, right, reply in fresh]
            yield {"memory": name, "turns_ago": turns, "recalled": sum(hits), "of": len(facts),
                   "replies": [reply for _, _, reply in fresh]}  # fmt: skip
        if args.unrelated:
            with_memory = [reply.text for reply in ask_many(mind, UNRELATED, 16)]
            changed = [q for q, a, b in zip(UNRELATED, with_memory, without, strict=True) if a != b]
            yield {"memory": name, "unchanged": len(UNRELATED) - len(changed), "of": len(UNRELATED), "changed": changed}


def _asked_after(engine: Engine, question: str) -> str:
    """The reply to a question after the conversation, which then goes on as if it had not been asked."""
    engine.hear(question, learn=False)
    for _ in engine.answer():
        pass
    return engine.conversation.drop_last().text


MEASURES = {"recall": recall}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=MEASURES)
    parser.add_argument("--memories", nargs="+", default=["identity", "external"])
    parser.add_argument("--model", default=Config.model)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--set", nargs="*", default=[], help="options of the memory, name=value")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--turns", type=int, nargs="+", default=[1, 5, 20], help="recall: turns since the facts")
    parser.add_argument("--context", type=int, default=200, help="recall: tokens of the conversation that are kept")
    parser.add_argument("--max-tokens", type=int, default=24)
    parser.add_argument("--tuning", action="store_true", help="recall: the facts that options were chosen on")
    parser.add_argument("--unrelated", action="store_true", help="recall: also replies that are none of its business")
    args = parser.parse_args()
    from lmm.config import parse_settings

    config = Config(model=args.model, dtype=args.dtype, threads=1, options=parse_settings(args.set))
    rows = []
    for row in MEASURES[args.what](config, args):
        rows.append(row)
        print(json.dumps(row), flush=True)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / f"{args.what}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
