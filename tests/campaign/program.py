"""The `lmm` command in a child of this process, which has imported all it needs: a run costs milliseconds, not seconds.

The model is scripted (tests/scripted.py): what the campaign measures is files, not replies.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import scripted
import terminals

from lmm.files import journal

Row = tuple[str, str, str]  # what was measured, what is wanted, what was found
STOPS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
STORE = "data/memories/smollm2-135m-instruct/jotter.safetensors"
OLD = {f"Old question {i}?" for i in range(3)}  # what `folder_with(3)` knows


@dataclass
class Ran:
    code: int  # minus the signal that ended it
    out: str
    err: str

    @property
    def traceback(self) -> bool:
        return "Traceback (most recent" in self.err or "internal error" in self.out + self.err


class Started:
    """A command that runs in a folder of its own, which has its data, `artifacts` and log."""

    def __init__(self, folder: Path, args: list[str], stdin: str = "", inside: Callable[[], object] | None = None):
        """`inside` is called in the child before the command."""
        self.aside = Path(tempfile.mkdtemp(prefix="lmm-campaign-"))
        for name, text in (("in", stdin), ("out", ""), ("err", "")):  # here: the child may be killed at any moment
            (self.aside / name).write_text(text)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # a child that is stopped is not to clear up here
        self.pid = os.fork()
        if not self.pid:
            code = 70
            with contextlib.suppress(BaseException):
                code = _child(folder, args, self.aside, inside)
            os._exit(code)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def wait(self) -> Ran:
        _, status = os.waitpid(self.pid, 0)
        out, err = ((self.aside / name).read_text(errors="replace") for name in ("out", "err"))
        shutil.rmtree(self.aside)
        return Ran(os.waitstatus_to_exitcode(status), out, err)


def run(folder: Path, args: list[str], stdin: str = "", inside: Callable[[], object] | None = None) -> Ran:
    return Started(folder, args, stdin, inside).wait()


def _child(folder: Path, args: list[str], aside: Path, inside: Callable[[], object] | None) -> int:
    import lmm.cli.entry

    for number, name in enumerate(("in", "out", "err")):
        file = os.open(aside / name, os.O_RDWR | os.O_APPEND)
        os.dup2(file, number)
    sys.stdin, sys.stdout = os.fdopen(0, "r"), os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace")
    os.chdir(folder)
    os.environ.update(_environment(folder))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["lmm", *args]
    if inside is not None:
        inside()
    reopened = lmm.cli.entry._reopened

    def begun() -> str:
        """Signals come through from the first thing that `main` does; before that, in life, Python itself starts."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        return reopened()

    lmm.cli.entry._reopened = begun
    code: object = 0
    try:
        lmm.cli.entry.main()
    except SystemExit as left:
        code = left.code
    except BaseException:
        traceback.print_exc()
        code = 1
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    return code if isinstance(code, int) else int(bool(code))


def _environment(folder: Path) -> dict[str, str]:
    own = ("LMM_DATA_DIR", "LMM_CONFIG")
    return {k: v for k, v in terminals.environment(folder).items() if k in own} | {"LMM_MEMORY": "jotter"}


def warm() -> None:
    """Do here once what each command begins with, so that a child need not: imports, the parsers of all commands,
    and the model that reads what a user says."""
    import typer.main

    from lmm.feedback import model

    scripted.install()
    typer.main.get_command = functools.cache(typer.main.get_command)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for args, stdin in (
            (["teach", "Who?", "Maria"], ""),
            (["chat"], "My cat is called Tom.\n/why\n/forget Tom\n/save x.safetensors\n/teach a? => b\n"),
            (["ask", "Who?"], ""),
            (["memory", "merge", STORE, "x.safetensors", "-o", "y.safetensors"], ""),
            (["memory", "check", STORE], ""),
        ):
            seen = folder / "seen"

            def note(seen: Path = seen) -> None:
                leave = os._exit

                def left(code: int) -> None:
                    seen.write_text("\n".join(sys.modules))
                    leave(code)

                os._exit = left  # type: ignore[assignment]

            run(folder, args, stdin, note)
            for module in seen.read_text().split("\n") if seen.exists() else ():
                if module.partition(".")[0] in (
                    "lmm",
                    "rich",
                    "prompt_toolkit",
                    "filelock",
                    "safetensors",
                    "markdown_it",
                    "typer",
                    "pydantic",
                    "numpy",
                    "platformdirs",
                    "tokenizers",
                ):
                    with contextlib.suppress(Exception):
                        importlib.import_module(module)
    typer.main.get_command(importlib.import_module("lmm.cli.app").app)
    reader = model.TurnReader(model.WEIGHTS["minilm"])  # the smaller one: all that is here is copied into each child
    model.shared_reader = lambda: reader  # type: ignore[assignment]


def said_learned(lines: str) -> set[str]:
    """What a program has said to have learned: the question, or "-> " and the value where it says no question."""
    said = [line.partition("learned: ")[2] for line in lines.splitlines() if "learned: " in line and "not " not in line]
    return {x.partition(" => ")[0] if " => " in x else f"-> {x.rpartition(' -> ')[2].rpartition(',')[0]}" for x in said}


def known(*files: Path) -> set[str]:
    """The questions of files, which must be readable where they are there. Raises StateError."""
    return {lesson.prompt for file in files if file.exists() for lesson in journal.load(file)[1].lessons}


def missing(said: set[str], *files: Path) -> set[str]:
    """Of what was said to be learned, what no file has. Raises StateError."""
    lessons = [lesson for file in files if file.exists() for lesson in journal.load(file)[1].lessons]
    texts = {lesson.prompt for lesson in lessons}, [lesson.answer for lesson in lessons]
    return {x for x in said if x not in texts[0] and not (x[:3] == "-> " and any(x[3:] in a for a in texts[1]))}


def everything(folder: Path) -> list[Path]:
    """The memory files under a folder."""
    return sorted(folder.rglob("*.safetensors"))


@contextlib.contextmanager
def folder_with(lessons: int = 0) -> Iterator[Path]:
    """A user's folder with a standing memory in it, its copy `copy.safetensors` and a chat."""
    with tempfile.TemporaryDirectory(prefix="lmm-campaign-") as name:
        folder = Path(name)
        if lessons:
            run(folder, ["teach"], "".join(f"Old question {i}? => old answer {i}\n" for i in range(lessons)))
            run(folder, ["chat"], "hello\n/save copy.safetensors\n")
            run(folder, ["teach", "Newest question?", "newest answer"])
        yield folder


def copied(folder: Path, number: int) -> Path:
    """A fresh copy to break something in."""
    target = folder.parent / f"{folder.name}.{number}"
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(folder, target))


#: (name, arguments, stdin): each begins with a folder of `folder_with(3)`
COMMANDS: list[tuple[str, list[str], str]] = [
    ("teach", ["teach", "New question 1?", "new answer"], ""),
    ("teach from stdin", ["teach"], "".join(f"New question {i}? => new answer {i}\n" for i in range(4))),
    ("teach --mm-path", ["teach", "New question 1?", "new answer", "--mm-path", "copy.safetensors"], ""),
    ("chat", ["chat"], "My sister's name is Vera.\nhello\n/teach New question 2? => yes\n/undo\n/redo\n"),
    ("chat /forget", ["chat"], "/forget Old question 1?\n/teach New question 3? => yes\n"),
    ("chat /save", ["chat"], "/teach New question 4? => yes\n/save other.safetensors\n/load copy.safetensors\n"),
    ("ask", ["ask", "Old question 2?"], ""),
    ("correct", ["correct", "something else"], ""),
    ("memory undo", ["memory", "undo"], ""),
    ("memory forget", ["memory", "forget", "copy.safetensors", "Old question 1?", "--yes"], ""),
    ("memory merge", ["memory", "merge", STORE, "copy.safetensors", "-o", "both.safetensors"], ""),
    ("log prune", ["log", "prune", "--yes"], ""),
]


def stopped(chance: random.Random, child: int, seconds: float, how: int) -> None:
    """Send a signal at a random moment of the run; it may have ended."""
    time.sleep(chance.random() * seconds)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, how)


def apart(work: Callable[[], object]) -> int:
    """Do it in a child -> its number."""
    child = os.fork()
    if not child:
        code = 70
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    return child
