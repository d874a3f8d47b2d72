"""The way in and out: from the first moment on keys are kept for the prompt and not echoed, and Ctrl-C is no traceback.

A stream that is closed or full is one line on what is left, and exit code 1.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from typing import TextIO

FULL = (errno.EPIPE, errno.ENOSPC, errno.EFBIG, errno.EIO, errno.EBADF)  # what is wrong with a stream


def main() -> None:
    """Run the command line."""
    lost = ""
    code: object = 0
    try:
        try:
            sys.unraisablehook = _not_raised
            os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the gate's products are too small to be shared
            lost = _reopened()
            code = _run()
        except OSError as error:
            lost = lost or _about(error)
        lost = _flushed() or lost
    except KeyboardInterrupt:
        code = 130
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is left that could be lost: no traceback, either
    _flushed()  # what an interrupt left
    if lost:
        with contextlib.suppress(OSError, ValueError):
            print(f"lmm: {lost}", file=sys.stderr, flush=True)
        sys.stdout = _nowhere("w")  # or Python would try once more, and complain
    sys.exit(code or (1 if lost else 0))  # type: ignore[arg-type]


def _run() -> object:
    """The exit code."""
    from lmm.chat.interrupts import typing_mode

    try:
        with typing_mode(shown=False) if sys.argv[1:2] == ["chat"] else contextlib.nullcontext():
            from lmm.cli.app import main as run

            run()
    except SystemExit as left:
        return left.code
    return 0


def _about(error: OSError) -> str:
    from lmm.text.sanitize import clean_line

    what = error.strerror or str(error)
    if error.filename:
        return f"{clean_line(error.filename)}: {what}"
    return f"what lmm had to say could not be written: {what}" if error.errno in FULL else what


def _flushed() -> str:
    """What is wrong with standard output, if something is."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        return f"standard output cannot be written: {error}"
    return ""


def _not_raised(found: sys.UnraisableHookArgs) -> None:
    """Python drops a Ctrl-C that comes while it cleans an object up, with a traceback; here it comes again."""
    if found.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(found)
        return
    import threading

    again = threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT))  # not in here, where it would be dropped, too
    again.daemon = True
    again.start()


def _reopened() -> str:
    """Something in the place of streams that were closed from the start -> what is missing, if it matters."""
    closed = sys.stdout is None
    sys.stdin = sys.stdin or _nowhere("r")
    sys.stdout = sys.stdout or _nowhere("w")
    sys.stderr = sys.stderr or _nowhere("w")
    return "standard output is closed" if closed else ""


def _nowhere(mode: str) -> TextIO:
    return open(os.devnull, mode)  # type: ignore[return-value]
