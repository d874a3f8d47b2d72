"""One user's memory: memorize, recall, correct, forget, in the library and on the command line; and its encoders."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import json
import logging
import os
import shutil
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from lmm import registry
from lmm.adapters.base import Adapter
from lmm.adapters.models import digest
from lmm.adapters.toy import ToyAdapter
from lmm.cli.app import app
from lmm.encoders import load_encoder
from lmm.encoders.minilm import shared_encoder
from lmm.encoders.sentences import MiniLM, SentenceEncoder, States, _told_of_what_works
from lmm.errors import ModelError, StoreError, UnknownNameError, UsageError
from lmm.store.base import Memo
from lmm.store.checks import LARGEST, LONGEST
from lmm.store.memory import InMemory
from lmm.store.opening import default_store
from lmm.store.personal import PersonalMemory

pytestmark = pytest.mark.slow  # databases, and encoders of folders

FACTS = [
    "My sister is called Vera and lives in Graz.",
    "The spare key is under the blue flower pot.",
    "I am allergic to peanuts.",
    "The car was last serviced in March.",
    "Tom's birthday is on the ninth of May.",
    "The wifi password is on the fridge.",
]


class Counting(MiniLM):
    """Says how many texts it has read."""

    read = 0

    def vectors(self, texts, max_length):
        self.read += len(texts)
        return super().vectors(texts, max_length)


@pytest.fixture
def memory() -> PersonalMemory:
    return PersonalMemory(InMemory(), Counting())


# ---- the library


def test_what_was_memorized_is_recalled(memory: PersonalMemory) -> None:
    for fact in FACTS:
        memory.memorize(fact, context="a talk", metadata={"n": len(fact)})
    for query, fact in [
        ("Where is the key for the house?", FACTS[1]),
        ("Which food must I avoid?", FACTS[2]),
        ("When was Tom born?", FACTS[4]),
        ("vera", FACTS[0]),
    ]:
        found = memory.recall(query, top_k=2)
        assert found[0].memo.text == fact and len(found) == 2
    assert found[0].memo.context == "a talk" and found[0].memo.metadata == {"n": len(FACTS[0])}
    assert memory.recall("", 5) == [] and memory.recall("key", 0) == []
    assert [x.text for x in memory.list()] == FACTS and len(memory) == len(FACTS)


def test_a_text_is_embedded_once(memory: PersonalMemory) -> None:
    id = memory.memorize(FACTS[0])
    assert memory.encoder.read == 1
    memory.list(), memory.history(id), memory.get(id), memory.forget(id)
    assert memory.recall("anything") == [] and memory.encoder.read == 1


def test_an_update_supersedes_with_history(memory: PersonalMemory) -> None:
    id = memory.memorize(FACTS[0], context="a talk", metadata={"a": 1}, about="sister")
    new = memory.update(id, "My sister lives in Linz.")
    assert [x.text for x in memory.history(new)] == [FACTS[0], "My sister lives in Linz."]
    assert [x.memo.text for x in memory.recall("Where does my sister live?")] == ["My sister lives in Linz."]
    now = memory.get(new)
    assert (now.context, now.metadata, now.about, now.replaces) == ("a talk", {"a": 1}, "sister", id)
    assert memory.memorize("She lives in Wels.", about="sister") != new and len(memory) == 1
    for wrong in (lambda: memory.update("nope", "x"), lambda: memory.history("nope"), lambda: memory.get("nope")):
        with pytest.raises(UsageError, match="no entry 'nope'"):
            wrong()


def test_users_know_nothing_of_each_other(memory: PersonalMemory) -> None:
    other = memory.of("other")
    id = memory.memorize(FACTS[0])
    assert other.recall("Vera") == [] and other.list() == [] and other.forget(id) == 0 and len(memory) == 1
    assert other.memorize(FACTS[0]) != id
    with pytest.raises(UsageError):
        memory.of("x" * 201)


def test_times_narrow_a_recall(memory: PersonalMemory) -> None:
    for day, fact in enumerate(FACTS):
        memory.memorize(fact, time=float(day), metadata={"odd": day % 2 == 1})
    assert {x.memo.text for x in memory.recall("key", 9, since=2, until=4)} == set(FACTS[2:4])
    assert [x.text for x in memory.list(since=4, metadata={"odd": True})] == [FACTS[5]]


def test_export_and_import_keep_all_of_it(memory: PersonalMemory, tmp_path: Path) -> None:
    ids = [memory.memorize(fact) for fact in FACTS]
    memory.update(ids[0], "My sister lives in Linz.")
    path = tmp_path / "out.jsonl"
    assert memory.export(path) == len(FACTS) + 1 and path.stat().st_mode & 0o777 == 0o600
    other = PersonalMemory(tmp_path / "new.sqlite", memory.encoder, user="other")
    assert other.import_(path) == len(FACTS) + 1 and other.import_(path) == 0
    assert [x.to_dict() for x in other.history(ids[0])] == [x.to_dict() for x in memory.history(ids[0])]
    assert other.recall("Which food must I avoid?")[0].memo.text == FACTS[2]


def test_an_import_says_what_it_did_not_take(memory: PersonalMemory, tmp_path: Path) -> None:
    path, said = tmp_path / "in.jsonl", list[str]()
    lines = [
        '{"text": "one", "id": "1", "replaced_by": "2"}',
        '{"text": "two", "id": "2", "replaces": "1"}',
        '{"text": "three", "id": "3", "replaced_by": "4"}',
        "",
        "no line of JSON",
        '{"text": "without an id"}',
        '{"text": "cut off',
    ]
    path.write_text("\n".join(lines))
    assert memory.import_(path, said.append) == 3 and memory.import_(path, said.append) == 0
    assert [x.text for x in memory.list()] == ["two", "without an id"]
    assert said[:2] == [
        f"2 lines of {path} could not be read",
        f"1 line of {path} left out: what they say was corrected, and the correction is gone",
    ]
    for wrong, what in (
        (['{"text": "a", "id": "a", "replaced_by": "b"}', '{"text": "b", "id": "b", "replaced_by": "a"}'], "circle"),
        (['{"text": "a", "id": "a", "replaces": "b"}', '{"text": "b", "id": "b", "replaces": "a"}'], "circle"),
    ):
        path.write_text("\n".join(['{"text": "good"}', *wrong]))
        with pytest.raises(UsageError, match=what):
            memory.import_(path)
    path.write_text("# a page\n\nof text\n")
    with pytest.raises(StoreError, match="has 2 lines, and none of them could be read"):
        memory.import_(path)
    assert len(memory) == 2
    path.write_text("")
    assert memory.import_(path) == 0


def test_an_import_takes_all_but_the_lines_it_names(memory: PersonalMemory, tmp_path: Path) -> None:
    path, said = tmp_path / "in.jsonl", list[str]()
    lines = [
        '{"text": "good"}',
        '{"text": 5}',
        '{"text": "a", "metadata": {"a": NaN}}',
        '{"text": "a", "id": "a", "replaces": "a"}',
        '{"text": "a", "time": true}',
        json.dumps({"text": "word " * LARGEST, "about": "m" * 2 * LONGEST, "time": 1e300}),
        '{"text": "the last"}',
    ]
    path.write_text("\n".join(lines))
    assert memory.import_(path, said.append) == 3 and [x.text[:8] for x in memory.list()][::2] == ["good", "the last"]
    begun = [f"line {n} of {path} left out: {why}" for n, why in ((2, "no entry: text"), (3, "metadata is"), (4, "an"))]
    assert len(said) == 4 and all(map(str.startswith, said, [*begun, f"line 5 of {path} left out: True is no time"]))
    [large] = [x for x in memory.list() if x.time == 1e300]
    new = memory.get(memory.update(large.id, "something shorter"))  # what it is about is not new
    assert (new.text, new.about) == ("something shorter", large.about) and new.time < 1e300
    with pytest.raises(UsageError, match="what it is about has at most 200 characters"):
        memory.update(new.id, "something else", about="n" * 2 * LONGEST)


def test_two_lines_with_one_id_are_one_entry_or_named(memory: PersonalMemory, tmp_path: Path) -> None:
    path, said = tmp_path / "in.jsonl", list[str]()
    one = {"text": "one", "id": "1", "time": 5.0, "metadata": {"n": 1}}
    given = [one, {**one, "metadata": {"n": 1.0}}, {**one, "text": "another"}, {**one, "time": 6.0}, {"text": "two"}]
    path.write_text("\n".join(map(json.dumps, given)))
    assert memory.import_(path, said.append) == 2 and sorted(x.text for x in memory.list()) == ["one", "two"]
    assert said == [f"line {n} of {path} left out: its id '1' is that of another entry, in line 1" for n in (3, 4)]
    path.write_text(json.dumps({**one, "about": "x"}))
    assert memory.import_(path, said.append) == 0
    assert said[2:] == [f"line 1 of {path} left out: its id '1' is that of another entry, in the store"]
    path.write_text("\n".join(map(json.dumps, [one, {**one, "replaced_by": "2"}, {"text": "new", "id": "2"}])))
    assert memory.import_(path, said.append) == 1 and len(said) == 3  # two exports as one file
    assert [x.text for x in memory.history("2")] == ["one", "new"]


def test_a_text_is_taken_out_of_its_matter(memory: PersonalMemory) -> None:
    id = memory.memorize("It is blue.", about="the car")
    new = memory.update(id, "It is blue.", about="")
    memory.memorize("It is red.", about="the car")
    assert [(x.text, x.about) for x in memory.list()] == [("It is blue.", ""), ("It is red.", "the car")]
    assert memory.update(new, "It is green.") and memory.list()[-1].about == ""


def test_what_was_said_before_corrects_nothing(memory: PersonalMemory) -> None:
    now = memory.memorize("She lives in Linz.", about="sister", time=20.0)
    before = memory.memorize("She lives in Graz.", about="sister", time=10.0)
    assert [x.id for x in memory.list()] == [now] and memory.get(before).replaced_by == now


def test_an_export_of_a_later_day_corrects(memory: PersonalMemory, tmp_path: Path) -> None:
    earlier, later = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    id = memory.memorize("The key is under the pot.")
    memory.export(earlier)
    memory.update(id, "The key is with the neighbours.")
    memory.export(later)
    for files in ((earlier, later), (later, earlier)):
        other = PersonalMemory(InMemory(), memory.encoder)
        assert sum(other.import_(file) for file in files) == 2
        assert [x.text for x in other.list()] == ["The key is with the neighbours."]
        assert other.forget(id) == 2 and not list(other.store.scan("", history=True))


def test_an_import_that_is_killed_hides_no_fact(
    memory: PersonalMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmm.store.personal.BATCH", 2)
    other, path = PersonalMemory(InMemory(), memory.encoder), tmp_path / "out.jsonl"
    ids = [memory.memorize(fact) for fact in FACTS]
    memory.export(path)
    other.import_(path)
    for id in ids[:2]:
        memory.update(memory.update(id, f"{id} changed"), f"{id} changed again")
    memory.export(path)
    restore = other.store.restore
    for batch in range(5):

        def killed(space, memos, left=iter(range(batch))):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return restore(space, memos)

        monkeypatch.setattr(other.store, "restore", killed)
        with contextlib.suppress(KeyboardInterrupt):
            other.import_(path)
        assert len(other) == len(FACTS)
        assert all(sum(x.current for x in other.history(id)) == 1 for id in ids)
    assert {x.id for x in other.list()} == {x.id for x in memory.list()}


def test_an_update_says_more_of_a_text(memory: PersonalMemory) -> None:
    id = memory.memorize(FACTS[0], metadata={"a": 1})
    assert memory.update(id, FACTS[0]) == id
    new = memory.update(id, FACTS[0], {"a": 2}, "a letter", "sister")
    now = memory.get(new)
    assert new != id and (now.metadata, now.context, now.about) == ({"a": 2}, "a letter", "sister") and len(memory) == 1
    other = memory.memorize(FACTS[1])
    assert memory.get(memory.update(new, FACTS[1])).metadata == {"a": 2}
    assert [x.text for x in memory.list()] == [FACTS[1]] and len(memory.history(other)) == 4
    new = memory.update(other := memory.list()[0].id, FACTS[1], {"b": 3})
    assert other != new and memory.get(new).metadata == {"a": 2, "b": 3}
    assert memory.get(memory.memorize(FACTS[1], metadata={"a": 4})).metadata == {"a": 4, "b": 3}
    assert memory.get(memory.update(memory.list()[0].id, FACTS[1], {})).metadata == {}
    for wrong in (["a"], {"a": {1}}, 3):
        with pytest.raises(UsageError, match="metadata"):
            memory.update(memory.list()[0].id, FACTS[1], wrong)  # type: ignore[arg-type]


def test_what_cannot_be_memorized_is_refused_before_anything_is(memory: PersonalMemory) -> None:
    for wrong in (None, 3, "", "\ud800", "a\0b"):
        for tried in (memory.memorize, lambda text: memory.memorize_all([*map(Memo, FACTS * 20), Memo(text)])):
            with pytest.raises(UsageError):
                tried(wrong)
    for user in (None, "\ud800", "a\0b"):
        with pytest.raises(UsageError):
            PersonalMemory(memory.store, memory.encoder, user)  # type: ignore[arg-type]
    for query in (None, "\ud800"):
        with pytest.raises(UsageError):
            memory.recall(query)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        memory.recall("key", since=float("-inf"))
    assert len(memory) == 0


@pytest.mark.parametrize("metadata", [{"a": {1, 2}}, {"a": float("nan")}])
def test_metadata_is_what_json_can_hold(memory: PersonalMemory, metadata: dict) -> None:
    with pytest.raises(UsageError, match="metadata is what JSON can hold"):
        memory.memorize("text", metadata=metadata)
    assert len(memory) == 0


def test_vectors_of_two_encoders_are_not_mixed(memory: PersonalMemory, toy: ToyAdapter) -> None:
    memory.memorize(FACTS[0])
    with pytest.raises(StoreError, match="name its encoder, or export"):
        PersonalMemory(memory.store, States(toy)).memorize("more")


# ---- encoders


def test_the_call_is_that_of_sentence_transformers() -> None:
    encoder = load_encoder("minilm")
    rows = encoder.encode(FACTS, batch_size=2, show_progress_bar=False, convert_to_numpy=True)
    assert rows.shape == (len(FACTS), 384) and rows.dtype == np.float32
    assert np.allclose(rows, shared_encoder().encode(FACTS), atol=1e-6)
    assert encoder.encode(FACTS[0]).shape == (384,) and encoder.encode([]).shape == (0, 384)
    loose = encoder.encode(FACTS[:1], normalize_embeddings=False)
    assert np.allclose(loose / np.linalg.norm(loose), rows[:1], atol=1e-6) and abs(np.linalg.norm(loose) - 1) > 1e-3
    assert np.array_equal(encoder.encode(FACTS[0] + " and so on", max_length=5), encoder.encode("My sister is"))
    assert np.array_equal(encoder.encode(np.array(FACTS[:2])), rows[:2])
    assert np.array_equal(encoder.encode(iter(FACTS[:2])), rows[:2])
    assert [encoder.count_tokens(text) for text in ("", FACTS[0])] == [2, len(shared_encoder().ids(FACTS[0]))]


def test_a_vector_in_every_form_that_sentence_transformers_has() -> None:
    encoder = load_encoder("minilm")
    rows = encoder.encode(FACTS)
    short = encoder.encode(FACTS, truncate_dim=8)
    assert np.allclose(short, rows[:, :8] / np.linalg.norm(rows[:, :8], axis=1, keepdims=True), atol=1e-6)
    assert np.array_equal(encoder.encode(FACTS, truncate_dim=1000), rows)
    bits = encoder.encode(FACTS, precision="ubinary")
    assert bits.dtype == np.uint8 and np.array_equal(np.unpackbits(bits, axis=1), rows > 0)
    signed = encoder.encode(FACTS, precision="binary")
    assert signed.dtype == np.int8 and np.array_equal(signed.astype(int) + 128, bits)
    torch = pytest.importorskip("torch")
    assert torch.equal(encoder.encode(FACTS, convert_to_tensor=True), torch.from_numpy(rows))
    listed = encoder.encode(FACTS, convert_to_numpy=False)
    assert isinstance(listed, list) and all(map(torch.equal, listed, torch.from_numpy(rows)))
    assert torch.equal(encoder.encode(FACTS[0], convert_to_tensor=True, device="cpu"), torch.from_numpy(rows[0]))


def test_arguments_stand_in_the_order_of_sentence_transformers() -> None:
    theirs = pytest.importorskip("sentence_transformers").SentenceTransformer
    for name in ("encode", "encode_query", "encode_document"):
        mine, wanted = (list(inspect.signature(getattr(one, name)).parameters) for one in (SentenceEncoder, theirs))
        mine = [argument for argument in mine if argument not in ("max_length", "args", "options")]
        assert mine == wanted[: len(mine)] and (name != "encode" or wanted[len(mine) :] == ["kwargs"])
    encoder = load_encoder("minilm")
    assert np.array_equal(encoder.encode(FACTS, None, "query: ", 2), encoder.encode([f"query: {x}" for x in FACTS]))


def made(folder: Path, seed: int = 0) -> Path:
    """A folder that sentence-transformers loads, of few weights."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("sentence_transformers")
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "two", "loads", "of", "one", "folder", "this", "."]
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(seed)
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("lost", "known"), [("encoder.layer.1.", False), ("pooler.", True)])
def test_a_folder_that_lacks_weights_gives_no_random_vectors(
    tmp_path: Path, lost: str, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(tmp_path / "folder")
    from safetensors.torch import load_file, save_file
    from transformers import BertModel

    file, loads, load = folder / "model.safetensors", [], BertModel.from_pretrained
    kept = {name: value for name, value in load_file(file).items() if not name.startswith(lost)}
    save_file(kept, file, metadata={"format": "pt"})
    monkeypatch.setattr(BertModel, "from_pretrained", lambda *args, **more: loads.append(args) or load(*args, **more))
    if known:  # it is not what the vectors come from
        found = load_encoder(str(folder)).encode("two loads")
        assert found.shape == (16,) and np.allclose(found, load_encoder(str(folder)).encode("two loads"))
    else:
        with pytest.raises(ModelError, match="lacks weights"):
            load_encoder(str(folder))
    assert len(loads) == (2 if known else 1)


def test_an_encoder_is_known_by_what_is_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made(tmp_path / "one" / "model")
    shutil.copytree(folder, tmp_path / "two" / "named")
    (folder / "README.md").write_text("what it is")
    made(tmp_path / "three" / "model", seed=1)
    store = InMemory()
    monkeypatch.chdir(tmp_path / "one")
    PersonalMemory(store, "model").memorize(FACTS[0])
    assert store.about()["name"] == "model"
    for name in (str(folder), str(tmp_path / "two" / "named"), "../two/named"):
        assert len(PersonalMemory(store, name).recall("two")) == 1
    monkeypatch.chdir(tmp_path / "three")
    with pytest.raises(StoreError, match="another encoder's"):
        PersonalMemory(store, "model").recall("two")

    snapshot = tmp_path / "hub" / "models--me--model" / "snapshots" / "abc"  # as the hub's own cache has it
    shutil.copytree(folder, snapshot)
    (refs := snapshot.parents[1] / "refs").mkdir()
    (refs / "main").write_text("abc")
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr("lmm.encoders.sentences._not_on_the_hub", lambda name: "no network")
    assert len(PersonalMemory(store, "me/model").recall("two")) == 1


def test_a_store_that_knows_an_encoder_by_its_name_goes_on(tmp_path: Path) -> None:
    folder, store = made(tmp_path / "model"), InMemory()
    store.describe({"encoder": str(folder), "width": 16})  # as earlier versions wrote it
    memory = PersonalMemory(store, str(folder))
    memory.memorize(FACTS[0])
    assert store.about() == {"encoder": memory.encoder.identity, "name": str(folder), "width": 16}
    with pytest.raises(StoreError, match="another encoder's"):
        PersonalMemory(store, str(made(tmp_path / "other", seed=1))).recall("two")


def test_a_large_file_is_read_once_for_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(digest, "LARGE", 10)
    for name in ("model.safetensors", "model.bin", "config.json", "below/model.safetensors", "lmm.json", "README.md"):
        (file := tmp_path / "folder" / name).parent.mkdir(exist_ok=True, parents=True)
        file.write_text(f"the content of {name}")
    first = digest.folder_digest(tmp_path / "folder")
    shutil.copytree(tmp_path / "folder", tmp_path / "copy")
    assert digest.folder_digest(tmp_path / "copy") == first
    for name in ("model.bin", "below/model.safetensors", "lmm.json", "README.md"):  # which nothing is read from
        (tmp_path / "folder" / name).write_text("another")
    with monkeypatch.context() as once:
        once.setattr("hashlib.file_digest", None)
        assert digest.folder_digest(tmp_path / "folder") == first
    (tmp_path / "folder" / "modules.json").write_text('[{"path": ""}, {"path": "below"}]')
    found = digest.folder_digest(tmp_path / "folder")
    (tmp_path / "folder" / "below" / "model.safetensors").write_text("one more")
    assert len({first, found, digest.folder_digest(tmp_path / "folder")}) == 3


def test_prompts_stand_before_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = MiniLM()
    plain, asked, told = (encoder.encode(before + FACTS[0]) for before in ("", "query: ", "passage: "))
    assert np.array_equal(encoder.encode_query(FACTS[0]), plain)  # MiniLM has no prompts
    with pytest.raises(UsageError, match="all-MiniLM-L6-v2 has no prompt 'query'; it has: none"):
        encoder.encode(FACTS[0], prompt_name="query")
    monkeypatch.setattr(MiniLM, "prompts", {"query": "query: ", "passage": "passage: "})
    assert np.array_equal(encoder.encode(FACTS[0], "query"), asked)
    assert np.array_equal(encoder.encode_query([FACTS[0]], batch_size=1)[0], asked)
    assert np.array_equal(encoder.encode_document(FACTS[0]), told)
    assert np.array_equal(encoder.encode_document(FACTS[0], prompt=""), plain)
    monkeypatch.setattr(MiniLM, "default_prompt_name", "query")
    assert np.array_equal(encoder.encode(FACTS[0]), asked)


def test_similarity_is_the_cosine() -> None:
    encoder = load_encoder("minilm")
    rows = 3 * encoder.encode(FACTS)
    found = encoder.similarity(rows, rows[:2])
    assert found.shape == (len(FACTS), 2) and np.allclose(found, rows @ rows[:2].T / 9, atol=1e-5)
    assert np.allclose(encoder.similarity_pairwise(rows, rows), 1, atol=1e-5)
    assert encoder.similarity(rows[0], rows).shape == (1, len(FACTS))
    for wrong in ((rows, rows[:, :5]), (rows, "no"), (rows[None], rows)):
        with pytest.raises(UsageError):
            encoder.similarity(*wrong)
    with pytest.raises(UsageError, match="are not pairs"):
        encoder.similarity_pairwise(rows, rows[:1])
    torch = pytest.importorskip("torch")
    assert isinstance(encoder.similarity(torch.from_numpy(rows), rows), torch.Tensor)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"batch_size": "a"},
        {"max_length": 0},
        {"max_length": "9"},
        {"max_length": 10.5},
        {"max_length": 513},
        {"truncate_dim": 0},
        {"output_value": "token_embeddings"},
        {"output_value": None},
        {"precision": "int8"},
        {"precision": "half"},
        {"device": "cuda"},
        {"pool": {}},
        {"prompt": 3},
        {"prompt_name": 3},
    ],
)
def test_what_an_encoder_cannot_do_is_named(options: dict) -> None:
    with pytest.raises(UsageError, match=r"must be|expected|gives|float32|computes on|reads texts|has no prompt"):
        load_encoder("minilm").encode(FACTS, **options)


@pytest.mark.parametrize(
    "wrong", [None, 3, {"a": "b"}, {"a"}, [None], [FACTS], b"bytes", np.ones(3), "a\udc80", ["\ud83d"]]
)
def test_what_is_no_text_is_named(wrong: object) -> None:
    with pytest.raises(UsageError, match=r"reads texts, not|a text or a list of texts, not|is not Unicode"):
        load_encoder("minilm").encode(wrong)  # type: ignore[arg-type]


def test_a_chat_models_own_states(toy: ToyAdapter) -> None:
    encoder = load_encoder("states", toy)
    rows = encoder.encode(["one", "two", ""])
    assert rows.shape == (3, 16) and np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert not np.allclose(rows[0], rows[1]) and not toy.taps
    assert encoder.identity == encoder.name == "states of toy"
    with pytest.raises(ModelError, match="there is none"):
        load_encoder("states")


def test_states_are_those_of_one_model_wherever_it_lies(tmp_path: Path, tiny_torch: Adapter) -> None:
    encoder, other = States(tiny_torch), States(copy.copy(tiny_torch))
    shutil.copytree(tiny_torch.source.folder, tmp_path / "copy")  # type: ignore[attr-defined]
    other.adapter.source = dataclasses.replace(tiny_torch.source, folder=tmp_path / "copy")  # type: ignore[attr-defined]
    assert encoder.identity == other.identity != encoder.name
    config = tmp_path / "copy" / "config.json"
    config.write_text(config.read_text() + " ")
    again = States(other.adapter)
    assert again.name == encoder.name and again.identity != encoder.identity


def test_auto_falls_back_aloud_and_never_on_chance(monkeypatch: pytest.MonkeyPatch, toy: ToyAdapter) -> None:
    said: list[str] = []
    assert isinstance(load_encoder("auto", notice=said.append), SentenceEncoder) and not said

    def gone() -> MiniLM:
        raise ModelError("its weights were not found")

    monkeypatch.setattr("lmm.encoders.sentences.MiniLM", gone)
    monkeypatch.setattr(registry, "ENCODERS", {name: registry.ENCODERS[name] for name in ("minilm", "states")})
    registry.table.cache_clear()
    assert isinstance(load_encoder("auto", toy, said.append), States)
    assert said == ["its weights were not found; texts are encoded by states of toy"]
    with pytest.raises(ModelError, match=r"there is no encoder: its weights were not found; .* there is none"):
        load_encoder("auto")


def test_other_encoders_need_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ModelError, match=r"pip install 'lmm\[encoders\]'"):
        load_encoder("some/encoder")


def test_a_name_that_is_nearly_an_encoders_is_not_looked_up() -> None:
    with pytest.raises(UnknownNameError, match="unknown encoder 'lamm': did you mean 'lam'"):
        load_encoder("lamm")
    with pytest.raises(UnknownNameError, match="unknown encoder ''"):
        load_encoder("")


def test_what_a_package_logs_of_something_that_fails_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    package, part = "some_package", logging.getLogger("some_package.part")
    with contextlib.suppress(ZeroDivisionError), _told_of_what_works(package):
        part.warning("creating a new one")
        1 / 0  # noqa: B018
    assert not caplog.records
    with _told_of_what_works(package):
        part.warning("mean pooling")
        assert not caplog.records
    assert [record.message for record in caplog.records] == ["mean pooling"]


@pytest.mark.slow
def test_the_hub_is_asked_once_and_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sentence_transformers")
    import huggingface_hub

    asked = []

    def silent(self: object, repo: str, timeout: float) -> None:
        asked.append((repo, timeout))
        raise TimeoutError("no answer")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", silent)
    for name, repo in (
        ("nobody/nothing", "nobody/nothing"),
        ("all-nothing-v9", "sentence-transformers/all-nothing-v9"),
    ):
        with pytest.raises(ModelError, match="it is no folder, nor on the hub"):
            load_encoder(name)
        assert asked.pop() == (repo, 10.0) and not asked


# ---- the command line


def lmm(*args: str, input: str | None = None) -> str:
    done = CliRunner().invoke(app, ["recall", *args], input=input, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_same_from_the_shell(tmp_path: Path) -> None:
    ids = lmm("add", *FACTS).split()
    assert len(ids) == len(FACTS) and lmm("add", FACTS[0]).split() == ids[:1]
    assert lmm("search", "which", "food", "to", "avoid", "-n", "1").splitlines()[1].endswith(f"\t{FACTS[2]}")
    [new] = lmm("add", "My sister lives in Linz.", "--instead", ids[0]).split()
    assert [x["text"] for x in json.loads(lmm("history", new, "--json"))] == [FACTS[0], "My sister lives in Linz."]
    assert lmm("list", "--user", "other").strip() == ""
    assert json.loads(lmm("list", "--until", "2020-01-01", "--json")) == []
    assert lmm("list", "--since", "0001-01-01", "--until", "9999-12-31") == lmm("list")
    more = lmm("add", FACTS[1], "--instead", ids[1], "--metadata", "n=1", "--metadata", "by=me", "--context", "a call")
    [found] = json.loads(lmm("list", "--metadata", "n=1", "--json"))
    assert (found["id"], found["metadata"], found["context"]) == (more.strip(), {"n": 1, "by": "me"}, "a call")
    lmm("add", FACTS[1], "--metadata", "at=home")
    [found] = json.loads(lmm("list", "--metadata", "at=home", "--json"))
    near, far = os.pipe()  # as a shell gives a process for a file
    lmm("export", f"/dev/fd/{far}")
    os.close(far)
    lmm("import", f"/dev/fd/{near}", "--user", "piped")
    os.close(near)
    assert lmm("list", "--user", "piped") == lmm("list")
    lmm("add", FACTS[1], "--instead", found["id"], "--metadata", "n=2")
    assert json.loads(lmm("list", "--metadata", "n=2", "--json"))[0]["metadata"] == {"n": 2, "by": "me", "at": "home"}
    assert len(json.loads(lmm("search", "key", "--metadata", "by=me", "--json"))) == 1
    assert json.loads(lmm("search", "key", "--metadata", "n=true", "--json")) == []
    assert json.loads(lmm("forget", new, "--yes", "--json")) == {"forgotten": 2}
    file = str(tmp_path / "all.jsonl")
    lmm("export", file)
    lmm("import", file, "--user", "other", "--store", str(tmp_path / "b.sqlite"))
    found = json.loads(lmm("search", "key", "--user", "other", "--store", str(tmp_path / "b.sqlite"), "--json"))
    assert found[0]["text"] == FACTS[1] and 0 < found[0]["cosine"] <= 1
    Path(file).write_text('{"text": 5}\n{"text": "good"}\n')
    done = CliRunner().invoke(app, ["recall", "import", file], catch_exceptions=False)
    assert done.exit_code == 1 and "line 1 of" in done.output and "1 new text" in done.output
    [id] = lmm("add", "It is blue.", "--about", "the car", "--context", "a call").split()
    lmm("add", "It is blue.", "--instead", id, "--about", "", "--context", "")
    found = json.loads(lmm("list", "--json"))[-1]
    assert (found["text"], found["about"], found["context"]) == ("It is blue.", "", "")


def test_a_dash_is_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [id] = lmm("add", "Die Brücke \x9b31m").split()
    lmm("add", FACTS[0], "--instead", id)
    lines = lmm("export", "-")
    assert lines.isascii() and [json.loads(line)["text"] for line in lines.splitlines()] == [
        "Die Brücke \x9b31m",
        FACTS[0],
    ]
    lmm("import", "-", "--user", "other", input=lines)
    assert lmm("export", "-", "--user", "other") == lines and not (tmp_path / "-").exists()
    done = CliRunner().invoke(app, ["recall", "import", "-"], input='{"text": 5}\n', catch_exceptions=False)
    assert done.exit_code == 1 and "line 1 of stdin left out" in done.output
    lmm("export", "new/folder/all.jsonl")
    assert len((tmp_path / "new" / "folder" / "all.jsonl").read_text().splitlines()) == 2


def test_a_user_without_texts_empties_no_export(tmp_path: Path) -> None:
    lmm("add", FACTS[0], "--user", "ann")
    file = tmp_path / "ann.jsonl"
    lmm("export", str(file), "--user", "ann")
    before = file.read_bytes()
    for user in ((), ("--user", "anm")):
        with pytest.raises(UsageError, match=r"nothing to export.*; there are texts of ann"):
            lmm("export", str(file), *user)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "args",
    [
        ("add",),
        ("add", "a", "b", "--about", "x"),
        ("add", "a", "--metadata", "b"),
        ("add", "a", "--metadata", "b=NaN"),
        ("add", "a", "--encoder", ""),
        ("add", "a", "--store", "mysql://a/b"),
        ("list", "--since", "yesterday"),
        ("forget", "nope", "--yes"),
    ],
)
def test_what_is_wrong_is_said(args: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        CliRunner().invoke(app, ["recall", *args], input="", catch_exceptions=False)


def test_to_look_into_a_store_makes_none(tmp_path: Path) -> None:
    assert lmm("list").strip() == "" and not default_store().exists()
    for args in (("list",), ("search", "key"), ("history", "x"), ("forget", "x", "--yes"), ("export", "x.jsonl")):
        with pytest.raises(UsageError, match="there is no store"):
            lmm(*args, "--store", str(tmp_path / "no" / "b.sqlite"))
    assert not (tmp_path / "no").exists()


def test_a_store_is_copied_from_the_shell(tmp_path: Path) -> None:
    a, b = str(tmp_path / "a.sqlite"), str(tmp_path / "b.sqlite")
    lmm("add", *FACTS, "--store", a, "--user", "ann")
    done = CliRunner().invoke(app, ["store", "copy", a, b], catch_exceptions=False)
    assert done.exit_code == 0 and "6 texts copied and checked" in done.output
    assert len(json.loads(lmm("list", "--store", b, "--user", "ann", "--json"))) == 6
    for again in (a, str(tmp_path / "x" / ".." / "a.sqlite")):
        with pytest.raises(UsageError, match="the same store"):
            CliRunner().invoke(app, ["store", "copy", a, again], catch_exceptions=False)
    with pytest.raises(UsageError, match="there is no store"):
        CliRunner().invoke(app, ["store", "copy", str(tmp_path / "none"), b], catch_exceptions=False)
    assert not (tmp_path / "none").exists()
    [old, *_] = json.loads(lmm("list", "--store", a, "--user", "ann", "--json"))
    lmm("add", "She lives in Linz.", "--instead", old["id"], "--store", a, "--user", "ann")
    done = CliRunner().invoke(app, ["store", "copy", a, b], catch_exceptions=False)
    assert done.exit_code == 0 and "7 texts copied and checked" in done.output
    assert len(json.loads(lmm("list", "--store", b, "--user", "ann", "--json"))) == 6
    with contextlib.closing(sqlite3.connect(a)) as file:  # as no version wrote it
        file.execute("UPDATE memos SET text = ' ' WHERE id = ?", (old["id"],))
        file.commit()
    c = str(tmp_path / "c.sqlite")
    done = CliRunner().invoke(app, ["store", "copy", a, c], catch_exceptions=False)
    assert done.exit_code == 1 and "6 texts copied and checked" in done.output
    assert f"entry {old['id']} of namespace 'ann' was left out: there is nothing" in done.output.replace("\n", " ")
