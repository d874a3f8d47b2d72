"""One decode step of a Llama-like decoder: what the model's own forward computes for a single new token, in a third of
the calls.

A step of a small model is bound by reading weights and by the number of calls. So each normalisation is one call,
queries and keys are rotated together, and the heads that share a key are rows of one attention. The weights stay the
model's own and where they are.

Whether a model is of this kind is not taken from its name alone: `step_of` compares the step with the model's own
forward on a probe and returns None where they differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu
from transformers import DynamicCache

#: decoder layers of this form: RMS norm, rotary grouped-query attention, RMS norm, SiLU-gated MLP, both residual
LAYER_CLASSES = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer")
#: rotary tables that do not depend on how long the text has become
ROPE_TYPES = ("default", "linear", "llama3")
Edit = Callable[[int, str, Tensor], Tensor]
PROBE = 12  # tokens of the comparison


class LlamaStep:
    """A model's decode step. Shape letters: B batch, T tokens read, D width, E head width, V vocabulary."""

    def __init__(self, model: Any) -> None:
        self.model, config = model, model.config
        self.heads, self.groups = config.num_attention_heads, config.num_key_value_heads
        self.eps = config.rms_norm_eps
        self._cos_sin = torch.empty(2, 0, 0)

    @torch.no_grad()
    def __call__(self, ids: Tensor, cache: DynamicCache, edit: Edit | None = None) -> Tensor:
        """Token ids [B, 1] after `cache`, which grows by them -> logits [B, 1, V].

        `edit(layer, part, h)` is asked before ("pre_attention") and after ("residual") each layer and returns the new
        h [B, 1, D]. The projections are called, not read: what hooks them or has taken their place acts here too.
        """
        edit = edit or _unchanged
        h = self.model.model.embed_tokens(ids)
        rotary = self._rotary(cache.layers[0].keys.shape[-2], h)
        for i, (layer, kept) in enumerate(zip(self.model.model.layers, cache.layers, strict=True)):
            h = edit(i, "pre_attention", h)
            h = h + self._attended(layer.self_attn, self._norm(layer.input_layernorm, h), kept, *rotary)
            x, mlp = self._norm(layer.post_attention_layernorm, h), layer.mlp
            inner = silu(mlp.gate_proj(x)) * mlp.up_proj(x)
            h = h + mlp.down_proj(inner)
            h = edit(i, "residual", h)
        return self.model.lm_head(self._norm(self.model.model.norm, h))

    @torch.no_grad()
    def each(self, ids: Tensor, caches: Sequence[DynamicCache], edit: Edit | None = None) -> Tensor:
        """The same for conversations of different lengths, each in a cache of its own: ids [B, 1] -> logits [B, 1, V].

        The weights are read once for all of them; only what a token reads of its own past is done one by one.
        """
        edit = edit or _unchanged
        h = self.model.model.embed_tokens(ids)
        positions = [cache.layers[0].keys.shape[-2] for cache in caches]
        self._rotary(max(positions), h)
        cos, sin = (table[positions][:, None] for table in self._cos_sin)  # [B, 1, E]
        for i, layer in enumerate(self.model.model.layers):
            h = edit(i, "pre_attention", h)
            kept = [cache.layers[i] for cache in caches]
            h = h + self._attended_each(layer.self_attn, self._norm(layer.input_layernorm, h), kept, cos, sin)
            x, mlp = self._norm(layer.post_attention_layernorm, h), layer.mlp
            h = h + mlp.down_proj(silu(mlp.gate_proj(x)) * mlp.up_proj(x))
            h = edit(i, "residual", h)
        return self.model.lm_head(self._norm(self.model.model.norm, h))

    def _attended_each(self, attention: Any, x: Tensor, kept: Sequence[Any], cos: Tensor, sin: Tensor) -> Tensor:
        rows, heads, groups = len(x), self.heads, self.groups
        turned = torch.cat((attention.q_proj(x), attention.k_proj(x)), -1)
        turned = turned.view(rows, heads + groups, -1)
        half = turned.shape[-1] // 2
        turned = turned * cos + torch.cat((-turned[..., half:], turned[..., :half]), -1) * sin
        values = attention.v_proj(x).view(rows, groups, 1, -1)
        queries = turned[:, :heads].reshape(rows, groups, heads // groups, -1)
        read = []
        for row, cache in enumerate(kept):
            cache.keys = torch.cat((cache.keys, turned[row : row + 1, heads:, None]), 2)
            cache.values = torch.cat((cache.values, values[row : row + 1]), 2)
            read.append(scaled_dot_product_attention(queries[row : row + 1], cache.keys, cache.values))
        return attention.o_proj(torch.cat(read).reshape(rows, 1, -1))

    def _attended(self, attention: Any, x: Tensor, kept: Any, cos: Tensor, sin: Tensor) -> Tensor:
        """What one token [B, 1, D] reads from the layer's cache, which grows by it."""
        rows, heads, groups = len(x), self.heads, self.groups
        turned = torch.cat((attention.q_proj(x), attention.k_proj(x)), -1)
        turned = turned.view(rows, heads + groups, -1)
        half = turned.shape[-1] // 2
        turned = turned * cos + torch.cat((-turned[..., half:], turned[..., :half]), -1) * sin
        kept.keys = torch.cat((kept.keys, turned[:, heads:, None]), 2)
        kept.values = torch.cat((kept.values, attention.v_proj(x).view(rows, groups, 1, -1)), 2)
        # the query heads of one key head are the rows of one attention: nothing is repeated
        queries = turned[:, :heads].reshape(rows, groups, heads // groups, -1)
        read = scaled_dot_product_attention(queries, kept.keys, kept.values)
        return attention.o_proj(read.reshape(rows, 1, -1))

    def _norm(self, norm: Any, x: Tensor) -> Tensor:
        return rms_norm(x, x.shape[-1:], norm.weight, self.eps)

    def _rotary(self, position: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [1, E] of a position, from a table that grows with the longest text."""
        if position >= self._cos_sin.shape[1]:
            positions = torch.arange(max(1024, 2 * position), device=like.device)[None]
            self._cos_sin = torch.stack([x[0] for x in self.model.model.rotary_emb(like, positions)])
        return self._cos_sin[0, position : position + 1], self._cos_sin[1, position : position + 1]


def _unchanged(layer: int, part: str, h: Tensor) -> Tensor:
    return h


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
