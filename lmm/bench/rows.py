"""Replies -> one row of the result: scores with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmm.bench.datasets import Edit
from lmm.bench.metrics import Groups, bootstrap, contains, exact, mean, median, percentile, ratio

Row = dict[str, Any]
SCORES = ("reliability", "generalization", "locality")


@dataclass
class Answers:
    """What came back. Replies and `plain` (those without memory) by prompt; `hits` by (prompt, answer)."""

    replies: Mapping[str, str]
    compared: Mapping[str, str] = field(default_factory=dict)
    plain: Mapping[str, str] = field(default_factory=dict)
    hits: Mapping[tuple[str, str], Sequence[bool]] = field(default_factory=dict)
    fired: Mapping[str, bool] = field(default_factory=dict)  # did the memory recall something for this prompt?


def score(edits: Sequence[Edit], known: Sequence[str], answers: Answers, seed: int = 0) -> Row:
    """All scores of a memory that was taught `edits`. Null: the data has no such prompts, or they were left out."""
    old = superseded(edits)
    valid = [edit for i, edit in enumerate(edits) if i not in old]
    groups = _groups(valid, edits, known, answers)
    row: Row = {name: mean(found) for name, found in groups.items()}
    tenth = max(1, len(edits) // 10)
    reliable = {id(edit): group for edit, group in zip(valid, groups["reliability"], strict=True)}
    first = _groups([e for e in edits[:tenth] if id(e) in reliable], edits[:tenth], (), answers)
    return row | {
        "mean_score": _mean_score(row),
        "mean_score_contains": _mean_score(row, "_contains"),
        "superseded": len(old),
        "first_tenth": {name: mean(first[name]) for name in SCORES},
        "retention_first": mean([reliable[id(e)] for e in edits[:tenth] if id(e) in reliable]),
        "retention_last": mean([reliable[id(e)] for e in edits[-tenth:] if id(e) in reliable]),
        "teacher_forced": _teacher_forced(valid, answers),
        "fired": _fired(valid, known, answers),
        "intervals": {name: bootstrap(found, seed) for name, found in groups.items() if mean(found) is not None},
        "counts": {name: sum(map(len, found)) for name, found in groups.items()},
    }


def superseded(edits: Sequence[Edit]) -> set[int]:
    """Edits whose prompt is taught again later with another answer: only the later answer counts."""
    last = {edit.prompt: i for i, edit in enumerate(edits)}
    return {i for i, edit in enumerate(edits) if edits[last[edit.prompt]].answer != edit.answer}


def _mean_score(row: Row, suffix: str = "") -> float:
    """Of the scores that the data has; a score without a form of that suffix counts as it is."""
    found = [row.get(name + suffix, row[name]) for name in SCORES]
    kept = [value for value in found if value is not None]
    return sum(kept) / len(kept)


def _groups(valid: Sequence[Edit], edits: Sequence[Edit], known: Sequence[str], answers: Answers) -> dict[str, Groups]:
    """For each score, a list for each edit of 0 or 1 for each of its prompts."""

    def asked(edit: Edit, prompts: Sequence[str], right: Callable[[str, Sequence[str]], bool]) -> list[float]:
        return [float(right(answers.replies[p], edit.answers)) for p in prompts]

    def portable(edit: Edit, kind: str = "") -> list[float]:
        wanted = [q for q in edit.portability if kind in ("", q.kind) and q.prompt in answers.replies]
        return [float(exact(answers.replies[q.prompt], q.answers)) for q in wanted]

    def same(prompts: Sequence[str]) -> list[float]:
        return [float(answers.compared[p] == answers.plain[p]) for p in prompts if p in answers.compared]

    corrected = [edit for edit in valid if edit.earlier is not None]
    earlier = [(edit, (edit.earlier or "",)) for edit in corrected]
    return {
        "reliability": [asked(e, [e.prompt], exact) for e in valid],
        "generalization": [asked(e, e.rephrases, exact) for e in valid],
        "locality": [same(e.locality) for e in edits],
        "known_unchanged": [same([p]) for p in known],
        "reliability_contains": [asked(e, [e.prompt], contains) for e in valid],
        "generalization_contains": [asked(e, e.rephrases, contains) for e in valid],
        "portability": [portable(e) for e in valid],
        "one_hop": [portable(e, "Reasoning") for e in valid],
        "later_answer": [asked(e, [e.prompt], exact) for e in corrected],
        "earlier_answer": [[float(exact(answers.replies[e.prompt], old))] for e, old in earlier],
        "earlier_answer_contains": [[float(contains(answers.replies[e.prompt], old))] for e, old in earlier],
    }


def _teacher_forced(valid: Sequence[Edit], answers: Answers) -> dict[str, float | None]:
    """Token accuracy, averaged over tokens and then over prompts, the end of turn left out, as is usual."""

    def accuracy(pairs: Sequence[tuple[str, str]]) -> float | None:
        rows = [answers.hits[pair][:-1] for pair in pairs if pair in answers.hits]
        return mean([[sum(row) / len(row)] for row in rows if row])

    return {
        "reliability": accuracy([(e.prompt, e.answer) for e in valid]),
        "generalization": accuracy([(p, e.answer) for e in valid for p in e.rephrases]),
    }


def _fired(valid: Sequence[Edit], known: Sequence[str], answers: Answers) -> dict[str, float | None]:
    """How often the memory recalled anything at all: not a score, but it tells where one is lost."""

    def share(prompts: Sequence[str]) -> float | None:
        return mean([[float(answers.fired[p])] for p in prompts if p in answers.fired])

    return {
        "reliability": share([e.prompt for e in valid]),
        "generalization": share([p for e in valid for p in e.rephrases]),
        "locality": share([p for e in valid for p in e.locality]),
        "known_unchanged": share(known),
    }


def costs(lessons: Sequence[Mapping[str, Any]]) -> Row:
    """What the lessons cost, from the records of teaching; a lesson is compared with a reply without memory."""
    seconds = [x["seconds"] for x in lessons if x.get("seconds") is not None]
    reply = median([x["reply_s"] for x in lessons if x.get("reply_s") is not None])
    return {
        "lessons": len(lessons),
        "failed_lessons": sum("error" in x for x in lessons),
        "lesson_s_median": median(seconds),
        "lesson_s_p95": percentile(seconds, 95),
        "lesson_s_total": sum(seconds),
        "lesson_vs_reply": ratio(median(seconds), reply),
        "lesson_steps_median": median([x["steps"] for x in lessons if x.get("steps") is not None]),
        "lesson_loss_median": median([x["loss_after"] for x in lessons if x.get("loss_after") is not None]),
        "teaching_reply_s": reply,
    }
