"""What `external` and `lm2` bring, and what they cost: python -m scripts.measure_external WHAT [--out DIR] ...

    recall      a fact stated many turns ago, in a conversation that was trimmed since, asked for again; and replies
                that have nothing to do with it
    slots       a fact of --data (scripts/lm2_data.py), some turns later in another conversation
    perplexity  a long text read with 512 tokens of context, what was read before being stored
    search      seconds and recall@8 of the index, against exact search; tokens per second, against none stored
    files       saving and loading so many tokens
    chat        memory that --file takes up while one talks
    kill        what is in a file whose saving was killed
    plot        what `search` found, as --picture

Each writes WHAT.jsonl, a row for each measurement, into --out and prints it.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import random
import signal
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lmm.adapters.base import Adapter
from lmm.adapters.generation import Generated, stream
from lmm.adapters.ops import token_cross_entropy
from lmm.adapters.toy import ToyAdapter
from lmm.bench import exact_match
from lmm.config import Config, Decoding, parse_settings
from lmm.engine import runtime
from lmm.engine.asking import ask_many
from lmm.engine.engine import Engine
from lmm.engine.mind import Mind
from lmm.lesson import TURN, Knowledge, Lesson, State
from lmm.memory.base import Memory, Prompt, Recall, UserMessage
from lmm.memory.external.external import External
from lmm.memory.external.external import said as as_message
from lmm.memory.external.store import Store
from lmm.memory.general import centre
from lmm.memory.states import unit
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
FRESH = (  # what options were never looked at with, half of them with numbers
    ("My locker has the number 318.", "What number does my locker have?", "318"),
    ("Our cat was born in 2016.", "When was our cat born?", "2016"),
    ("I pay 640 euros of rent.", "How much rent do I pay?", "640"),
    ("My grandmother is 91 years old.", "How old is my grandmother?", "91"),
    ("The train to my parents takes 75 minutes.", "How long does the train to my parents take?", "75"),
    ("My violin teacher is called Odile.", "What is my violin teacher called?", "Odile"),
    ("I am allergic to walnuts.", "What am I allergic to?", "walnut"),
    ("My cousin moved to Ghent.", "Where did my cousin move?", "Ghent"),
    ("I left my umbrella in the library.", "Where did I leave my umbrella?", "library"),
    ("My favourite composer is Satie.", "Who is my favourite composer?", "Satie"),
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

UNRELATED_FRESH = [
    *(f"What is {a} minus {b}?" for a, b in itertools.product((50, 83, 96, 120), (6, 17, 28, 35))),
    *(f"How many {x}?" for x in ("days has a year", "hours has a week", "legs has a spider", "strings has a guitar",
      "players has a football team", "sides has a hexagon", "planets are there", "letters has the alphabet")),
    *(f"What happened in the year {x}?" for x in (1215, 1453, 1815, 1848, 1917, 1963, 1986, 2001)),
    *(f"What is {x}% of 200?" for x in (5, 12, 40, 75)),
    *(f"Is {x} an even number?" for x in (16, 23, 58, 91)),
    *(f"Name a famous {x}." for x in ("painter", "violinist", "physicist", "bridge", "castle", "novel", "opera",
      "river", "chess player", "architect")),
    *(f"What language is spoken in {x}?" for x in ("Brazil", "Austria", "Belgium", "Kenya", "Vietnam", "Iceland",
      "Israel", "Greece", "Hungary", "Finland")),
    *(f"What is the opposite of {x}?" for x in ("hot", "early", "brave", "cheap", "loud", "narrow", "ancient", "empty",
      "gentle", "sour")),
    *(f"How is {x} made?" for x in ("cheese", "paper", "steel", "chocolate", "soap", "wine", "silk", "honey", "salt",
      "cement")),
    *(f"Write a title for a story about {x}." for x in ("a lost umbrella", "a train", "a brave mouse", "two cousins",
      "an island", "a robot", "the last library", "a storm", "a violin", "a garden gate")),
    *(f"Explain {x} in one sentence." for x in ("gravity", "inflation", "photosynthesis", "an allergy", "rent",
      "democracy", "a vaccine", "the tides", "a sonata", "evolution")),
]  # fmt: skip

Fact = tuple[str, str, str]
SETS: dict[str, tuple[Sequence[Fact], Sequence[str]]] = {
    "first": (FACTS, UNRELATED),
    "fresh": (FRESH, UNRELATED_FRESH),
    "tuning": (TUNING, UNRELATED),
}


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
        own = {} if name == "identity" else config.options
        mind = Mind(adapter, runtime.build_memory(dataclasses.replace(config, memory=name, options=own)))
        if file:
            mind.load(file)
        yield memory, mind
        mind.detach()


def recall(config: Config, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    (facts, others), beside = SETS[args.facts], list[str]()
    if args.data:  # one of each question
        rows = [row for row in exact_match.read(args.data[0]) if row.category != "text"]
        facts = tuple({row.question: (row.before[0], row.question, row.key) for row in rows}.values())
        beside = [text for row in rows for text in row.before[1:]] if args.beside else []
    replies: dict[str, str] = {}
    for name, mind in minds(config, args.memories):
        if not replies:
            with mind.adapter.quiet():  # nothing is known yet
                replies = {
                    r.prompt: r.text for r in ask_many(mind, [*BETWEEN, *(said for said, _, _ in facts), *beside], 16)
                }
        engine = Engine(mind, decoding=Decoding(max_tokens=args.max_tokens))
        for text in (*(said for said, _, _ in facts), *beside):
            told(engine, text, replies[text])
        begun = len(engine.conversation.turns)
        for turns in args.turns:
            while len(engine.conversation.turns) < begun + turns:
                text = BETWEEN[(len(engine.conversation.turns) - begun) % len(BETWEEN)]
                told(engine, text, replies[text])
            engine.conversation.shorten(args.context)  # the facts are read no more
            fresh = [(q, right, _asked_after(engine, q)) for _, q, right in facts]
            hits = [contains(reply, right) for _, right, reply in fresh]
            yield {"memory": name, "facts": args.facts, "turns_ago": turns, "recalled": sum(hits), "of": len(facts),
                   "replies": [reply for _, _, reply in fresh]}  # fmt: skip
        if args.unrelated:
            yield {"memory": name, "facts": args.facts, **_changed(mind, others)}


def _changed(mind: Mind, questions: Sequence[str]) -> dict[str, Any]:
    """Which replies are others than without the memory. Where nothing is near, `external` is bitwise the model: there
    is no need to ask twice. `lm2` has no such case."""
    asked = list(questions)
    if isinstance(mind.memory, External):
        asked = [q for q in asked if mind.recall_of([Prompt(q, mind.adapter.format.prompt_tokens(q))]) is not None]
    with_memory = [reply.text for reply in ask_many(mind, asked, 16)]
    with mind.adapter.quiet():
        nothing, mind.knowledge = mind.knowledge, Knowledge({})
        without = [reply.text for reply in ask_many(mind, asked, 16)]
        mind.knowledge = nothing
    changed = [q for q, a, b in zip(asked, with_memory, without, strict=True) if a != b]
    return {"unchanged": len(questions) - len(changed), "of": len(questions), "near": len(asked), "changed": changed}


def _asked_after(engine: Engine, question: str) -> str:
    """The reply to a question after the conversation, which then goes on as if it had not been asked."""
    engine.hear(question, learn=False)
    for _ in engine.answer():
        pass
    return engine.conversation.drop_last().text


def slots(config: Config, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Facts of --data, each said to a memory as it was, then other things, then asked for where none of it is read."""
    for name, mind in minds(config, args.memories):
        for data in args.data:
            rows = [row for row in exact_match.read(data) if row.category != "text"][: args.count]
            right, begun = Counter[int](), mind.knowledge
            for row in rows:
                mind.commit(begun)
                _take_in(mind, row.before[:1])
                for before, turns in itertools.pairwise((0, *args.turns)):
                    _take_in(mind, [BETWEEN[i % len(BETWEEN)] for i in range(before, turns)])
                    [reply] = ask_many(mind, [row.question], args.max_tokens)
                    right[turns] += contains(reply.text, row.key)
            mind.commit(begun)
            yield {"memory": name, "data": data.stem, "of": len(rows), **{f"after {t}": right[t] for t in args.turns}}


def _take_in(mind: Mind, texts: Sequence[str]) -> None:
    for text in texts:
        mind.end_turn(Lesson(statement=text, source=TURN), as_message(Lesson(statement=text), mind.adapter))


STRIDE = 256  # tokens that are scored at once, after as many of context


def perplexity(config: Config, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Of --text: what is scored has at most 2 x STRIDE tokens in context, and all before these in the memory."""
    text = _text(args.text)
    for name, mind in minds(config, args.memories):
        tokens = np.array(mind.adapter.format.encode(text)[: args.tokens + 1])
        total, count = 0.0, 0
        for start in range(0, len(tokens) - 1, STRIDE):
            first, end = max(0, start - STRIDE), min(start + STRIDE, len(tokens) - 1)
            total += _loss(mind, tokens[first : end + 1], start - first)
            count += end - start
            if "turns" in mind.memory.learns_from:
                own = [False] * (start - first) + [True] * (end - start) + [False]
                message = UserMessage(tokens[first : end + 1].tolist(), own)
                mind.end_turn(Lesson(statement=f"tokens from {start}", source="turn"), message)
        yield {"memory": name, "text": args.text.name, "tokens": count, "loss": total / count,
               "perplexity": float(np.exp(total / count))}  # fmt: skip


def _text(path: Path) -> str:
    """A text file, or the first meeting of QMSum's lines, speaker by speaker."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".jsonl":
        return text
    turns = json.loads(text.splitlines()[0])["meeting_transcripts"]
    return "\n".join(f"{turn['speaker']}: {turn['content']}" for turn in turns)


def _loss(mind: Mind, tokens: np.ndarray, start: int) -> float:
    """Summed cross-entropy of the tokens after position `start`, the memory acting from there on."""
    adapter = mind.adapter
    with mind.holding(_everywhere(mind), start):
        logits, _ = adapter.forward(tokens[None, :-1], adapter.new_cache(), keep=len(tokens) - 1 - start)
    targets = adapter.ops.asarray(tokens[start + 1 :], "int64")
    return adapter.ops.item(adapter.ops.sum(token_cross_entropy(adapter.ops, logits[0], targets)))


def _everywhere(mind: Mind) -> Recall | None:
    """A recall with which `external`, alone or as a part, acts at every token; None where it has nothing yet."""
    memory = mind.memory
    parts = {part: _own(part, mind) for part in getattr(memory, "parts", (memory,))}
    if not any(parts.values()):
        return None
    return parts[memory] if memory in parts else Recall([[]], {"parts": parts})


def _own(part: Memory, mind: Mind) -> Recall | None:
    known = f"{'' if part is mind.memory else f'{part.name}:'}centre" in mind.knowledge.state
    if not isinstance(part, External) or not known:
        return None
    part.head(mind.adapter)
    return Recall([[]], {"on": mind.adapter.ops.asarray(np.ones((1, 1, 1), np.float32))})


# what it costs ----------------------------------------------------------------------------------------------------
def filled(config: Config, adapter: Adapter, count: int, text: str) -> tuple[Mind, Store]:
    """A mind of `external` with so many stored tokens: a text's states and, beyond it, these with some noise."""
    mind = Mind(adapter, runtime.build_memory(dataclasses.replace(config, memory="external")))
    memory, rng = mind.memory, np.random.default_rng(0)
    assert isinstance(memory, External)
    state = {"centre": centre(adapter, memory.sites(adapter)[0])}
    tokens = np.array(adapter.format.encode(text)[:4097])
    with adapter.quiet():
        own = np.concatenate([memory.keys(state, tokens[i : i + 257], adapter)[:256] for i in range(0, 4096, 256)])
    noise, lessons = own.std(0) / 2, []
    for number in range(count // 128):
        rows = np.arange(128) + 128 * (number % 32)
        keys = own[rows] + (number >= 32) * noise * rng.normal(size=(128, own.shape[1])).astype(np.float32)
        lesson = Lesson(statement=f"span {number}", source="turn", id=f"s{number}")
        lessons.append(lesson)
        state |= {
            f"keys/{lesson.id}": unit(keys).astype(np.float16),
            f"tokens/{lesson.id}": np.stack([tokens[rows], tokens[rows + 1]]),
            f"at/{lesson.id}": np.array([number + 1, 1, 0]),
        }
    mind.commit(Knowledge(state, tuple(lessons)))
    return mind, memory.store(state)


def search(config: Config, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Seconds of the processor for one query, how many of the exact 8 nearest are found, and decoding with the memory
    acting at every token against the same model without it, in turns; --counts tokens, or --file."""
    adapter, rng = runtime.load_adapter(config), np.random.default_rng(1)
    for count in args.counts if args.file is None else [0]:
        mind, store = (
            filled(config, adapter, count, _text(args.text)) if count else _of_file(config, adapter, args.file)
        )
        picked = rng.choice(len(store.ids), 32)
        queries = np.concatenate([store.keys(int(i))[:1] for i in picked])
        queries = unit(queries + rng.normal(size=queries.shape).astype(np.float32) / 50)
        begin = time.process_time()
        store.search(queries[:1], 8)
        store.indexed.wait()
        made = time.process_time() - begin
        exact, found = store.exact(queries, 8)[0], store.search(queries, 8)[0]
        ratios = []
        for _ in range(args.rounds):
            without, acting = (_clocks(partial(_decoded, mind, r))[1] for r in (None, _everywhere(mind)))
            ratios.append(without / acting)
        yield {"tokens": len(store), "exact_ms": _median_ms(store.exact, queries[:3]),
               "index_ms": _median_ms(store.search, queries), "index_made_s": made,
               "recall_at_8": float(np.mean(found > exact[:, -1:] - 1e-5)),  # of equals, any will do
               "speed_ratio": statistics.median(ratios), "rounds": args.rounds}  # fmt: skip
        mind.detach()


def _of_file(config: Config, adapter: Adapter, file: Path) -> tuple[Mind, Store]:
    mind = Mind(adapter, runtime.build_memory(dataclasses.replace(config, memory="external")))
    mind.load(file)
    assert isinstance(mind.memory, External)
    return mind, mind.memory.store(mind.knowledge.state)


def _median_ms(find: Callable[[np.ndarray, int], object], queries: np.ndarray) -> float:
    return 1e3 * statistics.median(_clocks(partial(find, query[None], 8))[1] for query in queries)


def _decoded(mind: Mind, recall: Recall | None) -> Generated:
    tokens, out = mind.adapter.format.prompt_tokens("Tell me about the history of tea."), Generated()
    with mind.holding(recall, len(tokens) - 1):
        list(stream(mind.adapter, tokens, mind.adapter.new_cache(), Decoding(max_tokens=24), out, lambda: False))
    return out


def files(config: Config, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Saving, loading, and what then lies on the disk."""
    adapter = runtime.load_adapter(config)
    for count in args.counts:
        mind, store = filled(config, adapter, count, _text(args.text))
        store.search(store.keys(0)[:1], 8)
        store.indexed.wait()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(args.keep or folder) / f"{count}.safetensors"
            saved = _clocks(partial(mind.save, file))
            again = Mind(adapter, runtime.build_memory(dataclasses.replace(config, memory="external")))
            loaded = _clocks(partial(again.load, file))
            size = sum(path.stat().st_size for path in file.parent.glob(f"{file.name}*"))
            mind.detach()
            theirs = _decoded(again, _everywhere(again)).tokens
            again.detach()
            mind.attach()
            ours = _decoded(mind, _everywhere(mind)).tokens
            same = _equal(mind.knowledge.state, again.knowledge.state) and ours == theirs
        yield {"tokens": count, "save_s": saved, "load_s": loaded, "bytes": size, "same": same}
        mind.detach()


def _clocks(work: Callable[[], object]) -> list[float]:
    """Seconds by the clock on the wall, and of the processor: other work of the machine is in the first alone."""
    begin, own = time.perf_counter(), time.process_time()
    work()
    return [time.perf_counter() - begin, time.process_time() - own]


def _equal(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def chat(config: Config, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Bytes in memory with --file of `external`: with the model alone, with the file, and while it is talked."""
    adapter = runtime.load_adapter(config)
    mind = Mind(adapter, runtime.build_memory(dataclasses.replace(config, memory="external")))
    assert isinstance(mind.memory, External)
    mind.memory.head(adapter)
    _decoded(mind, None)
    alone = _resident()
    begin = time.perf_counter()
    mind.load(args.file)
    loaded, seconds = _resident(), time.perf_counter() - begin
    engine, most = Engine(mind, decoding=Decoding(max_tokens=args.max_tokens)), loaded
    for question in UNRELATED[:: len(UNRELATED) // 10]:
        engine.hear(question)
        with mind.holding(_everywhere(mind), len(engine.conversation.tokens)):
            for _ in engine.answer():
                most = max(most, _resident())
    yield {"lessons": len(mind.lessons), "load_s": seconds, "model": alone, "loaded": loaded - alone,
           "talking": most - alone}  # fmt: skip
    mind.detach()


def _resident() -> int:
    """Bytes of this process in memory, those of mapped files among them."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def kill(config: Config, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """kill -9 at --rounds random moments of saving one state over another: which of them is in the file then."""
    adapter, rng, found = ToyAdapter(), random.Random(0), Counter[str]()
    text = "It was the best of times, it was the worst of times. " * 100
    minds = []
    for count in (args.counts[0], args.counts[0] + 1280):
        mind, store = filled(config, adapter, count, text)
        store.search(store.keys(0)[:1], 8)
        store.indexed.wait()
        minds.append(mind)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "m.safetensors"
        for mind in minds:
            begin = time.perf_counter()
            mind.save(file)
            took = time.perf_counter() - begin
        for number in range(args.rounds):
            child = os.fork()
            if not child:
                minds[number % 2].save(file)
                os._exit(0)
            time.sleep(rng.uniform(0, 1.2 * took))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            again = Mind(adapter, runtime.build_memory(dataclasses.replace(config, memory="external")))
            again.load(file)
            whose = [_equal(mind.knowledge.state, again.knowledge.state) for mind in minds]
            assert isinstance(again.memory, External)
            indexed = again.memory.store(again.knowledge.state).indexed.index is not None
            found[("new" if whose[number % 2] else "old" if any(whose) else "mixed") + ", index" * indexed] += 1
            again.detach()
    yield {"tokens": args.counts[0], "save_s": took, "kills": args.rounds, **found}


def draw(folder: Path, picture: Path) -> None:
    """What `search` found, as lines over the tokens that are stored."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    files = sorted(folder.glob("search*.jsonl"))
    found = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    found.sort(key=lambda row: row["tokens"])
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    tokens = [row["tokens"] for row in found]
    left.loglog(tokens, [row["exact_ms"] for row in found], "o-", label="all compared")
    left.loglog(tokens, [row["index_ms"] for row in found], "o-", label="index")
    left.set(xlabel="tokens stored", ylabel="one search, ms")
    right.semilogx(tokens, [row["recall_at_8"] for row in found], "o-", label="recall@8")
    right.semilogx(tokens, [row["speed_ratio"] for row in found], "o-", label="tokens/s, with / without")
    right.set(xlabel="tokens stored", ylim=(0, 1.1))
    for axes in (left, right):
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=110)


MEASURES = {one.__name__: one for one in (recall, slots, perplexity, search, files, chat, kill)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*MEASURES, "plot"])
    parser.add_argument("--memories", nargs="+", default=["identity", "external"])
    parser.add_argument("--model", default=Config.model)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--set", nargs="*", default=[], help="options of the memory, name=value")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--turns", type=int, nargs="+", default=[1, 5, 20], help="recall: turns since the facts")
    parser.add_argument("--context", type=int, default=200, help="recall: tokens of the conversation that are kept")
    parser.add_argument("--text", type=Path, help="all but recall: a text, or QMSum's lines")
    parser.add_argument("--tokens", type=int, default=12_000, help="perplexity: of the text, at most")
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000], help="tokens that are stored")
    parser.add_argument("--rounds", type=int, default=3, help="search: with and without, in turns; kill: times")
    parser.add_argument("--keep", type=Path, help="files: a folder where they stay")
    parser.add_argument("--file", type=Path, help="chat, search: one of them")
    parser.add_argument("--max-tokens", type=int, default=24)
    parser.add_argument(
        "--facts", choices=SETS, default="first", help="recall: `tuning` are those options were chosen on"
    )
    parser.add_argument("--unrelated", action="store_true", help="recall: also replies that are none of its business")
    parser.add_argument("--data", type=Path, nargs="+", help="slots: conversations of scripts.lm2_data; recall: facts")
    parser.add_argument("--beside", action="store_true", help="recall: --data's lines say more after the fact; say it")
    parser.add_argument("--count", type=int, default=20, help="slots: of each file, at most")
    parser.add_argument("--picture", type=Path, help="plot: the file that is drawn, of what is in --out")
    args = parser.parse_args()
    if args.what == "plot":
        draw(args.out, args.picture)
        return
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
