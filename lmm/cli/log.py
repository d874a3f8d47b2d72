"""`lmm log ...`: the activation log as a table and as a picture; and `lmm sessions`."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from lmm.cli.options import Json, Option, Yes, out, out_json, out_table, say, sure
from lmm.errors import UsageError
from lmm.text.counted import counted

app = typer.Typer(name="log", help="The activation log: what memories did.", no_args_is_help=True)
Log = Annotated[Path | None, typer.Argument(help="default: the one a chat writes here")]
Last = Annotated[int, Option("--last", "-n", min=1, help="how many of the newest")]


@app.command()
def show(
    log: Log = None,
    last: Last = 40,
    kind: Annotated[str | None, Option(help="hook or update: every record of that kind")] = None,
    everything: Annotated[bool, Option("--all", help="every record, in its order")] = False,
    as_json: Json = False,
) -> None:
    """What was learned, then where a memory changed something; --json and --all give every record."""
    from lmm.files import activation_log

    if kind not in (None, "hook", "update"):
        raise UsageError(f"--kind takes hook or update, not {kind!r}")
    records = (r for r in activation_log.read(_path(log)) if kind in (None, r.get("kind")))
    if as_json:
        out_json(list(deque(records, maxlen=last)))
        return
    shown, hidden = (list(deque(records, maxlen=last)), 0) if everything or kind else _telling(records, last)
    out_table(("time", "kind", "memory", "where", "what"), [_row(record) for record in shown])
    if hidden:
        say(f"{counted(hidden, 'record')} in which nothing was learned or changed; --all shows them, too")


def _telling(records: Iterable[dict[str, Any]], last: int) -> tuple[list[dict[str, Any]], int]:
    """The newest lessons, with the lines that are no records, and, after them, the newest hooks that changed something;
    and how many said nothing."""
    from lmm.cli.log_plot import change
    from lmm.files import activation_log

    lessons, hooks, hidden = deque[dict[str, Any]](maxlen=last), deque[dict[str, Any]](maxlen=last), 0
    for record in records:
        if _lesson(record) or record.get("kind") == activation_log.BAD:
            lessons.append(record)
        elif record.get("kind") == "hook" and change(record) != 0:
            hooks.append(record)
        else:
            hidden += 1
    return [*lessons, *hooks], hidden


def _lesson(record: dict[str, Any]) -> bool:
    """Does it say what was learned? Its fellow, from before it was, says no more."""
    info = record.get("info")
    return record.get("stage") == "post_hooks" and isinstance(info, dict) and bool(info.get("lesson_id"))


@app.command()
def prune(
    log: Log = None,
    days: Annotated[float, Option(min=0, help="leave what is younger than so many days")] = 0.0,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Take the passes through the model out of a log, and keep what was learned."""
    from lmm.files import jsonl
    from lmm.files.activation_log import ActivationLog

    path = _path(log)
    if not path.is_file():
        raise UsageError(f"there is no activation log {path}")
    sure(f"Passes that are older than {days:g} days will be removed from {path}, for good.", yes)

    def size() -> int:
        return sum(at.stat().st_size for at in jsonl.rotated(path) if at.exists())

    before = size()
    gone = ActivationLog(path, enabled=False).prune(time.time() - 86400 * days)
    if as_json:
        out_json({"records": gone, "bytes": before - size()})
    else:
        say(f"{counted(gone, 'record')} removed, {(before - size()) / 1e6:.1f} MB")


@app.command()
def plot(
    log: Log = None,
    last: Last = 40,
    output: Annotated[Path | None, Option("--output", "-o", help="a .html, .png, .svg or .pdf file")] = None,
    as_json: Json = False,
) -> None:
    """How far the memory moved the hidden state, token by token: a heatmap here or in a file."""
    from lmm.cli import log_plot
    from lmm.files import activation_log

    found = log_plot.rows(activation_log.read(_path(log)), last)
    if not found:
        raise UsageError(f"{_path(log)} has no forward passes in it yet")
    if output is not None:
        log_plot.write(found, output)
        say(f"written to {output}")
    if as_json:
        finite = [[c if math.isfinite(c) else None for c in row.changes] for row in found]  # JSON has no NaN
        out_json([{"label": row.label, "changes": line} for row, line in zip(found, finite, strict=True)])
    elif output is None:
        from lmm.chat.render import make_console

        console = make_console()
        console.print(log_plot.as_text(found, console.width))


def sessions(
    which: Annotated[str | None, typer.Argument(help="a session's id: show it whole")] = None,
    last: Last = 20,
    as_json: Json = False,
) -> None:
    """Earlier chats, newest first; `lmm chat --continue` goes on with the last, `--resume ID` with any."""
    from lmm.files import transcripts

    if which is not None:
        session = transcripts.find(which)
        if as_json:
            out_json(_described(session) | {"turns": [{"user": u, "reply": r} for u, r in session.turns]})
            return
        for user, reply in session.turns:
            out(f"> {user}\n{reply}\n")
        return
    found = [s for s in transcripts.sessions(last, say) if s.turns or s.lessons]
    if as_json:
        out_json([_described(session) for session in found])
        return
    from lmm.text.sanitize import clean_line
    from lmm.text.when import when

    if not found:
        say("no sessions yet; start one with: lmm chat")
        return
    rows = [(s.id, when(s.time)[:16], len(s.turns), s.lessons, clean_line(s.title, 50)) for s in found]
    out_table(("id", "last used", "turns", "lessons", "first message"), rows)


def _described(session: Any) -> dict[str, Any]:
    about = {key: session.about.get(key) for key in ("model", "memory", "backend")}
    more = {"lessons": session.lessons, "saved": session.saved, "path": str(session.path), "title": session.title}
    return {"id": session.id, "time": session.time, "turns": len(session.turns), **about, **more}


def _path(log: Path | None) -> Path:
    from lmm import config

    return log or Path(config.load({}).activation_log_path)


def _row(record: dict[str, Any]) -> tuple[object, ...]:
    """A record as a line of the table; what in it is none of this log's fields is said to be so."""
    from lmm.text.when import when

    kind = "lesson" if _lesson(record) else record.get("kind", "")
    head = (when(record.get("time")), kind, record.get("module", ""))
    try:
        return (*head, *_what(record))
    except (TypeError, ValueError, AttributeError, RecursionError):
        return (*head, "", "(not as a chat writes it)")


def _what(record: dict[str, Any]) -> tuple[object, object]:
    from lmm.cli.log_plot import change
    from lmm.text.sanitize import clean_line

    if "problem" in record:
        return (f"line {record['line']}", record["problem"])
    if record.get("kind") == "hook":
        if not isinstance(record.get("output_slice"), list):
            raise ValueError("a pass without numbers")
        first, last = (record.get("positions") or [0, 0])[:2]
        where = f"layer {record.get('layer')} {record.get('phase')} {first}-{last}"
        return (where, f"change {change(record):.4f}")
    info = record.get("info") or {}
    figures = [f"{k} {info[k]}" for k in ("steps", "loss_before", "loss_after", "seconds") if info.get(k) is not None]
    taught = f"{info['question']} => {info['answer']}" if info.get("question") else ""
    said = clean_line(taught or info.get("last_user_response", ""), 120)
    return ("" if _lesson(record) else record.get("stage", ""), ", ".join([*([said] if said else []), *figures]))
