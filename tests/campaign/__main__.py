"""`make campaign`: kills, several processes at once, and what is left after them, as one table.

The program is `lmm` itself, with a scripted model (tests/scripted.py): what is measured is files, not replies.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import terminals

from lmm.errors import StateError
from lmm.files import journal

Row = tuple[str, str, str]


def program(folder: Path, *args: str, **env: str) -> subprocess.Popen:
    command = [sys.executable, terminals.SCRIPTED, *args, "--memory", "jotter", "--no-log"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, env=terminals.environment(folder) | env, text=True, **pipes)


def standing(folder: Path) -> Path:
    return folder / "data/memories/smollm2-135m-instruct/jotter.safetensors"


def known(file: Path) -> set[str]:
    """The questions of a file that must be readable. Raises StateError."""
    _, header = journal.load(file)
    return {lesson.prompt for lesson in header.lessons}


def said_learned(lines: str) -> set[str]:
    """The questions that a program has said to have learned."""
    return {line.partition("learned: ")[2].partition(" => ")[0] for line in lines.splitlines() if "learned: " in line}


def kills(count: int, seed: int = 0) -> Row:
    """`teach` of many lessons, killed at a random moment; what it said to have learned is looked for in the file."""
    chance, lost, unreadable, learned = random.Random(seed), 0, 0, 0
    with tempfile.TemporaryDirectory() as name:
        for number in range(count):
            folder = Path(name) / str(number)
            folder.mkdir()
            running = program(folder, "teach", LMM_TEST_STEP="0.002")
            assert running.stdin is not None and running.stderr is not None
            running.stdin.write("".join(f"Question {i}? => answer {i}\n" for i in range(200)))
            running.stdin.close()
            first = running.stderr.readline()  # it has begun
            time.sleep(chance.random() * 1.5)
            running.kill()
            said = said_learned(first + running.stderr.read())
            running.wait()
            learned += len(said)
            try:
                lost += len(said - known(standing(folder))) if said else 0
            except StateError:
                unreadable += 1
    return (
        f'kill -9 of `teach` at {count} random moments: unreadable files / of {learned} lessons lost after "learned:"',
        "0 / 0",
        f"{unreadable} / {lost}",
    )


def kills_after_learned(count: int) -> Row:
    """A chat at a terminal, killed as soon as "learned:" is on the screen."""
    found = 0
    for number in range(count):
        with tempfile.TemporaryDirectory() as name:
            chat = terminals.Terminal(Path(name))
            chat.see("jotter: 0")
            chat.line(f"/teach Question {number}? => answer")
            chat.see("learned:")
            chat.child.kill(9)
            chat.child.close(force=True)
            found += f"Question {number}?" in known(standing(Path(name)))
    return f'kill -9 of a chat right after "learned:", {count} times: known in the next start', f"{count}", f"{found}"


def writers(processes: int, lessons: int) -> Row:
    """Several at once teach into one standing memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        running = [program(folder, "teach") for _ in range(processes)]
        for number, one in enumerate(running):
            assert one.stdin is not None
            one.stdin.write("".join(f"Question {number} {i}? => answer\n" for i in range(lessons)))
            one.stdin.close()
        for one in running:
            assert one.stderr is not None
            one.stderr.read()
            one.wait()
        found = len(known(standing(folder)))
    total = processes * lessons
    return f"{processes} processes teach {lessons} lessons each at once: known", f"{total}", f"{found}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make campaign", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full counts")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    n: Callable[[int], int] = lambda count: max(2, round(count * given.scale))  # noqa: E731
    rows: list[Row] = []
    for measure in (
        lambda: kills(n(200)),
        lambda: kills_after_learned(n(50)),
        *(lambda p=p: writers(p, n(250)) for p in (2, 4, 8)),
    ):
        start = time.perf_counter()
        rows.append(measure())
        print(f"{rows[-1][0]}: {rows[-1][2]} ({time.perf_counter() - start:.0f} s)", file=sys.stderr, flush=True)
    if given.json:
        print(json.dumps([dict(zip(("figure", "wanted", "found"), row, strict=True)) for row in rows], indent=2))
    else:
        print("| figure | wanted | found |\n|---|---|---|")
        print("\n".join(f"| {' | '.join(row)} |" for row in rows))
    sys.exit(any(wanted != found for _, wanted, found in rows))


if __name__ == "__main__":
    main()
