"""`external`: what is said is stored once it is answered, found again, and gone when it is forgotten."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from contracts import engine
from hypothesis import given, settings
from hypothesis import strategies as st

from lmm.adapters.toy import ToyAdapter
from lmm.engine import memory_files
from lmm.engine.asking import recall_many
from lmm.engine.engine import Engine
from lmm.engine.keeper import Keeper
from lmm.engine.mind import Mind
from lmm.errors import StateError
from lmm.files import journal, safefile, state_file
from lmm.lesson import TALK, TURN, Knowledge, Lesson
from lmm.memory import general
from lmm.memory.composite import Composite
from lmm.memory.external import index
from lmm.memory.external.external import NUMBERS, External, ExternalOptions, said
from lmm.memory.external.head import Head
from lmm.memory.external.search import LEAST, QUERIES, Rows, nearest
from lmm.memory.external.store import Store

SAID = "My parrot is called Biscuit."
DOG = "My dog is called Biscuit."


# ---------------------------------------------------------------- in a chat
def test_a_turn_is_stored_once_it_is_answered_and_is_no_step_of_undo(toy: ToyAdapter) -> None:
    made = engine(toy, "external")
    made.mind.learn(Lesson("Where do I live?", "Oslo"))
    made.hear(SAID)
    assert [x.statement for x in made.mind.lessons] == [""], "not before the reply: it would find itself"
    for _ in made.answer():
        pass
    assert [x.statement for x in made.mind.lessons] == ["", SAID]
    made.mind.undo()
    assert [x.statement for x in made.mind.lessons] == [SAID]
    made.mind.redo()
    assert [x.statement for x in made.mind.lessons] == ["", SAID], "the lesson comes back, and the turn was never gone"


def test_what_is_not_to_be_learned_is_not_stored(toy: ToyAdapter) -> None:
    made = engine(toy, "external")
    made.hear(SAID, learn=False)
    list(made.answer())
    assert not made.mind.lessons


def test_what_is_near_a_text_is_found(toy: ToyAdapter) -> None:
    made = engine(toy, "external")
    made.reply(SAID)
    made.reply("Completely else?")
    ids = {x.id: x.statement for x in made.mind.lessons}
    found = made.mind.memory.near(made.mind.knowledge.state, "My parrot is called", toy)
    assert found and ids[found[0][0]] == SAID and found[0][1] >= found[-1][1]


def test_what_tells_something_is_shown_before_what_only_asks(toy: ToyAdapter, monkeypatch) -> None:
    """However near: as an exchange, the assistant's half from its own point of view. A question alone is shown where
    nothing else is near."""
    made = engine(toy, "external")
    for text in (
        "My sister lives in Bergen.",
        "where does my sister live",
        "I have got a cat called Tom, do you know a vet?",
    ):
        made.reply(text)
    lives, asks, cat = (x.id for x in made.mind.lessons)
    made.mind.learn(Lesson("Where do I live?", "Oslo"))
    lesson = made.mind.lessons[-1].id

    def shown(*near: str, show: int = 1) -> tuple[list[tuple[str, str]], list[str]]:
        made.mind.memory.options = ExternalOptions(show=show)
        scored = [(i, 0.9 - n / 10) for n, i in enumerate(near)]
        monkeypatch.setattr(made.mind.memory, "spans_near", lambda *given: scored)
        recall = recall_many(made.mind, ["What?"])[0]
        assert recall.fired == [scored], "all of them act"
        return [(note.said, note.echo) for note in recall.notes[0]], recall.text

    fact = ("My sister lives in Bergen.", "Your sister lives in Bergen.")
    assert shown(asks, lives) == ([fact], [""])
    assert shown(asks) == ([], ["where does my sister live"])
    assert shown(asks, lives, show=2) == ([fact], ["where does my sister live"])
    taught = ("Where do I live?", "Oslo")
    assert shown(lesson, asks, cat, lives, show=3)[0] == [
        fact, ("I have got a cat called Tom, do you know a vet?", "You have got a cat called Tom."), taught,
    ], "the best is the last"  # fmt: skip
    made.mind.learn(Lesson(statement="My brother is called Tom.", source=TURN))  # of a file of before
    assert shown(asks, made.mind.lessons[-1].id) == ([], ["My brother is called Tom."])


@pytest.mark.parametrize("name", ["external", "keyed+external", "external+notes"])
def test_behind_a_turn_that_is_no_longer_true_the_one_that_says_so_is_shown(toy: ToyAdapter, name: str) -> None:
    """And nothing is lost: the old one may tell more, and is forgotten by itself."""
    mind = Mind(toy, Composite.named(name) if "+" in name else External())
    made = Engine(mind)
    if "keyed" in name:
        mind.learn(Lesson("What is my dog called?", "Biscuit", statement=DOG, echo="Your dog is called Biscuit."))
    for text in (
        DOG,
        "My sister lives in Bergen.",
        "Do you know any good food for my dog?",
        "My dog is called Rex now.",
    ):
        made.reply(text)
    turns = [x for x in mind.lessons if x.source in (TURN, TALK)]
    assert [x.formerly for x in turns] == [(), (), (), (DOG,)]
    assert len(mind.lessons) == 4 + ("keyed" in name)
    mind.memory.check_state(dict(mind.knowledge.state), mind.lessons, toy)
    external = next(part for part in getattr(mind.memory, "parts", (mind.memory,)) if part.name == "external")
    said = {x.id: x for x in mind.lessons}
    dog, sister, food, rex = (x.id for x in turns)

    def shown(*near: str) -> list[str]:
        return [note.said for note in external._shown([(i, 0.9 - n / 10) for n, i in enumerate(near)], said)]

    assert shown(dog, food, rex) == [DOG, "My dog is called Rex now."], "the news are the last"
    assert shown(rex, dog) == ["My dog is called Rex now."] and shown(sister, rex) == ["My sister lives in Bergen."]
    assert shown(dog, food) == [DOG, "My dog is called Rex now."], "near or not"
    mind.forget(dog)
    assert next(x for x in mind.lessons if x.id == rex).formerly == ()
    made.close()


def test_what_is_said_again_is_stored_once(toy: ToyAdapter) -> None:
    made = engine(toy, "external")
    for _ in range(3):
        made.reply(SAID)
    assert len(made.mind.lessons) == 1


def test_tokens_and_turns_can_be_left_out(toy: ToyAdapter) -> None:
    made = engine(toy, "external")
    made.mind.memory.options = ExternalOptions(chunk_size=4, update_freq=2)
    made.reply("Hello!")
    assert not made.mind.lessons
    made.reply(SAID)
    [one] = made.mind.lessons
    assert toy.format.decode(made.mind.knowledge.state[f"tokens/{one.id}"][0]) == SAID[::4]


def test_a_turn_is_stored_as_the_model_read_it_in_the_conversation(toy: ToyAdapter) -> None:
    made = engine(toy, "external")
    made.reply("Hello!")
    made.reply(SAID)
    [one] = [x for x in made.mind.lessons if x.statement == SAID]
    state = made.mind.knowledge.state
    own, following = state[f"tokens/{one.id}"]
    assert toy.format.decode(own) == SAID and toy.format.decode(following[:-1]) == SAID[1:]
    number, sequence, start = state[f"at/{one.id}"].tolist()
    assert (number, sequence) == (2, 1) and start > 0
    read = np.array(made.conversation.tokens)
    keys = External(made.mind.memory.options)
    keys.sites(toy)
    with toy.quiet():
        whole = keys.keys(state, read, toy)
    [at] = [i for i in range(start, len(read)) if list(read[i : i + len(own)]) == own.tolist()]
    assert np.abs(whole[at : at + len(own)] - state[f"keys/{one.id}"]).max() < 2e-3


# ---------------------------------------------------------------- the table
@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 2)), min_size=1, max_size=30), st.integers(1, 40))
def test_every_key_that_is_found_belongs_to_its_value(turns: list[tuple[int, int]], size: int) -> None:
    """Across growth, eviction and spans that are forgotten in the middle; the key of a row is made from its token."""
    random, made = np.random.default_rng(0), External(ExternalOptions(size=size))
    vectors = random.normal(size=(1000, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    known, store, token = Knowledge({}), Store(8), 0
    for number, (length, forgotten) in enumerate(turns, 1):
        tokens = np.arange(token, token + length)
        token += length
        span = f"s{number}"
        arrays = {
            f"keys/{span}": vectors[tokens].astype(np.float16),
            f"tokens/{span}": np.stack([tokens, tokens + 1]),
            f"at/{span}": np.array([number, 1, 0]),
        }
        known = Knowledge(known.state | arrays, (*known.lessons, Lesson(statement=span, id=span)))
        known = made.within_size(known, store.ids)
        if forgotten == 2 and len(known.lessons) > 1:
            gone = known.lessons[len(known.lessons) // 2].id
            known = Knowledge(made.forget(known.state, gone), tuple(x for x in known.lessons if x.id != gone))
        store = store.follow(known.state)
        held = np.concatenate([known.state[f"tokens/{x.id}"][0] for x in known.lessons])
        assert len(store) == len(held) and (len(known.lessons) == 1 or len(held) <= size)
        cosines, rows = store.search(vectors[held], 1)
        assert np.array_equal(store.own(rows[:, 0]), held), "each is its own nearest"
        assert np.array_equal(store.next(rows[:, 0]), held + 1) and (cosines > 0.99).all()
        whose = [store.ids[i] for i in store.spans(rows[:, 0])]
        assert all(token in known.state[f"tokens/{span}"][0] for token, span in zip(held, whose, strict=True))


@given(st.integers(1, 300), st.integers(1, 12), st.integers(0, 5), st.sampled_from([0, 3, QUERIES, QUERIES + 1]))
def test_the_nearest_are_those_of_a_whole_sort(count: int, k: int, seed: int, asked: int) -> None:
    random = np.random.default_rng(seed)
    keys, queries = random.normal(size=(count, 4)).astype(np.float16), random.normal(size=(asked, 4)).astype(np.float32)
    found, rows = nearest(queries, [(0, keys)], k)
    products = queries @ keys.astype(np.float32).T
    assert np.allclose(found, -np.sort(-products, axis=1)[:, :k])
    assert np.allclose(np.take_along_axis(products, rows, 1), found)


def test_vectors_of_a_file_that_is_mapped_stay_in_it(toy: ToyAdapter, tmp_path: Path, monkeypatch) -> None:
    """Spans lie in the file in the order in which they were said, and are one block there; what comes later is beside
    it, and what is forgotten in the middle makes two blocks of it."""
    file, made, count = tmp_path / "m.safetensors", engine(toy, "external"), 3 * LEAST // 40
    state = dict(sorted(spans(count, width=toy.shape.width).items(), key=lambda item: len(item[0])))
    lessons = tuple(Lesson(statement=f"said {i}", id=f"s{i}") for i in range(count))
    made.mind.commit(Knowledge(state, lessons))
    made.mind.save(file)
    again = engine(toy, "external")
    monkeypatch.setattr(safefile, "MAPPED", 1)
    again.mind.load(file)
    memory, held = again.mind.memory, again.mind.knowledge.state
    assert all(not array.flags.writeable and np.array_equal(array, state[name]) for name, array in held.items())
    store = memory.store(held)
    assert [np.shares_memory(block, held["keys/s0"].base) for block in store._keys._blocks] == [True]
    queries = np.concatenate([state["keys/s7"], state["keys/s70"]]).astype(np.float32)
    before = made.mind.memory.store(state).search(queries, 4)
    assert all(np.array_equal(a, b) for a, b in zip(before, store.search(queries, 4), strict=True))
    again.reply(SAID)
    assert store is memory.store(again.mind.knowledge.state) and len(store._keys._blocks) == 2
    again.mind.forget("s38")
    store = memory.store(again.mind.knowledge.state)
    assert len(store._keys._blocks) == 3 and "s38" not in store.ids
    assert [store.ids[i] for i in store.spans(store.search(queries[:1], 1)[1][:, 0])] == ["s7"]


def test_the_head_says_which_direction_makes_a_token_likelier(toy: ToyAdapter) -> None:
    h = np.random.default_rng(1).normal(size=(1, 1, toy.shape.width)).astype(np.float32)
    size = np.sqrt((h**2).mean())
    for token in (65, 200):
        more = h + 0.01 * size * Head(toy).rows(np.array([token]))
        before, after = (toy.upper(np.array([[0]]), x, toy.shape.layers)[0, 0] for x in (h, more))
        assert (after - before).argmax() == token


def test_the_head_is_the_output_layer_with_the_gain_of_the_norm_before_it(tiny_torch) -> None:
    model = tiny_torch.model
    weight, gain = (part.weight.detach().numpy() for part in (model.lm_head, model.model.norm))
    assert np.allclose(Head(tiny_torch).matrix, weight * gain, atol=2e-3)


def test_states_are_compared_with_every_channel_at_its_usual_size(toy: ToyAdapter) -> None:
    site = External().sites(toy)[0]
    mean, deviation = general.centre(toy, site)
    usual = (general.general_states(toy, site) - mean) / deviation
    assert np.allclose(usual.mean(0), 0, atol=1e-3) and np.allclose(usual.std(0), 1, atol=1e-3)


def test_a_sum_is_about_no_number_that_was_said(tiny_torch) -> None:
    """What a message is about is weighed by the words that the sentences with numbers have not."""
    made = External()
    state = {"centre": general.centre(tiny_torch, made.sites(tiny_torch)[0])}
    known = made.stored(Knowledge(state), Lesson(statement="43"), said(Lesson(statement="43"), tiny_torch), tiny_torch)
    [number] = NUMBERS[:1]
    assert not made.near(known.state, number, tiny_torch), "all of it is in a sentence with numbers: it has no weight"


# ---------------------------------------------------------------- files
def test_forgetting_leaves_no_byte(toy: ToyAdapter, tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    made = engine(toy, "external")
    Keeper(made.mind, file)
    made.reply("Hello!")
    made.reply(SAID)
    [one] = [x for x in made.mind.lessons if x.statement == SAID]
    vectors = made.mind.knowledge.state[f"keys/{one.id}"].tobytes()
    assert b"Biscuit" in journal.path_of(file).read_bytes()
    made.mind.forget(one.id)
    made.close()
    left = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"Biscuit" not in left and one.id.encode() not in left and vectors[:64] not in left
    assert [x.statement for x in state_file.read_header(file).lessons] == ["Hello!"]


def test_each_of_two_chats_has_a_number_of_its_own(tmp_path: Path) -> None:
    """Turns of one that follow each other have one number, whatever is said elsewhere in between."""
    chats = [engine(ToyAdapter(), "external") for _ in range(2)]
    for chat in chats:
        Keeper(chat.mind, tmp_path / "m.safetensors")
    for n in range(3):
        for name, chat in zip("ab", chats, strict=True):
            chat.reply(f"From {name}, message {n}")
    chats[0].start()
    chats[0].reply("From c, message 0")
    chats[1].mind.look()
    state = chats[1].mind.knowledge.state
    numbers = {x.statement[5]: set[int]() for x in chats[1].mind.lessons}
    for lesson in chats[1].mind.lessons:
        numbers[lesson.statement[5]].add(int(state[f"at/{lesson.id}"][1]))
    assert numbers == {"a": {1}, "b": {2}, "c": {3}}
    assert len({int(a[0]) for name, a in state.items() if name.startswith("at/")}) == 7


def test_two_files_become_one_in_the_order_in_which_things_were_said(toy: ToyAdapter, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.safetensors" for name in "ab"]
    for file, texts in zip(files, (("Hello!", SAID), ("Good morning!", "I live in Oslo.")), strict=True):
        made = engine(ToyAdapter(), "external")
        for n, text in enumerate(texts):
            lesson = Lesson(statement=text, time=100.0 * n + (file is files[1]))
            made.mind.end_turn(lesson, said(lesson, made.adapter))
        made.mind.save(file)
    arrays, header = memory_files.merged(*files)
    at = {x.statement: arrays[f"at/{x.id}"].tolist() for x in header.lessons}
    assert {text: numbers[0] for text, numbers in at.items()} == {
        "Hello!": 1, "Good morning!": 2, SAID: 3, "I live in Oslo.": 4,
    }  # fmt: skip
    assert {numbers[1] for numbers in at.values()} == {1, 2, 3, 4}, "no two conversations are one"


def test_a_file_with_tokens_that_the_model_does_not_know_is_refused(toy: ToyAdapter) -> None:
    made = engine(toy, "external")
    made.reply(SAID)
    [one] = made.mind.lessons
    arrays = dict(made.mind.knowledge.state)
    arrays[f"tokens/{one.id}"] = arrays[f"tokens/{one.id}"] + 260
    with pytest.raises(StateError, match="tokens"):
        made.mind.memory.check_state(arrays, [one], toy)


def test_it_can_be_one_of_several(toy: ToyAdapter) -> None:

    mind = Mind(toy, Composite.named("keyed+external", {"keyed.steps": 2}))
    mind.learn(Lesson("Where do I live?", "Oslo"))
    mind.end_turn(Lesson(statement=SAID), said(Lesson(statement=SAID), toy))
    held = [x.statement for x in mind.lessons if f"external:keys/{x.id}" in mind.knowledge.state]
    assert held == [SAID] and len(mind.lessons) == 2
    mind.detach()


# ---------------------------------------------------------------- the index
needs_faiss = pytest.mark.skipif(not index.available, reason="faiss is not installed: pip install 'lmm[faiss]'")


def spans(count: int, length: int = 40, width: int = 16) -> dict[str, np.ndarray]:
    """A state of so many spans of unit vectors."""
    random = np.random.default_rng(3)
    state: dict[str, np.ndarray] = {"centre": np.stack([np.zeros(width), np.ones(width)]).astype(np.float32)}
    for i in range(count):
        keys = random.normal(size=(length, width))
        keys /= np.linalg.norm(keys, axis=1, keepdims=True)
        state[f"keys/s{i}"] = keys.astype(np.float16)
        state[f"tokens/s{i}"] = np.stack([np.arange(length), np.arange(length) + 1])
        state[f"at/s{i}"] = np.array([i + 1, 1, 0])
    return state


def indexed(state: dict[str, np.ndarray]) -> Store:
    store = Store(16)
    store.indexed.flat = 1000
    store.follow(state).search(state["keys/s0"].astype(np.float32), 1)
    store.indexed.wait()
    return store


@pytest.mark.slow
@needs_faiss
def test_the_index_finds_what_comparing_all_finds_while_spans_come_and_go() -> None:
    whole = spans(80)
    store = indexed({name: a for name, a in whole.items() if name == "centre" or int(name.partition("/s")[2]) < 40})
    assert store.indexed.index is not None
    for first, last in ((0, 40), (5, 60), (30, 80), (55, 80)):
        left = {n: a for n, a in whole.items() if n == "centre" or first <= int(n.partition("/s")[2]) < last}
        store = store.follow(left)
        queries = np.concatenate([a for n, a in left.items() if n.startswith("keys/")]).astype(np.float32)
        cosines, rows = store.search(queries, 4)
        exact, _ = nearest(queries, [(0, queries.astype(np.float16))], 4)
        assert np.mean(np.abs(cosines - exact) < 1e-3) > 0.95 and (rows >= 0).all()
        mine = np.array([store.keys(int(s))[0] for s in store.spans(rows[:, 0])])
        assert np.isfinite(mine).all() and np.array_equal(store.ids, [f"s{i}" for i in range(first, last)])
        store.indexed.wait()


@needs_faiss
def test_however_long_a_message_is_few_candidates_are_held_at_once(monkeypatch) -> None:
    """28 MB of them, where a message of a thousand tokens would make gigabytes."""
    state, held, take = spans(40), list[int](), Rows.take
    store = indexed(state)
    queries = np.concatenate([state[f"keys/s{n % 40}"] for n in range(80)]).astype(np.float32)
    monkeypatch.setattr(Rows, "take", lambda rows, which: held.append(np.size(which)) or take(rows, which))
    cosines, rows = store.search(queries, 3)
    assert len(rows) == len(queries) > 10 * index.AT_ONCE and len(held) > 10
    assert max(held) <= index.AT_ONCE * index.MORE
    monkeypatch.undo()
    some = [store.search(part, 3) for part in np.array_split(queries, 7)]
    assert np.array_equal(cosines, np.concatenate([c for c, _ in some]))
    assert np.array_equal(rows, np.concatenate([r for _, r in some]))


@needs_faiss
def test_an_index_of_rows_that_are_all_gone_is_not_asked() -> None:
    old, new = (np.concatenate([a for n, a in spans(count).items() if n.startswith("keys/")]) for count in (8, 2))
    indexed, rows = index.Indexed(flat=100), Rows(16)
    rows.add([old])
    indexed.grow(rows)
    indexed.wait()
    assert indexed.index is not None and indexed.index.end == len(old)
    indexed.flat = 1000
    rows.add([new])
    rows.drop(len(old))
    cosines, found = indexed.search(new[:5].astype(np.float32), rows, 3)
    exact, at = nearest(new[:5].astype(np.float32), [(len(old), new)], 3)
    assert np.array_equal(cosines, exact) and np.array_equal(found, at)


@needs_faiss
def test_an_index_is_taken_over_only_by_the_spans_it_is_of() -> None:
    state = spans(40)
    data = indexed(state).index_to_bytes()
    assert data is not None
    assert Store(16).follow(state).index_from_bytes(data)
    assert Store(16).follow(spans(50)).index_from_bytes(data), "what came later is searched beside it"
    less = {name: a for name, a in state.items() if not name.endswith("/s7")}
    assert not Store(16).follow(less).index_from_bytes(data)
    assert not Store(16).follow(state).index_from_bytes(data[:-9])


@needs_faiss
def test_the_index_lies_beside_the_file_and_goes_when_something_is_forgotten(toy: ToyAdapter, tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    made = engine(toy, "external")
    state = spans(40, width=toy.shape.width)
    made.mind.commit(Knowledge(state, tuple(Lesson(statement=f"said {i}", id=f"s{i}") for i in range(40))))
    store = made.mind.memory.store(made.mind.knowledge.state)
    store.indexed.flat = 1000
    store.search(state["keys/s0"].astype(np.float32), 1)
    store.indexed.wait()
    made.mind.save(file)
    assert journal.beside_of(file).exists()
    again = engine(toy, "external")
    again.mind.load(file)
    assert again.mind.memory.store(again.mind.knowledge.state).indexed.index is not None
    written = journal.beside_of(file).stat()
    again.mind.save_beside(file)
    assert journal.beside_of(file).stat().st_ino == written.st_ino, "what is there already is not written anew"
    journal.beside_of(file).write_bytes(journal.beside_of(file).read_bytes()[:-1])
    third = engine(toy, "external")
    third.mind.load(file)
    assert third.mind.memory.store(third.mind.knowledge.state).indexed.index is None, "made again, not trusted"
    memory_files.forget(file, "s7")
    assert not journal.beside_of(file).exists()


def test_a_file_shows_what_is_near_a_text(toy: ToyAdapter, tmp_path: Path, monkeypatch, capsys) -> None:
    from lmm.cli import memory as command
    from lmm.engine import runtime

    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'lmm[bench]'")
    file, mind = tmp_path / "m.safetensors", Mind(toy, Composite.named("lm2+external", {"lm2.steps": 1}))
    mind.end_turn(Lesson(statement=SAID, source="turn"), said(Lesson(statement=SAID), toy))
    mind.save(file)
    mind.detach()
    monkeypatch.setattr(runtime, "_load_for_conversation", lambda *given: toy)
    monkeypatch.setattr(runtime, "check", lambda config: None)
    command.show(file, around="My parrot is called", png=tmp_path / "m.png", as_json=False)
    shown = capsys.readouterr().out
    assert SAID in shown and "slots" in shown and "gate" in shown and (tmp_path / "m.png").stat().st_size > 1000


def test_a_composition_begins_with_the_trained_slots_of_one_part(toy: ToyAdapter, tmp_path: Path) -> None:
    """What was said to the other part is in no such file, so a file that knows something is refused."""
    from lmm.memory.lm2.lm2 import Lm2

    file, trained = tmp_path / "slots.safetensors", Mind(toy, Lm2(Lm2.build_options({"steps": 1})))
    trained.commit(Knowledge(trained.knowledge.state | {"gate_bias": toy.ops.zeros((1,)) + 3.0}))
    trained.save(file)
    trained.detach()
    both = Mind(toy, Composite.named("lm2+external", {"lm2.steps": 1}))
    both.load(file)
    assert float(both.knowledge.state["lm2:gate_bias"][0]) == 3.0
    both.end_turn(Lesson(statement=SAID, source="turn"), said(Lesson(statement=SAID), toy))
    assert any(name.startswith("external:") for name in both.knowledge.state)
    both.detach()
    trained.learn(Lesson(prompt="sun", answer="star"))
    trained.save(file)
    with pytest.raises(StateError, match="does not fit"):
        Mind(toy, Composite.named("lm2+external", {"lm2.steps": 1})).load(file)
