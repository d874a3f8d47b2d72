"""Models that are on this machine: packaged, converted, of Hugging Face, Ollama and LM Studio. Loads none of them."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmm.adapters.models import ollama, source
from lmm.adapters.models.gguf_config import ARCHITECTURES
from lmm.adapters.models.gguf_file import first_pieces, missing_pieces, pieces
from lmm.errors import ModelError, StateError
from lmm.files import journal, standing
from lmm.text.counted import counted

HEADERS = ("model", "format", "size", "from", "memory")
LM_STUDIO = ("~/.lmstudio/models", "~/.cache/lm-studio/models")
_HEAD_BYTES = 1 << 16  # metadata of a GGUF file before its vocabulary; usually one or two KB
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # GGUF's types
_TEXT, _LIST = 8, 9


@dataclass(frozen=True)
class LocalModel:
    """A model under the name that `--model` takes; `problem` says why it cannot be used, "" if it can."""

    name: str
    format: str
    size: int  # bytes
    origin: str
    converted: bool = False  # ready to load: a GGUF file is converted when it is first used
    problem: str = ""

    @property
    def memory(self) -> str:
        """What was learned with it, in each standing memory: "keyed: 6 lessons"."""
        return ", ".join(f"{_owner(path)}: {_lessons(path)}" for path in standing.of_model(self.name))

    @property
    def row(self) -> tuple[str, str, str, str, str]:
        """Under `HEADERS`."""
        return self.name, self.format, _bytes(self.size), self.origin + ", converted" * self.converted, self.memory


def models() -> list[LocalModel]:
    """Those that can be used, and those that cannot, with the reason."""
    known = [*_packaged(), *_hugging_face(), *_ollama(), *_lm_studio()]
    converted = {_whole(name): model for name, model in _converted()}
    here = [replace(model, converted=model.converted or _whole(model.name) in converted) for model in known]
    names = {_whole(model.name) for model in known}
    return here + [model for name, model in converted.items() if name not in names]


def _whole(name: str) -> str:
    """A file's name with its folder."""
    return str(Path(name).expanduser().resolve()) if "/" in name and name.lower().endswith(".gguf") else name


# where they are ---------------------------------------------------------------------------------------------------
def _packaged() -> Iterator[LocalModel]:
    for name, weights in source.PACKAGED.items():
        converted = not source.damage(source.folder_of(name))
        size, problem = 0, ""
        try:
            size = sum(path.stat().st_size for path in weights.paths())
        except ModelError as error:
            size, problem = _size(source.folder_of(name)), "" if converted else str(error)
        kind = f"GGUF {weights.parts[0][1].split('.gguf')[0].replace('.', '-').rpartition('-')[2].upper()}"
        yield LocalModel(name, kind, size, "package", converted, problem)


def _converted() -> Iterator[tuple[str, LocalModel]]:
    """What was converted, by the name of the GGUF file, if that is known; where it is gone, the folder can be used."""
    packaged = [source.folder_of(name) for name in source.PACKAGED]
    for folder in sorted((source.cache_dir() / "models").glob("[!.]*/")):
        manifest = source.read_manifest(folder)
        if manifest and folder not in packaged:
            name = str(manifest.get("name", ""))
            shown = name if name and Path(name).exists() else _short(folder)
            yield name or shown, LocalModel(shown, "safetensors", _size(folder), "cache", True, source.damage(folder))


def _short(path: Path) -> str:
    """With "~" for the user's folder."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _hugging_face() -> Iterator[LocalModel]:
    from huggingface_hub import constants

    for repo in sorted(Path(constants.HF_HUB_CACHE).glob("models--*--*")):
        folder = _snapshot(repo)
        if folder is not None and (folder / "config.json").exists():
            config = _json(folder / "config.json")
            kinds = [str(kind) for kind in config.get("architectures") or ()]
            talks = not kinds or any(kind.endswith(("ForCausalLM", "ForConditionalGeneration")) for kind in kinds)
            problem = source.incomplete(folder) or ("" if talks else f"{kinds[0]} is no language model that writes")
            dtype = str(config.get("dtype") or config.get("torch_dtype") or "")
            name = repo.name.removeprefix("models--").replace("--", "/")
            yield LocalModel(name, f"safetensors {dtype}".strip(), _size(folder), "Hugging Face", problem=problem)


def _snapshot(repo: Path) -> Path | None:
    """The revision that is loaded where none is named."""
    with contextlib.suppress(OSError):
        main = repo / "snapshots" / (repo / "refs" / "main").read_text(encoding="utf-8").strip()
        return main if main.is_dir() else None
    return None


def _ollama() -> Iterator[LocalModel]:
    for name, path in ollama.models():
        yield _gguf(name, path, "Ollama")


def _lm_studio() -> Iterator[LocalModel]:
    for place in LM_STUDIO:
        for path in first_pieces(Path(place).expanduser().glob("**/*")):
            yield _gguf(_short(path), path, "LM Studio")


def _gguf(name: str, path: Path, origin: str) -> LocalModel:
    head, missing = gguf_head(path), missing_pieces(path)
    architecture, problem = str(head.get("general.architecture", "")), ""
    if missing:
        problem = f"of its {len(pieces(path))} pieces {missing} is missing"
    elif not head:
        problem = "not a GGUF file that can be read"
    elif architecture not in ARCHITECTURES:
        problem = f"its architecture is {architecture}; lmm converts {', '.join(ARCHITECTURES)}"
    size = sum(piece.stat().st_size for piece in pieces(path) if piece.is_file())
    return LocalModel(name, f"GGUF {_quantised(head)}".strip(), size, origin, problem=problem)


# what they are ----------------------------------------------------------------------------------------------------
def gguf_head(path: Path) -> dict[str, Any]:
    """Numbers and texts at the beginning of a GGUF file's metadata; {} where it is no such file.

    Layout (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), little-endian: "GGUF", version u32, tensors u64,
    entries u64; each entry a key (length u64, bytes), a type u32 and a value; lists: type, length u64, items.
    """
    values: dict[str, Any] = {}
    with contextlib.suppress(OSError, struct.error, UnicodeDecodeError), path.open("rb") as file:
        data = file.read(_HEAD_BYTES)
        if data[:4] != b"GGUF":
            return {}
        [entries], at = struct.unpack_from("<Q", data, 16), 24
        for _ in range(entries):
            key, at = _text(data, at)
            [kind], at = struct.unpack_from("<I", data, at), at + 4
            if kind == _TEXT:
                values[key], at = _text(data, at)
            elif kind in _NUMBERS:
                [values[key]] = struct.unpack_from(f"<{_NUMBERS[kind]}", data, at)
                at += struct.calcsize(f"<{_NUMBERS[kind]}")
            elif kind == _LIST:
                at = _behind_list(data, at)
            else:
                break
    return values


def _behind_list(data: bytes, at: int) -> int:
    """Raises struct.error where the list goes on behind `data`, as a vocabulary does."""
    [kind, count], at = struct.unpack_from("<IQ", data, at), at + 12
    if kind != _TEXT:
        return at + count * struct.calcsize(_NUMBERS.get(kind, "d"))
    for _ in range(count):
        _, at = _text(data, at)
    return at


def _text(data: bytes, at: int) -> tuple[str, int]:
    [length] = struct.unpack_from("<Q", data, at)
    [text] = struct.unpack_from(f"{length}s", data, at + 8) if length < len(data) else [b""]
    return text.decode(), at + 8 + length


def _quantised(head: dict[str, Any]) -> str:
    """As llama.cpp calls it: Q4_K_M."""
    from gguf import LlamaFileType

    try:
        return LlamaFileType(head["general.file_type"]).name.removeprefix("MOSTLY_").removeprefix("ALL_")
    except (KeyError, ValueError):
        return ""


def _json(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors") if path.is_file())


def _bytes(size: int) -> str:
    return "" if not size else f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _owner(path: Path) -> str:
    """The memory of a standing file, with the profile it is of."""
    profile = path.parents[2].name if path.parents[3].name == "profiles" else ""
    return f"{path.stem} ({profile})" if profile else path.stem


def _lessons(path: Path) -> str:
    try:
        return counted(len(journal.read_header(path).lessons), "lesson")
    except (StateError, OSError):
        return "not readable"
