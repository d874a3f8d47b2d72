"""Lines broken at words, for a terminal that would break them anywhere."""

import textwrap


def wrapped(text: str, width: int) -> str:
    """A word that is longer than a line, such as a path, stays whole: so it can be copied."""
    breaker = textwrap.TextWrapper(max(width, 1), break_long_words=False, break_on_hyphens=False)
    return "\n".join("\n".join(breaker.wrap(line)) for line in text.split("\n"))
