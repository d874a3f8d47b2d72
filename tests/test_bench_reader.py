"""How turns are scored: kinds, values in whole words, languages apart, and files that are no labelled turns."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from lmm.bench.reader import Labelled, by_language, is_right, labelled, measure
from lmm.errors import UsageError
from lmm.feedback import Exchange, Reading
from lmm.lesson import Lesson

TURN = Labelled("it's the Blue Boat.", None, "statement", "Blue Boat", "en")


def heard(kind: str, value: str = "", *also: str) -> Reading:
    more = tuple(Reading("statement", Lesson(statement=x), x) for x in also)
    return Reading(kind, Lesson(statement="x") if value else None, value, also=more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reading", "right"),
    [
        (heard("statement", "the blue boat!"), True),
        (heard("update", "Blue Boat"), True),
        (heard("statement", "Lena", "Blue Boat"), True),  # one of several facts
        (heard("statement", "Blue Boats"), False),
        (heard("statement", "Boat"), False),
        (heard("correction", "Blue Boat"), False),
        (heard("nothing"), False),
    ],
)
def test_a_turn_is_right_by_kind_and_value(reading: Reading, right: bool) -> None:
    assert is_right(TURN, reading) is right


def test_a_retraction_counts_as_nothing() -> None:
    assert is_right(replace(TURN, kind="nothing", value=""), heard("retraction"))


def test_precision_is_over_what_was_learned_and_recall_over_what_teaches() -> None:
    said = {
        "a": heard("statement", "x"),
        "b": heard("statement", "y"),
        "c": heard("correction", "z"),
        "d": heard("nothing"),
    }
    turns = [Labelled(text, None, "statement", "x", "en") for text in "abd"] + [
        Labelled("c", None, "nothing", "", "en")
    ]
    figures = measure(turns, lambda text, last: said.get(text, heard("nothing")))
    assert figures["learned"] == {"precision": 2 / 3, "recall": 2 / 3}
    assert figures["strict"] == {"precision": 1 / 3, "recall": 1 / 3}
    assert figures["kind"] == 2 / 4


def test_languages_are_measured_apart(tmp_path: Path) -> None:
    rows = [
        {"text": "hallo", "last": None, "kind": "nothing", "value": "", "language": "de"},
        {"text": "hi", "last": {"user": "a", "assistant": "b"}, "kind": "update", "value": "x", "language": "en"},
    ]
    path = tmp_path / "turns.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    turns = labelled(path)
    assert (turns[1].last, turns[1].kind) == (Exchange("a", "b"), "statement")
    assert {language: figures["turns"] for language, figures in by_language(turns).items()} == {"de": 1, "en": 1}


@pytest.mark.parametrize("line", ["{", "[]", '{"text": "x"}', '{"text": "x", "kind": "nothing", "last": {"who": 1}}'])
def test_a_line_that_is_no_turn_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "turns.jsonl"
    path.write_text(line, encoding="utf-8")
    with pytest.raises(UsageError, match="line 1"):
        labelled(path)
    with pytest.raises(UsageError, match="cannot read"):
        labelled(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("{", "no JSON"),
        ("[]", "an object was expected"),
        ('{"text": null, "kind": "nothing"}', '"text" is no text'),
        ('{"text": "a", "kind": "foo"}', '"kind" is none of nothing, statement'),
        ('{"text": "a", "kind": "statement", "value": 4}', '"value" is no text'),
        ('{"text": "a", "kind": "nothing", "last": {"user": "b", "assistant": null}}', '"last" is neither'),
        ('{"text": "a", "kind": "nothing", "last": {"user": "b"}}', '"last" is neither'),
        ('{"text": "a", "kind": "nothing", "language": 1}', '"language" is no text'),
    ],
)
def test_what_is_no_labelled_turn_is_named_in_one_line(line: str, wrong: str, tmp_path: Path) -> None:
    (path := tmp_path / "turns.jsonl").write_text(
        f'{{"text": "hi", "kind": "nothing", "value": null}}\n{line}\n', "utf-8"
    )
    with pytest.raises(UsageError, match=f"line 2: no labelled turn: {re.escape(wrong)}"):
        labelled(path)
