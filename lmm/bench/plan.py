"""What is taught and what is asked, in which order, decided before a memory is in sight.

A reply can depend, in its last bits, on the batch it was decoded in. So the prompts whose replies are compared with
and without memory are cut into the same lists in both cases, and the lists for N edits are among those for more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from lmm.bench.datasets import Edit
from lmm.bench.store import digest
from lmm.memory.base import Lesson
from lmm.session import prompt_tokens
from lmm.tokenizer import ChatFormat

LIST_SIZE = 256  # prompts asked between two checkpoints


@dataclass(frozen=True)
class Asked:
    """Prompts that are asked in one call. `compared`: their replies are held against those without memory."""

    prompts: tuple[str, ...]
    compared: bool
    key: str


@dataclass(frozen=True)
class Plan:
    """For each of `sizes`, the lists that are new there; the lists of all smaller sizes are asked again with them."""

    sizes: tuple[int, ...]
    levels: tuple[tuple[Asked, ...], ...]

    def lists(self, size: int, compared: bool | None = None) -> list[Asked]:
        upto = self.levels[: self.sizes.index(size) + 1]
        return [a for level in upto for a in level if compared is None or a.compared == compared]


def make_plan(
    edits: Sequence[Edit],
    sizes: Sequence[int],
    known: Sequence[str],
    format: ChatFormat,
    skip: frozenset[str] = frozenset(),
) -> Plan:
    """Every prompt is asked once for each size, however many edits share it."""
    levels, seen, start = [], {True: set[str](), False: set[str]()}, 0
    for size in sizes:
        new = edits[start:size]
        answered = [p for e in new for p in (e.prompt, *e.rephrases)]
        compared = [p for e in new for p in e.locality] if "locality" not in skip else []
        if "portability" not in skip:
            answered += [q.prompt for e in new for q in e.portability]
        if start == 0 and "known" not in skip:
            compared += known
        lists = []
        for kind, prompts in ((False, answered), (True, compared)):
            fresh = [p for p in dict.fromkeys(prompts) if p not in seen[kind]]
            seen[kind].update(fresh)
            lists += _cut(fresh, kind, format)
        levels.append(tuple(lists))
        start = size
    return Plan(tuple(sizes), tuple(levels))


def _cut(prompts: list[str], compared: bool, format: ChatFormat) -> list[Asked]:
    """Lists of prompts of similar length, so that batches of equal length fill up."""
    prompts = sorted(prompts, key=lambda p: len(prompt_tokens(format, p)))
    parts = [tuple(prompts[i : i + LIST_SIZE]) for i in range(0, len(prompts), LIST_SIZE)]
    return [Asked(part, compared, digest(compared, part)) for part in parts]


def lessons_of(edits: Sequence[Edit]) -> list[Lesson]:
    """What is taught, in file order: a fact that is corrected is taught first as it was before."""
    taught = []
    for edit in edits:
        taught += [(edit.prompt, answer) for answer in (edit.earlier, edit.answer) if answer is not None]
    return [
        Lesson(prompt, answer, source="bench", id=hashlib.sha256(f"{i} {prompt}".encode()).hexdigest()[:12])
        for i, (prompt, answer) in enumerate(taught)
    ]


def superseded(edits: Sequence[Edit]) -> set[int]:
    """Edits whose prompt is taught again later with another answer: only the later answer counts."""
    last = {edit.prompt: i for i, edit in enumerate(edits)}
    return {i for i, edit in enumerate(edits) if edits[last[edit.prompt]].answer != edit.answer}
