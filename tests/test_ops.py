"""Every array operation gives the same numbers on NumPy, torch and MLX, and the same gradients."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lmm.adapters.ops import NumpyOps, Ops, token_cross_entropy

RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(3, 4, 5)).astype(np.float32)
Y = RANDOM.normal(size=(3, 4, 5)).astype(np.float32)
ROWS = np.array([[2, 0], [1, 1]])
ALONG = RANDOM.integers(0, 5, size=(3, 4, 2))

Case = Callable[[Ops, Any, Any], Any]
CASES: dict[str, Case] = {
    "asarray": lambda ops, x, y: ops.asarray([[1, 2], [3, 4]]),
    "asarray of integers": lambda ops, x, y: ops.asarray(np.array([1.0, 2.0]), "int64"),
    "asarray of flags": lambda ops, x, y: ops.asarray([0.0, 2.0], "bool"),
    "asarray in half precision": lambda ops, x, y: ops.asarray(x, "float16"),
    "to_numpy": lambda ops, x, y: ops.to_numpy(x),
    "cast_like": lambda ops, x, y: ops.cast_like(x, ops.asarray([1], "float16")),
    "float32": lambda ops, x, y: ops.float32(ops.asarray([1, 2], "int64")),
    "zeros": lambda ops, x, y: ops.zeros((2, 0, 3)),
    "normal": lambda ops, x, y: ops.normal((4, 3), seed=7, std=0.5),
    "concat": lambda ops, x, y: ops.concat([x, y, x]),
    "concat along the batch": lambda ops, x, y: ops.concat([x, y], axis=0),
    "take": lambda ops, x, y: ops.take(x, ops.asarray(ROWS, "int64")),
    "take along the last axis": lambda ops, x, y: ops.take(x, ops.asarray([4, 0], "int64"), axis=2),
    "take_along": lambda ops, x, y: ops.take_along(x, ops.asarray(ALONG, "int64")),
    "where": lambda ops, x, y: ops.where(x > y, x, y),
    "where with numbers": lambda ops, x, y: ops.where(x > 0, ops.asarray(1.0), ops.asarray(-1.0)),
    "einsum": lambda ops, x, y: ops.einsum("btd,bsd->bts", x, y),
    "einsum with dots": lambda ops, x, y: ops.einsum("...d,md->...m", x, y[0]),
    "softmax": lambda ops, x, y: ops.softmax(x * 50.0),
    "softmax over rows": lambda ops, x, y: ops.softmax(x, axis=1),
    "logsumexp": lambda ops, x, y: ops.logsumexp(x * 50.0),
    "logsumexp over rows": lambda ops, x, y: ops.logsumexp(x, axis=0),
    "sigmoid": lambda ops, x, y: ops.sigmoid(x * 5.0),
    "sqrt": lambda ops, x, y: ops.sqrt(x * x),
    "exp": lambda ops, x, y: ops.exp(x),
    "abs": lambda ops, x, y: ops.abs(x),
    "gelu": lambda ops, x, y: ops.gelu(x * 3.0),
    "clip": lambda ops, x, y: ops.clip(x, -0.5, 0.25),
    "maximum": lambda ops, x, y: ops.maximum(x, 0.25),
    "sum": lambda ops, x, y: ops.sum(x),
    "sum over rows": lambda ops, x, y: ops.sum(x, axis=1, keepdims=True),
    "argmax": lambda ops, x, y: ops.argmax(x),
    "argmax over rows": lambda ops, x, y: ops.argmax(x, axis=0),
    "top_k": lambda ops, x, y: ops.concat([ops.top_k(x, 3)[0], ops.float32(ops.top_k(x, 3)[1])]),
    "stop_gradient": lambda ops, x, y: ops.stop_gradient(x),
    "evaluate": lambda ops, x, y: (ops.evaluate(x, y), x + y)[1],
    "norm": lambda ops, x, y: ops.norm(x),
    "norm over rows": lambda ops, x, y: ops.norm(x, axis=1, keepdims=True),
    "mean": lambda ops, x, y: ops.mean(x),
    "mean over rows": lambda ops, x, y: ops.mean(x, axis=0, keepdims=True),
    "item": lambda ops, x, y: ops.asarray(ops.item(ops.sum(x))),
    "arithmetic": lambda ops, x, y: (x @ y[0].T - 2.0 * x[:, :, :4]) / 3.0 + y[..., 1:],
    "shapes": lambda ops, x, y: x.swapaxes(0, 1).reshape(len(x[0]), -1),
    "token_cross_entropy": lambda ops, x, y: token_cross_entropy(ops, x, ops.asarray([[1, 2, 3, 0]] * 3, "int64")),
}
LOSSES: dict[str, Case] = {
    "low rank": lambda ops, a, b: ops.sum(ops.sigmoid(ops.asarray(X[0]) @ a @ b)),
    "softmax": lambda ops, a, b: ops.sum(ops.softmax(a) * ops.logsumexp(b, axis=0)[0]),
    "cross entropy": lambda ops, a, b: ops.mean(token_cross_entropy(ops, a @ b, ops.asarray([1, 4, 0, 2, 3], "int64"))),
    "rows": lambda ops, a, b: ops.norm(ops.take(a, ops.asarray([1, 1, 3], "int64")), axis=None),
    "blocked": lambda ops, a, b: ops.sum(ops.stop_gradient(a) @ b) + ops.sum(ops.exp(a * 0.5)),
    "gate": lambda ops, a, b: ops.sum(ops.where(a > 0, a * a, a) * ops.maximum(ops.einsum("rd->dr", b), 0.1)),
    "unused": lambda ops, a, b: ops.sum(ops.abs(a + 3.0)) / 2.0,
}


@pytest.mark.parametrize("name", CASES)
def test_an_operation_gives_what_numpy_gives(ops: Ops, name: str) -> None:
    oracle = NumpyOps()
    expected = np.asarray(CASES[name](oracle, oracle.asarray(X), oracle.asarray(Y)))
    found = CASES[name](ops, ops.asarray(X), ops.asarray(Y))
    found = found if isinstance(found, np.ndarray) else ops.to_numpy(found)
    off = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    print(f"{ops.name} {name}: max difference {off.max(initial=0):.2e}, mean {off.mean() if off.size else 0:.2e}")
    assert found.shape == expected.shape
    assert found.dtype.kind == expected.dtype.kind and (expected.dtype != np.float16 or found.dtype == np.float16)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_what_differences_say(ops: Ops, name: str) -> None:
    a, b = RANDOM.normal(size=(5, 2)).astype(np.float32), RANDOM.normal(size=(2, 5)).astype(np.float32)
    loss = LOSSES[name]

    def run(ops: Ops) -> tuple[float, dict[str, np.ndarray]]:
        params = {"a": ops.asarray(a), "b": ops.asarray(b)}
        value, grads = ops.value_and_grad(lambda p: loss(ops, p["a"], p["b"]), params)
        assert np.array_equal(ops.to_numpy(params["a"]), a), "the parameters were changed"
        return value, {k: np.asarray(ops.to_numpy(g), np.float64) for k, g in grads.items()}

    value, grads = run(ops)
    expected_value, expected = run(NumpyOps())
    if name == "blocked":  # differences see through what a gradient may not
        expected["a"] = 0.5 * np.exp(a * 0.5)
    assert value == pytest.approx(expected_value, rel=1e-4)
    assert grads.keys() == expected.keys()
    for key, grad in grads.items():
        off = np.abs(grad - expected[key])
        print(f"{ops.name} {name} {key}: max difference {off.max():.2e}, mean {off.mean():.2e}")
        np.testing.assert_allclose(grad, expected[key], rtol=5e-3, atol=2e-3)
    if name == "unused":
        assert not grads["b"].any() and np.allclose(grads["a"], 0.5 * np.sign(a + 3.0))


def test_every_operation_is_compared() -> None:
    public = {name for name, _ in inspect.getmembers(Ops, inspect.isfunction) if not name.startswith("_")}
    assert public - {"value_and_grad"} <= {name.split()[0] for name in CASES}, "an operation without a row"


def test_arrays_that_numpy_does_not_have_come_out_as_float32(ops: Ops) -> None:
    x = ops.asarray([1.5, -2.0])
    narrow = x.bfloat16() if ops.name == "torch" else x.astype(__import__("mlx.core").core.bfloat16)
    assert ops.to_numpy(narrow).dtype == np.float32 and ops.to_numpy(narrow).tolist() == [1.5, -2.0]
    out = ops.to_numpy(x)
    out[0] = 9.0
    assert ops.to_numpy(x)[0] == 1.5, "to_numpy is a copy"


def test_token_cross_entropy_by_hand() -> None:
    logits = np.log(np.array([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]], np.float32)) + 3.0
    found = token_cross_entropy(NumpyOps(), logits, np.array([[1, 2]]))
    np.testing.assert_allclose(found, -np.log([[0.25, 0.8]]), rtol=1e-5)
