"""Weights of 8 bits for the decode step of one conversation on a processor.

A step of one token is bound by reading weights, and these are half as many bytes as in half precision: int8, with a
scale for each output, made once from the model's own. Activations are bfloat16, for which torch has the kernel; in int8
they changed more of what a model says (docs/results.md). The model's own weights stay: prompts, batches and lessons
need them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from lmm.adapters.torch_wide import blocks

MOST = 127  # symmetric: -128 is not used
ALIGNED = 32  # inputs that the kernel reads at once, also beyond the end of a weight with fewer: those keep their own


class Int8:
    """The projections in some frozen modules, which compute with int8 weights inside `with int8():` and as ever
    outside."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.active = False
        for module in {part: None for whole in modules for part in whole.modules()}:
            if isinstance(module, nn.Linear) and module.in_features % ALIGNED == 0:
                # the instance attribute hides the class's `forward`
                module.forward = partial(self._forward, module.forward, module.bias, *quantised(module.weight))

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        self.active = True
        try:
            yield
        finally:
            self.active = False

    def _forward(
        self, own: Callable[[Tensor], Tensor], bias: Tensor | None, weight: Tensor, scales: Tensor, x: Tensor
    ) -> Tensor:
        if not self.active:
            return own(x)
        out = product(x, weight, scales)
        return out if bias is None else out + bias


def quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight [O, I] as int8, and the scales [O] of its outputs."""
    scales = (weight.abs().amax(1).float() / MOST).bfloat16()
    sizes = scales.float().where(scales > 0, 1.0)  # a row of zeros
    parts = blocks(weight)
    small = [
        (block.float() / size[:, None]).round().clamp(-MOST, MOST).to(torch.int8)
        for block, size in zip(parts, sizes.split(len(parts[0])), strict=True)
    ]
    return torch.cat(small), scales


def product(x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    """x [..., I] times weight [O, I], as `quantised` gives it -> [..., O] in the dtype of `x`."""
    out = torch._weight_int8pack_mm(x.view(-1, x.shape[-1]).bfloat16(), weight, scales)
    return out.to(x.dtype).view(*x.shape[:-1], -1)
