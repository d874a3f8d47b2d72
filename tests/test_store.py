"""One contract for every store, and what the file of SQLite promises: many writers, kills, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np
import pytest

from lmm.errors import StillThereError, StoreError, UsageError
from lmm.store.base import GONE, Filters, Memo, TextStore, fused
from lmm.store.checks import LARGEST, LONGEST, NESTED, small_values
from lmm.store.copying import copy
from lmm.store.facts import Facts, facts_of
from lmm.store.memory import InMemory
from lmm.store.opening import open_store
from lmm.store.sqlite import FUNCTIONS, MIGRATIONS, Sqlite
from lmm.store.vectors import Vectors

pytestmark = pytest.mark.slow  # databases


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TextStore]:
    if request.param == "postgres":
        yield request.getfixturevalue("postgres")
        return
    found = InMemory() if request.param == "memory" else open_store(tmp_path / "store.sqlite")
    yield found
    found.close()


def vector(seed: int, width: int = 8) -> np.ndarray:
    row = np.random.default_rng(seed).normal(size=width).astype(np.float32)
    return row / np.linalg.norm(row)


def memo(text: str, seed: int = 0, **more) -> Memo:
    return Memo(text, vector=vector(seed), **more)


def texts(memos) -> list[str]:
    return [getattr(x, "memo", x).text for x in memos]


def by_id(memos: Iterable[Memo]) -> list[Memo]:
    return sorted(memos, key=lambda x: x.id)


# ---- the contract


def test_what_is_added_is_there(store: TextStore) -> None:
    given = memo("Vera lives in Graz.", 1, context="a walk", metadata={"from": "me", "n": [1, None]}, time=12.5)
    assert not store.has_any("a") and store.add("a", [given]) == [given.id] and store.has_any("a")
    [found] = store.get("a", [given.id, "other"])
    assert found == given and np.array_equal(found.vector, given.vector)
    assert list(store.scan("a")) == [given] and store.count("a") == 1 and store.namespaces() == ["a"]


def test_the_same_text_twice_is_one(store: TextStore) -> None:
    first, second = store.add("a", [memo("Vera lives in Graz.")]), store.add("a", [memo("vera  lives in graz")])
    assert first == second and store.count("a") == 1
    assert store.add("b", [memo("Vera lives in Graz.")]) != first


def test_meaning_and_words_both_find(store: TextStore) -> None:
    store.add("a", [memo(f"filler number {i}", i) for i in range(20, 60)])
    store.add("a", [memo("nothing alike", 1), memo("the word zorbina", 2), memo("zorbina meant", 1)])
    found = store.search("a", vector(1), "who is zorbina?", 3)
    assert found[0].memo.text == "zorbina meant" and found[0].cosine == pytest.approx(1, abs=1e-5)
    assert sorted(texts(found)) == ["nothing alike", "the word zorbina", "zorbina meant"]
    assert [x.score for x in found] == sorted((x.score for x in found), reverse=True)
    assert texts(store.search("a", vector(1), "", 1)) and store.search("a", vector(1), '"(*^ OR', 1)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("船", "船在港口。"),
        ("鍵はどこ", "鍵は青い植木鉢の下です。"),
        ("กุญแจ", "กุญแจอยู่ใต้กระถาง"),
        ("열쇠", "열쇠는 화분 아래에 있다."),
        ("muller", "Frau Müller lives in Graz."),
        ("ёлка", "Елка в лесу."),
        ("c++", "He writes C++."),
        (r"\\'", r"a \\' b"),
        ("size 3.14", "It has 3.14 of them."),
        ('"#', 'quoted "# in it'),
    ],
)
def test_all_stores_find_by_the_same_words(store: TextStore, query: str, found: str) -> None:
    others = ["猫喜欢吃鱼。", "犬が好きです。", "หมาชอบปลา", "고양이가 좋다.", "Frau Maier", "He writes C.", "5 or 14"]
    *_, id = store.add("a", [Memo(text) for text in (*others, found)])  # without vectors words alone count
    assert texts(store.search("a", vector(1), query, 9)) == [found]
    new = store.supersede("a", id, Memo("something else"))
    assert store.search("a", vector(1), query, 9) == [] and store.forget("a", [new]) == 2


def test_words_of_any_length_and_number_are_no_error(store: TextStore) -> None:
    many, long = " ".join(f"w{i:x}" for i in range(120_000)), "\U00010400" * 2000
    given = [Memo(text) for text in (many, long, "\x01", "zorbina " * 300, "it is zorbina")]
    assert store.restore("a", given) == {}
    for query in (long, "\x01", "\x7f", many):
        store.search("a", vector(1), query)
    assert texts(store.search("a", vector(1), "w7 it", 9)) == ["it is zorbina", many]


def test_another_namespace_is_never_found(store: TextStore) -> None:
    [id] = store.add("a", [memo("a secret", 1)])
    for space in ("b", "", "a ", "A", "a' OR 1=1 --", "a%", "s61", "*"):
        assert store.search(space, vector(1), "a secret") == [] and store.get(space, [id]) == []
        assert list(store.scan(space, history=True)) == [] and store.history(space, id) == []
        assert store.forget(space, [id]) == 0 and store.count(space) == 0 and not store.has_any(space)
        with pytest.raises(UsageError, match="no current entry"):
            store.supersede(space, id, memo("mine now"))
    assert store.count("a") == 1


def test_what_another_namespace_has_changes_no_ranking(store: TextStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or it could be asked what others wrote."""
    monkeypatch.setattr("lmm.store.sqlite.MANY", 20)
    store.add("a", [memo(f"filler number{i} of weather{i}", 10 + i) for i in range(30)])
    store.add("a", [memo("probe one control", 3), memo("probe one diagnosis", 3), memo("a probe", 3)])

    def asked() -> list[tuple[str, float]]:
        return [(x.memo.text, x.score) for x in store.search("a", vector(3), "control diagnosis + probe", 8)]

    before = asked()
    assert {"probe one control", "probe one diagnosis"} <= {text for text, _ in before[:3]}
    for text in ("my control came back", "my diagnosis came back", "a very long text of the probe " * 50):
        ids = store.add("b", [memo(f"{text} {i}", i) for i in range(40)])
        assert asked() == before
        store.forget("b", ids)
        assert asked() == before


def test_a_correction_takes_the_place_and_keeps_the_history(store: TextStore) -> None:
    [id] = store.add("a", [memo("Vera lives in Graz.", 1)])
    new = store.supersede("a", id, memo("Vera lives in Linz.", 2))
    newer = store.supersede("a", new, memo("Vera lives in Wels.", 3))
    assert texts(store.scan("a")) == ["Vera lives in Wels."] and store.count("a") == 1
    assert texts(store.search("a", vector(1), "Graz Linz")) == ["Vera lives in Wels."]
    for one in (id, new, newer):
        assert texts(store.history("a", one)) == ["Vera lives in Graz.", "Vera lives in Linz.", "Vera lives in Wels."]
    assert [x.current for x in store.history("a", id)] == [False, False, True]
    with pytest.raises(UsageError, match="no current entry"):
        store.supersede("a", id, memo("Vera lives in Rome."))
    assert store.supersede("a", newer, memo("Vera lives in Wels.", 4)) == newer


def test_a_correction_of_case_or_marks_alone_is_one(store: TextStore) -> None:
    [id] = store.add("a", [memo("The password is hunter2", 1)])
    new = store.supersede("a", id, memo("The password is Hunter2!", 2))
    assert texts(store.scan("a")) == ["The password is Hunter2!"] and new != id
    assert texts(store.history("a", new)) == ["The password is hunter2", "The password is Hunter2!"]
    assert store.supersede("a", new, memo("The password is Hunter2!", 2)) == new


def test_what_is_added_together_is_as_one_after_another(store: TextStore) -> None:
    said = ["Vera lives in Graz.", "She moved to Linz.", "she moved to linz", "Vera lives in Graz."]
    ids = store.add("a", [memo(text, about="vera's home") for text in said])
    assert ids[1] == ids[2] and len(set(ids)) == 3
    assert texts(store.scan("a")) == ["Vera lives in Graz."] and texts(store.history("a", ids[0])) == [
        said[0],
        said[1],
        said[0],
    ]


def test_what_was_corrected_often_stands_in_nobodys_way(store: TextStore) -> None:
    near = 0.9 * vector(1) + 0.1 * vector(2)
    [id, _] = store.add("a", [memo("version", 1), Memo("another fact", vector=near / np.linalg.norm(near))])
    for i in range(120):
        id = store.supersede("a", id, memo(f"version {i}", 1))
        assert texts(store.search("a", vector(1), "", 2)) == [f"version {i}", "another fact"]


def test_the_next_about_the_same_matter_supersedes(store: TextStore) -> None:
    store.add("a", [memo("Vera lives in Graz.", about="vera's home"), memo("It is Tom.", about="my name")])
    store.add("a", [memo("She moved to Linz.", about="vera's home")])
    assert texts(store.scan("a")) == ["It is Tom.", "She moved to Linz."]
    store.add("a", [memo("Vera lives in Graz.", about="vera's home")])  # and back: what was said once can be said again
    assert texts(store.scan("a")) == ["It is Tom.", "Vera lives in Graz."]


def test_a_matter_is_one_however_it_is_spelled(store: TextStore) -> None:
    [old] = store.add("a", [memo("It is red.", 1, about="kettle", time=1.0)])
    [new] = store.add("a", [memo("It is blue.", 2, about=" Kettle", time=2.0)])
    assert texts(store.scan("a")) == ["It is blue."] and texts(store.history("a", old)) == ["It is red.", "It is blue."]
    assert store.add("a", [memo("it is blue", 2, about="KETTLE", time=3.0)]) == [new]
    spelled = store.supersede("a", new, memo("It is blue.", 2, about="the kettle", time=4.0))
    assert [x.about for x in store.scan("a")] == ["the kettle"]
    store.restore("a", [memo("It is white.", 3, about="The  Kettle", time=5.0)])
    assert texts(store.scan("a")) == ["It is white."] and store.forget("a", [spelled]) == 4


def test_forgetting_takes_the_history_along(store: TextStore) -> None:
    [id, other] = store.add("a", [memo("Vera lives in Graz.", 1), memo("It rains.", 2)])
    new = store.supersede("a", id, memo("Vera lives in Linz.", 3))
    assert store.forget("a", [new]) == 2 and store.forget("a", [new, "other"]) == 0
    assert [x.id for x in store.scan("a", history=True)] == [other]
    assert texts(store.search("a", vector(3), "Vera Linz Graz", 5)) == ["It rains."]
    store.add("a", [memo("Vera lives in Graz.", 1)])
    assert store.search("a", vector(1), "", 1)[0].memo.text == "Vera lives in Graz."


def test_filters(store: TextStore) -> None:
    for i in range(10):
        store.add("a", [memo(f"day {i}", i, time=float(i), metadata={"even": i % 2 == 0, "n": i, "s": "x"})])
    some = Filters(since=2, until=5)
    assert texts(store.scan("a", some)) == ["day 2", "day 3", "day 4"]
    assert sorted(texts(store.search("a", vector(9), "day 9", 5, some))) == ["day 2", "day 3", "day 4"]
    even = Filters(metadata={"even": True, "s": "x"})
    assert sorted(texts(store.search("a", vector(9), "day 9", 9, even))) == [f"day {i}" for i in range(0, 10, 2)]
    assert texts(store.scan("a", Filters(metadata={"n": 1}))) == ["day 1"]
    assert not texts(store.scan("a", Filters(metadata={"n": "1"}))) and not texts(
        store.scan("a", Filters(metadata={"even": 1, "other": 2}))
    )


def test_filters_are_of_json(store: TextStore) -> None:
    values = {"one": 1, "true": True, "float": 1.0, "none": None, "list": {"a": [1, True]}, "text": "1"}
    store.add("a", [memo(name, metadata={"n": value}) for name, value in values.items()] + [memo("absent")])
    for wanted, found in (
        (1, ["one", "float"]),
        (True, ["true"]),
        (None, ["none"]),
        ({"a": [1, True]}, ["list"]),
        ({"a": [1, 1]}, []),
        ({"a": [1]}, []),
        ("1", ["text"]),
    ):
        filters = Filters(metadata={"n": wanted})
        assert texts(store.scan("a", filters)) == found, wanted
        assert sorted(texts(store.search("a", vector(1), "one", 9, filters))) == sorted(found), wanted


def test_what_is_said_anew_of_a_text_supersedes(store: TextStore) -> None:
    store.add("a", [memo("blue", 1, metadata={"by": "me"})])
    [red] = store.add("a", [memo("red", 2, about="colour")])
    [blue] = store.add("a", [memo("Blue.", 1, about="colour")])
    [found] = store.scan("a")
    assert (found.id, found.about, found.metadata) == (blue, "colour", {"by": "me"})
    assert sorted(texts(store.history("a", red))) == ["Blue.", "blue", "red"]
    assert store.add("a", [memo("blue"), memo("blue", about="colour", metadata={"by": "me"})]) == [blue, blue]
    [new] = store.add("a", [memo("blue", metadata={"by": True}, context="a call")])
    [found] = store.scan("a")
    assert (found.id, found.about, found.metadata, found.context) == (new, "colour", {"by": True}, "a call")
    assert texts(store.search("a", vector(0), "blue red")) == ["blue"]
    assert store.forget("a", [red]) == 4 and not list(store.scan("a", history=True))


def test_what_is_said_anew_of_a_text_is_added_to_what_was(store: TextStore) -> None:
    store.add("a", [memo("blue", metadata={"by": "me", "n": {"x": 1}}, time=1.0)])
    store.add("a", [memo("Blue.", metadata={"n": {"y": 2}}, time=2.0), memo("blue", metadata={"to": None}, time=3.0)])
    store.add("a", [memo("blue", metadata={"by": "you", "at": 5}, time=0.0)])  # said before the others
    [now] = store.scan("a")
    assert now.metadata == {"by": "me", "n": {"y": 2}, "to": None, "at": 5} and now.time == 3.0
    assert store.add("a", [memo("blue", metadata={"by": "me"})]) == [now.id]
    [red] = store.add("a", [memo("red", metadata={"by": "them", "of": "the car"}, context="a walk")])
    store.supersede("a", red, memo("Blue", metadata={"of": "the car"}, context="a walk"))
    [now] = store.scan("a")
    assert now.metadata == {"by": "me", "n": {"y": 2}, "to": None, "at": 5, "of": "the car"} and now.context == "a walk"
    for more in ({"metadata": {"more": "x" * LARGEST}}, {"context": "x" * (LARGEST - 3)}):
        with pytest.raises(UsageError, match="at most 200,000"):
            store.add("a", [memo("another", 2), memo("blue", **more)])
    assert list(store.scan("a")) == [now]


def test_one_text_is_about_one_matter_and_no_fact_is_lost_by_another(store: TextStore) -> None:
    store.add("a", [memo("blue", 1, about="the car")])
    [house] = store.add("a", [memo("green", 2, about="the house")])
    with pytest.raises(UsageError, match="known about 'the car'"):
        store.add("a", [memo("Blue", 1, about="the house")])
    with pytest.raises(UsageError, match="known about 'the car'"):
        store.supersede("a", house, memo("blue", 1, about="the house"))
    assert sorted((x.text, x.about) for x in store.scan("a")) == [("blue", "the car"), ("green", "the house")]
    store.add("b", [memo("Yes", 3, context="Do you like tea?")])
    store.add("b", [memo("Yes", 3, context="Do you smoke?"), memo("Yes", 3, context="Do you like tea?")])
    assert [x.context for x in store.scan("b")] == ["Do you like tea?\nDo you smoke?"]


def test_what_is_older_corrects_nothing(store: TextStore) -> None:
    [now] = store.add("a", [memo("Linz", 1, about="home", time=20.0)])
    [before] = store.add("a", [memo("Graz", 2, about="home", time=10.0)])
    [found] = store.scan("a")
    assert (found.id, found.text, found.time) == (now, "Linz", 20.0)
    assert sorted(texts(store.history("a", before))) == ["Graz", "Linz"] and not store.get("a", [before])[0].current
    assert texts(store.search("a", vector(2), "Graz", 9)) == ["Linz"]
    [same] = store.add("a", [memo("Linz", 1, context="a call", metadata={"n": 1}, time=5.0)])
    [same] = store.add("a", [memo("Linz", 1, metadata={"n": 2}, time=6.0)])  # said before, so it stays as it was
    [found] = store.scan("a")
    assert (found.id, found.time, found.context, found.metadata) == (same, 20.0, "a call", {"n": 1})
    [last] = store.add("a", [memo("Wels", 3, about="home", time=20.0)])
    assert [x.id for x in store.scan("a")] == [last] and store.forget("a", [before]) == 4


def test_a_correction_takes_a_text_out_of_its_matter(store: TextStore) -> None:
    [id] = store.add("a", [memo("blue", 1, about="the car", time=1.0)])
    new = store.supersede("a", id, memo("blue", 1, time=2.0))
    [other] = store.add("a", [memo("red", 2, about="the car", time=3.0)])
    assert [(x.id, x.about) for x in store.scan("a")] == [(new, ""), (other, "the car")]


def test_a_correction_to_what_is_there_makes_one_of_two(store: TextStore) -> None:
    one, two = store.add("a", [memo("alpha", 1), memo("beta", 2, about="letter")])
    new = store.supersede("a", one, memo("Beta", 3))
    [found] = store.scan("a")
    assert (found.id, found.text, found.about, store.count("a")) == (new, "Beta", "letter", 1)
    assert texts(store.history("a", two)) == ["alpha", "beta", "Beta"] == texts(store.history("a", one))
    other = store.supersede("a", new, memo("beta", 3, metadata={"n": 1}))
    assert other != new and texts(store.scan("a", Filters(metadata={"n": 1}))) == ["beta"]
    assert store.supersede("a", other, memo("beta", 3, metadata={"n": 1})) == other
    assert store.forget("a", [one]) == 4 and not list(store.scan("a", history=True))


def test_an_error_that_is_caught_in_a_transaction_ends_its_own_change_alone(store: TextStore) -> None:
    store.add("a", [memo("one", 1, id="same")])
    with store.transaction():
        store.add("a", [memo("two", 2)])
        with pytest.raises(StoreError):
            store.add("a", [memo("three", 3), memo("four", 4, id="same")])
        store.add("a", [memo("five", 5)])
    assert sorted(texts(store.scan("a"))) == ["five", "one", "two"]


def test_what_is_forgotten_in_a_transaction_goes_with_it(store: TextStore) -> None:
    [id] = store.add("a", [memo("a quixotic secret", 1)])
    with pytest.raises(RuntimeError), store.transaction():
        assert store.forget("a", [id]) == 1
        raise RuntimeError
    assert texts(store.scan("a")) == ["a quixotic secret"]
    with store.transaction():
        assert store.forget("a", [id]) == 1
        store.add("a", [memo("another", 2)])
    assert texts(store.scan("a", history=True)) == ["another"]
    if isinstance(store, Sqlite):
        assert not any(b"quixotic" in path.read_bytes() for path in store.path.parent.iterdir())


def test_a_transaction_is_all_or_nothing(store: TextStore) -> None:
    [id] = store.add("a", [memo("one", 1)])
    with pytest.raises(RuntimeError), store.transaction():
        store.add("a", [memo("two", 2)])
        store.supersede("a", id, memo("three", 3))
        raise RuntimeError
    assert texts(store.scan("a", history=True)) == ["one"]
    assert texts(store.search("a", vector(2), "two", 5)) == ["one"]
    with pytest.raises(RuntimeError), store.transaction():
        store.supersede("a", id, memo("three", 3))
        assert texts(store.search("a", vector(3), "", 5)) == ["three"]
        raise RuntimeError
    assert texts(store.search("a", vector(1), "", 5)) == ["one"]
    with store.transaction():
        store.add("a", [memo("two", 2)])
    assert texts(store.search("a", vector(2), "two", 1)) == ["two"]


def test_it_says_whose_vectors_it_has(store: TextStore) -> None:
    assert store.about() == {}
    store.describe({"encoder": "e", "width": 8})
    store.describe({"encoder": "e", "width": 8})
    assert store.about() == {"encoder": "e", "width": 8}
    with pytest.raises(StoreError, match="not of"):
        store.describe({"encoder": "f", "width": 8})


def test_an_encoder_is_known_by_what_it_is_and_was_once_by_its_name(store: TextStore) -> None:
    earlier, now = {"encoder": "my/e", "width": 8}, {"encoder": "digest", "name": "my/e", "width": 8}
    store.describe(earlier)
    for elsewhere in ({**now, "name": "e"}, {**now, "width": 9}):
        with pytest.raises(StoreError, match="not of"):
            store.describe(elsewhere)
    for given in (now, now, earlier, {**now, "name": "/other/e"}):
        store.describe(given)
        assert store.about() == now
    for other in ({**now, "encoder": "another"}, {**now, "width": 9}, {"encoder": "digest 2", "width": 8}):
        with pytest.raises(StoreError, match="not of") as found:
            store.describe(other)
        assert "my/e" not in found.value.plain
    assert store.about() == now


def test_what_another_store_had_is_put_back(store: TextStore) -> None:
    old = InMemory()
    [id, _] = old.add("a", [memo("Vera lives in Graz.", 1), memo("It rains.", 2)])
    old.supersede("a", id, memo("Vera lives in Linz.", 3))
    everything = list(old.scan("a", history=True))
    for _ in range(2):
        store.restore("a", everything)
        assert by_id(store.scan("a", history=True)) == by_id(everything)
        assert list(store.scan("a")) == list(old.scan("a"))
        assert texts(store.history("a", id)) == ["Vera lives in Graz.", "Vera lives in Linz."]
    assert texts(store.search("a", vector(3), "", 1)) == ["Vera lives in Linz."]


def outcome(change: Callable[..., object], *given: object) -> object:
    """What it gives, or what it says against it."""
    try:
        return change(*given)
    except UsageError as error:
        return str(error)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_done_a_fact_has_one_current_entry(store: TextStore, seed: int) -> None:
    random, plain, others = Random(seed), InMemory(), list[list[Memo]]()

    def some(step: int) -> list[Memo]:
        values = {"context": ["", "", "c"], "metadata": [{}, {}, {"n": 1}], "about": ["", "", "", "x", "y", "Y"]}
        return [
            memo(random.choice("abcdef"), i, time=float(random.randrange(9)), id=f"{step}-{i}")
            if random.random() < 0.5
            else memo(random.choice("abcdef"), i, id=f"{step}-{i}", **{k: random.choice(v) for k, v in values.items()})
            for i in range(random.randint(1, 4))
        ]

    for step in range(25):
        there, change = (
            list(plain.scan("a")),
            random.choice(["add", "add", "supersede", "forget", "restore", "elsewhere"]),
        )
        if change == "add":
            given = some(step)
            assert outcome(store.add, "a", given) == outcome(plain.add, "a", given)
        elif change == "supersede" and there:
            id, new = random.choice(there).id, some(step)[0]
            assert outcome(store.supersede, "a", id, new) == outcome(plain.supersede, "a", id, new)
        elif change == "forget" and there:
            id = random.choice(there).id
            assert store.forget("a", [id]) == plain.forget("a", [id])
        elif change == "elsewhere":  # where what is there now goes another way
            elsewhere = InMemory()
            elsewhere.restore("a", plain.scan("a", history=True))
            outcome(elsewhere.add, "a", some(step))
            if now := list(elsewhere.scan("a")):
                new = memo(random.choice("abcdef"), id=f"{step}-new")
                outcome(elsewhere.supersede, "a", random.choice(now).id, new)
            others.append(list(elsewhere.scan("a", history=True)))
        elif change == "restore" and others:
            given = [*random.choice(others), *random.choice(others)]
            store.restore("a", given)
            plain.restore("a", given)
        everything = list(store.scan("a", history=True))
        assert everything == list(plain.scan("a", history=True))
        now = [x for x in everything if x.current]
        assert len({x.key for x in now}) == len(now) == len({x.matter or x.id for x in now})
        for one in everything:
            fact = store.history("a", one.id)
            assert one in fact and fact == plain.history("a", one.id) and sum(x.current for x in fact) == 1


def corrected() -> tuple[InMemory, list[Memo], list[Memo]]:
    """A store, what it had, and what it has with a correction of one of its texts."""
    other = InMemory()
    [id, _] = other.add("a", [memo("under the pot", 1, time=1.0), memo("It rains.", 2, time=2.0)])
    before = list(other.scan("a", history=True))
    other.supersede("a", id, memo("with the neighbours", 3, time=3.0))
    return other, before, list(other.scan("a", history=True))


def test_a_later_export_supersedes_an_earlier_one(store: TextStore) -> None:
    _, before, after = corrected()
    for given in (before, after, before, [*before, *after], after):
        store.restore("a", given)
    assert texts(store.scan("a")) == ["It rains.", "with the neighbours"]
    assert sorted(store.scan("a", history=True), key=lambda x: x.time) == sorted(after, key=lambda x: x.time)
    assert texts(store.search("a", vector(1), "under the pot", 9)) == ["with the neighbours", "It rains."]
    assert store.forget("a", [before[0].id]) == 2 and texts(store.scan("a", history=True)) == ["It rains."]


@pytest.mark.parametrize("time", [0.0, 9.0])
def test_what_is_put_back_joins_the_history_of_what_is_there(store: TextStore, time: float) -> None:
    after = corrected()[2]
    [own] = store.add("a", [memo("with the neighbours", 3, time=time)])
    store.restore("a", after)
    assert sorted(texts(store.scan("a"))) == ["It rains.", "with the neighbours"]
    assert store.get("a", [own])[0].current == (time > 3)
    assert store.forget("a", [own]) == 3 and texts(store.scan("a", history=True)) == ["It rains."]


def test_two_stores_that_take_from_each_other_lose_nothing(store: TextStore) -> None:
    other = InMemory()
    store.add("a", [memo("one", time=1.0, id="k")])
    other.add("a", [memo("one", time=1.0, id="j")])
    for given in (list(store.scan("a")), list(store.scan("a"))):
        store.restore("a", list(other.scan("a", history=True)))
        other.restore("a", given)
        assert [x.id for x in store.scan("a")] == [x.id for x in other.scan("a")] == ["k"]
    store.restore("a", [memo("one", time=1.0, id="k", replaced_by="j")])  # as nobody would have it
    assert [x.id for x in store.scan("a")] == ["k"]


@pytest.mark.parametrize("time", [2.5, 9.0])
def test_of_two_corrections_the_later_stands(store: TextStore, time: float) -> None:
    _, before, after = corrected()
    store.restore("a", before)
    store.supersede("a", before[0].id, memo("on the shelf", 4, time=time))
    store.restore("a", after)
    assert sorted(texts(store.scan("a"))) == ["It rains.", "on the shelf" if time > 3 else "with the neighbours"]
    assert len(store.history("a", before[0].id)) == 3
    store.add("a", [memo("one", 1, about="x", time=1.0)])
    store.restore("a", [memo("two", 1, about="x", time=time)])
    assert texts(store.scan("a"))[-1] == "two"


def test_of_two_lines_of_corrections_the_one_with_the_later_end_stands(store: TextStore) -> None:
    other = InMemory()
    [pot] = store.add("a", [memo("under the pot", 1, time=1.0)])
    other.restore("a", store.scan("a"))
    store.supersede("a", pot, memo("in the drawer", 2, time=2.0))
    away = other.supersede("a", pot, memo("with the neighbours", 3, time=3.0))
    other.supersede("a", away, memo("with Mrs Neighbour", 4, time=4.0))
    store.restore("a", other.scan("a", history=True))
    other.restore("a", store.scan("a", history=True))
    assert texts(store.scan("a")) == texts(other.scan("a")) == ["with Mrs Neighbour"]
    assert len(store.history("a", pot)) == len(other.history("a", pot)) == 4 == store.forget("a", [away])


def test_a_correction_is_later_than_what_it_corrects_whatever_the_clock_says(store: TextStore) -> None:
    """Or each of three stores finds another one of three the latest."""
    other, third = InMemory(), InMemory()
    [old] = store.add("a", [memo("one", 1, time=9.0)])
    third.restore("a", store.scan("a"))
    new = store.supersede("a", old, memo("One!", 2, time=1.0))
    other.add("a", [memo("one", 3, time=5.0)])
    assert 9.0 < store.get("a", [new])[0].time < 9.001
    for stores in ((other, store), (other, third), (store, third), (third, store), (store, other)):
        stores[1].restore("a", stores[0].scan("a", history=True))
    assert [[x.id for x in one.scan("a")] for one in (store, other, third)] == [[new]] * 3


@pytest.mark.parametrize("seed", range(8))
def test_stores_that_exchange_all_agree(store: TextStore, seed: int) -> None:
    random, stores = Random(seed), [store, InMemory(), InMemory()]

    def exchange() -> None:
        one, other = random.sample(stores, 2)
        given = list(one.scan("a", history=True))
        random.shuffle(given)
        assert other.restore("a", given) == {}
        for fact in facts_of([*given, *other.scan("a", history=True)]):
            assert len(now(other, list(fact))) == 1

    for step in range(1, 40):
        one = random.choice(stores)
        there = list(one.scan("a"))
        change = random.choice(["add", "supersede", "supersede", "supersede", "exchange"])
        if change == "add" or not there:
            outcome(
                one.add, "a", [memo(random.choice("abcdef"), time=float(step), about=random.choice(["", "x", "X"]))]
            )
        elif change == "supersede":
            said = memo(random.choice("abcdefgh"), time=float(random.choice([step, random.randrange(40)])))
            outcome(one.supersede, "a", random.choice(there).id, said)
        else:
            exchange()
    for _ in range(60):
        exchange()
    for history in (False, True):
        assert len({frozenset(x.id for x in one.scan("a", history=history)) for one in stores}) == 1


class Killed(BaseException):
    pass


@pytest.mark.parametrize("seed", range(4))
def test_a_copy_that_is_killed_leaves_one_current_version_of_each_fact(
    store: TextStore, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmm.store.copying.BATCH", 3)
    random, source = Random(seed), InMemory()

    def said(step: int) -> Memo:
        return memo(f"text {step}", step, time=random.choice([0.0, float(step)]), about=random.choice(["", "", "m"]))

    for step in range(1, 10):
        source.add("a", [said(step)])
    copy(source, store)
    for step in range(10, 30):
        there = [x.id for x in source.scan("a")]
        if random.random() < 0.6:
            outcome(source.supersede, "a", random.choice(there), said(step))
        else:
            source.add("a", [said(step)])
    facts = [[x.id for x in source.history("a", one.id)] for one in source.scan("a")]
    before = [now(store, fact) for fact in facts]  # several, where they became one fact since

    def check() -> None:
        for fact, old in zip(facts, before, strict=True):
            assert now(store, fact) in (old, now(source, fact))

    for batch in range(1, 20):
        left = iter([None] * batch)

        def killed(done: int, total: int, left: Iterator[None] = left) -> None:
            check()
            if next(left, Killed) is Killed:
                raise Killed

        with contextlib.suppress(Killed):
            copy(source, store, killed)
    assert by_id(source.scan("a")) == by_id(store.scan("a"))
    assert copy(source, store) == len(list(store.scan("a", history=True))) == sum(map(len, facts))


def now(store: TextStore, fact: Sequence[str]) -> set[str]:
    """Which of some entries are current."""
    return {x.id for x in store.get("a", fact) if x.current}


def test_what_was_corrected_while_it_is_copied_waits_for_its_correction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmm.store.copying.BATCH", 1)
    source, target = InMemory(), InMemory()
    ids = source.add("a", [memo(f"text {i}", i) for i in range(4)])
    copy(source, target)
    facts, scan = Facts(source.scan("a", history=True)), source.scan
    new = source.supersede("a", ids[1], memo("another", 9))
    source.supersede("a", new, memo("one more", 8))
    for batch in facts.batches(scan("a", history=True), 1):
        assert target.restore("a", batch) == {}
        assert len(now(target, [x.id for x in source.history("a", new)])) == 1
    assert by_id(source.scan("a")) == by_id(target.scan("a")) and len(target.history("a", new)) == 3


def test_where_a_correction_cannot_be_held_what_it_corrects_stays(
    store: TextStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, before, after = corrected()
    insert = store._insert

    def refusing(space: str, memos: Sequence[Memo]) -> None:
        insert(space, memos)
        if any("neighbours" in one.text for one in memos):
            raise UsageError("too large for this one")

    monkeypatch.setattr(store, "_insert", refusing)
    left = store.restore("b", after)  # where nothing is there of it
    assert left == {after[2].id: "too large for this one", after[0].id: GONE}
    assert texts(store.scan("b", history=True)) == ["It rains."]
    store.restore("a", before)
    assert store.restore("a", after) == {after[2].id: "too large for this one"}
    assert by_id(store.scan("a")) == by_id(before)
    monkeypatch.undo()
    assert store.restore("a", after) == {} and by_id(store.scan("a", history=True)) == by_id(after)


DEEP: Any = "x"
for _ in range(NESTED + 1):
    DEEP = [DEEP]
METADATA = [{"a": "\ud800"}, {"\ud800": 1}, {"a": ["a\0b"]}, {"a\0b": 1}, {"a": float("nan")}, {"a": {1}}, {"a": DEEP}]
METADATA += [{"a": "x" * LARGEST}, {"a": 10**5000}, [1]]
LARGE: list[dict[str, Any]] = [{name: "x" * (LONGEST + 1)} for name in ("about", "id", "replaces", "replaced_by")]
LARGE += [{"text": "é" * LARGEST}, {"context": "é" * LARGEST}, {"metadata": {"a": "x" * LARGEST}}, {"time": 1e300}]
NO_MEMO: list[dict[str, Any]] = [{"metadata": metadata} for metadata in METADATA if metadata not in METADATA[7:8]]
NO_MEMO += [{name: "\ud800"} for name in ("text", "context", "about", "id", "replaces")]
NO_MEMO += [{name: "a\0b"} for name in ("text", "context", "about", "id", "replaces")]
NO_MEMO += [{name: None} for name in ("text", "context", "about", "id", "time", "metadata")]
NO_MEMO += [{"text": ""}, {"text": "  \n"}, {"time": float("nan")}, {"time": float("inf")}, {"time": True}, {"id": ""}]


def test_what_no_store_can_hold_is_refused_and_nothing_is_stored(store: TextStore) -> None:
    [id] = store.add("a", [memo("one", 1)])
    for values in (*NO_MEMO, *LARGE):
        wrong = replace(memo("two"), **values)
        for tried in (
            lambda wrong=wrong: store.add("a", [memo("three"), wrong]),
            lambda wrong=wrong: store.supersede("a", id, wrong),
        ):
            with pytest.raises(UsageError):
                tried()
    assert texts(store.scan("a", history=True)) == ["one"]
    for values in NO_MEMO:  # and all others are put back
        wrong, good = replace(memo("two"), **values), memo("three", 3, id="good")
        assert list(store.restore("b", [wrong, good])) == [wrong.id] and texts(store.scan("b")) == ["three"]


def test_what_an_earlier_version_took_is_put_back_corrected_and_forgotten(store: TextStore) -> None:
    given = [replace(memo(f"text {i}", i), **values) for i, values in enumerate(LARGE) if "replace" not in str(values)]
    assert store.restore("a", given) == {} and list(store.scan("a")) == given
    for i, one in enumerate(given):
        new = store.supersede("a", one.id, replace(one, text=f"another {i}", id=f"new {i}"))
        assert [x.id for x in store.history("a", one.id)] == [one.id, new]
        assert store.forget("a", [one.id]) == 2
    assert not list(store.scan("a", history=True))


@pytest.mark.parametrize("when", [4e9, 1.7e12, 1e300])
def test_what_is_said_now_stands_though_the_future_has_an_entry(store: TextStore, when: float) -> None:
    old = memo("It is blue.", 1, about="boat", time=when, metadata={"by": "ann"})
    same = memo("The key is here.", 2, time=when, metadata={"by": "ann"})
    assert store.restore("a", [old, same]) == {}
    [new, again] = store.add(
        "a", [memo("It is red.", 3, about="boat"), memo("The key is here.", 2, metadata={"by": "bob"})]
    )
    assert {(x.text, x.metadata.get("by")) for x in store.scan("a")} == {("It is red.", None), (same.text, "bob")}
    assert [x.id for x in store.history("a", new)] == [old.id, new]
    [last] = store.add("a", [memo("It is green.", 4, about="boat")])
    assert [x.id for x in store.scan("a")] == [again, last]
    [early] = store.add("a", [memo("It was grey.", 5, about="boat", time=5.0)])
    assert [x.id for x in store.scan("a")] == [again, last] and len(store.history("a", early)) == 4


def test_what_a_store_cannot_hold_is_left_out_and_named(store: TextStore, monkeypatch: pytest.MonkeyPatch) -> None:
    given, insert = [memo(f"text {i}", i, id=f"id {i}") for i in range(9)], store._insert

    def refusing(space: str, memos: Sequence[Memo]) -> None:
        insert(space, memos)
        if any(one.id in ("id 3", "id 8") for one in memos):
            raise UsageError("too large for this one")

    monkeypatch.setattr(store, "_insert", refusing)
    assert store.restore("a", given) == dict.fromkeys(("id 3", "id 8"), "too large for this one")
    assert [one.id for one in store.scan("a")] == [f"id {i}" for i in (0, 1, 2, 4, 5, 6, 7)]


def test_large_metadata_is_refused_before_its_values_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmm.store.checks._texts", None)
    with pytest.raises(UsageError, match="bytes"):
        small_values({"n": [1] * LARGEST})


def test_what_no_store_can_look_for_is_refused(store: TextStore) -> None:
    with pytest.raises(UsageError):
        store.add("x" * (LONGEST + 1), [memo("x")])
    for name in ("\ud800", "a\0b", None):
        for tried in (store.get, store.forget):
            with pytest.raises(UsageError):
                tried("a", [name])
            with pytest.raises(UsageError):
                tried(name, ["x"])
        for tried in (store.history, lambda space, id: store.supersede(space, id, memo("x"))):
            with pytest.raises(UsageError):
                tried("a", name)
        with pytest.raises(UsageError):
            store.add(name, [memo("x")])
    for text in ("\ud800", "a\0b", None):
        with pytest.raises(UsageError):
            store.search("a", vector(1), text)
    for metadata in METADATA:
        with pytest.raises(UsageError):
            Filters(metadata=metadata)
    for bound in (float("nan"), float("-inf"), "x", 1e300):
        with pytest.raises(UsageError):
            Filters(since=bound)
        with pytest.raises(UsageError):
            Filters(until=bound)


def test_the_longest_and_the_oddest_come_back_as_they_were(store: TextStore) -> None:
    long = " ".join(f"w{i}-x{i:x}" for i in range(LARGEST))[:LARGEST]
    odd = {"1": {"a": [1, 1.5, -0.0, 1e25, 10**30, None, True, "\u2028 \x01 \ufffe \\u0000"]}, "": ""}
    name = "\U00010400" * LONGEST
    given = [memo(long, 1, metadata=odd, about=name, id=name), memo("w7-x7 and more", 2, metadata={1: (2,)})]
    store.add(name, given)
    assert list(store.scan(name)) == [given[0], replace(given[1], metadata={"1": [2]})]
    assert len(store.search(name, vector(2), long, 9)) == 2
    assert [x.id for x in store.scan(name, Filters(metadata=odd))] == [name]


def test_rankings_are_fused_by_reciprocal_rank() -> None:
    assert [one for one, _ in fused([1, 2, 3], [3, 1], 3)] == [1, 3, 2]
    assert fused([1, 2, 3, 4], [4, 3], 2) == [(4, 1 / 3 + 1.5 / 6), (3, 1 / 4 + 1.5 / 5)]
    assert fused([7], [], 5) == [(7, 0.5)] and fused([], [7], 5) == [(7, 1 / 3)]


# ---- vectors


def test_lists_find_what_all_rows_find() -> None:
    random = np.random.default_rng(0)
    centres = random.normal(size=(40, 16))
    rows = (centres[random.integers(40, size=3000)] + 0.3 * random.normal(size=(3000, 16))).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    exact, lists = Vectors(), Vectors(exact=1000)
    for start in range(0, 3000, 500):
        numbers = np.arange(start, start + 500)
        exact.extend(numbers, rows[start : start + 500])
        lists.extend(numbers, rows[start : start + 500])
    lists.nearest(rows[0], 1)
    assert lists._centroids is not None and exact._centroids is None
    hits = 0
    for row in rows[::60]:
        a, b = ([n for n, _ in found.nearest(row, 10)] for found in (exact, lists))
        assert a[0] == b[0]
        hits += len(set(a) & set(b))
    assert hits / 500 >= 0.9
    lists.remove({0, 60})
    assert not {0, 60} & {n for n, _ in lists.nearest(rows[0], 3000)}
    assert lists.nearest(rows[5], 1, np.array([7, 9]))[0][0] in (7, 9)
    with pytest.raises(StoreError, match="width"):
        lists.nearest(rows[0][:4], 1)


# ---- the file

WRITER = """
import sys, numpy as np
from pathlib import Path
from lmm.store.base import Memo
from lmm.store.sqlite import Sqlite
path, name, count = sys.argv[1:]
store = Sqlite(Path(path))
for i in range(int(count)):
    [id] = store.add("a", [Memo(f"{name} {i}", vector=np.eye(8, dtype=np.float32)[i % 8])])
    print(id, flush=True)
"""


def writer(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    both = [writer(path, name, 200) for name in ("one", "two")]
    ids = {line for process in both for line in process.communicate()[0].split()}
    store = open_store(path)
    assert [process.returncode for process in both] == [0, 0]
    assert len(ids) == 400 and {x.id for x in store.scan("a")} == ids
    assert len(store.search("a", np.eye(8, dtype=np.float32)[0], "one", 400)) >= 200


@pytest.mark.slow
@pytest.mark.parametrize("lines", [0, 1, 7])
def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "store.sqlite"
    process = writer(path, "one", 1_000_000)
    assert process.stdout is not None
    seen = [process.stdout.readline().strip() for _ in range(lines)]
    os.kill(process.pid, signal.SIGKILL)
    seen += process.communicate()[0].split()
    store = open_store(path)
    there = {x.id for x in store.scan("a")}
    assert {id for id in seen if len(id) == 32} <= there and len(there) <= len(seen) + 1


def test_a_file_that_another_process_just_makes_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy, connect = sqlite3.OperationalError("database is locked"), sqlite3.connect
    busy.sqlite_errorcode = sqlite3.SQLITE_BUSY
    answers = iter([busy, busy])

    class Raced(sqlite3.Connection):
        def execute(self, text: str, *values: Any) -> sqlite3.Cursor:
            if "journal_mode" in text and (error := next(answers, None)):
                raise error
            return super().execute(text, *values)

    monkeypatch.setattr("sqlite3.connect", lambda *given, **more: connect(*given, factory=Raced, **more))
    assert open_store(tmp_path / "store.sqlite").count("a") == 0 and next(answers, None) is None


def test_another_process_is_seen_at_once(tmp_path: Path) -> None:
    one, two = open_store(tmp_path / "store.sqlite"), open_store(tmp_path / "store.sqlite")
    [id] = one.add("a", [memo("one", 1)])
    assert texts(two.search("a", vector(1), "", 1)) == ["one"]
    new = two.supersede("a", id, memo("two", 2))
    assert texts(one.search("a", vector(1), "one", 5)) == ["two"]
    one.forget("a", [new])
    assert two.search("a", vector(1), "two", 5) == []
    two.add("a", [memo("three", 3)])
    assert texts(one.search("a", vector(3), "", 5)) == ["three"]


def test_no_file_has_a_byte_of_what_was_forgotten(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.sqlite")
    for i in range(300):
        store.add("a", [memo(f"filler number {i} {'and more ' * (i % 40)}", i)])
    secrets = [store.add("a", [memo(f"quixotic{i} zweisamkeit{i} {'long ' * 60}", i)])[0] for i in range(40)]
    store.supersede("a", secrets[0], memo("zweisamkeit was wrong: quixotic", 3))
    for i in range(300, 400):
        store.add("a", [memo(f"filler number {i}", i)])
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"quixotic" in held and b"zweisamkeit" in held  # so that it would be found
    assert store.forget("a", secrets) == 41
    for path in tmp_path.iterdir():
        data = path.read_bytes().lower()
        assert not any(word in data for word in (b"quixotic", b"uixot", b"zweisam", *(id.encode() for id in secrets)))
    assert store.count("a") == 400 and store.search("a", vector(5), "filler number 5", 1)


def test_words_that_many_entries_have_are_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path / "store.sqlite")
    store.add("a", [memo(f"the filler number {i}", i) for i in range(60)] + [memo("the word zorbina", 7)])
    asked = "Where is the filler of zorbina?"
    assert len(store._said("a", asked, 100, None)) == 61
    monkeypatch.setattr("lmm.store.sqlite.MANY", 50)
    assert len(store._said("a", asked, 100, None)) == 1 and store._said("a", "the filler", 100, None) == []
    assert store.search("a", vector(7), asked, 1)[0].memo.text == "the word zorbina"
    assert texts(store.search("a", vector(5), "the filler", 1)) == ["the filler number 5"]


def held(path: Path, word: bytes) -> bool:
    return any(word in file.read_bytes() for file in path.parent.iterdir())


def test_a_reader_in_the_way_of_forgetting_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmm.store.sqlite.READERS_S", 0.1)
    path = tmp_path / "store.sqlite"
    store = open_store(path)
    [id] = store.add("a", [memo("quixotic", 1)])
    with contextlib.closing(sqlite3.connect(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM memos").fetchall()
        for _ in range(2):
            with pytest.raises(StoreError, match="nothing was forgotten: another process is reading"):
                store.forget("a", [id])
        assert store.count("a") == 1
    assert store.forget("a", [id]) == 1 and not held(path, b"quixotic")


@pytest.mark.parametrize("again", [True, False])
def test_what_was_not_cleaned_is_cleaned_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool) -> None:
    path = tmp_path / "store.sqlite"
    store = open_store(path)
    [id] = store.add("a", [memo("quixotic", 1)])
    answers = iter([False, True])  # a reader that comes in the midst of it
    with monkeypatch.context() as patched:
        patched.setattr(Sqlite, "_log_is_read", lambda self: next(answers))
        with pytest.raises(StoreError, match="forgotten, but it is still in the log"):
            store.forget("a", [id])
    assert store.count("a") == 0 and held(path, b"quixotic")
    assert store.forget("a", [id]) == 0 if again else open_store(path).count("a") == 0
    assert not held(path, b"quixotic")


def test_a_file_of_the_first_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    rows = [
        ("old", '{"a": "\\ud800"}', "", "new"),
        ("new", '{"a": NaN}', "old", ""),
        ("deep", "[" * 900 + "]" * 900, "", ""),
    ]
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(MIGRATIONS[0] + "PRAGMA user_version = 1;")
        for n, (id, metadata, replaces, by) in enumerate(rows, 1):
            values = (n, "a", id, Memo(id).key, id, "", metadata, "", 1.0, replaces, by)
            db.execute(f"INSERT INTO memos VALUES ({', '.join('?' * 11)})", values)
            if not by:
                db.execute("INSERT INTO vectors VALUES (?, 'a', ?)", (n, vector(n).tobytes()))
                db.execute("INSERT INTO said (rowid, space, text) VALUES (?, 's61', ?)", (n, id))
        db.commit()
    store = open_store(path)
    assert texts(store.scan("a")) == ["new", "deep"] and texts(store.history("a", "new")) == ["old", "new"]
    assert [x.metadata for x in store.scan("a", history=True)] == [{"unreadable": row[1]} for row in rows]
    assert not texts(store.scan("a", Filters(metadata={"a": 1})))
    target = InMemory()
    assert (
        copy(store, target) == 3
        and store.forget("a", ["old"]) == 2
        and texts(store.search("a", vector(3), "deep")) == ["deep"]
    )


def test_words_and_matters_of_an_earlier_version_are_brought_over(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript("".join(MIGRATIONS[:2]) + "PRAGMA user_version = 2;")
        for n, (text, about) in enumerate((("船在港口。", "Boat"), ("猫喜欢吃鱼。", "")), 1):
            values = (n, "a", text, Memo(text).key, text, "", "{}", about, 1.0, "", "")
            db.execute(f"INSERT INTO memos VALUES ({', '.join('?' * 11)})", values)
            db.execute("INSERT INTO vectors VALUES (?, 'a', ?)", (n, vector(1).tobytes()))
            db.execute("INSERT INTO said (rowid, space, text) VALUES (?, 's61', ?)", (n, text))
        db.commit()
    store = open_store(path)
    assert texts(store.search("a", vector(1), "鱼", 1)) == ["猫喜欢吃鱼。"]
    store.add("a", [memo("quixotic", 1, about="boat")])
    assert texts(store.scan("a")) == ["猫喜欢吃鱼。", "quixotic"]
    assert store.forget("a", ["船在港口。"]) == 2
    assert not held(path, b"quixotic") and not held(path, "船".encode())


def test_the_index_is_made_again_where_words_are_another_unicodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.sqlite"
    with monkeypatch.context() as patched:
        patched.setattr("lmm.store.sqlite.FUNCTIONS", {**FUNCTIONS, "terms": lambda text: text[::-1]})
        patched.setattr("lmm.store.sqlite._terms", lambda text: text[::-1])  # as if its letters were other ones
        patched.setattr("unicodedata.unidata_version", "1.0")
        store = Sqlite(path)
        [id] = store.add("a", [memo("quixotic", 1)])
        store.close()
    assert held(path, b"citoxiuq")
    store = Sqlite(path)
    assert len(store._said("a", "quixotic", 9, None)) == 1
    assert store.forget("a", [id]) == 1 and not held(path, b"citoxiuq") and not held(path, b"quixotic")


@pytest.mark.parametrize("content", [b"not a store at all" * 100, None])
def test_what_is_no_store_is_said(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "store.sqlite"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(StoreError, match=r"store\.sqlite cannot be opened"):
        open_store(path)


def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a user whom permissions bind, as they do not bind root."""
    access = os.access
    monkeypatch.setattr(os, "access", lambda at, mode: not mode & os.W_OK and access(at, mode))


def test_a_file_that_nobody_can_write_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a #?%20.sqlite"
    store = open_store(path)
    [id] = store.add("a", [memo("It rains.", 1)])
    new = store.supersede("a", id, memo("It snows.", 2))
    store.describe({"encoder": "e", "width": 8})
    store.close()
    read_only(monkeypatch)
    with contextlib.closing(open_store(path)) as store:
        assert texts(store.search("a", vector(2), "snows", 1)) == ["It snows."] and len(store.history("a", id)) == 2
        store.describe({"encoder": "e", "width": 8})
        store.describe({"encoder": "digest", "name": "e", "width": 8})  # which was known by its name alone
        with pytest.raises(StoreError, match="another encoder's"):
            store.describe({"encoder": "f", "width": 8})
        target = InMemory()
        assert copy(store, target) == 2 and texts(target.scan("a")) == ["It snows."]
        for change in (
            lambda: store.add("a", [memo("more")]),
            lambda: store.supersede("a", new, memo("more")),
            lambda: store.forget("a", [id]),
            lambda: store.restore("a", [memo("more")]),
        ):
            with pytest.raises(StoreError, match="cannot be written: it, or its folder, is read-only here"):
                change()
        assert [file.name for file in tmp_path.iterdir()] == [path.name]
        os.utime(path, ns=(1, 1))  # as another machine may, by another mount
        with pytest.raises(StoreError, match="open it again"):
            store.count("a")


def test_of_a_file_that_nobody_can_write_nothing_in_its_log_is_overlooked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.sqlite"
    writer = open_store(path)
    writer.add("a", [memo("It rains.", 1)])
    assert (tmp_path / "store.sqlite-wal").stat().st_size
    read_only(monkeypatch)
    assert texts(open_store(path).scan("a")) == ["It rains."]


def test_a_read_only_file_of_an_earlier_version_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(f"PRAGMA journal_mode = WAL; {MIGRATIONS[0]} PRAGMA user_version = 1;")
        row = (1, "a", "x", Memo("one").key, "one", "", "{}", "", 1.0, "", "")
        db.execute(f"INSERT INTO memos VALUES ({', '.join('?' * 11)})", row)
        db.execute("INSERT INTO vectors VALUES (1, 'a', ?)", (vector(1).tobytes(),))
        db.execute("INSERT INTO said (rowid, space, text) VALUES (1, 's61', 'one')")
        db.commit()
    read_only(monkeypatch)
    assert texts(open_store(path).search("a", vector(1), "one", 1)) == ["one"]


def test_another_programs_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE about (x)")
        db.commit()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        open_store(path)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["other.sqlite"]


def test_a_later_version_is_refused_and_the_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "store.sqlite"
    open_store(path).close()
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="later lmm"):
        open_store(path)


# ---- PostgreSQL

TABLES = "lmm_memos, lmm_about, lmm_minds, lmm_known, lmm_undos, lmm_forgotten, lmm_version"


@pytest.mark.slow
def test_rows_of_another_namespace_are_hidden_by_the_server_itself(postgres: TextStore, postgres_url: str) -> None:
    import psycopg

    postgres.add("a", [memo("a secret", 1)])
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE ROLE lmm_plain; GRANT SELECT ON lmm_memos TO lmm_plain; SET ROLE lmm_plain")
        for space, seen in (("b", 0), ("a", 1)):
            connection.execute("SELECT set_config('lmm.space', %s, false)", [space])
            assert connection.execute("SELECT count(*) FROM lmm_memos").fetchone() == (seen,)
        connection.rollback()


@pytest.mark.slow
def test_a_postgres_store_is_of_one_width_and_has_an_index(postgres: TextStore, postgres_url: str) -> None:
    import psycopg

    postgres.describe({"encoder": "e", "width": 8})
    postgres.add("a", [memo(f"text {i}", i) for i in range(50)])
    assert postgres.search("a", vector(7), "", 1)[0].memo.text == "text 7"
    with psycopg.connect(postgres_url) as connection:
        found = connection.execute("SELECT indexname FROM pg_indexes WHERE tablename = 'lmm_memos'")
        assert "lmm_memo_vectors" in {name for [name] in found}
        connection.execute("UPDATE lmm_version SET number = 99")
    with pytest.raises(StoreError, match="later lmm"):
        open_store(postgres_url)


@pytest.mark.slow
def test_postgres_finds_a_users_own_by_its_index_and_leaves_out_words_that_all_have(
    postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmm.store import postgres as module

    monkeypatch.setattr(module, "EXACT", 0)
    monkeypatch.setattr(module, "RARE", 10)
    monkeypatch.setattr(module, "SAMPLE", 30)
    postgres.describe({"encoder": "e", "width": 8})
    postgres.add("b", [memo(f"other {i}", 7) for i in range(60)])  # nearer than all but one of the user's own
    postgres.add("a", [memo(f"note {i}", i) for i in range(30)])
    assert texts(postgres.search("a", vector(7), "", 3))[0] == "note 7"
    assert len(postgres.search("a", vector(7), "", 30)) == 30
    few, common = postgres._shapes["a"][1:]
    assert not few and common == ["note"]
    assert texts(postgres.search("a", vector(1), "note 12", 2)) == ["note 1", "note 12"]
    assert not postgres.search("c", vector(7), "other")


def files_of_postgres(url: str, word: str) -> list[Path]:
    """Those of its tables and indexes that have a word."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        [folder] = connection.execute("SHOW data_directory").fetchone() or [""]
    files = [path for path in Path(folder, "base").rglob("*") if path.is_file()]
    assert files
    return [path for path in files if word.encode() in path.read_bytes()]


@pytest.mark.slow
def test_no_table_of_postgres_has_a_byte_of_what_was_forgotten(postgres_url: str) -> None:
    import psycopg

    from lmm.store.postgres import MIGRATIONS as SCHEMA

    def held() -> list[Path]:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("VACUUM FULL pg_statistic")  # rows of it that were replaced are the server's matter
        return files_of_postgres(postgres_url, "quixotic")

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {TABLES}")
        version = "CREATE TABLE lmm_version (number INTEGER NOT NULL); INSERT INTO lmm_version VALUES (2)"
        for statements in (*SCHEMA[:2], version):  # as an earlier version made it
            connection.execute(statements)
        old = "SELECT set_config('lmm.space', 'a', false)", "ANALYZE lmm_memos", "ANALYZE lmm_undos"
        connection.execute(old[0])
        for i in range(20):
            values = (f"t{i}", f"{i}", f"quixotic {i}", "quixotic here", '{"is": "quixotic"}', f"quixotic {i % 3}")
            connection.execute(
                "INSERT INTO lmm_memos (space, id, key, text, context, metadata, about, time, replaces, replaced_by) "
                "VALUES ('a', %s, %s, %s, %s, %s, %s, 1, '', '')",
                values,
            )
            connection.execute("INSERT INTO lmm_undos (space, name, change) VALUES ('a', 'm', 'quixotic')")
        for statement in old[1:]:
            connection.execute(statement)
        stats = connection.execute("SELECT count(*) FROM pg_stats WHERE pg_stats::text LIKE '%quixotic%'").fetchone()
        assert stats and stats[0] > 3
        connection.execute("DELETE FROM lmm_undos")
        connection.execute("VACUUM FULL lmm_undos")
    store = open_store(postgres_url)
    assert store.count("a") == 20 and held()
    store.describe({"encoder": "e", "width": 8})
    ids = store.add("a", [memo(f"new quixotic {i}", i, metadata={"quixotic": i}) for i in range(20)])
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("ANALYZE")
    assert store.forget("a", [*ids, *(f"t{i}" for i in range(20))]) == 40
    assert not held()
    store.close()


#: what another client may have open, in the store's database or in another one
OPEN = {
    "a transaction that writes": ("lmm_", "CREATE TEMP TABLE held (x int)"),
    "a transaction that reads": ("lmm_", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1"),
    "one in another database": ("template1", "SELECT pg_current_xact_id()"),
}


@contextlib.contextmanager
def open_beside(url: str, what: str) -> Iterator[Any]:
    import psycopg

    database, statement = OPEN[what]
    path = "/template1" if database == "template1" else urlsplit(url).path
    with psycopg.connect(urlunsplit(urlsplit(url)._replace(path=path)), application_name="held") as connection:
        connection.execute(statement)
        yield connection
        connection.rollback()


def times_forgotten(url: str) -> int:
    import psycopg

    with psycopg.connect(url) as connection:
        return connection.execute("SELECT count(*) FROM lmm_forgotten").fetchone()[0]  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.parametrize("what", OPEN)
def test_what_another_transaction_might_see_is_said_to_stay_and_goes_later(
    postgres: Any, postgres_url: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmm.store import postgres as module

    monkeypatch.setattr(module, "HELD_S", 0.05)
    ids = postgres.add("a", [memo("a zephyrine key"), memo("its zephyrine lock" + " of iron" * 900)])
    with open_beside(postgres_url, what):
        with pytest.raises(
            StillThereError, match="stay in lmm_memos while another transaction is open, since 2"
        ) as said:
            postgres.forget("a", ids)
        assert said.value.places == ("lmm_memos",) and "held" in said.value.detail
        assert not list(postgres.scan("a", history=True))
        open_store(postgres_url).close()
        assert files_of_postgres(postgres_url, "zephyrine") and times_forgotten(postgres_url)
    postgres.clean_up()
    assert not files_of_postgres(postgres_url, "zephyrine") and not times_forgotten(postgres_url)


@pytest.mark.slow
def test_a_transaction_that_ends_soon_is_waited_for(
    postgres: Any, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from lmm.store import postgres as module

    [id] = postgres.add("a", [memo("a zephyrine key")])
    with open_beside(postgres_url, "a transaction that writes") as other:
        ends = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: other.rollback())
        monkeypatch.setattr(module, "time", ends)
        assert postgres.forget("a", [id]) == 1
    assert not files_of_postgres(postgres_url, "zephyrine") and not times_forgotten(postgres_url)


@pytest.mark.slow
def test_words_and_matters_of_an_earlier_database_are_brought_over(postgres_url: str) -> None:
    import psycopg

    from lmm.store.postgres import MIGRATIONS as SCHEMA

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {TABLES}")
        version = "CREATE TABLE lmm_version (number INTEGER NOT NULL); INSERT INTO lmm_version VALUES (4)"
        for statements in (*SCHEMA[:4], version, "SELECT set_config('lmm.space', 'a', false)"):
            connection.execute(statements)
        for text, about in (("船在港口。", "Boat"), ("猫喜欢吃鱼。", "")):
            connection.execute(
                "INSERT INTO lmm_memos (space, id, key, text, context, metadata, about, time, replaces, replaced_by, "
                "vector) VALUES ('a', %s, %s, %s, '', '{}', %s, 1, '', '', %s::text::vector)",
                (text, Memo(text).key, text, about, str(vector(1).tolist())),
            )
    with contextlib.closing(open_store(postgres_url)) as store:
        store.describe({"encoder": "e", "width": 8})
        assert texts(store.search("a", vector(1), "鱼", 1)) == ["猫喜欢吃鱼。"]
        store.add("a", [memo("blue", 1, about="boat")])
        assert texts(store.scan("a")) == ["猫喜欢吃鱼。", "blue"]


@pytest.mark.slow
def test_a_role_that_owns_nothing_uses_what_was_prepared(postgres: TextStore, postgres_url: str) -> None:
    import psycopg

    postgres.describe({"encoder": "e", "width": 8})
    [id] = postgres.add("b", [memo("another's", 1)])
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS lmm_app")
        connection.execute("CREATE ROLE lmm_app LOGIN PASSWORD 'lmm'")
        connection.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {TABLES} TO lmm_app")
        connection.execute("GRANT USAGE ON SEQUENCE lmm_known_n_seq TO lmm_app")
    try:
        store = open_store(as_app(postgres_url))
        store.describe({"encoder": "e", "width": 8})
        [one, two] = store.add("a", [memo("one", 1), memo("two", 2)])
        store.supersede("a", one, memo("three", 3))
        assert texts(store.search("a", vector(3), "three", 1)) == ["three"] and store.get("a", [id]) == []
        assert store.namespaces() == ["a", "b"]
        with pytest.raises(StoreError, match="its owner must forget it"):
            store.forget("a", [one, two])
        assert not list(store.scan("a", history=True))
        store.close()
        with psycopg.connect(postgres_url) as connection:
            assert connection.execute("SELECT count(*) FROM lmm_forgotten").fetchone() == (1,)
            open_store(postgres_url).close()
            assert connection.execute("SELECT count(*) FROM lmm_forgotten").fetchone() == (0,)
            connection.rollback()
            connection.execute(f"DROP TABLE {TABLES}")
        with pytest.raises(StoreError, match=r"permission denied .* an administrator prepares a database once"):
            open_store(as_app(postgres_url))
    finally:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("DROP OWNED BY lmm_app; DROP ROLE lmm_app")


@pytest.mark.slow
def test_a_role_with_a_schema_of_its_own_needs_no_more(postgres: TextStore, postgres_url: str) -> None:
    import psycopg

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"DROP TABLE {TABLES}")
        connection.execute("CREATE ROLE lmm_app LOGIN PASSWORD 'lmm'; CREATE SCHEMA lmm_app AUTHORIZATION lmm_app")
        try:
            for _ in range(2):
                store = open_store(as_app(postgres_url))
                store.describe({"encoder": "e", "width": 8})
                [id] = store.add("a", [memo("one", 1)])
                assert texts(store.search("a", vector(1), "one")) == ["one"] and store.forget("a", [id]) == 1
                store.close()
            assert connection.execute("SELECT count(*) FROM lmm_app.lmm_forgotten").fetchone() == (0,)
        finally:
            connection.execute("DROP OWNED BY lmm_app; DROP ROLE lmm_app")


@pytest.mark.slow
def test_a_connection_that_was_closed_is_not_handed_out(postgres: TextStore, postgres_url: str) -> None:
    import psycopg

    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(postgres._pool.connection())  # type: ignore[attr-defined]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
    assert [postgres.count("a") for _ in range(5)] == [0] * 5


class Line:
    """A way to a server that can be cut."""

    def __init__(self, url: str) -> None:
        from psycopg.conninfo import conninfo_to_dict

        self.to, self.ends = conninfo_to_dict(url), list[socket.socket]()
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.up = True
        port = self.listening.getsockname()[1]
        self.url = "postgresql://{user}@127.0.0.1:{port}/{dbname}".format(**{**self.to, "port": port})
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listening.accept()
                if not self.up:
                    near.close()
                    continue
                pair = near, self._connected()
                self.ends += pair
                for one, other in (pair, pair[::-1]):
                    threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _connected(self) -> socket.socket:
        host, port = str(self.to["host"]), self.to.get("port") or 5432
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        found = socket.socket(socket.AF_UNIX)
        found.connect(f"{host}/.s.PGSQL.{port}")
        return found

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        self.up = False
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.cut()
        self.listening.close()


@pytest.mark.slow
def test_a_server_that_is_gone_is_said_soon_and_one_that_comes_back_is_found(
    postgres_url: str, postgres: TextStore
) -> None:
    asked = "?connect_timeout=2"
    with contextlib.closing(Line(postgres_url)) as line, contextlib.closing(open_store(line.url + asked)) as store:
        assert store.count("a") == 0
        line.cut()
        begun = time.monotonic()
        with pytest.raises(StoreError, match=r"127\.0\.0\.1") as found:
            store.count("a")
        assert time.monotonic() - begun < 5 and found.value.plain == "the store failed"
        time.sleep(begun + 8 - time.monotonic())  # the pool alone would try at 7 and 15 s
        line.up, begun = True, time.monotonic()
        assert store.count("a") == 0 and time.monotonic() - begun < 4


@pytest.mark.slow
def test_while_the_server_is_there_a_free_connection_is_waited_for(postgres: Any, postgres_url: str) -> None:
    from lmm.store.postgres import CONNECTIONS, GONE_S

    endless = f"{postgres_url}{'&' if '?' in postgres_url else '?'}connect_timeout=0"
    with contextlib.closing(open_store(endless)) as store:
        assert store._gone_s == GONE_S  # type: ignore[attr-defined]
    postgres._gone_s = 0.1
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        for _ in range(CONNECTIONS):
            stack.enter_context(postgres._pool.connection())
        asked = pool.submit(postgres.count, "a")
        with pytest.raises(TimeoutError):
            asked.result(timeout=1)
        stack.close()
        assert asked.result(timeout=30) == 0


@pytest.mark.slow
def test_a_server_that_is_not_there_is_said_at_once(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("psycopg_pool")
    begun = time.monotonic()
    with pytest.raises(StoreError, match=r"cannot be opened: .*127\.0\.0\.1") as found:
        open_store("postgresql://nobody@127.0.0.1:1/none")
    assert found.value.plain == "the store cannot be opened"
    assert time.monotonic() - begun < 5 and not caplog.records


def as_app(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"lmm_app:lmm@{parts.netloc.rpartition('@')[2]}"))


# ---- copying


@pytest.mark.parametrize("backwards", [False, True])
def test_all_of_a_store_is_copied(store: TextStore, tmp_path: Path, backwards: bool) -> None:
    other = open_store(tmp_path / "other.sqlite")
    source, target = (other, store) if backwards else (store, other)
    source.describe({"encoder": "e", "width": 8})
    for space in ("", "a", "é b"):
        [id, *_] = source.add(space, [memo(f"{space} {i}", i, metadata={"n": i}) for i in range(7)])
        source.supersede(space, id, memo("another", 9))
    told: list[tuple[int, int]] = []
    for _ in range(2):
        assert copy(source, target, lambda done, total: told.append((done, total))) == 24
    assert told[-1] == (24, 24) and target.about() == source.about()
    for space in source.namespaces():
        assert by_id(target.scan(space, history=True)) == by_id(source.scan(space, history=True))
        assert list(target.scan(space)) == list(source.scan(space))
    assert texts(target.search("a", vector(3), "", 1)) == ["a 3"]


def test_what_did_not_arrive_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = InMemory(), InMemory()
    source.add("a", [memo("one", 1), memo("two", 2)])
    monkeypatch.setattr(target, "restore", lambda space, memos: target.add(space, memos[:1]) and {})
    with pytest.raises(StoreError, match="is missing"):
        copy(source, target)
