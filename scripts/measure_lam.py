"""What the encoder `lam` is worth: python -m scripts.measure_lam [--sts FILE] [--lengths N ...] [--speed] ...

`--sts` scores every pair of an STS file (columns: two sentences and a score), beside MiniLM, and says how near the
vectors are to MiniLM's. `--lengths` is the time and the peak memory of one text of so many tokens, each in a process of
its own; MiniLM's to 512, where it ends. `--speed` is sentences per second in batches, in NumPy and in torch, each
against MiniLM in batches there. `--qmsum` looks for the meeting of a query among all meetings, MiniLM reading their
first 512 tokens; `--passkey` for the text of so many tokens that has somebody's passkey, among as many as there are
names, `--times` over. `--plot` draws --lengths.
Seconds are of the processor, of one core with OMP_NUM_THREADS=1. `--weights` is a file of scripts/train_lam.py, in
place of the one that lmm has. Linux.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from lmm.encoders import minilm
from lmm.encoders.lam import MAX_LENGTH, WEIGHTS, Lam, export, long_mean, short_means
from lmm.encoders.sentences import MiniLM, SentenceEncoder
from scripts.measure_serve import NAMES

FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."


def sts_pairs(path: Path) -> list[tuple[str, str, float]]:
    """Two sentences and how alike people find them, a line each."""
    with path.open(newline="", encoding="utf-8") as file:
        return [(a, b, float(score)) for a, b, score in csv.reader(file)]


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation, all pairs; ties share the mean of their ranks."""

    def ranks(x: np.ndarray) -> np.ndarray:
        _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - (counts - 1) / 2)[inverse]

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def sts(lam: Lam, path: Path) -> dict[str, float]:
    """Correlations of both encoders with people, and the mean cosine of their vectors."""
    pairs = sts_pairs(path)
    texts, gold = [text for pair in pairs for text in pair[:2]], np.array([pair[2] for pair in pairs])
    found: dict[str, float] = {"pairs": len(pairs)}
    vectors = {"lam": lam.encode(texts), "minilm": MiniLM().encode(texts)}
    for name, rows in vectors.items():
        cosines = (rows[::2] * rows[1::2]).sum(axis=1)
        found[f"{name}_spearman"] = spearman(cosines, gold)
        found[f"{name}_pearson"] = float(np.corrcoef(cosines, gold)[0, 1])
    found["agreement"] = float((vectors["lam"] * vectors["minilm"]).sum(axis=1).mean())
    return found


def length(name: str, tokens: int, weights: Path) -> dict[str, float | str]:
    """Seconds of one text of random words, and the peak of the process's memory. For a process of its own."""
    ids = np.random.default_rng(0).integers(1996, 29612, tokens).astype(np.int32)
    lam, model = (Lam(weights), None) if name == "lam" else (None, minilm.Encoder())
    started = time.process_time()
    if lam:
        long_mean(lam.ops, lam.weights, ids)
    elif model:
        minilm.run_layers(model.weights, minilm.embed(model.weights, ids.tolist()))
    seconds = time.process_time() - started
    status = Path("/proc/self/status").read_text()  # getrusage would begin with the parent's memory
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9
    return {"encoder": name, "tokens": tokens, "us_per_token": 1e6 * seconds / tokens, "peak_gb": peak}


def together(weights: Mapping[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """MiniLM in NumPy on texts of one length at once, its fastest there: ids [n, L] -> means of states [n, D]."""
    (n, length), x = rows.shape, minilm.embed(weights, rows).reshape(-1, minilm.WIDTH)
    for layer in range(minilm.LAYERS):
        at = f"encoder.layer.{layer}."
        q, k, v = (
            minilm.linear(weights, f"{at}attention.self.{name}", x).reshape(n, length, minilm.HEADS, -1).swapaxes(1, 2)
            for name in ("query", "key", "value")
        )
        scores = q @ k.swapaxes(2, 3)
        scores *= np.float32(1 / np.sqrt(q.shape[-1]))
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        mixed = (scores @ v).swapaxes(0, 1).reshape(minilm.HEADS, n * length, -1)
        x = minilm.after_attention(weights, at, x, mixed)
    return x.reshape(n, length, -1).mean(axis=1)


Runner = Callable[[np.ndarray], np.ndarray]  # ids [n, L] -> the means of their states [n, D]


def in_numpy(lam: Lam) -> dict[str, Runner]:
    weights = minilm.shared_encoder().weights
    return {
        "lam": lambda rows: short_means(lam.ops, lam.weights, list(rows)),
        "minilm": lambda rows: together(weights, rows),
    }


def in_torch(lam: Lam) -> dict[str, Runner]:
    """The exported module, and MiniLM as transformers has it with torch's fused attention."""
    import torch
    from transformers import BertModel

    from lmm.encoders.lam_torch import LamModule

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        export(Path(folder), lam)
        module = LamModule.load(folder)
    options = {"attn_implementation": "sdpa", "add_pooling_layer": False}
    bert = BertModel.from_pretrained(minilm.weights_folder(), **options).eval()

    @torch.inference_mode()
    def run(model: Callable[[torch.Tensor], torch.Tensor], rows: np.ndarray) -> np.ndarray:
        return model(torch.from_numpy(rows).long()).numpy()

    return {
        "lam": partial(
            run, lambda ids: module({"input_ids": ids, "attention_mask": ids * 0 + 1})["sentence_embedding"]
        ),
        "minilm": partial(run, lambda ids: bert(ids).last_hidden_state.mean(1)),
    }


def speed(runners: Mapping[str, Runner], words: int = 30, batch: int = 32, rounds: int = 15) -> dict[str, float]:
    """Sentences of `words` + 2 tokens a second; the best of some rounds, both encoders in turn."""
    rows = np.random.default_rng(0).integers(1996, 29612, (batch, words + 2)).astype(np.int32)
    best = dict.fromkeys(runners, np.inf)
    for _ in range(rounds):
        for name, run in runners.items():
            started = time.process_time()
            run(rows)
            best[name] = min(best[name], time.process_time() - started)
    shown = {f"{name}_sentences_per_second": batch / seconds for name, seconds in best.items()}
    return {**shown, "ratio": best["minilm"] / best["lam"]}


def first(encoder: SentenceEncoder, queries: Sequence[str], right: Sequence[int], texts: Sequence[str]) -> float:
    """The share of queries whose text is the nearest."""
    limit = MAX_LENGTH if isinstance(encoder, Lam) else 512
    nearest = (encoder.encode(queries) @ encoder.encode(texts, max_length=limit).T).argmax(axis=1)
    return float((nearest == np.array(right)).mean())


def qmsum(path: Path) -> tuple[list[str], list[int], list[str]]:
    """Queries about a meeting's matters, the meeting of each, and the meetings."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    texts = [" ".join(f"{turn['speaker']}: {turn['content']}" for turn in row["meeting_transcripts"]) for row in rows]
    found = [(query["query"], i) for i, row in enumerate(rows) for query in row["specific_query_list"]]
    return [query for query, _ in found], [i for _, i in found], texts


def passkeys(lam: Lam, tokens: int, time: int = 0) -> tuple[list[str], list[int], list[str]]:
    """A text of about so many tokens for each name, which says that name's passkey somewhere."""
    rng, each = random.Random(tokens + time), lam.count_tokens(FILLER) - 2
    texts = []
    for name in NAMES:
        parts = [FILLER] * max(1, tokens // each - 1)
        parts.insert(rng.randrange(len(parts) + 1), f"The passkey of {name} is {rng.randrange(10**5)}.")
        texts.append(" ".join(parts))
    return [f"What is the passkey of {name}?" for name in NAMES], list(range(len(NAMES))), texts


def shown(row: dict) -> dict:
    print(json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}))
    return row


def plot(rows: Sequence[dict], path: Path) -> None:
    """Seconds and peak memory of one text by its tokens, of both encoders."""
    from lmm.bench.pages import pyplot

    figure, axes = pyplot().subplots(1, 2, figsize=(9, 3.6))
    for name, marker in (("minilm", "s--"), ("lam", "o-")):
        mine = [row for row in rows if row["encoder"] == name]
        tokens = [row["tokens"] for row in mine]
        axes[0].loglog(tokens, [row["us_per_token"] * row["tokens"] / 1e6 for row in mine], marker, label=name)
        axes[1].loglog(tokens, [row["peak_gb"] for row in mine], marker, label=name)
    for axis, what in zip(axes, ("seconds of one core", "peak memory, GB"), strict=True):
        axis.set(xlabel="tokens in one text", ylabel=what)
        axis.axvline(512, color="grey", linewidth=0.8, linestyle=":")
        axis.legend()
    axes[0].annotate("MiniLM ends", (512, axes[0].get_ylim()[1] / 3), rotation=90, ha="right", va="top", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--sts", type=Path)
    parser.add_argument("--lengths", type=int, nargs="+", default=[])
    parser.add_argument("--plot", type=Path, help="a picture of --lengths, as a file")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--qmsum", type=Path)
    parser.add_argument("--passkey", type=int, nargs="+", default=[])
    parser.add_argument("--times", type=int, default=1)
    options = parser.parse_args()
    rows: list[dict] = []
    for tokens in options.lengths:
        for name in ("minilm", "lam") if tokens <= 512 else ("lam",):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows.append(shown(pool.apply(length, (name, tokens, options.weights))))
    if options.plot:
        plot(rows, options.plot)
    lam = Lam(options.weights)
    if options.sts:
        shown(sts(lam, options.sts))
    if options.speed:
        for runtime in (in_numpy, in_torch):
            shown({"runtime": runtime.__name__, **speed(runtime(lam))})
    searches = {
        f"passkey {tokens}, {time}": passkeys(lam, tokens, time)
        for tokens in options.passkey
        for time in range(options.times)
    }
    if options.qmsum:
        searches["qmsum"] = qmsum(options.qmsum)
    for name, (queries, right, texts) in searches.items():
        both = {"lam": first(lam, queries, right, texts), "minilm": first(MiniLM(), queries, right, texts)}
        shown({"search": name, "queries": len(queries), "texts": len(texts), **both})


if __name__ == "__main__":
    main()
