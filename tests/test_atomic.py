"""Files that are written whole, and what takes a text as it comes: pipes, devices, what a shell has opened."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lmm.files.atomic import check_writable, write_atomically, write_out

CHUNKS = [b"one\n", memoryview(b"two\n")]
WRITE_TWO = "import sys; from lmm.files.atomic import write_out; write_out(sys.argv[1], [b'two\\n'])"


def test_what_is_written_out_becomes_a_file_or_goes_as_it_comes(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    assert write_out(path, CHUNKS) and path.read_bytes() == b"one\ntwo\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and list(path.parent.iterdir()) == [path]
    assert not write_out("/dev/null", CHUNKS) and stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(OSError, match="No space left"):
        write_out("/dev/full", CHUNKS)
    with pytest.raises(IsADirectoryError):
        write_out(tmp_path, CHUNKS)
    (loop := tmp_path / "loop").symlink_to(loop)
    with pytest.raises(OSError, match="symbolic links"):
        write_out(loop, CHUNKS)


def test_a_pipe_takes_it(tmp_path: Path) -> None:
    os.mkfifo(fifo := tmp_path / "fifo")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    assert not write_out(fifo, CHUNKS)
    reader.join()
    assert read == [b"one\ntwo\n"] and stat.S_ISFIFO(fifo.stat().st_mode)
    near, far = os.pipe()
    (link := tmp_path / "link").symlink_to(f"/dev/fd/{far}")
    for name in (f"/dev/fd/{far}", link):
        assert not write_out(name, CHUNKS) and os.read(near, 99) == b"one\ntwo\n"
    os.close(near)
    with pytest.raises(BrokenPipeError):
        write_out(link, CHUNKS)
    os.close(far)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1"])
@pytest.mark.parametrize("sign", [">", ">>"])
def test_others_may_write_to_stdout_before_and_after(tmp_path: Path, name: str, sign: str) -> None:
    (tmp_path / "all").write_text("zero\n")
    script = f'{{ echo one; "$0" -c "$1" {name}; echo three; }} {sign} all'
    subprocess.run(["sh", "-c", script, sys.executable, WRITE_TWO], cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "all").read_text() == ("zero\n" if sign == ">>" else "") + "one\ntwo\nthree\n"


def test_what_is_to_be_read_again_needs_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(fifo := tmp_path / "fifo")
    near, far = os.pipe()
    for name in ("/dev/null", fifo, f"/dev/fd/{far}"):
        for tried in (check_writable, lambda path: write_atomically(path, CHUNKS)):
            with pytest.raises(OSError, match="not a regular file"):
                tried(name)
    os.close(near)
    os.close(far)
