"""How a lesson's values are searched for."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from lmm.adapters.ops import NumpyOps
from lmm.errors import LearningError
from lmm.memory.base import LearnReport
from lmm.memory.target import LEARNED, fit


class Given(NumpyOps):
    """The loss function gives loss and gradients itself."""

    def value_and_grad(self, fn, params):
        return fn(params)


def search(loss_of, lr: float, steps: int = 20) -> tuple[float, bool, LearnReport]:
    report = LearnReport()
    options, adapter = SimpleNamespace(lr=lr, steps=steps), SimpleNamespace(ops=Given())
    found, at_once = fit(loss_of, {"x": np.zeros(1)}, options, adapter, report)
    return float(found["x"][0]), at_once, report


def edge(params):
    """Downhill to x = 1; beyond it a plateau without gradients."""
    x = float(params["x"][0])
    return (5 * (1 - x), {"x": np.array([-5.0])}) if x < 1.01 else (50.0, {"x": np.zeros(1)})


@pytest.mark.parametrize("lr", [0.3, 0.4, 0.7, 3.0])
def test_a_step_over_an_edge_is_taken_back_and_made_shorter(lr: float) -> None:
    x, at_once, report = search(edge, lr)
    assert report.loss_after is not None and report.loss_after <= LEARNED and not at_once
    assert 0.8 < x < 1.01 and report.steps < 20


def test_small_rises_are_part_of_the_way() -> None:
    """Down, up by half, down again: Adam's own steps, none of them shortened."""
    losses, seen = iter([4.0, 6.0, 3.0, 0.1]), []

    def loss_of(params):
        seen.append(float(params["x"][0]))
        return next(losses), {"x": np.array([-1.0])}

    assert search(loss_of, 0.5)[2].steps == 4
    assert np.allclose(np.diff(seen), 0.5)


def test_when_the_steps_run_out_the_best_is_kept() -> None:
    """The lowest loss is met after one step of three; the others only circle around it."""
    losses = iter([9.0, 3.0, 4.0, 3.5])
    x, at_once, report = search(lambda params: (next(losses), {"x": np.array([-1.0])}), 0.5, steps=3)
    assert (x, at_once) == (pytest.approx(0.5), False)
    assert report.steps == 4  # three steps, and a look at where the last one led


def test_what_is_known_already_takes_no_step() -> None:
    x, at_once, report = search(lambda params: (0.1, {"x": np.ones(1)}), 0.5)
    assert (x, at_once, report.steps) == (0.0, True, 1)


def test_a_loss_that_is_no_number_is_an_error() -> None:
    with pytest.raises(LearningError):
        search(lambda params: (float("nan"), {"x": np.ones(1)}), 0.5)
