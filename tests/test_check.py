"""`lmm memory check` and `/consolidate`: what is no longer known is found and taught again; nothing else is lost."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from typing import Any

import pytest
import scripted
from contracts import memory, opened
from scripted import Jotter
from test_commands import Session, session  # noqa: F401

from lmm import registry
from lmm.adapters.base import Adapter
from lmm.adapters.toy import ToyAdapter
from lmm.cli import app as cli
from lmm.engine import check as memory_check
from lmm.engine import runtime
from lmm.engine.asking import recall_many
from lmm.engine.consolidate import consolidate
from lmm.engine.engine import Engine
from lmm.engine.mind import Mind
from lmm.errors import Cancelled, LearningError
from lmm.lesson import Lesson
from lmm.memory.base import LearnReport, Recall
from lmm.memory.memoir.memoir import Memoir

SISTER = Lesson("What is my sister's name?", "Vera", id="sister1")
PORT = Lesson("What is the staging port?", "8443", id="port111")


class Forgetful(Jotter):
    """Knows the wordings it was taught in, and no other; a lesson learned only once is known only half the time."""

    name = "forgetful"

    def on_prompt(self, state, lessons, prompts, adapter):
        self.adapter = adapter
        asked = prompts[0].text.lower().strip(" ?.")
        hits = [x for x in lessons if asked in [t.lower().strip(" ?.") for t in (x.prompt, *x.wordings)]]
        return Recall([[(hits[0].id, 0.9)]], {"answer": hits[0].answer}) if hits else None

    def row(self, recall, b):
        return recall

    def stack(self, ops, rows):
        return rows[0]


class Stubborn(Forgetful):
    """Learns nothing a second time."""

    name = "stubborn"

    def learn(self, known, lesson, adapter, message, report):
        if lesson.wordings:
            raise LearningError("no more")
        return super().learn(known, lesson, adapter, message, report)


class Merging(Forgetful):
    """Consolidation makes one lesson of all; `loses` what it was told to lose."""

    name = "merging"
    loses = False

    def consolidate(self, known, adapter, report):
        lessons = known.lessons
        if len(lessons) < 2:
            return known, 0
        report.step(1.0)
        merged = replace(lessons[-1], wordings=() if self.loses else tuple(x.prompt for x in lessons[:-1]))
        return replace(known, lessons=(merged,)), 1


@pytest.fixture(autouse=True)
def _others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_check, "BATCH", 1)  # a scripted model speaks to one
    registry.MEMORIES["forgetful"] = "test_check:Forgetful"
    registry.MEMORIES["merging"] = "test_check:Merging"
    registry.MEMORIES["stubborn"] = "test_check:Stubborn"


def taught(kind: Any, *lessons: Lesson) -> Engine:
    engine = scripted.engine(kind())
    opened.append(engine)
    for lesson in lessons:
        engine.mind.learn(lesson)
    return engine


# ---------------------------------------------------------------- checking
def test_a_lesson_is_asked_for_in_its_own_and_two_other_wordings() -> None:
    asked = memory_check.questions_of(SISTER)
    assert len({q for q, _ in asked}) == 3 and asked[0] == (SISTER.prompt, "Vera")
    assert {a for _, a in asked} == {"Vera"}
    kept = memory_check.questions_of(replace(SISTER, wordings=("Name my sister.",)))
    assert kept[1] == ("Name my sister.", "Vera") and len(kept) == 3
    heard = memory_check.questions_of(Lesson(statement="My sister's name is Vera."))
    assert heard[0][0] == "What is my sister's name?" and "Vera" in heard[0][1] and len(heard) == 3
    assert memory_check.questions_of(Lesson(statement="What a day!")) == []


def test_checking_says_which_wordings_fail_and_changes_nothing() -> None:
    engine = taught(Forgetful, SISTER, PORT)
    version = engine.mind.knowledge
    report = memory_check.check_and_fix(engine.mind, fix=False)
    assert engine.mind.knowledge is version and report.after is None and not report.better
    assert [[a.ok for a in c.asked] for c in report.before] == [[True, False, False]] * 2
    assert memory_check.right(report.before) == 2 and len(memory_check.failing(report.before)) == 2


def test_a_reply_must_have_the_answer_in_whole_words() -> None:
    engine = scripted.engine(Jotter(), script=lambda text: "It is 18443." if "port" in text else "It is 8443!")
    opened.append(engine)
    (found,) = memory_check.check(engine.mind, [PORT])
    assert not any(a.ok for a in found.asked)
    (found,) = memory_check.check(engine.mind, [replace(PORT, prompt="Which gate?")])
    assert found.asked[0].ok


def test_what_fails_is_taught_again_with_the_wordings_that_failed() -> None:
    engine = taught(Forgetful, SISTER, PORT)
    report = memory_check.check_and_fix(engine.mind, fix=True)
    assert memory_check.right(report.before) == 2
    assert memory_check.right(report.now) == 6 and report.better and not memory_check.failing(report.now)
    lessons = engine.mind.lessons
    assert [x.id for x in lessons] == ["sister1", "port111"], "in their places, under their ids"
    assert all(len(x.wordings) == 2 for x in lessons)
    assert memory_check.check_and_fix(engine.mind, fix=True).after is None, "nothing fails: nothing is taught"


def test_what_cannot_be_learned_again_is_reported_and_kept() -> None:
    engine = taught(Stubborn, SISTER)
    before = engine.mind.knowledge
    report = memory_check.check_and_fix(engine.mind, fix=True)
    assert report.problems == {"sister1": "no more"} and not report.better
    assert engine.mind.knowledge == before and [x.id for x in engine.mind.lessons] == ["sister1"]


def test_teaching_again_that_spoils_as_much_as_it_mends_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = taught(Forgetful, SISTER, PORT)
    before, honest = engine.mind.knowledge, memory_check.check

    def spoilt(mind: Mind, lessons: Any, *more: Any) -> Any:
        found = honest(mind, lessons, *more)
        if engine.mind.knowledge is before:
            return found
        return [memory_check.Checked(c.lesson, [replace(a, ok=False) for a in c.asked]) for c in found]

    monkeypatch.setattr(memory_check, "check", spoilt)
    report = memory_check.check_and_fix(engine.mind, fix=True)
    assert not report.better and engine.mind.knowledge is before


@pytest.mark.parametrize("name", ["keyed", "memoir", "lora_on_user", "hash_gradient"])
def test_every_memory_can_be_checked_and_taught_again(name: str) -> None:
    engine = Engine(Mind(ToyAdapter(), memory(name)))
    opened.append(engine)
    for lesson in (SISTER, PORT):
        engine.mind.learn(replace(lesson, statement=f"{lesson.prompt} {lesson.answer}"))
    found = memory_check.check(engine.mind, engine.mind.lessons)
    memory_check.teach_again(engine.mind, found[0])
    assert [x.id for x in engine.mind.lessons] == ["sister1", "port111"]
    assert len(engine.mind.history.undo) >= 3


# ---------------------------------------------------------------- the command
@pytest.fixture
def lmm(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runtime, "open_mind", runtime.open_mind)
    monkeypatch.setattr(runtime, "open_engine", runtime.open_engine)
    scripted.install()

    def run(*args: str) -> tuple[int, str, str]:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["lmm", *args])
        monkeypatch.setattr(sys, "stdin", io.StringIO(""))
        code: Any = 0
        try:
            cli.main()
        except SystemExit as left:
            code = left.code or 0
        return code, *capfd.readouterr()

    return run


def test_the_command_checks_fixes_and_saves(lmm, tmp_path) -> None:
    path = tmp_path / "m.safetensors"
    taught(Forgetful, SISTER, PORT).mind.save(path)
    written = path.read_bytes()
    code, out, _ = lmm("memory", "check", "m.safetensors")
    assert code == 1 and "checked: 2 of 6 questions right; 2 of 2 lessons fail" in out and out.count("fails") == 4
    assert path.read_bytes() == written
    code, out, err = lmm("memory", "check", "m.safetensors", "--fix")
    assert code == 0 and "before: 2 of 6" in out and "after: 6 of 6 questions right; 0 of 2" in out
    assert "saved to m.safetensors" in err
    code, out, _ = lmm("memory", "check", "m.safetensors", "--json")
    found = json.loads(out)
    assert code == 0 and found["before"]["right"] == 6 and found["after"] is None and not found["saved"]


def test_the_command_leaves_a_file_it_cannot_mend(lmm, tmp_path) -> None:
    path = tmp_path / "m.safetensors"
    taught(Stubborn, SISTER).mind.save(path)
    written = path.read_bytes()
    code, out, _ = lmm("memory", "check", "m.safetensors", "--fix", "--json")
    found = json.loads(out)
    assert code == 1 and found["not_learned"] == {"sister1": "no more"} and path.read_bytes() == written
    assert [x["id"] for x in found["after"]["failed"]] == ["sister1"]


def test_migrating_without_a_lesson_is_how_memoir_forgets(lmm, tmp_path) -> None:
    taught(Forgetful, SISTER, PORT).mind.save(tmp_path / "m.safetensors")
    code, out, _ = lmm(
        "memory", "migrate", "m.safetensors", "--without", "sister1", "--mm-save-path", "n.safetensors", "--json"
    )
    assert code == 0 and [x["id"] for x in json.loads(out)["learned"]] == ["port111"]
    assert lmm("memory", "migrate", "m.safetensors", "--without", "nobody")[0] == 2


# ---------------------------------------------------------------- consolidation
QUICK = {"k": 0.2, "steps": 40, "lr": 0.05, "prefixes": 0, "margin": 0.0, "goal": 0.05, "views": "mean"}
SHORT = (
    Lesson("Where is the red gate?", "a", id="first"),
    Lesson("Where is the red gates?", "a", id="again"),
    Lesson("my name, please", "b", id="home"),
)
FIRST, AGAIN, HOME = (x.prompt for x in SHORT)


def memoir(adapter: Adapter, tau: float) -> Engine:
    engine = Engine(Mind(adapter, Memoir(Memoir.build_options(QUICK | {"tau": tau}))))
    opened.append(engine)
    for lesson in SHORT:
        engine.mind.learn(lesson)
    return engine


def likeness(engine: Engine) -> Any:
    from lmm.memory.memoir.tophash import overlaps

    found = engine.adapter.ops.to_numpy(engine.mind.knowledge.state["fingerprints"])
    return overlaps(found, found, int(found[0, 0].sum()))


def test_lessons_that_fire_for_each_other_become_one_and_nothing_is_lost(tiny_torch) -> None:
    tau = float(likeness(memoir(tiny_torch, 1.0))[0, 1])
    engine = memoir(tiny_torch, tau)
    assert likeness(engine)[:2, 2].max() < tau, "the third is another matter"
    before = {c.lesson.prompt for c in memory_check.check(engine.mind, engine.mind.lessons) if c.asked[0].ok}
    found = consolidate(engine.mind)
    assert (found.groups, found.lessons_before, found.lessons_after, found.lost) == (1, 3, 2, ())
    merged, home = engine.mind.lessons
    assert (merged.id, merged.prompt, merged.wordings, home.id) == ("again", AGAIN, (FIRST,), "home")
    recalls = recall_many(engine.mind, [FIRST, AGAIN, HOME], 3)
    assert [r and r.fired[0][0][0] for r in recalls] == ["again", "again", "home"]
    checked = memory_check.check(engine.mind, engine.mind.lessons)
    assert before and before - {FIRST} <= {c.lesson.prompt for c in checked if c.asked[0].ok}
    assert len(engine.mind.knowledge.state["fingerprints"]) == 3
    engine.mind.undo()
    assert [x.id for x in engine.mind.lessons] == ["first", "again", "home"]


def test_lessons_with_different_answers_stay_apart_and_are_learned_together(tiny_torch) -> None:
    tau = float(likeness(memoir(tiny_torch, 1.0))[0, 1])
    engine = memoir(tiny_torch, tau)
    engine.mind.learn(replace(SHORT[1], answer="c", id="other"))
    known, groups = engine.mind.memory.consolidate(engine.mind.knowledge, engine.adapter, LearnReport())
    assert groups == 1 and sorted(x.answer for x in known.lessons) == ["a", "b", "c"]
    assert len(known.state["fingerprints"]) == 3


def test_nothing_alike_nothing_done(tiny_torch) -> None:
    engine = memoir(tiny_torch, 1.0)
    version = engine.mind.knowledge
    assert consolidate(engine.mind).groups == 0 and engine.mind.knowledge is version


def test_if_anything_known_is_lost_all_is_put_back(tiny_torch, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = memoir(tiny_torch, float(likeness(memoir(tiny_torch, 1.0))[0, 1]))
    version, known = engine.mind.knowledge, iter([{FIRST, "x"}, {FIRST}])
    monkeypatch.setattr("lmm.engine.consolidate._right", lambda engine: next(known))
    found = consolidate(engine.mind)
    assert found.lost == ("x",) and engine.mind.knowledge is version and not engine.mind.history.redo


def test_it_can_be_stopped_and_other_memories_say_why_not(tiny_torch) -> None:
    engine = memoir(tiny_torch, float(likeness(memoir(tiny_torch, 1.0))[0, 1]))
    version = engine.mind.knowledge
    with pytest.raises(Cancelled):
        consolidate(engine.mind, lambda report: engine.mind.cancelled.set())
    assert engine.mind.knowledge is version
    with pytest.raises(LearningError, match="nothing to consolidate"):
        consolidate(taught(Jotter, SISTER).mind)


def test_the_chat_command_says_what_it_did_and_undoes(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    session.do("/memory merging")
    session.do("/teach What is my sister's name? => Vera")
    session.do("/consolidate")
    assert "all lessons are well apart; 1 lesson known" in session.beside
    session.do("/teach How is my sister called? => Vera")
    memory: Any = session.chat.engine.mind.memory
    monkeypatch.setattr(memory, "loses", True)
    session.do("/consolidate")
    assert "nothing was changed: it would have lost What is my sister's name?" in session.beside
    assert len(session.chat.engine.mind.lessons) == 2
    monkeypatch.setattr(memory, "loses", False)
    session.do("/consolidate")
    assert "1 set of lessons learned anew; 1 lesson known, before 2; /undo goes back" in session.beside
    replies = [session.do(text) for text in ("What is my sister's name?", "How is my sister called?")]
    assert replies == ["Your sister is called Vera.\n"] * 2
    session.do("/undo")
    assert len(session.chat.engine.mind.lessons) == 2
    session.do("/memory jotter")
    session.do("/consolidate")
    assert "nothing to consolidate" in session.beside
