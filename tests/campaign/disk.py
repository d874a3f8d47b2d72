"""What a program asks of the disk, call by call: to let a call fail, or to know what a power cut leaves.

Python's own ways to write are replaced, not the system's: `os.open`, `os.write`, `os.fsync`, renames and their kin, and
`open` for writing. Everything in lmm/files goes through them; nothing that only reads does.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

Event = tuple[Any, ...]


class Disk:
    """Counts writing calls under `root`; from call `fail_at` on (with `lasting`; else that one) they raise `error`.

    `trace` has them as events: ("create", path), ("write", path, offset, data), ("cut", path, size), ("sync", path),
    ("rename", from, to), ("unlink", path), ("mkdir", path), and ("said", text) for what was written to stderr.
    """

    def __init__(self, root: Path, fail_at: int = 0, error: int = errno.ENOSPC, lasting: bool = False) -> None:
        self.root, self.fail_at, self.error, self.lasting = os.path.realpath(root), fail_at, error, lasting
        self.calls, self.trace = 0, list[Event]()
        self._files: dict[int, str] = {}
        self._real: dict[str, Callable[..., Any]] = {}

    def install(self) -> None:
        """For the rest of the process."""
        for name in ("open", "write", "ftruncate", "fsync", "replace", "rename", "unlink", "remove", "mkdir", "rmdir"):
            self._real[name] = getattr(os, name)
            setattr(os, name, getattr(self, f"_{name}"))
        self._open_file = builtins.open
        builtins.open = io.open = self._opened  # type: ignore[assignment,misc]

    def said(self, text: str) -> None:
        self.trace.append(("said", text))

    # calls -------------------------------------------------------------------------------------------------------
    def _inside(self, path: Any) -> str:
        """The absolute path, "" for one that is elsewhere."""
        try:
            found = os.path.join(os.path.realpath(os.path.dirname(os.fspath(path)) or "."), os.path.basename(path))
        except TypeError:
            return ""
        found = os.path.normpath(found)
        return found if found.startswith(self.root + os.sep) or found == self.root else ""

    def _tick(self, frees: bool = False) -> None:
        self.calls += 1
        if frees and self.error == errno.ENOSPC:  # no disk is too full for that
            return
        if self.fail_at and (self.calls >= self.fail_at if self.lasting else self.calls == self.fail_at):
            raise OSError(self.error, os.strerror(self.error))

    def _open(self, path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        inside = self._inside(path)
        new = bool(inside and flags & os.O_CREAT and not os.path.exists(path))
        if new:
            self._tick()
        file = self._real["open"](path, flags, mode, **more)
        self._files.pop(file, None)
        if inside:
            self._files[file] = inside
            if new:
                self.trace.append(("create", inside))
            if flags & os.O_TRUNC and not new:
                self.trace.append(("cut", inside, 0))
        return int(file)

    def _write(self, file: int, data: Any) -> int:
        path = self._files.get(file)
        if path is None:
            return int(self._real["write"](file, data))
        try:
            self._tick()
        except OSError:
            if self.error == errno.ENOSPC and self.calls == self.fail_at and len(data) > 1:  # there is room for half
                data = bytes(data)[: len(data) // 2]
            else:
                raise
        appending = os.lseek(file, 0, os.SEEK_CUR) if not self._appends(file) else os.fstat(file).st_size
        written = int(self._real["write"](file, data))
        self.trace.append(("write", path, appending, bytes(data)[:written]))
        return written

    @staticmethod
    def _appends(file: int) -> bool:
        import fcntl

        return bool(fcntl.fcntl(file, fcntl.F_GETFL) & os.O_APPEND)

    def _ftruncate(self, file: int, size: int) -> None:
        if path := self._files.get(file):
            self._tick(frees=size <= os.fstat(file).st_size)
            self.trace.append(("cut", path, size))
        self._real["ftruncate"](file, size)

    def _fsync(self, file: int) -> None:
        if path := self._files.get(file):
            self._tick()
            self.trace.append(("sync", path))
        self._real["fsync"](file)

    def _replace(self, source: Any, target: Any, **more: Any) -> None:
        self._moved("replace", source, target, **more)

    def _rename(self, source: Any, target: Any, **more: Any) -> None:
        self._moved("rename", source, target, **more)

    def _moved(self, name: str, source: Any, target: Any, **more: Any) -> None:
        before, after = self._inside(source), self._inside(target)
        if before:
            self._tick()
        self._real[name](source, target, **more)
        if before:
            self.trace.append(("rename", before, after))
            self._files = {file: after if path == before else path for file, path in self._files.items()}

    def _unlink(self, path: Any, **more: Any) -> None:
        self._gone("unlink", path, **more)

    def _remove(self, path: Any, **more: Any) -> None:
        self._gone("remove", path, **more)

    def _gone(self, name: str, path: Any, **more: Any) -> None:
        inside = self._inside(path)
        if inside and os.path.lexists(path):
            self._tick(frees=True)
        self._real[name](path, **more)
        if inside:
            self.trace.append(("unlink", inside))

    def _mkdir(self, path: Any, mode: int = 0o777, **more: Any) -> None:
        inside = self._inside(path)
        if inside and not os.path.exists(path):
            self._tick()
        self._real["mkdir"](path, mode, **more)
        if inside:
            self.trace.append(("mkdir", inside))

    def _rmdir(self, path: Any, **more: Any) -> None:
        self._real["rmdir"](path, **more)

    def _opened(self, file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **more: Any) -> Any:
        ours = file in self._files if isinstance(file, int) else self._inside(file)
        if not ours or not set(mode) & set("wax+"):
            return self._open_file(file, mode, buffering, *rest, **more)
        if not isinstance(file, int):
            flags = {"w": os.O_TRUNC, "a": os.O_APPEND, "x": os.O_EXCL}[mode[0]] | os.O_CREAT | os.O_WRONLY
            file = os.open(file, flags | os.O_CLOEXEC, 0o666)
        raw = io.BufferedWriter(_Raw(file, "wb"))
        return raw if "b" in mode else io.TextIOWrapper(raw, *rest[:3], **more)


class _Raw(io.FileIO):
    def write(self, data: Any) -> int:
        return os.write(self.fileno(), data)


class Survivors:
    """The files that a power cut leaves, of events up to it.

    Strictly, only what was synced: a file's bytes by its own `sync`, its name by that of its folder. Else the disk may
    have taken more of its own accord: by `chance`, names in their order, and of a file's bytes a beginning.
    """

    def __init__(self, before: dict[str, bytes], events: list[Event], chance: Any = None) -> None:
        self._number = 0
        self.names = {path: self._file(data) for path, data in before.items()}
        self.kept, self._chance = dict(self.names), chance
        self._waiting: list[tuple[str, Callable[[], None]]] = []
        for event in events:
            getattr(self, f"_{event[0]}")(*event[1:])
        if chance is not None:
            for _, apply in self._waiting[: chance.randint(0, len(self._waiting))]:
                apply()
        self.files = {path: self._left(node) for path, node in self.kept.items()}

    @staticmethod
    def _file(data: bytes = b"") -> dict[str, Any]:
        return {"now": bytearray(data), "synced": bytes(data)}

    def _left(self, node: dict[str, Any]) -> bytes:
        now, synced = bytes(node["now"]), node["synced"]
        if self._chance is None or now == synced or not now.startswith(synced):
            return synced if self._chance is None or self._chance.random() < 0.5 else now
        return now[: self._chance.randint(len(synced), len(now))]

    def _named(self, folder: str, change: Callable[[dict[str, Any]], None]) -> None:
        change(self.names)
        self._waiting.append((folder, lambda: change(self.kept)))

    def _create(self, path: str) -> None:
        node = self._file()
        self._named(os.path.dirname(path), lambda names: names.__setitem__(path, node))

    def _write(self, path: str, offset: int, data: bytes) -> None:
        now = self.names.setdefault(path, self._file())["now"]
        now[offset : offset + len(data)] = data

    def _cut(self, path: str, size: int) -> None:
        if path in self.names:
            del self.names[path]["now"][size:]

    def _sync(self, path: str) -> None:
        if path in self.names:
            self.names[path]["synced"] = bytes(self.names[path]["now"])
            return
        waiting, self._waiting = self._waiting, []  # a folder: the names in it, in their order
        for folder, apply in waiting:
            if folder == path:
                apply()
            else:
                self._waiting.append((folder, apply))

    def _rename(self, source: str, target: str) -> None:
        def change(names: dict[str, Any]) -> None:
            if source in names:
                names[target] = names.pop(source)

        self._named(os.path.dirname(target), change)

    def _unlink(self, path: str) -> None:
        self._named(os.path.dirname(path), lambda names: names.pop(path, None) and None)

    def _mkdir(self, path: str) -> None:
        pass

    def _said(self, text: str) -> None:
        pass
