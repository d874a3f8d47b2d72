"""An old statement with what is new in the place of what is over, by a made-up model and by the real one."""

from __future__ import annotations

from types import SimpleNamespace

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


def telling(text: str) -> list[str]:
    return [word for word in text.split() if word not in ("a", "is", "in", "on", "at", "to", "the", "not", "now")]


def now(old: Lesson, said: str, *values: str, **likely: float) -> str:
    """What an old lesson says now, where the model goes on with words as likely as that; with any other in one of a
    million cases."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_likelihood", lambda *_: lambda before, value: float(np.log(likely.get(value, 1e-6))))
        found = renewed(old, Lesson(statement=said, values=values), telling, SimpleNamespace())  # type: ignore[arg-type]
    return " ".join(one.said for one in found)


@pytest.mark.parametrize(
    ("said", "values", "likely", "expected"),
    [
        ("Dorrit is in Whitby now", ["Whitby"], {"Whitby": 0.1}, "Dorrit lives in Whitby."),
        (
            "I and Perpetua sent Dorrit to Whitby",
            ["Whitby"],
            {"Whitby": 0.1, "Perpetua": 0.2},
            "",
        ),  # something likelier
        ("Whitby saw Dorrit", ["Whitby"], {"Whitby": 0.1, "Ludlow": 0.05}, ""),  # no likelier than what was before
        ("Whitby saw Dorrit", ["Whitby"], {"Whitby": 0.1, "Ludlow": 0.02}, "Dorrit lives in Whitby."),
        ("Whitby saw Dorrit", [], {"Whitby": 0.1}, ""),  # the capital may only begin a sentence
        ("Dorrit is in Whitby now", [], {"Whitby": 0.1}, "Dorrit lives in Whitby."),  # which reading did not find
        ("Dorrit is in Whitby now", [], {"Whitby": 0.002}, ""),
        ("I sold Dorrit's to a man from Whitby", [], {"Whitby": 0.1}, ""),  # who has it now does not take its place
        ("I and Perpetua saw Dorrit in Whitby", [], {"Whitby": 0.1, "Perpetua": 0.02}, ""),  # it could be either
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
        ("Bea is the PTA treasurer.", "PTA treasurer", "Dawn has got to know Bea", "Dawn", ""),
        ("Bea is the PTA head.", "PTA head", "Dawn took over from Bea", "Dawn", "Dawn is the PTA head."),
        ("Bea coaches us.", "Bea", "Bea quit, so Dawn does it", "Dawn", "Dawn coaches us."),
        ("Bea is with Tom.", "Tom", "Bea left Tom, she sees Dawn", "Dawn", "Bea is with Dawn."),  # who leaves is here
        (
            "The Beams run the kiosk.",
            "Beams",
            "The Roths run it since the Beams left",
            "Roths",
            "The Roths run the kiosk.",
        ),
        ("Bea feeds the cat.", "Bea", "It is Dawn who feeds the cat, Bea's off to sea", "Dawn", "Dawn feeds the cat."),
        (
            "Bea teaches us cello.",
            "cello",
            "Bea has gone to Chile, so Dawn teaches us cello now",
            "Dawn",
            "Dawn teaches us cello.",
        ),
        ("Bea plays the harp.", "harp", "Bea sold the harp to Dawn", "Dawn", ""),  # who is only named with her
        (
            "Bea is allergic to nuts.",
            "nuts",
            "not nuts Bea is allergic to, it's kiwi",
            "kiwi",
            "Bea is allergic to kiwi.",
        ),
        ("Bea cooks in a bistro.", "bistro", "she is a florist now", "florist", ""),  # nobody cooks in one
        ("We have a Volvo.", "Volvo", "we traded the Volvo in for a Kia", "Kia", "We have a Kia."),
        (
            "My phone is a Pixel 6.",
            "Pixel 6",
            "the Pixel was swapped for an iPhone 13",
            "iPhone 13",
            "My phone is an iPhone 13.",
        ),
        (
            "It is Fridays at 7 in the Dale hall.",
            "Fridays",
            "in Brill church now, not in the Dale hall",
            "Brill church",
            "It is Fridays at 7 in Brill church.",
        ),
        ("Your sister lives in Leith.", "Leith", "she is moving in with Jory", "Jory", ""),
        ("You take bus 58.", "58", "the X27 now", "X27", "You take bus X27."),
        ("You are on flight QX to Tallinn.", "Tallinn", "got VB 2087", "VB 2087", ""),  # a name is no number
        ("You play the bassoon.", "the bassoon", "the viola now", "the viola", "You play the viola."),
        ("Your brother is a baker.", "baker", "no baker any more, he drives a city bus", "city bus", ""),
        (
            "Your vet is Dr Roth, lovely man.",
            "Dr Roth",
            "Dr Imfeld is our vet now",
            "Dr Imfeld",
            "Your vet is Dr Imfeld.",
        ),
        ("Your brother is a baker.", "baker", "he's a florist now", "florist", "Your brother is a florist."),
        ("Ines is allergic to nuts.", "nuts", "since Ines fell off the horse she only does fencing", "fencing", ""),
        (
            "Ines is allergic to nuts.",
            "nuts",
            "it's not nuts, Ines's allergy is to latex",
            "latex",
            "Ines is allergic to latex.",
        ),
        ("你住在泸州。", "泸州", "我现在住在丹东", "丹东", "你住在丹东。"),
        ("你每天都喝咖啡。", "每天", "换成了大麦茶", "大麦茶", ""),  # after another sign
    ],
)
def test_what_is_new_stands_where_the_old_value_stood(
    echo: str, value: str, said: str, new: str, expected: str
) -> None:
    old = Lesson(statement="It was said.", echo=echo, values=(value,))
    assert now(old, said, new, **{new.removeprefix("the "): 0.5}) == expected


@pytest.mark.parametrize(
    ("echo", "value", "said", "new", "expected"),
    [
        ("You weigh 82 kilos.", "82 kilos", "I have lost 6 kilos!", "6 kilos", ""),
        ("Your rent is 940 euros.", "940 euros", "The rent went up by 60 euros.", "60 euros", ""),
        ("Your rent is 940 euros.", "940 euros", "I now pay 60 euros more.", "60 euros", ""),
        (
            "Your rent is 940 euros.",
            "940 euros",
            "The rent went up to 990 euros.",
            "990 euros",
            "Your rent is 990 euros.",
        ),
        ("You have 12 sheep.", "12", "We sold 4 of the sheep.", "4", ""),
        ("You have 12 sheep.", "12", "down to 8 of them", "8", "You have 8 sheep."),
        ("It leaves at 14:20.", "14:20", "delayed, they gave us 10 euros", "10 euros", ""),
    ],
)
def test_by_how_much_a_number_has_changed_is_not_what_it_is(echo, value, said, new, expected) -> None:
    assert now(Lesson(statement="said", echo=echo, values=(value,)), said, new) == expected


@pytest.mark.parametrize(
    ("echo", "values", "said", "new", "expected"),
    [
        (
            "The ferry leaves on Friday at 14:40 from pier 6.",
            ["Friday at 14:40"],
            "it was moved to 15:05",
            ["15:05"],
            "The ferry leaves on Friday at 15:05 from pier 6.",
        ),
        ("On 4 March at 8 am, bed 5.", ["4 March at 8 am"], "now the 18th", [], "On the 18th at 8 am, bed 5."),
        ("It is on Monday at 7:30, seat 14C.", ["14C"], "at 8:10 now", ["8:10"], "It is on Monday at 8:10, seat 14C."),
        (
            "You pay Helmia 24 euros a month.",
            ["Helmia", "24 euros"],
            "I switched from Helmia to Corvo, it's 31 now",
            ["Corvo", "31"],
            "You pay Corvo 31 euros a month.",
        ),
        ("You pay Helmia 24 euros.", ["Helmia", "24 euros"], "away from Helmia, it's 31 now", ["31"], ""),
        ("It is on port 8081, branch x.", ["8081"], "port 9191 now", ["9191"], "It is on port 9191, branch x."),
        ("You are at 14 Fen Road.", ["14 Fen Road"], "at 5 Elm Lane now", ["5 Elm Lane"], "You are at 5 Elm Lane."),
        (
            "The jeep is on IP 10.0.4.17 and the scanner is on IP 10.0.4.29.",
            ["10.0.4.17"],
            "the scanner moved to 10.0.4.31",
            ["10.0.4.31"],
            "The jeep is on IP 10.0.4.17 and the scanner is on IP 10.0.4.31.",
        ),
        ("On Monday at 9:20, room 6.", ["9:20"], "from 9:20 to 10:45", ["10:45"], "On Monday at 10:45, room 6."),
        ("It is from 2pm to 5pm in hall C.", ["C"], "in hall D now", ["hall D"], "It is from 2pm to 5pm in hall D."),
        ("The op is on 6 May.", ["6 May"], "it is the 9th of June", ["9th of June"], "The op is on 9th of June."),
        ("It weighs 92 kilos.", ["92 kilos"], "it's 190 pounds now", ["190 pounds"], ""),
        ("The code of 12 rooms is 5520.", ["5520"], "the code is 7714 now", ["7714"], "The code of 12 rooms is 7714."),
    ],
)  # fmt: skip
def test_a_change_of_one_detail_leaves_the_others(echo: str, values, said: str, new, expected: str) -> None:
    old = Lesson(statement="said", echo=echo, values=tuple(values))
    assert now(old, said, *new, **{"Corvo": 0.5, "the 18th": 0.5, "9th of June": 0.5}) == expected


def test_what_the_news_speak_of_is_not_kept_beside_the_new_value() -> None:
    old = Lesson(statement="said", echo="Maud lives in Leeds with Tom.", values=("Leeds",))
    assert now(old, "Maud is in Ripon", "Ripon", Ripon=0.5) == "Maud lives in Ripon with Tom."
    assert now(old, "Maud left Tom, she is in Ripon", "Ripon", Ripon=0.5) == ""


@pytest.mark.parametrize(("other", "expected"), [(0.3, ""), (0.05, "Your code is 13.")])
def test_of_two_values_it_must_be_clear_which_one_is_over(other: float, expected: str, monkeypatch) -> None:
    likely = {"Your code is ": 0.3, "Your bay is ": other}
    monkeypatch.setattr(module, "_likelihood", lambda *_: lambda before, value: float(np.log(likely[before])))
    old = Lesson(statement="said", echo="Your code is 12. Your bay is 17.", values=("12", "17"))
    found = renewed(old, Lesson(statement="it's 13", values=("13",)), str.split, SimpleNamespace())  # type: ignore[arg-type]
    assert " ".join(one.said for one in found) == expected


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
        ("My cat is called Biscuit.", "Biscuit died on Friday, the vet, Dr Lomax, was very kind.", ""),
        ("My therapist is Dr Amin.", "I don't see Dr Amin any more, it was Lucinda who talked me out of it.", ""),
    ],
    ids=["name", "day", "nothing", "a bystander", "another"],
)  # fmt: skip
def test_the_real_model_knows_what_stands_there(before: str, said: str, expected: str, adapter: Adapter) -> None:
    old, heard = read(before).lesson, read(said)
    news = heard.lesson or heard.doubtful
    assert old is not None and news is not None
    found = renewed(old, news, Notebook([], []).telling, adapter)
    assert " ".join(one.said for one in found) == expected


@pytest.mark.parametrize(
    ("said", "new", "expected"),
    [
        ("nico's off to sea, so wim does it", "wim", "wim walks the dog."),
        ("nico's test came back, turns out a kiwi walks the dog", "kiwi", ""),
        ("nico got a kiwi, which walks the dog now", "kiwi", ""),  # no name
    ],
)
def test_names_may_be_typed_small(said: str, new: str, expected: str) -> None:
    old = Lesson(statement="nico walks the dog", echo="Nico walks the dog.", subject="nico")
    assert now(old, said, new, **{new: 0.5}) == expected
