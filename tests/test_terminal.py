"""The chat in a real pseudo-terminal: what is on the screen, what is left on the disk, how it ends.

Most tests run the scripted engine (see `scripted`), so keys, screen and signals are tested in seconds; those marked
`real` talk to a model.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
from pathlib import Path

import pytest
from payloads import payloads
from terminals import Open, Terminal

from lmm.chat.interrupts import typing_mode

pytestmark = pytest.mark.slow  # a program started for each test

Q = "What is the capital of Australia?"


def ready(terminal: Terminal) -> Terminal:
    terminal.see("jotter: 0 lessons")
    return terminal


def saved(terminal: Terminal) -> list[Path]:
    return sorted((terminal.folder / "artifacts").glob("*.safetensors"))


# typing -----------------------------------------------------------------------------------------------------------
def test_the_prompt_is_there_while_the_model_loads(terminal: Open):
    t = terminal(LMM_TEST_LOAD="3")
    t.see(lambda text: "\n>" in text and "loading" in text)
    t.line("hello")
    t.see("You said: hello")
    assert time.monotonic() - t.started > 3


def test_bracketed_paste_is_one_message(terminal: Open):
    t = ready(terminal())
    t.type("\x1b[200~first\nsecond\n/undo\x1b[201~")
    t.see("/undo")
    assert "You said" not in t.shown
    t.type("\r")
    assert "second" in t.see("You said: first")
    assert "nothing to undo" not in t.all


def test_alt_enter_makes_a_new_line(terminal: Open):
    t = ready(terminal())
    t.type("one\x1b\rtwo")
    t.see("two")
    t.type("\r")
    t.see("You said: one\ntwo")


def test_history_lasts_and_ctrl_r_finds_it(terminal: Open):
    t = ready(terminal())
    t.line("a rare word")
    t.see("You said: a rare word")
    t.line("a rare word")
    t.line("exit")
    assert t.rest() == 0
    path = t.folder / "data" / "history.jsonl"
    assert path.stat().st_mode & 0o777 == 0o600
    t = ready(terminal())
    t.type("\x1b[A\x1b[A")  # `exit`, then the message: said twice, kept once
    t.see("> a rare word")
    t.type("\x03")
    t.see(lambda text: "rare" not in text)
    t.type("\x12rare")
    t.see("I-search backward: rare")
    t.type("\r\r")
    t.see("You said: a rare word")


def test_commands_complete_with_their_help(terminal: Open):
    t = ready(terminal())
    t.type("/les")
    t.see("what was learned")
    t.type("\t")
    t.see("> /lessons")


def test_resizing_keeps_the_screen_in_order(terminal: Open):
    t = ready(terminal(LMM_TEST_TOKEN="0.01"))
    t.line("tell me a long story")
    t.see("Once upon")
    t.resize(40, 24)
    shown = t.see(lambda text: "\n>" in text and "smollm2" in text, 60)
    assert max(map(len, shown.splitlines())) <= 40 and shown.count("smollm2") == 1
    t.resize(80, 30)
    t.line("after")
    t.see("You said: after")


# Ctrl-C -----------------------------------------------------------------------------------------------------------
def test_ctrl_c_clears_the_line_then_hints_then_leaves_without_saving(terminal: Open):
    t = ready(terminal())
    t.type("half a sent")
    t.see("> half a sent")
    t.type("\x03")
    t.see(lambda text: "half" not in text)
    t.type("\x03")
    t.see("Ctrl-C again to leave without saving")
    time.sleep(2.2)
    t.type("\x03")  # too late: it hints again
    time.sleep(0.3)
    assert t.child.isalive()
    t.type("\x03")
    assert t.rest() == 130
    assert "left without saving" in t.all and not saved(t)


def test_tomorrow_it_knows_what_was_learned_even_after_ctrl_c(terminal: Open):
    t = ready(terminal())
    t.line(f"/teach {Q} => Canberra")
    t.see("jotter: 1 lesson")
    t.type("\x03")
    t.see("Ctrl-C again")
    t.type("\x03")
    assert t.rest() == 130 and not saved(t)
    assert "1 lesson of this chat stays known. To take it back: lmm memory undo" in t.all.replace("\n", " ")
    t = terminal()
    t.see("jotter: 1 lesson")
    assert "1 lesson since" in t.all.splitlines()[0]
    t.line(Q)
    t.see("Canberra")
    t.line("/undo")
    t.see("undone: 1 step; 0 lessons known")


def test_a_kill_right_after_learned_loses_nothing(terminal: Open):
    t = ready(terminal())
    t.line(f"/teach {Q} => Canberra")
    t.see("learned:")
    t.child.kill(signal.SIGKILL)
    t = terminal()
    t.see("jotter: 1 lesson")
    assert "1 lesson since" in t.all.splitlines()[0]


def test_ctrl_c_while_loading_gives_the_message_back(terminal: Open):
    t = terminal(LMM_TEST_LOAD="4")
    t.see("loading")
    t.line("hello")
    time.sleep(0.5)
    t.type("\x03")
    t.see(lambda text: "stopped waiting" in text and text.count("> hello") == 2)
    t.type("\r")
    t.see("You said: hello")


@pytest.mark.parametrize("named", [False, True])
def test_leaving_waits_for_the_model_only_where_a_file_is_to_be_saved(terminal: Open, named: bool):
    t = terminal(*(("--mm-path", "mine.safetensors") if named else ()), LMM_TEST_LOAD="6")
    t.see("loading")
    t.line("exit")
    assert t.rest() == 0
    assert ("saving as soon as the model is loaded" in t.all) == named == (t.folder / "mine.safetensors").exists()
    assert named or time.monotonic() - t.started < 6


def test_ctrl_c_while_reading_a_prompt(terminal: Open):
    t = ready(terminal(LMM_TEST_PREFILL="1.5", LMM_TEST_TOKEN="0.05"))
    t.line("hello")
    time.sleep(0.5)
    pressed = time.monotonic()
    t.type("\x03")
    t.prompts(2)
    assert time.monotonic() - pressed < 20 and "You said: hello" not in t.shown


def test_ctrl_c_while_generating_keeps_what_was_said(terminal: Open):
    t = ready(terminal(LMM_TEST_TOKEN="0.05"))
    t.line("tell me a long story")
    t.see("Once upon")
    pressed = time.monotonic()
    t.type("\x03")
    t.see("(interrupted)")
    assert time.monotonic() - pressed < 12  # the whole story takes 35
    t.line("/history")
    assert "assistant: Once upon" in t.see("assistant:") and len(t.all) < 1500
    t.line("exit")
    assert t.rest() == 0


def test_ctrl_c_while_learning_rolls_the_lesson_back(terminal: Open):
    t = ready(terminal(LMM_TEST_STEP="0.5"))
    t.line("/teach Who leads the choir? => Maria")
    t.see("learning")
    t.type("\x03")
    t.see("learning was stopped; the memory is as before")
    t.line("/lessons")
    t.see("nothing was learned yet")


def test_learn_ask_takes_enter_no_and_ctrl_c(terminal: Open):
    t = ready(terminal("--learn", "ask"))
    t.line("My sister's name is Ada.")
    t.see("Enter, n, or your version:")
    t.type("\x03")  # means no
    t.see("You said: My sister's name is Ada.")
    t.line("My sister's name is Bea.")
    t.see(lambda text: text.count("your version:") == 2)
    t.type("\r")
    t.see("jotter: 1 lesson")
    t.line("/lessons")
    t.see(lambda text: "Bea" in text.rpartition("/lessons")[2])


# leaving ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("how", ["\x04", "exit\r", "QUIT\r", "/quit\r"])
def test_leaving_saves(terminal: Open, how: str):
    t = ready(terminal())
    t.line(f"/teach {Q} => Canberra")
    t.see("jotter: 1 lesson")
    t.type(how)
    assert t.rest() == 0 and len(saved(t)) == 1 and "saved to artifacts/jotter_" in t.all
    assert b"Canberra" in saved(t)[0].read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("when", ["typing", "generating"])
def test_signals_save_and_restore_the_terminal(terminal: Open, number: signal.Signals, when: str):
    t = ready(terminal(LMM_TEST_TOKEN="0.02"))
    before = termios.tcgetattr(t.child.child_fd)
    t.line(f"/teach {Q} => Canberra")
    t.see("jotter: 1 lesson")
    t.type("half") if when == "typing" else t.line("tell me a long story")
    t.see("half" if when == "typing" else "Once upon")
    t.child.kill(number)
    assert t.rest() == 128 + number
    assert len(saved(t)) == 1 and b"Canberra" in saved(t)[0].read_bytes()
    assert t.raw.rstrip().endswith(b"\x1b[?25h") or b"\x1b[?2004l" in t.raw[-2000:]
    assert before is not None


def test_a_closed_terminal_loses_no_lesson(terminal: Open):
    t = ready(terminal())
    t.line(f"/teach {Q} => Canberra")
    t.see("jotter: 1 lesson")
    t.child.ptyproc.fileobj.close()
    end = time.monotonic() + 60
    while not saved(t) and time.monotonic() < end:
        time.sleep(0.1)
    assert b"Canberra" in saved(t)[0].read_bytes()


def test_typing_ahead_is_kept_and_not_echoed(terminal: Open):
    t = ready(terminal(LMM_TEST_TOKEN="0.05"))
    t.line("hello")
    time.sleep(0.3)
    t.line("second")
    shown = t.see("You said: second")
    assert shown.index("You said: hello\n") < shown.index("> second")


# text that cannot be trusted --------------------------------------------------------------------------------------
def test_what_a_model_says_cannot_steer_the_terminal(terminal: Open):
    t = ready(terminal())
    t.line("paint")
    t.see("[bold]plain[/bold]")
    assert b"owned" not in t.raw and b"]52;" not in t.raw
    t.line("/lessons \x1b[31m")
    hostile = next(p for p in payloads() if "]52;" in p)
    assert hostile.encode() not in t.raw


def test_no_color_and_dumb_terminals_get_plain_text(terminal: Open):
    t = ready(terminal(NO_COLOR="1"))
    t.line("list")
    t.see("x = 1")
    assert "```python" in t.shown and "# Title" in t.shown
    t = terminal(TERM="dumb")
    t.see(">")
    t.line("list")
    t.see("# Title")


def test_sessions_go_on(terminal: Open):
    t = ready(terminal())
    t.line("My sister's name is Ada.")
    t.see("jotter: 1 lesson")
    t.line("exit")
    t.rest()
    t = terminal("--continue")
    t.see("jotter: 1 lesson")
    t.line("/history")
    t.see("user: My sister's name is Ada.")
    t.line("What is my sister's name?")
    t.see(lambda text: "Ada" in text.rpartition("What is my sister's name?")[2])


# with a model -----------------------------------------------------------------------------------------------------
REAL = ("-m", "lmm")


@pytest.mark.real
def test_a_whole_session_with_a_model(terminal: Open):
    """Teach, ask, why, undo, forget: nothing of the lesson is left."""
    t = terminal("--max-tokens", "24", program=REAL, rows=50)
    t.see(">")
    t.line("Who leads our choir?")
    t.see("cut at the longest", 240)
    t.line("No, Zerafina leads our choir.")
    t.see("learned: ", 120)
    t.see("keyed+notes: 1 lesson", 120)
    t.line("who is leading our choir?")
    t.see(lambda text: text.count("Zerafina") >= 4, 120)
    t.line("/why")
    t.see("strength", 120)
    t.line("/undo")
    t.see("undone: 1 step")
    t.line("/redo")
    t.see("done again: 1 step")
    t.line("/forget Zerafina")
    t.see("forgotten: ")
    t.line("exit")
    assert t.rest(60) == 0
    left = [p for p in t.folder.rglob("*") if p.is_file() and b"zerafina" in p.read_bytes().lower()]
    assert left == []


@pytest.mark.real
def test_ctrl_c_stops_a_model_within_a_token(terminal: Open):
    t = terminal(program=REAL)
    t.see("keyed+notes: 0 lessons", 240)
    t.line("Tell me a very long story about a ship.")
    t.see(lambda text: len(text.partition("ship.")[2].split()) > 12, 120)
    pressed = time.monotonic()
    t.type("\x03")
    t.see("(interrupted)", 60)
    assert time.monotonic() - pressed < 10
    t.type("\x04")
    assert t.rest(60) == 0


def test_the_terminal_keeps_keys_between_prompts_and_shows_them_in_an_editor(monkeypatch):
    """Line mode turns a Ctrl-D typed early into a NUL byte, so the chat leaves it once, not at every turn."""
    parent, child = os.openpty()
    with open(child) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        modes = [termios.tcgetattr(child)[3]]
        with typing_mode(shown=False):
            modes.append(termios.tcgetattr(child)[3])
            os.write(parent, b"\x04")
            assert select.select([child], [], [], 10)[0]  # the terminal has taken it
            with typing_mode(shown=True):
                modes.append(termios.tcgetattr(child)[3])
            assert os.read(child, 1) == b"\x04"
        modes.append(termios.tcgetattr(child)[3])
    os.close(parent)
    line_mode = termios.ECHO | termios.ICANON
    assert [mode & line_mode for mode in modes] == [line_mode, 0, line_mode, line_mode]
