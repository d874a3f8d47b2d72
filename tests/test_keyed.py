"""`keyed`: the look-up table that grows with the lessons is the one that would be made anew."""

from __future__ import annotations

from dataclasses import replace

from contracts import engine, on

from lmm.adapters.base import Adapter
from lmm.engine.asking import recall_many
from lmm.lesson import Lesson
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
