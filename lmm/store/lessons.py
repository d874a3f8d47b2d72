"""Lessons in PostgreSQL, for servers that share their users: what one is taught, the others know at their next reply.

A tensor or a lesson that a mind knows is a row, of its user and of the model and memory that hold it. A change takes a
number, and whoever has read up to one number asks for what came later: a row that was taken out stays as a name alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb

from lmm.errors import Cancelled
from lmm.files.journal import UNDO, Change, change_of, joined, line_of
from lmm.files.state_file import Header

if TYPE_CHECKING:
    from lmm.lesson import Lesson
    from lmm.store.postgres import Postgres

POLL_S = 0.02  # between looks whether another server has finished
TENSOR, LESSON = "tensor ", "lesson "  # what a row is, before its name


@dataclass(frozen=True)
class SharedMind:
    """What one user's mind knows, as the database has it. Raises StoreError.

    `name` says of which model and memory.
    """

    store: Postgres
    user: str
    name: str

    @contextlib.contextmanager
    def alone(self, stopped: Callable[[], bool], brief: bool = False) -> Iterator[None]:
        """A transaction that no other server has for this mind; unless `brief`, the model may learn meanwhile, and few
        do so at once. Raises Cancelled if it was stopped while it waited, with no connection held."""
        while True:
            with self.store.connection_for(brief) as there:
                if there:
                    with self.store.within(self.user) as query:
                        lock = "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 1))"
                        if query(lock, f"{self.user}\n{self.name}").fetchone()[0]:
                            yield
                            return
            if stopped():
                raise Cancelled("stopped waiting for others that are learning; nothing was done")
            time.sleep(POLL_S)

    def header(self) -> Header | None:
        """What the rows are of; None where there are none yet."""
        with self.store.within(self.user) as query:
            where = "WHERE space = %s AND name = %s"
            row = query(f"SELECT header FROM lmm_minds {where}", self.user, self.name).fetchone()
        return None if row is None else Header(**row[0])

    def begin(self, header: Header) -> None:
        values = dataclasses.asdict(dataclasses.replace(header, lessons=[]))
        with self.store.within(self.user) as query:
            query("INSERT INTO lmm_minds VALUES (%s, %s, %s)", self.user, self.name, Jsonb(values))

    def since(self, number: int) -> tuple[Change, int]:
        """What was changed after a number, as one change, and the number of the last."""
        with self.store.within(self.user) as query:
            rows = query(
                "SELECT n, part, value FROM lmm_known WHERE space = %s AND name = %s AND n > %s ORDER BY n",
                *(self.user, self.name, number),
            ).fetchall()
        changes = [change for _, part, value in rows if (change := _read(part, value)) is not None]
        return joined(changes), rows[-1][0] if rows else number

    def write(self, change: Change, back: Change | None) -> int:
        """A change, and what would take it back, as `journal.append` has it -> its number."""
        rows = {f"{TENSOR}{name}": line_of(Change({name: array})) for name, array in change.tensors.items()}
        rows |= {f"{LESSON}{lesson.id}": line_of(Change(lessons=(lesson,))) for lesson in change.lessons}
        gone = [*(f"{TENSOR}{name}" for name in change.gone), *(f"{LESSON}{id}" for id in change.forgotten)]
        with self.store.within(self.user) as query:
            for part, value in [*((part, None) for part in gone), *rows.items()]:
                query(
                    "INSERT INTO lmm_known (space, name, part, value) VALUES (%s, %s, %s, %s) "
                    "ON CONFLICT (space, name, part) DO UPDATE SET value = EXCLUDED.value, n = EXCLUDED.n",
                    *(self.user, self.name, part, value),
                )
            if back is None:
                self._drop_undo(change)
            elif back:
                self._add_undo(back)
            last = "SELECT coalesce(max(n), 0) FROM lmm_known WHERE space = %s AND name = %s"
            return query(last, self.user, self.name).fetchone()[0]

    # undo --------------------------------------------------------------------------------------------------------
    def undos(self) -> dict[int, Change]:
        """What takes the last changes back, by number, the oldest first."""
        with self.store.within(self.user) as query:
            some = "SELECT n, change FROM lmm_undos WHERE space = %s AND name = %s ORDER BY n"
            rows = query(some, self.user, self.name).fetchall()
        return {n: change for n, line in rows if (change := change_of(bytes(line))) is not None}

    def purge(self, lesson: Lesson) -> None:
        """Leave no trace of a lesson in what can be undone, and after the transaction no byte in the tables."""
        with self.store.within(self.user) as query:
            for n, change in self.undos().items():
                if rest := change.without(lesson):
                    query("UPDATE lmm_undos SET change = %s WHERE n = %s", line_of(rest), n)
                else:
                    query("DELETE FROM lmm_undos WHERE n = %s", n)
            self.store.leave_nothing_in("lmm_known", "lmm_undos")

    def _add_undo(self, back: Change) -> None:
        with self.store.within(self.user) as query:
            added = "INSERT INTO lmm_undos (space, name, change) VALUES (%s, %s, %s)"
            query(added, self.user, self.name, line_of(back))
            old = "SELECT n FROM lmm_undos WHERE space = %s AND name = %s ORDER BY n DESC OFFSET %s"
            query(f"DELETE FROM lmm_undos WHERE n IN ({old})", self.user, self.name, UNDO)

    def _drop_undo(self, change: Change) -> None:
        numbers = [n for n, known in self.undos().items() if known.is_like(change)]
        if numbers:
            with self.store.within(self.user) as query:
                query("DELETE FROM lmm_undos WHERE n = %s", numbers[-1])


def copy_minds(source: Postgres, target: Postgres) -> int:
    """All minds with what they know and what can be undone -> how many. One that is there already stays as it is."""
    copied = 0
    for user, name in source.everywhere("SELECT space, name FROM lmm_minds ORDER BY 1, 2"):
        mind, of = SharedMind(source, user, name), "WHERE space = %s AND name = %s"
        with mind.alone(lambda: False), source.within(user) as query:
            [header] = query(f"SELECT header FROM lmm_minds {of}", user, name).fetchone()
            known = query(f"SELECT part, value FROM lmm_known {of} ORDER BY n", user, name).fetchall()
            undos = query(f"SELECT change FROM lmm_undos {of} ORDER BY n", user, name).fetchall()
        with target.within(user) as query:
            begin = "INSERT INTO lmm_minds VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
            if not query(begin, user, name, Jsonb(header)).rowcount:
                continue
            for part, value in known:
                some = "INSERT INTO lmm_known (space, name, part, value) VALUES (%s, %s, %s, %s)"
                query(some, user, name, part, value)
            for [change] in undos:
                query("INSERT INTO lmm_undos (space, name, change) VALUES (%s, %s, %s)", user, name, change)
        copied += 1
    return copied


def _read(part: str, value: Any) -> Change | None:
    """None for a row that is damaged."""
    if value is not None:
        return change_of(bytes(value))
    if part.startswith(TENSOR):
        return Change(gone=(part.removeprefix(TENSOR),))
    return Change(forgotten=(part.removeprefix(LESSON),))
