"""`lmm memory ...`: look at memory files, and work on them without a conversation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmm.cli.opening import opened, saved
from lmm.cli.options import Json, Option, Yes, configured, out, out_json, out_table, say, sure
from lmm.errors import StateError, UsageError
from lmm.files import own

if TYPE_CHECKING:
    from lmm.config import Config
    from lmm.engine.check import Report
    from lmm.lesson import Lesson

app = typer.Typer(name="memory", help="Look at memory files, and work on them.", no_args_is_help=True)
Argument = typer.Argument
File = Annotated[Path, Argument(help="a memory file")]
OrStanding = Annotated[Path | None, Argument(help="a memory file; default: the standing memory")]


@app.command("list")
def list_(
    places: Annotated[list[Path] | None, Argument(help="files or folders; default: artifacts")] = None,
    as_json: Json = False,
) -> None:
    """The standing memories, then the memory files in a folder, newest first."""
    from lmm.files import standing

    rows = [_listed(path) for path in _files(places or [p for p in [Path("artifacts")] if p.exists()])]
    rows.sort(key=lambda row: str(row.get("saved_at", "")), reverse=True)
    rows = rows if places else [_listed(path) for path in standing.files()] + rows
    if as_json:
        out_json(rows)
        return
    if not rows:
        say("no memory files there; a chat keeps what you tell it in one")
    out_table(
        ("file", "memory", "lessons", "model", "saved"),
        [
            (
                r["path"],
                r.get("module", ""),
                r.get("lessons", ""),
                r.get("model_id", r.get("error", "")),
                str(r.get("saved_at", ""))[:16].replace("T", " "),
            )
            for r in rows
        ],
    )


@app.command()
def show(
    file: OrStanding = None,
    around: Annotated[str | None, Option(help="what of it is near a text, and what it does at its tokens")] = None,
    png: Annotated[Path | None, Option(help="with --around: a picture of what it does, as a file")] = None,
    as_json: Json = False,
) -> None:
    """What is in a file: its header, its lessons, its tensors. With --around TEXT: what a memory finds for a text."""
    file = file or _standing()
    if around is not None:
        _around(file, around, png, as_json)
        return
    from lmm.files import journal
    from lmm.files import state_file as state
    from lmm.text.sanitize import clean_line

    with journal.alone(file):
        found = state.inspect(file)
    if as_json:
        out_json(found)
        return
    plain = {k: v for k, v in found.items() if k not in ("lessons", "tensors", "options", "extra")}
    options = ", ".join(f"{k}={v}" for k, v in found["options"].items())
    out_table(("", ""), [(k, "" if v is None else str(v)) for k, v in plain.items()] + [("options", options)])
    if found["lessons"]:
        out_table(
            ("", "id", "question", "answer"),
            [
                (number, clean_line(x["id"], 80), x["prompt"] or x["statement"], x["answer"])
                for number, x in enumerate(found["lessons"], 1)
            ],
        )
    out_table(
        ("tensor", "dtype", "shape", "bytes"),
        [(clean_line(t["name"], 80), t["dtype"], str(t["shape"]), t["bytes"]) for t in found["tensors"]],
    )


def _around(file: Path, text: str, png: Path | None, as_json: bool) -> None:
    """In the model that is set (LMM_MODEL, the config file)."""
    from lmm import config
    from lmm.files import journal
    from lmm.text.heat import heat_map

    header = journal.read_header(file)
    made = dataclasses.replace(
        config.load({}),
        memory=header.module,
        options=header.options,
        mm_load_path=str(file),
        mm_save_path=None,
        preset=None,
        fresh=True,
        log=False,
    )
    with opened(made) as mind, mind.adapter.quiet():
        adapter, memory, known = mind.adapter, mind.memory, mind.knowledge
        tokens, content = adapter.format.message_tokens(text)
        found = memory.near(known.state, text, adapter)
        drawn = [(p.title, p.values[content]) for p in memory.pictures(known.state, tokens, adapter)]
        names = [adapter.format.piece(token) for token, mine in zip(tokens, content, strict=True) if mine]
    said = {lesson.id: str(lesson) for lesson in known.lessons}
    if as_json:
        near = [{"id": i, "score": score, "said": said.get(i, "")} for i, score in found]
        out_json({"near": near, **{title: values.tolist() for title, values in drawn}})
        return
    out_table(("score", "id", "said"), [(f"{score:.2f}", i, said.get(i, "")) for i, score in found])
    for title, values in drawn:
        out(f"{title}\n{heat_map(names, values.tolist())}")
    if png is not None:
        _draw(png, names, drawn)
    if not found and not drawn:
        say(f"memory {header.module!r} finds nothing near that text")


def _draw(path: Path, names: list[str], drawn: list[tuple[str, Any]]) -> None:
    """Raises UsageError where matplotlib is missing, or there is nothing to draw."""
    from lmm.bench import pages

    if not drawn:
        raise UsageError("this memory has nothing to draw: only lm2's slots and gates are pictures")
    try:
        pyplot = pages.pyplot()
    except ImportError:
        raise UsageError("a picture needs matplotlib: pip install 'lmm[bench]'") from None
    figure, axes = pyplot.subplots(1, len(drawn), figsize=(8, 1 + len(names) / 4), squeeze=False)
    for axis, (title, values) in zip(axes[0], drawn, strict=True):
        image = axis.imshow(values, aspect="auto")
        axis.set_title(title)
        axis.set_yticks(range(len(names)), names)
        figure.colorbar(image, ax=axis)
    figure.tight_layout()
    own.check(path)
    figure.savefig(path)
    say(f"saved to {path}")


@app.command()
def verify(
    files: Annotated[list[Path] | None, Argument(help="memory files; default: the standing memory")] = None,
    as_json: Json = False,
) -> None:
    """Check files whole, tensors included. Exit code 1 if one is damaged."""
    from lmm.files import journal

    found = {str(path): journal.verify(path) for path in files or [_standing()]}
    if as_json:
        out_json(found)
    else:
        for path, problems in found.items():
            out(f"{path}: {'; '.join(problems) or 'good'}")
    if any(found.values()):
        raise typer.Exit(1)


@app.command()
def diff(a: File, b: OrStanding = None, as_json: Json = False) -> None:
    """What differs between two files: lessons, header, tensors."""
    from lmm.engine import memory_files
    from lmm.text.sanitize import clean_line

    found = memory_files.compare(a, b or _standing())
    if as_json:
        out_json(dataclasses.asdict(found, dict_factory=lambda pairs: {k: v for k, v in pairs if k != "reading"}))
        return
    for name, (x, y) in found.header.items():
        out(f"{name}: {x} | {y}")
    for lesson in found.only_a:
        out(f"- {lesson}")
    for lesson in found.only_b:
        out(f"+ {lesson}")
    for x, y in found.changed:
        out(f"! {x.prompt} => {x.answer} | {y.answer}")
    for tensor in found.tensors:
        by = f", differs by up to {tensor['largest']:.3g}" if "largest" in tensor else ""
        out(f"tensor {clean_line(tensor['name'], 80)}: {tensor['a']} | {tensor['b']}{by}")
    if not found:
        say("the same")


@app.command()
def merge(
    a: File,
    b: File,
    output: Annotated[
        Path | None, Option("--output", "-o", "--mm-path", help="default artifacts/<memory>_<time>.safetensors")
    ] = None,
    prefer: Annotated[str | None, Option(help="first or second: whose answer to keep where they disagree")] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Both sets of lessons in one file; names the conflicts if there are any."""
    from lmm.engine import memory_files
    from lmm.files import journal
    from lmm.files import state_file as state

    if prefer not in (None, "first", "second"):
        raise UsageError(f"--prefer takes first or second, not {prefer!r}")
    arrays, header = memory_files.merged(a, b, prefer)
    path = output or state.default_save_path(header.module)
    if path.exists():
        sure(f"{path} exists and will be replaced.", yes)
    journal.replace(path, arrays, header, "the two files are as they were")
    if as_json:
        out_json({"path": str(path), "lessons": [x.to_dict() for x in header.lessons]})
    else:
        out(str(path))
        say(f"{len(header.lessons)} lessons")


@app.command()
def forget(
    file: OrStanding = None,
    what: Annotated[str, Argument(help="a lesson's number or id, or text that only one lesson has in it")] = "",
    everywhere: Annotated[str, Option(help="a value: whatever says it goes, in all files that are known here")] = "",
    activation_log_path: Annotated[Path | None, Option(help="a log that may mention it, too")] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Remove one lesson from a file, the activation log, the transcripts and the history. Cannot be undone."""
    from lmm import config

    log = activation_log_path or Path(config.load({}).activation_log_path)
    if file is not None and not what and not everywhere and not file.exists():
        file, what = _standing(), str(file)
    if everywhere and file is None:
        _forget_everywhere(everywhere, log, yes, as_json)
    elif file is not None and what and not everywhere:
        _forget_lesson(file, what, log, yes, as_json)
    else:
        raise UsageError("expected: lmm memory forget [FILE] WHAT, or lmm memory forget --everywhere VALUE")


def _forget_everywhere(value: str, log: Path, yes: bool, as_json: bool) -> None:
    from lmm.chat.forgetting import everywhere

    sure(f"Every lesson, turn, typed line and log record that says {value!r} will be removed, for good.", yes)
    gone, left = everywhere(value, log)
    if as_json:
        out_json({"forgotten": gone, "still_in": left})
    else:
        for line in gone:
            say(f"forgotten: {line}")
        for place, reason in left.items():
            say(f"still in {place}: {reason}")
        if not gone and not left:
            say(f"nothing here says {value!r}")
    if left:
        raise typer.Exit(1)


def _forget_lesson(file: Path, what: str, log: Path, yes: bool, as_json: bool) -> None:
    from lmm.chat.forgetting import everywhere_hint, logs_here
    from lmm.chat.history import JsonHistory, history_path
    from lmm.engine import memory_files
    from lmm.files import activation_log, journal
    from lmm.files.traces import Trace
    from lmm.files.transcripts import purge, said_with

    header = journal.read_header(file)
    lesson, mixed = _one(header.lessons, what, file), memory_files.still_mixed(memory_files.memory_of(header))
    sure(f"{lesson} will be removed from {file}, for good.", yes)
    logs = logs_here(lesson.id, activation_log.ActivationLog(log, enabled=False))
    memory_files.forget(file, lesson.id)
    trace = Trace.of_lesson(lesson, said_with(lesson.id))
    removed = sum(log.purge(trace) for log in logs)
    try:
        said = purge(trace) + JsonHistory(history_path()).purge(trace)
    except OSError as error:
        raise StateError(f"forgotten in {file}, but a transcript still mentions it: {error}") from error
    left = memory_files.still_holding(trace)
    if as_json:
        found = {"forgotten": lesson.to_dict(), "log_records": removed, "transcript_records": said}
        still_in = dict.fromkeys(str(path) for paths in left.values() for path in paths)
        out_json(found | {"still_in": list(still_in), "still_mixed": mixed})
    else:
        say(f"forgotten: {lesson}; {removed} log records and {said} transcript lines went with it")
        for line in (*(memory_files.still_there(paths, one) for one, paths in left.items()), *mixed):
            say(line)
        if trace.value:
            say(f'other turns may say "{trace.value}"; {everywhere_hint(trace)}')


@app.command()
@configured("model", "memory", "files")
def undo(
    config: Config,
    count: Annotated[int, Argument(min=1, help="how many changes")] = 1,
    as_json: Json = False,
) -> None:
    """Take back the last changes to the standing memory, or to the file of --mm-path; there may be some of days ago."""
    from lmm.files import journal
    from lmm.lesson import without
    from lmm.text.counted import counted

    file = _standing(config)
    before = journal.read_header(file).lessons
    done = journal.take_back(file, count)
    now = journal.read_header(file).lessons
    gone, back = without(before, now), without(now, before)
    if as_json:
        out_json({"path": str(file), "undone": len(done), "gone": [x.to_dict() for x in gone],
                  "back": [x.to_dict() for x in back], "lessons": len(now)})  # fmt: skip
        return
    for line in [f"- {x}" for x in gone] + [f"+ {x}" for x in back]:
        out(line)
    say(f"{len(done)} undone; {counted(len(now), 'lesson')} known" if done else "nothing to undo")


@app.command()
@configured("model", "memory", "files")
def migrate(
    config: Config,
    file: File,
    memory: Annotated[str | None, Option(help="teach to another memory; default: that of the file")] = None,
    without: Annotated[str | None, Option(help="leave one lesson out: its number or id, or text of it")] = None,
    as_json: Json = False,
) -> None:
    """Teach the lessons of a file again: to another model, another memory, or on top of another file. The options
    are those that the file, or the one below, was made with, where none are given."""
    from lmm.engine import memory_files, runtime
    from lmm.files import journal

    header = journal.read_header(file)
    if without is not None:
        header.lessons.remove(_one(header.lessons, without, file))
    if not header.lessons:
        raise UsageError(f"{file} has no lessons in text to teach again")
    config = dataclasses.replace(config, memory=memory or header.module, fresh=True)
    if config.preset is None and config.mm_load_path is None:
        config = runtime.made_as(header, config)

    def progress(number: int, lesson: Lesson, problem: str) -> None:
        say(f"{number}/{len(header.lessons)} {lesson}{': ' + problem if problem else ''}")

    with opened(config) as mind:
        learned, failed = memory_files.reteach(mind, header.lessons, progress)
        path = saved(config, mind)
    if as_json:
        problems = [{"lesson": x.to_dict(), "error": problem} for x, problem in failed]
        out_json({"path": str(path), "learned": [x.to_dict() for x in learned], "failed": problems})
    else:
        out(str(path))
    if failed:
        raise typer.Exit(1)


@app.command()
@configured("model", "memory", "files")
def check(
    config: Config,
    file: OrStanding = None,
    fix: Annotated[
        bool, Option("--fix", help="teach lessons that fail again, and save the file if that helped")
    ] = False,
    as_json: Json = False,
) -> None:
    """Ask for every lesson of a file, in its own and two other wordings. Exit code 1 if one fails in the end."""
    from lmm.engine import check as checking
    from lmm.files import journal

    file = file or _standing(config)
    with journal.alone(file):  # all of it is in the file itself then
        header = journal.read_header(file)
    if not header.lessons:
        raise UsageError(f"{file} has no lessons in text to ask for")
    options = {**header.options, **config.options}
    config = dataclasses.replace(config, memory=header.module, preset=None, options=options, mm_load_path=str(file))
    with opened(config) as mind:
        report = checking.check_and_fix(mind, fix, say)
        if report.better:
            mind.save(file)
    if as_json:
        out_json({"path": str(file), "saved": report.better, **report.to_dict()})
    else:
        _show_check(file, report)
    if checking.failing(report.now):
        raise typer.Exit(1)


def _show_check(file: Path, report: Report) -> None:
    from lmm.engine import check as checking

    for line in checking.lines(report.before, "before" if report.after is not None else "checked"):
        out(line)
    if report.after is not None:
        for line in checking.lines(report.after, "after"):
            out(line)
        say(f"saved to {file}" if report.better else f"that was no better: {file} is as it was")
    for lesson_id, problem in report.problems.items():
        say(f"{lesson_id} could not be learned: {problem}")


# parts -------------------------------------------------------------------------------------------------------------
def _files(places: list[Path]) -> list[Path]:
    found: list[Path] = []
    for place in places:
        found += sorted(place.glob("*.safetensors")) if place.is_dir() else [place]
    return found


def _listed(path: Path) -> dict[str, Any]:
    from lmm.files import journal

    try:
        header = journal.read_header(path)
    except StateError as error:
        return {"path": str(path), "error": str(error)}
    return {
        "path": str(path),
        "module": header.module,
        "lessons": len(header.lessons),
        "model_id": header.model_id,
        "saved_at": header.saved_at,
        "bytes": path.stat().st_size,
    }


def _standing(config: Config | None = None) -> Path:
    """What a chat of this configuration, or one without flags, starts from. Raises UsageError."""
    from lmm.config import load
    from lmm.files import standing

    config = config or load({})
    file = Path(config.mm_load_path) if config.mm_load_path else standing.file_of(config)
    if file is None or not file.exists():
        raise UsageError(f"there is no standing memory {file or ''}; name a file, see: lmm memory list")
    return file


def _one(lessons: list[Lesson], what: str, file: Path) -> Lesson:
    from lmm.chat.commands_memory import found

    said = found(tuple(lessons), what)
    hits = [x for number, x in enumerate(lessons, 1) if str(number) == what or x in said]
    if len(hits) != 1:
        names = "; ".join(f"{x.id}: {x}" for x in hits[:10])
        raise UsageError(
            f"{what!r} means {len(hits)} lessons of {file}"
            + (f", name one by its id: {names}" if hits else "; see: lmm memory show")
        )
    return hits[0]
