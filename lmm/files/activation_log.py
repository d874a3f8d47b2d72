"""`logs/memory_activations.jsonl`: what a memory did, one JSON object per line.

Every record has `v` (the version of this layout), `time` (seconds since 1970) and `kind`:

    hook    one call of a memory in a forward pass: module, layer, part, phase (prefill, decode, learn), positions
            [first, last], shape [B, T, D], input_slice and output_slice (hidden_states[:, -1, -5:], 6 digits)
    update  one side of learning from a user message: stage (pre_hooks, post_hooks), module, and info: whatever the
            hooks put there, under the names of INFO_FIELDS where they are known

Records are kept in memory and written at the end of a turn, once `most_waiting` are, or after `flush_seconds`; each by
one `write` to a file opened for appending, so several chats may share it. A file of `most_bytes` becomes `PATH.1`, that
`PATH.2` and so on, `keep` of them: a reader gets all of them as one log. NaN and infinity become the strings "NaN",
"Infinity" and "-Infinity", which `float` reads. A chat never fails because of its log: the first error is reported
once and turns the log off.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from lmm.errors import LmmError
from lmm.files import jsonl, known, own
from lmm.files.traces import Trace
from lmm.text.sanitize import clean_line

if TYPE_CHECKING:
    import numpy as np

    from lmm.adapters.base import Site

VERSION = 1
BAD = "bad"  # the kind of a line that is no record; none of a log's own
STAGES = ("pre_hooks", "post_hooks")
#: The names under which learning reports what it did.
INFO_FIELDS = (
    "last_user_response",
    "user_response_target_token_ids",  # the content tokens, which the loss is made of
    "user_response_token_losses",
    "user_response_token_loss_by_decoded_token",  # see `loss_by_decoded_token`
    "user_response_raw_target_token_ids",  # with the chat template's scaffold
    "user_response_raw_token_losses",
    "grad_A_norm",
    "grad_B_norm",
)
#: Fields of a record that are never the user's words.
_LAYOUT = {"v", "time", "kind", "module", "layer", "part", "phase", "positions", "shape", "stage"}
_LAYOUT |= {"input_slice", "output_slice"}
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_REPEATED = re.compile(r"#\d+$")  # see `loss_by_decoded_token`
PathLike = str | os.PathLike[str]


def loss_by_decoded_token(tokens: Sequence[str], losses: Sequence[float]) -> dict[str, float]:
    """Losses by token text, in order; what is there again becomes "the#2", "the#3", ..."""
    result: dict[str, float] = {}
    counts: dict[str, int] = {}
    for token, loss in zip(tokens, losses, strict=True):
        key = token
        while key in result:  # a loop, because "a#2" may itself be a token
            counts[token] = counts.get(token, 1) + 1
            key = f"{token}#{counts[token]}"
        result[key] = loss
    return result


def _report(message: str) -> None:
    print(message, file=sys.stderr)


class ActivationLog:
    """Appends records to `path`; a context manager. Disabled, it does nothing but `purge`.

    `warn` gets the one message about a log that cannot be written. Methods may be called from any thread.
    """

    def __init__(
        self,
        path: PathLike = "logs/memory_activations.jsonl",
        enabled: bool = True,
        most_waiting: int = 256,
        flush_seconds: float = 1.0,
        warn: Callable[[str], None] = _report,
        most_bytes: int = 50_000_000,
        keep: int = 3,
    ) -> None:
        self.path = Path(path)
        self.enabled, self.most_bytes, self.keep = enabled, most_bytes, keep
        self.most_waiting, self.flush_seconds, self._warn = most_waiting, flush_seconds, warn
        self._waiting: list[tuple[float, str, Callable[[], dict[str, Any]]]] = []  # when, the kind, further fields
        self._flushed = time.monotonic()
        self._lock = threading.RLock()
        if enabled:
            own.check(self.path, own.LOG)
            with self._off_on_error():
                jsonl.append(self.path, [])
            known.remember(self.path, "log")

    def __enter__(self) -> ActivationLog:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def hook(
        self,
        module: str,
        site: Site,
        phase: str,
        positions: Sequence[int] | np.ndarray,
        x_in_slice: Any,
        x_out_slice: Any,
        shape: Sequence[int] = (),
        **fields: Any,
    ) -> None:
        """One call of a memory: `positions` [T], slices [B, 5] as arrays or nested lists, `shape` (B, T, D).

        Further fields (the lessons that fired, say) are written as they are. All become text when they are written,
        together: between two passes over a model's weights nothing of it would be in the processor's caches.
        """
        if not self.enabled:
            return

        def record() -> dict[str, Any]:
            span = [positions[0], positions[-1]] if len(positions) else [0, -1]
            where = {"module": module, "layer": site.layer, "part": site.part, "phase": phase, "positions": span}
            return where | {"shape": shape, "input_slice": x_in_slice, "output_slice": x_out_slice} | fields

        self._add("hook", record)

    def update(self, stage: str, info: Mapping[str, Any], module: str = "") -> None:
        """What is known before (`pre_hooks`) or after (`post_hooks`) learning from a user message."""
        if stage not in STAGES:
            raise ValueError(f"unknown stage {stage!r}; known: {', '.join(STAGES)}")
        if self.enabled:
            record = {"stage": stage, "module": module, "info": _plain(info)}
            self._add("update", lambda: record)

    def flush(self) -> None:
        """Write what is buffered; call it at the end of each turn."""
        with self._lock, self._off_on_error():
            self._flushed = time.monotonic()
            if not self._waiting:
                return
            waiting, self._waiting = self._waiting, []
            lines = [_line(*one) for one in waiting]
            jsonl.rotate(self.path, self.most_bytes, self.keep)
            jsonl.append(self.path, lines)

    def close(self) -> None:
        """Write what is left and stop logging. May be called again."""
        self.flush()
        with self._lock:
            self.enabled = False

    def purge(self, trace: Trace) -> int:
        """Rewrite the files without the records that mention a lesson -> how many were removed.

        A record goes if it has the id, or a text that is long enough to name the lesson, also spread over the tokens of
        a map; a short one only where it is a whole field of a record that names no lesson. A line that cannot be read
        goes too. Works on a disabled log. Raises LmmError, and then the file is as it was.
        """
        return self._without(lambda line: mentions(line, trace))

    def prune(self, before: float) -> int:
        """Take out the passes before a time, in seconds since 1970, and keep what was learned -> how many went. Raises
        LmmError."""

        def goes(line: bytes) -> bool:
            record = jsonl.parse(line)
            if not isinstance(record, dict):
                return True
            time = record.get("time")
            return record.get("kind") == "hook" and not (isinstance(time, (int, float)) and time >= before)

        return self._without(goes)

    def _without(self, goes: Callable[[bytes], bool]) -> int:
        """The newest file first: one that moves on meanwhile is still met."""
        self.flush()
        with self._lock:
            try:
                return sum(jsonl.remove(path, goes) for path in jsonl.rotated(self.path))
            except OSError as error:
                reason = clean_line(error.strerror or error)
                raise LmmError(
                    f"cannot remove anything from the log {clean_line(self.path, 1000)}: {reason}; "
                    "free some space or delete that file"
                ) from error

    def _add(self, kind: str, fields: Callable[[], dict[str, Any]]) -> None:
        with self._lock:
            self._waiting.append((time.time(), kind, fields))
            if len(self._waiting) >= self.most_waiting or time.monotonic() - self._flushed >= self.flush_seconds:
                self.flush()

    @contextlib.contextmanager
    def _off_on_error(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: a path with a null byte
            self.enabled = False
            self._waiting.clear()
            reason = clean_line(error.strerror if isinstance(error, OSError) else error)
            self._warn(
                f"the activation log {clean_line(self.path, 1000)} cannot be written ({reason}) and is now off; "
                "the chat goes on. Choose another place with --activation-log-path, or --no-log"
            )


def read(path: PathLike) -> Iterator[dict[str, Any]]:
    """The records of a log and of those before it, in order. A last line without its end is skipped: its writer may
    still be at it.

    Any other line that is no record, or one of a newer version, is one of the kind BAD, with its number as `line` and
    what is wrong as `problem`. Raises LmmError for a file that cannot be read.
    """
    try:
        with jsonl.all_opened(Path(path)) as files:
            for file in reversed(files):
                yield from _records(file)
    except (OSError, ValueError) as error:
        reason = clean_line(getattr(error, "strerror", None) or error)
        raise LmmError(
            f"cannot read the activation log {clean_line(path, 1000)}: {reason}; "
            "a chat writes one unless --no-log is given (another place: --activation-log-path)"
        ) from error


def _records(file: BinaryIO) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file, 1):
        record = jsonl.parse(line)
        if record is None and not line.endswith(b"\n"):
            return
        problem = _problem(record)
        yield {"kind": BAD, "line": number, "problem": problem} if problem else record


def _problem(record: Any) -> str:
    if not isinstance(record, dict) or type(version := record.get("v")) is not int or version < 1:
        return "no record of an activation log"
    return f"of version {version}, this lmm reads {VERSION}: upgrade lmm" if version > VERSION else ""


# records -----------------------------------------------------------------------------------------------------
def _line(seconds: float, kind: str, fields: Callable[[], dict[str, Any]]) -> bytes:
    return jsonl.line({"v": VERSION, "time": round(seconds, 3), "kind": kind} | _plain(fields()))


def _plain(value: Any) -> Any:
    """What JSON can say; anything strange becomes text: an odd record is better than a chat that stops."""
    if isinstance(value, float):
        text = f"{value:.6g}"  # only "nan" and "inf" have an n
        return _NOT_FINITE[text] if "n" in text else float(text)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # arrays and scalars of any library
        return _plain(value.tolist())
    return str(value)


# forgetting --------------------------------------------------------------------------------------------------
def mentions(line: bytes, wanted: Trace) -> bool:
    record = jsonl.parse(line)
    if not isinstance(record, dict) or not line.endswith(b"\n"):
        return True
    said = {name: value for name, value in record.items() if name not in _LAYOUT}
    texts = list(_texts(said))
    if (wanted.id and wanted.id in texts) or any(map(wanted.is_named_in, texts)):
        return True
    info = record.get("info")
    knows = isinstance(info, dict) and "lesson_id" in info
    return not knows and any(map(wanted.is_text, texts))


def _texts(value: Any) -> Iterator[str]:
    """All text in a record's value. The names of a map, and the items of a list, also joined: they may be tokens."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        names = [_REPEATED.sub("", name) for name in value if name not in INFO_FIELDS]
        yield from (*names, "".join(names))
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        yield "".join(item for item in value if isinstance(item, str))
        for item in value:
            yield from _texts(item)
