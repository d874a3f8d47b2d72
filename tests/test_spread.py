"""Runs in parts: sweeps of `lmm train`, and both they and `lmm bench edit` on a Ray cluster, with equal results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import benching
import pytest
import tiny
from typer.testing import CliRunner

from lmm.bench.spread import spread
from lmm.cli.app import app
from lmm.errors import UsageError
from lmm.files import state_file

pytestmark = pytest.mark.slow
SCORES = ("memory", "edits", "reliability", "generalization", "reliability_contains", "intervals", "bytes_per_lesson")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch", reason="torch is not installed")
    return tiny.source(tmp_path_factory.mktemp("model")).folder


def lmm(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
    return done.stdout


def sweep(model: Path, folder: Path, *more: str) -> dict[str, Any]:
    """Train two combinations -> the tensors of each file."""
    folder.mkdir()
    pairs = [{"question": f"capital {c}", "answer": c * 2, "category": "x"} for c in "ABCD"]
    (folder / "train.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    words = ["train", "--model", model, "--memory", "lora_on_user", "--data", folder / "train.jsonl", "--epochs", 2]
    told = lmm(*words, "--out", folder / "m.safetensors", "--sweep", "lr=0.01,0.05", "--sweep", "rank=2", *more)
    found = {path.name: state_file.load(path)[0] for path in folder.glob("*.safetensors")}
    assert found.keys() == {"m.safetensors", "m-lr=0.01-rank=2.safetensors", "m-lr=0.05-rank=2.safetensors"}
    best = told.splitlines()[-1].rpartition(" ")[2]
    assert equal(found["m.safetensors"], found[best]) and "the best" in told
    return found


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)


def test_a_sweep_trains_each_combination_and_keeps_the_best(model: Path, tmp_path: Path) -> None:
    found = sweep(model, tmp_path / "here")
    assert not equal(found["m-lr=0.01-rank=2.safetensors"], found["m-lr=0.05-rank=2.safetensors"])


def test_without_ray_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'lmm\[ray\]'"):
        spread(str, [1], "local")
    assert spread(str, [1, 2]) == ["1", "2"]


def test_a_cluster_of_two_workers_finds_what_one_process_finds(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'lmm[ray]'")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # Ray's workers stand back behind all else that a machine does
    here, there = sweep(model, tmp_path / "here"), sweep(model, tmp_path / "there", "--ray", "local")
    assert all(equal(here[name], there[name]) for name in here)
    edits = [{"prompt": e.prompt, "answer": e.answer, "rephrases": e.rephrases} for e in benching.edits(4)]
    (tmp_path / "edits.json").write_text(json.dumps(edits))
    words = ["bench", "edit", "--model", model, "--data", tmp_path / "edits.json", "--memory", "keyed,none"]
    words += ["--edits", "4", "--skip", "speed"]
    rows = []
    for name, more in (("one", ()), ("two", ("--ray", "local"))):
        lmm(*words, "--out", tmp_path / name, *more)
        found = json.loads((tmp_path / name / "result.json").read_text())["rows"]
        rows.append([{score: row[score] for score in SCORES} for row in found])
    assert rows[0] == rows[1] and [row["memory"] for row in rows[0]] == ["keyed", "none"]
    with pytest.raises(UsageError, match="no Ray cluster"):
        spread(str, [1], "127.0.0.1:1")
