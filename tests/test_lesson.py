"""What is known: which lessons ask the very same."""

from __future__ import annotations

import pytest

from lmm.lesson import Knowledge, Lesson

HOME, NAME = Lesson("Where do I live?", "Oslo"), Lesson("What is my name?", "Ada")


@pytest.mark.parametrize("question", ["Where do I live?", "where do i LIVE?", " Where  do I\nlive? "])
def test_the_superseded_is_the_same_in_other_letters_and_blanks(question: str) -> None:
    assert Knowledge({}, (HOME, NAME)).superseded(Lesson(question, "Rome")) == (HOME,)


@pytest.mark.parametrize("question", ["Where do we live?", ""])
def test_another_question_and_none_are_not_the_same(question: str) -> None:
    assert Knowledge({}, (HOME, Lesson("", "Oslo"))).superseded(Lesson(question, "Rome")) == ()


def test_what_the_answer_is_said_back_to_is_a_mere_answer_and_no_sentence_of_its_own_is() -> None:
    said = "I have a dog called Tolly and a parrot called Quince"
    own = Lesson(
        "What is my dog's name?", "Your dog's name is Tolly.", said, echo="You have a dog called Tolly and more."
    )
    assert own.stated and own.says == said
    mere = Lesson("How high is it?", "The hill is 300 metres high.", "no it's 300", echo="The hill is 300 metres high.")
    assert not mere.stated and mere.says == mere.answer
    assert not Lesson("How high is it?", "The hill is 300 metres high.", "300").stated  # of /correct


def test_a_lesson_in_the_place_of_others_says_what_it_replaces() -> None:
    again = Lesson("Where do I live?", "Rome")
    known = Knowledge({}, (HOME, NAME)).taught({"a": 1}, again, (HOME,))
    assert known.state == {"a": 1} and [x.answer for x in known.lessons] == ["Ada", "Rome"]
    assert known.lessons[-1].replaces == "Oslo"
    assert Knowledge({}, (NAME,)).taught({}, again).lessons == (NAME, again)


def test_a_lesson_takes_the_place_of_what_says_the_same_relation_of_the_same_subject() -> None:
    lena = Lesson("Where does my sister live?", "Linz", subject="my sister", relation="place")
    car = Lesson(statement="The car is on level 3.", subject="the car", relation="place")
    known = Knowledge({}, (HOME, lena, car))
    assert known.superseded(Lesson("Where does Lena live?", "Graz", subject="My sister", relation="place")) == (lena,)
    assert known.superseded(Lesson(statement="the car is on level 3", subject="my car")) == (car,)
    assert known.superseded(Lesson(statement="My sister is a pilot.", subject="my sister", relation="job")) == ()
    assert known.superseded(Lesson(statement="All has changed.", supersedes=(car.id, "gone"))) == (car,)
    moved = known.taught({}, Lesson(statement="It is on level 5."), (car,)).lessons[-1]
    assert moved.replaces == "The car is on level 3."
