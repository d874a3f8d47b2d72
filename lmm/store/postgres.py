"""A store in PostgreSQL, for many users on many machines: vectors with pgvector, words with its text search.

Every query names its namespace, and row-level security holds the same once more, for roles that it binds: a query sees
the rows of the namespace that its transaction was opened for. What is forgotten is deleted and the table written anew,
once no transaction is left that might still see it; what the server's own log and backups keep, and for how long, is
the server's matter.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
import threading
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, LiteralString

import numpy as np

from lmm.errors import StillThereError, StoreError, UsageError
from lmm.store.base import ALL, DEPTH, Filters, Memo, Recalled, TextStore, agreed, depth, folded_key, fused
from lmm.store.checks import read_metadata
from lmm.text.fold import terms

try:
    import psycopg
    from psycopg import sql
    from psycopg.conninfo import conninfo_to_dict
    from psycopg.types.json import Jsonb
    from psycopg_pool import ConnectionPool, PoolTimeout

    from lmm.store.lessons import SharedMind
except ImportError as error:
    raise StoreError(f"{error.name} is not installed; run: pip install 'lmm[postgres]'") from error

log = logging.getLogger("lmm")
CONNECTIONS, LEARNING = 8, 4  # in all, and of these for who learns meanwhile: the others are free in a moment
GONE_S = 3  # for a server that gives no connection any more, unless the URL has a `connect_timeout`
USUAL: dict[str, Any] = {"connect_timeout": 10, "tcp_user_timeout": 1000 * GONE_S}  # in s and ms, if not in the URL
RETRY_S = 3.0  # after which the pool, which tries to connect ever more rarely, begins anew
WAIT_S, LOOK_IN_S = 30.0, 0.2  # for a free connection; for one in which to learn, before it is asked whether to go on
READERS_S = 5  # for those who read a table that is written anew
NUMBER = re.compile("[0-9]+")
HELD_S, HELD_LOOK_S = 5.0, 0.02  # for transactions that might see what was forgotten, and between looks at them
MANY = 5000  # entries that are read at once
RARE = 200  # entries from which common words are not looked for: ts_rank_cd would rank all that have one
EXACT = 2000  # up to so many entries of a user, all are looked at; also where the index would look at more of others
SHARED, RANKED = 0.05, 4000  # a word is common that this share of the entries have, or so many: ts_rank_cd is slow
SAMPLE = 2000  # of the latest entries, in which words are counted
WORD, WORDS = 2046, 1_000_000  # bytes of a word that PostgreSQL indexes, and of all words of a text with their places
PLACES, LAST_PLACE = 255, 16_383  # how often it has one word, and the number of the last place
LOOK_S = 60.0  # for which that holds
LOCK = 0x6C6D6D  # of the schema, among the server's advisory locks
#: each brings the schema from one version to the next
MIGRATIONS: tuple[LiteralString, ...] = (
    """
    CREATE EXTENSION IF NOT EXISTS vector;
    CREATE TABLE lmm_about (name TEXT PRIMARY KEY, value JSONB NOT NULL);
    CREATE TABLE lmm_memos (
        n BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, space TEXT NOT NULL, id TEXT NOT NULL, key TEXT NOT NULL,
        text TEXT NOT NULL, context TEXT NOT NULL, metadata JSONB NOT NULL, about TEXT NOT NULL,
        time DOUBLE PRECISION NOT NULL, replaces TEXT NOT NULL, replaced_by TEXT NOT NULL, vector VECTOR,
        said TSVECTOR GENERATED ALWAYS AS (to_tsvector('simple', text)) STORED
    );
    CREATE UNIQUE INDEX lmm_memo_ids ON lmm_memos (space, id);
    CREATE UNIQUE INDEX lmm_memo_keys ON lmm_memos (space, key) WHERE replaced_by = '';
    CREATE INDEX lmm_memo_matters ON lmm_memos (space, about) WHERE replaced_by = '' AND about <> '';
    CREATE INDEX lmm_memo_chains ON lmm_memos (space, replaces) WHERE replaces <> '';
    CREATE INDEX lmm_memo_times ON lmm_memos (space, time);
    CREATE INDEX lmm_memo_said ON lmm_memos USING gin (said);
    ALTER TABLE lmm_memos ENABLE ROW LEVEL SECURITY;
    ALTER TABLE lmm_memos FORCE ROW LEVEL SECURITY;
    CREATE POLICY lmm_own ON lmm_memos USING (
        space = current_setting('lmm.space', true) OR current_setting('lmm.every', true) = 'yes'
    );
    """,
    """
    CREATE TABLE lmm_minds (space TEXT NOT NULL, name TEXT NOT NULL, header JSONB NOT NULL, PRIMARY KEY (space, name));
    CREATE TABLE lmm_known (
        n BIGSERIAL NOT NULL, space TEXT NOT NULL, name TEXT NOT NULL, part TEXT NOT NULL, value BYTEA,
        PRIMARY KEY (space, name, part)
    );
    CREATE INDEX lmm_known_since ON lmm_known (space, name, n);
    CREATE TABLE lmm_undos (
        n BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, space TEXT NOT NULL, name TEXT NOT NULL,
        change BYTEA NOT NULL
    );
    CREATE INDEX lmm_undo_minds ON lmm_undos (space, name, n);
    ALTER TABLE lmm_minds ENABLE ROW LEVEL SECURITY;
    ALTER TABLE lmm_known ENABLE ROW LEVEL SECURITY;
    ALTER TABLE lmm_undos ENABLE ROW LEVEL SECURITY;
    ALTER TABLE lmm_minds FORCE ROW LEVEL SECURITY;
    ALTER TABLE lmm_known FORCE ROW LEVEL SECURITY;
    ALTER TABLE lmm_undos FORCE ROW LEVEL SECURITY;
    CREATE POLICY lmm_own ON lmm_minds USING (space = current_setting('lmm.space', true));
    CREATE POLICY lmm_own ON lmm_known USING (space = current_setting('lmm.space', true));
    CREATE POLICY lmm_own ON lmm_undos USING (space = current_setting('lmm.space', true));
    """,
    # the planner's statistics had copies of texts: a column whose type is set loses them, and gets none again
    """
    ALTER TABLE lmm_memos DROP COLUMN said;
    DROP INDEX IF EXISTS lmm_memo_vectors;
    DROP INDEX lmm_memo_chains;
    ALTER TABLE lmm_memos ALTER key TYPE TEXT, ALTER text TYPE TEXT, ALTER context TYPE TEXT, ALTER about TYPE TEXT,
        ALTER metadata TYPE JSON USING metadata::json, ALTER vector TYPE VECTOR;
    ALTER TABLE lmm_memos ADD said TSVECTOR GENERATED ALWAYS AS (to_tsvector('simple', text)) STORED;
    ALTER TABLE lmm_memos ALTER key SET STATISTICS 0, ALTER text SET STATISTICS 0, ALTER context SET STATISTICS 0,
        ALTER about SET STATISTICS 0, ALTER metadata SET STATISTICS 0, ALTER vector SET STATISTICS 0,
        ALTER said SET STATISTICS 0;
    CREATE INDEX lmm_memo_said ON lmm_memos USING gin (said);
    CREATE INDEX lmm_memo_corrected ON lmm_memos (space, replaced_by) WHERE replaced_by <> '';
    ALTER TABLE lmm_known ALTER value TYPE BYTEA;
    ALTER TABLE lmm_known ALTER value SET STATISTICS 0;
    ALTER TABLE lmm_undos ALTER change TYPE BYTEA;
    ALTER TABLE lmm_undos ALTER change SET STATISTICS 0;
    ALTER TABLE lmm_minds ALTER header TYPE JSONB;
    ALTER TABLE lmm_minds ALTER header SET STATISTICS 0;
    CREATE TABLE lmm_forgotten (n BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
    """,
    """
    ALTER POLICY lmm_own ON lmm_minds USING (
        space = current_setting('lmm.space', true) OR current_setting('lmm.every', true) = 'yes'
    );
    """,
    # words and matters as `lmm.text.fold` has them, which SQL has not: `_spell` fills them in
    """
    DROP INDEX IF EXISTS lmm_memo_vectors;
    DROP INDEX lmm_memo_matters;
    ALTER TABLE lmm_memos DROP COLUMN said;
    ALTER TABLE lmm_memos ADD said TSVECTOR NOT NULL DEFAULT '', ADD matter TEXT NOT NULL DEFAULT '';
    ALTER TABLE lmm_memos ALTER said SET STATISTICS 0, ALTER matter SET STATISTICS 0;
    CREATE INDEX lmm_memo_said ON lmm_memos USING gin (said);
    CREATE INDEX lmm_memo_matters ON lmm_memos (space, matter) WHERE replaced_by = '' AND matter <> '';
    """,
    # until here it was not looked whether a transaction kept what was forgotten in a table
    """
    ALTER TABLE lmm_forgotten ADD place TEXT NOT NULL DEFAULT 'lmm_memos';
    INSERT INTO lmm_forgotten (place)
        SELECT 'lmm_memos' WHERE pg_sequence_last_value(pg_get_serial_sequence('lmm_forgotten', 'n')) IS NOT NULL
        UNION ALL SELECT 'lmm_known' WHERE pg_relation_size('lmm_known') > 0
        UNION ALL SELECT 'lmm_undos' WHERE pg_relation_size('lmm_undos') > 0;
    """,
)
SPELLED = 5  # the version that has words and matters
INSERT = (
    "INSERT INTO lmm_memos (space, id, key, text, context, metadata, about, time, replaces, replaced_by, matter, "
    "said, vector) "
    "VALUES (%s, %s, %s, %s, %s, %s::text::json, %s, %s, %s, %s, %s, %s::text::tsvector, %s::text::vector)"
)
# What keeps rows in a table that were deleted before it: a snapshot from before, or a transaction from before, with
# which any snapshot since begins, also if it is in another database. `xmin` is who wrote a row.
HOLDER = """
    SELECT what, who, since FROM (
        SELECT greatest(
            age(backend_xid), CASE WHEN datid IS NULL OR datname = current_database() THEN age(backend_xmin) END
        ) AS age, 'another transaction is open' AS what, concat_ws(' ', 'process', pid, application_name) AS who,
        xact_start AS since FROM pg_stat_activity WHERE pid <> pg_backend_pid()
        UNION ALL SELECT age(transaction), 'a prepared transaction is open', gid, prepared FROM pg_prepared_xacts
        UNION ALL SELECT age(xmin), 'a replication slot is behind', slot_name, NULL FROM pg_replication_slots
    ) AS held
    WHERE age >= (SELECT min(age(xmin)) FROM lmm_forgotten WHERE place = %s) ORDER BY age DESC LIMIT 1
"""
COLUMNS = "n, id, text, context, metadata::text, about, time, replaces, replaced_by, vector::real[]"


class _Held(threading.local):
    """Of the transaction that a thread is in."""

    def __init__(self) -> None:
        self.connection: Any = None
        self.space: str | None = None
        self.unclean = set[str]()  # tables in which nothing of what was taken out is to be left


class Postgres(TextStore):
    """A pool of connections. Raises StoreError where the server cannot be reached, or lacks pgvector."""

    def __init__(self, url: str) -> None:
        self._learning = threading.Semaphore(LEARNING)
        self._held = _Held()
        self._described: dict[str, Any] = {}
        self._shapes: dict[str, tuple[float, bool, list[str]]] = {}  # of namespaces, and until when they are believed
        with _told("the store cannot be opened"):
            given = conninfo_to_dict(url)
            options = {name: value for name, value in USUAL.items() if name not in given}
            with psycopg.connect(url, **options) as connection:  # one try, which says why it failed
                self._migrate(connection)
            self._url, self._gone_s = url, float(given.get("connect_timeout") or 0) or float(GONE_S)
            self._pool = ConnectionPool(
                url,
                kwargs=options,
                min_size=1,
                max_size=CONNECTIONS,
                reconnect_timeout=RETRY_S,
                reconnect_failed=ConnectionPool.check,
                check=ConnectionPool.check_connection,  # it may have been closed while it lay idle
                open=True,
            )
        self.clean_up()

    def _migrate(self, connection: Any) -> None:
        there = connection.execute("SELECT to_regclass('lmm_version') IS NOT NULL").fetchone()[0]
        if there and self._version(connection) == len(MIGRATIONS):  # so that a role which owns nothing may use it
            return
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        connection.execute("CREATE TABLE IF NOT EXISTS lmm_version (number INTEGER NOT NULL)")
        for migration in MIGRATIONS[(version := self._version(connection)) :]:
            connection.execute(migration)
        if version < SPELLED:
            self._spell(connection)
        connection.execute("DELETE FROM lmm_version")
        connection.execute("INSERT INTO lmm_version VALUES (%s)", [len(MIGRATIONS)])

    def _spell(self, connection: Any) -> None:
        connection.execute("SELECT set_config('lmm.every', 'yes', true)")
        some, last = "SELECT n, text, about FROM lmm_memos WHERE replaced_by = '' AND n > %s ORDER BY n LIMIT %s", 0
        while rows := connection.execute(some, [last, MANY]).fetchall():
            values = [(word_places(text), folded_key(about), n) for n, text, about in rows]
            change = "UPDATE lmm_memos SET said = %s::text::tsvector, matter = %s WHERE n = %s"
            connection.cursor().executemany(change, values)
            last = rows[-1][0]

    def _version(self, connection: Any) -> int:
        row = connection.execute("SELECT number FROM lmm_version").fetchone()
        version, known = row[0] if row else 0, len(MIGRATIONS)
        if version > known:
            raise StoreError(f"the store is of a later lmm, which writes version {version}; this reads {known}")
        return version

    def lessons(self, user: str, name: str) -> SharedMind:
        return SharedMind(self, user, name)

    # about the whole ---------------------------------------------------------------------------------------------
    def about(self) -> dict[str, Any]:
        with self.within("") as query:
            return dict(query("SELECT name, value FROM lmm_about").fetchall())

    def describe(self, values: Mapping[str, Any]) -> None:
        if self._described == dict(values):
            return
        with self.within("") as query:
            query("SELECT pg_advisory_xact_lock(%s)", LOCK)
            for name, value in agreed(self.about(), values).items():
                insert = "INSERT INTO lmm_about VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value"
                query(insert, name, Jsonb(value))
            self._index(int(values.get("width", 0)), query)
        self._described = dict(values)

    def _index(self, width: int, query: Any) -> None:
        """Of vectors; only the owner of a table may index it."""
        there = query("SELECT to_regclass('lmm_memo_vectors') IS NOT NULL").fetchone()[0]
        owner = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'lmm_memos'::regclass"
        if there or not width:
            return
        if not query(owner).fetchone()[0]:
            log.warning("lmm_memos has no index of vectors: its owner makes it when they memorize or recall something")
            return
        query(
            "CREATE INDEX lmm_memo_vectors ON lmm_memos USING hnsw "
            f"((vector::vector({width})) vector_cosine_ops) WHERE replaced_by = ''"
        )
        query("ALTER INDEX lmm_memo_vectors ALTER COLUMN 1 SET STATISTICS 0")

    def count(self, space: str) -> int:
        with self.within(space) as query:
            return query("SELECT count(*) FROM lmm_memos WHERE space = %s AND replaced_by = ''", space).fetchone()[0]

    def has_any(self, space: str) -> bool:
        with self.within(space) as query:
            some = "SELECT 1 FROM lmm_memos WHERE space = %s AND replaced_by = '' LIMIT 1"
            return query(some, space).fetchone() is not None

    def namespaces(self) -> list[str]:
        return [space for [space] in self.everywhere('SELECT DISTINCT space COLLATE "C" FROM lmm_memos ORDER BY 1')]

    def everywhere(self, text: LiteralString) -> list[Any]:
        """The rows of a query that sees all namespaces."""
        with self.within("") as query:
            query("SELECT set_config('lmm.every', 'yes', true)")
            found = query(text).fetchall()
            query("SELECT set_config('lmm.every', '', true)")
            return found

    # changes -----------------------------------------------------------------------------------------------------
    def _same(self, space: str, keys: Sequence[str]) -> dict[str, Memo]:
        return {memo.key: memo for memo in self._some("replaced_by = '' AND key", space, keys)}

    def _of_matter(self, space: str, matter: str) -> list[Memo]:
        return self._some("replaced_by = '' AND matter <> '' AND matter", space, [matter])

    def _insert(self, space: str, memos: Sequence[Memo]) -> None:
        """All in one round trip."""
        if not memos:
            return
        rows = [
            (
                *(space, memo.id, memo.key, memo.text, memo.context, json.dumps(memo.metadata), memo.about),
                *(memo.time, memo.replaces, memo.replaced_by, memo.matter),
                *((word_places(memo.text), _written(memo.vector)) if memo.current else ("", None)),
            )
            for memo in memos
        ]
        try:
            with self.within(space):
                self._held.connection.cursor().executemany(INSERT, rows)
        except psycopg.errors.UniqueViolation:
            raise StoreError(f"there is an entry {' or '.join(memo.id for memo in memos)} with another text") from None

    def _retire(self, space: str, old: Memo, by: str) -> None:
        with self.within(space) as query:
            gone = "UPDATE lmm_memos SET replaced_by = %s, vector = NULL, said = '' WHERE space = %s AND id = %s"
            query(gone, by, space, old.id)

    def _delete(self, space: str, memos: Sequence[Memo]) -> None:
        with self.within(space) as query:
            if memos:
                ids = [memo.id for memo in memos]
                query("DELETE FROM lmm_memos WHERE space = %s AND id = ANY(%s)", space, ids)
            self.leave_nothing_in("lmm_memos", since_now=bool(memos))

    def leave_nothing_in(self, *tables: str, since_now: bool = True) -> None:
        """When the transaction that goes on has ended, no byte is to be left of what was taken out of these tables:
        `since_now`, in it, too. Where some is, the end of the transaction raises StillThereError."""
        with self.within("") as query:
            for table in tables if since_now else ():
                query("INSERT INTO lmm_forgotten (place) VALUES (%s)", table)
            self._held.unclean.update(tables)

    def clean_up(self) -> None:
        with contextlib.suppress(StoreError):
            self._clean(None, 0)

    def _clean(self, tables: Container[str] | None, wait: float) -> None:
        """Write anew those that may have bytes of what was forgotten; None: of all. Raises StillThereError."""
        what = "forgotten, but parts of it are still in the tables"
        with _told(what, StillThereError), contextlib.ExitStack() as stack:
            connection = self._connection(stack)
            connection.autocommit = True
            try:
                connection.execute(f"SET lock_timeout = '{READERS_S}s'")  # all others wait behind it
                times = "SELECT place, array_agg(n) FROM lmm_forgotten GROUP BY place ORDER BY place"
                for table, numbers in connection.execute(times).fetchall():
                    if tables is None or table in tables:
                        self._write_anew(connection, table, wait)
                        connection.execute("DELETE FROM lmm_forgotten WHERE n = ANY(%s)", [numbers])
            finally:
                connection.execute("RESET lock_timeout")
                connection.autocommit = False

    def _write_anew(self, connection: Any, table: str, wait: float) -> None:
        """Without the rows that were deleted. Those that a transaction might still see are copied, and the report of
        VACUUM alone tells for sure whether there are any: it is asked when nobody seems to be left, or after `wait`
        seconds. Where there is no time to wait, and somebody is, nothing is done."""
        until = time.monotonic() + wait
        while True:
            while (holder := connection.execute(HOLDER, [table]).fetchone()) and time.monotonic() < until:
                time.sleep(HELD_LOOK_S)
            if holder and not wait:
                raise _held(table, holder)
            left = _vacuum(connection, table)
            if left is None:  # a warning is all that is said of it
                what = f"forgotten, but parts of it are still in {table}: its owner must forget it"
                raise StillThereError(what, places=[table])
            if not left:
                return
            if time.monotonic() >= until:
                raise _held(table, holder)

    # reading -----------------------------------------------------------------------------------------------------
    def _get(self, space: str, ids: Sequence[str]) -> list[Memo]:
        return self._some("id", space, ids)

    def _some(self, where: LiteralString, space: str, values: Sequence[str]) -> list[Memo]:
        """The entries of a namespace of which something is among values."""
        with self.within(space) as query:
            some = f"SELECT {COLUMNS} FROM lmm_memos WHERE space = %s AND {where} = ANY(%s)"
            return list(map(_memo, query(some, space, list(values))))

    def _search(self, space: str, vector: np.ndarray, text: str, k: int, filters: Filters) -> list[Recalled]:
        where, values = _where(filters)
        some = f"FROM lmm_memos WHERE space = %s AND replaced_by = ''{where}"
        # a query within: computed once, and not for each row as a prepared statement does
        distance = f"vector::vector({len(vector)}) <=> (SELECT %s::text::vector({len(vector)}))"
        words = "(SELECT %s::text::tsquery)"
        asked = _written(vector)
        with self.within(space) as query:
            few, common = self._shape(space, query)
            if not few:
                query("SELECT set_config('hnsw.ef_search', %s, true)", str(min(2 * depth(k), 1000)))  # its most
                query("SELECT set_config('hnsw.iterative_scan', 'relaxed_order', true)")
            all_rows = "OFFSET 0" if few else ""  # without the index of vectors, which is of all users
            near = query(
                f"SELECT n FROM (SELECT n, {distance} AS far {some} AND vector IS NOT NULL {all_rows}) "
                "ORDER BY far LIMIT %s",
                *(asked, space, *values, depth(k)),
            ).fetchall()
            wanted = [word for word in dict.fromkeys(terms(text)) if word not in common and len(word.encode()) <= WORD]
            asked_words = " | ".join(map(_quoted, wanted))
            said = query(
                f"SELECT n {some} AND said @@ {words} ORDER BY ts_rank_cd(said, {words}, 1) DESC, n LIMIT %s",
                *(space, *values, asked_words, asked_words, depth(k)),
            ).fetchall()
            best = fused([n for [n] in near], [n for [n] in said], k)
            rows = query(
                f"SELECT {COLUMNS} FROM lmm_memos WHERE n = ANY(%s) AND space = %s", [n for n, _ in best], space
            )
            memos = {row[0]: _memo(row) for row in rows}
        return [Recalled(memos[n], score, memos[n].cosine(vector)) for n, score in best if n in memos]

    def _shape(self, space: str, query: Any) -> tuple[bool, list[str]]:
        """Whether the entries are few enough to look at each, and the words that many of them have: these say little,
        and each entry that has one would be ranked. Looked at now and then."""
        until, few, common = self._shapes.get(space, (0.0, True, []))
        if time.monotonic() > until:
            current = "FROM lmm_memos WHERE space = %s AND replaced_by = ''"
            [size] = query(f"SELECT count(*) {current}", space).fetchone()
            [total] = query("SELECT reltuples FROM pg_class WHERE oid = 'lmm_memos'::regclass").fetchone()
            few, common = size <= EXACT or size * size <= 2 * DEPTH * total, []
            if size > RARE:
                latest = f"SELECT said {current.replace('%s', '%L')} ORDER BY n DESC LIMIT {SAMPLE}"
                most = SAMPLE * min(SHARED, RANKED / size)
                rows = query("SELECT word FROM ts_stat(format(%s, %s::text)) WHERE ndoc > %s", latest, space, most)
                common = [word for [word] in rows]
            self._shapes[space] = time.monotonic() + LOOK_S, few, common
        return few, common

    def scan(self, space: str, filters: Filters = ALL, history: bool = False) -> Iterator[Memo]:
        where, values = _where(filters)
        where += "" if history else " AND replaced_by = ''"
        last = 0
        while True:
            with self.within(space) as query:
                some = f"SELECT {COLUMNS} FROM lmm_memos WHERE space = %s AND n > %s{where} ORDER BY n LIMIT %s"
                rows = query(some, space, last, *values, MANY).fetchall()
            yield from map(_memo, rows)
            if len(rows) < MANY:
                return
            last = rows[-1][0]

    def _history(self, space: str, id: str) -> list[Memo]:
        chain = """
            WITH RECURSIVE chain (id, next) AS (
                SELECT id, replaced_by FROM lmm_memos WHERE space = %s AND id = %s UNION
                SELECT m.id, m.replaced_by FROM chain c JOIN lmm_memos m
                ON m.space = %s AND (m.id = c.next OR (m.replaced_by = c.id AND m.replaced_by <> ''))
            )
        """
        with self.within(space) as query:
            some = f"{chain} SELECT {COLUMNS} FROM lmm_memos WHERE space = %s AND id IN (SELECT id FROM chain)"
            return list(map(_memo, query(f"{some} ORDER BY n", space, id, space, space)))

    # connections -------------------------------------------------------------------------------------------------
    def _connection(self, stack: contextlib.ExitStack) -> Any:
        """One of the pool, as soon as one is free; or soon an error, where the server gives none."""
        until = time.monotonic() + WAIT_S
        while True:
            try:
                return stack.enter_context(self._pool.connection(self._gone_s))
            except PoolTimeout:
                if time.monotonic() > until:
                    raise
                psycopg.connect(self._url, connect_timeout=math.ceil(self._gone_s)).close()  # it says why there is none

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        with self.within(""):
            yield

    @contextlib.contextmanager
    def connection_for(self, brief: bool) -> Iterator[bool]:
        """Whether one may be taken, and held for long unless `brief`."""
        there = brief or self._learning.acquire(timeout=LOOK_IN_S)
        try:
            yield there
        finally:
            if there and not brief:
                self._learning.release()

    @contextlib.contextmanager
    def within(self, space: str) -> Iterator[Any]:
        """`query(text, *values)` within a transaction that sees one namespace; in the one that goes on, if any."""
        outer = self._held.connection
        with _told("the store failed"), contextlib.ExitStack() as stack:
            if outer is None:
                self._held.connection, self._held.space = self._connection(stack), None
            connection = self._held.connection
            try:
                if self._held.space != space:
                    connection.execute("SELECT set_config('lmm.space', %s, true)", [space])
                    self._held.space = space
                yield lambda text, *values: connection.execute(text, values)
            except BaseException:
                if outer is None:
                    self._held.unclean = set()
                raise
            finally:
                self._held.connection = outer
        if outer is None and (unclean := self._held.unclean):
            self._held.unclean = set()
            self._clean(unclean, HELD_S)

    @contextlib.contextmanager
    def changing(self, space: str) -> Iterator[Any]:
        """The same for one writer of the namespace at a time. Within a transaction, an error ends this part alone."""
        with self.within(space) as query, self._held.connection.transaction():
            query("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", space)
            yield query

    def close(self) -> None:
        self._pool.close()


@contextlib.contextmanager
def _told(what: str, kind: type[StoreError] = StoreError) -> Iterator[None]:
    try:
        yield
    except psycopg.errors.UniqueViolation:
        raise
    except psycopg.errors.InsufficientPrivilege as error:
        ask = "an administrator prepares a database once: docs/store.md"
        raise kind(what, f"{error.diag.message_primary}; {ask}") from error
    except (psycopg.DataError, psycopg.errors.ProgramLimitExceeded) as error:
        raise UsageError(f"PostgreSQL cannot hold it: {error.diag.message_primary or error}") from error
    except (psycopg.Error, OSError) as error:
        raise kind(what, str(error).strip()) from error


def _vacuum(connection: Any, table: str) -> int | None:
    """Write a table anew -> how many deleted rows are in it all the same; None where that was not allowed."""
    counts: list[int] = []

    def hear(notice: Any) -> None:
        if found := NUMBER.search(notice.message_detail or ""):  # "0 dead row versions cannot be removed yet"
            counts.append(int(found[0]))

    connection.add_notice_handler(hear)
    try:
        connection.execute(sql.SQL("VACUUM (FULL, VERBOSE) {}").format(sql.Identifier(table)))
    except psycopg.errors.LockNotAvailable:
        raise _held(table, ("another transaction uses it", "", None)) from None
    finally:
        connection.remove_notice_handler(hear)
    return counts[0] if counts else None


def _held(table: str, holder: Sequence[Any] | None) -> StillThereError:
    what, who, since = holder or ("another transaction is open", "", None)
    what += f", since {since:%Y-%m-%d %H:%M:%S %Z}" if since else ""
    told = f"forgotten, but parts of it stay in {table} while {what}"
    return StillThereError(f"{told}; they go at the next forgetting, or opening, after it", who, [table])


def _memo(row: Sequence[Any]) -> Memo:
    _, id, text, context, metadata, about, time, replaces, replaced_by, vector = row
    held = None if vector is None else np.array(vector, np.float32)
    return Memo(text, context, read_metadata(metadata), about, time, id, replaces, replaced_by, held)


def _written(vector: np.ndarray | None) -> str | None:
    """As PostgreSQL reads it, which takes a third of the time of an array of numbers."""
    return None if vector is None else str(vector.tolist())


def word_places(text: str) -> str:
    """A text as a tsvector is written: each word with where it stands. Of the longest texts what PostgreSQL takes."""
    places, size = dict[str, list[int]](), 0
    for number, word in enumerate(terms(text), 1):
        found, long = places.get(word, []), len(word.encode())
        if long > WORD or len(found) == PLACES:
            continue
        size += 2 if found else long + 6
        if size > WORDS:
            break
        places[word] = [*found, min(number, LAST_PLACE)]
    return " ".join(f"{_quoted(word)}:{','.join(map(str, found))}" for word, found in places.items())


def _quoted(word: str) -> str:
    doubled = word.replace("\\", "\\\\").replace("'", "''")
    return f"'{doubled}'"


def _where(filters: Filters) -> tuple[str, list[Any]]:
    return filters.sql("time >= %s", "time < %s", "metadata::jsonb -> %s = %s::jsonb")
