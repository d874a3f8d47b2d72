"""An old statement with what is new in the place of what is over, by a made-up model and by the real one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from contracts import on

from lmm.adapters.base import Adapter
from lmm.feedback import read
from lmm.lesson import Lesson
from lmm.memory.notes import renewed as module
from lmm.memory.notes.gate import Notebook
from lmm.memory.notes.renewed import renewed

LIVES = Lesson(statement="Dorrit lives in Ludlow.", echo="Dorrit lives in Ludlow.", values=("Ludlow",))


def model(**likely: float) -> Any:
    """Goes on with a word as likely as that, whatever it has read; with any other in one of a million cases."""
    words = list(likely)

    def encode(text: str) -> list[int]:
        return [words.index(text.strip()) if text.strip() in words else len(words)]

    row = np.log([*likely.values(), 1e-6, max(1e-9, 1 - sum(likely.values()))])
    made = SimpleNamespace(encode=encode, prompt_tokens=lambda text: [0])
    return SimpleNamespace(
        format=made,
        shape=SimpleNamespace(context=64),
        new_cache=lambda: None,
        forward=lambda tokens, cache: (row[None, None], None),
        ops=SimpleNamespace(to_numpy=np.asarray),
    )


def now(old: Lesson, said: str, *values: str, **likely: float) -> str:
    found = renewed(old, Lesson(statement=said, values=values), str.split, model(**likely))
    return found.said if found else ""


@pytest.mark.parametrize(
    ("said", "values", "likely", "expected"),
    [
        ("Dorrit is in Whitby now", ["Whitby"], {"Whitby": 0.1}, "Dorrit lives in Whitby."),
        ("Perpetua sent Dorrit to Whitby", ["Whitby"], {"Whitby": 0.1, "Perpetua": 0.2}, ""),  # something likelier
        ("Dorrit is in Whitby now", ["Whitby"], {"Whitby": 1e-5}, ""),  # nothing likely
        ("Dorrit is in Whitby now", [], {"Whitby": 0.1}, "Dorrit lives in Whitby."),  # which reading did not find
        ("Dorrit is in Whitby now", [], {"Whitby": 0.002}, ""),
        ("Perpetua saw Dorrit in Whitby", [], {"Whitby": 0.1, "Perpetua": 0.02}, ""),  # it could be either
        ("Dorrit is 40 now", ["40"], {"40": 0.9}, ""),  # no name
        ("Dorrit is at home now", ["home"], {"home": 0.9}, ""),
        ("Dorrit left Ludlow", ["Ludlow"], {"Ludlow": 0.9}, ""),  # nothing new
    ],
)
def test_a_name_takes_the_place_of_a_name_where_the_model_goes_on_with_it(said, values, likely, expected) -> None:
    assert now(LIVES, said, *values, **likely) == expected


@pytest.mark.parametrize(
    ("echo", "value", "said", "new", "expected"),
    [
        ("You run it on port 80.", "80", "port 9053 now", "port 9053", "You run it on port 9053."),
        ("You sleep in the raised bed.", "raised", "in the last one", "last", ""),  # not all of the thing
        ("It is on Tuesday at 9.", "9", "Thursday at 10", "10", ""),  # another day, too
        ("It is on Tuesday at 9.", "9", "at 10 now", "10", "It is on Tuesday at 10."),
        ("It is on Tuesday at 9.", "Tuesday at 9", "on friday, at 10", "10", ""),  # a part of what is over
        ("You take bus 58.", "58", "the X27 now", "X27", "You take bus X27."),
        ("You are on flight QX to Tallinn.", "Tallinn", "got VB 2087", "VB 2087", ""),  # a name is no number
        ("You play the bassoon.", "the bassoon", "the viola now", "the viola", "You play the viola."),
        ("你住在泸州。", "泸州", "我现在住在丹东", "丹东", "你住在丹东。"),
        ("你每天都喝咖啡。", "每天", "换成了大麦茶", "大麦茶", ""),  # after another sign
    ],
)
def test_what_is_new_stands_where_the_old_value_stood(
    echo: str, value: str, said: str, new: str, expected: str
) -> None:
    old = Lesson(statement="It was said.", echo=echo, values=(value,))
    assert now(old, said, new, **{word.removeprefix("the "): 0.5 for word in (new, new.split()[0])}) == expected


@pytest.mark.parametrize(("other", "expected"), [(0.3, ""), (0.05, "Your code is 13.")])
def test_of_two_values_it_must_be_clear_which_one_is_over(other: float, expected: str, monkeypatch) -> None:
    likely = {"Your code is ": 0.3, "It opens at ": other}
    monkeypatch.setattr(module, "_likely", lambda before, *_: [float(np.log(likely[before]))])
    old = Lesson(statement="said", echo="Your code is 12. It opens at 7.", values=("12", "7"))
    assert now(old, "it's 13", "13") == expected


def test_what_held_with_the_last_news_is_renewed_again() -> None:
    old = Lesson(
        statement="off to Whitby", echo="Off to Whitby.", values=("Whitby",), still=("Dorrit lives in Whitby.",)
    )
    assert now(old, "Dorrit is in Deal", "Deal", Deal=0.5) == "Dorrit lives in Deal."


@on("torch")
@pytest.mark.parametrize(
    ("before", "said", "expected"),
    [
        ("My friend Lavinia lives in Ludlow.", "Seaside tips? I'm at Lavinia's, she's in Whitby since she left Ludlow.",
         "Your friend Lavinia lives in Whitby."),
        ("Our choir rehearses on Tuesdays.", "Any snacks? Since choir moved to Thursdays I come hungry from the pool.",
         "Your choir rehearses on Thursdays."),
        ("My cousin Lucasta is engaged to a man called Piers.", "Lucasta found Piers in bed with the caterer.", ""),
    ],
    ids=["name", "day", "nothing"],
)  # fmt: skip
def test_the_real_model_knows_what_stands_there(before: str, said: str, expected: str, adapter: Adapter) -> None:
    old, news = (read(text).lesson for text in (before, said))
    assert old is not None and news is not None
    found = renewed(old, news, Notebook([], []).telling, adapter)
    assert (found.said if found else "") == expected
