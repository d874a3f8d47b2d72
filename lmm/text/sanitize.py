"""The one sanitiser of untrusted text: model output, file names, headers, memory metadata, log fields, errors.

What comes out can be written to a terminal: it moves no cursor, sets no title or clipboard, links nowhere, hides
nothing and reorders nothing. `Cleaner` is a state machine over single characters, so a stream gives the same result
however it was cut into chunks; `clean` is that machine fed once.

What is removed, and what is decided:

- Escape sequences (ECMA-48 and xterm, in their 7-bit and 8-bit forms): CSI, OSC, DCS, SOS, PM, APC, SS2, SS3, and
  every ESC with its intermediate bytes. A string (OSC and its kin) ends at BEL, ST, CAN, SUB or another ESC, and
  also at the end of the line or after `STRING_LIMIT` characters: an unterminated one cannot eat the reply. What a
  terminal would still have swallowed then shows up as plain text, which is harmless.
- C0 and C1 controls and DEL, but for newline and tab. "\\r\\n" and a lone "\\r" become a newline, so that text cannot
  be overwritten by what follows it. U+2028 and U+2029 become newlines too: they separate words.
- Bidirectional controls, and everything else that Unicode calls default-ignorable (it shows as nothing): zero-width
  space, word joiner, soft hyphen, BOM, Hangul fillers, tag characters (and with them three regional flags), ...
- Kept where they do something: ZWJ between two pictographs and after a virama, ZWJ and ZWNJ between two letters of a
  script that joins (Arabic, Syriac, the Indic scripts ...); a variation selector 15 or 16 after a symbol, digit, `#`
  or `*`; an ideographic variation selector after an ideograph. One at a time: a run of them hides data.
- Lone surrogates become U+FFFD, so that two unreadable file names don't turn into an empty one. Noncharacters go.

Rich markup is text here, never an instruction: show untrusted text through `as_text`, or `escape` where only a string
will do.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

#: characters after which an unterminated escape sequence ends; real titles and links are shorter
STRING_LIMIT = 4096

# Unicode 16, DerivedCoreProperties.txt: Default_Ignorable_Code_Point (which holds the bidi controls and the tag
# characters), without U+200C, U+200D and the variation selectors, which depend on their neighbours.
_IGNORABLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
)
_NONCHARACTERS = "\ufdd0-\ufdef" + "".join(chr(p << 16 | 0xFFFE) + chr(p << 16 | 0xFFFF) for p in range(17))
_JOINERS = "\u200c\u200d"
_SELECTORS = "\ufe0e\ufe0f\U000e0100-\U000e01ef"
_SPECIAL = f"\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff{_IGNORABLE}{_NONCHARACTERS}{_JOINERS}{_SELECTORS}"
_PLAIN = re.compile(f"[^{_SPECIAL}]+")
_SELECTOR = re.compile(f"[{_SELECTORS}]")
# Scripts in which a joiner changes how letters look: Arabic to Mongolian, the Indic extensions, presentation forms.
_JOINING_SCRIPT = re.compile(
    "[\u0600-\u1cff\ua800-\uabff\ufb50-\ufdff\ufe70-\ufefe\U00010a00-\U00011fff\U0001e900-\U0001e95f]"
)
_IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_VIRAMA_CLASS = 9  # canonical combining class of the virama signs


class _State(Enum):
    GROUND = auto()
    ESCAPE = auto()  # after ESC
    NF = auto()  # after ESC and an intermediate byte
    CSI = auto()
    SINGLE = auto()  # after SS2 or SS3: one more character
    STRING = auto()  # in OSC, DCS, SOS, PM, APC
    STRING_ESCAPE = auto()  # ESC in a string: ST, or the start of another sequence


_AFTER_ESC = {"[": _State.CSI, "N": _State.SINGLE, "O": _State.SINGLE} | dict.fromkeys("]PX^_", _State.STRING)
_INTRODUCERS = {"\x1b": _State.ESCAPE, "\x9b": _State.CSI, "\x8e": _State.SINGLE, "\x8f": _State.SINGLE}
_INTRODUCERS |= dict.fromkeys("\x90\x98\x9d\x9e\x9f", _State.STRING)


class Cleaner:
    """Cleans a stream: the joined results of `feed` and `flush` don't depend on where the stream was cut."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._state = _State.GROUND
        self._swallowed = 0  # characters of the sequence at hand
        self._last = ""  # the last character that came out
        self._joiner = ""  # waits for the character after it
        self._after_cr = False

    def feed(self, chunk: str) -> str:
        """The clean text of what is decided so far. Holds back at most one joiner and an open escape sequence."""
        out: list[str] = []
        i = 0
        while i < len(chunk):
            if self._after_cr:
                self._after_cr = False
                if chunk[i] == "\n":
                    i += 1
                    continue
            if self._state is not _State.GROUND:
                i += self._continue_sequence(chunk[i])
            elif plain := _PLAIN.match(chunk, i):
                self._emit(plain.group(), out)
                i = plain.end()
            else:
                self._special(chunk[i], out)
                i += 1
        return "".join(out)

    def flush(self) -> str:
        """End of the stream: what is still open is dropped, and the cleaner can be used again."""
        self._reset()
        return ""

    def _emit(self, text: str, out: list[str]) -> None:
        if self._joiner:
            if _joins(self._last, self._joiner, text[0]):
                out.append(self._joiner)
            self._joiner = ""
        out.append(text)
        self._last = text[-1]

    def _special(self, char: str, out: list[str]) -> None:
        if char in _INTRODUCERS:
            self._state, self._swallowed = _INTRODUCERS[char], 0
        elif char in "\r\u2028\u2029":
            self._emit("\n", out)
            self._after_cr = char == "\r"
        elif char == "\u200d" and self._last and unicodedata.combining(self._last) == _VIRAMA_CLASS:
            self._emit(char, out)
        elif char in _JOINERS:
            self._joiner = self._joiner or char
        elif "\ud800" <= char <= "\udfff":
            self._emit("\ufffd", out)
        elif _SELECTOR.match(char) and not self._joiner and _selects(self._last, char):
            self._emit(char, out)

    def _continue_sequence(self, char: str) -> int:
        """One step inside a sequence. Returns 1 if it took the character, 0 if the character stands outside it."""
        self._swallowed += 1
        if self._swallowed > STRING_LIMIT:
            state, taken = _State.GROUND, 0
        else:
            state, taken = _step(self._state, char)
        self._state = state
        return taken


def _step(state: _State, char: str) -> tuple[_State, int]:
    """(next state, 1 if the character belongs to the sequence). The byte classes are those of ECMA-48, section 5.3."""
    if state is _State.STRING:
        if char == "\x1b":
            return _State.STRING_ESCAPE, 1
        if char in "\n\r":
            return _State.GROUND, 0
        return (_State.GROUND if char in "\a\x9c\x18\x1a" else _State.STRING), 1
    if state is _State.STRING_ESCAPE:
        return (_State.GROUND, 1) if char == "\\" else (_State.ESCAPE, 0)
    if state is _State.CSI:
        if " " <= char <= "?":
            return _State.CSI, 1
        return _State.GROUND, int("@" <= char <= "~")
    if state is _State.SINGLE:
        return _State.GROUND, int(" " <= char <= "\x7f")
    if " " <= char <= "/":
        return _State.NF, 1
    if state is _State.ESCAPE and char in _AFTER_ESC:
        return _AFTER_ESC[char], 1
    return _State.GROUND, int("0" <= char <= "~")


def _joins(before: str, joiner: str, after: str) -> bool:
    """Does the joiner between two characters change what is seen?"""
    if not before:
        return False
    if joiner == "\u200d" and _pictograph(after) and (_pictograph(before) or before == "\ufe0f"):
        return True
    return all(_JOINING_SCRIPT.match(c) and unicodedata.category(c)[0] in "LM" for c in (before, after))


def _selects(base: str, selector: str) -> bool:
    """Does the variation selector change how the character before it looks?"""
    if selector in "\ufe0e\ufe0f":
        return bool(base) and (_pictograph(base) or base in "#*0123456789‼⁉〰〽")
    return bool(_IDEOGRAPH.match(base))


def _pictograph(char: str) -> bool:
    # A superset of Extended_Pictographic: symbols past Latin-1 punctuation, the skin tones, and newer emoji that
    # this Python doesn't know.
    return char >= "\xa9" and (unicodedata.category(char) in ("So", "Sm", "Sk") or "\U0001f000" <= char <= "\U0001faff")


def clean(text: str) -> str:
    """Untrusted text, fit for a terminal or a page. Idempotent; newlines and tabs stay."""
    return text if _PLAIN.fullmatch(text) else Cleaner().feed(text)


def clean_line(text: object, limit: int | None = 200) -> str:
    """Untrusted text as one line: a file name, a header, an error. At most `limit` columns wide (None: any width)."""
    text = str(text)
    if limit is not None and len(text) > (most := STRING_LIMIT + 8 * limit):  # cleaning a megabyte takes seconds
        text = text[:most] + "…"
    line = clean(text).strip("\n").translate({ord("\n"): " ", ord("\t"): " "})
    return line if limit is None else fit(line, limit)


def first(problems: Iterable[str], most: int = 10, limit: int = 300) -> list[str]:
    """The first of many problems, each at most `limit` columns wide, and how many more there are."""
    found = iter(problems)
    shown = [clean_line(problem, limit) for problem in itertools.islice(found, most)]
    rest = sum(1 for _ in found)
    return [*shown, f"and {rest} more"] if rest else shown


def listed(problems: Iterable[str], most: int = 10, limit: int = 300) -> str:
    """The same as one line."""
    return "; ".join(first(problems, most, limit))


def fit(line: str, columns: int) -> str:
    """A clean line cut to its display width, with an ellipsis where something is missing."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(line) <= columns:
        return line
    return set_cell_size(line, columns - 1).rstrip() + "…" if columns > 0 else ""


def as_text(text: object, style: str = "", limit: int | None = None) -> Text:
    """Untrusted text for rich: clean, and its square brackets are brackets. `limit` makes it one line of that width."""
    from rich.text import Text

    return Text(clean(str(text)) if limit is None else clean_line(text, limit), style=style)


def escape(text: object) -> str:
    """Untrusted text for a place that reads rich markup and takes only a string."""
    from rich.markup import escape

    return escape(clean(str(text)))
