"""Files of edits -> `Edit`s: ZsRE, QAEdit, CounterFact, CoverageEdit, known facts, and lmm's own format.

lmm's format is JSON: `[{"prompt", "answer", "aliases"?, "rephrases"?, "locality"?}]`, the last three lists of strings.
What a data set does not have stays empty and is scored null.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from lmm.errors import UnknownNameError, UsageError


@dataclass(frozen=True)
class Question:
    """Something asked after teaching, with the answers that count; `kind` is the data set's name for it."""

    prompt: str
    answers: tuple[str, ...]
    kind: str = ""


@dataclass(frozen=True)
class Edit:
    """One record. Only `prompt`, `answer` and `earlier` are ever taught; the rest is for the questions afterwards."""

    prompt: str
    answer: str
    aliases: tuple[str, ...] = ()
    rephrases: tuple[str, ...] = ()
    locality: tuple[str, ...] = ()
    portability: tuple[Question, ...] = ()
    earlier: str | None = None  # taught first, then corrected

    @property
    def answers(self) -> tuple[str, ...]:
        return (self.answer, *self.aliases)


@dataclass(frozen=True)
class Dataset:
    path: Path
    format: str
    sha256: str
    edits: tuple[Edit, ...] = field(repr=False)


def load(path: str | Path, format: str | None = None, limit: int | None = None) -> Dataset:
    """The first `limit` edits of a file, in file order. Raises UsageError that names the record and the field."""
    path = Path(path)
    records, digest = _records(path)
    if format is None:
        format = detect(records[0])
        if format is None:
            raise UsageError(
                f"{path}: the format is not recognised from the fields {', '.join(sorted(records[0]))}; "
                f"name it with --format {'|'.join(FORMATS)}"
            )
    if format not in FORMATS:
        raise UnknownNameError("format", format, FORMATS)
    if limit is not None and limit > len(records):
        raise UsageError(f"{path} has {len(records)} records, fewer than the {limit} of --edits")
    _, parse = FORMATS[format]
    edits = tuple(_parsed(path, i, record, parse, format) for i, record in enumerate(records[:limit]))
    return Dataset(path, format, digest, edits)


def load_mixed(paths: Sequence[Path], format: str | None = None, limit: int | None = None) -> Dataset:
    """The first `limit` edits of several files, a record of each in turn; when one ends, the others go on."""
    if len(paths) == 1:
        return load(paths[0], format, limit)
    parts = [load(path, format) for path in paths]
    turns = zip_longest(*(part.edits for part in parts))
    edits = tuple(edit for turn in turns for edit in turn if edit is not None)
    if limit is not None and limit > len(edits):
        raise UsageError(f"the {len(paths)} files have {len(edits)} records, fewer than the {limit} of --edits")
    name, formats = ("+".join(part.path.stem for part in parts), "+".join(part.format for part in parts))
    digest = hashlib.sha256("".join(part.sha256 for part in parts).encode()).hexdigest()
    return Dataset(Path(name), formats, digest, edits[:limit])


def detect(record: Mapping[str, Any]) -> str | None:
    """The format of a file by the fields of its first record."""
    return next((name for name, (fields, _) in FORMATS.items() if all(field in record for field in fields)), None)


def prompts_of(path: str | Path) -> list[str]:
    """The distinct prompts of a file, for --known: facts that must not change."""
    return list(dict.fromkeys(edit.prompt for edit in load(path).edits))


# reading ----------------------------------------------------------------------------------------------------
def _records(path: Path) -> tuple[list[dict[str, Any]], str]:
    try:
        raw = path.read_bytes()
        records = json.loads(raw)
    except OSError as error:
        raise UsageError(f"the data file {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"the data file {path} is not JSON: {error}") from error
    except RecursionError as error:
        raise UsageError(f"the data file {path} is nested too deeply to be read") from error
    if not isinstance(records, list) or not records:
        raise UsageError(f"{path}: expected a JSON list with at least one record")
    bad = next((i for i, record in enumerate(records) if not isinstance(record, dict)), None)
    if bad is not None:
        raise UsageError(f"{path}: record {bad} is not an object but {type(records[bad]).__name__}")
    return records, hashlib.sha256(raw).hexdigest()


def _parsed(
    path: Path, i: int, record: dict[str, Any], parse: Callable[[Mapping[str, Any]], Edit], format: str
) -> Edit:
    try:
        json.dumps(record, ensure_ascii=False).encode()  # half a surrogate pair is no text, and no tokenizer takes it
        return parse(record)
    except KeyError as error:
        raise UsageError(f"{path}: record {i} has no field {error} (format {format})") from error
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise UsageError(f"{path}: record {i} does not fit format {format}: {error}") from error


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record[name]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name!r} must be text, not {value!r}")
    return value


def _texts(record: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = record.get(name) or []
    if not isinstance(values, list):
        raise ValueError(f"{name!r} must be a list of texts, not {values!r}")
    return tuple(_text({name: value}, name) for value in values)


def _own(record: Mapping[str, Any]) -> Edit:
    unknown = set(record) - {"prompt", "answer", "aliases", "rephrases", "locality"}
    if unknown:
        raise ValueError(f"unknown fields {', '.join(sorted(unknown))}")
    return Edit(
        _text(record, "prompt"),
        _text(record, "answer"),
        _texts(record, "aliases"),
        _texts(record, "rephrases"),
        _texts(record, "locality"),
    )


def _zsre(record: Mapping[str, Any]) -> Edit:
    """KnowEdit: locality asks another relation of the same subject."""
    locality = record.get("locality") or {}
    questions = [(kind, q) for kind, some in (record.get("portability") or {}).items() for q in some]
    return Edit(
        _text(record, "prompt"),
        _text(record, "target_new"),
        rephrases=_optional(record, "rephrase_prompt"),
        locality=tuple(_text(q, "prompt") for q in locality.get("Relation_Specificity", [])),
        portability=tuple(Question(_text(q, "prompt"), _answers(q["ground_truth"]), kind) for kind, q in questions),
    )


def _qaedit(record: Mapping[str, Any]) -> Edit:
    return Edit(
        _text(record, "prompt"),
        _text(record, "target").removesuffix(" *"),
        rephrases=_optional(record, "rephrase"),
        locality=tuple(_text(q, "loc") for q in record.get("locality") or []),
    )


def _counterfact(record: Mapping[str, Any]) -> Edit:
    return Edit(
        _text(record, "prompt"),
        _text(record, "target_new"),
        rephrases=_optional(record, "rephrase_prompt"),
        locality=_optional(record, "locality_prompt"),
    )


def _coverage(record: Mapping[str, Any]) -> Edit:
    """Pitfalls: one fact edited twice. Taught as a sentence to complete, asked again as a question."""
    first, second = record["edits"]
    relation, subject = second["relation"], second["subject"]["label"]
    if (first["relation"]["prompt"], first["subject"]["label"]) != (relation["prompt"], subject):
        raise ValueError("its two edits are not of the same subject and relation")
    return Edit(
        _text(relation, "prompt").format(subject),
        _text(second["new_object"], "label"),
        rephrases=(_text(relation, "query").format(subject),),
        earlier=_text(first["new_object"], "label"),
    )


def _known(record: Mapping[str, Any]) -> Edit:
    return Edit(_text(record, "prompt"), _text(record, "attribute"))


def _optional(record: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return (_text(record, name),) if record.get(name) else ()


def _answers(value: Any) -> tuple[str, ...]:
    """One answer, a list of them, or a list of lists (aliases of several answers)."""
    if isinstance(value, str):
        return (value,)
    return tuple(text for part in value for text in _answers(part))


#: format -> the fields that tell it from those after it, and how a record is read
FORMATS: dict[str, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], Edit]]] = {
    "coverage": (("triples", "edits"), _coverage),
    "counterfact": (("target_new", "locality_prompt"), _counterfact),
    "zsre": (("target_new", "prompt"), _zsre),
    "qaedit": (("target", "prompt"), _qaedit),
    "known": (("attribute", "prompt"), _known),
    "lmm": (("answer", "prompt"), _own),
}
