"""Declared options: what may be, what is said of what may not, and how a text becomes a value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from lmm.errors import UsageError
from lmm.options import Declared, Options, fitted, option


@dataclass(frozen=True)
class Oven(Options):
    heat: float = option(180.0, "degrees", "(0, 300]")
    minutes: int = option(20, "how long", "[1, inf)")
    mode: str = option("fan", "how it heats", one_of=("fan", "grill"))
    shelf: int | None = option(None, "from below", "[1, 5)")
    light: bool = option(True, "in the oven")
    notes: Mapping[str, Any] = option(dict, "anything else")

    def together(self) -> list[str]:
        return ["a grill needs no more than 10 minutes"] if self.mode == "grill" and self.minutes > 10 else []


def test_values_and_texts_become_the_option_s_kind() -> None:
    assert Oven.of({"heat": 200, "minutes": "5", "light": "off", "shelf": "2"}) == Oven(200.0, 5, "fan", 2, False)
    assert isinstance(Oven.of({"heat": 200}).heat, float) and Oven.of({}) == Oven() and Oven().notes == {}
    assert Oven.kinds() == {
        "heat": float, "minutes": int, "mode": str, "shelf": int, "light": bool, "notes": Mapping
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        (2.5, int, "a whole number"), ("2.5", int, "a whole number"), (True, int, "a whole number"),
        ("warm", float, "a number"), (math.nan, float, "a number"), ("inf", float, "a number"),
        (1, bool, "true or false"), ("1,x", tuple, "whole numbers, by commas"), (1, frozenset, "names, by commas"),
        ("maybe", bool, "true or false"), (5, str, "a text"), (3, Mapping, "a table"),
    ],
)  # fmt: skip
def test_what_is_of_another_kind_is_refused(value: Any, kind: type, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fitted(value, kind)


def test_several_values_are_read_by_commas_and_each_is_to_be_good() -> None:
    assert fitted("10, 100,10", tuple) == (10, 100) and fitted("", tuple) == ()
    assert fitted("a, b,", frozenset) == {"a", "b"} and fitted((1, 2), tuple) == (1, 2)
    assert (
        Declared("", low=1).problem("sizes", (2, 0, -1))
        == "sizes must be 1 or above, not -1; sizes must be 1 or above, not 0"
    )
    assert Declared("", one_of=("a", "b")).problem("parts", frozenset("ab")) is None
    assert "not 'c'" in (Declared("", one_of=("a", "b")).problem("parts", frozenset("ac")) or "")


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        Oven.of({"heat": 0, "minutes": 0.5, "mode": "gril", "shlef": 1})
    assert str(caught.value).split("; ") == [
        "heat must be above 0 and at most 300, not 0.0",
        "minutes must be a whole number, not 0.5",
        "mode must be one of fan, grill, not 'gril': did you mean 'grill'?",
        "unknown option 'shlef': did you mean 'shelf'? known: heat, light, minutes, mode, notes, shelf",
    ]
    with pytest.raises(UsageError, match=r"^heat must be .* 301; shelf must be at least 1 and below 5, not 5$"):
        Oven(301, shelf=5)
    with pytest.raises(UsageError, match="a grill needs"):
        Oven(mode="grill")


def test_help_says_why_and_what_may_be() -> None:
    found = {name: declared.help for name, declared in Oven.declared().items()}
    assert found["heat"] == "degrees (above 0 and at most 300)" and found["minutes"] == "how long (1 or above)"
    assert found["mode"] == "how it heats (fan or grill)" and found["light"] == "in the oven"


def test_an_interval_is_read_or_refused() -> None:
    ranges = {"[1, 512]": "1 to 512", "(0, 1)": "between 0 and 1", "(-inf, 3)": "below 3", "(2, inf)": "above 2"}
    for within, said in ranges.items():
        assert option(3, "x", within).metadata["option"].range() == said
    with pytest.raises(ValueError, match="no interval"):
        option(3, "x", "1..5")
