"""The learned gate of `gated_lora`, and the content addressing of `engram_hybrid`."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from contracts import close, engine, logits_of, memory, on

from lmm.adapters.base import Adapter, TapContext
from lmm.adapters.ops import NumpyOps
from lmm.adapters.toy import ToyAdapter
from lmm.engine.asking import recall_many
from lmm.lesson import Knowledge, Lesson
from lmm.memory.base import Recall
from lmm.memory.contrast import PLAIN, near_misses
from lmm.memory.engram.hybrid import EngramHybrid, HybridOptions
from lmm.memory.engram.table import gathered, local, split
from lmm.memory.gated_lora import GatedLora, GatedLoraOptions
from lmm.memory.states import number_of, unit

SISTER = Lesson("What is my sister's name?", "Ada", id="sister")
HOME = Lesson("Where do I live?", "Oslo", id="home")


# ---------------------------------------------------------------- gated_lora
def test_a_fresh_gate_is_shut() -> None:
    adapter = ToyAdapter()
    kept = GatedLora()
    state = kept.fresh(adapter)
    x = unit(np.random.default_rng(0).normal(size=(50, 16)))
    gate = adapter.ops.sigmoid(kept.gate_logits(adapter.ops, state, x))
    assert gate == pytest.approx(1 / (1 + np.exp(5)), rel=1e-4) and not state["B"].any()


def with_keys(learned: np.ndarray, general: np.ndarray) -> dict[str, np.ndarray]:
    state = GatedLora().fresh(ToyAdapter())
    owner = np.array([7] * len(learned) + [0] * len(general))
    return state | {"keys": np.concatenate([learned, general]).astype(np.float32), "owner": owner}


def test_the_gate_learns_which_questions_are_its_own() -> None:
    adapter, random = ToyAdapter(), np.random.default_rng(0)
    towards = random.normal(size=16)
    learned, general = unit(random.normal(size=(12, 16)) + towards), unit(random.normal(size=(24, 16)) - towards)
    kept = GatedLora(GatedLoraOptions(gate_lr=0.1, gate_steps=40))
    state = with_keys(learned[:9], general[:20])
    fitted = kept._fitted(state, adapter)

    def gate(x: np.ndarray) -> np.ndarray:
        return adapter.ops.sigmoid(kept.gate_logits(adapter.ops, fitted, x))

    assert gate(learned[:9]).min() > 0.5 > gate(general[:20]).max()
    assert gate(learned[9:]).mean() > 0.5 > gate(general[20:]).mean(), "and what is like them"
    assert not state["gate_out"].any(), "the old state is left alone"


def test_a_general_question_may_be_learned() -> None:
    adapter, kept = ToyAdapter(), GatedLora(GatedLoraOptions(gate_lr=0.1, gate_steps=40))
    general = unit(np.random.default_rng(0).normal(size=(24, 16)))
    fitted = kept._fitted(with_keys(general[:1], general), adapter)
    gate = adapter.ops.sigmoid(kept.gate_logits(adapter.ops, fitted, general))
    assert gate[0] > 0.5 > gate[1:].max()


def test_the_reply_is_a_mixture_of_base_and_tuned_states() -> None:
    ops, random, kept = NumpyOps(), np.random.default_rng(0), GatedLora()
    state = {"A": random.normal(size=(16, 2)), "B": random.normal(size=(2, 16))}
    h = random.normal(size=(2, 5, 16)).astype(np.float32)
    recall = Recall([[("x", 0.25)], []], {"gate": np.array([0.25, 0.0], np.float32)[:, None, None]}, start=12)
    context = TapContext(np.zeros((2, 5), np.int64), np.arange(10, 15), np.zeros((2, 10), np.int64), "prefill")
    new = kept.rewrite(ops, state, recall, h, h, context)
    tuned = h + h @ state["A"] @ state["B"]
    assert np.allclose(new[0, 2:], 0.75 * h[0, 2:] + 0.25 * tuned[0, 2:], atol=1e-5)
    assert np.array_equal(new[0, :2], h[0, :2]) and np.array_equal(new[1], h[1])


@on("toy")
def test_what_the_gate_did_is_in_the_recall(adapter: Adapter) -> None:
    made = engine(adapter, "gated_lora")
    made.mind.learn(HOME)
    recall = recall_many(made.mind, [HOME.prompt], 1)[0]
    (lesson, strength), *_ = recall.fired[0]
    assert lesson == "home" and strength == pytest.approx(float(recall.arrays["gate"].item()))
    assert made.mind.memory.options.open <= strength <= 1
    shut = GatedLora(dataclasses.replace(made.mind.memory.options, open=0.999999))
    made.mind.memory = shut
    assert recall_many(made.mind, [HOME.prompt], 1)[0] is None


@on("toy")
def test_what_is_unlike_all_keys_or_like_another_subjects_leaves_the_gate_shut(adapter: Adapter) -> None:
    made = engine(adapter, "gated_lora")
    made.mind.learn(Lesson(prompt="What is the capital of Zembla?", answer="Onhava.", id="zembla"))
    state, number = made.mind.knowledge.state, number_of("zembla")
    owner = adapter.ops.to_numpy(state["owner"])
    assert (owner == number).sum() and (owner == -number).sum() and (owner == 0).sum() == len(PLAIN)
    kept = made.mind.memory
    wide_open = state | {"gate_bias": adapter.ops.asarray(np.array([50.0], np.float32))}

    def opens(question: str, **options: float) -> bool:
        made.mind.memory = GatedLora(dataclasses.replace(kept.options, **options))
        made.mind.commit(Knowledge(wide_open, made.mind.lessons))
        return recall_many(made.mind, [question], 1)[0] is not None

    assert opens("What is the capital of Zembla?")
    assert not opens("What is the capital of Kenya?"), "its key is another subject's"
    assert not opens("zembla zembla zembla", near=1.0), "unlike all keys"


@pytest.mark.parametrize(
    ("question", "misses"),
    [
        ("What is the capital of Zembla?", "What is the capital of Kenya?"),
        ("Who wrote The Sea Wolf in 1904?", "Who wrote The Sea Wolf in 2015?"),
        ("What is the value of alpha_417?", "What is the value of alpha_528?"),
        ("Where am I working?", None),
        ("What is my dog called?", None),
    ],
)
def test_near_misses_ask_the_same_about_others(question: str, misses: str | None) -> None:
    found = near_misses(question)
    assert misses in found if misses else found == []
    assert question not in found


@on("toy")
def test_preparing_opens_the_gate_and_changes_nothing(adapter: Adapter) -> None:
    plain = engine(adapter)
    expected = logits_of(plain, HOME.prompt, HOME.answer)
    plain.close()
    made = engine(adapter, "gated_lora")
    state = made.mind.memory.prepare(made.mind.knowledge.state, [(HOME.prompt, HOME.answer)], adapter)

    made.mind.commit(Knowledge(state))
    assert recall_many(made.mind, [HOME.prompt], 1)[0] is not None
    assert np.array_equal(logits_of(made, HOME.prompt, HOME.answer), expected), "B is zero until it is trained"
    assert made.mind.memory.trainable(state) == ("A", "B")


# ---------------------------------------------------------------- engram_hybrid
@on("toy")
def test_where_the_hash_finds_rows_a_hybrid_is_an_engram(adapter: Adapter) -> None:
    found = []
    for name in ("engram", "engram_hybrid"):
        made = engine(adapter, name)
        for lesson in (SISTER, HOME):
            made.mind.learn(lesson)
        found.append([logits_of(made, x.prompt, x.answer[:-1]) for x in (SISTER, HOME)])
        made.close()
    for by_hash, hybrid in zip(*found, strict=True):
        close(hybrid, by_hash, atol=1e-6)


def places(h: np.ndarray, heads: int) -> dict[str, np.ndarray]:
    """A block whose places hold the states h [S, D] as keys and 1, 2, ... as values."""
    slots = np.arange(len(h) * heads).reshape(len(h), heads)
    values = np.repeat(np.arange(1, len(h) + 1, dtype=np.float32)[:, None], h.shape[1], axis=1)
    return {
        "turns/x": np.array([5]), "slots/x": slots, "centre": np.zeros((2, h.shape[1]), np.float32),
        "keys/x": gathered(split(h, heads), slots), "values/x": gathered(split(values, heads), slots),
    }  # fmt: skip


def test_content_finds_the_nearest_place_where_the_hash_finds_nothing() -> None:
    ops, random = NumpyOps(), np.random.default_rng(0)
    h = random.normal(size=(4, 64)).astype(np.float32)
    state, hybrid = places(h, 16), EngramHybrid(HybridOptions(gain=50.0))
    recall = Recall([[("x", 1.0)]], {"turn": np.array([5]), "near": np.array([[0, -1]])})
    nowhere = np.full((1, 3, 16), 10**9)
    asked = np.stack([h[2], h[0], random.normal(size=64).astype(np.float32)])[None]
    change = hybrid._change(ops, state, recall, nowhere, asked)
    assert change[0, 0] == pytest.approx(3.0, rel=1e-3) and change[0, 1] == pytest.approx(1.0, rel=1e-3)
    assert not change[0, 2].any(), "a state that is near no place is left alone"
    by_hash = hybrid._change(ops, state, recall, state["slots/x"][None, 1:2], h[None, 1:2])
    assert by_hash[0, 0] == pytest.approx(2.0, rel=1e-3), "the hash's rows alone"
    assert hybrid._change(ops, state, Recall([[]], recall.arrays | {"turn": np.array([0])}), nowhere, asked) is None
    assert np.array_equal(h, state["keys/x"][local(state["slots/x"])].reshape(4, 64)), "nothing was written into"


def test_a_question_is_recognised_by_votes_and_state_or_by_its_state_alone() -> None:
    hybrid, plain = EngramHybrid(), memory("engram")
    cosines, votes = np.array([0.5, 0.9, 0.7, 0.95]), np.array([0.8, 0.0, 0.1, -1.0])
    assert hybrid._scores(cosines, votes).tolist() == pytest.approx([0.7, 0.9, -np.inf, -np.inf])
    assert plain._scores(cosines, votes).tolist() == pytest.approx([0.7, -np.inf, -np.inf, -np.inf])
