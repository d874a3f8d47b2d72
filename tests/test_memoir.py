"""What `memoir` promises beyond the contract: edits stay in their columns, and the stored mask decides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from contracts import close, engine, frozen, logits_of, on, on_small, opened, same, same_state

from lmm.adapters.base import Adapter
from lmm.adapters.toy import ToyAdapter
from lmm.config import Decoding
from lmm.engine.asking import recall_many
from lmm.engine.engine import Engine
from lmm.engine.mind import Mind
from lmm.errors import LearningError, StateError, UsageError
from lmm.lesson import Lesson
from lmm.memory.base import LearnReport
from lmm.memory.memoir.memoir import Memoir
from lmm.memory.states import number_of

SISTER = Lesson("What is my sister's name?", "Ada", id="sister")
HOME = Lesson("Where do I live?", "Oslo", id="home")
QUICK = {"k": 0.2, "steps": 3, "lr": 0.05, "prefixes": 0, "tau": 1.0}


def made(adapter: Adapter, *lessons: Lesson, **options: Any) -> Engine:
    found = Engine(Mind(adapter, Memoir(Memoir.build_options(QUICK | options))), decoding=Decoding(max_tokens=4))
    opened.append(found)
    for lesson in lessons:
        found.mind.learn(lesson)
    return found


def matrix(state: dict[str, np.ndarray], width: int) -> np.ndarray:
    """W_m as it stands, [F, D], columns of the paper as rows."""
    full = np.zeros((width, state["weights"].shape[1]), np.float16)
    full[state["columns"]] = state["weights"]
    return full


# ---------------------------------------------------------------- edits stay in their columns
@on_small
def test_an_edit_changes_only_the_columns_of_its_mask(adapter: Adapter) -> None:
    found, width = made(adapter, SISTER), adapter.shape.mlp_width
    first = frozen(found)
    found.mind.learn(HOME)
    second = frozen(found)
    masks = second["fingerprints"][:, 0]
    assert (masks.sum(axis=1) == round(0.2 * width)).all() and not np.array_equal(*masks)
    before, after = matrix(first, width), matrix(second, width)
    changed = (before != after).any(axis=1)
    assert changed.any() and not changed[~masks[1]].any()
    assert before[masks[0]].any() and not before[~masks[0]].any()
    assert np.array_equal(second["columns"], np.flatnonzero(masks[0] | masks[1])), "only touched columns are stored"


def test_lessons_learned_together_are_confined_to_their_own_masks() -> None:
    toy = ToyAdapter()
    found = made(toy, SISTER)
    before = matrix(frozen(found), toy.shape.mlp_width)
    both = [HOME, replace(HOME, prompt="Who am I?", id="me")]
    state = found.mind.memory.learn_together(found.mind.knowledge.state, both, toy, LearnReport())
    masks = np.asarray(state["fingerprints"])[1:, 0]
    changed = (matrix(state, toy.shape.mlp_width) != before).any(axis=1)
    assert np.array_equal(np.asarray(state["owner"]), [number_of(i) for i in ("sister", "home", "me")])
    assert changed[masks[0] & ~masks[1]].any() and changed[masks[1] & ~masks[0]].any()
    assert not changed[~masks.any(axis=0)].any()


@on_small
def test_a_row_sends_gradients_only_into_its_own_mask(adapter: Adapter) -> None:
    from lmm.memory.memoir.edit import MaskedLesson, _batches

    memory: Any = made(adapter).mind.memory
    example, columns = MaskedLesson([SISTER.prompt], "Ada", np.array([1, 4])), np.arange(6)
    (batch,) = _batches(adapter, memory.sites(adapter)[0], memory.options, [example], columns)
    zero = {"columns": adapter.ops.zeros((6, adapter.shape.width))}
    _, grads = adapter.ops.value_and_grad(lambda params: batch.edited(params, 2.0), zero)
    reached = np.flatnonzero(np.abs(adapter.ops.to_numpy(grads["columns"])).max(axis=1) > 1e-9)
    assert len(reached) and set(reached) <= {1, 4}


@on("toy", "tiny-torch")
def test_the_same_lessons_make_the_same_state(adapter: Adapter) -> None:
    one = frozen(made(adapter, SISTER, HOME))
    assert same_state(one, frozen(made(adapter, SISTER, HOME)))


# ---------------------------------------------------------------- the stored mask decides
def test_the_stored_mask_is_used_not_the_prompts_own() -> None:
    found = made(ToyAdapter(), SISTER, tau=0.01)
    recall = recall_many(found.mind, ["What's my sister called?"], 1)[0]
    assert recall is not None and recall.fired[0][0][0] == "sister" and recall.fired[0][0][1] < 1.0
    state = frozen(found)
    mask = np.zeros(found.adapter.shape.mlp_width, bool)
    mask[state["columns"][np.asarray(recall.arrays["columns"])[0] > 0]] = True
    asked = found.mind.memory.fingerprints(found.mind.knowledge.state, ["What's my sister called?"], found.adapter)  # type: ignore[attr-defined]
    assert np.array_equal(mask, state["fingerprints"][0, 0]) and not np.array_equal(mask, asked[0, 0])


@on_small
def test_below_tau_the_model_is_bitwise_itself(adapter: Adapter) -> None:
    plain = logits_of(engine(adapter), "Who made the loom?")
    found = made(adapter, SISTER, HOME)
    assert recall_many(found.mind, ["Who made the loom?", SISTER.prompt], 2)[0] is None
    same(adapter, logits_of(found, "Who made the loom?"), plain)
    assert not np.array_equal(logits_of(found, SISTER.prompt), logits_of(engine(adapter), SISTER.prompt))


def test_both_views_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same words in another mouth: with `views=mean` it fires, with both it need not."""
    for views, fires in (("mean", True), ("both", False)):
        found = made(ToyAdapter(), SISTER, views=views)
        memory: Any = found.mind.memory
        honest = memory.fingerprints

        def turned(state, texts, adapter, honest=honest):
            masks = honest(state, texts, adapter)
            masks[:, 1:] = np.roll(masks[:, 1:], 1, axis=2)
            return masks

        monkeypatch.setattr(memory, "fingerprints", turned)
        assert (recall_many(found.mind, [SISTER.prompt], 1)[0] is not None) == fires


@on_small
def test_the_fingerprint_is_taken_once_and_held_while_decoding(adapter: Adapter, monkeypatch) -> None:
    found = made(adapter, SISTER)
    memory: Any = found.mind.memory
    asked, acted, honest, rewrite = [], [], memory.features, memory.rewrite
    monkeypatch.setattr(memory, "features", lambda texts, a: asked.append(texts) or honest(texts, a))

    def watched(ops, state, recall, x_in, x_out, context):
        new = rewrite(ops, state, recall, x_in, x_out, context)
        acted.append((context.phase, recall is not None, bool((ops.to_numpy(new != x_out)).any())))
        return new

    monkeypatch.setattr(memory, "rewrite", watched)
    reply = found.reply(SISTER.prompt)
    assert asked == [[SISTER.prompt]]
    assert len(reply.generated.tokens) == 4 and {"prefill", "decode"} == {phase for phase, *_ in acted}
    assert all(held and changed for phase, held, changed in acted if phase == "decode")


@on_small
def test_span_says_where_the_residual_acts(adapter: Adapter) -> None:
    plain = logits_of(engine(adapter), SISTER.prompt)
    for span, first in (("reply", False), ("all", True)):
        found = logits_of(made(adapter, SISTER, span=span), SISTER.prompt)
        differ = (found != plain).any(axis=1)
        assert differ[0] == first and differ[-3:].all()


# ---------------------------------------------------------------- lessons
def test_another_wording_has_a_fingerprint_of_its_own_and_the_lessons_mask() -> None:
    lesson = replace(SISTER, wordings=("How is my sister called?",))
    found = made(ToyAdapter(), lesson, HOME)
    assert frozen(found)["owner"].tolist() == [number_of("sister")] * 2 + [number_of("home")]
    own, other, home = recall_many(found.mind, [SISTER.prompt, *lesson.wordings, HOME.prompt], 3)
    assert own and other and home and other.fired == own.fired == [[("sister", 1.0)]]
    assert np.array_equal(own.arrays["columns"], other.arrays["columns"])
    assert not np.array_equal(own.arrays["columns"], home.arrays["columns"])


def test_a_correction_takes_the_place_of_what_it_corrects() -> None:
    found = made(ToyAdapter(), SISTER, HOME, Lesson("what is my sister's name", "Eva", id="eva"))
    assert [(x.id, x.replaces) for x in found.mind.lessons] == [("home", ""), ("eva", "Ada")]
    assert frozen(found)["owner"].tolist() == [number_of("home"), number_of("eva")]


def test_a_file_of_another_permutation_is_refused(tmp_path) -> None:
    one = made(ToyAdapter(), SISTER)
    one.mind.save(tmp_path / "one.safetensors")
    two = made(ToyAdapter(), seed=9)
    assert not np.array_equal(two.mind.knowledge.state["permutation"], one.mind.knowledge.state["permutation"])
    with pytest.raises(StateError, match="option seed: the file has 0, this session has 9"):
        two.mind.load(tmp_path / "one.safetensors")


def test_what_cannot_be_learned_or_forgotten_is_said() -> None:
    found = made(ToyAdapter(), SISTER, max_edits=1)
    for lesson, text in ((HOME, "1 lessons at most"), (Lesson("Where?", " "), "a question and an answer")):
        with pytest.raises(LearningError, match=text):
            found.mind.learn(lesson)
    with pytest.raises(LearningError, match="201 tokens"):
        made(ToyAdapter()).mind.learn(Lesson("Where?", "x" * 200))
    found.mind.learn(replace(SISTER, answer="Eva", id="eva"))  # in the place of the first
    with pytest.raises(LearningError, match="memory migrate FILE --without"):
        found.mind.forget("eva")
    assert [x.id for x in found.mind.lessons] == ["eva"]


def test_a_damaged_state_is_refused_with_all_that_is_wrong() -> None:
    found = made(ToyAdapter(), SISTER)
    good = frozen(found)
    bad = good | {"permutation": good["permutation"] * 0, "owner": good["owner"][:0], "columns": good["columns"][::-1]}
    with pytest.raises(StateError, match=r"permutation.*rise.*owners"):
        found.mind.memory.check_state(bad, found.mind.lessons, found.adapter)
    other = made(ToyAdapter(), k=0.5)
    with pytest.raises(StateError, match="k = 16"):
        other.mind.memory.check_state(good, found.mind.lessons, found.adapter)


# ---------------------------------------------------------------- options
def test_the_documents_variables_are_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("TOP_K", "12"), ("SIMILARITY_THRESHOLD", "0.7"), ("MAX_EDITS", "5")):
        monkeypatch.setenv(f"MEMOIR_{name}", text)
    options = Memoir.build_options({"tau": 0.9})
    assert (options.k, options.tau, options.max_edits) == (12.0, 0.9, 5)
    assert Memoir(options).columns_of(ToyAdapter()) == 12
    monkeypatch.setenv("MEMOIR_TOP_K", "lots")
    with pytest.raises(UsageError, match="MEMOIR_TOP_K must be a number"):
        Memoir.build_options({})


def test_more_columns_than_there_are_is_refused() -> None:
    with pytest.raises(UsageError, match="has 32 columns"):
        made(ToyAdapter(), SISTER, k=33.0)


@on("tiny-torch")
def test_the_papers_settings_learn(adapter: Adapter) -> None:
    found = Engine(Mind(adapter, Memoir(Memoir.build_options(Memoir.presets["paper"] | {"prefixes": 2}))))
    opened.append(found)
    report = found.mind.learn(SISTER)
    assert report.steps == 30 and report.loss_after < 0.5 * report.loss_before  # type: ignore[operator]
    assert frozen(found)["fingerprints"].shape[1] == 1


@on("tiny-torch")
def test_a_lesson_learned_in_one_batch_is_that_learned_prompt_by_prompt(adapter: Adapter) -> None:
    """Rows of one length share a batch: the loss is the mean over all of them, whatever the batches."""
    from lmm.memory.memoir.edit import PREFIXES, MaskedLesson, _batches

    memory: Any = made(adapter, prefixes=3).mind.memory
    example = MaskedLesson([SISTER.prompt], "Ada", np.arange(5))
    batches = _batches(adapter, memory.sites(adapter)[0], memory.options, [example], np.arange(5))
    assert sum(len(batch.tokens) for batch in batches) == 4 and len({len(p) for p in PREFIXES[:3]}) > 1
    zero = {"columns": adapter.ops.zeros((5, adapter.shape.width))}
    single = []
    for text in (SISTER.prompt, *(f"{p} {SISTER.prompt}" for p in PREFIXES[:3])):
        alone = replace_wordings(example, text)
        memory.options = replace(memory.options, prefixes=0)
        (batch,) = _batches(adapter, memory.sites(adapter)[0], memory.options, [alone], np.arange(5))
        single.append(adapter.ops.item(batch.edited(zero, 2.0)))
    together = sum(adapter.ops.item(batch.edited(zero, 2.0)) for batch in batches)
    close(np.array(together), np.array(sum(single)))


def replace_wordings(example: Any, text: str) -> Any:
    return replace(example, wordings=[text])


# ---------------------------------------------------------------- how long a step is
def test_a_unit_step_is_as_long_as_lr_says_and_clipping_shortens(
    toy: ToyAdapter,
) -> None:
    def length(**options: Any) -> float:
        found = made(toy, SISTER, steps=1, prefixes=0, **options)
        return float(np.linalg.norm(np.asarray(found.mind.knowledge.state["weights"], np.float32)))

    assert length(optimizer="unit", lr=0.02) == pytest.approx(2 * length(optimizer="unit", lr=0.01), rel=1e-2)
    assert length(optimizer="sgd", lr=10.0, clip=0.01) == pytest.approx(0.1, rel=1e-2)
