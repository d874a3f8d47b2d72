"""Files of one JSON value per line that several processes share: each appends whole lines, any may take lines out.

Both happen under a lock on the file that is at the path then, so that no process loses another's line; and a last line
that a crash cut short is taken away before the next is written, so that nothing is glued to it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from lmm.files.atomic import make_folder, sync_folder, write_atomically

BLOCK = 65536  # bytes that are read at once in search of the last line's beginning

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def compact(value: Any) -> str:
    """JSON without blanks, readable where it can be; what is not Unicode (from a terminal or a path) is escaped."""
    text = _ENCODER.encode(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text


def line(value: Any) -> bytes:
    return compact(value).encode() + b"\n"


def parse(line: bytes) -> Any:
    """The value of a line; None where it cannot be read."""
    try:
        return json.loads(line.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return None


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A regular file for reading: a pipe would be waited for, and a device may never end. Raises OSError."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # what a folder is, opening it says
            raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
        yield file


def values(path: Path) -> Iterator[Any]:
    """What can be read of a file, in order. Raises OSError."""
    with opened(path) as lines:
        yield from (value for value in map(parse, lines) if value is not None)


def append(
    path: Path, lines: Iterable[bytes], sync: bool = False, good: Callable[[bytes], bool] = lambda line: True
) -> None:
    """Write each line, whole or not at all, by one `write`; with `sync` they are on the disk then. The file, mode 0600,
    and its folder are made if need be. A last line that is there and is not `good` goes.

    Raises OSError; then the lines before are written.
    """
    make_folder(path.parent)
    with _locked(path, os.O_CREAT) as file:
        if _is_regular(file):
            with contextlib.suppress(PermissionError):  # another user's file that we may write
                os.fchmod(file, 0o600)
            _mend(file, good)
        new = not os.fstat(file).st_size
        for data in lines:
            _write(file, data)
        if sync:
            os.fsync(file)
    if sync and new:
        sync_folder(path.parent)


def rotate(path: Path, most: int, keep: int) -> bool:
    """Where the file has `most` bytes or more, it becomes `path.1`, that `path.2`, ... up to `keep`; the last goes.

    Nobody's line is lost: who waits for the lock then writes into a new file. Raises OSError.
    """
    try:
        if path.stat().st_size < most:
            return False
        with _locked(path) as file:
            if not _is_regular(file) or os.fstat(file).st_size < most:
                return False
            free = (at for n in itertools.count(1) if not (at := numbered(path, n)).is_dir())  # a folder is somebody's
            places = [path, *itertools.islice(free, keep)]
            for older, newer in itertools.pairwise(reversed(places)):
                if newer.exists():
                    os.replace(newer, older)
            if not keep:
                os.unlink(path)
    except FileNotFoundError:  # another process was first
        return False
    return True


def numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def rotated(path: Path) -> list[Path]:
    """A file and those that it was before, the newest first."""
    numbers: list[int] = []
    with contextlib.suppress(OSError):
        names = (at.name.removeprefix(f"{path.name}.") for at in path.parent.iterdir() if at.name != path.name)
        numbers = sorted(int(name) for name in names if name.isascii() and name.isdecimal())
    return [path, *(at for number in numbers if (at := numbered(path, number)).is_file())]


@contextlib.contextmanager
def all_opened(path: Path, tries: int = 100) -> Iterator[list[BinaryIO]]:
    """A file and those that it was before, the newest first, as they were at one moment: where they move on while they
    are opened, they are opened again. Raises OSError."""
    for left in reversed(range(tries)):
        with contextlib.ExitStack() as stack:
            there = [at for at in rotated(path) if at.exists()] or [path]
            try:
                files = [stack.enter_context(opened(at)) for at in there]
                steady = all(
                    os.path.samestat(os.fstat(f.fileno()), at.stat()) for f, at in zip(files, there, strict=True)
                )
            except FileNotFoundError:
                if not left or not any(at.exists() for at in rotated(path)):
                    raise
                continue
            if steady or not left:
                yield files
                return


def count(path: Path, wanted: Callable[[bytes], bool]) -> int:
    """How many lines are of a kind; none of a file that is not there. Raises OSError."""
    with contextlib.suppress(FileNotFoundError), opened(path) as lines:
        return sum(map(wanted, lines))
    return 0


def remove(path: Path, goes: Callable[[bytes], bool]) -> int:
    """Write the file anew without some of its lines -> how many went. Raises OSError; then it is as it was."""
    with contextlib.suppress(FileNotFoundError), _locked(path) as file, open(os.dup(file), "rb") as lines:
        if not _is_regular(file):
            return 0
        gone = {number for number, data in enumerate(lines) if goes(data)}
        if gone:  # whoever waits for the lock then finds another file at the path
            lines.seek(0)
            write_atomically(path, (data for number, data in enumerate(lines) if number not in gone))
        return len(gone)
    return 0


@contextlib.contextmanager
def _locked(path: Path, flags: int = 0) -> Iterator[int]:
    """The locked descriptor of the file that is at `path` now: another process may have replaced or moved it."""
    there = False
    while not there:
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | flags, 0o600)
        try:
            with contextlib.suppress(OSError):  # some network file systems have no locks; appending works without
                fcntl.flock(file, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                there = os.path.samestat(os.fstat(file), os.stat(path))
            if there:
                yield file
        finally:
            os.close(file)


def _is_regular(file: int) -> bool:
    return stat.S_ISREG(os.fstat(file).st_mode)


def _mend(file: int, good: Callable[[bytes], bool]) -> None:
    """A last line without its end gets one if it can be read, and goes if not, or if it is not `good`."""
    size = os.fstat(file).st_size
    start = _last_line(file, size - 1)
    last = os.pread(file, size - start, start) if size else b""
    whole = last.removesuffix(b"\n") + b"\n"
    if last and not (good(whole) and (last == whole or parse(last) is not None)):
        os.ftruncate(file, start)
    elif last != whole and last:
        _write(file, b"\n")


def _last_line(file: int, end: int) -> int:
    """The place after the last newline."""
    while end > 0:
        start = max(0, end - BLOCK)
        found = os.pread(file, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _write(file: int, data: bytes) -> None:
    written = 0
    try:
        while written < len(data):  # the first call writes it all unless the disk is full
            written += os.write(file, data[written:])
    except OSError:
        if written:
            os.ftruncate(file, os.fstat(file).st_size - written)
        raise
