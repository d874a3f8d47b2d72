"""What a turn was read as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lmm.lesson import Lesson

Kind = Literal["nothing", "statement", "correction", "update", "retraction"]


@dataclass(frozen=True)
class Reading:
    """What a turn was read as. `lesson` is None if and only if `kind` is "nothing" or "retraction".

    A lesson always has the user's words (`statement`) and the same said by the assistant (`echo`); a question with an
    exact answer only where one could be formed well. `value` is what is new, `summary` fits a line ("capital of
    Australia -> Canberra"), `why` says what decided. `also` are further facts that the turn states. `doubtful` is a
    turn without a lesson, as a note: where it makes out of date what is known, it was a statement all the same.
    """

    kind: Kind
    lesson: Lesson | None = None
    value: str = ""
    summary: str = ""
    why: str = ""
    also: tuple[Reading, ...] = ()
    doubtful: Lesson | None = None


NOTHING = Reading("nothing")
UNSURE = "it teaches something, and it is not clear what"
SAID = "it denies the reply, with what the reply says"
