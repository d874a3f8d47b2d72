"""Write a whole file or leave the old one as it was, also when the disk is full or the power fails.

What is to be read again here needs a regular file; what a user only wants to have goes into a pipe or a terminal, too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

#: A temporary file older than this was left by a process that was killed while saving, on whatever machine.
STALE_SECONDS = 3600.0
LINKS = 40  # that lead from one to the next: Linux follows no more


def write_atomically(path: str | os.PathLike[str], chunks: Iterable[bytes | memoryview]) -> None:
    """Replace `path` by `chunks` joined, mode 0600; missing folders are made, a symbolic link stays a link.

    The data are on the disk before the name changes (fsync, rename, fsync of the folder). Raises OSError; then the
    old file is untouched and nothing is left beside it.
    """
    _refuse_special(path)
    target = Path(os.path.realpath(path))
    make_folder(target.parent)
    remove_stale(target)
    descriptor, temporary = tempfile.mkstemp(
        prefix=f"{_prefix(target)}{os.getpid()}.", suffix=".tmp", dir=target.parent
    )
    try:
        with open(descriptor, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(target.parent)


def write_out(path: str | os.PathLike[str], chunks: Iterable[bytes | memoryview]) -> bool:
    """The same wherever a user wants it -> whether there is a file that has it. A pipe, a terminal and /dev/null take
    it as it comes, and so does what is open here already, as /dev/stdout: others may write to it before and after."""
    number = _descriptor(os.fspath(path))
    if number is None and _is_regular(path):
        write_atomically(path, chunks)
        return True
    with open(os.open(path, os.O_WRONLY) if number is None else os.dup(number), "wb") as file:
        for chunk in chunks:
            file.write(chunk)
    return False


def _descriptor(path: str) -> int | None:
    """Which file that is open here a path such as /dev/stdout or /dev/fd/3 leads to. To open it once more by that path
    would write over what it has."""
    own = {os.path.realpath(folder) for folder in ("/dev/fd", "/proc/self/fd")}
    for _ in range(LINKS):
        folder, name = os.path.realpath(os.path.dirname(path) or "."), os.path.basename(path)
        if folder in own and name.isdecimal():
            return int(name)
        path = os.path.join(folder, name)
        if not os.path.islink(path):
            break
        path = os.path.join(folder, os.readlink(path))
    return None


def make_folder(folder: Path) -> None:
    """With those above it that are missing, for the user alone (0700), whatever the umask. Raises OSError."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Make the folders of `path` and, for a moment, a file beside it. Raises OSError where `write_atomically` would."""
    _refuse_special(path)
    target = Path(os.path.realpath(path))
    make_folder(target.parent)
    with tempfile.NamedTemporaryFile(prefix=_prefix(target), suffix=".tmp", dir=target.parent):
        pass


def remove_stale(path: str | os.PathLike[str]) -> None:
    """Delete what killed processes left beside `path`: it may hold text that was forgotten since."""
    target = Path(os.path.realpath(path))
    for left in target.parent.iterdir():
        if left.name.startswith(_prefix(target)) and left.name.endswith(".tmp"):
            with contextlib.suppress(OSError):
                if not _is_running(left.name[len(_prefix(target)) :]) or _is_old(left):
                    left.unlink()


def _is_running(rest: str) -> bool:
    """Whether the process that a temporary file's name begins with, after the target's, may still be writing it."""
    pid = rest.partition(".")[0]
    if not (pid.isascii() and pid.isdecimal()):
        return True  # no name of ours: its age decides
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _is_old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > STALE_SECONDS


def _prefix(target: Path) -> str:
    # 200: file systems allow 255 bytes in a name, and mkstemp adds a random part
    return "." + os.fsdecode(os.fsencode(target.name)[:200]) + "."


def _refuse_special(path: str | os.PathLike[str]) -> None:
    """A rename would replace a device such as /dev/null by a plain file."""
    if not _is_regular(path):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def _is_regular(path: str | os.PathLike[str]) -> bool:
    """Whether a file is there, or may be made. Raises IsADirectoryError."""
    try:
        mode = os.stat(path).st_mode  # of what a link of /proc/self/fd is open as, though its text names no file
    except FileNotFoundError:
        return True
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    return stat.S_ISREG(mode)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk."""
    # Some file systems refuse to sync a folder; the file itself is safe by now.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
