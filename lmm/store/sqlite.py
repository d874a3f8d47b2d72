"""A store in one file: SQLite in WAL mode, words in FTS5, vectors beside them.

Several processes may write at once. What is forgotten is gone from the file, its index and its log: pages are zeroed,
the index is merged, the file is written anew and the log is emptied before `forget` returns.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmm.errors import StoreError
from lmm.files.atomic import make_folder
from lmm.store.base import ALL, Filters, Memo, Recalled, agreed, current, depth, fused, succeeded
from lmm.store.vectors import Vectors
from lmm.text.fold import words

WAIT_S = 60.0  # for another process that is writing
SPACES = 256  # namespaces whose vectors are held ready
MANY = 5000  # entries that are read at once, and from which common words are not looked for
SHARED, RANKED = 0.1, 20_000  # a word is common that this share of a namespace's entries have, or so many
VERSION = 1
SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE memos (
    n INTEGER PRIMARY KEY AUTOINCREMENT, space TEXT NOT NULL, id TEXT NOT NULL, key TEXT NOT NULL,
    text TEXT NOT NULL, context TEXT NOT NULL, metadata TEXT NOT NULL, about TEXT NOT NULL, time REAL NOT NULL,
    replaces TEXT NOT NULL, replaced_by TEXT NOT NULL
);
CREATE UNIQUE INDEX memo_ids ON memos (space, id);
CREATE UNIQUE INDEX memo_keys ON memos (space, key) WHERE replaced_by = '';
CREATE INDEX memo_matters ON memos (space, about) WHERE replaced_by = '' AND about <> '';
CREATE INDEX memo_chains ON memos (space, replaces) WHERE replaces <> '';
CREATE INDEX memo_times ON memos (space, time);
CREATE TABLE vectors (n INTEGER PRIMARY KEY, space TEXT NOT NULL, vector BLOB NOT NULL);
CREATE INDEX vector_spaces ON vectors (space, n);
CREATE VIRTUAL TABLE said USING fts5 (space, text, content='', tokenize="unicode61 remove_diacritics 2");
"""
COLUMNS = "m.n, m.id, m.text, m.context, m.metadata, m.about, m.time, m.replaces, m.replaced_by, v.vector"
JOINED = "memos m LEFT JOIN vectors v ON v.n = m.n"


class Sqlite:
    """One connection, which the threads of a process share. Raises StoreError for a file that is no store."""

    lessons = None  # are in files of their own

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser()
        self._lock = threading.RLock()
        self._ready: OrderedDict[str, tuple[Vectors, int]] = OrderedDict()  # vectors of a namespace up to a number
        self._common: dict[str, int] = {}  # words that many entries had
        with _told(f"{self.path} cannot be opened"):
            make_folder(self.path.parent)
            self.path.touch(mode=0o600)
            self._db = sqlite3.connect(self.path, WAIT_S, isolation_level=None, check_same_thread=False)
            self._db.create_function("has", 3, _has, deterministic=True)
            self._db.execute("PRAGMA secure_delete = ON")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            with self.transaction():
                self._migrate()
            self._db.execute("CREATE VIRTUAL TABLE temp.terms USING fts5vocab(main, said, row)")

    def _migrate(self) -> None:
        [version] = self._db.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise StoreError(f"{self.path} is of a later lmm, which writes version {version}; this one reads {VERSION}")
        if version == 0:
            for statement in SCHEMA.split(";\n"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {VERSION}")
        # files that were begun without it have no other way to a namespace's entries in their order than to sort all
        self._db.execute("CREATE INDEX IF NOT EXISTS memo_spaces ON memos (space, n)")

    # about the whole ---------------------------------------------------------------------------------------------
    def about(self) -> dict[str, Any]:
        with self._reading():
            return {name: json.loads(value) for name, value in self._db.execute("SELECT name, value FROM about")}

    def describe(self, values: Mapping[str, Any]) -> None:
        if self.about() == dict(values):  # asked at every recall, which waits for nobody who writes
            return
        with self.transaction():
            agreed(self.about(), values)
            rows = [(name, json.dumps(value)) for name, value in values.items()]
            self._db.executemany("INSERT OR IGNORE INTO about VALUES (?, ?)", rows)

    def count(self, space: str) -> int:
        with self._reading():
            return self._one("SELECT count(*) FROM memos WHERE space = ? AND replaced_by = ''", space)[0]

    def has_any(self, space: str) -> bool:
        with self._reading():
            return bool(self._one("SELECT 1 FROM memos WHERE space = ? AND replaced_by = '' LIMIT 1", space))

    def namespaces(self) -> list[str]:
        with self._reading():
            return [row[0] for row in self._db.execute("SELECT DISTINCT space FROM memos ORDER BY space")]

    # changes -----------------------------------------------------------------------------------------------------
    def add(self, space: str, memos: Sequence[Memo]) -> list[str]:
        with self.transaction():
            return [self._add(space, memo) for memo in memos]

    def _add(self, space: str, memo: Memo) -> str:
        if same := self._same(space, memo):
            return same
        about = "SELECT id FROM memos WHERE space = ? AND replaced_by = '' AND about = ?"
        if memo.about and (old := self._one(about, space, memo.about)):
            return self._replace(space, self.get(space, old)[0], memo)
        return self._insert(space, memo)

    def _same(self, space: str, memo: Memo) -> str:
        """The id of the current entry with the same text."""
        there = self._one("SELECT id FROM memos WHERE space = ? AND replaced_by = '' AND key = ?", space, memo.key)
        return there[0] if there else ""

    def _insert(self, space: str, memo: Memo) -> str:
        try:
            n = self._db.execute(
                "INSERT INTO memos (space, id, key, text, context, metadata, about, time, replaces, replaced_by) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    space, memo.id, memo.key, memo.text, memo.context, json.dumps(dict(memo.metadata)), memo.about,
                    memo.time, memo.replaces, memo.replaced_by,
                ),
            ).lastrowid  # fmt: skip
        except sqlite3.IntegrityError:
            raise StoreError(f"there is an entry {memo.id} with another text") from None
        if memo.current and memo.vector is not None:
            self._db.execute("INSERT INTO vectors VALUES (?, ?, ?)", (n, space, np.float32(memo.vector).tobytes()))
        if memo.current:
            self._db.execute("INSERT INTO said (rowid, space, text) VALUES (?, ?, ?)", (n, _token(space), memo.text))
        return memo.id

    def _replace(self, space: str, old: Memo, memo: Memo) -> str:
        [n] = self._one("SELECT n FROM memos WHERE space = ? AND id = ?", space, old.id)
        self._silence(n, space, old.text)
        self._db.execute("UPDATE memos SET replaced_by = ? WHERE n = ?", (memo.id, n))
        return self._insert(space, succeeded(old, memo))

    def _silence(self, n: int, space: str, text: str) -> None:
        """Nobody finds it any more."""
        self._db.execute("DELETE FROM vectors WHERE n = ?", (n,))
        values = (n, _token(space), text)
        self._db.execute("INSERT INTO said (said, rowid, space, text) VALUES ('delete', ?, ?, ?)", values)

    def supersede(self, space: str, id: str, memo: Memo) -> str:
        with self.transaction():
            old = current(self.get(space, [id]), id)
            return id if old.key == memo.key else self._replace(space, old, memo)

    def forget(self, space: str, ids: Sequence[str]) -> int:
        with self.transaction():
            gone = {memo.id: memo for id in ids for memo in self.history(space, id)}
            for memo in gone.values():
                [n] = self._one("SELECT n FROM memos WHERE space = ? AND id = ?", space, memo.id)
                if memo.current:
                    self._silence(n, space, memo.text)
                self._db.execute("DELETE FROM memos WHERE n = ?", (n,))
            if gone:  # until its parts are merged, the index still has what was taken out of it
                self._db.execute("INSERT INTO said (said) VALUES ('optimize')")
        if gone:
            self._purge()
        return len(gone)

    def _purge(self) -> None:
        """Deleted rows leave copies in pages that were split since, and all pages are in the log once more."""
        with self._lock, _told(f"forgotten, but parts of it are still in {self.path}"):
            self._ready.clear()
            self._common.clear()
            self._db.execute("VACUUM")
            [busy, *_] = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise StoreError(f"forgotten, but it is still in {self.path}-wal, which another process is reading")

    def restore(self, space: str, memos: Sequence[Memo]) -> None:
        with self.transaction():
            there = {memo.id for memo in self.get(space, [memo.id for memo in memos])}
            for memo in memos:
                if memo.id not in there and not (memo.current and self._same(space, memo)):
                    self._insert(space, memo)

    # reading -----------------------------------------------------------------------------------------------------
    def get(self, space: str, ids: Sequence[str]) -> list[Memo]:
        found: dict[str, Memo] = {}
        with self._reading():
            for i in range(0, len(ids), 500):
                some = ids[i : i + 500]
                query = f"SELECT {COLUMNS} FROM {JOINED} WHERE m.space = ? AND m.id IN ({_marks(some)})"
                found |= {memo.id: memo for memo in map(_memo, self._db.execute(query, (space, *some)))}
        return [found[id] for id in ids if id in found]

    def search(self, space: str, vector: np.ndarray, text: str, k: int = 5, filters: Filters = ALL) -> list[Recalled]:
        where, values = _where(filters)
        with self._reading():
            allowed = None
            if filters:
                rows = self._db.execute(f"SELECT m.n FROM memos m WHERE m.space = ?{where}", (space, *values))
                allowed = np.array([n for [n] in rows], np.int64)
            near = self._near(space, vector, depth(k), allowed)
            said = self._said(space, text, depth(k), where, values)
            best = fused([n for n, _ in near], said, k)
            numbers = [n for n, _ in best]
            query = f"SELECT {COLUMNS} FROM {JOINED} WHERE +m.space = ? AND +m.replaced_by = '' AND m.n IN"  # by n
            rows = self._db.execute(f"{query} ({_marks(numbers)})", (space, *numbers))
            memos = {row[0]: _memo(row) for row in rows}  # without those that others have taken out since
        return [Recalled(memos[n], score, memos[n].cosine(vector)) for n, score in best if n in memos]

    def _near(self, space: str, vector: np.ndarray, most: int, allowed: np.ndarray | None) -> list[tuple[int, float]]:
        """(number, cosine) of the nearest. What was superseded since, here or by others, is taken out when it is met:
        it would stand in the way of those that are there."""
        vectors = self._vectors(space)
        while True:
            near = vectors.nearest(vector, most, allowed)
            numbers = [n for n, _ in near]
            there = self._db.execute(f"SELECT n FROM vectors WHERE n IN ({_marks(numbers)})", numbers)
            gone = set(numbers) - {n for [n] in there}
            if not gone:
                return near
            vectors.remove(gone)

    def _vectors(self, space: str) -> Vectors:
        """Those of a namespace, with what was added since, here or by others."""
        vectors, last = self._ready.pop(space, (Vectors(), 0))
        cursor = self._db.execute("SELECT n, vector FROM vectors WHERE space = ? AND n > ? ORDER BY n", (space, last))
        while rows := cursor.fetchmany(MANY):
            width = len(rows[0][1]) // 4
            read = np.frombuffer(b"".join(row for _, row in rows), np.float32).reshape(-1, width)
            vectors.extend(np.array([n for n, _ in rows]), read)
            last = rows[-1][0]
        self._ready[space] = vectors, last
        if len(self._ready) > SPACES:
            self._ready.popitem(last=False)
        return vectors

    def _said(self, space: str, text: str, most: int, where: str, values: Sequence[Any]) -> list[int]:
        """Numbers of the entries that share words with a text, by BM25."""
        asked = list(dict.fromkeys(words(text).replace('"', " ").split()))
        if (held := len(self._vectors(space))) > MANY:
            asked = self._rare(asked, min(SHARED * held, RANKED))
        if not asked:
            return []
        any_of = " OR ".join(f'"{word}"' for word in asked)
        query = f"space : {_token(space)} AND text : ({any_of})"
        joined = "JOIN memos m ON m.n = said.rowid" if where else ""  # takes as long as the ranking
        rows = self._db.execute(
            f"SELECT said.rowid FROM said {joined} WHERE said MATCH ?{where} "
            "ORDER BY bm25(said, 0.0, 1.0), said.rowid LIMIT ?",
            (query, *values, most),
        )
        return [n for [n] in rows]

    def _rare(self, asked: Sequence[str], most: float) -> list[str]:
        """Without the words that so many entries have: they say little, and each entry that has one is ranked."""
        asked = [word for word in asked if self._common.get(word, 0) <= most]
        counts = self._db.execute(f"SELECT term, doc FROM temp.terms WHERE term IN ({_marks(asked)})", tuple(asked))
        found = {term: entries for term, entries in counts if entries > most}
        self._common |= found  # to count a word takes as long as it has entries
        return [word for word in asked if word not in found]

    def scan(self, space: str, filters: Filters = ALL, history: bool = False) -> Iterator[Memo]:
        where, values = _where(filters)
        where += "" if history else " AND m.replaced_by = ''"
        last = 0
        while True:
            with self._reading():
                query = f"SELECT {COLUMNS} FROM {JOINED} WHERE m.space = ? AND m.n > ?{where} ORDER BY m.n LIMIT ?"
                rows = self._db.execute(query, (space, last, *values, MANY)).fetchall()
            yield from map(_memo, rows)
            if len(rows) < MANY:
                return
            last = rows[-1][0]

    def history(self, space: str, id: str) -> list[Memo]:
        chain = """
            WITH RECURSIVE chain (id) AS (
                SELECT ? UNION SELECT m.id FROM memos m JOIN chain c
                ON m.space = ? AND (m.replaces = c.id AND m.replaces <> '')
                UNION SELECT m.replaces FROM memos m JOIN chain c ON m.space = ? AND m.id = c.id AND m.replaces <> '')
        """
        query = f"{chain} SELECT {COLUMNS} FROM {JOINED} WHERE m.space = ? AND m.id IN chain ORDER BY m.n"
        with self._reading():
            return list(map(_memo, self._db.execute(query, (id, space, space, space)).fetchall()))

    # the connection ----------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        with self._lock, _told(f"{self.path} cannot be written"):
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            changes = self._db.total_changes
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                if self._db.total_changes > changes:  # vectors that are ready may be of what is not so
                    self._ready.clear()
                raise
            self._db.execute("COMMIT")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock, _told(f"{self.path} cannot be read"):
            yield

    def _one(self, query: str, *values: Any) -> Any:
        return self._db.execute(query, values).fetchone()

    def close(self) -> None:
        with self._lock:
            self._db.close()


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"{what}: {error}") from error


def _memo(row: Sequence[Any]) -> Memo:
    _, id, text, context, metadata, about, time, replaces, replaced_by, vector = row
    held = None if vector is None else np.frombuffer(vector, np.float32)
    return Memo(text, context, json.loads(metadata), about, time, id, replaces, replaced_by, held)


def _where(filters: Filters) -> tuple[str, list[Any]]:
    """Filters as a condition on `m`."""
    return filters.sql("m.time >= ?", "m.time < ?", "has(m.metadata, ?, ?)")


def _has(metadata: str, name: str, value: str) -> bool:
    return json.loads(metadata).get(name) == json.loads(value)


def _token(space: str) -> str:
    """A namespace as one word of the index."""
    return f"s{space.encode().hex()}"


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))
