"""The documentation says what is there: files, links, commands and their options."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts import config_page, list_files, results

ROOT = Path(__file__).parents[1]
NOT_OURS = {"lmm_bytes.py", "lmm_parrot.py", "generate_permutation.py"}  # of packages beside this one
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def headings(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    found = re.findall(r"^#+ (.*)$", text_of(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def code(page: Path) -> Iterator[str]:
    """What stands as code on a page: each line of its blocks (continued ones joined), each span in its text."""
    blocks = re.compile(r"^```.*?\n(.*?)^```", re.M | re.S)
    indented = re.compile(r"^ {4}(lmm .*(?:\n {5,}.*)*)", re.M)
    for block in blocks.findall(text_of(page)):
        yield from re.sub(r"\\\n\s*", " ", block).splitlines()
    rest = blocks.sub("", text_of(page))
    for block in indented.findall(rest):
        yield re.sub(r"\\\n\s*", " ", block)
    for span in re.findall(r"`([^`]+)`", rest):
        yield " ".join(span.split())


@pytest.mark.slow
def test_every_file_is_listed():
    assert text_of(list_files.PAGE) == list_files.listing(), "run: python -m scripts.list_files"


def test_the_page_of_settings_is_what_is_declared():
    assert text_of(config_page.PAGE) == config_page.page(), "run: python -m scripts.config_page"


def test_the_architecture_names_every_folder():
    folders = {path.parent.name for path in (ROOT / "lmm").glob("*/__init__.py")}
    page = text_of(ROOT / "docs" / "architecture.md")
    assert folders and [name for name in sorted(folders) if f"`{name}/`" not in page] == []


def test_the_picture_of_the_layers_is_the_contract():
    contract = tomllib.loads(text_of(ROOT / "pyproject.toml"))["tool"]["importlinter"]["contracts"][0]["layers"]
    layers = [name.strip().removeprefix("lmm.") for layer in contract for name in layer.split("|")]
    picture = text_of(ROOT / "docs" / "architecture.md").split("```")[1]
    drawn = re.findall(r"^ +(\w+(?:, \w+)*) {4}", picture, re.M)
    assert [name for names in drawn for name in names.split(", ")] == layers[1:], "without __main__"


def test_commits_that_are_named_are_of_this_history():
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout

    if git("rev-parse", "--is-shallow-repository").strip() != "false":
        pytest.skip("the history is not here")
    known = {commit[:7] for commit in git("rev-list", "HEAD").split()}
    hashes = re.compile(r"\b(?=\d*[a-f])(?=[a-f]*\d)[0-9a-f]{7}\b")
    named = {(page.name, commit) for page in PAGES for commit in hashes.findall(text_of(page))}
    assert {(page, commit) for page, commit in named if commit not in known} == set()


# ---- links and paths


@each_page
def test_what_is_linked_is_there(page: Path):
    links = re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text_of(page))
    for link in (a or b for a, b in links if "://" not in (a or b)):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


@each_page
def test_paths_that_are_named_are_there(page: Path):
    roots = r"(?:lmm|docs|tests|scripts|examples)/[\w./-]+\.(?:py|md|json|txt|safetensors|svg|png)"
    named = {
        path
        for text in code(page)
        for path in re.findall(rf"(?<![\w./-]){roots}", text)
        if Path(path).name not in NOT_OURS
    }
    assert {path for path in named if not (ROOT / path).exists()} == set()
    files = {path.name for path in ROOT.glob("[a-z]*/**/*.py")} | NOT_OURS
    assert {name for text in code(page) for name in re.findall(r"(?<![\w./-])\w+\.py\b", text)} <= files


# ---- commands


def commands(page: Path) -> Iterator[list[str]]:
    """Each `lmm ...` on a page, in words, without what is piped into it or where it is piped to."""
    for text in code(page):
        for part in re.split(r"&&|\||;(?= )", re.sub(r"(?<=\w)\\?\|(?=\w)", "/", text.partition("  #")[0])):
            if re.match(r"(\$ )?lmm [a-z-]", part.strip()):
                yield part.strip().removeprefix("$ ").replace('"', " ").split()[1:]


def options(command: Any) -> set[str]:
    return {name for given in command.params for name in (*given.opts, *given.secondary_opts)} | {"--help"}


def problems(words: list[str], command: Any) -> list[str]:
    """What a command line names that does not exist; "a/b" stands for several commands."""
    found: list[str] = []
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        names, words = words[0].split("/"), words[1:]
        found += [name for name in names if name not in {*command.commands, "..."}]
        if found:
            return found
        command = command.commands.get(names[0], command)
    flags = [flag.strip("[]").partition("=")[0] for flag in words if flag.strip("[").startswith("--")]
    return [f"{command.name} {flag}" for flag in flags if flag not in options(command)]


@pytest.fixture(scope="module")
def shell() -> Any:
    from typer.main import get_command

    from lmm.cli.app import app

    return get_command(app)


@each_page
def test_commands_and_their_options_exist(page: Path, shell):
    assert [problem for words in commands(page) for problem in problems(words, shell)] == []


def test_the_readme_is_checked(shell):
    """The check above finds something to check, and finds what is wrong."""
    assert len(list(commands(ROOT / "README.md"))) >= 5
    assert problems(["chat", "--sparkle"], shell) == ["chat --sparkle"]
    assert problems(["memory", "list/sing"], shell) == ["sing"]


@each_page
def test_scripts_and_targets_exist(page: Path):
    targets = re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), re.M)
    for text in code(page):
        for name, flags in re.findall(r"python -m scripts\.(\w+)((?: [^|&#]*)?)", text):
            script = ROOT / "scripts" / f"{name}.py"
            assert script.exists(), text
            for flag in re.findall(r"(?<!\S)--[a-z-]+", flags):
                assert f'"{flag}"' in text_of(script) or name == "memorization_smoke", text
        made = re.match(r"make ([a-z][a-z-]*)", text)
        assert made is None or made[1] in targets, text


# ---- results


def test_the_page_shows_the_kept_results():
    assert results.updated(text_of(results.PAGE)) == text_of(results.PAGE), "run: python -m scripts.results"
    for file in results.KEPT.glob("*.json"):
        command = json.loads(text_of(file))["run"]["command"]
        assert "/" not in command, f"{file.name}: keep it by python -m scripts.results RESULT.json --name NAME"


def test_a_result_is_kept_with_what_repeats_it(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "KEPT", tmp_path)
    row = {"memory": "in_context", "edits": 3, "reliability": 0.0, "reliability_contains": 0.5}
    data = {"file": "facts.json", "sha256": "abc"}
    about = {"command": "lmm bench edit --data /home/me/facts.json --edits 3", "data": data, "commit": "0123456"}
    about |= {"model": "toy", "backend": "torch", "dtype": "float32"}
    (tmp_path / "from").mkdir()
    source = tmp_path / "from" / "result.json"
    source.write_text(json.dumps({"rows": [row], "run": about}))
    results.keep(source, "mine")
    page = results.updated(f"before\n{results.START}old\n{results.END}after\n")
    assert page.startswith("before\n") and page.endswith("after\n") and "old" not in page
    assert "| in_context | 3 | 0.000 | 0.500 |" in page and "`lmm bench edit --data facts.json --edits 3`" in page
    assert "0123456" in page and "sha256 abc" in page
