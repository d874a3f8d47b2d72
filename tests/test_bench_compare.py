"""The comparison on the toy model: honest memories score well, broken ones badly, and an interruption costs nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import benching
import pytest
from typer.testing import CliRunner

from lmm import registry
from lmm.adapters.base import Adapter
from lmm.bench import compare_report
from lmm.bench.compare import CompareRequest, _that_fits, compare, talk, time_at
from lmm.bench.exact_match import TaskExample, write
from lmm.cli.app import app
from lmm.config import Config
from lmm.engine.engine import Engine
from lmm.engine.mind import Mind
from lmm.engine.training import TrainingSettings
from lmm.errors import UsageError

PLACES = ["Rome", "Oslo", "Paris", "Bern", "Kyiv"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten examples of two categories, four more that are not taught. The other wording has the same words."""
    made = [
        TaskExample(f"{kind} {c}", PLACES[i % 5], kind, c, (f"{c} {kind}",))
        for i, (kind, c) in enumerate((kind, c) for c in "ABCDEFG" for kind in ("capital", "port"))
    ]
    write({"train": made[:10], "valid": [], "test": made[10:] + made[:2]}, tmp_path / "data")
    (tmp_path / "data" / "test.jsonl").write_text("".join(json.dumps(dataclasses.asdict(x)) + "\n" for x in made[10:]))
    (tmp_path / "known.json").write_text(
        json.dumps([{"prompt": "size A", "answer": "big"}, {"prompt": "sky", "answer": "blue"}])
    )
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def memories(monkeypatch) -> None:
    for kind in (benching.Told, benching.Shotgun, benching.Everywhere, benching.Refuses, benching.Remembers):
        monkeypatch.setitem(registry.MEMORIES, kind.name, f"benching:{kind.__name__}")


def request(data: Path, *names: str, **settings: Any) -> CompareRequest:
    small = {"distances": (20, 60), "lengths": (16, 64), "questions": 4, "max_tokens": 8, "limit": 10}
    given = small | {"known": data.parent / "known.json", "out": data.parent / "out"} | settings
    return CompareRequest(data=data, memories=names, config=Config(), **given)


def row(result: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in result["rows"] if row["memory"] == name)


@pytest.mark.slow
def test_an_honest_memory_and_none(data: Path) -> None:
    result = compare(request(data, "told"), adapter=benching.adapter())
    told, none = row(result, "told"), row(result, "none")
    assert [r["memory"] for r in result["rows"]] == ["none", "told"]
    assert told["taught"]["value"] == told["wordings"]["value"] == 1.0 and none["taught"]["value"] == 0.0
    assert {k: (v["value"], v["count"]) for k, v in told["taught_by_category"].items()} == {
        "capital": (1.0, 5),
        "port": (1.0, 5),
    }
    assert told["unseen"] | {"interval": None} == {"value": 0.0, "count": 4, "interval": None}
    assert told["unseen_unchanged"]["value"] == told["known_unchanged"]["value"] == 1.0
    assert [x["value"] for x in told["by_distance"]] == [1.0, 1.0]
    assert [x["distance"] for x in told["by_distance"]] == [20, 60]
    assert all(x["tokens"] >= x["distance"] for x in told["by_distance"])
    assert [x["tokens"] for x in told["by_length"]] == [x["tokens"] for x in none["by_length"]] == [16, 64]
    assert told["lessons"] == 10 and told["failed_lessons"] == 0 and told["state_bytes"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "score", "most"),
    [
        ("shotgun", "taught", 0.0),  # says every answer it knows
        ("everywhere", "unseen_unchanged", 0.3),  # says its last answer whatever is asked
        ("everywhere", "known_unchanged", 0.5),
        ("refuses", "taught", 0.7),  # cannot learn some lessons
        ("remembers", "taught", 0.0),  # keeps what it knows outside of its state
    ],
)
def test_a_broken_memory_scores_badly(data: Path, name: str, score: str, most: float) -> None:
    result = compare(request(data, name), adapter=benching.adapter())
    assert row(result, name)[score]["value"] <= most


@pytest.mark.slow
def test_forgetting_after_talk_is_seen(data: Path, monkeypatch) -> None:
    """A memory that answers only in an empty conversation."""

    def rewrite(self: Any, ops: Any, state: Any, recall: Any, x_in: Any, x_out: Any, context: Any) -> Any:
        if recall is not None and recall.start > 40:
            return x_out
        return benching.Told.rewrite(self, ops, state, recall, x_in, x_out, context)

    monkeypatch.setattr(benching.Shotgun, "rewrite", rewrite)
    monkeypatch.setattr(benching.Shotgun, "says", benching.Told.says)
    found = row(compare(request(data, "shotgun"), adapter=benching.adapter()), "shotgun")
    assert found["taught"]["value"] == 1.0 and found["by_distance"][-1]["value"] == 0.0


@pytest.mark.slow
def test_it_goes_on_after_an_interruption(data: Path, monkeypatch) -> None:
    whole = compare(request(data, "told", "refuses", out=data.parent / "whole"), adapter=benching.adapter())
    times = iter(range(100))
    learn = Mind.learn

    def interrupted(self: Mind, *args: Any) -> Any:
        if next(times) == 6:
            raise KeyboardInterrupt
        return learn(self, *args)

    monkeypatch.setattr(Mind, "learn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare(request(data, "told", "refuses"), adapter=benching.adapter())
    again = compare(request(data, "told", "refuses"), adapter=benching.adapter())
    assert next(times) == 7 + 4 + 10, "lessons were taught twice"
    scores = (
        "taught",
        "taught_by_category",
        "wordings",
        "unseen",
        "unseen_unchanged",
        "known_unchanged",
        "by_distance",
    )
    for mine, theirs in zip(again["rows"], whole["rows"], strict=True):
        assert {k: mine[k] for k in scores} == {k: theirs[k] for k in scores}
    monkeypatch.setattr(Mind, "learn", None)
    third = compare(request(data, "told", "refuses"), adapter=benching.adapter())
    assert third["rows"] == again["rows"]
    with pytest.raises(UsageError, match="--no-resume"):
        compare(request(data, "told", limit=5), adapter=benching.adapter())


@pytest.mark.slow
def test_training_offline(data: Path, tiny_torch: Adapter) -> None:
    """The tiny model, for its gradients."""
    given = request(data, "lora_on_user", "keyed+lora_on_user", train=frozenset({"lora_on_user", "keyed+lora_on_user"}))
    given = dataclasses.replace(
        given, limit=2, training=TrainingSettings(epochs=3, lr=0.05), distances=(20,), questions=1
    )
    result = compare(given, adapter=tiny_torch)
    lora, both = row(result, "lora_on_user"), row(result, "keyed+lora_on_user")
    assert lora["trained"] and lora["training_s"] > 0 and lora["lessons"] == 0
    assert both["trained"] and both["lessons"] == 2
    assert not row(result, "none")["trained"]
    history = json.loads((given.folder / "lora_on_user" / "training.json").read_text())["history"]
    assert history[-1]["train"] < history[0]["train"]


@pytest.mark.slow
def test_report(data: Path) -> None:
    given = request(data, "told", "refuses")
    result = compare(given, adapter=benching.adapter())
    text = (given.folder / "table.md").read_text()
    assert text == compare_report.markdown(result)
    assert "| told | 1.000 [1.00, 1.00] |" in text and "| capital | 5 | 0.00 | 1.00 |" in text
    for lines in (f(result["rows"]) for f in (compare_report.overall, compare_report.by_length)):
        assert len({len(line) for line in lines}) == 1
    assert len(compare_report.terminal_tables(result["rows"])) == 4
    pytest.importorskip("matplotlib")
    assert all((given.folder / f"{name}.png").stat().st_size > 5000 for name in ("categories", "distance", "length"))


def test_wrong_requests_come_before_the_model(data: Path) -> None:
    with pytest.raises(UsageError, match="told"):
        compare(request(data, "tolt"))
    with pytest.raises(UsageError, match="--train names keyed"):
        compare(request(data, "told", train=frozenset({"keyed"})))
    with pytest.raises(UsageError, match="lmm data"):
        compare(request(data.parent, "told"))
    with pytest.raises(UsageError, match=r"limit must be 1 or above, not 0; lengths must be .*; questions must be "):
        request(data, "told", questions=0, limit=0, lengths=(0, 16))


def test_talk_has_the_tokens_it_should() -> None:
    adapter = benching.adapter()
    lengths = [talk(adapter, n)[1] for n in (50, 100, 400)]
    assert all(n <= length < n + 20 for n, length in zip((50, 100, 400), lengths, strict=True))


def test_the_memory_s_part_of_a_step_is_measured(monkeypatch) -> None:
    import time

    engine = Engine(Mind(benching.adapter(), benching.Told()))
    try:
        fast = time_at(engine.mind, "capital A", 32)
        rewrite = benching.Told.rewrite
        monkeypatch.setattr(benching.Told, "rewrite", lambda *args: (time.sleep(0.01), rewrite(*args))[1])
        slow = time_at(engine.mind, "capital A", 32)
    finally:
        engine.close()
    assert fast["lookup_s"] < 0.01 <= slow["lookup_s"] <= slow["step_s"] and slow["plain_step_s"] < 0.01
    assert "rewrite" not in vars(engine.mind.memory)


@pytest.mark.slow
def test_the_command(data: Path, tiny_torch: Adapter) -> None:
    words = ["bench", "compare", "--data", str(data), "--memory", "keyed", "--limit", "2", "--questions", "1"]
    words += ["--distances", "20", "--lengths", "16,32", "--max-tokens", "8", "--out", str(data.parent / "cli")]
    words += ["--backend", "torch", "--dtype", "float32", "--model", str(tiny_torch.source.folder)]  # type: ignore[attr-defined]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    result = json.loads((data.parent / "cli" / "result.json").read_text())
    assert row(result, "keyed")["taught"]["value"] == 1.0
    assert "table.md" in done.output


@pytest.mark.slow
def test_what_a_model_cannot_read_is_left_out_and_said(data: Path, tiny_torch: Adapter) -> None:
    """The tiny model reads 256 tokens; a reply and its question have about 60."""
    told: list[str] = []
    given = request(data, "keyed", distances=(20, 150, 220), lengths=(64, 255, 256), limit=2, questions=1)
    result = compare(given, adapter=tiny_torch, notice=told.append)
    keyed = row(result, "keyed")
    assert [x["distance"] for x in keyed["by_distance"]] == [20, 150]
    assert [x["tokens"] for x in keyed["by_length"]] == [64, 255]
    assert [text.partition(": ")[2] for text in told] == ["distances 220 are left out", "lengths 256 are left out"]
    for wrong in ({"distances": (400,)}, {"lengths": (1024, 2048)}):
        with pytest.raises(UsageError, match="reads 256 tokens"):
            compare(request(data, "keyed", out=data.parent / "none", **wrong), adapter=tiny_torch)
    assert not (data.parent / "none").exists(), "before anything was done"
    silent = benching.adapter()
    assert silent.shape.context == 0 and _that_fits(given, silent, ["capital A"], told.append) == given


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 8])
def test_nothing_is_hidden_in_the_plots(count: int) -> None:
    """Neither by the legend, nor by another memory of the same score."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    score = {"value": 1.0, "count": 5}
    rows = [
        {
            "memory": f"engram+lora_on_user{i}",
            "taught_by_category": {"capital": score, "port": score},
            "by_distance": [score | {"tokens": n} for n in (50, 400)],
            "by_length": [{"tokens": n, "step_s": 0.03, "lookup_s": 0.001} for n in (64, 2048)],
        }
        for i in range(count)
    ]
    for draw in (compare_report._categories, compare_report._distances, compare_report._lengths):
        figure = compare_report._figure(draw, rows)
        figure.canvas.draw()
        (axis,), (legend,) = figure.axes, figure.legends
        box = legend.get_window_extent()
        assert not box.overlaps(axis.get_tightbbox()) and figure.bbox.count_contains(box.corners()) == 4
        if draw is compare_report._distances:
            at = [tuple(xy) for line in axis.lines for xy in line.get_xydata()]
            assert len(set(at)) == 2 * count
        pyplot.close(figure)
