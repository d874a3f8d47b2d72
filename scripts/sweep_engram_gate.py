"""How an engram recognises its questions: python -m scripts.sweep_engram_gate --data DIR --states FILE

For records FROM to TO of each editing data set, as if their prompts had been taught together:

    found     share of rephrases for which the lesson found has the right answer
    silent    share of locality prompts for which no lesson is found

by n-gram votes alone, by the state in context alone, and by both as in `engram`; for layers and thresholds.
The states are computed once (a few minutes) and kept in FILE. Records whose scores are published are 0 to 99.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lmm.adapters.base import Adapter
from lmm.bench.datasets import Edit, load
from lmm.config import Config
from lmm.engine.runtime import open_engine
from lmm.memory.contrast import PLAIN
from lmm.memory.engram.questions import Words, other_numbers
from lmm.memory.engram.votes import Votes
from lmm.memory.keyed.gate import views
from lmm.memory.states import last_states, unit

NAMES = ("zsre", "qaedit", "counterfact")
LAYERS = (12, 18, 22, 25, 28)
GUARD = True  # look at whether the two are about the same thing
WEIGHT = 0.25  # of the vote beside the cosine


def states(adapter: Adapter, texts: Sequence[str]) -> np.ndarray:
    """Last-token states of the untouched model before each of LAYERS: [texts, layers, D]."""
    found = []
    for i in range(0, len(texts), 8):
        tokens = [adapter.format.prompt_tokens(text) for text in texts[i : i + 8]]
        found.append([last_states(adapter, adapter.site(layer, "pre_attention"), tokens) for layer in LAYERS])
    return np.concatenate([np.stack(part, axis=1) for part in found])


def kept_states(path: Path, adapter: Adapter, data: Mapping[str, Sequence[Edit]]) -> dict[str, np.ndarray]:
    if not path.exists():
        made = {"plain": states(adapter, PLAIN)}
        for name, edits in data.items():
            made[f"{name}_p"] = states(adapter, [e.prompt for e in edits])
            made[f"{name}_r"] = states(adapter, [e.rephrases[0] for e in edits])
            made[f"{name}_l"] = states(adapter, [e.locality[0] for e in edits])
        np.savez(path, **made)  # type: ignore[arg-type]
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def votes(adapter: Adapter, edits: Sequence[Edit], texts: Sequence[str]) -> np.ndarray:
    """The best vote of each text's views for each edit's prompt, [texts, edits]; -1 where numbers differ."""
    words = Words(adapter)
    stored = [words.signature(e.prompt) for e in edits]
    grams, weights = [g for g, _ in stored], [w for _, w in stored]
    index = Votes([np.full(len(g), i) for i, g in enumerate(grams)], grams, weights, len(edits))
    found = np.full((len(texts), len(edits)), -1.0)
    for i, text in enumerate(texts):
        for view in views(text):
            votes = index.cosines(*words.signature(view))
            for k in np.flatnonzero(votes >= 0.2).tolist():
                if other_numbers(view, edits[k].prompt) or (GUARD and words.other_thing(view, edits[k].prompt)):
                    votes[k] = -1.0
            found[i] = np.maximum(found[i], votes)
    return found


def score(edits: Sequence[Edit], found: Sequence[np.ndarray], least: float) -> tuple[float, float]:
    rephrase, locality = found
    best = rephrase.argmax(axis=1)
    right = [edits[best[i]].answer == e.answer and rephrase[i, best[i]] >= least for i, e in enumerate(edits)]
    return float(np.mean(right)), float((locality.max(axis=1) < least).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--states", type=Path, default=Path("engram_states.npz"))
    parser.add_argument("--first", type=int, default=200)
    parser.add_argument("--last", type=int, default=319)
    args = parser.parse_args()
    adapter = open_engine(Config(memory="identity", dtype="float32", log=False)).adapter
    data = {name: load(args.data / f"{name}.json").edits[args.first : args.last + 1] for name in NAMES}
    kept = kept_states(args.states, adapter, data)
    voted = {
        name: [votes(adapter, e, [x.rephrases[0] for x in e]), votes(adapter, e, [x.locality[0] for x in e])]
        for name, e in data.items()
    }
    print("rows: found / silent for", ", ".join(NAMES))

    def row(what: str, found: Mapping[str, Sequence[np.ndarray]], least: float) -> None:
        scores = [score(data[name], found[name], least) for name in NAMES]
        print(f"{what:<44}", "   ".join(f"{a:.2f} / {b:.2f}" for a, b in scores), flush=True)

    for least in (0.3, 0.4, 0.5, 0.6, 0.7):
        row(f"votes alone, {least}", voted, least)
    for i, layer in enumerate(LAYERS):
        centre = kept["plain"][:, i].mean(axis=0)
        z = {key: unit(value[:, i] - centre) for key, value in kept.items()}
        cosines = {name: [z[f"{name}_{part}"] @ z[f"{name}_p"].T for part in "rl"] for name in NAMES}
        for least in (0.5, 0.6, 0.7):
            row(f"layer {layer}: state alone, {least}", cosines, least)
        for vote in (0.2, 0.3, 0.4):
            for least in (0.5, 0.6, 0.7):
                both = {
                    name: [
                        np.where(v >= vote, c + WEIGHT * v, -1.0)
                        for v, c in zip(voted[name], cosines[name], strict=True)
                    ]
                    for name in NAMES
                }
                row(f"layer {layer}: vote {vote}, with state {least}", both, least)


if __name__ == "__main__":
    main()
