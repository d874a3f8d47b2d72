"""No escape sequence gets through, whatever it is and however it is cut; what people write comes through untouched."""

from __future__ import annotations

import itertools
import re
import time

import pyte
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from payloads import payloads, terminated
from rich.cells import cell_len
from rich.console import Console

from lmm.text.sanitize import Cleaner, as_text, clean, clean_line, escape, listed

PAYLOADS = payloads()
# Written out again, on purpose not shared with the module.
FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\ufdd0-\ufdef"
    "\ufffe\uffff\U0001fffe\U0001ffff\U000e0000-\U000e007f]"
)

HARMLESS = [
    "Plain text.\n\n\tIndented: café, naïve, 東京, 한국어, ไทย, Ελληνικά, «ок» – “quotes” … ½ ∑ → ✓ [x] (y) <z> \\ `a`",
    "emoji: 😀 👍🏽 👨\u200d👩\u200d👧 🏳\ufe0f\u200d🌈 ❤\ufe0f ☎\ufe0e 1\ufe0f\u20e3 #\ufe0f\u20e3",
    "more: 👩🏽\u200d🚀 🇨🇭 ❤\ufe0f\u200d🔥",
    "می\u200cخواهم क्\u200dष ක්\u200dෂ ന്\u200d 葛\U000e0100",
    "combining: e\u0301 a\u0308\u0304, nbsp\u00a0here, private \ue0b0, new \U0001fae9",
]


def events(text: str) -> set[str]:
    """What a terminal would do with it, as pyte understands it."""
    seen: set[str] = set()

    class Listener:
        def __getattr__(self, name: str):
            return lambda *args, **kwargs: seen.add(name)

    pyte.Stream(Listener()).feed(text)
    return seen


def feed(parts: list[str]) -> str:
    cleaner = Cleaner()
    return "".join([cleaner.feed(part) for part in parts] + [cleaner.flush()])


def test_the_corpus_is_large_and_hostile():
    assert len(PAYLOADS) >= 300
    assert sum(bool(FORBIDDEN.search(p)) for p in PAYLOADS) >= 300


@pytest.mark.parametrize("text", HARMLESS)
def test_what_people_write_is_untouched(text):
    assert clean(text) == text


def test_nothing_dangerous_is_left():
    for payload in PAYLOADS:
        result = clean(f"before {payload} after")
        assert not FORBIDDEN.search(result), ascii(payload)
        assert events(result) <= {"draw", "linefeed", "tab"}, ascii(payload)


def test_text_around_a_payload_stays():
    for payload in terminated():
        assert clean(f"before {payload}after") == "before after", ascii(payload)
    for payload in PAYLOADS:
        result = clean(f"before {payload}\nnext line")
        assert result.startswith("before ") and result.endswith("\nnext line"), ascii(payload)


def test_every_split_gives_the_same():
    for payload in PAYLOADS:
        text = f"a{payload}b"
        whole = clean(text)
        assert feed(list(text)) == whole, ascii(payload)
        for i in range(1, len(text)):
            assert feed([text[:i], text[i:]]) == whole, (ascii(payload), i)


def test_every_composition_of_short_payloads_gives_the_same():
    for payload in (p for p in PAYLOADS if len(p) <= 6):
        text = f"a{payload}b"
        whole = clean(text)
        for cuts in range(2 ** (len(text) - 1)):
            parts, start = [], 0
            for i in range(1, len(text)):
                if cuts >> (i - 1) & 1:
                    parts.append(text[start:i])
                    start = i
            assert feed([*parts, text[start:]]) == whole, (ascii(payload), cuts)


hostile_text = st.lists(
    st.one_of(st.sampled_from(PAYLOADS), st.sampled_from(HARMLESS), st.text(max_size=5), st.characters()), max_size=8
).map("".join)


@settings(max_examples=300, deadline=None)
@given(hostile_text, st.lists(st.integers(0, 400), max_size=6))
@example("\u200d👩", [1])
def test_random_mixtures(text, cuts):
    whole = clean(text)
    bounds = [0, *sorted(min(c, len(text)) for c in cuts), len(text)]
    assert feed([text[a:b] for a, b in itertools.pairwise(bounds)]) == whole
    assert clean(whole) == whole
    assert not FORBIDDEN.search(whole)


@pytest.mark.parametrize("start", ["\x1b]", "\x1bP", "\x1b_", "\x9d"])
def test_an_unterminated_string_cannot_eat_the_reply(start):
    assert clean(f"a{start}0;title\nthe reply") == "a\nthe reply"
    assert len(clean(start + "x" * 100_000)) == 100_000 - 4097 + len(start)
    assert clean(start + "x") == ""


def test_a_sequence_may_cut_off_another():
    assert clean("a\x1b]0;title\x1b[31mb\x1b]0;x\x1b]52;c;YQ==\x07c\x1b[3\x1b[1md\x1b\x1b[0me") == "abcde"


def test_line_ends():
    assert clean("a\r\nb\rc\r\r\nd\n\re\u2028f") == "a\nb\nc\n\nd\n\ne\nf"
    assert feed(["a\r", "\nb\r", "c"]) == "a\nb\nc"


def test_joiners_and_selectors_only_where_they_show():
    assert clean("pass\u200dword u\u200cser x\ufe0f \u200d👩") == "password user x 👩"
    assert clean("👩\u200d\u200d\u200d🚀") == "👩\u200d🚀"
    assert clean("😀" + "".join(chr(0xE0100 + c) for c in b"secret")) == "😀"
    assert clean("❤\ufe0f\ufe0f\ufe0f") == "❤\ufe0f"


def test_a_cleaner_can_be_used_again_after_flush():
    cleaner = Cleaner()
    assert cleaner.feed("a\x1b]0;") + cleaner.flush() + cleaner.feed("b") == "ab"


def test_clean_line():
    assert clean_line("a\tb\nc\r\nd\n") == "a b c d"
    assert clean_line("x" * 50, limit=10) == "x" * 9 + "…"
    assert clean_line("東京都" * 9, limit=10) == "東京都東…"
    assert cell_len(clean_line("👨\u200d👩\u200d👧" * 30, limit=11)) <= 11
    assert clean_line("abc", limit=0) == ""
    assert clean_line("x" * 500, limit=None) == "x" * 500
    assert clean_line(ValueError("bad \x1b[31mthing\x1b[0m\nsecond line")) == "bad thing second line"
    for payload in PAYLOADS:
        line = clean_line(payload, limit=20)
        assert "\n" not in line and "\t" not in line and cell_len(line) <= 20 and not FORBIDDEN.search(line)


def test_markup_is_never_interpreted():
    console = Console(force_terminal=True, color_system="truecolor", width=400, legacy_windows=False, _environ={})
    for payload in [p for p in PAYLOADS if "[" in p and "\n" not in p and "\r" not in p]:
        with console.capture() as shown:
            console.print(as_text(payload), end="")
            console.print("|" + escape(payload), end="", highlight=False, emoji=False)
        assert shown.get() == f"{clean(payload)}|{clean(payload)}", ascii(payload)


def test_many_problems_are_one_line_of_bounded_length() -> None:
    assert listed([]) == "" and listed(["a"]) == "a"
    assert listed([str(i) for i in range(10)]) == "0; 1; 2; 3; 4; 5; 6; 7; 8; 9"
    assert listed([str(i) for i in range(12)]).endswith("; 9; and 2 more")
    assert listed(["x" * 400, "\x1b[2Jy\n"]) == f"{'x' * 299}…; y"


def test_a_line_of_a_megabyte_is_cut_before_it_is_cleaned() -> None:
    start = time.process_time()
    for text in ("x" * 1_000_000, "\x1b[31mx" * 200_000, "漢" * 1_000_000, "\x1b]0;" + "x" * 1_000_000):
        assert clean_line(text, 80).endswith("…") and cell_len(clean_line(text, 80)) <= 80
    assert time.process_time() - start < 1
