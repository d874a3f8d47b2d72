"""Who may ask: keys in a file that nobody else can read, or one in the environment."""

from __future__ import annotations

import hmac
import ipaddress
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from lmm.errors import UsageError

VARIABLE = "LMM_API_KEY"
SHORTEST = 16  # characters
ANYBODY = ""  # a key that may name whose memory it wants


class Keys:
    """Keys, and whose memory each opens: its own, or any (ANYBODY)."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._keys = {key.encode(): user for key, user in keys.items()}

    def __bool__(self) -> bool:
        return bool(self._keys)

    def user_of(self, header: str | None) -> str | None:
        """Whose a request is by its Authorization header; None where it has no good key. All keys are compared, each
        in constant time: how long it takes says nothing."""
        scheme, _, given = (header or "").partition(" ")
        found = None
        for key, user in self._keys.items():
            if hmac.compare_digest(key, given.strip().encode("utf-8", "replace")) and scheme.lower() == "bearer":
                found = user
        return found


def load_keys(file: Path | None) -> Keys:
    """From a file with a key in each line, and after it the user whose memory alone it opens, if that is wanted; else
    from the environment. Raises UsageError for a file that others can read, and for keys that are short."""
    if file is None:
        key = os.environ.get(VARIABLE, "").strip()
        return Keys({_checked(key, VARIABLE): ANYBODY} if key else {})
    try:
        mode = file.stat().st_mode
        lines = [line.split(maxsplit=1) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the file of keys {file} cannot be read: {error}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise UsageError(f"others can read the keys in {file}; run: chmod 600 {file}")
    if not lines:
        raise UsageError(f"there is no key in {file}")
    keys = {_checked(key, str(file)): user[0].strip() if user else ANYBODY for key, *user in lines}
    if len(keys) < len(lines):
        raise UsageError(f"a key is there twice in {file}; it opens one user's memory")
    return Keys(keys)


def _checked(key: str, place: str) -> str:
    if len(key) < SHORTEST or not key.isascii():
        raise UsageError(f"a key in {place} is shorter than {SHORTEST} characters, or has some that are not ASCII")
    return key


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
