"""`lmm data`: makes the data of the exact-match tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lmm.bench.settings import DataSettings, EntitySettings, PreferenceSettings
from lmm.cli.options import Option, configured, out

app = typer.Typer(name="data", help="Make data to teach and to ask.", no_args_is_help=True)
Out = Annotated[Path, Option(help="folder for train.jsonl, valid.jsonl and test.jsonl")]


@app.command("exact-match")
@configured()
def exact_match(
    settings: DataSettings,
    out: Out,
    categories: Annotated[
        str | None, Option(help="only these, by commas: capital, element, port, http, unit, acronym, synthetic")
    ] = None,
) -> None:
    """Capitals, elements, ports, HTTP codes, units, acronyms, and synthetic key -> value pairs."""
    chosen = {"categories": tuple(name.strip() for name in categories.split(","))} if categories else {}
    _make("exact-match", settings, out, **chosen)


@app.command("entity-keyed")
@configured()
def entity_keyed(settings: EntitySettings, out: Out) -> None:
    """Facts of people, with an entity id before each question."""
    _make("entity-keyed", settings, out)


@app.command()
@configured()
def preferences(settings: PreferenceSettings, out: Out) -> None:
    """Preferences of invented users, with a user id before each question."""
    _make("preferences", settings, out)


def _make(task: str, settings: DataSettings, folder: Path, **options: Any) -> None:
    from collections import Counter

    from lmm.bench.exact_match import TASKS, write

    splits = TASKS[task](settings.num_examples, settings.seed, **options)
    for name, path in write(splits, folder).items():
        kinds = Counter(example.category for example in splits[name])
        listed = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
        seen = sum(example.seen for example in splits[name])
        out(f"{path}: {len(splits[name])} examples ({listed})" + (f"; {seen} of train again" if seen else ""))
