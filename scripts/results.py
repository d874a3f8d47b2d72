"""Put kept results into docs/results.md: python -m scripts.results [RESULT.json --name NAME]

Each `docs/results/NAME.json` is the `result.json` of an `lmm bench edit`; with RESULT.json that file is kept, too. The
rest of the page is written by hand.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmm.bench import report

PAGE = Path(__file__).parents[1] / "docs" / "results.md"
KEPT = PAGE.with_suffix("")
START, END = "<!-- kept: python -m scripts.results -->\n", "<!-- end of kept -->\n"


def keep(source: Path, name: str) -> None:
    """A copy of a result; its command names files without their folders, which mean nothing elsewhere."""
    result = json.loads(source.read_text(encoding="utf-8"))
    result["run"]["command"] = re.sub(r"(?<=\s)\S*/(?=\S)", "", result["run"]["command"])
    KEPT.mkdir(exist_ok=True)
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    (KEPT / f"{name}.json").write_text(text, encoding="utf-8")


def section(name: str, result: Mapping[str, Any]) -> str:
    """One result: its table, and what is needed to repeat it."""
    about = result["run"]
    data = about["data"]
    lines = [
        f"### [{name}](results/{name}.json)",
        "",
        *report.table_lines(result["rows"]),
        "",
        f"`{about['command']}`",
        "",
        f"- commit {about['commit']}; {about['model']}, {about['backend']}, {about['dtype']}",
        f"- {data['file']}, sha256 {data['sha256']}",
        "",
    ]
    return "\n".join(lines) + "\n"


def updated(page: str) -> str:
    """The page with the results that are kept now."""
    before, _, rest = page.partition(START)
    files = sorted(KEPT.glob("*.json"))
    sections = [section(file.stem, json.loads(file.read_text(encoding="utf-8"))) for file in files]
    return before + START + "\n" + "".join(sections) + END + rest.partition(END)[2]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path, nargs="?", help="a result.json to keep")
    parser.add_argument("--name", help="the name it is kept under, e.g. keyed_qaedit_500")
    given = parser.parse_args(arguments)
    if (given.result is None) != (given.name is None):
        parser.error("RESULT.json and --name go together")
    if given.result:
        keep(given.result, given.name)
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"docs/results.md shows {len(list(KEPT.glob('*.json')))} kept results")


if __name__ == "__main__":
    main()
