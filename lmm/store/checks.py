"""What no store can hold, which all refuse alike before anything is stored; what is too large to be taken anew, though
an earlier version may have kept it; and when two values are the same."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from lmm.errors import UsageError

LONGEST = 200  # characters of a new name: of a user, a matter or an entry. An index of PostgreSQL holds 2,704 bytes
LARGEST = 200_000  # bytes of a new text, or of metadata as JSON. PostgreSQL's list of a text's words holds a megabyte
NESTED = 32  # lists and objects in one another
LATEST = 253_402_300_799.0  # seconds since 1970 at the end of the year 9999, of a new time


def storable(text: Any, what: str = "the text") -> str:
    """Raises UsageError for what no store can hold, of whatever length."""
    if not isinstance(text, str):
        raise UsageError(f"{what} must be text, not {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{what} has a character that is not Unicode: {error.object[error.start]!r}") from None
    if "\0" in text:
        raise UsageError(f"{what} has a zero byte in it")
    return text


def not_too_large(text: Any, what: str) -> str:
    """The same for what is kept as one."""
    size = len(storable(text, what).encode())
    if size > LARGEST:
        raise UsageError(f"{what} has {size:,} bytes, and at most {LARGEST:,} are kept as one: give it in parts")
    return text


def named(text: Any, what: str) -> str:
    """The same for a name."""
    if len(storable(text, what)) > LONGEST:
        raise UsageError(f"{what} has at most {LONGEST} characters")
    return text


def user_name(text: Any) -> str:
    """Raises UsageError for what cannot name a user."""
    return named(text, "a user's name")


def number_of(time: Any) -> float:
    """A time in seconds since 1970. Raises UsageError."""
    if isinstance(time, bool) or not isinstance(time, int | float) or not abs(time) <= sys.float_info.max:
        raise UsageError(f"{time} is no time: seconds since 1970")
    return float(time)


def time_of(value: Any) -> float:
    """The same for one that anybody can mean."""
    if abs(time := number_of(value)) > LATEST:
        raise UsageError(f"{value} is no time: seconds since 1970, up to the year 9999")
    return time


def json_values(values: Any, limited: bool = False) -> dict[str, Any]:
    """Metadata as JSON gives it back; of whatever length, unless it is `limited`. Raises UsageError."""
    if values == {}:
        return {}
    try:
        text = json.dumps(dict(values), allow_nan=False)
        if limited:  # before each of its values is looked at
            not_too_large(text, "metadata")
        plain = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"metadata is what JSON can hold: {error}") from None
    for one in _texts(plain, NESTED):
        storable(one, "metadata")
    return plain


def small_values(values: Any) -> dict[str, Any]:
    """The same for metadata that is new, or looked for."""
    return json_values(values, limited=True)


def read_metadata(text: str) -> dict[str, Any]:
    """What a store has. A value that an earlier version took, and none takes now, is one text."""
    try:
        return json_values(json.loads(text))
    except (UsageError, ValueError, RecursionError):
        return {"unreadable": text}


def alike(a: Any, b: Any) -> bool:
    """Whether two values of JSON are the same: 1 is 1.0, but not true."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(alike(a[name], b[name]) for name in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(alike, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and a == b


def has(metadata: Mapping[str, Any], name: str, value: Any) -> bool:
    return name in metadata and alike(metadata[name], value)


def _texts(value: Any, levels: int) -> Iterator[str]:
    """All names and texts in it. Raises UsageError where it is nested deeper."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        if not levels:
            raise UsageError(f"metadata is what JSON can hold, nested {NESTED} deep at most")
        for one in (*value, *value.values()) if isinstance(value, dict) else value:
            yield from _texts(one, levels - 1)
