"""Everything of one store into another, and whether it has arrived."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lmm.errors import StoreError
from lmm.store.base import Memo, TextStore, batches
from lmm.store.facts import Facts

log = logging.getLogger("lmm")
BATCH = 500
Progress = Callable[[int, int], None]  # entries so far, of how many


def copy(
    source: TextStore,
    target: TextStore,
    progress: Progress = lambda done, total: None,
    notice: Callable[[str], None] = log.warning,
) -> int:
    """All namespaces with their history and vectors -> how many entries have arrived. What is there stays, or is
    superseded by what is later; again does no harm. `notice` hears of each entry that the target cannot hold.

    Raises StoreError where afterwards something else is missing or differs.
    """
    if about := source.about():
        target.describe(about)
    spaces = {space: Facts(source.scan(space, history=True)) for space in source.namespaces()}
    total, done, left = sum(facts.entries for facts in spaces.values()), 0, set[tuple[str, str]]()
    for space, facts in spaces.items():
        for batch in facts.batches(source.scan(space, history=True), BATCH):
            for id, why in target.restore(space, batch).items():
                left.add((space, id))
                notice(f"entry {id} of namespace {space!r} was left out: {why}")
            done += len(batch)
            progress(done, total)
    for space in spaces:
        for batch in batches(source.scan(space, history=True), BATCH):
            _check(space, [memo for memo in batch if (space, memo.id) not in left], target)
    return done - len(left)


def copy_lessons(source: TextStore, target: TextStore) -> int | None:
    """What servers that share a database know of their users, into another -> of how many minds; one that is there
    stays as it is. None where only the source is a database: no other store has a place for it."""
    if source.lessons is None:
        return 0
    from lmm.store.lessons import copy_minds
    from lmm.store.postgres import Postgres

    if isinstance(source, Postgres) and isinstance(target, Postgres):
        return copy_minds(source, target)
    return None


def _check(space: str, batch: list[Memo], target: TextStore) -> None:
    there = {memo.id: memo for memo in target.get(space, [memo.id for memo in batch])}
    for memo in batch:
        found = there.get(memo.id)
        if found is not None and not (memo.current and found.current):  # what stands for it there is another
            memo = replace(memo, replaced_by=found.replaced_by, vector=found.vector)
        if found != memo or not _equal(found.vector, memo.vector):
            what = "is missing" if found is None else "differs"
            raise StoreError(f"entry {memo.id} of namespace {space!r} {what}; what was copied stays")


def _equal(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is b if a is None or b is None else np.array_equal(a, b)
