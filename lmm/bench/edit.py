"""The runner: replies without memory, then each memory taught and asked, each step kept on disk as it is done.

Nothing is asked before all lessons are taught. Whoever answers is a new instance of the memory that has only the saved
file, as in a user's next session: what the old instance kept in itself, or was asked before, cannot help it. (A memory
that hides answers in its class or module is not stopped: it is code of the same process. Read it.)
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmm.bench import measure, rows
from lmm.bench.datasets import Edit
from lmm.bench.plan import AskingPlan, lessons_of, make_plan
from lmm.bench.runner import Build, Runner, Taught, Track, begun_with, last_saved, quietly
from lmm.bench.settings import EditSettings
from lmm.bench.store import (
    LEARNING,
    READING,
    SCORING,
    Folder,
    KeptReplies,
    code_digest,
    digest,
    read_json,
    read_lines,
    stamp,
    write_json,
)
from lmm.engine.mind import Mind
from lmm.engine.scoring import token_hits
from lmm.errors import LearningError, UsageError
from lmm.lesson import Lesson
from lmm.memory.identity import Identity

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter

CLOCKS = 8  # replies that are timed among the lessons of a run, so that both meet the same machine


@dataclass
class Bench(Runner):
    """One adapter, one data set, one folder. `run(name, build)` gives the rows of one memory."""

    adapter: Adapter
    edits: Sequence[Edit]
    known: Sequence[str]
    text: Path | None
    folder: Folder
    settings: EditSettings
    track: Track = quietly

    def __post_init__(self) -> None:
        if len(self.edits) < self.settings.sizes[-1]:
            raise UsageError(f"the data has {len(self.edits)} edits, fewer than {self.settings.sizes[-1]}")
        self.plan: AskingPlan = make_plan(
            self.edits, self.settings.sizes, self.known, self.adapter.format, self.settings.skip
        )
        perplexity = self.text is not None and "perplexity" not in self.settings.skip
        self._windows = measure.windows(self.text, self.adapter) if perplexity and self.text else []
        self._plain: dict[str, str] | None = None
        self._plain_ppl: float | None = None

    def run(self, name: str, build: Build) -> list[rows.Row]:
        """The rows of one memory, one for each size; finished ones are read from the folder."""
        folder = self.folder.memory(name, _identity(build))
        kept, scored_by = read_json(folder / "rows.json") or {}, code_digest(SCORING)
        found: dict[str, rows.Row] = kept.get("rows", {}) if kept.get("scored_by") == scored_by else {}
        missing = [size for size in self.settings.sizes if str(size) not in found]
        if missing:
            self.baseline()
            self._teach(name, build, folder)
        for size in missing:
            found[str(size)] = self._judge(name, build, folder, size) | stamp()
            write_json(folder / "rows.json", {"scored_by": scored_by, "rows": found})
        return [found[str(size)] for size in self.settings.sizes]

    # without memory ------------------------------------------------------------------------------------------
    def baseline(self) -> None:
        """The replies that a memory must not change, asked in the same lists and batches as with it."""
        if self._plain is not None:
            return
        folder = self.folder.part("baseline")
        with self._session(Identity) as mind:
            records = self._ask(mind, self.plan.plain_lists(), KeptReplies(folder), "without memory: asking")
            if self._windows:
                path = folder / f"perplexity-{digest(self._windows, self._reading())}.json"
                value = read_json(path)
                if value is None:
                    advance = self.track("without memory: reading", len(self._windows))
                    value = measure.perplexity(mind, self._windows, advance)
                    write_json(path, value)
                self._plain_ppl = value
        self._plain = {prompt: record["reply"] for prompt, record in records.items()}

    # teaching ------------------------------------------------------------------------------------------------
    def _boundaries(self) -> dict[int, int]:
        """Number of edits -> number of lessons: a fact that is corrected takes two."""
        return {size: len(lessons_of(self.edits[:size])) for size in self.settings.sizes}

    def _teach(self, name: str, build: Build, folder: Path) -> None:
        """One lesson after another, through the call that the chat uses; the memory sees nothing else of the data."""
        lessons = lessons_of(self.edits[: self.settings.sizes[-1]])
        with self._session(build) as mind:
            if mind.memory.learns_from == "nothing":
                return
            done = last_saved(folder)
            if done == len(lessons):
                return
            if done:
                mind.load(folder / f"taught-{done}.safetensors")
            advance = self.track(f"{name}: teaching", len(lessons))
            advance(done)
            progress = Taught(mind, folder, done, set(self._boundaries().values()), self.settings.save_every_s)
            every = max(1, len(lessons) // CLOCKS)
            with progress:
                for i, lesson in enumerate(lessons[done:], done):
                    record = _learn(mind, lesson)
                    if i % every == 0 and "speed" not in self.settings.skip:
                        prompt = measure.CLOCK_PROMPTS[i // every % len(measure.CLOCK_PROMPTS)]
                        record["reply_s"] = measure.plain_reply_seconds(mind, prompt)[0]
                    progress.taught(record)
                    advance(1)

    # asking --------------------------------------------------------------------------------------------------
    def _judge(self, name: str, build: Build, folder: Path, size: int) -> rows.Row:
        """Ask everything of a new instance that has the file of `size` edits, and score it."""
        count, start = self._boundaries()[size], time.perf_counter()
        with self._session(build) as mind:
            teachable = mind.memory.learns_from != "nothing"
            if teachable:
                mind.load(folder / f"taught-{count}.safetensors")
            replies = KeptReplies(folder / f"asked-{size}")
            asked = self._ask(mind, self.plan.lists(size), replies, f"{name}: asking after {size}")
            measured = self._measure(mind, name, size)
            hits = self._hits(mind, self.edits[:size], name)
            state, largest = measure.state_bytes(mind), measure.largest_lesson(mind)
        told = {prompt: record["reply"] for prompt, record in asked.items()}
        answers = rows.Answers(
            replies=told,
            compared={prompt: reply for prompt, reply in told.items() if prompt in self.plan.compared},
            plain=self._plain or {},
            hits=hits,
            fired={prompt: bool(record["fired"]) for prompt, record in asked.items()},
        )
        taught = read_lines(folder / "lessons.jsonl")[:count]
        row: rows.Row = {"memory": name, "edits": size}
        row |= rows.score(self.edits[:size], self._known(), answers, self.settings.seed)
        row |= rows.costs(taught) | measured
        row |= {"bytes_per_lesson": state / count if teachable else None, "bytes_per_lesson_max": largest}
        return row | {"asking_s": time.perf_counter() - start, "options": build().options_dict()}

    def _known(self) -> Sequence[str]:
        return self.known if "known" not in self.settings.skip else ()

    def _measure(self, mind: Mind, name: str, size: int) -> rows.Row:
        row: rows.Row = {"ppl": None, "ppl_ratio": None}
        if self._windows:
            advance = self.track(f"{name}: reading after {size}", len(self._windows))
            row["ppl"] = measure.perplexity(mind, self._windows, advance)
            row["ppl_ratio"] = row["ppl"] / self._plain_ppl if self._plain_ppl else None
        if "speed" not in self.settings.skip:
            row |= measure.speed(mind, self.track(f"{name}: speed", len(measure.CLOCK_PROMPTS)))
        return row

    def _hits(self, mind: Mind, edits: Sequence[Edit], name: str) -> dict[tuple[str, str], list[bool]]:
        if "teacher-forced" in self.settings.skip:
            return {}
        pairs = list(dict.fromkeys((p, e.answer) for e in edits for p in (e.prompt, *e.rephrases)))
        prompts, answers = [p for p, _ in pairs], [a for _, a in pairs]
        return dict(zip(pairs, token_hits(mind, prompts, answers, self.settings.batch_size), strict=True))


def _identity(build: Build) -> str:
    """What a memory's lessons and replies depend on: options, code, and the file it begins with. Changed: it is taught
    anew."""
    memory = build()
    code = code_digest(READING + LEARNING, inspect.getsourcefile(type(memory)))
    return digest(memory.options_dict(), code, begun_with(build))


def _learn(mind: Mind, lesson: Lesson) -> dict[str, Any]:
    """A lesson that cannot be learned counts as not known; teaching goes on."""
    start = time.perf_counter()
    record: dict[str, Any] = {"prompt": lesson.prompt, "answer": lesson.answer}
    try:
        report = mind.learn(lesson)
    except LearningError as error:
        return record | {"error": str(error), "seconds": time.perf_counter() - start}
    return record | {
        "seconds": time.perf_counter() - start,
        "steps": report.steps,
        "loss_before": report.loss_before,
        "loss_after": report.loss_after,
    }
