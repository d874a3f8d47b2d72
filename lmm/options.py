"""One declaration of an option: type, default, range, and why. Whoever has options inherits from `Options`.

    @dataclass(frozen=True)
    class LoraOptions(Options):
        rank: int = option(8, "columns of A", "[1, 512]")
        target: str = option("message", "what is trained on", one_of=("message", "reply"))

A range is an interval as mathematics writes it; "inf" is no limit. Values are checked when an instance is made, and all
problems are named at once. Flags, config file and help are made from the same declarations.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Self

from lmm.errors import UsageError

_INTERVAL = re.compile(r"([\[(])\s*(\S+?)\s*,\s*(\S+?)\s*([\])])")
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@dataclasses.dataclass(frozen=True)
class Declared:
    """What `option` was told. `low`, `high`: the interval's ends, which belong to it where `closed` says so. `of_state`:
    what a memory has stored means something else with another value."""

    why: str
    low: float = -math.inf
    high: float = math.inf
    closed: tuple[bool, bool] = (True, True)
    one_of: tuple[str, ...] = ()
    of_state: bool = False

    def problem(self, name: str, value: Any) -> str | None:
        """What is wrong with a value, in words; None for a good one."""
        if self.one_of:
            return None if value in self.one_of else f"{name} must be one of {', '.join(self.one_of)}, not {value!r}"
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        above = value >= self.low if self.closed[0] else value > self.low
        below = value <= self.high if self.closed[1] else value < self.high
        return None if above and below else f"{name} must be {self.range()}, not {value}"

    def range(self) -> str:
        """The interval in words: "1 to 512", "above 0 and at most 10", "0 or above"."""
        low, high = f"{self.low:,g}", f"{self.high:,g}"
        if self.high == math.inf:
            return f"{low} or above" if self.closed[0] else f"above {low}"
        if self.low == -math.inf:
            return f"at most {high}" if self.closed[1] else f"below {high}"
        if self.closed == (True, True):
            return f"{low} to {high}"
        if self.closed == (False, False):
            return f"between {low} and {high}"
        return f"at least {low} and below {high}" if self.closed[0] else f"above {low} and at most {high}"


def option(default: Any, why: str, within: str = "", one_of: Iterable[str] = (), of_state: bool = False) -> Any:
    """A field of `Options`. `within`: an interval such as "(0, 1]"; `one_of`: the texts it may be."""
    found = _INTERVAL.fullmatch(within) if within else None
    if within and found is None:
        raise ValueError(f"{within!r} is no interval")
    declared = Declared(why, one_of=tuple(one_of), of_state=of_state)
    if found:
        closed = (found[1] == "[", found[4] == "]")
        declared = dataclasses.replace(declared, low=float(found[2]), high=float(found[3]), closed=closed)
    return dataclasses.field(default=default, metadata={"option": declared})


@dataclasses.dataclass(frozen=True)
class Options:
    """Base class of declared options. Making one raises UsageError that names every problem."""

    def __post_init__(self) -> None:
        problems = []
        for field in dataclasses.fields(self):
            declared = field.metadata.get("option")
            problems += [declared.problem(field.name, getattr(self, field.name))] if declared else []
        if found := [*filter(None, problems), *self.together()]:
            raise UsageError("; ".join(found))

    def together(self) -> list[str]:
        """What is wrong with values that are each in their range; for subclasses."""
        return []

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Options from plain values. Raises UsageError that names every unknown key and bad value."""
        known = {field.name: field for field in dataclasses.fields(cls)}
        problems = [f"no option {key!r} (has: {', '.join(known) or 'none'})" for key in values if key not in known]
        fitting: dict[str, Any] = {}
        for key, value in values.items():
            if key in known:
                try:
                    fitting[key] = fitted(value, known[key].default)
                except ValueError as error:
                    problems.append(f"{key} must be {error}, not {value!r}")
        try:
            made = cls(**fitting)
        except UsageError as error:
            problems.append(str(error))
        if problems:
            raise UsageError("; ".join(problems))
        return made

    @classmethod
    def declared(cls) -> dict[str, Declared]:
        """The declarations, by name."""
        return {f.name: f.metadata["option"] for f in dataclasses.fields(cls) if "option" in f.metadata}


def fitted(value: Any, default: Any) -> Any:
    """A value of the kind of an option's default. Raises ValueError that says which kind."""
    kind = type(default)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if kind not in _KINDS or (type(value) is kind and kind is not float):
        return value
    raise ValueError(_KINDS[kind])
