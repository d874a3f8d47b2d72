"""`lmm data`: makes the data of the exact-match tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lmm.cli.options import Option, out

app = typer.Typer(name="data", help="Make data to teach and to ask.", no_args_is_help=True)
Count = Annotated[int, Option("--num-examples", help="how many, over all splits")]
Seed = Annotated[int, Option(help="the same seed gives the same files")]
Out = Annotated[Path, Option(help="folder for train.jsonl, valid.jsonl and test.jsonl")]


@app.command("exact-match")
def exact_match(
    out: Out,
    num_examples: Count = 500,
    seed: Seed = 0,
    categories: Annotated[
        str | None, Option(help="only these, by commas: capital, element, port, http, unit, acronym, synthetic")
    ] = None,
) -> None:
    """Capitals, elements, ports, HTTP codes, units, acronyms, and synthetic key -> value pairs."""
    chosen = {"categories": tuple(name.strip() for name in categories.split(","))} if categories else {}
    _make("exact-match", num_examples, seed, out, **chosen)


@app.command("entity-keyed")
def entity_keyed(out: Out, num_examples: Count = 300, seed: Seed = 0) -> None:
    """Facts of people, with an entity id before each question."""
    _make("entity-keyed", num_examples, seed, out)


@app.command()
def preferences(out: Out, num_examples: Count = 400, seed: Seed = 0) -> None:
    """Preferences of invented users, with a user id before each question."""
    _make("preferences", num_examples, seed, out)


def _make(task: str, count: int, seed: int, folder: Path, **options: Any) -> None:
    from collections import Counter

    from lmm.bench.exact_match import TASKS, write

    splits = TASKS[task](count, seed, **options)
    for name, path in write(splits, folder).items():
        kinds = Counter(example.category for example in splits[name])
        listed = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
        seen = sum(example.seen for example in splits[name])
        out(f"{path}: {len(splits[name])} examples ({listed})" + (f"; {seen} of train again" if seen else ""))
