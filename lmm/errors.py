"""The errors a user can meet. Each says what was found, what was expected, and what to do next.

Library code raises these; only the command line turns them into exit codes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LmmError(Exception):
    """Something the user can act on. `exit_code` is what the command line exits with.

    `detail` is for whoever runs the program alone: it may name hosts, users and folders. `plain` is the rest.
    """

    exit_code = 1
    detail = ""

    @property
    def plain(self) -> str:
        return str(self)


class UsageError(LmmError):
    """The request itself is wrong: an unknown name, a value out of range, two options that exclude each other."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that is in no table, with the nearest one that is."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        super().__init__(f"unknown {kind} {name!r}: {hint}known: {', '.join(known)}")


class ModelError(LmmError):
    """A model that cannot be found, read or understood."""


class BackendError(LmmError):
    """A backend that is not installed or does not work here."""


class StateError(LmmError):
    """A memory file that cannot be read, trusted or used with this model. Lists every mismatch."""


class LearningError(LmmError):
    """A lesson that could not be learned; the memory is as it was before."""


class NotKeptError(LearningError):
    """Something that could not be written, or read again, where it is to be kept: a full disk, a folder of others."""


class TooLongError(LmmError):
    """More text than the model can read at once. Nothing was heard."""


class Cancelled(LmmError):
    """The user stopped it (Ctrl-C). Nothing half-done is kept."""

    exit_code = 130


class StoreError(LmmError):
    """A store of texts that cannot be opened, read or written."""

    def __init__(self, plain: str, detail: str = "") -> None:
        super().__init__(f"{plain}: {detail}" if detail else plain)
        self._plain, self.detail = plain, detail

    @property
    def plain(self) -> str:
        return self._plain


class StillThereError(StoreError):
    """What was forgotten is known no longer, and bytes of it are left for now, in `places`: those go later."""

    def __init__(self, plain: str, detail: str = "", places: Iterable[str] = ()) -> None:
        super().__init__(plain, detail)
        self.places = tuple(places)
