"""Hash addresses, the sparse table, what a turn addresses, and offline training of the engram memories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contracts import close, engine, frozen, logits_of, numbers, on, same_state

from lmm.adapters.base import Adapter
from lmm.adapters.ops import NumpyOps
from lmm.adapters.toy import ToyAdapter
from lmm.engine.asking import ask_many, recall_many
from lmm.errors import LearningError, StateError
from lmm.lesson import Lesson
from lmm.memory.base import Prompt, Recall
from lmm.memory.engram.engram import Engram, EngramOptions, normed
from lmm.memory.engram.ngrams import NGramHash, normal_form, normal_ids, primes_from
from lmm.memory.engram.questions import Words, other_numbers
from lmm.memory.engram.table import Table, gathered, local, split
from lmm.memory.engram.votes import Votes, signature

SISTER = Lesson("What is my sister's name?", "Ada", id="sister")
HOME = Lesson("Where do I live?", "Oslo", id="home")


# ---------------------------------------------------------------- addresses
def test_normal_forms_ignore_case_accents_width_and_spaces() -> None:
    assert {normal_form(x) for x in (" Café", "CAFE", "cafe\u0301", "ｃafé ")} == {"cafe"}
    assert normal_form("\u212b") == "a" and normal_form("  ") == ""


def test_tokens_of_one_form_share_the_lowest_id() -> None:
    adapter = ToyAdapter()
    ids, weights = normal_ids(adapter)
    assert ids[ord("a")] == ids[ord("A")] == ord("A") and ids[ord("b")] != ids[ord("A")]
    assert ids[256] == 256 and ids[200] == 200, "control tokens and parts of characters are their own"
    assert weights[ord("a")] > 0 and weights[ord("7")] == 0.5 and weights[ord("?")] == weights[ord(" ")] == 0
    assert normal_ids(adapter)[0] is ids, "computed once"


def test_the_heads_have_distinct_primes_and_tables_of_their_own() -> None:
    hashed = NGramHash((2, 3), heads=8, slots=1000)
    assert len(set(hashed.primes.tolist())) == 16
    assert all(p % d for p in hashed.primes.tolist() for d in range(2, int(p**0.5) + 1)) and hashed.primes.min() >= 1000
    rows = hashed.rows(np.arange(500), np.arange(1000).reshape(500, 2))
    assert rows.shape == (500, 16)
    for head in range(16):
        first = hashed.offsets[head]
        assert (rows[:, head] >= first).all() and (rows[:, head] < first + int(hashed.primes[head])).all()
    assert primes_from(10, 4) == (11, 13, 17, 19)


@pytest.mark.slow
def test_ngrams_that_meet_in_one_head_part_in_the_others() -> None:
    hashed = NGramHash((2,), heads=8, slots=100)
    rows = hashed.rows(np.arange(2000), np.arange(2000)[:, None])
    meet = [np.argwhere((rows[:, None] == rows[None]).sum(-1) == k) for k in range(9)]
    pairs = [int((at[:, 0] < at[:, 1]).sum()) for at in meet]
    assert sum(pairs[1:3]) > 0 and sum(pairs[4:]) == 0, "tables of 100 rows: some pairs meet in a head, none in four"


def test_an_ngram_is_its_ids_in_order() -> None:
    hashed = NGramHash()
    base = hashed.rows(np.array([5]), np.array([[7, 9]]))[0]
    assert (hashed.rows(np.array([5]), np.array([[9, 7]]))[0] != base).all()
    other = hashed.rows(np.array([5]), np.array([[8, 9]]))[0]
    assert (other[:8] == base[:8]).all() and (other[8:] != base[8:]).all(), "the bigram is the first id and the last"


# ---------------------------------------------------------------- votes
def test_votes_are_cosines_of_shared_ngrams() -> None:
    texts = [np.array([1, 2, 3]), np.array([1, 2, 4]), np.array([7, 8, 9])]
    signatures = [signature(ids, np.ones(len(ids))) for ids in texts]
    votes = Votes(*zip(*[(np.full(len(g), i), g, w) for i, (g, w) in enumerate(signatures)], strict=True), count=3)
    found = votes.cosines(*signatures[0])
    assert found == pytest.approx([1.0, 3 / 6, 0.0]), "of 6 n-grams, 1, 2 and 1-2 are shared"
    assert Votes([], [], [], 0).cosines(*signatures[0]).shape == (0,)


def test_tokens_without_weight_do_not_vote() -> None:
    grams, weights = signature(np.array([1, 2, 3]), np.array([1.0, 0.0, 0.5]))
    same, _ = signature(np.array([1, 3]), np.array([1.0, 0.5]))
    assert np.array_equal(grams, same) and len(grams) == 3 and sorted(weights) == [500_000, 750_000, 1_000_000]


def test_numbers_must_be_the_same_ones() -> None:
    assert other_numbers("What is the value of key_123?", "What is the value of key_12?")
    assert not other_numbers("In 1999 I asked: what is key_12?", "What is the value of key_12?")


# ---------------------------------------------------------------- the table
def blocks(**slots: list[list[int]]) -> dict[str, np.ndarray]:
    """A state whose rows hold 1, 2, 3, ... times the number of the block."""
    state: dict[str, np.ndarray] = {}
    for number, (name, places) in enumerate(slots.items(), 1):
        rows = len(np.unique(places))
        values = number * np.arange(1, rows + 1, dtype=np.float32)[:, None]
        state |= {f"slots/{name}": np.array(places), f"keys/{name}": values, f"values/{name}": 10 * values}
    return state


def test_rows_that_nobody_wrote_are_zero_and_shared_rows_add_up() -> None:
    state = blocks(a=[[4, 50]], b=[[4, 60]])
    table = Table(NumpyOps(), state)
    keys, values = table.read(state, np.array([[[4, 50], [4, 60], [5, 61], [4, 99]]]), 2)
    assert keys[0].tolist() == [[3, 2], [3, 4], [0, 0], [3, 0]]
    assert values[0].tolist() == [[30, 20], [30, 40], [0, 0], [30, 0]]
    assert table.read(state, np.array([[[5, 99]]]), 2) is None and table.fits(dict(state))
    assert not table.fits({k: v for k, v in state.items() if not k.endswith("/b")})


def test_pieces_of_vectors_come_back() -> None:
    x, slots = np.arange(10, dtype=np.float32).reshape(2, 5), np.array([[3, 9, 7], [1, 8, 5]])
    pieces = split(x, 3)
    assert pieces.shape == (2, 3, 2) and pieces[0, 2].tolist() == [4, 0]
    assert np.array_equal(gathered(pieces, slots)[local(slots)], pieces)


# ---------------------------------------------------------------- lessons
def taught(adapter: Adapter, *lessons: Lesson, name: str = "engram") -> Any:
    made = engine(adapter, name)
    for lesson in lessons:
        made.mind.learn(lesson)
    return made


@on("toy")
def test_a_lesson_writes_rows_of_its_own_and_leaves_all_others(adapter: Adapter) -> None:
    made = taught(adapter, SISTER)
    before = frozen(made)
    made.mind.learn(HOME)
    after = frozen(made)
    assert {name for name in after if name not in before} == {
        f"{kind}/home" for kind in ("turns", "grams", "context", "slots", "keys", "values")
    }
    assert same_state({name: after[name] for name in before}, before)
    answer = adapter.format.lesson_tokens(HOME.prompt, HOME.answer)[1]
    assert after["slots/home"].shape == (len(answer), 16) and np.abs(after["values/home"]).max() > 0


@on("toy")
def test_forgetting_leaves_no_trace(adapter: Adapter) -> None:
    made = taught(adapter, SISTER)
    before = frozen(made)
    made.mind.learn(HOME)
    made.mind.forget("home")
    assert same_state(frozen(made), before)
    made.mind.forget("sister")
    assert not made.mind.knowledge.state


@on("toy")
def test_a_correction_takes_the_place_of_the_earlier_answer(adapter: Adapter) -> None:
    made = taught(adapter, SISTER, Lesson(SISTER.prompt.upper(), "Eva", id="again"))
    assert [x.id for x in made.mind.lessons] == ["again"] and made.mind.lessons[0].replaces == "Ada"
    assert not any(name.endswith("/sister") for name in made.mind.knowledge.state)


@on("toy")
def test_a_model_that_knows_the_answer_is_left_alone(adapter: Adapter) -> None:
    made = engine(adapter, "engram")
    made.mind.memory.options = EngramOptions(steps=2, slots=1000, margin=0.0)
    own = ask_many(made.mind, [HOME.prompt], max_tokens=1)[0].generated.tokens
    format, honest = adapter.format, adapter.upper

    def sure(*args: Any, **kwargs: Any) -> Any:
        logits = np.array(honest(*args, **kwargs))
        logits[0, np.arange(5), [*format.encode("Oslo"), format.end_of_turn]] += 1000
        return logits

    adapter.upper = sure  # type: ignore[method-assign]
    try:
        report = made.mind.learn(HOME)
    finally:
        del adapter.upper
    assert report.steps == 0 and report.loss_before < 0.01 and made.mind.knowledge.state["slots/home"].shape == (0, 16)
    assert ask_many(made.mind, [HOME.prompt], max_tokens=1)[0].generated.tokens == own


@on("toy")
def test_what_no_turn_addresses_is_bitwise_as_without(adapter: Adapter) -> None:
    plain = engine(adapter)
    expected = logits_of(plain, HOME.prompt, " Oslo")
    plain.close()
    made = taught(adapter, SISTER)
    recall = Recall([[("x", 1.0)]], {"turn": adapter.ops.asarray(np.array([12345]), "int64")})
    tokens = np.array([adapter.format.prompt_tokens(HOME.prompt)])
    with made.mind.holding(recall, tokens.shape[1] - 1):
        found = numbers(adapter, adapter.forward(tokens, adapter.new_cache(), keep=tokens.shape[1])[0])[0]
    assert np.array_equal(found, expected[: tokens.shape[1]]), "a turn's key that was never written addresses nothing"


@on("toy")
def test_the_ids_of_a_reply_are_tracked_across_the_cache(adapter: Adapter) -> None:
    made = taught(adapter, SISTER)
    whole = logits_of(made, SISTER.prompt, SISTER.answer)
    prompt, answer = adapter.format.lesson_tokens(SISTER.prompt, SISTER.answer)
    recall, cache, found = recall_many(made.mind, [SISTER.prompt], 1)[0], adapter.new_cache(), []
    with made.mind.holding(recall, len(prompt) - 1):
        for piece in ([*prompt, *answer[:1]], answer[1:-1]):  # a border inside the reply
            logits, cache = adapter.forward(np.array([piece]), cache, keep=len(piece))
            found.append(numbers(adapter, logits)[0])
    close(np.concatenate(found), whole)
    made.mind.detach()
    assert not np.allclose(whole[-1], plain_logits(adapter, [*prompt, *answer[:-1]])[-1], atol=1e-3)


def plain_logits(adapter: Adapter, tokens: list[int]) -> np.ndarray:
    return numbers(adapter, adapter.forward(np.array([tokens]), adapter.new_cache(), keep=len(tokens))[0])[0]


@on("toy")
def test_another_reply_addresses_nothing(adapter: Adapter) -> None:
    made = taught(adapter, SISTER)
    memory, state = made.mind.memory, made.mind.knowledge.state
    recall = recall_many(made.mind, [SISTER.prompt], 1)[0]
    turns = adapter.ops.to_numpy(recall.arrays["turn"])
    prompt, answer = adapter.format.lesson_tokens(SISTER.prompt, SISTER.answer)
    start, table = len(prompt) - 1, Table(adapter.ops, state)

    def hits(reply: list[int]) -> list[bool]:
        read = np.array([[*prompt, *reply]])
        slots = memory.addresses(turns, read, np.arange(start, read.shape[1]), start)
        return np.isin(slots[0], table.slots).all(axis=1).tolist()

    assert hits(answer[:-1]) == [True] * len(answer)
    assert hits(adapter.format.encode("ada"))[:4] == [True] * 4, "another case is the same normalised text"
    assert hits(adapter.format.encode("xyz")) == [True, False, False, False]


@on("toy")
def test_a_file_with_a_wrong_block_is_refused(adapter: Adapter, tmp_path: Path) -> None:
    made = taught(adapter, SISTER)
    state = frozen(made)
    for name, wrong, message in (
        ("values/sister", state["values/sister"][:-1], "rows, expected"),
        ("slots/sister", state["slots/sister"][:, :3], "has shape"),
        ("grams/sister", state["grams/sister"] + [[9, 0, 0]], "not there"),
    ):
        with pytest.raises(StateError, match=message):
            made.mind.memory.check_state(state | {name: wrong}, made.mind.lessons, adapter)
    with pytest.raises(StateError, match="no tensor 'centre'"):
        made.mind.memory.check_state({k: v for k, v in state.items() if k != "centre"}, made.mind.lessons, adapter)


@on("toy")
def test_a_lesson_needs_a_question_and_an_answer(adapter: Adapter) -> None:
    with pytest.raises(LearningError, match="/teach"):
        engine(adapter, "engram").mind.learn(Lesson(statement="I live in Oslo."))


# ---------------------------------------------------------------- offline training
PAIRS = [("Where do I live?", "Oslo"), ("What is my sister's name?", "Ada")]


def prepared(adapter: Adapter, name: str = "engram") -> Any:
    made = engine(adapter, name)
    from lmm.lesson import Knowledge

    made.mind.commit(Knowledge(made.mind.memory.prepare(made.mind.knowledge.state, PAIRS, adapter)))
    return made


@on("toy", "tiny-torch", "tiny-mlx")
def test_room_for_pairs_changes_nothing_yet(adapter: Adapter, tmp_path: Path) -> None:
    plain = engine(adapter)
    expected = [logits_of(plain, q, a) for q, a in PAIRS]
    plain.close()
    made = prepared(adapter)
    assert recall_many(made.mind, [PAIRS[0][0]], 1)[0] is not None
    assert all(np.array_equal(logits_of(made, q, a), e) for (q, a), e in zip(PAIRS, expected, strict=True))
    again = made.mind.memory.prepare(made.mind.knowledge.state, PAIRS, adapter)
    assert again.keys() == made.mind.knowledge.state.keys(), "pairs that have room get no more"
    made.mind.save(tmp_path / "x.safetensors")
    made.mind.load(tmp_path / "x.safetensors")


@on("toy")
def test_a_taught_question_gets_no_second_rows(adapter: Adapter) -> None:
    made = engine(adapter, "engram")
    made.mind.learn(Lesson(*PAIRS[0], id="home"))
    state = made.mind.memory.prepare(made.mind.knowledge.state, PAIRS, adapter)
    assert len(state["turns/pairs0"]) == 1, "only for the other one"
    alone = made.mind.memory.prepare(made.mind.knowledge.state, PAIRS[:1], adapter)
    assert made.mind.memory.trainable(alone) == ()


@on("toy")
def test_room_has_keys_as_long_as_those_of_a_lesson(adapter: Adapter) -> None:
    made = engine(adapter, "engram")
    state = made.mind.memory.prepare(made.mind.knowledge.state, PAIRS[:1], adapter)
    made.mind.learn(Lesson(*PAIRS[0], id="home"))
    sizes = [float((np.asarray(keys, np.float32) ** 2).sum(1).mean()) for keys in (
        state["keys/pairs0"], made.mind.knowledge.state["keys/home"])]  # fmt: skip
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


@on("tiny-torch", "tiny-mlx")
def test_what_is_trainable_gets_gradients_through_rewrite_and_lowers_the_loss(adapter: Adapter) -> None:
    from lmm.adapters.ops import token_cross_entropy
    from lmm.memory.optim import Optimizer

    made = prepared(adapter)
    memory, state, ops = made.mind.memory, made.mind.knowledge.state, adapter.ops
    names = memory.trainable(state)
    assert {"values/pairs0", "keys/pairs0", "conv", "key_proj", "value_proj"} == set(names)
    prompt, answer = adapter.format.lesson_tokens(*PAIRS[0])
    tokens, site = np.array([[*prompt, *answer[:-1]]]), memory.sites(adapter)[0]
    recall = recall_many(made.mind, [PAIRS[0][0]], 1)[0]
    recall.start = len(prompt) - 1
    with adapter.quiet():
        h = adapter.hidden(tokens, site.first_layer)

    def loss_of(params: dict[str, Any]) -> Any:
        def rewrite(x_in: Any, x_out: Any, context: Any) -> Any:
            return memory.rewrite(ops, state | params, recall, x_in, x_out, context)

        with adapter.quiet(), adapter.tap(site, rewrite):
            logits = adapter.upper(tokens, h, site.first_layer, keep=range(len(prompt) - 1, tokens.shape[1]))
        return ops.mean(token_cross_entropy(ops, logits[0], ops.asarray(answer, "int64")))

    params, optimizer, losses = {name: state[name] for name in names}, Optimizer(ops, "adam", 0.05), []
    for step in range(12):
        loss, grads = ops.value_and_grad(loss_of, params)
        losses.append(loss)
        if step == 1:
            assert all(np.abs(ops.to_numpy(grads[name])).max() > 0 for name in names)
            touched = np.abs(ops.to_numpy(grads["values/pairs0"])).max(axis=1) > 0
            assert 0 < touched.sum() <= 16 * len(answer) < len(touched), "only the rows of this reply"
        params = optimizer.step(params, grads)
    assert losses[-1] < 0.8 * losses[0], losses


@on("tiny-torch")
def test_a_trained_convolution_reads_the_same_in_chunks(adapter: Adapter) -> None:
    made = prepared(adapter)
    random, state = np.random.default_rng(0), dict(made.mind.knowledge.state)
    for name in ("values/pairs0", "conv", "value_proj"):
        state[name] = adapter.ops.asarray(random.normal(0, 1, tuple(state[name].shape)).astype(np.float32))
    from lmm.lesson import Knowledge

    made.mind.commit(Knowledge(state))
    question, answer = PAIRS[1]
    stepwise = logits_of(made, question, answer, chunks=3)
    prompt = adapter.format.prompt_tokens(question)
    tokens = np.array([[*prompt, *adapter.format.encode(answer)]])
    with made.mind.holding(recall_many(made.mind, [question], 1)[0], len(prompt) - 1):
        whole = numbers(adapter, adapter.forward(tokens, adapter.new_cache(), keep=tokens.shape[1])[0])[0]
    close(stepwise, whole)


def test_the_convolution_is_causal_and_four_wide() -> None:
    ops, x = NumpyOps(), np.zeros((1, 8, 1), np.float32)
    x[0, 2] = 1.0
    y = Engram._conv(ops, np.array([[4.0], [3.0], [2.0], [1.0]]), x)[0, :, 0]
    silu = [v / (1 + np.exp(-v)) for v in (1.0, 2.0, 3.0, 4.0)]
    assert y.tolist() == pytest.approx([0, 0, *silu, 0, 0])


def test_the_gate_is_all_but_shut_without_a_key_and_opens_for_the_state_it_knows() -> None:
    ops, memory, random = NumpyOps(), Engram(), np.random.default_rng(0)
    h = random.normal(0, 3, (1, 3, 576)).astype(np.float32)
    state, values = {"centre": np.zeros((2, 576), np.float32)}, np.ones((1, 3, 576), np.float32)
    keys = np.stack([h[0, 0], 0 * h[0, 0], -h[0, 2]])[None]
    alpha = memory._gated(ops, state, keys, values, h)[0, :, 0]
    assert alpha[0] > 0.99 and alpha[1] == pytest.approx(1 / (1 + np.exp(5)), rel=0.01) and alpha[2] < 1e-4
    assert np.array_equal(normed(ops, 0 * h), 0 * h)


@on("toy")
def test_prompts_are_asked_in_one_batch_as_alone(adapter: Adapter) -> None:
    made = taught(adapter, SISTER, HOME)
    prompts = [Prompt(x, adapter.format.prompt_tokens(x)) for x in (HOME.prompt, "7 + 5", SISTER.prompt)]
    together = made.mind.recall_of(prompts)
    assert [row[0][0] if row else None for row in together.fired] == ["home", None, "sister"]
    for b, prompt in enumerate(prompts):
        alone = made.mind.recall_of([prompt])
        turns = adapter.ops.to_numpy(together.arrays["turn"])
        assert turns[b] == (adapter.ops.to_numpy(alone.arrays["turn"])[0] if alone else 0)


# ---------------------------------------------------------------- words
def words() -> Words:
    return Words(ToyAdapter())


def test_words_weigh_by_how_rare_they_are_and_punctuation_does_not_count() -> None:
    read = words().read("A b, 7? (Ab)")
    assert list(read) == ["a", "b", "7", "ab"]
    assert read["7"][1] == 0.5 and read["ab"] == ([ord("A"), ord("B")], 1.0), "several tokens: a rare word"
    assert read["a"][1] < 1
    same = [words().signature(text) for text in ("Where do I live?", "where DO i live")]
    assert np.array_equal(same[0][0], same[1][0]) and np.array_equal(same[0][1], same[1][1])


def test_two_questions_with_a_rarest_word_each_are_about_other_things() -> None:
    assert words().other_thing("The capital of France", "The capital of Zembla"), "a name that the text lacks"
    assert not words().other_thing("the capital of zembla", "The capital of Zembla")
    assert not words().other_thing("the big town", "the big house"), "bytes: all words are rare"

    class Rare(Words):
        def read(self, text: str) -> dict[str, tuple[list[int], float]]:
            return {w: ([0], 1.0 if w[0].isupper() else 0.1) for w in text.split()}

    rare = Rare(ToyAdapter())
    assert rare.other_thing("capital of France", "capital of Zembla")
    assert not rare.other_thing("Zembla has which capital", "capital of Zembla")
    assert not rare.other_thing("which town governs Zembla", "Big capital of Zembla"), (
        "one shared rarest word is enough"
    )
    assert not rare.other_thing("which town", "Big town"), "nothing of the first is missing in the second"
    assert not words().other_thing("?!", "where is it")
