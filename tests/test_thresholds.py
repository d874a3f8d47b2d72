"""What happens below and above each threshold of what is shown, recited, replaced and heard, with made-up models that
say how likely they hold it. What the shipped ones say of texts is tested elsewhere, and measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from contracts import on, opened
from test_gate import QUERY, Says, at

from lmm.adapters.base import Adapter
from lmm.config import Config
from lmm.encoders.minilm import shared_encoder
from lmm.engine.asking import recall_many
from lmm.engine.mind import Mind
from lmm.engine.runtime import build_memory
from lmm.feedback.model import KINDS, SPANS, TurnReader
from lmm.lesson import Lesson
from lmm.memory.keyed import keyed
from lmm.memory.keyed.cross import Look
from lmm.memory.keyed.gate import Gate
from lmm.memory.notes import gate as notes_gate
from lmm.memory.notes import news
from lmm.memory.notes.gate import Notebook

TAUGHT = Lesson("What is my sister's name?", "Zorbina", id="sister")
SAID = replace(TAUGHT, statement="My sister's name is Zorbina.", echo="Your sister is Zorbina.")
Of = Callable[..., float]


@pytest.fixture
def cross(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes up the second look for all who take one; without probabilities there is none."""

    def made_up(helps: Of | None = None, replaces: Of | None = None) -> None:
        helping = SimpleNamespace(helps=helps) if helps else None
        replacing = SimpleNamespace(look=lambda *texts: Look(0.0, replaces(*texts))) if replaces else None
        for module in (notes_gate, news, keyed):
            monkeypatch.setattr(module, "shared_cross", lambda *path: replacing if path else helping)

    made_up()
    return made_up


def notebook(*cosines: float, **likely: float) -> Notebook:
    """Notes that are as near as that, and help as likely as that."""
    says = Says(**likely)
    says.encoder = shared_encoder()  # type: ignore[attr-defined]  # whose vocabulary tells which words are common
    return Notebook(list(likely), at(*cosines), says)  # type: ignore[arg-type]


def used(adapter: Adapter, memory: str, lesson: Lesson, asked: str) -> Callable[[], bool]:
    """Whether a lesson is used in reply to a text."""
    mind = Mind(adapter, build_memory(Config(memory=memory, options={"steps": 1} if memory == "keyed" else {})))
    opened.append(mind)
    mind.learn(lesson)
    return lambda: recall_many(mind, [asked]) != [None]


# ---------------------------------------------------------------- notes: what is shown
@on("toy")
@pytest.mark.parametrize(("lesson", "below", "above"), [(SAID, 0.85, 0.98), (TAUGHT, 0.97, 0.998)])
def test_a_note_is_shown_that_helps_almost_surely_and_one_that_was_taught_still_more_so(
    lesson: Lesson, below: float, above: float, adapter: Adapter, monkeypatch: pytest.MonkeyPatch, cross: Any
) -> None:
    shown = used(adapter, "notes", lesson, "Write a birthday card to my sister, with her name.")
    for likely, expected in ((below, False), (above, True)):
        monkeypatch.setattr(Gate, "same", lambda *_, likely=likely: likely)
        assert shown() is expected


def test_notes_are_looked_for_far_and_wide() -> None:
    assert [p for p, _ in notebook(0.9, 0.75, 0.5, a=1, b=1, c=1).candidates(QUERY)] == [0, 1], "close to the best"
    assert notebook(0.05, a=1).candidates(QUERY) == [] and notebook(0.2, a=1).candidates(QUERY), "a low floor"


def test_the_second_look_is_taken_at_what_the_first_holds_possible_and_counts_for_more(cross: Any) -> None:
    read: list[str] = []
    cross(lambda message, note: read.append(note) or 0.9)
    found = notebook(0.9, 0.9, a=0.02, b=0.2).match(["asked"], 0.5)[0]
    assert read == ["b"] and [position for position, _ in found] == [1]
    assert 0.5 < found[0][1] < 0.9, "it is held less likely than by the second look alone"


def test_of_notes_that_help_alike_the_nearest_is_shown_first(cross: Any) -> None:
    def order(*cosines: float) -> list[int]:
        return [position for position, _ in notebook(*cosines, a=0.96, b=0.99).match(["asked"], 0.5)[0]]

    assert order(0.9, 0.75) == [0, 1] and order(0.9, 0.88) == [1, 0]


@pytest.mark.parametrize(("likely", "leads"), [(0.9, False), (0.998, True)])
def test_two_notes_are_shown_that_almost_surely_help_together(likely: float, leads: bool, cross: Any) -> None:
    said = ["My manager is Celandra.", "Celandra's birthday is 3 May."]
    cross(lambda message, note: likely)
    owners = [Lesson(statement=text, echo=text) for text in said]
    chain = notebook(0.6, 0.5, **dict.fromkeys(said, 0.5)).chain("When is my manager's birthday?", owners)
    assert (chain is not None) is leads


# ---------------------------------------------------------------- notes: what is out of date
@pytest.mark.parametrize(
    ("note", "cosine", "likely", "gone"),
    [
        ("The zebra is red.", 0.6, 0.3, False),
        ("The zebra is red.", 0.6, 0.55, True),
        ("In my aunt's barn lives a zebra.", 0.6, 0.52, False),  # mostly about something else
        ("In my aunt's barn lives a zebra.", 0.6, 0.7, True),
        ("It is red.", 0.6, 0.7, False),  # the two have no telling word in common
        ("It is red.", 0.6, 0.97, True),
        ("The zebra is red.", 0.15, 1.0, False),  # about something else
        ("The zebra is red.", 0.35, 1.0, True),
    ],
)
def test_a_near_note_that_is_likely_out_of_date_is_and_more_surely_so_if_it_does_not_name_what_it_is_about(
    note: str, cosine: float, likely: float, gone: bool, cross: Any
) -> None:
    cross(replaces=lambda message, note: likely)
    assert notebook(cosine, **{note: 0.0}).outdated("The zebra is blue now") == ([0] if gone else [])


@pytest.mark.parametrize(
    ("note", "told", "gone"),
    [
        ("The ferry goes at 7:30 on weekdays", "The ferry goes at 9 on Sundays", False),
        ("The ferry goes at 9 on Sundays", "The ferry goes at 7:30 on weekdays", False),
        ("The ferry goes at 9 on Sundays", "The ferry now goes at 7:30 on weekdays", True),
        ("The ferry goes at 9 on Sundays", "The ferry goes at 7:30 on Saturdays", True),
        ("The ferry goes at 9 on Mondays", "The ferry goes at 7:30 on Tuesdays", True),
        ("The ferry goes at 9", "The ferry goes at 7:30 on weekdays", True),
    ],
)
def test_what_is_so_on_weekdays_leaves_true_what_is_so_on_sundays(note: str, told: str, gone: bool, cross: Any) -> None:
    cross(replaces=lambda message, note: 0.97)
    assert notebook(0.6, **{note: 0.0}).outdated(told) == ([0] if gone else [])


@pytest.mark.parametrize(
    ("note", "told", "gone"),
    [
        ("My first car was a zebra.", "My second car was a mule.", False),
        ("Meine jüngere Tochter zeichnet Zebras.", "Meine ältere Tochter zeichnet Esel.", False),
        ("The upstairs printer is a zebra.", "The downstairs printer is a mule.", False),
        ("My first car was a zebra.", "My first car was a mule.", True),
        ("My first car was a zebra.", "My second dog was a mule.", True),
        ("The left printer is a zebra.", "The zebra is the right printer now.", True),
    ],
)
def test_what_is_so_of_the_second_of_a_kind_leaves_true_what_is_so_of_the_first(
    note: str, told: str, gone: bool, cross: Any
) -> None:
    cross(replaces=lambda message, note: 0.97)
    assert notebook(0.6, **{note: 0.0}).outdated(told) == ([0] if gone else [])


def test_what_may_tell_nothing_must_more_surely_make_a_note_out_of_date(cross: Any) -> None:
    for likely, surely in ((0.7, []), (0.97, [0])):
        cross(replaces=lambda message, note, likely=likely: likely)
        known = notebook(0.6, **{"The zebra is red.": 0.0})
        assert known.outdated("The zebra is blue now") == [0]
        assert known.outdated("The zebra is blue now", surely=True) == surely


@pytest.mark.parametrize("text", ["What eats it? It is blue now.", "It is blue now. 斑马吃什么？", "It is blue now."])
def test_what_is_asked_beside_news_does_not_hide_them(text: str, cross: Any) -> None:
    cross(replaces=lambda message, note: 0.97 if message == "It is blue now." else 0.0)
    assert notebook(0.6, **{"The zebra is red.": 0.0}).outdated(text) == [0]
    assert notebook(0.6, **{"The zebra is red.": 0.0}).outdated("What do zebras eat?") == []


@pytest.mark.parametrize(("likely", "holds"), [(0.3, True), (0.7, False)])
def test_a_clause_holds_beside_news_unless_it_is_likely_out_of_date(
    likely: float, holds: bool, cross: Any, toy: Adapter
) -> None:
    cross(replaces=lambda news, said: likely if "cello" in said else 0.99)
    old = Lesson(statement="Zorbina lives in Aarhus. She plays the cello.", echo="She lives there. She plays it.")
    kept = news.in_place_of(Lesson(statement="Zorbina lives in Vejle."), [old], str.split, toy).still
    assert kept == (("She plays it.",) if holds else ())


@pytest.mark.parametrize(("values", "kept"), [((), True), (("Aarhus",), False), (("Aarhus", "asked"), True)])
def test_a_part_of_a_sentence_that_told_nothing_is_not_kept(
    values: tuple[str, ...], kept: bool, cross: Any, toy: Adapter
) -> None:
    cross(replaces=lambda news, said: 0.99 if "Aarhus" in said else 0.1)
    said = "Zorbina lives in Aarhus, since you have asked. She plays the cello."
    old = Lesson(statement=said, echo=said, values=values)
    still = news.in_place_of(Lesson(statement="Zorbina lives in Vejle."), [old], str.split, toy).still
    assert still == (*(["Since you have asked."] if kept else []), "She plays the cello.")


@pytest.mark.parametrize(
    ("over", "formerly", "likely", "first"),
    [
        (("Pumpernickel",), (), 0.99, False),  # what only says what is over is said first if it helps far more
        (("Pumpernickel",), (), 0.9999, True),
        ((), ("Pumpernickel it is.",), 0.7, False),  # of what was said before it costs less
        ((), ("Pumpernickel it is.",), 0.99, True),
    ],
)
def test_what_is_over_is_said_of_news_where_it_helps_far_more(
    over: tuple[str, ...], formerly: tuple[str, ...], likely: float, first: bool, cross: Any
) -> None:
    parts = ["It was Pumpernickel.", "It is good now."]
    lesson = Lesson(statement=" ".join(parts), over=over, formerly=formerly)
    book = notebook(0.5, 0.5, **dict(zip(parts, (likely, 0.5), strict=True)))
    assert news.told("What is it?", lesson, lesson.statement, book, lambda said: len(said) < 25) == parts[not first]


def test_a_reply_does_not_begin_with_a_clause_that_hangs_on_another(cross: Any) -> None:
    parts = ["Rasmus plays the viola", "after a concert in Stavanger"]
    lesson = Lesson(statement=", ".join(parts), values=("Stavanger",), formerly=("Rasmus plays the cello",))
    book = notebook(0.5, 0.5, **dict(zip(parts, (0.5, 0.9), strict=True)))
    begins = news.told("What is it?", lesson, lesson.statement, book, lambda said: len(said) < 25)
    assert begins == "Rasmus plays the viola."


# ---------------------------------------------------------------- keyed
@on("toy")
@pytest.mark.parametrize(
    ("more", "below", "above"),
    [("", 0.4, 0.8), (" She lives in the town of Aarhus.", 0.75, 0.97)],
    ids=["whole", "part"],
)
def test_what_was_said_is_recited_where_it_tells_what_is_asked_and_a_part_of_it_where_it_surely_does(
    more: str, below: float, above: float, adapter: Adapter, monkeypatch: pytest.MonkeyPatch, cross: Any
) -> None:
    monkeypatch.setattr(Gate, "same", lambda *_: 0.9)
    recited = used(adapter, "keyed", replace(SAID, echo=SAID.echo + more), "What is my sister called?")
    for likely, expected in ((below, False), (above, True)):
        cross(lambda message, note, likely=likely: likely)
        assert recited() is expected


# ---------------------------------------------------------------- the reader of turns
@pytest.mark.parametrize(("teaches", "kind"), [(0.55, "nothing"), (0.85, "statement")])
def test_a_turn_teaches_that_is_likely_enough_to(teaches: float, kind: str) -> None:
    class Reader(TurnReader):
        def __init__(self) -> None: ...

        def turn(self, text: str, last: Any) -> Any:
            return SimpleNamespace(offsets=[(0, 5), (6, 8), (9, 14)])

        def scores(self, turn: Any) -> tuple[np.ndarray, np.ndarray]:
            tags = np.full((3, len(SPANS), 3), [0.9, 0.05, 0.05])
            tags[:, 0] = [[0, 1, 0], [0, 0, 1], [0, 0, 1]]  # all is one clause
            tags[2, 1] = [0, 1, 0]  # the last word is the value
            return np.asarray([1 - teaches, teaches, 0, 0, 0]), tags

    found = Reader().hear("Otter is lilac.", None)
    assert found.kind == kind and found.kind in KINDS
    assert [fact.value for fact in found.facts] == ["lilac"] * (kind != "nothing")


def test_news_that_do_not_say_which_of_several_make_none_of_them_out_of_date(cross: Any) -> None:
    cross(replaces=lambda message, note: 0.99)
    several = {"The zebra Ada is red.": 0.0, "The zebra Bo is blue.": 0.0}
    assert notebook(0.6, 0.6, **several).outdated("new zebra: green") == []
    assert notebook(0.6, **{"The zebra Ada is red.": 0.0}).outdated("new zebra: green") == [0]
