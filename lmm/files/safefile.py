"""safetensors files from strangers: the library checks the layout, this file what the library lets through.

The library refuses gaps, overlaps, files that are short or long, and headers that are huge or no JSON. Refused here:
names that are there twice, other fields, dtypes that NumPy lacks, pipes and devices, bytes that are no booleans, NaN
and infinity, also those that come of the cast to float32.
Format: 8 bytes, the header's length (little-endian); the header, JSON {name: {dtype, shape, data_offsets}} with text
under "__metadata__"; then the tensors' bytes.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import mmap
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, deserialize, safe_open

from lmm.text.sanitize import clean_line, first

DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BOOL": "bool",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
}  # fmt: skip
CODES = {name: code for code, name in DTYPES.items()}
FORMAT = "lmm-memory"  # what the metadata of a memory file say
MAX_HEADER = 100_000_000  # bytes; the library's limit when it reads
MAPPED = 64_000_000  # bytes of a file from which its tensors are mapped: read when they are looked at, and held once
MAX_COMMAS = 4_000_000  # in a header: what there is in it is separated by them, a lesson with its tensors by 20 or so


class LayoutError(ValueError):
    """What is wrong with a file, one short line each, the first of them; text from the file in it is cleaned."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = first(problems)
        super().__init__("; ".join(self.problems))


@dataclass(frozen=True)
class Entry:
    """What a header says of one tensor."""

    dtype: np.dtype
    shape: tuple[int, ...]

    start: int  # its first byte, after the header

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class File:
    """An open file whose layout is sound: `size` in bytes, `metadata` and what it says of each tensor, by name."""

    opened: BinaryIO
    size: int
    metadata: dict[str, str]
    table: dict[str, Entry]

    def read_tensors(self) -> dict[str, np.ndarray]:
        """All tensors, each aligned and writable in memory of its own; of a large file, as it is mapped, to be read
        only. Raises ValueError or MemoryError."""
        if self.size >= MAPPED:
            mapped = mmap.mmap(self.opened.fileno(), 0, access=mmap.ACCESS_READ)
            begin = self.size - sum(entry.size * entry.dtype.itemsize for entry in self.table.values())
            return {
                name: np.ndarray(entry.shape, entry.dtype, mapped, begin + entry.start)
                for name, entry in self.table.items()
            }
        self.opened.seek(0)
        # From bytes: a mapped file that another process cuts short, as lmm never does, would end this one.
        found = {name: tensor["data"] for name, tensor in deserialize(self.opened.read())}
        return {name: np.ndarray(entry.shape, entry.dtype, found[name]) for name, entry in self.table.items()}


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[File]:
    """A file for reading; its tensors are not read yet. Raises OSError, or LayoutError with all problems."""
    # Non-blocking: opening a pipe must not wait for someone to write into it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise LayoutError(["it is not a regular file"])
        header = file.read(min(int.from_bytes(file.read(8), "little"), MAX_HEADER))
        if problem := _too_many(header):  # before anything is built of it
            raise LayoutError([problem])
        try:
            with safe_open(path, "numpy"):
                yield File(file, info.st_size, *_header(header))
        except SafetensorError as error:
            reason = str(error).removeprefix("Error while deserializing header: ")
            raise LayoutError([f"it is damaged or no safetensors file ({clean_line(reason)})"]) from error


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
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the name '{clean_line(twice, 80)}' is there twice")
    return result


def _too_many(header: bytes) -> str:
    count = header.count(b",")
    return f"its header has {count:,} commas; at most {MAX_COMMAS:,} are allowed" if count > MAX_COMMAS else ""


def _header(text: bytes) -> tuple[dict[str, str], dict[str, Entry]]:
    """Metadata and table of a header that the library has read. Raises LayoutError that lists the bad tensors."""
    try:
        header = parse_json(text)
    except ValueError as error:
        raise LayoutError([f"its header cannot be read ({error})"]) from error
    metadata, table, problems = header.pop("__metadata__", None) or {}, {}, []
    for name, fields in header.items():
        if fields.keys() != {"dtype", "shape", "data_offsets"}:
            problems.append(f"tensor '{clean_line(name, 80)}' is not described by dtype, shape and data_offsets alone")
        elif fields["dtype"] not in DTYPES:
            problems.append(f"tensor '{clean_line(name, 80)}' has the dtype '{clean_line(fields['dtype'], 20)}'")
        else:
            table[name] = Entry(
                np.dtype(DTYPES[fields["dtype"]]).newbyteorder("<"), tuple(fields["shape"]), fields["data_offsets"][0]
            )
    if problems:
        raise LayoutError(problems)
    return metadata, table


# writing ----------------------------------------------------------------------------------------------------
def dense(array: Any) -> np.ndarray:
    """The array as it will lie in the file: C order, little-endian."""
    array = np.asarray(array)
    return array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)


def name_problems(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Names and dtypes that this format cannot keep."""
    problems = []
    for name, array in arrays.items():
        if name == "__metadata__" or name.encode(errors="replace").decode() != name:
            problems.append(f"a tensor cannot be named '{clean_line(ascii(name), 80)}'")
        if array.dtype.name not in DTYPES.values():
            problems.append(f"tensor '{clean_line(name, 80)}' has dtype {array.dtype}; cast it to float32 first")
    return problems


def value_problems(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Tensors with NaN or infinity, also where float32 cannot hold them, or a bool that is neither true nor false."""
    problems = []
    for name, array in arrays.items():
        if array.dtype.kind == "f":
            with np.errstate(over="ignore"):
                finite = np.isfinite(array if array.itemsize < 4 else array.astype(np.float32, copy=False))
            if not finite.all():
                bad = int((~finite).sum())
                problems.append(f"tensor '{clean_line(name, 80)}' has {bad} values that are NaN or infinite in float32")
        if array.dtype.kind == "b" and array.size and array.view(np.uint8).max() > 1:
            problems.append(f"tensor '{clean_line(name, 80)}' has bytes that are no booleans")
    return problems


def to_chunks(arrays: Mapping[str, np.ndarray], metadata: dict[str, str]) -> Iterator[bytes | memoryview]:
    """A whole file, piece by piece. `arrays` as from `dense`; those of one size of number lie in their order.

    Raises ValueError before the first piece.
    """
    table: dict[str, Any] = {"__metadata__": metadata}
    names, end = sorted(arrays, key=lambda name: -arrays[name].itemsize), 0  # so each is aligned
    for name in names:
        array, start, end = arrays[name], end, end + arrays[name].nbytes
        table[name] = {"dtype": CODES[array.dtype.name], "shape": list(array.shape), "data_offsets": [start, end]}
    header = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    if len(header) > MAX_HEADER:
        raise ValueError(f"its lessons and names take {len(header)} bytes; at most {MAX_HEADER} are allowed")
    if problem := _too_many(header):
        raise ValueError(problem)
    return itertools.chain([len(header).to_bytes(8, "little"), header], (arrays[name].data for name in names))
