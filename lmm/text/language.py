"""Which language a text is in, by its script and its most frequent words."""

from __future__ import annotations

import re

FREQUENT = {
    "en": "the and is are was my i you it of to in on at we our your that this not has have for with he she his her "
    "me a am an us they their its but do does don't no so be as by now from can who what where when how name "
    "called",
    "de": "der die das und ist ich nicht wir mein meine meinen unser unsere ein eine auf mit den dem im in am hat habe "
    "es bin du jetzt heißt wohnt von zu sich auch noch nein",
    "fr": "le la les et est je j il elle on nous mon ma mes notre un une des du de pas dans en au aux à que qui c "
    "s ne plus ai suis non maintenant habite",
    "es": "el la los las y es yo mi mis nuestro nuestra un una de del no en que con se al por para está ahora vive "
    "soy tengo somos me le su ya vivo",
}
#: of languages that nothing is said back in
_MORE = (
    "il lo gli che è e a di non mio mia della dalla alla al nel nella per sono ho un una con da si come dove adesso",
    "o os a um uma é eu meu minha não em do da no na com para seu sua",
    "het een en ik niet mijn van dat op met voor zijn wij nu",
)
_WORDS = {language: frozenset(words.split()) for language, words in FREQUENT.items()}
FREQUENT_WORDS = frozenset[str]().union(*_WORDS.values())
_OTHERS = [words for name, words in _WORDS.items() if name != "en"] + [frozenset(words.split()) for words in _MORE]
_ENGLISH = _WORDS["en"].difference(*_OTHERS)
_SIGNS = re.compile(r"[\u0370-\u1fff\u3040-\ud7ff]")  # scripts other than Latin


def language(text: str) -> str:
    """Its language among those that can be echoed, by script and frequent words; English where nothing tells."""
    if re.search(r"[\u3400-\u9fff]", text):
        return "zh"
    found = _words(text)
    counts = {name: sum(word in words for word in found) for name, words in _WORDS.items()}
    return max(counts, key=lambda name: counts[name])


def is_english(text: str) -> bool:
    """Has it more words that only English has so often than ones of any other language? Where nothing tells, it is."""
    if _SIGNS.search(text):
        return False
    found = _words(text)
    own = sum(word in _ENGLISH for word in found)
    return all(own >= sum(word in words - _WORDS["en"] for word in found) for words in _OTHERS)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.lower())
