"""What a run is asked to do: flags, over the environment (LMM_*), over the config file, over defaults.

The config file is TOML, `config.toml` in the user's configuration folder (`lmm doctor` names it; LMM_CONFIG overrides).
Unknown keys are errors: a misspelt setting must not be silently ignored.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

from lmm.errors import UnknownNameError, UsageError

DTYPES = ("auto", "float32", "bfloat16", "float16")
TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


@dataclass(frozen=True)
class Config:
    """Everything `lmm chat` can be told. Paths are as given; `None` means: decide when needed."""

    backend: str = "auto"
    model: str = "smollm2-135m-instruct"
    revision: str | None = None
    local_files_only: bool = False
    layers_path: str | None = None
    dtype: str = "auto"
    memory: str = "keyed"
    preset: str | None = None
    layer: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    mm_load_path: str | None = None
    mm_save_path: str | None = None
    system: str = ""
    deterministic: bool = True
    decoding_strategy: str = "auto"
    max_tokens: int = 256
    temperature: float = 0.7
    top_p: float = 0.95
    min_p: float = 0.0
    seed: int = 0
    log: bool = True
    activation_log_path: str = "logs/memory_activations.jsonl"
    learn: str = "auto"
    markdown: bool = True

    def __post_init__(self) -> None:
        if self.learn not in ("auto", "ask", "off"):
            raise UsageError(f"--learn must be auto, ask or off, not {self.learn!r}")
        if self.dtype not in DTYPES:
            raise UnknownNameError("dtype", self.dtype, DTYPES)
        if self.seed < 0:
            raise UsageError(f"--seed must be 0 or above, not {self.seed}")


def config_path() -> Path:
    import platformdirs

    return Path(os.environ.get("LMM_CONFIG") or Path(platformdirs.user_config_dir("lmm")) / "config.toml")


def load(flags: Mapping[str, Any]) -> Config:
    """The configuration of a run; `flags` that are None were not given.

    Raises UsageError for unknown keys and values of the wrong type, naming where they stand.
    """
    values: dict[str, Any] = {}
    path = config_path()
    if path.exists():
        values |= _checked(_toml(path), str(path))
    values |= _checked(_environment(), "the environment")
    values |= {key: value for key, value in flags.items() if value is not None}
    return Config(**values)


def coerce(key: str, text: str) -> Any:
    """What a user typed for one setting, in the setting's type. Raises UsageError."""
    return _checked({key: text}, "/set")[key]


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the config file {path} cannot be read: {error}") from error


def _environment() -> dict[str, Any]:
    """LMM_MODEL=... and so on. Other LMM_ variables (where lmm keeps things, tests) are read where they are used, but
    one that is nearly a setting is a mistake. Raises UsageError."""
    names = [f.name for f in dataclasses.fields(Config) if f.name != "options"]
    found = {key[4:].lower(): value for key, value in os.environ.items() if key.startswith("LMM_")}
    for key in found:
        close = difflib.get_close_matches(key, names, n=1, cutoff=0.8)
        if key not in names and close:
            meant = close[0].upper()
            raise UsageError(f"unknown setting LMM_{key.upper()} in the environment: did you mean LMM_{meant}?")
    return {key: value for key, value in found.items() if key in names}


def _checked(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    hints = get_type_hints(Config)
    out = {}
    for key, value in values.items():
        if key not in hints:
            raise UsageError(f"{where}: {UnknownNameError('setting', key, hints)}")
        out[key] = _convert(value, hints[key], f"{where}: {key}")
    return out


def _convert(value: Any, hint: Any, where: str) -> Any:
    kinds = [k for k in get_args(hint) if k is not type(None)] if isinstance(hint, UnionType) else [hint]
    kind = kinds[0]
    if kind is bool and isinstance(value, str):
        if value.lower() in TRUE + FALSE:
            return value.lower() in TRUE
    elif kind in (int, float, str) and isinstance(value, int | float | str) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            if kind is not int or not isinstance(value, float):  # 2.5 tokens are a mistake, not 2
                return kind(value)
    elif kind is bool and isinstance(value, bool):
        return value
    elif kind not in (int, float, str, bool) and isinstance(value, Mapping):
        return dict(value)
    raise UsageError(f"{where} must be {getattr(kind, '__name__', kind)}, not {value!r}")


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """`["lr=0.01", "steps=3"]` -> {"lr": 0.01, "steps": 3}. Raises UsageError for a pair without `=`."""
    values: dict[str, Any] = {}
    for pair in pairs:
        key, sign, text = pair.partition("=")
        if not sign or not key:
            raise UsageError(f"--set takes name=value, not {pair!r}")
        values[key.strip()] = _literal(text.strip())
    return values


def _literal(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return text
