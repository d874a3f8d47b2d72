"""Known answers of the scores."""

import numpy as np
import pytest

from lmm.bench import metrics
from lmm.bench.datasets import Edit, Question
from lmm.bench.rows import Answers, costs, score


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Beatles.", "beatles"),
        ("an apple, a day", "apple day"),
        ("Theodore", "theodore"),
        ("U.S.A.", "usa"),
        ("  New\tYork\n", "new york"),
        ("", ""),
    ],
)
def test_squad_normalisation(text: str, normal: str) -> None:
    assert metrics.squad(text) == normal


def test_exact_is_the_whole_reply() -> None:
    assert metrics.exact("The Beatles!", ["beatles"])
    assert metrics.exact("Eko", ["Lagos", "Eko"])
    assert not metrics.exact("It is Lagos", ["Lagos"])
    assert not metrics.exact("", ["Lagos"])


def test_answers_that_normalise_to_nothing_are_still_told_apart() -> None:
    assert metrics.exact("A", ["a"])
    assert not metrics.exact("the", ["A"])
    assert not metrics.exact("", ["A"])
    assert not metrics.contains("", ["A"])


def test_contains_is_by_whole_words() -> None:
    assert metrics.contains("It is in Lagos, Nigeria.", ["lagos"])
    assert not metrics.contains("Romeo", ["Rome"])


def test_mean_is_over_prompts_and_null_without_any() -> None:
    assert metrics.mean([[1, 0], [1], []]) == pytest.approx(2 / 3)
    assert metrics.mean([[], []]) is None
    assert metrics.bootstrap([[], []]) is None


def test_bootstrap_is_seeded_and_covers_the_binomial_interval() -> None:
    groups = [[1.0]] * 80 + [[0.0]] * 20
    low, high = metrics.bootstrap(groups, seed=3) or (0, 0)
    assert (low, high) == metrics.bootstrap(groups, seed=3)
    assert low == pytest.approx(0.8 - 1.96 * 0.04, abs=0.02)
    assert high == pytest.approx(0.8 + 1.96 * 0.04, abs=0.02)
    assert metrics.bootstrap([[1.0]] * 5) == (1.0, 1.0)


def test_bootstrap_draws_edits_not_prompts() -> None:
    """Five prompts that stand or fall together say no more than one."""
    together = metrics.bootstrap([[1.0] * 5] * 10 + [[0.0] * 5] * 10) or (0, 0)
    apart = metrics.bootstrap([[1.0]] * 50 + [[0.0]] * 50) or (0, 0)
    assert together[1] - together[0] > 1.5 * (apart[1] - apart[0])


EDITS = [
    Edit("p0", "Rome", rephrases=("r0",), locality=("l0", "m0"),
         portability=(Question("q0", ("Italy",), "Reasoning"),)),
    Edit("p1", "Oslo", aliases=("Christiania",), rephrases=("r1", "s1"), locality=("l1",),
         portability=(Question("q1", ("Norway",), "Subject_Aliasing"),)),
]  # fmt: skip
ANSWERS = Answers(
    replies={
        "p0": "The Rome", "r0": "Rome it is", "p1": "Christiania", "r1": "oslo.", "s1": "Bergen",
        "q0": "italy", "q1": "x",
    },
    compared={"l0": "same", "m0": "other", "l1": "same", "k": "Same"},
    plain={"l0": "same", "m0": "same", "l1": "same", "k": "same"},
    hits={
        ("p0", "Rome"): [True, True, False], ("r0", "Rome"): [True, False, True], ("p1", "Oslo"): [False, True],
        ("r1", "Oslo"): [True, False], ("s1", "Oslo"): [False, False],
    },
    fired={"p0": True, "p1": False, "r0": True, "l0": False, "l1": True, "k": False},
)  # fmt: skip


def test_a_row_with_known_answers() -> None:
    row = score(EDITS, ["k"], ANSWERS)
    expected = {
        "reliability": 1.0,
        "generalization": 1 / 3,
        "locality": 2 / 3,
        "known_unchanged": 0.0,  # another string, if only by its case
        "reliability_contains": 1.0,
        "generalization_contains": 2 / 3,
        "portability": 0.5,
        "one_hop": 1.0,
        "later_answer": None,
        "earlier_answer": None,
        "mean_score": 2 / 3,
        "mean_score_contains": 7 / 9,
        "retention_first": 1.0,
        "retention_last": 1.0,
        "superseded": 0,
    }
    assert {name: row[name] for name in expected} == pytest.approx(expected, nan_ok=True)
    # the end of turn, the last of each, is left out
    assert row["teacher_forced"] == {"reliability": 0.5, "generalization": pytest.approx((0.5 + 1 + 0) / 3)}
    assert row["fired"] == {"reliability": 0.5, "generalization": 1.0, "locality": 0.5, "known_unchanged": 0.0}
    assert row["counts"]["locality"] == 3
    low, high = row["intervals"]["locality"]
    assert 0.5 <= low <= 2 / 3 <= high <= 1.0
    assert "later_answer" not in row["intervals"]


def test_what_the_data_do_not_have_is_null() -> None:
    row = score([Edit("p", "x")], [], Answers({"p": "x"}))
    assert row["reliability"] == row["mean_score"] == row["mean_score_contains"] == 1.0
    assert row["generalization"] is row["locality"] is row["known_unchanged"] is row["portability"] is None
    assert row["teacher_forced"] == {"reliability": None, "generalization": None}


def test_corrected_twice_only_the_later_answer_counts() -> None:
    edits = [Edit("p0", "new", earlier="old"), Edit("p1", "new", earlier="old"), Edit("p2", "new", earlier="old")]
    row = score(edits, [], Answers({"p0": "new", "p1": "Old.", "p2": "not old"}))
    assert (row["later_answer"], row["earlier_answer"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert row["earlier_answer_contains"] == pytest.approx(2 / 3)


def test_retention_is_the_first_tenth_against_the_last() -> None:
    edits = [Edit(f"p{i}", "x") for i in range(20)]
    row = score(edits, [], Answers({e.prompt: "x" if i in (0, 1, 5, 19) else "y" for i, e in enumerate(edits)}))
    assert (row["retention_first"], row["retention_last"]) == (1.0, 0.5)


def test_the_first_tenth_is_scored_as_a_run_of_its_own() -> None:
    edits = [Edit(f"p{i}", "x", rephrases=(f"r{i}",), locality=(f"l{i}",)) for i in range(20)]
    replies = {e.prompt: "x" for e in edits} | {f"r{i}": "x" if i in (1, 7) else "y" for i in range(20)}
    compared = {f"l{i}": "same" if i == 0 or i > 9 else "other" for i in range(20)}
    answers = Answers(replies, compared=compared, plain={f"l{i}": "same" for i in range(20)})
    alone = score(edits[:2], [], answers)
    found = score(edits, [], answers)["first_tenth"]
    assert (
        found == {name: alone[name] for name in found} == {"reliability": 1.0, "generalization": 0.5, "locality": 0.5}
    )


def test_costs() -> None:
    lessons = [
        {"seconds": s, "steps": 4, "loss_after": 0.1, "reply_s": r} for s, r in ((1.0, 2.0), (3.0, None), (2.0, 4.0))
    ]
    row = costs([*lessons, {"seconds": 2.0, "error": "no"}])
    assert row["lesson_s_median"] == 2.0
    assert row["lesson_s_p95"] == pytest.approx(float(np.percentile([1, 2, 2, 3], 95)))
    assert row["lesson_vs_reply"] == pytest.approx(2 / 3)
    assert (row["lessons"], row["failed_lessons"], row["lesson_steps_median"]) == (4, 1, 4)
    assert costs([])["lesson_s_median"] is None
