"""What is stated, used: facts told in a chat on the toy model, judged by the rules of the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import benching
import pytest
from scripted import ScriptedAdapter
from typer.testing import CliRunner

from lmm import registry
from lmm.bench import use
from lmm.bench.use_data import Asked, load
from lmm.cli.app import app
from lmm.config import Config
from lmm.engine import runtime
from lmm.errors import UsageError
from lmm.lesson import Lesson

ASKED = Asked("Who is Ada?", (("sister",), ("mother", "aunt")), ("brother",), "reverse")
FACTS = [
    {
        "id": "a",
        "category": ["family"],
        "before": [],
        "teach": "My sister's name is Ada.",
        "direct": {"q": "What is my sister's name?", "accept": ["Ada"], "forbid": []},
        "rephrase": [{"q": "Tell me my sister's name.", "accept": ["Ada"], "forbid": []}],
        "use": [
            {"q": "Who is Ada?", "accept": ["sister"], "forbid": [], "kind": "reverse"},
            {"q": "Is Ada my sister?", "accept": ["yes"], "forbid": ["no"], "kind": "yes_no"},
        ],
        "near": [{"q": "What is my brother's name?", "accept": [], "forbid": ["Ada"], "kind": "other_person"}],
    },
    {
        "id": "b",
        "category": ["work"],
        "before": ["Our port is 80.", "hello"],
        "teach": "Hmm, what a day.",
        "direct": {"q": "What is our port?", "accept": ["81"], "forbid": ["80"]},
        "rephrase": [],
        "use": [],
        "near": [],
    },
]


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("Ada is your sister.", True),
        ("SISTER!", True),
        ("Ada is a sisterly friend.", False),
        ("Your mother, and an aunt of Tom.", True),
        ("Your mother.", False),
        ("Your sister, not your brother.", False),
        ("I don't know who your sister is.", False),
        ("I do not have any information about your sister.", False),
        ("", False),
    ],
)
def test_when_a_reply_is_right(reply: str, right: bool) -> None:
    assert ASKED.right(reply) is right


def test_a_near_miss_has_only_what_must_not_be_said() -> None:
    near = Asked("What is my brother's name?", (), ("Ada",))
    assert near.right("I don't know.") and near.right("Adam") and not near.right("It is ada.")


def test_chinese_has_no_borders_between_words() -> None:
    assert Asked("?", (("表妹",),)).right("她是你的表妹。")
    assert not Asked("?", (("表妹",),)).right("我不知道她是不是你的表妹。")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "facts.jsonl"
    path.write_text("".join(json.dumps(fact) + "\n" for fact in FACTS))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"direct": None}, "line 2 is no fact: an object is expected, not None"),
        ({"use": ["Who?"]}, "line 2 is no fact: an object is expected, not 'Who\\?'"),
        ({"direct": {"q": "x", "accept": "Vera"}}, "line 2 is no fact: a list is expected in 'accept', not 'Vera'"),
        ({"direct": {"q": "x", "accept": []}}, "line 2 is no fact: any reply to 'x' would be right"),
        ({"before": "Hello"}, "line 2 is no fact: a list is expected in 'before'"),
        ({"teach": " "}, "line 2 is no fact: text is expected"),
        ({"use": [{"accept": ["x"]}]}, "line 2 has no field 'q'"),
        ({"near": [{"q": "x", "accept": [[1]]}]}, "line 2 is no fact"),
        ({"id": "a"}, "several facts have the id 'a'"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(data: Path, change: dict[str, Any], message: str) -> None:
    data.write_text(json.dumps(FACTS[0]) + "\n" + json.dumps({**FACTS[1], **change}) + "\n")
    with pytest.raises(UsageError, match=message):
        load(data)


def test_there_must_be_facts(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UsageError, match="has no facts"):
        load(tmp_path / "empty.jsonl")
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path / "none.jsonl")


class Hears(benching.Told):
    """Says the answer of whatever lesson has the question's words in it."""

    name = "hears"


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {**registry.MEMORIES, "hears": "test_bench_use:Hears"}
    monkeypatch.setattr(registry, "table", lambda group: table)
    monkeypatch.setattr(runtime, "load_adapter", lambda config: ScriptedAdapter(lambda text: "I don't know."))
    Hears.heard, Hears.learned = [], 0


def invoke(data: Path, out: Path, memories: str = "hears,none", *more: str) -> Any:
    words = ["bench", "use", "--data", str(data), "--memory", memories, "--out", str(out), *more]
    done = CliRunner().invoke(app, words)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_the_command_tells_asks_and_scores(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = invoke(data, out, "hears,none", "--json")
    hears, none = json.loads(done.stdout)
    assert (hears["memory"], hears["facts"], none["learned"]) == ("hears", 2, 0.0)
    assert hears["learned"] == 0.5, "nothing was learned of the second"
    assert hears["wrongly_learned"] == 0.0 and hears["near"] == none["near"] == 1.0
    assert none["direct"] == none["use"] == 0.0, "it always says that it does not know"
    assert hears["counts"] == {
        "learned": 2, "wrongly_learned": 2, "direct": 2, "rephrase": 1, "use": 2, "use_open": 1, "near": 1,
    }  # fmt: skip
    assert hears["kinds"]["use/reverse"][1] == hears["kinds"]["near/other_person"][1] == 1
    taught = [text for kind, text in Hears.heard if kind == "lesson"]
    assert len(taught) == 2 and "80" in taught[1], "what is said before is said, too"
    told = [json.loads(line) for line in (out / "hears" / "lessons.jsonl").read_text().splitlines()]
    assert [len(record["lessons"]) for record in told] == [1, 0]
    replies = [json.loads(x) for p in (out / "none" / "asked").glob("*.jsonl") for x in p.read_text().splitlines()]
    assert {r["prompt"] for r in replies} == {q for fact in load(data)[0] for q in fact.questions}
    assert "| hears | 2 | 0.500" in (out / "table.md").read_text()
    learned = Hears.learned
    assert json.loads(invoke(data, out, "hears,none", "--json").stdout)[0] | {"date": 0} == hears | {"date": 0}
    assert Hears.learned == learned, "what was done is not done again"
    with pytest.raises(UsageError, match="other settings"):
        invoke(data, out, "hears", "--max-tokens", "5")


def test_what_is_kept_whole_is_learned_beside_the_answer_that_is_recited() -> None:
    fact = use.load.__globals__["_fact"]("x", 1, json.dumps(FACTS[0]))
    lesson = {"answer": "It is small.", "statement": f"It is small, and {' '.join(fact.direct.accept[0])}."}
    for whole, learned in ((True, 1.0), (False, 0.0)):
        row = use.score(
            [fact], dict.fromkeys(fact.questions, ""), [{"id": fact.id, "lessons": [lesson], "whole": whole}]
        )
        assert row["learned"] == learned


@pytest.mark.parametrize(("memory", "whole"), [("keyed+notes", True), ("notes", True), ("keyed", False)])
def test_a_composition_keeps_whole_what_one_of_its_parts_does(memory: str, whole: bool) -> None:
    assert runtime.build_memory(Config(memory=memory)).takes(Lesson(statement="My dog is Rex.")) is whole


def test_a_lesson_of_another_fact_that_is_lost_counts_as_wrongly_learned() -> None:
    facts = [use.load.__globals__["_fact"]("x", 1, json.dumps(fact)) for fact in FACTS]
    replies = {question: "" for fact in facts for question in fact.questions}
    right = {"id": "a", "lessons": [{"answer": "Her name is Ada.", "statement": "x"}]}

    def wrongly(record: dict[str, Any]) -> float:
        return use.score(facts[:1], replies, [record])["wrongly_learned"]

    assert wrongly(right) == 0 and wrongly({"id": "a", "lessons": []}) == 0
    assert wrongly({**right, "gone": ["other"]}) == 1
    assert wrongly({"id": "a", "lessons": [{"answer": "Her name is Bob.", "statement": "My sister is Ada."}]}) == 1
    assert wrongly({"id": "a", "lessons": [{"answer": "", "statement": "My sister is Ada."}]}) == 0
