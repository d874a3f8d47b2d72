"""The encoder `lam`: linear attention on every backend, alone and in company, at any length; and its training."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from lmm.adapters.ops import Ops
from lmm.cli.app import app
from lmm.encoders import lam as module
from lmm.encoders import load_encoder
from lmm.encoders.lam import FEATURES, MAX_LENGTH, PAGE, WEIGHTS, Lam, Pages, long_mean, new_maps, parts, run_layer
from lmm.encoders.minilm import LAYERS, MATRICES, NUMPY, shared_encoder
from lmm.errors import ModelError, UsageError

TEXTS = ["A cat sits on the mat.", "", "Zdeněk was in Kraków, 東京; key_17.", "word " * 300, "One. Two! " * 60]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of no use, and no different in form: maps untrained, changes to all matrices at random."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(1)
    changes = new_maps(1)
    for name, value in list(changes.items()):
        changes[name] = value + rng.normal(0, 0.1, value.shape)
    for layer in range(LAYERS):
        for matrix in MATRICES:
            name = f"encoder.layer.{layer}.{matrix}"
            rows, columns = shared_encoder().weights[f"{name}.weight"].shape
            changes[f"{name}.lora_a"] = rng.normal(size=(rows, 2)) / 20
            changes[f"{name}.lora_b"] = rng.normal(size=(2, columns)) / 20
    path = tmp_path_factory.mktemp("lam") / "lam.safetensors"
    save_file({name: value.astype(np.float16) for name, value in changes.items()}, path)
    return path


@pytest.fixture(scope="module")
def encoder(path: Path) -> Lam:
    return Lam(path)


def attention_by_pairs(weights, x: np.ndarray, lengths: list[int]) -> np.ndarray:
    """Layer 0's heads over pages of one text, as the sum over all pairs of tokens that the equations are."""
    at, out = "encoder.layer.0.attention.self", np.zeros((12, len(x), 32))
    q, k, v = (
        (x @ weights[f"{at}.{n}.weight"] + weights[f"{at}.{n}.bias"]).reshape(len(x), 12, 32).transpose(1, 0, 2)
        for n in ("query", "key", "value")
    )
    page = np.repeat(np.arange(len(lengths)), lengths)
    share = PAGE / max(len(x), PAGE)
    for h in range(12):
        a, b = (
            np.exp(np.clip(y[h] @ weights[f"{at}.{n}"][h] + weights[f"{at}.{n}_bias"][h], -15, 15))
            for n, y in (("query_map", q), ("key_map", k))
        )
        near = np.exp(q[h] @ weights[f"{at}.local"][h] + weights[f"{at}.local_bias"][h])
        w = a @ b.T * np.where(page[:, None] == page[None, :], 1, share)
        for i in range(len(x)):
            for d in range(-3, 4):
                if 0 <= i + d < len(x) and page[i] == page[i + d]:
                    w[i, i + d] += near[i, d + 3]
        out[h] = (w / w.sum(1, keepdims=True)) @ v[h]
    return out


def test_a_layer_is_the_sum_over_pairs_that_the_equations_say(encoder: Lam) -> None:
    ids = encoder.ids("The cat sat on the mat, and the dog by the door. " * 24)
    pages = Pages(NUMPY, [ids[:PAGE], ids[PAGE:]])
    x = pages.embed(encoder.weights)
    total = module.Attention(encoder.weights, 0, x, pages).sums()
    found = module.Attention(encoder.weights, 0, x, pages).mixed(total, PAGE / len(ids))
    assert len(ids) > PAGE and FEATURES == 64
    assert np.abs(found - attention_by_pairs(encoder.weights, x, [PAGE, len(ids) - PAGE])).max() < 1e-5


@pytest.mark.slow
def test_a_text_gives_the_same_alone_and_in_any_company(encoder: Lam) -> None:
    together = encoder.encode(TEXTS)
    for batch_size in (1, 2):
        assert np.abs(encoder.encode(TEXTS[::-1], batch_size=batch_size)[::-1] - together).max() < 1e-5
    for row, text in zip(together, TEXTS, strict=True):
        assert np.abs(encoder.encode(text) - row).max() < 1e-5
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5) and encoder.encode([]).shape == (0, 384)


@pytest.mark.slow
def test_the_size_of_a_block_does_not_matter_nor_half_precision(encoder: Lam, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.random.default_rng(0).integers(1000, 20000, 5 * PAGE + 77).astype(np.int32)
    one = long_mean(NUMPY, encoder.weights, ids, block=8 * PAGE)
    assert np.abs(long_mean(NUMPY, encoder.weights, ids, block=PAGE) - one).max() < 1e-5
    monkeypatch.setattr(module, "HALF_FROM", 100)
    assert np.abs(long_mean(NUMPY, encoder.weights, ids) - one).max() < 1e-3


def test_pages_of_a_long_text_see_each_other(encoder: Lam) -> None:
    first, other = (np.random.default_rng(i).integers(1000, 20000, PAGE).astype(np.int32) for i in (0, 1))
    pages = Pages(NUMPY, [first, other])
    x = pages.embed(encoder.weights)
    alone = run_layer(encoder.weights, 0, x[:PAGE], Pages(NUMPY, [first]))
    rest = module.Attention(encoder.weights, 0, x, pages).sums()
    assert np.abs(run_layer(encoder.weights, 0, x, pages, rest, 0.5)[:PAGE] - alone).max() > 1e-3


@pytest.mark.slow
def test_long_texts_take_memory_for_one_array_of_states(encoder: Lam, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HALF_FROM", 100)
    monkeypatch.setattr(module, "LAYERS", 1)
    ids = np.random.default_rng(0).integers(1000, 20000, 24 * PAGE).astype(np.int32)
    peaks = []
    for length in (12 * PAGE, 24 * PAGE):
        tracemalloc.start()
        long_mean(NUMPY, encoder.weights, ids[:length], block=PAGE)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 12 * PAGE * 384 * 2 * 1.1


def test_a_long_text_is_read_in_parts_as_if_whole(encoder: Lam) -> None:
    text = "The naïve café's 東京 prices, $3.50 (or so)...\n\n\tWell " * 40
    whole = encoder.tokenizer.encode(text).ids
    assert encoder.ids(text).tolist() == whole and "".join(parts(text, 50)) == text
    cut = [i for part in parts(text, 50) for i in encoder.tokenizer.encode(part, add_special_tokens=False).ids]
    assert cut == whole[1:-1]
    assert encoder.ids(text, 10).tolist() == [*whole[:9], whole[-1]] and encoder.count_tokens("") == 2


def test_a_store_can_tell_vectors_of_other_weights(encoder: Lam, path: Path, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({name: value.astype(np.float16) for name, value in new_maps(2).items()}, tmp_path / "other.safetensors")
    assert Lam(tmp_path / "other.safetensors").name != encoder.name == Lam(path).name


def test_bad_input_is_named(encoder: Lam, tmp_path: Path) -> None:
    for length in (1, MAX_LENGTH + 1):
        with pytest.raises(UsageError, match="max_length must be from 2 to 1572864"):
            encoder.encode("text", max_length=length)
    with pytest.raises(UsageError, match="reads texts, not int"):
        encoder.encode([3])  # type: ignore[list-item]
    with pytest.raises(ModelError, match=r"scripts\.train_lam makes them"):
        Lam(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"not at all")
    with pytest.raises(ModelError, match="cannot read"):
        Lam(tmp_path / "bad.safetensors")


def test_the_weights_that_are_shipped_give_nearly_minilms_vectors() -> None:
    texts = [
        "The spare key is under the blue flower pot.",
        "Which food must I avoid?",
        "Shares of the company fell by 3 percent on Monday.",
        "My sister moved to Graz because she had found work there.",
    ]
    encoder = load_encoder("lam")
    agreement = (encoder.encode(texts) * load_encoder("minilm").encode(texts)).sum(axis=1)
    print(agreement)
    assert agreement.mean() > 0.88 and WEIGHTS.stat().st_size < 3e6


# ---- other backends, and others' libraries


@pytest.mark.slow
def test_every_backend_gives_the_same(ops: Ops, encoder: Lam, path: Path) -> None:
    found, texts = Lam(path, ops), [*TEXTS[:3], "The cat sat on the mat, and the dog by the door. " * 41]
    assert type(found.weights["embeddings.LayerNorm.bias"]) is type(ops.zeros((1,)))
    assert encoder.count_tokens(texts[-1]) > 2 * PAGE
    off = np.abs(found.encode(texts) - encoder.encode(texts))
    print(f"{ops.name}: max difference {off.max():.1e}, mean {off.mean():.1e}")
    assert off.max() < 1e-4
    assert np.abs(found.encode(texts[0]) - found.encode(texts[:3])[0]).max() < 1e-5


def torch_vectors(encoder: Lam, folder: Path) -> np.ndarray:
    torch = pytest.importorskip("torch")
    from lmm.encoders import lam_torch

    module.export(folder, encoder)
    model = lam_torch.LamModule.load(str(folder))
    with torch.no_grad():
        return model(model.tokenize(TEXTS))["sentence_embedding"].numpy()


@pytest.mark.slow
def test_torch_gives_the_same_with_padding(encoder: Lam, tmp_path: Path) -> None:
    assert np.abs(torch_vectors(encoder, tmp_path) - encoder.encode(TEXTS)).max() < 1e-4


@pytest.mark.slow
def test_sentence_transformers_loads_the_exported_folder(
    encoder: Lam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed (lmm[encoders])")
    from sentence_transformers import SentenceTransformer

    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    module.export(tmp_path / "lam", encoder)
    model = SentenceTransformer(str(tmp_path / "lam"), trust_remote_code=True)
    assert np.abs(model.encode(TEXTS) - encoder.encode(TEXTS)).max() < 1e-4
    model.save(str(tmp_path / "again"))
    again = load_encoder(str(tmp_path / "again"))
    assert np.abs(again.encode(TEXTS[:1]) - encoder.encode(TEXTS[:1])).max() < 1e-4


# ---- the command line, and the training


def test_vectors_on_the_shell(tmp_path: Path) -> None:
    def run(*args: str, input: str | None = None) -> str:
        return (
            CliRunner().invoke(app, ["encode", "--model", "minilm", *args], input=input, catch_exceptions=False).stdout
        )

    file, target = tmp_path / "text.txt", tmp_path / "vectors.npy"
    file.write_text(TEXTS[2])
    wanted = load_encoder("minilm").encode([TEXTS[0], TEXTS[2]])
    rows = [json.loads(line) for line in run(TEXTS[0], "--file", str(file)).splitlines()]
    assert np.abs(np.array(rows) - wanted).max() < 1e-5
    assert json.loads(run(input=f"\n{TEXTS[0]}\n")) == rows[0]
    run(TEXTS[0], "--file", str(file), "--out", str(target))
    assert np.array_equal(np.load(target), wanted)
    for wrong in (["--file", str(tmp_path / "none")], ["a", "--out", str(tmp_path / "none" / "x")], []):
        assert isinstance(CliRunner().invoke(app, ["encode", *wrong]).exception, UsageError)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder as the training reads it, with little in it."""
    pytest.importorskip("torch")
    from scripts import train_lam

    words = "red green small old cat dog boat man runs sleeps jumps sings here there today again"
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(words.split(), 9)) for _ in range(40)]
    (tmp_path / "sts").mkdir()
    (tmp_path / "text").mkdir()
    for name, at in (("train", 0), ("dev", 8)):
        rows = "".join(
            f"{a},{b},{i % 6}.0\n" for i, (a, b) in enumerate(zip(lines[at::2], lines[at + 1 :: 2], strict=True))
        )
        (tmp_path / "sts" / f"stsb-en-{name}.csv").write_text(rows)
    for name in train_lam.TEXTS:
        (tmp_path / "text" / f"{name}.txt").write_text("\n".join(f"{line} {name}" for line in lines))
    return tmp_path


@pytest.mark.slow
def test_training_goes_on_where_it_was_stopped_as_if_it_had_not_been(data: Path, tmp_path: Path) -> None:
    from scripts import train_lam

    shared = ["--data", str(data), "--others", "10", "--tokens", "64", "--layer-steps", "3", "--every", "2"]
    train_lam.main([*shared, "--out", str(tmp_path / "whole"), "--steps", "4"])
    for steps in ("1", "4"):
        train_lam.main([*shared, "--out", str(tmp_path / "parts"), "--steps", steps])
    one, two = (Lam(tmp_path / name / "lam.safetensors") for name in ("whole", "parts"))
    assert np.abs(one.encode(TEXTS) - two.encode(TEXTS)).max() < 1e-5
    history = [json.loads(line) for line in (tmp_path / "whole" / "history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in history] == [0, 2, 4]


def test_training_never_reads_a_sentence_of_the_dev_pairs(data: Path) -> None:
    from scripts.train_lam import sentences, sts_pairs

    read = sentences(data, 10, 0)
    dev = {text for a, b, _ in sts_pairs(data / "sts" / "stsb-en-dev.csv") for text in (a, b)}
    train = {text for a, b, _ in sts_pairs(data / "sts" / "stsb-en-train.csv") for text in (a, b)}
    assert dev & train and not dev & set(read) and train - dev <= set(read) and len(read) > len(train - dev)


@pytest.mark.slow
def test_the_first_stage_comes_nearer_to_softmax(data: Path) -> None:
    torch = pytest.importorskip("torch")
    from scripts.train_lam import Run, parser

    run = Run(parser().parse_args(["--data", str(data), "--out", str(data / "run"), "--tokens", "128"]))
    batch = run.student.paged(*run.batches.tensors(run.batches.epoch(0)[0]))
    losses = []
    for step in range(8):
        losses.append(sum(run.student.layer_losses(*batch)))
        run.update(losses[-1], list(run.student.maps), step + 1, 1e-2)
    assert losses[-1] < 0.8 * losses[0]
    with torch.no_grad():
        minilm = run.student.minilm(*batch)
    wanted = shared_encoder().encode([shared_encoder().tokenizer.decode(list(map(int, batch[0][0, 0])))])
    assert torch.allclose(minilm[0], torch.from_numpy(wanted[0]), atol=1e-4)
