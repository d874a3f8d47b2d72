"""What is llama.cpp's own: its structs, its store of many texts, a node that is not shown. The rest of the backend is
held by the contract suites."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
from collections.abc import Iterator

import numpy as np
import pytest
import tiny
from conftest import need
from contracts import close, numbers, on

from lmm import registry
from lmm.adapters.base import Adapter
from lmm.adapters.models import source
from lmm.adapters.models.source import ModelSource, gguf_of
from lmm.engine.mind import Mind
from lmm.errors import BackendError, LmmError, ModelError, UsageError
from lmm.memory.batch import Batch

pytestmark = pytest.mark.slow  # a library of its own, and no memory


@pytest.fixture(autouse=True)
def installed() -> None:
    need("llama_cpp")


def read(adapter: Adapter, tokens: np.ndarray, cache=None):
    logits, cache = adapter.forward(tokens, cache or adapter.new_cache(len(tokens)), keep=tokens.shape[1])
    return numbers(adapter, logits), cache


def some(adapter: Adapter, rows: int, length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(3, adapter.shape.vocab, (rows, length))


def test_another_version_of_the_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from lmm.adapters import llama_cpp_api as api

    lib = api.library()
    api.check_words("context", lib.llama_context_default_params(), {0: 512})
    with pytest.raises(BackendError, match=r"context differ at byte 4: 2048, expected 1.*pip install"):
        api.check_words("context", lib.llama_context_default_params(), {0: 512, 4: 1})
    api.library.cache_clear()
    monkeypatch.setattr(api, "VERSION", "1.0")
    with pytest.raises(BackendError, match=r"expected 1\.0.*pip install 'lmm\[llama\]'"):
        api.library()
    api.library.cache_clear()


@pytest.fixture(params=["machine code", "Python"])
def asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the nodes that Python was asked about."""
    from lmm.adapters import llama_cpp_api as api

    names: list[str] = []
    if request.param == "Python":
        monkeypatch.setattr(api, "_machine_code", lambda: None)
    elif api._machine_code() is None:
        pytest.skip("no machine code for this processor")
    called = api.Filter._called
    monkeypatch.setattr(
        api.Filter,
        "_called",
        lambda self, tensor, ask, data: (names.append(api.name_of(tensor)), called(self, tensor, ask, data))[1],
    )
    yield names


def test_only_nodes_that_were_asked_for_reach_python(asked, tiny_llama, request: pytest.FixtureRequest) -> None:
    adapter = registry.load_adapter("llama_cpp", tiny_llama.source, dtype="float32")
    tokens, seen = some(adapter, 1, 5), []
    asked.clear()
    plain, _ = read(adapter, tokens)
    if "machine" in request.node.name:
        assert not asked, "nothing is tapped"
    with adapter.tap(adapter.site(2), lambda x_in, x_out, context: (seen.append(x_out), x_out * 2)[1]):
        changed, _ = read(adapter, tokens)
    assert len(seen) == 1 and tuple(seen[0].shape) == (1, 5, adapter.shape.width)
    close(numbers(adapter, seen[0]), numbers(adapter, adapter.hidden(tokens, 3)))
    assert np.abs(changed - plain).max() > 1e-3
    if "machine" in request.node.name:
        assert set(asked) <= {"l_out-2"} and len(asked) < 20


def test_a_store_that_is_full_grows_and_keeps_what_was_read(tiny_llama) -> None:
    adapter = registry.load_adapter("llama_cpp", tiny_llama.source, dtype="float32")
    tokens, more = some(adapter, 1, 40), some(adapter, 1, 4)
    _, kept = read(adapter, tokens)
    expected, _ = read(adapter, more, kept)
    before, held = adapter.store.cells, []
    while adapter.store.cells == before:
        held.append(read(adapter, some(adapter, 8, 60))[1])
    close(read(adapter, more, kept)[0], expected)
    assert adapter.store.cells == 2 * before


@pytest.fixture(scope="module")
def rounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adapter]:
    """A model as people run it: weights of four bits, keys and values as they are without --dtype."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny.COMMON, "intermediate_size", 64)  # a whole number of blocks
        made = tiny.source(tmp_path_factory.mktemp("rounded"))
        tiny.write_gguf(made.folder, "Q4_1")
    yield registry.load_adapter("llama_cpp", made)


def said(adapter: Adapter, tokens: np.ndarray, row: int = 0, parts: int = 1) -> np.ndarray:
    """Logits of the last of these tokens [B, T] and of two more, in one row."""
    cache, found = adapter.new_cache(len(tokens)), []
    for part in [*np.array_split(tokens, parts, 1), *[np.full((len(tokens), 1), 7)] * 2]:
        logits, cache = adapter.forward(part, cache)
        found.append(numbers(adapter, logits)[row, -1])
    return np.stack(found[-3:])


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("length", [20, 90])  # ggml has another kernel of attention from 64 tokens on
def test_a_text_gives_the_same_bits_whatever_is_beside_it_and_wherever_it_lies(rounded, threads, length) -> None:
    rounded.store.set_threads(threads)
    text = some(rounded, 1, length)
    expected = said(rounded, text)
    for count, row in [(2, 1), (7, 3), (40, 39)]:
        rows = some(rounded, count, length)
        rows[row] = text
        assert np.array_equal(said(rounded, rows, row), expected), f"row {row} of {count}"
    beside = [read(rounded, some(rounded, 1, 90))[1] for _ in range(8)]
    assert np.array_equal(said(rounded, text), expected), "behind others, in more than 512 cells"
    del beside[::2]
    assert np.array_equal(said(rounded, text, parts=3), expected), "among the cells of those that nobody holds"


@on("llama_cpp")
def test_the_packaged_model_gives_the_same_bits_alone_and_among_others(adapter: Adapter) -> None:
    rows = some(adapter, 5, 20)
    for row in (0, 3):
        assert np.array_equal(said(adapter, rows, row), said(adapter, rows[[row]])), f"row {row}"


def test_what_nobody_holds_goes_when_there_is_much_of_it(rounded) -> None:
    from lmm.adapters.llama_cpp_context import FIRST_CELLS

    text, more, before = some(rounded, 1, 90), some(rounded, 1, 3), rounded.store.cells
    _, kept = read(rounded, text[:, :60])
    expected, _ = read(rounded, more, kept)
    for i in range(30):
        _, longer = read(rounded, text[:, 60 : 61 + i], kept)
        assert rounded.store._used < FIRST_CELLS // 2
    assert np.array_equal(read(rounded, more, kept)[0], expected) and rounded.store.cells == before
    assert np.array_equal(read(rounded, more, rounded.trim(longer, 60))[0], expected)


def test_a_lesson_reads_its_question_once_and_what_all_begin_with_not_again(tiny_llama, tiny_torch) -> None:
    adapter = registry.load_adapter("llama_cpp", tiny_llama.source, dtype="float32")
    begin, site, passes = some(adapter, 1, 20)[0].tolist(), adapter.site(2), list[int]()
    honest = adapter.store.read
    adapter.store.read = lambda tokens, *more: (passes.append(tokens.size), honest(tokens, *more))[1]
    for question in range(5, 8):
        row = [*begin, question, 9, 11, 13], [4, 5, 6]
        passes.clear()
        losses = []
        for one in (adapter, tiny_torch):
            batch = Batch(one, [row], site)
            losses.append(numbers(one, batch.losses(batch.h)))
        close(*losses)
    assert sum(passes) == 3 + 3, "the question after what it begins with, and its last token with the reply"


def test_what_learns_keeps_its_weights_as_they_are_stored_and_computes_in_float32(tiny_llama, tmp_path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    from lmm.adapters.llama_cpp_upper import UpperLayers

    for file in tiny_llama.source.folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for file in tmp_path.glob("*.safetensors"):
        save_file({name: x.half() for name, x in load_file(file).items()}, file, {"format": "pt"})
    tokens = some(tiny_llama, 1, 6)
    h = tiny_llama.hidden(tokens, 2)
    stored = UpperLayers(dataclasses.replace(tiny_llama.source, folder=tmp_path), tiny_llama.format, 2)
    linears = [module for module in stored.model.modules() if isinstance(module, torch.nn.Linear)]
    assert {module.weight.dtype for module in linears} == {torch.float16}
    close(numbers(stored, stored.upper(tokens, h, 0)), numbers(tiny_llama, tiny_llama.upper(tokens, h, 2)), atol=2e-3)


@pytest.mark.slow
def test_what_a_window_needs_is_read_again_where_it_is_cut_after_it_was_laid_afresh(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(tiny.COMMON, "intermediate_size", 64)  # a whole number of blocks
    made = tiny.source(tmp_path, "gemma3_text")
    tiny.write_gguf(tmp_path, "Q8_0", "gemma3")
    adapter = registry.load_adapter("llama_cpp", made)
    text, new = some(adapter, 1, 90), some(adapter, 1, 30)[:, 20:]
    _, cache = read(adapter, text)
    alone = {length: read(adapter, new, read(adapter, text[:, :length])[1])[0] for length in (40, 70, 90)}
    assert adapter.file.window == 16
    adapter.store._lay_afresh()
    for length, expected in alone.items():
        for _ in range(2):
            assert np.array_equal(read(adapter, new, adapter.trim(cache, length))[0], expected)
        some_layer = adapter.hidden(text[:, :5], 2, adapter.trim(cache, length))
        assert np.isfinite(numbers(adapter, some_layer)).all()


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (
            {"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}},
            "by the room that there is.*--backend torch",
        ),
        ({"sliding_window": 16}, "leaves out its sliding window of 16 tokens.*--backend torch"),
    ],
)
def test_a_model_that_llama_cpp_reads_otherwise_is_refused(tmp_path, more: dict, why: str) -> None:
    made = tiny.source(tmp_path)
    tiny.write_gguf(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | more))
    with pytest.raises(ModelError, match=why):
        registry.load_adapter("llama_cpp", made)


def test_a_context_goes_with_its_adapter(tiny_llama) -> None:
    adapter = registry.load_adapter("llama_cpp", tiny_llama.source, dtype="float32")
    read(adapter, some(adapter, 1, 5))
    freed, own, lib = list[int](), adapter.store._handle, adapter.store.lib
    free, lib.llama_free = lib.llama_free, lambda handle: (freed.append(handle), free(handle))
    try:
        del adapter
        gc.collect()
    finally:
        lib.llama_free = free
    assert own in freed


@pytest.mark.slow
def test_texts_that_nobody_holds_make_room(tiny_llama) -> None:
    tokens = some(tiny_llama, 200, 2)
    for _ in range(3):
        read(tiny_llama, tokens)
        gc.collect()
    with pytest.raises(LmmError, match="at most 256 texts"):
        tiny_llama.new_cache(300)


def test_more_tokens_than_one_pass_takes_are_read_in_parts(tiny_llama, tiny_torch) -> None:
    tokens = some(tiny_llama, 8, 100)
    close(read(tiny_llama, tokens)[0], read(tiny_torch, tokens)[0])
    h = tiny_llama.hidden(tokens, 2)
    close(numbers(tiny_llama, h), numbers(tiny_torch, tiny_torch.hidden(tokens, 2)))


def test_a_memory_at_a_place_that_is_not_shown_is_refused_when_it_is_chosen(tiny_llama, monkeypatch) -> None:
    monkeypatch.setattr(tiny_llama, "_shown", set())
    memoir = registry.memory_class("memoir")()
    Mind(tiny_llama, memoir).close()
    monkeypatch.setattr(tiny_llama, "_shown", set())
    monkeypatch.setattr(tiny_llama, "shape", dataclasses.replace(tiny_llama.shape, mlp_width=7))  # as of experts
    with pytest.raises(LmmError, match=r"does not show mlp\.down_proj of layer 3.*--backend torch"):
        Mind(tiny_llama, memoir)
    monkeypatch.setattr(tiny_llama, "_node", lambda site: "nothing-1")
    with pytest.raises(LmmError, match=r"does not show residual of layer"):
        Mind(tiny_llama, registry.memory_class("keyed")())
    assert not tiny_llama.taps


def test_what_is_no_gguf_says_so(tmp_path, tiny_llama) -> None:
    with pytest.raises(ModelError, match=r"is no GGUF file.*--backend torch"):
        gguf_of(ModelSource("folder", tmp_path, "folder", None))
    with pytest.raises(UsageError, match="not int8"):
        registry.load_adapter("llama_cpp", tiny_llama.source, dtype="int8")
    with pytest.raises(UsageError, match="leave out --layers-path"):
        registry.load_adapter("llama_cpp", tiny_llama.source, layers_path="model.layers")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(64))
    for file in tiny_llama.source.folder.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelError, match=r"llama\.cpp cannot load broken\.gguf \(.+\).*--backend torch"):
        registry.load_adapter("llama_cpp", ModelSource("broken", tmp_path, "broken", None))


def test_a_model_in_pieces_is_put_together_once(tmp_path, monkeypatch) -> None:
    pieces = [tmp_path / "a", tmp_path / "b"]
    for piece in pieces:
        piece.write_bytes(piece.name.encode())
    digest = hashlib.sha256(b"ab").hexdigest()
    packaged = source.Packaged("some/model", (), digest, "")
    monkeypatch.setattr(source.Packaged, "paths", lambda self: pieces)
    monkeypatch.setattr(source, "PACKAGED", {"some": packaged})
    whole = gguf_of(ModelSource("some", tmp_path / "some-ab", "some/model", f"sha256:{digest}"))
    assert whole == tmp_path / "some-ab.gguf" and whole.read_bytes() == b"ab"
    pieces.clear()
    pieces.extend([tmp_path / "gone"] * 2)
    assert gguf_of(ModelSource("some", tmp_path / "some-ab", "some/model", f"sha256:{digest}")) == whole
