"""`lmm bench`: thin functions; nothing heavy is imported before a command runs."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmm.bench.settings import CompareSettings, EditSettings, LookupSettings, RunSettings
from lmm.cli.options import Json, configured, memory_names, out_json, out_table, say
from lmm.engine.training_settings import Pace, TrainingSettings
from lmm.options import by_commas

if TYPE_CHECKING:
    from lmm.config import Config

app = typer.Typer(
    name="bench",
    help="Measure memories: the editing benchmark, what is used of what was said, the look-up among many lessons.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Option = typer.Option


@app.command()
@configured("model")
def edit(
    config: Config,
    how: EditSettings,
    data: Annotated[list[Path], Option(help="file of edits; given several times, their records take turns")],
    memory: Annotated[
        str,
        Option(
            help="memories to compare, by commas, NAME=FILE to begin with a file; also none, in_context, "
            "in_context_floor, echo, fine_tune, peft_lora",
            autocompletion=memory_names,
        ),
    ],
    format: Annotated[
        str | None, Option(help="zsre, qaedit, counterfact, coverage, known or lmm; default: recognised")
    ] = None,
    known: Annotated[Path | None, Option(help="file of true facts whose replies must not change")] = None,
    text: Annotated[Path | None, Option(help="held text for perplexity, e.g. of wikitext2")] = None,
    out: Annotated[Path | None, Option(help="folder of the result; default: in artifacts/bench")] = None,
    resume: Annotated[bool, Option("--resume/--no-resume", help="go on with an interrupted run")] = True,
    preset: Annotated[list[str] | None, Option(help="a named set of options: [memory.]name")] = None,
    settings: Annotated[list[str] | None, Option("--set", help="an option: [memory.]name=value")] = None,
    ray: Annotated[str | None, Option(help="address of a Ray cluster; each memory gets a worker of it")] = None,
) -> None:
    """Teach N edits one after another, then ask everything by free decoding: the protocol of docs/benchmark.md."""
    from lmm.bench import run

    request = run.EditRequest(
        data=data,
        settings=dataclasses.replace(how, seed=config.seed),
        config=config,
        format=format,
        known=known,
        text=text,
        out=out,
        resume=resume,
        **_chosen(memory, preset, settings),
    )
    if ray is not None:
        result = run.run_spread(request, ray)
    else:
        with run.progress_bars() as track:
            result = run.run(request, track)
    _show(result["rows"], request.folder)


@app.command()
@configured("model")
def use(
    config: Config,
    how: RunSettings,
    data: Annotated[Path, Option(help="file of facts and questions, JSON lines")],
    memory: Annotated[
        str,
        Option(
            help="memories to compare, by commas, NAME=FILE to begin with a file; also none, in_context, "
            "in_context_floor, echo, system_prompt",
            autocompletion=memory_names,
        ),
    ],
    out: Annotated[Path | None, Option(help="folder of the result; default: in artifacts/use")] = None,
    resume: Annotated[bool, Option("--resume/--no-resume", help="go on with an interrupted run")] = True,
    preset: Annotated[list[str] | None, Option(help="a named set of options: [memory.]name")] = None,
    settings: Annotated[list[str] | None, Option("--set", help="an option: [memory.]name=value")] = None,
    as_json: Json = False,
) -> None:
    """Tell facts in a chat, then ask for them, ask what needs them, and what only sounds alike: docs/notes.md."""
    from rich.console import Console

    from lmm.bench import report, run
    from lmm.bench import use as using

    request = using.UseRequest(
        data=data,
        config=config,
        settings=dataclasses.replace(how, seed=config.seed),
        out=out,
        resume=resume,
        **_chosen(memory, preset, settings),
    )
    with run.progress_bars() as track:
        result = using.run(request, track)
    if as_json:
        out_json(result["rows"])
        return
    Console().print(report.terminal_table(result["rows"], using.COLUMNS, using.SHOWN))
    print(f"{request.folder / 'result.json'} and table.md beside it")


@app.command()
def plot(
    results: Annotated[list[Path], typer.Argument(help="result.json files, or the folders they are in")],
    out: Annotated[Path, Option(help="the picture")] = Path("scores.png"),
) -> None:
    """One picture of several results of `lmm bench edit`."""
    from lmm.bench import report

    print(report.together([report.read(path) for path in results], out))


def _show(rows: list[dict[str, Any]], folder: Path) -> None:
    from rich.console import Console

    from lmm.bench.report import terminal_table

    Console().print(terminal_table(rows))
    print(f"{folder / 'result.json'}, table.md and plots beside it")


def _chosen(memory: str, preset: list[str] | None, settings: list[str] | None) -> dict[str, Any]:
    """What every run over several memories is asked: which, with which options, and in which words."""
    import shlex

    from lmm.bench import run

    memories = _names(memory)
    kinds = tuple(run.split_name(name)[0] for name in memories)
    presets = run.per_memory(preset or [], kinds, "--preset")
    return {
        "memories": memories,
        "options": run.parse_options(settings or [], kinds),
        "presets": {name: some[-1] for name, some in presets.items()},
        "command": shlex.join(["lmm", *sys.argv[1:]]),
    }


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(by_commas(text)))


@app.command()
@configured("model")
def compare(
    config: Config,
    how: CompareSettings,
    pace: Pace,
    data: Annotated[Path, Option(help="folder with train.jsonl and test.jsonl, e.g. of `lmm data exact-match`")],
    memory: Annotated[
        str,
        Option(
            help="memories to compare, by commas; a+b composes; none is always among them", autocompletion=memory_names
        ),
    ],
    known: Annotated[Path | None, Option(help="file of true facts whose replies must not change")] = None,
    out: Annotated[Path | None, Option(help="folder of the result; default: in artifacts/compare")] = None,
    resume: Annotated[bool, Option("--resume/--no-resume", help="go on with an interrupted run")] = True,
    preset: Annotated[list[str] | None, Option(help="a named set of options: [memory.]name")] = None,
    settings: Annotated[list[str] | None, Option("--set", help="an option: [memory.]name=value")] = None,
) -> None:
    """Teach exact-match examples to several memories: scores by category, after other talk, and time by length."""
    from rich.console import Console

    from lmm.bench import compare as comparing
    from lmm.bench import compare_report, run

    request = comparing.CompareRequest(
        data=data,
        config=config,
        known=known,
        out=out,
        resume=resume,
        training=TrainingSettings(**dataclasses.asdict(pace), seed=config.seed),
        **dataclasses.asdict(how),
        **_chosen(memory, preset, settings),
    )
    with run.progress_bars() as track:
        result = comparing.compare(request, track, notice=say)
    for table in compare_report.terminal_tables(result["rows"]):
        Console().print(table)
    print(f"{request.folder / 'result.json'}, table.md and plots beside it")


@app.command()
@configured()
def lookup(
    how: LookupSettings,
    reply_s: Annotated[float | None, Option(help="seconds of a reply, to say what share a look-up adds")] = None,
    as_json: Json = False,
) -> None:
    """Time looking a prompt up among many lessons, as `keyed` does, most of them with synthetic keys."""
    from lmm.bench.lookup import time_lookups

    timings = time_lookups(how)
    if as_json:
        out_json([timing.to_dict() for timing in timings])
        return
    headers = ["lessons", "ms, median", "p95", "of these the search", "a new lesson adds"]
    rows = [
        [f"{t.size:,}", *(f"{s * 1e3:.1f}" for s in (t.whole_s, t.whole_p95_s, t.search_s, t.added_s))] for t in timings
    ]
    if reply_s:
        headers.append("of a reply")
        rows = [[*row, f"{t.whole_s / reply_s:.2%}"] for row, t in zip(rows, timings, strict=True)]
    out_table(headers, rows)


@app.command()
def reader(
    data: Annotated[Path, Option(help="labelled turns, one JSON object a line: docs/reader.md")],
    as_json: Json = False,
) -> None:
    """How well are user turns read? By language: the kind, whether anything was learned, the very value."""
    from lmm.bench.reader import by_language, labelled

    figures = by_language(labelled(data))
    if as_json:
        out_json(figures)
        return
    rates = ("learned", "precision"), ("learned", "recall"), ("strict", "precision"), ("strict", "recall")
    rows = [
        [language, str(f["turns"]), *(f"{x:.3f}" for x in (f["kind"], *(f[a][b] for a, b in rates))), f"{f['ms']:.1f}"]
        for language, f in figures.items()
    ]
    out_table(["language", "turns", "kind", *(" ".join(rate) for rate in rates), "ms a turn"], rows)
