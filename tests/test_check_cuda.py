"""The check of a card: what it does is tried on the CPU, and without a card it says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import need


def test_without_a_card_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    need("torch")
    from scripts import check_cuda

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert check_cuda.main() == 3
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
