"""One decode step of a Llama-like decoder: what the model's own forward computes for a single new token, with fewer and
larger operations.

A step is bound by reading weights and, in a small model, by the number of calls. So queries, keys and values come from
one product, gate and up projection from one, and the heads that share a key are rows of one attention. The joined
matrices replace the model's own, which become views of them: no second copy, the same names, the same numbers.

Whether a model is of this kind is not taken from its name alone: `step_of` compares the step with the model's own
forward on a probe and returns None where they differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention, silu
from transformers import DynamicCache

#: decoder layers of this form: RMS norm, rotary grouped-query attention, RMS norm, SiLU-gated MLP, both residual
LAYER_CLASSES = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer")
#: rotary tables that do not depend on how long the text has become
ROPE_TYPES = ("default", "linear", "llama3")
Edit = Callable[[int, str, Tensor, Tensor], Tensor]
PROBE = 12  # tokens of the comparison


class LlamaStep:
    """The weights of a model, joined where they read the same input. Shape letters: B batch, T tokens read, D width,
    H query heads, G key heads, E head width."""

    def __init__(self, model: Any) -> None:
        self.model, config = model, model.config
        self.layers = [_Layer(layer) for layer in model.model.layers]
        self.heads, self.groups = config.num_attention_heads, config.num_key_value_heads
        self.eps = config.rms_norm_eps
        self._cos_sin = torch.empty(2, 0, 0)

    @torch.no_grad()
    def __call__(self, ids: Tensor, cache: DynamicCache, edit: Edit | None = None) -> Tensor:
        """Token ids [B, 1] after `cache`, which grows by them -> logits [B, 1, V].

        `edit(layer, part, x_in, x_out)` is asked at every site and returns the new x_out [B, 1, D].
        """
        rows, heads, groups = len(ids), self.heads, self.groups
        h = self.model.model.embed_tokens(ids)
        cos, sin = self._rotary(cache.layers[0].keys.shape[-2], h)
        for i, (layer, kept) in enumerate(zip(self.layers, cache.layers, strict=True)):
            if edit is not None:
                h = edit(i, "pre_attention", h, h)
            mixed = linear(rms_norm(h, h.shape[-1:], layer.norm_1, self.eps), layer.qkv, layer.qkv_bias)
            mixed = mixed.view(rows, heads + 2 * groups, -1)
            turned = mixed[:, : heads + groups]
            half = turned.shape[-1] // 2
            turned = turned * cos + torch.cat((-turned[..., half:], turned[..., :half]), -1) * sin
            keys = kept.keys = torch.cat((kept.keys, turned[:, heads:, None]), 2)
            values = kept.values = torch.cat((kept.values, mixed[:, heads + groups :, None]), 2)
            # the query heads of one key head are the rows of one attention: nothing is repeated
            queries = turned[:, :heads].reshape(rows, groups, heads // groups, -1)
            read = scaled_dot_product_attention(queries, keys, values).reshape(rows, 1, -1)
            h = h + linear(read, layer.out, layer.out_bias)
            inner = linear(rms_norm(h, h.shape[-1:], layer.norm_2, self.eps), layer.gate_up, layer.gate_up_bias)
            gate, up = inner.chunk(2, -1)
            inner = silu(gate) * up
            down = linear(inner, layer.down, layer.down_bias)
            if edit is not None:
                down = edit(i, "mlp.down_proj", inner, down)
            h = h + down
            if edit is not None:
                h = edit(i, "residual", h, h)
        return self.model.lm_head(rms_norm(h, h.shape[-1:], self.model.model.norm.weight, self.eps))

    def _rotary(self, position: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [1, E] of a position, from a table that grows with the longest text."""
        if position >= self._cos_sin.shape[1]:
            positions = torch.arange(max(1024, 2 * position), device=like.device)[None]
            self._cos_sin = torch.stack([x[0] for x in self.model.model.rotary_emb(like, positions)])
        return self._cos_sin[0, position : position + 1], self._cos_sin[1, position : position + 1]


class _Layer:
    """One layer's weights; the model's own matrices become views of the joined ones."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.qkv, self.qkv_bias = _join([attention.q_proj, attention.k_proj, attention.v_proj])
        self.gate_up, self.gate_up_bias = _join([mlp.gate_proj, mlp.up_proj])
        self.out, self.out_bias = attention.o_proj.weight, attention.o_proj.bias
        self.down, self.down_bias = mlp.down_proj.weight, mlp.down_proj.bias
        self.norm_1, self.norm_2 = layer.input_layernorm.weight, layer.post_attention_layernorm.weight


def _join(parts: list[Any]) -> tuple[Tensor, Tensor | None]:
    """The weights (and biases) of linear maps of the same input as one matrix, of which theirs become views."""
    weight = torch.cat([part.weight.data for part in parts])
    for part, rows in zip(parts, weight.split([len(part.weight) for part in parts]), strict=True):
        part.weight.data = rows
    if parts[0].bias is None:
        return weight, None
    return weight, torch.cat([part.bias.data for part in parts])


def step_of(model: Any, probe: list[int]) -> LlamaStep | None:
    """The step of a model, or None: then its own forward serves. `probe`: token ids of any text."""
    if not _looks_fit(model):
        return None
    step, ids = LlamaStep(model), torch.as_tensor([probe[:PROBE]], device=model.device)
    with torch.no_grad():
        cache = model(ids[:, :-1], use_cache=True, past_key_values=DynamicCache()).past_key_values
        own = model(ids[:, -1:], past_key_values=_twin(cache)).logits
    found = step(ids[:, -1:], cache)
    scale = own.float().std()
    close = bool(((found - own).float().abs().max() < 0.05 * scale).item())  # nearer than formats differ
    return step if close and bool((found.argmax() == own.argmax()).item()) else None


def _twin(cache: DynamicCache) -> DynamicCache:
    return DynamicCache([(layer.keys, layer.values) for layer in cache.layers])


def _looks_fit(model: Any) -> bool:
    config = model.config
    layers = getattr(getattr(model, "model", None), "layers", [])
    if not layers or any(type(layer).__name__ not in LAYER_CLASSES for layer in layers):
        return False
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    sliding = getattr(config, "use_sliding_window", True) and getattr(config, "sliding_window", None)
    return rope in ROPE_TYPES and not sliding and config.hidden_act == "silu"
