"""The number format that `--dtype auto` picks: clearly faster, finite, and the same the next time."""

from __future__ import annotations

import json
import weakref
from pathlib import Path

import pytest
import tiny
from conftest import need

from lmm import registry

SAFE = ["float16", "bfloat16", "float32"]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    need("torch")
    from lmm.adapters import torch_dtype

    monkeypatch.setenv("LMM_CACHE_DIR", str(tmp_path / "cache"))
    return torch_dtype


def times(half: float, brain: float, full: float = 1.0) -> dict[str, float]:
    return {"float16": half, "bfloat16": brain, "float32": full}


@pytest.mark.parametrize(
    ("measured", "safe", "expected"),
    [
        (times(0.4, 0.6), SAFE, ["float16", "bfloat16", "float32"]),
        (times(0.6, 0.4), SAFE, ["bfloat16", "float16", "float32"]),
        (times(0.4, 0.6), SAFE[1:], ["bfloat16", "float32"]),
        (times(0.95, 5.0), SAFE, ["float32"]),  # hardly faster is not worth the precision
        (times(9.0, 9.0), SAFE, ["float32"]),
    ],
)
def test_a_narrow_format_must_really_be_faster(module, measured, safe, expected) -> None:
    assert module.rank(measured, safe) == expected


def test_what_was_measured_is_remembered_and_damage_is_measured_anew(module, monkeypatch, tmp_path: Path) -> None:
    calls = []
    monkeypatch.setattr(module, "measure", lambda: calls.append(1) or times(0.4, 0.6))
    monkeypatch.setattr(module, "_calm", lambda: True)
    assert module._measured() == module._measured() == times(0.4, 0.6) and len(calls) == 1
    path = tmp_path / "cache" / "dtype.json"
    for damage in ("", "[]", "{", json.dumps({key: {"float16": -1} for key in json.loads(path.read_text())})):
        path.write_text(damage)
        calls.clear()
        assert module._measured() == times(0.4, 0.6) and calls
    path.unlink()
    monkeypatch.setattr(module, "_calm", lambda: False)
    module._measured()
    assert not path.exists(), "a busy machine's figures were kept"


def test_a_measurement_gives_a_time_for_each_format(module) -> None:
    found = module.measure(width=32, wide=64, matrices=2, rounds=2)
    assert set(found) == set(SAFE) and all(0 < t < 1 for t in found.values())


@pytest.mark.slow
def test_a_format_that_overflows_is_passed_over(module, monkeypatch, tmp_path: Path) -> None:
    source = tiny.source(tmp_path)
    monkeypatch.setattr(module, "_measured", lambda: times(0.4, 0.6))
    assert registry.load_adapter("torch", source, dtype="auto").dtype == "float16"
    import torch

    from lmm.adapters import torch_lm

    honest, made, alive = torch_lm._load, list[weakref.ref](), list[int]()

    def overflowing(source, dtype):
        alive.append(sum(each() is not None for each in made))
        model = honest(source, dtype)
        made.append(weakref.ref(model))
        if dtype == torch.float16:
            model.lm_head.weight.data.fill_(float("inf"))
        return model

    monkeypatch.setattr(torch_lm, "_load", overflowing)
    adapter = registry.load_adapter("torch", source, dtype="auto")
    assert adapter.dtype == "bfloat16" and alive == [0, 0], "two models were in memory at once"
    assert next(adapter.model.parameters()).dtype == torch.bfloat16  # type: ignore[attr-defined]


def test_gemma_is_never_tried_in_float16(module, monkeypatch, tmp_path: Path) -> None:
    import torch

    monkeypatch.setattr(module, "_measured", lambda: times(0.1, 0.6))
    source = tiny.source(tmp_path, "gemma3_text")
    assert module.ranked_dtypes(source, torch.device("cpu")) == ["bfloat16", "float32"]
