"""What runs over several memories share: one session after another on the same model, and replies kept on disk."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmm.bench import measure
from lmm.bench.plan import PromptList
from lmm.bench.store import (
    READING,
    KeptReplies,
    append_lines,
    code_digest,
    digest,
    read_json,
    read_lines,
    sha256_of,
    write_json,
)
from lmm.engine.asking import ask_many
from lmm.engine.conversation import notes_of
from lmm.engine.mind import Mind
from lmm.memory.base import Memory

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter


@dataclass(frozen=True)
class FromFile:
    """How a memory is made that begins with what a file has, e.g. one that was trained."""

    make: Callable[[], Memory]
    file: Path

    def __call__(self) -> Memory:
        return self.make()


Build = Callable[[], Memory]
Track = Callable[[str, int], Callable[[int], None]]  # (what, of how many) -> advance


def quietly(what: str, total: int) -> Callable[[int], None]:
    return lambda count: None


def all_rows(
    folder: Path,
    resume: bool,
    about: Mapping[str, Any],
    builds: Mapping[str, Build],
    rows_of: Callable[[str, Build], list[dict[str, Any]]],
) -> dict[str, Any]:
    """The rows of one memory after another, beside those of memories that were measured before -> the result, kept in
    `result.json` after each memory: hours may lie between two."""
    rows = (read_json(folder / "result.json") or {}).get("rows", []) if resume else []
    result: dict[str, Any] = {"rows": rows, "run": about}
    for name, build in builds.items():
        result["rows"] = [row for row in result["rows"] if row["memory"] != name] + rows_of(name, build)
        write_json(folder / "result.json", result)
    return result


class Runner:
    """One adapter, whose weights no memory may change. `settings` have a seed, `batch_size` and `max_tokens`."""

    adapter: Adapter
    settings: Any
    track: Track

    @cached_property
    def _weights(self) -> str:
        return measure.model_digest(self.adapter)

    def _reading(self) -> dict[str, Any]:
        """What a reply without memory depends on, beside its prompt and its batch."""
        adapter = self.adapter
        return {
            "model": adapter.model_id,
            "revision": adapter.revision,
            "weights": self._weights,
            "backend": adapter.name,
            "dtype": adapter.dtype,
            "device": adapter.device,
            "batch_size": self.settings.batch_size,
            "max_tokens": self.settings.max_tokens,
            "code": code_digest(READING),
        }

    def _ask(
        self, mind: Mind, lists: Sequence[PromptList], kept: KeptReplies, what: str
    ) -> dict[str, Mapping[str, Any]]:
        """Prompt -> record of its reply; each list is asked whole, and only if it was not answered before."""
        advance = self.track(what, sum(len(asked.prompts) for asked in lists))
        found: dict[str, Mapping[str, Any]] = {}
        for asked in lists:
            key = digest(asked.key, self._reading())
            records = kept.get(key, asked.prompts)
            if records is None:
                replies = ask_many(
                    mind, asked.prompts, self.settings.max_tokens, self.settings.batch_size, progress=advance
                )
                records = [
                    {
                        "prompt": r.prompt,
                        "reply": r.text,
                        "fired": r.recall.fired[0] if r.recall else [],
                        "notes": [(note.lesson_id, note.strength) for note in notes_of(r.recall)],
                    }
                    for r in replies
                ]
                kept.put(key, records)
            else:
                advance(len(records))
            found |= {record["prompt"]: record for record in records}
        return found

    @contextlib.contextmanager
    def _session(self, build: Build) -> Iterator[Mind]:
        """A new memory on the model; afterwards the model's weights and taps are as they were, or the run ends."""
        memory, adapter = build(), self.adapter
        opened = getattr(memory, "opened", None)
        with opened(adapter, self.settings.seed) if opened else contextlib.nullcontext():
            mind = Mind(adapter, memory, self.settings.seed)
            if isinstance(build, FromFile):
                mind.begin_with(build.file)
            try:
                yield mind
            finally:
                mind.detach()
        if adapter.taps or measure.model_digest(adapter) != self._weights:
            raise measure.BenchError(
                f"memory {memory.name!r} left the model changed outside its state; its replies, and those of any "
                "memory after it, would not be its own. Nothing was scored"
            )


def begun_with(build: Build) -> str | None:
    """Which file a memory begins with, by its bytes."""
    return sha256_of(build.file) if isinstance(build, FromFile) else None


class Taught:
    """What was taught, kept on disk: at every size, every so often, and when teaching is interrupted."""

    def __init__(self, mind: Mind, folder: Path, done: int, boundaries: set[int], every_s: float) -> None:
        self.mind, self.folder, self.boundaries, self.every_s = mind, folder, boundaries, every_s
        self.done, self.records = done, read_lines(folder / "lessons.jsonl")[:done]
        self.saved, self.time = done, time.monotonic()

    def __enter__(self) -> Taught:
        return self

    def __exit__(self, *error: object) -> None:
        if self.done > self.saved:
            self._save()

    def taught(self, record: dict[str, Any]) -> None:
        self.mind.history.undo.clear()  # or 500 versions of a matrix pile up
        self.records.append(record)
        self.done += 1
        if self.done in self.boundaries or time.monotonic() - self.time > self.every_s:
            self._save()

    def _save(self) -> None:
        """The records first: a state without them would be lost, records without a state are written again."""
        path = self.folder / "lessons.jsonl"
        path.unlink(missing_ok=True)
        append_lines(path, self.records)
        self.mind.save(self.folder / f"taught-{self.done}.safetensors")
        if self.saved and self.saved not in self.boundaries:
            (self.folder / f"taught-{self.saved}.safetensors").unlink(missing_ok=True)
        self.saved, self.time = self.done, time.monotonic()


def last_saved(folder: Path) -> int:
    return max((int(path.stem.partition("-")[2]) for path in folder.glob("taught-*.safetensors")), default=0)
