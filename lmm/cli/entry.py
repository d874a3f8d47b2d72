"""The way in and out: from the first moment on keys are kept for the prompt and not echoed, and Ctrl-C is no traceback.

A stream that is closed or full is one line on what is left, and exit code 1.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import TextIO


def main() -> None:
    """Run the command line."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the gate's products are too small to be shared
    lost = _reopened()
    code: object = 0
    try:
        if sys.argv[1:2] == ["chat"]:
            _silence()
        from lmm.cli.app import main as run

        run()
    except SystemExit as left:
        code = left.code
    except KeyboardInterrupt:
        code = 130
    except OSError as error:
        lost = lost or f"what lmm had to say could not be written: {error.strerror or error}"
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        lost = lost or f"standard output cannot be written: {error}"
    if lost:
        with contextlib.suppress(OSError, ValueError):
            print(f"lmm: {lost}", file=sys.stderr, flush=True)
        sys.stdout = _nowhere("w")  # or Python would try once more, and complain
    sys.exit(code or (1 if lost else 0))  # type: ignore[arg-type]


def _reopened() -> str:
    """Something in the place of streams that were closed from the start -> what is missing, if it matters."""
    closed = sys.stdout is None
    sys.stdin = sys.stdin or _nowhere("r")
    sys.stdout = sys.stdout or _nowhere("w")
    sys.stderr = sys.stderr or _nowhere("w")
    return "standard output is closed" if closed else ""


def _nowhere(mode: str) -> TextIO:
    return open(os.devnull, mode)  # type: ignore[return-value]


def _silence() -> None:
    """Until the process ends, what is typed before the prompt is up does not show: the prompt will show it."""
    import termios

    with contextlib.suppress(AttributeError, OSError, ValueError, termios.error):  # no terminal
        file = sys.stdin.fileno()
        before = termios.tcgetattr(file)
        silent = [*before[:3], before[3] & ~(termios.ECHO | termios.ICANON), *before[4:]]
        termios.tcsetattr(file, termios.TCSADRAIN, silent)
        atexit.register(_restore, file, before)


def _restore(file: int, before: list) -> None:
    import termios

    with contextlib.suppress(OSError, termios.error):  # the terminal may be gone
        termios.tcsetattr(file, termios.TCSADRAIN, before)
