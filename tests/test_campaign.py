"""The campaign's own tools: a power cut leaves what was synced and no more, and a failing call is one that writes."""

from __future__ import annotations

import errno
import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from campaign.disk import Disk, Event, Survivors

from lmm.files import atomic, jsonl

OLD, NEW = b"old" * 1000, b"new" * 2000


def in_a_child(disk: Disk, work: Callable[[], object]) -> tuple[int, list[Event]]:
    """The error number that `work` ended with, and what it asked of the disk."""
    read, write = os.pipe()
    if not (child := os.fork()):
        disk.install()
        try:
            work()
            code = 0
        except OSError as error:
            code = error.errno or 255
        os.write(write, pickle.dumps(disk.trace))
        os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as trace:
        events = pickle.loads(trace.read())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), events


def test_what_was_not_synced_does_not_outlive_a_cut() -> None:
    made = [("create", "/d/a"), ("write", "/d/a", 0, b"xy"), ("rename", "/d/a", "/d/b")]
    before = {"/d/b": b"old"}
    assert Survivors(before, [*made, ("sync", "/d")]).files == {"/d/b": b""}  # the name, without the bytes
    assert Survivors(before, made).files == before
    synced = [*made[:2], ("sync", "/d/a"), made[2]]
    assert Survivors(before, synced).files == before and Survivors(before, [*synced, ("sync", "/d")]).files == {
        "/d/b": b"xy"
    }


@pytest.mark.parametrize("write", [atomic.write_atomically, lambda path, chunks: path.write_bytes(b"".join(chunks))])
def test_a_file_is_old_or_new_whole_wherever_the_power_goes(tmp_path: Path, write: Callable[..., object]) -> None:
    path = tmp_path / "x"
    path.write_bytes(OLD)
    code, events = in_a_child(Disk(tmp_path), lambda: write(path, [NEW]))
    assert code == 0 and path.read_bytes() == NEW and len(events) >= 2
    before, chance = {os.path.realpath(path): OLD}, random.Random(0)
    left = [
        Survivors(before, events[:cut], chance if strange else None).files[os.path.realpath(path)]
        for cut in range(len(events) + 1)
        for strange in range(20)
    ]
    assert {OLD, NEW}.issuperset(left) is (write is atomic.write_atomically)
    assert left[-20] == NEW or write is not atomic.write_atomically


def test_each_writing_call_can_fail(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    jsonl.append(path, [b"1\n"])
    calls = 0
    while True:
        calls += 1
        disk = Disk(tmp_path, calls, errno.ENOSPC, lasting=True)
        code, _ = in_a_child(disk, lambda: jsonl.append(path, [b"22\n"], True))
        if code == 0:
            break
        assert code == errno.ENOSPC and path.read_bytes().replace(b"22\n", b"") == b"1\n"
    assert calls == 3  # the write, the sync, and none that fails
