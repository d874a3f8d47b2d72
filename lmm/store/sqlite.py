"""A store in one file: SQLite in WAL mode, words in FTS5, vectors beside them.

Several processes may write at once; who cannot write may read. What is forgotten is gone from the file, its index and
its log: pages are zeroed, the index is merged, the file is written anew and the log is emptied before `forget` returns.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import string
import threading
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmm.errors import StillThereError, StoreError
from lmm.files.atomic import make_folder
from lmm.store.base import ALL, Filters, Memo, Recalled, TextStore, agreed, depth, folded_key, fused
from lmm.store.checks import has, read_metadata
from lmm.store.memory import idf, saturated
from lmm.store.vectors import Vectors
from lmm.text.fold import terms

WAIT_S = 60.0  # for another process that is writing
POLL_S = 0.02  # between looks whether another process has made the file
READERS_S = 5.0  # for another process that is reading what is to be forgotten
SPACES = 256  # namespaces whose vectors are held ready
MANY = 5000  # entries that are read at once, and from which common words are not looked for
RERANKED, COUNTED = 100, 1000  # entries in which the words of a query are counted, and of how many characters
SHARED, RANKED = 0.1, 20_000  # a word is common that this share of a namespace's entries have, or so many
MARKS = string.punctuation.replace("'", "''").replace('"', '""')  # of a word, for a tokenizer that knows blanks alone
#: each brings the schema from one version to the next
MIGRATIONS = (
    """
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
""",
    """
CREATE INDEX IF NOT EXISTS memo_spaces ON memos (space, n);
DROP INDEX IF EXISTS memo_chains;
CREATE INDEX memo_corrected ON memos (space, replaced_by) WHERE replaced_by <> '';
CREATE TABLE forgotten (n INTEGER PRIMARY KEY AUTOINCREMENT);
""",
    f"""
ALTER TABLE memos ADD COLUMN matter TEXT NOT NULL DEFAULT '';
UPDATE memos SET matter = folded_key(about) WHERE about <> '';
DROP INDEX memo_matters;
CREATE INDEX memo_matters ON memos (space, matter) WHERE replaced_by = '' AND matter <> '';
DROP TABLE said;
CREATE VIRTUAL TABLE said USING fts5 (space, text, content='', tokenize="ascii tokenchars '{MARKS}'");
CREATE TABLE spelled (unicode TEXT NOT NULL);
""",
)
COLUMNS = "m.n, m.id, m.text, m.context, m.metadata, m.about, m.time, m.replaces, m.replaced_by, v.vector"
JOINED = "memos m LEFT JOIN vectors v ON v.n = m.n"


class Sqlite(TextStore):
    """One connection, which the threads of a process share. Raises StoreError for a file that is no store."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser()
        self._lock = threading.RLock()
        self._ready: OrderedDict[str, tuple[Vectors, int]] = OrderedDict()  # vectors of a namespace up to a number
        self._common: dict[str, dict[str, int]] = {}  # words that many entries of a namespace had
        self._unclean = False  # whether the files are to be cleaned after the transaction
        with _told(f"{self.path} cannot be opened"):
            make_folder(self.path.parent)
            if not self.path.exists():
                self.path.touch(mode=0o600)
            self._writable = _is_writable(self.path)
            self._still = None if self._writable else _stillness(self.path)
            self._db = self._connected()
            self._is_ours()
            for name, function in FUNCTIONS.items():
                self._db.create_function(name, -1, function, deterministic=True)
            if self._writable:
                self._prepare()
            else:
                self._version()

    def _connected(self) -> sqlite3.Connection:
        # without a log nobody is writing, and where none can be made the file is only read as one that stays as it is
        how = "rw" if self._writable else "ro&immutable=1" if self._still else "ro"
        uri = f"{self.path.resolve().as_uri()}?mode={how}"
        return sqlite3.connect(uri, WAIT_S, isolation_level=None, check_same_thread=False, uri=True)

    def _prepare(self) -> None:
        self._db.execute("PRAGMA secure_delete = ON")
        self._begin_log()
        self._db.execute("PRAGMA synchronous = FULL")
        with self.transaction():
            self._migrate()
            self._spell()
        if self._forgotten():  # and it was not cleaned
            with contextlib.suppress(StoreError):
                self._clean()

    def _begin_log(self) -> None:
        """Where another process just makes the same file, SQLite does not wait for it by itself."""
        until = time.monotonic() + WAIT_S
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
                time.sleep(POLL_S)

    def _is_ours(self) -> None:
        """Before anything is written. Raises StoreError for the database of another program."""
        try:
            tables = {name for [name] in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        except sqlite3.OperationalError as error:
            if self._writable:
                raise
            ask = "copy it, with its -wal file if there is one, to where you may write"
            raise StoreError(f"{self.path} can be neither written nor read: {error}; {ask}") from error
        if tables and not tables >= {"memos", "vectors", "said"}:
            self._db.close()
            raise StoreError(f"{self.path} is the database of another program")

    def _version(self) -> int:
        [version] = self._db.execute("PRAGMA user_version").fetchone()
        if (known := len(MIGRATIONS)) < version:
            raise StoreError(f"{self.path} is of a later lmm, which writes version {version}; this one reads {known}")
        return version

    def _migrate(self) -> None:
        version, known = self._version(), len(MIGRATIONS)
        for migration in MIGRATIONS[version:]:
            for statement in migration.split(";\n"):
                self._db.execute(statement)
        if version < known:
            self._db.execute(f"PRAGMA user_version = {known}")

    def _spell(self) -> None:
        """The index of words is of one version of Unicode: what is taken out of it later must be what was put in."""
        version, there = unicodedata.unidata_version, self._one("SELECT unicode FROM spelled")
        if there == (version,):
            return
        self._db.execute("INSERT INTO said (said) VALUES ('delete-all')")
        current = "SELECT n, token(space), terms(text) FROM memos WHERE replaced_by = ''"
        self._db.execute(f"INSERT INTO said (rowid, space, text) {current}")
        self._db.execute("DELETE FROM spelled")
        self._db.execute("INSERT INTO spelled VALUES (?)", (version,))

    # about the whole ---------------------------------------------------------------------------------------------
    def about(self) -> dict[str, Any]:
        with self._reading():
            return {name: json.loads(value) for name, value in self._db.execute("SELECT name, value FROM about")}

    def describe(self, values: Mapping[str, Any]) -> None:
        there = self.about()
        if not agreed(there, values) or (there and not self._writable):  # asked at every recall: it waits for no writer
            return
        with self.transaction():
            rows = [(name, json.dumps(value)) for name, value in agreed(self.about(), values).items()]
            self._db.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", rows)

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
    def _same(self, space: str, keys: Sequence[str]) -> dict[str, Memo]:
        return {memo.key: memo for memo in self._some("m.space = ? AND m.replaced_by = '' AND m.key", space, keys)}

    def _of_matter(self, space: str, matter: str) -> list[Memo]:
        return self._some("m.space = ? AND m.replaced_by = '' AND m.matter <> '' AND m.matter", space, [matter])

    def _insert(self, space: str, memos: Sequence[Memo]) -> None:
        for memo in memos:
            self._insert_one(space, memo)

    def _insert_one(self, space: str, memo: Memo) -> None:
        try:
            n = self._db.execute(
                "INSERT INTO memos (space, id, key, text, context, metadata, about, time, replaces, replaced_by, "
                "matter) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    space, memo.id, memo.key, memo.text, memo.context, json.dumps(memo.metadata), memo.about,
                    memo.time, memo.replaces, memo.replaced_by, memo.matter,
                ),
            ).lastrowid  # fmt: skip
        except sqlite3.IntegrityError:
            raise StoreError(f"there is an entry {memo.id} with another text") from None
        if memo.current and memo.vector is not None:
            self._db.execute("INSERT INTO vectors VALUES (?, ?, ?)", (n, space, np.float32(memo.vector).tobytes()))
        if memo.current:
            values = (n, _token(space), _terms(memo.text))
            self._db.execute("INSERT INTO said (rowid, space, text) VALUES (?, ?, ?)", values)

    def _retire(self, space: str, old: Memo, by: str) -> None:
        self._silence(space, old)
        self._db.execute("UPDATE memos SET replaced_by = ? WHERE space = ? AND id = ?", (by, space, old.id))

    def _silence(self, space: str, memo: Memo) -> None:
        """Nobody finds it any more."""
        [n] = self._one("SELECT n FROM memos WHERE space = ? AND id = ?", space, memo.id)
        self._db.execute("DELETE FROM vectors WHERE n = ?", (n,))
        values = (n, _token(space), _terms(memo.text))
        self._db.execute("INSERT INTO said (said, rowid, space, text) VALUES ('delete', ?, ?, ?)", values)

    def forget(self, space: str, ids: Sequence[str]) -> int:
        self._may_write()
        with self._lock, _told(f"{self.path} cannot be written"):
            if not self._db.in_transaction and self._log_is_read():
                raise StoreError("nothing was forgotten: another process is reading the store; forget it later")
            return super().forget(space, ids)

    def _delete(self, space: str, memos: Sequence[Memo]) -> None:
        for memo in memos:
            if memo.current:
                self._silence(space, memo)
            self._db.execute("DELETE FROM memos WHERE space = ? AND id = ?", (space, memo.id))
        if memos:
            # until its parts are merged, the index still has what was taken out of it
            self._db.execute("INSERT INTO said (said) VALUES ('optimize')")
            self._db.execute("INSERT INTO forgotten DEFAULT VALUES")
        self._unclean = self._forgotten() > 0

    def _forgotten(self) -> int:
        """The number of the last time that something was forgotten of which the files may have bytes; or 0."""
        return self._one("SELECT max(n) FROM forgotten")[0] or 0

    def _clean(self) -> None:
        """Deleted rows leave copies in pages that were split since, and all pages are in the log once more."""
        with self._lock, _told(f"forgotten, but parts of it are still in {self.path}"):
            self._unclean = False
            self._ready.clear()
            self._common.clear()
            last = self._forgotten()
            self._db.execute("VACUUM")
            if self._log_is_read():
                what = "forgotten, but it is still in the log, which another process is reading"
                raise StillThereError(what, places=[self.path.name])
            self._db.execute("DELETE FROM forgotten WHERE n <= ?", (last,))

    def _log_is_read(self) -> bool:
        """Empty the log, if nobody else reads it: all that share the connection wait, too, and so not for long."""
        self._db.execute(f"PRAGMA busy_timeout = {round(1000 * READERS_S)}")
        try:
            return bool(self._one("PRAGMA wal_checkpoint(TRUNCATE)")[0])
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {round(1000 * WAIT_S)}")

    # reading -----------------------------------------------------------------------------------------------------
    def _get(self, space: str, ids: Sequence[str]) -> list[Memo]:
        return self._some("m.space = ? AND m.id", space, ids)

    def _some(self, where: str, space: str, values: Sequence[str]) -> list[Memo]:
        """The entries of a namespace of which something is among values."""
        found: list[Memo] = []
        with self._reading():
            for i in range(0, len(values), 500):
                some = values[i : i + 500]
                query = f"SELECT {COLUMNS} FROM {JOINED} WHERE {where} IN ({_marks(some)})"
                found += map(_memo, self._db.execute(query, (space, *some)))
        return found

    def _search(self, space: str, vector: np.ndarray, text: str, k: int, filters: Filters) -> list[Recalled]:
        where, values = _where(filters)
        with self._reading():
            allowed = None
            if filters:
                rows = self._db.execute(f"SELECT m.n FROM memos m WHERE m.space = ?{where}", (space, *values))
                allowed = np.array([n for [n] in rows], np.int64)
            near = self._near(space, vector, depth(k), allowed)
            said = self._said(space, text, depth(k), allowed)
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
            gone, _ = self._ready.popitem(last=False)
            self._common.pop(gone, None)
        return vectors

    def _said(self, space: str, text: str, most: int, allowed: np.ndarray | None) -> list[int]:
        """Numbers of the entries that share words with a text, by BM25. The ranking of FTS5 counts in all namespaces,
        so that one user's texts would move another's; here nothing is counted but the namespace's own."""
        held = len(self._vectors(space))
        holders = self._holders(space, text, round(min(SHARED * held, RANKED)) if held > MANY else -1, allowed)
        if not holders:
            return []
        weights = {word: idf(held, len(n)) for word, n in holders.items()}
        numbers, at = np.unique(np.concatenate(list(holders.values())), return_inverse=True)
        sums = np.bincount(at, np.repeat(list(weights.values()), [len(n) for n in holders.values()]))
        order = [int(n) for n in numbers[np.lexsort((numbers, -sums))[: max(most, RERANKED)]]]
        best = order[:RERANKED]  # of which alone is asked how often they have a word
        rows = self._db.execute(f"SELECT n, text FROM memos WHERE n IN ({_marks(best)})", best)
        texts = {n: terms(text[:COUNTED]) for n, text in rows}
        mean, scores = max(sum(map(len, texts.values())) / max(len(texts), 1), 1.0), dict.fromkeys(texts, 0.0)
        for word, weight in weights.items():
            for n in texts.keys() & set(holders[word][np.isin(holders[word], best)].tolist()):
                scores[n] += weight * saturated(max(texts[n].count(word), 1), len(texts[n]) / mean)
        return [*sorted(scores, key=lambda n: (-scores[n], n)), *order[RERANKED:]][:most]

    def _holders(self, space: str, text: str, most: int, allowed: np.ndarray | None) -> dict[str, np.ndarray]:
        """The numbers of the entries that have each word of a text. Without the words that more than `most` have, if
        it is not -1: they say little, and to read their lists takes as long as they are."""
        common, found = self._common.setdefault(space, {}), dict[str, np.ndarray]()
        for word in dict.fromkeys(terms(text)):
            if 0 <= most < common.get(word, 0):
                continue
            quoted = word.replace('"', '""')
            query = f'space : {_token(space)} AND text : "{quoted}"'
            limit = most + 1 if most >= 0 else -1
            rows = self._db.execute("SELECT rowid FROM said WHERE said MATCH ? LIMIT ?", (query, limit))
            numbers = np.array([n for [n] in rows], np.int64)
            if 0 <= most < len(numbers):
                common[word] = len(numbers)
                continue
            numbers = numbers if allowed is None else numbers[np.isin(numbers, allowed)]
            if len(numbers):
                found[word] = numbers
        return found

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

    def _history(self, space: str, id: str) -> list[Memo]:
        chain = """
            WITH RECURSIVE chain (id, next) AS (
                SELECT id, replaced_by FROM memos WHERE space = ? AND id = ?
                UNION SELECT m.id, m.replaced_by FROM chain c JOIN memos m ON m.space = ? AND m.id = c.next
                UNION SELECT m.id, m.replaced_by FROM chain c JOIN memos m
                ON m.space = ? AND m.replaced_by = c.id AND m.replaced_by <> '')
        """
        query = f"{chain} SELECT {COLUMNS} FROM {JOINED} WHERE m.space = ? AND m.id IN (SELECT id FROM chain)"
        with self._reading():
            return list(map(_memo, self._db.execute(f"{query} ORDER BY +m.n", (space, id, space, space, space))))

    # the connection ----------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        self._may_write()
        with self._lock, _told(f"{self.path} cannot be written"):
            if self._db.in_transaction:
                with self._part():
                    yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            changes = self._db.total_changes
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                self._unclean = False
                if self._db.total_changes > changes:  # vectors that are ready may be of what is not so
                    self._ready.clear()
                raise
            self._db.execute("COMMIT")
            if self._unclean:
                self._clean()

    @contextlib.contextmanager
    def _part(self) -> Iterator[None]:
        """Of a transaction that goes on: an error ends this part alone."""
        self._db.execute("SAVEPOINT part")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK TO part")
            self._ready.clear()
            raise
        finally:
            self._db.execute("RELEASE part")

    def _may_write(self) -> None:
        if not self._writable:
            raise StoreError(f"{self.path} cannot be written: it, or its folder, is read-only here")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock, _told(f"{self.path} cannot be read"):
            yield
            if self._still and _stillness(self.path) != self._still:
                raise StoreError(f"{self.path} was written elsewhere while it was read: open it again")

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


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _is_writable(path: Path) -> bool:
    """By this process, which needs a log beside it, too."""
    path = path.resolve()
    return os.access(path, os.W_OK) and (os.access(path.parent, os.W_OK) or _log_of(path).exists())


def _stillness(path: Path) -> tuple[int, int] | None:
    """By which it is seen that a file was written: its time and size. None while it has a log, and is read with it."""
    found, log = path.stat(), _log_of(path.resolve())
    return None if log.exists() and log.stat().st_size else (found.st_mtime_ns, found.st_size)


def _memo(row: Sequence[Any]) -> Memo:
    _, id, text, context, metadata, about, time, replaces, replaced_by, vector = row
    held = None if vector is None else np.frombuffer(vector, np.float32)
    return Memo(text, context, read_metadata(metadata), about, time, id, replaces, replaced_by, held)


def _where(filters: Filters) -> tuple[str, list[Any]]:
    """Filters as a condition on `m`."""
    return filters.sql("m.time >= ?", "m.time < ?", "has(m.metadata, ?, ?)")


def _has(metadata: str, name: str, value: str) -> bool:
    return has(read_metadata(metadata), name, json.loads(value))


def _token(space: str) -> str:
    """A namespace as one word of the index."""
    return f"s{space.encode().hex()}"


def _terms(text: str) -> str:
    return " ".join(terms(text))


#: those that queries use
FUNCTIONS: Mapping[str, Callable[..., Any]] = {"has": _has, "folded_key": folded_key, "terms": _terms, "token": _token}


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))
