"""The encoder `lam` in torch, complete in this one file: what is trained, and what sentence-transformers loads.

The exported folder (`lmm.encoders.lam.export`) has a copy of this file, which needs torch, tokenizers and safetensors
alone. The equations are in lmm/encoders/lam.py, which runs them on every backend.
Shape letters: B texts, P pages, L tokens of a page, T = P L, D width, H heads, E = D / H, M features of a head.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

EXPONENT = 15.0  # exponents are kept within this: neither overflow nor a division by zero
TAPS = (-3, -2, -1, 0, 1, 2, 3)  # the neighbours that a token sees by their place


class Layers(nn.Module):
    """Weights by name, and the six layers over them. Matrices are [in, out]."""

    def __init__(self, weights: Mapping[str, Tensor], page: int, layers: int, heads: int) -> None:
        super().__init__()
        self.page, self.layers, self.heads = page, layers, heads
        self.names = list(weights)
        for name, value in weights.items():
            self.register_buffer(name.replace(".", "_"), value)

    def weight(self, name: str) -> Tensor:
        return getattr(self, name.replace(".", "_"))

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weight(f"{name}.weight") + self.weight(f"{name}.bias")

    def norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return nn.functional.layer_norm(x.float(), weight.shape, weight, bias, 1e-12)

    def embed(self, ids: Tensor) -> Tensor:
        """Ids [B, P, L] -> [B, P, L, D]; positions count within the page."""
        x = self.weight("embeddings.word_embeddings.weight")[ids]
        x = x + self.weight("embeddings.position_embeddings.weight")[: ids.shape[-1]]
        return self.norm("embeddings.LayerNorm", x + self.weight("embeddings.token_type_embeddings.weight")[0])

    def heads_of(self, name: str, x: Tensor) -> Tensor:
        """[B, P, L, D] -> [B, P, H, L, E]"""
        return self.linear(name, x).unflatten(-1, (self.heads, -1)).transpose(-2, -3)

    def attention(self, at: str, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Queries, keys, values [B, P, H, L, E] and mask [B, P, L], 1.0 for tokens -> [B, P, L, D]."""

        def positive(name: str, x: Tensor) -> Tensor:
            exponent = x @ self.weight(f"{at}.{name}") + self.weight(f"{at}.{name}_bias").unsqueeze(1)
            return exponent.clamp(-EXPONENT, EXPONENT).exp()

        q, k = q.float(), k.float()
        there = mask[:, :, None, :, None]
        v = torch.cat([v.float(), torch.ones_like(v[..., :1], dtype=torch.float32)], -1) * there
        sums = (positive("key_map", k) * there).transpose(-1, -2) @ v  # [B, P, H, M, E + 1]
        if sums.shape[1] > 1:
            share = self.page / mask.sum((1, 2)).clamp(min=self.page)
            sums = sums + share[:, None, None, None, None] * (sums.sum(1, keepdim=True) - sums)
        mixed = positive("query_map", q) @ sums
        near = positive("local", q)
        padded = nn.functional.pad(v, (0, 0, -TAPS[0], TAPS[-1]))
        for tap, shift in enumerate(TAPS):
            start = shift - TAPS[0]
            mixed = mixed + near[..., tap : tap + 1] * padded[..., start : start + v.shape[-2], :]
        return (mixed[..., :-1] / mixed[..., -1:].clamp(min=1e-30)).transpose(-2, -3).flatten(-2)

    def layer(self, layer: int, x: Tensor, mask: Tensor) -> Tensor:
        at = f"encoder.layer.{layer}."
        q, k, v = (self.heads_of(f"{at}attention.self.{name}", x) for name in ("query", "key", "value"))
        return self.after_attention(at, x, self.attention(f"{at}attention.self", q, k, v, mask))

    def after_attention(self, at: str, x: Tensor, mixed: Tensor) -> Tensor:
        x = self.norm(f"{at}attention.output.LayerNorm", x + self.linear(f"{at}attention.output.dense", mixed))
        inner = nn.functional.gelu(self.linear(f"{at}intermediate.dense", x))
        return self.norm(f"{at}output.LayerNorm", x + self.linear(f"{at}output.dense", inner))

    def paged(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and mask [B, T], padded on the right -> [B, P, L]."""
        if ids.shape[1] <= self.page:
            return ids[:, None], mask[:, None].float()
        missing = -ids.shape[1] % self.page
        ids, mask = (nn.functional.pad(x, (0, missing)).unflatten(1, (-1, self.page)) for x in (ids, mask))
        return ids, mask.float()

    def embedding(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Ids and mask [B, T], padded on the right -> the texts' unit vectors [B, D]."""
        ids, mask = self.paged(ids, mask)
        x = self.embed(ids)
        for layer in range(self.layers):
            x = self.layer(layer, x, mask)
        return self.pooled(x, mask)

    def pooled(self, x: Tensor, mask: Tensor) -> Tensor:
        return nn.functional.normalize((x * mask[..., None]).sum((1, 2)), dim=-1)


class LamModule(Layers):
    """A module of sentence-transformers: `tokenize`, `forward`, `save`, `load`."""

    save_in_root = True  # beside its code

    def __init__(self, weights: Mapping[str, Tensor], config: Mapping[str, int], tokenizer: Any) -> None:
        super().__init__(weights, config["page"], config["layers"], config["heads"])
        self.config, self.tokenizer, self.max_seq_length = dict(config), tokenizer, config["max_length"]
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()

    def tokenize(self, texts: Sequence[str], **_: Any) -> dict[str, Tensor]:
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        rows = [[*row[: self.max_seq_length - 1], row[-1]] if len(row) > self.max_seq_length else row for row in rows]
        length = max(map(len, rows), default=0)
        ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
        return {"input_ids": ids, "attention_mask": mask}

    def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        features["sentence_embedding"] = self.embedding(features["input_ids"], features["attention_mask"])
        return features

    def get_sentence_embedding_dimension(self) -> int:
        return self.weight("embeddings.LayerNorm.weight").shape[0]

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        from safetensors.torch import save_file

        folder = Path(output_path)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: self.weight(name).cpu().contiguous() for name in self.names}, folder / "model.safetensors")
        self.tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "config.json").write_text(json.dumps(self.config))
        shutil.copyfile(__file__, folder / "lam_torch.py")

    @classmethod
    def load(cls, input_path: str, *_: Any, **__: Any) -> LamModule:
        from safetensors.torch import load_file
        from tokenizers import Tokenizer

        folder = Path(input_path)
        weights = {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
        config = json.loads((folder / "config.json").read_text())
        return cls(weights, config, Tokenizer.from_file(str(folder / "tokenizer.json")))
