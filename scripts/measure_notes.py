"""What notes can do with a reader that hears everything: python -m scripts.measure_notes --data FILE --out DIR MEMORY..

As `lmm bench use`, but what a fact's message says is kept as it is, with a crude echo. Whatever the reader's part in a
score is, this leaves it out. For development.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lmm.bench import report, use
from lmm.bench.use_data import StatedFact
from lmm.chat.talk import Talk
from lmm.config import Config
from lmm.lesson import Lesson
from scripts.gate_data import to_you


def kept_as_said(talk: Talk, fact: StatedFact) -> Sequence[Lesson]:
    """Every message is a note; the one that teaches takes the place of those before it."""
    for message in (*fact.before, fact.teach):
        lesson = Lesson(statement=message, echo=to_you(message), subject=fact.id, relation="what was said")
        talk.mind.learn(lesson)
    return (lesson,)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("memory", nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default=Config.model)
    parser.add_argument("--threshold", type=float, help="of notes")
    options = parser.parse_args(arguments)
    config = Config(model=options.model, dtype="float32")
    own = {name: {_own(name, "threshold"): options.threshold} for name in options.memory if "notes" in name}
    request = use.UseRequest(
        options.data, tuple(options.memory), config, out=options.out, options=own if options.threshold else {}
    )
    result = use.run(request, teach=kept_as_said)
    print("\n".join(report.table_lines(result["rows"], use.COLUMNS, use.SHOWN)))
    for row in result["rows"]:
        print(row["memory"], {kind: f"{right}/{count}" for kind, (right, count) in row["kinds"].items()})


def _own(name: str, option: str) -> str:
    return f"notes.{option}" if "+" in name else option


if __name__ == "__main__":
    main()
