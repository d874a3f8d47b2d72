"""safetensors files from strangers: every byte of the layout is checked before an array is made.

Written by the safetensors library, read here: a memory file must be checked for more than the library does (a name
that is there twice, a bool byte that is neither 0 nor 1), with all problems named at once.
Format: 8 bytes, the header's length (little-endian); the header, JSON {name: {dtype, shape, data_offsets}} with text
under "__metadata__"; then the tensors' bytes without gap or overlap.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BOOL": "bool",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
}  # fmt: skip
MAX_HEADER = 100_000_000  # bytes; the safetensors library's own limit
MAX_RANK = 32  # NumPy 1.26's limit


class LayoutError(ValueError):
    """What is wrong with a file, one short line each; text from the file in it is cleaned."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


def shown(text: object, limit: int = 80) -> str:
    """Text from a file or a name from outside, safe to print on one line."""
    from lmm.text.sanitize import clean_line

    return clean_line(str(text), limit=limit)


@dataclass(frozen=True)
class Entry:
    """One tensor: its place is [start, end) in bytes after the header."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    end: int


class File:
    """An open file with a checked layout: `metadata` {str: str}, `table` {name: Entry}, `size` in bytes.

    Raises OSError, or LayoutError with all problems. Use as a context manager.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # Non-blocking: opening a pipe must not wait for someone to write into it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._file = open(descriptor, "rb")  # noqa: SIM115 (closed in __exit__)
        try:
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode):
                raise LayoutError(["it is not a regular file"])
            self.size = info.st_size
            self._read_header()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> File:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def _read_header(self) -> None:
        length = int.from_bytes(self._file.read(8), "little")
        if self.size < 8 or length > self.size - 8:
            raise LayoutError([f"it is cut short or no safetensors file ({self.size} bytes)"])
        if length > MAX_HEADER:
            raise LayoutError([f"its header has {length} bytes; at most {MAX_HEADER} are allowed"])
        try:
            header = parse_json(self._file.read(length))
            if not isinstance(header, dict):
                raise ValueError("not an object")
        except ValueError as error:
            raise LayoutError([f"its header cannot be read ({error})"]) from error
        self._data_start = 8 + length
        self.metadata = _metadata(header.pop("__metadata__", {}))
        self.table = _table(header, self.size - self._data_start)

    def read_tensors(self) -> dict[str, np.ndarray]:
        """All tensors, writable. Raises LayoutError, or MemoryError for a file larger than memory."""
        raw = np.empty(self.size - self._data_start, np.uint8)
        self._file.seek(self._data_start)
        if self._file.readinto(raw.data) != raw.size:
            raise LayoutError(["it became shorter while it was read"])
        arrays = {
            name: np.ndarray(entry.shape, entry.dtype, buffer=raw, offset=entry.start)
            for name, entry in self.table.items()
        }
        return {name: np.require(array, requirements=["A", "W"]) for name, array in arrays.items()}  # aligned


def parse_json(text: bytes | str) -> Any:
    """JSON in strict UTF-8 without repeated names. Raises ValueError with a short reason, whatever is in it."""
    try:
        return json.loads(text if isinstance(text, str) else text.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise ValueError(f"no UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON at character {error.pos}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the name '{shown(twice)}' is there twice")
    return result


def _metadata(found: Any) -> dict[str, str]:
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise LayoutError(["its __metadata__ is not a map from text to text"])
    return found


def _table(header: Mapping[str, Any], data_bytes: int) -> dict[str, Entry]:
    """Entries in the order of their bytes. Raises LayoutError that lists every bad tensor."""
    problems, entries = [], {}
    for name, fields in header.items():
        try:
            entries[name] = _entry(fields)
        except ValueError as error:
            problems.append(f"tensor '{shown(name)}' {error}")
    if problems:
        raise LayoutError(problems)
    entries = dict(sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)))
    position = 0
    for name, entry in entries.items():
        if entry.start != position:
            kind = "overlaps the one before it" if entry.start < position else "leaves a gap before it"
            problems.append(f"tensor '{shown(name)}' {kind} (byte {entry.start}, expected {position})")
        position = entry.end
    if not problems and position != data_bytes:
        problems.append(f"it has {data_bytes} bytes of tensors, its header says {position}")
    if problems:
        raise LayoutError(problems)
    return entries


def _entry(fields: Any) -> Entry:
    if not isinstance(fields, dict) or set(fields) != {"dtype", "shape", "data_offsets"}:
        raise ValueError("is not described by dtype, shape and data_offsets")
    name, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(name, str) or name not in DTYPES:
        raise ValueError(f"has the unknown dtype '{shown(name, 20)}'")
    if not _sizes(shape) or len(shape) > MAX_RANK:
        raise ValueError("has no valid shape")
    if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError("has no valid data_offsets")
    dtype = np.dtype(DTYPES[name]).newbyteorder("<")
    # An empty tensor may still have sizes beside the zero that no array can have.
    if math.prod(max(size, 1) for size in shape) * dtype.itemsize >= 2**63:
        raise ValueError("is too large")
    expected = math.prod(shape) * dtype.itemsize
    if offsets[1] - offsets[0] != expected:
        raise ValueError(f"has {offsets[1] - offsets[0]} bytes, its shape and dtype make {expected}")
    return Entry(dtype, tuple(shape), offsets[0], offsets[1])


def _sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


# writing ----------------------------------------------------------------------------------------------------
def dense(array: Any) -> np.ndarray:
    """The array as it will lie in the file: C order, little-endian."""
    array = np.asarray(array)
    return array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)


def name_problems(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Names and dtypes that this format cannot keep."""
    problems = []
    for name, array in arrays.items():
        if name == "__metadata__" or not _is_unicode(name):
            problems.append(f"a tensor cannot be named '{shown(ascii(name))}'")
        if array.dtype.name not in DTYPES.values():
            problems.append(f"tensor '{shown(name)}' has dtype {array.dtype}; cast it to float32 first")
    return problems


def value_problems(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Tensors with NaN or infinity, or a bool that is neither true nor false."""
    problems = []
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int(array.size - np.isfinite(array).sum())
            problems.append(f"tensor '{shown(name)}' has {bad} values that are NaN or infinite")
        if array.dtype.kind == "b" and array.size and array.view(np.uint8).max() > 1:
            problems.append(f"tensor '{shown(name)}' has bytes that are no booleans")
    return problems


def to_bytes(arrays: Mapping[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """A whole file, by the safetensors library. `arrays` as from `dense`. Raises ValueError."""
    from safetensors import SafetensorError
    from safetensors.numpy import save

    try:
        data = save(dict(arrays), metadata=metadata)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    if (length := int.from_bytes(data[:8], "little")) > MAX_HEADER:
        raise ValueError(f"its lessons and names take {length} bytes; at most {MAX_HEADER} are allowed")
    return data


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
