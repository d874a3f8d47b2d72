"""What the screen shows while the real program works, at two widths: something at once, each message once, no trace."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from terminals import Terminal

pytestmark = pytest.mark.slow  # a program started for each test
WIDTHS = pytest.mark.parametrize("columns", [80, 40])
Q = "What is the capital of Australia?"


def ready(terminal: Terminal) -> None:
    """The model is loaded, the status line says so."""
    terminal.see(lambda text: "lesson" in text.splitlines()[-1] and "loading" not in text.splitlines()[-1])


def lines_with(terminal: Terminal, text: str) -> list[str]:
    return [line for line in terminal.all.splitlines() if text in line]


# at once ----------------------------------------------------------------------------------------------------------
@WIDTHS
def test_something_is_there_at_once_and_leaves_no_trace(terminal, columns: int):
    t = terminal(columns=columns, LMM_TEST_LOAD="2", LMM_TEST_PREFILL="1")
    t.see("loading")  # in the status line
    t.line("hello")
    pressed = time.monotonic()
    t.see(lambda text: any(line[2:].startswith("loading") for line in text.splitlines()), 10)
    assert time.monotonic() - pressed < 0.3  # 0.1 and what a busy machine takes to draw
    t.see(lambda text: any("loading, 75 %: reading the weights" in line[:columns] for line in text.splitlines()), 10)
    t.see("reading, 0 of ")
    t.see("You said: hello")
    t.prompts(2)
    assert not lines_with(t, "reading, ")
    t.line("hello again")
    pressed = time.monotonic()
    t.see("reading", 10)
    assert time.monotonic() - pressed < 0.3


@WIDTHS
def test_another_model_says_how_far_it_is(terminal, columns: int):
    t = terminal(columns=columns, LMM_TEST_LOAD="2")
    ready(t)
    t.line("/model other")
    t.see(lambda text: any("loading, 50 %: reading the weights" in line for line in text.splitlines()), 10)
    t.prompts(2)
    assert not lines_with(t, "loading")


@WIDTHS
def test_a_one_shot_shows_on_a_terminal_how_far_the_model_is(tmp_path: Path, columns: int):
    t = Terminal(
        tmp_path, columns=columns, command=("teach", "Who leads?", "Maria", "--memory", "jotter"), LMM_TEST_LOAD="2"
    )
    t.see("loading, 25 %: reading the weights")
    assert t.rest() == 0 and not lines_with(t, "loading") and lines_with(t, "learned: ")


@WIDTHS
def test_a_lesson_shows_its_steps_and_leaves_one_line(terminal, columns: int):
    t = terminal(columns=columns, LMM_TEST_STEP="0.3")
    ready(t)
    t.line("/teach Who leads the choir that sings in the old church? => Maria")
    t.see("learning")
    t.see("step 3")
    t.see("learned: ")
    t.prompts(2)
    assert not lines_with(t, "learning")


# once -------------------------------------------------------------------------------------------------------------
@WIDTHS
@pytest.mark.parametrize("after", [0.1, 0.5, 1.5])
def test_a_message_typed_before_the_prompt_is_up_shows_once(terminal, columns: int, after: float):
    t = terminal(columns=columns, LMM_TEST_LOAD="1")
    time.sleep(after)
    t.type("hello there")
    t.see("> hello there")
    t.type("\r")
    t.see("You said: hello there")
    t.prompts(2)
    assert len(lines_with(t, "hello there")) == 2


@WIDTHS
def test_a_prompt_at_the_top_of_the_screen_shows_once(terminal, columns: int):
    t = terminal(columns=columns)
    ready(t)
    t.type("\x0c")  # Ctrl-L: the prompt is in the first row now
    t.see(lambda text: text.startswith(">"))
    t.line("hello there")
    t.see("You said: hello there")
    t.prompts(2)
    assert len(lines_with(t, "hello there")) == 2


@WIDTHS
def test_a_long_paste_shows_its_end_and_then_all_of_it_once(terminal, columns: int):
    t = terminal(columns=columns)
    ready(t)
    words = [f"word{i}" for i in range(400)]
    t.type(f"\x1b[200~{' '.join(words)}\n\x1b[201~")  # as from a file
    t.see("399")
    t.type("\r")
    t.see("You said: word0")
    t.prompts(1)
    message = t.all.partition("You said")[0].partition("> ")[2]
    assert message.split() == words and t.all.count("> word0 ") == 1
    assert all(line.startswith("  word") for line in message.strip().splitlines()[1:])


@WIDTHS
@pytest.mark.parametrize("when", ["before the prompt", "while it answers"])
def test_a_paste_is_one_message_at_any_time(terminal, columns: int, when: str):
    """The terminal says where it begins and ends only if it was asked to by then."""
    t = terminal(columns=columns, LMM_TEST_LOAD="1", LMM_TEST_PREFILL="1")
    if when == "while it answers":
        ready(t)
        t.line("hello")
        t.see("reading, 0 of ")
    t.see(lambda text: b"\x1b[?2004h" in t.raw)
    assert t.raw.rfind(b"\x1b[?2004h") > t.raw.rfind(b"\x1b[?2004l") and (when[0] == "w" or "/help" not in t.shown)
    t.type("\x1b[200~one line\nand another\x1b[201~")
    t.see("and another")
    t.type("\r")
    t.see("You said: one line")
    t.prompts(3 if when[0] == "w" else 2)
    assert t.all.count("> one line") == 1 and "  and another" in t.all
    t.line("exit")
    assert t.rest() == 0
    assert t.raw.rfind(b"\x1b[?2004h") < t.raw.rfind(b"\x1b[?2004l"), "the shell would be told of pastes"


@WIDTHS
def test_pasted_code_keeps_its_lines_and_a_draft_that_was_cleared_is_gone(terminal, columns: int):
    t = terminal(columns=columns)
    ready(t)
    t.type("a draft that runs on and on, and over the end of the line, and is cleared")
    t.see("cleared")
    t.type("\x03")
    t.see(lambda text: "draft" not in text)
    t.type("\x1b[200~def f(x):\n    if x:\n\n        return 1\x1b[201~\r")
    t.see("You said: def f(x):")
    t.prompts(2)
    assert "> def f(x):\n      if x:\n\n          return 1\n" in t.all and "draft" not in t.all
    assert len(lines_with(t, "def f(x):")) == 2


def test_a_reply_longer_than_the_screen_shows_once(terminal):
    t = terminal(rows=8)
    ready(t)
    t.line("tell me a long story")
    t.see(lambda text: t.all.count("upon") >= 40 and "jotter: 0" in text)
    assert t.all.count("upon") == 40 and t.all.count("> tell me") == 1


def test_the_terminal_is_as_before_when_the_chat_has_ended(terminal):
    import termios

    t = terminal()
    ready(t)
    t.line("exit")
    before_end = t.child.child_fd
    assert t.rest() == 0
    with contextlib.suppress(OSError, termios.error, ValueError):
        assert termios.tcgetattr(before_end)[3] & termios.ECHO


# going on ---------------------------------------------------------------------------------------------------------
@WIDTHS
def test_the_next_chat_says_where_it_goes_on(terminal, columns: int):
    t = terminal(columns=columns)
    ready(t)
    t.line("hello")
    t.see("You said: hello")
    t.prompts(2)
    t.line("exit")
    assert t.rest() == 0 and "--continue" in t.all
    again = terminal("--continue", columns=columns)
    ready(again)
    assert "going on with 1 turn" in again.all and lines_with(again, "> hello") and "You said: hello" in again.all
    again.line("/history")
    again.see("user: hello")


@WIDTHS
def test_shrinking_the_window_in_a_table_leaves_no_stale_lines(terminal, columns: int):
    t = terminal(columns=columns, LMM_TEST_TOKEN="0.01")
    ready(t)
    t.line("table")
    t.see("row 3")
    t.resize(columns - 8, 24)
    t.see("row 12")
    ready(t)
    for number in range(1, 13):
        assert len([line for line in t.all.splitlines() if f"row {number} " in line]) == 1, t.all


@WIDTHS
def test_a_reply_that_is_cut_says_how_to_go_on(terminal, columns: int):
    t = terminal("--max-tokens", "40", columns=columns)
    ready(t)
    t.line("tell me a long story")
    t.see("/more")
    t.line("/more")
    t.see(lambda text: "time 2." in " ".join(text.split()))
    ready(t)
    t.prompts(2)
    paragraph = t.all.partition("long story\n")[2].partition("\n\n")[0]
    assert "Once upon a time 1. Once upon a time 2." in " ".join(paragraph.split()), t.all  # in the same paragraph
    assert len(lines_with(t, "Once upon a time 0")) == len(lines_with(t, "cut at")) == 1 and "> /more" not in t.all
    t.line("/set max_tokens 60")
    t.line("/more")
    t.see(lambda text: "time 6." in " ".join(text.rpartition("> /more")[2].split()))
    ready(t)
    paragraph = t.all.rpartition("> /more\n")[2].partition("\n\n")[0]
    assert " ".join(f"Once upon a time {i}." for i in range(7)) in " ".join(paragraph.split()), t.all  # shown once more
