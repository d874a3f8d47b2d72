"""What a run is asked to do: flags, over the environment (LMM_*), over the config file, over defaults.

Each setting is declared once, in `Config`: flags and their help, LMM_* variables, the keys of the config file and of
`/set`, and the sample of `lmm config sample` are made from it. The config file is TOML, `config.toml` in the user's
configuration folder (`lmm config path` names it; LMM_CONFIG overrides). Unknown keys are errors: a misspelt setting
must not be silently ignored.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from lmm.errors import UsageError
from lmm.options import Options, option

DTYPES = ("auto", "float32", "bfloat16", "float16", "int8")
STRATEGIES = ("auto", "greedy", "beam", "sample")
GROUPS = {
    "model": "The model",
    "memory": "The memory",
    "files": "Files",
    "reply": "How replies are made",
    "chat": "In a chat",
}
#: Variables that are no settings, because they are read before the settings or without them.
VARIABLES = {
    "LMM_CONFIG": "the config file, instead of config.toml in the user's configuration folder",
    "LMM_CACHE_DIR": "folder of converted models, instead of lmm in the user's cache folder",
    "LMM_DATA_DIR": "folder of what was learned and said, instead of lmm in the user's data folder",
    "LMM_API_KEY": "key that `lmm serve` asks for, where no file of keys is named",
    "LMM_DEBUG": "set to anything: an internal error in a chat shows its traceback",
}


def _registered(group: str, *more: str) -> Callable[[], Iterable[str]]:
    def names() -> Iterable[str]:
        from lmm import registry

        return [*more, *registry.table(group)]

    return names


LONGEST = 1024  # tokens of a reply where nobody says how many: a small model may find no end

_reply = partial(option, group="reply", live=True)
_model = partial(option, group="model")
_memory = partial(option, group="memory")
_files = partial(option, group="files")
_chat = partial(option, group="chat", live=True)


@dataclass(frozen=True)
class Decoding(Options):
    """How a reply is decoded."""

    decoding_strategy: str = _reply("auto", "auto: greedy when deterministic, else sample", one_of=STRATEGIES)
    deterministic: bool = _reply(True, "greedy, or sampling", flag="--deterministic/--non-deterministic")
    max_tokens: int | None = _reply(
        None, f"longest reply, in tokens; default: {LONGEST}, and /more goes on", "[1, inf)"
    )
    stop_repeats: bool = _reply(True, "end a reply that repeats itself over and over")
    temperature: float = _reply(0.7, "for sampling", "(0, 10]")
    top_p: float = _reply(0.95, "for sampling: the likeliest tokens that have this share together", "(0, 1]")
    min_p: float = _reply(0.0, "for sampling: tokens with this share of the likeliest one's", "[0, 1)")
    beams: int = _reply(4, "replies that beam search goes on with", "[1, 64]")
    seed: int = _model(0, "for sampling and fresh memories", "[0, inf)", live=True)

    @property
    def resolved(self) -> str:
        if self.decoding_strategy == "auto":
            return "greedy" if self.deterministic else "sample"
        return self.decoding_strategy


@dataclass(frozen=True)
class Config(Decoding):
    """Everything `lmm chat` can be told. Paths are as given; `None` means: decide when needed."""

    called: ClassVar[str] = "setting"

    backend: str = _model(
        "auto",
        "torch, mlx_lm, llama_cpp, or auto: the best one for a chat (llama_cpp for a GGUF file, on a Linux processor)",
        names=_registered("lmm.adapters", "auto"),
    )
    model: str = _model(
        "smollm2-135m-instruct",
        "a packaged name, a folder, a .gguf file, ollama:NAME, a Hugging Face id or hf.co/ID:Q4_K_M",
    )
    revision: str | None = _model(None, "revision of a Hugging Face model")
    adapter: str | None = _model(None, "a PEFT LoRA adapter for the model: a folder")
    local_files_only: bool = _model(False, "never use the network")
    trust_remote_code: bool = _model(
        False, "run the Python code that comes with the model", flag="--trust-remote-code", flag_only=True
    )
    layers_path: str | None = _model(None, "where an unknown model keeps its layers")
    dtype: str = _model("auto", "number format of the weights; int8: while one reply is written", one_of=DTYPES)
    threads: int | None = _model(None, "threads of the processor; default: as many as are fastest here", "[1, 1024]")
    layer: int | None = _model(None, "layer of the memory; default: the memory's own choice", "[0, inf)")
    memory: str = _memory(
        "keyed+notes", "which memory; see `lmm memories`; a+b composes", names=_registered("lmm.memories")
    )
    preset: str | None = _memory(None, "a named set of the memory's options")
    options: Mapping[str, Any] = _memory(dict, "an option of the memory, name=value", flag="--set")
    fresh: bool = _files(False, "start empty, and add to no memory of yours; a copy is kept at the end", flag="--fresh")
    profile: str | None = _files(None, "whose standing memory: a name, as in work; default: the one without a name")
    mm_load_path: str | None = _files(None, "memory file to start from; skipped if it does not exist")
    mm_save_path: str | None = _files(None, "where to save; default: artifacts/<memory>_<time>.safetensors")
    log: bool = _files(True, "write the activation log")
    activation_log_path: str = _files("logs/memory_activations.jsonl", "where the activation log goes")
    log_mb: int = _files(50, "MB from which the activation log is begun anew, and the old one numbered", "[1, inf)")
    log_keep: int = _files(3, "numbered activation logs that are kept", "[0, 1000]")
    think: str = _reply(
        "show", "thoughts of a model that thinks: shown, left out, or not thought", one_of=("show", "hide", "off")
    )
    system: str = _reply("", "system prompt", live=False)
    learn: str = _chat("auto", "learn from what is said; ask shows each lesson first", one_of=("auto", "ask", "off"))
    markdown: bool = _chat(True, "show replies as Markdown on a terminal")

    @property
    def model_name(self) -> str:
        """The model's, and its adapter's."""
        return self.model if self.adapter is None else f"{self.model}+{Path(self.adapter).name}"

    @property
    def about(self) -> dict[str, Any]:
        """What a transcript says of the session it is of."""
        keys = ("model", "adapter", "memory", "backend", "system", "fresh", "profile", "mm_load_path", "mm_save_path")
        return {key: getattr(self, key) for key in keys}


def in_groups() -> list[tuple[str, list[str]]]:
    """The groups by what they are about -> the settings in each: the order in which they are shown."""
    declared = Config.declared()
    return [(about, [key for key in declared if declared[key].group == name]) for name, about in GROUPS.items()]


def in_file() -> list[tuple[str, list[str]]]:
    """As `in_groups`, without what a config file may not decide."""
    declared = Config.declared()
    return [(about, [key for key in keys if not declared[key].flag_only]) for about, keys in in_groups()]


#: what can be changed while a chat goes on, and what it is
LIVE = {name: declared.help for name, declared in Config.declared().items() if declared.live}


def config_path() -> Path:
    return Path(os.environ.get("LMM_CONFIG") or own_folder("config") / "config.toml")


def own_folder(kind: str) -> Path:
    """lmm's among the user's folders of that kind, "cache", "config" or "data", where no variable names another."""
    import platformdirs

    folders = {
        "cache": platformdirs.user_cache_path,
        "config": platformdirs.user_config_path,
        "data": platformdirs.user_data_path,
    }
    return folders[kind]("lmm", appauthor=False)


def load(flags: Mapping[str, Any]) -> Config:
    """The configuration of a run; `flags` that are None were not given. Raises UsageError as `given` does."""
    return Config(**{key: value for key, (value, _) in given(flags).items()})


def given(flags: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """What is set -> its value and where it stands: "flag", "environment" or "file".

    Raises UsageError that names all unknown keys and bad values, and where they stand.
    """
    path = config_path()
    places = {
        "file": (f"{path}: ", read_file(path)),
        "environment": ("the environment: ", _environment()),
        "flag": ("", {key: value for key, value in flags.items() if value is not None}),
    }
    found: dict[str, tuple[Any, str]] = {}
    problems: list[str] = []
    for place, (named, values) in places.items():
        fitting, wrong = Config.fitting(values)
        if place != "flag":
            wrong += [f"{key} can only be a flag" for key in fitting if Config.declared()[key].flag_only]
        found |= {key: (value, place) for key, value in fitting.items()}
        problems += [named + problem for problem in wrong]
    if problems:
        raise UsageError("; ".join(problems))
    return found


def coerce(key: str, text: str) -> Any:
    """What a user typed for one setting, in the setting's type. Raises UsageError."""
    fitting, problems = Config.fitting({key: text})
    if problems:
        raise UsageError(problems[0])
    return fitting[key]


def read_file(path: Path) -> dict[str, Any]:
    """What a config file sets, unchecked; nothing where there is none. Raises UsageError if it cannot be read."""
    if not path.exists():
        return {}
    if not path.is_file():  # a pipe would be waited for, and a device may never end
        raise UsageError(f"the config file {path} cannot be read: it is not a regular file")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"the config file {path} cannot be read: {error}") from error


def _environment() -> dict[str, str]:
    """LMM_MODEL=... and so on; a variable that is nearly one of ours is a mistake. Raises UsageError."""
    settings = [key for key in Config.declared() if key != "options"]
    known = [*settings, *(name[4:].lower() for name in VARIABLES)]
    found = {name[4:].lower(): value for name, value in os.environ.items() if name.startswith("LMM_")}
    for key in found:
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
        if close and key not in known:
            names = f"LMM_{key.upper()} in the environment: did you mean LMM_{close[0].upper()}?"
            raise UsageError(f"unknown setting {names}")
    return {key: value for key, value in found.items() if key in settings}


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
