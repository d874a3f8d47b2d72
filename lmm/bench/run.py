"""From what was asked for to the files of the result: `lmm bench edit` without the command line."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmm import config as configs
from lmm.bench import datasets, pages, report
from lmm.bench.datasets import Dataset
from lmm.bench.edit import Bench
from lmm.bench.peers import PEERS
from lmm.bench.runner import Build, FromFile, Track, all_rows, quietly
from lmm.bench.settings import EditSettings
from lmm.bench.spread import spread
from lmm.bench.store import Folder, circumstances, model_of, sha256_of
from lmm.config import Config
from lmm.engine import runtime
from lmm.errors import BackendError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter


@dataclass(frozen=True)
class EditRequest:
    """One run. `data`: files, whose records take turns; `options`, `presets`: memory -> its options, its preset."""

    data: Sequence[Path]
    memories: tuple[str, ...]
    settings: EditSettings
    config: Config
    format: str | None = None
    known: Path | None = None
    text: Path | None = None
    out: Path | None = None
    resume: bool = True
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    presets: Mapping[str, str] = field(default_factory=dict)
    command: str = ""

    @property
    def folder(self) -> Path:
        size = self.settings.sizes[-1]
        name = "+".join(path.stem for path in self.data)
        return self.out or Path("artifacts") / "bench" / f"{name}_{size}_{Path(self.config.model).stem}"


def run(request: EditRequest, track: Track = quietly, adapter: Adapter | None = None) -> dict[str, Any]:
    """Run it, or go on with it, and write `result.json`, `table.md` and the plots. Returns the result.

    Everything that can be wrong with the request is found before the model is loaded. Raises LmmError.
    """
    builds = builders(request.memories, request.config, request.options, request.presets)
    data = datasets.load_mixed(request.data, request.format, request.settings.sizes[-1])
    known = datasets.prompts_of(request.known) if request.known else []
    if request.text is not None and not request.text.is_file():
        raise UsageError(f"the text {request.text} of --text does not exist")
    adapter = adapter or runtime.load_adapter(request.config)
    folder = Folder(request.folder, _fixed(request, data, adapter), request.resume)
    bench = Bench(adapter, data.edits, known, request.text, folder, request.settings, track)
    result = all_rows(request.folder, request.resume, _about(request, data, adapter), builds, bench.run)
    pages.write(result, request.folder, report.markdown, report.plots)
    return result


def run_spread(request: EditRequest, address: str) -> dict[str, Any]:
    """The same with each memory on a worker of a Ray cluster, in a folder of its own where it can be gone on with."""
    builds = builders(request.memories, request.config, request.options, request.presets)
    parts = [
        dataclasses.replace(request, memories=(name,), out=request.folder / "parts" / shown)
        for name, shown in zip(request.memories, builds, strict=True)
    ]
    found = dict(zip(builds, spread(run, parts, address), strict=True))
    about = next(iter(found.values()))["run"]
    result = all_rows(request.folder, request.resume, about, builds, lambda name, build: found[name]["rows"])
    pages.write(result, request.folder, report.markdown, report.plots)
    return result


def builders(
    names: Sequence[str], config: Config, options: Mapping[str, Mapping[str, Any]], presets: Mapping[str, str]
) -> dict[str, Build]:
    """How a new instance of each memory is made. NAME=FILE begins with what a file has, and is told by the file's name.
    `options` and `presets` are by the memory's name. Raises UsageError."""
    if not names:
        raise UsageError("--memory names no memory; e.g. --memory keyed+notes,none")
    found: dict[str, Build] = {}
    for name, file in map(split_name, names):
        build = builder(name, config, options, presets)
        if file is None:
            found[name] = build
        elif not file.is_file():
            raise UsageError(f"--memory {name}={file}: there is no such file")
        elif name in PEERS:
            raise UsageError(f"{name!r} begins with nothing, and has no file")
        elif (shown := f"{name}={file.name}") in found:
            raise UsageError(f"two files would both be told as {shown}; rename one")
        else:
            found[shown] = FromFile(build, file)
    return found


def split_name(name: str) -> tuple[str, Path | None]:
    """NAME or NAME=FILE."""
    name, _, file = name.partition("=")
    return name, Path(file) if file else None


def builder(name: str, config: Config, options: Mapping[str, Mapping[str, Any]], presets: Mapping[str, str]) -> Build:
    """A peer of the benchmark, or any registered memory."""
    from lmm import registry

    own = options.get(name, {})
    if name in PEERS:
        if name in presets:
            raise UsageError(f"{name!r} has no presets")
        if name == "peft_lora":
            _check_peft(registry.pick_backend(config.backend))
        return functools.partial(PEERS[name], PEERS[name].build_options(dict(own)))
    known = registry.table("lmm.memories")
    if "+" not in name and name not in known:
        raise UnknownNameError("memory", name, [*known, *PEERS])
    config = dataclasses.replace(config, memory=name, options=own, preset=presets.get(name))
    runtime.build_memory(config)
    return functools.partial(runtime.build_memory, config)


def _check_peft(backend: str) -> None:
    """Now, not after the other memories have run for hours."""
    if backend != "torch":
        raise BackendError(f"peft_lora needs the torch backend, not {backend}; run with --backend torch")
    if importlib.util.find_spec("peft") is None:
        raise BackendError("peft_lora needs the PEFT library; run: pip install 'lmm[bench]'")


def per_memory(pairs: Sequence[str], memories: Sequence[str], flag: str) -> dict[str, list[str]]:
    """`keyed.lr=1` -> {"keyed": ["lr=1"]}; without a memory's name it is for the only one that is not `none`."""
    found: dict[str, list[str]] = {}
    teachable = [name for name in memories if name != "none"]
    for pair in pairs:
        name, dot, rest = pair.partition(".")
        if dot and name in memories:
            found.setdefault(name, []).append(rest)
        elif len(teachable) == 1:
            found.setdefault(teachable[0], []).append(pair)
        else:
            raise UsageError(f"{flag} {pair}: name the memory it is for, e.g. {flag} {memories[0]}.{pair}")
    return found


def parse_options(pairs: Sequence[str], memories: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {name: configs.parse_settings(some) for name, some in per_memory(pairs, memories, "--set").items()}


# what the run is ---------------------------------------------------------------------------------------------
def _fixed(request: EditRequest, data: Dataset, adapter: Adapter) -> dict[str, Any]:
    """What must be the same for a run to be gone on with; memories and their options may differ."""
    settings = request.settings
    return {
        "data": data.sha256,
        "format": data.format,
        "known": request.known and sha256_of(request.known),
        "text": request.text and sha256_of(request.text),
        "edits": list(settings.sizes),
        "seed": settings.seed,
        "batch_size": settings.batch_size,
        "max_tokens": settings.max_tokens,
        "skip": sorted(settings.skip),
        **model_of(adapter),
    }


def _about(request: EditRequest, data: Dataset, adapter: Adapter) -> dict[str, Any]:
    file = {"file": data.path.name, "format": data.format, "sha256": data.sha256}
    return _fixed(request, data, adapter) | {"data": file} | circumstances(adapter, request.command)


@contextlib.contextmanager
def progress_bars() -> Iterator[Track]:
    """A bar on stderr for each thing that takes long; only the last ones stay."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def track(what: str, total: int) -> Any:
            task = progress.add_task(what, total=total)
            return lambda count: progress.advance(task, count)

        yield track
