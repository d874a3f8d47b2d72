"""The memory and the backend that the documentation walks through: taken from its pages, installed, used."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import test_adapters
from safetensors.numpy import save_file
from typer.testing import CliRunner

from lmm import registry
from lmm.adapters.models.source import resolve
from lmm.cli.app import app

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.M | re.S)


def install(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's module, and the entry points of its pyproject.toml as an installed package has them."""
    project = tomllib.loads(blocks(page, "toml")[0])["project"]
    information = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
        for value in points.values():
            module = value.partition(":")[0]
            (folder / f"{module}.py").write_text(blocks(page, "python")[0], encoding="utf-8")
            monkeypatch.delitem(sys.modules, module, raising=False)
    (information / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(folder)
    registry.table.cache_clear()


def model_folder(folder: Path, rows: int = 260) -> Path:
    """A model for the backend of the page."""
    folder.mkdir()
    config = {"model_type": "bytes", "num_hidden_layers": 4, "hidden_size": 8}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    embedding = np.random.default_rng(1).normal(0, 6, (rows, 8)).astype(np.float32)
    save_file({"embedding": embedding}, folder / "model.safetensors")
    return folder


# ---------------------------------------------------------------- a backend
@pytest.fixture
def bytes_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    install("add-a-backend.md", tmp_path, monkeypatch)
    return model_folder(tmp_path / "model")


def test_the_backend_of_the_page_answers(bytes_model: Path):
    asked = ["ask", "--backend", "bytes", "--model", str(bytes_model), "--memory", "identity", "--json", "Hello?"]
    result = CliRunner().invoke(app, [*asked, "--max-tokens", "8"])
    assert result.exit_code == 0, result.output
    adapter = registry.load_adapter("bytes", resolve(str(bytes_model)))
    prompt = adapter.format.encode(adapter.format.render([{"role": "user", "content": "Hello?"}], reply=True))
    answer = json.loads(result.stdout)["answer"]
    assert answer and answer == adapter.format.decode(adapter.generate_native(prompt, 8))


@pytest.mark.parametrize(
    "check",
    [
        test_adapters.test_reading_in_chunks_is_reading_at_once,
        test_adapters.test_an_old_cache_stays_usable,
        test_adapters.test_halves_under_a_tap_make_the_whole_under_the_tap,
        test_adapters.test_identity_gives_the_tokens_of_the_backends_own_generate,
    ],
)
def test_the_backend_of_the_page_keeps_the_contract(check, bytes_model: Path):
    check(registry.load_adapter("bytes", resolve(str(bytes_model))))


def test_the_backend_of_the_page_refuses_another_embedding(tmp_path: Path, bytes_model: Path):
    wrong = model_folder(tmp_path / "wrong", rows=9)
    result = CliRunner().invoke(app, ["ask", "--backend", "bytes", "--model", str(wrong), "Hello?"])
    assert "the embedding is (9, 8), expected (260, 8)" in str(result.exception)
