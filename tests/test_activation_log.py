"""The activation log: every line a record, whatever happens while it is written."""

from __future__ import annotations

import contextlib
import fcntl
import json
import multiprocessing
import os
import resource
import stat
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmm.adapters.base import Site
from lmm.errors import LmmError
from lmm.files import activation_log, jsonl
from lmm.files.activation_log import INFO_FIELDS, ActivationLog, loss_by_decoded_token, read
from lmm.files.traces import Trace

SITE = Site(15)
HIDDEN = np.linspace(-1.23456789, 2, 2 * 3 * 8).reshape(2, 3, 8).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "memory_activations.jsonl"


def hook(log: ActivationLog, phase: str = "decode", hidden: np.ndarray = HIDDEN, **fields) -> None:
    log.hook("lora_on_user", SITE, phase, [7, 8, 9], hidden[:, -1, -5:], 2 * hidden[:, -1, -5:], hidden.shape, **fields)


def strict(path: Path) -> list[dict]:
    """The records by a JSON reader that knows no NaN."""

    def refuse(word):
        raise AssertionError(word)

    return [json.loads(line, parse_constant=refuse) for line in path.read_text("utf-8").splitlines()]


def test_a_hook_record(path):
    with ActivationLog(path) as log:
        hook(log, "prefill", fired=[("0123456789ab", 0.93)])
    (record,) = strict(path)
    assert abs(record.pop("time") - time.time()) < 60
    given_slice, slice_out = record.pop("input_slice"), record.pop("output_slice")
    np.testing.assert_allclose(given_slice, HIDDEN[:, -1, -5:], rtol=1e-5)
    np.testing.assert_allclose(slice_out, 2 * HIDDEN[:, -1, -5:], rtol=1e-5)
    assert record == {
        "v": 1, "kind": "hook", "module": "lora_on_user", "layer": 15, "part": "residual", "phase": "prefill",
        "positions": [7, 9], "shape": [2, 3, 8], "fired": [["0123456789ab", 0.93]],
    }  # fmt: skip
    assert list(read(path)) == strict(path)


def test_a_pass_over_no_tokens_has_a_span_of_none(path):
    with ActivationLog(path) as log:
        log.hook("lora_on_user", SITE, "decode", [], [], [])
    assert strict(path)[0]["positions"] == [0, -1]


def test_update_records_have_the_named_forms(path):
    info = {
        "last_user_response": "My cat is called Мурка 🐈",
        "user_response_target_token_ids": np.array([5, 6]),
        "user_response_token_losses": np.array([1.23456789, 0.5], np.float32),
        "user_response_token_loss_by_decoded_token": loss_by_decoded_token([" cat", " cat"], [1.25, 0.5]),
        "user_response_raw_target_token_ids": [1, 5, 6, 2],
        "user_response_raw_token_losses": (0.1, 1.2, 0.5, 0.0),
        "grad_A_norm": np.float32(0.25),
        "grad_B_norm": np.float64("nan"),
    }
    assert set(info) == set(INFO_FIELDS)
    with ActivationLog(path) as log:
        log.update("pre_hooks", {}, module="lora_on_user")
        log.update("post_hooks", info)
    first, second = strict(path)
    assert (first["kind"], first["stage"], first["module"], first["info"]) == (
        "update",
        "pre_hooks",
        "lora_on_user",
        {},
    )
    assert second["stage"] == "post_hooks"
    assert second["info"] == {
        "last_user_response": "My cat is called Мурка 🐈",
        "user_response_target_token_ids": [5, 6],
        "user_response_token_losses": [1.23457, 0.5],
        "user_response_token_loss_by_decoded_token": {" cat": 1.25, " cat#2": 0.5},
        "user_response_raw_target_token_ids": [1, 5, 6, 2],
        "user_response_raw_token_losses": [0.1, 1.2, 0.5, 0.0],
        "grad_A_norm": 0.25,
        "grad_B_norm": "NaN",
    }
    with pytest.raises(ValueError, match="pre_hooks"):
        log.update("during", {})


def test_repeated_tokens_get_numbers():
    found = loss_by_decoded_token(["the", "a", "the", "the", "a#2", "a"], [1, 2, 3, 4, 5, 6])
    assert found == {"the": 1, "a": 2, "the#2": 3, "the#3": 4, "a#2": 5, "a#3": 6}
    assert list(found.values()) == [1, 2, 3, 4, 5, 6]
    with pytest.raises(ValueError, match="shorter"):
        loss_by_decoded_token(["a", "b"], [1.0])


@given(st.lists(st.text(alphabet="a#23", max_size=3)))
def test_no_loss_is_lost_to_a_repeated_name(tokens):
    assert list(loss_by_decoded_token(tokens, range(len(tokens))).values()) == list(range(len(tokens)))


def test_nan_and_infinity_keep_each_line_json(path):
    hidden = HIDDEN.copy()
    hidden[0, -1, -3:] = np.nan, np.inf, -np.inf
    with ActivationLog(path) as log:
        hook(log, hidden=hidden)
        hook(log, odd=float("nan"))
    first, second = strict(path)
    assert first["input_slice"][0][2:] == ["NaN", "Infinity", "-Infinity"]
    assert [float(value) for value in first["input_slice"][0]][3] == float("inf")
    assert first["input_slice"][1] == second["input_slice"][1] and second["odd"] == "NaN"


numbers = st.floats() | st.integers(-(2**70), 2**70)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(st.characters()) | st.binary(max_size=3) | st.just(object()),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()) | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(info=st.dictionaries(st.text(st.characters(), max_size=5), values, max_size=3))
def test_any_info_gives_one_line_of_json(tmp_path_factory, info):
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    with ActivationLog(path) as log:
        log.update("post_hooks", info)
        log.update("post_hooks", {})
    assert len(path.read_bytes().split(b"\n")) == 3
    first, second = read(path)
    assert set(first["info"]) == set(info) and second["info"] == {}


@given(st.lists(st.lists(st.floats(), min_size=1, max_size=5), max_size=3))
def test_slices_survive_to_six_digits(rows):
    found = json.loads(json.dumps(activation_log._plain(rows), allow_nan=False))
    for row, found_row in zip(rows, found, strict=True):
        np.testing.assert_allclose([float(value) for value in found_row], row, rtol=1e-5)


# buffering and files -------------------------------------------------------------------------------------------
def test_records_wait_for_the_end_of_the_turn(path):
    log = ActivationLog(path, flush_seconds=1e9)
    hook(log)
    assert path.read_bytes() == b""
    log.flush()
    assert len(strict(path)) == 1
    log.close()
    log.close()
    hook(log)
    assert len(strict(path)) == 1


def test_number_and_time_flush(path):
    with ActivationLog(path, most_waiting=3, flush_seconds=1e9) as log:
        for _ in range(10):
            hook(log)
        assert len(strict(path)) == 9
    with ActivationLog(path, flush_seconds=0) as log:
        hook(log)
        assert len(strict(path)) == 11


def test_a_log_is_written_each_second_or_256_records(path, monkeypatch):
    now = 0.0
    monkeypatch.setattr(activation_log.time, "monotonic", lambda: now)
    with ActivationLog(path) as log:
        for now, written in ((0.99, 0), (1.0, 2), (1.98, 2), (2.0, 4)):  # noqa: B007 (read by the lambda)
            hook(log)
            assert len(strict(path)) == written
        while len(strict(path)) == written:
            hook(log)
        assert len(strict(path)) == written + 256


def test_each_record_is_one_write(path, monkeypatch):
    calls: list[bytes] = []
    write = os.write

    def seen(file, data):
        calls.append(bytes(data))
        return write(file, data)

    with ActivationLog(path, flush_seconds=1e9) as log:
        for _ in range(5):
            hook(log)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", seen)
            log.flush()
    assert len(calls) == 5 and all(json.loads(call) and call.endswith(b"\n") for call in calls)


def test_the_file_is_private_and_appended_to(path):
    for _ in range(2):
        with ActivationLog(path) as log:
            hook(log)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(strict(path)) == 2


def test_disabled_writes_nothing(path):
    with ActivationLog(path, enabled=False) as log:
        hook(log)
        log.update("pre_hooks", {})
    assert not path.parent.exists()


def test_a_moved_log_is_begun_anew(path):
    with ActivationLog(path) as log:
        hook(log)
        log.flush()
        path.rename(path.with_suffix(".old"))
        hook(log)
    assert len(strict(path)) == len(strict(path.with_suffix(".old"))) == 1


def test_a_record_waits_for_whoever_holds_the_file(path):
    with ActivationLog(path) as log, path.open("rb") as other:
        hook(log)
        fcntl.flock(other, fcntl.LOCK_EX)
        thread = threading.Thread(target=log.flush)
        thread.start()
        thread.join(0.1)
        assert thread.is_alive() and path.read_bytes() == b""
        fcntl.flock(other, fcntl.LOCK_UN)
        thread.join()
        assert len(strict(path)) == 1


def write_many(path: str, number: int) -> None:
    with ActivationLog(path, most_waiting=8) as log:
        for count in range(300):
            log.update("post_hooks", {"from": number, "count": count, "text": "x" * (count * 7 % 500)})


def hook_often(log: ActivationLog) -> None:
    for _ in range(300):
        hook(log)


def test_processes_and_threads_share_a_file(path):
    processes = [multiprocessing.get_context("fork").Process(target=write_many, args=(str(path), n)) for n in range(3)]
    for process in processes:
        process.start()
    with ActivationLog(path, most_waiting=8) as log:
        threads = [threading.Thread(target=hook_often, args=(log,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        while any(process.is_alive() for process in processes):
            assert log.purge(Trace.of("no such lesson", [], [])) == 0
            assert log.purge(Trace.of("", [], ["Rumpelstiltskin"])) == 0
            log.update("post_hooks", {"text": "Rumpelstiltskin"})
            log.purge(Trace.of("", [], ["Rumpelstiltskin"]))
        for thread in threads:
            thread.join()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    records = list(read(path))
    assert len(records) == len(strict(path)) == 1500
    for number in range(3):
        counts = [r["info"]["count"] for r in records if r["kind"] == "update" and r["info"]["from"] == number]
        assert counts == list(range(300))


# a disk that fails -----------------------------------------------------------------------------------------------
@contextlib.contextmanager
def largest_file(limit: int):
    """The kernel refuses to write beyond `limit` bytes, first in part and then altogether, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_warns_once_and_keeps_whole_records(path):
    said: list[str] = []
    log = ActivationLog(path, flush_seconds=1e9, warn=said.append)
    for _ in range(10):
        hook(log)
    with largest_file(1000):
        log.flush()
        hook(log)
        log.flush()
        log.close()
    assert len(said) == 1 and "now off" in said[0] and "--no-log" in said[0] and "\n" not in said[0]
    assert len(strict(path)) == 1000 // len(path.read_bytes().splitlines(keepends=True)[0])
    assert path.read_bytes().endswith(b"}\n")


def test_places_that_cannot_be_written_turn_the_log_off(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "file" / "log", "/proc/nothing/log", "nul\0byte", "/dev/full", "x" * 300):
        said: list[str] = []
        with ActivationLog(place, warn=said.append) as log:
            hook(log)
            log.flush()
            hook(log)
        assert len(said) == 1, place
    with ActivationLog(tmp_path):
        pass
    assert "cannot be written" in capsys.readouterr().err


# reading -------------------------------------------------------------------------------------------------------
def test_a_torn_last_line_is_skipped_and_then_removed(path):
    with ActivationLog(path) as log:
        hook(log)
        hook(log)
    whole = path.read_bytes()
    first = whole.splitlines(keepends=True)[0]
    for cut in range(len(first), len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert len(list(read(path))) == 1
    path.write_bytes(whole[:-1])
    assert len(list(read(path))) == 2  # all there but for the newline
    path.write_bytes(first + b"\0" * 100_000)  # what a power cut leaves
    assert len(list(read(path))) == 1
    with ActivationLog(path) as log:
        hook(log)
    assert len(strict(path)) == 2


@pytest.mark.parametrize(
    "line", [b"junk", b"", b"[]", b"{}", b'{"v":"1"}', b'{"v":true}', b'{"v":0}', b"\xff", b"[" * 100_000]
)
def test_other_bad_lines_are_named_by_number_and_hide_no_others(path, line):
    path.parent.mkdir()
    path.write_bytes(b'{"v":1,"kind":"hook"}\n' + line + b"\n" + b'{"v":1}\n')
    good, bad, other = read(path)
    assert good["kind"] == "hook" and other == {"v": 1}
    assert bad == {"kind": "bad", "line": 2, "problem": "no record of an activation log"}


def test_a_newer_version_says_upgrade(path):
    path.parent.mkdir()
    path.write_bytes(b'{"v":2}\n')
    [record] = read(path)
    assert record["kind"] == "bad" and "upgrade lmm" in record["problem"]


def test_no_log_is_one_clear_error(path, tmp_path):
    os.mkfifo(tmp_path / "pipe")  # which nobody writes into
    for place in (path, tmp_path, "nul\0byte", tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(LmmError, match="cannot read the activation log"):
            list(read(place))


# forgetting ------------------------------------------------------------------------------------------------------
def test_purge_removes_every_mention(path):
    tokens = [" My", " sister", " is", " My", "ri", "am"]
    mentions: list[dict] = [
        {"last_user_response": "Oh,  MY SISTER\nis Myriam, you know"},
        {"user_response_token_loss_by_decoded_token": loss_by_decoded_token(tokens, range(6))},
        {"decoded": tokens},
        {"nested": [{"deep": ["(myriam)"]}]},
        {"lesson": "0123456789ab"},
        {"0123456789ab": 1},
    ]
    with ActivationLog(path, flush_seconds=1e9) as log:
        hook(log)
        hook(log, fired=[("0123456789ab", 0.9)])
        for info in mentions:
            log.update("post_hooks", info)
        log.update("post_hooks", {"last_user_response": "My brother is Tom"})
        assert log.purge(Trace.of("0123456789ab", [], ["My sister is Myriam", "Myriam", "", " "])) == 7
        assert log.purge(Trace.of("0123456789ab", [], ["Myriam"])) == 0
        hook(log)
    kinds = [record["kind"] for record in strict(path)]
    assert kinds == ["hook", "update", "hook"]
    data = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"yriam" not in data and b"0123456789ab" not in data and b"Tom" in data
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_purge_does_not_take_layout_for_text(path):
    with ActivationLog(path) as log:
        hook(log)
        log.update("post_hooks", {"last_user_response": "Hello", "grad_A_norm": 1.0})
        for word in ("time", "lora_on_user", "hook", "residual", "grad", "last_user", "stage", "decode"):
            assert log.purge(Trace.of("id", [], [word])) == 0


def test_purge_without_a_log(path):
    log = ActivationLog(path, enabled=False)
    assert log.purge(Trace.of("id", [], ["text"])) == 0
    with ActivationLog(path) as other:
        other.update("post_hooks", {"last_user_response": "secret"})
    assert log.purge(Trace.of("id", [], ["secret"])) == 1  # also where this chat does not log
    assert strict(path) == []


def test_a_purge_that_fails_says_so_and_changes_nothing(path):
    with ActivationLog(path) as log:
        for _ in range(5):
            hook(log)
        log.update("post_hooks", {"last_user_response": "secret"})
        log.flush()
        before = path.read_bytes()
        with largest_file(500), pytest.raises(LmmError, match=r"cannot remove anything .* delete that file"):
            log.purge(Trace.of("id", [], ["secret"]))
        assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]
        hook(log)
    assert len(strict(path)) == 7


# sizes -----------------------------------------------------------------------------------------------------------
def say_often(path: Path, number: int) -> None:
    with ActivationLog(path, most_waiting=2, most_bytes=2000, keep=100) as log:
        for count in range(60):
            log.update(
                "post_hooks", {"text": f"{number} {count} {'x' * 80}", "secret": "Rumpelstiltskin" * (count == 7)}
            )


def test_a_log_is_begun_anew_and_no_record_of_any_process_is_lost(path):
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=say_often, args=(path, number)) for number in range(3)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        said = [tuple(r["info"]["text"].split()[:2]) for r in read(path)] if path.exists() else []
        assert len(set(said)) == len(said)  # a file that moves on while it is read is read once
    found = [r["info"]["text"].split() for r in read(path)]
    for number in range(3):
        assert [int(count) for n, count, _ in found if int(n) == number] == list(range(60))
    files = jsonl.rotated(path)
    assert len(files) > 5 and all(at.stat().st_size < 4000 and at.stat().st_mode & 0o77 == 0 for at in files)
    assert ActivationLog(path, enabled=False).purge(Trace.of("id", [], ["Rumpelstiltskin"])) == 3
    assert len(list(read(path))) == 177


def test_only_so_many_logs_are_kept_and_passes_can_be_pruned(path):
    for keep in (2, 0):
        with ActivationLog(path, most_waiting=1, most_bytes=1, keep=keep) as log:
            for _ in range(5):
                hook(log)
        assert [at.name for at in jsonl.rotated(path)][1:] == [f"{path.name}.{n}" for n in (1, 2)]
    with ActivationLog(path) as log:
        hook(log)
        log.update("post_hooks", {"last_user_response": "Hello"})
    assert log.prune(time.time() - 1000) == 0 and log.prune(time.time() + 1) == 4
    assert [record["kind"] for record in read(path)] == ["update"]


# cost ------------------------------------------------------------------------------------------------------------
def cost_of_a_hook(path: Path, calls: int = 2000) -> float:
    """Seconds of this process per record, written and all."""
    slices = HIDDEN[:1, -1, -5:], HIDDEN[1:, -1, -5:]
    positions = np.array([100])
    with ActivationLog(path) as log:
        start = time.process_time()
        for _ in range(calls):
            log.hook("lora_on_user", SITE, "decode", positions, *slices, (1, 1, 576))
        log.flush()
        seconds = time.process_time() - start
    assert sum(1 for _ in read(path)) % calls == 0
    return seconds / calls


def test_a_hook_record_is_cheap(path):
    # 20 µs is 0.1 % of a token at 50 tokens/s; thrice that, for slow and busy machines
    assert min(cost_of_a_hook(path) for _ in range(3)) < 60e-6
