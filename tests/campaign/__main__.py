"""`make campaign`: what breaks when everything goes wrong, as one table (docs/reliability.md).

The program is `lmm` itself, with a scripted model (tests/scripted.py): what is measured is files, not replies.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from campaign import disks, fuzzer, lives, program, stops, strangers
from campaign.program import Row


def measures(scale: float) -> dict[str, Callable[[], Row]]:
    """By name, each with its share of the full count."""

    def n(count: int) -> int:
        return max(2, round(count * scale))

    return {
        "kills": lambda: stops.kills(n(1000)),
        "conversions": lambda: stops.conversions(n(1000)),
        "terminal": lambda: stops.kills_at_a_terminal(n(20)),
        "power": lambda: disks.power(n(500)),
        "faults": lambda: disks.faults(min(1.0, scale)),
        "writers2": lambda: stops.writers(2, n(1000)),
        "writers4": lambda: stops.writers(4, n(1000)),
        "writers8": lambda: stops.writers(8, n(1000)),
        "signals": lambda: stops.signals(n(500)),
        "fuzz": lambda: fuzzer.fuzzed(n(20_000)),
        "hostile": lambda: strangers.hostile(n(200), n(20)),
        "stateful": lambda: lives.stateful(n(10_000)),
        "forget": lambda: lives.forgotten(n(50)),
        "day": lambda: lives.day(n(10_000), n(500)),
    }


def measured(rows: dict[str, Callable[[], Row]], at_once: int) -> Iterator[tuple[str, list[str]]]:
    """Each row in a process of its own, so many at a time -> its name and cells, as they come."""
    waiting, running = list(rows), dict[int, tuple[str, float]]()
    with tempfile.TemporaryDirectory() as place:
        while waiting or running:
            if waiting and len(running) < at_once:
                name = waiting.pop(0)
                running[_begun(rows[name], Path(place) / name)] = name, time.perf_counter()
                continue
            child, _ = os.wait()
            name, start = running.pop(child)
            result = Path(place) / name
            cells = json.loads(result.read_text()) if result.exists() else [name, "a figure", "an error"]
            yield name, [*cells, f"{time.perf_counter() - start:.0f} s"]


def _begun(measure: Callable[[], Row], result: Path) -> int:
    return program.apart(lambda: result.write_text(json.dumps(measure())))


def main() -> None:
    parser = argparse.ArgumentParser(prog="make campaign", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full counts")
    parser.add_argument("--only", nargs="*", default=[], help="names of rows")
    parser.add_argument("--at-once", type=int, default=2, help="how many rows are measured at a time")
    parser.add_argument(
        "--results", type=Path, help="a file in which rows are kept: those in it are not measured again"
    )
    given = parser.parse_args()
    kept: dict[str, list[str]] = {}
    if given.results and given.results.exists():
        kept = json.loads(given.results.read_text())
    program.warm()
    chosen = {name: row for name, row in measures(given.scale).items() if not given.only or name in given.only}
    rows = {name: measure for name, measure in chosen.items() if name not in kept}
    for name, row in measured(rows, given.at_once):
        kept[name] = row
        print(f"{name}: {row}", file=sys.stderr, flush=True)
        if given.results:
            given.results.write_text(json.dumps(kept, indent=2))
    print("| figure | wanted | found | took |\n|---|---|---|---|")
    print("\n".join(f"| {' | '.join(kept[name])} |" for name in chosen))
    sys.exit(any(kept[name][1] != kept[name][2] for name in chosen))


if __name__ == "__main__":
    main()
