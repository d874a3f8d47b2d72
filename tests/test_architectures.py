"""Real architectures with random weights: run in parts they are whole, and both backends compute the same.

`python -m scripts.check_models` checks all of them; these stand for the kinds there are.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import need

from lmm import registry
from lmm.adapters import mlx_config, selfcheck
from lmm.adapters.base import Adapter, as_tokens
from lmm.adapters.models.source import ModelSource
from lmm.config import Config
from lmm.engine import runtime
from lmm.engine.engine import Engine
from lmm.engine.mind import Mind
from lmm.errors import ModelError
from lmm.lesson import Lesson
from lmm.memory.identity import Identity
from lmm.memory.keyed.keyed import Keyed
from lmm.memory.memoir.memoir import Memoir
from scripts.check_models import make, some_logits

BOTH = ("llama+rope", "smollm3", "gpt_neox", "qwen2_moe", "qwen3_next", "lfm2", "granitemoehybrid", "gemma4_text")
TORCH = ("gpt2", "opt", "bloom", "mamba2", "qwen2_5_vl")
MLX = ("falcon_h1",)
CASES = [(kind, "torch") for kind in BOTH + TORCH] + [(kind, "mlx_lm") for kind in BOTH + MLX]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory):
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        need("torch")
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            make(kind, made[kind])
        return made[kind]

    return folder


def load(kind: str, backend: str, folders) -> Adapter:
    need(backend)
    return registry.load_adapter(backend, ModelSource(kind, folders(kind), kind, None), dtype="float32")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "backend"), CASES)
def test_it_runs_in_parts_and_as_its_backend_runs_it(kind: str, backend: str, folders) -> None:
    assert selfcheck.problem(load(kind, backend, folders)) == ""


@pytest.mark.slow
@pytest.mark.parametrize("kind", BOTH)
def test_backends_compute_the_same(kind: str, folders) -> None:
    torch, mlx = (some_logits(load(kind, backend, folders)) for backend in ("torch", "mlx_lm"))
    assert np.abs(torch - mlx).max() < 0.01 * torch.std()


# ---- layers with a state
@pytest.mark.parametrize("backend", ["torch", "mlx_lm"])
def test_a_cache_with_states_goes_back_to_where_it_was_marked(backend: str, folders) -> None:
    adapter = load("qwen3_next", backend, folders)
    tokens = as_tokens(adapter.format.encode(selfcheck.TEXT)[:40])
    assert adapter.recurrent
    cache = adapter.new_cache()
    for start in range(0, 40, 10):
        _, cache = adapter.forward(tokens[:, start : start + 10], cache)
    assert adapter.trim(cache, 40).length == 40
    cut = adapter.trim(cache, 25)
    assert cut.length == 20 and adapter.trim(cache, 3).length == 0 and adapter.trim(cut, 12).length == 10
    found, _ = adapter.forward(tokens[:, 20:], cut, keep=20)
    _, fresh = adapter.forward(tokens[:, :20], adapter.new_cache())
    expected, _ = adapter.forward(tokens[:, 20:], fresh, keep=20)
    assert not selfcheck.far(adapter.ops.to_numpy(found)[0], adapter.ops.to_numpy(expected)[0])


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "mlx_lm"])
def test_a_chat_with_states_reads_what_it_read_once(backend: str, folders) -> None:
    """The replies of a long chat are those of the same chat read anew, and no turn reads the whole again."""
    adapter = load("qwen3_next", backend, folders)
    engine = Engine(Mind(adapter, Identity()), decoding=replace(Config(), max_tokens=6))
    read = []
    for text in ("one", "two and more", "three", "four"):
        turn = engine.reply(text)
        read.append(turn.generated.prefill_tokens)
        prompt = engine.conversation.tokens[: len(turn.read)]
        assert turn.generated.tokens == adapter.generate_native(prompt, 6)
    assert max(read[1:]) < 60 < engine.cache.length
    engine.close()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "mlx_lm"])
def test_it_learns_above_a_state(backend: str, folders) -> None:
    adapter = load("lfm2", backend, folders)
    mind = Mind(adapter, Keyed())
    engine = Engine(mind)
    engine.reply("Hello!")
    mind.learn(Lesson(prompt="Who?", answer="Xy", statement="It is Xy."))
    assert engine.reply("Who?").text == "Xy"
    mind.close()


@pytest.mark.parametrize("backend", ["torch", "mlx_lm"])
def test_what_layers_share_is_found_again(backend: str, folders) -> None:
    """Also where the states below a site come from elsewhere than the pass before."""
    adapter = load("gemma4_text", backend, folders)
    assert adapter.shares
    tokens = as_tokens(adapter.format.encode(selfcheck.TEXT)[:40])
    whole, _ = adapter.forward(tokens, adapter.new_cache(), keep=40)
    h = adapter.hidden(tokens, 6)
    adapter.hidden(tokens[:, ::-1].copy(), 6)
    found = adapter.upper(tokens, h, 6)
    assert not selfcheck.far(adapter.ops.to_numpy(found)[0], adapter.ops.to_numpy(whole)[0])


# ---- the part that a memory rewrites
def test_a_model_without_a_down_projection_says_so_when_the_memory_is_chosen(folders) -> None:
    adapter = load("qwen2_moe", "torch", folders)
    with pytest.raises(ModelError, match="no single down-projection"):
        Mind(adapter, Memoir(Memoir.build_options({"k": 8})))


def test_rows_that_enter_a_projection_are_seen_as_a_batch(folders) -> None:
    """OPT flattens a batch before its MLP; GPT-2 keeps its matrices the other way round and names no width."""
    for kind in ("opt", "gpt2"):
        adapter = load(kind, "torch", folders)
        assert adapter.shape.mlp_width == 64
        tokens = np.stack([adapter.format.encode("one day"), adapter.format.encode("two men")])
        assert adapter.features(tokens, adapter.site(2, "mlp.down_proj")).shape == (2, tokens.shape[1], 64)


def test_a_model_of_several_streams_is_refused(folders) -> None:
    assert "one state of 32 a token" in selfcheck.problem(load("gemma3n_text", "torch", folders))


# ---- what an unknown architecture has to show
def test_a_model_that_does_not_run_right_is_refused_and_a_right_one_checked_once(
    folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMM_CACHE_DIR", str(tmp_path))
    config = Config(model=str(folders("opt")), backend="torch", dtype="float32", memory="identity")
    checks = []
    monkeypatch.setattr(selfcheck, "problem", lambda adapter: checks.append(1) or "it stammers")
    with pytest.raises(ModelError, match=r"\(opt\) does not run right on torch: it stammers; try --backend mlx_lm"):
        runtime.load_adapter(config)
    monkeypatch.setattr(selfcheck, "problem", lambda adapter: checks.append(1) or "")
    runtime.load_adapter(config)
    runtime.load_adapter(config)
    assert len(checks) == 2


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("trim", "a cache that was cut"),
        ("hidden", "do not make the whole"),
        ("refill", "a cache rebuilt"),
        ("forward", "read in parts"),
        ("generate_native", "does not write what transformers writes"),
    ],
)
def test_each_way_to_be_wrong_is_seen(broken: str, said: str, folders, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = load("opt", "torch", folders)
    right = getattr(adapter, broken)
    forward = adapter.forward

    def wrong(*args, **kwargs):
        if broken == "trim":
            return replace(args[0], tokens=args[0].tokens[:, : args[1]])
        if broken == "refill":
            return forward(args[0].tokens[:, ::-1].copy(), adapter.new_cache())[1]
        if broken == "forward":
            return right(args[0], adapter.new_cache(), **kwargs)
        return right(*args, **kwargs) * -1 if broken == "hidden" else [5, 6, 7]

    monkeypatch.setattr(adapter, broken, wrong)
    assert said in selfcheck.problem(adapter)


# ---- what mlx-lm reads of a config.json
def test_keys_of_old_are_derived_and_those_that_are_there_stay() -> None:
    rope = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "partial_rotary_factor": 0.5}
    found = mlx_config.older_keys({"model_type": "llama", "rope_parameters": rope, "hidden_size": 8})
    assert found["rope_theta"] == 5e5 and found["partial_rotary_factor"] == 0.5
    assert found["rope_scaling"] == {"rope_type": "llama3", "type": "llama3", "factor": 8.0}
    assert "rope_theta" not in mlx_config.older_keys({"rope_theta": 1.0, "rope_parameters": rope})
    two = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}
    kinds = ["sliding_attention", "sliding_attention", "full_attention"] * 2
    text = {"rope_parameters": two, "layer_types": kinds, "num_attention_heads": 2, "hidden_size": 32}
    nested = mlx_config.older_keys({"text_config": text})["text_config"]
    assert (nested["rope_theta"], nested["rope_local_base_freq"], nested["sliding_window_pattern"]) == (1e6, 1e4, 3)
    assert nested["head_dim"] == 16 and mlx_config.older_keys({}) == {}
    assert mlx_config.older_keys({"model_type": "gpt2", "n_embd": 8})["hidden_size"] == 8


def test_where_mlx_lm_leaves_a_window_out_no_more_is_read(folders) -> None:
    assert load("mistral", "mlx_lm", folders).shape.context == 16
    assert load("gemma3_text", "mlx_lm", folders).shape.context == 256
    assert load("mistral", "torch", folders).shape.context == 256


def test_what_mlx_lm_computes_otherwise_is_refused(folders) -> None:
    folder = folders("glm")
    assert json.loads((folder / "config.json").read_text())["model_type"] == "glm"
    with pytest.raises(ModelError, match="otherwise than transformers does; use --backend torch"):
        load("glm", "mlx_lm", folders)


ALTERNATING = ["sliding_attention", "full_attention"] * 2
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 64}


@pytest.mark.parametrize(
    ("kind", "more", "named"),
    [
        ("llama", {"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ("gemma3_text", {"final_logit_softcapping": 3.0}, "final_logit_softcapping = 3.0"),
        ("cohere2", {"layer_types": ALTERNATING[::-1]}, "layer_types = "),
        ("gemma2", {"rope_parameters": YARN | {"rope_type": "linear"}}, "rope_scaling = "),
        ("qwen3", {"rope_parameters": YARN | {"attention_factor": 1.5}}, "attention_factor = 1.5"),
    ],
)
def test_a_setting_that_mlx_lm_does_not_read_is_refused_by_its_name(
    kind: str, more: dict, named: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=f"{named}.* mlx-lm .* without that; use --backend torch"):
        made_on(tmp_path, kind, more, "mlx_lm")


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("gemma", {"hidden_act": "gelu"}),
        ("exaone4", {"layer_types": ALTERNATING}),
        ("gemma3_text", {"num_hidden_layers": 4, "layer_types": ["full_attention"] * 4}),
        ("qwen3", {"rope_parameters": YARN | {"attention_factor": 1.2079441541679836}}),
        ("llama", {"attention_dropout": 0.1, "initializer_range": 0.5, "rms_norm_eps": 0.1}),
    ],
)
def test_a_setting_that_mlx_lm_reads_or_that_changes_nothing_is_computed_as_torch_does(
    kind: str, more: dict, tmp_path: Path
) -> None:
    torch, mlx = (some_logits(made_on(tmp_path, kind, more, backend)) for backend in ("torch", "mlx_lm"))
    assert np.abs(torch - mlx).max() < 0.01 * torch.std()


def made_on(folder: Path, kind: str, more: dict, backend: str) -> Adapter:
    need("torch"), need(backend)
    make(kind, folder, more)
    return registry.load_adapter(backend, ModelSource(kind, folder, kind, None), dtype="float32")
