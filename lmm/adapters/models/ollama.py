"""Models that Ollama has fetched: `ollama:llama3.2:1b` -> the GGUF file of that name.

Ollama keeps a manifest for each name, `manifests/<host>/<owner>/<model>/<tag>` (JSON: layers with mediaType, digest and
size), and the files by their digest, `blobs/sha256-...`.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmm.errors import ModelError, UnknownNameError

PREFIX = "ollama:"
_WEIGHTS = "application/vnd.ollama.image.model"
_HOST, _OWNER = "registry.ollama.ai", "library"  # which names leave out


def is_name(name: str) -> bool:
    return name.startswith(PREFIX)


def folders() -> list[Path]:
    """OLLAMA_MODELS, or the user's own and that of the system's service, as far as they are there."""
    own = os.environ.get("OLLAMA_MODELS")
    places = [Path(own)] if own else [Path("~/.ollama/models").expanduser(), Path("/usr/share/ollama/.ollama/models")]
    return [place for place in places if (place / "manifests").is_dir()]


def models() -> Iterator[tuple[str, Path]]:
    """Each name as `--model` takes it, and its file; models in another format than GGUF are left out."""
    for folder in folders():
        for path in sorted((folder / "manifests").glob("*/*/*/*")):
            host, owner, model, tag = path.relative_to(folder / "manifests").parts
            places = [part for part, usual in ((host, _HOST), (owner, _OWNER)) if part != usual]
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
                blob = folder / "blobs" / _digest(json.loads(path.read_text(encoding="utf-8"))).replace(":", "-")
                if blob.is_file():
                    yield PREFIX + "/".join([*places, f"{model}:{tag}"]), blob


def _digest(manifest: dict[str, Any]) -> str:
    """Of the weights. Raises LookupError where there are none in one file."""
    [layer] = [layer for layer in manifest["layers"] if layer.get("mediaType") == _WEIGHTS] or [{}]
    return str(layer["digest"])


def file_of(name: str) -> Path:
    """The GGUF file of a name. Raises UnknownNameError, or ModelError if none is here."""
    return found(name)[1]


def found(name: str) -> tuple[str, Path]:
    """A name as it is listed, and its GGUF file. As for Ollama, `latest` may be left out, the host and owner that all
    have may be there, and capitals do not matter. Raises UnknownNameError, or ModelError if none is here."""
    known = dict(models())
    if not known:
        raise ModelError(f"{name}: Ollama has no models here; fetch it with: ollama pull, or see: lmm models")
    short = name.removeprefix(PREFIX).removeprefix(f"{_HOST}/").removeprefix(f"{_OWNER}/")
    wanted = f"{PREFIX}{short}" if ":" in short else f"{PREFIX}{short}:latest"
    listed = next((one for one in known if one.casefold() == wanted.casefold()), None)
    if listed is None:
        raise UnknownNameError("model", name, list(known))
    return listed if ":" in short else listed.removesuffix(":latest"), known[listed]
