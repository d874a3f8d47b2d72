"""Write a whole file or leave the old one as it was, also when the disk is full or the power fails."""

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


def write_atomically(path: str | os.PathLike[str], chunks: Iterable[bytes | memoryview]) -> None:
    """Replace `path` by `chunks` joined, mode 0600; missing folders are made, a symbolic link stays a link.

    The data are on the disk before the name changes (fsync, rename, fsync of the folder). Raises OSError; then the
    old file is untouched and nothing is left beside it.
    """
    target = Path(os.path.realpath(path))
    _refuse_special(target)
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


def make_folder(folder: Path) -> None:
    """With those above it that are missing, for the user alone (0700), whatever the umask. Raises OSError."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Make the folders of `path` and, for a moment, a file beside it. Raises OSError where `write_atomically` would."""
    target = Path(os.path.realpath(path))
    _refuse_special(target)
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


def _refuse_special(target: Path) -> None:
    """A rename would replace a device such as /dev/null by a plain file."""
    with contextlib.suppress(FileNotFoundError):
        mode = target.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder", str(target))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(target))


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk."""
    # Some file systems refuse to sync a folder; the file itself is safe by now.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
