"""The decode step against the model's own forward."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lmm.adapters import torch_step  # noqa: E402
from lmm.adapters.base import Site  # noqa: E402
from lmm.adapters.models.source import ModelSource  # noqa: E402
from lmm.adapters.torch_lm import TorchAdapter  # noqa: E402
from lmm.adapters.torch_step import step_of  # noqa: E402
from scripts.check_models import make  # noqa: E402

WINDOW = {"sliding_window": 8}
KINDS = {
    "llama": {}, "qwen2": {}, "smollm3": {}, "olmo2": {}, "mistral": WINDOW, "gemma2": WINDOW, "gemma3_text": WINDOW,
    "qwen3": WINDOW | {"use_sliding_window": True, "max_window_layers": 2},
    "phi3": WINDOW | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
}  # fmt: skip
SITES = [Site(0, "pre_attention"), Site(1, "mlp.down_proj"), Site(1), Site(3)]
PROBE = "The quick brown fox"


def load(kind: str, folder: Path, dtype: str = "float32", **more: object) -> TorchAdapter:
    make(kind, folder, KINDS.get(kind, {}) | more)
    return TorchAdapter(ModelSource(kind, folder, kind, None), dtype=dtype)


@pytest.fixture(scope="module", params=KINDS)
def adapter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TorchAdapter:
    made = load(request.param, tmp_path_factory.mktemp("tiny"))
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in made.model.parameters():
            if parameter.dim() == 1:  # so that it matters which norm is where
                parameter.add_(torch.randn_like(parameter) * 0.3)
    made.step = step_of(made.model, made.format.encode(PROBE))
    return made


def decoded(adapter: TorchAdapter, stepped: bool) -> list[np.ndarray]:
    """Logits of steps past the window after a prompt, for a batch of two, under taps at every kind of site."""
    step, logits = adapter.step, []
    adapter.step = step if stepped else None
    rows = np.array([adapter.format.encode(text)[:8] for text in ("one two three", "any other one")])
    try:
        handles = [adapter.tap(site, lambda x_in, x_out, c: x_out * 0.9 + 0.01 * x_in.mean()) for site in SITES]
        for handle in handles:
            handle.__enter__()
        _, cache = adapter.forward(rows, adapter.new_cache(2))
        for token in range(5, 25):
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


def test_it_writes_what_the_models_own_generate_writes_past_the_window(adapter: TorchAdapter) -> None:
    tokens, written = adapter.format.encode("one two"), []
    logits, cache = adapter.forward(np.array([tokens]), adapter.new_cache())
    for _ in range(20):
        written.append(int(logits[0, -1].argmax()))
        logits, cache = adapter.forward(np.array([written[-1:]]), cache)
    own = adapter.model.generate(torch.as_tensor([tokens]), do_sample=False, max_new_tokens=20, eos_token_id=10**6)
    assert written == own[0, len(tokens) :].tolist()


def test_conversations_of_different_lengths_are_decoded_together(adapter: TorchAdapter) -> None:
    caches = [adapter.forward(np.array([tokens]), adapter.new_cache())[1] for tokens in ([5, 9, 40], [*range(5, 25)])]
    together, _ = adapter.forward_each([7, 8], caches)
    step, adapter.step = adapter.step, None
    try:
        alone = [adapter.forward(np.array([[token]]), cache)[0] for token, cache in zip((7, 8), caches, strict=True)]
    finally:
        adapter.step = step
    for mine, own in zip(together, alone, strict=True):
        np.testing.assert_allclose(mine, own, atol=2e-5)


def test_where_far_positions_turn_at_another_speed_the_step_turns_so_too(tmp_path: Path) -> None:
    """Phi's longrope: what a model was made for, and all beyond it."""
    longrope = {
        "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
        "original_max_position_embeddings": 14,
    }  # fmt: skip
    adapter = load("phi3", tmp_path, rope_parameters=longrope)
    assert adapter.step is not None
    for mine, own in zip(decoded(adapter, True), decoded(adapter, False), strict=True):
        np.testing.assert_allclose(mine, own, atol=2e-5)


def test_a_layer_that_computes_something_else_keeps_its_own_forward(adapter: TorchAdapter) -> None:
    """Same class name, another function: only the probe can tell."""
    probe, mlp = adapter.format.encode(PROBE), adapter.layers[2].mlp
    name = "act_fn" if hasattr(mlp, "act_fn") else "activation_fn"
    act = getattr(mlp, name)
    setattr(mlp, name, torch.nn.ReLU())
    try:
        assert step_of(adapter.model, probe) is None
    finally:
        setattr(mlp, name, act)
    assert step_of(adapter.model, probe) is not None


@pytest.mark.parametrize("kind", ["granite", "starcoder2", "gpt2", "qwen2_moe"])
def test_other_decoders_keep_their_own_forward(kind: str, tmp_path: Path) -> None:
    assert load(kind, tmp_path).step is None


def test_a_narrow_format_is_compared_with_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums that are rounded otherwise are as good as the model's own, and farther from them than some mistakes."""
    adapter = load("llama", tmp_path, "bfloat16")
    probe, attention = adapter.format.encode(PROBE), torch_step._attention

    def rounded(query, keys, values, scale, cap):  # each product and sum by itself
        scores = (query[..., None, :] * keys[:, :, None] * scale).sum(-1)
        return (scores.softmax(-1)[..., None] * values[:, :, None]).sum(-2)

    def wrong(query, keys, values, scale, cap):
        return attention(query, keys, values, scale * 1.05, cap)

    for mistaken, works in ((rounded, True), (wrong, False)):
        monkeypatch.setattr(torch_step, "_attention", mistaken)
        assert (step_of(adapter.model, probe) is not None) == works


def test_what_stands_in_a_projections_place_acts_in_the_step_too(adapter: TorchAdapter) -> None:
    """A LoRA of another library wraps projections; a step that read their weights would pass it by."""
    plain = decoded(adapter, True)
    attention = adapter.layers[0].self_attn
    projection = attention.qkv_proj if hasattr(attention, "qkv_proj") else attention.v_proj
    handle = projection.register_forward_hook(lambda module, args, out: out * 2)
    try:
        hooked = decoded(adapter, True)
        for mine, own in zip(hooked, decoded(adapter, False), strict=True):
            np.testing.assert_allclose(mine, own, atol=2e-5)
    finally:
        handle.remove()
    assert not np.allclose(hooked[-1], plain[-1])
