"""The parts of the reader that are rules: the other point of view, what a fact is about, dates, vetoes, spans."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from lmm.feedback import about, grammar, is_denial
from lmm.feedback.dates import dated
from lmm.feedback.languages import echoed
from lmm.feedback.lessons import put_right
from lmm.feedback.model import best_span, clauses, whole_words
from lmm.feedback.retractions import taken_back, tells
from lmm.feedback.vetoes import vetoed
from lmm.lesson import Lesson
from lmm.text.language import language
from lmm.text.names import of_another


@pytest.mark.parametrize(
    ("clause", "tongue", "echo"),
    [
        ("I parked the car on level 3, bay 17", "en", "You parked the car on level 3, bay 17."),
        ("i'm allergic to nuts", "en", "You are allergic to nuts."),
        ("our log files go to /srv/my/logs", "en", "Your log files go to /srv/my/logs."),
        ("Zorbina lives in Aarhus", "en", "Zorbina lives in Aarhus."),
        ("meine Schwester Leonie wohnt in Linz", "de", "Deine Schwester Leonie wohnt in Linz."),
        ("ich wohne in Kassel", "de", "Du wohnst in Kassel."),
        ("ich bin Hebamme", "de", "Du bist Hebamme."),
        ("wir haben am 3. März geheiratet", "de", "Ihr habt am 3. März geheiratet."),
        ("Im Musikverein spiele ich die Tuba", "de", "Im Musikverein spielst du die Tuba."),
        ("die Stadt, die ich mag, ist Ulm", "de", "Die Stadt, die du magst, ist Ulm."),
        ("voy al trabajo en mi Vespa verde", "es", "Vas al trabajo en tu Vespa verde."),
        ("j'habite à Brest", "fr", "Tu habites à Brest."),
        ("ma sœur s'appelle Zélie", "fr", "Ta sœur s'appelle Zélie."),
        ("je suis allergique aux noix", "fr", "Tu es allergique aux noix."),
        ("vivo en Gijón", "es", "Vives en Gijón."),
        ("mi hermana se llama Maite", "es", "Tu hermana se llama Maite."),
        ("我妹妹住在成都。", "zh", "你妹妹住在成都。"),
        ("We've rebooked the trip to the islands", "en", "You have rebooked the trip to the islands."),
        ("we'll meet at noon and I'd bring a cake", "en", "You will meet at noon and you'd bring a cake."),
        ("我们周五从不上线", "zh", "你们周五从不上线。"),
        ("the boiler man comes at 9:20 am", "en", "The boiler man comes at 9:20 am."),
        ("at 7 I am at my desk", "en", "At 7 you are at your desk."),
    ],
)
def test_a_fact_is_said_back_from_the_other_side(clause: str, tongue: str, echo: str) -> None:
    assert language(clause) == tongue
    assert echoed(clause, tongue) == echo


@pytest.mark.parametrize(
    ("text", "tongue", "said"),
    [
        ("The exam is next Friday at 9", "en", "The exam is on 4 December 2026 at 9"),
        ("The exam is tomorrow", "en", "The exam is on 29 November 2026"),
        ("Die Prüfung ist nächsten Montag", "de", "Die Prüfung ist am 30. November 2026"),
        ("L'examen est demain", "fr", "L'examen est le 29 novembre 2026"),
        ("El examen es el lunes que viene", "es", "El examen es el 30 de noviembre de 2026"),
        ("考试在明天", "zh", "考试在2026年11月29日"),
        ("We never deploy on Fridays", "en", "We never deploy on Fridays"),
        ("Vera moved to Odense last month", "en", "Vera moved to Odense in October 2026"),
        ("I quit smoking two weeks ago", "en", "I quit smoking in November 2026"),
        ("we sold it 3 days ago", "en", "we sold it on 25 November 2026"),
        ("she has run it since last year", "en", "she has run it since 2025"),
        ("we chose it at last week's meeting", "en", "we chose it at last week's meeting"),
        ("from today on we deploy on Mondays", "en", "from 28 November 2026 on we deploy on Mondays"),
        ("she has Mr Pim this year", "en", "she has Mr Pim in 2026"),
        ("heute Abend um 8", "de", "am 28. November 2026 um 8"),
        ("esta tarde a las 5", "es", "el 28 de noviembre de 2026 a las 5"),
        ("这周三开会", "zh", "这周三开会"),
        ("11 months ago we got a dog", "en", "in December 2025 we got a dog"),
        ("Letzten Freitag haben wir verkauft", "de", "am 27. November 2026 haben wir verkauft"),
        ("Wir sind vor zwei Monaten umgezogen", "de", "Wir sind im September 2026 umgezogen"),
        ("il a changé de numéro il y a trois ans", "fr", "il a changé de numéro en 2023"),
        ("il y a deux chats", "fr", "il y a deux chats"),
        ("vivo aquí desde hace dos años", "es", "vivo aquí desde hace dos años"),
        ("他上个月搬到青岛", "zh", "他2026年10月搬到青岛"),
        ("The wedding was moved to next spring", "en", "The wedding was moved to spring 2027"),
        ("We got a hedgehog last spring", "en", "We got a hedgehog in spring 2026"),
        ("she started school this September", "en", "she started school in September 2026"),
        ("3,200 by next summer, for next fall", "en", "3,200 by summer 2027, for autumn 2027"),
        ("this may be so, last May was not", "en", "this may be so, in May 2026 was not"),
        ("since last winter and until next winter", "en", "since winter 2025/26 and until winter 2026/27"),
        ("Wir heiraten im nächsten Sommer", "de", "Wir heiraten im Sommer 2027"),
        ("seit letztem Herbst", "de", "seit Herbst 2025"),
        ("On se marie l'été prochain", "fr", "On se marie en été 2027"),
        ("me mudé en mayo pasado", "es", "me mudé en mayo de 2026"),
        ("corro cada mañana y trabajo por la mañana", "es", "corro cada mañana y trabajo por la mañana"),
    ],
)
def test_times_as_seen_from_today_become_dates(text: str, tongue: str, said: str) -> None:
    assert dated(text, tongue, date(2026, 11, 28)) == said


@pytest.mark.parametrize(
    ("clause", "subject", "value", "relation"),
    [
        ("my sister Lena lives in Linz", "my sister Lena", "Linz", "home"),
        ("my sister Lena moved to Graz", "my sister Lena", "Graz", "home"),
        ("Meine Schwester Lena wohnt in Linz", "Meine Schwester Lena", "Linz", "home"),
        ("my new number is 0551 12", "I", "0551 12", "phone"),
        ("I love Chinese food", "I", "Chinese food", "opinion of chinese food"),
        ("I hate Chinese food", "I", "Chinese food", "opinion of chinese food"),
    ],
)
def test_the_next_fact_about_the_same_relation_is_known_as_such(
    clause: str, subject: str, value: str, relation: str
) -> None:
    assert about.relation_of(clause, subject, value) == relation


def test_two_things_one_may_have_are_two_relations() -> None:
    nuts, kiwi = (about.relation_of(f"I'm allergic to {food}", "I", food) for food in ("nuts", "kiwi"))
    assert nuts and kiwi and nuts != kiwi


@pytest.mark.parametrize(
    ("clause", "subject"),
    [
        ("my name is Bob", "I"),
        ("I live in Oslo", "I"),
        ("our address is 4 Elm Rd", "we"),
        ("my sister's name is Vera", ""),  # not the user's own
        ("mein Bruder heißt Tavik", ""),
        ("我妹妹叫佐琳娜", ""),
    ],
)
def test_without_a_known_subject_only_the_speaker_is_one(clause: str, subject: str) -> None:
    assert about.subject_of(clause, "") == subject


def test_a_name_or_a_word_for_someone_means_the_one_that_is_known() -> None:
    known = ["my sister Lena", "my brother Tavik"]
    assert about.same_subject("Lena", known) == "my sister Lena"
    assert about.same_subject("my sister", known) == "my sister Lena"
    assert about.same_subject("my cousin", known) == "my cousin"
    assert about.same_subject("my sister", [*known, "my sister Vera"]) == "my sister"  # in doubt: neither
    assert about.same_subject("the production server", ["the staging server"]) == "the production server"
    for one, other in (("my standing desk", "my desk"), ("my desk", "my standing desk"), ("my bus card", "my bus")):
        assert about.same_subject(one, [other]) == one


@pytest.mark.parametrize(
    ("question", "reply", "wrong", "answer"),
    [
        ("Was ist die Hauptstadt von Australien?", "Die Hauptstadt von Australien ist Sydney.", "", "ist Canberra."),
        ("我妹妹住在哪里？", "你妹妹住在北京。", "", "你妹妹住在Canberra。"),
        (
            "Où habite Zoé ?",
            "Zoé habite à Brest, je crois, ou à Pau.",
            "Brest",
            "habite à Canberra, je crois, ou à Pau.",
        ),
        ("Où habite Zoé ?", "Zoé habite à Brest, pense Paul.", "", "Canberra"),  # not clear what was wrong
    ],
)
def test_the_right_value_stands_where_the_wrong_one_stood(question: str, reply: str, wrong: str, answer: str) -> None:
    assert put_right(question, reply, wrong, "Canberra").endswith(answer)


@pytest.mark.parametrize(
    "text", ["no", "No!", "wrong", "no, that's wrong", "nein, falsch", "non", "不对", "that’s not right"]
)
def test_a_bare_denial_is_known(text: str) -> None:
    assert is_denial(text)


@pytest.mark.parametrize("text", ["no, Canberra", "wrong book", "nobody", "no idea", ""])
def test_more_than_a_denial_is_none(text: str) -> None:
    assert not is_denial(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("suppose my name were Bob", "hypothetical"),
        ("in my novel Anna lives in Rome", "fiction"),
        ("```my name is Bob```", "code"),
        ("my name is Bob, just kidding", "irony"),
        ("no, it's Alfred... kidding!", "irony"),
        ("my brother is always kidding around", ""),
        ("translate: my name is Hans", "asked to be put otherwise"),
        ("my name is Bob", ""),
        ("If you cook: I can't have nuts", ""),
    ],
)
def test_what_is_framed_as_no_fact_is_none(text: str, why: str) -> None:
    assert vetoed(text) == why


def test_the_words_of_any_end_take_nothing_back() -> None:
    known = [Lesson(statement="We gave up the garage."), Lesson(statement="Wotan isn't a cat any more")]
    assert taken_back("Joram and I split up.", known) == []
    assert taken_back("I don't take the tram any more.", known) == []
    assert taken_back("Forget the garage.", known) == known[:1]


def test_spans_are_whole_and_never_begin_inside() -> None:
    scores = np.asarray([[0.9, 0.05, 0.05], [0.2, 0.3, 0.5], [0.1, 0.1, 0.8], [0.6, 0.2, 0.2], [0.1, 0.1, 0.8]])
    assert clauses(scores)[0][0] == 1
    assert best_span(scores, 0, 5)[:2] == (1, 5)  # a doubtful piece cuts no name in two
    assert best_span(scores, 0, 1)[2] < 0.2
    assert clauses(np.zeros((0, 3))) == []


def test_a_stretch_of_text_is_of_whole_words() -> None:
    text = "at the Blue Boat, now"
    start, end = whole_words(text, 8, 14)
    assert text[start:end] == "Blue Boat"
    assert whole_words("我住成都。", 2, 5) == (2, 4)


KNOWN = [
    Lesson(statement="My sister's name is Zorbina.", echo="Your sister's name is Zorbina."),
    Lesson(statement="Rui plays the cello."),
    Lesson(statement="Our dog Rex sleeps in the shed."),
    Lesson(prompt="Where does Rui live?", answer="Rui lives in Porto."),
]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("Please forget my sister's name.", [0]),
        ("Forget what I told you about my sister", [0]),
        ("we don't have the dog any more", [2]),
        ("forget all that about Rui", [3, 1]),
        ("Rui has left Porto, forget that", [3]),
        ("forget the thing with the boat", []),
        ("forget it", []),
    ],
)
def test_what_is_taken_back_is_found_by_the_words_that_tell_most(text: str, meant: list[int]):
    assert taken_back(text, KNOWN) == [KNOWN[i] for i in meant]
    assert taken_back(text, []) == []


@pytest.mark.parametrize("cats, relative", [(17, False), (9, False)])
def test_a_number_is_looked_for_as_a_whole_word(cats: int, relative: bool) -> None:
    assert grammar.is_relative(f"You have {cats} cats until next week, and 7 dogs.", "7") == relative
    assert grammar.is_relative("You have 7 dogs until next week.", "7")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("I sold the van.", True),
        ("Unfortunately, we lost the key.", True),
        ("Wir haben das Auto verkauft.", True),
        ("Please remove my address.", False),
        ("Ignore what I said.", False),
        ("Delete that.", False),
    ],
)
def test_an_end_is_told_or_asked_for(said: str, told: bool) -> None:
    assert tells(said) == told


@pytest.mark.parametrize(
    ("asked", "told", "another"),
    [
        ("What is my phone number?", "My cousin Ilja's phone number is 0171 2", True),
        ("When is my birthday?", "my dad's birthday is 3 May", True),
        ("What's my shoe size?", "Tom takes size 44, his shoe size is huge", True),
        ("What is my cousin Ilja's phone number?", "My cousin Ilja's phone number is 0171 2", False),
        ("What is my phone number?", "my phone number is 0171 2, my cousin's number is 0171 3", False),
        ("What number do I call for my cousin?", "My cousin's phone number is 0171 2", False),
    ],
)
def test_what_is_somebody_elses_is_not_mine(asked: str, told: str, another: bool) -> None:
    assert of_another(asked, told) == another


@pytest.mark.parametrize(
    ("said", "plain"),
    [
        ("It's lost its lid.", "It has lost its lid."),
        ("She's found a flat.", "She has found a flat."),
        ("He's left Siemens.", "He has left Siemens."),
        ("it's painted a pale blue", "it is painted a pale blue"),
        ("It's sold the usual way.", "It is sold the usual way."),
        ("She's left alone.", "She is left alone."),
        ("He's called the Boss.", "He is called the Boss."),
    ],
)
def test_what_somebody_has_done_is_not_what_they_are(said: str, plain: str) -> None:
    assert grammar.plain(said) == plain
