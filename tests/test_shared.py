"""Lessons that servers share through one PostgreSQL: what a mind here is taught, one there knows at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import numpy as np
import pytest

pytest.importorskip("psycopg_pool", reason="the PostgreSQL store is not installed: pip install 'lmm[postgres]'")

import psycopg
from scripted import ScriptedAdapter, install

from lmm.adapters.toy import ToyAdapter
from lmm.engine.mind import Mind
from lmm.engine.shared import SharedKeeper
from lmm.errors import Cancelled, StateError, StoreError
from lmm.lesson import Lesson
from lmm.memory.keyed.keyed import Keyed
from lmm.memory.lora_on_user import LoraOnUser
from lmm.store.base import Memo
from lmm.store.copying import copy_lessons
from lmm.store.memory import InMemory
from lmm.store.postgres import LEARNING, Postgres

pytestmark = pytest.mark.slow
QUESTION = "What is my sister's name?"


@pytest.fixture
def store(postgres: Postgres) -> Postgres:
    return postgres


@pytest.fixture
def open_mind(store: Postgres) -> Iterator:
    minds: list[Mind] = []

    def opened(user: str = "ann", memory: type = Keyed, rows=None, **options) -> Mind:
        mind = Mind(ToyAdapter(), memory(memory.build_options(options)))
        SharedKeeper(mind, rows or store.lessons(user, "toy/keyed"))
        minds.append(mind)
        return mind

    yield opened
    for mind in minds:
        mind.close()


def told(mind: Mind) -> list[tuple[str, str]]:
    mind.look()
    return [(lesson.id, lesson.answer) for lesson in mind.lessons]


def lesson(id: str, answer: str = "Vera") -> Lesson:
    return Lesson(f"{QUESTION} {id}", answer, id=id)


def test_what_one_is_taught_the_other_knows(open_mind) -> None:
    one, two = open_mind(), open_mind()
    one.learn(lesson("a"))
    two.learn(lesson("b"))
    one.learn(lesson("c"))
    assert told(one) == told(two) == told(open_mind()) == [("a", "Vera"), ("b", "Vera"), ("c", "Vera")]
    for name, array in one.knowledge.state.items():
        assert np.array_equal(array, two.knowledge.state[name])
    assert told(open_mind("bob")) == []
    assert [x.id for x in one.keeper.taught] == ["a", "c"]


def test_undo_reaches_back_over_a_restart_and_is_seen(open_mind) -> None:
    one = open_mind()
    one.learn(lesson("a"))
    one.learn(Lesson(f"{QUESTION} a", "Zora", id="b"))
    two = open_mind()
    assert two.undo() == 1 and told(two) == told(one) == [("a", "Vera")]
    assert open_mind().undo(5) == 1 and told(one) == [] and open_mind().undo() == 0


def test_what_is_forgotten_is_in_no_table(open_mind, store: Postgres) -> None:
    one, two = open_mind(), open_mind()
    one.learn(lesson("a", "Quibblethorpe"))
    one.learn(Lesson(f"{QUESTION} a", "Zora", id="b"))
    assert told(two) == [("b", "Zora")]
    two.forget("b")
    one.forget("a")
    assert told(one) == [] and one.undo() == 0
    with store.within("ann") as query:
        for table in ("lmm_known", "lmm_undos"):
            rows = str(
                query(
                    f"SELECT convert_from({'value' if table == 'lmm_known' else 'change'}, 'UTF8') FROM {table}"
                ).fetchall()
            )
            assert "Quibblethorpe" not in rows and "Zora" not in rows
        query("CHECKPOINT")
        folder = query("SHOW data_directory").fetchone()[0]
    files = [path for path in Path(folder, "base").rglob("*") if path.is_file()]
    assert files and not [path for path in files if b"Quibblethorpe" in path.read_bytes()]


def test_minds_are_copied_into_another_database(open_mind, store: Postgres, postgres_url: str) -> None:
    one, other = open_mind(), open_mind("bob")
    one.learn(lesson("a"))
    one.learn(Lesson(f"{QUESTION} a", "Zora", id="b"))
    other.learn(lesson("c"))
    parts = urlsplit(postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS lmm_other")
        connection.execute("CREATE DATABASE lmm_other")
        target = Postgres(urlunsplit(parts._replace(path="/lmm_other")))
        try:
            assert copy_lessons(store, target) == 2 and copy_lessons(store, target) == 0
            copied = open_mind(rows=target.lessons("ann", "toy/keyed"))
            assert told(copied) == told(one) == [("b", "Zora")]
            assert told(open_mind(rows=target.lessons("bob", "toy/keyed"))) == told(other)
            assert copied.undo() == 1 and told(copied) == [("a", "Vera")] and told(one) == [("b", "Zora")]
            assert copy_lessons(store, InMemory()) is None and copy_lessons(InMemory(), store) == 0
        finally:
            target.close()
            connection.execute("DROP DATABASE lmm_other")


def test_weights_that_lessons_share_are_taken_over(open_mind) -> None:
    one, two = open_mind(memory=LoraOnUser), open_mind(memory=LoraOnUser)
    for mind in (one, two):
        mind.reset(seed=3)
    told(one)
    assert all(np.array_equal(one.knowledge.state[name], two.knowledge.state[name]) for name in one.knowledge.state)


def test_what_was_not_committed_is_not_known(open_mind, monkeypatch: pytest.MonkeyPatch) -> None:
    one = open_mind()
    one.learn(lesson("a"))
    with pytest.raises(ZeroDivisionError), one.keeper.turn():
        one.learn(lesson("b"))
        1 / 0  # noqa: B018
    one.learn(lesson("c"))
    assert told(one) == told(open_mind()) == [("a", "Vera"), ("c", "Vera")]


def test_who_waits_for_another_can_be_stopped(open_mind, store: Postgres) -> None:
    import threading

    one, two, entered, leave = open_mind(), open_mind(), threading.Event(), threading.Event()

    def hold() -> None:
        with one.keeper.turn():
            entered.set()
            leave.wait(240)

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(240)
    try:
        two.cancelled.set()
        with pytest.raises(Cancelled), two.keeper.turn():
            pass
        with open_mind("bob").keeper.turn():  # nobody waits for another user
            pass
    finally:
        leave.set()
        thread.join()


def test_many_who_learn_keep_nobody_else_waiting(open_mind, store: Postgres) -> None:
    """Whoever learns holds a connection, and there are always some for others."""
    import threading

    minds, leave, learning = [open_mind(f"u{i}") for i in range(12)], threading.Event(), threading.Semaphore(0)

    def learn(mind: Mind) -> None:
        with mind.keeper.turn():
            learning.release()
            leave.wait(240)
            mind.learn(lesson("a"))

    threads = [threading.Thread(target=learn, args=(mind,)) for mind in minds]
    for thread in threads:
        thread.start()
    try:
        assert all(learning.acquire(timeout=30) for _ in range(LEARNING)) and not learning.acquire(timeout=1)
        store.add("u0", [Memo("The key is under the pot.")])  # or an error, once it has waited for half a minute
        open_mind("another").keeper.catch_up()
    finally:
        leave.set()
        for thread in threads:
            thread.join()
    assert all(told(mind) == [("a", "Vera")] for mind in minds)


def test_rows_of_another_memory_or_another_width_are_refused(open_mind, store: Postgres) -> None:
    open_mind().learn(lesson("a"))
    with pytest.raises(StateError, match="does not fit"):
        open_mind(memory=LoraOnUser)


def test_two_servers_over_one_database_know_the_same(store: Postgres, postgres_url: str, tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="the server is not installed: pip install 'lmm[serve]'")
    from serving import serving

    install()
    with (
        serving(ScriptedAdapter(), tmp_path, "jotter", postgres_url) as one,
        serving(ScriptedAdapter(), tmp_path, "jotter", postgres_url) as two,
        one.client(**{"X-LMM-Memory": "ann"}) as here,
        two.client(**{"X-LMM-Memory": "ann"}) as there,
    ):
        made = here.post("/v1/lessons", json={"question": QUESTION, "answer": "Vera"}).json()
        body = {"messages": [{"role": "user", "content": QUESTION}]}
        reply = there.post("/v1/chat/completions", json=body).json()
        assert "Vera" in reply["choices"][0]["message"]["content"] and reply["lmm"]["fired"] == [made["id"]]
        text = here.post("/v1/memories", json={"text": "The key is under the pot."}).json()
        assert [x["id"] for x in there.get("/v1/memories").json()["data"]] == [text["id"]]
        assert there.post("/v1/lessons/undo", json={}).json() == {"undone": 1}
        assert here.get("/v1/lessons").json()["data"] == []
        assert not list(Path(os.environ["LMM_DATA_DIR"]).rglob("*.safetensors"))


def test_a_server_says_what_another_transaction_keeps_in_the_tables(
    store: Postgres, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastapi", reason="the server is not installed: pip install 'lmm[serve]'")
    from serving import serving

    from lmm.store import postgres as module

    install()
    monkeypatch.setattr(module, "HELD_S", 0.05)
    with (
        serving(ScriptedAdapter(), tmp_path, "jotter", postgres_url) as served,
        served.client() as client,
        psycopg.connect(postgres_url) as other,
    ):
        made = client.post("/v1/lessons", json={"question": QUESTION, "answer": "Quibblethorpe"}).json()
        text = client.post("/v1/memories", json={"text": "The key is under Quibblethorpe's pot."}).json()
        other.execute("CREATE TEMP TABLE held (x int)")
        for path, table in ((f"/v1/lessons/{made['id']}", "lmm_known"), (f"/v1/memories/{text['id']}", "lmm_memos")):
            gone = client.delete(path).json()
            assert gone["deleted"] is True and gone["still_in"] == [table], gone
            assert f"stay in {table} while another transaction is open, since 2" in " ".join(gone["said"])
            assert client.delete(path).status_code in (404, 503)
        assert client.get("/v1/lessons?ever=true").json()["data"] == client.get("/v1/memories").json()["data"] == []
        other.rollback()
        served.service.texts.store.clean_up()
        with store.within("") as query:
            assert query("SELECT count(*) FROM lmm_forgotten").fetchone() == (0,)


def test_a_database_that_went_away_is_said_and_comes_back(open_mind, store: Postgres, postgres_url: str) -> None:
    import psycopg

    one = open_mind()
    one.learn(lesson("a"))
    with psycopg.connect(postgres_url) as connection:
        kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        connection.execute(f"{kill} AND datname = current_database()")
    for _ in range(3):
        try:
            one.learn(lesson("b"))
            break
        except StoreError:
            continue
    assert told(one) == told(open_mind()) == [("a", "Vera"), ("b", "Vera")]
