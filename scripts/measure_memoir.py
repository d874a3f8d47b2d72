"""`memoir` on records that no score is taken on: its fingerprints alone, or with edits. See docs/memoir.md.

python -m scripts.measure_memoir fingerprints --data zsre.json --layers 22,24,26 --k 0.1,0.286
python -m scripts.measure_memoir edits --data zsre.json --edits 100 --set optimizer=adam --set lr=0.03
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmm.adapters.base import Adapter
from lmm.bench.datasets import Edit, load
from lmm.config import Config, parse_settings
from lmm.engine import runtime
from lmm.engine.asking import recall_many
from lmm.engine.engine import Engine
from lmm.engine.mind import Mind
from lmm.engine.scoring import token_hits
from lmm.lesson import Lesson
from lmm.memory.base import Prompt, Recall
from lmm.memory.contrast import PLAIN
from lmm.memory.memoir.memoir import Memoir
from lmm.memory.memoir.tophash import overlaps, top_hash

SILENT = (0.90, 0.95, 0.98)  # shares of other questions that must find nothing


def fingerprints(adapter: Adapter, edits: Sequence[Edit], layers: Sequence[int], shares: Sequence[float]) -> None:
    """For each layer, view and k: rephrases that find their own edit when so many other questions find none."""
    asked = [[e.prompt for e in edits], [e.rephrases[0] for e in edits], [p for e in edits for p in e.locality]]
    print("layer  view    k      " + "  ".join(f"at {s:.2f} (tau)" for s in SILENT))
    for layer in layers:
        adapter.layer = layer
        memory = Memoir(Memoir.build_options({}))
        background = memory.features(PLAIN, adapter).mean(axis=0)
        found = [memory.features(texts, adapter) - background for texts in asked]
        for share in shares:
            k = round(share * adapter.shape.mlp_width)
            masks = [top_hash(f, k, np.arange(adapter.shape.mlp_width)) for f in found]
            for name, views in (("mean", [0]), ("last", [1]), ("both", [0, 1])):
                own, other, rephrased = (m[:, views] for m in (masks[0], masks[2], masks[1]))
                print(f"{layer:<7}{name:<8}{share:<7}" + _shares(overlaps(rephrased, own, k), overlaps(other, own, k)))


def _shares(rephrased: np.ndarray, other: np.ndarray) -> str:
    mine = rephrased.argmax(axis=1) == np.arange(len(rephrased))
    taus = [float(np.quantile(other.max(axis=1), s)) for s in SILENT]
    return "  ".join(f"{(mine & (rephrased.max(axis=1) > tau)).mean():.3f} ({tau:.3f})" for tau in taus)


class Watched(Memoir):
    """Keeps in mind for which prompts it fired."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.fired: dict[str, bool] = {}

    def on_prompt(self, state: Any, lessons: Any, prompts: Sequence[Prompt], adapter: Adapter) -> Recall | None:
        recall = super().on_prompt(state, lessons, prompts, adapter)
        self.fired |= {p.text: recall is not None and bool(recall.fired[b]) for b, p in enumerate(prompts)}
        return recall


def edits_of(adapter: Adapter, edits: Sequence[Edit], options: dict[str, Any], state: Path | None) -> None:
    """Teach all, then ask by teacher forcing; "exact": every token of the answer and its end, so that greedy decoding
    says exactly the answer. A question for which nothing fires is answered as without the memory."""
    memory = Watched(Watched.build_options(options))
    engine, answers = Engine(Mind(adapter, memory)), [e.answer for e in edits]
    if state is not None and state.exists():
        engine.mind.load(state)
    else:
        _teach(engine, edits)
        if state is not None:
            engine.mind.save(state)
    for name, prompts in (("prompt", [e.prompt for e in edits]), ("rephrase", [e.rephrases[0] for e in edits])):
        hits = token_hits(engine.mind, prompts, answers, 16)
        exact = np.array([all(h) for h in hits])
        fired = np.array([memory.fired[p] for p in prompts])
        tokens = np.mean([np.mean(h[:-1]) for h in hits])
        early = exact[: max(1, len(exact) // 5)].mean()
        print(
            f"{name}: tokens {tokens:.3f}, exact {exact.mean():.3f} (first fifth {early:.3f}), "
            f"fires {fired.mean():.3f}, exact where it fires {exact[fired].mean() if fired.any() else 0:.3f}",
            flush=True,
        )
    others = [p for e in edits for p in e.locality]
    silent = np.mean([r is None for r in recall_many(engine.mind, others, 16)])
    weights = adapter.ops.to_numpy(engine.mind.knowledge.state["weights"]).astype(np.float32)
    print(f"other questions: silent {silent:.3f} of {len(others)}; |W_m| {np.linalg.norm(weights):.0f}")
    engine.close()


def _teach(engine: Engine, edits: Sequence[Edit]) -> None:
    steps, seconds = [], []
    for edit in edits:
        report = engine.mind.learn(Lesson(edit.prompt, edit.answer))
        engine.mind.history.undo.clear()
        steps.append(report.steps)
        seconds.append(report.seconds)
    print(f"{len(edits)} lessons: {np.median(steps):.0f} steps, {np.median(seconds):.2f} s each (median)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("fingerprints", "edits"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--first", type=int, default=500, help="records before it are left alone: scores use them")
    parser.add_argument("--edits", type=int, default=152)
    parser.add_argument("--state", type=Path, help="where the taught memory is kept, and taken from if it is there")
    parser.add_argument("--layers", default="22,24,26")
    parser.add_argument("--k", default="0.1,0.286")
    parser.add_argument("--set", action="append", default=[], help="an option of the memory, name=value")
    given = parser.parse_args()
    edits = load(given.data).edits[given.first : given.first + given.edits]
    adapter = runtime.load_adapter(Config(backend="torch", dtype="float32"))
    if given.what == "fingerprints":
        fingerprints(adapter, edits, [int(x) for x in given.layers.split(",")], [float(x) for x in given.k.split(",")])
    else:
        edits_of(adapter, edits, parse_settings(given.set), given.state)


if __name__ == "__main__":
    main()
