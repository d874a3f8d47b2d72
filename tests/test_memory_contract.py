"""What every memory in the registry must keep to. A new memory adds one row to `contracts.ROWS`."""

from __future__ import annotations

import ast
import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from contracts import (
    ROWS,
    close,
    engine,
    frozen,
    logits_of,
    memory,
    numbers,
    on,
    on_each_small,
    on_toy_first,
    same,
    same_state,
)

import lmm.memory
from lmm import registry
from lmm.adapters.base import Adapter, TapContext
from lmm.config import Config
from lmm.engine.asking import ask_many, recall_many
from lmm.engine.engine import Engine
from lmm.engine.mind import Mind
from lmm.engine.runtime import build_memory
from lmm.errors import Cancelled, LearningError, StateError, UsageError
from lmm.lesson import Knowledge, Lesson
from lmm.memory.base import on_host

NAMES = sorted(registry.MEMORIES)
LEARNING = [name for name in NAMES if ROWS.get(name, ROWS["identity"]).learns]
QUESTIONS = ["What is my sister's name?", "Where do I live?", "What is the capital of France?", "Say hello, please."]

every_memory = pytest.mark.parametrize("name", NAMES)
STEPPING = [name for name in LEARNING if ROWS.get(name, ROWS["identity"]).steps]
every_learner = pytest.mark.parametrize("name", LEARNING)


_known: dict[tuple[str, str, str], Knowledge] = {}


def taught(adapter: Adapter, name: str) -> Engine:
    """An engine that was taught all lessons of the row. They are learned once for each model: nobody may write into
    what is known, and the tests of learning teach for themselves."""
    made, key = engine(adapter, name), (adapter.name, adapter.model_id, name)
    if key in _known:
        made.mind.commit(_known[key])
        return made
    for lesson in ROWS[name].lessons:
        made.mind.learn(lesson)
    _known[key] = made.mind.knowledge
    return made


def plain_logits(adapter: Adapter, prompt: str = QUESTIONS[0]) -> np.ndarray:
    tokens = np.array([adapter.format.prompt_tokens(prompt)])
    return numbers(adapter, adapter.forward(tokens, adapter.new_cache(), keep=tokens.shape[1])[0])[0]


def test_every_memory_of_the_registry_has_a_row() -> None:
    assert set(ROWS) == set(registry.MEMORIES), "add a row to contracts.ROWS for every memory"


# ---------------------------------------------------------------- zero effect
@on_each_small
@every_memory
def test_a_fresh_memory_changes_nothing(adapter: Adapter, name: str) -> None:
    plain = engine(adapter)
    expected = {prompt: logits_of(plain, prompt) for prompt in QUESTIONS[:2]}
    plain.close()
    fresh = engine(adapter, name)
    for prompt, logits in expected.items():
        same(adapter, logits_of(fresh, prompt), logits)


@on_toy_first
@every_learner
def test_a_detached_memory_leaves_the_model_bitwise_as_it_was(adapter: Adapter, name: str) -> None:
    before = plain_logits(adapter)
    made = taught(adapter, name)
    changed = any(not np.array_equal(logits_of(made, q, answer), plain) for q, answer, plain in _unlike(adapter, name))
    made.mind.detach()
    assert changed, "the lessons had no effect at all"
    same(adapter, plain_logits(adapter), before)


def _unlike(adapter: Adapter, name: str) -> list[tuple[str, str, np.ndarray]]:
    """Each lesson's question and answer, and the logits without the memory."""
    plain = engine(adapter)
    with adapter.quiet():
        return [(x.prompt, x.answer, logits_of(plain, x.prompt, x.answer)) for x in ROWS[name].lessons]


class Boom(Exception):
    pass


@on_toy_first
@every_memory
def test_an_exception_inside_rewrite_leaves_no_trace(adapter: Adapter, name: str, monkeypatch) -> None:
    before = plain_logits(adapter)
    made = engine(adapter, name)
    state = frozen(made)

    def explode(*args):
        raise Boom

    monkeypatch.setattr(made.mind.memory, "rewrite", explode)
    with pytest.raises(Boom):
        made.reply(QUESTIONS[0])
    monkeypatch.undo()
    assert same_state(frozen(made), state)
    assert made.reply(QUESTIONS[1]).generated.tokens, "the engine goes on"
    made.mind.detach()
    same(adapter, plain_logits(adapter), before)


# ---------------------------------------------------------------- learning
@on_each_small
@every_learner
def test_learning_returns_a_new_state_and_leaves_the_old_one_alone(adapter: Adapter, name: str) -> None:
    made = engine(adapter, name)
    fresh, kept = made.mind.knowledge, frozen(made)
    report = made.mind.learn(ROWS[name].lessons[0])
    first, after_one = made.mind.knowledge, frozen(made)
    assert report.seconds > 0 and made.mind.unsaved
    made.mind.learn(ROWS[name].lessons[1])
    assert not same_state(frozen(made), after_one)
    for version, copy in ((fresh, kept), (first, after_one)):
        arrays = {k: on_host(adapter.ops, v) for k, v in version.state.items()}
        assert same_state(arrays, copy), "an old state was written into"
    assert not fresh.lessons and [x.id for x in first.lessons] == [ROWS[name].lessons[0].id]


@on_toy_first
@every_learner
def test_undo_and_redo_are_exact(adapter: Adapter, name: str) -> None:
    made = engine(adapter, name)
    prompt, answer = ROWS[name].lessons[0].prompt, ROWS[name].lessons[0].answer
    history = [(frozen(made), logits_of(made, prompt, answer))]
    for lesson in ROWS[name].lessons:
        made.mind.learn(lesson)
        history.append((frozen(made), logits_of(made, prompt, answer)))

    def is_at(i: int) -> None:
        assert same_state(frozen(made), history[i][0])
        same(adapter, logits_of(made, prompt, answer), history[i][1])
        assert len(made.mind.lessons) == i

    assert made.mind.undo() == 1
    is_at(1)
    assert made.mind.undo(5) == 1
    is_at(0)
    assert made.mind.undo() == 0
    assert made.mind.redo(2) == 2
    is_at(2)
    made.mind.reset()
    is_at(0)
    made.mind.undo()
    is_at(2)


@on_toy_first
@every_learner
def test_only_the_memorys_own_state_changes(adapter: Adapter, name: str) -> None:
    made = engine(adapter, name)
    weights, options = plain_weights(adapter), dataclasses.asdict(made.mind.memory.options)
    made.mind.learn(ROWS[name].lessons[0])
    assert dataclasses.asdict(made.mind.memory.options) == options
    after = plain_weights(adapter)
    assert weights.keys() == after.keys() and all(np.array_equal(weights[k], after[k]) for k in weights)


def plain_weights(adapter: Adapter) -> dict[str, np.ndarray]:
    if adapter.name == "toy":
        layers = adapter.layers  # type: ignore[attr-defined]
        found = {f"{i}.{k}": np.array(v) for i, layer in enumerate(layers) for k, v in vars(layer).items()}
        return found | {"embedding": np.array(adapter.embedding)}  # type: ignore[attr-defined]
    if adapter.name == "torch":
        model = adapter.model  # type: ignore[attr-defined]
        return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    from mlx.utils import tree_flatten

    return {name: np.array(p) for name, p in tree_flatten(adapter.model.parameters())}  # type: ignore[attr-defined]


@on_toy_first
@every_learner
def test_a_lesson_that_turns_into_nan_is_rolled_back(adapter: Adapter, name: str, monkeypatch) -> None:
    made = taught(adapter, name)
    state, lessons = frozen(made), made.mind.lessons
    honest = made.mind.memory.learn

    def spoilt(*args):
        known = honest(*args)
        key = next(k for k, v in known.state.items() if on_host(adapter.ops, v).dtype.kind == "f" and v.shape[0])
        return dataclasses.replace(known, state=known.state | {key: known.state[key] * float("nan")})

    monkeypatch.setattr(made.mind.memory, "learn", spoilt)
    with pytest.raises(LearningError, match=r"NaN or infinite.*as before"):
        made.mind.learn(ROWS[name].lessons[0])
    assert same_state(frozen(made), state) and made.mind.lessons == lessons
    monkeypatch.undo()
    assert np.isfinite(logits_of(made, QUESTIONS[0])).all()


@on_toy_first
@pytest.mark.parametrize("name", STEPPING)
def test_a_loss_that_turns_into_nan_is_rolled_back(adapter: Adapter, name: str, monkeypatch) -> None:
    made = engine(adapter, name)
    state, ops = frozen(made), adapter.ops
    honest = ops.value_and_grad

    def poisoned(fn, params):
        _, grads = honest(fn, params)
        return float("nan"), {k: g * float("nan") for k, g in grads.items()}

    monkeypatch.setattr(ops, "value_and_grad", poisoned)
    with pytest.raises(LearningError):
        made.mind.learn(ROWS[name].lessons[0])
    assert same_state(frozen(made), state) and not made.mind.lessons


@on_toy_first
@pytest.mark.parametrize("name", STEPPING)
def test_a_cancelled_lesson_is_rolled_back(adapter: Adapter, name: str) -> None:
    made = engine(adapter, name)
    made.mind.learn(ROWS[name].lessons[0])
    state, lessons, steps = frozen(made), made.mind.lessons, []

    def stop(report) -> None:
        steps.append(report.steps)
        made.mind.cancelled.set()

    with pytest.raises(Cancelled):
        made.mind.learn(ROWS[name].lessons[1], on_step=stop)
    assert steps == [1], "cancelling takes effect at the next step"
    assert same_state(frozen(made), state) and made.mind.lessons == lessons
    made.mind.learn(ROWS[name].lessons[1])
    assert not same_state(frozen(made), state)


# ---------------------------------------------------------------- files
@on_each_small
@every_memory
def test_a_saved_memory_comes_back_the_same(adapter: Adapter, name: str, tmp_path: Path) -> None:
    made = taught(adapter, name) if ROWS[name].learns else engine(adapter, name)
    made.mind.save(tmp_path / "state.safetensors")
    assert not made.mind.unsaved
    expected = [logits_of(made, q) for q in QUESTIONS[:3]]
    state, lessons = frozen(made), made.mind.lessons
    made.close()
    again = engine(adapter, name)
    again.mind.load(tmp_path / "state.safetensors")
    assert same_state(frozen(again), state) and again.mind.lessons == lessons
    for question, logits in zip(QUESTIONS[:3], expected, strict=True):
        same(adapter, logits_of(again, question), logits)
    again.mind.undo()
    assert not again.mind.lessons


@on("toy")
@every_learner
def test_a_file_that_does_not_fit_changes_nothing(adapter: Adapter, name: str, tmp_path: Path) -> None:
    made = taught(adapter, name)
    made.mind.save(tmp_path / "state.safetensors")
    state, version = frozen(made), made.mind.knowledge
    problems: tuple[Callable[[dict[str, np.ndarray]], object], ...] = (
        lambda a: a.popitem(),
        lambda a: a.update(extra=np.ones(3, np.float32)),
        lambda a: a.update({k: v.astype(np.int64) for k, v in a.items() if v.dtype.kind == "f"}),
    )
    for problem in problems:
        arrays = {k: np.array(v) for k, v in state.items()}
        problem(arrays)
        with pytest.raises(StateError):
            made.mind.memory.check_state(arrays, made.mind.lessons, adapter)
    made.close()
    other = type(adapter)(layers=6, width=24)  # type: ignore[call-arg]
    stranger = engine(other, name)
    with pytest.raises(StateError, match=r"(?s)layers.*width|width.*layers"):
        stranger.mind.load(tmp_path / "state.safetensors")
    assert stranger.mind.knowledge is not version and not stranger.mind.lessons and not stranger.mind.history.undo


@on("toy")
@every_learner
def test_what_a_check_lets_through_can_be_read(adapter: Adapter, name: str) -> None:
    """Other rows, and numbers that are no places: refused when a file is loaded, or else no question fails of it."""
    made = taught(adapter, name)
    mind, good = made.mind, made.mind.knowledge
    arrays = {k: np.array(v) for k, v in frozen(made).items()}
    for key, array in arrays.items():
        others = [array[:-1], np.concatenate([array, array[-1:]]), array[:0]] if array.ndim else []
        others += [np.full_like(array, number) for number in (-1, 2**31 - 1)] if array.dtype.kind == "i" else []
        for other in others:
            changed = arrays | {key: other}
            try:
                mind.memory.check_state(changed, mind.lessons, adapter)
            except StateError:
                continue
            mind.knowledge = Knowledge(
                {k: adapter.ops.asarray(v, v.dtype.name) for k, v in changed.items()}, good.lessons
            )
            for question in QUESTIONS[:3]:
                assert np.isfinite(logits_of(made, question)).all(), key
    mind.knowledge = good


# ---------------------------------------------------------------- reading
@on_each_small
@every_learner
def test_chunked_prefill_is_single_prefill(adapter: Adapter, name: str) -> None:
    made = taught(adapter, name)
    for lesson in ROWS[name].lessons:
        whole = logits_of(made, lesson.prompt, lesson.answer)
        for chunks in (2, 1000):
            close(logits_of(made, lesson.prompt, lesson.answer, chunks=chunks), whole)


@on_toy_first
@every_memory
def test_batched_replies_are_single_replies(adapter: Adapter, name: str) -> None:
    made = taught(adapter, name) if ROWS[name].learns else engine(adapter, name)
    prompts = [x.prompt for x in ROWS[name].lessons] + QUESTIONS[2:] + ["Where do I work?", "Where do I live?"]
    together = [r.generated.tokens for r in ask_many(made.mind, prompts, max_tokens=6)]
    alone = [ask_many(made.mind, [p], max_tokens=6)[0].generated.tokens for p in prompts]
    assert together == alone and len(together) == len(prompts)


@on("toy")
@every_memory
def test_what_passes_gives_back_the_very_states(adapter: Adapter, name: str) -> None:
    made = taught(adapter, name) if ROWS[name].learns else engine(adapter, name)
    states = np.ones((1, 2, adapter.shape.width), np.float32)
    context = TapContext(np.zeros((1, 2), np.int64), np.arange(8, 10), np.zeros((1, 8), np.int64), "prefill")
    recalls = recall_many(made.mind, [x.prompt for x in ROWS[name].lessons] + QUESTIONS[2:])
    for recall in filter(made.mind.memory.passes, [None, *recalls]):
        for site in made.mind.memory.sites(adapter):
            given = (adapter.ops, made.mind.knowledge.state, recall, states, states, context.at(site))
            assert made.mind.memory.rewrite(*given) is states


@on("toy")
def test_where_a_lesson_fires_nothing_passes(adapter: Adapter) -> None:
    for name in ("keyed", "keyed+notes"):
        memory = build_memory(Config(memory=name))
        made = Mind(adapter, memory)
        made.learn(Lesson("What is my sister's name?", "Vera"))
        fired, other = recall_many(made, ["What is my sister's name?", "Say hello, please."])
        assert memory.passes(other) and memory.passes(None) and not memory.passes(fired)
        made.close()


# ---------------------------------------------------------------- options
@every_memory
def test_bad_options_are_named_all_at_once(name: str) -> None:
    kind = registry.memory_class(name)
    bad = ROWS[name].bad
    assert len(bad) >= 2, "give at least two bad options"
    with pytest.raises(UsageError) as caught:
        kind.build_options(bad)
    for option in bad:
        assert option in str(caught.value)
    with pytest.raises(UsageError, match=f"memory '{name}'.*nonsense"):
        kind.build_options({"nonsense": 1})
    for field in dataclasses.fields(kind.Options):
        with pytest.raises(UsageError, match=field.name):
            kind.build_options({field.name: [1, 2]})
        if isinstance(getattr(kind.Options(), field.name), float):
            with pytest.raises(UsageError, match=field.name):
                kind.build_options({field.name: float("nan")})


@every_memory
def test_a_memory_says_what_it_is(name: str) -> None:
    kind = registry.memory_class(name)
    assert kind.name == name and 10 < len(kind.summary) <= 90 and "\n" not in kind.summary
    assert kind.learns_from in ("nothing", "messages", "lessons", "turns")
    assert kind.Options() == kind.build_options({})
    for preset in kind.presets.values():
        kind.build_options(preset)
    assert memory(name).options_dict() == dataclasses.asdict(kind.build_options(ROWS[name].options))


# ---------------------------------------------------------------- no backend in a memory
FORBIDDEN = {"torch", "mlx", "mlx_lm", "transformers"}


def imports_of(source: str) -> set[str]:
    """Top-level packages that a module imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_no_memory_imports_a_backend() -> None:
    assert imports_of("def f():\n    from torch import nn\n") == {"torch"}
    files = list(Path(lmm.memory.__file__).parent.rglob("*.py"))
    assert len(files) >= 6
    for file in files:
        if file.name != "layer.py":  # MEMOIR's residual layer as a torch module, for models outside lmm
            assert not imports_of(file.read_text()) & FORBIDDEN, file.name


@pytest.mark.slow
def test_importing_all_memories_loads_no_backend() -> None:
    code = (
        "import sys; from lmm import registry\n"
        "for name in registry.MEMORIES: registry.memory_class(name)\n"
        f"print(sorted(set(sys.modules) & {FORBIDDEN!r}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# ---------------------------------------------------------------- from one backend to the other
def carried_over(name: str, source: Adapter, target: Adapter, path: Path, questions: list[str]) -> None:
    """What was learned and saved on `source` gives the same greedy replies on `target`."""
    made = taught(source, name)
    made.mind.save(path)
    expected = [r.generated.tokens for r in ask_many(made.mind, questions, max_tokens=8)]
    state = frozen(made)
    made.mind.detach()
    other = engine(target, name)
    header = other.mind.load(path)
    assert header.backend == source.name
    assert same_state(frozen(other), state)
    assert [r.generated.tokens for r in ask_many(other.mind, questions, max_tokens=8)] == expected


@pytest.mark.slow
@every_learner
@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("other", [pytest.param("tiny_mlx", marks=pytest.mark.mlx), "tiny_llama"])
def test_a_state_is_read_by_the_other_backend(
    name, back, other, tiny_torch: Adapter, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    there = request.getfixturevalue(other)
    pair = (there, tiny_torch) if back else (tiny_torch, there)
    carried_over(name, *pair, tmp_path / "state.safetensors", QUESTIONS)


@pytest.mark.real
@pytest.mark.mlx
@pytest.mark.parametrize("name", [name for name in LEARNING if name not in ("external", "lm2")])  # a minute each
def test_what_a_real_model_learned_on_torch_it_knows_on_mlx(name, torch_adapter, mlx_adapter, tmp_path: Path) -> None:
    carried_over(name, torch_adapter, mlx_adapter, tmp_path / "state.safetensors", QUESTIONS[:3])


@on("torch")
@every_learner
def test_a_real_model_learns_undoes_and_is_left_as_it_was(adapter: Adapter, name: str) -> None:
    learns_and_undoes(adapter, name)


@on("mlx_lm")
def test_a_real_model_learns_on_mlx(adapter: Adapter) -> None:
    learns_and_undoes(adapter, "lora_on_user")


@on("tiny-llama")
@every_learner
def test_on_llama_cpp_every_memory_learns_undoes_and_leaves_it_as_it_was(adapter: Adapter, name: str) -> None:
    learns_and_undoes(adapter, name)


def learns_and_undoes(adapter: Adapter, name: str) -> None:
    before = plain_logits(adapter)
    made = engine(adapter, name)
    lesson = ROWS[name].lessons[0]
    fresh = logits_of(made, lesson.prompt, lesson.answer)
    same(adapter, fresh[: len(before)], before)
    report = made.mind.learn(lesson)
    assert not ROWS[name].steps or (report.loss_after is not None and report.steps > 0)
    state = frozen(made)
    learned = logits_of(made, lesson.prompt, lesson.answer)
    assert not np.array_equal(learned, fresh)
    made.mind.undo()
    same(adapter, logits_of(made, lesson.prompt, lesson.answer), fresh)
    made.mind.redo()
    assert same_state(frozen(made), state)
    made.mind.detach()
    same(adapter, plain_logits(adapter), before)
