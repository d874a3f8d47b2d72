"""What is taught and what is asked, in which order, decided before a memory is in sight.

Prompts of all kinds are asked in the same lists, in an order that mixes them: neither its place nor its neighbours tell
a memory whether a prompt is about a lesson. A reply can depend, in its last bits, on the batch it was decoded in, so
the replies without memory, which others are held against, are asked in the same lists. The lists for N edits are
among those for more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from lmm.adapters.models.chat_format import ChatFormat
from lmm.bench.datasets import Edit
from lmm.bench.store import digest
from lmm.lesson import Lesson

LIST_SIZE = 256  # prompts asked between two checkpoints


@dataclass(frozen=True)
class PromptList:
    """Prompts that are asked in one call."""

    prompts: tuple[str, ...]
    key: str


@dataclass(frozen=True)
class AskingPlan:
    """For each of `sizes`, the lists that are new there; the lists of all smaller sizes are asked again with them.

    `compared` are the prompts whose replies are held against those without memory.
    """

    sizes: tuple[int, ...]
    levels: tuple[tuple[PromptList, ...], ...]
    compared: frozenset[str]

    def lists(self, size: int) -> list[PromptList]:
        return [asked for level in self.levels[: self.sizes.index(size) + 1] for asked in level]

    def plain_lists(self) -> list[PromptList]:
        """The lists that have to be answered without memory, too."""
        return [asked for asked in self.lists(self.sizes[-1]) if not self.compared.isdisjoint(asked.prompts)]


def make_plan(
    edits: Sequence[Edit],
    sizes: Sequence[int],
    known: Sequence[str],
    format: ChatFormat,
    skip: frozenset[str] = frozenset(),
) -> AskingPlan:
    """Every prompt is asked once for each size, however many edits share it."""
    levels, seen, compared, start = [], set[str](), set[str](), 0
    for size in sizes:
        new = edits[start:size]
        prompts = [p for e in new for p in (e.prompt, *e.rephrases)]
        held = [p for e in new for p in e.locality] if "locality" not in skip else []
        if "portability" not in skip:
            prompts += [q.prompt for e in new for q in e.portability]
        if start == 0 and "known" not in skip:
            held += known
        fresh = [p for p in dict.fromkeys(prompts + held) if p not in seen]
        seen.update(fresh)
        compared.update(held)
        levels.append(tuple(cut(fresh, format)))
        start = size
    return AskingPlan(tuple(sizes), tuple(levels), frozenset(compared))


def cut(prompts: list[str], format: ChatFormat) -> list[PromptList]:
    """Lists of prompts of similar length, so that batches of equal length fill up; those of one length are shuffled."""
    prompts = sorted(prompts, key=lambda p: (len(format.prompt_tokens(p)), hashlib.sha256(p.encode()).digest()))
    parts = [tuple(prompts[i : i + LIST_SIZE]) for i in range(0, len(prompts), LIST_SIZE)]
    return [PromptList(part, digest(part)) for part in parts]


def lessons_of(edits: Sequence[Edit]) -> list[Lesson]:
    """What is taught, in file order: a fact that is corrected is taught first as it was before."""
    taught = []
    for edit in edits:
        taught += [(edit.prompt, answer) for answer in (edit.earlier, edit.answer) if answer is not None]
    return [
        Lesson(prompt, answer, source="bench", id=hashlib.sha256(f"{i} {prompt}".encode()).hexdigest()[:12])
        for i, (prompt, answer) in enumerate(taught)
    ]
