"""Sessions on disk: one JSONL file each, `sessions/<id>.jsonl` in the user's data directory, mode 0600.

JSONL and not SQLite: a crash costs at most the last line, any tool reads it, and a forgotten lesson can really be taken
out. A file written anew holds no byte of it, while a database keeps deleted rows in free pages and its journal.

Records, one per line, each with `v`, `time` (seconds since 1970) and `kind`:

    session  model, memory, backend, system, oneshot (true where it is no chat), piped (where nobody sat at it) and
             which memory file was used: the first line
    turn     user, reply, learned (one line), lessons (ids of those it taught), fired (ids of those it comes from),
             interrupted, more (true where it is the turn before with a longer reply)
    lesson   id, question, answer: taught by a command
    new      a new conversation began
    saved    path: where the memory was saved
    exported path: where the conversation was written to
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmm.config import own_folder
from lmm.errors import UsageError
from lmm.files import jsonl
from lmm.files.atomic import make_folder
from lmm.files.traces import taught_by
from lmm.text.fold import contains

if TYPE_CHECKING:
    from lmm.files.traces import Trace

VERSION = 1
RECENT = 50  # files that changed last: the last thing said is in one of them
LATEST = 1e11  # seconds since 1970: the year 5138
_ID = re.compile(r"\d{8}-\d{6}-\d{6}")


def data_dir() -> Path:
    """Where transcripts and the history live: LMM_DATA_DIR, or "lmm" in the user's data directory."""
    return Path(os.environ.get("LMM_DATA_DIR") or own_folder("data")).expanduser()


def sessions_dir() -> Path:
    return data_dir() / "sessions"


class Transcript:
    """One session's file. It appears with the first record; a disk that is full or read-only never stops a chat."""

    def __init__(self, path: Path | None = None, **about: Any) -> None:
        self.path = path or sessions_dir() / f"{datetime.now():%Y%m%d-%H%M%S-%f}.jsonl"
        self.error = ""
        self._about = about

    @property
    def id(self) -> str:
        return self.path.stem

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a record. The first failure is kept in `error`, and nothing is written after it."""
        if self.error:
            _mark_missing()
            return
        lines = [] if self.path.exists() else [{"kind": "session", **self._about}]
        now = {"v": VERSION, "time": round(time.time(), 3)}
        try:
            jsonl.append(self.path, [jsonl.line({**now, **values}) for values in [*lines, record]])
        except OSError as error:
            self.error = f"the transcript {self.path} cannot be written: {error.strerror or error}"
            _mark_missing()


def _marks() -> list[Path]:
    """Empty files whose time tells when a record was last not written: a full disk has room for them, and where the
    user's folder cannot be written, there is another."""
    import tempfile

    where = hashlib.sha256(os.path.realpath(data_dir()).encode()).hexdigest()[:16]
    with contextlib.suppress(OSError):
        return [data_dir() / ".missing", Path(tempfile.gettempdir()) / f"lmm-{os.getuid()}-{where}.missing"]
    return [data_dir() / ".missing"]


def _mark_missing() -> None:
    for mark in _marks():
        with contextlib.suppress(OSError):
            make_folder(mark.parent)
            os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))
            os.utime(mark, follow_symlinks=False)
            return


def _is_missing_since(seconds: float) -> bool:
    """Whether something that was said after a time was not written."""
    return any(_changed(mark) > seconds for mark in _marks())


@dataclass(frozen=True)
class Session:
    """A session as it was written. `records` are the turns of the conversation that was open last."""

    id: str
    path: Path
    time: float = 0.0
    about: dict[str, Any] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    lessons: int = 0
    saved: str = ""

    @property
    def turns(self) -> list[tuple[str, str]]:
        """(user, reply)."""
        return [(record["user"], record["reply"]) for record in self.records]

    @property
    def oneshot(self) -> bool:
        return self.about.get("oneshot") is True

    @property
    def piped(self) -> bool:
        return self.about.get("piped") is True

    @property
    def title(self) -> str:
        return self.turns[0][0] if self.turns else ""


def read(path: Path) -> Session:
    """One session. Lines that cannot be read are left out. Raises UsageError if there is no such file."""
    about: dict[str, Any] = {}
    turns: list[dict[str, Any]] = []
    lessons: set[str] = set()
    saved, last = "", 0.0
    for record in _records(path):
        kind = record.get("kind")
        last = max(last, _time(record.get("time")))
        if kind == "session":
            about = record
        elif kind == "turn" and all(isinstance(record.get(key), str) for key in ("user", "reply")):
            turns = [*(turns[:-1] if record.get("more") is True else turns), record]
            lessons.update(taught_by(record))
        elif kind == "lesson":
            lessons.add(str(record.get("id")))
        elif kind == "new":
            turns = []
        elif kind == "saved" and isinstance(record.get("path"), str):
            saved = record["path"]
    return Session(path.stem, path, last, about, turns, len(lessons), saved)


def _by_time(value: Any) -> tuple[bool, float]:
    """To sort by: a time that is still to come is of before the clock was set back."""
    return _time(value) <= time.time(), _time(value)


def _time(value: Any) -> float:
    """Seconds since 1970, or 0 where it is no time."""
    return float(value) if isinstance(value, (int, float)) and 0 <= value < LATEST else 0.0


def _records(path: Path) -> Iterator[dict[str, Any]]:
    try:
        yield from (record for record in jsonl.values(path) if isinstance(record, dict))
    except OSError as error:
        raise UsageError(
            f"the session {path.stem} cannot be read ({error.strerror or error}); lmm sessions lists the others"
        ) from error


def paths() -> list[Path]:
    """Files of sessions, newest first."""
    with contextlib.suppress(OSError):
        found = [p for p in sessions_dir().iterdir() if p.suffix == ".jsonl" and _ID.fullmatch(p.stem)]
        return sorted(found, reverse=True)
    return []


def of_profile(mine: Callable[[str | None], bool]) -> list[Path]:
    """Files of the sessions whose profile is one's own, newest first."""
    found = []
    for path in paths():
        with contextlib.suppress(UsageError):
            about = next(_records(path), {})
            profile = about.get("profile")
            if mine(profile if isinstance(profile, str) else None):
                found.append(path)
    return found


def sessions(limit: int | None = None, warn: Callable[[str], object] = lambda text: None) -> list[Session]:
    """Chats, newest first; `warn` is told of each that cannot be read."""

    def readable() -> Iterator[Session]:
        for path in paths():
            try:
                yield read(path)
            except UsageError as error:
                warn(str(error))

    return list(itertools.islice((s for s in readable() if not s.oneshot), limit))


def find(which: str = "", oneshots: bool = False, piped: bool = True) -> Session:
    """A session by its id or the beginning of it, or the last chat in which something was said.

    With `oneshots` it is the session in which something was said last, be it by `lmm ask`; without `piped` one that
    somebody sat at. Raises UsageError.
    """
    if oneshots and not which:
        newest = sorted(paths(), key=_changed, reverse=True)[:RECENT]
        said = [session for session in map(read, newest) if session.turns]
        if said:
            last = max(said, key=lambda session: _by_time(session.records[-1].get("time")))
            if _is_missing_since(_time(last.records[-1].get("time"))):
                raise UsageError("what was said last could not be written, so nobody knows it any more; ask it again")
            return last
    for path in paths():
        if which and not path.stem.startswith(which):
            continue
        session = read(path)
        if which or (session.turns and not session.oneshot and (piped or not session.piped)):
            return session
    known = "see: lmm sessions" if which else "start one with: lmm chat"
    raise UsageError(
        f"there is no session {which!r}; {known}" if which else f"there is no session to go on with; {known}"
    )


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def written(kind: str, among: Sequence[Path] | None = None) -> set[Path]:
    """Every file that a session says it `saved` or `exported`. Raises UsageError if a session cannot be read.

    Here and below, `among` are the sessions that are looked at, if not all."""
    records = (record for path in _these(among) for record in _records(path) if record.get("kind") == kind)
    return {Path(record["path"]) for record in records if isinstance(record.get("path"), str)}


def said_with(lesson_id: str, among: Sequence[Path] | None = None) -> list[str]:
    """What the user said in the turns that taught a lesson; there may be more in it. Raises UsageError."""
    records = (record for path in _these(among) for record in _records(path) if lesson_id in taught_by(record))
    return [record["user"] for record in records if isinstance(record.get("user"), str)]


def purge(trace: Trace, among: Sequence[Path] | None = None) -> int:
    """Take every record that is a lesson's out of sessions -> how many went. Raises OSError."""
    return sum(jsonl.remove(path, lambda line: is_of(trace, line)) for path in _these(among))


def _these(among: Sequence[Path] | None) -> Sequence[Path]:
    return paths() if among is None else among


def is_of(trace: Trace, line: bytes) -> bool:
    """A line that cannot be read, as a crash leaves it, goes with any of the lesson's words: nobody misses it."""
    record = jsonl.parse(line)
    if record is None:
        text = line.decode(errors="replace")
        return any(
            contains(text, words)
            for words in (trace.id, *trace.texts, *trace.own, *([trace.value] if trace.deep else []))
        )
    return isinstance(record, dict) and trace.has_turn(record)
