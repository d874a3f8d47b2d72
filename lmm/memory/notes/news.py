"""News, and what they make of the notes in whose place they come: what still holds of those, and what is over."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lmm.memory.keyed.cross import REPLACES, shared_cross
from lmm.memory.notes import lists
from lmm.memory.notes.gate import POSSIBLE, UNNAMED, beginnings, logit
from lmm.memory.notes.renewed import SIGNS, Renewed, Telling, renewed
from lmm.text.fold import contains, fold
from lmm.text.sentences import clauses, sentences, without

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter
    from lmm.lesson import Lesson
    from lmm.memory.keyed.cross import CrossEncoder
    from lmm.memory.notes.gate import Notebook

FORMERLY = 3  # statements that are no longer true, by which one lesson is found
OVER = 6.0  # what it takes from the logit of a clause to say only what is over,
SAID = 2.0  # and, where nobody knows what that is, to say only what was said before, too
FIRST_SAYS = 1.0  # what the first part of a note counts for in how much it helps with another behind it
HANGS = 4.0  # and to hang on the one before it: "because of Mr Stolz"
STAYS = 0.15  # probability of being out of date up to which news stay, whatever they came in place of
HOLDS = 0.5  # probability of being out of date up to which a sentence still holds


def in_place_of(lesson: Lesson, old: Sequence[Lesson], telling: Telling, adapter: Adapter) -> Lesson:
    """It is found by the old statements, too, and what still holds of them is not lost; what does not holds with what
    is new in its place."""
    old = [x for x in old if x.statement and fold(x.says) != fold(lesson.says)]
    formerly = tuple(dict.fromkeys(text for x in old for text in (*x.formerly, x.says)))[-FORMERLY:]
    lesson = replace(lesson, formerly=formerly)
    if listed := [text for x in old if (text := lists.changed(x, lesson.says))]:
        return replace(lesson, echo=listed[-1], prompt="", answer="", still=(), over=())
    still = dict.fromkeys(text for x in old for text in _still_true(x, lesson.says))
    over = dict.fromkeys(value for x in old for value in (*x.over, *x.values) if value not in lesson.values)
    lesson = replace(lesson, still=tuple(still), over=tuple(over))
    for x in old:
        for now in renewed(x, lesson, telling, adapter):
            lesson = _as_now(lesson, now)
    return lesson


def stays(old: Lesson, note: str, lesson: Lesson, telling: Telling) -> bool:
    """Is it news found by what they came in place of, which alone the lesson makes out of date? After "I'm a nurse in
    Bergen" and "I moved to Oslo", "I gave up nursing" leaves where I live. `note` is what the old lesson says."""
    second = shared_cross(REPLACES) if old.formerly else None
    if second is None:
        return False
    both = (beginnings(telling(text)) for text in (" ".join((note, *old.formerly)), lesson.says))
    least = STAYS if frozenset.intersection(*both) else UNNAMED
    return second.look(lesson.says, note).replaces < least


def _as_now(lesson: Lesson, now: Renewed) -> Lesson:
    """The lesson, which says that still holds what does hold with the new values."""
    kept = (text for text in lesson.still if not says_any(text, now.old) and not contains(now.said, text.rstrip(".。")))
    still = dict.fromkeys((as_sentence(now.said), *kept))
    still.pop(lesson.echo, None)  # it says so itself
    values = dict.fromkeys((*lesson.values, *now.new, *(x for x in lesson.over if contains(now.said, x))))
    over = tuple(x for x in lesson.over if x not in values)
    return replace(lesson, still=tuple(still), values=tuple(values), over=over)


def _still_true(old: Lesson, news: str) -> list[str]:
    """What holds of an old lesson beside the new statement, clause by clause; each is read with those before it that
    hold, since it may say less of what it is about than they do."""
    if ENDED.search(news) and (left := lists.without_gone(old.echo, news)):
        return [left]
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
    most = min(HOLDS, max(outdated) / 2)  # something of it is over; where nobody knows what, what may be, too
    kept, hangs_on_it = list[str](), False
    for i, ((_, part), p) in enumerate(zip(both, outdated, strict=True)):
        alone = i <= len(old.still) or SAYS_MORE.search(part)
        hangs_on_it = p >= most if alone else hangs_on_it  # "Thursdays at 8" does not outlive the club
        kept += [part] if p < most and not hangs_on_it else []
    return [as_sentence(part) for part in kept if _tells(part, old)]


#: of what is gone, with nothing in its place
ENDED = re.compile(
    r"\b(?:sold|gave|given|lost|died|dead|broke|binned|scrapped|donated|returned|stolen|threw|thrown|quit|stopped|cancelled|gone"
    r"|ran away|passed away|no longer|not?(?: \w+){0,4} any ?more|got rid|put down|dropped|gave up|finished|given up"
    r"|do(?:es)?n['’]t|escaped|moved out)\b",
    re.I,
)
#: a verb of English, or a sign of no blanks: without one, a clause is a part of the one before it
SAYS_MORE = re.compile(
    r"\b(?:is|are|am|was|were|has|have|had|can|could|will|would|do|does|did|must|should|may|i|you|he|she|it|we|they|who)\b"
    r"|['’](?:s|re|m|ve|ll|t)\b|\b(?!(?:mon|tues|wednes|thurs|fri|satur|sun)days)[a-z]{2,}(?:s|ed)\b|[\u3400-\u9fff]",
    re.I,
)


def _tells(part: str, old: Lesson) -> bool:
    """Not "in case you are wondering", beside what an old lesson told."""
    return not old.values or part in (*old.still, *sentences(old.echo)) or says_any(part, old.values)


def told(text: str, lesson: Lesson, echo: str, notebook: Notebook, fits: Callable[[str], bool]) -> str:
    """What of news a reply begins with: what still holds, where that helps most, else the clause that tells what is
    new and as much after it as fits, without what is over ("Bus 47 was axed, so you take bus 112")."""
    news = clauses(INSTEAD.sub(r"\1 \2 \3", echo), lesson.subject)
    parts, held = [*lesson.still, *news], len(lesson.still)
    helping = helping_by_part(text, parts, notebook)
    new = [value for value in lesson.values if not _said_in(value, lesson.formerly, notebook)]
    asked = notebook.telling(text)
    holds = notebook.telling(*new) | asked
    before = notebook.telling(*lesson.formerly) - holds
    said_over = notebook.telling(*lesson.over) - holds
    over, cost = (said_over, OVER) if said_over else (before, SAID)
    if held:
        most, other = int(np.argmax(helping[:held])), held + int(np.argmax(helping[held:]))
        # "You swapped the Galaxy for a Fairphone" names what is over, "Your phone is a Fairphone" says what is so
        rather = says_any(parts[most], new) and notebook.telling(parts[other]) & said_over
        if helping[most] >= max(logit(POSSIBLE), -np.inf if rather else helping[other]):
            return as_sentence(parts[most])

    def rank(i: int) -> tuple[bool, float]:
        telling = notebook.telling(parts[i]) - asked
        hanging = bool(HANGING.match(parts[i]))
        only = cost * len(telling & over) / max(1, len(telling)) + HANGS * hanging
        return says_any(parts[i], new) and not hanging, helping[i] - only

    best = max(range(len(parts)), key=rank)
    if best < held:
        return as_sentence(parts[best])
    said = as_sentence(without(parts[best], over | before) if not new or says_any(parts[best], new) else parts[best])
    for part in parts[best + 1 :]:
        more = without(part, over | before)
        longer = f"{said} {as_sentence(more)}" if more else said
        if NO_LONGER.match(part) or beginnings(notebook.telling(more)) & beginnings(over) or not fits(longer):
            break
        said = longer
    return said


#: "The bin day isn't Monday any more, it's Thursday", which says what is so of what
INSTEAD = re.compile(
    r"^((?!you\b)[^,;.!?]+?) (is|are)(?:n['’]t| not| no longer) [^,;.!?]+?(?: any ?more| any longer| now)?[,;] "
    r"(?:but )?(?:it|he|she|they)(?: is| are|['’]s|['’]re) (?:now )?(?=[^,;.!?]+[.!]?$)(.+)",
    re.I,
)
#: before a clause that only says why, or when, another one is so
HANGING = re.compile(
    r"(?:because|after|before|since|while|when|although|though|weil|wegen|nachdem|bevor|seit|parce que|après|avant"
    r"|depuis|porque|después|antes|desde|perché|dopo|prima)\b",
    re.I,
)


#: what a clause begins with that says only what is over
NO_LONGER = re.compile(
    r"(?:(?:no longer|not(?! only)|instead of|rather than|nicht|statt|pas|plus|au lieu d[eu]|ya no|no|en vez de|non)\b"
    r"|不)",
    re.I,
)


def _said_in(value: str, formerly: Sequence[str], notebook: Notebook) -> bool:
    """Is it in the old statements, too? Of the words that tell something, all."""
    telling = notebook.telling(value)
    return any(contains(text, value) for text in formerly) or (bool(telling) and telling <= notebook.telling(*formerly))


def says_any(part: str, values: Iterable[str]) -> bool:
    return any(contains(part, value) for value in values)


def helping_by_part(text: str, parts: Sequence[str], notebook: Notebook, in_context: bool = False) -> list[float]:
    """How surely each part of a note helps, as logits: the mean of both looks, since the second one knows what is asked
    for better, and of "She plays the cello" alone not whom it speaks of. `in_context`: the second one reads each behind
    the first, which says that, and must help more than it does; where no blanks part words it decides alone, since the
    first look knows English."""
    _, asked = notebook.gate.read(text)
    first = [logit(notebook.gate.same(asked, notebook.lower(part))) for part in parts]
    if (second := shared_cross()) is None:
        return first
    helping = [
        _helps_behind(second, text, parts[0], part) if in_context and i else logit(second.helps(text, part))
        for i, part in enumerate(parts)
    ]
    if in_context and SIGNS.search(parts[0]):
        return helping
    return [(by_second + by_first) / 2 for by_second, by_first in zip(helping, first, strict=True)]


def _helps_behind(second: CrossEncoder, text: str, first: str, part: str) -> float:
    """How surely a part helps that is read behind the first, beyond what that does, as a logit."""
    return logit(second.helps(text, f"{first} {part}")) - FIRST_SAYS


SEVERAL = 4  # facts about one thing that are looked at beside the one that helps


def asked_for(text: str, best: Lesson, owners: Iterable[Lesson], note_of: Callable[[Lesson], str]) -> Lesson:
    """Of what was told apart of one thing, what is asked for: the fact that helps best, or another that, read behind
    it, helps more. "My starter gets rye" does not say that it is the starter which is called Clementine."""
    second = shared_cross() if best.statement and len(best.subject) > len("we") else None
    if second is None:
        return best
    about, first, others = fold(best.subject), note_of(best), {x.id: x for x in owners if x.id != best.id}
    alike = [x for x in others.values() if x.statement and fold(x.subject) == about][-SEVERAL:]
    if not alike:
        return best
    most, i = max((_helps_behind(second, text, first, note_of(x)), i) for i, x in enumerate(alike))
    return alike[i] if most > logit(second.helps(text, first)) else best


def as_sentence(part: str) -> str:
    end = "" if part[-1] in "?!。？！" else "。" if SIGNS.match(part[-1]) else "."
    return f"{part[0].upper()}{part[1:].rstrip('. ')}{end}"
