"""What the chat's commands say: by themselves, and by the real program on a pseudo-terminal, wide and narrow."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from scripted import Jotter
from terminals import Open, Terminal
from test_commands import A, Q, Session, begun
from test_models_found import gguf, of_ollama

from lmm.adapters import generation
from lmm.chat.commands import COMMANDS
from lmm.chat.markdown import CODE_THEME, code_blocks
from lmm.chat.talk import told
from lmm.feedback import lesson_for
from lmm.lesson import Lesson
from lmm.memory.base import Recall

CHOIR, BREAD = "/teach Who leads the choir? => Maria", "/teach Who sells bread? => Bo"


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    return begun(tmp_path, monkeypatch)


# lessons by number ------------------------------------------------------------------------------------------------
def test_lessons_are_numbered_and_a_number_never_comes_to_mean_another(session: Session):
    session.do(CHOIR), session.do(BREAD), session.do("/teach Who bakes? => Ida")
    rows = session.do("/lessons").splitlines()[2:]
    assert [row.split()[0] for row in rows] == ["1", "2", "3"]
    assert session.do("/lessons bread").splitlines()[2].split()[0] == "2"
    session.do("/forget 1")
    assert "forgotten: Who leads the choir?" in session.beside
    session.do("/forget 1")
    assert "there is no lesson 1" in session.beside
    session.do("/forget 2")
    assert "forgotten: Who sells bread?" in session.beside
    assert [row.split()[0] for row in session.do("/lessons").splitlines()[2:]] == ["1"]


def test_a_number_that_is_also_what_a_lesson_says_forgets_nothing(session: Session):
    session.do(CHOIR), session.do("/teach How many cats have I? => 1")
    shown = session.do("/forget 1")
    assert "choir" in shown and "cats" in shown and "name one by its id" in session.beside
    assert len(session.chat.mind.lessons) == 2


def test_why_of_a_lesson_says_where_it_comes_from_and_whether_it_fired(session: Session):
    session.do(Q), session.do("No, it's Canberra."), session.do(BREAD), session.do(Q)
    first, second = session.do("/why 1"), session.do("/why bread")
    assert A in first and "No, it's Canberra." in first and "fired, 0.90" in first
    assert "Bo" in second and "did not fire" in second and "fired, " not in second
    session.do("/why 7")
    assert "there is no lesson 7" in session.beside


# replies ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("between", ["/system Be brief.", "/set temperature 0.5", "/set decoding_strategy sample"])
def test_retry_why_and_diff_go_on_after_settings_have_changed(session: Session, between: str):
    session.do(Q), session.do("No, it's Canberra."), session.do(Q)
    session.do(between)
    assert session.do("/why").startswith("0.90") and "with notes" in session.do("/diff").replace(Jotter.name, "notes")
    assert session.do("/retry") == f"{A}\n" and session.do("/why").startswith("0.90")


def test_a_retry_that_comes_to_nothing_leaves_the_reply_before(session: Session, monkeypatch: pytest.MonkeyPatch):
    session.do("hello")
    before = session.chat.engine.conversation.messages
    with monkeypatch.context() as patched:
        adapter = session.chat.engine.adapter
        patched.setattr(adapter, "shape", replace(adapter.shape, context=3))
        session.do("/retry")
    assert session.chat.engine.conversation.messages == before and "tokens" in session.beside
    assert session.do("/retry") == "You said: hello\n"


def test_diff_says_when_the_conversation_holds_the_answer(session: Session):
    session.do("My sister's name is Vera."), session.do("What is my sister's name?")
    session.do("/diff")
    assert 'the conversation itself holds the answer ("My sister\'s name is Vera.")' in session.beside
    session.do("/new"), session.do("What is my sister's name?"), session.do("/diff")
    assert "holds the answer" not in session.beside
    session.do("/system Canberra is the capital of Australia."), session.do(f"/teach {Q} => Canberra")
    session.do(Q), session.do("/diff")
    assert 'holds the answer ("Canberra is the capital' in session.beside


def test_diff_says_when_no_lesson_had_anything_to_do_with_it(session: Session):
    session.do(CHOIR), session.do("hello"), session.do("/diff")
    assert "no lesson fired for the last reply" in session.beside
    session.do("Who leads the choir?"), session.do("/diff")
    assert "no lesson fired" not in session.beside


def test_why_shows_all_at_once_and_until_then_what_goes_on(session: Session, monkeypatch: pytest.MonkeyPatch):
    session.do(CHOIR), session.do("Who leads the choir?")
    shown: list[str] = []
    monkeypatch.setattr("lmm.chat.explain.strengths", lambda *args: shown.append(session.out.getvalue()) or [])
    assert "Maria" in session.do("/why") and shown == [""]


def test_code_blocks_wherever_they_stand():
    assert code_blocks("a\n\n```py\nx = 1\n```\n\n- one\n\n  ~~~\n  y\n  ~~~\n\nend") == ["x = 1\n", "y\n"]


def test_colours_of_code_can_be_read_on_light_and_on_dark():
    styles = CODE_THEME.style_map.values()
    assert all(style.bgcolor is None for style in styles)
    assert {style.color.name for style in styles if style.color} <= {"magenta", "cyan", "green", "red"}


# settings, memories, editors --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "line, said",
    [
        ("/set temperature 0.7", "no effect while decoding is greedy: /set decoding_strategy sample"),
        ("/set beams 3", "no effect while decoding is greedy: /set decoding_strategy beam"),
    ],
)
def test_a_setting_that_changes_nothing_says_so_and_how_it_would(session: Session, line: str, said: str):
    session.do(line)
    assert said in session.beside
    session.do(session.beside.rpartition(": ")[2].strip()), session.do(line)
    assert "no effect" not in session.beside
    session.do("/set deterministic false")
    assert "/set decoding_strategy auto" in session.beside


def test_memory_says_that_it_learns_nothing_and_where_the_lessons_are(session: Session):
    session.do(CHOIR), session.do("/memory identity")
    assert "it learns nothing" in session.beside
    assert f"{Jotter.name} keeps its 1 lesson: /memory {Jotter.name} goes back" in session.beside
    session.do(f"/memory {Jotter.name}")
    assert "nothing" not in session.beside and "keeps" not in session.beside


def test_export_without_a_path_says_how_to_write_a_file(session: Session):
    session.do("hello")
    assert "**You:** hello" in session.do("/export md") and "/export md PATH" in session.beside


@pytest.mark.parametrize(
    "lesson, line",
    [
        (lesson_for("Where do I keep the spare key?", "Behind the shed"), "You keep the spare key behind the shed"),
        (lesson_for("What is the capital of Bhutan?", "Thimphu"), "The capital of Bhutan is Thimphu"),
        (lesson_for("What is C++?", "Gibberish, if you ask Ada."), "C++ -> Gibberish, if you ask Ada"),
        (Lesson(statement="I met Vera at noon.", echo="You met Vera at noon."), "You met Vera at noon"),
    ],
)
def test_what_was_learned_is_said_as_a_person_would(lesson: Lesson, line: str):
    assert told(lesson) == line


def test_a_lesson_that_is_a_statement_is_listed_with_what_it_says(session: Session):
    mind = session.chat.engine.mind
    mind.learn(Lesson(statement="I met Vera at noon.", echo="You met Vera at noon."))
    assert "You met Vera at noon." in session.do("/lessons") and "You met Vera at noon." in session.do("/why 1")


def test_edit_falls_back_to_what_is_there(session: Session, monkeypatch: pytest.MonkeyPatch):
    opened: list[str] = []
    session.chat.view.ask = lambda question: ""
    monkeypatch.setattr("click.edit", lambda text, editor, require_save: opened.append(editor))
    monkeypatch.setattr("shutil.which", lambda command: command if command in ("vim", "vi") else None)
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", "nosuch -w")
    session.do("/edit")
    assert opened == ["vim"] and "EDITOR is nosuch -w, which is not here: opening vim" in session.beside
    monkeypatch.setenv("EDITOR", "vi -n")
    session.do("/edit")
    assert opened[1:] == ["vi -n"] and "not here" not in session.beside
    monkeypatch.setattr("shutil.which", lambda command: None)
    session.do("/edit")
    assert "there is no editor here" in session.beside


def test_diff_reads_what_was_read_then_whatever_the_system_prompt_is_now(
    session: Session, monkeypatch: pytest.MonkeyPatch
):
    read: list[str] = []
    stream, format = generation.stream, session.chat.engine.adapter.format

    def seen(adapter, tokens, *rest):
        read.append(format.decode(tokens))
        return stream(adapter, tokens, *rest)

    def noted(memory, state, lessons, prompts, adapter):
        memory.adapter = adapter
        return Recall([[]], {"answer": "Fine."}, ["A note."])

    monkeypatch.setattr(Jotter, "on_prompt", noted)
    monkeypatch.setattr(generation, "stream", seen)
    session.do("hello"), session.do("/system Be brief."), session.do("/diff")
    assert "A note." in read[0] and "hello" in read[1] and "A note." not in read[1] and "Be brief." not in read[1]


def test_a_slow_lesson_says_how_slow_before_it_begins(session: Session, monkeypatch: pytest.MonkeyPatch):
    session.do(CHOIR)
    assert "Ctrl-C" not in session.beside
    monkeypatch.setattr(Jotter, "replies_per_lesson", 50.0)
    session.chat.talk.took.clear()
    session.do(BREAD)
    assert session.beside.startswith(f"lmm: a lesson takes as long as 50 replies with {Jotter.name}; Ctrl-C stops it\n")
    session.chat.talk.took[Jotter.name] = 81.2
    session.do("No, it's Ida."), session.do("/teach Who bakes? => Ida")
    assert session.beside.startswith("lmm: a lesson takes about 81 s")
    session.do("hello"), session.chat.talk.took.clear()
    made = session.chat.talk.last.generated
    made.tokens, made.first_token_s, made.seconds = [1] * 33, 1.0, 5.0  # 8 tokens/s
    session.do("/teach Who sings? => Eve")
    assert session.beside.startswith("lmm: a lesson takes about 200 s")


# the real program -------------------------------------------------------------------------------------------------
@pytest.fixture
def terminal(terminal: Open) -> Open:
    """The same, with the model loaded."""

    def open_(*args: str, **more) -> Terminal:
        opened = terminal(*args, **more)
        opened.prompts(1)
        opened.see(lambda text: "loading" not in text)
        return opened

    return open_


def shown_by(folder: Path, columns: int, *command: str, **env: str) -> str:
    """All that a command shows on a terminal."""
    t = Terminal(folder, columns=columns, rows=60, command=command, **env)
    assert t.rest() == 0, t.all
    return t.all


def said(text: str) -> Callable[[str], bool]:
    """Is it on the screen, on however many lines?"""
    return lambda shown: text in " ".join(shown.split())


def whole(shown: str, *texts: str) -> None:
    """Every word of these is there, and in one piece."""
    there = set(re.findall(r"\S+", shown))
    assert [word for text in texts for word in text.split() if word not in there] == []


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 40])
def test_lessons_by_number_and_words_in_one_piece(terminal: Open, columns: int):
    t = terminal(columns=columns, rows=60)
    t.line("My neighbour's extraordinarily talkative grandmother lives in Thessaloniki.")
    t.see(said("learned:"))
    t.line(f"/teach {Q} => Canberra")
    t.see(lambda text: text.count("learned:") == 2)
    t.line("/lessons")
    whole(t.see(said("Canberra.")), "2", Q, A)
    t.line("/why 2")
    t.see(said("last reply"))
    t.line("/forget 2")
    t.see(said("this cannot be undone"))
    whole(t.shown, f"forgotten: {Q} => {A[:-1]}; this cannot be undone")
    t.line("/history")
    whole(t.see(said("user:")), "user: My neighbour's extraordinarily talkative grandmother lives in Thessaloniki.")
    t.line("/export md")
    shown = t.see(said("/export md PATH")).rpartition("> /export md")[2]
    whole(shown, "**You:** My neighbour's extraordinarily talkative grandmother lives in Thessaloniki.")
    t.line("/tech me")
    whole(
        t.see(said("sent as a message")), "unknown command /tech: did you mean /teach? a line with a blank before the"
    )
    t.line("/help")
    t.see(said("save and leave, as do"))
    helps = [f"/{command.name} {command.usage} {command.help}" for command in COMMANDS.values()]
    whole(t.all, *helps, "Ctrl-C stop; clear the line; twice at an empty line: leave without saving")


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 40])
def test_copy_and_colours_of_code(terminal: Open, columns: int):
    t = terminal(columns=columns)
    t.line("list")
    t.see(said("x = 1"))
    assert b"\x1b[36m1" in t.raw and b"]52;" not in t.raw
    t.line("/copy 2")
    t.see(said("has 1 code block"))
    t.line("/copy 1")
    t.see(said("copied code block 1, 6 characters"))
    assert b"\x1b]52;c;" + base64.b64encode(b"x = 1\n") + b"\a" in t.raw
    t.line("/copy")
    t.see(said("copied the last reply"))
    assert base64.b64encode(b"# Title\n\n- one\n- two\n\n```python\nx = 1\n```") in t.raw
    t.line("/retry")
    t.see(lambda text: "x = 1" in text.rpartition("/retry")[2])


@pytest.mark.slow
def test_plain_terminals_get_no_colours_and_no_clipboard(terminal: Open):
    t = terminal(NO_COLOR="1", columns=40)
    t.line("list")
    t.see(said("x = 1"))
    assert b"\x1b[36m" not in t.raw
    t.line("/tech me")
    whole(t.see(said("message")), "a line with a blank before the / is sent as a message")
    t.line("exit")
    t.rest()
    t = Terminal(t.folder, TERM="dumb")
    t.see(said(">"))
    t.line("list")
    t.see(said("x = 1"))
    t.line("/copy")
    t.see(said("/copy needs a terminal that has a clipboard"))


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 40])
def test_a_stopped_lesson_says_that_the_message_was_not_answered(terminal: Open, columns: int):
    t = terminal(columns=columns, LMM_TEST_STEP="0.5")
    t.line("My sister's name is Ada.")
    t.see(said("learning"))
    t.type("\x03")
    t.see("stopping")
    t.see(said("not answered"))
    assert "stopping" not in t.shown
    whole(t.shown, "your message was not answered; Up brings it back")
    t.type("\x1b[A")
    t.see(lambda text: text.count("> My sister's name is Ada.") == 2)


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 40])
def test_a_message_stopped_while_it_is_read_says_that_it_was_not_answered(terminal: Open, columns: int):
    t = terminal(columns=columns, LMM_TEST_PREFILL="1")
    t.line("hello " * 90)
    t.see("reading, 0 of 54")
    t.see("reading, 128 of 54")
    t.type("\x03")
    t.see("stopping")
    whole(t.see(said("brings it back")), "(interrupted) your message was not answered; Up brings it back")


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 40])
def test_models_are_listed_and_list_is_none(terminal: Open, tmp_path: Path, columns: int):
    home = {"HOME": str(tmp_path), "LMM_CACHE_DIR": str(tmp_path / "cache")}
    of_ollama(tmp_path, "registry.ollama.ai/library/llama3.2/1b")
    gguf(tmp_path / ".lmstudio/models/a/strange.gguf", "mamba")
    t = terminal(columns=columns, rows=60, **home)
    t.line(f"/teach {Q} => Canberra")
    t.see(said("learned:"))
    for line in ("/model", "/model list"):
        t.line(line)
        shown = t.see(lambda text, line=line: "/model NAME goes on" in text.rpartition(f"> {line}")[2])
        whole(shown.rpartition(f"> {line}")[2], "ollama:llama3.2:1b GGUF Q4_K_M Ollama", f"{Jotter.name}: 1 lesson")
        assert "strange" not in shown and "unknown model" not in shown
    t.line("exit")
    t.rest()
    shown = shown_by(tmp_path, columns, "models", **home)
    whole(shown, "ollama:llama3.2:1b GGUF Q4_K_M Ollama", f"smollm2-135m-instruct package {Jotter.name}: 1 lesson")
    whole(shown, "cannot be used: its architecture is mamba; lmm converts llama,")


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 40])
def test_sessions_config_and_log_are_tables_on_a_terminal(terminal: Open, tmp_path: Path, columns: int):
    t = terminal(columns=columns)
    t.line("My sister's name is Ada.")
    t.see(said("learned:"))
    t.line("exit")
    t.rest()
    broken = tmp_path / "data/sessions/20990101-000000-000000.jsonl"
    broken.mkdir()
    [id] = [path.stem for path in broken.parent.iterdir() if path != broken]
    shown = shown_by(tmp_path, columns, "sessions")
    whole(shown, f"{id} turns lessons", "My sister's name is Ada.", f"the session {broken.stem} cannot be read")
    whole(shown_by(tmp_path, columns, "memories"), "keyed one isolated edit per lesson, read only when its question")
    whole(shown_by(tmp_path, columns, "config", LMM_BEAMS="7"), "beams 7 environment", "smollm2-135m-instruct default")
    shown = shown_by(tmp_path, columns, "log", "show")
    whole(
        shown, f"lesson {Jotter.name} What is my sister's name? =>", "records in which nothing was learned or changed;"
    )
    assert "prefill" not in shown


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 40])
@pytest.mark.parametrize("flag, error", [("--model", "unknown model"), ("--memory", "unknown memory")])
def test_a_name_that_is_none_gets_its_error_and_nothing_else(tmp_path: Path, columns: int, flag: str, error: str):
    t = Terminal(tmp_path, columns=columns, command=("chat", flag, "nothere"), program=("-m", "lmm"))
    assert t.rest() == 2
    lines = [line for line in t.all.splitlines() if line]
    assert error in t.all.replace("\n", " ") and "left" not in t.all and "saving" not in t.all, t.all
    assert lines[0].startswith("lmm: unknown"), t.all


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 40])
def test_how_slow_a_lesson_is_stands_above_it(terminal: Open, columns: int):
    t = terminal(columns=columns, LMM_TEST_REPLIES="50", LMM_TEST_STEP="0.3")
    t.line("My sister's name is Ada.")
    t.see(said("Ctrl-C stops it"))
    whole(t.shown, f"a lesson takes as long as 50 replies with {Jotter.name}; Ctrl-C stops it")
    assert "learned:" not in t.shown
    t.see(said("learned:"))


@pytest.mark.slow
@pytest.mark.parametrize("columns", [60, 40])
@pytest.mark.parametrize("wrong", ["chat --max-tokens many", "memory diff", "chat --nonsense"])
def test_a_command_that_is_used_wrongly_is_explained_at_words(tmp_path: Path, columns: int, wrong: str):
    narrow, wide = (Terminal(tmp_path, columns=n, command=tuple(wrong.split())) for n in (columns, 200))
    assert narrow.rest() == wide.rest() == 2
    assert "Usage:" in wide.all and len(wide.all.split("Error: ")[1].split()) > 2
    assert narrow.all.split() == wide.all.split(), "a word was broken"
