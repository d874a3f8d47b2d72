"""What commands share: settings as their options, made of the declarations, and output. Imports nothing heavy."""

from __future__ import annotations

import functools
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, get_type_hints

import typer

from lmm import config

Option = typer.Option
Json = Annotated[bool, Option("--json", help="print one JSON object on stdout")]
Yes = Annotated[bool, Option("--yes", "-y", help="do not ask before something is destroyed")]


def completed(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """What the shell offers for an option that takes a name, or several joined by "+" or ","."""

    def found(incomplete: str) -> list[str]:
        given, joint, part = re.fullmatch(r"(?:(.*)([+,]))?([^+,]*)", incomplete, re.S).groups("")  # type: ignore[union-attr]
        return [f"{given}{joint}{name}" for name in names() if name.startswith(part)]

    return found


memory_names = completed(config.Config.declared()["memory"].names)


def configured(*groups: str, made: Callable[[dict[str, Any]], Any] = config.load) -> Callable[..., Any]:
    """A command whose first parameter is a `Config`: it takes the settings of these groups as options instead, and
    gets what is `made` of those that were given."""

    def wrap(command: Callable[..., Any]) -> Callable[..., Any]:
        hints = get_type_hints(command, include_extras=True, localns={"Config": object})
        own = list(inspect.signature(command).parameters.values())[1:]
        own = [p.replace(annotation=hints[p.name], kind=p.KEYWORD_ONLY) for p in own]
        shared = [p for group in groups for p in _parameters(group) if p.name not in {p.name for p in own}]

        def run(**given: Any) -> Any:
            mine = {p.name: given.pop(p.name) for p in own}
            return command(made(_flags(given)), **mine)

        functools.update_wrapper(run, command, assigned=("__name__", "__doc__", "__module__"), updated=())
        del run.__wrapped__  # type: ignore[attr-defined]
        run.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in [*own, *shared]}
        return run

    return wrap


def _parameters(group: str) -> Iterator[inspect.Parameter]:
    """The settings of a group as a command's parameters; with files, `--mm-path` for both of them."""
    kinds = config.Config.kinds()
    for name, declared in config.Config.declared().items():
        if declared.group == group:
            kind = kinds[name] if name != "options" else list[str]
            about = {"help": declared.help, "show_default": _shown_default(name)}
            yield _parameter(name, kind, flag(name), autocompletion=completed(declared.names), **about)
    if group == "files":
        yield _parameter("mm_path", str, "--mm-path", help="where to start from and where to save")


def _parameter(name: str, kind: Any, flag: str, **about: Any) -> inspect.Parameter:
    annotation = Annotated[kind | None, Option(flag, **about)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def flag(name: str) -> str:
    """How a setting is spelt on the command line."""
    plain = name.replace("_", "-")
    both = f"--{plain}/--no-{plain}" if config.Config.kinds()[name] is bool else f"--{plain}"
    return config.Config.declared()[name].flag or both


def _shown_default(name: str) -> str | bool:
    """What help says of a default, if there is anything to say."""
    value = getattr(config.Config(), name)
    if isinstance(value, bool):
        return flag(name).split("/")[not value].strip("-")
    return str(value) if value or value == 0 else False


def _flags(given: dict[str, Any]) -> dict[str, Any]:
    """The settings among a command's options."""
    flags = {key: value for key, value in given.items() if value is not None}
    if both := flags.pop("mm_path", None):
        flags = {"mm_load_path": both, "mm_save_path": both} | flags
    if "options" in flags:
        flags["options"] = config.parse_settings(flags["options"])
    return flags


# output ------------------------------------------------------------------------------------------------------------
def say(text: str) -> None:
    """A line beside the answer: stderr, clean."""
    from lmm.text.sanitize import clean

    print(f"lmm: {clean(text)}", file=sys.stderr, flush=True)


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
        from lmm.chat.render import make_console, table

        make_console().print(table(headers, rows))
        return
    from lmm.text.sanitize import clean_line

    for row in [headers, *rows] if any(headers) else rows:
        print("\t".join(clean_line(value, None) for value in row))


def piped() -> str:
    """What is piped into stdin; "" at a terminal or when there is none."""
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        return ""
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")
    return sys.stdin.read()


def sure(question: str, yes: bool) -> None:
    """Go on only if the user agrees. Raises UsageError without --yes where nobody can be asked, and Abort."""
    from lmm.errors import UsageError
    from lmm.text.sanitize import clean

    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{clean(question)} Say so with --yes")
    typer.confirm(clean(question), abort=True, err=True)
