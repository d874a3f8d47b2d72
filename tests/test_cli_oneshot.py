"""The command line without a terminal: what is on stdout, what on stderr, how it exits. Scripted engine, real files."""

from __future__ import annotations

import errno
import io
import json
import os
import shlex
import stat
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import scripted
import terminals
from payloads import payloads

from lmm import __version__ as version
from lmm.chat.history import JsonHistory, history_path
from lmm.cli import app as cli
from lmm.config import Config
from lmm.engine import runtime
from lmm.files import journal, jsonl
from lmm.files import state_file as state
from lmm.text.sanitize import clean

Q, A = "What is the capital of Australia?", "The capital of Australia is Canberra."


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def lmm(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path):
    """Run `lmm ARGS` in this process; stdin is no terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LMM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("LMM_MEMORY", "jotter")
    monkeypatch.setattr(runtime, "open_mind", runtime.open_mind)
    monkeypatch.setattr(runtime, "open_engine", runtime.open_engine)  # so that it is put back
    scripted.install()

    def run(*args: str, stdin: str | bytes = "") -> Result:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["lmm", *args])
        given = io.StringIO(stdin) if isinstance(stdin, str) else io.TextIOWrapper(io.BytesIO(stdin), "utf-8")
        monkeypatch.setattr(sys, "stdin", given)
        try:
            cli.main()
            code: Any = 0
        except SystemExit as left:
            code = left.code
        out, err = capfd.readouterr()
        return Result(code or 0, out, err)

    return run


# standing memories -------------------------------------------------------------------------------------------------
def test_what_was_taught_is_known_tomorrow_without_a_flag(lmm, tmp_path: Path):
    taught = lmm("teach", Q, "Canberra")
    file = tmp_path / "data/memories/smollm2-135m-instruct/jotter.safetensors"
    assert taught.out == f"{file}\n" and stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not (tmp_path / "artifacts").exists()
    assert lmm("ask", Q).out == f"{A}\n"
    assert A in lmm("chat", stdin=f"{Q}\n").out
    assert not (tmp_path / "artifacts").exists()  # a chat that learned nothing leaves no copy


def test_fresh_knows_nothing_and_touches_nothing(lmm, tmp_path: Path):
    lmm("teach", Q, "Canberra")
    before = {path: path.read_bytes() for path in (tmp_path / "data/memories").rglob("*") if path.is_file()}
    assert "Sydney" in lmm("ask", Q, "--fresh").out
    assert lmm("teach", "Who?", "Maria", "--fresh").out.startswith("artifacts/jotter_")
    lmm("chat", "--fresh", stdin="/teach Who? => Maria\n")
    assert before == {path: path.read_bytes() for path in (tmp_path / "data/memories").rglob("*") if path.is_file()}


def test_without_a_file_memory_commands_mean_the_standing_memory(lmm):
    assert "no standing memory" in lmm("memory", "show").err
    lmm("teach", Q, "Canberra")
    lmm("teach", "Who is my sister?", "Vera")
    assert "Canberra" in lmm("memory", "show").out and lmm("memory", "verify").out.endswith(
        "jotter.safetensors: good\n"
    )
    assert lmm("memory", "forget", "sister", "--yes").code == 0
    left = lmm("memory", "show", "--json").json["lessons"]
    assert [x["prompt"] for x in left] == [Q]
    assert all("/profiles/work/" in lmm("memory", what, "--profile", "work").err for what in ("check", "undo"))


def test_profiles_and_models_know_their_own(lmm, tmp_path: Path):
    lmm("teach", Q, "Canberra", "--profile", "work")
    assert "Sydney" in lmm("ask", Q).out and "Sydney" in lmm("ask", Q, "--profile", "work", "--model", "other").out
    assert lmm("ask", Q, "--profile", "work").out == f"{A}\n"
    assert lmm("ask", Q, "--profile", "../work").code == 2
    refused = lmm("chat", "--profile", "../work", stdin="")
    assert refused.code == 2 and refused.err.count("\n") == 1, "more was said than what is wrong"
    lmm("teach", Q, "Perth", "--model", "some/where")
    listed = [row["path"] for row in lmm("memory", "list", "--json").json]
    folder = tmp_path / "data"
    assert listed == [
        str(folder / "memories/some--where/jotter.safetensors"),
        str(folder / "profiles/work/memories/smollm2-135m-instruct/jotter.safetensors"),
    ]


def test_lessons_of_days_ago_are_taken_back(lmm):
    for question, answer in (("Who is A?", "Ann"), ("Who is B?", "Bob"), ("Who is C?", "Cem"), ("Who is D?", "Dan")):
        lmm("teach", question, answer)
    undone = lmm("memory", "undo")
    assert undone.out == "- Who is D? => D is Dan.\n" and "3 lessons" in undone.err
    assert "Who is C?" in lmm("chat", stdin="/undo\n").err
    assert {x["prompt"] for x in lmm("memory", "undo", "--json").json["gone"]} == {"Who is B?"}
    lmm("chat", stdin="/redo\n/teach Who is D? => Dan\n/forget Dan\n")
    assert lmm("memory", "undo", "7").out == "- Who is A? => A is Ann.\n"
    assert "nothing to undo" in lmm("memory", "undo").err
    assert lmm("memory", "undo", "--fresh").code == 2


def test_a_standing_memory_that_cannot_be_read_stops_nothing_and_stays(lmm, tmp_path: Path):
    file = Path(lmm("teach", Q, "Canberra").out.strip())
    file.write_bytes(b"nonsense")
    found = lmm("ask", Q)
    assert found.code == 0 and "Sydney" in found.out and "not kept" in found.err and "--profile" in found.err
    assert file.read_bytes() == b"nonsense"


def test_a_chat_that_learned_leaves_a_copy_once(lmm, tmp_path: Path):
    lmm("chat", stdin=f"/teach {Q} => Canberra\n/save mine.safetensors\n")
    assert not (tmp_path / "artifacts").exists()
    lmm("chat", stdin="/teach Who? => Maria\n")
    assert len(list((tmp_path / "artifacts").iterdir())) == 1


def test_what_is_loaded_does_not_take_the_place_of_the_standing_memory(lmm):
    lmm("teach", "Who?", "Maria", "--mm-path", "friend.safetensors")
    lmm("teach", Q, "Canberra")
    found = lmm("chat", stdin=f"/load friend.safetensors\n/teach Who else? => Bea\n{Q}\n")
    assert "stays as it was" in found.err and "Sydney" in found.out
    assert "Bea" in lmm("chat", "--mm-load-path", found.err.rpartition("saved to ")[2].strip(), stdin="/lessons\n").out
    assert lmm("ask", Q).out == f"{A}\n" and "Bea" not in lmm("chat", stdin="/lessons\n").out


def test_a_session_goes_on_with_its_standing_memory(lmm):
    lmm("chat", "--profile", "work", stdin=f"hello\n/teach {Q} => Canberra\n")
    assert A in lmm("chat", "--continue", stdin=f"{Q}\n").out
    lmm("ask", "Who leads the choir?", "--profile", "work")
    lmm("correct", "Maria")
    assert "Maria" in lmm("ask", "Who leads the choir?", "--profile", "work").out


# asking and teaching ----------------------------------------------------------------------------------------------
def test_ask_puts_the_answer_on_stdout_and_nothing_else(lmm):
    found = lmm("ask", Q)
    assert (found.code, found.out) == (0, "The capital of Australia is Sydney.\n")
    assert lmm("ask", "What is", "the capital of Australia?").out == found.out
    assert lmm("ask", stdin=f"{Q}\n").out == found.out
    assert lmm("ask", "Sum up:", stdin="some text").out == "You said: Sum up:\n\nsome text\n"


def test_ask_nothing_is_a_usage_error(lmm):
    found = lmm("ask")
    assert found.code == 2 and found.out == "" and "QUESTION" in found.err
    assert lmm("nonsense").code == 2
    assert lmm("ask", Q, "--max-tokens", "many").code == 2
    assert lmm("ask", Q, "--memory", "nots").code == 2


def test_ask_learns_nothing(lmm, tmp_path: Path):
    lmm("ask", "My sister's name is Ada.", "--mm-path", "m.safetensors")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_taught_is_known_in_the_next_command(lmm):
    taught = lmm("teach", Q, "Canberra", "--mm-path", "m.safetensors")
    assert (taught.code, taught.out) == (0, "m.safetensors\n") and "learned: " in taught.err
    found = lmm("ask", Q, "--mm-path", "m.safetensors", "--json")
    assert found.json["answer"] == A and found.json["fired"][0]["strength"] == 0.9 and found.code == 0


def test_teaching_from_stdin(lmm):
    lines = f'{Q} => Canberra\n\n{{"question": "Who leads the choir?", "answer": "Maria"}}\n'
    found = lmm("teach", "--json", "--mm-path", "m.safetensors", stdin=lines)
    assert [x["question"] for x in found.json["learned"]] == [Q, "Who leads the choir?"]
    assert [x.prompt for x in state.read_header("m.safetensors").lessons] == [Q, "Who leads the choir?"]
    broken = lmm("teach", stdin="fine => yes\nno arrow\n")
    assert broken.code == 2 and "line 2" in broken.err and broken.out == ""


def test_teaching_a_memory_that_does_not_learn_is_an_error(lmm):
    found = lmm("teach", Q, "Canberra", "--memory", "identity", "--json")
    assert found.code == 1 and found.json["learned"] == [] and "does not learn" in found.json["failed"][0]["error"]


def test_correct_is_about_the_last_question(lmm):
    assert lmm("correct", "Canberra").code == 2  # nothing was asked yet
    lmm("ask", Q, "--mm-path", "m.safetensors")
    found = lmm("correct", "Canberra", "--mm-path", "m.safetensors")
    assert found.code == 0 and "Canberra" in found.out and f"about: {Q}" in found.err and "/undo" not in found.err
    assert lmm("ask", Q, "--mm-path", "m.safetensors").out == f"{A}\n"
    again = lmm("correct", "Perth", "--mm-path", "m.safetensors", "--json")  # about the same question
    assert "Perth" in again.json["answer"] and again.json["path"] == "m.safetensors"


@pytest.mark.slow
def test_a_question_does_not_wait_for_a_silent_pipe(tmp_path: Path):
    env = terminals.environment(tmp_path)
    code = [sys.executable, terminals.SCRIPTED, "ask", "--memory", "jotter", "hello"]
    quiet = subprocess.Popen(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, cwd=tmp_path, text=True)
    assert quiet.wait(60) == 0 and quiet.stdout.read() == "You said: hello\n"
    late = subprocess.Popen(
        [*code, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, cwd=tmp_path, text=True
    )
    time.sleep(2)
    assert late.communicate("below", timeout=60)[0] == "You said: hello\n\nbelow\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "stream"),
    [(command, stream) for command in ("ask hi", "teach Who? Maria") for stream in (">/dev/full", ">&-", "2>&-")]
    + [("config show", ">/dev/full"), ("doctor", ">&-"), ("ask hi", "<&-"), ("ask hi", "| true")]
    + [("correct Maria", ">/dev/full")],
)
def test_a_stream_that_is_closed_or_full_is_one_line(tmp_path: Path, command: str, stream: str):
    run = f"{sys.executable} {terminals.SCRIPTED} {command} {stream}"
    env = terminals.environment(tmp_path) | {"LMM_MEMORY": "jotter"}
    if command.startswith("correct"):
        subprocess.run([sys.executable, terminals.SCRIPTED, "ask", "Who?"], env=env, cwd=tmp_path, capture_output=True,
                       stdin=subprocess.DEVNULL, timeout=60)  # fmt: skip
    found = subprocess.run(run, shell=True, env=env, cwd=tmp_path, text=True, capture_output=True, timeout=60)
    assert "Traceback" not in found.stderr and "Exception" not in found.stderr
    if stream.startswith(">"):
        assert found.returncode == 1 and found.stderr.splitlines()[-1].startswith("lmm: ")
    if command.startswith("teach"):
        env = terminals.environment(tmp_path) | {"LMM_MEMORY": "jotter"}
        asked = subprocess.run([sys.executable, terminals.SCRIPTED, "ask", "Who?"], env=env, cwd=tmp_path, text=True,
                               stdin=subprocess.DEVNULL, capture_output=True, timeout=60)  # fmt: skip
        assert "Maria" in asked.stdout


def test_what_could_not_be_noted_is_not_corrected_in_the_place_of_what_came_before(lmm, tmp_path, monkeypatch):
    lmm("ask", "What is A?")
    append = jsonl.append

    def full(path: Path, *args: Any, **more: Any) -> None:
        if "sessions" in path.parts:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(path, *args, **more)

    with monkeypatch.context() as patched:
        patched.setattr(jsonl, "append", full)
        assert "`lmm correct` will not know of this" in lmm("ask", "What is B?").err
    refused = lmm("correct", "Bo")
    assert refused.code == 2 and "ask it again" in refused.err
    lmm("ask", "What is C?")
    assert "about: What is C?" in lmm("correct", "Bo").err


def test_correct_is_about_what_was_said_last_in_time(lmm):
    lmm("chat", stdin="What is A?\n")
    lmm("ask", "What is B?")
    lmm("chat", "--continue", stdin="What is C?\n")  # into the older file
    assert "about: What is C?" in lmm("correct", "Bo").err


def test_what_was_learned_before_ctrl_c_is_in_the_file(lmm, monkeypatch: pytest.MonkeyPatch):
    learn = scripted.Jotter.learn

    def stopped(self, known, lesson, *more):
        if lesson.prompt == "Who is C?":
            raise KeyboardInterrupt
        return learn(self, known, lesson, *more)

    monkeypatch.setattr(scripted.Jotter, "learn", stopped)
    lines = "".join(f"Who is {x}? => {x}nn\n" for x in "ABCD")
    for where in (["--mm-path", "m.safetensors"], []):
        found = lmm("teach", *where, stdin=lines)
        assert found.code == 130 and found.err.count("learned: ") == 2
        assert "Bnn" in lmm("ask", "Who is B?", *where).out and "You said" in lmm("ask", "Who is C?", *where).out


def test_what_cannot_be_saved_is_not_learned(lmm, tmp_path: Path):
    (tmp_path / "file").write_text("")
    for flag in ("--mm-path", "--mm-save-path"):
        found = lmm("teach", Q, "Canberra", flag, "file/m.safetensors")
        assert found.code == 2 and "nothing was learned" in found.err and "lmm: learned: " not in found.err


def test_ctrl_c_exits_with_130_and_saves_nothing(lmm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scripted.Jotter, "learn", interrupted)
    assert lmm("teach", Q, "Canberra").code == 130
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_file_that_is_damaged_is_one_line_and_exit_1(lmm):
    Path("m.safetensors").write_bytes(b"nonsense")
    found = lmm("ask", Q, "--mm-path", "m.safetensors")
    assert found.code == 1 and found.out == "" and len(found.err.splitlines()) == 1


# chat without a terminal ------------------------------------------------------------------------------------------
def test_a_piped_chat_answers_on_stdout_and_saves(lmm, tmp_path: Path):
    found = lmm("chat", stdin=f"{Q}\nNo, it's Canberra.\n{Q}\n/lessons\n")
    assert found.code == 0
    assert found.out.splitlines()[:3] == ["The capital of Australia is Sydney.", A, A]
    assert "learned: capital of Australia -> Canberra" in found.err and "saved to artifacts/jotter_" in found.err
    assert len(list((tmp_path / "artifacts").iterdir())) == 1
    assert "\x1b" not in found.out + found.err


@pytest.mark.parametrize("args", ["recall add -", "recall add", "ask -", "teach", "encode", "recall import -"])
def test_bytes_that_are_no_text_are_refused(lmm, args: str):
    found = lmm(*args.split(), stdin=b"fine => yes\n\xff\xfe bad => no\n")
    assert found.code in (1, 2) and found.out == ""
    assert "line 2: byte 0xff" in found.err or "none of them could be read" in found.err
    assert lmm("recall", "list").out == ""


def test_a_file_and_a_question_that_are_no_text_are_refused(lmm, tmp_path: Path):
    (tmp_path / "text").write_bytes(b"J\xf6rg")
    found = lmm("encode", "--file", "text")
    assert found.code == 2 and "text is not UTF-8, in line 1: byte 0xf6" in found.err
    assert "the question is not UTF-8" in lmm("ask", "J\udcf6rg").err


def test_a_line_of_a_piped_chat_that_is_no_text_is_said_and_the_others_are_answered(lmm):
    found = lmm("chat", stdin=b"hello\nMy name is J\xf6rg.\nho\n")
    assert found.code == 1 and found.out == "You said: hello\nYou said: ho\n"
    assert "the message is not UTF-8, in line 1: byte 0xf6" in found.err


def test_a_message_in_a_pipe_that_cannot_be_answered_is_exit_1(lmm, monkeypatch: pytest.MonkeyPatch):
    make = scripted.ScriptedAdapter.__init__

    def small(self: scripted.ScriptedAdapter, *args: Any) -> None:
        make(self, *args)
        self.shape = replace(self.shape, context=120)

    monkeypatch.setattr(scripted.ScriptedAdapter, "__init__", small)
    lines = [f"Hello {number}" for number in range(12)]
    found = lmm("chat", stdin="\n".join(lines))
    assert found.code == 0 and found.out.splitlines() == [f"You said: {line}" for line in lines]  # it made room
    found = lmm("chat", stdin=f"hi\n{'long ' * 40}\n/nonsense\nho\n")
    assert found.code == 1 and found.out == "You said: hi\nYou said: ho\n"
    assert "in fewer words" in found.err and found.err.endswith("1 message could not be answered\n")


@pytest.mark.parametrize("last", ["exit\n", "QUIT\n", "/quit\n", ""])
def test_leaving_a_piped_chat(lmm, last: str):
    found = lmm("chat", "--mm-save-path", "m.safetensors", stdin=f"hello\n{last}")
    assert found.code == 0 and found.out == "You said: hello\n" and Path("m.safetensors").exists()


def test_forgetting_in_a_piped_chat_cleans_what_was_typed_in_others(lmm, tmp_path: Path):
    from lmm.chat.history import JsonHistory, history_path

    for line in (f"/teach {Q} => Zanzibarra", "hello", "/forget zanzibarra"):
        JsonHistory(history_path()).append_string(line)
    found = lmm("chat", stdin=f"/teach {Q} => Zanzibarra\n/forget zanzibarra\n")
    assert "forgotten" in found.err and history_path().read_text() == '"hello"\n'
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"zanzibarra" in p.read_bytes().lower()]


def test_a_missing_file_to_load_is_skipped_with_a_notice(lmm):
    found = lmm("chat", "--mm-load-path", "none.safetensors", stdin="hello\n")
    assert found.code == 0 and "none.safetensors does not exist" in found.err


def test_loading_that_fails_ends_the_chat(lmm):
    Path("m.safetensors").write_bytes(b"nonsense")
    found = lmm("chat", "--mm-load-path", "m.safetensors", stdin="hello\n")
    assert found.code == 1 and found.out == "" and "m.safetensors" in found.err


def test_a_chat_goes_on_with_its_memory_and_its_messages(lmm):
    lmm("chat", stdin="My sister's name is Ada.\n")
    found = lmm("chat", "--continue", stdin="/history\nWhat is my sister's name?\n")
    assert "user: My sister's name is Ada." in found.out and "Ada" in found.out.splitlines()[-1]
    which = lmm("sessions", "--json").json
    assert len(which) == 1 and which[0]["turns"] == 2 and which[0]["lessons"] == 1
    shown = lmm("sessions", which[0]["id"][:15])
    assert shown.out.startswith("> My sister's name is Ada.\n")
    assert lmm("chat", "--resume", "1999", stdin="").code == 2


def test_a_chat_does_not_go_on_with_a_question_that_was_asked_in_between(lmm):
    lmm("chat", stdin="My sister's name is Ada.\n")
    lmm("ask", Q)
    assert "about: My sister" not in lmm("correct", "Canberra").err
    listed = lmm("sessions", "--last", "1", "--json").json
    assert [(s["title"], s["lessons"]) for s in listed] == [("My sister's name is Ada.", 1)]
    assert "user: My sister's name is Ada." in lmm("chat", "--continue", stdin="/history\n").out


def test_forgetting_takes_a_correction_out_of_its_transcript(lmm, tmp_path: Path):
    lmm("ask", "hello")
    lmm("correct", "7", "--mm-path", "m.safetensors")
    lmm("chat", "--no-log", stdin="Are there 7?\n")
    assert lmm("memory", "forget", "m.safetensors", "7", "--yes", "--json").json["transcript_records"] == 1
    left = [json.loads(line) for p in (tmp_path / "data/sessions").iterdir() for line in p.read_text().splitlines()]
    assert sorted(r["user"] for r in left if r["kind"] == "turn") == ["Are there 7?", "hello"]


# memory files -----------------------------------------------------------------------------------------------------
@pytest.fixture
def two(lmm) -> tuple[str, str]:
    lmm("teach", "--mm-path", "a.safetensors", stdin=f"{Q} => Canberra\nWho leads the choir? => Maria\n")
    lmm("teach", "--mm-path", "b.safetensors", stdin=f"{Q} => Perth\nWho sells bread? => Bo\n")
    return "a.safetensors", "b.safetensors"


def test_list_show_and_verify(lmm, two):
    listed = lmm("memory", "list", ".", "--json").json
    assert {x["path"] for x in listed} == set(two) and all(x["lessons"] == 2 for x in listed)
    assert lmm("memory", "list", ".").out.count("\n") == 3
    assert "Canberra" in lmm("memory", "show", two[0]).out
    assert lmm("memory", "show", two[0], "--json").json["module"] == "jotter"
    assert lmm("memory", "verify", *two).code == 0
    data = bytearray(Path(two[0]).read_bytes())
    data[-1] ^= 1
    Path(two[0]).write_bytes(data)
    found = lmm("memory", "verify", *two, "--json")
    assert found.code == 1 and found.json[two[0]] and not found.json[two[1]]


def test_diff_says_what_differs(lmm, two):
    found = lmm("memory", "diff", *two)
    assert found.code == 0 and f"! {Q}" in found.out and "- Who leads" in found.out and "+ Who sells" in found.out
    same = lmm("memory", "diff", two[0], two[0])
    assert same.out == "" and "the same" in same.err
    lmm("teach", Q, "Canberra")
    assert "- Who leads" in lmm("memory", "diff", two[0]).out  # against the standing memory


def test_merge_names_conflicts_and_keeps_both_sets(lmm, two):
    found = lmm("memory", "merge", *two, "-o", "c.safetensors")
    assert found.code == 2 and "Canberra" in found.err and "Perth" in found.err and not Path("c.safetensors").exists()
    for prefer, kept in (("first", "Canberra"), ("second", "Perth")):
        merged = lmm("memory", "merge", *two, "-o", f"{prefer}.safetensors", "--prefer", prefer)
        assert merged.code == 0
        lessons = state.read_header(f"{prefer}.safetensors").lessons
        assert len(lessons) == 3 and kept in "".join(x.answer for x in lessons)
        assert kept in lmm("ask", Q, "--mm-path", f"{prefer}.safetensors").out
        assert state.verify(f"{prefer}.safetensors") == []
    again = lmm("memory", "merge", *two, "-o", "first.safetensors", "--prefer", "first")
    assert again.code == 2 and "--yes" in again.err


def test_forget_asks_and_leaves_no_byte(lmm, two, tmp_path: Path):
    lmm("ask", Q, "--mm-path", two[0])
    refused = lmm("memory", "forget", two[0], "Canberra")
    assert refused.code == 2 and "--yes" in refused.err
    assert lmm("memory", "forget", two[0], "a").code == 2  # several lessons have it
    found = lmm("memory", "forget", two[0], "Canberra", "--yes", "--json")
    assert found.code == 0 and found.json["forgotten"]["prompt"] == Q
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"Canberra" in p.read_bytes()]
    assert state.verify(two[0]) == [] and "Sydney" in lmm("ask", Q, "--mm-path", two[0]).out


def test_what_a_forgotten_lesson_took_the_place_of_leaves_the_file_too(lmm, tmp_path: Path, monkeypatch):
    learn = lambda self, known, lesson, *rest: known.taught(known.state, lesson, known.superseded(lesson))  # noqa: E731
    monkeypatch.setattr(scripted.Jotter, "learn", learn)
    for name in ("Zerafina", "Ottokar"):
        lmm("teach", "Who keeps the boat?", name)
    [path] = [Path(row["path"]) for row in lmm("memory", "list", "--json").json]
    assert b"Zerafina" in path.with_name(f"{path.name}.undo").read_bytes()
    assert lmm("memory", "forget", str(path), "Ottokar", "--yes").code == 0
    assert not [p for p in path.parent.iterdir() if b"Zerafina" in p.read_bytes()]


def test_a_lesson_is_named_by_its_number(lmm, two):
    assert [line.split("\t")[0] for line in lmm("memory", "show", two[0]).out.splitlines() if "Maria" in line] == ["2"]
    assert lmm("memory", "forget", two[0], "3", "--yes").code == 2
    assert "Maria" in lmm("memory", "forget", two[0], "2", "--yes").err
    assert "Maria" not in lmm("memory", "show", two[0]).out and "Canberra" in lmm("memory", "show", two[0]).out
    lmm("teach", "How many boats are there?", "1", "--mm-path", two[0])
    assert "2 lessons" in lmm("memory", "forget", two[0], "1", "--yes").err, "a number that is also said names nobody"


SECRET = "What is the code of the vault?"


def said_everywhere(lmm) -> None:
    """A code that was taught, corrected, said again later, typed, exported and put aside."""
    lmm("teach", SECRET, "Zx-4711")
    lmm("chat", stdin=f"So the code is Zx-4711, right?\n{SECRET}\nhello\n/save copy.safetensors\n/export md said.md\n")
    lmm("teach", SECRET, "Zx-4712")
    lmm("memory", "undo")
    lmm("memory", "undo")
    lmm("teach", SECRET, "Zx-4711")
    JsonHistory(history_path()).store_string("is zx-4711 still right?")


def bytes_of(value: bytes) -> list[str]:
    found = [path for path in Path().rglob("*") if path.is_file() and value.lower() in path.read_bytes().lower()]
    return sorted(path.name for path in found)


def test_a_value_is_forgotten_everywhere_and_what_is_yours_is_named(lmm):
    said_everywhere(lmm)
    assert len(bytes_of(b"Zx-4711")) >= 6
    assert lmm("memory", "forget", "--everywhere", "Zx-4711").code == 2  # it asks
    found = lmm("memory", "forget", "--everywhere", "Zx-4711", "--yes")
    assert found.code == 1 and "said.md: exported before" in found.err  # which is the user's own
    assert bytes_of(b"Zx-4711") == ["said.md"] and "hello" in lmm("sessions").out + Path("said.md").read_text()
    Path("said.md").unlink()
    assert lmm("memory", "forget", "--everywhere", "Zx-4711", "--yes").err == "lmm: nothing here says 'Zx-4711'\n"
    assert "Zx" not in lmm("ask", SECRET).out and lmm("memory", "verify", "copy.safetensors").code == 0
    assert lmm("memory", "forget", "--yes").code == lmm("memory", "forget", "x", "--yes").code == 2


def test_a_value_is_forgotten_in_files_logs_and_texts_of_other_places(lmm, tmp_path: Path, monkeypatch):
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        lmm("teach", SECRET, "Zx-4711", "--mm-path", "named.safetensors")
        lmm("chat", stdin=f"{SECRET}\nno, it is Zx-4711\n")
    os.rename("logs/memory_activations.jsonl", "logs/memory_activations.jsonl.3")
    lmm("recall", "add", "The door code is Zx-4711.", "--user", "ann")
    lmm("recall", "add", "The garden is large.", "--user", "ann")
    (tmp_path / "three").mkdir()
    monkeypatch.chdir(tmp_path / "three")
    found = lmm("memory", "forget", "--everywhere", "Zx-4711", "--yes")
    assert found.code == 0 and "1 texts of `lmm recall`" in found.err, found.err
    monkeypatch.chdir(tmp_path)
    assert bytes_of(b"Zx-4711") == [] and "garden" in lmm("recall", "list", "--user", "ann").out


def test_a_dash_is_stdin(lmm):
    lmm("recall", "add", "-", stdin="The garden is large.\nThe door is red.\n")
    assert "garden" in (listed := lmm("recall", "list").out) and "red" in listed and len(listed.splitlines()) == 3
    lmm("teach", "-", stdin="Who is the mayor? => Maria\n")
    assert "Maria" in lmm("ask", "Who is the mayor?").out
    assert len(lmm("encode", "-", stdin="one\ntwo\n").out.splitlines()) == 2


def test_a_chat_in_a_pipe_that_could_not_keep_a_lesson_is_exit_1(lmm, monkeypatch):
    def full(*args: Any) -> None:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    monkeypatch.setattr(journal, "append", full)
    found = lmm("chat", stdin="/teach Who? => Maria\nMy sister's name is Vera.\nhello\n")
    assert found.code == 1 and found.err.endswith("2 lessons could not be kept\n") and "hello" in found.out


def test_forgetting_deep_takes_what_was_repeated_later_and_else_says_where_it_is(lmm):
    said_everywhere(lmm)
    found = lmm("chat", stdin="/forget Zx-4711\n")
    assert "still said in" in found.err and "lmm memory forget --everywhere 'zx 4711'" in found.err
    assert "said.md, which was exported before" in found.err and "So the code is" in lmm("sessions", "-n", "9").out
    lmm("teach", SECRET, "Zx-4711")
    assert "--everywhere" in lmm("memory", "forget", "copy.safetensors", "Zx-4711", "--yes").err
    found = lmm("chat", stdin="/forget Zx-4711 --deep\n")
    assert "still said in" not in found.err and set(bytes_of(b"Zx-4711")) == {"said.md"}


def test_forgetting_names_the_earlier_files_that_still_hold_the_lesson(lmm, tmp_path: Path):
    lmm("chat", stdin=f"hello\n/teach {Q} => Zanzibarra\n/save my first\n")
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts/broken.safetensors").write_bytes(b"nonsense")
    found = lmm("chat", "--continue", stdin="/forget zanzibarra\n")
    names = [line for line in found.err.splitlines() if "still in " in line]
    assert len(names) == 1 and "my first" in names[0] and "memories" not in names[0]  # it was known from there
    command = names[0].partition("with: lmm ")[2]
    assert lmm(*shlex.split(command)).code == 0
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"zanzibarra" in p.read_bytes().lower()]


def test_the_command_that_forgets_names_the_other_files(lmm):
    lmm("teach", Q, "Zanzibarra", "--mm-path", "m.safetensors")
    for n in "ab":
        lmm("chat", "--mm-load-path", "m.safetensors", "--mm-save-path", f"{n}.safetensors", stdin="hello\n")
    lesson = state.read_header("m.safetensors").lessons[0]
    found = lmm("memory", "forget", "m.safetensors", lesson.id, "--yes")
    assert (
        f"still in a.safetensors, b.safetensors; take it out there with: lmm memory forget FILE {lesson.id}"
        in found.err
    )
    again = lmm("memory", "forget", "a.safetensors", lesson.id, "--yes", "--json").json
    assert [Path(p).name for p in again["still_in"]] == ["b.safetensors"]


def test_migrate_teaches_the_lessons_again(lmm, two):
    found = lmm("memory", "migrate", two[0], "--mm-save-path", "new.safetensors", "--json")
    assert found.code == 0 and len(found.json["learned"]) == 2 and found.json["path"] == "new.safetensors"
    assert lmm("ask", Q, "--mm-path", "new.safetensors").out == f"{A}\n"


@pytest.mark.slow
def test_migrate_keeps_the_options_that_a_file_was_made_with(lmm):
    lmm("teach", Q, "Canberra", "--memory", "hash_gradient", "--set", "bits=32", "--mm-path", "a.safetensors")
    made = state.read_header("a.safetensors").options
    for given, options in (((), made), (("--set", "bits=16"), {**made, "bits": 16})):
        assert lmm("memory", "migrate", "a.safetensors", "--mm-save-path", "new.safetensors", *given).code == 0
        assert state.read_header("new.safetensors").options == options
    both = ("--memory", "hash_gradient+jotter", "--mm-save-path", "both.safetensors")
    assert lmm("memory", "migrate", "a.safetensors", *both).code == 0
    assert state.read_header("both.safetensors").options == {f"hash_gradient.{n}": x for n, x in made.items()}
    alone = ("--memory", "hash_gradient", "--mm-save-path", "alone.safetensors")
    assert lmm("memory", "migrate", "both.safetensors", *alone).code == 0
    assert state.read_header("alone.safetensors").options == made


@pytest.mark.slow
def test_files_that_cannot_be_merged_say_what_teaches_the_one_on_top_of_the_other(lmm):
    for name, bits, question in (("a", 32, Q), ("b", 16, "Who sells bread?")):
        given = ("--memory", "hash_gradient", "--set", f"bits={bits}", "--mm-path", f"{name}.safetensors")
        assert lmm("teach", question, "Canberra", *given).code == 0
    arrays, header = state.load("a.safetensors")
    packaged = replace(header, model_id="HuggingFaceTB/SmolLM2-135M-Instruct", revision="sha256:b179")
    state.save("c.safetensors", arrays, packaged)
    refused = lmm("memory", "merge", "a.safetensors", "c.safetensors")
    assert refused.code == 1 and "model_id: 'toy' and 'HuggingFaceTB/" in refused.err
    assert "--model smollm2-135m-instruct" in lmm("memory", "merge", "c.safetensors", "a.safetensors").err
    refused = lmm("memory", "merge", "a.safetensors", "b.safetensors")
    assert refused.code == 1 and "differ in option bits: 32 and 16." in refused.err
    command = shlex.split(refused.err.partition("other: lmm ")[2])
    command[command.index("--model") + 1] = "smollm2-135m-instruct"  # the toy has no name that can be typed
    assert lmm(*command, "--mm-save-path", "both.safetensors").code == 0
    both = state.read_header("both.safetensors")
    assert both.options == header.options and [x.prompt for x in both.lessons] == [Q, "Who sells bread?"]


def test_options_of_learning_do_not_keep_files_apart(lmm):
    for name, steps, question in (("a", 5, Q), ("b", 6, "Who sells bread?")):
        given = ("--memory", "keyed", "--set", f"steps={steps}", "--mm-path", f"{name}.safetensors")
        assert lmm("teach", question, "Canberra", *given).code == 0
    assert lmm("memory", "merge", "a.safetensors", "b.safetensors", "-o", "c.safetensors").code == 0
    assert state.read_header("c.safetensors").options["steps"] == 5
    assert len(state.read_header("c.safetensors").lessons) == 2


# the log, the doctor ----------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_log_show_and_plot(lmm):
    assert lmm("log", "show").code == 1  # there is none yet
    lmm("teach", Q, "Canberra", "--mm-path", "m.safetensors")
    lmm("ask", Q, "--mm-path", "m.safetensors")
    assert len(lmm("log", "show", "-n", "5", "--all").out.splitlines()) == 6
    found = lmm("log", "show")
    kinds = [line.split("\t")[1] for line in found.out.splitlines()[1:]]
    assert kinds == ["lesson"] and f"{Q} => {A}" in found.out  # a jotter changes no hidden state
    assert "records in which nothing was learned or changed; --all" in found.err
    with Path("logs/memory_activations.jsonl").open("a") as log:
        moved = {"input_slice": [[1.0, 0.0]], "output_slice": [[1.0, 0.5]], "phase": "decode"}
        log.write(json.dumps({"v": 1, "time": 1.0, "kind": "hook", "module": "m", **moved}) + "\n")
    kinds = [line.split("\t")[1] for line in lmm("log", "show").out.splitlines()[1:]]
    assert kinds == ["lesson", "hook"]
    records = lmm("log", "show", "--kind", "update", "--json").json
    assert [r["stage"] for r in records] == ["pre_hooks", "post_hooks"] * 2  # what was taught, and what was asked
    assert "jotter" in lmm("log", "plot").out
    rows = lmm("log", "plot", "--json").json
    assert rows and len(rows[0]["changes"]) > 3
    assert lmm("log", "plot", "-o", "x.html").code == 0 and "<table>" in Path("x.html").read_text()
    assert lmm("log", "plot", "-o", "x.exe").code == 2
    pytest.importorskip("matplotlib")
    assert lmm("log", "plot", "-o", "x.png").code == 0 and Path("x.png").read_bytes()[:4] == b"\x89PNG"


def test_a_record_that_makes_no_sense_costs_the_others_nothing(lmm):
    lmm("teach", Q, "Canberra", "--mm-path", "m.safetensors")
    whole = lmm("log", "show", "--all").out.splitlines()
    odd: list[dict[str, Any]] = [{"time": t, "kind": "hook"} for t in (1e300, -1e20, "x", None, [1], 10**400)]
    odd += [{"time": 1.0, "kind": "hook", "positions": p} for p in (7, {}, [1], "abc")]
    odd += [{"time": 1.0, "kind": "update", "info": info} for info in ("x", [1], {"last_user_response": [2]})]
    odd += [{"time": 1.0, "kind": "hook", "input_slice": [1e200, 10**400], "output_slice": [-1e308, 1]}]
    log = Path("logs/memory_activations.jsonl")
    log.write_text("".join(json.dumps({"v": 1, **record}) + "\n" for record in odd) + log.read_text())
    assert lmm("log", "show", "-n", "1000").code == 0
    found = lmm("log", "show", "-n", "1000", "--all")
    assert found.code == 0
    lines = found.out.splitlines()
    assert lines[0] == whole[0] and lines[1 + len(odd) :] == whole[1:]
    assert [line.split("\t")[0] for line in lines[1:7]] == ["?"] * 6
    assert sum("not as a chat writes it" in line for line in lines) == 12
    assert lmm("log", "plot").code == lmm("log", "plot", "--json").code == 0


def test_a_session_that_cannot_be_read_does_not_hide_the_others(lmm, tmp_path: Path):
    lmm("chat", stdin="hello\n")
    (tmp_path / "data/sessions/20990101-000000-000000.jsonl").mkdir()
    found = lmm("sessions")
    assert found.code == 0 and "hello" in found.out and "20990101-000000-000000 cannot be read" in found.err
    assert [session["turns"] for session in lmm("sessions", "--json").json] == [1]


def test_a_pipe_or_a_device_is_not_waited_for(lmm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lmm("chat", stdin="hello\n")
    os.mkfifo(tmp_path / "data/sessions/20990101-000000-000000.jsonl")
    found = lmm("sessions")
    assert found.code == 0 and "hello" in found.out and "cannot be read (it is not a regular file)" in found.err
    for place in ("/dev/zero", tmp_path / "data/sessions/20990101-000000-000000.jsonl"):
        assert lmm("log", "show", str(place)).code == lmm("log", "plot", str(place)).code == 1
        assert lmm("memory", "verify", str(place)).code == 1
        assert lmm("ask", "q", "--config", str(place)).code == 2
        monkeypatch.setenv("LMM_CONFIG", str(place))
        assert lmm("config", "show").code == 2
        monkeypatch.delenv("LMM_CONFIG")


def test_passes_are_pruned_from_the_log_and_lessons_stay(lmm):
    assert lmm("log", "prune", "--yes").code == 2  # there is none
    lmm("teach", Q, "Canberra")
    lmm("ask", Q)
    assert lmm("log", "prune").code == 2 and lmm("log", "prune", "--days", "1", "--yes").code == 0
    before = len(lmm("log", "show", "--all", "-n", "1000").out.splitlines())
    found = lmm("log", "prune", "--yes", "--json").json
    after = lmm("log", "show", "--all", "-n", "1000").out
    assert found["records"] > 10 and before - found["records"] == len(after.splitlines()) and A in after


def test_a_line_that_is_no_record_is_shown_as_such_beside_the_others(lmm):
    lmm("teach", Q, "Canberra")
    log = Path("logs/memory_activations.jsonl")
    deep = '{"v":1,"kind":"hook","module":["m"],"output_slice":' + "[" * 900 + "]" * 900 + "}"
    log.write_text(f"junk\n{deep}\n{log.read_text()}")
    found = lmm("log", "show", "-n", "1000")
    assert found.code == 0 and "bad\t\tline 1\tno record of an activation log" in found.out and A in found.out
    assert lmm("log", "plot").code == lmm("log", "show", "--all").code == 0


def test_config_alone_shows_every_key_with_where_it_comes_from(lmm):
    found = lmm("config")
    assert found.code == 0 and "memory\tjotter\tenvironment" in found.out.splitlines()
    assert found.out == lmm("config", "show").out and "beams\t4\tdefault" in found.out.splitlines()


def test_a_session_with_a_time_that_is_none_is_listed(lmm):
    lmm("chat", stdin="hello\n")
    whole = lmm("sessions", "--json").json[0]
    path = Path(whole["path"])
    for stamp in ("1e300", "1e999", "-1", "1" + "0" * 400, "NaN", '"x"', "100000000000.1"):
        path.write_text(path.read_text() + f'{{"v":1,"time":{stamp},"kind":"turn","user":"u","reply":"r"}}\n')
    found = lmm("sessions", "--json").json[0]
    assert found["time"] == whole["time"] and found["turns"] == whole["turns"] + 7
    path.write_text('{"v":1,"time":99999999999,"kind":"turn","user":"hello","reply":"r"}\n')
    assert "5138-11-16" in lmm("sessions").out and "hello" in lmm("sessions").out


def test_doctor_finds_what_is_here_and_what_is_missing(lmm, tmp_path: Path):
    pytest.importorskip("torch")
    found = {x["topic"]: x for x in lmm("doctor", "--backend", "torch", "--json").json}
    assert {"program", "backend torch", "device", "model", "memory", "cache", "sessions"} <= found.keys()
    for topic, place in {  # those that the README names
        "memories": "data/memories", "copies": "artifacts", "log": "logs", "sessions": "data",
    }.items():  # fmt: skip
        assert found[topic]["found"] == str(tmp_path / place)
    assert "hub" in found["hub's cache"]["found"] and "cache" in found and "config file" in found
    work = {x["topic"]: x["found"] for x in lmm("doctor", "--profile", "work", "--json").json}
    assert work["memories"] == str(tmp_path / "data/profiles/work/memories")
    broken = lmm("doctor", "--backend", "torch", "--model", "no/such-model", "--local-files-only", "--json")
    assert broken.code == 1
    wrong = next(x for x in broken.json if x["status"] == "bad")
    assert wrong["topic"] == "model" and wrong["advice"]


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (
            "bench compare --data x --memory keyed --limit 0 --lengths 0,8 --questions 0 --epochs 0 --seed -1",
            ("limit", "lengths", "questions", "epochs", "seed"),
        ),
        (
            "bench edit --data x --memory keyed --batch-size 0 --skip speed,x --edits 3,2",
            ("batch_size", "skip", "--edits"),
        ),
        ("bench use --data x --memory keyed --batch-size 0 --max-tokens 0", ("batch_size", "max_tokens")),
        ("bench lookup --sizes 0 --repeats 0", ("sizes", "repeats")),
        ("data exact-match --out x --num-examples 0 --seed -1", ("num_examples", "seed")),
    ],
)
def test_all_that_is_wrong_with_a_measurement_is_named_at_once(lmm, command: str, named: tuple[str, ...]):
    found = lmm(*command.split())
    assert found.code == 2 and [x.split()[0] for x in found.err.removeprefix("lmm: ").split("; ")] == list(named)


def test_the_limits_of_made_up_data_stand_in_its_help(lmm):
    assert "over all splits (10 to 20,000)" in " ".join(lmm("data", "preferences", "--help").out.split())


# settings ---------------------------------------------------------------------------------------------------------
def test_config_show_says_what_holds_and_where_it_comes_from(lmm, monkeypatch: pytest.MonkeyPatch):
    path = Path(lmm("config", "path").out.strip())
    path.write_text("max_tokens = 7\nseed = 3\n")
    monkeypatch.setenv("LMM_SEED", "4")
    found = lmm("config", "show", "--top-p", ".5", "--json").json
    assert found["max_tokens"] == {"value": 7, "from": "file"}
    assert (found["seed"], found["top_p"]) == ({"value": 4, "from": "environment"}, {"value": 0.5, "from": "flag"})
    assert found["learn"] == {"value": "auto", "from": "default"} and len(found) == len(Config.declared())
    assert {"seed\t4\tenvironment", "log\ttrue\tdefault"} <= set(lmm("config", "show").out.splitlines())


def test_config_set_writes_what_is_good_and_refuses_the_rest(lmm):
    path = Path(lmm("config", "path").out.strip())
    path.write_text("# mine\n")
    assert lmm("config", "set", "max_tokens", "7").code == 0
    assert lmm("config", "set", "memory", "lora_on_user").code == 0
    assert lmm("config", "set", "options.rank", "4").code == 0
    good = '# mine\nmax_tokens = 7\nmemory = "lora_on_user"\n\n[options]\nrank = 4\n'
    assert path.read_text() == good and path.stat().st_mode & 0o777 == 0o600
    for key, value, said in (
        ("max_tokens", "0", "1 or above"),
        ("max_tokens", "many", "whole number"),
        ("max_token", "7", "did you mean 'max_tokens'"),
        ("backend", "troch", "did you mean 'torch'"),
        ("memory", "lora", "did you mean"),
        ("options.rnk", "3", "did you mean 'rank'"),
        ("options", "3", "one by one"),
    ):
        found = lmm("config", "set", key, value)
        assert found.code == 2 and said in found.err and len(found.err.splitlines()) == 1, key
    assert path.read_text() == good
    path.write_text("nonsense")
    assert lmm("config", "set", "seed", "1").code == 2 and path.read_text() == "nonsense"


def test_config_sample_is_a_config_file(lmm):
    path = Path(lmm("config", "path").out.strip())
    path.write_text(lmm("config", "sample").out)
    assert lmm("ask", Q).code == 0 and "#stop_repeats = true\n" in path.read_text()


def test_the_version(lmm):
    assert lmm("--version").out == f"lmm {version}\n"


# text that cannot be trusted, and what is imported ----------------------------------------------------------------
def test_hostile_text_in_files_and_names_comes_out_clean(lmm):
    texts = [p for p in payloads()[::20] if "\0" not in p and p.isprintable() is False and not _lone(p)][:12]
    lines = "".join(json.dumps({"question": f"q{p}?", "answer": f"a{p}b"}) + "\n" for p in texts)
    lmm("teach", "--mm-path", "m.safetensors", stdin=lines)
    Path("x\x1b]0;t\x07.safetensors").write_bytes(b"\x1b[31m")
    for args in (
        ("memory", "show", "m.safetensors"),
        ("memory", "list", "."),
        ("memory", "diff", "m.safetensors", "m.safetensors"),
        ("memory", "verify", "x\x1b]0;t\x07.safetensors"),
        ("memory", "forget", "m.safetensors", "q"),
        ("memory", "show", "\x1b]52;c;x\x07"),
        ("memory", "show", "m.safetensors", "--json"),
        ("log", "show"),
        ("sessions",),
    ):
        found = lmm(*args)
        assert clean(found.out) == found.out and clean(found.err) == found.err, args


def _lone(text: str) -> bool:
    return any(0xD800 <= ord(char) < 0xE000 for char in text)


@pytest.mark.slow
@pytest.mark.parametrize("args", [["--help"], ["chat", "--help"], ["memory", "merge", "--help"], ["log", "--help"]])
def test_help_imports_nothing_heavy(args: list[str]):
    code = (
        "import sys\nfrom lmm.cli import app as cli\nsys.argv = ['lmm', *sys.argv[1:]]\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'mlx', 'transformers', 'matplotlib', 'numpy', 'prompt_toolkit'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_an_option_that_is_none_is_named_clean(lmm):
    found = lmm("ask", "a", "--bad\u202ex")
    assert found.code == 2 and "\u202e" not in found.err and "No such option" in found.err


def test_a_folder_beside_the_log_is_left_alone(lmm, tmp_path: Path):
    (tmp_path / "own.jsonl.1").mkdir()
    lmm("chat", "--activation-log-path", "own.jsonl", stdin="/teach Who? => Maria\nWho?\n")
    assert "Maria" in lmm("log", "show", "own.jsonl").out
    (tmp_path / "own.jsonl").write_bytes(b'{"v":1}\n' * 200_000)
    lmm("teach", "Where?", "Oslo", "--activation-log-path", "own.jsonl", "--log-mb", "1")
    assert (tmp_path / "own.jsonl.1").is_dir() and (tmp_path / "own.jsonl.2").is_file()
