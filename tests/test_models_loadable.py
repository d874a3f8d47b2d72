"""Folders that hold code, or what a backend cannot load: none of it runs unasked, and each is one line."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from conftest import need
from typer.testing import CliRunner

from lmm import registry
from lmm.adapters.base import as_tokens
from lmm.adapters.models import loadable
from lmm.adapters.models.source import ModelSource, resolve
from lmm.cli.app import app
from lmm.errors import LmmError, ModelError

TORCH_CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
Path(__file__).parent.joinpath("ran").touch()
Path({ran!r}).touch()
class FancyConfig(LlamaConfig):
    model_type = "fancy"
class FancyForCausalLM(LlamaForCausalLM):
    config_class = FancyConfig
"""
MLX_CODE = """
from pathlib import Path
from mlx_lm.models.llama import Model, ModelArgs
Path({ran!r}).touch()
"""
BACKENDS = ("torch", "mlx_lm")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    need("torch")
    return tiny.source(tmp_path_factory.mktemp("plain"))


def changed(plain: ModelSource, folder: Path, **config: Any) -> ModelSource:
    """The same model with these keys in its config.json."""
    folder = Path(shutil.copytree(plain.folder, folder / "model"))
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(written | config))
    return replace(plain, folder=folder, name="given")


def with_code(backend: str, plain: ModelSource, folder: Path) -> tuple[ModelSource, Path]:
    """The model with code of its own, and the file that this code leaves when it runs."""
    ran = folder / "ran"
    if backend == "mlx_lm":
        source = changed(plain, folder, model_file="fancy.py")
        (source.folder / "fancy.py").write_text(MLX_CODE.format(ran=str(ran)))
        return source, ran
    table = {"AutoConfig": "fancy.FancyConfig", "AutoModelForCausalLM": "fancy.FancyForCausalLM"}
    source = changed(plain, folder, model_type="fancy", architectures=["FancyForCausalLM"], auto_map=table)
    (source.folder / "fancy.py").write_text(TORCH_CODE.format(ran=str(ran)))
    return source, ran


@pytest.mark.parametrize("backend", BACKENDS)
def test_code_of_a_folder_runs_only_when_that_was_said(backend: str, plain: ModelSource, tmp_path: Path) -> None:
    need(backend)
    source, ran = with_code(backend, plain, tmp_path)
    with pytest.raises(ModelError, match=r"\(fancy\.py\).*--trust-remote-code") as caught:
        registry.load_adapter(backend, source, dtype="float32")
    assert "\n" not in str(caught.value) and not ran.exists()
    adapter = registry.load_adapter(backend, replace(source, trusted=True), dtype="float32")
    assert ran.exists()
    logits, _ = adapter.forward(as_tokens(adapter.format.encode("abc")), adapter.new_cache())
    assert logits.shape[-1] == adapter.shape.vocab


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_command_line_neither_asks_nor_runs_it(backend: str, plain: ModelSource, tmp_path: Path) -> None:
    need(backend)
    source, ran = with_code(backend, plain, tmp_path)
    asked = ["ask", "--model", str(source.folder), "--backend", backend, "--dtype", "float32", "--fresh", "hello"]
    refused = CliRunner().invoke(app, asked, input="y\n")
    assert isinstance(refused.exception, ModelError) and refused.stdout == "" and not ran.exists()
    more = ["--trust-remote-code", "--max-tokens", "2"]
    done = CliRunner().invoke(app, [*asked, *more])
    assert done.exit_code == 0 and ran.exists()
    assert f"code that comes with {source.folder} may run now: fancy.py" in " ".join(done.stderr.split())


BROKEN = {
    "def x(:": "SyntaxError",
    "1/0": "ZeroDivisionError",
    "raise SystemExit('install fancy first')": "install",
    "class MODEL(MODEL): METHOD = lambda self, *args, **options: 1/0": "ZeroDivisionError",  # its own alone
}


@pytest.mark.parametrize("line", BROKEN)
@pytest.mark.parametrize("backend", BACKENDS)
def test_code_that_fails_is_one_line(backend: str, line: str, plain: ModelSource, tmp_path: Path) -> None:
    need(backend)
    source, _ = with_code(backend, plain, tmp_path)
    code = source.folder / "fancy.py"
    model, method = {"mlx_lm": ("Model", "__call__")}.get(backend, ("FancyForCausalLM", "forward"))
    code.write_text(f"{code.read_text()}\n{line.replace('MODEL', model).replace('METHOD', method)}\n")
    asked = ["ask", "--model", str(source.folder), "--backend", backend, "--dtype", "float32", "--fresh", "hello"]
    failed = CliRunner().invoke(app, [*asked, "--trust-remote-code"])
    assert isinstance(failed.exception, ModelError) and "\n" not in str(failed.exception)
    assert BROKEN[line] in str(failed.exception)


def test_a_type_that_mlx_does_not_know_is_refused_without_a_warning(plain: ModelSource, tmp_path: Path, caplog) -> None:
    need("mlx_lm")
    source, _ = with_code("torch", plain, tmp_path)
    transformers = logging.getLogger("transformers")
    transformers.addHandler(caplog.handler)
    try:
        assert "Model type fancy not supported" in refused("mlx_lm", source)
    finally:
        transformers.removeHandler(caplog.handler)
    assert not caplog.records


def test_a_tokenizer_brings_no_code_either(plain: ModelSource, tmp_path: Path) -> None:
    source, ran = changed(plain, tmp_path), tmp_path / "ran"
    path = source.folder / "tokenizer_config.json"
    table = {"AutoTokenizer": ["fancy_words.Fancy", None]}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "Fancy", "auto_map": table}))
    (source.folder / "fancy_words.py").write_text(f"from pathlib import Path\nPath({str(ran)!r}).touch()\n")
    with pytest.raises(ModelError, match=r"\(fancy_words\.py\).*--trust-remote-code"):
        registry.load_adapter("torch", source, dtype="float32")
    assert not ran.exists()


def test_what_would_run_is_named(tmp_path: Path) -> None:
    table = {"AutoConfig": "a.B", "AutoModel": "org/other--c.D", "AutoTokenizer": ["a.T", None]}
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": table, "model_file": "e"}))
    assert loadable.own_code(tmp_path) == ["a.py", "c.py of org/other", "e.py"]


def test_a_known_architecture_runs_without_the_code_beside_it(plain: ModelSource, tmp_path: Path) -> None:
    source = changed(plain, tmp_path, auto_map={"AutoModelForCausalLM": "gone.Gone"})
    assert registry.load_adapter("torch", source, dtype="float32").shape.layers == 4


@pytest.mark.parametrize("place", ["variable", "file"])
def test_no_setting_that_stays_can_trust_code(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if place == "variable":
        monkeypatch.setenv("LMM_TRUST_REMOTE_CODE", "1")
    else:
        (tmp_path / "c.toml").write_text("trust_remote_code = true\n")
        monkeypatch.setenv("LMM_CONFIG", str(tmp_path / "c.toml"))
    assert "can only be a flag" in str(CliRunner().invoke(app, ["ask", "hello"]).exception)
    assert "can only be a flag" in str(CliRunner().invoke(app, ["config", "set", "trust_remote_code", "1"]).exception)


# ---- what cannot run
def refused(backend: str, source: ModelSource) -> str:
    with pytest.raises(ModelError) as caught:
        registry.load_adapter(backend, source, dtype="float32")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("awq", {"bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}),
        ("gptq", {"bits": 4, "group_size": 32, "desc_act": False}),
        ("bitsandbytes", {"load_in_4bit": True}),
        ("compressed-tensors", {"format": "pack-quantized", "config_groups": {}}),
    ],
)
def test_a_quantisation_that_cannot_be_read_is_one_line(
    method: str, more: dict, plain: ModelSource, tmp_path: Path
) -> None:
    said = refused("torch", changed(plain, tmp_path, quantization_config={"quant_method": method} | more))
    assert f"is quantised by {method}" in said and "GGUF" in said
    assert ("--backend mlx_lm" in said) == (method in loadable.MLX_READS)


def test_a_folder_quantised_for_mlx_names_the_backend(plain: ModelSource, tmp_path: Path) -> None:
    assert "--backend mlx_lm" in refused("torch", changed(plain, tmp_path, quantization={"group_size": 64, "bits": 4}))


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_that_are_not_there_are_not_made_up(backend: str, plain: ModelSource, tmp_path: Path) -> None:
    """As where they are stored in a form that the loader does not know, under other names."""
    from safetensors.numpy import load_file, save_file

    need(backend)
    source = changed(plain, tmp_path, quantization_config={"quant_method": "unheard-of"})
    weights = load_file(source.folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, source.folder / "model.safetensors", metadata={"format": "pt"})
    assert "layers.1.mlp.up_proj.weight" in refused(backend, source)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architectures": ["BertForMaskedLM"], "model_type": "bert"}, "no language model that writes"),
        ({"architectures": ["Qwen3Model"]}, "no language model that writes"),
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "needs a decoder alone"),
        ({"model_type": "no-such-kind", "architectures": ["NoSuchForCausalLM"]}, "cannot load given"),
    ],
)
def test_what_writes_no_text_is_one_line(
    backend: str, config: dict, said: str, plain: ModelSource, tmp_path: Path
) -> None:
    need(backend)
    assert said in refused(backend, changed(plain, tmp_path, **config))


def test_an_adapter_names_its_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base"}))
    with pytest.raises(LmmError, match="adapter for org/base"):
        resolve(str(tmp_path))
