"""One declaration of an option: type, default, range, and why. Whoever has options inherits from `Options`.

    @dataclass(frozen=True)
    class LoraOptions(Options):
        rank: int = option(8, "columns of A", "[1, 512]")
        target: str = option("message", "what is trained on", one_of=("message", "reply"))

A range is an interval as mathematics writes it; "inf" is no limit. Values are checked when an instance is made, and all
problems are named at once. Flags, variables, config file and help are made from the same declarations.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from types import UnionType
from typing import Any, ClassVar, Self, get_args, get_origin, get_type_hints

from lmm.errors import UnknownNameError, UsageError

_INTERVAL = re.compile(r"([\[(])\s*(\S+?)\s*,\s*(\S+?)\s*([\])])")
_KINDS = {
    bool: "true or false", int: "a whole number", float: "a number", str: "a text", Mapping: "a table of options",
    tuple: "whole numbers, by commas", frozenset: "names, by commas",
}  # fmt: skip
_BOOL = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False)


def by_commas(text: str) -> list[str]:
    """What stands between commas, where anything does."""
    return [part.strip() for part in text.split(",") if part.strip()]


#: kind -> its value of a text
_READ: dict[type, Callable[[str], Any]] = {
    bool: lambda text: _BOOL[text.lower()],
    int: int,
    float: float,
    tuple: lambda text: tuple(dict.fromkeys(map(int, by_commas(text)))),
    frozenset: lambda text: frozenset(by_commas(text)),
}


@dataclasses.dataclass(frozen=True)
class Declared:
    """What `option` was told. `low`, `high`: the interval's ends, which belong to it where `closed` says so."""

    why: str
    low: float = -math.inf
    high: float = math.inf
    closed: tuple[bool, bool] = (True, True)
    one_of: tuple[str, ...] = ()
    names: Callable[[], Iterable[str]] = tuple
    group: str = ""
    flag: str = ""
    live: bool = False
    learning: bool = False
    flag_only: bool = False

    def problem(self, name: str, value: Any) -> str | None:
        """What is wrong with a value, in words; None for a good one. Of several, each has to be good."""
        if isinstance(value, tuple | frozenset):
            return "; ".join(filter(None, (self.problem(name, one) for one in sorted(value)))) or None
        if self.one_of:
            if value in self.one_of:
                return None
            close = difflib.get_close_matches(str(value), self.one_of, n=1, cutoff=0.5)
            hint = f": did you mean {close[0]!r}?" if close else ""
            return f"{name} must be one of {', '.join(self.one_of)}, not {value!r}{hint}"
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        above = value >= self.low if self.closed[0] else value > self.low
        below = value <= self.high if self.closed[1] else value < self.high
        return None if above and below else f"{name} must be {self.range()}, not {value}"

    def range(self) -> str:
        """The values it may have, in words: "auto or off", "1 to 512", "0 or above"; "" where any will do."""
        low, high = f"{self.low:,g}", f"{self.high:,g}"
        if self.one_of:
            return f"{', '.join(self.one_of[:-1])} or {self.one_of[-1]}"
        if self.high == math.inf:
            return "" if self.low == -math.inf else f"{low} or above" if self.closed[0] else f"above {low}"
        if self.low == -math.inf:
            return f"at most {high}" if self.closed[1] else f"below {high}"
        if self.closed == (True, True):
            return f"{low} to {high}"
        if self.closed == (False, False):
            return f"between {low} and {high}"
        return f"at least {low} and below {high}" if self.closed[0] else f"above {low} and at most {high}"

    @property
    def help(self) -> str:
        """Why, and the values it may have."""
        return f"{self.why} ({found})" if (found := self.range()) else self.why


def option(
    default: Any,
    why: str,
    within: str = "",
    one_of: Iterable[str] = (),
    *,
    names: Callable[[], Iterable[str]] | None = None,
    **about: Any,
) -> Any:
    """A field of `Options`. `within`: an interval such as "(0, 1]"; `one_of`: the texts it may be.

    For the command line: `names` are offered by the shell (default: `one_of`), `group` is what kind of command takes
    it, `flag` its spelling where that is not its name; `live`: it can be changed in a chat; `flag_only`: it has to be
    said anew each time, since no file and no variable may decide it.
    For a memory: `learning` says that it decides how is learned, and not how what was learned is read.
    """
    found = _INTERVAL.fullmatch(within) if within else None
    if within and found is None:
        raise ValueError(f"{within!r} is no interval")
    one_of = tuple(one_of)
    declared = Declared(why, one_of=one_of, names=names or (lambda: one_of), **about)
    if found:
        closed = (found[1] == "[", found[4] == "]")
        declared = dataclasses.replace(declared, low=float(found[2]), high=float(found[3]), closed=closed)
    made: dict[str, Any] = {"default_factory": default} if isinstance(default, type) else {"default": default}
    return dataclasses.field(**made, metadata={"option": declared})


learning = partial(option, learning=True)


@dataclasses.dataclass(frozen=True)
class Options:
    """Base class of declared options. Making one raises UsageError that names every problem."""

    called: ClassVar[str] = "option"

    def __post_init__(self) -> None:
        problems = [declared.problem(name, getattr(self, name)) for name, declared in self.declared().items()]
        if found := [*filter(None, problems), *self.together()]:
            raise UsageError("; ".join(found))

    def together(self) -> list[str]:
        """What is wrong with values that are each in their range; for subclasses."""
        return []

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Options from plain values or texts. Raises UsageError that names every unknown key and bad value."""
        fitting, problems = cls.fitting(values)
        try:
            made = cls(**fitting)
        except UsageError as error:
            problems.append(str(error))
        if problems:
            raise UsageError("; ".join(problems))
        return made

    @classmethod
    def fitting(cls, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The values that can be used, each of its option's kind; and what is wrong with the others."""
        found: dict[str, Any] = {}
        problems: list[str] = []
        declared, kinds = cls.declared(), cls.kinds()
        for key, value in values.items():
            if key not in kinds:
                problems.append(str(UnknownNameError(cls.called, key, kinds)))
                continue
            try:
                fit = fitted(value, kinds[key])
            except ValueError as error:
                problems.append(f"{key} must be {error}, not {value!r}")
                continue
            if problem := declared[key].problem(key, fit) if key in declared else None:
                problems.append(problem)
            else:
                found[key] = fit
        return found, problems

    @classmethod
    @cache
    def declared(cls) -> dict[str, Declared]:
        """The declarations, by name."""
        return {f.name: f.metadata["option"] for f in dataclasses.fields(cls) if "option" in f.metadata}

    @classmethod
    @cache
    def kinds(cls) -> dict[str, type]:
        """The type of each option, by name; `int | None` is an int that need not be set."""
        hints = get_type_hints(cls)
        return {f.name: _kind(hints[f.name]) for f in dataclasses.fields(cls)}


def _kind(hint: Any) -> type:
    if isinstance(hint, UnionType):
        hint = next(kind for kind in get_args(hint) if kind is not type(None))
    return get_origin(hint) or hint


def fitted(value: Any, kind: type) -> Any:
    """A value, or its text, as an option's kind. Raises ValueError that says which kind."""
    if isinstance(value, str) and kind in _READ:
        try:
            value = _READ[kind](value)
        except (KeyError, ValueError):
            raise ValueError(_KINDS[kind]) from None
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if kind is Mapping and isinstance(value, Mapping):
        return dict(value)
    if kind not in _KINDS or (type(value) is kind and kind is not float):
        return value
    raise ValueError(_KINDS[kind])
