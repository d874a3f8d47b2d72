"""`lmm store ...`: move texts from one store to another."""

from __future__ import annotations

import sys

import typer

from lmm.cli.options import say
from lmm.errors import UsageError
from lmm.text.counted import counted

app = typer.Typer(name="store", help="Move texts from one store to another.", no_args_is_help=True)


@app.callback()
def _store() -> None:
    """So that `copy` is a command of its own name."""


@app.command()
def copy(source: str, target: str) -> None:
    """Copy all texts: a file or a postgresql:// URL into another; then check that they have arrived. Exit code 1: some
    could not be held there, and are named."""
    from lmm.store import copying
    from lmm.store.opening import file_of, open_store

    file = file_of(source)
    if source == target or (file is not None and file == file_of(target)):
        raise UsageError("both are the same store")
    if file is not None and not file.exists():
        raise UsageError(f"there is no store {source}")
    steps: set[int] = set()
    left: list[str] = []

    def progress(done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        if tenth not in steps and sys.stderr.isatty():
            steps.add(tenth)
            say(f"{done:,} of {total:,}")

    one, other = open_store(source), open_store(target)
    say(f"{counted(copying.copy(one, other, progress, left.append), 'text')} copied and checked")
    minds = copying.copy_lessons(one, other)
    if minds is None:
        say("lessons that servers share there were not copied: only another database has a place for them")
    elif minds:
        say(f"what {counted(minds, 'mind')} learned is copied, too")
    if left:
        say("\n".join(left))
        raise typer.Exit(1)
