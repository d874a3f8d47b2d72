"""From what a user calls a store to the store: a file, a PostgreSQL URL, or "memory:"."""

from __future__ import annotations

from pathlib import Path

from lmm.files.transcripts import data_dir
from lmm.store.base import TextStore

POSTGRES = ("postgresql://", "postgres://")


def default_store() -> Path:
    return data_dir() / "recall.sqlite"


def open_store(name: str | Path | None = None) -> TextStore:
    """Without a name, the user's own file. Raises StoreError."""
    text = str(name or default_store())
    if text == "memory:":
        from lmm.store.memory import InMemory

        return InMemory()
    if text.startswith(POSTGRES):
        from lmm.store.postgres import Postgres

        return Postgres(text)
    from lmm.store.sqlite import Sqlite

    return Sqlite(Path(text))
