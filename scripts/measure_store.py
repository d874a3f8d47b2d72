"""What a store does under load: python -m scripts.measure_store speed|kills|writers|hostile [--store FILE or URL]

`speed`: seconds of a recall (with its embedding) at so many entries, and memorizing against the encoder alone.
`kills`: a writer is killed again and again; nothing it acknowledged may be missing. `writers`: two at once. `hostile`:
random requests of a client for what is not its own. Without --store, a new file. Entries are sentences about made-up
people, so that neither words nor meanings are all the same.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lmm.encoders import load_encoder
from lmm.errors import UsageError
from lmm.store.base import Memo
from lmm.store.opening import open_store
from lmm.store.personal import PersonalMemory
from scripts.measure_serve import NAMES

THINGS = [
    "car",
    "key",
    "dog",
    "book",
    "bike",
    "lamp",
    "coat",
    "phone",
    "piano",
    "garden",
    "letter",
    "ticket",
    "boat",
    "camera",
    "ring",
    "cake",
]
PLACES = [
    "Graz",
    "Linz",
    "Wels",
    "Oslo",
    "Bern",
    "Rome",
    "Lima",
    "Kyiv",
    "Turin",
    "Porto",
    "Derry",
    "Basel",
    "Ghent",
    "Malmö",
    "Cork",
    "Bari",
]
SPACE = "measured"


def sentence(number: int) -> str:
    chosen = random.Random(number)
    name, thing, place = chosen.choice(NAMES), chosen.choice(THINGS), chosen.choice(PLACES)
    return f"{name}'s {thing} number {number} is in {place}, since day {chosen.randrange(1000)}."


def speed(store: str, sizes: list[int], queries: int) -> None:
    encoder = load_encoder("minilm")
    memory = PersonalMemory(store, encoder, SPACE)
    texts = [sentence(i) for i in range(200)]
    alone = _seconds(lambda: encoder.encode(texts))
    memory.memorize("the store is described before it is timed")
    both = _seconds(lambda: memory.memorize_all(Memo(text) for text in texts))
    print(f"memorizing {len(texts) / both:.0f} texts/s, {alone / both:.2f} of what the encoder alone does")
    random_rows, held = np.random.default_rng(0), len(memory)
    centres = encoder.encode([sentence(i) for i in range(500)])
    for size in sizes:
        while held < size:
            count = min(2000, size - held)
            rows = centres[random_rows.integers(len(centres), size=count)]
            rows = rows + 0.03 * random_rows.normal(size=rows.shape).astype(np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            memory.store.add(SPACE, [Memo(sentence(held + i), vector=row) for i, row in enumerate(rows)])
            held += count
        first = _seconds(lambda: memory.recall("Where is Vera's car?"))
        asked = [f"Where is {NAMES[i % 16]}'s {THINGS[i * 7 % 16]} number {i * 37 % size}?" for i in range(queries)]
        took = np.sort([_seconds(lambda text=text: memory.recall(text)) for text in asked])  # type: ignore[misc]
        late = took[int(0.95 * len(took))]
        print(
            f"{size:>9,} entries: median {1e3 * np.median(took):.0f} ms, p95 {1e3 * late:.0f} ms, first {first:.1f} s"
        )


def kills(store: str, rounds: int) -> None:
    seen: set[str] = set()
    for number in range(rounds):
        process = _writer(store, f"round{number}", 10**9)
        assert process.stdout is not None
        seen.add(process.stdout.readline().strip())
        time.sleep(random.random() * 0.05)
        os.kill(process.pid, signal.SIGKILL)
        seen |= {line for line in process.communicate()[0].split() if len(line) == 32}
    there = {memo.id for memo in open_store(store).scan(SPACE)}
    print(f"{rounds} kills: {len(seen)} acknowledged, {len(seen - there)} of them lost")


def writers(store: str, count: int) -> None:
    both = [_writer(store, name, count) for name in ("one", "two")]
    ids = {line for process in both for line in process.communicate()[0].split()}
    there = {memo.id for memo in open_store(store).scan(SPACE)}
    print(f"two writers of {count} each: {len(ids & there)} there")


def hostile(store: str, requests: int) -> None:
    found, chosen = open_store(store), random.Random(0)
    row = np.ones(8, np.float32) / 8**0.5
    ids = [found.add(f"user{i}", [Memo(f"the secret of {i}", vector=row)])[0] for i in range(50)]
    tricks: list[Callable[[int], str]] = [str, lambda i: f"user{i} ", lambda i: f"USER{i}"]
    tricks += [lambda i: f"user{i}' OR '1'='1", lambda i: f"user{(i + 1) % 50}", lambda i: "%", lambda i: ""]
    got = 0
    for _ in range(requests):
        i = chosen.randrange(50)
        space = chosen.choice(tricks)(i)
        got += len(found.get(space, [ids[i]])) + len(found.history(space, ids[i])) + found.forget(space, [ids[i]])
        got += sum(f"of {i}" == x.memo.text[-len(f"of {i}") :] for x in found.search(space, row, f"secret {i}"))
        try:
            found.supersede(space, ids[i], Memo("mine now", vector=row))
            got += 1
        except UsageError:
            pass
    left = sum(found.count(f"user{i}") for i in range(50))
    print(f"{requests} requests for what is another's: {got} entries reached; {left} of 50 stand")


def _writer(store: str, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "scripts.measure_store", "write", "--store", store, "--name", name]
    return subprocess.Popen([*command, "--count", str(count)], stdout=subprocess.PIPE, text=True)


def write(store: str, name: str, count: int) -> None:
    """Add entries one by one, and say the id of each once it is there."""
    found = open_store(store)
    for i in range(count):
        [id] = found.add(SPACE, [Memo(f"{name} {i}", vector=np.eye(8, dtype=np.float32)[i % 8])])
        print(id, flush=True)


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", choices=("speed", "kills", "writers", "hostile", "write"))
    parser.add_argument("--store")
    parser.add_argument("--sizes", default="1000,10000,100000,1000000")
    parser.add_argument("--name", default="")
    for name, value in (("queries", 200), ("rounds", 200), ("count", 1000), ("requests", 10_000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = given.store or str(Path(folder) / "store.sqlite")
        if given.what == "speed":
            speed(store, [int(size) for size in given.sizes.split(",")], given.queries)
        elif given.what == "kills":
            kills(store, given.rounds)
        elif given.what == "writers":
            writers(store, given.count)
        elif given.what == "hostile":
            hostile(store, given.requests)
        else:
            write(store, given.name, given.count)


if __name__ == "__main__":
    main()
