"""The exact-match tasks: true facts, disjoint splits, the same seed the same files."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from http import HTTPStatus
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lmm.bench import exact_facts, exact_match
from lmm.bench.exact_match import TASKS, read, write
from lmm.cli.app import app
from lmm.errors import UsageError

every_task = pytest.mark.parametrize("task", sorted(TASKS))


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def about(example: exact_match.TaskExample) -> tuple[str, str]:
    """HTTP has a port and is an acronym: two keys. The name and the number of an element are one."""
    return example.category.split()[0], example.key


@every_task
@pytest.mark.parametrize("count", [10, 137, 500])
def test_splits_have_no_key_in_common(task: str, count: int) -> None:
    splits = TASKS[task](count)
    test = [x for x in splits["test"] if not x.seen]
    parts = [splits["train"], splits["valid"], test]
    assert sum(map(len, parts)) == count
    for i, part in enumerate(parts):
        for other in parts[i + 1 :]:
            assert not {about(x) for x in part} & {about(x) for x in other}
    questions = [x.question for part in parts for x in part]
    assert len(set(questions)) == count, "a question was asked twice"
    assert abs(len(splits["train"]) - 0.8 * count) <= 0.05 * count + 4


@every_task
def test_what_was_seen_is_in_train(task: str) -> None:
    splits = TASKS[task](200)
    seen = [x for x in splits["test"] if x.seen]
    assert len(seen) == len(splits["test"]) - len(seen) > 0
    taught = {x.question: x.answer for x in splits["train"]}
    assert all(taught[x.question] == x.answer for x in seen)


@every_task
def test_wordings_ask_the_same_in_other_words(task: str) -> None:
    for examples in TASKS[task](200).values():
        for x in examples:
            forms = [x.question, *x.wordings]
            assert len(set(forms)) == 3
            assert x.category == "unit" or x.category.startswith("element") or all(x.key in form for form in forms)


@every_task
def test_the_same_seed_gives_the_same_files(task: str, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write(TASKS[task](60, seed), tmp_path / name)
    a, b, c = ((tmp_path / name / "train.jsonl").read_bytes() for name in "abc")
    assert a == b != c
    assert read(tmp_path / "a" / "train.jsonl") == TASKS[task](60, 1)["train"]


def test_exact_match_has_every_category_and_mostly_synthetic_pairs() -> None:
    kinds = Counter(x.category for part in TASKS["exact-match"](500).values() for x in part if not x.seen)
    assert kinds["synthetic"] == 340
    real = {"capital", "element name", "element number", "port", "http code", "unit", "acronym"}
    assert kinds.keys() - {"synthetic"} == real and min(kinds.values()) >= 20


def test_synthetic_pairs_are_one_to_one() -> None:
    pairs = [x for part in exact_match.exact_match(500, 3, ("synthetic",)).values() for x in part if not x.seen]
    assert len({x.key for x in pairs}) == len({x.answer for x in pairs}) == 500


@every_task
def test_no_file_is_empty_however_few_examples(task: str) -> None:
    for count in range(10, 60):
        for seed in (0, 1):
            splits = TASKS[task](count, seed)
            assert sum(not x.seen for part in splits.values() for x in part) == count
            keys = [{x.key for x in part if not x.seen} for part in splits.values()]
            assert all(keys) and not any(a & b for a, b in itertools.combinations(keys, 2)), (count, seed)


def test_a_category_that_is_named_twice_counts_once() -> None:
    assert exact_match.exact_match(30, 0, ("port", "port")) == exact_match.exact_match(30, 0, ("port",))


def test_no_key_is_its_own_value() -> None:
    for seed in range(60):
        parts = exact_match.exact_match(500, seed, ("synthetic",)).values()
        assert all(x.key != x.answer for part in parts for x in part)


def test_bad_requests_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown categories: capitol"):
        exact_match.exact_match(50, categories=("capitol",))
    with pytest.raises(UsageError, match="there are only"):
        exact_match.exact_match(1000, categories=("http",))
    with pytest.raises(UsageError, match="num_examples must be 10 to 20,000, not 9"):
        exact_match.preferences(9)
    for task in TASKS.values():
        with pytest.raises(UsageError, match="seed must be 0 or above, not -1"):
            task(50, -1)
    (tmp_path / "bad.jsonl").write_text('{"question": "a?", "answer": "b"}\n{"question": "a?"}\n')
    with pytest.raises(UsageError, match=r"bad.jsonl, line 2"):
        read(tmp_path / "bad.jsonl")
    with pytest.raises(UsageError, match="lmm data"):
        read(tmp_path / "none.jsonl")


# ---------------------------------------------------------------- the facts are true
def test_http_codes_are_those_of_the_standard_library() -> None:
    known = {str(status.value): status.phrase for status in HTTPStatus}
    assert {
        code: phrase for code, phrase in exact_facts.HTTP_CODES.items() if code in known and phrase != known[code]
    } == {}
    assert len(exact_facts.HTTP_CODES.keys() - known.keys()) == 0


def test_ports_are_those_that_the_system_knows() -> None:
    services = Path("/etc/services")
    if not services.exists():
        pytest.skip("this system has no /etc/services")
    rows = [line.split("#")[0].split() for line in services.read_text().splitlines()]
    known: dict[str, set[str]] = {}
    for row in rows:
        if len(row) > 1:
            for name in (row[0], *row[2:]):
                known.setdefault(name.lower(), set()).add(row[1].partition("/")[0])
    same = {name: port for name, port in exact_facts.PORTS.items() if name.lower() in known}
    assert len(same) >= 15
    assert all(port in known[name.lower()] for name, port in same.items())


def test_tables_are_whole() -> None:
    assert len(exact_facts.ELEMENTS) == 118 == len(set(exact_facts.ELEMENTS))
    where = {name: number for number, name in enumerate(exact_facts.ELEMENTS, 1)}
    assert (where["Oxygen"], where["Iron"], where["Gold"], where["Uranium"], where["Oganesson"]) == (8, 26, 79, 92, 118)
    assert len(exact_facts.CAPITALS) > 120 and exact_facts.CAPITALS["Australia"] == "Canberra"
    assert all(int(born) < int(died) < int(born) + 100 for _, _, born, died, _ in exact_facts.PEOPLE)
    assert all(
        entry for table in (exact_facts.CAPITALS, exact_facts.ACRONYMS) for pair in table.items() for entry in pair
    )
    initials = {"".join(c for c in long if c.isupper()) for long in exact_facts.ACRONYMS.values()}
    assert len(initials & exact_facts.ACRONYMS.keys()) > 50


def test_units_are_whole_multiples() -> None:
    units = {x[0].question: x[0].answer for x in exact_match._units()}
    assert units["How many metres are in one kilometre?"] == "1000"
    assert units["How many inches are in one mile?"] == "63360"
    assert units["How many hours are in one week?"] == "168"
    assert units["How many US cups are in one US gallon?"] == "16"


# ---------------------------------------------------------------- the command
@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_command_writes_three_files(task: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["data", task, "--num-examples", "50", "--seed", "4", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "of train again" in done.output
    assert {p.name for p in tmp_path.iterdir()} == {"train.jsonl", "valid.jsonl", "test.jsonl"}
    assert all({"question", "answer", "category", "wordings"} <= row.keys() for row in lines(tmp_path / "test.jsonl"))


def test_categories_can_be_chosen(tmp_path: Path) -> None:
    request = ["data", "exact-match", "--num-examples", "20", "--out", str(tmp_path), "--categories", "port,capital"]
    assert CliRunner().invoke(app, request).exit_code == 0
    assert {row["category"] for row in lines(tmp_path / "train.jsonl")} == {"port", "capital"}
