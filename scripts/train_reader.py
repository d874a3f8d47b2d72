"""Train the reader of turns: a LoRA of an encoder, and heads for the kind of a turn and the spans of its facts.

    python -m scripts.train_reader --data scripts/reader_turns/*.jsonl MORE --out lmm/feedback/reader-e5.safetensors

Needs torch. What is trained, and on what: docs/reader.md.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from lmm.encoders.minilm import HEADS, MATRICES, NEAR, distances
from lmm.feedback import model as reader
from lmm.feedback.exchange import Exchange
from lmm.feedback.model import KINDS, SPANS, Pieces
from lmm.text.language import is_english
from scripts.bert import descend
from scripts.train_gate import go_on_from

HIDDEN = 64
ARTICLE = re.compile(
    r"(?:an?|the|der|die|das|den|dem|ein|eine|einen|einem|einer|le|la|les|un|une|el|los|las|una)\s+(?=\S)|l['’]", re.I
)


def turns(paths: Sequence[Path]) -> list[dict[str, Any]]:
    rows = []
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.strip():
                rows.append(row(json.loads(line)))
    return rows


def row(labels: dict[str, Any]) -> dict[str, Any]:
    """A turn in the form of scripts/reader_turns; one that is labelled with a value alone says nothing of the rest."""
    if "facts" in labels:
        return labels
    at = labels["text"].lower().find(labels.get("value", "").lower())
    value = labels["text"][at : at + len(labels["value"])] if labels.get("value") else ""
    unlabelled = [] if labels["kind"] == "nothing" else ["clause", "subject"]
    if (value and at < 0) or labels.get("also"):
        unlabelled.append("value")
    facts = [{"clause": labels["text"], "value": value, "subject": ""}] if value and at >= 0 else []
    return {"last": None, **labels, "facts": facts, "unlabelled": unlabelled}


def in_english(row: dict[str, Any]) -> bool:
    return row.get("language", "en") == "en" and is_english(row["text"])


def after_others(rows: Sequence[dict[str, Any]], share: float, rng: random.Random) -> list[dict[str, Any]]:
    """Some of the turns once more, after an exchange of another's: what went before hides no statement that has nothing
    to do with it, and makes none."""
    exchanges = [row["last"] for row in rows if row.get("last")]
    alone = [row for row in rows if not row.get("last") and row["kind"] != "correction"]
    return [{**row, "last": rng.choice(exchanges)} for row in rng.sample(alone, round(share * len(alone)))]


# ------------------------------------------------------------------ labels
def places(text: str, fact: dict[str, str]) -> dict[str, tuple[int, int] | None]:
    """Where clause, value and subject of a fact stand in the text; None for one that does not."""
    start = text.find(fact["clause"])
    end = start + len(fact["clause"])
    value = text.find(fact["value"], start)
    article = ARTICLE.match(fact["value"])
    subject = text.lower().find(fact["subject"].lower(), start) if fact.get("subject") else -1
    return {
        "clause": (start, end) if start >= 0 else None,
        "value": (value + (article.end() if article else 0), value + len(fact["value"])) if 0 <= value < end else None,
        "subject": (subject, subject + len(fact["subject"])) if 0 <= subject < end else None,
    }


def tags(turn: Pieces, spans: Sequence[tuple[int, int] | None]) -> np.ndarray:
    """Spans in characters -> for each word piece of the turn 0 outside, 1 first, 2 inside."""
    found = np.zeros(len(turn.offsets), np.int64)
    for start, end in (span for span in spans if span):
        inside = [i for i, (a, b) in enumerate(turn.offsets) if a < end and b > start and b > a]
        found[inside] = 2
        found[inside[:1]] = 1
    return found


class Example:
    """A turn as the model reads it, and its labels; -100 where nothing is to be learned of a label."""

    def __init__(self, row: dict[str, Any], encoder: Any, below: int) -> None:
        last = Exchange(**row["last"]) if row.get("last") else None
        self.row = row
        self.turn = reader.turn(encoder, row["text"], last)
        self.states = reader.below(encoder.weights, self.turn, below).astype(np.float16)
        self.kind = KINDS.index(row["kind"])
        facts = [places(row["text"], fact) for fact in row["facts"]]
        length = len(self.turn.offsets)
        self.tags = np.full((len(SPANS), length), -100, np.int64)
        for i, name in enumerate(SPANS):
            if name not in row.get("unlabelled", ()):
                self.tags[i] = tags(self.turn, [fact[name] for fact in facts])


# ------------------------------------------------------------------ the model
class ReaderModel:
    """The encoder with a LoRA, and heads, in torch."""

    def __init__(self, encoder: Any, layers: int, rank: int, lora_from: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.layers, self.lora_from, self.width = layers, lora_from, encoder.width
        near = encoder.weights.get(NEAR)
        self.near = None if near is None else torch.from_numpy(near)
        self.base = {
            name: torch.from_numpy(np.array(value))
            for name, value in encoder.weights.items()
            if name.startswith("encoder.layer.") and lora_from <= int(name.split(".")[2]) < layers
        }
        self.params: dict[str, torch.Tensor] = {}
        for layer in range(lora_from, layers):
            for matrix in MATRICES:
                name = f"encoder.layer.{layer}.{matrix}"
                wide, out = self.base[f"{name}.weight"].shape
                self.params[f"{name}.lora_a"] = torch.from_numpy(rng.normal(0, 1 / math.sqrt(wide), (wide, rank)))
                self.params[f"{name}.lora_b"] = torch.zeros(rank, out)
        for name, size in reader.head_shapes(HIDDEN, encoder.width).items():
            scale = 0.0 if name.endswith("bias") or name in ("segment", "marks") else 1 / math.sqrt(size[0])
            self.params[name] = torch.from_numpy(rng.normal(0, 1, size) * scale)
        self.params = {name: value.float().requires_grad_() for name, value in self.params.items()}

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        y = x @ self.base[name + ".weight"] + self.base[name + ".bias"]
        if name + ".lora_a" in self.params:
            y = y + (x @ self.params[name + ".lora_a"]) @ self.params[name + ".lora_b"]
        return y

    def states(self, batch: Sequence[Example], drop: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Turns -> states of the last layer [B, T, D], and which are not padding [B, T]."""
        longest = max(len(one.turn.ids) for one in batch)
        x = torch.zeros(len(batch), longest, self.width)
        segment, marks = (torch.zeros(len(batch), longest, dtype=torch.long) for _ in range(2))
        mask = torch.zeros(len(batch), longest, dtype=torch.bool)
        for row, one in enumerate(batch):
            turn, n = one.turn, len(one.turn.ids)
            x[row, :n] = torch.from_numpy(one.states)
            segment[row, :n], marks[row, :n] = torch.from_numpy(turn.segments), torch.from_numpy(turn.marks)
            mask[row, :n] = True
        x = x + self.params["segment"][segment] + self.params["marks"][marks]
        bias = torch.zeros(mask.shape).masked_fill(~mask, -1e9)[:, None, None]
        if self.near is not None:
            bias = bias + self.near[torch.from_numpy(distances(longest))].permute(2, 0, 1)
        for layer in range(self.lora_from, self.layers):
            x = self.block(f"encoder.layer.{layer}.", x, bias, drop)
        return x.float(), mask

    def block(self, at: str, x: torch.Tensor, bias: torch.Tensor, drop: float) -> torch.Tensor:
        def norm(name: str, y: torch.Tensor) -> torch.Tensor:
            weight, shift = (self.base[f"{at}{name}.LayerNorm.{part}"] for part in ("weight", "bias"))
            return F.layer_norm(y, y.shape[-1:], weight, shift, 1e-12)

        def heads(name: str) -> torch.Tensor:
            return self.linear(f"{at}attention.self.{name}", x).unflatten(-1, (HEADS, -1)).transpose(1, 2)

        q, k, v = heads("query"), heads("key"), heads("value")
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype)).transpose(1, 2).flatten(2)
        x = norm("attention.output", x + F.dropout(self.linear(f"{at}attention.output.dense", mixed), drop))
        inner = F.gelu(self.linear(f"{at}intermediate.dense", x))
        return norm("output", x + F.dropout(self.linear(f"{at}output.dense", inner), drop))

    def heads(self, states: torch.Tensor, mask: torch.Tensor, own: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """-> kinds [B, K] and tags [B, T, S, 3]."""
        p = self.params
        mean = (states * own[..., None]).sum(1) / own.sum(1, keepdim=True).clamp(min=1)
        pooled = torch.cat([states[:, 0], mean], -1)
        kinds = torch.tanh(pooled @ p["kind.hidden"] + p["kind.hidden_bias"]) @ p["kind.out"] + p["kind.out_bias"]
        spans = torch.tanh(states @ p["span.hidden"] + p["span.hidden_bias"]) @ p["span.out"] + p["span.out_bias"]
        return kinds, spans.unflatten(-1, (len(SPANS), 3))

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: value.detach().numpy().astype(np.float16) for name, value in self.params.items()}


def losses(model: ReaderModel, batch: Sequence[Example], drop: float) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        states, mask = model.states(batch, drop)
    own = torch.zeros(mask.shape)
    target = torch.full((*mask.shape, len(SPANS)), -100)
    for row, one in enumerate(batch):
        first, n = 1, len(one.turn.offsets)
        own[row, first : first + n] = 1
        target[row, first : first + n] = torch.from_numpy(one.tags.T)
    kinds, spans = model.heads(F.dropout(states, drop), mask, own)
    kind = F.cross_entropy(kinds, torch.tensor([one.kind for one in batch]), label_smoothing=0.03)
    span = F.cross_entropy(spans.flatten(0, 2), target.flatten(), ignore_index=-100, reduction="sum")
    return kind + 1.0 * span / len(batch) / 12


# ------------------------------------------------------------------ training
def train(model: ReaderModel, examples: list[Example], options: argparse.Namespace) -> None:
    rng = random.Random(options.seed)
    heads = [v for n, v in model.params.items() if ".lora_" not in n]
    lora = [v for n, v in model.params.items() if ".lora_" in n]
    groups = [{"params": heads, "lr": options.lr * 2}, {"params": lora, "lr": options.lr}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, betas=(0.9, 0.98))
    batches: list[list[Example]] = []
    for _ in range(options.epochs):
        order = sorted(examples, key=lambda one: len(one.turn.ids) * rng.uniform(0.7, 1.3))
        cut = [order[i : i + options.batch] for i in range(0, len(order), options.batch)]
        rng.shuffle(cut)
        batches += cut
    descend(
        optimizer,
        model.params.values(),
        batches,
        lambda batch: losses(model, batch, options.dropout),
        warm_up=40,
        running=2.0,
        every=50,
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="labelled turns to train on")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--encoder", choices=("minilm", "e5", "mpnet"), default="minilm")
    parser.add_argument("--english", action="store_true", help="leave out turns in other languages")
    parser.add_argument("--after", type=float, default=0.0, help="share of turns seen after another's exchange, too")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--lora-from", type=int, default=0)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--init", type=Path, help="go on from these weights")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    encoder = reader.encoder(options.encoder)
    rows = [row for row in turns(options.data) if not options.english or in_english(row)]
    rows += after_others(rows, options.after, random.Random(options.seed))
    examples = [Example(row, encoder, options.lora_from) for row in rows]
    print(f"{len(examples)} turns", flush=True)
    model = ReaderModel(encoder, options.layers, options.rank, options.lora_from, options.seed)
    if options.init:
        go_on_from(options.init, model.params)
    train(model, examples, options)
    save(model, options)
    print(f"wrote {options.out} ({options.out.stat().st_size / 1e6:.2f} MB)")


def save(model: ReaderModel, options: argparse.Namespace) -> None:
    from safetensors.numpy import save_file

    options.out.parent.mkdir(parents=True, exist_ok=True)
    metadata = {
        name: str(getattr(options, name)) for name in ("encoder", "layers", "lora_from", "rank", "seed", "epochs")
    }
    save_file(model.arrays(), str(options.out), metadata=metadata)


if __name__ == "__main__":
    main()
