"""The smoke test's own judgement, and the memories' gentle presets on small models."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from contracts import numbers, on

from lmm.adapters.base import as_tokens
from lmm.bench import smoke
from lmm.config import Config, Decoding
from lmm.engine.asking import asked
from lmm.engine.engine import Engine
from lmm.engine.mind import Mind
from lmm.errors import LearningError, UsageError
from lmm.feedback import understood
from lmm.lesson import Lesson
from lmm.memory.base import Memory
from lmm.memory.batch import rows_of
from lmm.memory.contrast import PLAIN
from lmm.memory.hash_gradient import HashGradient
from lmm.memory.identity import Identity
from lmm.memory.lora_on_user import LoraOnUser


# what is taught and asked ------------------------------------------------------------------------------------------
def test_separate_teaches_each_name_and_shared_ten_facts_of_one_user():
    separate, shared = smoke.facts_of("separate"), smoke.facts_of("shared")
    assert [f.answer for f in separate] == [f.answer for f in shared] == list(smoke.NAMES)
    assert {f.question for f in separate} == {"What is my name?"}
    assert len({f.question for f in shared}) == 10
    assert separate[0].statement == "I am Alice." and separate[0].rewordings


def test_a_lone_number_is_so_many_of_the_names():
    assert smoke.facts_of("separate", ["3"]) == smoke.facts_of("separate")[:3]
    assert smoke.facts_of("shared", ["2"]) == smoke.facts_of("shared")[:2]
    with pytest.raises(UsageError, match="1 to 10"):
        smoke.facts_of("separate", ["11"])


def test_no_question_of_the_smoke_test_is_used_in_learning():
    asked = {*smoke.UNRELATED, *(f.question for f in smoke.facts_of("shared"))}
    assert not asked & set(PLAIN)
    questions = {q for q, _ in understood(Lesson(statement="I am Alice.")).pairs}
    assert not set(smoke.REWORDINGS["What is my name?"]) & questions


@pytest.mark.parametrize(
    ("protocol", "names", "words"),
    [("sharde", smoke.NAMES, "shared"), ("separate", [""], "--names"), ("shared", list("abcdefghijk"), "--facts")],
)
def test_bad_requests_say_what_to_do(protocol, names, words):
    with pytest.raises(UsageError, match=words):
        smoke.facts_of(protocol, names)


def test_a_facts_file_is_taught_as_it_stands(tmp_path):
    path = tmp_path / "facts.jsonl"
    values = {"statement": "The cat is called Momo.", "question": "What is the cat called?", "answer": "Momo"}
    path.write_text(json.dumps(values) + "\n\n", encoding="utf-8")
    (fact,) = smoke.facts_of("separate", file=path)
    lesson = smoke._lesson(fact)
    assert (lesson.statement, lesson.prompt, lesson.answer) == tuple(values.values())


def test_all_bad_lines_of_a_facts_file_are_named(tmp_path):
    path = tmp_path / "facts.jsonl"
    path.write_text('{"statement": 1}\n[]\n{"statement": "a", "question": "b", "answer": "c"}\nx', encoding="utf-8")
    with pytest.raises(UsageError, match="lines 1, 2, 4 are not"):
        smoke.facts_of("shared", file=path)
    with pytest.raises(UsageError, match="cannot be read"):
        smoke.facts_of("shared", file=tmp_path / "none.jsonl")


def test_damage_is_any_changed_answer_and_any_taught_name():
    facts = smoke.facts_of("separate", ["Eva"])
    untouched = ["same"] * len(smoke.UNRELATED)
    others = ["changed", "I am Eva", *untouched[2:]]
    both = ["same", "I am Eva", *untouched[2:]]
    found = smoke.judge(facts, ["Your name is Eva", "no", "Eva"], others, both)
    assert [x["ok"] for x in found["asked"]] == [True]
    assert [x["ok"] for x in found["reworded"]] == [False, True]
    assert [x["question"] for x in found["damage"]] == list(smoke.UNRELATED[:2])  # the second for the name it says


def test_passing_needs_recall_and_little_damage():
    outcome = smoke.SmokeOutcome("m", "torch", "separate", asked=10, recalled=8, unrelated=100, damaged=20)
    assert outcome.passes(0.8, 0.2)
    assert not outcome.passes(0.81, 0.2)
    assert not outcome.passes(0.8, 0.19)


class Scripted(Memory):
    """Learns from `kind` and remembers what it was taught; refuses what contains "bad"."""

    name = "scripted"

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.learns_from, self.taught = kind, []

    def learn(self, known, lesson, adapter, message, report):
        if "bad" in lesson.statement:
            raise LearningError("too bad")
        self.taught.append((lesson.prompt, lesson.answer, lesson.statement))
        return known.taught(known.state, lesson)


def test_messages_are_heard_and_lessons_are_what_the_chat_would_teach(toy):
    facts = smoke.facts_of("shared", ["Ada", "Bo"])
    taught = {}
    for kind in ("messages", "lessons", "nothing"):
        memory = Scripted(kind)
        engine = Engine(Mind(toy, memory), decoding=Decoding(max_tokens=2))
        assert smoke.teach(engine, facts) == []
        taught[kind] = memory.taught
        assert [m["role"] for m in engine.conversation.messages] == ["user", "assistant", "user"]
        engine.close()
    assert [t[2] for t in taught["messages"]] == ["I am Ada.", "My sister's name is Bo."]
    assert taught["lessons"][1] == ("What is my sister's name?", "Your sister's name is Bo.", "My sister's name is Bo.")
    assert taught["nothing"] == []


@pytest.mark.parametrize("kind", ["messages", "lessons"])
def test_what_cannot_be_learned_is_reported_and_the_rest_goes_on(toy, kind):
    facts = [smoke.SmokeFact("a bad thing", "q?", "a", given=True), smoke.SmokeFact("fine", "q?", "a", given=True)]
    memory = Scripted(kind)
    engine = Engine(Mind(toy, memory), decoding=Decoding(max_tokens=2))
    assert smoke.teach(engine, facts) == ["'a bad thing': too bad"]
    assert [t[2] for t in memory.taught] == ["fine"]
    assert [m["content"] for m in engine.conversation.messages if m["role"] == "user"] == ["a bad thing", "fine"]
    engine.close()


def test_untouched_answers_come_without_the_memory(toy):
    engine = Engine(Mind(toy, LoraOnUser(LoraOnUser.build_options({"a_std": 1.0, "lr": 0.5}))))
    before = smoke.ask_untouched(engine.mind, ["Hi"])
    engine.mind.knowledge.state["B"] += 1.0
    assert smoke.ask(engine.mind, ["Hi"]) != before
    assert smoke.ask_untouched(engine.mind, ["Hi"]) == before
    assert toy.taps, "the memory was not put back"
    engine.close()


@pytest.mark.slow
def test_a_process_that_fails_passes_its_error_on(tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps({"config": {"model": "/no/such/model"}, "sessions": []}))
    with pytest.raises(smoke.LmmError, match=r"teach failed.*no/such/model"):
        smoke._process("teach", tmp_path, lambda count: None)


# replies to self-asked questions -------------------------------------------------------------------------------------
def test_pairs_come_from_the_message_or_the_lesson_and_from_nothing_else():
    heard = understood(Lesson(statement="I am Nora.")).pairs
    assert ("What is my name?", "Your name is Nora.") in heard and len(heard) > 3
    lesson = Lesson("Where is Oz?", "In Kansas.", "I am Nora.", wordings=("Oz is where?", "Tell me where Oz is."))
    assert lesson.pairs == [(q, "In Kansas.") for q in ("Where is Oz?", *lesson.wordings)], "unread"
    taught = [question for question, _ in understood(lesson).pairs]
    assert taught[0] == "Where is Oz?" and "Do you know where Oz is?" in taught and len(set(taught)) == len(taught)
    assert set(lesson.wordings) <= set(taught) and {a for _, a in understood(lesson).pairs} == {"In Kansas."}
    assert understood(lesson) == lesson and understood(lesson).to_dict() == lesson.to_dict()
    assert understood(Lesson(statement="What a day!")).pairs == []


GENTLE = {
    "lora": lambda: LoraOnUser(LoraOnUser.build_options(LoraOnUser.presets["gentle"] | {"steps": 4, "lr": 0.1})),
    "hash": lambda: HashGradient(HashGradient.build_options(HashGradient.presets["gentle"] | {"max_steps": 4})),
}


@pytest.mark.parametrize("name", GENTLE)
@on("tiny-torch", "tiny-mlx")
def test_gentle_acts_on_what_was_learned_and_nowhere_else(adapter, name, tmp_path):
    engine = Engine(Mind(adapter, GENTLE[name]()), decoding=Decoding(max_tokens=4))
    report = engine.hear("I am Nora.")
    assert report is not None and report.steps == 4 and "What is my name?" in report.details["questions"]
    recall = engine.mind.recall_of([asked(engine.adapter, text) for text in ("What is my name?", PLAIN[4])])
    assert recall is not None and not recall.fired[1]
    assert [lesson_id for lesson_id, _ in recall.fired[0]] == [engine.mind.lessons[0].id]
    assert engine.mind.recall_of([asked(engine.adapter, PLAIN[4])]) is None, "a general question is nearest to itself"
    site = adapter.middle_site()
    tokens = as_tokens(adapter.format.prompt_tokens("What is my name?"))
    h = adapter.hidden(tokens, site.first_layer)
    with engine.adapter._reading(tokens, None) as context:
        one = engine.mind.memory.row(recall, 0)
        one.start = tokens.shape[1] - 1
        new = engine.mind.memory.rewrite(adapter.ops, engine.mind.knowledge.state, one, h, h, context)
        same = engine.mind.memory.rewrite(adapter.ops, engine.mind.knowledge.state, None, h, h, context)
    moved = np.abs(numbers(adapter, new) - numbers(adapter, h)).sum(-1)[0]
    assert moved[-1] > 0 and not moved[:-1].any(), "it acts from the last prompt token on"
    assert (numbers(adapter, same) == numbers(adapter, h)).all()
    engine.mind.save(tmp_path / "m.safetensors")
    engine.mind.reset()
    assert engine.mind.recall_of([asked(engine.adapter, "What is my name?")]) is None
    engine.mind.load(tmp_path / "m.safetensors")
    assert engine.mind.recall_of([asked(engine.adapter, "What is my name?")]).fired[0]
    engine.close()


@pytest.mark.parametrize("name", GENTLE)
@on("tiny-torch")
def test_gentle_brings_the_loss_down_and_keeps_the_loss_it_promised(adapter, name):
    engine = Engine(Mind(adapter, GENTLE[name]()))
    report = engine.hear("I live in Graz.")
    assert report.loss_after < report.loss_before
    engine.close()


@pytest.mark.parametrize("name", GENTLE)
@on("tiny-torch")
def test_gentle_leaves_its_state_alone_when_there_is_nothing_to_ask_about(adapter, name):
    engine = Engine(Mind(adapter, GENTLE[name]()))
    before = engine.mind.knowledge.state
    report = engine.hear("What a day!")
    assert report.details["questions"] == [] and engine.mind.knowledge.state is before
    engine.close()


@on("tiny-torch")
def test_earlier_lessons_are_rehearsed_unless_they_were_corrected(adapter, monkeypatch):
    taught = []

    def watched(adapter, pairs):
        taught.append(list(pairs))
        return rows_of(adapter, pairs)

    monkeypatch.setattr("lmm.memory.lora_on_user.rows_of", watched)
    engine = Engine(Mind(adapter, LoraOnUser(LoraOnUser.build_options(LoraOnUser.presets["gentle"] | {"steps": 1}))))
    name, home = "What is my name?", "Where do I live?"
    for question, answer in ((name, "Your name is Nora."), (home, "You live in Graz."), (name, "Your name is Tom.")):
        engine.mind.learn(Lesson(prompt=question, answer=answer))
    first, second, third = taught
    assert ("What is my name?", "Your name is Nora.") in first and "Graz" not in str(first)
    assert second[-1] == ("What is my name?", "Your name is Nora.")
    assert third[-1] == ("Where do I live?", "You live in Graz.") and "Nora" not in str(third)
    engine.close()


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (LoraOnUser, {"target": "all"}, "target must be one of message, reply"),
        (LoraOnUser, {"gate": 0.5}, "gate needs target=reply"),
        (LoraOnUser, {"target": "reply", "gate": 1.0}, "gate must be"),
        (LoraOnUser, {"goal": -1}, "goal"),
        (HashGradient, {"target": "all"}, "target must be one of message, reply"),
        (HashGradient, {"bits": 5000}, "bits must be"),
    ],
)
def test_options_are_checked(kind, options, words):
    with pytest.raises(UsageError, match=words):
        kind.build_options(options)


@pytest.mark.slow
def test_two_processes_on_a_tiny_model(tiny_torch, tmp_path, monkeypatch):
    (tmp_path / "here" / "lmm").mkdir(parents=True)  # started beside a clone: this folder is not the package
    monkeypatch.chdir(tmp_path / "here")
    model = str(tiny_torch.source.folder)
    config = Config(
        backend="torch", model=model, dtype="float32", memory="lora_on_user", options={"a_std": 1.0, "lr": 5.0}
    )
    facts, done = smoke.facts_of("shared", ["Nora", "Leo"]), []
    outcome = smoke.run(config, "shared", facts, done.append)
    assert (outcome.asked, outcome.reworded, outcome.unrelated) == (2, 2, 10)
    assert outcome.options["lr"] == 5.0 and outcome.layer == 2 and outcome.seconds >= outcome.teach_seconds > 0
    assert outcome.damaged > 0, "what the first process learned did not reach the second"
    assert sum(done) == smoke.amount_of_work("shared", facts)
    assert json.loads(json.dumps(dataclasses.asdict(outcome)))["details"][0]["not_learned"] == []


# the whole of it -----------------------------------------------------------------------------------------------------
@pytest.mark.real
def test_two_processes_on_a_real_model(torch_adapter):
    config = Config(backend="torch", dtype="float32", memory="lora_on_user", preset="gentle", local_files_only=True)
    facts, done = smoke.facts_of("separate", ["Nora"]), []
    outcome = smoke.run(config, "separate", facts, done.append)
    assert (outcome.asked, outcome.recalled, outcome.unrelated) == (1, 1, 10)
    assert outcome.damaged <= 2 and outcome.backend == "torch" and outcome.preset == "gentle"
    assert sum(done) == smoke.amount_of_work("separate", facts)
    nothing = smoke.run(dataclasses.replace(config, memory="identity", preset=None), "separate", facts, done.append)
    assert (nothing.recalled, nothing.damaged) == (0, 0)


@pytest.mark.slow
def test_the_script_is_the_command():
    command = [sys.executable, "-m", "scripts.memorization_smoke", "--protocol", "sharde"]
    from pathlib import Path

    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(smoke.__file__).parents[1])
    assert done.returncode == 2 and "did you mean 'shared'" in done.stderr


def test_identity_recalls_nothing_and_damages_nothing(toy, tmp_path):
    engine = Engine(Mind(toy, Identity()), decoding=Decoding(max_tokens=2))
    plan = smoke.SmokePlan({}, [(str(tmp_path / "0.safetensors"), smoke.facts_of("separate", ["Eva"]))])
    assert smoke._teach_all(plan, engine.mind, lambda n: None) == [[]]
    (found,) = smoke._query_all(plan, engine.mind, lambda n: None)["sessions"]
    assert found["damage"] == [] and not found["asked"][0]["ok"]
    engine.close()
