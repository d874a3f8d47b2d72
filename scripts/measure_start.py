"""What a chat's first seconds are: python -m scripts.measure_start --rounds 8

The real program on a pseudo-terminal, with the default model, each time in a new folder of data. Seconds from its start
until its first line is on the screen and until the prompt is there; and from Enter on a message typed a second after
the prompt until a line says what is going on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

BUSY = ("loading", "thinking", "reading", "learning")


def one(folder: Path) -> dict[str, float]:
    """The seconds of one start."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from terminals import Terminal

    terminal = Terminal(folder, program=("-m", "lmm"))
    start = terminal.started
    terminal.see(lambda text: any(line.startswith("lmm ") for line in text.splitlines()))
    seconds = {"first line": time.monotonic() - start}
    terminal.see(lambda text: any(line.startswith("> ") or line == ">" for line in text.splitlines()))
    seconds["prompt"] = time.monotonic() - start
    time.sleep(1)
    terminal.line("Tell me of rivers.")
    pressed = time.monotonic()
    terminal.see(lambda text: any(line[2:].startswith(BUSY) for line in text.splitlines()[:-1]))
    seconds["busy line after Enter"] = time.monotonic() - pressed
    terminal.child.close(force=True)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    starts = []
    for number in range(given.rounds):
        with tempfile.TemporaryDirectory() as folder:
            starts.append(one(Path(folder)))
        print(f"{number + 1} of {given.rounds}", file=sys.stderr)
    found = {name: statistics.median(each[name] for each in starts) for name in starts[0]}
    if given.json:
        print(json.dumps({name: round(seconds, 3) for name, seconds in found.items()}))
        return
    for name, seconds in found.items():
        print(f"{name:24}{seconds:6.2f} s")


if __name__ == "__main__":
    main()
