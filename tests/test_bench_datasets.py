"""The parsers: records of our own in the shape of each data set."""

import json
from pathlib import Path
from typing import Any

import pytest

from lmm.bench.datasets import Edit, Question, load, load_mixed, prompts_of
from lmm.bench.plan import lessons_of
from lmm.bench.rows import superseded
from lmm.errors import LmmError, UsageError

ZSRE = {
    "subject": "Blue Gate", "target_new": "Lagos", "prompt": "Where is Blue Gate?", "ground_truth": ["Jos"],
    "rephrase_prompt": "In what city is Blue Gate?", "cond": "Jos >> Lagos || Where is Blue Gate?",
    "locality": {"Relation_Specificity": [{"prompt": "Blue Gate was built in", "ground_truth": ["1911"]}]},
    "portability": {
        "Reasoning": [{"prompt": "In what country is Blue Gate?", "ground_truth": "Nigeria"}],
        "Subject_Aliasing": [{"prompt": "Where is the Gate?", "ground_truth": [["Lagos", "Eko"]]}],
    },
}  # fmt: skip
QAEDIT = {
    "id": 7, "source": "TQA", "prompt": "Who made the Loom?", "target": "Ada Stone *", "subject": "the Loom",
    "rephrase": "The Loom is by whom?",
    "locality": [{"loc": "who won", "loc_ans": "x"}, {"loc": "who sang", "loc_ans": "y"}],
}  # fmt: skip
COUNTERFACT = {
    "case_id": 1, "prompt": "The Loom is made by", "target_new": "Ford", "subject": "The Loom", "ground_truth": "Fiat",
    "rephrase_prompt": "It rained. The Loom comes from", "locality_prompt": "The Spindle is made by",
    "locality_ground_truth": "Fiat",
}  # fmt: skip
KNOWN = {
    "known_id": 1, "subject": "Oslo", "attribute": "Norway", "template": "{} is in", "prompt": "Oslo is in",
    "relation_id": "P17",
}  # fmt: skip
OWN = {"prompt": "a?", "answer": "b", "aliases": ["B."], "rephrases": ["a2?", "a3?"], "locality": ["c?"]}


def coverage(first: str = "Ann", second: str = "Eve", subject: str = "Bob") -> dict[str, Any]:
    relation = {"id": "P25", "prompt": "The mother of {} is", "query": "Who is the mother of {}?", "label": "mother"}
    common = {"relation": relation, "subject": {"id": "Q1", "label": subject}}
    old, one, two = ({"id": f"Q{i}", "label": label} for i, label in enumerate(("Eva", first, second)))
    return {
        "triples": [{**common, "object": old}],
        "prerequisites": [],
        "type": "coverage",
        "edits": [{**common, "object": old, "new_object": one}, {**common, "object": one, "new_object": two}],
    }


def written(tmp_path: Path, *records: Any) -> Path:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(list(records)), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("format", "record", "expected"),
    [
        ("zsre", ZSRE, Edit(
            "Where is Blue Gate?", "Lagos", (), ("In what city is Blue Gate?",), ("Blue Gate was built in",),
            (Question("In what country is Blue Gate?", ("Nigeria",), "Reasoning"),
             Question("Where is the Gate?", ("Lagos", "Eko"), "Subject_Aliasing")),
        )),
        ("qaedit", QAEDIT, Edit(
            "Who made the Loom?", "Ada Stone", (), ("The Loom is by whom?",), ("who won", "who sang")
        )),
        ("counterfact", COUNTERFACT, Edit(
            "The Loom is made by", "Ford", (), ("It rained. The Loom comes from",), ("The Spindle is made by",)
        )),
        ("coverage", coverage(), Edit(
            "The mother of Bob is", "Eve", rephrases=("Who is the mother of Bob?",), earlier="Ann"
        )),
        ("known", KNOWN, Edit("Oslo is in", "Norway")),
        ("lmm", OWN, Edit("a?", "b", ("B.",), ("a2?", "a3?"), ("c?",))),
        ("lmm", {"prompt": "a?", "answer": "b"}, Edit("a?", "b")),
    ],
)  # fmt: skip
def test_every_format_is_read_and_recognised(tmp_path: Path, format: str, record: Any, expected: Edit) -> None:
    path = written(tmp_path, record, record)
    named, found = load(path, format), load(path)
    assert named.edits == (expected, expected)
    assert (found.format, found.edits) == (format, named.edits)
    assert load(path, limit=1).edits == (expected,)
    assert len(found.sha256) == 64


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"prompt": "a"}], "the format is not recognised from the fields prompt"),
        ([], "at least one record"),
        ([OWN, 3], "record 1 is not an object"),
        ([OWN, {"prompt": "a"}], "record 1 has no field 'answer'"),
        ([OWN, {**OWN, "answer": ["b"]}], r"record 1 does not fit format lmm: 'answer' must be text, not \['b'\]"),
        ([OWN, {**OWN, "locality": "c"}], "'locality' must be a list of texts, not 'c'"),
        ([{**OWN, "rephrase": ["x"]}], "unknown fields rephrase"),
        ([{**coverage(), "edits": coverage()["edits"][:1]}], "record 0 does not fit format coverage"),
        ([{**coverage(), "edits": [coverage()["edits"][0], coverage(subject="Al")["edits"][1]]}],
         "not of the same subject"),
        ([{**ZSRE, "locality": {"Relation_Specificity": [{"question": "x"}]}}], "no field 'prompt'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, records: list[Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(written(tmp_path, *records))


def test_unreadable_files_and_names(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UsageError, match="not JSON"):
        load(tmp_path / "bad.json")
    (tmp_path / "bad.json").write_text("[" * 200_000)
    with pytest.raises(UsageError, match="nested too deeply"):
        load(tmp_path / "bad.json")
    (tmp_path / "bad.json").write_text(r'[{"prompt": "a", "answer": "\ud800"}]')
    with pytest.raises(UsageError, match=r"record 0 does not fit format lmm: .* surrogates not allowed"):
        load(tmp_path / "bad.json")
    path = written(tmp_path, OWN)
    with pytest.raises(LmmError, match="did you mean 'zsre'"):
        load(path, "zrse")
    with pytest.raises(UsageError, match="has 1 records, fewer than the 2"):
        load(path, limit=2)


def test_several_files_take_turns(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = written(tmp_path / "one", *[{"prompt": f"q{i}", "answer": "a"} for i in range(3)])
    two = written(tmp_path / "two", QAEDIT)
    mixed = load_mixed([one, two])
    assert [edit.prompt for edit in mixed.edits] == ["q0", "Who made the Loom?", "q1", "q2"]
    assert load_mixed([one, two], limit=2).edits == mixed.edits[:2]
    assert mixed.format == "lmm+qaedit"
    assert mixed.sha256 not in (load(one).sha256, load_mixed([two, one]).sha256)
    assert load_mixed([two]).edits == load(two).edits
    with pytest.raises(UsageError, match="the 2 files have 4 records, fewer than the 5"):
        load_mixed([one, two], limit=5)


def test_only_prompts_and_answers_are_taught(tmp_path: Path) -> None:
    data = load(written(tmp_path, coverage(), coverage("Mia", "Lea", "Tom")))
    lessons = lessons_of(data.edits)
    assert [(x.prompt, x.answer) for x in lessons] == [
        ("The mother of Bob is", "Ann"),
        ("The mother of Bob is", "Eve"),
        ("The mother of Tom is", "Mia"),
        ("The mother of Tom is", "Lea"),
    ]
    assert len({x.id for x in lessons}) == 4
    assert {(x.statement, x.source, x.wordings, x.replaces) for x in lessons} == {("", "bench", (), "")}
    assert [x.id for x in lessons_of(data.edits[:1])] == [x.id for x in lessons[:2]]


def test_of_a_prompt_taught_twice_only_the_later_answer_counts() -> None:
    found = [Edit("a", "1"), Edit("b", "1"), Edit("a", "2"), Edit("b", "1"), Edit("a", "2")]
    assert superseded(found) == {0}
    assert superseded(found[:2]) == set()


def test_known_facts_are_asked_once(tmp_path: Path) -> None:
    assert prompts_of(written(tmp_path, KNOWN, KNOWN, {**KNOWN, "prompt": "Rome is in"})) == [
        "Oslo is in",
        "Rome is in",
    ]
