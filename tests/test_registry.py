"""Names of memories and backends: lazy, with a hint for every mistake."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lmm import registry
from lmm.adapters import llama_cpp_api
from lmm.adapters.models import source
from lmm.adapters.models.source import ModelSource
from lmm.adapters.toy import ToyAdapter
from lmm.config import Config
from lmm.engine import runtime
from lmm.errors import BackendError, LmmError, ModelError, UnknownNameError, UsageError
from lmm.memory.base import Memory


@pytest.fixture(autouse=True)
def unremembered():
    registry.table.cache_clear()
    yield
    registry.table.cache_clear()


def plugin(monkeypatch: pytest.MonkeyPatch, **points: str) -> None:
    found = [SimpleNamespace(name=name, value=value) for name, value in points.items()]
    monkeypatch.setattr(registry, "entry_points", lambda group: found if group == "lmm.memories" else [])


@pytest.mark.parametrize("name", registry.MEMORIES)
def test_every_memory_is_where_the_table_says(name: str) -> None:
    kind = registry.memory_class(name)
    assert issubclass(kind, Memory) and kind.name == name


@pytest.mark.parametrize("name", registry.ADAPTERS)
def test_every_backend_is_where_the_table_says(name: str) -> None:
    module, _, attribute = registry.ADAPTERS[name].partition(":")
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    with open(spec.origin, encoding="utf-8") as source:
        assert f"class {attribute}(" in source.read()
    assert name in registry.NEEDS


def test_another_package_adds_a_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin(monkeypatch, mine="lmm.memory.identity:Identity")
    assert registry.memory_class("mine").name == "identity"
    assert list(registry.MEMORIES) == [n for n in registry.table("lmm.memories") if n != "mine"]


def test_a_name_taken_twice_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin(monkeypatch, identity="other.package:Identity")
    with pytest.raises(LmmError, match=r"two packages define 'identity'.*other\.package:Identity"):
        registry.table("lmm.memories")


def test_an_unknown_name_gets_the_nearest_and_all() -> None:
    with pytest.raises(UnknownNameError, match="unknown memory 'identitty': did you mean 'identity'") as caught:
        registry.memory_class("identitty")
    assert caught.value.exit_code == 2 and all(name in str(caught.value) for name in registry.MEMORIES)
    with pytest.raises(UnknownNameError, match="unknown backend 'troch': did you mean 'torch'"):
        registry.pick_backend("troch")
    with pytest.raises(UnknownNameError) as caught:
        registry.pick_backend("xyzzy")
    assert "did you mean" not in str(caught.value) and "auto" in str(caught.value)


def test_a_backend_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    here: set[str] = set()
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda name: name in here or None)
    with pytest.raises(BackendError, match=r"no backend is installed; run: pip install 'lmm\[torch\]'"):
        registry.pick_backend("auto")
    with pytest.raises(BackendError, match=r"'mlx_lm' is not installed; run: pip install 'lmm\[mlx\]'"):
        registry.pick_backend("mlx_lm")
    here |= {"torch", "mlx_lm"}
    monkeypatch.setattr(registry, "_apple", lambda: False)
    assert registry.pick_backend("auto") == "torch"
    monkeypatch.setattr(registry, "_apple", lambda: True)
    assert registry.pick_backend("auto") == "mlx_lm"
    here.remove("mlx_lm")
    assert registry.pick_backend("auto") == "torch"


def test_a_chat_over_a_gguf_file_is_llama_cpps_where_it_is_the_faster_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def chosen(**config: Any) -> str:
        return runtime.backend_of(Config(**config))

    monkeypatch.setattr(runtime, "has_llama", lambda: True)
    monkeypatch.setattr(registry, "installed_backends", lambda: ["torch", "llama_cpp"])
    (tmp_path / "plain").mkdir()
    names = [Config.model, "gemma-3-270m", "ollama:llama3.2", "hf.co/owner/name:Q4_K_M", "some/where.gguf"]
    assert {chosen(model=name) for name in names} == {"llama_cpp"}
    assert {chosen(model=name) for name in ("owner/name", str(tmp_path / "plain"))} == {"torch"}
    for other in ({"backend": "torch"}, {"dtype": "float32"}, {"adapter": "a"}, {"layers_path": "x"}):
        assert chosen(**other) == "torch"
    monkeypatch.setattr(runtime, "has_llama", lambda: False)
    assert chosen() == "torch"


def test_an_mlx_folder_is_mlx_lms_and_another_llama_cpp_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text('{"quantization": {"bits": 4, "group_size": 64}}')
    monkeypatch.setattr(registry, "installed_backends", lambda: ["torch", "mlx_lm"])
    assert runtime.backend_of(Config(model=str(tmp_path))) == "mlx_lm"
    assert runtime.backend_of(Config(model=str(tmp_path), backend="torch")) == "torch"
    monkeypatch.setattr(registry, "installed_backends", lambda: ["torch"])
    assert runtime.backend_of(Config(model=str(tmp_path))) == "torch"
    monkeypatch.setattr(llama_cpp_api, "VERSION", "1.0")
    assert not runtime.has_llama() and runtime.backend_of(Config()) == "torch"


def test_what_llama_cpp_cannot_load_is_another_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    tried, told = list[str](), list[str]()

    def load(backend: str, *given: Any, **options: Any) -> ToyAdapter:
        tried.append(backend)
        if backend == "llama_cpp":
            raise ModelError("llama.cpp cannot load it")
        return ToyAdapter()

    monkeypatch.setattr(runtime, "has_llama", lambda: True)
    monkeypatch.setattr(registry, "installed_backends", lambda: ["torch", "llama_cpp"])
    monkeypatch.setattr(registry, "load_adapter", load)
    monkeypatch.setattr(source, "resolve", lambda name, **given: ModelSource(name, Path(), name, None))
    runtime.open_mind(Config(memory="identity", log=False), notice=told.append).close()
    assert tried == ["llama_cpp", "torch"] and told == ["torch runs it instead: llama.cpp cannot load it"]
    with pytest.raises(ModelError):
        runtime.open_mind(Config(memory="identity", log=False, backend="llama_cpp"))


def test_what_no_backend_can_load_is_said_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = list[str]()
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(64))
    monkeypatch.setattr(runtime, "has_llama", lambda: True)
    with pytest.raises(ModelError, match=r"x\.gguf"):
        runtime.open_mind(Config(model=str(tmp_path / "x.gguf"), memory="identity", log=False), notice=told.append)
    assert not told


def test_a_memory_is_built_from_preset_and_options() -> None:
    both = runtime.build_memory(Config(memory="identity+lora_on_user", preset="gentle"))
    assert both.options_dict()["lora_on_user.gate"] > 0
    with pytest.raises(UsageError, match="no part of identity\\+keyed has a preset 'gentle'"):
        runtime.build_memory(Config(memory="identity+keyed", preset="gentle"))
    made = runtime.build_memory(Config(memory="lora_on_user", options={"rank": 3}))
    assert made.options.rank == 3
    with pytest.raises(UsageError, match="no preset 'gentel'"):
        runtime.build_memory(Config(memory="lora_on_user", preset="gentel"))
    with pytest.raises(UsageError, match="no preset"):
        runtime.build_memory(Config(memory="identity", preset="gentle"))
    for name in registry.MEMORIES:
        for preset, values in registry.memory_class(name).presets.items():
            built = runtime.build_memory(Config(memory=name, preset=preset))
            assert all(getattr(built.options, key) == value for key, value in values.items())


def test_a_configuration_is_checked_before_anything_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "load_adapter", None)
    runtime.check(Config())
    for wrong in ({"backend": "troch"}, {"memory": "loar_on_user"}, {"top_p": 3.0}, {"decoding_strategy": "best"}):
        with pytest.raises(UsageError):
            runtime.check(Config(**wrong))
    with pytest.raises(UsageError, match=r"unknown memory 'loar'.*; unknown backend 'troch'"):
        runtime.check(Config(memory="loar", backend="troch"))


def test_megabytes_of_the_log_are_millions_of_bytes(tmp_path: Path) -> None:
    log = runtime.open_log(Config(activation_log_path=str(tmp_path / "log.jsonl"), log_mb=2))
    assert log is not None and log.most_bytes == 2_000_000


def test_a_name_is_a_folder_where_it_can_be_one() -> None:
    from lmm.files.standing import folder_of

    assert [folder_of(name) for name in ("ann", "a.b", "an.n")] == ["ann", "a.b", "an.n"]
    assert all(folder_of(name).startswith("user-") for name in ("Ann", "ann.", "user-1", "a/b", ""))
