"""`lmm recall ...`: texts to be found again, word for word; no model talks."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmm.cli.options import Json, Option, Yes, given_or_piped, out, out_json, out_table, say, sure
from lmm.errors import UsageError
from lmm.text.counted import counted
from lmm.text.sanitize import listed
from lmm.text.when import when

if TYPE_CHECKING:
    from lmm.store.base import Memo
    from lmm.store.personal import PersonalMemory

app = typer.Typer(name="recall", help="Keep texts and find them again, word for word.", no_args_is_help=True)
Argument = typer.Argument
StoreName = Annotated[str | None, Option("--store", help="a file or a postgresql:// URL; default: the user's own file")]
User = Annotated[str, Option(help="whose: a namespace")]
Encoder = Annotated[str, Option(help="auto, minilm, lam, or a folder or id of sentence-transformers")]
Since = Annotated[str | None, Option(help="only those of this day, 2026-03-31, or time, 2026-03-31T14:00, or later")]
Until = Annotated[str | None, Option(help="only those before this day or time")]
Metadata = Annotated[
    list[str] | None, Option(help="NAME=VALUE, kept beside the text; VALUE may be JSON; again for more")
]
With = Annotated[list[str] | None, Option("--metadata", help="only those with this NAME=VALUE; again for more")]

PIPE = Path("-")
ExportFile = Annotated[Path, Argument(help="- is stdout")]
ImportFile = Annotated[Path, Argument(help="- is stdin")]


@app.command()
def add(
    texts: Annotated[list[str] | None, Argument(help="texts; without any, or for -, each line of stdin")] = None,
    about: Annotated[
        str | None, Option(help='the matter: the next text about the same takes its place; "": none any more')
    ] = None,
    context: Annotated[str | None, Option(help="what it was said in")] = None,
    instead: Annotated[str | None, Option(help="id of an entry that this one corrects")] = None,
    metadata: Metadata = None,
    store: StoreName = None,
    user: User = "",
    encoder: Encoder = "auto",
    as_json: Json = False,
) -> None:
    """Memorize texts, and print their ids."""
    from lmm.store.base import Memo

    given = given_or_piped(texts)
    if not given:
        raise UsageError('there is nothing to memorize; expected: lmm recall add "TEXT", or lines on stdin')
    if (instead or about) and len(given) > 1:
        raise UsageError("--instead and --about take one text")
    values = _values(metadata)
    memory = _memory(store, user, encoder)
    if instead:
        ids = [memory.update(instead, given[0], values or None, context, about)]
    else:
        ids = memory.memorize_all(Memo(text, context or "", values, about or "") for text in given)
    if as_json:
        out_json(ids)
    else:
        for id in ids:
            out(id)


@app.command()
def search(
    query: Annotated[list[str], Argument(help="what to look for")],
    count: Annotated[int, Option("--count", "-n", help="how many at most", min=1)] = 5,
    since: Since = None,
    until: Until = None,
    metadata: With = None,
    store: StoreName = None,
    user: User = "",
    encoder: Encoder = "auto",
    as_json: Json = False,
) -> None:
    """The texts nearest to a query, by meaning and by words, the best first."""
    memory = _kept(store, user, encoder)
    found = memory.recall(" ".join(query), count, _seconds(since), _seconds(until), _values(metadata))
    if as_json:
        figures = [{"score": round(x.score, 5), "cosine": round(x.cosine, 4)} for x in found]
        out_json([{**x.memo.to_dict(), **more} for x, more in zip(found, figures, strict=True)])
    else:
        out_table(("id", "likeness", "text"), [(x.memo.id, f"{x.cosine:.2f}", x.memo.text) for x in found])


@app.command("list")
def list_(
    since: Since = None,
    until: Until = None,
    metadata: With = None,
    store: StoreName = None,
    user: User = "",
    as_json: Json = False,
) -> None:
    """All that is kept, the oldest first."""
    _shown(_kept(store, user).list(_seconds(since), _seconds(until), _values(metadata)), as_json)


@app.command()
def history(id: str, store: StoreName = None, user: User = "", as_json: Json = False) -> None:
    """All that was ever said of a fact, the oldest first."""
    _shown(_kept(store, user).history(id), as_json)


@app.command()
def forget(ids: list[str], store: StoreName = None, user: User = "", yes: Yes = False, as_json: Json = False) -> None:
    """Remove facts with their history: no file holds a byte of them afterwards."""
    memory = _kept(store, user)
    memos = [memory.get(id) for id in ids]
    sure(f"Forget {'; '.join(memo.text for memo in memos)}?", yes)
    gone = memory.forget(ids)
    if as_json:
        out_json({"forgotten": gone})
    else:
        say(f"forgotten: {counted(gone, 'text')}")


@app.command()
def export(file: ExportFile, store: StoreName = None, user: User = "") -> None:
    """Write all texts of a user, with their history, as lines of JSON. `lmm store copy` takes those of all."""
    memory = _kept(store, user)
    if not memory.store.has_any(memory.user):  # a name typed wrong is not to empty a file
        of = f" of {user}" if user else ", unless you name a --user"
        there = [space for space in memory.store.namespaces() if space]
        raise UsageError(f"there is nothing to export{of}" + (f"; there are texts of {listed(there)}" if there else ""))
    if file == PIPE:
        for memo in memory.versions():
            print(json.dumps(memo.to_dict()))
    else:
        say(f"{counted(_write(memory, file), 'text')} in {file}")


@app.command("import")
def import_(file: ImportFile, store: StoreName = None, user: User = "", encoder: Encoder = "auto") -> None:
    """Take in what `export` wrote; what is there already stays, unless it was corrected since. Exit code 1: not all of
    it could be taken."""
    left: list[str] = []
    try:
        memory = _memory(store, user, encoder)
        if file == PIPE:
            new = memory.import_lines(sys.stdin.buffer, "stdin", left.append)
        else:
            new = memory.import_(file, left.append)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}") from error
    say("\n".join([*left, counted(new, "new text")]))
    if left:
        raise typer.Exit(1)


def _memory(store: str | None, user: str, encoder: str = "auto") -> PersonalMemory:
    from lmm.store.personal import PersonalMemory

    return PersonalMemory(store, encoder, user)


def _kept(store: str | None, user: str, encoder: str = "auto") -> PersonalMemory:
    """The same to look into it: a file that is not there is not made. Raises UsageError where one was named."""
    from lmm.store.opening import MEMORY, default_store, file_of

    file = file_of(store or str(default_store()))
    if file is None or file.exists():
        return _memory(store, user, encoder)
    if store:
        raise UsageError(f"there is no store {store}")
    return _memory(MEMORY, user, encoder)


def _write(memory: PersonalMemory, file: Path) -> int:
    try:
        return memory.export(file)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror or error}") from error


def _shown(memos: Sequence[Memo], as_json: bool) -> None:
    if as_json:
        out_json([memo.to_dict() for memo in memos])
        return
    rows: list[Any] = [(memo.id, when(memo.time), memo.text) for memo in memos]
    out_table(("id", "memorized", "text"), rows)


def _values(given: Sequence[str] | None) -> dict[str, Any]:
    """NAME=VALUE as metadata. Raises UsageError."""
    values: dict[str, Any] = {}
    for one in given or ():
        name, sign, value = one.partition("=")
        if not name or not sign:
            raise UsageError(f"metadata is given as NAME=VALUE, not {one!r}")
        try:
            values[name] = json.loads(value)
        except (ValueError, RecursionError):
            values[name] = value
    return values


def _seconds(text: str | None) -> float | None:
    """A local day or time as seconds since 1970. Raises UsageError."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"a time is written 2026-03-31 or 2026-03-31T14:00, not {text!r}") from None
    try:
        return at.timestamp()
    except (ValueError, OverflowError, OSError):  # at the ends of the calendar no clock tells what is local there
        return at.replace(tzinfo=UTC).timestamp()
