"""The YAML of a model with internal and external memory, as settings: `--config FILE`.

model:                                                train:
  use_internal_memory: true                             external_memory_update_freq: 100
  memory_slots: 16
  num_mem_heads: 4
  use_external_memory: true
  external_memory_size: 1048576
  retrieval_k: 8
  chunk_size: 4
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from lmm.errors import UnknownNameError, UsageError
from lmm.files import jsonl

OPTIONS = {  # section, key -> part, option
    ("model", "memory_slots"): ("lm2", "memory_slots"),
    ("model", "num_mem_heads"): ("lm2", "num_mem_heads"),
    ("model", "external_memory_size"): ("external", "size"),
    ("model", "retrieval_k"): ("external", "k"),
    ("model", "chunk_size"): ("external", "chunk_size"),
    ("train", "external_memory_update_freq"): ("external", "update_freq"),
}
USED = {"use_internal_memory": "lm2", "use_external_memory": "external"}


def settings(path: Path) -> dict[str, Any]:
    """`memory` and its `options`. Raises UsageError for a file that is none, and for keys that are not known."""
    try:
        yaml = importlib.import_module("yaml")
        with jsonl.opened(path) as file:
            text = file.read().decode()
        found, node = yaml.safe_load(text), yaml.compose(text)
    except ImportError:
        raise UsageError("reading YAML needs PyYAML: pip install pyyaml") from None
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(section, dict) for section in found.values()):
        raise UsageError(f"{path} has no sections with keys: model, train")
    if twice := _twice(node):
        raise UsageError(f"{path} says {twice} twice")
    given = {(section, key): value for section, keys in found.items() for key, value in keys.items()}
    known = [*OPTIONS, *(("model", key) for key in USED)]
    for section, key in given:
        if (section, key) not in known:
            raise UsageError(f"{path}: {UnknownNameError('key', f'{section}.{key}', ['.'.join(k) for k in known])}")
    for key in USED:
        if not isinstance(used := given.get(("model", key), False), bool):
            raise UsageError(f"{path}: model.{key} must be true or false, not {used!r}")
    parts = [part for key, part in USED.items() if given.get(("model", key), False)]
    if not parts:
        raise UsageError(f"{path} uses neither memory: set model.use_internal_memory or model.use_external_memory")
    options = {
        f"{part}.{name}" if len(parts) > 1 else name: given[place]
        for place, (part, name) in OPTIONS.items()
        if place in given and part in parts
    }
    return {"memory": "+".join(parts), "options": options}


def _twice(node: Any) -> str | None:
    """The first key that stands twice among the sections or in one: YAML's reader takes the later one and says
    nothing."""
    for place in (node, *(section for _, section in node.value)):
        keys = [key.value for key, _ in place.value]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            return str(twice)
    return None
