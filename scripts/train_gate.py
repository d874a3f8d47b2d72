"""Train the gate's pair model: python -m scripts.train_gate --data DIR --seed 4 --out FILE

The lower layers of MiniLM read query and stored prompt apart and stay frozen; the upper ones read both together and get
a LoRA, segment and match vectors and a small head (see lmm/memory/keyed/gate.py).
Seeded; a few minutes on two cores. Needs torch.
`--data` holds editing/counterfact.json and zsre.json (only records from the 501st on are used), sts/ and text/.
"""

from __future__ import annotations

import argparse
import math
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lmm.encoders.minilm import LAYERS, MATRICES, WIDTH, Encoder
from lmm.memory.keyed.gate import FEATURES, HIDDEN, JOINT_FROM, LIMIT
from scripts.bert import Bert, descend
from scripts.gate_data import Pair, datasets

if TYPE_CHECKING:
    from torch import Tensor


class GateModel(Bert):
    """The pair model in torch; `params` are what is trained and saved."""

    def __init__(self, encoder: Encoder, rank: int, joint_from: int, seed: int) -> None:
        import torch

        self.torch, self.encoder, self.joint_from = torch, encoder, joint_from
        generator = torch.Generator().manual_seed(seed)
        self.base = {name: torch.from_numpy(value.copy()) for name, value in encoder.weights.items()}
        self.params: dict[str, Tensor] = {}
        for layer in range(joint_from, LAYERS):
            at = f"encoder.layer.{layer}."
            for matrix in MATRICES:
                rows, columns = self.base[f"{at}{matrix}.weight"].shape
                self.params[f"{at}{matrix}.lora_a"] = torch.randn(rows, rank, generator=generator) / math.sqrt(rows)
                self.params[f"{at}{matrix}.lora_b"] = torch.zeros(rank, columns)
                self.params[f"{at}{matrix}.bias"] = self.base[f"{at}{matrix}.bias"].clone()
            for norm in ("attention.output", "output"):
                for part in ("weight", "bias"):
                    self.params[f"{at}{norm}.LayerNorm.{part}"] = self.base[f"{at}{norm}.LayerNorm.{part}"].clone()
        types = self.base["embeddings.token_type_embeddings.weight"]
        self.params["segment"] = types[1] - types[0]
        self.params["marks"] = torch.randn(2, WIDTH, generator=generator) * 0.3
        self.params["head.hidden"] = torch.randn(FEATURES, HIDDEN, generator=generator) / math.sqrt(FEATURES)
        self.params["head.hidden_bias"] = torch.zeros(HIDDEN)
        self.params["head.out"] = torch.randn(HIDDEN, generator=generator) / math.sqrt(HIDDEN)
        self.params["head.out_bias"] = torch.zeros(1)
        for value in self.params.values():
            value.requires_grad_(True)

    def _lower(self, texts: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        torch, length = self.torch, max(len(ids) for ids in texts)
        tokens = torch.zeros(len(texts), length, dtype=torch.long)
        mask = torch.zeros(len(texts), length, dtype=torch.bool)
        for row, ids in enumerate(texts):
            tokens[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids)] = True
        with torch.no_grad():
            x = self.base["embeddings.word_embeddings.weight"][tokens]
            x = x + self.base["embeddings.position_embeddings.weight"][:length]
            x = x + self.base["embeddings.token_type_embeddings.weight"][0]
            x = self.norm("embeddings.LayerNorm", x)
            for layer in range(self.joint_from):
                x = self.block(layer, x, mask)
        return x, mask

    def logits(self, queries: Sequence[list[int]], stored: Sequence[list[int]]) -> Tensor:
        """Token ids of B queries and B stored prompts, with special tokens -> [B]."""
        torch = self.torch
        (x, x_mask), (y, y_mask) = self._lower(queries), self._lower(stored)
        x, y = x + self._mark(queries, stored, x.shape[1]), y + self._mark(stored, queries, y.shape[1])
        z, mask = torch.cat([x, y + self.params["segment"]], 1), torch.cat([x_mask, y_mask], 1)
        for layer in range(self.joint_from, LAYERS):
            z = self.block(layer, z, mask)
        pooled = self._compare(z[:, : x.shape[1]], z[:, x.shape[1] :], x_mask, y_mask)
        inner = torch.tanh(pooled @ self.params["head.hidden"] + self.params["head.hidden_bias"])
        return inner @ self.params["head.out"] + self.params["head.out_bias"]

    def _mark(self, texts: Sequence[list[int]], others: Sequence[list[int]], length: int) -> Tensor:
        """One of two vectors for each word piece: does the other text have it?"""
        shared = self.torch.zeros(len(texts), length, dtype=self.torch.long)
        for row, (text, other) in enumerate(zip(texts, others, strict=True)):
            there = set(other)
            shared[row, : len(text)] = self.torch.tensor([int(i in there) for i in text])
        return self.params["marks"][shared]

    def _compare(self, q: Tensor, s: Tensor, q_mask: Tensor, s_mask: Tensor) -> Tensor:
        """Joint states of both texts -> what the head sees, [B, FEATURES]; in NumPy: lmm.memory.keyed.gate.compare."""
        torch = self.torch
        normalize = torch.nn.functional.normalize
        u, v = (
            normalize((x * m[..., None]).sum(1) / m.sum(1, keepdim=True), dim=-1) * math.sqrt(WIDTH)
            for x, m in ((q, q_mask), (s, s_mask))
        )
        cosines = normalize(q, dim=-1) @ normalize(s, dim=-1).transpose(1, 2)
        both = q_mask[:, :, None] & s_mask[:, None, :]
        cosines = cosines.masked_fill(~both, -1)
        found = []
        for best, m in ((cosines.amax(2), q_mask), (cosines.amax(1), s_mask)):
            found += [(best * m).sum(1) / m.sum(1), best.masked_fill(~m, 1).amin(1)]
        return torch.cat([q[:, 0], u * v, (u - v).abs(), 4 * torch.stack(found, 1)], 1)

    def ids(self, text: str) -> list[int]:
        return self.encoder.ids(text, LIMIT)

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: value.detach().numpy().astype(np.float16) for name, value in self.params.items()}


def go_on_from(path: Path, params: Mapping[str, Tensor]) -> None:
    """Start with what an earlier training has saved."""
    from safetensors.torch import load_file

    for name, value in load_file(str(path)).items():
        params[name].data.copy_(value)


def batches(
    pairs: Sequence[Pair], model: GateModel, size: int, rng: random.Random
) -> list[list[tuple[list[int], list[int], int]]]:
    """Batches of similar lengths, in random order: padding costs time."""
    cache: dict[str, list[int]] = {}
    rows = []
    for pair in pairs:
        for text in (pair.query, pair.stored):
            if text not in cache:
                cache[text] = model.ids(text)
        rows.append((cache[pair.query], cache[pair.stored], pair.label))
    rng.shuffle(rows)
    rows.sort(key=lambda row: (len(row[0]) + rng.random() * 4) // 3 * 100 + len(row[1]))
    found = [rows[i : i + size] for i in range(0, len(rows), size)]
    rng.shuffle(found)
    return found


def score(model: GateModel, pairs: Sequence[Pair]) -> np.ndarray:
    """Probabilities [n] that query and stored prompt ask the same."""
    torch = model.torch
    found = np.zeros(len(pairs), np.float32)
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i].query))
    with torch.no_grad():
        for i in range(0, len(order), 64):
            rows = order[i : i + 64]
            logits = model.logits([model.ids(pairs[j].query) for j in rows], [model.ids(pairs[j].stored) for j in rows])
            found[rows] = torch.sigmoid(logits).numpy()
    return found


def report(pairs: Sequence[Pair], scores: np.ndarray) -> None:
    """Share of positives that fire and of negatives that stay silent, by source and threshold."""
    by_source: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for pair, value in zip(pairs, scores, strict=True):
        by_source[pair.source].append((pair.label, float(value)))
    for source, rows in by_source.items():
        cells = []
        for threshold in (0.3, 0.5, 0.7, 0.9):
            fired = [np.mean([s >= threshold for label, s in rows if label == side]) for side in (1, 0)]
            cells.append(f"{threshold}: {fired[0]:.3f}/{1 - fired[1]:.3f}")
        print(f"  {source:15s} n={len(rows):5d}  fires/silent at " + "   ".join(cells), flush=True)


def train(model: GateModel, pairs: Sequence[Pair], options: argparse.Namespace) -> None:
    torch = model.torch
    todo = batches(pairs, model, options.batch, random.Random(options.seed))[: options.steps]
    old = {name for name in model.params if name in model.base}  # biases and norms the encoder came with
    groups = [
        {"params": [v for n, v in model.params.items() if n not in old], "lr": options.lr},
        {"params": [v for n, v in model.params.items() if n in old], "lr": options.lr / 4},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, betas=(0.9, 0.98))

    def loss_of(batch: Sequence[tuple[list[int], list[int], int]]) -> Tensor:
        logits = model.logits([row[0] for row in batch], [row[1] for row in batch])
        target = torch.tensor([float(row[2]) for row in batch])
        smooth = target * 0.96 + 0.02  # a few labels are wrong in every source
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, smooth)

    descend(optimizer, model.params.values(), todo, loss_of, warm_up=50, save=lambda: save(model, options))


def parser(about: str | None, out: Path) -> argparse.ArgumentParser:
    """The options of every training of a pair model."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, required=True, help="folder with editing/ and text/")
    made.add_argument("--out", type=Path, default=out)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--rank", type=int, default=32)
    made.add_argument("--joint-from", type=int, default=JOINT_FROM, help="first layer that sees both texts")
    made.add_argument("--batch", type=int, default=32)
    made.add_argument("--lr", type=float, default=1.5e-3)
    made.add_argument("--steps", type=int, help="stop after so many batches (default: all, once)")
    made.add_argument("--init", type=Path, help="go on from these weights")
    made.add_argument("--threads", type=int, default=1)
    return made


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    made = parser(__doc__, Path("lmm/memory/keyed/gate-2.safetensors"))
    made.add_argument("--synthetic", type=int, default=40000, help="pairs from our own wordings")
    return made.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    train_and_save(options, lambda: datasets(options.data, options.seed, options.synthetic))


def train_and_save(options: argparse.Namespace, pairs: Callable[[], tuple[list[Pair], list[Pair]]]) -> None:
    """`pairs` makes those to train and those to validate on, after the seed is set."""
    import torch

    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    train_pairs, valid_pairs = pairs()
    print(f"{len(train_pairs)} training pairs, {len(valid_pairs)} validation pairs", flush=True)
    model = GateModel(Encoder(), options.rank, options.joint_from, options.seed)
    if options.init:
        go_on_from(options.init, model.params)
    train(model, train_pairs, options)
    report(valid_pairs, score(model, valid_pairs))
    save(model, options)
    print(f"wrote {options.out} ({options.out.stat().st_size / 1e6:.2f} MB)")


def save(model: GateModel, options: argparse.Namespace) -> None:
    from safetensors.numpy import save_file

    options.out.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"joint_from": str(options.joint_from), "rank": str(options.rank), "seed": str(options.seed)}
    save_file(model.arrays(), str(options.out), metadata=metadata)


if __name__ == "__main__":
    main()
