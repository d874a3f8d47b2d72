"""Programs that are ended: kill -9, signals, several at once."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path

import terminals

from campaign.program import (
    COMMANDS,
    OLD,
    STORE,
    Row,
    Started,
    apart,
    copied,
    everything,
    folder_with,
    known,
    missing,
    run,
    said_learned,
    stopped,
)
from lmm.errors import LmmError, StateError

LESSONS = "".join(f"Question {i}? => answer {i}\n" for i in range(40))
#: what `lmm` may exit with: done, an error, a usage error, and the signal's own, said by it or by the system
CODES = {0, 1, 2, 129, 130, 143, -signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP}


def kills(count: int) -> Row:
    """Each command, killed at a random moment; what it said to have learned is looked for in all files there are."""
    chance, lost, unreadable, learned = random.Random(0), 0, 0, 0
    commands = [*COMMANDS, ("teach many", ["teach"], LESSONS), ("teach many", ["teach"], LESSONS)]
    with folder_with(3) as base:
        took = {name: _seconds(base, args, stdin) for name, args, stdin in commands}
        for number in range(count):
            name, args, stdin = commands[number % len(commands)]
            folder = copied(base, 1)
            started = Started(folder, args, stdin)
            stopped(chance, started.pid, took[name], signal.SIGKILL)
            said = said_learned(started.wait().err) if "undo" not in stdin and "undo" not in name else set()
            learned += len(said)
            gone = {"Old question 1?"} if "orget" in name else OLD if "undo" in name else set()
            try:
                files = everything(folder)
                lost += len(missing(said, *files) | (OLD - gone - known(*files)))
                run(folder, ["ask", "hello"])  # the next start puts the journal into the file
                lost += len(missing(said, *files) | (OLD - gone - known(*files)))
            except StateError:
                unreadable += 1
            shutil.rmtree(folder)
    return (
        f"kill -9 of {len(COMMANDS)} commands at {count} random moments: unreadable files / of {learned} lessons lost "
        'after "learned:"',
        "0 / 0",
        f"{unreadable} / {lost}",
    )


def _seconds(base: Path, args: list[str], stdin: str) -> float:
    folder, start = copied(base, 1), time.perf_counter()
    run(folder, args, stdin)
    took = time.perf_counter() - start
    shutil.rmtree(folder)
    return took


def conversions(count: int) -> Row:
    """A GGUF file that is converted into the cache of models, killed at a random moment of it; then the next start."""
    import test_models

    from lmm.adapters.models import source

    chance, halves, failed, left = random.Random(0), 0, 0, 0
    with tempfile.TemporaryDirectory(prefix="lmm-campaign-") as name:
        folder = Path(name)
        cache, model = folder / "cache", test_models.write_gguf(folder / "tiny.gguf", test_models.llama_weights())
        os.environ["LMM_CACHE_DIR"] = str(cache)
        took = [_converted(model, cache) for _ in range(3)][-1]  # the first time, it imports
        for _ in range(count):
            shutil.rmtree(cache)
            child = apart(lambda: source.resolve(str(model)))
            stopped(chance, child, took, signal.SIGKILL)
            os.waitpid(child, 0)
            halves += any(source.damage(whole, thorough=True) for whole in (cache / "models").glob("[!.]*/"))
            try:
                whole = source.resolve(str(model)).folder
                failed += bool(source.damage(whole, thorough=True))
                left += any(path != whole for path in whole.parent.iterdir() if path.is_dir())
            except LmmError:
                failed += 1
        del os.environ["LMM_CACHE_DIR"]
    return (
        f"kill -9 of a conversion of a model at {count} moments: folders that are not whole / next starts that fail "
        "/ with something left over",
        "0 / 0 / 0",
        f"{halves} / {failed} / {left}",
    )


def _converted(model: Path, cache: Path) -> float:
    from lmm.adapters.models import source

    shutil.rmtree(cache, ignore_errors=True)
    start = time.perf_counter()
    source.resolve(str(model))
    return time.perf_counter() - start


def kills_at_a_terminal(count: int) -> Row:
    """A chat at a terminal, killed as soon as "learned:" is on the screen."""
    found = 0
    for number in range(count):
        with tempfile.TemporaryDirectory() as name:
            chat = terminals.Terminal(Path(name))
            chat.see("jotter: 0")
            chat.line(f"/teach Question {number}? => answer")
            chat.see("learned:")
            chat.child.kill(9)
            chat.child.close(force=True)
            found += f"Question {number}?" in known(Path(name) / STORE)
    return f'kill -9 of a chat right after "learned:", {count} times: known in the next start', f"{count}", f"{found}"


def signals(count: int) -> Row:
    """INT, TERM and HUP at random moments of each command."""
    chance, odd, tracebacks, lost = random.Random(0), 0, 0, 0
    with folder_with(3) as base:
        took = {name: _seconds(base, args, stdin) for name, args, stdin in COMMANDS}
        for number, (name, args, stdin) in itertools.product(range(count), COMMANDS):
            folder = copied(base, 1)
            started = Started(folder, args, stdin)
            stopped(chance, started.pid, took[name], (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)[number % 3])
            ran = started.wait()
            odd += ran.code not in CODES
            tracebacks += ran.traceback
            if "undo" not in name and "/undo" not in stdin:
                lost += len(missing(said_learned(ran.err), *everything(folder)))
            shutil.rmtree(folder)
    return (
        f"INT, TERM, HUP at {count} moments of each of {len(COMMANDS)} commands: other exit codes / tracebacks / "
        'lessons lost after "learned:"',
        "0 / 0 / 0",
        f"{odd} / {tracebacks} / {lost}",
    )


def writers(processes: int, lessons: int) -> Row:
    """Several at once teach into one standing memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = ["".join(f"Question {n} {i}? => answer\n" for i in range(lessons)) for n in range(processes)]
        for started in [Started(folder, ["teach", "--no-log"], lines) for lines in text]:
            started.wait()
        found = len(known(folder / STORE))
    total = processes * lessons
    return f"{processes} processes teach {lessons} lessons each at once: known", f"{total}", f"{found}"
