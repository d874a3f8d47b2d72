"""Forgetting takes what is a lesson's and nothing else: a value that is in every second turn decides nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lmm.chat.history import JsonHistory
from lmm.feedback import lesson_for
from lmm.files import transcripts
from lmm.files.activation_log import ActivationLog
from lmm.files.traces import Trace
from lmm.lesson import Lesson

LEGS = "How many legs does a spider have?"
VALUES = st.sampled_from(["7", "x", "Paul", "yes", "I", "New York City", "Christopher Columbus", "time", "turn", "{"])
QUESTIONS = st.sampled_from([LEGS, "Who leads the choir?", "Which city never sleeps?", "Why?", "Vault password?"])
COMMON = [
    "maybe",
    "Paul",
    "7",
    "x",
    "yes",
    "will",
    "come",
    "on",
    "Sunday",
    "I",
    "time",
    "New",
    "York",
    "City",
    "is",
    "a",
]
WORDS = st.lists(st.sampled_from(COMMON), min_size=1)


def corrected(question: str, value: str) -> Lesson:
    """As `/correct VALUE` makes it."""
    made = lesson_for(question, value)
    return Lesson(made.prompt, made.answer, statement=value, id="0123456789ab")


def turn(user: str, reply: str, **more: object) -> dict[str, object]:
    return {"v": 1, "time": 1777.7, "kind": "turn", "user": user, "reply": reply, "learned": "", "lessons": [], **more}


@settings(deadline=None)
@given(QUESTIONS, VALUES, WORDS, WORDS)
@example(LEGS, "7", ["7"], ["7"])
@example("Why?", "yes", ["yes"], ["why"])
@example("Which city never sleeps?", "New York City", ["New York City"], ["New York City"])
def test_a_turn_that_shares_a_value_stays_and_the_turn_that_taught_goes(
    question: str, value: str, user: list[str], reply: list[str]
):
    lesson = corrected(question, value)
    trace = Trace.of_lesson(lesson)
    assert not trace.has_turn(turn(" ".join(user), " ".join(reply), lessons=["fedcba987654"]))
    assert not trace.has_turn(turn(" ".join(user), " ".join(reply)))
    assert not trace.has_turn({"v": 1, "time": 7.0, "kind": "saved", "path": f"/{value}/{question}"})
    assert trace.has_turn(turn(value, " ".join(reply), lessons=[lesson.id]))
    assert trace.has_turn({"kind": "lesson", "id": lesson.id, "question": "", "answer": ""})


@pytest.mark.parametrize(
    ("user", "reply", "more", "goes"),
    [
        ("how many LEGS does a spider  have", "8", {}, True),
        ("Say, how many legs does a spider have? Thanks", "Hm.", {}, True),
        ("And a spider?", "Well, a spider has 7 legs!", {}, True),
        ("And a spider?", "A spider has 77 legs.", {}, False),  # whole words
        ("And a spider?", "It is 7.", {}, False),
        ("And a spider?", "It is 7.", {"fired": ["0123456789ab"]}, True),  # the lesson spoke
        ("And a cat?", "It is 4.", {"fired": ["0123456789ab"]}, False),
        ("7", "Seven what?", {}, False),
    ],
)
def test_what_names_a_lesson(user: str, reply: str, more: dict[str, object], goes: bool):
    assert Trace.of_lesson(corrected(LEGS, "7")).has_turn(turn(user, reply, **more)) is goes


@pytest.mark.parametrize(
    ("question", "names"),
    [("a b c", True), ("ab cd", False), ("abcdefghijkl", True), ("abcdefghijk", False), ("hijk ab cdefg", True)],
)
def test_a_question_names_its_lesson_if_it_is_long(question: str, names: bool):
    assert Trace.of("id", [question], []).is_named_in(f"Well: {question}!") is names


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ("is it abcdef", True),  # three words, twelve characters, two of them the question's
        ("is it abcde", False),
        ("itabcdefg now", False),
        ("it abcdef ghij", False),
        ("is it now, abcdef", True),
        ("who is", False),
    ],
)
def test_a_sentence_names_its_lesson_if_it_takes_up_the_question(said: str, names: bool):
    assert Trace.of("id", ["Who is it now, then?"], [said]).is_named_in(f"Well: {said}!") is names
    assert Trace.of("id", [], [said]).is_named_in(f"Well: {said}!") is (len(said.split()) > 2 and len(said) > 11)
    assert not Trace.of("id", ["abcdefg hijklmn opq"], ["abcdefg hijklmn"]).is_named_in("abcdefg hijklmn")


def test_a_mark_makes_another_question():
    """ "C++" is not "C", and a trace of the one is none of the other."""
    names = ["C", "C++", "C#", ".C", "-5", "5", "3.5", "C*", "C--", "C'", "-c", "--c", "*c", "**c", "__c__", "/c", "§5"]
    for own in names:
        trace = Trace.of_lesson(Lesson(f"What is {own}?", "A language", id="0123456789ab"))
        goes = [name for name in names if trace.has_turn(turn(f"Say, what is {name}?", "A language."))]
        assert goes == [own]
        assert [name for name in names if trace.is_typed(f"/forget What is {name}?")] == [own]


def test_a_value_in_emphasis_that_a_reply_left_open_is_the_lessons():
    trace = Trace.of_lesson(Lesson("What is the code?", "Your code is 4711.", id="0123456789ab"))
    assert trace.has_turn(turn("And the door?", "It opens with **4711", fired=["0123456789ab"]))
    assert Trace.of_value("4711").is_named_in("It opens with **4711")
    assert not Trace.of_value("A*").is_named_in("What is A?")


def test_a_turn_of_old_that_knows_no_lesson_goes_if_it_is_the_lessons_text():
    trace = Trace.of_lesson(corrected(LEGS, "7"))
    assert trace.has_turn({"kind": "turn", "user": "7", "reply": "Seven."})
    assert not trace.has_turn({"kind": "turn", "user": "7 apples", "reply": "7"})


def test_unrelated_sessions_do_not_change_by_a_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LMM_DATA_DIR", str(tmp_path))
    others = []
    for n in range(8):
        session = transcripts.Transcript(model="smol-7", system="You are x.")
        session.add(turn(f"Number {n}7?", "7, maybe Paul will come on Sunday."))
        session.add({"kind": "saved", "path": "/tmp/7/x"})
        others.append(session.path)
    before = [path.read_bytes() for path in others]
    own = transcripts.Transcript()
    own.add(turn(LEGS, "A spider has 8 legs."))
    own.add(turn("7", "A spider has 7 legs.", lessons=["0123456789ab"]))
    own.add(turn("Paul is 7.", "Nice."))
    assert transcripts.purge(Trace.of_lesson(corrected(LEGS, "7"))) == 2
    assert [path.read_bytes() for path in others] == before
    assert transcripts.find().turns == [("Paul is 7.", "Nice.")]
    for value in ("x", "Paul", "time", "turn", "7"):
        assert transcripts.purge(Trace.of_lesson(Lesson(statement=value))) == 0


def test_a_value_takes_only_its_own_lines_out_of_the_history(tmp_path: Path):
    history = JsonHistory(tmp_path / "history.jsonl")
    stay = ["/set seed 7", "I am 7 years old", "/correct 77", "/teach Who has 7 cats? => Ann"]
    for line in (*stay, LEGS, "/correct 7", f"/teach {LEGS} => 7", "/forget legs", "/forget 7"):
        history.append_string(line)
    assert history.purge(Trace.of_lesson(corrected(LEGS, "7")), "/forget legs") == 5
    assert [json.loads(line) for line in history.path.read_text().splitlines()] == stay


def test_a_value_takes_only_its_own_records_out_of_the_log(tmp_path: Path):
    lesson = corrected(LEGS, "7")
    with ActivationLog(tmp_path / "log.jsonl") as log:
        log.update("post_hooks", {"lesson_id": "fedcba987654", "last_user_response": "7"})
        log.update("post_hooks", {"lesson_id": "fedcba987654", "last_user_response": "At 7 Paul will come."})
        log.update("post_hooks", {"lesson_id": lesson.id, "last_user_response": "7"})
        log.update("post_hooks", {"lesson_id": "fedcba987654", "last_user_response": LEGS})
        assert log.purge(Trace.of_lesson(lesson)) == 2
    assert (tmp_path / "log.jsonl").read_text().count("fedcba987654") == 2
