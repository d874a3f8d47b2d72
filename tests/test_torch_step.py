"""The decode step against the model's own forward."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny

torch = pytest.importorskip("torch")

from lmm.adapters.base import Site  # noqa: E402
from lmm.adapters.torch_lm import TorchAdapter  # noqa: E402
from lmm.adapters.torch_step import step_of  # noqa: E402

KINDS = ("llama", "mistral", "qwen2")
SITES = [Site(0, "pre_attention"), Site(1, "mlp.down_proj"), Site(1), Site(3)]


@pytest.fixture(scope="module", params=KINDS)
def adapter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TorchAdapter:
    return TorchAdapter(tiny.source(tmp_path_factory.mktemp("tiny"), request.param), dtype="float32")


def decoded(adapter: TorchAdapter, stepped: bool) -> list[np.ndarray]:
    """Logits of three steps after a prompt, for a batch of two, under taps at every kind of site."""
    step, logits = adapter.step, []
    adapter.step = step if stepped else None
    rows = np.array([adapter.format.encode(text)[:8] for text in ("one two three", "any other one")])
    try:
        handles = [adapter.tap(site, lambda x_in, x_out, c: x_out * 0.9 + 0.01 * x_in.mean()) for site in SITES]
        for handle in handles:
            handle.__enter__()
        _, cache = adapter.forward(rows, adapter.new_cache(2))
        for token in (5, 9, 40):
            found, cache = adapter.forward(np.full((2, 1), token), cache)
            logits.append(adapter.ops.to_numpy(found))
        for handle in handles:
            handle.__exit__(None, None, None)
    finally:
        adapter.step = step
    return logits


def test_the_step_is_the_models_own_forward(adapter: TorchAdapter) -> None:
    assert adapter.step is not None
    for mine, own in zip(decoded(adapter, True), decoded(adapter, False), strict=True):
        np.testing.assert_allclose(mine, own, atol=2e-5)


def test_a_layer_that_computes_something_else_keeps_its_own_forward(adapter: TorchAdapter) -> None:
    """Same class name, another function: only the probe can tell."""
    probe = adapter.format.encode("The quick brown fox")
    act = adapter.layers[2].mlp.act_fn
    adapter.layers[2].mlp.act_fn = torch.nn.ReLU()
    try:
        assert step_of(adapter.model, probe) is None
    finally:
        adapter.layers[2].mlp.act_fn = act
    assert step_of(adapter.model, probe) is not None


@pytest.mark.parametrize("kind", ["gemma3_text", "qwen3", "phi3"])
def test_other_decoders_keep_their_own_forward(kind: str, tmp_path: Path) -> None:
    assert TorchAdapter(tiny.source(tmp_path, kind), dtype="float32").step is None


def test_what_stands_in_a_projections_place_acts_in_the_step_too(adapter: TorchAdapter) -> None:
    """A LoRA of another library wraps projections; a step that read their weights would pass it by."""
    plain = decoded(adapter, True)
    handle = adapter.layers[0].self_attn.v_proj.register_forward_hook(lambda module, args, out: out * 2)
    try:
        hooked = decoded(adapter, True)
        for mine, own in zip(hooked, decoded(adapter, False), strict=True):
            np.testing.assert_allclose(mine, own, atol=2e-5)
    finally:
        handle.remove()
    assert not np.allclose(hooked[-1], plain[-1])
