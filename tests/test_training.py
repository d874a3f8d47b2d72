"""Offline training: what moves and what does not, when it stops, and that an interruption changes nothing."""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import contracts
import numpy as np
import pytest
from contracts import on, on_small
from typer.testing import CliRunner

from lmm import registry
from lmm.adapters.base import Adapter
from lmm.cli.app import app
from lmm.config import Config
from lmm.engine import runtime
from lmm.engine.asking import ask_many
from lmm.engine.engine import Engine
from lmm.engine.mind import Mind
from lmm.engine.scoring import probabilities
from lmm.engine.training import Training, TrainingSettings
from lmm.errors import Cancelled, LearningError, StateError, UsageError
from lmm.files import state_file as state
from lmm.lesson import Knowledge
from lmm.memory.base import Memory

PAIRS = [("What is my name?", "Ada"), ("Where do I live?", "Oslo"), ("Who am I to you?", "A friend"), ("Hi", "Yo")]
#: memories that can be trained, with options that make it quick
TRAINABLE: dict[str, dict[str, Any]] = {
    "lora_on_user": {"rank": 2},
    "engram": {"slots": 1000},
    "engram+lora_on_user": {"engram.slots": 1000, "lora_on_user.rank": 2},
}


def memory(name: str = "lora_on_user") -> Memory:
    return runtime.build_memory(Config(memory=name, options=TRAINABLE[name]))


def training(adapter: Adapter, name: str = "lora_on_user", pairs: Any = PAIRS, valid: Any = (), **settings: Any):
    more = {k: settings.pop(k) for k in ("checkpoint", "notice", "state") if k in settings}
    given = TrainingSettings(**{"epochs": 2, "batch_size": 2, "lr": 0.05, "patience": 50} | settings)
    return Training(adapter, memory(name), pairs, valid, given, **more)


def arrays(adapter: Adapter, found: Any) -> dict[str, np.ndarray]:
    return {name: adapter.ops.to_numpy(array) for name, array in found.items()}


@on_small
@pytest.mark.parametrize("name", sorted(TRAINABLE))
def test_the_loss_falls_and_the_model_stays(adapter: Adapter, name: str) -> None:
    if adapter.name == "toy" and "engram" in name:
        pytest.skip("thousands of numbers are too many for numerical gradients")
    engine = contracts.engine(adapter)
    before = contracts.logits_of(engine, "Hi")
    run = training(
        adapter, name, PAIRS[:2] if adapter.name == "toy" else PAIRS, epochs=2 if adapter.name == "toy" else 15
    )
    fresh = arrays(adapter, run.state)
    trained = run.run()
    history = trained.progress.history
    assert history[-1]["train"] < history[0]["train"]
    contracts.same(adapter, contracts.logits_of(engine, "Hi"), before)
    after = arrays(adapter, trained.state)
    changed = {k for k in fresh if not np.array_equal(fresh[k], after[k])}
    assert changed and changed <= set(run.names)
    assert all(after[k].dtype == fresh[k].dtype and after[k].shape == fresh[k].shape for k in fresh)


@on("tiny-torch")
@pytest.mark.parametrize("name", sorted(TRAINABLE))
def test_what_was_trained_is_answered(adapter: Adapter, name: str, monkeypatch) -> None:
    monkeypatch.setitem(TRAINABLE, "lora_on_user", {"rank": 16})
    run = training(
        adapter, name, PAIRS[:1], epochs=150, goal=1.0
    )  # the tiny model's norm and head allow no loss below .9
    trained = run.run()
    assert trained.ended == "goal" and trained.progress.best <= 1.0
    engine = Engine(Mind(adapter, run.memory))
    contracts.opened.append(engine)
    engine.mind.commit(Knowledge(trained.state))
    assert [r.text for r in ask_many(engine.mind, [PAIRS[0][0]])] == [PAIRS[0][1]]


@on_small
def test_batches_and_padding_change_nothing(adapter: Adapter) -> None:
    run = training(adapter, batch_size=16)
    with run._taps():
        together = run.loss(run.train, run.params)
        run.settings = TrainingSettings(batch_size=1)
        alone = run.loss(run.train, run.params)
    assert together == pytest.approx(alone, rel=1e-4)
    plain = contracts.engine(adapter)  # a fresh memory's loss is the model's own, by another way

    total = []
    for question, answer in PAIRS:
        prompt, reply = adapter.format.lesson_tokens(question, answer)
        total += (-np.log(probabilities(plain.mind, [*prompt, *reply[:-1]], reply, None))).tolist()
    assert together == pytest.approx(np.mean(total), rel=1e-3)


def test_backends_agree(tiny_torch: Adapter, request) -> None:
    mlx = request.getfixturevalue("tiny_mlx")
    losses = []
    for adapter in (tiny_torch, mlx):
        losses.append([entry["train"] for entry in training(adapter, epochs=3).run().progress.history])
    contracts.close(np.array(losses[0]), np.array(losses[1]), atol=1e-3)


test_backends_agree = pytest.mark.mlx(test_backends_agree)


# ---------------------------------------------------------------- stopping
@on("tiny-torch")
def test_an_interruption_changes_nothing(adapter: Adapter, tmp_path: Path) -> None:
    whole = training(adapter, epochs=4, valid=PAIRS[:1], seed=3).run()
    for after in (1, 3, 6):
        checkpoint = tmp_path / f"{after}"
        first = training(adapter, epochs=4, valid=PAIRS[:1], seed=3, checkpoint=checkpoint)
        with pytest.raises(Cancelled, match="goes on"):
            first.run(stop=lambda run=first, after=after: run.progress.step >= after)
        second = training(adapter, epochs=4, valid=PAIRS[:1], seed=3, checkpoint=checkpoint)
        assert second.resume() and second.progress.step == after
        again = second.run()
        assert contracts.same_state(arrays(adapter, again.state), arrays(adapter, whole.state))
        losses = [[(e["train"], e["valid"]) for e in t.progress.history] for t in (again, whole)]
        assert losses[0] == losses[1]
    assert not adapter.taps


@pytest.mark.slow
@on("tiny-torch")
def test_an_interruption_changes_nothing_where_batches_differ_in_shape(adapter: Adapter, tmp_path: Path) -> None:
    """After it, examples are met in other batches first: what is kept of them must not depend on that."""
    words = ["a", "key", "of", "some", "length", "that", "is", "not", "always", "the", "same", "one"]
    pairs = [(" ".join(words[: 1 + i % 9]) + f" {i}?", f"v{i}") for i in range(40)]

    def made(**more: Any) -> Training:
        settings = TrainingSettings(epochs=3, batch_size=8, lr=1e-2, goal=0.0, seed=1)
        return Training(adapter, contracts.memory("gated_lora"), pairs, (), settings, **more)

    whole = made().run()
    first = made(checkpoint=tmp_path / "c")
    with pytest.raises(Cancelled):
        first.run(stop=lambda: first.progress.step >= 8)
    again = made(checkpoint=tmp_path / "c")
    assert again.resume()
    assert contracts.same_state(arrays(adapter, again.run().state), arrays(adapter, whole.state))


@on("tiny-torch")
@pytest.mark.parametrize("kept", [0, 5000, 10**9])
def test_states_below_the_memory_do_not_depend_on_the_order(adapter: Adapter, monkeypatch, kept: int) -> None:
    """On a machine where they differ by the shape of a pass. What is not kept is not computed for others' sake."""
    hidden, passes = adapter.hidden, list[int]()

    def shown(tokens: np.ndarray, layer: int) -> Any:
        passes.append(len(tokens))
        return hidden(tokens, layer) + len(tokens) / 1000

    monkeypatch.setattr(adapter, "hidden", shown)
    monkeypatch.setattr("lmm.engine.training.KEPT_BYTES", kept)
    pairs, found = [(f"Where is thing {i}?", f"in box {i % 7}") for i in range(40)], []
    for seed in (0, 1):
        examples = training(adapter, pairs=pairs).train
        batches, before = examples.batches(16, seed), sum(passes)
        for rows in batches:
            examples.hidden(rows)
        assert sum(passes) - before == 40
        assert sum(4 * h.shape[1] * h.shape[2] for h in examples._h.values()) <= kept
        found.append(adapter.ops.to_numpy(examples.hidden(range(40))))
    assert np.array_equal(*found)


@on("tiny-torch")
def test_a_run_that_ended_can_be_had_again_until_its_file_is_written(adapter: Adapter, tmp_path: Path) -> None:
    done = training(adapter, epochs=2, checkpoint=tmp_path / "c").run()
    again = training(adapter, epochs=2, checkpoint=tmp_path / "c")
    assert again.resume()
    steps: list[object] = []
    repeated = again.run(on_step=steps.append)
    assert not steps and contracts.same_state(arrays(adapter, repeated.state), arrays(adapter, done.state))


@on("tiny-torch")
def test_a_checkpoint_of_another_run_is_refused(adapter: Adapter, tmp_path: Path) -> None:
    run = training(adapter, checkpoint=tmp_path / "c")
    assert not run.resume()
    run.save()
    assert training(adapter, checkpoint=tmp_path / "c").resume()
    for other in ({"pairs": PAIRS[:2]}, {"lr": 0.01}, {"valid": PAIRS[:1]}):
        with pytest.raises(UsageError, match="--no-resume"):
            training(adapter, checkpoint=tmp_path / "c", **other).resume()
    (tmp_path / "c").write_bytes(b"half")
    with pytest.raises(UsageError, match="cannot be read"):
        run.resume()
    run.discard()
    assert not run.resume()


@on("tiny-torch")
def test_it_stops_early_and_keeps_the_best(adapter: Adapter) -> None:
    """Validation on other answers to the same questions gets worse while training gets better."""
    wrong = [(question, "zzzzzz") for question, _ in PAIRS]
    run = training(adapter, epochs=200, valid=wrong, patience=2)
    trained = run.run()
    history = trained.progress.history
    assert trained.ended == "patience" and len(history) < 200
    best = min(history, key=lambda entry: entry["valid"])
    assert trained.progress.best_epoch == best["epoch"] == len(history) - 2
    with run._taps():
        kept = {name: trained.state[name] for name in run.names}
        assert run.loss(run.valid, kept) == pytest.approx(best["valid"], rel=1e-5)
        assert run.loss(run.valid, run.params) > best["valid"]


@on("tiny-torch")
def test_validation_out_of_reach_is_said_and_not_believed(adapter: Adapter, monkeypatch) -> None:
    told: list[str] = []
    run = training(adapter, epochs=3, valid=PAIRS[:1], patience=1, notice=told.append)
    untouched = run.loss(run.valid, run.params)
    loss = Training.loss
    monkeypatch.setattr(Training, "loss", lambda self, e, p: untouched if e is not self.train else loss(self, e, p))
    trained = run.run()
    assert "changes nothing" in told[0] and len(trained.progress.history) == 3


@on("tiny-torch")
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_nan_stops_it(adapter: Adapter, monkeypatch, what: str) -> None:
    run = training(adapter)
    real = adapter.ops.value_and_grad

    def broken(fn: Any, params: Any) -> Any:
        loss, grads = real(fn, params)
        return (math.nan, grads) if what == "loss" else (loss, {k: g * math.nan for k, g in grads.items()})

    monkeypatch.setattr(adapter.ops, "value_and_grad", broken)
    with pytest.raises(LearningError, match="smaller --lr"):
        run.run()
    assert not adapter.taps


def test_gradients_are_clipped(tiny_torch: Adapter, monkeypatch) -> None:
    run = training(tiny_torch, clip=1e-3)
    seen: list[float] = []
    step = run.optimizer.step

    def watched(params: Any, grads: Any) -> Any:
        seen.append(math.sqrt(sum(float((g * g).sum()) for g in grads.values())))
        return step(params, grads)

    monkeypatch.setattr(run.optimizer, "step", watched)
    run.run()
    assert max(seen) <= 1e-3 * 1.001


def test_the_schedule_rises_and_falls() -> None:
    rates = [TrainingSettings(lr=1.0, warmup=0.1).lr_at(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 11) and rates[0] < rates[5] < rates[10] == 1.0 == max(rates)
    assert all(a > b for a, b in itertools.pairwise(rates[10:])) and rates[-1] < 0.001


def test_wrong_requests(toy: Adapter) -> None:
    with pytest.raises(UsageError, match="nothing to train"):
        kind = registry.memory_class("identity")
        Training(toy, kind(), PAIRS)
    with pytest.raises(UsageError, match=r"epochs.*lr must.*warmup"):
        TrainingSettings(epochs=0, lr=0, warmup=1)


# ---------------------------------------------------------------- the command
def test_the_command(tiny_torch: Adapter, tmp_path: Path) -> None:
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in PAIRS))
    folder = str(tiny_torch.source.folder)  # type: ignore[attr-defined]
    request = ["train", "--memory", "lora_on_user", "--data", str(data), "--out", str(tmp_path / "state")]
    request += ["--backend", "torch", "--model", folder, "--epochs", "3", "--lr", "0.05"]
    done = CliRunner().invoke(app, request)
    assert done.exit_code == 0, done.output
    assert "4 examples, epoch 3 is the best" in done.output
    header = state.read_header(tmp_path / "state")
    told = header.extra["training"]
    assert told["examples"] == 4 and [e["epoch"] for e in told["history"]] == [1, 2, 3]
    assert not (tmp_path / "state.checkpoint").exists()
    more = [*request, "--mm-load-path", str(tmp_path / "state")]
    assert CliRunner().invoke(app, more).exit_code == 0
    goes_on = state.read_header(tmp_path / "state").extra["training"]["history"]
    assert goes_on[0]["train"] < told["history"][0]["train"]


@pytest.fixture
def command(tiny_torch: Adapter, tmp_path: Path) -> list[str]:
    """`lmm train`, but for --out."""
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in PAIRS))
    folder = str(tiny_torch.source.folder)  # type: ignore[attr-defined]
    words = ["train", "--memory", "lora_on_user", "--data", str(data), "--epochs", "2", "--backend", "torch"]
    return [*words, "--model", folder]


@pytest.mark.slow
def test_where_the_result_cannot_be_written_nothing_is_trained(command: list[str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(runtime, "load_adapter", lambda config: pytest.fail("a model was loaded"))
    data, valid, link, new = (tmp_path / name for name in ("train.jsonl", "new.checkpoint", "link", "new"))
    valid.write_bytes(data.read_bytes())
    link.symlink_to(data)
    before = data.read_bytes()
    for more, text in (
        (["--out", str(data)], "the file that is read"),
        (["--out", str(link)], "the file that is read"),
        (["--out", str(valid), "--valid", str(valid)], "the file that is read"),
        (["--out", str(new), "--valid", str(valid), "--no-resume"], "the file that is read"),
        (["--out", str(new), "--checkpoint", str(new)], "the memory file"),
        (["--out", str(tmp_path)], "it is a folder"),
        (["--out", str(data / "below")], "cannot be written"),
        (["--out", "/dev/null"], "not a regular file"),
        (["--out", str(tmp_path / ("x" * 250))], "File name too long"),  # with .checkpoint
    ):
        done = CliRunner().invoke(app, [*command, *more])
        assert isinstance(done.exception, UsageError) and text in str(done.exception), more
    assert data.read_bytes() == valid.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"train.jsonl", "new.checkpoint", "link"}


def no_room(path: Any, chunks: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_training_that_could_not_be_saved_is_only_saved_next_time(
    command: list[str], tmp_path: Path, monkeypatch, elsewhere: bool
) -> None:
    with monkeypatch.context() as full:
        full.setattr(state, "write_atomically", no_room)
        done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "state")])
    assert isinstance(done.exception, StateError) and "No space left" in str(done.exception)
    assert f"--checkpoint {tmp_path / 'state.checkpoint'}" in str(done.exception)
    assert "/save" not in str(done.exception), "there is no chat"
    monkeypatch.setattr(Training, "_step", lambda self, rows: pytest.fail("trained again"))
    place = tmp_path / ("other" if elsewhere else "state")
    more = ["--checkpoint", str(tmp_path / "state.checkpoint")] if elsewhere else []
    assert CliRunner().invoke(app, [*command, "--out", str(place), *more]).exit_code == 0
    assert len(state.read_header(place).extra["training"]["history"]) == 2
    assert not (tmp_path / "state.checkpoint").exists()


def test_what_is_lost_is_not_said_to_be_kept(command: list[str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("lmm.engine.training.write_atomically", no_room)
    monkeypatch.setattr(state, "write_atomically", no_room)
    done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "state")])
    assert isinstance(done.exception, StateError) and "the training is lost" in str(done.exception)


def test_a_disk_with_room_for_the_result_alone_gets_it(command: list[str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("lmm.engine.training.write_atomically", no_room)
    done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "state")])
    assert done.exit_code == 0 and "cannot write the checkpoint" in done.output
    assert state.read_header(tmp_path / "state").extra["training"]["ended"] == "epochs"


def test_settings_that_are_no_numbers() -> None:
    for name in ("weight_decay", "clip", "goal"):
        with pytest.raises(UsageError, match="must be 0 or above, not"):
            TrainingSettings(**{name: math.nan})
    with pytest.raises(UsageError, match="seed must be 0 or above"):
        TrainingSettings(seed=-1)


def test_ctrl_c_keeps_a_checkpoint_and_the_same_command_goes_on(
    tiny_torch: Adapter, tmp_path: Path, monkeypatch
) -> None:
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in PAIRS))
    folder = str(tiny_torch.source.folder)  # type: ignore[attr-defined]
    request = ["train", "--memory", "lora_on_user", "--data", str(data), "--epochs", "3", "--batch-size", "2"]
    request += ["--backend", "torch", "--model", folder, "--out"]
    assert CliRunner().invoke(app, [*request, str(tmp_path / "whole")]).exit_code == 0
    step = Training._step

    def interrupted(self: Training, rows: list[int]) -> None:
        step(self, rows)
        if self.progress.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Training, "_step", interrupted)
    done = CliRunner().invoke(app, [*request, str(tmp_path / "parts")])
    assert isinstance(done.exception, Cancelled) and "3 steps" in str(done.exception)
    assert (tmp_path / "parts.checkpoint").exists() and not (tmp_path / "parts").exists()
    monkeypatch.setattr(Training, "_step", step)
    again = CliRunner().invoke(app, [*request, str(tmp_path / "parts")])
    assert again.exit_code == 0 and "going on after step 3" in again.output
    assert not (tmp_path / "parts.checkpoint").exists()
    assert contracts.same_state(state.load(tmp_path / "whole")[0], state.load(tmp_path / "parts")[0])
