"""What comes from strangers: mutated files, and hostile texts in every place."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import resource
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import payloads
import terminals

from campaign.program import STORE, Row, folder_with, run
from lmm.errors import LmmError
from lmm.files import journal, state_file
from lmm.lesson import Lesson

STRANGE = [0, 1, -1, 2**31, 2**63, 10**400, 1e300, "", "x" * 5000, "\x1b[2J", None, True, [], {}, [[]], {"a": 1}]


def fuzzed(count: int) -> Row:
    """Files that were good, with bytes or values changed, as every reader of them gets them."""
    chance, crashes, slowest = random.Random(0), 0, 0.0
    with folder_with(3) as base, tempfile.TemporaryDirectory() as name:
        place = Path(name) / "sessions" / "20260101-000000-000000.jsonl"
        place.parent.mkdir()
        os.environ["LMM_DATA_DIR"] = name
        memory = base / "copy.safetensors"
        state_file.save(memory, {"note/a": np.ones(3, np.float32)}, _header(memory))
        session = next((base / "data/sessions").glob("*.jsonl")).read_bytes()
        changes = journal.undo_of(base / STORE)
        kinds: list[tuple[bytes, Callable[[Path], object], bool]] = [
            (memory.read_bytes(), _memory, False),
            (memory.read_bytes(), _memory, True),
            (changes.read_bytes(), lambda path: journal._changes(path), False),
            ((base / "logs/memory_activations.jsonl").read_bytes()[-4000:], _log, False),
            (session, _session, False),
            (b'"one"\n"two"\n"three \\u00e9"\n', _history, False),
            (b'model = "x"\nseed = 1\n[options]\nrank = 3\n', _config, False),
        ]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(count):
            data, read, inner = kinds[number % len(kinds)]
            place.write_bytes(_resigned(chance, data) if inner else _mutated(chance, data))
            start = time.perf_counter()
            try:
                with contextlib.suppress(LmmError):
                    read(place)
            except Exception as error:
                crashes += 1
                print(f"{type(error).__name__}: {error} of {place.read_bytes()[:2000]!r}")
            slowest = max(slowest, time.perf_counter() - start)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return (
        f"{count} mutated memories, journals, logs, sessions, histories and configurations: crashes / reads of more "
        "than 2 s / more than 300 MB",
        "0 / 0 / 0",
        f"{crashes} / {int(slowest > 2)} / {int(grown > 300)}",
    )


def _header(memory: Path) -> state_file.Header:
    header = state_file.read_header(memory)
    header.lessons[:] = [Lesson("Who?", "Maria", "Maria it is.", time=1.5, id="a", wordings=("Who is it?",))]
    return header


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
    size = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
    metadata = header["__metadata__"]
    for part in chance.sample(("header", "lessons"), chance.randint(1, 2)):
        metadata[part] = json.dumps(_other(chance, json.loads(metadata[part])))
    if chance.random() < 0.3:
        header["note/a"]["dtype"] = chance.choice(("F32", "I32", "BF16", "F64", "BOOL", "U64"))
        rest = bytes(chance.choice((0, 127, 128, 255)) for _ in rest)
    metadata["data_sha256"] = hashlib.sha256(rest).hexdigest()
    strings = {key: value for key, value in metadata.items() if key != "sha256"}
    dtype = {"F32": "float32", "I32": "int32", "F64": "float64", "BOOL": "bool", "U64": "uint64"}
    tensors = {"note/a": [dtype.get(header["note/a"]["dtype"], "float32"), header["note/a"]["shape"]]}
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


# texts ------------------------------------------------------------------------------------------------------------
def hostile(count: int, at_terminal: int) -> Row:
    """Texts that steer a terminal, in every place that text can come from, into pipes and pseudo-terminals, and the
    sanitiser with each of them cut in two at every place."""
    from lmm.text.sanitize import Cleaner, clean

    texts = payloads.payloads()
    chosen = random.Random(0).sample(texts, min(count, len(texts)))
    foreign = split = 0
    for text in texts[:: max(1, len(texts) // max(count, 1))]:
        for cut in range(len(text) + 1):
            cleaner = Cleaner()
            split += cleaner.feed(text[:cut]) + cleaner.feed(text[cut:]) != clean(text)
    for text in chosen:
        with folder_with() as folder:
            for out in _said_in_pipes(folder, text):
                foreign += sum(not _plain(char) for char in out)
    for text in chosen[:at_terminal]:
        with tempfile.TemporaryDirectory() as name:
            foreign += _foreign_at_terminal(Path(name), text)
    return (
        f"{len(chosen)} hostile texts in questions, lessons, logs, sessions, names and errors, into pipes; "
        f"{min(at_terminal, len(chosen))} at a terminal; every cut: foreign characters / cuts that matter",
        "0 / 0",
        f"{foreign} / {split}",
    )


def _plain(char: str) -> bool:
    seen = char.isprintable() or char.isspace()
    return char in "\n\t" or (seen and ord(char) >= 32 and not 0x7F <= ord(char) < 0xA0)


def _said_in_pipes(folder: Path, text: str) -> list[str]:
    word = text.replace("\0", "").encode(errors="surrogateescape").decode(errors="replace")
    line = " ".join(word.split()) or "x"
    runs = [
        run(folder, ["teach", f"What {word}?", f"It {word}."]),
        run(folder, ["chat"], f"What {line}?\n/teach {line} => {line}\n/why\n/lessons\n/{line}\n/forget {line}\n"),
        run(folder, ["ask", f"say {word}"]),
        run(folder, ["log", "show", "--all"]),
        run(folder, ["sessions"]),
        run(folder, ["memory", "show", f"{STORE}{word}"]),
        run(folder, ["chat", "--model", f"no{word}"]),
        run(folder, ["config", "set", f"key{word}", word]),
    ]
    return [part for ran in runs for part in (ran.out, ran.err)]


def _foreign_at_terminal(folder: Path, text: str) -> int:
    """Of what a text that is taught and said back may not leave: its own sequences."""
    import scripted

    scripted.REPLIES["hostile"] = text
    run(folder, ["teach", f"What {text}?".replace("\0", ""), f"It {text}.".replace("\0", "")])
    chat = terminals.Terminal(folder)
    chat.see("jotter: 1")
    chat.line("/lessons")
    chat.see("> /lessons")
    chat.line("/quit")
    chat.rest()
    own = text.encode(errors="replace")
    return int(len(own) > 2 and (b"\x1b" in own or b"\x9b" in own) and own in chat.raw)
