"""Train the gate of notes: python -m scripts.train_helps --helps FILES --turns FILES, and the options of train_gate.

The pair model of scripts/train_gate.py on other pairs: does a note help with a question (scripts/helps_data.py)?
Seeded; half an hour on one core. Needs torch.
`--data` holds editing/counterfact.json and zsre.json (only records from the 501st on are used) and text/; `--helps` are
scripts/helps_hand/*.jsonl and `--turns` scripts/reader_turns/*.jsonl. The packaged weights went on seven
times: from the gate of `keyed` (`--init lmm/memory/keyed/gate-1.safetensors --lr 1e-3 --times 25 --repeats 6`,
helps_hand/a.jsonl alone, the notes' own direct questions among the positives), then each from the one before, with
`--helps` of the first two hands (`--seed 1 --steps 560 --lr 8e-4 --times 8`), with k (`--seed 2 --steps 600 --lr 8e-4
--times 4 --repeats 3`), with k and l (`--seed 3 --steps 600 --lr 6e-4 --times 3 --repeats 4`), the same with the
notes' own questions again (`--seed 4 --steps 300 --lr 5e-4`), with all files but n1 to n5 and p1 to q10, and the turns
of b, d, h (`--seed 5 --lr 6e-4 --times 3 --repeats 1`), and with all files but y1 to z7 (`--seed 6 --lr 6e-4 --times 2
--repeats 1 --steps 2900`).
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
