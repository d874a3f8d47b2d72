"""Which lessons does a user take back with "Forget my sister's name." or "We don't have the boat any more."?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from lmm.feedback.words import word_set
from lmm.lesson import Lesson
from lmm.text.fold import words
from lmm.text.language import FREQUENT_WORDS

_ASKS = re.compile(
    r"\b(?:forget|unlearn|delete|remove|erase|drop|scrap|scratch|strike|ignore|disregard|vergiss|vergessen|lösch\w*"
    r"|streich\w*|entfern\w*|oublie\w*|efface\w*|supprim\w*|olvida\w*|borra\w*|elimin\w+|dimentica\w*|cancella\w*"
    r"|(?:that|it|this)(?: is|['’]s)?(?: not|n['’]t| no longer)[^,.!?]* (?:true|right|so)|stimmt (?:so )?nicht)\b"
    r"|忘|删",
    re.I,
)
#: in any news of an end
_LITTLE = word_set("up out off over away any more anymore longer take takes took get got go went give gave given broke "
                   "use used t s don doesn isn aren m re ve stop stopped end ended split please remove")  # fmt: skip
_WORD = re.compile(r"[^\W_]+")


def tells(text: str) -> bool:
    """Is it told that something has ended ("I sold the van"), and not asked for that it is forgotten?"""
    return not _ASKS.search(text)


def taken_back(text: str, known: Sequence[Lesson]) -> list[Lesson]:
    """The lessons that share most with a text, the latest first; none if they share no word that tells anything.

    A word tells the more, the fewer lessons have it (inverse document frequency: Spärck Jones 1972).
    """
    said = _words(text)
    shared = [said & _words(f"{x.statement} {x.prompt} {x.answer}") for x in known]
    lessons_with = Counter(word for found in shared for word in found)
    scores = [round(sum(1 / lessons_with[word] for word in found), 6) for found in shared]
    best = max(scores, default=0.0)
    return [x for x, score in zip(known, scores, strict=True) if best and score == best][::-1]


def _words(text: str) -> set[str]:
    found = {word for word in _WORD.findall(words(text)) if word not in FREQUENT_WORDS | _LITTLE}
    return found | {word.removesuffix("s") for word in found if len(word) > 3}  # "dogs", "Tom's" beside "dog"
