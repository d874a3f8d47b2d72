"""The options that commands share, written once: `configured` turns them into a `Config`. Imports nothing heavy."""

from __future__ import annotations

import functools
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from lmm.config import Config

Option = typer.Option
Json = Annotated[bool, Option("--json", help="print one JSON object on stdout")]
Yes = Annotated[bool, Option("--yes", "-y", help="do not ask before something is destroyed")]


def completed(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """What the shell offers for an option that takes a name, or several joined by "+" or ","."""

    def found(incomplete: str) -> list[str]:
        given, joint, part = re.fullmatch(r"(?:(.*)([+,]))?([^+,]*)", incomplete, re.S).groups("")  # type: ignore[union-attr]
        return [f"{given}{joint}{name}" for name in names() if name.startswith(part)]

    return found


def _names(group: str) -> Iterable[str]:
    from lmm import registry

    return registry.table(group)


def _dtypes() -> Iterable[str]:
    from lmm.config import DTYPES

    return DTYPES


def _strategies() -> Iterable[str]:
    from lmm.adapters.sampling import STRATEGIES

    return STRATEGIES


memory_names = completed(lambda: _names("lmm.memories"))
backend_names = completed(lambda: ["auto", *_names("lmm.adapters")])
dtype_names = completed(_dtypes)
strategy_names = completed(_strategies)
learn_names = completed(lambda: ("auto", "ask", "off"))

_MODEL = {
    "backend": (str, Option(help="auto, torch or mlx_lm", autocompletion=backend_names)),
    "model": (str, Option(help="a packaged name, a folder, a .gguf file or a Hugging Face id")),
    "memory": (str, Option(help="which memory; see `lmm memories`; a+b composes", autocompletion=memory_names)),
    "mm_load_path": (str, Option(help="memory file to start from; skipped if it does not exist")),
    "mm_save_path": (str, Option(help="where to save; default artifacts/<memory>_<time>.safetensors")),
    "mm_path": (str, Option(help="both of the above")),
    "local_files_only": (bool, Option("--local-files-only", help="never use the network")),
    "activation_log_path": (str, Option(help="where the activation log goes")),
    "log": (bool, Option("--log/--no-log", help="write the activation log")),
    "seed": (int, Option(help="for sampling and fresh memories")),
    "layer": (int, Option(help="layer of the memory; default: the memory's own choice")),
    "layers_path": (str, Option(help="where an unknown model keeps its layers")),
    "revision": (str, Option(help="revision of a Hugging Face model")),
    "dtype": (str, Option(help="auto, float32, bfloat16 or float16", autocompletion=dtype_names)),
    "preset": (str, Option(help="a named set of the memory's options")),
    "settings": (list[str], Option("--set", help="an option of the memory, name=value")),
}
_REPLY = {
    "deterministic": (bool, Option("--deterministic/--non-deterministic", help="greedy or sampling")),
    "decoding_strategy": (str, Option(help="auto, greedy, beam or sample", autocompletion=strategy_names)),
    "system": (str, Option(help="system prompt")),
    "max_tokens": (int, Option(help="longest reply, in tokens")),
    "temperature": (float, Option(help="for sampling")),
    "top_p": (float, Option(help="for sampling")),
    "min_p": (float, Option(help="for sampling")),
}
_CHAT = {
    "learn": (str, Option(help="auto, ask (show each lesson first) or off", autocompletion=learn_names)),
    "markdown": (bool, Option("--markdown/--no-markdown", help="show replies as Markdown on a terminal")),
}


def configured(*, replies: bool = True, chat: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A command whose first parameter is a `Config`: it takes the shared options instead, and gets one made of them."""
    table = _MODEL | (_REPLY if replies else {}) | (_CHAT if chat else {})

    def wrap(command: Callable[..., Any]) -> Callable[..., Any]:
        hints = get_type_hints(command, include_extras=True, localns={"Config": object})
        own = list(inspect.signature(command).parameters.values())[1:]
        own = [p.replace(annotation=hints[p.name], kind=p.KEYWORD_ONLY) for p in own]
        shared = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
            )
            for name, (kind, option) in table.items()
            if name not in {p.name for p in own}
        ]

        def run(**given: Any) -> Any:
            mine = {p.name: given.pop(p.name) for p in own}
            return command(_config(given), **mine)

        functools.update_wrapper(run, command, assigned=("__name__", "__doc__", "__module__"), updated=())
        del run.__wrapped__  # type: ignore[attr-defined]
        run.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in [*own, *shared]}
        return run

    return wrap


def _config(given: dict[str, Any]) -> Config:
    from lmm import config

    both, settings = given.pop("mm_path", None), given.pop("settings", None)
    if both is not None:
        given["mm_load_path"] = given.get("mm_load_path") or both
        given["mm_save_path"] = given.get("mm_save_path") or both
    if settings:
        given["options"] = config.parse_settings(settings)
    return config.load(given)


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
