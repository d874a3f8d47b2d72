"""Files of lines that several processes append to while others take lines out: nothing lost, nothing glued."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lmm.chat.history import JsonHistory
from lmm.files import jsonl, transcripts
from lmm.files.activation_log import ActivationLog
from lmm.files.atomic import write_atomically
from lmm.files.traces import Trace

WRITERS, EACH = 3, 60
SECRET = Trace.of("0123456789ab", [], ["Rumpelstiltskin"])


def add_to_history(folder: Path, text: str) -> None:
    JsonHistory(folder / "history.jsonl").store_string(text)


def purge_history(folder: Path) -> int:
    return JsonHistory(folder / "history.jsonl").purge(SECRET)


def add_to_session(folder: Path, text: str) -> None:
    made = transcripts.Transcript(folder / "sessions" / "20260101-000000-000000.jsonl")
    made.add({"kind": "turn", "user": text, "reply": "", "text": text})
    assert not made.error


def purge_sessions(folder: Path) -> int:
    return transcripts.purge(SECRET)


def add_to_log(folder: Path, text: str) -> None:
    with ActivationLog(folder / "log.jsonl") as log:
        log.update("post_hooks", {"text": text})


def purge_log(folder: Path) -> int:
    return ActivationLog(folder / "log.jsonl", enabled=False).purge(SECRET)


FILES = {
    "history": (add_to_history, purge_history, "history.jsonl"),
    "session": (add_to_session, purge_sessions, "sessions/20260101-000000-000000.jsonl"),
    "log": (add_to_log, purge_log, "log.jsonl"),
}
KINDS = pytest.mark.parametrize("kind", FILES)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LMM_DATA_DIR", str(tmp_path))
    return tmp_path


def texts(path: Path) -> list[str]:
    """What was said in each line; a line that is none fails."""
    found = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    said = [x if isinstance(x, str) else (x.get("info") or x).get("text", "") for x in found]
    return [text for text in said if text]


def write_many(add: Callable[[Path, str], None], folder: Path, number: int) -> None:
    for count in range(EACH):
        add(folder, f"{number} {count} {'x' * (count * 37 % 900)}")
        if count % 4 == 0:
            add(folder, "Rumpelstiltskin")


@pytest.mark.slow
@KINDS
def test_processes_that_write_and_forget_lose_no_line(folder: Path, kind: str) -> None:
    add, purge, name = FILES[kind]
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=write_many, args=(add, folder, number)) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    gone = 0
    while any(writer.is_alive() for writer in writers):
        gone += purge(folder)
    gone += purge(folder)
    assert all(writer.exitcode == 0 for writer in writers)
    found = texts(folder / name)
    assert gone == WRITERS * EACH // 4 and len(found) == WRITERS * EACH
    for number in range(WRITERS):
        own = [int(text.split()[1]) for text in found if text.startswith(f"{number} ")]
        assert own == list(range(EACH))


@KINDS
def test_a_line_cut_short_is_glued_to_nothing(folder: Path, kind: str) -> None:
    add, purge, name = FILES[kind]
    path = folder / name
    for text in ("one", "two"):
        add(folder, text)
    whole = path.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    for end in range(start, len(whole) + 1):
        path.write_bytes(whole[:end])
        add(folder, "three")
        assert texts(path) == ["one", *(["two"] if end >= len(whole) - 1 else []), "three"]
    assert purge(folder) == 0 and texts(path) == ["one", "two", "three"]


def test_a_long_line_cut_short_goes_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    for size in (0, 1, jsonl.BLOCK - 1, jsonl.BLOCK, jsonl.BLOCK + 1, 3 * jsonl.BLOCK):
        for before in (b"", b"1\n", b"1\n22\n"):
            path.write_bytes(before + b"[" * size)
            jsonl.append(path, [b"3\n"])
            assert path.read_bytes() == before + b"3\n"


def test_a_file_that_keeps_its_lines_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    assert jsonl.remove(path, lambda line: True) == 0 and not path.exists()
    path.write_bytes(b"1\n2")
    os.utime(path, (1, 1))
    inode = path.stat().st_ino
    assert jsonl.remove(path, lambda line: False) == 0
    assert (path.read_bytes(), path.stat().st_ino, path.stat().st_mtime) == (b"1\n2", inode, 1)
    assert jsonl.remove(path, lambda line: line == b"1\n") == 1 and path.read_bytes() == b"2"


def test_files_and_folders_are_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.jsonl"
    jsonl.append(path, [jsonl.line("\ud800é")])
    path.chmod(0o666)
    jsonl.append(path, [jsonl.line(2)])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.read_bytes() == b'"\\ud800\\u00e9"\n2\n' and list(jsonl.values(path)) == ["\ud800é", 2]


@pytest.mark.parametrize("line", [b"", b"\n", b"nul", b"[" * 100_000, b"\xff", b"{'a': 1}"])
def test_what_cannot_be_read_is_none(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "x").write_bytes(b"1\n" + line + b"\n2\n")
    assert jsonl.parse(line) is None and list(jsonl.values(tmp_path / "x")) == [1, 2]


def test_a_pipe_and_a_device_are_no_file_of_lines(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    start = time.monotonic()
    assert jsonl.remove(tmp_path / "pipe", lambda line: True) == 0
    assert jsonl.remove(Path("/dev/null"), lambda line: True) == 0
    jsonl.append(Path("/dev/null"), [b"1\n"])
    assert time.monotonic() - start < 5 and stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_history_made_shorter_keeps_what_is_added_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmm.chat.history.KEPT", 2)
    path = tmp_path / "h.jsonl"
    for text in "abcadbcc":
        add = JsonHistory(path).store_string
        add(text)
    remove = jsonl.remove

    def late(path: Path, goes: Callable[[bytes], bool]) -> int:
        for text in ("a", "e", "c"):
            add(text)
        return remove(path, goes)

    monkeypatch.setattr(jsonl, "remove", late)
    JsonHistory(path).compact()
    assert list(jsonl.values(path)) == ["b", "c", "a", "e", "c"]


def test_folders_are_made_for_the_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        jsonl.append(tmp_path / "a/b/c.jsonl", [b"{}\n"])
        write_atomically(tmp_path / "d/e/f", [b"x"])
    finally:
        os.umask(before)
    for folder in ("a", "a/b", "d", "d/e"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o700
