"""Numbers of things, in words."""


def counted(count: int, what: str) -> str:
    """(1, "lesson") -> "1 lesson", (2, "lesson") -> "2 lessons"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"
