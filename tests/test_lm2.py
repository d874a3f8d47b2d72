"""`lm2`: slots that are read by what comes later and written by what is over."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from contracts import close, engine, numbers, on_small

from lmm.adapters.base import Adapter, TapContext
from lmm.adapters.toy import ToyAdapter
from lmm.engine.keeper import Keeper
from lmm.engine.mind import Mind
from lmm.engine.training import Training
from lmm.engine.training_settings import TrainingSettings
from lmm.errors import LearningError
from lmm.files import state_file
from lmm.lesson import Knowledge, Lesson
from lmm.memory.base import Prompt
from lmm.memory.external.external import said as as_message
from lmm.memory.lm2.lm2 import Lm2, Lm2Options
from lmm.text.heat import heat_map

SMALL = {"memory_slots": 3, "slot_width": 4, "num_mem_heads": 2}


def opened(adapter: Adapter, **options) -> Lm2:
    made = Lm2(Lm2Options(**SMALL | options))
    made.sites(adapter)
    return made


def lively(made: Lm2, adapter: Adapter) -> dict:
    """A state whose slots are read: a fresh one adds nothing."""
    state = made.fresh(adapter)
    return state | {"read_out": adapter.ops.normal(state["read_out"].shape, 7)}


def through(made: Lm2, adapter: Adapter, state: dict, tokens: list[int], chunks: int = 1) -> np.ndarray:
    """Logits [T, V] of tokens, read in chunks."""

    def rewrite(x_in, x_out, context: TapContext):
        return made.rewrite(adapter.ops, state, None, x_in, x_out, context)

    found, cache = [], adapter.new_cache()
    with adapter.tap(made.sites(adapter)[0], rewrite):
        for piece in np.array_split(np.asarray(tokens), chunks):
            out, cache = adapter.forward(piece.reshape(1, -1), cache, keep=len(piece))
            found.append(numbers(adapter, out)[0])
    return np.concatenate(found)


@on_small
def test_below_its_floor_the_output_gate_is_shut(adapter: Adapter) -> None:
    """And where it is not, a floor changes nothing."""
    tokens, shut, ajar = list(range(40, 60)), opened(adapter, floor=0.5), opened(adapter)
    state = lively(shut, adapter)
    bias = adapter.ops.zeros((1,))
    outputs = {
        name: through(made, adapter, state | {"gate": state["gate"] * 0.0, "gate_bias": bias + logit}, tokens)
        for name, made, logit in (("shut", shut, -0.1), ("ajar", ajar, -0.1), ("open", shut, 0.1), ("same", ajar, 0.1))
    }
    plain = through(shut, adapter, shut.fresh(adapter), tokens)
    close(outputs["shut"], plain)
    close(outputs["open"], outputs["same"])
    assert np.abs(outputs["ajar"] - plain).max() > 0.01


@on_small
def test_what_is_read_at_a_token_does_not_depend_on_later_ones(adapter: Adapter) -> None:
    made = opened(adapter)
    state, tokens = lively(made, adapter), list(range(40, 60))
    whole = through(made, adapter, state, tokens)
    other = through(made, adapter, state, [*tokens[:10], *range(70, 80)])
    close(other[:10], whole[:10])
    assert np.abs(other[10:] - whole[10:]).max() > 0.01
    for chunks in (2, 20):
        close(through(made, adapter, state, tokens, chunks), whole)


@on_small
def test_slots_are_written_by_the_equations(adapter: Adapter) -> None:
    """One head, against the same in NumPy."""
    made = opened(adapter, num_mem_heads=1)
    state = made.fresh(adapter)
    x = np.random.default_rng(0).normal(size=(5, adapter.shape.width)).astype(np.float32)
    got, how = made.written(adapter.ops, state, state["slots"][None], adapter.ops.asarray(x[None]))
    s = {name: np.asarray(adapter.ops.to_numpy(a), np.float64) for name, a in state.items()}
    scores = (s["slots"] @ s["write_query"]) @ (x @ s["write_key"]).T / 2.0
    attention = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    seen = attention @ (x @ s["write_value"])
    gate = {n: 1 / (1 + np.exp(-(seen @ s[f"{n}_gate"] + s[f"{n}_bias"]))) for n in ("input", "forget")}
    close(numbers(adapter, got)[0], gate["input"] * np.tanh(seen) + gate["forget"] * s["slots"])
    close(numbers(adapter, how["attention"])[0, 0], attention)
    assert s["forget_bias"].tolist() == [1.0] * 4 and np.array_equal(s["slots"], np.eye(3, 4))


def test_what_is_written_comes_from_the_layer_that_was_said(toy: ToyAdapter) -> None:
    """Standardised by that layer's own channels; a file from before one could say so has no tensor for it."""
    said, lesson = as_message(Lesson(statement="My cat is Felix."), toy), Lesson(statement="My cat is Felix.")
    made = opened(toy, depth=0.9, write_depth=0.3)
    state = made.fresh(toy)
    assert made.sites(toy)[0].layer == 3 and made.source(toy).layer == 1
    assert "write_centre" not in opened(toy, depth=0.9).fresh(toy)
    h = numbers(toy, toy.hidden(np.array([said.tokens]), 2))[:, np.flatnonzero(said.content)]
    mean, deviation = numbers(toy, state["write_centre"])
    wanted, _ = made.written(toy.ops, state, state["slots"][None], toy.ops.asarray((h - mean) / deviation))
    got = made.after_turn(Knowledge(state), lesson, said, toy).state
    close(got["slots"] + got["moved"], wanted[0], 1e-5)


def test_slots_are_written_at_the_end_of_a_turn_and_reset_as_told(toy: ToyAdapter) -> None:
    for reset, after_turn, after_session in (("never", True, True), ("session", True, False), ("turn", False, False)):
        made = engine(toy, "lm2")
        made.mind.memory.options = Lm2Options(**SMALL, reset=reset)
        made.hear("My parrot is called Biscuit.")
        assert not made.mind.knowledge.state["moved"].any()
        list(made.answer())
        assert made.mind.knowledge.state["moved"].any() == after_turn, reset
        made.start()
        assert made.mind.knowledge.state["moved"].any() == after_session, reset
        made.close()


@pytest.mark.parametrize("on_another_day", [False, True])
def test_an_undone_lesson_leaves_what_turns_made_of_the_slots_before_and_after_it(
    tmp_path: Path, on_another_day: bool
) -> None:
    """As if it had never been, in the mind that learned it as in one that has it out of a file."""
    made, alone, later = (engine(ToyAdapter(), "lm2") for _ in range(3))
    for chat in (made, alone, later):
        chat.mind.memory.options = Lm2Options(**SMALL, steps=3)
    Keeper(made.mind, tmp_path / "m.safetensors")

    def say(text: str) -> None:
        for mind in (made.mind, alone.mind):
            mind.end_turn(Lesson(statement=text), as_message(Lesson(statement=text), mind.adapter))

    say("Hello!")
    made.mind.learn(Lesson("Where do I live?", "Oslo"))
    assert made.mind.knowledge.state["taught"].any() and made.mind.knowledge.state["read_out"].any()
    say("Bye!")
    if on_another_day:
        made.close()
        Keeper(later.mind, tmp_path / "m.safetensors")
    mind = later.mind if on_another_day else made.mind
    assert mind.undo() == 1
    for name, array in mind.knowledge.state.items():
        assert np.array_equal(array, alone.mind.knowledge.state[name]), name


def test_a_lesson_outlasts_the_turns_that_are_reset(toy: ToyAdapter) -> None:
    for reset in ("turn", "session"):
        made = engine(toy, "lm2")
        made.mind.memory.options = Lm2Options(**SMALL, steps=3, reset=reset)
        made.mind.learn(Lesson("Where do I live?", "Oslo"))
        taught = made.mind.knowledge.state["taught"]
        made.reply("My parrot is called Biscuit.")
        made.start()
        assert made.mind.lessons and not made.mind.knowledge.state["moved"].any()
        assert made.mind.knowledge.state["taught"] is taught and taught.any()
        made.close()


def test_a_file_that_was_trained_can_be_reset_in_another_way(toy: ToyAdapter, tmp_path: Path) -> None:
    """And one of before lessons had a tensor of their own is read as it was."""
    file, trained = tmp_path / "slots.safetensors", Mind(toy, Lm2(Lm2Options()))
    state = dict(trained.knowledge.state)
    state["moved"] = state["moved"] + 0.5
    del state["taught"]
    state_file.save(file, {name: numbers(toy, array) for name, array in state.items()}, trained.header())
    trained.detach()
    for reset in ("never", "session", "turn"):
        mind = Mind(toy, Lm2(Lm2Options(reset=reset)))
        mind.load(file)
        close(mind.knowledge.state["moved"], state["moved"])
        assert not mind.knowledge.state["taught"].any()
        mind.detach()


def test_an_empty_lesson_is_refused_in_words(toy: ToyAdapter) -> None:
    made = engine(toy, "lm2")
    with pytest.raises(LearningError, match="empty"):
        made.mind.learn(Lesson(statement=" "))


@pytest.mark.parametrize("write_depth", [-1.0, 0.3])
def test_training_sees_the_slots_that_earlier_turns_would_make(toy: ToyAdapter, write_depth: float) -> None:
    """What `before` says goes through the same equations as turns of a conversation do."""
    made, before = opened(toy, write_depth=write_depth), ("My cat is Felix.", "Hello!")
    state = lively(made, toy)
    recall = made.on_prompt(state, (), [Prompt("Who?", toy.format.prompt_tokens("Who?"), before=before)], toy)
    assert recall is not None
    one = made.after_training_turns(toy.ops, state, recall)
    known = Knowledge(state)
    for text in before:
        lesson = Lesson(statement=text)
        known = made.after_turn(known, lesson, as_message(lesson, toy), toy)
    close(one[0], known.state["slots"] + known.state["moved"], 1e-4)


@pytest.mark.slow
def test_it_can_be_trained_to_say_what_was_said_before(tiny_torch: Adapter, tmp_path: Path) -> None:
    """Two facts, one question: only the slots can tell the answers apart."""
    made = Lm2(Lm2Options(memory_slots=4, slot_width=8, num_mem_heads=2))
    pairs = [("Who?", name, f"{name} is here.") for name in ("Ada", "Tom")]
    settings = TrainingSettings(epochs=120, batch_size=2, lr=0.1, patience=120, goal=0.02)
    with tiny_torch.quiet():
        plain = Training(tiny_torch, made, [p[:2] for p in pairs], settings=settings).run()
        told = Training(tiny_torch, made, pairs, settings=settings).run()
    assert told.progress.best is not None and plain.progress.best is not None
    assert told.progress.best < 0.75 * plain.progress.best
    assert plain.progress.best > 0.05, "without what was said, nobody could know"


@pytest.mark.parametrize("first,second", [("lm2", "external"), ("external", "lm2")])
def test_both_together_keep_their_own(toy: ToyAdapter, first: str, second: str) -> None:
    from lmm.engine.engine import Engine
    from lmm.memory.composite import Composite

    options = {"lm2." + name: value for name, value in SMALL.items()} | {"lm2.steps": 1}
    mind = Mind(toy, Composite.named(f"{first}+{second}", options))
    made = Engine(mind)
    made.reply("My parrot is called Biscuit.")
    assert mind.knowledge.state["lm2:moved"].any() and len(mind.lessons) == 1
    mind.learn(Lesson("Where do I live?", "Oslo"))
    assert len(mind.lessons) == 2
    made.close()


def test_slots_are_not_read_where_another_memory_has_something_to_say(toy: ToyAdapter, monkeypatch) -> None:
    """Whichever stands first; and replies of one batch are told apart."""
    from lmm.engine.asking import ask_many, recall_many
    from lmm.memory.composite import Composite
    from lmm.memory.external.external import External

    def spans_near(self, state, store, text, *given):
        return [(i, 0.9) for i in store.ids if "parrot" in text]

    monkeypatch.setattr(External, "spans_near", spans_near)
    settings = {f"lm2.{name}": value for name, value in SMALL.items()}
    said = Lesson(statement="My parrot is called Biscuit.")
    asked = ["My parrot is called", "Zzz qqq?"]
    replies = {}
    for name in ("lm2+external", "external+lm2", "external", "lm2"):
        alone = {"lm2": Lm2(Lm2Options(**SMALL)), "external": External()}
        mind = Mind(toy, alone[name] if name in alone else Composite.named(name, settings))
        mind.end_turn(said, as_message(said, toy))
        loud = {key: array + 20.0 for key, array in mind.knowledge.state.items() if key.endswith("read_out")}
        mind.commit(Knowledge(mind.knowledge.state | loud, mind.lessons))
        near = [bool(recall and recall.fired[0]) for recall in recall_many(mind, asked)]
        assert near == [name != "lm2", False], name
        replies[name] = [reply.generated.tokens for reply in ask_many(mind, asked, 6)]
        assert replies[name] == [ask_many(mind, [one], 6)[0].generated.tokens for one in asked]
        mind.detach()
    assert replies["lm2+external"] == replies["external+lm2"] == [replies["external"][0], replies["lm2"][1]]
    assert all(a != b for a, b in zip(replies["lm2"], replies["external"], strict=True)), "slots do say something"


def test_what_slots_are_read_can_be_drawn(toy: ToyAdapter) -> None:
    made = opened(toy)
    slots, gate = made.pictures(lively(made, toy), list(b"Hello"), toy)
    assert slots.values.shape == (5, 3) and gate.values.shape == (5, 1)
    close(slots.values.sum(axis=1), np.ones(5))
    lines = heat_map(list("Hello"), slots.values.tolist()).splitlines()
    assert len(lines) == 5 and all(len(line) == len(lines[0]) for line in lines) and "@" in "".join(lines)


def test_too_little_data_is_named_before_anything_is_trained(tmp_path: Path, monkeypatch, capsys) -> None:
    from scripts import lm2_data, train_lm2

    (tmp_path / "text.txt").write_text("Ada and Tom went home.\n")
    row = {"question": "Who?", "answer": "It's Ada.", "before": ["Ada is here."], "category": "names", "key": "Ada"}
    (tmp_path / "few.jsonl").write_text(json.dumps(row) + "\n")
    monkeypatch.setattr(lm2_data.runtime, "load_adapter", lambda config: ToyAdapter())
    for main, given, said in (
        (lm2_data.main, ["--text", "text.txt"], "give more --text"),
        (train_lm2.main, ["--data", "few.jsonl"], "give more --data"),
    ):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["x", *given, "--out", "out"])
        with pytest.raises(SystemExit):
            main()
        assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_slots_trained_on_facts_learn_whose_value_is_asked_for_and_keep_the_code_of_values(
    tiny_torch: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """scripts/train_lm2.py on two questions with two values each: this is all that two tokens of the model can say."""
    import torch

    from lmm.bench.exact_match import TaskExample
    from scripts import train_lm2

    for name, value in {"PASTS": 2, "MIXES": ((1, 0), (1, 1))}.items():
        monkeypatch.setattr(train_lm2, name, value)
    told = (("My cat is {}.", "Who is my cat?"), ("I live in {}.", "Where do I live?"), ("I eat {}.", "What do I eat?"))
    rows = [
        TaskExample(asked, f"It's {value}.", "names", value, before=(said.format(value), "Hello!", "Good night."))
        for said, asked in told
        for value in ("a", "th")
    ]
    memory = Lm2(Lm2Options(memory_slots=3, slot_width=16, num_mem_heads=1, depth=0.9, write_depth=0.3))
    mind = Mind(tiny_torch, memory)
    with torch.no_grad():
        data = train_lm2.Data(mind, memory, mind.knowledge.state, rows, random.Random(0), kept=2)
        trainer = train_lm2.Trainer(tiny_torch, memory, mind.knowledge.state, data, seed=0, candidates=50)
    before, optimizer = trainer.now(), torch.optim.Adam(trainer.params.values(), 0.03)
    losses = []
    for _ in range(80):
        optimizer.zero_grad()
        losses.append(trainer.gradients(8)["value"])
        optimizer.step()
    after = trainer.now()
    mind.detach()
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    for name, code in (("read_out", np.s_[4:]), ("write_value", np.s_[:, 4:]), ("input_gate", np.s_[4:])):
        assert torch.equal(before[name][code], after[name][code]) and not torch.equal(before[name], after[name])
