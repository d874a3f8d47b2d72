"""A GGUF file, of one piece or several: metadata and tensors by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmm.errors import ModelError

if TYPE_CHECKING:
    import numpy as np

_PIECE = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)  # as llama.cpp names the pieces of a model


def ggufs_in(folder: Path) -> list[Path]:
    """`first_pieces` of what lies in a folder."""
    return first_pieces(folder.glob("*"))


def first_pieces(files: Iterable[Path]) -> list[Path]:
    """The models among files, those in pieces by their first; not what goes with a model that sees (mmproj)."""
    found = [path for path in sorted(files) if path.suffix.lower() == ".gguf" and "mmproj" not in path.name.lower()]
    return list(dict.fromkeys(pieces(path)[0] for path in found))


def pieces(path: Path) -> list[Path]:
    """All files of the model that a GGUF file is a piece of, whether they are there or not; most have one."""
    if not (named := _PIECE.search(path.name)):
        return [path]
    count, width = int(named[2]), len("00001")
    stem, behind = path.name[: named.start() + 1], path.name[named.end(1) :]
    return [path.with_name(f"{stem}{number:0{width}}{behind}") for number in range(1, count + 1)]


def missing_pieces(path: Path) -> str:
    """Names of the pieces that are not beside `path`, "" if all are there."""
    return ", ".join(piece.name for piece in pieces(path) if not piece.is_file())


class Gguf:
    """An opened GGUF file, all its pieces: `architecture`, `get(key)` for metadata, `tensors` by name.

    `unread()` is the metadata of the architecture that nobody has asked for: `own` keeps count.
    """

    def __init__(self, path: Path) -> None:
        readers = [_read(piece) for piece in pieces(path)]
        self.path, self._fields = path, readers[0].fields
        self.tensors = {tensor.name: tensor for reader in readers for tensor in reader.tensors}
        self.architecture = str(self.get("general.architecture", ""))
        self._asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        """Metadata `key`, e.g. "tokenizer.ggml.tokens"."""
        field = self._fields.get(key)
        return default if field is None else field.contents()

    def own(self, key: str, default: Any = None) -> Any:
        """Metadata of the architecture: `own("block_count")` is "llama.block_count"."""
        self._asked.add(key)
        return self.get(f"{self.architecture}.{key}", default)

    def of_all_layers(self, key: str, default: Any = None) -> Any:
        """`own`, where a file may say the same for each layer. Raises ModelError where layers differ."""
        value = self.own(key, default)
        if not isinstance(value, list):
            return value
        if len(set(value)) != 1:
            raise self.refused(key, "a value for each layer")
        return value[0]

    def refused(self, key: str, value: Any) -> ModelError:
        """What to raise for a key of the architecture that is not understood."""
        return ModelError(
            f"{self.path.name} sets {self.architecture}.{key} to {value}, which lmm cannot convert; "
            "use the model's Hugging Face folder: lmm chat --model FOLDER"
        )

    def unread(self) -> Iterator[tuple[str, Any]]:
        """Keys of the architecture that were not asked for, and what they say."""
        start = f"{self.architecture}."
        for name in self._fields:
            if name.startswith(start) and (key := name.removeprefix(start)) not in self._asked:
                yield key, self.get(name)

    def values(self, name: str) -> np.ndarray:
        """Tensor `name` in fp32, rows first as in Hugging Face. Raises ModelError for an unknown quantisation."""
        import numpy as np
        from gguf import dequantize

        tensor = self.tensors[name]
        try:
            return np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        except (NotImplementedError, ValueError) as error:
            raise ModelError(
                f"{self.path.name}: cannot dequantise {name} ({tensor.tensor_type.name}); "
                "use a file in Q4_0, Q4_1, Q4_K, Q5_K, Q6_K, Q8_0, F16 or BF16"
            ) from error


def _read(path: Path) -> Any:
    from gguf import GGUFReader

    try:
        return GGUFReader(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise ModelError(
            f"{path} is not a complete GGUF file ({type(error).__name__}: {error}); download or copy it again"
        ) from error
