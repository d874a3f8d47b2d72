"""The memory and the backend that the documentation walks through: taken from its pages, installed, used."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

import contracts
import numpy as np
import pytest
import test_adapters
import test_memory_contract as contract
from safetensors.numpy import save_file
from typer.testing import CliRunner

from lmm import registry
from lmm.adapters.models.source import resolve
from lmm.adapters.toy import ToyAdapter
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


# ---------------------------------------------------------------- a memory
@pytest.fixture
def parrot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    install("add-a-memory.md", tmp_path, monkeypatch)
    monkeypatch.setitem(contracts.ROWS, "parrot", eval(blocks("add-a-memory.md", "python")[1], {"Row": contracts.Row}))
    return "parrot"


@pytest.mark.parametrize(
    "check",
    [
        contract.test_a_fresh_memory_changes_nothing,
        contract.test_a_detached_memory_leaves_the_model_bitwise_as_it_was,
        contract.test_learning_returns_a_new_state_and_leaves_the_old_one_alone,
        contract.test_undo_and_redo_are_exact,
        contract.test_a_cancelled_lesson_is_rolled_back,
        contract.test_chunked_prefill_is_single_prefill,
        contract.test_batched_replies_are_single_replies,
    ],
)
def test_the_memory_of_the_page_keeps_the_contract(check, parrot: str, toy: ToyAdapter):
    check(toy, parrot)


def test_the_memory_of_the_page_comes_back_from_its_file(parrot: str, toy: ToyAdapter, tmp_path: Path):
    contract.test_a_saved_memory_comes_back_the_same(toy, parrot, tmp_path)
    contracts.close_all()
    contract.test_a_file_that_does_not_fit_changes_nothing(toy, parrot, tmp_path)


def test_the_memory_of_the_page_says_what_it_is(parrot: str):
    contract.test_bad_options_are_named_all_at_once(parrot)
    contract.test_a_memory_says_what_it_is(parrot)
    assert parrot in CliRunner().invoke(app, ["memories"]).output


def test_the_memory_of_the_page_is_taught_and_asked(parrot: str, bytes_model: Path):
    """On the backend of the other page: both come by their entry points alone."""
    place = ["--backend", "bytes", "--model", str(bytes_model), "--memory", parrot, "--mm-path", "parrot.safetensors"]
    taught = CliRunner().invoke(app, ["teach", *place, "--json", "Code?", "7"])
    assert taught.exit_code == 0, taught.output
    lesson = json.loads(taught.stdout)["learned"][0]
    asked = json.loads(CliRunner().invoke(app, ["ask", *place, "--json", "code"]).stdout)
    assert asked["answer"] == lesson["answer"] and asked["fired"] == [{"lesson": lesson["id"], "strength": 1.0}]
    other = json.loads(CliRunner().invoke(app, ["ask", *place, "--json", "--max-tokens", "8", "Colour?"]).stdout)
    assert other["fired"] == [] and other["answer"] != lesson["answer"]


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
