"""The encoder `lam`: linear attention on every backend, alone and in company, at any length; and its training."""

from __future__ import annotations

import copy
import json
import tracemalloc
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from typer.testing import CliRunner

from lmm.adapters.ops import Ops
from lmm.cli.app import app
from lmm.encoders import lam as module
from lmm.encoders import load_encoder
from lmm.encoders.lam import FEATURES, MAX_LENGTH, PAGE, WEIGHTS, Lam, Pages, long_mean, new_maps, parts, run_layer
from lmm.encoders.minilm import LAYERS, MATRICES, NUMPY, embed, merge_lora, run_layers, shared_encoder, unit_mean
from lmm.errors import ModelError, UsageError
from lmm.text.fold import words

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


def attention_by_pairs(path: Path, x: np.ndarray, lengths: list[int]) -> np.ndarray:
    """Layer 0's heads over pages of one text, as the sum over all pairs of tokens that the equations are."""
    from safetensors.numpy import load_file

    at, out, maps = "encoder.layer.0.attention.self", np.zeros((12, len(x), 32)), load_file(str(path))
    weights = {**merge_lora(shared_encoder().weights, maps), **maps}
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


def test_a_layer_is_the_sum_over_pairs_that_the_equations_say(path: Path, encoder: Lam) -> None:
    ids = encoder.ids("The cat sat on the mat, and the dog by the door. " * 24)
    pages = Pages(NUMPY, [ids[:PAGE], ids[PAGE:]])
    x = pages.embed(encoder.weights)
    total = module.Attention(encoder.weights, 0, x, pages).sums()
    found = module.Attention(encoder.weights, 0, x, pages).mixed(total, PAGE / len(ids))
    assert len(ids) > PAGE and FEATURES == 16
    assert np.abs(found - attention_by_pairs(path, x, [PAGE, len(ids) - PAGE])).max() < 1e-5


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


@pytest.mark.parametrize("length", [0, 1, -5, MAX_LENGTH + 1, 10.5, "9", True])
def test_a_length_that_is_none_is_named(encoder: Lam, length: object) -> None:
    with pytest.raises(UsageError, match=f"max_length must be a whole number from 2 to 1572864, not {length!r}"):
        encoder.encode("text", max_length=length)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 33, 63, 64, 65])
def test_pairs_of_a_short_page_are_the_sums_of_a_long_one(
    encoder: Lam, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    ids = [np.random.default_rng(i).integers(1000, 20000, size).astype(np.int32) for i in range(2)]
    found = []
    for most in (0, 64):
        monkeypatch.setattr(module, "PAIRS", most)
        found.append(module.short_means(NUMPY, encoder.weights, ids))
    assert np.abs(found[0] - found[1]).max() < 1e-5


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
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


@pytest.fixture(scope="module")
def stored(encoder: Lam) -> Lam:
    """The encoder with weights as an exported folder keeps them, in float16."""
    found = copy.copy(encoder)
    found.weights = {name: value.astype(np.float16).astype(np.float32) for name, value in encoder.weights.items()}
    assert (found.encode(TEXTS) * encoder.encode(TEXTS)).sum(axis=1).min() > 0.9999
    return found


@pytest.fixture(scope="module")
def folder(encoder: Lam, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported folder."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("exported") / "lam"
    module.export(folder, encoder)
    return folder


def units(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.mark.slow
def test_torch_gives_the_same_with_padding_on_any_side(stored: Lam, folder: Path) -> None:
    import torch

    from lmm.encoders.lam_torch import LamModule

    model, wanted = LamModule.load(str(folder)), stored.encode(TEXTS)
    features = model.tokenize(TEXTS)
    ids, mask = features["input_ids"], features["attention_mask"]
    lengths = mask.sum(1).tolist()
    rolled = torch.stack([torch.arange(len(row)).roll(len(row) - n) for row, n in zip(ids, lengths, strict=True)])
    left = {"input_ids": ids.gather(1, rolled), "attention_mask": mask.gather(1, rolled)}
    assert not left["attention_mask"][0, 0] and left["attention_mask"][:, -1].all()
    with torch.no_grad():
        right, left = model(features), model(left)
        short = model({"input_ids": ids[:1, : lengths[0]], "attention_mask": mask[:1, : lengths[0]]})
    for found in (right, left, short):
        rows = units(found["sentence_embedding"].numpy())
        assert np.abs(rows - wanted[: len(rows)]).max() < 1e-4
    assert torch.allclose(left["token_embeddings"][0, -lengths[0] :], short["token_embeddings"][0], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_torch_computes_with_weights_of_half_precision(stored: Lam, folder: Path, dtype: str) -> None:
    import torch

    from lmm.encoders.lam_torch import LamModule

    model = LamModule.load(str(folder)).to(getattr(torch, dtype))
    with torch.no_grad():
        rows = units(model(model.tokenize(TEXTS[:2]))["sentence_embedding"].float().numpy())
    agreement = (rows * stored.encode(TEXTS[:2])).sum(axis=1)
    print(agreement)
    assert agreement.min() > (0.9999 if dtype == "float16" else 0.99)
    assert next(model.to("meta").parameters()).device.type == "meta"  # sentence-transformers asks there


@pytest.fixture
def sentence_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The package, with a cache of its own."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    return pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed (lmm[encoders])")


@pytest.mark.slow
def test_sentence_transformers_loads_the_exported_folder(
    stored: Lam, folder: Path, tmp_path: Path, sentence_transformers: ModuleType
) -> None:
    model, wanted = sentence_transformers.SentenceTransformer(str(folder), trust_remote_code=True), stored.encode(TEXTS)
    assert np.abs(model.encode(TEXTS, normalize_embeddings=True) - wanted).max() < 1e-4
    loose = model.encode(TEXTS[:3])
    assert np.abs(loose - stored.encode(TEXTS[:3], normalize_embeddings=False)).max() < 1e-3
    assert abs(np.linalg.norm(loose[0]) - 1) > 1e-2 and model.similarity_fn_name == "cosine"
    tokens = model.encode(TEXTS[:2], output_value="token_embeddings")
    assert [len(rows) for rows in tokens] == [stored.count_tokens(text) for text in TEXTS[:2]]
    assert np.abs(tokens[0].numpy().mean(axis=0) - loose[0]).max() < 1e-4
    model.save(str(tmp_path / "again"))
    for at in (folder, tmp_path / "again"):
        assert (
            "Apache License" in (at / "LICENSE").read_text() and "license: apache-2.0" in (at / "README.md").read_text()
        )
        assert (at / "model.safetensors").stat().st_size < 45e6


@pytest.mark.slow
def test_an_exported_folder_is_an_encoder_of_lmm(stored: Lam, folder: Path, sentence_transformers: ModuleType) -> None:
    found = load_encoder(str(folder))
    assert np.abs(found.encode(TEXTS) - stored.encode(TEXTS)).max() < 1e-4
    assert [found.count_tokens(text) for text in TEXTS] == [stored.count_tokens(text) for text in TEXTS]
    short = (each.encode(TEXTS[3], max_length=9) for each in (found, stored))
    assert np.abs(next(short) - next(short)).max() < 1e-4
    assert np.abs(found.encode(TEXTS[3]) - stored.encode(TEXTS[3])).max() < 1e-4  # is not cut from then on
    assert found.count_tokens(TEXTS[3]) == stored.count_tokens(TEXTS[3])
    with pytest.raises(UsageError, match="max_length must be a whole number from 2 to 1572864"):
        found.encode("text", max_length=0)


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
    for wrong in (
        ["--file", str(tmp_path / "none")],
        ["a", "--out", str(file / "x")],
        ["a", "--max-length", "0"],
        [],
    ):
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


SMALL = ["--others", "10", "--tokens", "64", "--layer-steps", "3", "--every", "2"]


def trained(data: Path, out: Path, *options: str) -> None:
    from scripts import train_lam

    train_lam.main(["--data", str(data), "--out", str(out), *SMALL, *options])


def steps_told(out: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (out / "history.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_training_goes_on_where_it_was_stopped_as_if_it_had_not_been(data: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    trained(data, whole, "--steps", "4")
    for steps in ("1", "4"):
        trained(data, parts, "--steps", steps)
    one, two = (Lam(out / "lam.safetensors") for out in (whole, parts))
    assert np.abs(one.encode(TEXTS) - two.encode(TEXTS)).max() < 1e-5
    assert steps_told(whole) == steps_told(parts) == [0, 2, 4]


@pytest.mark.slow
@pytest.mark.parametrize("at", ["lam.safetensors", "run-3.safetensors", "run.json", "history.jsonl"])
def test_a_crash_while_a_file_is_written_costs_nothing_and_repeats_no_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    from scripts import train_lam

    whole, out, write = tmp_path / "whole", tmp_path / "parts", train_lam.write_atomically
    trained(data, whole, "--steps", "2")

    def fails(path: Path, chunks: list[bytes]) -> None:
        if path.name == at:
            raise KeyboardInterrupt
        write(path, chunks)

    monkeypatch.setattr(train_lam, "write_atomically", fails)
    with pytest.raises(KeyboardInterrupt):
        trained(data, out, "--steps", "2")
    monkeypatch.undo()
    trained(data, out, "--steps", "2")
    assert steps_told(out) == steps_told(whole) == [0, 2]
    one, two = (Lam(folder / "lam.safetensors") for folder in (whole, out))
    assert np.abs(one.encode(TEXTS) - two.encode(TEXTS)).max() < 1e-5


@pytest.mark.slow
def test_a_stop_between_the_stages_does_not_lose_the_second_ones_beginning(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scripts import train_lam

    whole, out = tmp_path / "whole", tmp_path / "parts"
    trained(data, whole, "--steps", "2")

    def stops(run: train_lam.Run) -> None:
        run.save()
        raise KeyboardInterrupt

    monkeypatch.setattr(train_lam.Run, "begin_whole", stops)
    with pytest.raises(KeyboardInterrupt):
        trained(data, out, "--steps", "2")
    monkeypatch.undo()
    trained(data, out, "--steps", "2")
    assert steps_told(out) == [0, 2]
    one, two = (Lam(folder / "lam.safetensors") for folder in (whole, out))
    assert np.abs(one.encode(TEXTS) - two.encode(TEXTS)).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("other", [["--seed", "1"], ["--others", "20"], ["--tokens", "32"], ["--rank", "4"], []])
def test_a_training_of_other_texts_or_options_is_not_gone_on_with(data: Path, tmp_path: Path, other: list[str]) -> None:
    out = tmp_path / "run"
    trained(data, out, "--steps", "1")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    if not other:  # the same command, and other texts under the same name
        text = data / "text" / "subjectivity.txt"
        text.write_text(text.read_text().replace("red", "white"))
    with pytest.raises(UsageError, match=f"a training with other {other[0][2:] if other else 'texts'}.*another --out"):
        trained(data, out, "--steps", "2", *other)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_training_never_reads_a_sentence_of_the_dev_pairs(data: Path) -> None:
    from scripts.train_lam import sentences, sts_pairs

    read = sentences(data, 10, 0)
    dev = {words(text) for a, b, _ in sts_pairs(data / "sts" / "stsb-en-dev.csv") for text in (a, b)}
    train = {text for a, b, _ in sts_pairs(data / "sts" / "stsb-en-train.csv") for text in (a, b)}
    told = {text for text in train if words(text) not in dev}  # in other spellings, too
    assert told < train and not dev & set(map(words, read)) and told <= set(read) and len(read) > len(told)


def test_a_text_without_blanks_is_read_in_parts_too(encoder: Lam) -> None:
    for text in ("中文" * 300, "ab,cd;" * 300, "a_b-c/d" * 300, "x[SEP]y[CLS]" * 50):
        found = list(parts(text, 100))
        assert "".join(found) == text and (len(found) > 4 or "[" in text)
        whole = encoder.tokenizer.encode(text, add_special_tokens=False).ids
        assert [i for part in found for i in encoder.tokenizer.encode(part, add_special_tokens=False).ids] == whole


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


@pytest.mark.slow
def test_what_lam_is_timed_against_is_minilm(encoder: Lam) -> None:
    pytest.importorskip("torch")
    from scripts.measure_lam import in_numpy, in_torch

    rows = np.random.default_rng(0).integers(1996, 29612, (3, 9)).astype(np.int32)
    minilm = shared_encoder()
    wanted = [unit_mean(run_layers(minilm.weights, embed(minilm.weights, row))) for row in rows]
    for runners in (in_numpy(encoder), in_torch(encoder)):
        assert np.abs(units(runners["minilm"](rows)) - wanted).max() < 1e-5
        assert np.abs(runners["lam"](rows) - module.short_means(NUMPY, encoder.weights, list(rows))).max() < 1e-2
