"""Files from strangers, made of good ones by a fuzzer that keeps what reaches new code (atheris, libFuzzer).

Run as a program it is the fuzzer of one kind of file, in a process that imports lmm instrumented; `fuzzed` runs one for
each kind, then has files of many megabytes read.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import itertools
import json
import os
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

STRANGE = [0, 1, -1, 2**31, 2**63, 10**400, 1e300, "", "x" * 5000, "\x1b[2J", None, True, [], {}, [[]], {"a": 1}]
MB = 1_000_000
SLOW_S, SPARE_MB = 2.0, 300  # for reading a file, and beside three times the file


def fuzzed(count: int, large_mb: int = 20) -> tuple[str, str, str]:
    """Files that were good, with bytes or values changed, as every reader of them gets them."""
    if importlib.util.find_spec("atheris") is None:
        raise SystemExit("the fuzzer is missing: pip install -e '.[campaign]'")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seeds = _seeds(folder)
        runs = -(-count // len(KINDS))
        found = [_figures(folder, kind, "fuzz", seeds[KINDS[kind][0]], runs) for kind in KINDS]
        large = [_figures(folder, kind, "large", seeds[KINDS[kind][0]], large_mb) for kind in KINDS]
    both = [*found, *large]
    return (
        f"{runs * len(KINDS)} memories, journals, logs, sessions, histories and configurations by a coverage-guided "
        f"fuzzer, and {sum(one['runs'] for one in large)} of up to {large_mb} MB: crashes / reads of more than 2 s / "
        "kinds that take more than 3 x the file + 300 MB",
        "0 / 0 / 0",
        f"{sum(one['crashes'] for one in both)} / {sum(one['slow'] for one in both)} / "
        f"{sum(one['above_mb'] > SPARE_MB for one in both)}",
    )


def _figures(folder: Path, kind: str, how: str, seed: Path, count: int) -> dict[str, Any]:
    """What a process of its own found."""
    result, corpus = folder / "result", folder / f"corpus of {kind}"
    result.unlink(missing_ok=True)
    corpus.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "campaign.fuzzer", kind, how, seed, str(count), corpus, result]
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "LMM_DATA_DIR": str(folder / "data")}
    ran = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, errors="replace")
    if not result.exists():  # killed, hung, or out of memory
        print(kind, how, ran.returncode, ran.stdout[-500:], ran.stderr[-2000:])
        return {"runs": 0, "crashes": 1, "slow": 0, "above_mb": 0.0}
    print(ran.stdout, end="")
    return dict(json.loads(result.read_text()))


def _seeds(folder: Path) -> dict[str, Path]:
    """A good file of each kind."""
    from campaign.program import STORE, folder_with
    from lmm.files import journal, state_file

    place = folder / "seeds"
    place.mkdir()
    with folder_with(3) as base:
        memory = base / "copy.safetensors"
        state_file.save(memory, {"note/a": np.ones(3, np.float32)}, _header(memory))
        good = {
            "memory": memory.read_bytes(),
            "journal": journal.undo_of(base / STORE).read_bytes(),
            "log": b"\n".join((base / "logs/memory_activations.jsonl").read_bytes().split(b"\n")[-8:]),
            "session": next((base / "data/sessions").glob("*.jsonl")).read_bytes(),
            "history": b'"one"\n"two"\n"three \\u00e9"\n',
            "config": b'model = "x"\nseed = 1\n[options]\nrank = 3\n',
        }
    for kind, data in good.items():
        (place / kind).write_bytes(data)
    return {kind: place / kind for kind in good}


def _header(memory: Path) -> Any:
    from lmm.files import state_file
    from lmm.lesson import Lesson

    header = state_file.read_header(memory)
    header.lessons[:] = [Lesson("Who?", "Maria", "Maria it is.", time=1.5, id="a", wordings=("Who is it?",))]
    return header


Mutate = Callable[[random.Random, bytes], bytes]


# the process of one kind ------------------------------------------------------------------------------------------
class Reads:
    """Reads files of a kind, one after the other, and counts what goes wrong."""

    def __init__(self, read: Callable[[Path], object], place: Path) -> None:
        self.read, self.place = read, place
        self.runs = self.crashes = self.slow = 0
        self.above_mb = 0.0

    def __call__(self, data: bytes) -> None:
        self.place.write_bytes(data)
        self.look()

    def look(self) -> None:
        from lmm.errors import LmmError

        before, start = _peak_mb(), time.perf_counter()
        try:
            with contextlib.suppress(LmmError):
                self.read(self.place)
        except Exception as error:
            self.crashes += 1
            print(f"{type(error).__name__}: {error} of {self._beginning()!r}", flush=True)
        self.slow += time.perf_counter() - start > SLOW_S
        self.above_mb = max(self.above_mb, _peak_mb() - before - 3 * self.place.stat().st_size / MB)
        self.runs += 1

    def _beginning(self) -> bytes:
        with open(self.place, "rb") as file:
            return file.read(2000)

    def write(self, result: Path) -> None:
        figures = {name: getattr(self, name) for name in ("runs", "crashes", "slow", "above_mb")}
        result.write_text(json.dumps(figures))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fuzz(reads: Reads, mutate: Mutate, good: bytes, runs: int, corpus: Path, result: Path) -> None:
    """Does not return."""
    import atheris

    def one(data: bytes) -> None:
        reads(data)
        if reads.runs == runs:
            reads.write(result)
            os._exit(0)

    def mutated(data: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)
        return bytes(atheris.Mutate(data, most) if chance.random() < 0.3 else mutate(chance, data or good)[:most])

    (corpus / "good").write_bytes(good)
    options = [f"-runs={10 * runs}", "-max_len=65536", "-seed=1", "-timeout=60", "-len_control=0", "-reload=0"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one, custom_mutator=mutated)
    atheris.Fuzz()


def large(reads: Reads, mutate: Mutate, seed: Path, most: int, grow: Callable[[Path, int], bytes]) -> None:
    """Files of a tenth of `most` bytes and of all, whole and with something changed; each made and read in processes of
    their own, or the memory that was taken before would be there already."""
    from campaign.program import apart

    for size, number in itertools.product((most // 10, most), range(3)):

        def make(size: int = size, number: int = number) -> None:
            data = grow(seed, size)
            reads.place.write_bytes(mutate(random.Random(number), data) if number else data)

        def read() -> None:
            reads.look()
            reads.write(seed.with_suffix(".figures"))

        figures = seed.with_suffix(".figures")
        figures.unlink(missing_ok=True)
        ended = [os.waitstatus_to_exitcode(os.waitpid(apart(work), 0)[1]) for work in (make, read)]
        found = json.loads(figures.read_text()) if ended == [0, 0] else {"crashes": 1, "slow": 0, "above_mb": 0.0}
        reads.runs += 1
        reads.crashes += found["crashes"]
        reads.above_mb = max(reads.above_mb, found["above_mb"])


def main() -> None:
    kind, how, seed, count, corpus, result = sys.argv[1:]
    if how == "fuzz":
        import atheris

        with atheris.instrument_imports(include=["lmm"]):
            _import_readers()
    else:
        _import_readers()
    os.fsync = lambda file: None  # what is read counts
    place = Path(os.environ["LMM_DATA_DIR"]) / "sessions" / "20260101-000000-000000.jsonl"
    place.parent.mkdir(parents=True, exist_ok=True)
    _, read, mutate, grow = KINDS[kind]
    place.write_bytes(Path(seed).read_bytes())
    read(place)  # what is imported then is not the file's
    reads = Reads(read, place)
    if how == "fuzz":
        fuzz(reads, mutate, Path(seed).read_bytes(), int(count), Path(corpus), Path(result))
    large(reads, mutate, Path(seed), int(count) * MB, grow)
    reads.write(Path(result))


def _import_readers() -> None:
    import lmm.chat.history
    import lmm.chat.tables
    import lmm.cli.log
    import lmm.cli.log_plot
    import lmm.config
    import lmm.engine.conversation
    import lmm.files.activation_log
    import lmm.files.journal
    import lmm.files.transcripts
    import lmm.text.when  # noqa: F401


# what is changed --------------------------------------------------------------------------------------------------
def _mutated(chance: random.Random, data: bytes) -> bytes:
    """A few changes: bits, bytes, pieces that go, come twice or come from elsewhere, and numbers at their limits."""
    found = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at, size = chance.randrange(len(found) + 1), chance.choice((1, 1, 2, 8, 64, 1000))
        how = chance.randrange(6)
        if how == 0 and at < len(found):
            found[at] ^= 1 << chance.randrange(8)
        elif how == 1:
            del found[at : at + size]
        elif how == 2:
            found[at:at] = found[at : at + size]
        elif how == 3:
            other = chance.randrange(len(found) + 1)
            found[at : at + size] = found[other : other + size]
        elif how == 4:
            found[at : at + 1] = chance.choice((b"\x00", b"\xff", b"\n", b'"', b"{", b"[" * 2000, b"9" * 400, b"1e999"))
        else:
            found = found[:at]
    return bytes(found)


def _resigned(chance: random.Random, data: bytes) -> bytes:
    """A memory whose header says something else and is signed for it: what only checks of values can refuse."""
    try:
        return _signed_anew(chance, data)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):  # it is no memory any more
        return _mutated(chance, data)


def _signed_anew(chance: random.Random, data: bytes) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
    metadata, table = header["__metadata__"], {name: x for name, x in header.items() if name != "__metadata__"}
    for part in chance.sample(("header", "lessons"), chance.randint(1, 2)):
        metadata[part] = json.dumps(_other(chance, json.loads(metadata[part])))
    if chance.random() < 0.3:
        changed = table[chance.choice(list(table))]
        changed["dtype"] = chance.choice(("F32", "I32", "BF16", "F64", "BOOL", "U64"))
        start, end = changed["data_offsets"]
        rest = rest[:start] + bytes(chance.choice((0, 127, 128, 255)) for _ in range(end - start)) + rest[end:]
    whole = (rest[slice(*table[name]["data_offsets"])] for name in sorted(table))
    metadata["data_sha256"] = hashlib.sha256(b"".join(whole)).hexdigest()
    strings = {key: value for key, value in metadata.items() if key != "sha256"}
    dtype = {"F32": "float32", "I32": "int32", "F64": "float64", "BOOL": "bool", "U64": "uint64"}
    tensors = {name: [dtype.get(x["dtype"], "float32"), x["shape"]] for name, x in table.items()}
    metadata["sha256"] = hashlib.sha256(json.dumps([strings, tensors], sort_keys=True).encode()).hexdigest()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


def _other(chance: random.Random, value: object) -> object:
    """The same with one value in it changed, taken away or added."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        key = chance.choice(list(value))
        if chance.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return value | {chance.choice((key, key, key, "other")): _other(chance, value[key])}
    if isinstance(value, list) and value and chance.random() < 0.85:
        at = chance.randrange(len(value))
        return [*value[:at], _other(chance, value[at]), *value[at + chance.randint(0, 1) :]]
    return chance.choice(STRANGE)


def _memory(path: Path) -> None:
    from lmm.chat.tables import table
    from lmm.files import journal, state_file
    from lmm.text.when import day, when

    state_file.inspect(path)
    arrays, header = journal.load(path)
    table(("a", "b"), [(x.prompt, when(x.time) + day(x.time)) for x in header.lessons])
    state_file.save(path, arrays, header)


def _log(path: Path) -> None:
    from lmm.cli import log, log_plot
    from lmm.files import activation_log

    for record in activation_log.read(path):
        log._row(record)
    log._telling(activation_log.read(path), 40)
    log_plot.as_html(log_plot.rows(activation_log.read(path)))


def _session(path: Path) -> None:
    from lmm.engine.conversation import Turn
    from lmm.files import transcripts

    found = transcripts.read(path)
    [Turn.of_record(record) for record in found.records]
    transcripts.find(oneshots=True)


def _history(path: Path) -> None:
    from lmm.chat.history import JsonHistory

    list(JsonHistory(path).load_history_strings())


def _config(path: Path) -> None:
    from lmm import config

    os.environ["LMM_CONFIG"] = str(path)
    config.load({})


def _journal(path: Path) -> None:
    from lmm.files import journal

    journal.joined(journal._changes(path)[0])


# large files ------------------------------------------------------------------------------------------------------
def _lines(seed: Path, size: int) -> bytes:
    """The same lines again and again."""
    good = seed.read_bytes()
    return good * (size // len(good) + 1)


def _large_memory(seed: Path, size: int) -> bytes:
    """Half of it lessons with a small tensor each, half one tensor."""
    from lmm.files import state_file
    from lmm.lesson import Lesson

    lessons = [Lesson(f"Who is {i}?", f"Maria {i}", id=f"{i}") for i in range(size // 800)]
    arrays = {f"note/{lesson.id}": np.ones(3, np.float32) for lesson in lessons}
    header = state_file.read_header(seed)
    header.lessons[:] = lessons
    made = seed.with_suffix(".large")
    state_file.save(made, arrays | {"matrix": np.ones(size // 8, np.float32)}, header)
    return made.read_bytes()


#: by name: which seed, how it is read, changed, and made large
KINDS: dict[str, tuple[str, Callable[[Path], None], Mutate, Callable[[Path, int], bytes]]] = {
    "memory": ("memory", _memory, _mutated, _large_memory),
    "memory, signed": ("memory", _memory, _resigned, _large_memory),
    "journal": ("journal", _journal, _mutated, _lines),
    "log": ("log", _log, _mutated, _lines),
    "session": ("session", _session, _mutated, _lines),
    "history": ("history", _history, _mutated, _lines),
    "config": ("config", _config, _mutated, _lines),
}


if __name__ == "__main__":
    main()
