"""From a configuration to a running engine: the one way in for chat, commands, smoke test and benchmark."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from lmm import registry
from lmm.config import Config
from lmm.errors import BackendError, LearningError, LmmError, ModelError, StateError, UsageError
from lmm.files import standing
from lmm.files import state_file as state

if TYPE_CHECKING:
    from collections.abc import Callable

    from lmm.adapters.base import Adapter
    from lmm.adapters.models.source import ModelSource, Progress
    from lmm.engine.engine import Engine
    from lmm.engine.mind import Mind
    from lmm.files.activation_log import ActivationLog
    from lmm.memory.base import Memory

    Notice = Callable[[str], None]

log = logging.getLogger("lmm")


def build_memory(config: Config) -> Memory:
    """The memory the configuration names, with its preset and options. Raises UsageError."""
    if "+" in config.memory:
        from lmm.memory.composite import Composite

        return Composite.named(config.memory, config.options, config.preset)
    kind = registry.memory_class(config.memory)
    values: dict = {}
    if config.preset is not None:
        if config.preset not in kind.presets:
            known = ", ".join(kind.presets) or "none"
            raise UsageError(f"memory {config.memory!r} has no preset {config.preset!r}; it has: {known}")
        values |= kind.presets[config.preset]
    return kind(kind.build_options(values | dict(config.options)))


def as_saved(config: Config) -> Config:
    """The configuration with the options that the file to start from was made with, where none are given.

    What a memory wrote can only be read with the options it was written with (a seed, a number of bits).
    """
    path = config.mm_load_path or standing.file_of(config)
    if not path or config.preset is not None or not os.path.exists(path):
        return config
    with contextlib.suppress(StateError, UsageError):  # a file that cannot be read is refused when it is loaded
        made = made_as(state.read_header(path), config)
        build_memory(made)
        return made
    return config


def made_as(header: state.Header, config: Config) -> Config:
    """The configuration with the options of a file's memory, of the parts that both have, where none are given.

    What an older version had and this one has not is left out. Raises UnknownNameError.
    """
    parts = [name.strip() for name in config.memory.split("+")]
    known = {f"{part}.{name}" for part in parts for name in registry.memory_class(part).Options.declared()}
    alone = "" if "+" in header.module else f"{header.module}."
    options = {f"{alone}{name}": value for name, value in header.options.items() if f"{alone}{name}" in known}
    if len(parts) == 1:
        options = {name.partition(".")[2]: value for name, value in options.items()}
    return dataclasses.replace(config, options=options | dict(config.options))


def load_adapter(config: Config, progress: Progress | None = None, notice: Notice = log.warning) -> Adapter:
    """`progress(done, total, text)` gets what takes long, each step by itself; total 0 means a message only."""
    backend = installed_for(config)
    return _started(_resolved(config, progress), backend, config, progress, notice)


def _resolved(config: Config, progress: Progress | None) -> ModelSource:
    from lmm.adapters.models.source import resolve

    return resolve(
        config.model,
        local_files_only=config.local_files_only,
        revision=config.revision,
        trusted=config.trust_remote_code,
        adapter=config.adapter,
        progress=progress,
    )


def _started(source: ModelSource, backend: str, config: Config, progress: Progress | None, notice: Notice) -> Adapter:
    from lmm.adapters.models import loadable

    told = progress or (lambda done, total, text: None)
    if source.trusted and (code := loadable.own_code(source.folder)):
        notice(f"code that comes with {source.name} may run now: {', '.join(code)}, in {source.folder}")
    told(0, 1, f"starting {backend}, {source.model_id}")
    source = dataclasses.replace(source, progress=progress)
    with loadable.running(source):
        adapter = _tried_out(source, backend, config, told)
    if config.layer is not None:
        adapter.site(config.layer)
        adapter.layer = config.layer
    return adapter


def _tried_out(source: ModelSource, backend: str, config: Config, told: Progress) -> Adapter:
    from lmm.adapters import selfcheck

    adapter = registry.load_adapter(backend, source, dtype=config.dtype, layers_path=config.layers_path)
    told(1, 1, f"trying it out, {source.model_id}")
    selfcheck.once(adapter)
    adapter.use_threads(config.threads)
    return adapter


def check(config: Config) -> None:
    """Everything that can be wrong with a configuration before a model is loaded. Raises UsageError or BackendError,
    which name all of it."""
    problems = list[LmmError]()
    for look in (lambda: build_memory(config), lambda: registry.pick_backend(config.backend)):
        try:
            look()
        except LmmError as error:
            problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise UsageError("; ".join(map(str, problems)))


def backend_of(config: Config) -> str:
    """The backend of a conversation. `auto` is llama.cpp where it runs the file as it is and is the faster one: it
    decodes a single reply at two to four times torch's speed, while torch reads batches faster (docs/llama-cpp.md)."""
    from lmm.adapters.models.source import is_gguf

    plain = config.backend == config.dtype == "auto" and config.adapter is None and config.layers_path is None
    return "llama_cpp" if plain and is_gguf(config.model) and has_llama() else installed_for(config)


def has_llama() -> bool:
    """Whether llama.cpp is here, on a machine whose taps it answers without Python: Linux on x86-64, and no card."""
    from lmm.adapters import llama_cpp_api

    if (platform.system(), platform.machine()) != ("Linux", "x86_64") or not llama_cpp_api.is_here():
        return False
    import torch

    return not torch.cuda.is_available()


def installed_for(config: Config) -> str:
    """The backend of what reads many texts at once. `auto` is what is installed, and MLX for a folder that was
    quantised for it."""
    from lmm.adapters.models.loadable import is_for_mlx

    backend = registry.pick_backend(config.backend)
    mlx = config.backend == "auto" and is_for_mlx(Path(config.model).expanduser())
    return "mlx_lm" if mlx and "mlx_lm" in registry.installed_backends() else backend


def _load_for_conversation(config: Config, progress: Progress | None, notice: Notice) -> Adapter:
    """Where llama.cpp was not asked for by name, what it cannot load is another backend's."""
    chosen, source = backend_of(config), _resolved(config, progress)
    if config.backend == "auto" and chosen == "llama_cpp":
        try:
            return _started(source, chosen, config, progress, notice)
        except (ModelError, BackendError) as error:
            notice(f"{installed_for(config)} runs it instead: {error}")
    return _started(source, installed_for(config), config, progress, notice)


def open_mind(config: Config, progress: Progress | None = None, notice: Notice = lambda text: None) -> Mind:
    """A loaded model with its memory, and what `mm_load_path` holds. `notice` gets what a user should know."""
    from lmm.encoders import mpnet
    from lmm.engine.mind import Mind

    memory = build_memory(as_saved(config))
    mpnet.unpacked(progress)  # once, and not in the middle of the first message
    log = open_log(config)
    mind = Mind(_load_for_conversation(config, progress, notice), memory, config.seed, log)
    start(mind, config, notice)
    return mind


def open_log(config: Config) -> ActivationLog | None:
    """None where nothing is to be logged."""
    from lmm.files.activation_log import ActivationLog

    if not config.log:
        return None
    return ActivationLog(config.activation_log_path, most_bytes=config.log_mb * 1_000_000, keep=config.log_keep)


def start(mind: Mind, config: Config, notice: Notice, strict: bool = False) -> None:
    """Let a new mind know what it starts from: the file that is named, or else the user's standing memory. It keeps
    there what it learns, if the file is also the one to be saved. Raises StateError for a named file that cannot be
    read; `strict`: for any that cannot, and NotKeptError where nothing can be kept, instead of going on without."""
    learns, named = mind.memory.learns_from != "nothing", config.mm_load_path
    file = Path(named) if named and named == config.mm_save_path else standing.file_of(config)
    if named and not os.path.exists(named):
        notice(f"{named} does not exist; starting with a fresh memory")
    if learns and file is not None:
        (_keep_always if strict else keep_named if named else keep)(mind, file, notice)
    elif named and os.path.exists(named):
        mind.load(named)


def _keep_always(mind: Mind, file: Path, notice: Notice) -> None:
    from lmm.engine.keeper import Keeper

    Keeper(mind, file, notice=notice)


def keep(mind: Mind, file: Path, notice: Notice) -> None:
    """Tie a mind to a standing memory; where that cannot be, it goes on without, and says so."""
    try:
        _keep_always(mind, file, notice)
    except LmmError as error:
        notice(f"{error}. What is learned now is not kept in {file}; --profile NAME begins another one")


def keep_named(mind: Mind, file: Path, notice: Notice) -> None:
    """Tie a mind to a file that the user named; one that can only be read is read. Raises StateError."""
    from lmm.engine.keeper import Keeper

    try:
        Keeper(mind, file, named=True, notice=notice)
    except LearningError as error:
        notice(str(error))
        if file.exists():
            mind.load(file)


def open_engine(config: Config, progress: Progress | None = None, notice: Notice = lambda text: None) -> Engine:
    """An empty conversation over the mind of a configuration."""
    from lmm.engine.engine import Engine

    return Engine(open_mind(config, progress, notice), config.system)
