"""From what a user calls a store to the store: a file, a PostgreSQL URL, or "memory:"."""

from __future__ import annotations

from pathlib import Path

from lmm.errors import UsageError
from lmm.files.transcripts import data_dir
from lmm.store.base import TextStore

POSTGRES, MEMORY = ("postgresql://", "postgres://"), "memory:"


def default_store() -> Path:
    return data_dir() / "recall.sqlite"


def file_of(name: str) -> Path | None:
    """The file that a store is in; None for one in a database or in memory."""
    return None if "://" in name or name == MEMORY else Path(name).expanduser().resolve()


def open_store(name: str | Path | None = None) -> TextStore:
    """Without a name, the user's own file. Raises StoreError, and UsageError for another kind of URL."""
    text = str(name or default_store())
    if "://" in text and not text.startswith(POSTGRES):
        raise UsageError(f"a store is a file, {MEMORY!r} or a postgresql:// URL, not {text!r}")
    if text == MEMORY:
        from lmm.store.memory import InMemory

        return InMemory()
    if text.startswith(POSTGRES):
        from lmm.store.postgres import Postgres

        return Postgres(text)
    from lmm.store.sqlite import Sqlite

    return Sqlite(Path(text))
