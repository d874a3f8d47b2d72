"""News, and what they make of the notes in whose place they come: what still holds of those, and what is over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lmm.memory.keyed.cross import REPLACES, shared_cross
from lmm.memory.notes.gate import POSSIBLE, logit
from lmm.text.fold import contains, fold
from lmm.text.sentences import clauses, without

if TYPE_CHECKING:
    from lmm.lesson import Lesson
    from lmm.memory.notes.gate import Notebook

FORMERLY = 3  # statements that are no longer true, by which one lesson is found
OVER = 6.0  # what it takes from the logit of a clause to say only what is over,
SAID = 2.0  # and, where nobody knows what that is, to say only what was said before, too
HOLDS = 0.5  # probability of being out of date up to which a sentence still holds


def in_place_of(lesson: Lesson, old: Sequence[Lesson]) -> Lesson:
    """It is found by the old statements, too, and what still holds of them is not lost."""
    old = [x for x in old if x.statement and fold(x.says) != fold(lesson.says)]
    formerly = tuple(dict.fromkeys(text for x in old for text in (*x.formerly, x.says)))[-FORMERLY:]
    still = dict.fromkeys(text for x in old for text in _still_true(x, lesson.says))
    over = dict.fromkeys(value for x in old for value in (*x.over, *x.values) if value not in lesson.values)
    return replace(lesson, formerly=formerly, still=tuple(still), over=tuple(over))


def _still_true(old: Lesson, news: str) -> list[str]:
    """What holds of an old lesson beside the new statement, clause by clause; each is read with those before it that
    hold, since it may say less of what it is about than they do."""
    said, parts = (clauses(text, old.subject) for text in (old.says, old.echo))
    second = shared_cross(REPLACES)
    if len(said) != len(parts):
        said = parts
    both = [*((text, text) for text in old.still), *zip(said, parts, strict=True)]
    if second is None or len(both) < 2:
        return []
    outdated, before = list[float](), ""
    for text, _ in both:
        outdated.append(second.look(news, f"{before}{text}").replaces)
        before += f"{text}, " if outdated[-1] < HOLDS else ""
    kept = (part for (_, part), p in zip(both, outdated, strict=True) if p < min(HOLDS, max(outdated)))
    return [as_sentence(part) for part in kept]


def told(text: str, lesson: Lesson, echo: str, notebook: Notebook, fits: Callable[[str], bool]) -> str:
    """What of news a reply begins with: what still holds, where that helps most, else the clause that tells what is
    new and as much after it as fits, without what is over ("Bus 47 was axed, so you take bus 112")."""
    news = clauses(echo, lesson.subject)
    helping = helping_by_part(text, [*lesson.still, *news], notebook)
    held, helping = helping[: len(lesson.still)], helping[len(lesson.still) :]
    if held and max(held) >= max(*helping, logit(POSSIBLE)):
        return as_sentence(lesson.still[held.index(max(held))])
    new = [value for value in lesson.values if not _said_in(value, lesson.formerly, notebook)]
    asked = notebook.telling(text)
    holds = notebook.telling(*new) | asked
    before = notebook.telling(*lesson.formerly) - holds
    over = notebook.telling(*lesson.over) - holds if lesson.over else before
    cost = OVER if lesson.over else SAID

    def rank(i: int) -> tuple[bool, float]:
        telling = notebook.telling(news[i]) - asked
        return says_any(news[i], new), helping[i] - cost * len(telling & over) / max(1, len(telling))

    best = max(range(len(news)), key=rank)
    said = as_sentence(without(news[best], over | before) if says_any(news[best], new) else news[best])
    for part in news[best + 1 :]:
        longer = f"{said} {as_sentence(part)}"
        if notebook.telling(part) & over or not fits(longer):
            break
        said = longer
    return said


def _said_in(value: str, formerly: Sequence[str], notebook: Notebook) -> bool:
    """Is it in the old statements, too? Of the words that tell something, all."""
    telling = notebook.telling(value)
    return any(contains(text, value) for text in formerly) or (bool(telling) and telling <= notebook.telling(*formerly))


def says_any(part: str, values: Iterable[str]) -> bool:
    return any(contains(part, value) for value in values)


def helping_by_part(text: str, parts: Sequence[str], notebook: Notebook) -> list[float]:
    """How surely each part of a note helps, as logits of the first look."""
    _, asked = notebook.gate.read(text)
    return [logit(notebook.gate.same(asked, notebook.lower(part))) for part in parts]


def as_sentence(part: str) -> str:
    return f"{part[0].upper()}{part[1:].rstrip('. 。')}{'' if part[-1] in '?!。' else '.'}"
