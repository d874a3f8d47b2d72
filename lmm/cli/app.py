"""The `lmm` command: one thin function per command. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmm.cli import ask as cli_ask
from lmm.cli import config_file as cli_config
from lmm.cli import data as cli_data
from lmm.cli import encode as cli_encode
from lmm.cli import log as cli_log
from lmm.cli import memory as cli_memory
from lmm.cli import recall as cli_recall
from lmm.cli import serve as cli_serve
from lmm.cli import store as cli_store
from lmm.cli import train as cli_train
from lmm.cli.bench import app as bench_app
from lmm.cli.options import Json, beside, configured, out_json, out_table, say
from lmm.config import GROUPS
from lmm.errors import LmmError, UsageError
from lmm.options import by_commas

if TYPE_CHECKING:
    from lmm.config import Config

app = typer.Typer(
    name="lmm",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(bench_app)
app.add_typer(cli_memory.app)
app.add_typer(cli_recall.app)
app.add_typer(cli_store.app)
app.add_typer(cli_log.app)
app.add_typer(cli_data.app)
app.add_typer(cli_config.app)

Option = typer.Option


def _version(wanted: bool) -> None:
    if wanted:
        import lmm

        print(f"lmm {lmm.__version__}")
        raise typer.Exit


@app.callback()
def lmm(
    version: Annotated[bool, Option("--version", callback=_version, is_eager=True, help="say which lmm it is")] = False,
) -> None:
    """Chat with a local language model that learns from what you tell it."""


#: what typer raises for a command line that is wrong; it has no public name there
_Misused: Any = typer.BadParameter.__bases__[0].__bases__[0]


def main() -> None:
    """Run the command line: errors become a line or two on stderr and an exit code."""
    sys.argv[1:] = map(_with_clean_name, sys.argv[1:])
    try:
        sys.exit(app(standalone_mode=False))
    except LmmError as error:
        fail(error)
    except _Misused as error:
        _explain(error)
        sys.exit(error.exit_code)
    except typer.Abort:
        print("Aborted!", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _explain(error: Any) -> None:
    """How a command is used, and what was wrong; at words, which typer leaves to the terminal to break."""
    import io

    shown = io.StringIO()
    error.show(file=shown)
    beside(shown.getvalue().rstrip("\n"))


def _with_clean_name(argument: str) -> str:
    """An option's name as it may be shown: an error repeats it."""
    from lmm.text.sanitize import clean_line

    name, equals, value = argument.partition("=")
    return f"{clean_line(name, None)}{equals}{value}" if argument.startswith("--") else argument


def fail(error: LmmError) -> None:
    say(str(error))
    sys.exit(error.exit_code)


@app.command()
@configured(*GROUPS)
def chat(
    config: Config,
    resume: Annotated[str | None, Option(help="go on with an earlier session; see `lmm sessions`")] = None,
    go_on: Annotated[bool, Option("--continue", help="go on with the last session")] = False,
    server: Annotated[str | None, Option(help="URL of an `lmm serve`, which then has the model and the memory")] = None,
) -> None:
    """Talk to a model that learns. Without a terminal: answer each line of stdin on stdout."""
    if server is not None:
        from lmm.chat.remote import run as talk

        if resume is not None or go_on:
            raise UsageError("a chat with a server is kept nowhere, so there is none to go on with")
        talk(config, server)
        return
    from lmm.chat.app import run

    run(config, resume=resume or ("" if go_on else None))


app.command()(cli_ask.ask)
app.command()(cli_ask.teach)
app.command()(cli_ask.correct)
app.command()(cli_encode.encode)
app.command()(cli_log.sessions)
app.command()(cli_serve.serve)
app.command()(cli_train.train)


@app.command()
@configured("model", "memory", "files")
def doctor(config: Config, as_json: Json = False) -> None:
    """Say what backend, device, model and cache there are, and what to do about what is missing."""
    import dataclasses

    from lmm.cli.doctor import BAD, examine

    found = examine(config)
    if as_json:
        out_json([dataclasses.asdict(finding) for finding in found])
    else:
        out_table(("", "", "found", "what to do"), [(f.topic, f.status, f.found, f.advice) for f in found])
    if any(finding.status == BAD for finding in found):
        raise typer.Exit(1)


@app.command()
def models(as_json: Json = False) -> None:
    """List the models on this machine, with what was learned with each; `--model` takes their names."""
    import dataclasses

    from lmm.adapters.models import found

    known = found.models()
    if as_json:
        out_json([{**dataclasses.asdict(model), "memory": model.memory} for model in known])
        return
    out_table(found.HEADERS, [model.row for model in known if not model.problem])
    for model in known:
        if model.problem:
            say(f"{model.name} cannot be used: {model.problem}")


@app.command()
def memories() -> None:
    """List the memories, one line each."""
    from lmm import registry

    names = registry.table("lmm.memories")
    out_table(("", ""), [(name, registry.memory_class(name).summary) for name in names])


@app.command()
@configured("model", "memory")
def smoke(
    config: Config,
    protocol: Annotated[str, Option(help="separate: a fresh memory for each name; shared: one for all")] = "separate",
    names: Annotated[str | None, Option(help="names to teach, separated by commas, or how many")] = None,
    facts: Annotated[str | None, Option(help='JSON lines {"statement", "question", "answer"} to teach instead')] = None,
    require: Annotated[float, Option(help="share of facts to be recalled for exit code 0")] = 0.8,
    allow_damage: Annotated[float, Option(help="share of unrelated answers that may differ for exit code 0")] = 0.2,
    as_json: Json = False,
) -> None:
    """Teach facts in one process, ask for them in another, and see what else changed."""
    from lmm.bench import smoke as test

    chosen = by_commas(names) if names else test.NAMES
    what = test.facts_of(protocol, chosen, facts)
    raise typer.Exit(test.command(config, protocol, what, as_json, require, allow_damage))
