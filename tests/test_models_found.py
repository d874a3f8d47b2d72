"""Models found on a machine: each place as its program leaves it, built here of a few bytes."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lmm.adapters.models import found, gguf_import, ollama, source
from lmm.errors import ModelError, UnknownNameError
from lmm.files import standing

TEXT, U32, LIST = 8, 4, 9


@pytest.fixture(autouse=True)
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LMM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("LMM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(source, "PACKAGED", {})


def gguf(path: Path, architecture: str = "llama") -> Path:
    """The beginning of a GGUF file: a short list before the number that is wanted, and a long one that is cut off."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    entries = [
        text("general.architecture") + struct.pack("<I", TEXT) + text(architecture),
        text("general.languages") + struct.pack("<IIQ", LIST, TEXT, 2) + text("en") + text("de"),
        text("general.sizes") + struct.pack("<IIQII", LIST, U32, 2, 7, 8),
        text("general.file_type") + struct.pack("<II", U32, 15),
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", LIST, TEXT, 49152) + text("x"),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries)) + b"".join(entries))
    return path


def of_ollama(home: Path, name: str, digest: str = "sha256:ab", architecture: str = "llama") -> Path:
    models = home / ".ollama" / "models"
    manifest = models / "manifests" / name
    manifest.parent.mkdir(parents=True, exist_ok=True)
    layers = [{"mediaType": "application/vnd.ollama.image.model", "digest": digest, "size": 1}, {"mediaType": "x"}]
    manifest.write_text(json.dumps({"layers": layers}))
    return gguf(models / "blobs" / digest.replace(":", "-"), architecture)


def of_hub(cache: Path, name: str, kind: str = "LlamaForCausalLM") -> Path:
    repo = cache / ("models--" + name.replace("/", "--"))
    folder = repo / "snapshots" / "c0ffee"
    folder.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("c0ffee")
    config = {"model_type": "llama", "architectures": [kind], "torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    save_file({"x": np.zeros(1000, np.float32)}, folder / "model.safetensors")
    return folder


def test_each_place_is_found_with_format_and_size(tmp_path: Path):
    blob = of_ollama(tmp_path, "registry.ollama.ai/library/llama3.2/1b")
    of_hub(tmp_path / "hub", "owner/name")
    gguf(tmp_path / ".lmstudio/models/pub/repo/small-Q4_K_M.gguf", "qwen2")
    gguf(tmp_path / ".lmstudio/models/pub/repo/mmproj-small.gguf", "clip")
    gguf(tmp_path / ".lmstudio/models/pub/shouted/LOUD.GGUF")
    pieces = [gguf(tmp_path / f".lmstudio/models/pub/split/big-0000{i}-of-00003.gguf") for i in (1, 2, 3)]
    models = {model.name: model for model in found.models()}
    assert [(m.name, m.format, m.origin, m.problem) for m in models.values()] == [
        ("owner/name", "safetensors bfloat16", "Hugging Face", ""),
        ("ollama:llama3.2:1b", "GGUF Q4_K_M", "Ollama", ""),
        ("~/.lmstudio/models/pub/repo/small-Q4_K_M.gguf", "GGUF Q4_K_M", "LM Studio", ""),
        ("~/.lmstudio/models/pub/shouted/LOUD.GGUF", "GGUF Q4_K_M", "LM Studio", ""),
        ("~/.lmstudio/models/pub/split/big-00001-of-00003.gguf", "GGUF Q4_K_M", "LM Studio", ""),
    ]
    assert models["~/.lmstudio/models/pub/split/big-00001-of-00003.gguf"].size == 3 * pieces[0].stat().st_size
    assert models["ollama:llama3.2:1b"].size == blob.stat().st_size and 4000 < models["owner/name"].size < 5000


def test_what_cannot_be_used_says_why(tmp_path: Path):
    of_hub(tmp_path / "hub", "some/bert", "BertModel")
    (of_hub(tmp_path / "hub", "cut/off") / "model.safetensors").write_bytes(b"nonsense")
    of_ollama(tmp_path, "registry.ollama.ai/library/strange/latest", architecture="mamba")
    gguf(tmp_path / ".lmstudio/models/a/b/x-00001-of-00002.gguf")
    (tmp_path / ".lmstudio/models/a/b/y.gguf").write_text("<html>not found</html>")
    said = {model.name.rpartition("/")[2]: model.problem for model in found.models()}
    assert "no language model" in said["bert"] and "damaged" in said["off"]
    assert "architecture is mamba" in said["ollama:strange:latest"]
    assert "x-00002-of-00002.gguf is missing" in said["x-00001-of-00002.gguf"]
    assert "not a GGUF file" in said["y.gguf"]


def test_names_of_ollama(tmp_path: Path):
    with pytest.raises(ModelError, match="ollama pull"):
        ollama.file_of("ollama:llama3.2")
    blob = of_ollama(tmp_path, "registry.ollama.ai/library/llama3.2/latest")
    other = of_ollama(tmp_path, "registry.ollama.ai/me/mine/v1", "sha256:cd")
    (tmp_path / ".ollama/models/manifests/registry.ollama.ai/me/mine/broken").write_text("{")
    assert ollama.file_of("ollama:llama3.2") == ollama.file_of("ollama:llama3.2:latest") == blob
    assert ollama.file_of("ollama:me/mine:v1") == other
    for typed in ("library/llama3.2", "registry.ollama.ai/library/llama3.2", "LLAMA3.2"):
        assert ollama.found(f"ollama:{typed}") == ("ollama:llama3.2", blob)
    assert ollama.found("ollama:registry.ollama.ai/me/MINE:v1") == ("ollama:me/mine:v1", other)
    with pytest.raises(UnknownNameError, match=r"did you mean 'ollama:llama3\.2:latest'"):
        source.resolve("ollama:llama3.3:latest")


def test_a_model_of_ollama_goes_by_its_name_and_is_listed_as_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    blob = of_ollama(tmp_path, "registry.ollama.ai/library/llama3.2/1b")

    def convert(path: Path, work: Path, progress: object) -> None:
        assert path == blob
        save_file({"x": np.zeros(3, np.float32)}, work / "model.safetensors")

    monkeypatch.setattr(gguf_import, "convert_gguf", convert)
    assert source.resolve("ollama:llama3.2:1b").model_id == "llama3.2:1b"
    [model] = found.models()
    assert model.converted and model.name == "ollama:llama3.2:1b" and model.row[3] == "Ollama, converted"
    blob.unlink()
    (tmp_path / ".ollama/models/manifests/registry.ollama.ai/library/llama3.2/1b").unlink()
    [model] = found.models()  # the converted copy can still be used
    assert model.name.startswith("~/cache/models/sha256-ab-") and model.origin == "cache"


def test_of_two_names_of_one_file_each_stays_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def convert(path: Path, work: Path, progress: object) -> None:
        save_file({"x": np.zeros(3, np.float32)}, work / "model.safetensors")

    monkeypatch.setattr(gguf_import, "convert_gguf", convert)
    tiny, mine = (f"registry.ollama.ai/library/{name}/latest" for name in ("tiny", "mine"))
    blob = of_ollama(tmp_path, tiny)
    of_ollama(tmp_path, mine)
    first, second = source.resolve("ollama:tiny"), source.resolve("ollama:mine")
    assert first.folder == second.folder and source.gguf_of(second) == blob
    other = of_ollama(tmp_path, tiny, "sha256:cd")  # fetched anew
    assert source.gguf_of(source.resolve("ollama:mine")) == blob
    assert source.gguf_of(source.resolve("ollama:tiny")) == other
    (tmp_path / ".ollama/models/manifests" / tiny).unlink()
    assert source.gguf_of(source.resolve("ollama:mine")) == blob
    shouted = gguf(tmp_path / "MODEL.GGUF", "llama")
    assert source.gguf_of(source.resolve(str(shouted))) == shouted


def test_what_was_learned_with_a_model_is_said(tmp_path: Path):
    of_hub(tmp_path / "hub", "owner/name")
    [model] = found.models()
    assert model.memory == ""
    for file in standing_files("owner/name"):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"nonsense")
    assert model.memory == "keyed: not readable, notes (work): not readable"


def standing_files(model: str) -> list[Path]:
    from lmm.config import Config

    made = [Config(model=model, memory="keyed"), Config(model=model, profile="work", memory="notes")]
    return [file for config in made if (file := standing.file_of(config))]
