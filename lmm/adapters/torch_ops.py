"""`Ops` on torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from lmm.adapters.ops import Array, LossFn, Ops, Params


class TorchOps(Ops):
    name = "torch"

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def asarray(self, values: Any, dtype: str = "float32") -> Array:
        if isinstance(values, np.ndarray):
            # Always a copy in torch's own memory: a view of a file's bytes lies at an odd address, and torch's kernels
            # sum in another order there, which shows in the last bits.
            return torch.tensor(values, dtype=getattr(torch, dtype), device=self.device)
        return torch.as_tensor(values, dtype=getattr(torch, dtype), device=self.device)

    def to_numpy(self, x: Array) -> np.ndarray:
        if isinstance(x, np.ndarray):
            return x.copy()
        return (x.float() if x.dtype == torch.bfloat16 else x).numpy(force=True).copy()

    def cast_like(self, x: Array, other: Array) -> Array:
        return x.to(other.dtype)

    def float32(self, x: Array) -> Array:
        return x.float()

    def concat(self, arrays: Sequence[Array], axis: int = -1) -> Array:
        return torch.cat(list(arrays), dim=axis)

    def take(self, x: Array, indices: Array, axis: int = 0) -> Array:
        rows = x.index_select(axis, indices.reshape(-1))
        return rows.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])

    def take_along(self, x: Array, indices: Array, axis: int = -1) -> Array:
        return torch.take_along_dim(x, indices, dim=axis)

    def where(self, condition: Array, x: Array, y: Array) -> Array:
        return torch.where(condition, x, y)

    def einsum(self, pattern: str, *arrays: Array) -> Array:
        return torch.einsum(pattern, *arrays)

    def softmax(self, x: Array, axis: int = -1) -> Array:
        return torch.softmax(x, dim=axis)

    def logsumexp(self, x: Array, axis: int = -1) -> Array:
        return torch.logsumexp(x, dim=axis)

    def sigmoid(self, x: Array) -> Array:
        return torch.sigmoid(x)

    def sqrt(self, x: Array) -> Array:
        return torch.sqrt(x)

    def exp(self, x: Array) -> Array:
        return torch.exp(x)

    def abs(self, x: Array) -> Array:
        return torch.abs(x)

    def gelu(self, x: Array) -> Array:
        return torch.nn.functional.gelu(x)

    def clip(self, x: Array, low: float, high: float | None = None) -> Array:
        return torch.clamp(x, low, high)

    def sum(self, x: Array, axis: int | None = None, keepdims: bool = False) -> Array:
        return x.sum() if axis is None else x.sum(dim=axis, keepdim=keepdims)

    def argmax(self, x: Array, axis: int = -1) -> Array:
        return torch.argmax(x, dim=axis)

    def top_k(self, x: Array, k: int) -> tuple[Array, Array]:
        values, indices = torch.topk(x, k, dim=-1)
        return values, indices

    def stop_gradient(self, x: Array) -> Array:
        return x.detach()

    def value_and_grad(self, fn: LossFn, params: Params) -> tuple[float, Params]:
        leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
        with torch.enable_grad():
            loss = fn(leaves)
            grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        filled = (torch.zeros_like(p) if g is None else g for p, g in zip(params.values(), grads, strict=True))
        return float(loss.detach()), dict(zip(params, filled, strict=True))
