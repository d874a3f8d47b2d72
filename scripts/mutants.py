"""Change the code a little in many places, one at a time, and see which changes `make unit` notices: make mutants

`python -m scripts.mutants cover` runs the unit tests once and writes down which test reaches which line (`cover
tests/test_x.py` adds what is new there); `run` tries a sample of cosmic-ray's mutants, each in a process of its own
with the tests that reach its line; `report` writes docs/mutants.md. Every result is on disk as soon as it is known, for
the file as it then was, so that a run goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib.machinery
import importlib.util
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WORK = ROOT / ".mutants"
PAGE = ROOT / "docs" / "mutants.md"
EQUIVALENT = Path(__file__).with_name("mutants_equivalent.json")
WHERE = ("lmm/memory", "lmm/engine", "lmm/files", "lmm/text")
WANTED = 0.85
CPU_S = 15  # a mutant that outlives tests of so many CPU seconds has survived
HANG_S = 20  # CPU seconds that one test may take on top; a mutant that takes more, or WALL_S in all, hangs
WALL_S = 600
UNIT = "not real and not slow and not mlx"
TESTS = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:timeout"]


# ---------------------------------------------------------------- which test reaches which line
def cover(only: list[str]) -> None:
    """Run the unit tests, or those in some files, under coverage, each in a context of its own."""
    WORK.mkdir(exist_ok=True)
    words = ["-m", "pytest", "-q", "-n", "2", "-m", UNIT, "--cov=lmm", "--cov-context=test", "--cov-report="]
    words += ["--cov-append"] if only else []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COVERAGE_FILE": str(WORK / "coverage")}
    subprocess.run([sys.executable, *words, *only], cwd=ROOT, env=environment, check=True)


@dataclass
class Reach:
    """Which tests run a line of a file, those first that run few lines: they say most about each."""

    lines: dict[int, set[str]]
    size: Counter[str]

    def tests(self, lines: range | None) -> list[str]:
        """Tests that reach any of `lines`; of the whole file where that says little: for what runs on import, and for
        what a test finds done already (a shared fixture, a cache)."""
        found = set().union(*(self.lines.get(n, set()) for n in lines)) if lines else set()
        everything = set().union(*self.lines.values()) if len(found) < 5 else set()
        return self._ordered(found) + self._ordered(everything - found)

    def _ordered(self, tests: set[str]) -> list[str]:
        return sorted(tests, key=lambda test: (self.size[test], test))


def reach_of(path: Path) -> Reach:
    """Raises SystemExit where the file was not there when the tests were run under coverage."""
    import coverage

    data = coverage.CoverageData(str(WORK / "coverage"))
    data.read()
    name = str(path.relative_to(ROOT))
    measured = next((found for found in data.measured_files() if found.endswith(f"/{name}")), None)
    if measured is None:
        raise SystemExit(f"{name} was not run under coverage; first: python -m scripts.mutants cover")
    lines: dict[int, set[str]] = {}
    for number, contexts in data.contexts_by_lineno(measured).items():
        lines[number] = {test for test in (c.split("|")[0] for c in contexts) if test in unit_tests()}
    return Reach(lines, _sizes(data))


@cache
def unit_tests() -> set[str]:
    """Those there are now: one that is gone would be an error, and so count as a mutant that was noticed."""
    words = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:xdist", "-m", UNIT]
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True).stdout
    return {line for line in said.splitlines() if "::" in line}


_counted: Counter[str] = Counter()


def _sizes(data: Any) -> Counter[str]:
    """Test -> number of lines it runs in all files."""
    if not _counted:
        for name in data.measured_files():
            for contexts in data.contexts_by_lineno(name).values():
                _counted.update({c.split("|")[0] for c in contexts})
    return _counted


# ---------------------------------------------------------------- mutants
@dataclass(frozen=True)
class Mutant:
    file: str
    line: int
    column: int
    change: str  #: the line before and after
    source: str

    @property
    def key(self) -> str:
        """The same as long as the file is."""
        return hashlib.sha256(f"{self.file}\n{self.source}".encode()).hexdigest()[:16]


def places_of(source: str) -> dict[tuple[int, int], list[tuple[Any, int]]]:
    """(line, column) -> the changes that cosmic-ray can make there, as operator and number of its occurrence."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    nodes = list(ast_nodes(get_ast(source)))
    idle = _idle(source)
    places: dict[tuple[int, int], list[tuple[Any, int]]] = {}
    for name in operator_names():
        if get_operator(name).arguments():
            continue
        operator = get_operator(name)()
        spots = [start for node in nodes for start, _ in operator.mutation_positions(node)]
        for occurrence, start in enumerate(spots):
            if not any(first <= start < last for first, last in idle):
                places.setdefault(start, []).append((operator, occurrence))
    return places


def _idle(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where a change does nothing: annotations, and what is there for the type checker only."""
    nodes = list(ast.walk(ast.parse(source)))
    found: list[Any] = [n.annotation for n in nodes if isinstance(n, ast.arg | ast.AnnAssign) and n.annotation]
    found += [n.returns for n in nodes if isinstance(n, ast.FunctionDef) and n.returns]
    found += [n for n in nodes if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    return [((n.lineno, n.col_offset), (n.end_lineno, n.end_col_offset)) for n in found]


def mutants_of(path: Path, seed: int, sample: int) -> list[Mutant]:
    """One mutant for each of `sample` places, in seeded order: a place with twelve possible changes (an operator)
    counts no more than one with a single one (`not`)."""
    from cosmic_ray.mutating import mutate_code

    source = path.read_text(encoding="utf-8")
    places, chosen = places_of(source), random.Random(f"{seed} {path.relative_to(ROOT)}")
    order = sorted(places)
    chosen.shuffle(order)
    made: list[Mutant] = []
    for start in order:
        if len(made) == sample:
            break
        changed = mutate_code(source, *chosen.choice(places[start]))
        if changed is not None and _compiles(changed):
            made.append(Mutant(str(path.relative_to(ROOT)), *start, _difference(source, changed), changed))
    return made


def _compiles(source: str) -> bool:
    try:
        compile(source, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def _difference(before: str, after: str) -> str:
    pairs = zip(before.splitlines(), after.splitlines(), strict=False)
    old, new = next(((a, b) for a, b in pairs if a != b), ("", ""))
    return f"{' '.join(old.split())} -> {' '.join(new.split())}"


def statement_lines(source: str, line: int) -> range | None:
    """The lines of the statement at `line`, without its body; None for what runs on import."""
    nodes = list(ast.walk(ast.parse(source)))
    bodies = [n for n in nodes if isinstance(n, ast.FunctionDef) and n.body[0].lineno <= line <= (n.end_lineno or 0)]
    if not bodies:
        return None
    around = [n for n in nodes if isinstance(n, ast.stmt) and n.lineno <= line <= (n.end_lineno or 0)]
    inner = min(around, key=lambda n: (n.end_lineno or 0) - n.lineno)
    body = getattr(inner, "body", None)
    end = body[0].lineno if body else (inner.end_lineno or 0) + 1
    return range(inner.lineno, max(end, line + 1))


# ---------------------------------------------------------------- one mutant, in a process of its own
class Changed(importlib.machinery.SourceFileLoader):
    """Finds one module, and loads it from the mutant's text instead of its file."""

    def __init__(self, mutant: Mutant) -> None:
        module = mutant.file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        super().__init__(module, str(ROOT / mutant.file))
        self.text = mutant.source

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != self.name:
            return None
        package = [str(Path(self.path).parent)] if self.path.endswith("__init__.py") else None
        return importlib.util.spec_from_file_location(
            fullname, self.path, loader=self, submodule_search_locations=package
        )

    def get_code(self, fullname: str) -> Any:
        return compile(self.text, self.path, "exec", dont_inherit=True)


class Watch:
    """What came of a run of pytest: the first test that failed; ends it when it has taken its time."""

    failed = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and not self.failed:
            self.failed = f"{report.nodeid} (on import)"

    def pytest_runtest_logfinish(self) -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + HANG_S, resource.RLIM_INFINITY))

    def pytest_runtest_protocol(self, item: Any) -> None:
        if time.process_time() > CPU_S:
            item.session.shouldstop = "enough"


def attempt(mutant: Mutant, tests: list[str]) -> tuple[str, str]:
    """-> killed, survived or timeout, and by which test. pytest and what is large are imported here already."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        _in_child(mutant, tests, writing)
    os.close(writing)
    end, status = time.monotonic() + WALL_S, None
    while status is None and time.monotonic() < end:
        done, code = os.waitpid(child, os.WNOHANG)
        status = code if done else None
        time.sleep(0.05)
    if status is None:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    if not said:  # stopped by a limit, or the interpreter itself died
        hung = status is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU)
        return ("timeout" if hung else "killed"), "the process"
    outcome, _, by = said.partition(" ")
    return outcome, by


def _in_child(mutant: Mutant, tests: list[str], writing: int) -> None:
    try:
        os.setpgid(0, 0)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S + HANG_S, resource.RLIM_INFINITY))
        sys.meta_path.insert(0, Changed(mutant))
        os.chdir(ROOT)
        import pytest

        watch = Watch()
        code = pytest.main([*TESTS, *tests], plugins=[watch])
        if watch.failed or code not in (pytest.ExitCode.OK, pytest.ExitCode.INTERRUPTED):
            said = f"killed {watch.failed or code!r}"
        else:
            said = "survived "
    except BaseException as error:
        said = f"killed {error!r}"
    os.write(writing, said.encode())
    os._exit(0)


# ---------------------------------------------------------------- all of them
def files(names: list[str]) -> list[Path]:
    given = [ROOT / name for name in names or WHERE]
    found = [path for place in given for path in ([place] if place.is_file() else sorted(place.rglob("*.py")))]
    return [path for path in found if path.read_text(encoding="utf-8").strip()]


def results() -> dict[str, dict[str, Any]]:
    """Key of a mutant -> what came of it."""
    path = WORK / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return {row["key"]: row for row in rows}


def run(names: list[str], sample: int, seed: int, again: bool) -> None:
    """Try a sample of each file's mutants; `again`: those that survived, with the tests as they are now."""
    _preload()
    for path in files(names):
        known, reach = results(), reach_of(path)
        mutants = mutants_of(path, seed, sample)
        if again:
            mutants = [m for m in mutants if known.get(m.key, {}).get("outcome") == "survived"]
        else:
            mutants = [m for m in mutants if m.key not in known]
        source = path.read_text(encoding="utf-8")
        for mutant in mutants:
            tests, began = reach.tests(statement_lines(source, mutant.line)), time.monotonic()
            outcome, by = attempt(mutant, tests) if tests else ("survived", "no test reaches it")
            row = {k: v for k, v in asdict(mutant).items() if k != "source"}
            row |= {"key": mutant.key, "outcome": outcome, "by": by, "seconds": round(time.monotonic() - began, 1)}
            with (WORK / "results.jsonl").open("a", encoding="utf-8") as out:
                out.write(json.dumps(row) + "\n")
            print(f"{outcome:8} {row['seconds']:6} s {mutant.file}:{mutant.line} {mutant.change} {by}", flush=True)


def check(names: list[str]) -> None:
    """The tests pass where nothing is changed, run as for a mutant."""
    _preload()
    for path in files(names):
        source = path.read_text(encoding="utf-8")
        same = Mutant(str(path.relative_to(ROOT)), 0, 0, "", source)
        print(path.relative_to(ROOT), *attempt(same, reach_of(path).tests(None)), flush=True)


def _preload() -> None:
    """What every test process would import again; not mlx, whose threads do not survive a fork."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import hypothesis
    import numpy
    import pytest
    import torch
    import transformers
    from transformers.models.llama import modeling_llama

    assert all((hypothesis, numpy, pytest, torch, transformers, modeling_llama))
    assert not any(name.partition(".")[0] in ("lmm", "mlx") for name in sys.modules)


# ---------------------------------------------------------------- the page
def rows_now(sample: int, seed: int) -> Iterator[tuple[str, int, list[dict[str, Any]]]]:
    """File, how many places can be changed, and what came of those that were."""
    known = results()
    for path in files([]):
        found = [known[m.key] for m in mutants_of(path, seed, sample) if m.key in known]
        yield str(path.relative_to(ROOT)), len(places_of(path.read_text(encoding="utf-8"))), found


def report(sample: int, seed: int) -> None:
    reasons = json.loads(EQUIVALENT.read_text(encoding="utf-8")) if EQUIVALENT.is_file() else {}
    table, survivors, same = [], [], []
    total: Counter[str] = Counter()
    for name, places, found in rows_now(sample, seed):
        count: Counter[str] = Counter()
        for row in found:
            reason = reasons.get(f"{row['file']}: {row['change']}")
            outcome = "equivalent" if reason and row["outcome"] == "survived" else row["outcome"]
            count[outcome] += 1
            text = f"- `{row['file']}:{row['line']}` `{row['change']}`"
            if outcome == "equivalent":
                same.append(f"{text}: {reason}")
            elif outcome == "survived":
                survivors.append(text)
        total += count
        numbers = (places, len(found), count["killed"], count["timeout"], count["survived"], count["equivalent"])
        table.append(f"| `{name}` | {' | '.join(map(str, numbers))} |")
    noticed = total["killed"] + total["timeout"]
    tried = noticed + total["survived"]
    share = f"{noticed / max(tried, 1):.4f}"  # in two places, .8497 would look like enough
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    lines = [
        "# Mutants: would the tests notice?",
        "",
        "`make mutants` changes one place of the code at a time (cosmic-ray's operators: an operator, a comparison, a",
        "number by one, `and`, `not`, `break`, an exception) and runs the tests of `make unit` that reach the line, up",
        f"to {CPU_S} CPU seconds of them. At most {sample} places of each file, drawn with seed {seed}, one change in",
        "each. Hanging counts as noticed. Tests that start a program of their own do not see the change, so the figure",
        "is rather too low than too high.",
        "",
        f"At commit {commit.strip()}: **{noticed} of {tried} noticed, {share}** ({WANTED} wanted).",
        f"{total['equivalent']} more change nothing that can be observed. Counts and lines below are of that commit.",
        "",
        "| file | places | tried | killed | timeouts | survived | equivalent |",
        "|---|---|---|---|---|---|---|",
        *table,
        "",
        "## Survivors",
        "",
        *(survivors or ["None."]),
        "",
        "## Equivalent",
        "",
        *(same or ["None."]),
    ]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{noticed} of {tried} noticed; {PAGE.relative_to(ROOT)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["cover", "check", "run", "report"])
    parser.add_argument("files", nargs="*", help=f"files or folders, with cover of tests (default: {', '.join(WHERE)})")
    parser.add_argument("--sample", type=int, default=20, help="mutants of each file (default: 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="only those that survived, with the tests of today")
    given = parser.parse_intermixed_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests send it; in the background a shell ignores it
    if given.what == "cover":
        cover(given.files)
    elif given.what == "check":
        check(given.files)
    elif given.what == "run":
        run(given.files, given.sample, given.seed, given.again)
    else:
        report(given.sample, given.seed)


if __name__ == "__main__":
    main()
