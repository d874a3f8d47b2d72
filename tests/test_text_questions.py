"""Rules that tell two questions apart before the pair model is asked, and what they must let through."""

from __future__ import annotations

import pytest

from lmm.memory.keyed.gate import Index, shared_gate
from lmm.text.questions import another_question, asked_in_full, is_courtesy, now_asked, other_person


def told_apart(query: str, stored: str) -> bool:
    """By the rules, whichever of the two was taught."""
    found = another_question(query, stored)
    assert another_question(stored, query) is found
    return found


@pytest.mark.parametrize("text", ["Thanks a lot!", "ok, good night", "thanks, that's all", "谢谢", "hi"])
def test_a_courtesy_asks_for_nothing(text: str) -> None:
    assert is_courtesy(text)
    assert not is_courtesy(f"{text} What's my name?")


def test_my_question_is_not_yours() -> None:
    for query in ("What is your name?", "Who are you?", "Tell me your name"):
        assert other_person(query, "What is my name?")
        assert other_person("What is my name?", query)
    for query in ("Do you know my name?", "Can you tell me the wifi password?", "I like you. What is your name?"):
        assert not other_person(query, "What is my name?")
    assert not other_person("Can you tell me the wifi password?", "What is the wifi password?")


@pytest.mark.parametrize(
    ("query", "stored", "expected"),
    [
        ("How much is the fare from Rome to Oslo?", "What is the fare from Oslo to Rome?", True),
        ("Is Rome larger than Oslo?", "Is Oslo bigger than Rome?", True),
        ("What does it cost to go to Rome from Oslo?", "What is the fare from Oslo to Rome?", False),
        ("What is the fare from Oslo to Bonn?", "What is the fare from Oslo to Rome?", False),
        ("What is the fare from Bonn to Rome?", "What is the fare from Oslo to Rome?", False),
        ("Where is my aunt from?", "What country is my aunt from?", False),
    ],
)
def test_two_things_the_other_way_round_are_another_question(query: str, stored: str, expected: bool) -> None:
    assert told_apart(query, stored) is expected


@pytest.mark.parametrize(
    ("query", "stored", "expected"),
    [
        ("What is the largest city in Australia?", "What is the capital of Australia?", True),
        ("What's Australia's biggest city?", "What is the capital of Australia?", True),
        ("former capital of Kazakhstan", "What is the capital of Kazakhstan?", True),
        ("What is the longest river in Peru?", "Which river of Peru is the longest?", False),
        ("What is the biggest planet?", "What is the largest planet?", False),
        ("What is the largest city?", "Which city has the most people?", False),
        ("Which former singer led the choir?", "Who led the choir?", False),  # describes, and does not ask for it
        ("Where is the oldest church?", "Where is the church?", False),
    ],
)
def test_the_largest_or_the_former_of_a_kind_is_another_question(query: str, stored: str, expected: bool) -> None:
    assert told_apart(query, stored) is expected


@pytest.mark.parametrize(
    ("query", "stored", "expected"),
    [
        ("Did Bob beat Alice?", "Did Alice beat Bob?", True),
        ("Who loves Tom?", "Who does Tom love?", True),
        ("Who does Anna teach piano?", "Who teaches Anna piano?", True),
        ("Who did Anna carry?", "Who carried Anna?", True),
        ("Did Alice beat Bob yesterday?", "Did Alice beat Bob?", False),
        ("Who is Tom?", "Who does Tom love?", False),
        ("Who does Tom adore?", "Who does Tom love?", False),
    ],
)
def test_who_does_it_and_to_whom(query: str, stored: str, expected: bool) -> None:
    assert told_apart(query, stored) is expected


@pytest.mark.parametrize(
    ("query", "stored", "expected"),
    [
        ("Where did I work before?", "Where do I work?", True),
        ("Where did I work before?", "What was my previous job?", False),
        ("What was it called before the war?", "What is it called?", False),  # only at the end is it what is asked
        ("How do I change my wifi password?", "What is my wifi password?", True),
        ("How do I get there?", "How can I get there?", False),
        ("How many customers does Norvik have?", "How many employees does Norvik have?", True),
        ("How many kids does Ada have?", "How many children does Ada have?", False),
        ("How many people work at Norvik?", "How many employees does Norvik have?", False),
        ("How many times was she crowned?", "How many crowns did she win?", False),
    ],
)
def test_what_was_before_how_it_is_done_and_what_is_counted(query: str, stored: str, expected: bool) -> None:
    assert told_apart(query, stored) is expected


@pytest.mark.parametrize(
    ("query", "stored"),
    [
        ("What is the largest city in Australia?", "What is the capital of Australia?"),
        ("What is the fare from Rome to Oslo?", "What is the fare from Oslo to Rome?"),
        ("Who loves Tom?", "Who does Tom love?"),
        ("How do I change my wifi password?", "What is my wifi password?"),
    ],
)
def test_the_pair_model_alone_takes_them_for_the_same(query: str, stored: str) -> None:
    gate = shared_gate()
    assert gate.same(gate.lower(query), gate.lower(stored)) > 0.5, "else the rule is not needed any more"
    assert Index([stored], [gate.fingerprint(stored)], gate).match([query]) == [[]]


@pytest.mark.parametrize(
    ("query", "stored", "expected"),
    [
        ("Write a card to my sister, with her name.", "What is my sister's name?", True),
        ("please help me draft a line to my sister by name", "What is my sister's name?", True),
        ("Write me a poem.", "Write a poem.", False),
        ("Who wrote my sister's card?", "What is my sister's name?", False),
        ("Tell me my sister's name.", "What is my sister's name?", False),
    ],
)
def test_to_make_something_with_a_fact_is_not_to_ask_for_it(query: str, stored: str, expected: bool) -> None:
    assert told_apart(query, stored) is expected


@pytest.mark.parametrize(
    ("asked", "today"),
    [
        ("What was my code before?", "What was my code?"),
        ("who was our landlord before that?", "who was our landlord?"),
        ("Where did I use to live?", "Where did I live?"),
        ("What was my old alarm code?", "What was my alarm code?"),
        ("What is my alarm code?", ""),
        ("Where did I live before now?", "Where did I live?"),
        ("What does she eat now that she did not before?", ""),
        ("I lived in Hull before.", ""),
        ("Should I eat before the exam?", ""),
        ("What is my old age pension?", "What is my age pension?"),
        ("Who was my boss before Paulo?", "Who was my boss?"),
        ("Wo habe ich früher gewohnt?", "Wo habe ich gewohnt?"),
        ("Où est-ce que je travaillais avant ?", "Où est-ce que je travaillais ?"),
        ("我以前住在哪里？", "我住在哪里？"),
    ],
)
def test_a_question_about_before_is_one_about_today(asked: str, today: str) -> None:
    assert now_asked(asked) == today


@pytest.mark.parametrize(
    ("text", "subject", "meant"),
    [
        ("And before?", "", "Where does Ida live before?"),
        ("what was it before that?", "", "Where does Ida live before?"),
        ("Und vorher?", "", "Where does Ida live before?"),
        ("What's her number?", "my aunt Ida", "What's my aunt Ida's number?"),
        ("how old is she", "my aunt Ida", "how old is my aunt Ida"),
        ("Who told her that he left?", "my aunt Ida", ""),
        ("What's her number?", "", ""),
        ("She is twelve.", "my aunt Ida", ""),
        ("Where was I before?", "my aunt Ida", ""),
    ],
)
def test_a_question_that_goes_on_is_read_with_the_one_before(text: str, subject: str, meant: str) -> None:
    assert asked_in_full(text, "Where does Ida live?", subject) == meant


def test_what_is_counted_may_be_spoken_of_in_the_other() -> None:
    assert not another_question("How many employees has it?", "How many customers do the employees serve?")
