"""A memory's state and its header <-> one safetensors file; nothing is trusted unchecked.

The tensors lie in the file as they are; `__metadata__` has these strings beside them:

    format          "lmm-memory"
    format_version  "1"
    header          JSON: module, options, model, layer, ... (the fields of `Header` not listed here)
    lessons         JSON: the lessons in text
    data_sha256     over the tensors' bytes, in the order of their names
    sha256          over the strings above and each tensor's name, dtype and shape

A file is always written whole, so text that was forgotten is not left in it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

import lmm
from lmm.errors import StateError
from lmm.files import known, own, safefile
from lmm.files.atomic import write_atomically
from lmm.files.jsonl import compact
from lmm.files.safefile import FORMAT, LayoutError
from lmm.lesson import Lesson
from lmm.mapped import release
from lmm.text.sanitize import clean_line, first, listed

FORMAT_VERSION = 1
PathLike = str | os.PathLike[str]
IN_A_SESSION = (
    "what was learned is still in this session; free some space, or save elsewhere with --mm-save-path PATH "
    "(in the chat: /save PATH)"
)


@dataclass(frozen=True)
class Header:
    """What a state belongs to, and the lessons in it. `options` and `extra` hold what JSON can say.

    `save` sets `format_version`, `saved_at` (ISO 8601, local time with offset) and `lmm_version` itself.
    """

    module: str
    options: dict[str, Any]
    model_id: str
    revision: str | None
    layer: int
    layers: int
    width: int
    tokenizer_hash: str
    backend: str
    lessons: list[Lesson] = field(default_factory=list)
    format_version: int = FORMAT_VERSION
    saved_at: str = ""
    lmm_version: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Expected:
    """What the running model and memory need; None: anything will do."""

    model_id: str | None = None
    layer: int | None = None
    layers: int | None = None
    width: int | None = None
    tokenizer_hash: str | None = None
    module: str | None = None
    options: Mapping[str, Any] | None = None
    typed: str | None = None  # the model as the user named it, for hints
    folder: str | None = None  # where it lies: `attach` once knew models by their folders' names


class InvalidStateError(StateError):
    """A file that is damaged or no memory of lmm; `problems` has one short line for each of the first things wrong, and
    how many more there are."""

    def __init__(self, path: PathLike, problems: Sequence[str]) -> None:
        super().__init__(
            f"cannot load the memory {clean_line(path, 1000)}: {'; '.join(problems)}. Nothing was loaded or changed; "
            "name another file"
        )
        self.problems = list(problems)


def default_save_path(module: str, folder: PathLike = "artifacts", now: datetime | None = None) -> Path:
    """`artifacts/<module>_<YYYYMMDD_HHMMSS_microseconds>.safetensors`, in local time."""
    return Path(folder) / f"{module}_{now or datetime.now():%Y%m%d_%H%M%S_%f}.safetensors"


def save(path: PathLike, state: Mapping[str, np.ndarray], header: Header, advice: str = IN_A_SESSION) -> None:
    """Write a whole new file, mode 0600, or raise StateError and leave the old one as it was.

    A state or header that `load` would refuse is refused here too. The error's message ends with `advice`.
    """
    try:
        arrays = {name: safefile.dense(array) for name, array in state.items()}
        problems = safefile.name_problems(arrays) + safefile.value_problems(arrays)
        metadata = _to_metadata(header)
        problems += _from_metadata(metadata)[1]
        if problems:
            raise ValueError(listed(problems))
        metadata["data_sha256"] = _data_digest(arrays)
        metadata["sha256"] = _digest(metadata, {name: (a.dtype, a.shape) for name, a in arrays.items()})
        if (kind := own.what_is(path)) not in ("", own.MEMORY):
            raise ValueError(f"it is {kind}; name another file")
        write_atomically(path, safefile.to_chunks(arrays, metadata))
    except (OSError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise StateError(
            f"cannot save the memory to {clean_line(path, 1000)}: {_reason(error)}. A file that was there is unchanged"
            + (f", and {advice}" if advice else "")
        ) from error
    known.remember(path, "memory")


def load(path: PathLike, expected: Expected | None = None) -> tuple[dict[str, np.ndarray], Header]:
    """Everything in a file, in the dtypes it was saved in: writable arrays or, of a large file, as it is mapped.

    Raises StateError that names every mismatch with `expected`, or everything that is wrong with the file.
    """
    with _opened(path) as (file, header):
        if expected is not None:
            check_expected(path, header, expected)
        arrays = file.read_tensors()
        problems = safefile.value_problems(arrays)
        if _data_digest(arrays) != file.metadata.get("data_sha256"):
            problems.append("its tensors are not those that were saved (checksum)")
        if problems:
            raise LayoutError(problems)
        for array in (*arrays.values(),)[:1]:  # all lie in the one file
            release(array)
        return arrays, header


def read_header(path: PathLike) -> Header:
    """The header alone, checked against its own checksum; the tensors are not read. Raises StateError."""
    with _opened(path) as (_, header):
        return header


def inspect(path: PathLike) -> dict[str, Any]:
    """What `lmm memory show` prints: the header's fields, lessons as dicts, a table of tensors; JSON-able.

    The tensors are not read (see `verify`). Text in it is as the file has it: clean it before showing it.
    Raises StateError.
    """
    with _opened(path) as (file, header):
        tensors = [
            {"name": name, "dtype": at.dtype.name, "shape": list(at.shape), "bytes": at.size * at.dtype.itemsize}
            for name, at in file.table.items()
        ]
        return {
            "path": str(path),
            "bytes": file.size,
            **{f.name: getattr(header, f.name) for f in dataclasses.fields(header)},
            "lessons": [lesson.to_dict() for lesson in header.lessons],
            "parameters": sum(at.size for at in file.table.values()),
            "tensors": tensors,
        }


def verify(path: PathLike) -> list[str]:
    """Everything that is wrong with a file, tensors included; empty if it can be loaded."""
    try:
        load(path)
    except InvalidStateError as error:
        return error.problems
    return []


# reading ----------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def _opened(path: PathLike) -> Iterator[tuple[safefile.File, Header]]:
    """The file with its checked header; what goes wrong inside becomes an InvalidStateError."""
    try:
        with safefile.opened(path) as file:
            yield file, _checked_header(file)
    except LayoutError as error:
        raise InvalidStateError(path, error.problems) from error
    except (OSError, ValueError, MemoryError) as error:
        raise InvalidStateError(path, [_reason(error)]) from error


def _checked_header(file: safefile.File) -> Header:
    header, problems = _from_metadata(file.metadata)
    table = {name: (entry.dtype, entry.shape) for name, entry in file.table.items()}
    if not problems and file.metadata.get("sha256") != _digest(file.metadata, table):
        problems = ["its header is not the one that was saved (checksum)"]
    if header is None or problems:
        raise LayoutError(problems)
    return header


def check_expected(path: PathLike, header: Header, expected: Expected) -> None:
    names = {"module": "memory", "model_id": "model", "tokenizer_hash": "tokenizer"}
    if expected.folder is not None and header.model_id == expected.folder:
        expected = dataclasses.replace(expected, model_id=header.model_id)
    wrong = [
        (name, getattr(header, name), wanted)
        for name, wanted in dataclasses.asdict(expected).items()
        if name not in ("options", "typed", "folder") and wanted is not None and getattr(header, name) != wanted
    ]
    if not any(name == "module" for name, _, _ in wrong):
        wrong += [
            (f"option {name}", header.options[name], wanted)
            for name, wanted in (expected.options or {}).items()
            if header.options.get(name, wanted) != wanted
        ]
    if not wrong:
        return
    differences = "; ".join(
        f"{names.get(name, name)}: the file has {clean_line(found)}, this session has {clean_line(wanted)}"
        for name, found, wanted in wrong
    )
    raise StateError(
        f"the memory {clean_line(path, 1000)} does not fit: {differences}. Nothing was loaded or changed; "
        + _advice(path, header, expected, {name for name, _, _ in wrong})
    )


def _advice(path: PathLike, header: Header, expected: Expected, wrong: set[str]) -> str:
    """The flags that suit the file and, where the model differs, the command that suits the model."""
    from lmm import registry

    other_model = bool(wrong & {"model_id", "layers", "width", "tokenizer_hash"})
    if not set(header.module.split("+")) <= set(registry.table("lmm.memories")):
        return f"no memory {_quoted(header.module)} is installed here; install the package it comes from"
    flags = [f"--memory {_quoted(header.module)}"] if "module" in wrong else []
    flags += [f"--model {_quoted(typable(header))}"] if other_model else []
    flags += [f"--layer {header.layer}"] if "layer" in wrong and "layers" not in wrong else []
    options = [name.removeprefix("option ") for name in sorted(wrong) if name.startswith("option ")]
    flags += [f"--set {_quoted(f'{name}={header.options[name]}')}" for name in options]
    advice = f"start with {' '.join(flags)}"
    if other_model:
        model = _quoted(expected.typed or expected.model_id or "MODEL")
        advice += f", or re-teach its lessons: lmm memory migrate {_quoted(path)} --model {model}"
    return advice


def typable(header: Header) -> str:
    """What `--model` takes for a file's model: where a file or folder of it lies, no memory file says."""
    from lmm import registry

    model_id, packaged = header.model_id, (header.revision or "").startswith("sha256:")
    if packaged and (name := next((name for name, known in registry.MODELS.items() if known == model_id), None)):
        return name
    if ":" in model_id:
        return f"{'hf.co/' if '/' in model_id else 'ollama:'}{model_id}"
    return model_id if "/" in model_id else f"PATH/{model_id}"


# header <-> strings -----------------------------------------------------------------------------------------
_TYPES: dict[str, tuple[type, ...]] = {
    "module": (str,), "options": (dict,), "model_id": (str,), "revision": (str, NoneType), "layer": (int,),
    "layers": (int,), "width": (int,), "tokenizer_hash": (str,), "backend": (str,), "saved_at": (str,),
    "lmm_version": (str,), "extra": (dict,),
}  # fmt: skip


def _to_metadata(header: Header) -> dict[str, str]:
    values = {name: getattr(header, name) for name in _TYPES}
    values["saved_at"] = datetime.now().astimezone().isoformat(timespec="seconds")
    values["lmm_version"] = lmm.__version__
    return {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "header": compact(values),
        "lessons": compact([lesson.to_dict() for lesson in header.lessons]),
    }


def _from_metadata(metadata: Mapping[str, str]) -> tuple[Header | None, list[str]]:
    """The header, or every problem with it."""
    if metadata.get("format") != FORMAT:
        return None, ["it is no memory file of lmm (its metadata do not say so)"]
    version = metadata.get("format_version", "")
    if version != str(FORMAT_VERSION):
        newer = version.isascii() and version.isdecimal() and int(version[:9]) > FORMAT_VERSION
        advice = "a newer lmm wrote it, upgrade lmm" if newer else f"this lmm reads {FORMAT_VERSION}"
        return None, [f"it has format version '{clean_line(version, 20)}' ({advice})"]
    try:
        values = safefile.parse_json(metadata.get("header", ""))
        lessons = safefile.parse_json(metadata.get("lessons", ""))
    except ValueError as error:
        return None, [f"its header cannot be read ({error})"]
    problems = first(itertools.chain(_value_problems(values), _lesson_problems(lessons)))
    if problems:
        return None, problems
    return Header(**values, lessons=[Lesson.from_dict(lesson) for lesson in lessons]), []


def _value_problems(values: Any) -> list[str]:
    if not isinstance(values, dict):
        return ["its header is not an object"]
    problems = [f"its header lacks {name}" for name in _TYPES if name not in values]
    problems += [f"its header's field '{clean_line(name, 40)}' is unknown" for name in values if name not in _TYPES]
    for name, types in _TYPES.items():
        if name in values and type(values[name]) not in types:
            problems.append(f"its header's {name} is '{clean_line(values[name], 40)}', not {types[0].__name__}")
        elif name in values and types == (int,) and not 0 <= values[name] < 2**31:
            problems.append(f"its header's {name} is out of range")
    return problems


def _lesson_problems(lessons: Any) -> Iterator[str]:
    """Each lesson has the fields of `Lesson` in their types; `id` and `time` are a must, ids are unique."""
    if not isinstance(lessons, list):
        yield "its lessons are not a list"
        return
    types = {name: type(value) for name, value in Lesson().to_dict().items()}
    ids = set()
    for number, lesson in enumerate(lessons, 1):
        if not isinstance(lesson, dict) or not {"id", "time"} <= lesson.keys() <= types.keys():
            yield f"lesson {number} has not the fields of a lesson"
            continue
        wrong = [name for name, value in lesson.items() if not _has_type(value, types[name])]
        if wrong:
            yield f"lesson {number} has a malformed {', '.join(wrong)}"
        elif lesson["id"] in ids:
            yield f"lesson {number} has the id of another, '{clean_line(lesson['id'], 20)}'"
        else:
            ids.add(lesson["id"])


def _has_type(value: Any, wanted: type) -> bool:
    if wanted is float:
        return type(value) in (int, float) and abs(value) < 1e300  # false for NaN and infinity
    return wanted is NoneType or type(value) is (list if wanted is tuple else wanted)


# checksums --------------------------------------------------------------------------------------------------
def _digest(metadata: Mapping[str, str], table: Mapping[str, tuple[np.dtype, tuple[int, ...]]]) -> str:
    strings = {key: value for key, value in metadata.items() if key != "sha256"}
    tensors = {name: [dtype.name, list(shape)] for name, (dtype, shape) in table.items()}
    return hashlib.sha256(json.dumps([strings, tensors], sort_keys=True).encode()).hexdigest()


def _data_digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(arrays[name].data)
    return digest.hexdigest()


# words ------------------------------------------------------------------------------------------------------
def _quoted(text: object) -> str:
    return shlex.quote(clean_line(text, 4000))


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return clean_line(error.strerror)
    return clean_line(str(error) or "there is not enough memory for it", 1000)
