"""Facts as a person tells them, the questions asked afterwards, and when a reply to one is right.

A file has a JSON object on each line:

    {"id", "category": [..], "before": [messages], "teach": message, "direct": Q, "rephrase": [Q, ..], "use": [Q, ..],
     "near": [Q, ..]}

with Q = {"q", "accept": [..], "forbid": [..], "kind"?}. `direct` and `rephrase` ask for the fact; `use` needs it and
does not ask for it; `near` sounds alike and has nothing to do with it. An entry of `accept` is a text, or a list of
texts that must all be there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmm.errors import UsageError
from lmm.text.fold import contains

SCORES = ("direct", "rephrase", "use", "near")
#: what says that the answer is not known, in the languages of the data: such a reply is wrong whatever else it says
UNKNOWN = re.compile(
    r"\bi (?:do not|don['’]?t) (?:know|have (?:any |that |this |enough )?(?:information|access))"
    r"|\bi(?:['’]m| am) not sure"
    r"|\bwei(?:ß|ss) ich nicht|\bich wei(?:ß|ss) (?:es )?nicht|\bje ne sais pas|\bno (?:lo )?s[eé]\b|不知道",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Asked:
    """A question, and what a right reply says: all of one of `accept`, and nothing of `forbid`."""

    q: str
    accept: tuple[tuple[str, ...], ...] = ()
    forbid: tuple[str, ...] = ()
    kind: str = ""

    @property
    def is_open(self) -> bool:
        """Neither "yes" nor "no" answers it."""
        return not self.kind.startswith("yes")

    def said_in(self, text: str) -> bool:
        """Does a text say one of the answers, in whole words?"""
        return any(all(contains(text, part) for part in parts) for parts in self.accept)

    def right(self, reply: str) -> bool:
        if any(contains(reply, text) for text in self.forbid):
            return False
        return not self.accept or (self.said_in(reply) and not UNKNOWN.search(reply))


@dataclass(frozen=True)
class StatedFact:
    """`before` and then `teach` are said by the user; the questions are asked later, by themselves."""

    id: str
    category: tuple[str, ...]
    before: tuple[str, ...]
    teach: str
    direct: Asked
    rephrase: tuple[Asked, ...]
    use: tuple[Asked, ...]
    near: tuple[Asked, ...]

    def asked(self, score: str) -> tuple[Asked, ...]:
        return (self.direct,) if score == "direct" else getattr(self, score)

    @property
    def questions(self) -> list[str]:
        return [asked.q for score in SCORES for asked in self.asked(score)]


def load(path: str | Path) -> tuple[list[StatedFact], str]:
    """The facts of a file, and the SHA-256 of it. Raises UsageError that names the line and the field."""
    try:
        raw = Path(path).read_bytes()
        lines = raw.decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the data file {path} cannot be read: {error}") from error
    facts = [_fact(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not facts:
        raise UsageError(f"{path} has no facts")
    ids = [fact.id for fact in facts]
    if twice := sorted({i for i in ids if ids.count(i) > 1}):
        raise UsageError(f"{path}: several facts have the id {twice[0]!r}")
    return facts, hashlib.sha256(raw).hexdigest()


def _fact(path: str | Path, number: int, line: str) -> StatedFact:
    try:
        record = _object(json.loads(line))
        lists = {name: tuple(map(_asked, _list(record, name))) for name in ("rephrase", "use", "near")}
        before, category = (tuple(map(_text, _list(record, name))) for name in ("before", "category"))
        for asked in (_asked(record["direct"]), *lists["rephrase"], *lists["use"]):
            if not asked.accept and not asked.forbid:
                raise ValueError(f"any reply to {asked.q!r} would be right: it has neither `accept` nor `forbid`")
        return StatedFact(
            _text(record["id"]), category, before, _text(record["teach"]), direct=_asked(record["direct"]), **lists
        )
    except KeyError as error:
        raise UsageError(f"{path}: line {number} has no field {error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: line {number} is no fact: {error}") from error


def _asked(value: Any) -> Asked:
    record = _object(value)
    ways = [[way] if isinstance(way, str) else way for way in _list(record, "accept")]
    forbid = tuple(map(_text, _list(record, "forbid")))
    return Asked(_text(record["q"]), tuple(tuple(map(_text, way)) for way in ways), forbid, record.get("kind") or "")


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"an object is expected, not {value!r:.60}")
    return value


def _list(record: Mapping[str, Any], name: str) -> Sequence[Any]:
    found = record.get(name) or ()
    if isinstance(found, str | Mapping):
        raise ValueError(f"a list is expected in {name!r}, not {found!r}")
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"text is expected, not {value!r}")
    return value
