"""Train the gate of notes: python -m scripts.train_helps --data DIR --helps FILES --turns FILES --out FILE

The pair model of scripts/train_gate.py on other pairs: does a note help with a question (scripts/helps_data.py)?
Seeded; half an hour on one core. Needs torch.
`--data` holds editing/counterfact.json and zsre.json (only records from the 501st on are used) and text/; `--helps` are
scripts/helps_hand/*.jsonl and `--turns` scripts/reader_turns/*.jsonl. The packaged weights went on twice: from the gate
of `keyed` (`--init lmm/memory/keyed/gate-1.safetensors --lr 1e-3 --times 25 --repeats 6`, helps_hand/a.jsonl alone, the
notes' own direct questions among the positives), then from that (`--seed 1 --steps 560 --lr 8e-4 --times 8`).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from scripts.helps_data import datasets
from scripts.train_gate import parser, train_and_save


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    train_and_save(
        options,
        lambda: datasets(options.data, options.helps, options.turns, options.seed, options.times, options.repeats),
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    made = parser(__doc__, Path("lmm/memory/notes/helps-1.safetensors"))
    made.add_argument("--helps", type=Path, nargs="*", default=[], help="notes by hand with questions, JSON lines")
    made.add_argument("--turns", type=Path, nargs="*", default=[], help="turns that state something, JSON lines")
    made.add_argument("--repeats", type=int, default=3, help="times that notes by hand are drawn")
    made.add_argument("--times", type=int, default=40, help="fillings of each of our own notes")
    return made.parse_args(arguments)


if __name__ == "__main__":
    main()
