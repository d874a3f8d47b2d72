"""Disks that fail: every writing call of every command, and power cuts."""

from __future__ import annotations

import errno
import itertools
import os
import pickle
import random
import shutil
import sys
from pathlib import Path

from campaign.disk import Disk, Survivors
from campaign.program import COMMANDS, OLD, Row, copied, everything, folder_with, known, missing, run, said_learned
from lmm.errors import StateError
from lmm.files import journal

ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)
LINES = "".join(f"New question {i}? => new answer {i}\n" for i in range(8))
#: what is cut: nothing is taken back in it, so that what was said to be learned is to be known
TRACED = [
    (["teach"], LINES),
    (["teach", "--mm-path", "copy.safetensors"], LINES),
    (
        ["chat"],
        "My sister's name is Vera.\n/teach New question? => yes\n/forget Old question 1?\n/save new.safetensors\n",
    ),
    (["memory", "forget", "copy.safetensors", "Old question 1?", "--yes"], ""),
    (["memory", "undo"], ""),
]


def faults(share: float) -> Row:
    """Each writing call of each command fails once, with each error; a full disk stays full. A `share` of the calls."""
    runs, lost, tracebacks, unreadable = 0, 0, 0, 0
    with folder_with(3) as base:
        for name, args, stdin in COMMANDS:
            count = _calls(base, args, stdin)
            for call, error in itertools.product(range(1, count + 1, max(1, round(1 / share))), ERRORS):
                folder = copied(base, 1)
                disk = Disk(folder, call, error, lasting=error == errno.ENOSPC)
                ran = run(folder, args, stdin, disk.install)
                runs += 1
                tracebacks += ran.traceback
                gone = {"Old question 1?"} if "orget" in name else set()
                try:
                    files = [*everything(folder), *_named(ran.err)]
                    lost += len(OLD - gone - known(*files))
                    if "undo" not in name and "/undo" not in stdin:
                        lost += len(missing(said_learned(ran.err), *files))
                except StateError:
                    unreadable += 1
                shutil.rmtree(folder)
    return (
        f"ENOSPC, EIO, EACCES at writing calls of {len(COMMANDS)} commands, {runs} runs: lessons lost "
        'after "learned:" / unreadable files / tracebacks',
        "0 / 0 / 0",
        f"{lost} / {unreadable} / {tracebacks}",
    )


def _named(said: str) -> list[Path]:
    """Files elsewhere in which a program says to have put what it could not put in its place."""
    places = (line.partition("saved to ")[2].partition(" instead")[0] for line in said.splitlines())
    return [Path(place) for place in places if place.startswith("/")]


def _calls(base: Path, args: list[str], stdin: str) -> int:
    folder = copied(base, 1)
    count = len([event for event in traced(folder, args, stdin) if event[0] not in ("said", "cut")])
    shutil.rmtree(folder)
    return count


def traced(folder: Path, args: list[str], stdin: str) -> list[tuple]:
    """What a command asks of the disk, and what it says in between."""
    disk, kept = Disk(folder), folder.with_name(f"{folder.name}.trace")
    leave = os._exit

    def install() -> None:
        disk.install()
        write = sys.stderr.write

        def said(text: str) -> int:
            disk.said(text)
            return write(text)

        def left(code: int) -> None:
            kept.write_bytes(pickle.dumps(disk.trace))
            leave(code)

        sys.stderr.write = said  # type: ignore[method-assign]
        os._exit = left  # type: ignore[assignment]

    run(folder, args, stdin, install)
    trace = pickle.loads(kept.read_bytes())
    kept.unlink()
    return list(trace)


def power(count: int) -> Row:
    """Cuts at random places of the traces of commands; every second one leaves strictly what was synced."""
    chance, mixed, lost, forgotten = random.Random(0), 0, 0, 0
    with folder_with(3) as base:
        traces = []
        for args, stdin in TRACED:
            folder = copied(base, 1)
            traces.append((folder, traced(folder, args, stdin)))
            shutil.rmtree(folder)
        before = {str(path.relative_to(base)): path.read_bytes() for path in base.rglob("*") if path.is_file()}
        for number in range(count):
            folder, events = traces[number % len(traces)]
            events = events[: chance.randint(0, len(events))]
            there = {os.path.realpath(folder / name): data for name, data in before.items()}
            left = Survivors(there, events, chance if number // len(traces) % 2 else None).files
            shutil.rmtree(folder, ignore_errors=True)
            for path, data in left.items():
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                Path(path).write_bytes(data)
            said = "".join(event[1] for event in events if event[0] == "said")
            try:
                found, unknown = known(*everything(folder)), missing(said_learned(said), *everything(folder))
            except StateError:
                mixed += 1
                continue
            gone = {"Old question 1?"} if "forgotten" in said or "orget" in str(TRACED[number % len(traces)]) else set()
            lost += len(unknown | (OLD - gone - found))
            mixed += any(not _is_whole(path) for path in everything(folder))
            forgotten += "forgotten: Old question 1?" in said and _still(folder, TRACED[number % len(traces)][0])
            shutil.rmtree(folder)
    return (
        f"power cuts at {count} places of {len(TRACED)} write traces: files neither old nor new / lessons lost after "
        '"learned:" / known again after "forgotten:"',
        "0 / 0 / 0",
        f"{mixed} / {lost} / {forgotten}",
    )


def _is_whole(path: Path) -> bool:
    """Whether each tensor is of a lesson that is there, and the other way round."""
    arrays, header = journal.load(path)
    return {name.partition("/")[2] for name in arrays} == {lesson.id for lesson in header.lessons}


def _still(folder: Path, args: list[str]) -> bool:
    store = [path for path in everything(folder) if ("copy" in path.name) == ("memory" in args)]
    return "Old question 1?" in known(*[path for path in store if "copy" in path.name or "jotter.safe" in path.name])
