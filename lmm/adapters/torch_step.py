"""One decode step of a Llama-like decoder: what the model's own forward computes for a single new token, in a third of
the calls.

A step of a small model is bound by reading weights and by the number of calls. So each normalisation is one call,
queries and keys are rotated together, and the heads that share a key are rows of one attention. The weights stay the
model's own and where they are.

Families differ in where they normalise, in how far a layer looks back and in how it rotates; `_Layer` says this for a
layer, read from its modules. Whether a model is of this kind is not taken from its name alone: `step_of` compares the
step with the model's own forward on a probe and returns None where they differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, gelu, linear, rms_norm, scaled_dot_product_attention, silu
from torch.overrides import TorchFunctionMode
from transformers import DynamicCache

from lmm.adapters.torch_wide import product

Function = Callable[[Tensor], Tensor]
Edit = Callable[[int, str, Tensor], Tensor]
#: a layer's RMS norms before attention, after it, before the MLP and after it; "": none
BEFORE = ("input_layernorm", "", "post_attention_layernorm", "")
AFTER = ("", "post_attention_layernorm", "", "post_feedforward_layernorm")
AROUND = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
#: families whose layers are rotary grouped-query attention and a gated MLP, both residual
FAMILIES = {
    **dict.fromkeys(("Llama", "Mistral", "Ministral", "Qwen2", "Qwen3", "Phi3", "SmolLM3", "SeedOss", "Gemma"), BEFORE),
    **dict.fromkeys(("Olmo2", "Olmo3"), AFTER),
    **dict.fromkeys(("Gemma2", "Gemma3"), AROUND),
}
WINDOWED = ("Mistral", "Phi3")  # all their layers have the configuration's window; in others, a layer has its own
ACTIVATIONS: dict[str, Function] = {"silu": silu, "gelu_pytorch_tanh": partial(gelu, approximate="tanh")}
PROBE = 12  # tokens of the comparison


class Step:
    """A model's decode step. Shape letters: B batch, D width, H query heads, G key heads, E head width, V vocabulary,
    C caches."""

    def __init__(self, model: Any) -> None:
        self.model, self.body = model, model.get_decoder()
        config = self.body.config
        self.norm = _norm(self.body.norm, config)
        self.layers = [_Layer(layer, config) for layer in self.body.layers]
        self.cap = getattr(config, "final_logit_softcapping", None)
        self.long = (config.rope_parameters or {}).get("original_max_position_embeddings")
        self._tables: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, ids: Tensor, caches: Sequence[DynamicCache], edit: Edit | None = None) -> Tensor:
        """Token ids [B, 1] after `caches`, which grow by them -> logits [B, 1, V].

        One cache is of a whole batch; several are of conversations of different lengths, one for each row: the weights
        are read once for all of them. `edit(layer, part, h)` is asked before ("pre_attention") and after ("residual")
        each layer and returns the new h [B, 1, D]. The projections are called, not read: what hooks them or has taken
        their place acts here too.
        """
        edit = edit or _unchanged
        h = self.body.embed_tokens(ids)
        positions = [cache.layers[0].keys.shape[-2] for cache in caches]
        rotary = {kind: self._rotary(kind, positions, h) for kind in {layer.rotary for layer in self.layers}}
        for i, layer in enumerate(self.layers):
            before_attention, after_attention, before_mlp, after_mlp = layer.norms
            h = edit(i, "pre_attention", h)
            kept = [cache.layers[i] for cache in caches]
            h = h + after_attention(layer.attended(before_attention(h), kept, rotary[layer.rotary]))
            h = h + after_mlp(layer.transformed(before_mlp(h)))
            h = edit(i, "residual", h)
        return _capped(self.model.get_output_embeddings()(self.norm(h)), self.cap)

    def _rotary(self, kind: str | None, positions: list[int], like: Tensor) -> Tensor | None:
        """Cosines and sines [2, C, 1, R] of positions, from a table that grows with the longest text; R <= E."""
        if kind is None:
            return None
        if kind not in self._tables or max(positions) >= self._tables[kind].shape[1]:
            # what is farther than the model was made for may turn at other speeds; transformers judges a whole call
            count = max(1024, 2 * max(positions))
            parts = torch.arange(count, device=like.device)[None].split(self.long or count, dim=1)
            tables = [torch.cat(self.body.rotary_emb(like, part, *filter(None, [kind]))) for part in parts]
            self._tables[kind] = torch.cat(tables, 1)
        return self._tables[kind][:, positions, None]


class _Layer:
    """A decoder layer, and how it differs from that of other families."""

    def __init__(self, layer: Any, config: Any) -> None:
        family = type(layer).__name__.removesuffix("DecoderLayer")
        self.attention, self.mlp = layer.self_attn, layer.mlp
        self.norms: Sequence[Function] = [_norm(getattr(layer, name, None), config) for name in FAMILIES[family]]
        self.heads, self.groups = config.num_attention_heads, config.num_key_value_heads
        self.width, self.scale = self.attention.head_dim, self.attention.scaling
        self.query_norm = _norm(getattr(self.attention, "q_norm", None), config)
        self.key_norm = _norm(getattr(self.attention, "k_norm", None), config)
        self.cap = getattr(self.attention, "attn_logit_softcapping", None)
        knows = config if family in WINDOWED else self.attention
        self.window = getattr(knows, "sliding_window", None) or 0  # tokens seen; 0: all
        of_kinds = "rope_theta" not in config.rope_parameters  # each kind of layer has its own speeds
        kind = config.layer_types[self.attention.layer_idx] if of_kinds else ""
        self.rotary = kind if getattr(self.attention, "use_rope", True) else None  # key of the table
        self.act = ACTIVATIONS[_activation(config)]

    def attended(self, x: Tensor, kept: Sequence[Any], rotary: Tensor | None) -> Tensor:
        """What tokens [B, 1, D] read from the layer's caches, which grow by them."""
        rows, heads, groups, width = len(x), self.heads, self.groups, self.width
        q, k, v = self._projected(x)
        turned = torch.cat((self.query_norm(q), self.key_norm(k)), -1).view(rows, heads + groups, width)
        if rotary is not None:
            turned = _turned(turned, *rotary)
        # the query heads of one key head are the rows of one attention: nothing is repeated
        queries = turned[:, :heads].reshape(rows, groups, heads // groups, width)
        new = queries, turned[:, heads:, None], v.reshape(rows, groups, 1, width)
        read = []
        for cache, query, key, value in zip(kept, *(x.split(rows // len(kept)) for x in new), strict=True):
            cache.keys, cache.values = torch.cat((cache.keys, key), 2), torch.cat((cache.values, value), 2)
            seen = slice(-self.window, None)
            read.append(_attention(query, cache.keys[:, :, seen], cache.values[:, :, seen], self.scale, self.cap))
        return self.attention.o_proj(torch.cat(read).to(x.dtype).reshape(rows, 1, -1))

    def _projected(self, x: Tensor) -> Sequence[Tensor]:
        """Queries, keys and values [B, 1, heads * E]."""
        attention = self.attention
        if hasattr(attention, "qkv_proj"):
            return attention.qkv_proj(x).split([n * self.width for n in (self.heads, self.groups, self.groups)], -1)
        return attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)

    def transformed(self, x: Tensor) -> Tensor:
        mlp = self.mlp
        fused = hasattr(mlp, "gate_up_proj")
        gate, up = mlp.gate_up_proj(x).chunk(2, -1) if fused else (mlp.gate_proj(x), mlp.up_proj(x))
        return mlp.down_proj(self.act(gate) * up)


def _norm(norm: Any, config: Any) -> Function:
    """An RMS norm of the last dimension or, where its weight is narrower, of each part of it; no norm changes nothing.
    Gemma's weights are what is added to 1, and its sums are float32."""
    if norm is None:
        return lambda x: x
    weight, eps = norm.weight, config.rms_norm_eps
    if type(norm).__name__.startswith("Gemma"):
        weight = weight.float() + 1

    def normed(x: Tensor) -> Tensor:
        if x.dtype != weight.dtype:
            return rms_norm(parted(x.float()), weight.shape, weight.float(), eps).to(x.dtype).view(x.shape)
        return rms_norm(parted(x), weight.shape, weight, eps).view(x.shape)

    def parted(x: Tensor) -> Tensor:
        return x if x.shape[-1] == len(weight) else x.view(*x.shape[:-1], -1, len(weight))

    return normed


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Heads [B, H + G, E] rotated in their first R dimensions by cosines and sines [C, 1, R]."""
    part, rest = x.split([cos.shape[-1], x.shape[-1] - cos.shape[-1]], -1)
    half = part.shape[-1] // 2
    part = (part * cos + torch.cat((-part[..., half:], part[..., :half]), -1) * sin).to(x.dtype)
    return torch.cat((part, rest), -1) if rest.shape[-1] else part


def _attention(query: Tensor, keys: Tensor, values: Tensor, scale: float, cap: float | None) -> Tensor:
    if query.device.type == "cpu":  # which has no quick attention in narrow formats
        query, keys, values = query.float(), keys.float(), values.float()
    if cap is None:
        return scaled_dot_product_attention(query, keys, values, scale=scale)
    scores = _capped(query @ keys.mT * scale, cap)
    return scores.softmax(-1, dtype=torch.float32).to(query.dtype) @ values


def _capped(x: Tensor, cap: float | None) -> Tensor:
    return x if cap is None else torch.tanh(x / cap) * cap


def _unchanged(layer: int, part: str, h: Tensor) -> Tensor:
    return h


def step_of(model: Any, probe: list[int]) -> Step | None:
    """The step of a model, or None: then its own forward serves. `probe`: token ids of any text.

    In a narrow format the two may be farther apart than a wrong step would be. Then they are compared in float32, and
    in the format itself the step may be about as far from float32 as the model's own forward is.
    """
    if not _looks_fit(model):
        return None
    ids, step = torch.as_tensor([probe[:PROBE]], device=model.device), Step(model)
    found, own = _both(step, ids)
    if far(found, own) < 0.01 and bool((found.argmax() == own.argmax()).item()):  # nearer than formats differ
        return step
    if model.dtype == torch.float32:
        return None
    found, own = _both(step, ids, steps=4)
    with _InFloat32():
        exact, truth = _both(Step(model), ids, steps=4)
    return step if far(exact, truth) < 0.01 and far(found, truth) < 2 * far(own, truth) else None


@torch.no_grad()
def _both(step: Step, ids: Tensor, steps: int = 1) -> tuple[Tensor, Tensor]:
    """Logits [1, steps, V] of the last tokens by the step and by the model's own forward."""
    model, start = step.model, ids.shape[1] - steps
    cache = model(ids[:, :start], use_cache=True, past_key_values=DynamicCache()).past_key_values
    twin = DynamicCache([(layer.keys, layer.values) for layer in cache.layers])
    found, own = [], []
    for token in ids[:, start:].split(1, dim=1):
        found.append(step(token, [cache]))
        own.append(model(token, past_key_values=twin).logits)
    return torch.cat(found, 1).float(), torch.cat(own, 1).float()


def far(found: Tensor, wanted: Tensor) -> float:
    """The root of the mean square of what logits differ, in their standard deviations."""
    return ((found - wanted).square().mean().sqrt() / wanted.std()).item()


class _InFloat32(TorchFunctionMode):
    """Inside, embeddings are float32 and with them all that is computed of them; the weights stay as they are."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is linear:
            x, weight, bias = (*args, None)[:3]
            return product(x.float(), weight) if bias is None else product(x.float(), weight) + bias
        out = func(*args, **(kwargs or {}))
        return out.float() if func is embedding else out


def _activation(config: Any) -> str:
    return getattr(config, "hidden_activation", None) or config.hidden_act


def _looks_fit(model: Any) -> bool:
    try:
        body = model.get_decoder()
        names = {type(layer).__name__ for layer in body.layers}
        rope = body.config.rope_parameters
    except AttributeError:
        return False
    known = {f"{family}DecoderLayer" for family in FAMILIES}
    kinds = [rope] if "rope_theta" in rope else rope.values()
    dynamic = any((kind or {}).get("rope_type") == "dynamic" for kind in kinds)  # turns all by the longest text
    return bool(names) and names <= known and not dynamic and _activation(body.config) in ACTIVATIONS
