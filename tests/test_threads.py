"""How many threads a model uses, by a clock that the test turns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lmm.adapters import threads
from lmm.adapters.threads import MANY, PATIENCE, Threads


class Machine:
    """Passes take what `cost(threads)` says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cost: Callable[[int], float], most: int) -> None:
        self.now, self.count, self.cost = 0.0, most, cost
        monkeypatch.setattr(threads.time, "perf_counter", lambda: self.now)
        self.threads = Threads(self._use, most)

    def _use(self, count: int) -> None:
        self.count = count

    def work(self, tokens: int = 1) -> int:
        """One pass -> the threads it had."""
        with self.threads.at_work(tokens):
            self.now += tokens * self.cost(self.count)
            return self.count

    def measure(self) -> None:
        self.threads.measure(lambda: self.work(MANY), lambda read: self.work())


@pytest.mark.parametrize(
    ("cost", "decoding", "reading"),
    [
        (lambda n: 1.0, 1, 8),  # a small model gains nothing from more threads, but a long prompt may
        (lambda n: 1 / n, 8, 8),
        (lambda n: max(1 / n, 0.25), 4, 8),  # bound by memory from four on
        (lambda n: 1.0 if n == 1 else 30.0, 1, 1),  # others use the cores
    ],
)
def test_the_fewest_threads_that_are_fastest(monkeypatch, cost, decoding: int, reading: int) -> None:
    machine = Machine(monkeypatch, cost, 8)
    machine.measure()
    assert machine.work() == decoding and machine.work(100) == reading


CROWDED, FREE = (lambda n: 1.0 if n == 1 else 2.0), (lambda n: 1 / n)


def test_one_thread_decodes_when_others_come_and_more_are_tried_again(monkeypatch) -> None:
    machine = Machine(monkeypatch, FREE, 2)
    machine.measure()
    assert [machine.work() for _ in range(5)] == [2] * 5
    machine.cost = CROWDED
    assert [machine.work() for _ in range(6)] == [2, 2, 2, 1, 1, 1]
    machine.cost = FREE
    assert [machine.work() for _ in range(2 * PATIENCE)][-3:] == [2] * 3 and machine.work(64) == 2


@pytest.mark.parametrize("before", [FREE, CROWDED])
@pytest.mark.parametrize("tokens", [1, 64])
def test_one_thread_goes_on_while_others_use_the_cores(monkeypatch, before, tokens: int) -> None:
    """Whether they came later or were there from the start."""
    machine = Machine(monkeypatch, before, 2)
    machine.measure()
    if tokens == 1:
        machine.threads.decoding = 2
    machine.work(tokens)
    machine.cost = CROWDED
    start = machine.now
    used = [machine.work(tokens) for _ in range(100)]
    assert 100 * tokens / (machine.now - start) >= 0.9 and 1 < used.count(2) < 10
    assert tokens == 1 or used[1:10] == [1] * 9
    machine.cost = FREE
    assert [machine.work(tokens) for _ in range(3 * PATIENCE)][-3:] == [2] * 3


def test_a_longer_text_is_no_crowd(monkeypatch) -> None:
    """Each token of it takes longer, with one thread as with several: one pass says so."""
    machine = Machine(monkeypatch, FREE, 2)
    machine.measure()
    machine.cost = lambda n: 3 / n
    assert [machine.work(512) for _ in range(5)] == [2, 1, 2, 2, 2]


def test_one_slow_step_changes_nothing(monkeypatch) -> None:
    machine = Machine(monkeypatch, FREE, 2)
    machine.measure()
    for cost in (0.5, 9.0, 9.0, 0.5, 9.0, 0.5):
        machine.cost = lambda n, cost=cost: cost
        assert machine.work() == 2


def test_a_number_that_is_given_stays(monkeypatch) -> None:
    machine = Machine(monkeypatch, lambda n: 30.0 * n, 8)
    machine.threads.fix(3)
    machine.measure()
    assert [machine.work(tokens) for tokens in (1, 64) * 5] == [3] * 10


@pytest.mark.slow
def test_the_adapter_chooses_and_obeys(tiny_torch) -> None:
    import torch

    before = torch.get_num_threads()
    try:
        tiny_torch.threads = Threads(torch.set_num_threads, 2)
        tiny_torch.use_threads()
        assert not tiny_torch.threads.fixed and tiny_torch.threads.decoding in (1, 2)
        tiny_torch.use_threads(2)
        tiny_torch.forward(np.array([[1, 2]]), tiny_torch.new_cache())
        assert torch.get_num_threads() == 2
    finally:
        tiny_torch.threads = Threads(torch.set_num_threads, before)
        torch.set_num_threads(before)
