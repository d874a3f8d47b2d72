"""Memory files of version 0.1.0 load unchanged and are read as they were then.

tests/data/states has one file for each memory, taught as in the contract suite on the toy model at commit d5710b6, and
the logits of questions with them, written at that commit.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from contracts import ROWS, engine, logits_of

from lmm.adapters.toy import ToyAdapter
from lmm.files import state_file

STATES = Path(__file__).parent / "data" / "states"
LOGITS = json.loads((STATES / "logits.json").read_text())


@pytest.mark.parametrize("name", LOGITS)
def test_a_file_of_an_earlier_version_gives_the_same_replies(toy: ToyAdapter, name: str, tmp_path: Path) -> None:
    made = engine(toy, name)
    header = made.mind.load(STATES / f"{name}.safetensors")
    assert [lesson.id for lesson in header.lessons] == [f"lesson{i}" for i in range(len(ROWS[name].lessons))]
    for question, expected in LOGITS[name].items():
        assert np.allclose(logits_of(made, question)[-1][: len(expected)], expected, atol=2e-4), question
    made.mind.save(tmp_path / "again.safetensors")
    before, after = (state_file.load(path) for path in (STATES / f"{name}.safetensors", tmp_path / "again.safetensors"))
    assert before[1].lessons == after[1].lessons and before[0].keys() == after[0].keys()
    assert all(np.array_equal(before[0][key], after[0][key]) for key in before[0])
