"""The way in: from the first moment on, keys are kept for the prompt and not echoed, and Ctrl-C is no traceback."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys


def main() -> None:
    """Run the command line."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the gate's products are too small to be shared
    try:
        if sys.argv[1:2] == ["chat"]:
            _silence()
        from lmm.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


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
