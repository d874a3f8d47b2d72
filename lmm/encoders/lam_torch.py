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
PAIRS = 64  # tokens of a page up to which the products of all its pairs are the faster way to the same


class Layers(nn.Module):
    """Weights by name, and the six layers over them. Matrices are [in, out]; weights may be of half precision, states
    and attention are of float32."""

    def __init__(self, weights: Mapping[str, Tensor], page: int, layers: int, heads: int) -> None:
        super().__init__()
        self.page, self.layers, self.heads = page, layers, heads
        self.names = list(weights)
        for name, value in weights.items():
            self.register_parameter(name.replace(".", "_"), nn.Parameter(value, requires_grad=False))

    def weight(self, name: str) -> Tensor:
        return getattr(self, name.replace(".", "_"))

    def linear(self, name: str, x: Tensor) -> Tensor:
        weight = self.weight(f"{name}.weight")
        return nn.functional.linear(x.to(weight.dtype), weight.T, self.weight(f"{name}.bias"))

    def norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.weight(f"{name}.weight").float(), self.weight(f"{name}.bias").float()
        return nn.functional.layer_norm(x.float(), weight.shape, weight, bias, 1e-12)

    def embed(self, ids: Tensor) -> Tensor:
        """Ids [B, P, L] -> [B, P, L, D]; positions count within the page."""
        x = self.weight("embeddings.word_embeddings.weight")[ids]
        x = x + self.weight("embeddings.position_embeddings.weight")[: ids.shape[-1]]
        return self.norm("embeddings.LayerNorm", x + self.weight("embeddings.token_type_embeddings.weight")[0])

    def heads_of(self, name: str, x: Tensor) -> Tensor:
        """[B, P, L, D] -> [B, P, H, L, E]"""
        return self.linear(name, x).unflatten(-1, (self.heads, -1)).transpose(-2, -3)

    def features(self, at: str, x: Tensor) -> list[Tensor]:
        """States [B, P, L, D] -> features of queries, of keys and of neighbours, [B, P, H, L, M] each (taps of the
        last)."""
        return [self.positive(self.heads_of(f"{at}.{name}", x)) for name in ("query_map", "key_map", "local")]

    def positive(self, exponent: Tensor) -> Tensor:
        return exponent.float().clamp(-EXPONENT, EXPONENT).exp()

    def attention(self, features: Sequence[Tensor], v: Tensor, mask: Tensor) -> Tensor:
        """Features, values [B, P, H, L, E] and mask [B, P, L], 1.0 for tokens -> [B, P, L, D]."""
        queries, keys, near = features
        there = mask[:, :, None, :, None]
        v = torch.cat([v.float(), torch.ones_like(v[..., :1], dtype=torch.float32)], -1) * there
        if mask.shape[1] == 1 and mask.shape[2] <= PAIRS:
            weights = queries @ keys.transpose(-1, -2)
            for tap, shift in enumerate(TAPS):
                if abs(shift) < mask.shape[2]:
                    first, last = max(0, -shift), mask.shape[2] - max(0, shift)
                    weights.diagonal(shift, -2, -1).add_(near[..., first:last, tap])
            mixed = weights @ v
        else:
            mixed = queries @ self.sums(keys * there, v, mask) + neighbours(near, v)
        return (mixed[..., :-1] / mixed[..., -1:].clamp(min=1e-30)).transpose(-2, -3).flatten(-2)

    def sums(self, keys: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """What a page's tokens see of the whole text: [B, P, H, L, M] and [B, P, H, L, E + 1] -> [B, P, H, M, E + 1]"""
        sums = keys.transpose(-1, -2) @ v
        if sums.shape[1] > 1:
            share = self.page / mask.sum((1, 2)).clamp(min=self.page)
            sums = sums + share[:, None, None, None, None] * (sums.sum(1, keepdim=True) - sums)
        return sums

    def layer(self, layer: int, x: Tensor, mask: Tensor) -> Tensor:
        at = f"encoder.layer.{layer}."
        features, v = self.features(f"{at}attention.self", x), self.heads_of(f"{at}attention.self.value", x)
        return self.after_attention(at, x, self.attention(features, v, mask))

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

    def states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Ids and mask [B, P, L] -> what the last layer gives, [B, P, L, D]."""
        x = self.embed(ids)
        for layer in range(self.layers):
            x = self.layer(layer, x, mask)
        return x

    def embedding(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Ids and mask [B, T], padded on the right -> the texts' unit vectors [B, D]."""
        ids, mask = self.paged(ids, mask)
        return nn.functional.normalize(self.pooled(self.states(ids, mask), mask), dim=-1)

    def pooled(self, x: Tensor, mask: Tensor) -> Tensor:
        """States and mask -> the means of the texts' states, [B, D]."""
        return (x * mask[..., None]).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)[:, None]


def neighbours(near: Tensor, v: Tensor) -> Tensor:
    """The sum over a token's seven neighbours in its page: weights [..., L, taps], values [..., L, E + 1]."""
    padded = nn.functional.pad(v, (0, 0, -TAPS[0], TAPS[-1]))
    return sum(near[..., i : i + 1] * padded[..., i : i + v.shape[-2], :] for i in range(len(TAPS)))


class LamModule(Layers):
    """A module of sentence-transformers: `tokenize`, `forward`, `save`, `load`."""

    save_in_root = True  # beside its code

    def __init__(
        self, weights: Mapping[str, Tensor], config: Mapping[str, int], tokenizer: Any, license: str = ""
    ) -> None:
        super().__init__(weights, config["page"], config["layers"], config["heads"])
        self.config, self.tokenizer, self.license = dict(config), tokenizer, license
        self.max_seq_length = config["max_length"]
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
        """Ids and mask [B, T], padded anywhere -> also `sentence_embedding`, the means of the states [B, D], and
        `token_embeddings` [B, T, D]."""
        ids, mask = features["input_ids"], features["attention_mask"]
        order = mask.argsort(dim=1, descending=True, stable=True)  # padding last
        paged = self.paged(ids.gather(1, order), mask.gather(1, order))
        states = self.states(*paged)
        places = order.argsort(dim=1)[..., None].expand(-1, -1, states.shape[-1])
        features["token_embeddings"] = states.flatten(1, 2).gather(1, places)
        features["sentence_embedding"] = self.pooled(states, paged[1])
        return features

    def get_sentence_embedding_dimension(self) -> int:
        return self.weight("embeddings.LayerNorm.weight").shape[0]

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        from safetensors.torch import save_file

        folder = Path(output_path)
        folder.mkdir(parents=True, exist_ok=True)
        halves = {name: self.weight(name).detach().cpu().half().contiguous() for name in self.names}
        save_file(halves, folder / "model.safetensors")
        self.tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "config.json").write_text(json.dumps(self.config))
        (folder / "LICENSE").write_text(self.license)
        shutil.copyfile(__file__, folder / "lam_torch.py")

    @classmethod
    def load(cls, input_path: str, *_: Any, **__: Any) -> LamModule:
        from safetensors.torch import load_file
        from tokenizers import Tokenizer

        folder = Path(input_path)
        weights = {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
        config = json.loads((folder / "config.json").read_text())
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        return cls(weights, config, tokenizer, (folder / "LICENSE").read_text())
