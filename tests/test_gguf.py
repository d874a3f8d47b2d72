"""GGUF files of all architectures that lmm converts: torch makes of the converted what llama.cpp makes of the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from conftest import need
from contracts import numbers
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from lmm import registry
from lmm.adapters.base import Adapter
from lmm.adapters.models import gguf_config, source
from lmm.adapters.models.gguf_file import Gguf
from lmm.adapters.models.gguf_import import AS, AS_GPT2, DIGITS_FIRST, build_tokenizer
from lmm.errors import ModelError
from scripts.check_models import PAGE, ggufs


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMM_CACHE_DIR", str(tmp_path / "cache"))


def made(
    folder: Path, family: str, metadata: dict[str, Any] | None = None, model: str | None = None, **options: Any
) -> Path:
    """A GGUF file of a model with random weights, alone in `folder`."""
    original = tiny.source(folder.with_name(f"{folder.name}-original"), model or tiny.FAMILIES[family]).folder
    folder.mkdir()
    for file in ("config.json", "model.safetensors"):
        (original / file).rename(folder / file)
    path = tiny.write_gguf(folder, family=family, metadata=metadata, **options)
    for file in ("config.json", "model.safetensors"):
        (folder / file).rename(original / file)
    return path


def logits(adapter: Adapter) -> np.ndarray:
    """Of more tokens than a window of 16 lets a layer see."""
    tokens = np.random.default_rng(0).integers(3, adapter.shape.vocab, (1, 60))
    return numbers(adapter, adapter.forward(tokens, adapter.new_cache(), keep=60)[0])


def loaded(path: Path, backend: str) -> Adapter:
    need(backend)
    return registry.load_adapter(backend, source.resolve(str(path)), dtype="float32")


def both(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """What llama.cpp makes of a GGUF file, and torch of what it was converted to."""
    return logits(loaded(path, "llama_cpp")), logits(loaded(path, "torch"))


def same(found: np.ndarray, expected: np.ndarray) -> None:
    assert expected.std() > 0.3
    np.testing.assert_allclose(found, expected, atol=5e-3 * expected.std())


MODELS = {model: family for family, model in tiny.FAMILIES.items()} | {"olmo3": "olmo2"}


@pytest.mark.parametrize("model", MODELS)
def test_what_was_converted_is_what_llama_cpp_runs_and_what_the_file_was_made_of(model: str, tmp_path: Path) -> None:
    path = made(tmp_path / "gguf", MODELS[model], model=model)
    theirs, ours = both(path)
    same(ours, theirs)
    same(ours, logits(loaded(tmp_path / "gguf-original", "torch")))


@pytest.mark.parametrize("model", MODELS)
def test_the_layers_that_learn_go_on_from_what_llama_cpp_reads(model: str, tmp_path: Path) -> None:
    adapter = loaded(made(tmp_path / "gguf", MODELS[model], model=model), "llama_cpp")
    tokens = np.random.default_rng(0).integers(3, adapter.shape.vocab, (1, 60))
    for first in (0, adapter.shape.layers - 1):
        same(numbers(adapter, adapter.upper(tokens, adapter.hidden(tokens, first), first)), logits(adapter))


def test_every_architecture_is_compared_with_llama_cpp_and_stands_in_the_docs() -> None:
    assert set(tiny.FAMILIES) == set(gguf_config.ARCHITECTURES)
    assert PAGE.read_text(encoding="utf-8").endswith(ggufs()), "python -m scripts.check_models writes it"


YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 16}


@pytest.mark.parametrize(
    ("family", "metadata"),
    [
        ("llama", YARN),
        ("llama", YARN | {"rope.scaling.attn_factor": 1.5}),
        ("llama", {"rope.scale_linear": 4.0}),
        ("llama", {"rope.scaling.factor": 4.0}),
        ("llama", {"rope.scaling.type": "none", "rope.scaling.factor": 4.0}),
        ("gemma3", {"final_logit_softcapping": 5.0}),
        ("olmo2", {"attention.sliding_window": 16, **YARN}),
        ("gemma3", {"attention.sliding_window_pattern": 2}),
        ("gemma3", {"attention.sliding_window_pattern": [True, False, False, True, True, False]}),
        ("gemma3", {"rope.freq_base_swa": 500.0, "rope.scaling.type": "linear", "rope.scaling.factor": 8.0}),
    ],
)
def test_what_llama_cpp_heeds_is_carried_over(family: str, metadata: dict[str, Any], tmp_path: Path) -> None:
    theirs, ours = both(made(tmp_path / "gguf", family, metadata))
    same(ours, theirs)
    plain, _ = both(made(tmp_path / "plain", family))
    unheeded = metadata.get("rope.scaling.type") == "none"
    assert (np.abs(theirs - plain).max() < 1e-3 * plain.std()) == unheeded


@pytest.mark.parametrize(
    ("family", "metadata", "named"),
    [
        ("llama", {"attention.clamp_kqv": 3.0}, r"llama\.attention\.clamp_kqv to 3"),
        ("llama", {"attention.causal": False}, r"llama\.attention\.causal to False"),
        ("llama", {"attention.head_count_kv": [2, 2, 1, 2]}, r"head_count_kv to a value for each layer"),
        ("llama", {"rope.scaling.attn_factor": 1.5}, r"rope\.scaling\.attn_factor to 1\.5"),
        ("llama", YARN | {"rope.scaling.yarn_ext_factor": 0.5}, "yarn_ext_factor"),
        ("llama", {"rope.scaling.type": "longrope"}, "scaling.type to longrope"),
        ("qwen2", {"attention.value_length": 4}, "value_length to 4"),
        ("qwen3", {"expert_count": 4}, "expert_count to 4"),
        ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping to 50"),
        ("phi3", {"of.tomorrow": "odd"}, r"phi3\.of\.tomorrow to odd"),
        ("llama", {"attention.sliding_window": 16}, "sliding_window to 16"),
        ("gemma3", {"rope.local.freq_base": 500.0}, r"rope\.local\.freq_base to 500"),
        ("gemma3", {"rope.freq_base": None, "rope.global.freq_base": 1e6}, r"rope\.global\.freq_base to 1000000"),
        ("gemma3", YARN | {"rope.scaling.beta_fast": 64.0}, "beta_fast to 64"),
        ("mistral3", {"rope.scaling.mscale_all_dim": 1.0}, "mscale_all_dim to 1"),
        ("mistral3", {"attention.temperature_length": 32}, "temperature_length to 32"),
        ("mistral3", {"attention.temperature_scale": None, "rope.scaling_beta": 0.1}, r"scaling_beta to 0\.1"),
    ],
)
def test_what_cannot_be_carried_over_is_refused_by_its_name(family, metadata, named: str, tmp_path: Path) -> None:
    path = made(tmp_path / "gguf", family, metadata)
    with pytest.raises(ModelError, match=rf"{named}.*--model FOLDER"):
        source.resolve(str(path))


@pytest.mark.parametrize("family", ["llama", "qwen3moe"])
def test_what_changes_nothing_passes(family: str, tmp_path: Path) -> None:
    metadata: dict[str, Any] = {
        "attention.causal": True, "attention.head_count_kv": [2] * 4, "expert_shared_count": 0,
        "pooling_type": 0, "rope.scaling.attn_factor": 1.0, "rope.scaling.finetuned": False,
        "tensor_data_layout": "Meta AI original pth", "attention.layer_norm_epsilon": 0.5, "expert_weights_norm": True,
        "expert_gating_func": 1,
    }  # fmt: skip
    theirs, ours = both(made(tmp_path / "gguf", family, metadata))
    same(ours, theirs)


PICTURES = {
    "mm.tokens_per_image": 256, "vision.attention.head_count": 16, "vision.attention.layer_norm_epsilon": 1e-6,
    "vision.block_count": 27, "vision.embedding_length": 1152, "vision.feed_forward_length": 4304,
    "vision.image_size": 896, "vision.num_channels": 3, "vision.patch_size": 14, "audio.block_count": 4,
}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "metadata"),
    [
        ("gemma3", PICTURES),  # Google's own files
        ("gemma3", {"rope.local.freq_base": 10000.0, "rope.scaling.extrapolation_factor": 1.0}),  # Ollama's
        ("gemma3", YARN | {"rope.scaling.beta_fast": 32.0, "rope.scaling.beta_slow": 1.0}),
        (
            "mistral3",
            PICTURES
            | {"image_token_index": 10, "spatial_merge_size": 2, "mm.projector_bias": True, "rope.scaling_beta": 0.1}
            | {"mm.projector_hidden_act": "gelu", "rope.scaling.beta_fast": 32.0, "rope.scaling.beta_slow": 1.0},
        ),
        ("mistral3", {"attention.temperature_length": 16}),
        ("llama", {"attention.head_dim": 8, "rope.scaling.yarn_beta_fast": 32.0, "attention.sliding_window": 256}),
        ("qwen3moe", {"norm_top_k_prob": True, "rope.mrope_section": [2, 1, 1], "rope.dimension_sections": [2, 1, 1]}),
    ],
)
def test_what_llama_cpp_passes_over_changes_nothing(family: str, metadata: dict[str, Any], tmp_path: Path) -> None:
    theirs, ours = both(made(tmp_path / "gguf", family, metadata))
    same(ours, theirs)
    known = {key: value for key, value in metadata.items() if key in YARN}
    plain, _ = both(made(tmp_path / "plain", family, known))
    same(theirs, plain)


def test_what_sees_in_the_same_file_is_left_out(tmp_path: Path) -> None:
    """As Ollama stores it; llama.cpp does not load such a file."""
    sees = {"v.blk.0.attn_q.weight": np.zeros((4, 4), np.float32), "mm.input_projection.weight": np.ones(4, np.float32)}
    path = made(tmp_path / "gguf", "gemma3", PICTURES, besides=sees)
    same(logits(loaded(path, "torch")), logits(loaded(tmp_path / "gguf-original", "torch")))
    with pytest.raises(ModelError, match=r"llama\.cpp cannot load .*wrong number of tensors.*--backend torch"):
        loaded(path, "llama_cpp")


def test_a_window_of_the_whole_context_is_none(tmp_path: Path) -> None:
    """As Phi 4's files say it."""
    theirs, ours = both(made(tmp_path / "gguf", "phi3", {"attention.sliding_window": 256}))
    same(ours, theirs)


def test_a_file_that_lacks_a_number_is_refused_as_llama_cpp_does(tmp_path: Path) -> None:
    path = made(tmp_path / "gguf", "llama", {"context_length": None})
    with pytest.raises(ModelError, match=r"does not say its llama\.context_length.*Hugging Face folder"):
        source.resolve(str(path))


@pytest.mark.parametrize("parts", [("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("mlp.up_proj",)])
def test_biases_of_some_parts_are_kept(parts: tuple[str, ...], tmp_path: Path) -> None:
    plain, _ = both(made(tmp_path / "plain", "llama"))
    theirs, ours = both(made(tmp_path / "gguf", "llama", biased=parts))
    same(ours, theirs)
    assert np.abs(theirs - plain).max() > 0.1 * plain.std()


def test_what_an_older_version_converted_is_converted_again(tmp_path: Path) -> None:
    path, said = made(tmp_path / "gguf", "llama"), list[str]()
    folder = source.resolve(str(path)).folder
    kept = json.loads((folder / source.MANIFEST).read_text())
    (folder / source.MANIFEST).write_text(json.dumps(kept | {"format": 1}))
    (folder / "config.json").touch()
    assert source.read_manifest(folder)["revision"] == kept["revision"], "it can still be used as a folder"
    source.resolve(str(path), progress=lambda done, total, text: said.append(text))
    assert any("an older lmm converted it" in text for text in said)
    assert source.read_manifest(folder) == kept


def test_a_model_in_pieces_is_found_by_any_of_them(tmp_path: Path) -> None:
    whole, _ = both(made(tmp_path / "whole", "llama"))
    first = made(tmp_path / "gguf", "llama", pieces=3)
    folder = first.parent
    assert first.name == "tiny-00001-of-00003.gguf" and len(list(folder.iterdir())) == 3
    for found in both(first):
        same(found, whole)
    names = [str(folder), *map(str, folder.iterdir())]
    assert len({source.resolve(name).folder for name in names}) == 1 and all(map(source.is_gguf, names))
    before = source.resolve(str(first))
    (folder / "tiny-00003-of-00003.gguf").touch()
    changed = source.resolve(str(folder))
    assert changed.folder != before.folder and changed.revision == before.revision
    for gone in ("tiny-00002-of-00003.gguf", "tiny-00001-of-00003.gguf"):
        (folder / gone).unlink()
        for name in (folder, folder / "tiny-00003-of-00003.gguf"):
            with pytest.raises(ModelError, match=rf"of its 3 pieces .*{gone}.* is missing"):
                source.resolve(str(name))


SPLIT = [
    "12.5%  100,000 x1y22z333",
    "  two  spaces\n\n\ttab and 1999's we'LL",
    "x**2 // 3\r\n",
    "Gü CamelCASE 日5 $.!?",
    "a/b\n/c",
]


@pytest.mark.slow
@pytest.mark.parametrize("split", [*AS_GPT2, *DIGITS_FIRST, *AS, "default", "", *GGUF_PRE_TOKENIZER_SPLITS])
def test_text_is_split_as_llama_cpp_splits_it(split: str, tmp_path: Path) -> None:
    """By a vocabulary that joins any two neighbours: where they stay apart, the text was split."""
    need("llama_cpp")
    from lmm.adapters.llama_cpp_context import Model

    path = joining(tmp_path / "tiny.gguf", split)
    theirs, ours = Model(path), build_tokenizer(Gguf(path))
    for text in SPLIT:
        assert ours.encode(text, add_special_tokens=False) == theirs.encode(text)


def test_a_splitting_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"splits text as 'viking'.*--model FOLDER"):
        build_tokenizer(Gguf(joining(tmp_path / "tiny.gguf", "viking")))


def joining(path: Path, split: str) -> Path:
    """A GGUF file of a vocabulary and of nothing that it could be used for."""
    from gguf import GGUFWriter
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    spelt = bytes_to_unicode()
    used = sorted({spelt[byte] for text in SPLIT for byte in text.encode()})
    tokens = ["<s>", "</s>", *spelt.values(), *(a + b for a in used for b in used)]
    shapes = {"token_embd": (len(tokens), 32), "output_norm": (32,)}
    layer = {"attn_norm": (32,), "ffn_norm": (32,)} | dict.fromkeys(
        ("attn_q", "attn_k", "attn_v", "attn_output"), (32, 32)
    )
    layer |= dict.fromkeys(("ffn_gate", "ffn_up", "ffn_down"), (32, 32))
    out = GGUFWriter(path, "llama")
    for key in ("context_length", "embedding_length", "feed_forward_length"):
        out.add_uint32(f"llama.{key}", 32)
    out.add_block_count(1)
    out.add_head_count(2)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_tokenizer_model("gpt2")
    if split:
        out.add_tokenizer_pre(split)
    out.add_token_list(tokens)
    out.add_token_types([3, 3] + [1] * (len(tokens) - 2))
    out.add_token_merges([f"{a} {b}" for a in used for b in used])
    for name, shape in (shapes | {f"blk.0.{name}": shape for name, shape in layer.items()}).items():
        out.add_tensor(f"{name}.weight", np.zeros(shape, np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path
