"""The peers: each learns what it says it learns, survives its file, and leaves the model alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contracts import on

from lmm.adapters.base import Adapter
from lmm.adapters.toy import ToyAdapter
from lmm.bench.measure import model_digest, plain_reply_seconds
from lmm.bench.peers import PEERS, FineTune, InContext, PeftLora
from lmm.engine.asking import ask_many, recall_many
from lmm.engine.engine import Engine
from lmm.engine.mind import Mind
from lmm.engine.scoring import token_hits
from lmm.errors import BackendError, UsageError
from lmm.lesson import Lesson

GOAL = 1.2  # loss at which the tiny model's first choices are right
LESSONS = [Lesson("who made the loom?", "ada", id="one"), Lesson("where is the gate?", "in rome", id="two")]


def test_the_table() -> None:
    assert list(PEERS) == ["none", "in_context", "in_context_floor", "echo", "system_prompt", "fine_tune", "peft_lora"]
    with pytest.raises(UsageError, match="count must be 1 or above"):
        PEERS["in_context"].build_options({"count": 0})


@pytest.fixture
def directions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts as unit vectors in a plane: their cosines are known."""
    degrees = {"who made the loom?": 0, "where is the gate?": 90, "the loom is by?": 43, "cloth?": 45, "hm": 225}

    def encode(texts: list[str]) -> np.ndarray:
        angles = np.radians([degrees[text] for text in texts])
        return np.pad(np.stack([np.cos(angles), np.sin(angles)], 1), ((0, 0), (0, 382))).astype(np.float32)

    monkeypatch.setattr(InContext, "_encode", staticmethod(encode))


@pytest.mark.usefixtures("directions")
def test_in_context_pastes_the_nearest_lessons(tmp_path: Path) -> None:
    engine = Engine(Mind(ToyAdapter(), InContext(InContext.build_options({"count": 1, "floor": 0.0}))))
    for lesson in LESSONS:
        engine.mind.learn(lesson)
    engine.mind.save(tmp_path / "memory.safetensors")
    again = Engine(Mind(ToyAdapter(), InContext(engine.mind.memory.options)))
    again.mind.load(tmp_path / "memory.safetensors")
    loom, far = recall_many(again.mind, ["the loom is by?", "hm"], 8)
    assert loom is not None
    assert loom.text == ["Facts to answer from:\n- who made the loom? ada"]
    assert far is None
    assert [x.recall.fired[0][0][0] for x in ask_many(again.mind, ["the loom is by?"]) if x.recall] == ["one"]


@pytest.mark.usefixtures("directions")
def test_with_its_floor_in_context_leaves_far_prompts_as_they_are() -> None:
    found = {}
    for name in ("in_context", "in_context_floor"):
        engine = Engine(Mind(ToyAdapter(), PEERS[name]()))
        for lesson in LESSONS:
            engine.mind.learn(lesson)
        recalls = recall_many(engine.mind, ["the loom is by?", "cloth?", "hm"], 8)
        found[name] = [[x for x, _ in recall.fired[0]] if recall else [] for recall in recalls]
    assert found["in_context"] == [["one", "two"], ["one", "two"], ["one", "two"]]
    assert found["in_context_floor"] == [["one"], [], []], "cos 43 degrees is above the floor, cos 45 below"


def losses(engine: Engine, lesson: Lesson) -> list[float]:
    """Loss before and after learning one lesson."""
    report = engine.mind.learn(lesson)
    assert report.loss_before is not None
    assert report.loss_after is not None
    return [report.loss_before, report.loss_after]


@on("tiny-torch")
def test_fine_tune_learns_until_the_loss_is_low(adapter: Adapter, tmp_path: Path) -> None:
    memory = FineTune(FineTune.build_options({"lr": 0.1, "steps": 60, "goal": GOAL}))
    digest = model_digest(adapter)
    engine = Engine(Mind(adapter, memory))
    try:
        before, after = losses(engine, LESSONS[0])
        assert after <= GOAL < before
        assert ask_many(engine.mind, [LESSONS[0].prompt], max_tokens=8)[0].text.strip() == "ada"
        assert all(token_hits(engine.mind, [LESSONS[0].prompt], ["ada"])[0])
        engine.mind.save(tmp_path / "memory.safetensors")
        engine.mind.undo()
        assert not all(token_hits(engine.mind, [LESSONS[0].prompt], ["ada"])[0])
        engine.mind.load(tmp_path / "memory.safetensors")
        assert all(token_hits(engine.mind, [LESSONS[0].prompt], ["ada"])[0])
    finally:
        engine.mind.detach()
    assert model_digest(adapter) == digest


@on("tiny-torch")
def test_peft_lora_learns_and_leaves_the_model_as_it_was(adapter: Any, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    digest, modules = model_digest(adapter), dict(adapter.model.named_modules())
    attributes = set(vars(adapter.model))
    plain = Engine(Mind(adapter, PEERS["none"]()))
    untouched = ask_many(plain.mind, ["who?"], max_tokens=8)[0].text
    plain.mind.detach()
    memory = PeftLora(PeftLora.build_options({"lr": 3e-2, "steps": 60, "goal": GOAL}))
    with memory.opened(adapter):
        engine = Engine(Mind(adapter, memory))
        assert ask_many(engine.mind, ["who?"], max_tokens=8)[0].text == untouched  # fresh LoRA changes nothing
        before, after = losses(engine, LESSONS[0])
        assert after <= GOAL < before
        assert ask_many(engine.mind, [LESSONS[0].prompt], max_tokens=8)[0].text.strip() == "ada"
        engine.mind.save(tmp_path / "memory.safetensors")
        engine.mind.undo()
        assert ask_many(engine.mind, ["who?"], max_tokens=8)[0].text == untouched
        with memory.suspended():
            assert dict(adapter.model.named_modules()) == modules
        plain_reply_seconds(engine.mind, "hello")
        engine.mind.detach()
    assert model_digest(adapter) == digest
    assert dict(adapter.model.named_modules()) == modules
    assert set(vars(adapter.model)) == attributes
    assert not any(p.requires_grad for p in adapter.model.parameters())
    again = PeftLora(memory.options)
    with again.opened(adapter):
        engine = Engine(Mind(adapter, again))
        engine.mind.load(tmp_path / "memory.safetensors")
        assert ask_many(engine.mind, [LESSONS[0].prompt], max_tokens=8)[0].text.strip() == "ada"
        engine.mind.detach()


@on("tiny-torch")
def test_peft_lora_restores_the_model_after_an_error(adapter: Any) -> None:
    pytest.importorskip("peft")
    modules = dict(adapter.model.named_modules())
    with pytest.raises(KeyError), PeftLora().opened(adapter):
        raise KeyError
    assert dict(adapter.model.named_modules()) == modules


def test_peft_lora_needs_torch() -> None:
    with pytest.raises(BackendError, match="needs the torch backend, not toy"), PeftLora().opened(ToyAdapter()):
        pass


@on("tiny-torch", "tiny-mlx", "toy")
def test_the_digest_sees_any_weight(adapter: Any) -> None:
    before = model_digest(adapter)
    assert model_digest(adapter) == before
    changed = adapter.layers[-1]
    if adapter.name == "toy":
        changed.down[3, 1] += 1e-6
        assert model_digest(adapter) != before
        return
    weight = changed.mlp.down_proj.weight
    kept = adapter.ops.to_numpy(weight)
    try:
        if adapter.name == "torch":
            weight[3, 1] += 1e-3
        else:
            changed.mlp.down_proj.weight = adapter.ops.asarray(kept + 1e-3)
        assert model_digest(adapter) != before
    finally:
        if adapter.name == "torch":
            weight.copy_(adapter.ops.asarray(kept))
        else:
            changed.mlp.down_proj.weight = weight
    assert model_digest(adapter) == before
