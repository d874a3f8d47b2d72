"""The documentation says what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts import list_files

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_every_file_is_listed():
    assert list_files.PAGE.read_text(encoding="utf-8") == list_files.listing(), "run: python -m scripts.list_files"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_linked_is_there(page: Path):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)|src=\"([^\"]+)\"", page.read_text(encoding="utf-8"))
    missing = [a or b for a, b in links if "://" not in (a or b) and not (page.parent / (a or b)).exists()]
    assert missing == []


def test_the_commands_of_the_readme_exist():
    """Every `lmm NAME` that the README shows is a command."""
    from typer.main import get_command

    from lmm.cli.app import app

    known = set(get_command(app).commands)
    shown = set(re.findall(r"`lmm ([a-z]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert shown <= known | {"chat"} and shown
