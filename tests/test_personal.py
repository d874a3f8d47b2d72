"""One user's memory: memorize, recall, correct, forget, in the library and on the command line; and its encoders."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from lmm import registry
from lmm.adapters.toy import ToyAdapter
from lmm.cli.app import app
from lmm.encoders import load_encoder
from lmm.encoders.minilm import shared_encoder
from lmm.encoders.sentences import MiniLM, SentenceEncoder, States
from lmm.errors import ModelError, StoreError, UsageError
from lmm.store.memory import InMemory
from lmm.store.personal import PersonalMemory

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
    path.write_text('{"text": "good"}\n{"text": 5}\n')
    with pytest.raises(UsageError, match="line 2: no entry: text"):
        other.import_(path)


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
    with pytest.raises(UsageError):
        encoder.encode([None])  # type: ignore[list-item]
    with pytest.raises(UsageError):
        encoder.encode(FACTS, batch_size=0)
    torch = pytest.importorskip("torch")
    assert torch.equal(encoder.encode(FACTS[:1], convert_to_numpy=False), torch.from_numpy(rows[:1]))


def test_a_chat_models_own_states(toy: ToyAdapter) -> None:
    encoder = load_encoder("states", toy)
    rows = encoder.encode(["one", "two", ""])
    assert rows.shape == (3, 16) and np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert not np.allclose(rows[0], rows[1]) and not toy.taps
    with pytest.raises(ModelError, match="there is none"):
        load_encoder("states")


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
    assert json.loads(lmm("forget", new, "--yes", "--json")) == {"forgotten": 2}
    file = str(tmp_path / "all.jsonl")
    lmm("export", file)
    lmm("import", file, "--user", "other", "--store", str(tmp_path / "b.sqlite"))
    found = json.loads(lmm("search", "key", "--user", "other", "--store", str(tmp_path / "b.sqlite"), "--json"))
    assert found[0]["text"] == FACTS[1] and 0 < found[0]["cosine"] <= 1


@pytest.mark.parametrize(
    "args", [("add",), ("add", "a", "b", "--about", "x"), ("list", "--since", "yesterday"), ("forget", "nope", "--yes")]
)
def test_what_is_wrong_is_said(args: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        CliRunner().invoke(app, ["recall", *args], input="", catch_exceptions=False)


def test_a_store_is_copied_from_the_shell(tmp_path: Path) -> None:
    a, b = str(tmp_path / "a.sqlite"), str(tmp_path / "b.sqlite")
    lmm("add", *FACTS, "--store", a, "--user", "ann")
    done = CliRunner().invoke(app, ["store", "copy", a, b], catch_exceptions=False)
    assert done.exit_code == 0 and "6 texts copied and checked" in done.output
    assert len(json.loads(lmm("list", "--store", b, "--user", "ann", "--json"))) == 6
    with pytest.raises(UsageError, match="the same store"):
        CliRunner().invoke(app, ["store", "copy", a, a], catch_exceptions=False)
