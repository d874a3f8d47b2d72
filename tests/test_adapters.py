"""The contract of an adapter, on the toy, on random models of a few layers in torch and MLX, and on real ones."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import tiny
from conftest import load, need
from contracts import close, numbers, on, on_small, same

from lmm import registry
from lmm.adapters.base import PARTS, Adapter, Site
from lmm.adapters.structure import find_layers
from lmm.config import Decoding
from lmm.engine.engine import Engine
from lmm.engine.mind import Mind
from lmm.errors import ModelError, UsageError
from lmm.memory.identity import Identity

on_all = on("toy", "tiny-torch", "tiny-mlx", "tiny-llama", "torch", "mlx_lm")
TEXT = "The capital of France is Paris, and the capital of Norway is"


def ids(adapter: Adapter, text: str = TEXT) -> np.ndarray:
    return np.array([adapter.format.encode(text)])


def read(adapter: Adapter, tokens: np.ndarray, cache=None, keep: int | None = None):
    """Logits [T, V] as NumPy, and the cache."""
    cache = cache if cache is not None else adapter.new_cache(len(tokens))
    logits, cache = adapter.forward(tokens, cache, keep=keep or tokens.shape[1])
    return numbers(adapter, logits), cache


def scaled(factor: float):
    return lambda x_in, x_out, context: x_out * factor


def skewed(adapter: Adapter, factor: float):
    """Not the same in every channel: a model that normalises its input would not see that."""
    return lambda x_in, x_out, context: x_out * adapter.ops.asarray(np.linspace(1, factor, adapter.shape.width))


def weights(adapter: Adapter) -> list[str]:
    """Names of the parameters, in order."""
    if hasattr(adapter, "model") and hasattr(adapter.model, "named_parameters"):
        return [name for name, _ in adapter.model.named_parameters()]
    if hasattr(adapter, "model"):
        from mlx.utils import tree_flatten

        return [name for name, _ in tree_flatten(adapter.model.parameters())]
    return []


@on_all
def test_a_text_is_read_from_its_beginning_and_goes_on_token_by_token(adapter: Adapter) -> None:
    for text in (TEXT, f"{TEXT} again", TEXT):
        tokens = ids(adapter, text)
        logits, cache = adapter.decode(int(tokens[0, -1]), adapter.read(tokens[0, :-1].tolist()))
        assert np.array_equal(cache.tokens, tokens)
        close(logits, read(adapter, tokens)[0][0, -1])


# ---------------------------------------------------------------- running in parts
@on_all
@pytest.mark.parametrize("after_prefix", [False, True])
def test_lower_and_upper_half_make_the_whole(adapter: Adapter, after_prefix: bool) -> None:
    tokens, cache = ids(adapter), None
    if after_prefix:
        _, cache = read(adapter, tokens[:, :4])
        tokens = tokens[:, 4:]
    whole, _ = read(adapter, tokens, cache)
    layers = adapter.shape.layers
    for first in {0, 1, layers // 2, layers}:
        h = adapter.hidden(tokens, first, cache)
        assert tuple(h.shape) == (1, tokens.shape[1], adapter.shape.width)
        close(numbers(adapter, adapter.upper(tokens, h, first, cache)), whole)
        kept = numbers(adapter, adapter.upper(tokens, h, first, cache, keep=[0, 3]))
        close(kept, whole[:, [0, 3]])


@on_small
def test_the_upper_half_reads_the_states_it_is_given(adapter: Adapter) -> None:
    tokens = ids(adapter)
    whole, _ = read(adapter, tokens)
    for first in range(adapter.shape.layers + 1):
        h = adapter.hidden(tokens, first)
        turned = adapter.ops.take(h, adapter.ops.asarray(np.arange(adapter.shape.width)[::-1].copy(), "int64"), 2)
        assert np.abs(numbers(adapter, adapter.upper(tokens, turned, first)) - whole).max() > 0.01, first


@on_small
def test_only_the_last_logits_are_kept(adapter: Adapter) -> None:
    whole, _ = read(adapter, ids(adapter))
    for keep in (1, 3):
        close(read(adapter, ids(adapter), keep=keep)[0], whole[:, -keep:])


@on_all
def test_reading_in_chunks_is_reading_at_once(adapter: Adapter) -> None:
    tokens = ids(adapter)
    whole, full = read(adapter, tokens)
    first, cache = read(adapter, tokens[:, :5])
    second, cache = read(adapter, tokens[:, 5:-1], cache)
    third, cache = read(adapter, tokens[:, -1:], cache)
    close(np.concatenate([first, second, third], axis=1), whole)
    assert cache.length == full.length == tokens.shape[1] and np.array_equal(cache.tokens, tokens)


# ---------------------------------------------------------------- caches are values
@on_all
def test_an_old_cache_stays_usable(adapter: Adapter) -> None:
    tokens = ids(adapter)
    _, start = read(adapter, tokens[:, :5])
    before, _ = read(adapter, tokens[:, 5:8], start)
    read(adapter, tokens[:, 8:11], start)
    h = adapter.hidden(tokens[:, 5:8], 1, start)
    adapter.upper(tokens[:, 5:8], h, 1, start)
    adapter.refill(start, adapter.hidden(tokens[:, :5], 1), 1)
    assert start.length == 5
    same(adapter, read(adapter, tokens[:, 5:8], start)[0], before)


@on_all
def test_a_trimmed_cache_is_the_shorter_one(adapter: Adapter) -> None:
    tokens = ids(adapter)
    _, short = read(adapter, tokens[:, :5])
    _, long = read(adapter, tokens[:, 5:9], short)
    trimmed = adapter.trim(long, 5)
    assert trimmed.length == 5 and long.length == 9
    close(read(adapter, tokens[:, 9:], trimmed)[0], read(adapter, tokens[:, 9:], short)[0])
    assert adapter.trim(long, 0).length == 0
    close(read(adapter, tokens, adapter.trim(long, 0))[0], read(adapter, tokens)[0])


@on_small
def test_rows_can_be_chosen_and_repeated(adapter: Adapter) -> None:
    both = np.concatenate([ids(adapter, "one day"), ids(adapter, "two men")])
    more = np.concatenate([ids(adapter, " abc")] * 3)
    _, cache = read(adapter, both)
    chosen = adapter.select(cache, [1, 0, 1])
    found, _ = read(adapter, more, chosen)
    for row, source in enumerate([1, 0, 1]):
        _, alone = read(adapter, both[source : source + 1])
        close(found[row], read(adapter, more[:1], alone)[0][0])
    assert cache.tokens.shape[0] == 2


@on_small
@pytest.mark.parametrize("part", PARTS)
def test_a_refilled_cache_is_that_of_a_full_prefill_with_the_tap(adapter: Adapter, part: str) -> None:
    tokens, after = ids(adapter), ids(adapter, " a few more")
    for layer in range(adapter.shape.layers):
        site = Site(layer, part)
        _, stale = read(adapter, tokens)
        low = adapter.hidden(tokens, site.first_layer)
        with adapter.tap(site, skewed(adapter, -1.0)):
            _, full = read(adapter, tokens)
            expected, _ = read(adapter, after, full)
            refilled, _ = read(adapter, after, adapter.refill(stale, low, site.first_layer))
            unfilled, _ = read(adapter, after, stale)
        close(refilled, expected)
        if layer < adapter.shape.layers - 1:  # nothing is cached above the last
            assert np.abs(unfilled - expected).max() > 1e-3


# ---------------------------------------------------------------- taps
@on_all
@pytest.mark.parametrize("part", PARTS)
def test_a_tap_acts_and_leaves_no_trace(adapter: Adapter, part: str) -> None:
    tokens, names = ids(adapter), weights(adapter)
    before, cache = read(adapter, tokens[:, :-1])
    last, _ = read(adapter, tokens[:, -1:], cache)
    seen = []

    def rewrite(x_in, x_out, context):
        seen.append((tuple(x_in.shape), tuple(x_out.shape), context))
        return skewed(adapter, -1.0)(x_in, x_out, context)

    site = adapter.site(1, part)
    with adapter.tap(site, rewrite):
        assert weights(adapter) == names
        edited, cache = read(adapter, tokens[:, :-1])
        read(adapter, tokens[:, -1:], cache)
    assert np.abs(edited - before).max() > 1e-3
    width = adapter.shape.mlp_width if part == "mlp.down_proj" else adapter.shape.width
    length = tokens.shape[1] - 1
    assert [s[:2] for s in seen] == [((1, n, width), (1, n, adapter.shape.width)) for n in (length, 1)]
    (_, _, first), (_, _, second) = seen
    assert (first.phase, second.phase, first.site, second.site) == ("prefill", "decode", site, site)
    assert np.array_equal(first.positions, np.arange(length)) and np.array_equal(second.positions, [length])
    assert np.array_equal(second.tokens, tokens[:, -1:]) and np.array_equal(second.history, tokens[:, :-1])
    assert weights(adapter) == names
    after, cache = read(adapter, tokens[:, :-1])
    same(adapter, after, before)
    same(adapter, read(adapter, tokens[:, -1:], cache)[0], last)


@on_small
@pytest.mark.parametrize("part", PARTS)
def test_the_tap_that_was_opened_first_acts_first(adapter: Adapter, part: str) -> None:
    tokens, site = ids(adapter), adapter.site(1, part)

    def shifted(x_in, x_out, context):
        return x_out + 1.0

    def both(x_in, x_out, context):
        return (x_out * 2.0) + 1.0

    with adapter.tap(site, both):
        expected, _ = read(adapter, tokens)
    with adapter.tap(site, scaled(2.0)), adapter.tap(site, shifted):
        close(read(adapter, tokens)[0], expected, atol=1e-5)


@on_small
@pytest.mark.parametrize("part", PARTS)
def test_quiet_silences_what_is_open_and_nothing_else(adapter: Adapter, part: str) -> None:
    tokens, site = ids(adapter), adapter.site(1, part)
    plain, _ = read(adapter, tokens)
    with adapter.tap(site, skewed(adapter, 3.0)):
        loud, _ = read(adapter, tokens)
        with adapter.quiet():
            same(adapter, read(adapter, tokens)[0], plain)
            with adapter.tap(site, skewed(adapter, 3.0)):
                close(read(adapter, tokens)[0], loud)
                with adapter.quiet():
                    same(adapter, read(adapter, tokens)[0], plain)
        close(read(adapter, tokens)[0], loud)
    assert np.abs(loud - plain).max() > 1e-3


@on_small
def test_halves_under_a_tap_make_the_whole_under_the_tap(adapter: Adapter) -> None:
    tokens = ids(adapter)
    for part in PARTS:
        for layer in range(adapter.shape.layers):
            with adapter.tap(Site(layer, part), skewed(adapter, -1.0)):
                whole, _ = read(adapter, tokens)
                for first in range(adapter.shape.layers + 1):
                    close(numbers(adapter, adapter.upper(tokens, adapter.hidden(tokens, first), first)), whole)


@on_small
def test_taps_of_layers_that_do_not_run_see_nothing(adapter: Adapter) -> None:
    tokens, seen, first = ids(adapter), [], 2

    def watch(x_in, x_out, context):
        seen.append(context.site.layer)
        return x_out

    with contextlib.ExitStack() as stack:
        for layer in range(adapter.shape.layers):
            for part in PARTS:
                stack.enter_context(adapter.tap(Site(layer, part), watch))
        h = adapter.hidden(tokens, first)
        assert set(seen) == {0, 1}
        seen.clear()
        adapter.upper(tokens, h, first)
        assert set(seen) == set(range(first, adapter.shape.layers))


class Boom(Exception):
    pass


@on("toy", "tiny-torch", "tiny-mlx", "tiny-llama", "torch")
@pytest.mark.parametrize("part", PARTS)
def test_an_exception_inside_a_tap_leaves_no_trace(adapter: Adapter, part: str) -> None:
    tokens, names = ids(adapter), weights(adapter)
    before, cache = read(adapter, tokens)
    calls = {
        "forward": lambda: read(adapter, tokens),
        "hidden": lambda: adapter.hidden(tokens, 2),
        "upper": lambda: adapter.upper(tokens, adapter.ops.zeros((1, tokens.shape[1], adapter.shape.width)), 1),
        "refill": lambda: adapter.refill(cache, adapter.ops.zeros((1, tokens.shape[1], adapter.shape.width)), 1),
    }

    def explode(x_in, x_out, context):
        raise Boom

    for name, call in calls.items():
        with adapter.tap(adapter.site(1, part), explode), pytest.raises(Boom):
            call()
        assert weights(adapter) == names, name
        assert not adapter.taps and adapter.context is None, name
        same(adapter, read(adapter, tokens)[0], before)


@on_small
def test_features_are_what_enters_the_site(adapter: Adapter) -> None:
    tokens = ids(adapter)
    _, prefix = read(adapter, tokens[:, :4])
    for part in PARTS:
        seen = []

        def look(x_in, x_out, context, seen=seen):
            seen.append(numbers(adapter, x_in))
            return x_out

        site = adapter.site(2, part)
        with adapter.tap(site, look):
            read(adapter, tokens[:, 4:], prefix)
        with adapter.tap(adapter.site(0), scaled(5.0)):  # not of the untouched model
            close(numbers(adapter, adapter.features(tokens[:, 4:], site, prefix)), seen[0])


@on_small
def test_a_place_that_does_not_exist_is_a_usage_error(adapter: Adapter) -> None:
    with pytest.raises(UsageError, match=f"layers 0 to {adapter.shape.layers - 1}"):
        adapter.site(adapter.shape.layers)
    with (
        pytest.raises(UsageError, match="layer -1 does not exist"),
        adapter.tap(Site(-1), scaled(1.0)),
    ):
        pass
    with pytest.raises(UsageError, match=r"mlp\.up.*residual, pre_attention, mlp\.down_proj"):
        Site(0, "mlp.up")
    assert adapter.middle_site() == Site(adapter.shape.layers // 2)


def test_layers_that_are_not_recognised_say_how_to_name_them() -> None:
    class Block:
        self_attn = mlp = None

    class Model:
        def __init__(self) -> None:
            self.deep = {"down": [Block(), Block()]}

    with pytest.raises(ModelError, match=r"one list of 2 layers.*found lists: experts \(3\).*--layers-path"):
        find_layers(Model(), [("experts", [1, 2, 3])], 2)
    with pytest.raises(ModelError, match=r"'a\.b' does not lead to a list"):
        find_layers(Model(), [], 2, path="a.b")
    blocks = [Block(), Block()]
    assert find_layers(Model(), [("short", blocks[:1]), ("model.layers", blocks)], 2) == ("model.layers", blocks)


def test_layers_of_any_kind_will_do_where_there_is_one_list_of_them() -> None:
    class Usual:
        self_attn = mlp = None

    plain, usual = [object(), object()], [Usual(), Usual()]
    eyes = ("model.vision_tower.layers", usual)
    assert find_layers(None, [eyes, ("h", plain)], 2) == ("h", plain)
    assert find_layers(None, [eyes, ("h", plain), ("model.layers", usual)], 2) == ("model.layers", usual)
    with pytest.raises(ModelError, match="not recognised"):
        find_layers(None, [("h", plain), ("g", plain)], 2)
    with pytest.raises(ModelError, match="not recognised"):
        find_layers(None, [eyes], 2)


# ---------------------------------------------------------------- the backend's own generate
PROMPTS = [
    "What is the capital of France?", "Name three colours.", "Who wrote Hamlet?", "What is 2 + 2?", "Say hello.",
    "Why is the sky blue?", "What do bees make?", "Translate 'cat' into Spanish.", "What is water made of?",
    "Write a short poem about the sea.", "How many legs has a spider?", "What is the opposite of hot?",
    "Who was Albert Einstein?", "Give me a recipe for soup.", "What is Python?", "List the seasons.",
    "What language do they speak in Brazil?", "Tell me a joke.", "How do I boil an egg?", "Quelle heure est-il ?",
]  # fmt: skip


def same_as_native(adapter: Adapter, prompts: list[str], max_tokens: int) -> None:
    engine = Engine(Mind(adapter, Identity()), decoding=Decoding(max_tokens=max_tokens))
    try:
        for prompt in prompts:
            engine.start()
            made = engine.reply(prompt).generated.tokens
            asked = engine.conversation.tokens[: -len(made)] if made[-1] not in adapter.format.stop_ids else None
            native = adapter.generate_native(asked or _asked(adapter, prompt), max_tokens)
            assert made == native, prompt
    finally:
        engine.close()


def _asked(adapter: Adapter, prompt: str) -> list[int]:

    return adapter.format.prompt_tokens(prompt)


@on_small
def test_identity_gives_the_tokens_of_the_backends_own_generate(adapter: Adapter) -> None:
    same_as_native(adapter, PROMPTS[:4], 16)


@on("torch", "llama_cpp")
def test_identity_gives_the_tokens_of_generate_on_twenty_prompts(adapter: Adapter) -> None:
    assert len(PROMPTS) == 20
    same_as_native(adapter, PROMPTS, 16)


@pytest.mark.real
@pytest.mark.mlx
def test_identity_gives_the_tokens_of_mlx_generate(mlx_adapter: Adapter) -> None:
    same_as_native(mlx_adapter, PROMPTS[:3], 8)


# ---------------------------------------------------------------- other models
@pytest.fixture(scope="module", params=tiny.KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Adapter, Adapter]:
    """The same random weights on both backends."""
    need("torch")
    need("mlx_lm")
    source = tiny.source(tmp_path_factory.mktemp("tiny"), request.param)
    torch, mlx = (registry.load_adapter(backend, source, dtype="float32") for backend in ("torch", "mlx_lm"))
    return torch, mlx


@pytest.mark.slow
@pytest.mark.mlx
def test_both_backends_agree_on_every_kind_of_model(pair: tuple[Adapter, Adapter]) -> None:
    torch, mlx = pair
    assert torch.shape == mlx.shape and torch.format.hash == mlx.format.hash
    tokens = ids(torch)  # longer than Gemma's sliding window of 16
    a, b = (read(x, tokens)[0] for x in pair)
    close(a, b, atol=1e-3)
    for site in (torch.site(2), torch.site(1, "pre_attention"), torch.site(1, "mlp.down_proj")):
        with torch.tap(site, skewed(torch, -1.0)), mlx.tap(site, skewed(mlx, -1.0)):
            close(read(torch, tokens)[0], read(mlx, tokens)[0], atol=1e-3)
    lesson = "What is it? It is a thing that thinks."
    made = [x.generate_native(_asked(x, lesson), 10) for x in pair]
    assert made[0] == made[1]


@pytest.mark.slow
@pytest.mark.mlx
def test_every_kind_of_model_runs_in_parts_and_as_its_own_generate(pair: tuple[Adapter, Adapter]) -> None:
    for adapter in pair:
        tokens = ids(adapter, TEXT * 2)
        whole, _ = read(adapter, tokens)
        _, cache = read(adapter, tokens[:, :20])
        close(read(adapter, tokens[:, 20:], cache)[0], whole[:, 20:])
        h = adapter.hidden(tokens[:, 20:], 3, cache)
        close(numbers(adapter, adapter.upper(tokens[:, 20:], h, 3, cache)), whole[:, 20:])
        same_as_native(adapter, PROMPTS[6:7], 16)


@pytest.mark.real
def test_gemma_reads_beyond_its_window_as_generate_does() -> None:
    gemma = load("torch", "gemma-3-270m")
    assert gemma.format.plain and _asked(gemma, "x")[:1] == [2], "without <bos> it talks nonsense"  # type: ignore
    same_as_native(gemma, ["What is the capital of France?"], 8)
    long = "Bees make honey. Birds build nests. " * 70 + "What do bees make?"
    assert len(_asked(gemma, long)) > 520
    same_as_native(gemma, [long], 4)


@pytest.mark.real
@pytest.mark.mlx
def test_gemma_runs_on_mlx() -> None:
    gemma = load("mlx_lm", "gemma-3-270m")
    engine = Engine(Mind(gemma, Identity()), decoding=Decoding(max_tokens=4))
    try:
        assert "Paris" in engine.reply("What is the capital of France?").text
    finally:
        engine.close()
