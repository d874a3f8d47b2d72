"""The prompt (on prompt_toolkit's pipe input), loading, signals, history and transcripts."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import scripted
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from lmm.chat import render
from lmm.chat.history import JsonHistory
from lmm.chat.interrupts import Interrupts, Leave
from lmm.chat.loading import Loading
from lmm.chat.repl import Repl
from lmm.chat.session import Chat
from lmm.chat.view import ConsoleView
from lmm.config import Config
from lmm.errors import Cancelled, LmmError, UsageError
from lmm.files import transcripts
from lmm.files.traces import Trace
from lmm.lesson import Lesson


def chat(loading: Loading | None = None) -> Chat:
    config = Config(memory="jotter", log=False)
    scripted.install()
    silent = render.make_console(file=io.StringIO())
    loading = loading or Loading(lambda loading: scripted.open_engine(config))
    return Chat(config, loading, lambda: ConsoleView(silent, silent))


def typed(keys: str, history: Any = None, prefill: str = "", repl: list[Repl] | None = None) -> str:
    """What the prompt returns for these keys."""
    with create_pipe_input() as keyboard, create_app_session(input=keyboard, output=DummyOutput()):
        made = Repl(chat(), history)
        if repl is not None:
            repl.append(made)
        keyboard.send_text(keys)
        return made.read(prefill)


# keys -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "keys, text",
    [
        ("hello\r", "hello"),
        ("one\x1b\rtwo\r", "one\ntwo"),
        ("\x1b[200~a\r\nb\x1b[201~\r", "a\nb"),
        ("half\x03whole\r", "whole"),
        ("\x03typed after the hint\r", "typed after the hint"),
        (" /x\r", " /x"),
    ],
)
def test_keys(keys: str, text: str):
    assert typed(keys) == text


def test_ctrl_d_and_ctrl_c_leave_an_empty_prompt():
    with pytest.raises(EOFError):
        typed("\x04")
    with pytest.raises(KeyboardInterrupt):
        typed("\x03\x03")


def test_a_second_ctrl_c_after_two_seconds_only_hints_again(monkeypatch: pytest.MonkeyPatch):
    now = iter(range(0, 10_000, 3))
    monkeypatch.setattr("lmm.chat.repl.time.monotonic", lambda: 100 + next(now))
    assert typed("\x03\x03\x03still here\r") == "still here"


def test_what_was_given_back_can_be_edited():
    assert typed(" there\r", prefill="hello") == "hello there"


def test_leaving_from_another_thread_ends_the_prompt():
    repl: list[Repl] = []

    def leave() -> None:
        while not (repl and repl[0]._session.app.is_running):
            time.sleep(0.01)
        repl[0].leave()

    threading.Thread(target=leave, daemon=True).start()
    with pytest.raises(EOFError):
        typed("half a sentence", repl=repl)


def test_a_name_that_hides_something_is_not_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from prompt_toolkit.completion import CompleteEvent
    from prompt_toolkit.document import Document

    from lmm.chat.repl import Completions

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.safetensors").touch()
    (tmp_path / "mi\x1b]0;t\x07").touch()
    found = list(Completions(chat()).get_completions(Document("/load mi"), CompleteEvent()))
    assert [f.text for f in found] == ["ne.safetensors"]
    assert list(Completions(chat()).get_completions(Document("load mi"), CompleteEvent())) == []


# loading ----------------------------------------------------------------------------------------------------------
def test_the_status_line_needs_no_model():
    waiting = chat(Loading(lambda loading: scripted.engine()))
    assert waiting.status(40).startswith("loading smollm2")
    waiting.engine  # noqa: B018
    assert "jotter: 0 lessons" in waiting.status(80)
    assert len(waiting.status(20)) <= 20


def test_what_is_going_on_is_said_at_each_step(monkeypatch: pytest.MonkeyPatch):
    from lmm.adapters import generation
    from lmm.chat import talk

    def watched(work: Any) -> Any:
        return lambda *args: (said.append(one.doing()), work(*args))[1]

    said: list[str] = []
    one = chat()
    one.engine  # noqa: B018
    monkeypatch.setattr(generation, "PREFILL_PART", 4)
    monkeypatch.setattr(talk, "read", watched(talk.read))
    monkeypatch.setattr(one.engine.adapter, "forward", watched(one.engine.adapter.forward))
    one.line("hello")
    assert said[:3] == ["reading what you say", "reading, 0 of 8 tokens", "reading, 4 of 8 tokens"]
    assert set(said[3:]) == {"thinking"}


def test_lessons_are_listed_while_the_model_loads(tmp_path: Path):
    shown, go = io.StringIO(), threading.Event()
    console = render.make_console(file=shown)
    one = chat()
    one.line("/teach Who leads the choir? => Maria")
    again = Chat(one.config, Loading(lambda loading: go.wait(60) and None), lambda: ConsoleView(console, console))
    again.loading.start()
    again.line("/lessons")
    assert "Maria" in shown.getvalue() and again.loading.engine is None
    go.set()


def test_waiting_can_be_stopped_and_loading_goes_on():
    go = threading.Event()
    loading = Loading(lambda loading: go.wait(10) and scripted.engine())
    with pytest.raises(Cancelled):
        loading.wait(lambda: True)
    go.set()
    assert loading.wait(lambda: False) is loading.engine


def test_what_loading_raised_is_raised_each_time():
    def fail(loading: Loading) -> Any:
        raise LmmError("broken")

    loading = Loading(fail)
    for _ in range(2):
        with pytest.raises(LmmError, match="broken"):
            loading.wait(lambda: False)


# signals ----------------------------------------------------------------------------------------------------------
def test_signals_set_flags_and_are_put_back():
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    seen: list[str] = []
    with Interrupts(lambda: seen.append("stop"), lambda: seen.append("leave")) as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert seen == ["stop"] and signals.leaving is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert seen == ["stop", "stop", "leave"] and signals.leaving == signal.SIGTERM
        with pytest.raises(Leave), signals.reading():
            os.kill(os.getpid(), signal.SIGHUP)
        with pytest.raises(KeyboardInterrupt), signals.reading():
            os.kill(os.getpid(), signal.SIGINT)
    assert before == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]


def test_a_terminal_that_is_gone_ends_the_showing_not_the_work():
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    gone = render.make_console(file=Gone())
    view = ConsoleView(gone, gone)
    view.say("hello")
    view.reply((chunk for chunk in ("a", "b")), lambda: False, True)
    view.show("x")


# history ----------------------------------------------------------------------------------------------------------
def test_history_is_private_and_holds_nothing_twice(tmp_path: Path):
    path = tmp_path / "data" / "history.jsonl"
    first = JsonHistory(path)
    for text in ("a", "b\nc", "a", "  ", "\ud800"):
        first.append_string(text)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(JsonHistory(path).load_history_strings()) == ["\ud800", "a", "b\nc"]
    assert first._loaded_strings == ["\ud800", "a", "b\nc"]
    assert first.purge(Trace.of("id", ["Who is B?"], ["B  C"])) == 1
    assert b"b\\nc" not in path.read_bytes() and list(JsonHistory(path).load_history_strings()) == ["\ud800", "a"]


def test_a_broken_history_is_read_as_far_as_it_goes(tmp_path: Path):
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'"good"\n{"not": "text"}\nnonsense\n\xff\xfe\n"also"')
    assert list(JsonHistory(path).load_history_strings()) == ["also", "good"]
    JsonHistory(Path("/proc/none/history.jsonl")).append_string("no harm")


def test_a_long_history_is_made_shorter(tmp_path: Path):
    path = tmp_path / "h.jsonl"
    lines = [f"line {i % 6000}" for i in range(10_001)]
    path.write_text("".join(json.dumps(x) + "\n" for x in lines[1:]))
    JsonHistory(path).compact()
    assert path.read_text().count("\n") == 10_000
    path.write_text("".join(json.dumps(x) + "\n" for x in lines))
    JsonHistory(path).compact()
    assert [json.loads(x) for x in path.read_text().splitlines()] == lines[-5000:]


# transcripts ------------------------------------------------------------------------------------------------------
@pytest.fixture
def sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LMM_DATA_DIR", str(tmp_path))
    return tmp_path / "sessions"


def test_a_session_is_written_as_it_goes_and_read_again(sessions: Path):
    transcript = transcripts.Transcript(model="m", memory="jotter")
    assert not sessions.exists()  # nothing said, nothing written
    transcript.add({"kind": "turn", "user": "a\ud800", "reply": "b", "lessons": ["x"]})
    transcript.add({"kind": "lesson", "id": "y"})
    transcript.add({"kind": "saved", "path": "/tmp/m"})
    assert transcript.path.stat().st_mode & 0o777 == 0o600
    records = [json.loads(line) for line in transcript.path.read_text().splitlines()]
    assert [record["kind"] for record in records] == ["session", "turn", "lesson", "saved"]
    assert all(record["v"] == 1 and abs(record["time"] - time.time()) < 60 for record in records)
    assert any(record["time"] % 1 for record in records)  # milliseconds
    with transcript.path.open("ab") as file:
        file.write(b'{"kind": "turn", "user": "cut o')
    found = transcripts.find()
    assert found.turns == [("a\ud800", "b")] and found.lessons == 2 and found.saved == "/tmp/m"
    assert found.about["memory"] == "jotter" and found.title == "a\ud800"
    assert transcripts.find(transcript.id[:10]).id == transcript.id
    with pytest.raises(UsageError, match="no session '1999'"):
        transcripts.find("1999")


def test_a_reply_that_was_gone_on_with_takes_the_place_of_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    turns = [("a", "one", False), ("b", "two", False), ("b", "two and more", True)]
    rows = [{"kind": "turn", "user": user, "reply": reply, "more": more} for user, reply, more in turns]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [reply for _, reply in transcripts.read(path).turns] == ["one", "two and more"]


def test_hostile_sessions_are_read_without_harm(sessions: Path):
    sessions.mkdir()
    lines = [
        "[1,2]",
        '{"kind": "turn", "user": 3, "reply": null}',
        '{"time": "x"}',
        "[" * 100_000,
        '{"kind":"saved","path":3}',
    ]
    (sessions / "20260101-000000-000000.jsonl").write_text("\n".join(lines))
    (sessions / "../evil.jsonl").write_text("{}")
    found = transcripts.sessions()
    assert len(found) == 1 and found[0].turns == [] and found[0].saved == ""
    with pytest.raises(UsageError, match="no session to go on with"):
        transcripts.find()


def test_what_was_asked_last_is_found_also_where_the_clock_went_back(sessions: Path):
    now = time.time()
    asked = {
        "20260101-000000-000000": now + 86400,
        "20250101-000000-000000": now - 60,
        "20250101-000000-000001": now - 90,
    }
    sessions.mkdir(parents=True, exist_ok=True)
    for number, (name, at) in enumerate(asked.items()):
        turn = {"kind": "turn", "user": f"question {number}", "reply": "yes", "time": at}
        (sessions / f"{name}.jsonl").write_text(json.dumps(turn) + "\n")
    assert transcripts.find(oneshots=True).turns == [("question 1", "yes")]


def test_purging_takes_out_whole_records(sessions: Path):
    one = transcripts.Transcript()
    said = ("My sister is Ada.", "Nice."), ("And?", "MY SISTER  is Ada, you said"), ("x", "y"), ("Ada Lovelace?", "Yes")
    for user, reply in said:
        one.add({"kind": "turn", "user": user, "reply": reply})
    one.add({"kind": "lesson", "id": "abc123"})
    with one.path.open("a") as file:
        file.write('{"user": "Ada, to')  # cut short by a crash
    assert (
        transcripts.purge(Trace.of_lesson(Lesson("Who is my sister?", "Ada.", "My sister is Ada.", id="abc123"))) == 4
    )
    assert transcripts.find().turns == [("x", "y"), ("Ada Lovelace?", "Yes")]
    assert one.path.read_bytes().endswith(b"}\n")


# stopping ---------------------------------------------------------------------------------------------------------
def test_a_long_prompt_is_read_in_parts_and_stopped_between_them(monkeypatch: pytest.MonkeyPatch):
    from lmm.adapters import generation
    from lmm.adapters.toy import ToyAdapter
    from lmm.config import Decoding

    toy, tokens = ToyAdapter(), [*range(60)]
    whole, _ = generation.prefill(toy, tokens, toy.new_cache())
    monkeypatch.setattr(generation, "PREFILL_PART", 7)
    parts, cache = generation.prefill(toy, tokens, toy.new_cache())
    assert abs(whole - parts).max() < 1e-4 and cache.length == 60
    out = generation.Generated()
    assert list(generation.stream(toy, tokens, toy.new_cache(), Decoding(), out, lambda: True)) == []
    assert out.interrupted and not out.tokens


def test_a_message_that_was_stopped_before_its_reply_is_as_if_never_said(monkeypatch: pytest.MonkeyPatch):
    from lmm.adapters import generation

    monkeypatch.setattr(generation, "PREFILL_PART", 4)
    one = chat()
    one.line("hello")
    before = list(one.engine.conversation.messages)
    forward = one.engine.adapter.forward

    def stop(*args: Any) -> Any:
        one.cancel()
        return forward(*args)

    monkeypatch.setattr(one.engine.adapter, "forward", stop)
    one.line("a longer message")
    assert one.engine.conversation.messages == before
    monkeypatch.setattr(one.engine.adapter, "forward", forward)
    one.line("again")
    assert one.engine.conversation.messages[-1]["content"] == "You said: again"
