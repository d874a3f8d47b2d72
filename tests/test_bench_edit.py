"""The runner, on the toy model: an honest memory scores full marks, and no cheat is rewarded."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import benching
import pytest
from benching import KnowsTheOrder, Loose, PeeksAtTheBatch, Told, adapter, edits

from lmm.adapters.toy import ToyAdapter
from lmm.bench import edit, measure, plan, runner
from lmm.bench.edit import Bench
from lmm.bench.peers import Nothing
from lmm.bench.settings import EditSettings
from lmm.bench.store import Folder
from lmm.engine.mind import Mind
from lmm.errors import UsageError
from lmm.lesson import Lesson
from lmm.memory.base import Memory

pytestmark = pytest.mark.slow  # whole runs of a benchmark

KNOWN = ["sun", "moon"]
FAST = frozenset({"speed", "perplexity"})


def bench(folder: Path, model: ToyAdapter | None = None, sizes: tuple[int, ...] = (6,), **changes: Any) -> Bench:
    settings = EditSettings(sizes=sizes, **{"skip": FAST, "max_tokens": 40, **changes})
    return Bench(model or adapter(), edits(sizes[-1]), KNOWN, None, Folder(folder, {"sizes": list(sizes)}), settings)


def row_of(kind: type[Memory], folder: Path, **changes: Any) -> dict[str, Any]:
    return bench(folder, **changes).run(kind.name, kind)[-1]


@pytest.fixture(autouse=True)
def fresh_records() -> None:
    for kind in (Told, *Told.__subclasses__()):
        kind.heard, kind.learned = [], 0


def test_the_honest_memory_gets_full_marks(tmp_path: Path) -> None:
    row = row_of(Told, tmp_path)
    scores = ("reliability", "generalization", "locality", "known_unchanged", "retention_first", "retention_last")
    assert {name: row[name] for name in scores} == dict.fromkeys(scores, 1.0)
    assert row["teacher_forced"] == {"reliability": 1.0, "generalization": 1.0}
    assert row["fired"] == {"reliability": 1.0, "generalization": 1.0, "locality": 0.0, "known_unchanged": 0.0}
    assert (row["lessons"], row["failed_lessons"], row["lesson_steps_median"]) == (6, 0, 1)
    assert row["bytes_per_lesson"] > 4  # an array of one number, and the text


def test_without_a_memory_nothing_is_known_and_nothing_changes(tmp_path: Path) -> None:
    row = row_of(Nothing, tmp_path)
    assert (row["reliability"], row["locality"], row["known_unchanged"]) == (0.0, 1.0, 1.0)
    assert row["lesson_s_median"] is row["bytes_per_lesson"] is None


def test_several_sizes_are_scored_each_and_nothing_is_asked_before_all_is_taught(tmp_path: Path) -> None:
    rows = bench(tmp_path, sizes=(2, 4, 8)).run("told", Told)
    assert [(row["edits"], row["reliability"], row["lessons"]) for row in rows] == [(2, 1, 2), (4, 1, 4), (8, 1, 8)]
    assert [row["counts"]["locality"] for row in rows] == [4, 8, 16]
    kinds = [kind for kind, _ in Told.heard]
    assert kinds == ["lesson"] * 8 + ["prompt"] * (len(kinds) - 8)
    assert Told.learned == 8


def test_teaching_shows_prompts_and_answers_and_nothing_else(tmp_path: Path) -> None:
    """A memory that would have to see the locality prompts to protect them never sees them in time."""
    row_of(Told, tmp_path)
    taught = edits(6)
    assert [text for kind, text in Told.heard if kind == "lesson"] == [f"{e.prompt}|{e.answer}||()" for e in taught]


# cheats -----------------------------------------------------------------------------------------------------
def test_what_is_not_in_the_saved_state_is_gone(tmp_path: Path) -> None:
    row = row_of(benching.Remembers, tmp_path)
    assert (row["reliability"], row["generalization"]) == (0.0, 0.0)


def test_teacher_forcing_is_not_rewarded(tmp_path: Path) -> None:
    row = row_of(benching.Echoes, tmp_path)
    assert row["teacher_forced"]["reliability"] == 1.0
    assert (row["reliability"], row["generalization"]) == (0.0, 0.0)


def test_saying_every_answer_is_not_rewarded(tmp_path: Path) -> None:
    row = row_of(benching.Shotgun, tmp_path)
    assert row["reliability"] == 0.0
    assert row["reliability_contains"] > 0.0


def test_answering_whatever_is_asked_costs_locality(tmp_path: Path) -> None:
    row = row_of(benching.Everywhere, tmp_path)
    assert (row["locality"], row["known_unchanged"]) == (0.0, 0.0)
    assert row["reliability"] < 0.5


def test_guessing_what_kind_a_prompt_is_of_is_not_rewarded(tmp_path: Path) -> None:
    """By its neighbours, or by its place: a loose rule has the locality of a loose rule."""
    for kind in (Loose, PeeksAtTheBatch, KnowsTheOrder):
        row = row_of(kind, tmp_path / kind.name)
        assert row["locality"] < 0.5, kind.name


def test_writing_the_answers_into_every_prompt_costs_locality(tmp_path: Path) -> None:
    row = row_of(benching.Prompter, tmp_path)
    assert row["locality"] < 1.0
    assert row["known_unchanged"] < 1.0


@pytest.mark.parametrize("kind", [benching.Mutates, benching.LeavesTap])
def test_changing_the_model_outside_the_state_ends_the_run(tmp_path: Path, kind: type[Memory]) -> None:
    with pytest.raises(measure.BenchError, match=f"{kind.name!r} left the model changed"):
        row_of(kind, tmp_path)
    assert not (tmp_path / kind.name / "rows.json").exists()


def test_a_fact_corrected_twice_is_taught_twice_and_the_later_answer_counts(tmp_path: Path) -> None:
    class First(Told):
        """Never gives up what it learned first."""

        name = "first"

        def fires(self, lesson: Lesson, text: str) -> bool:
            return lesson.answer == "Ulm" and super().fires(lesson, text)

    made = bench(tmp_path)
    made.edits = [replace(e, earlier="Ulm") for e in edits(6)]
    row = made.run("told", Told)[0]
    assert (row["lessons"], row["reliability"]) == (12, 1.0)
    assert (row["later_answer"], row["earlier_answer"], row["earlier_answer_contains"]) == (1.0, 0.0, 0.0)
    row = made.run("first", First)[0]
    assert (row["later_answer"], row["earlier_answer"]) == (0.0, 1.0)


def test_a_lesson_that_is_refused_counts_as_not_known(tmp_path: Path) -> None:
    row = row_of(benching.Refuses, tmp_path)
    assert (row["reliability"], row["failed_lessons"], row["lessons"]) == (0.5, 3, 6)


# the same batches -------------------------------------------------------------------------------------------
def test_prompts_are_compared_in_the_same_lists_with_and_without_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: dict[str, list[tuple[str, ...]]] = {"identity": [], "told": []}
    original = runner.ask_many

    def listening(mind: Mind, prompts: Any, *rest: Any, **more: Any) -> Any:
        calls[mind.memory.name].append(tuple(prompts))
        return original(mind, prompts, *rest, **more)

    monkeypatch.setattr(runner, "ask_many", listening)
    monkeypatch.setattr(plan, "LIST_SIZE", 5)
    made = bench(tmp_path, sizes=(2, 8))
    made.run("told", Told)
    plain, told = calls["identity"], calls["told"]
    assert len(plain) > 3 and plain == [a.prompts for a in made.plan.plain_lists()]
    assert told == [a.prompts for size in (2, 8) for a in made.plan.lists(size)], "after 2 edits, then after 8"
    assert set(plain) <= set(told) and all(len(set(c)) == len(c) for c in told)
    compared = {p for e in edits(8) for p in e.locality} | set(KNOWN)
    assert compared == made.plan.compared <= {p for c in plain for p in c}


def test_kinds_of_prompts_are_mixed() -> None:
    some = [replace(e, locality=(e.prompt.replace("capital", "airport"),)) for e in edits(20)]  # of equal length
    (asked,) = plan.make_plan(some, (20,), [], adapter().format, frozenset({"known"})).lists(20)
    kinds = "".join("l" if p.startswith("airport") else "p" for p in asked.prompts if p[:1] in "ac")
    assert kinds.count("l") == kinds.count("p") == 20 and kinds.count("lp") > 4


def test_a_prompt_that_many_edits_share_is_asked_once(tmp_path: Path) -> None:
    shared = [replace(e, locality=("size A", *e.locality)) for e in edits(4)]
    made = plan.make_plan(shared, (2, 4), ["size A"], adapter().format)
    prompts = [p for asked in made.lists(4) for p in asked.prompts]
    assert len(prompts) == len(set(prompts)) == 16 and len(made.compared) == 8
    skipped = plan.make_plan(shared, (4,), KNOWN, adapter().format, frozenset({"locality", "known"}))
    assert skipped.plain_lists() == [] and not skipped.compared


# interruptions ----------------------------------------------------------------------------------------------
TIMES = (
    "bytes_per_lesson",
    "bytes_per_lesson_max",
    "lesson_s_median",
    "lesson_s_p95",
    "lesson_s_total",
    "asking_s",
    "date",
)


def timeless(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what the clock changes (the time of a lesson is part of its text), as JSON gives it back."""
    return json.loads(json.dumps({name: value for name, value in row.items() if name not in TIMES}))


class Interrupted(Told):
    name = "interrupted"
    stop_at = 3

    def learn(self, *args: Any) -> Any:
        if type(self).learned == type(self).stop_at:
            type(self).stop_at = -1
            raise KeyboardInterrupt
        return super().learn(*args)


@pytest.mark.parametrize("killed", [False, True])
def test_teaching_goes_on_where_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """Ctrl-C saves what was taught; after a kill, the last of the regular saves is gone on with."""
    Interrupted.stop_at = 3
    expected = timeless(row_of(Told, tmp_path / "whole"))
    if killed:
        monkeypatch.setattr(runner.Taught, "__exit__", lambda self, *error: None)
    with pytest.raises(KeyboardInterrupt):
        row_of(Interrupted, tmp_path / "cut", save_every_s=0.0 if killed else 1e9)
    kept = sorted(p.name for p in (tmp_path / "cut" / "interrupted").glob("taught-*"))
    assert kept == ["taught-3.safetensors"]
    row = timeless(row_of(Interrupted, tmp_path / "cut"))
    assert Interrupted.learned == 6
    assert row | {"memory": "told"} == expected
    lines = (tmp_path / "cut" / "interrupted" / "lessons.jsonl").read_text().splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == [e.prompt for e in edits(6)]


def test_asking_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    original = runner.ask_many
    monkeypatch.setattr(plan, "LIST_SIZE", 3)

    def failing(mind: Mind, prompts: Any, *rest: Any, **more: Any) -> Any:
        if mind.memory.name == "told":
            if len(asked) == 4:
                raise KeyboardInterrupt
            asked.append(tuple(prompts))
        return original(mind, prompts, *rest, **more)

    monkeypatch.setattr(runner, "ask_many", failing)
    with pytest.raises(KeyboardInterrupt):
        row_of(Told, tmp_path)
    first = list(asked)
    # a reply that was cut off while it was written is asked again
    newest = max((tmp_path / "told" / "asked-6").glob("*.jsonl"), key=lambda p: p.stat().st_mtime_ns)
    newest.write_text(newest.read_text()[:-10])
    asked[:] = [()] * 5  # past the interruption
    row = row_of(Told, tmp_path)
    again = asked[5:]
    assert set(again) & set(first) == {first[-1]}
    assert (row["reliability"], Told.learned) == (1.0, 6)


def test_finished_rows_are_not_done_again_unless_options_or_code_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = row_of(Told, tmp_path)
    heard = len(Told.heard)
    assert timeless(row_of(Told, tmp_path)) == timeless(row)
    assert len(Told.heard) == heard
    monkeypatch.setattr(edit, "code_digest", lambda *names: "other code")
    row_of(Told, tmp_path)
    assert Told.learned == 12


def test_a_folder_holds_one_run(tmp_path: Path) -> None:
    row_of(Told, tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"other settings \(sizes: \[6\] there, \[3\] now\).*--no-resume"):
        Folder(tmp_path, {"sizes": [3]})
    Folder(tmp_path, {"sizes": [3]}, resume=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt", "run.json"]


def test_starting_over_leaves_a_folder_alone_that_is_not_a_run(tmp_path: Path) -> None:
    (tmp_path / "told").mkdir()
    (tmp_path / "told" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="is no part of a run"):
        row_of(Told, tmp_path)
    Folder(tmp_path, {"sizes": [6]}, resume=False)
    assert (tmp_path / "told" / "thesis.tex").read_text() == "years of work"


# cost and capability ----------------------------------------------------------------------------------------
def test_cost_and_perplexity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "text.txt"
    text.write_text("a quick brown fox jumps over the lazy dog. " * 40)
    settings = EditSettings(sizes=(4,), max_tokens=12)
    monkeypatch.setattr(edit.measure.windows, "__defaults__", (3, 32))
    made = Bench(adapter(), edits(4), KNOWN, text, Folder(tmp_path / "run", {}), settings)
    row = made.run("told", Told)[0]
    assert row["ppl_ratio"] == 1.0
    assert row["lesson_s_median"] > 0
    assert row["lesson_vs_reply"] > 0
    assert row["reply_s"] > 0
    assert 0.1 < row["tokens_per_s_ratio"] < 10
    loud = made.run("everywhere", benching.Everywhere)[0]
    assert loud["ppl_ratio"] > 1.5


def test_the_largest_lesson_counts_what_is_its_own(tmp_path: Path) -> None:
    row = row_of(benching.Uneven, tmp_path)
    item = adapter().ops.to_numpy(adapter().ops.zeros((1,))).nbytes
    assert 1001 * item < row["bytes_per_lesson_max"] < 1001 * item + 300  # and its text
    assert row_of(Told, tmp_path)["bytes_per_lesson_max"] < item + 300
    for kind in (benching.Shares, Nothing):
        assert row_of(kind, tmp_path)["bytes_per_lesson_max"] is None


class Hears(Told):
    """Would learn from every message of the user."""

    name = "hears"
    learns_from = "messages"


def test_the_memory_learns_nothing_from_the_clock(tmp_path: Path) -> None:
    row = row_of(Hears, tmp_path, skip=frozenset({"perplexity"}))
    assert row["reply_s"] > 0
    assert Hears.learned == 6
    assert [text.split("|")[0] for kind, text in Hears.heard if kind == "lesson"] == [e.prompt for e in edits(6)]


def test_settings_that_make_no_sense() -> None:
    for changes, message in (
        ({"sizes": (3, 2)}, "rising numbers"),
        ({"sizes": ()}, "rising numbers"),
        ({"sizes": (2,), "skip": frozenset({"locallity"})}, "skip must be one of locality, .* not 'locallity'"),
        ({"sizes": (2,), "batch_size": 0, "seed": -1}, "batch_size must be 1 or above.*seed must be 0 or above"),
    ):
        with pytest.raises(UsageError, match=message):
            EditSettings(**changes)  # type: ignore[arg-type]
