"""The one loop that learns: when it stops, what it takes back, what it reports."""

from __future__ import annotations

import numpy as np
import pytest

from lmm.adapters.ops import NumpyOps
from lmm.errors import LearningError
from lmm.memory.base import LearnReport
from lmm.memory.batch import LEARNED
from lmm.memory.optim import Optimizer, fit


class Given(NumpyOps):
    """The loss function gives loss and gradients itself."""

    def value_and_grad(self, fn, params):
        return fn(params)

    def item(self, x):
        return x[0]


def search(loss_of, lr: float, steps: int = 20, **how) -> tuple[float, LearnReport]:
    report = LearnReport()
    how = {"goal": LEARNED, "step_back": True} | how
    found = fit(loss_of, {"x": np.zeros(1)}, Optimizer(Given(), "adam", lr, betas=(0.9, 0.95)), steps, report, **how)
    assert report.loss_after == found.loss
    return float(found.params["x"][0]), report


def losses(*values: float):
    """These losses, one after the other, always downhill to the right."""
    left = iter(values)
    return lambda params: (next(left), {"x": np.array([-1.0])})


def edge(params):
    """Downhill to x = 1; beyond it a plateau without gradients."""
    x = float(params["x"][0])
    return (5 * (1 - x), {"x": np.array([-5.0])}) if x < 1.01 else (50.0, {"x": np.zeros(1)})


@pytest.mark.parametrize("lr", [0.3, 0.4, 0.7, 3.0])
def test_a_step_over_an_edge_is_taken_back_and_made_shorter(lr: float) -> None:
    x, report = search(edge, lr)
    assert report.loss_after is not None and report.loss_after <= LEARNED
    assert 0.8 < x < 1.01 and 0 < report.steps < 20
    assert search(edge, 3.0, step_back=False)[0] > 1.01, "without, it stays on the plateau"


def test_small_rises_are_part_of_the_way() -> None:
    """Down, up by half, down again: Adam's own steps, none of them shortened."""
    given, seen = losses(4.0, 6.0, 3.0, 0.1), []

    def loss_of(params):
        seen.append(float(params["x"][0]))
        return given(params)

    assert search(loss_of, 0.5)[1].steps == 3
    assert np.allclose(np.diff(seen), 0.5)


def test_when_the_steps_run_out_the_best_is_kept() -> None:
    """The lowest loss is met after one step of three; the others only circle around it."""
    x, report = search(losses(9.0, 3.0, 4.0, 3.5), 0.5, steps=3)
    assert (x, report.steps, report.loss_before, report.loss_after) == (pytest.approx(0.5), 3, 9.0, 3.0)
    x, report = search(losses(9.0, 3.0, 4.0, 3.5), 0.5, steps=3, step_back=False)
    assert (x, report.loss_after) == (pytest.approx(1.5), 3.5), "where nothing is taken back, the last"
    assert search(losses(9.0, 3.0, 4.0, 2.5), 0.5, steps=3)[1].loss_after == 2.5, "where the last one led counts"


def test_what_is_known_already_takes_no_step() -> None:
    x, report = search(losses(0.1), 0.5)
    assert (x, report.steps, report.loss_before, report.loss_after) == (0.0, 0, 0.1, 0.1)
    assert search(losses(0.1, 0.1, 0.1), 0.5, least=2)[1].steps == 2


def test_gradients_are_shaped_before_each_step() -> None:
    shaped = []
    x, _ = search(losses(9.0, 8.0, 7.0), 0.5, steps=2, shape=lambda grads: shaped.append(grads) or {"x": -grads["x"]})
    assert x == pytest.approx(-1.0) and len(shaped) == 2


def test_a_loss_that_is_no_number_is_an_error() -> None:
    for bad in (float("nan"), float("inf")):
        for values in ([bad], [9.0, bad]):
            with pytest.raises(LearningError, match="as before"):
                search(losses(*values), 0.5, steps=1)
