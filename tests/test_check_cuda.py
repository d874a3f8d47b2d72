"""The check of a card: what it does is tried on the CPU, and without a card it says so."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import need


def test_without_a_card_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    need("torch")
    from scripts import check_cuda

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert check_cuda.main([]) == 3
    said = json.loads(capsys.readouterr().out)
    assert said["cuda"] is False and "no NVIDIA card" in said["said"]


@pytest.mark.slow
def test_what_it_checks_holds_on_the_cpu_and_is_seen_where_it_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("torch")
    from scripts import check_cuda
    from scripts.check_models import make

    make("llama", tmp_path)
    found = check_cuda.parts(tmp_path, "llama")
    device = found.pop("device")
    assert device and set(found.values()) == {"ok"} and len(found) == 6
    monkeypatch.setattr("lmm.adapters.torch_lm.TorchAdapter.generate_native", lambda *given: [1, 2])
    assert check_cuda.parts(tmp_path, "llama")["identity is generate"] == "no"


def test_speed_is_told_beside_generate(tmp_path: Path) -> None:
    need("torch")
    from scripts import check_cuda
    from scripts.check_models import make

    make("llama", tmp_path)
    found = check_cuda.speed(tmp_path, tokens=12, dtype="float32")
    assert set(found["share"]) == {"identity", "keyed"} and min(found["share"].values()) > 0


def test_help_checks_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    need("torch")
    from scripts import check_cuda

    with pytest.raises(SystemExit) as ended:
        check_cuda.main(["--help"])
    assert ended.value.code == 0 and "NVIDIA card" in capsys.readouterr().out


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As where torch and transformers are, and no package that lmm needs besides."""
    need("torch")
    from lmm.encoders import minilm
    from lmm.memory.keyed import gate
    from lmm.memory.notes import gate as notes_gate

    caches = minilm.shared_encoder, gate.shared_gate, notes_gate.shared_gate  # all, or two encoders read what one did
    monkeypatch.setattr(minilm, "PACKAGE", "no_such_encoder")
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def test_what_needs_a_sentence_encoder_is_checked_without_its_package(bare: None, tmp_path: Path, monkeypatch) -> None:
    from scripts import check_cuda

    monkeypatch.setattr(check_cuda, "KINDS", ("llama",))
    monkeypatch.setattr(check_cuda, "BIG", {})
    monkeypatch.setattr(check_cuda, "TOKENS", 8)
    for variable in ("LMM_CACHE_DIR", "LMM_DATA_DIR", "LMM_CONFIG"):
        monkeypatch.setenv(variable, "")
    found = check_cuda.check(tmp_path)
    assert "no_such_encoder is not installed" in found["sentence encoder"]
    found["llama"].pop("device")
    assert set(found["llama"].values()) == {"ok"} and set(found["speed"]["share"]) == {"identity", "keyed"}


def test_whatever_breaks_it_prints_one_object_and_fails(
    bare: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from scripts import check_cuda

    def breaks(*given: object, **options: object) -> None:
        raise SystemExit("nothing works")

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", breaks)
    monkeypatch.setattr(check_cuda, "make", breaks)
    for variable in ("LMM_CACHE_DIR", "LMM_DATA_DIR", "LMM_CONFIG"):
        monkeypatch.setenv(variable, "")
    assert check_cuda.main([]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {found[name] for name in ("card", *check_cuda.KINDS, "speed")} == {"SystemExit: nothing works"}


def test_what_is_wrong_or_slow_is_not_right() -> None:
    need("torch")
    from scripts import check_cuda

    right: dict[str, Any] = {kind: {"device": "cuda", "attach": "ok"} for kind in check_cuda.KINDS}
    right["speed"] = {"share": {"identity": 1.1, "keyed": 0.98}}
    assert check_cuda.is_right(right)
    for change in (
        {"gpt2": {"attach": "no"}}, {"gpt2": "ModelError: no"}, {"speed": "ModelError: no"},
        {"speed": {"share": {"identity": 1.1}}}, {"speed": {"share": {"identity": 1.1, "keyed": 0.9}}},
    ):  # fmt: skip
        assert not check_cuda.is_right(right | change)
