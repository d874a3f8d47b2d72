"""The closed set of array operations a memory or an encoder may use, named as in the array-API standard, in NumPy too.

Arithmetic, comparison, slicing, `reshape`, `swapaxes`, `len` and `.shape`, `.ndim`, `.nbytes` are what NumPy, torch and
MLX arrays share already; everything that differs between them is here. A new op needs two users and a row in the parity
test. NumPy is the oracle: `NumpyOps.value_and_grad` differentiates numerically, exact enough to check a backend's
gradients.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = Any  # np.ndarray, torch.Tensor or mx.array
Params = dict[str, Array]
LossFn = Callable[[Params], Array]


class Ops(ABC):
    """Array operations of one backend. `axis` defaults to the last; results are arrays of that backend."""

    name: str

    # arrays in and out
    @abstractmethod
    def asarray(self, values: Any, dtype: str = "float32") -> Array:
        """Values (numbers, NumPy or backend array) as an array of `dtype`: float32, float16, int64 or bool."""

    @abstractmethod
    def to_numpy(self, x: Array) -> np.ndarray:
        """A NumPy copy; floating types NumPy does not have come out as float32."""

    @abstractmethod
    def cast_like(self, x: Array, other: Array) -> Array:
        """`x` in the dtype of `other`."""

    @abstractmethod
    def float32(self, x: Array) -> Array: ...

    def zeros(self, shape: Sequence[int]) -> Array:
        return self.asarray(np.zeros(tuple(shape), np.float32))

    def normal(self, shape: Sequence[int], seed: int, std: float = 1.0) -> Array:
        """Normal numbers that are the same on every backend."""
        return self.asarray(np.random.default_rng(seed).normal(0.0, std, tuple(shape)).astype(np.float32))

    # shape and selection
    @abstractmethod
    def concat(self, arrays: Sequence[Array], axis: int = -1) -> Array: ...

    @abstractmethod
    def take(self, x: Array, indices: Array, axis: int = 0) -> Array:
        """Rows `indices` (any shape, integers) of `x` along `axis`."""

    @abstractmethod
    def take_along(self, x: Array, indices: Array, axis: int = -1) -> Array: ...

    @abstractmethod
    def where(self, condition: Array, x: Array, y: Array) -> Array: ...

    # mathematics
    @abstractmethod
    def einsum(self, pattern: str, *arrays: Array) -> Array: ...

    @abstractmethod
    def softmax(self, x: Array, axis: int = -1) -> Array: ...

    @abstractmethod
    def logsumexp(self, x: Array, axis: int = -1) -> Array: ...

    @abstractmethod
    def sigmoid(self, x: Array) -> Array: ...

    @abstractmethod
    def sqrt(self, x: Array) -> Array: ...

    @abstractmethod
    def exp(self, x: Array) -> Array: ...

    @abstractmethod
    def abs(self, x: Array) -> Array: ...

    @abstractmethod
    def gelu(self, x: Array) -> Array:
        """x * Phi(x): Hendrycks & Gimpel 2016, arXiv:1606.08415."""

    @abstractmethod
    def clip(self, x: Array, low: float, high: float | None = None) -> Array: ...

    @abstractmethod
    def sum(self, x: Array, axis: int | None = None, keepdims: bool = False) -> Array: ...

    @abstractmethod
    def argmax(self, x: Array, axis: int = -1) -> Array: ...

    @abstractmethod
    def top_k(self, x: Array, k: int) -> tuple[Array, Array]:
        """The k largest of the last axis, largest first, and their indices."""

    # learning
    @abstractmethod
    def stop_gradient(self, x: Array) -> Array: ...

    @abstractmethod
    def value_and_grad(self, fn: LossFn, params: Params) -> tuple[float, Params]:
        """Loss `fn(params)` (a scalar) and its gradient with respect to each of `params`."""

    def evaluate(self, *arrays: Array) -> None:  # noqa: B027 - nothing to do where arrays are eager
        """Make lazy arrays real."""

    # built from the above
    def maximum(self, x: Array, y: float) -> Array:
        return self.clip(x, y)

    def norm(self, x: Array, axis: int = -1, keepdims: bool = False) -> Array:
        return self.sqrt(self.sum(x * x, axis=axis, keepdims=keepdims))

    def mean(self, x: Array, axis: int | None = None, keepdims: bool = False) -> Array:
        count = int(np.prod(x.shape)) if axis is None else x.shape[axis]
        return self.sum(x, axis=axis, keepdims=keepdims) / count

    def item(self, x: Array) -> float:
        return float(self.to_numpy(x))


class NumpyOps(Ops):
    name = "numpy"

    def asarray(self, values: Any, dtype: str = "float32") -> Array:
        return np.asarray(values, dtype=dtype)

    def to_numpy(self, x: Array) -> np.ndarray:
        return np.array(x)

    def cast_like(self, x: Array, other: Array) -> Array:
        return x.astype(other.dtype)

    def float32(self, x: Array) -> Array:
        return x.astype(np.float32)

    def concat(self, arrays: Sequence[Array], axis: int = -1) -> Array:
        return np.concatenate(arrays, axis=axis)

    def take(self, x: Array, indices: Array, axis: int = 0) -> Array:
        return np.take(x, indices, axis=axis)

    def take_along(self, x: Array, indices: Array, axis: int = -1) -> Array:
        return np.take_along_axis(x, indices, axis=axis)

    def where(self, condition: Array, x: Array, y: Array) -> Array:
        return np.where(condition, x, y)

    def einsum(self, pattern: str, *arrays: Array) -> Array:
        return np.einsum(pattern, *arrays)

    def softmax(self, x: Array, axis: int = -1) -> Array:
        e = np.exp(x - x.max(axis=axis, keepdims=True))
        return e / e.sum(axis=axis, keepdims=True)

    def logsumexp(self, x: Array, axis: int = -1) -> Array:
        top = x.max(axis=axis, keepdims=True)
        return np.squeeze(top, axis) + np.log(np.exp(x - top).sum(axis=axis))

    def sigmoid(self, x: Array) -> Array:
        return 1.0 / (1.0 + np.exp(-x))

    def sqrt(self, x: Array) -> Array:
        return np.sqrt(x)

    def exp(self, x: Array) -> Array:
        return np.exp(x)

    def abs(self, x: Array) -> Array:
        return np.abs(x)

    def gelu(self, x: Array) -> Array:
        """With erf after Abramowitz & Stegun 7.1.26 (error < 1.5e-7): NumPy has no erf.

        In place, because these passes would otherwise cost as much as the matrix product before them.
        """
        size = np.abs(x)
        z = size * np.float32(0.70710678)
        t = z * np.float32(0.3275911)
        t += 1
        np.reciprocal(t, out=t)
        poly = t * np.float32(1.061405429 / 2)
        for c in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
            poly += np.float32(c / 2)
            poly *= t
        np.square(z, out=z)
        np.negative(z, out=z)
        poly *= np.exp(z, out=z)  # now 1 - Phi(|x|)
        poly *= size
        return np.subtract(np.maximum(x, 0, out=size), poly, out=poly)

    def clip(self, x: Array, low: float, high: float | None = None) -> Array:
        return np.clip(x, low, high)

    def sum(self, x: Array, axis: int | None = None, keepdims: bool = False) -> Array:
        return np.sum(x, axis=axis, keepdims=keepdims)

    def argmax(self, x: Array, axis: int = -1) -> Array:
        return np.argmax(x, axis=axis)

    def top_k(self, x: Array, k: int) -> tuple[Array, Array]:
        order = np.argsort(-x, axis=-1, kind="stable")[..., :k]
        return np.take_along_axis(x, order, axis=-1), order

    def stop_gradient(self, x: Array) -> Array:
        return x

    def value_and_grad(self, fn: LossFn, params: Params, step: float = 1e-3) -> tuple[float, Params]:
        """Central differences, one parameter at a time: for the toy model and as the oracle of the parity tests."""
        params = {name: np.array(p, np.float64) for name, p in params.items()}
        grads = {name: np.zeros_like(p) for name, p in params.items()}
        for name, p in params.items():
            for i in np.ndindex(p.shape):
                kept = p[i]
                p[i] = kept + step
                above = float(fn(params))
                p[i] = kept - step
                grads[name][i] = (above - float(fn(params))) / (2 * step)
                p[i] = kept
        return float(fn(params)), {name: g.astype(np.float32) for name, g in grads.items()}


def token_cross_entropy(ops: Ops, logits: Array, targets: Array) -> Array:
    """Cross-entropy of each token: logits [..., V], targets [...] -> [...], in float32."""
    logits = ops.float32(logits)
    picked = ops.take_along(logits, targets[..., None], axis=-1)[..., 0]
    return ops.logsumexp(logits, axis=-1) - picked
