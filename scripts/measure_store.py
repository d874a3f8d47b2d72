"""What a store does under load: python -m scripts.measure_store speed|kills|writers|hostile [--store FILE or URL]

`speed`: seconds of a recall (with its embedding) at so many entries, and memorizing against the encoder alone.
`kills`: a writer is killed again and again; nothing it acknowledged may be missing. `writers`: two at once. `hostile`:
random requests of a client for what is not its own. Without --store, a new file. Entries are sentences about made-up
people, so that neither words nor meanings are all the same; beyond the first 1,000 their vectors are made up, too: each
is near one of 500 that the encoder made. With --users they are of so many users in turn, of whom one asks. A PostgreSQL
server gets them by COPY, and makes its index of vectors afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from lmm.encoders import load_encoder
from lmm.errors import UsageError
from lmm.store.base import Memo, TextStore
from lmm.store.opening import POSTGRES, open_store
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
TIMED = 1000  # texts that are memorized one after the other, with vectors of their own
BULK = 2000  # entries that are added together


def sentence(number: int) -> str:
    chosen = random.Random(number)
    name, thing, place = chosen.choice(NAMES), chosen.choice(THINGS), chosen.choice(PLACES)
    return f"{name}'s {thing} number {number} is in {place}, since day {chosen.randrange(1000)}."


def speed(store: str, sizes: list[int], queries: int, users: int) -> None:
    encoder = load_encoder("minilm")
    memory = PersonalMemory(store, encoder, SPACE)
    memory.memorize("the store is described before it is timed")
    alone = both = 0.0
    for start in range(0, TIMED, TIMED // 5):  # in turn: a machine is not the same all the time
        texts = [sentence(start + i) for i in range(TIMED // 5)]
        alone += _seconds(partial(encoder.encode, texts))
        both += _seconds(partial(memory.memorize_all, map(Memo, texts)))
    print(f"memorizing {TIMED / both:.0f} texts/s, {alone / both:.2f} of what the encoder alone does")
    held = sum(memory.store.count(space) for space in memory.store.namespaces())
    centres = encoder.encode([sentence(i) for i in range(500)])
    for size in sizes:
        _fill(store, memory.store, centres, held, size, users)
        memory.store.close()
        memory = PersonalMemory(store, encoder, SPACE)
        held = max(held, size)
        print(f"{held:>9,} entries: {_recalls(memory, held, queries)}", flush=True)


def _recalls(memory: PersonalMemory, held: int, queries: int) -> str:
    first = _seconds(lambda: memory.recall("Where is Vera's car?"))
    asked = [f"Where is {NAMES[i % 16]}'s {THINGS[i * 7 % 16]} number {i * 37 % held}?" for i in range(queries)]
    took, own = np.array([_timed(lambda text=text: memory.recall(text)) for text in asked]).T  # type: ignore[misc]
    told = ", ".join(f"{name} {1e3 * np.quantile(took, q):.0f} ms" for name, q in (("median", 0.5), ("p95", 0.95)))
    return f"{told} ({1e3 * np.quantile(own, 0.95):.0f} ms of this process's processor time), first {first:.1f} s"


def _fill(store: str, opened: TextStore, centres: np.ndarray, held: int, size: int, users: int) -> None:
    """Entries up to a size, in turn of each user."""
    spaces = [SPACE, *(f"user{i}" for i in range(1, users))]
    add: Callable[[str, Sequence[Memo]], object] = opened.add
    with contextlib.ExitStack() as stack:
        if store.startswith(POSTGRES) and size - held > BULK:
            add = stack.enter_context(_bulk(store))
        for start in range(held, size, BULK):
            random_rows = np.random.default_rng(start)
            rows = centres[random_rows.integers(len(centres), size=min(BULK, size - start))]
            rows = rows + 0.03 * random_rows.normal(size=rows.shape).astype(np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            memos = [Memo(sentence(start + i), vector=row) for i, row in enumerate(rows)]
            for i, space in enumerate(spaces):
                add(space, memos[i :: len(spaces)])


@contextlib.contextmanager
def _bulk(url: str) -> Iterator[Callable[[str, Sequence[Memo]], object]]:
    """As `add` of a PostgreSQL store, without looking for what is there."""
    import psycopg
    from psycopg.types.json import Json

    from lmm.store.postgres import word_places

    columns = "space, id, key, text, context, metadata, about, time, replaces, replaced_by, said, vector"
    with psycopg.connect(url) as connection:
        [[index]] = connection.execute("SELECT indexdef FROM pg_indexes WHERE indexname = 'lmm_memo_vectors'")
        connection.execute("DROP INDEX lmm_memo_vectors")

        def add(space: str, memos: Sequence[Memo]) -> None:
            with connection.cursor().copy(f"COPY lmm_memos ({columns}) FROM STDIN") as copy:
                for x in memos:
                    vector = str(x.vector.tolist()) if x.vector is not None else None
                    said = word_places(x.text)
                    copy.write_row((space, x.id, x.key, x.text, "", Json({}), "", x.time, "", "", said, vector))

        yield add
        begun = time.perf_counter()
        connection.execute("SET maintenance_work_mem = '3GB'")
        connection.execute(index)
        print(f"the index of vectors is made in {time.perf_counter() - begun:.0f} s", flush=True)
        connection.commit()
        connection.autocommit = True
        connection.execute("VACUUM ANALYZE lmm_memos")


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


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of the processor."""
    begun, own = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begun, time.process_time() - own


def _seconds(work: Callable[[], object]) -> float:
    return _timed(work)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", choices=("speed", "kills", "writers", "hostile", "write"))
    parser.add_argument("--store")
    parser.add_argument("--sizes", default="1000,10000,100000,1000000")
    parser.add_argument("--name", default="")
    for name, value in (("queries", 200), ("users", 1), ("rounds", 200), ("count", 1000), ("requests", 10_000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = given.store or str(Path(folder) / "store.sqlite")
        if given.what == "speed":
            speed(store, [int(size) for size in given.sizes.split(",")], given.queries, given.users)
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
