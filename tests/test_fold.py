"""When two texts are the same, and when a text says a value: whole words in any script, no mark lost that matters."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lmm.text.fold import contains, fold, terms, words

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
WORD = st.text("abcxyzäß0123456789", min_size=1, max_size=6)
#: no two of a line are the same to `fold` or `words`, and no shorter one is in a longer one
APART = [
    ["C", "C++", "C#", "C--", "C*", "C-"],
    ["F", "F'", "F''", "-F", "--F", "/F", "!F"],
    ["NET", ".NET"],
    ["5", "-5", ".5", "15", "3.5", "5.25", "5:30", "1/5", "5*2", "5e", "5th", "key_5", "A5", "10^5", "1,5"],
    ["14", "3.14", "v1.14"],
    ["7", "17", "77", "-7", "0.7"],
    ["A", "A+"],
    ["key_17", "key_71"],
    ["vitamin A", "vitamin C"],
    ["102", "10²"],
    ["Rome", "Romeo"],
    ["force", "--force"],
    ["7", "71", "7½"],
    ["कि", "की"],
]
ONE = [
    ["What is X?", "  what is\n x ", "WHAT IS X ?!", "What is X…", "ＷＨＡＴ is Ｘ？", "What\u00a0is X."],
    ["Straße", "STRASSE"],
    ["caf\u00e9", "CAFE\u0301"],
    ["H₂O", "H2O"],
    ["10²", "10^2"],
    ["2⁹", "2^9"],
    ["5 ㎒", "5 mhz"],
    ["巴黎在哪里？", "巴黎在哪里。"],
]


@pytest.mark.parametrize("values", APART, ids=lambda values: values[0])
def test_a_mark_that_makes_another_thing_of_a_word_counts(values: list[str]) -> None:
    for i, one in enumerate(values):
        for other in values[:i] + values[i + 1 :]:
            assert fold(f"What is {one}?") != fold(f"What is {other}?")
            assert words(f"What is {one}?") != words(f"What is {other}?")
            assert not contains(f"It is {one}, I think.", other)
        assert contains(f"It is {one}, I think.", one) and contains(f"({one}) it is", f"{one}.")


@pytest.mark.parametrize("texts", ONE, ids=lambda texts: texts[0])
def test_the_same_text_in_other_spellings(texts: list[str]) -> None:
    assert len({fold(text) for text in texts}) == len({words(text) for text in texts}) == 1


def test_operators_between_blanks_count() -> None:
    assert len({words(f"What is 5 {mark} 2?") for mark in "+-*/%<>=&"}) == 9
    assert words("5 − 2") == words("5 - 2") == words("5-2") and words("−5") == words("-5")


def test_fold_keeps_what_is_written_and_words_what_is_said() -> None:
    said = ["my sister (Ada)", "My sister, Ada", "**my** sister: `Ada`", "my sister — “Ada”", "my-sister Ada"]
    assert {words(text) for text in said} == {"my sister ada"}
    assert len({fold(text) for text in said}) == len(said)


OF_A_WORD = ["{}*", "{}--", "*{}", "**{}", "_{}", "__{}__", "--{}", "-{}", "/{}", "!{}"]
AROUND = ["'", "`", '"', "*", "**", "***", "_", "**'"]


@given(st.sampled_from(OF_A_WORD), st.sampled_from(AROUND), st.text("abcxyz", min_size=3), st.lists(WORD))
def test_a_mark_belongs_to_its_word_unless_it_stands_around_something(
    marked: str, around: str, word: str, more: list[str]
) -> None:
    own = marked.format(word)
    bare, other = " ".join([*more, word]), " ".join([*more, own])
    assert words(other) == other.casefold() and not contains(bare, own) and contains(f"It is ({other}).", own)
    for said in (bare, other) if not {*marked} & {*around} else (bare,):
        assert words(f"So {around}{said}{around[::-1]}, then.") == words(f"So {said}, then.")
    assert contains(f"The answer is {around}{bare}", bare), "as in a reply that was cut"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("f(*args, **kwargs)", "f *args **kwargs"),
        ("**A*** and *B*", "a* and b"),
        ("F' F’ F′ **F'** 'F'' `F'`", " ".join(["f'"] * 6)),
        ("--force **--force** '--force' (`--force`)", " ".join(["--force"] * 4)),
        ("'vitamin C' and F'", "vitamin c and f'"),
        ("the dogs' bowls, 'tis 5' long, rock 'n' roll", "the dogs bowls tis 5 long rock n roll"),
        ("__init__ is __very new__", "__init__ is very new"),
        ("pre- and post-war, type O-, well--known", "pre and post war type o- well known"),
        ("§5 is 5‰", "§ 5 is 5 ‰"),
        ("/usr/bin and/or C:/", "/usr bin and or c"),
    ],
)
def test_which_marks_belong_to_a_word(text: str, said: str) -> None:
    assert words(text) == said


@pytest.mark.parametrize(
    "text", ["*a " * 30000, "a** " * 30000, "*a b** " * 20000, "a" + "_" * 90000, "'" * 90000 + "a"]
)
def test_marks_without_end_are_read_in_no_time(text: str) -> None:
    started = time.process_time()
    words(text)
    assert time.process_time() - started < 5


def test_texts_are_looked_for_without_marks() -> None:
    assert terms("**Müller**'s `--force` A* C++ -5 .NET __init__ :-)") == [
        "muller", "s", "force", "a", "c++", "-5", ".net", "init", ":-)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("It's Canberra's lake.", "canberra"),
        ("The  NEW\nYork Times", "new york"),
        ("Use ASP.NET, Node.js or e-mail", "node.js"),
        ("他住在巴黎。", "巴黎"),
        ("巴黎Paris市", "Paris"),
        ("他17岁", "17"),
        ("수도는 서울입니다", "서울"),
        ("เมืองหลวงคือกรุงเทพ", "กรุงเทพ"),
        ("東京タワー", "タワー"),
        ("It costs $5, or 5%", "5"),
        ("J.K. Rowling", "J. K. Rowling"),
        ("The answer is A.", "A"),
        ("the vitamin A is", "Vitamin A"),
        ("It is in Eiffel Tower", "the Eiffel Tower"),
        ("a big red house", "big red house"),
        ("Who knows The Bank of the West?", "Bank of West"),
        ("It is :-) really", ":-)"),
        ("I ❤️ it", "❤"),
        ("?!", "?!"),
        ("**Paris**", "Paris"),
        ("x=-5;", "-5"),
        ("snake_case_", "snake_case"),
    ],
)
def test_what_a_text_says(text: str, value: str) -> None:
    assert contains(text, value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", "a"),
        ("a", ""),
        ("a", " \n"),
        ("", ""),
        ("他17岁", "7"),
        ("Really?", "?"),
        ("vitamin C", "vitamin A"),
        ("the a an", "cat"),
        ("one two", "one two three"),
        ("巴西黎明", "巴黎"),
        ("this", "his"),
        ("a+b", "a+"),
    ],
)
def test_what_a_text_does_not_say(text: str, value: str) -> None:
    assert not contains(text, value)


@pytest.mark.parametrize(
    ("text", "said"),
    [("👍🏽 it", "👍 it"), ("a\x00b", "a b"), ("co\u00adoperate", "cooperate"), ("❤\ufe0fyou", "❤ you"), ("ເຂົ້າ", None)],
)
def test_what_is_not_seen_is_not_said(text: str, said: str | None) -> None:
    assert words(text) == said if said else contains(f"ກິນ{text}ແລ້ວ", text)


def test_texts_of_marks_alone_are_told_apart() -> None:
    assert len({fold(text) for text in ("?", "!", "...", "。", "")}) == 5
    assert words("?!") == "?!" and words("") == ""


@given(TEXT)
@example("ͅα")  # a combining mark that case folding turns into a letter
@example("? ?x .\u00a0")
@example("__’x-")
def test_folding_twice_changes_nothing(text: str) -> None:
    assert fold(fold(text)) == fold(text)
    assert words(words(text)) == words(text)


@given(st.text("ab1 *_'’-/!.,+#(½我", max_size=20))
def test_marks_are_read_the_same_twice(text: str) -> None:
    assert words(words(text)) == words(text)
    assert contains(text, text) is bool(text.strip())


@given(TEXT)
def test_case_blanks_and_forms_of_characters_do_not_matter(text: str) -> None:
    assert fold(f"  {text}\t") == fold(text)
    for form in ("NFC", "NFD"):
        assert fold(unicodedata.normalize(form, text)) == fold(text)
        assert words(unicodedata.normalize(form, text)) == words(text)


@given(TEXT)
def test_a_text_says_itself(text: str) -> None:
    assert contains(text, text) is bool(text.strip() and words(text))


@given(st.lists(WORD), st.lists(WORD, min_size=1), st.lists(WORD))
def test_a_run_of_words_is_found_wherever_it_stands(before: list[str], value: list[str], after: list[str]) -> None:
    text = " ".join([*before, *value, *after])
    assert contains(text, " ".join(value)) and contains(f"“{text}”!", f"{' '.join(value)}.")


@given(st.lists(WORD), WORD)
def test_a_word_that_is_not_there_is_not_found(text: list[str], value: str) -> None:
    assert contains(" ".join(text), value) is (value.casefold() in [word.casefold() for word in text])
