"""When are two texts the same, and does a text say a value? The one fold, and the one "contains, in whole words".

`fold` keeps all that is written, for "the very same question". `words` keeps what is said: "C++", "C#", ".NET", "-5",
"3.14" and "5 * 2" are not "C", "NET", "5", "14" and "5 2". Scripts without blanks, as Chinese has none, have no borders
that could be asked for: there each character is a word, so a value is found inside a sentence.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

CLOSING = " ?.!。"
_RAISED = re.compile("[²³¹⁰⁴-⁹]+")  # NFKC makes 10² and 102 the same
_ACCENTS = re.compile("[\u0300-\u036f]+")
_ARTICLES = re.compile(r"(?<!\S)(?:an?|the) (?=\S)")
_UNSPACED = ("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "BOPOMOFO", "HANGUL", "THAI", "LAO", "KHMER", "MYANMAR")

_MARK, _CHAR = r"[!-/:-@\[-`{-~]", r"[^\s!-/:-@\[-`{-~]"  # ASCII's marks; characters of words: other marks are gone
_OPEN = r"(?<![^\s(\"'\[{<$=:,*_`])"  # a sign or a leading dot comes after one of these, or first
_WORDS = re.compile(
    rf"(?<!\S)(?=\S*[^\s.,;:!?'\"()\[\]{{}}]){_MARK}+(?!\S)"  # marks between blanks: an operator, a face
    rf"|(?:{_OPEN}(?:-?\.|-(?=\d)))?"
    rf"{_CHAR}+(?:(?:_+|(?<=\d)[.,:/*^](?=\d)){_CHAR}+)*(?:\+\+|#+|\+(?!{_CHAR}))?"
    r"|(?<=\d)-(?=\d)|[$%&+#<=>@\\^|~]"
)


def fold(text: str) -> str:
    """What two spellings of the very same text share: case, blanks, forms of characters and closing marks aside."""
    one_line = " ".join(_plain(text).split())
    return one_line.rstrip(CLOSING) or one_line


@lru_cache(maxsize=8)
def words(text: str) -> str:
    """The words with one blank between them, without the marks of a sentence; all of it where it has no words."""
    return " ".join(_WORDS.findall(_plain(text).translate(_CLASSES))) or fold(text)


def terms(text: str) -> list[str]:
    """The words by which a text is looked for, without accents: who types "muller" finds "Müller"."""
    found = words(text)
    return (found if found.isascii() else _unaccented(found)).split()


def contains(text: str, value: str) -> bool:
    """Does the text say the value, in whole words? Articles don't count. Generous: "not X" contains X."""
    said, wanted = words(text), words(value)
    pairs = (said, wanted), (_ARTICLES.sub("", said), _ARTICLES.sub("", wanted))
    return bool(wanted) and any(f" {b} " in f" {a} " for a, b in pairs)


def _unaccented(text: str) -> str:
    """The marks go that Latin, Greek and Cyrillic letters have: those of other scripts make another letter."""
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", text)))


def _plain(text: str) -> str:
    """NFKC and no case, in one of its stable forms."""
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFD", _RAISED.sub(r"^\g<0>", text)).casefold()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", plain).casefold())


class _Classes(dict[int, str]):
    """For `translate`: blanks around what is a word by itself, and for marks that are not ASCII; filled when asked."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        kind = unicodedata.category(char)
        if char == "\u2212":  # the minus sign
            found = "-"
        elif code < 128 and kind != "Cc":
            found = char
        elif kind == "Cf" or "\ufe00" <= char <= "\ufe0f":  # joiners, and how an emoji is drawn
            found = ""
        elif kind[0] == "P" or kind in ("Sk", "Cc"):
            found = " "
        elif kind[0] == "S" or unicodedata.name(char, "").startswith(_UNSPACED):
            found = f" {char} "
        else:
            found = char
        self[code] = found
        return found


_CLASSES = _Classes()
