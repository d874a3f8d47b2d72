"""`lmm config`: what is set and where, a sample of the config file, and changing one key of it."""

from __future__ import annotations

import contextlib
import json
import re
import tomllib
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from lmm import config
from lmm.cli.options import Json, configured, out, out_json, out_table, say
from lmm.config import GROUPS, Config
from lmm.errors import UnknownNameError, UsageError

app = typer.Typer(name="config", invoke_without_command=True)

_HEAD = """\
# The settings of lmm. Each line that begins with "#" and a key is a default: take the "#" away to change it.
# Flags go over LMM_* variables (LMM_MAX_TOKENS=64), these over this file, and this file over the defaults.
"""


@app.callback()
def bare(context: typer.Context) -> None:
    """What is set, and the config file. Alone: every key with its value and where that comes from."""
    if context.invoked_subcommand is None:
        show(as_json=False)


@app.command()
def path() -> None:
    """Where the config file is, or would be."""
    out(str(config.config_path()))


@app.command("sample")
def print_sample() -> None:
    """A config file with every key, its default and what it is for."""
    out(sample().rstrip("\n"))


@app.command()
@configured(*GROUPS, made=config.given)
def show(given: dict[str, tuple[Any, str]], as_json: Json = False) -> None:
    """Every key with its value and where that comes from: a flag, the environment, the file, or the default."""
    plain = Config(**{key: value for key, (value, _) in given.items()})
    found = {
        key: (getattr(plain, key), given[key][1] if key in given else "default")
        for _, keys in config.in_groups()
        for key in keys
    }
    if as_json:
        out_json({key: {"value": value, "from": place} for key, (value, place) in found.items()})
    else:
        out_table(("key", "value", "from"), [(key, _shown(value), place) for key, (value, place) in found.items()])


@app.command("set")
def set_(
    key: Annotated[str, typer.Argument(help="as `lmm config show` names it; options.NAME for one of the memory's")],
    value: Annotated[str, typer.Argument(help="its value")],
) -> None:
    """Write one key into the config file; all other lines stay as they are."""
    from lmm.files.atomic import write_atomically

    path = config.config_path()
    config.read_file(path)
    new = changed(path.read_bytes().decode() if path.exists() else "", key, value)
    _check(key, Config.of(tomllib.loads(new)))
    try:
        write_atomically(path, [new.encode()])
    except OSError as error:
        raise UsageError(f"the config file {path} cannot be written: {error.strerror or error}") from error
    say(f"{key} = {value} in {path}")


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_shown(one)}" for name, one in value.items())
    return value if isinstance(value, str) else _toml(value)


def sample() -> str:
    """A config file in which every key stands with its default, switched off."""
    declared = Config.declared()
    parts = [_HEAD]
    for about, keys in config.in_file():
        parts.append(f"\n# {about}\n")
        for key in keys:
            if key != "options":
                parts.append(f"# {declared[key].help}\n#{key} = {_toml(getattr(Config(), key))}".rstrip() + "\n")
    return "".join(parts) + "\n# Options of the memory, e.g. those that `lmm memory show FILE` names\n#[options]\n"


def changed(text: str, key: str, value: str) -> str:
    """A config file's text with one key set, all other lines as they were. Raises UsageError."""
    before, name = tomllib.loads(text), key.removeprefix("options.")
    expected: dict[str, Any]
    if name != key:
        literal = config.parse_settings([f"{name}={value}"])[name]
        expected = before | {"options": before.get("options", {}) | {name: literal}}
    elif key == "options":
        raise UsageError("options are set one by one, e.g. options.steps")
    elif key in Config.declared() and Config.declared()[key].flag_only:
        raise UsageError(f"{key} can only be a flag")
    else:
        literal = config.coerce(key, value)
        expected = before | {key: literal}
    new = _with_line(text, name, _toml(literal), in_options=name != key)
    try:
        if tomllib.loads(new) == expected:
            return new
    except tomllib.TOMLDecodeError:
        pass
    raise UsageError(f"{key} is written there in a way that only a person can change: open {config.config_path()}")


def _with_line(text: str, name: str, value: str, in_options: bool) -> str:
    """The line of `name` replaced, with the comment at its end; else a new one, below its default if that is there."""
    lines = text.split("\n")
    heads = [i for i, line in enumerate(lines) if line.lstrip().startswith("[")]
    begin, end = 0, heads[0] if heads else len(lines)
    if in_options:
        table = next((i for i in heads if re.match(r"\s*\[\s*options\s*\]", lines[i])), None)
        if table is None:
            return text.rstrip("\n") + "\n" * (2 if text.strip() else 0) + f"[options]\n{_key(name)} = {value}\n"
        begin, end = table + 1, next((i for i in heads if i > table), len(lines))
    written = f"{_key(name)} = {value}"
    for i in range(begin, end):
        if re.match(rf"\s*{re.escape(_key(name))}\s*=", lines[i]):
            return "\n".join([*lines[:i], written + _comment(lines[i]), *lines[i + 1 :]])
    default = [i for i in range(begin, end) if re.match(rf"\s*#\s?{re.escape(_key(name))}\s*=", lines[i])]
    last = max([begin, *(i + 1 for i in range(begin, end) if lines[i].strip())])
    at = default[0] + 1 if default else last
    return "\n".join([*lines[:at], written, *lines[at:]])


def _comment(line: str) -> str:
    """The comment at the end of a line that sets a key."""
    for found in re.finditer(r"\s*#", line):
        with contextlib.suppress(tomllib.TOMLDecodeError):
            tomllib.loads(line[: found.start()])
            return line[found.start() :]
    return ""


def _key(name: str) -> str:
    return name if re.fullmatch(r"[\w-]+", name, re.A) else json.dumps(name)


def _toml(value: Any) -> str:
    """A value as TOML writes it; nothing for one that is not set."""
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)  # a JSON text is a TOML text
    return "" if value is None else repr(value)


def _check(key: str, made: Config) -> None:
    """What a declaration does not know: the backends there are, and the memories with their options."""
    if key == "backend" and made.backend not in (known := Config.declared()[key].names()):
        raise UnknownNameError(key, made.backend, known)
    if key in ("memory", "preset") or key.startswith("options."):
        from lmm.engine import runtime

        runtime.build_memory(made)
