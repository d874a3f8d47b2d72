"""`lmm doctor`: what is here, what is missing, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lmm import registry
from lmm.adapters import llama_cpp_api
from lmm.config import Config, config_path
from lmm.engine import runtime
from lmm.errors import LmmError

GOOD, NOTE, BAD = "good", "note", "bad"


@dataclass(frozen=True)
class Finding:
    """One line. `advice` is what to do, empty where nothing is."""

    topic: str
    status: str
    found: str
    advice: str = ""


def examine(config: Config) -> list[Finding]:
    """Everything that was looked at. Loads the framework, but no weights; changes nothing but a probe file."""
    checks: tuple[Callable[[Config], list[Finding]], ...] = (
        _python, _backends, _device, _model, _memory, _readers, _cache, _places, _terminal,
    )  # fmt: skip
    found: list[Finding] = []
    for check in checks:
        try:
            found += check(config)
        except Exception as error:  # a doctor must survive what it examines
            found.append(Finding(check.__name__.strip("_"), BAD, f"{type(error).__name__}: {error}"))
    return found


def _python(config: Config) -> list[Finding]:
    import lmm

    where = f"lmm {lmm.__version__}, Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    return [Finding("program", GOOD, f"{where}, {os.cpu_count()} CPUs")]


def _backends(config: Config) -> list[Finding]:
    found = []
    for name, module in registry.NEEDS.items():
        extra = registry.EXTRAS[name]
        if importlib.util.find_spec(module) is None:
            found.append(Finding(f"backend {name}", NOTE, "not installed", f"pip install 'lmm[{extra}]'"))
        elif name == "llama_cpp" and (other := llama_cpp_api.another_version()):
            found.append(Finding(f"backend {name}", NOTE, f"{module} {other}", f"pip install 'lmm[{extra}]'"))
        else:
            found.append(Finding(f"backend {name}", GOOD, f"{module} {_version(module)}"))
    try:
        found.append(Finding("backend in use", GOOD, runtime.backend_of(config)))
    except LmmError as error:
        found.append(Finding("backend in use", BAD, str(error), "pip install 'lmm[torch]'"))
    return found


def _version(module: str) -> str:
    try:
        return importlib.metadata.version(module.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return "(version unknown)"


def _device(config: Config) -> list[Finding]:
    name = runtime.backend_of(config)
    if name in ("torch", "llama_cpp"):
        import torch

        device = (
            "cpu"
            if name == "llama_cpp"
            else "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
        advice = "fine for small models" if device == "cpu" else ""
        return [Finding("device", GOOD, f"{device}, {torch.get_num_threads()} threads", advice)]
    import mlx.core as mx

    return [Finding("device", GOOD, str(mx.default_device()))]


def _model(config: Config) -> list[Finding]:
    from lmm.adapters.models import source as models

    if config.model in models.PACKAGED and config.adapter is None:
        return [_packaged(config.model)]
    try:
        source = models.resolve(config.model, local_files_only=True, revision=config.revision, adapter=config.adapter)
    except LmmError as error:
        return [Finding("model", BAD, str(error), "name another with --model, or drop --local-files-only to download")]
    return [Finding("model", GOOD, f"{config.model_name} in {source.folder}")]


def _packaged(name: str) -> Finding:
    from lmm.adapters.models import source as models

    weights = models.PACKAGED[name]
    folder = models.folder_of(name)
    problem = models.damage(folder, thorough=True)
    if not problem:
        return Finding("model", GOOD, f"{name} ({weights.model_id}), converted in {folder}")
    try:
        weights.paths()
    except LmmError as error:
        return Finding("model", BAD, str(error), weights.install)
    if folder.exists():
        return Finding(
            "model",
            BAD,
            f"{name} in {folder} is damaged: {problem}",
            "delete that folder; the next start converts anew",
        )
    return Finding(
        "model", NOTE, f"{name} is installed, not yet converted", "the first start takes half a minute longer"
    )


def _memory(config: Config) -> list[Finding]:
    try:
        memory = runtime.build_memory(config)
    except LmmError as error:
        return [Finding("memory", BAD, str(error), "see: lmm memories")]
    return [Finding("memory", GOOD, f"{memory.name}: {memory.summary}")]


def _readers(config: Config) -> list[Finding]:
    """What messages are read with."""
    from lmm.encoders import e5, mpnet

    found = []
    for language, name, missing, install in (
        ("English", mpnet.NAME, mpnet.PACKAGED.missing, mpnet.PACKAGED.install),
        ("other languages", e5.NAME, e5.weights_file() is None, e5.INSTALL),
    ):
        advice = f"messages are understood less well without it: {install}" if missing else ""
        found.append(
            Finding(f"reading {language}", NOTE if missing else GOOD, f"{name}, {'not ' * missing}installed", advice)
        )
    return found


def _cache(config: Config) -> list[Finding]:
    from lmm.adapters.models import source as models

    folder = models.cache_dir()
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) if folder.exists() else 0
    free = shutil.disk_usage(_existing(folder)).free
    advice = "" if free > 2 << 30 else "make room, or set LMM_CACHE_DIR to another folder"
    text = f"{folder}: {size / 2**20:.0f} MiB, {free / 2**30:.1f} GiB free"
    return [Finding("cache", GOOD if not advice else NOTE, text, advice)]


def _places(config: Config) -> list[Finding]:
    from lmm.files import standing
    from lmm.files.transcripts import data_dir

    path = config_path()
    found = [Finding("config file", GOOD, f"{path}{'' if path.exists() else ' (none: defaults)'}")]
    named = config.mm_save_path or config.mm_load_path
    places = {
        "memories": Path(named) if named else standing.memories_of(config.profile),
        "copies": Path("artifacts"),
        "log": Path(config.activation_log_path).parent,
        "sessions": data_dir(),
    }
    for name, folder in places.items():
        ok = os.access(_existing(folder), os.W_OK)
        found.append(
            Finding(name, GOOD if ok else BAD, str(folder.absolute()), "" if ok else "cannot be written there")
        )
    if importlib.util.find_spec("huggingface_hub"):
        from huggingface_hub import constants

        found.append(Finding("hub's cache", GOOD, str(constants.HF_HUB_CACHE)))
    return found


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _terminal(config: Config) -> list[Finding]:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return [Finding("terminal", NOTE, "none: a chat reads lines from stdin here")]
    size = shutil.get_terminal_size()
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") in ("dumb", None)
    return [
        Finding(
            "terminal",
            GOOD,
            f"{os.environ.get('TERM')}, {size.columns} x {size.lines}, {sys.stdout.encoding}, "
            f"{'no colours' if plain else 'colours'}",
        )
    ]
