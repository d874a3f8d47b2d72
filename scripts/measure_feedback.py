"""How well are user turns read? Precision and recall of "learned something" on the labelled halves.

    python scripts/measure_feedback.py [--json] [--misses dev] [FILE ...]

A turn counts as right if its kind and its value are those of the label; values are compared without case, articles,
leading prepositions and end punctuation.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

from lmm.feedback import Exchange, Reading, read

DATA = Path(__file__).resolve().parent.parent / "tests" / "data"
KINDS = ("statement", "correction", "nothing")


def turns(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def reading_of(turn: dict[str, Any]) -> Reading:
    return read(turn["text"], Exchange(**turn["last"]) if turn.get("last") else None)


def normal(value: str) -> str:
    value = re.sub(r"^(?:(?:an?|the|my|our|your|in|on|at|as) )+", "", value.lower().strip(" .!?\"'"))
    return re.sub(r"\s+", " ", value)


def is_right(turn: dict[str, Any], reading: Reading) -> bool:
    wanted = {normal(v) for v in (turn["value"], *turn.get("also", ()))}
    return reading.kind == turn["kind"] and (reading.kind == "nothing" or normal(reading.value) in wanted)


def measure(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures for one file: precision and recall over turns that teach, confusion of kinds, milliseconds per turn."""
    began = time.process_time()
    readings = [reading_of(row) for row in rows]
    elapsed = time.process_time() - began
    pairs = list(zip(rows, readings, strict=True))
    learned = sum(r.kind != "nothing" for r in readings)
    teaching = sum(row["kind"] != "nothing" for row in rows)
    right = sum(row["kind"] != "nothing" and is_right(row, r) for row, r in pairs)
    confusion: Counter[tuple[str, str]] = Counter((row["kind"], r.kind) for row, r in pairs)
    return {
        "turns": len(rows),
        "teaching": teaching,
        "learned": learned,
        "right": right,
        "precision": right / learned if learned else 1.0,
        "recall": right / teaching if teaching else 1.0,
        "confusion": {kind: {read_as: confusion[kind, read_as] for read_as in KINDS} for kind in KINDS},
        "milliseconds_per_turn": 1000 * elapsed / max(1, len(rows)),
    }


def show(name: str, figures: dict[str, Any]) -> None:
    print(f"{name}: " + ", ".join(f"{figures[key]} {key}" for key in ("turns", "teaching", "learned", "right")))
    rates = "  ".join(f"{key} {figures[key]:.3f}" for key in ("precision", "recall"))
    print(f"  {rates}  {figures['milliseconds_per_turn']:.2f} ms/turn")
    print("  " + "".join(f"{h:>12}" for h in ("label \\ read", *KINDS)))
    for kind, row in figures["confusion"].items():
        print("  " + f"{kind:>12}" + "".join(f"{row[k]:>12}" for k in KINDS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="labelled turns (default: tests/data/feedback_*.jsonl)")
    parser.add_argument("--json", action="store_true", help="one JSON object per file name")
    parser.add_argument(
        "--misses", metavar="NAME", default="", help="also list what was read wrongly in this file, e.g. dev"
    )
    options = parser.parse_args()
    files = options.files or sorted(DATA.glob("feedback_*.jsonl"))
    results = {path.stem.removeprefix("feedback_"): measure(turns(path)) for path in files}
    if options.json:
        print(json.dumps(results, indent=2))
        return
    for name, figures in results.items():
        show(name, figures)
    for path in files:
        if options.misses and path.stem.endswith(options.misses):
            for row in turns(path):
                reading = reading_of(row)
                if not is_right(row, reading):
                    found = f"{reading.kind} {reading.value!r} ({reading.why})"
                    print(f"  {row['kind']} {row['value']!r} <- {row['text']!r}: {found}")


if __name__ == "__main__":
    main()
