"""The gate alone, without a language model: python -m scripts.measure_gate --data DIR

For each editing data set, the prompts of N lessons go into one index; then every prompt is asked. own: a lesson's own
prompt finds it; rephrase: so does the rephrase; wrong: the rephrase finds another lesson; silent: share of locality
prompts that find nothing. For `coverage`, own is: the later of two lessons wins. `known` asks true facts.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lmm.memory.keyed.gate import THRESHOLD, WEIGHTS, Gate, Index


@dataclass
class Item:
    """One lesson's prompt, and what is asked about it."""

    prompt: str
    answer: str
    rephrase: str = ""
    locality: list[str] = field(default_factory=list)


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def items(folder: Path, name: str) -> list[Item]:
    if name == "mixed":
        return [item for pair in zip(items(folder, "qaedit"), items(folder, "zsre"), strict=False) for item in pair]
    found = []
    for r in read(folder, name):
        if name == "zsre":
            local = [item["prompt"] for item in r["locality"].get("Relation_Specificity", [])]
            found.append(Item(r["prompt"], r["target_new"], r["rephrase_prompt"], local))
        elif name == "qaedit":
            found.append(Item(r["prompt"], r["target"], r["rephrase"], [item["loc"] for item in r["locality"]]))
        else:
            found.append(Item(r["prompt"], r["target_new"], r["rephrase_prompt"], [r["locality_prompt"]]))
    return found


def build(gate: Gate, prompts: Sequence[str]) -> Index:
    return Index(prompts, [gate.fingerprint(prompt) for prompt in prompts], gate)


def first(index: Index, texts: Iterable[str], threshold: float) -> list[int]:
    """For each text the lesson that answers it, -1 for none."""
    return [found[0][0] if found else -1 for found in index.match(list(texts), threshold)]


def measure(gate: Gate, lessons: Sequence[Item], threshold: float) -> tuple[dict[str, float], list[str]]:
    """Rates of one data set, and a line for each question that went wrong."""
    index = build(gate, [lesson.prompt for lesson in lessons])
    # two records may ask the very same: the last of them is right for both
    last = {lesson.prompt: i for i, lesson in enumerate(lessons)}
    truth = [last[lesson.prompt] for lesson in lessons]
    own = first(index, (lesson.prompt for lesson in lessons), threshold)
    rephrase = first(index, (lesson.rephrase for lesson in lessons), threshold)
    asked = [(lesson, text) for lesson in lessons for text in lesson.locality]
    fired = first(index, (text for _, text in asked), threshold)
    pairs = list(zip(rephrase, truth, strict=True))

    def right(found: int, own: int) -> bool:
        return lessons[found].answer.casefold() == lessons[own].answer.casefold()

    rates = {
        "own": float(np.mean(np.equal(own, truth))),
        "rephrase": float(np.mean([r == t for r, t in pairs])),
        "answer": float(np.mean([r >= 0 and right(r, t) for r, t in pairs])),
        "wrong": float(np.mean([r >= 0 and not right(r, t) for r, t in pairs])),
        "silent": float(np.mean([f < 0 for f in fired])),
    }
    lines = [f"missed\t{x.rephrase}\t{x.prompt}" for x, (r, t) in zip(lessons, pairs, strict=True) if r != t]
    lines += [f"fired\t{text}\t{lessons[f].prompt}" for (_, text), f in zip(asked, fired, strict=True) if f >= 0]
    return rates, lines


def coverage(gate: Gate, folder: Path, count: int, threshold: float) -> dict[str, float]:
    """Each fact is taught twice, the second time after all others were taught once."""
    edits = [r["edits"] for r in read(folder, "coverage_edit")[:count]]
    prompts = [pair[k]["relation"]["query"].format(pair[k]["subject"]["label"]) for k in (0, 1) for pair in edits]
    spoken = [pair[1]["relation"]["prompt"].format(pair[1]["subject"]["label"]) for pair in edits]
    index = build(gate, prompts)
    last = {prompt: i for i, prompt in enumerate(prompts)}
    truth = [last[prompt] for prompt in prompts[len(edits) :]]
    own = first(index, prompts[len(edits) :], threshold)
    return {
        "own": float(np.mean(np.equal(own, truth))),
        "rephrase": float(np.mean(np.equal(first(index, spoken, threshold), truth))),
    }


def known(gate: Gate, folder: Path, count: int, threshold: float) -> dict[str, float]:
    index = build(gate, [item.prompt for item in items(folder, "qaedit")[:count]])
    fired = first(index, (r["prompt"] for r in read(folder, "known_facts")), threshold)
    return {"silent": float(np.mean([f < 0 for f in fired]))}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with qaedit.json, zsre.json, ...")
    parser.add_argument("--weights", type=Path, nargs="+", default=WEIGHTS, help="several are averaged")
    parser.add_argument("--sets", default="qaedit,zsre,counterfact,mixed,coverage,known")
    parser.add_argument("--sizes", default="100,500,1000")
    parser.add_argument("--threshold", type=float, default=THRESHOLD)
    parser.add_argument("--errors", type=Path, help="write what went wrong here, one line each")
    options = parser.parse_args(arguments)
    gate, wrong = Gate(options.weights), []
    print(f"{'data':12s}{'N':>6s}{'own':>8s}{'rephrase':>10s}{'answer':>8s}{'wrong':>8s}{'silent':>8s}{'seconds':>9s}")
    for name in options.sets.split(","):
        for size in sorted(int(size) for size in options.sizes.split(",")):
            start = time.perf_counter()
            if name in ("coverage", "known"):
                if size != 500:
                    continue
                rates = (coverage if name == "coverage" else known)(gate, options.data, size, options.threshold)
            else:
                # counterfact from the 501st record on is training data of the gate, zsre likewise
                lessons = items(options.data, name)[: size if name == "mixed" else min(size, 500)]
                if len(lessons) < size:
                    continue
                rates, lines = measure(gate, lessons, options.threshold)
                wrong += [f"{name}\t{size}\t{line}" for line in lines]
            names = ("own", "rephrase", "answer", "wrong", "silent")
            cells = [f"{rates[key]:.3f}" if key in rates else "-" for key in names]
            row = "".join(f"{cell:>{width}s}" for cell, width in zip(cells, (8, 10, 8, 8, 8), strict=True))
            print(f"{name:12s}{size:6d}{row}{time.perf_counter() - start:9.1f}", flush=True)
    if options.errors:
        options.errors.write_text("\n".join(wrong), encoding="utf-8")


if __name__ == "__main__":
    main()
