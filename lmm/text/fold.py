"""When are two texts the same, and does a text say a value? The one fold, and the one "contains, in whole words".

`fold` keeps all that is written, for "the very same question". `words` keeps what is said: "C++", "C#", ".NET", "-5",
"3.14" and "5 * 2" are not "C", "NET", "5", "14" and "5 2"; nor are "A*", "F'", "--force", "*args", "__init__" and
"/bin" what they are without the marks, while those that stand around something go: *emphasis*, 'quotes'. Scripts
without blanks, as Chinese has none, have no borders that could be asked for: there each character is a word, so a value
is found inside a sentence.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

CLOSING = " ?.!。"
_RAISED = re.compile("[²³¹⁰⁴-⁹]+")  # NFKC makes 10² and 102 the same,
_FRACTION = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")  # and 7½ and 71⁄2
_ACCENTS = re.compile("[\u0300-\u036f]+")
_ARTICLES = re.compile(r"(?<!\S)(?:an?|the) (?=\S)")
_LIKE_ASCII = {"\u2212": "-", "\u2032": "'", "\u2018": "'", "\u2019": "'"}  # the minus sign, a prime, quotes
_UNSPACED = ("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "BOPOMOFO", "HANGUL", "THAI", "LAO", "KHMER", "MYANMAR")

_MARK, _CHAR = r"[!-/:-@\[-`{-~]", r"[^\s!-/:-@\[-`{-~]"  # ASCII's marks; characters of words: other marks are gone
_OPEN = r"(?<![^\s(\"'\[{<$=:,*_`])"  # a sign or a leading dot comes after one of these, or first
_CLOSE = r"(?![^\s.,;:!?)\"'\]}>=/|`])"  # and the marks behind a word before one of these, or last
_AROUND = "'*_"  # of quotes and emphasis
_FRONT = rf"(?:{_OPEN}[{_AROUND}]{{1,6}})?(?:{_OPEN}(?:-?\.|-(?=\d)|--?(?=[^\W\d_])|[/!]))?"
_BACK = rf"(?:(?:--|(?<![^\W_]{{3}})(?<=[^\W\d_])-)?[{_AROUND}]{{0,6}}{_CLOSE})?"
_WORDS = re.compile(
    rf"(?<!\S)(?=\S*[^\s.,;:!?'\"()\[\]{{}}]){_MARK}+(?!\S)"  # marks between blanks: an operator, a face
    rf"|{_FRONT}{_CHAR}+(?:(?:_+|(?<=\d)[.,:/*^](?=\d)){_CHAR}+)*(?:\+\+|#+|\+(?!{_CHAR}))?{_BACK}"
    r"|(?<=\d)-(?=\d)|[$%&+#<=>@\\^|~]"
)
_EDGED = re.compile(rf"(?<!\S)[{_AROUND}]|[{_AROUND}](?!\S)")
_OPTION = re.compile(r"\A(?:--?(?=[^\W\d_])|[/!])")
_UNCLOSED = re.compile(rf"(?<!\S)[*_]+(?=\S*{_CHAR})|(?<={_CHAR})_+(?!\S)")


def fold(text: str) -> str:
    """What two spellings of the very same text share: case, blanks, forms of characters and closing marks aside."""
    one_line = " ".join(_plain(text).split())
    return one_line.rstrip(CLOSING) or one_line


@lru_cache(maxsize=8)
def words(text: str) -> str:
    """The words with one blank between them, without the marks of a sentence; all of it where it has no words."""
    found = " ".join(_WORDS.findall(_plain(text).translate(_CLASSES)))
    if _EDGED.search(found):
        found = " ".join(_without_pairs(found.split()))
    return found or fold(text)


def terms(text: str) -> list[str]:
    """The words by which a text is looked for, without accents and marks: who types "muller" finds "Müller"."""
    found = words(text)
    return [_bare(word) for word in (found if found.isascii() else _unaccented(found)).split()]


def contains(text: str, value: str) -> bool:
    """Does the text say the value, in whole words? Articles don't count. Generous: "not X" contains X, and emphasis may
    be left open, as in a reply that was cut."""
    said, wanted = words(text), words(value)
    return has_run(said, wanted) or (("*" in said or "_" in said) and has_run(_UNCLOSED.sub("", said), wanted))


def has_run(said: str, wanted: str) -> bool:
    """Are words, as `words` gives them, among others, in this order? Articles don't count."""
    pairs = (said, wanted), (_ARTICLES.sub("", said), _ARTICLES.sub("", wanted))
    return bool(wanted) and any(f" {b} " in f" {a} " for a, b in pairs)


def _without_pairs(found: Sequence[str]) -> list[str]:
    """Words without the marks that stand around one of them, or several. A mark that has no other belongs to its word;
    but a quote does so only behind a single letter: "F'" and no "dogs'". "__init__" is no emphasis."""
    edged = [(i, _edges(word)) for i, word in enumerate(found) if _EDGED.search(word) and re.search(_CHAR, word)]
    opened: dict[str, list[list[str]]] = defaultdict(list)
    for _, edges in edged:
        is_dunder = edges[0].count("_") == edges[2].count("_") == 2
        for mark in "'*" if is_dunder else _AROUND:
            if mark in edges[0]:
                opened[mark * edges[0].count(mark)].append(edges)
            runs = [mark * n for n in range(edges[2].count(mark), 0, -1)]
            while run := next((run for run in runs if opened[run] and edges[2].count(mark) >= len(run)), ""):
                first = opened[run].pop()
                first[0] = first[0].replace(mark, "")
                edges[2] = edges[2].replace(mark, "", len(run))
    out = list(found)
    for i, (front, word, back) in edged:
        out[i] = front.replace("'", "") + word + (back if len(word) == 1 and word.isalpha() else back.replace("'", ""))
    return out


def _edges(word: str) -> list[str]:
    """The marks of quotes and emphasis before a word, the word, and those behind it."""
    inner = word.strip(_AROUND)
    front, back = word.split(inner, 1)
    return [front, inner, back]


def _bare(word: str) -> str:
    """Without the marks that belong to it, but for those that make another word of it ("c++")."""
    if word.isalnum():
        return word
    inner = word.strip(_AROUND)
    return _OPTION.sub("", inner, count=1).rstrip("-") if re.search(_CHAR, inner) else word


def _unaccented(text: str) -> str:
    """The marks go that Latin, Greek and Cyrillic letters have: those of other scripts make another letter."""
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", text)))


def _plain(text: str) -> str:
    """NFKC and no case, in one of its stable forms."""
    if text.isascii():
        return text.lower()
    apart = _FRACTION.sub("_", _RAISED.sub(r"^\g<0>", text))
    plain = unicodedata.normalize("NFD", apart).casefold()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", plain).casefold())


class _Classes(dict[int, str]):
    """For `translate`: blanks around what is a word by itself, and for marks that are not ASCII; filled when asked."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        kind = unicodedata.category(char)
        if char in _LIKE_ASCII:
            found = _LIKE_ASCII[char]
        elif char in "§¶‰‱":
            found = f" {char} "
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


def word_set(text: str) -> frozenset[str]:
    """The words of a list that is written as a text."""
    return frozenset(text.split())
