"""How well are user turns read? For each language: the kind, whether anything was learned, and the very value.

A file has one JSON object a line: `text`, `last` ({"user", "assistant"} or null), `kind` (nothing, statement,
correction), `value` and `language`. An update counts as a statement, a retraction as nothing: it brings no value.
Values are compared in whole words, without articles and closing marks; of a turn that states several facts the labelled
one must be among those heard.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from lmm.errors import UsageError
from lmm.feedback import Exchange, Reading, read
from lmm.feedback.reading import Kind
from lmm.text.fold import words

KIND = {"update": "statement", "retraction": "nothing"}
ARTICLES = re.compile(
    r"^(?:(?:an?|the|der|die|das|den|dem|ein|eine|einen|einem|einer|le|la|les|un|une|des|du|el|los|las|una|l) )+"
)


@dataclass(frozen=True)
class Labelled:
    """A turn, and what is to be learned from it."""

    text: str
    last: Exchange | None
    kind: str
    value: str
    language: str


def labelled(path: Path) -> list[Labelled]:
    """The turns of a file. Raises UsageError, with the line, if one is no such object."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    return [_labelled(line, f"{path}, line {at}") for at, line in enumerate(lines, 1) if line.strip()]


def _labelled(line: str, where: str) -> Labelled:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UsageError(f"{where}: no labelled turn: no JSON, {error}") from error
    if wrong := _wrong_with(row):
        raise UsageError(f"{where}: no labelled turn: {wrong}")
    last = Exchange(row["last"]["user"], row["last"]["assistant"]) if row.get("last") else None
    kind = KIND.get(row["kind"], row["kind"])
    return Labelled(row["text"], last, kind, row.get("value") or "", row.get("language", "en"))


def _wrong_with(row: Any) -> str:
    """What keeps it from being a labelled turn, or ""."""
    if not isinstance(row, dict):
        return "an object was expected"
    if not isinstance(row.get("text"), str):
        return '"text" is no text'
    last, value = row.get("last"), row.get("value")
    if last and not (isinstance(last, dict) and all(isinstance(last.get(k), str) for k in ("user", "assistant"))):
        return '"last" is neither null nor an object with the texts "user" and "assistant"'
    if row.get("kind") not in (kinds := get_args(Kind)):
        return f'"kind" is none of {", ".join(kinds)}'
    if not isinstance(row.get("language", "en"), str):
        return '"language" is no text'
    return "" if value is None or isinstance(value, str) else '"value" is no text'


def normal(value: str) -> str:
    """A value as it is compared: no case, no marks of a sentence, no leading article."""
    return ARTICLES.sub("", words(value))


def is_right(turn: Labelled, reading: Reading) -> bool:
    """Was the turn read as its label says: its kind, and the value among those heard?"""
    if KIND.get(reading.kind, reading.kind) != turn.kind:
        return False
    return turn.kind == "nothing" or normal(turn.value) in {normal(one.value) for one in (reading, *reading.also)}


def by_language(turns: Sequence[Labelled]) -> dict[str, dict[str, Any]]:
    """The figures of each language."""
    languages = dict.fromkeys(turn.language for turn in turns)
    return {language: measure([turn for turn in turns if turn.language == language]) for language in languages}


def measure(turns: Sequence[Labelled], reader: Callable[[str, Exchange | None], Reading] = read) -> dict[str, Any]:
    """The figures of some turns; times are of this thread's processor, with everything loaded."""
    reader("I live here.", None)
    began = time.thread_time()
    readings = [reader(turn.text, turn.last) for turn in turns]
    seconds = time.thread_time() - began
    pairs = list(zip(turns, readings, strict=True))
    kinds = [KIND.get(reading.kind, reading.kind) for reading in readings]
    learned = sum(kind != "nothing" for kind in kinds)
    teaching = sum(turn.kind != "nothing" for turn in turns)
    both = sum(turn.kind != "nothing" != kind for turn, kind in zip(turns, kinds, strict=True))
    right = sum(is_right(turn, reading) for turn, reading in pairs if turn.kind != "nothing")
    return {
        "turns": len(turns),
        "kind": _share(sum(turn.kind == kind for turn, kind in zip(turns, kinds, strict=True)), len(turns)),
        "learned": {"precision": _share(both, learned), "recall": _share(both, teaching)},
        "strict": {"precision": _share(right, learned), "recall": _share(right, teaching)},
        "ms": 1e3 * seconds / max(1, len(turns)),
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
