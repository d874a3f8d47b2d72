"""`--dtype int8`: one conversation's decode steps with int8 weights, all else as ever."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lmm import registry  # noqa: E402
from lmm.adapters import torch_dtype, torch_int8, torch_lm  # noqa: E402
from lmm.adapters.models.source import ModelSource  # noqa: E402
from lmm.adapters.torch_lm import TorchAdapter  # noqa: E402
from lmm.errors import ModelError, UsageError  # noqa: E402
from scripts.check_models import make  # noqa: E402

SIZES = {"hidden_size": 64, "intermediate_size": 96, "vocab_size": 1024}
PROMPT = np.arange(5, 25)[None]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelSource:
    monkeypatch.setattr(torch_lm, "ranked_dtypes", lambda source, target: ["float32"])
    monkeypatch.setattr(torch_lm, "has_int8", lambda dtype: True)
    make("llama", tmp_path / "model", SIZES)
    return ModelSource("tiny", tmp_path / "model", "tiny", None)


def steps(adapter: TorchAdapter, rows: int = 1) -> np.ndarray:
    """Logits of some tokens after a prompt."""
    _, cache = adapter.forward(PROMPT.repeat(rows, 0), adapter.new_cache(rows))
    found = []
    for token in range(5, 15):
        logits, cache = adapter.forward(np.full((rows, 1), token), cache)
        found.append(adapter.ops.to_numpy(logits))
    return np.array(found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_product_is_that_of_the_weights_to_a_hundredth(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmm.adapters.torch_wide.BLOCK", 640)
    torch.manual_seed(0)
    x, weight = torch.randn(1, 1, 64).to(dtype), torch.randn(50, 64).to(dtype)
    weight[3] = 0
    small, scales = torch_int8.quantised(weight)
    found, exact = torch_int8.product(x, small, scales), x.float() @ weight.float().T
    assert small.dtype == torch.int8 and found.dtype == dtype and found.shape == exact.shape
    assert (found - exact).square().mean().sqrt() < 0.015 * exact.std()
    assert found[..., 3] == 0, "a row of zeros"


def test_one_conversation_is_decoded_in_int8_and_nothing_else(source: ModelSource) -> None:
    plain, adapter = TorchAdapter(source, dtype="float32"), TorchAdapter(source, dtype="int8")
    assert adapter.dtype == "int8" and adapter.model.dtype == torch.float32
    own, found = steps(plain), steps(adapter)
    assert not np.array_equal(own, found) and np.sqrt(np.mean((own - found) ** 2)) < 0.05 * own.std()
    np.testing.assert_array_equal(steps(plain, 2), steps(adapter, 2))
    first, h = (each.forward(PROMPT, each.new_cache())[0] for each in (plain, adapter))
    assert torch.equal(first, h), "a prompt"
    alone = [each.upper(PROMPT[:, :1], each.hidden(PROMPT[:, :1], 1), 1) for each in (plain, adapter)]
    assert torch.equal(*alone), "a lesson of one token"


def test_a_weight_that_the_kernel_would_read_beyond_keeps_its_own(source: ModelSource) -> None:
    odd, even = torch.nn.Linear(24, 8), torch.nn.Linear(64, 8)
    torch_int8.Int8([torch.nn.Sequential(odd, even)])
    assert "forward" in vars(even) and "forward" not in vars(odd)


def test_a_tap_at_a_projection_acts_in_int8(source: ModelSource) -> None:
    adapter = TorchAdapter(source, dtype="int8")
    before = steps(adapter)
    with adapter.tap(adapter.site(1, "mlp.down_proj"), lambda x_in, x_out, context: x_out * 0.5):
        assert not np.array_equal(before, steps(adapter))
    np.testing.assert_array_equal(before, steps(adapter))


def test_where_it_is_no_gain_or_no_good_one_line_names_the_way_out(
    source: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_lm, "ROUGH", 1e-6)
    with pytest.raises(ModelError, match=r"tiny .* standard deviations off in it; use --dtype auto, or .*llama_cpp"):
        TorchAdapter(source, dtype="int8")
    monkeypatch.setattr(torch_lm, "has_int8", lambda dtype: False)
    with pytest.raises(ModelError, match=r"no faster here \(cpu\) than in float32; use --dtype auto"):
        TorchAdapter(source, dtype="int8")


def test_other_backends_say_that_they_have_none(source: ModelSource) -> None:
    pytest.importorskip("mlx.core")
    with pytest.raises(UsageError, match="no weights in int8"):
        registry.load_adapter("mlx_lm", source, dtype="int8")


def test_whether_it_is_faster_is_measured_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LMM_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch_dtype, "_calm", lambda: True)
    assert torch_dtype.measure_int8("float16", width=32, wide=32, matrices=2) in (True, False)
    calls: list[str] = []
    monkeypatch.setattr(torch_dtype, "measure_int8", lambda dtype: not calls.append(dtype))
    assert torch_dtype.has_int8("float16") and torch_dtype.has_int8("float16") and calls == ["float16"]
