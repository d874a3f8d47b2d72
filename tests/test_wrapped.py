"""Lines of a message are broken at words."""

from __future__ import annotations

from lmm.text.wrapped import wrapped


def test_lines_break_at_words_and_paths_stay_whole() -> None:
    assert wrapped("one two three\nfour", 8) == "one two\nthree\nfour"
    assert wrapped("see /tmp/a-very-long/path now", 8) == "see\n/tmp/a-very-long/path\nnow"
    assert wrapped("a b", 0) == "a\nb"
    assert wrapped("a\n\nb", 8) == "a\n\nb", "an empty line stays"
