"""What commands share: settings as their options, made of the declarations, and output. Imports nothing heavy."""

from __future__ import annotations

import functools
import inspect
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from lmm import config
from lmm.config import Config
from lmm.errors import UsageError
from lmm.options import Options
from lmm.text.utf8 import keep_bytes, whole

Option = typer.Option
SILENCE = 1.0  # seconds after which a pipe is not waited for
_KEYWORD = inspect.Parameter.KEYWORD_ONLY
Json = Annotated[bool, Option("--json", help="print one JSON object on stdout")]
Yes = Annotated[bool, Option("--yes", "-y", help="do not ask before something is destroyed")]


def completed(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """What the shell offers for an option that takes a name, or several joined by "+" or ","."""

    def found(incomplete: str) -> list[str]:
        given, joint, part = re.fullmatch(r"(?:(.*)([+,]))?([^+,]*)", incomplete, re.S).groups("")  # type: ignore[union-attr]
        return [f"{given}{joint}{name}" for name in names() if name.startswith(part)]

    return found


memory_names = completed(Config.declared()["memory"].names)


def configured(*groups: str, made: Callable[[dict[str, Any]], Any] = config.load) -> Callable[..., Any]:
    """A command that takes the settings of these groups as options instead of its first parameter, a `Config`, which is
    `made` of those that were given. The same for each parameter that is another kind of `Options`, also the first. All
    problems are named at once."""

    def wrap(command: Callable[..., Any]) -> Callable[..., Any]:
        hints = get_type_hints(command, include_extras=True, localns={"Config": object})
        takes = inspect.signature(command).parameters
        kinds = {
            name: hints[name] for name in takes if inspect.isclass(hints[name]) and issubclass(hints[name], Options)
        }
        first = next(iter(takes))
        own = [
            p.replace(annotation=hints[name], kind=p.KEYWORD_ONLY)
            for name, p in takes.items()
            if name not in (first, *kinds)
        ]
        shared = [p for group in groups for p in _settings(group)]
        others = [_parameter(kind, name) for kind in kinds.values() for name in kind.declared()]
        parameters = list({p.name: p for p in [*own, *others, *shared, *own]}.values())

        def run(**given: Any) -> Any:
            mine = {p.name: given.pop(p.name) for p in own}
            flags = {key: value for key, value in given.items() if value is not None}
            wanted = {name: (set(kind.declared()), kind.of) for name, kind in kinds.items()}
            if first not in kinds:
                wanted[first] = {p.name for p in shared}, lambda given: made(_read(given))
            problems = []
            for name, (keys, build) in wanted.items():
                try:
                    mine[name] = build({key: value for key, value in flags.items() if key in keys})
                except UsageError as error:
                    problems.append(str(error))
            if problems:
                raise UsageError("; ".join(problems))
            return command(**mine)

        functools.update_wrapper(run, command, assigned=("__name__", "__doc__", "__module__"), updated=())
        del run.__wrapped__  # type: ignore[attr-defined]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return wrap


def _settings(group: str) -> Iterator[inspect.Parameter]:
    """The settings of a group as a command's parameters; with files, `--mm-path` for both of them."""
    declared = Config.declared()
    yield from (_parameter(Config, name) for name in declared if declared[name].group == group)
    if group == "files":
        about = Option("--mm-path", help="where to start from and where to save")
        yield inspect.Parameter("mm_path", _KEYWORD, default=None, annotation=Annotated[str | None, about])
    if group == "memory":
        about = Option("--config", help="a YAML file that says so for lm2 and external (docs/external.md)")
        yield inspect.Parameter("yaml_config", _KEYWORD, default=None, annotation=Annotated[str | None, about])


def _parameter(kind: type[Options], name: str) -> inspect.Parameter:
    """A declared option as a command's parameter; None where it is not given."""
    declared, plain = kind.declared()[name], name.replace("_", "-")
    flag = declared.flag or (f"--{plain}/--no-{plain}" if kind.kinds()[name] is bool else f"--{plain}")
    value = getattr(kind(), name)
    several = kind.kinds()[name] in (tuple, frozenset)
    shown = flag.split("/")[0].strip("-") if value is True else ",".join(map(str, value)) if several else str(value)
    told = value or type(value) in (int, float)  # nothing is to be said of "off" and of no text
    help = declared.help + (f"  [default: {shown}]" if told else "")
    about = Option(flag, help=help, autocompletion=completed(declared.names))
    hint: Any = list[str] if kind.kinds()[name] is Mapping else str if several else kind.kinds()[name]
    return inspect.Parameter(name, _KEYWORD, default=None, annotation=Annotated[hint | None, about])


def _read(flags: dict[str, Any]) -> dict[str, Any]:
    """Flags as settings."""
    if both := flags.pop("mm_path", None):
        flags = {"mm_load_path": both, "mm_save_path": both} | flags
    if "options" in flags:
        flags["options"] = config.parse_settings(flags["options"])
    if path := flags.pop("yaml_config", None):
        from lmm.cli import yaml_config

        said = yaml_config.settings(Path(path))
        flags = said | flags | {"options": said["options"] | flags.get("options", {})}
    return flags


# output ------------------------------------------------------------------------------------------------------------
def say(text: str) -> None:
    """A line beside the answer: stderr, clean, wrapped at words on a terminal."""
    from lmm.text.sanitize import clean

    beside(f"lmm: {clean(text)}")


def beside(text: str) -> None:
    """Clean text on stderr, wrapped at words on a terminal."""
    from lmm.text.wrapped import wrapped

    if sys.stderr.isatty():
        text = wrapped(text, shutil.get_terminal_size().columns)
    print(text, file=sys.stderr, flush=True)


def out(text: str) -> None:
    """The answer: stdout, clean."""
    from lmm.text.sanitize import clean

    print(clean(text), flush=True)


def out_json(value: Any) -> None:
    """One JSON object on stdout, ASCII only: nothing in it can steer a terminal."""
    print(json.dumps(value, indent=2, default=str), flush=True)


def out_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on a terminal; elsewhere lines with tabs between clean fields, whole and easy to cut."""
    if not rows:
        return
    if sys.stdout.isatty():
        from lmm.chat.render import make_console
        from lmm.chat.tables import table

        make_console().print(table(headers, rows))
        return
    from lmm.text.sanitize import clean_line

    for row in [headers, *rows] if any(headers) else rows:
        print("\t".join(clean_line(value, None) for value in row))


def piped(wait: bool = True) -> str:
    """What is piped into stdin; "" at a terminal or when there is none. Raises UsageError for what is no text.

    Without `wait`, a pipe that says nothing for a second is left alone: a script or cron hands down its own.
    """
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        return ""
    if not wait and not _speaks(SILENCE):
        return ""
    keep_bytes(sys.stdin)
    return whole(sys.stdin.read(), "stdin")


def given_or_piped(texts: Sequence[str] | None) -> list[str]:
    """The arguments, or each line of stdin where there is none, or "-" alone."""
    return list(texts) if texts and list(texts) != ["-"] else [line for line in piped().splitlines() if line.strip()]


def _speaks(seconds: float) -> bool:
    """Whether stdin has something to read by then, or has ended."""
    import select

    try:
        return bool(select.select([sys.stdin.fileno()], [], [], seconds)[0])
    except (OSError, ValueError):  # no file of the system's
        return True


def sure(question: str, yes: bool) -> None:
    """Go on only if the user agrees. Raises UsageError without --yes where nobody can be asked, and Abort."""
    from lmm.text.sanitize import clean

    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{clean(question)} Say so with --yes")
    typer.confirm(clean(question), abort=True, err=True)
