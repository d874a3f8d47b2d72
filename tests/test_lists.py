"""Lists that grow and shrink by what is said of them."""

from __future__ import annotations

import pytest
from contracts import on

from lmm.adapters.base import Adapter
from lmm.config import Config
from lmm.engine.asking import recall_many
from lmm.engine.conversation import opening_of
from lmm.engine.mind import Mind
from lmm.engine.runtime import build_memory
from lmm.lesson import Lesson
from lmm.memory.notes.lists import changed, latest, several, without_gone

PACKING = Lesson(statement="packing list: tent, torch, two mugs", echo="Packing list: tent, torch, two mugs.")


@pytest.mark.parametrize(
    ("said", "now"),
    [
        ("add a stove to the packing list", "Packing list: tent, torch, two mugs, stove."),
        ("put socks and soap on the list", "Packing list: tent, torch, two mugs, socks, soap."),
        ("I've got the tent and the torch", "Packing list: two mugs."),
        ("found the torch! please add matches to my list", "Packing list: tent, two mugs, matches."),
        ("schreib noch Seife auf die Liste", "Packing list: tent, torch, two mugs, Seife."),
        ("Take the torch off the list and put a stove on it.", "Packing list: tent, two mugs, stove."),
        ("not the torch, a lamp", "Packing list: tent, a lamp, two mugs."),
        ("put socks on the shopping list", ""),
        ("put the tent on the list", ""),  # it is there
        ("The torch is broken", ""),
        ("I bought a boat", ""),
    ],
)
def test_a_list_is_what_is_left_and_what_came_to_it(said: str, now: str) -> None:
    assert changed(PACKING, said) == now


def test_what_is_no_list_stays() -> None:
    assert changed(Lesson(statement="x", echo="The tent is red."), "put socks on the list") == ""


@pytest.mark.parametrize(
    ("said", "news", "left"),
    [
        ("You have a red van and a grey scooter.", "We sold the van", "You have a grey scooter."),
        ("You own a canoe, a tent and a drone.", "gave the drone away", "You own a canoe and a tent."),
        ("You have two dogs and a cat in the barn.", "the cat died", "You have two dogs in the barn."),
        ("You have a red van and a grey scooter.", "sold the van and the scooter", ""),
        ("You have a red van and a grey scooter.", "sold the boat", ""),
        ("You work on Monday at the library and Thursday at the archive.", "I don't work at the archive any more",
         "You work on Monday at the library."),
        ("You work on Monday at the library and Thursday at the archive.", "I don't work at the library any more", ""),
        ("You pay for Netflix.", "I cancelled Netflix", ""),
        ("Your cats are Miska and Pontus.", "Pontus ran away", "Your cats are Miska."),
        ("You sing and dance.", "no singing any more", ""),
    ],
)  # fmt: skip
def test_of_several_things_those_that_are_not_gone_are_left(said: str, news: str, left: str) -> None:
    assert without_gone(said, news) == left


@pytest.mark.parametrize(
    ("news", "of_bikes"),
    [
        ("Sold the Surly.", True),
        ("I've finally got rid of my Cube", True),
        ("I lost the Surly race to Tom", False),
        ("Sold the sofa.", False),
        ("Tom sold the Surly.", False),
    ],
)
def test_one_of_several_things_is_gone_where_no_more_is_said(news: str, of_bikes: bool) -> None:
    bikes = Lesson(statement="My bikes: a Surly and a Cube.", echo="Your bikes: a Surly and a Cube.")
    assert (latest([PACKING, bikes, Lesson(statement="I sing", echo="You sing.")], news) is bikes) == of_bikes


def test_each_of_several_things_has_a_sentence_of_its_own() -> None:
    assert several("I own a canoe and a tent.") == [("a canoe", "I own a canoe."), ("a tent", "I own a tent.")]
    assert several("You like tea and the sea.") == [("tea", "You like tea."), ("the sea", "You like the sea.")]
    assert several("I own a canoe.") == several("I sing and dance") == []


@on("toy")
def test_a_changed_list_takes_the_place_of_the_one_before_until_undo(adapter: Adapter) -> None:
    mind = Mind(adapter, build_memory(Config(memory="notes")))
    mind.learn(PACKING)
    mind.learn(Lesson(statement="got the torch, put socks on the list", echo="You got the torch."))
    assert mind.lessons[-1].echo == "Packing list: tent, two mugs, socks."
    assert [x.id for x in mind.replaced_by(mind.lessons[-1])] == [PACKING.id]
    [recall] = recall_many(mind, ["What is on the packing list?"])
    assert opening_of(recall).startswith("Packing list: tent")
    mind.undo()
    assert [x.echo for x in mind.lessons] == [PACKING.echo]
    mind.close()
