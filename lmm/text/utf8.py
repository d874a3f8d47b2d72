"""Text that came in as bytes: those that are none are said, and not put right in silence."""

from __future__ import annotations

from typing import Any

from lmm.errors import UsageError


def keep_bytes(stream: Any) -> None:
    """From now on it is read whatever its bytes are, and `whole` finds those that are no text."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="surrogateescape")


def whole(text: str, what: str) -> str:
    """The same text. Raises UsageError where some of it was no text; `what` says where it comes from."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        line, code = text.count("\n", 0, error.start) + 1, ord(text[error.start])
        found = f"byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"U+{code:04X}"
        raise UsageError(f"{what} is not UTF-8, in line {line}: {found}; nothing was done with it") from None
    return text
