"""A narrow model that computes in float32 from some rows on: the same products, sums at least as exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny

from lmm import registry

torch = pytest.importorskip("torch")

from lmm.adapters import torch_dtype, torch_wide  # noqa: E402


@pytest.fixture(params=["float16", "bfloat16"])
def dtype(request: pytest.FixtureRequest):
    return getattr(torch, request.param)


@pytest.mark.parametrize("block", [1, 70, 2**20])
def test_a_product_is_the_float32_one(dtype, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_wide, "BLOCK", block)
    torch.manual_seed(0)
    x, weight = torch.randn(2, 5, 24).to(dtype), torch.randn(50, 24).to(dtype)
    found = torch_wide.product(x, weight)
    assert found.dtype == dtype and torch.equal(found, (x.float() @ weight.float().T).to(dtype))


@pytest.mark.parametrize("block", [70, 2**20])
def test_its_gradient_is_the_float32_one(dtype, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_wide, "BLOCK", block)
    torch.manual_seed(0)
    layer = torch.nn.Linear(24, 50).to(dtype).requires_grad_(False)
    x, upstream = torch.randn(5, 24).to(dtype).requires_grad_(), torch.randn(5, 50).to(dtype)
    model = torch.nn.Sequential(layer)
    model.config = None
    torch_wide.widen(model, 4)
    model(x).backward(upstream)
    wanted = upstream.float() @ layer.weight.float()
    assert torch.allclose(x.grad.float(), wanted, atol=float(wanted.abs().max()) * torch.finfo(dtype).eps)


def test_few_rows_and_trained_weights_are_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(torch_wide, "product", lambda x, w: calls.append(len(x)) or torch.zeros(len(x), len(w)))
    model = torch.nn.Sequential(torch.nn.Linear(8, 8))
    model.config = None
    torch_wide.widen(model, 4)
    model(torch.ones(8, 8))
    assert not calls, "weights that learn went through a product without their gradient"
    model.requires_grad_(False)
    model(torch.ones(3, 8))
    assert not calls
    model(torch.ones(4, 8))
    assert calls == [4]


def test_a_model_reads_prompts_batches_and_parts_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against float32, which no width changes; and nearer to it than without."""
    source = tiny.source(tmp_path)
    prompt, rng = np.arange(40)[None] % 30, np.random.default_rng(0)
    several = rng.integers(0, 30, (3, 20))
    found = {}
    for name, rows in (("float32", 0), ("float16", 0), ("float16", 4)):
        monkeypatch.setattr("lmm.adapters.torch_lm.wide_from", lambda dtype, rows=rows: rows)
        adapter = registry.load_adapter("torch", source, dtype=name)
        first, cache = adapter.forward(prompt[:, :25], adapter.new_cache())
        rest, _ = adapter.forward(prompt[:, 25:], cache, keep=15)  # several tokens after a past: a mask
        batch, _ = adapter.forward(several, adapter.new_cache(3))
        parts = adapter.upper(prompt, adapter.hidden(prompt, 1), 1)
        found[name, rows] = [adapter.ops.to_numpy(x).astype(np.float32) for x in (first, rest, batch, parts)]
    exact = found["float32", 0]
    for narrow, wide, true in zip(found["float16", 0], found["float16", 4], exact, strict=True):
        assert not np.array_equal(wide, narrow), "nothing was computed wide"
        assert np.abs(wide - true).max() < 0.05 * true.std()
    errors = {
        rows: np.mean([np.abs(x - true).mean() for x, true in zip(found["float16", rows], exact, strict=True)])
        for rows in (0, 4)
    }
    assert errors[4] <= 1.1 * errors[0]


def test_the_rows_are_measured_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LMM_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch_dtype, "_calm", lambda: True)
    calls: list[str] = []
    monkeypatch.setattr(torch_dtype, "measure_wide", lambda dtype: calls.append(dtype) or 8)
    assert torch_dtype.wide_from("float16") == torch_dtype.wide_from("float16") == 8
    assert torch_dtype.wide_from("float32") == 0 and calls == ["float16"]


def test_a_measurement_gives_rows() -> None:
    assert torch_dtype.measure_wide("float16", width=16, wide=16, matrices=2, rounds=2) in (0, *torch_dtype.WIDE_ROWS)


@pytest.mark.parametrize("kind", ["float", "bool", "none"])
def test_attention_after_a_text_is_torchs_own(kind: str) -> None:
    """Two key heads for six query heads, three tokens after four; and of a batch of two."""
    torch.manual_seed(0)
    query, (key, value) = torch.randn(2, 6, 3, 8), torch.randn(2, 2, 2, 3 if kind == "none" else 7, 8)
    seen = torch.ones(3, 7, dtype=torch.bool).tril(4)[None, None]
    mask = {"bool": seen, "float": torch.zeros(1, 1, 3, 7).masked_fill(~seen, -1e9), "none": None}[kind]
    module = torch.nn.Module()
    module.num_key_value_groups = 3
    given = (module, query, key, value, mask)
    (found, _), (own, _) = (f(*given, scaling=0.3) for f in (torch_wide._attention, torch_wide.sdpa_attention_forward))
    torch.testing.assert_close(found, own)
