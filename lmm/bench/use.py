"""Is what a user states used where it matters? Facts told in a chat, then questions that ask for them, that need them,
and that only sound alike.

Everything is said through the chat's own turn, all facts into one memory, one conversation for each. Then a new
instance that has only the saved file answers each question in an empty conversation. See docs/notes.md.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmm.bench import pages, report
from lmm.bench.metrics import Groups, bootstrap, mean
from lmm.bench.plan import cut
from lmm.bench.run import builders
from lmm.bench.runner import Build, Runner, Taught, Track, all_rows, begun_with, last_saved, quietly
from lmm.bench.settings import RunSettings
from lmm.bench.store import (
    LEARNING,
    READING,
    Folder,
    KeptReplies,
    circumstances,
    code_digest,
    digest,
    model_of,
    read_lines,
    stamp,
    write_json,
)
from lmm.bench.use_data import SCORES, StatedFact, load
from lmm.chat.talk import Talk
from lmm.config import Config
from lmm.engine import runtime
from lmm.engine.engine import Engine
from lmm.errors import Cancelled, LearningError
from lmm.lesson import Lesson
from lmm.memory.base import LearnReport

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter

HEARING = (*READING, *LEARNING, "feedback", "chat/talk.py", "bench/use.py")
SHOWN = ("learned", "wrongly_learned", "direct", "rephrase", "use", "use_open", "near")
COLUMNS = (
    ("memory", "memory", "{}"),
    ("facts", "facts", "{}"),
    *((name.replace("_", " "), name, "{:.3f}") for name in SHOWN),
)
Row = dict[str, Any]
Teach = Callable[[Talk, StatedFact], Sequence["Lesson"]]


class Unseen:
    """Where a conversation is shown that nobody looks at."""

    failed: OSError | None = None
    is_terminal = False

    def reply(self, chunks: Generator[str, None, None], stopped: Callable[[], bool], markdown: bool) -> None:
        for _ in chunks:
            pass

    def say(self, text: str) -> None:
        pass

    def learning(self, summary: str, report: LearnReport | None) -> None:
        pass

    def confirm(self, lesson: Lesson) -> Lesson | None:
        return lesson


def tell(talk: Talk, fact: StatedFact) -> Sequence[Lesson]:
    """Say it all in a new conversation -> what was learned from the message that teaches."""
    talk.engine.start()
    for message in fact.before:
        talk.turn(message)
    turn = talk.turn(fact.teach)
    return turn.lessons if turn is not None else ()


@dataclass
class UseBench(Runner):
    """One adapter, one file of facts, one folder. `run(name, build)` gives the row of one memory."""

    adapter: Adapter
    facts: Sequence[StatedFact]
    folder: Folder
    settings: RunSettings
    track: Track = quietly
    teach: Teach = tell

    def run(self, name: str, build: Build) -> Row:
        """The row of one memory; what is done already is read from the folder."""
        memory = build()
        code = code_digest(HEARING, inspect.getsourcefile(type(memory)))
        key = digest(memory.options_dict(), code, begun_with(build))
        folder = self.folder.memory(name, key)
        self._tell_all(name, build, folder)
        with self._session(build) as mind:
            if mind.memory.learns_from != "nothing":
                mind.load(folder / f"taught-{len(self.facts)}.safetensors")
            lists = cut(list(dict.fromkeys(q for fact in self.facts for q in fact.questions)), self.adapter.format)
            records = self._ask(mind, lists, KeptReplies(folder / "asked"), f"{name}: asking")
        replies = {prompt: record["reply"] for prompt, record in records.items()}
        row: Row = {"memory": name} | score(
            self.facts, replies, read_lines(folder / "lessons.jsonl"), self.settings.seed
        )
        row |= {"options": memory.options_dict(), **stamp()}
        write_json(folder / "row.json", row)
        return row

    def _tell_all(self, name: str, build: Build, folder: Path) -> None:
        """One fact after another, each in a conversation of its own."""
        with self._session(build) as mind:
            done = last_saved(folder)
            if done == len(self.facts) or mind.memory.learns_from == "nothing":
                return
            if done:
                mind.load(folder / f"taught-{done}.safetensors")
            advance = self.track(f"{name}: telling", len(self.facts))
            advance(done)
            said = Config(max_tokens=self.settings.max_tokens)
            talk = Talk(Engine(mind, decoding=said), Unseen(), lambda: said)
            with Taught(mind, folder, done, {len(self.facts)}, self.settings.save_every_s) as progress:
                for fact in self.facts[done:]:
                    progress.taught(self._told(talk, fact))
                    advance(1)

    def _told(self, talk: Talk, fact: StatedFact) -> Row:
        """What came of telling one fact; what could not be learned is not known, and telling goes on."""
        before = {lesson.id for lesson in talk.mind.lessons}
        record: Row = {"id": fact.id, "lessons": []}
        try:
            record["lessons"] = [lesson.to_dict() for lesson in self.teach(talk, fact)]
            record["whole"] = talk.mind.memory.takes(Lesson(statement=fact.teach))
        except (LearningError, Cancelled) as error:
            record["error"] = str(error)
        record["gone"] = sorted(before - {lesson.id for lesson in talk.mind.lessons})
        return record


# scores -----------------------------------------------------------------------------------------------------
def score(facts: Sequence[StatedFact], replies: Mapping[str, str], told: Sequence[Row], seed: int = 0) -> Row:
    """All scores of a memory that was told `facts`. Null: the data has no such questions."""
    records = {record["id"]: record for record in told}
    groups: dict[str, Groups] = {
        "learned": [[float(_learned(fact, records.get(fact.id, {})))] for fact in facts],
        "wrongly_learned": [[float(_wrongly(fact, records.get(fact.id, {})))] for fact in facts],
        "use_open": [[float(a.right(replies[a.q])) for a in fact.use if a.is_open] for fact in facts],
    }
    groups |= {name: [[float(a.right(replies[a.q])) for a in f.asked(name)] for f in facts] for name in SCORES}
    asked = [(f"{name}/{a.kind or 'any'}", a) for fact in facts for name in SCORES for a in fact.asked(name)]
    kinds = {
        kind: [sum(a.right(replies[a.q]) for a in some), len(some)]
        for kind in sorted({kind for kind, _ in asked})
        if (some := [a for found, a in asked if found == kind])
    }
    return {
        "facts": len(facts),
        **{name: mean(found) for name, found in groups.items()},
        "intervals": {name: bootstrap(found, seed) for name, found in groups.items() if mean(found) is not None},
        "counts": {name: sum(map(len, found)) for name, found in groups.items()},
        "kinds": kinds,
    }


def _texts(lesson: Mapping[str, Any], whole: bool) -> str:
    """What is known by a lesson: its answer, and by a memory that keeps statements `whole` all that was said."""
    said = f"{lesson.get('statement')} {lesson.get('echo') or ''}"
    return f"{lesson.get('answer') or ''} {said}" if whole else lesson.get("answer") or said


def _learned(fact: StatedFact, record: Row) -> bool:
    """Does something that was learned from the message say what the fact's question is answered with?"""
    known = (_texts(lesson, record.get("whole", False)) for lesson in record.get("lessons", ()))
    return any(map(fact.direct.said_in, known))


def _wrongly(fact: StatedFact, record: Row) -> bool:
    """Was only something else learned, or a lesson of another fact lost? What `before` said may be replaced."""
    if record.get("lessons") and not _learned(fact, record):
        return True
    return bool(record.get("gone"))


# a run ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class UseRequest:
    """One run: a file of facts, memories, and their options by name."""

    data: Path
    memories: tuple[str, ...]
    config: Config
    settings: RunSettings = field(default_factory=RunSettings)
    out: Path | None = None
    resume: bool = True
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    presets: Mapping[str, str] = field(default_factory=dict)
    command: str = ""

    @property
    def folder(self) -> Path:
        return self.out or Path("artifacts") / "use" / f"{self.data.stem}_{Path(self.config.model).stem}"


def run(
    request: UseRequest, track: Track = quietly, adapter: Adapter | None = None, teach: Teach = tell
) -> dict[str, Any]:
    """Run it, or go on with it, and write `result.json` and `table.md`. Returns the result. Raises LmmError."""
    builds = builders(request.memories, request.config, request.options, request.presets)
    facts, sha256 = load(request.data)
    adapter = adapter or runtime.load_adapter(request.config)
    fixed = {"data": sha256, **dataclasses.asdict(request.settings), **model_of(adapter)}
    bench = UseBench(adapter, facts, Folder(request.folder, fixed, request.resume), request.settings, track, teach)
    about = fixed | {"data": {"file": request.data.name, "sha256": sha256}} | circumstances(adapter, request.command)
    result = all_rows(request.folder, request.resume, about, builds, lambda name, build: [bench.run(name, build)])
    (request.folder / "table.md").write_text(markdown(result), encoding="utf-8")
    return result


def markdown(result: Mapping[str, Any]) -> str:
    """The table with what is needed to repeat it."""
    about = result["run"]
    lines = [
        f"# What is stated, used: {about['data']['file']}",
        "",
        "Told in a chat, asked in empty conversations; free greedy decoding; [95 % interval].",
        "",
        *report.table_lines(result["rows"], COLUMNS, SHOWN),
        "",
        *pages.repeated_by(about),
        f"- data sha256: {about['data']['sha256']}",
    ]
    return "\n".join(lines) + "\n"
