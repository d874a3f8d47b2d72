"""What a model's folder is, by whatever path: a digest of the files that its numbers come from.

A large file is read once, and again when it has changed: `digests.json` in the user's cache has what was found.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

from lmm.adapters.models.loadable import read_json
from lmm.adapters.models.source import MANIFEST, cache_dir
from lmm.files.atomic import write_atomically

KINDS = (".safetensors", ".bin", ".json", ".txt", ".model")  # weights, configurations, vocabularies
LARGE = 1 << 24  # bytes from which on a digest is kept
CHARACTERS = 24


def folder_digest(folder: Path) -> str:
    """The same for two folders with the same weights, configuration and tokenizer. Raises OSError."""
    found = hashlib.sha256()
    for path in sorted(_files(folder)):
        found.update(f"{path.relative_to(folder).as_posix()} {_file_digest(path)}\n".encode())
    return found.hexdigest()[:CHARACTERS]


def _files(folder: Path) -> list[Path]:
    """Those that are read: of the folder itself, and of the modules of sentence-transformers below it."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        below = {module["path"] for module in json.loads((folder / "modules.json").read_text())} - {""}
        return [*_own(folder, "*"), *(path for name in below for path in _own(folder / name, "**/*"))]
    return _own(folder, "*")


def _own(folder: Path, pattern: str) -> list[Path]:
    files = [path for path in folder.glob(pattern) if path.suffix in KINDS and path.name != MANIFEST and path.is_file()]
    safe = {path.parent for path in files if path.suffix == ".safetensors"}  # other weights there are not looked at
    return [path for path in files if path.suffix != ".bin" or path.parent not in safe]


def _file_digest(path: Path) -> str:
    path = path.resolve()
    status = path.stat()
    if status.st_size < LARGE:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    place = cache_dir() / "digests.json"
    state = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    match read_json(place).get(str(path)):
        case [*known, str(digest)] if known == state:
            return digest
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with contextlib.suppress(OSError):  # it is read again next time
        write_atomically(place, [json.dumps(read_json(place) | {str(path): [*state, digest]}, indent=1).encode()])
    return digest
