"""List every file in docs/files.md, a line each, from the docstrings' first sentences: python -m scripts.list_files"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "files.md"
HEAD = """# Every file, one line each

The first sentence of each docstring, written by `python -m scripts.list_files`.
[architecture.md](architecture.md) says how they hang together.
"""


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
    """The page as it should be."""
    lines = [HEAD]
    for folder, paths in folders().items():
        lines += [f"## `{folder}`", "", "| file | |", "|---|---|"]
        lines += [f"| `{path.name}` | {first_sentence(path)} |" for path in paths] + [""]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(listing(), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)} lists", sum(map(len, folders().values())), "files")
