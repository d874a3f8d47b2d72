"""Products of a narrow model on a processor that computes in float32.

Decoding is bound by reading weights, where half the bytes are half the time. Reading a prompt, a batch or a lesson is
bound by computing, and a processor without arithmetic for float16 takes there three to five times as long as with
float32. So from some number of rows on (measured, `torch_dtype.wide_from`) a block of weights at a time is made float32
and multiplied so: no weight changes, sums are at least as exact, and no more than a block is held twice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

BLOCK = 2**20  # weights: 4 MB in float32, which stay in the processor's cache
ATTENTION = "lmm_wide"


def widen(model: Any, rows: int) -> None:
    """Have the frozen model's projections, and its attention where torch's own is used, compute in float32 from `rows`
    rows on."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__, module.wide_from = _WideLinear, rows
    if getattr(model.config, "_attn_implementation", None) == "sdpa":
        ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _attention)
        ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
        model.set_attn_implementation(ATTENTION)


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x [..., I] times weight [O, I], computed in float32 -> [..., O] in the dtype of `x`."""
    wide, out, at = x.float(), x.new_empty(*x.shape[:-1], len(weight)), 0
    for block in blocks(weight):
        out[..., at : at + len(block)] = linear(wide, block.float())
        at += len(block)
    return out


def blocks(weight: Tensor) -> tuple[Tensor, ...]:
    """Rows of a weight, as many at a time as stay in the processor's cache."""
    return weight.split(max(1, BLOCK // weight.shape[1]))


class _Product(torch.autograd.Function):
    """`product`, whose gradient makes the weights wide once more instead of keeping them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return product(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (weight,), (grad,) = ctx.saved_tensors, grads
        wide, total, at = grad.float(), grad.new_zeros(*grad.shape[:-1], weight.shape[1], dtype=torch.float32), 0
        for block in blocks(weight):
            total += wide[..., at : at + len(block)] @ block.float()
            at += len(block)
        return total.to(grad.dtype), None


class _WideLinear(nn.Linear):
    wide_from: int

    def forward(self, input: Tensor) -> Tensor:
        if input[..., 0].numel() < self.wide_from or self.weight.requires_grad:
            return super().forward(input)
        out = _Product.apply(input, self.weight)
        return out if self.bias is None else out + self.bias


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> Any:
    """torch's attention in float32.

    After a text, the queries [B, H, T, E] of one key head are the rows of one attention: to repeat the keys of a long
    text [B, G, S, E] for each of them would take longer than to read it.
    """
    wide = query.float(), key.float(), value.float()
    if mask is not None and mask.is_floating_point():
        mask = mask.float()
    if mask is None or options.get("position_bias") is not None:
        out, weights = sdpa_attention_forward(module, *wide, mask, **options)
        return out.to(query.dtype), weights
    rows, heads, length, width = query.shape
    grouped = wide[0].reshape(rows, key.shape[1], -1, width)
    mask = mask.expand(-1, heads, -1, -1).reshape(len(mask), key.shape[1], -1, mask.shape[-1])
    out = scaled_dot_product_attention(grouped, *wide[1:], attn_mask=mask, scale=options.get("scaling"))
    return out.view(rows, heads, length, -1).transpose(1, 2).to(query.dtype), None
