"""`Ops` on MLX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from lmm.adapters.ops import Array, LossFn, Ops, Params

_DTYPES = {"float32": mx.float32, "float16": mx.float16, "int64": mx.int64, "bool": mx.bool_}


class MlxOps(Ops):
    name = "mlx"

    def asarray(self, values: Any, dtype: str = "float32") -> Array:
        if isinstance(values, mx.array):
            return values.astype(_DTYPES[dtype])
        return mx.array(np.asarray(values)).astype(_DTYPES[dtype])

    def to_numpy(self, x: Array) -> np.ndarray:
        return np.array(x.astype(mx.float32) if x.dtype == mx.bfloat16 else x)

    def cast_like(self, x: Array, other: Array) -> Array:
        return x.astype(other.dtype)

    def float32(self, x: Array) -> Array:
        return x.astype(mx.float32)

    def concat(self, arrays: Sequence[Array], axis: int = -1) -> Array:
        return mx.concatenate(list(arrays), axis=axis)

    def take(self, x: Array, indices: Array, axis: int = 0) -> Array:
        return mx.take(x, indices, axis=axis)

    def take_along(self, x: Array, indices: Array, axis: int = -1) -> Array:
        return mx.take_along_axis(x, indices, axis=axis)

    def where(self, condition: Array, x: Array, y: Array) -> Array:
        return mx.where(condition, x, y)

    def einsum(self, pattern: str, *arrays: Array) -> Array:
        return mx.einsum(pattern, *arrays)

    def softmax(self, x: Array, axis: int = -1) -> Array:
        return mx.softmax(x, axis=axis)

    def logsumexp(self, x: Array, axis: int = -1) -> Array:
        return mx.logsumexp(x, axis=axis)

    def sigmoid(self, x: Array) -> Array:
        return mx.sigmoid(x)

    def sqrt(self, x: Array) -> Array:
        return mx.sqrt(x)

    def exp(self, x: Array) -> Array:
        return mx.exp(x)

    def abs(self, x: Array) -> Array:
        return mx.abs(x)

    def gelu(self, x: Array) -> Array:
        return x * (1 + mx.erf(x / 2**0.5)) / 2

    def clip(self, x: Array, low: float, high: float | None = None) -> Array:
        return mx.clip(x, low, high)

    def sum(self, x: Array, axis: int | None = None, keepdims: bool = False) -> Array:
        return mx.sum(x, axis=axis, keepdims=keepdims)

    def argmax(self, x: Array, axis: int = -1) -> Array:
        return mx.argmax(x, axis=axis).astype(mx.int64)  # MLX counts unsigned: 0 - 1 would be four billion

    def top_k(self, x: Array, k: int) -> tuple[Array, Array]:
        # mx.topk gives neither order nor indices
        order = mx.argsort(-x, axis=-1)[..., :k]
        return mx.take_along_axis(x, order, axis=-1), order.astype(mx.int64)

    def stop_gradient(self, x: Array) -> Array:
        return mx.stop_gradient(x)

    def value_and_grad(self, fn: LossFn, params: Params) -> tuple[float, Params]:
        loss, grads = mx.value_and_grad(fn)(params)
        mx.eval(loss, grads)
        return float(loss.item()), grads

    def evaluate(self, *arrays: Array) -> None:
        mx.eval(*arrays)
