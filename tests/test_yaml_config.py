"""`--config FILE`: the YAML of a model with internal and external memory, by its own names."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmm.cli import yaml_config
from lmm.config import Config
from lmm.engine import runtime
from lmm.errors import UsageError

BOTH = """
model:
  # Internal Memory
  use_internal_memory: true
  memory_slots: 12          # How many slots to learn
  num_mem_heads: 2
  # External Memory
  use_external_memory: true
  external_memory_size: 1048576
  retrieval_k: 5
  chunk_size: 4
train:
  external_memory_update_freq: 100
"""


def read(tmp_path: Path, text: str) -> Config:
    (tmp_path / "train.yaml").write_text(text)
    return Config(**yaml_config.settings(tmp_path / "train.yaml"))


def test_its_names_are_options_of_the_memories(tmp_path: Path) -> None:
    config = read(tmp_path, BOTH)
    assert config.memory == "lm2+external"
    options = runtime.build_memory(config).options_dict()
    assert (options["lm2.memory_slots"], options["lm2.num_mem_heads"]) == (12, 2)
    assert (options["external.size"], options["external.k"]) == (1_048_576, 5)
    assert (options["external.chunk_size"], options["external.update_freq"]) == (4, 100)
    only = read(tmp_path, BOTH.replace("use_internal_memory: true", "use_internal_memory: false"))
    assert only.memory == "external" and runtime.build_memory(only).options.k == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOTH.replace("retrieval_k", "retrieval_ks"), "did you mean 'model.retrieval_k'"),
        ("model: 3", "no sections"),
        ("model: {use_internal_memory: false}", "neither memory"),
        (BOTH.replace("use_external_memory: true", 'use_external_memory: "no"'), "true or false, not 'no'"),
        (BOTH.replace("memory: true", "memory: 1"), "true or false, not 1"),
        (BOTH + "model:\n  memory_slots: 3\n", "says model twice"),
        (BOTH.replace("  chunk_size", "  retrieval_k: 7\n  chunk_size"), "says retrieval_k twice"),
        ("a: [", "cannot be read"),
        ("a: " + "[" * 20_000, "cannot be read"),
    ],
)
def test_what_it_does_not_know_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read(tmp_path, text)


@pytest.mark.parametrize("value", ["[5]", "{a: 1}", "*all"])
def test_a_value_of_the_wrong_kind_is_named_by_its_option(tmp_path: Path, value: str) -> None:
    text = BOTH.replace("model:", "model: &all").replace("retrieval_k: 5", f"retrieval_k: {value}")
    with pytest.raises(UsageError, match="k must be a whole number"):
        runtime.build_memory(read(tmp_path, text))


def test_a_flag_goes_over_it(tmp_path: Path) -> None:
    from lmm.cli.options import _read

    (tmp_path / "train.yaml").write_text(BOTH)
    found = _read({"yaml_config": str(tmp_path / "train.yaml"), "options": ["external.k=3"]})
    assert found["options"]["external.k"] == 3 and found["options"]["lm2.memory_slots"] == 12
