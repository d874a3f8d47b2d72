"""List every file in README.md, one line each, from the docstrings' first sentences: python -m scripts.list_files"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
START, END = "<!-- files: python -m scripts.list_files -->\n", "<!-- end of files -->\n"


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return paragraph.split(". ")[0].rstrip(".").replace("|", "\\|")


def folders() -> dict[str, list[Path]]:
    """Folder -> its modules; those without a docstring are empty."""
    found: dict[str, list[Path]] = {}
    for path in sorted([*ROOT.glob("lmm/**/*.py"), *ROOT.glob("scripts/*.py"), *ROOT.glob("examples/*.py")]):
        if first_sentence(path):
            found.setdefault(f"{path.parent.relative_to(ROOT)}/", []).append(path)
    return found


def listing() -> str:
    lines: list[str] = []
    for folder, paths in folders().items():
        lines += ["", f"**`{folder}`**", "", "| file | |", "|---|---|"]
        lines += [f"| `{path.name}` | {first_sentence(path)} |" for path in paths]
    return "\n".join(lines) + "\n\n"


def updated(readme: str) -> str:
    """The README with the list as it should be."""
    before, _, rest = readme.partition(START)
    return before + START + listing() + END + rest.partition(END)[2]


if __name__ == "__main__":
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")
    print("README.md lists", sum(map(len, folders().values())), "files")
