"""Train the encoder `lam`: python -m scripts.train_lam --data DIR --out FOLDER

Everything of all-MiniLM-L6-v2 stays, but for attention, which becomes linear (see lmm/encoders/lam.py). Two stages:
1. each layer's linear attention learns, from the states that MiniLM has below that layer, what MiniLM's softmax
   attention gives there (mean squared error); the maps alone are trained;
2. the whole encoder learns MiniLM's sentence vectors: 1 - cosine, and the squared error of the cosines between the
   sentences of a batch; maps, LoRA of all matrices, biases and norms are trained.

Seeded; Ctrl-C or a crash costs a minute at most: the same command goes on, and so does one with other --steps. Another
training needs another folder. Needs torch. `--data` holds sts/stsb-en-train.csv, of which the sentences and no scores
are read, sts/stsb-en-dev.csv, which selects the best weights, and text/. No sentence of the dev pairs is trained on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from lmm.encoders.lam import FEATURES, PAGE, new_maps
from lmm.encoders.lam_torch import Layers
from lmm.encoders.minilm import HEADS, LAYERS, MATRICES, WIDTH, Encoder
from lmm.errors import UsageError
from lmm.files.atomic import write_atomically
from lmm.text.fold import words
from scripts.measure_lam import spearman, sts_pairs

TEXTS = ("subjectivity", "pros_cons", "movie_reviews", "wikitext2_valid", "state_union")
LONGEST = 48  # word pieces of a sentence
PASSAGES = 0.02  # share of passages among the texts, several sentences long
GOES_ON = ("data", "out", "steps", "every", "threads")  # options that a training may go on with when they are others
AVERAGE = 0.99  # of the moving average of what is trained, which is what is kept: the last steps, a fifth at first


def sentences(data: Path, others: int, seed: int) -> list[str]:
    """Those of the STS-B train pairs, and `others` from text/; none of a dev pair."""
    rng = random.Random(seed)
    sts = {text for a, b, _ in sts_pairs(data / "sts" / "stsb-en-train.csv") for text in (a, b)}
    held = {words(text) for a, b, _ in sts_pairs(data / "sts" / "stsb-en-dev.csv") for text in (a, b)}
    found: list[str] = []
    for name in TEXTS:
        text = (data / "text" / f"{name}.txt").read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in re.split(r"\n|(?<=[.!?])\s+(?=[A-Z\"])", text)]
        whole = [line for line in dict.fromkeys(lines) if 12 <= len(line) <= 4 * LONGEST and line[0] not in "=<"]
        count = others // len(TEXTS)
        for _ in range(int(PASSAGES * count)):
            start = rng.randrange(max(1, len(whole) - 12))
            found.append(" ".join(whole[start : start + rng.randint(4, 12)]))
        found += rng.sample(whole, min(count, len(whole)))
    return [text for text in dict.fromkeys([*sorted(sts), *found]) if words(text) not in held]


class Student(Layers):
    """MiniLM with linear attention; `trained` are the parameters, stage 1 those of `maps` alone."""

    def __init__(self, encoder: Encoder, features: int, rank: int, seed: int) -> None:
        base = {name: torch.from_numpy(value.copy()) for name, value in encoder.weights.items()}
        super().__init__(base, PAGE, LAYERS, HEADS)
        generator = torch.Generator().manual_seed(seed)
        self.maps = {name: torch.from_numpy(value) for name, value in new_maps(seed, features).items()}
        self.changes = {
            name: value.clone() for name, value in base.items() if name.startswith("encoder.layer.") and value.ndim == 1
        }
        for layer in range(LAYERS):
            for matrix in MATRICES:
                name = f"encoder.layer.{layer}.{matrix}"
                rows, columns = base[f"{name}.weight"].shape
                self.changes[f"{name}.lora_a"] = torch.randn(rows, rank, generator=generator) / math.sqrt(rows)
                self.changes[f"{name}.lora_b"] = torch.zeros(rank, columns)
        self.trained = {name: value.requires_grad_() for name, value in {**self.maps, **self.changes}.items()}
        self.tuned = False

    def weight(self, name: str) -> Tensor:
        if name in self.maps or (self.tuned and name in self.changes):
            return self.trained[name]
        return super().weight(name)

    def linear(self, name: str, x: Tensor) -> Tensor:
        y = nn.functional.linear(x, self.weight(f"{name}.weight").T, self.weight(f"{name}.bias"))
        if self.tuned:
            y = y + (x @ self.trained[f"{name}.lora_a"]) @ self.trained[f"{name}.lora_b"]
        return y

    def features(self, at: str, x: Tensor) -> list[Tensor]:
        return self.mapped(at, *(self.heads_of(f"{at}.{name}", x) for name in ("query", "key")))

    def mapped(self, at: str, q: Tensor, k: Tensor) -> list[Tensor]:
        """Queries and keys [B, P, H, L, E] -> the features of both, and of neighbours."""

        def positive(name: str, x: Tensor) -> Tensor:
            return self.positive(x.float() @ self.weight(f"{at}.{name}") + self.weight(f"{at}.{name}_bias")[:, None])

        return [positive("query_map", q), positive("key_map", k), positive("local", q)]

    def layer_losses(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """Each layer's error, as a share of what it should be. Ids and mask [B, P, L]."""
        losses: list[Tensor] = []

        def compare(at: str, q: Tensor, k: Tensor, v: Tensor, wanted: Tensor) -> None:
            dense, there = self.weight(f"{at}attention.output.dense.weight"), mask[..., None]
            error = (self.attention(self.mapped(f"{at}attention.self", q, k), v, mask) - wanted) @ dense
            losses.append((error**2 * there).sum() / ((wanted @ dense) ** 2 * there).sum())

        self.minilm(ids, mask, compare)
        return losses

    @torch.no_grad()
    def minilm(self, ids: Tensor, mask: Tensor, each: Callable[..., None] | None = None) -> Tensor:
        """MiniLM's vectors [B, D] of ids and mask [B, P, L]; `each` hears what its heads take in and give."""
        tuned, self.tuned = self.tuned, False
        x = self.embed(ids)
        for layer in range(LAYERS):
            at = f"encoder.layer.{layer}."
            q, k, v = (self.heads_of(f"{at}attention.self.{name}", x) for name in ("query", "key", "value"))
            scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(mask[:, :, None, None] == 0, -1e9)
            wanted = (scores.softmax(-1) @ v).transpose(-2, -3).flatten(-2)
            if each:
                with torch.enable_grad():
                    each(at, q, k, v, wanted)
            x = self.after_attention(at, x, wanted)
        self.tuned = tuned
        return nn.functional.normalize(self.pooled(x, mask), dim=-1)


class Batches:
    """Texts of similar length together, in an order that the seed and the epoch give."""

    def __init__(self, rows: Sequence[list[int]], tokens: int, seed: int) -> None:
        self.rows, self.tokens, self.seed = rows, tokens, seed

    def epoch(self, epoch: int) -> list[list[int]]:
        rng = random.Random(f"{self.seed} {epoch}")
        order = sorted(range(len(self.rows)), key=lambda i: len(self.rows[i]) + 2 * rng.random())
        found: list[list[int]] = [[]]
        for i in order:
            if (len(found[-1]) + 1) * len(self.rows[i]) > self.tokens:
                found.append([])
            found[-1].append(i)
        rng.shuffle(found)
        return [batch for batch in found if batch]

    def tensors(self, batch: Sequence[int]) -> tuple[Tensor, Tensor]:
        length = max(len(self.rows[i]) for i in batch)
        ids = torch.zeros(len(batch), length, dtype=torch.long)
        mask = torch.zeros(len(batch), length)
        for row, i in enumerate(batch):
            ids[row, : len(self.rows[i])] = torch.tensor(self.rows[i])
            mask[row, : len(self.rows[i])] = 1
        return ids, mask


class Run:
    """A training that is kept in a folder: parameters, their average, moments of Adam, MiniLM's vectors, progress.

    Raises UsageError for a folder with a training of other texts or options: its vectors are not these texts'.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.folder = options, Path(options.out)
        encoder = Encoder()
        self.student = Student(encoder, options.features, options.rank, options.seed)
        texts = sentences(Path(options.data), options.others, options.seed)
        self.batches = Batches([encoder.ids(text, PAGE) for text in texts], options.tokens, options.seed)
        dev = sts_pairs(Path(options.data) / "sts" / "stsb-en-dev.csv")
        self.gold = np.array([score for _, _, score in dev])
        dev_rows = [encoder.ids(text, PAGE) for pair in dev for text in pair[:2]]
        self.dev = Batches(dev_rows, options.tokens, options.seed)
        self.teacher = torch.zeros(len(texts), WIDTH)
        self.moments = {n: (torch.zeros_like(p), torch.zeros_like(p)) for n, p in self.student.trained.items()}
        self.average = {name: value.detach().clone() for name, value in self.student.trained.items()}
        self.state: dict[str, Any] = {"layers": 0, "whole": 0, "begun": False, "seconds": 0.0, "best": -1.0}
        self.state |= {"history": [], "of": self.made_of(texts)}  # "layers", "whole": steps of the two stages
        self.epoch_steps = len(self.batches.epoch(0))
        self.order: list[list[int]] = []
        self.saved, self.spoken, self.used = time.time(), 0.0, time.process_time()
        if (self.folder / "run.json").exists():
            self._load()

    def made_of(self, texts: Sequence[str]) -> dict[str, Any]:
        """What has to be the same for a training to go on."""
        options = {name: value for name, value in vars(self.options).items() if name not in GOES_ON}
        return {**options, "texts": hashlib.sha256("\n".join(texts).encode()).hexdigest()}

    def _checkpoint(self) -> Path:
        return self.folder / f"run-{self.state['layers'] + self.state['whole']}.safetensors"

    def _load(self) -> None:
        found, mine = json.loads((self.folder / "run.json").read_text()), self.state["of"]
        theirs = found.get("of", {})
        if other := [name for name in mine if theirs.get(name) != mine[name]]:
            raise UsageError(f"{self.folder} has a training with other {', '.join(other)}; give this one another --out")
        self.state = found
        tensors = load_file(self._checkpoint())
        self.teacher = tensors["teacher"].float()
        for name, value in self.student.trained.items():
            value.data.copy_(tensors[name])
            self.average[name] = tensors[f"average.{name}"]
            self.moments[name] = (tensors[f"first.{name}"], tensors[f"second.{name}"])

    def save(self) -> None:
        """First the tensors, then the line that names them: a crash in between costs nothing."""
        self.state["seconds"] += time.process_time() - self.used
        self.saved, self.used = time.time(), time.process_time()
        tensors = {"teacher": self.teacher.half()}
        for name, value in self.student.trained.items():
            tensors[name], tensors[f"average.{name}"] = value.detach(), self.average[name]
            tensors[f"first.{name}"], tensors[f"second.{name}"] = self.moments[name]
        path = self._checkpoint()
        write_atomically(path, [save(tensors)])
        write_atomically(self.folder / "run.json", [json.dumps(self.state).encode()])
        history = "".join(json.dumps(line) + "\n" for line in self.state["history"])
        write_atomically(self.folder / "history.jsonl", [history.encode()])
        for old in self.folder.glob("run-*.safetensors"):
            if old != path:
                old.unlink()

    def update(self, loss: Tensor, names: Sequence[str], step: int, rate: float) -> None:
        """Step number `step` of Adam (Kingma & Ba 2014, arXiv:1412.6980), gradients clipped to a norm of 1."""
        parameters = [self.student.trained[name] for name in names]
        grads = torch.autograd.grad(loss, parameters)
        norm = math.sqrt(sum(float((grad * grad).sum()) for grad in grads))
        with torch.no_grad():
            for name, parameter, grad in zip(names, parameters, grads, strict=True):
                first, second = self.moments[name]
                grad = grad / max(1.0, norm)
                first.lerp_(grad, 0.1)
                second.lerp_(grad * grad, 0.02)
                size = (second / (1 - 0.98**step)).sqrt_().add_(1e-8)
                parameter.sub_(rate * min(1, step / 30) * (first / (1 - 0.9**step)) / size)
                self.average[name].lerp_(parameter, max(1 - AVERAGE, 5 / (step + 5)))

    def train(self) -> None:
        """Both stages, from where the folder's checkpoint is."""
        while self.state["layers"] < self.options.layer_steps:
            losses = self.student.layer_losses(*self.student.paged(*self.batches.tensors(self.next_batch())))
            self.state["layers"] += 1
            self.update(sum(losses), list(self.student.maps), self.state["layers"], self.options.map_rate)
            shown = " ".join(f"{loss.item():.3f}" for loss in losses)
            self.told(f"layers {self.state['layers']}/{self.options.layer_steps}: {shown}")
        if not self.state["begun"]:
            self.begin_whole()
        self.student.tuned = True
        while self.state["whole"] < self.options.steps:
            self.whole_step()
        self.save()

    def next_batch(self) -> list[int]:
        epoch, at = divmod(self.state["layers"] + self.state["whole"], self.epoch_steps)
        if at == 0 or not self.order:
            self.order = self.batches.epoch(epoch)
        return self.order[at % len(self.order)]

    def wanted(self, batch: list[int]) -> Tensor:
        """MiniLM's vectors [B, D], computed once."""
        if new := [i for i in batch if not self.teacher[i].any()]:
            vectors = self.student.minilm(*self.student.paged(*self.batches.tensors(new)))
            self.teacher[new] = vectors.half().float()  # as they are kept
        return self.teacher[batch]

    def begin_whole(self) -> None:
        """The second stage starts from the averages of the first, with Adam anew."""
        for name, value in self.student.trained.items():
            value.data.copy_(self.average[name])
            for moment in self.moments[name]:
                moment.zero_()
        self.state["begun"] = True
        self.select()

    def precision(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.options.bfloat16)

    def vectors(self, texts: tuple[Tensor, Tensor]) -> Tensor:
        with self.precision():
            return self.student.embedding(*texts).float()

    def whole_step(self) -> None:
        batch = self.next_batch()
        with self.precision():
            wanted = self.wanted(batch)
        vectors = self.vectors(self.batches.tensors(batch))
        cosine = (vectors * wanted).sum(1).mean()
        among = ((vectors @ vectors.T - wanted @ wanted.T) ** 2).mean()
        step = self.state["whole"] + 1
        self.update(1 - cosine + self.options.among * among, list(self.student.trained), step, self.options.rate)
        self.state["whole"] = step
        self.told(f"whole {step}/{self.options.steps}: cosine {cosine.item():.4f}, pairs {among.item() ** 0.5:.4f}")
        if step % self.options.every == 0:
            self.select()

    def told(self, line: str) -> None:
        """A line every five seconds, a checkpoint every minute."""
        if time.time() - self.spoken > 5:
            self.spoken = time.time()
            print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
        if time.time() - self.saved > 60:
            self.save()

    def select(self) -> None:
        """The averages are kept as lam.safetensors where they are the best on the dev pairs so far."""
        kept = {name: value.detach().clone() for name, value in self.student.trained.items()}
        with torch.no_grad():
            for name, value in self.student.trained.items():
                value.copy_(self.average[name])
            vectors = torch.zeros(len(self.dev.rows), WIDTH)
            for batch in self.dev.epoch(0):
                vectors[batch] = self.vectors(self.dev.tensors(batch))
            for name, value in self.student.trained.items():
                value.copy_(kept[name])
        score = spearman((vectors[::2] * vectors[1::2]).sum(1).numpy(), self.gold)
        minutes = (self.state["seconds"] + time.process_time() - self.used) / 60  # of the processor
        line = {"step": self.state["whole"], "minutes": round(minutes, 1), "dev": round(score, 4)}
        print(json.dumps(line), flush=True)
        if score > self.state["best"]:
            self.state["best"] = score
            halves = {name: value.half().contiguous() for name, value in self.average.items()}
            metadata = {key: str(value) for key, value in line.items()}
            write_atomically(self.folder / "lam.safetensors", [save(halves, metadata)])
        self.state["history"].append(line)
        self.save()  # or the line would be written again after a crash


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True, help="folder of the checkpoint and, at last, of lam.safetensors")
    parser.add_argument("--layer-steps", type=int, default=150, help="of the first stage")
    parser.add_argument("--steps", type=int, default=4000, help="of the second stage; 0: none")
    parser.add_argument("--others", type=int, default=5000, help="sentences beside those of STS-B")
    parser.add_argument("--tokens", type=int, default=1024, help="of a batch")
    parser.add_argument("--features", type=int, default=FEATURES, help="of a head")
    parser.add_argument("--rank", type=int, default=16, help="of the LoRA")
    parser.add_argument("--map-rate", type=float, default=1e-2, help="learning rate of the first stage")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="learning rate of the second stage")
    parser.add_argument("--among", type=float, default=4.0, help="weight of the error of the cosines within a batch")
    parser.add_argument("--every", type=int, default=200, help="steps between two readings of the dev pairs")
    parser.add_argument("--bfloat16", action="store_true", help="products of the second stage in bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    Run(options).train()


if __name__ == "__main__":
    main()
