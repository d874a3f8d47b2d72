"""The public parts of MEMOIR: masks that never vary, a database that is exact, a layer that keeps edits apart."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import need

from lmm.errors import StateError, UsageError
from lmm.memory.memoir import EditMaskDatabase, TopHashFingerprinter
from lmm.memory.memoir.tophash import overlaps, permutation, top_hash

F, K = 70, 7  # not a multiple of eight: masks are packed into bytes
needs_faiss = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="faiss is not installed")


def activations(seed: int, shape: tuple[int, ...] = (F,)) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def mask(*bits: int) -> np.ndarray:
    found = np.zeros(F, np.float32)
    found[list(bits)] = 1
    return found


# ---------------------------------------------------------------- fingerprints
def test_top_hash_takes_the_loudest_through_the_permutation() -> None:
    where = np.array([2, 0, 3, 1])
    assert top_hash(np.array([0.1, -5.0, 3.0, 0.0]), 2, where).tolist() == [True, False, False, True]
    assert top_hash(np.array([1.0, -1.0, 1.0, 0.0]), 2, where).tolist() == [True, False, True, False]  # equal: lower


def test_overlap_is_that_of_the_view_that_agrees_least() -> None:
    one = np.array([[[1, 1, 0, 0], [0, 0, 1, 1]]], bool)
    other = np.array([[[1, 1, 0, 0], [1, 0, 0, 1]]], bool)
    assert overlaps(one, np.concatenate([one, other]), 2).tolist() == [[1.0, 0.5]]


@pytest.mark.slow
def test_the_same_activations_give_the_same_mask_in_every_process() -> None:
    maker = TopHashFingerprinter(F, K, seed=3)
    assert maker.generate_mask(activations(0)).sum() == K
    assert maker.validate_determinism(activations(0))
    code = (
        "import numpy as np; from lmm.memory.memoir import TopHashFingerprinter as T;"
        f"a = np.random.default_rng(0).normal(size={F}).astype('float32');"
        f"print(np.flatnonzero(T({F}, {K}, seed=3).generate_mask(a)).tolist())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(np.flatnonzero(maker.generate_mask(activations(0))).tolist())


@pytest.mark.slow
def test_validate_determinism_notices_a_maker_that_varies(monkeypatch: pytest.MonkeyPatch) -> None:
    maker = TopHashFingerprinter(F, K)
    honest, calls = maker.generate_mask, []

    def drifting(values: np.ndarray) -> np.ndarray:
        calls.append(1)
        return np.roll(honest(values), len(calls))

    monkeypatch.setattr(maker, "generate_mask", drifting)
    assert not maker.validate_determinism(activations(0))


def test_a_prompt_is_its_tokens_mean_less_the_background() -> None:
    tokens, background = activations(1, (5, F)), activations(2)
    maker = TopHashFingerprinter(F, K, background=background)
    bare = TopHashFingerprinter(F, K)
    assert np.array_equal(maker.generate_mask(tokens), bare.generate_mask(tokens.mean(0) - background))
    assert not np.array_equal(maker.generate_mask(tokens), bare.generate_mask(tokens))


def test_a_permutation_file_is_written_once_and_then_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sub" / "permutation.safetensors"
    first = TopHashFingerprinter(F, K, path, seed=1)
    assert np.array_equal(first.permutation, permutation(F, 1))
    monkeypatch.setenv("MEMOIR_PERMUTATION_FILE", str(path))
    monkeypatch.setenv("MEMOIR_HIDDEN_SIZE", str(F))
    monkeypatch.setenv("MEMOIR_TOP_K", str(K))
    again = TopHashFingerprinter(seed=2)
    assert (again.hidden_size, again.top_k) == (F, K)
    assert np.array_equal(again.permutation, first.permutation)
    with pytest.raises(StateError, match="no permutation of 8 channels"):
        TopHashFingerprinter(8, 2)


@pytest.mark.parametrize("wrong", [np.zeros(F - 1), np.full(F, np.nan), "text", np.zeros((2, 3, F))])
def test_activations_that_cannot_be_are_named(wrong: object) -> None:
    with pytest.raises(UsageError):
        TopHashFingerprinter(F, K).generate_mask(wrong)


def test_sizes_must_be_given_and_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="MEMOIR_HIDDEN_SIZE"):
        TopHashFingerprinter()
    with pytest.raises(UsageError, match="top_k must be 1 to"):
        TopHashFingerprinter(F, F + 1)
    monkeypatch.setenv("MEMOIR_TOP_K", "many")
    with pytest.raises(UsageError, match="MEMOIR_TOP_K must be a whole number"):
        TopHashFingerprinter(F)


# ---------------------------------------------------------------- the database
def test_the_closest_mask_is_found_with_its_similarity() -> None:
    found = EditMaskDatabase(F, backend="numpy")
    assert found.find_closest(mask(1), 0.1) is None
    found.add("one", mask(1, 2, 3, 4), {"description": "first"})
    found.add("two", mask(5, 6, 7, 8, 9, 10, 11, 12, 13))
    edit_id, kept, similarity = found.find_closest(mask(1, 2, 3, 60), 0.7)  # type: ignore[misc]
    assert (edit_id, similarity) == ("one", 0.75)
    assert np.array_equal(kept, mask(1, 2, 3, 4)) and kept.dtype == np.float32
    assert found.find_closest(mask(1, 2, 3, 60), 0.76) is None
    assert found.find_closest(mask(5, 6, 7, 8), 0.6)[2] == pytest.approx(4 / 6)  # type: ignore[index]
    overlap = EditMaskDatabase(F, "overlap")
    overlap.add("two", mask(5, 6, 7, 8, 9, 10, 11, 12, 13))
    assert overlap.find_closest(mask(5, 6, 7, 8), 0.1)[2] == pytest.approx(4 / 9)  # type: ignore[index]


def test_what_is_removed_is_not_found_and_the_last_of_equals_is() -> None:
    found = EditMaskDatabase(F)
    found.add("a", mask(1, 2))
    found.add("b", mask(1, 2))
    assert found.find_closest(mask(1, 2))[0] == "b"  # type: ignore[index]
    found.remove("b")
    assert found.find_closest(mask(1, 2))[0] == "a" and "b" not in found and len(found) == 1  # type: ignore[index]


@needs_faiss
@pytest.mark.parametrize("metric", ["cosine", "overlap"])
def test_faiss_finds_what_numpy_finds(metric: str) -> None:
    """Also among ties, and masks of several sizes."""
    both = [EditMaskDatabase(F, metric, backend=b) for b in ("faiss", "numpy")]
    rng = np.random.default_rng(0)
    for i in range(200):
        bits = rng.choice(12 if i % 2 else F, size=rng.choice([3, 5, 9]), replace=False)
        for database in both:
            database.add(f"e{i}", mask(*bits))
    for _ in range(200):
        query = mask(*rng.choice(20, size=rng.choice([2, 5, 8]), replace=False))
        a, b = (database.find_closest(query, 0.0) for database in both)
        assert a is not None and b is not None
        assert (a[0], a[2]) == (b[0], b[2]) and np.array_equal(a[1], b[1])


def test_a_saved_database_comes_back_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMOIR_STORAGE_DIR", str(tmp_path / "masks"))
    one = EditMaskDatabase(F)
    for i in range(5):
        one.add(f"é{i}", mask(i, i + 3, 69), {"n": i})
    path = one.save()
    assert path == tmp_path / "masks" / "masks.safetensors"
    two = EditMaskDatabase(F)
    two.load()
    assert two.metadata == one.metadata and len(two) == 5
    assert all(np.array_equal(one.get(i), two.get(i)) for i in one.metadata)
    assert two.find_closest(mask(2, 5, 69))[0] == "é2"  # type: ignore[index]
    with pytest.raises(StateError, match="does not fit"):
        EditMaskDatabase(F + 8).load(path)
    with pytest.raises(StateError, match="takes 4"):
        EditMaskDatabase(F, max_edits=4).load(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"\xff")  # bits beyond the last channel
    with pytest.raises(StateError, match="masks that are none"):
        two.load(path)
    length = 8 + int.from_bytes(whole[:8], "little")
    path.write_bytes(whole[:length].replace(rb"{\"n\": 0}", rb"[\"n\", 0]") + whole[length:])
    with pytest.raises(StateError, match="metadata of another kind"):
        two.load(path)
    path.write_bytes(whole[:-3])
    with pytest.raises(StateError, match="holds no masks"):
        two.load(path)
    assert len(two) == 5, "a file that is refused changes nothing"
    for wrong in ({"hidden_size": -5}, {"hidden_size": F, "max_edits": 0}):
        with pytest.raises(UsageError, match="at least 1"):
            EditMaskDatabase(**wrong)
    with pytest.raises(UsageError, match="NaN"):
        two.add("nan", np.where(mask(1), 1.0, np.nan))


def test_what_a_database_cannot_take_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = EditMaskDatabase(F, max_edits=1)
    found.add("one", mask(1))
    for call, text in (
        (lambda: found.add("one", mask(2)), "already"),
        (lambda: found.add("two", mask(2)), "1 edits at most"),
        (lambda: found.find_closest(np.ones(3)), "shape"),
        (lambda: found.find_closest(np.zeros(F)), "0 bits"),
        (lambda: found.remove("three"), "no edit 'three'"),
        (lambda: found.save(), "MEMOIR_STORAGE_DIR"),
        (lambda: EditMaskDatabase(F, "euclid"), "similarity_metric"),
        (lambda: EditMaskDatabase(F).add("x", mask(1), {"bad": {1, 2}}), "JSON"),
    ):
        with pytest.raises(UsageError, match=text):
            call()


@pytest.mark.slow
def test_the_package_imports_no_torch() -> None:
    code = (
        "import sys, lmm.memory.memoir as m; m.EditMaskDatabase, m.TopHashFingerprinter; print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


# ---------------------------------------------------------------- the layer, in a transformers model
def test_the_layer_is_zero_when_fresh_and_learns_only_in_its_mask(tmp_path: Path) -> None:
    need("torch")
    import torch
    from safetensors.torch import load_file, save_file

    from lmm.memory.memoir import ResidualMemoryLayer

    layer, x = ResidualMemoryLayer(F, output_size=5), torch.as_tensor(activations(0, (2, 3, F)))
    layer.add_edit("one", mask(1, 2, 3), {"source": "user"})
    assert layer(x).shape == (2, 3, 5)
    assert not layer(x, edit_mask=mask(*range(F))).any() and not layer(x, edit_id="one").any()
    (layer(x, edit_id="one") - 1).square().sum().backward()
    touched = layer.weight.grad.abs().sum(0).nonzero()[:, 0].tolist()  # type: ignore[union-attr]
    assert touched == [1, 2, 3]
    with torch.no_grad():
        layer.weight -= layer.weight.grad  # type: ignore[operator]
    assert layer(x, edit_id="one").any() and not layer(x, edit_mask=mask(4, 5)).any() and not layer(x).any()
    save_file(layer.state_dict(), tmp_path / "layer.safetensors")
    again = ResidualMemoryLayer(F, output_size=5)
    again.load_state_dict(load_file(tmp_path / "layer.safetensors"))
    assert torch.equal(again(x, edit_id="one"), layer(x, edit_id="one")) and again.metadata == layer.metadata
    with pytest.raises(UsageError, match="no edit 'two'"):
        layer(x, edit_id="two")
    with pytest.raises(UsageError, match="NaN"):
        layer.add_edit("two", np.where(mask(1), 1.0, np.nan))
    for wrong in ({"hidden_size": -5}, {"hidden_size": F, "max_edits": 0}):
        with pytest.raises(UsageError, match="at least 1"):
            ResidualMemoryLayer(**wrong)


@pytest.mark.parametrize(("name", "settings"), [("SGD", {}), ("SGD", {"momentum": 0.9}), ("Adam", {})])
def test_an_optimiser_made_for_an_edit_leaves_the_others_columns(name: str, settings: dict[str, float]) -> None:
    need("torch")
    import torch

    from lmm.memory.memoir import ResidualMemoryLayer

    layer, x = ResidualMemoryLayer(F, output_size=5), torch.as_tensor(activations(0, (2, 3, F)))
    layer.add_edit("one", mask(1, 2, 3))
    layer.add_edit("two", mask(3, 4, 5))
    kept = None
    for edit in ("one", "two"):
        optimizer = getattr(torch.optim, name)([layer.weight], lr=0.1, **settings)
        for _ in range(5):
            optimizer.zero_grad()
            (layer(x, edit_id=edit) - 1).square().sum().backward()
            optimizer.step()
        if kept is None:
            kept = layer.weight[:, [1, 2]].detach().clone()
            assert kept.any()
    assert torch.equal(layer.weight[:, [1, 2]], kept) and layer.weight[:, [4, 5]].any()


def test_the_tap_retrieves_an_edit_holds_it_and_leaves_no_trace(tiny_torch) -> None:
    import torch

    from lmm.memory.memoir import MemoirTap, ResidualMemoryLayer

    model = tiny_torch.model
    config = model.config
    memory = ResidualMemoryLayer(config.intermediate_size, output_size=config.hidden_size, sparsity_ratio=0.2)
    maker, database = memory.fingerprinter(), EditMaskDatabase(config.intermediate_size)
    with pytest.raises(UsageError, match="at most 1, not 5"):
        MemoirTap(model, 2, memory, maker, database, threshold=5)
    tap = MemoirTap(model, 2, memory, maker, database, threshold=0.9)
    asked, other = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[90, 30, 60, 20]])
    settings = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    before = {text: model.generate(ids, **settings).tolist() for text, ids in (("asked", asked), ("other", other))}
    with tap.attached():
        model(asked)
        assert tap.get_last_retrieval_info() is None
    database.add("edit", maker.generate_mask(tap.last_features[0]))
    memory.add_edit("edit", database.get("edit"))
    optimizer = torch.optim.SGD([memory.weight], lr=5.0)
    with tap.attached(edit_id="edit"):
        for _ in range(40):  # MEMOIR_EditSkill's loop: the answer's loss, on W_m alone
            loss = torch.nn.functional.cross_entropy(model(asked).logits[0, -1:], torch.tensor([42]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    outside = ~torch.as_tensor(database.get("edit")).bool()
    assert memory.weight[:, ~outside].any() and not memory.weight[:, outside].any()
    with tap.attached():
        said = model.generate(asked, **settings).tolist()
        assert tap.get_last_retrieval_info() == {"edit_id": "edit", "similarity": 1.0}, "held while decoding"
        assert model.generate(other, **settings).tolist() == before["other"]
        assert tap.get_last_retrieval_info() is None
        assert model.generate(asked, **settings, use_cache=False).tolist() == said, "held without a cache"
        assert tap.get_last_retrieval_info() == {"edit_id": "edit", "similarity": 1.0}
        assert model.generate(other, **settings, use_cache=False).tolist() == before["other"]
        model(asked)
        model(torch.cat([other, torch.tensor([[42]])], dim=1))  # one token longer, but another text
        assert tap.get_last_retrieval_info() is None
        beams = [model.generate(asked, **settings, num_beams=2, use_cache=c).tolist() for c in (True, False)]
        assert beams[0] == beams[1]
    assert said[0][4] == 42 and said != before["asked"]
    assert model.generate(asked, **settings).tolist() == before["asked"], "detached"


def test_a_tap_that_does_not_fit_is_refused(tiny_torch) -> None:
    from lmm.memory.memoir import MemoirTap, ResidualMemoryLayer

    width = tiny_torch.model.config.intermediate_size
    parts = (TopHashFingerprinter(width, 3), EditMaskDatabase(width))
    with pytest.raises(UsageError, match="make it with hidden_size=48, output_size=32"):
        MemoirTap(tiny_torch.model, 0, ResidualMemoryLayer(width), *parts)
    with pytest.raises(UsageError, match="layers 0 to 3"):
        MemoirTap(tiny_torch.model, 9, ResidualMemoryLayer(width, output_size=32), *parts)
