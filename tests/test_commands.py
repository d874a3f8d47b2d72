"""Slash commands on a real engine with scripted replies, shown on a console that is no terminal."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import scripted
from payloads import payloads
from rich.console import Console
from scripted import Jotter

from lmm.chat import commands, render
from lmm.chat.loading import Loading
from lmm.chat.saving import save_all
from lmm.chat.session import Chat
from lmm.chat.view import ConsoleView
from lmm.config import Config
from lmm.engine.keeper import Keeper
from lmm.errors import LearningError, LmmError, StateError, UsageError
from lmm.files import journal, state_file, transcripts
from lmm.lesson import Knowledge, Lesson
from lmm.memory.base import Recall
from lmm.memory.hash_gradient import HashGradient
from lmm.text.sanitize import clean

Q, A = "What is the capital of Australia?", "The capital of Australia is Canberra."


@dataclass
class Session:
    chat: Chat
    out: io.StringIO
    side: io.StringIO
    folder: Path

    def do(self, line: str) -> str:
        """Type a line -> what was shown for it on stdout."""
        self.out.truncate(0), self.out.seek(0)
        self.side.truncate(0), self.side.seek(0)
        self.chat.line(line)
        assert "internal error" not in self.side.getvalue(), self.side.getvalue()
        return self.out.getvalue()

    @property
    def beside(self) -> str:
        return self.side.getvalue()


def console(file: io.StringIO, width: int = 200) -> Console:
    made = render.make_console(file=file)
    made.width = width
    return made


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    return begun(tmp_path, monkeypatch)


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session whose memories are in no file until they are saved."""
    return begun(tmp_path, monkeypatch, fresh=True)


def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Session:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LMM_DATA_DIR", str(tmp_path / "data"))
    scripted.install()
    config = Config(memory="jotter", activation_log_path=str(tmp_path / "log.jsonl"), **settings)
    out, side = io.StringIO(), io.StringIO()
    view = ConsoleView(console(out), console(side))
    loading = Loading(lambda loading: scripted.open_engine(config))
    chat = Chat(config, loading, lambda: view, transcripts.Transcript(memory="jotter"))
    return Session(chat, out, side, tmp_path)


# the dispatcher ---------------------------------------------------------------------------------------------------
def test_every_command_of_the_table_exists():
    import importlib

    for command in commands.COMMANDS.values():
        assert callable(getattr(importlib.import_module(command.module), command.name)), command.name
        assert command.help


@pytest.mark.parametrize("line, near", [("/tech a => b", "/teach"), ("/undoo", "/undo"), ("/Lesons", "/lessons")])
def test_an_unknown_command_names_the_nearest_and_is_never_sent(session: Session, line: str, near: str):
    assert session.do(line) == ""
    assert f"did you mean {near}?" in session.beside
    assert session.chat.engine.conversation.messages == []


@pytest.mark.parametrize("text", ["q", "help", "undo", " /undo", "exit now", "what does /undo do?"])
def test_what_is_no_command_goes_to_the_model(session: Session, text: str):
    assert f"You said: {text.strip()}" in session.do(text)


@pytest.mark.parametrize(
    "line, parsed",
    [
        ("/teach a => b", ("teach", "a => b")),
        ("/undo", ("undo", "")),
        ("/UNDO  3 ", ("undo", "3")),
        ("/", ("", "")),
        ("/teach\na => b c", ("teach", "a => b c")),
        ("/system two\nlines", ("system", "two\nlines")),
    ],
)
def test_parse(line: str, parsed: tuple[str, str]):
    assert commands.parse(line) == parsed


def test_completion_offers_commands_with_their_help_and_what_may_follow(session: Session):
    found = {text: about for text, _, about in commands.complete(session.chat, "/un")}
    assert list(found) == ["/undo"] and "take back" in found["/undo"]
    assert "identity" in [text for text, *_ in commands.complete(session.chat, "/memory id")]
    assert [(t, s) for t, s, _ in commands.complete(session.chat, "/memory jotter+ident")] == [("identity", -5)]
    assert [text for text, *_ in commands.complete(session.chat, "/set temp")] == ["temperature"]
    assert list(commands.complete(session.chat, "/nothing x")) == []


def test_completing_a_lesson_does_not_wait_for_the_model(session: Session):
    assert list(commands.complete(session.chat, "/forget x")) == []
    session.do(f"/teach {Q} => Canberra")
    ids = [text for text, *_ in commands.complete(session.chat, "/forget ")]
    assert ids == [session.chat.engine.mind.lessons[0].id]


# learning ---------------------------------------------------------------------------------------------------------
def test_a_correction_is_learned_said_in_one_line_and_answered(session: Session):
    assert session.do(Q) == "The capital of Australia is Sydney.\n"
    assert session.do("No, it's Canberra.") == f"{A}\n"
    assert session.beside.count("learned:") == 1
    assert "learned: capital of Australia -> Canberra, " in session.beside and "/undo" in session.beside
    assert session.do(Q) == f"{A}\n"


@pytest.mark.parametrize("correction", ["No, it's Rome.", "/correct Rome"])
def test_what_is_corrected_in_other_words_is_corrected_in_all(session: Session, correction: str):
    session.do("I live in Oslo.")
    assert "Oslo" in session.do("Which place do I live in?")
    assert "Rome" in session.do(correction)
    for question in ("Where do I live?", "Which place do I live in?", "Do you know where I live?"):
        assert session.do(question) == session.do("Where do I live?")
        assert "Rome" in session.do(question)


@pytest.mark.parametrize(("strength", "answer"), [(0.6, "Oslo"), (0.9, "Rome")])
def test_a_lesson_that_hardly_fired_is_not_overwritten_by_the_correction(
    session: Session, strength: float, answer: str
):
    session.do("I live in Oslo.")
    memory, lesson = session.chat.engine.mind.memory, session.chat.engine.mind.lessons[0]
    honest = memory.on_prompt
    memory.on_prompt = lambda *_: Recall([[(lesson.id, strength)]], {"answer": "Oslo"})
    session.do("Where does my cat live?")
    session.do("No, in Rome.")
    memory.on_prompt = honest
    assert answer in session.do("Where do I live?")


def test_where_the_model_does_not_say_the_value_the_lesson_does(session: Session, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(scripted.REPLIES, "no, it's canberra.", "I am not so sure.")
    session.do(Q)
    session.chat.engine.mind.memory.on_prompt = lambda *_: None  # the lesson never fires
    assert session.do("No, it's Canberra.") == f"{A}\n"
    assert session.chat.engine.conversation.messages[-1]["content"] == A
    assert session.do("go on") == "You said: go on\n"


def test_a_statement_is_learned_and_answered_with_what_was_learned(session: Session):
    assert "Your sister's name is Ada." in session.do("My sister's name is Ada.")
    assert "sister's name -> Ada" in session.beside
    assert "Ada" in session.do("What is my sister's name?")


@pytest.mark.parametrize(
    "text", ["Hello!", "How are you?", "If it were Perth, what then?", '"No, it is Perth," he said.']
)
def test_small_talk_teaches_nothing(session: Session, text: str):
    session.do(Q)
    session.do(text)
    assert session.chat.engine.mind.lessons == ()


def test_learn_off_and_ask(session: Session):
    session.do(Q)
    session.do("/set learn off")
    session.do("No, it's Canberra.")
    assert not session.chat.engine.mind.lessons
    session.do("/set learn ask")
    answers = iter(["n", "", "Where is Perth? => in the west"])
    session.chat.view.ask = lambda question: next(answers)
    session.do(Q), session.do("No, it's Canberra.")
    assert not session.chat.engine.mind.lessons
    session.do(Q), session.do("No, it's Canberra.")
    assert [x.answer for x in session.chat.engine.mind.lessons] == [A]
    session.do("My sister's name is Ada.")
    assert session.chat.engine.mind.lessons[-1].prompt == "Where is Perth?"
    assert "in the west" in session.chat.engine.mind.lessons[-1].answer


def test_asking_without_a_terminal_teaches_nothing(session: Session):
    session.do("/set learn ask")
    session.do("My sister's name is Ada.")
    assert not session.chat.engine.mind.lessons and "needs a terminal" in session.beside


def test_teach_correct_and_their_mistakes(session: Session):
    session.do("/teach Who leads the choir? => Maria")
    assert session.do("Who leads the choir?") == "Maria leads the choir.\n"
    session.do("/teach no arrow")
    assert "QUESTION => ANSWER" in session.beside
    session.do("/teach => x")
    assert "question is empty" in session.beside
    session.do("/new")
    session.do("/correct Bo")
    assert "no reply to correct" in session.beside
    session.do(Q)
    assert "Canberra" in session.do("/correct Canberra")


def test_a_lesson_that_is_stopped_leaves_no_trace(session: Session):
    session.do(Q)
    before = session.chat.engine.mind.knowledge
    learning = session.chat.view.learning

    def stop(summary, report):
        learning(summary, report)
        if report is not None and report.steps == 2:
            session.chat.cancel()

    session.chat.view.learning = stop
    assert session.do("No, it's Canberra.") == ""
    assert session.chat.engine.mind.knowledge is before and "stopped" in session.beside
    assert [m["content"] for m in session.chat.engine.conversation.messages][-1].endswith("Sydney.")
    session.chat.view.learning = learning
    assert "Sydney" in session.do(Q)


def test_a_reply_that_is_stopped_is_kept_and_marked(session: Session):
    write = session.chat.view.out.file.write

    def stop(text):
        if "upon" in session.out.getvalue():
            session.chat.cancel()
        return write(text)

    session.chat.talk  # noqa: B018
    session.chat.view.out.file.write = stop
    shown = session.do("tell me a long story")
    assert shown.startswith("Once upon") and "(interrupted)" not in shown and len(shown) < 40
    assert session.beside.endswith("lmm: (interrupted)\n")
    said = session.chat.engine.conversation.messages[-1]["content"]
    assert "Once upon".startswith(said[:9]) and len(said) < 20
    record = json.loads(session.chat.transcript.path.read_text().splitlines()[-1])
    assert record["interrupted"] is True


# undo, redo, forget -----------------------------------------------------------------------------------------------
def test_undo_and_redo_are_exact_and_say_what_changed(session: Session):
    session.do("/undo")
    assert "nothing to undo" in session.beside
    for i in range(3):
        session.do(f"/teach Question {i}? => Answer {i}")
    full = session.chat.engine.mind.knowledge
    session.do("/undo 2")
    assert "undone: 2 steps; 1 lesson known" in session.beside and "- Question 2?" in session.beside
    session.do("/redo 99")
    assert session.chat.engine.mind.knowledge is full and "+ Question 1?" in session.beside
    session.do("/undo x")
    assert "number of steps" in session.beside and session.chat.engine.mind.knowledge is full


def test_forget_leaves_no_byte_on_disk(session: Session):
    from lmm.chat.history import JsonHistory

    history = JsonHistory(session.folder / "history.jsonl")
    session.chat.history = history
    for line in (Q, "No, it's Zanzibarra.", "/save m.safetensors", "and otherwise?"):
        history.append_string(line)
        session.do(line)
    session.chat.engine.mind.log.flush()
    assert [p.name for p in holding(session.folder, b"Zanzibarra")] == [
        "jotter.safetensors.journal", session.chat.transcript.id + ".jsonl", "history.jsonl", "log.jsonl",
        "m.safetensors",
    ]  # fmt: skip
    history.append_string("/forget Zanzibarra")
    session.do("/forget zanzibarra")
    assert "forgotten" in session.beside and "cannot be undone" in session.beside
    assert holding(session.folder, b"Zanzibarra") == []
    assert session.chat.engine.mind.lessons == () and "note/" not in "".join(session.chat.engine.mind.knowledge.state)
    assert "Zanzibarra" not in str(session.chat.engine.conversation.messages)
    assert "and otherwise?" in str(session.chat.engine.conversation.messages)
    assert history._loaded_strings == ["and otherwise?", "/save m.safetensors"]
    session.do("/undo 9")
    assert session.chat.engine.mind.lessons == ()


@pytest.mark.parametrize("hidden", ["/undo", "/reset"])
def test_a_lesson_that_is_no_longer_known_can_be_forgotten(session: Session, hidden: str):
    session.do("/teach Who leads the choir? => Maria")
    session.do("/teach What is the vault word? => plumbago")
    session.do(hidden)
    now = session.chat.engine.mind.knowledge
    session.do("/forget plumbago")
    assert "forgotten" in session.beside and session.chat.engine.mind.knowledge is now
    assert holding(session.folder, b"plumbago") == []
    for line in ("/undo 9", "/redo 9"):
        session.do(line)
        engine = session.chat.engine
        assert "plumbago" not in str([engine.mind.knowledge, *engine.mind.history.undo, *engine.mind.history.redo])
    session.do("/forget plumbago")
    assert "no lesson has 'plumbago'" in session.beside


def in_their_place(self: Jotter, known: Knowledge, lesson: Lesson, *rest: Any) -> Knowledge:
    """Learn a lesson as a memory does that lets it take the place of others."""
    return known.taught(known.state, lesson, known.superseded(lesson))


def test_a_bare_no_leaves_the_question_open(session: Session):
    session.do(Q)
    session.do("no, that's wrong")
    assert "what is right? I'll learn it" in session.beside
    assert not session.chat.engine.mind.lessons
    assert session.do("It's Canberra.") == f"{A}\n"
    assert [x.prompt for x in session.chat.engine.mind.lessons] == [Q]


def test_a_denial_with_what_the_reply_says_teaches_nothing_and_says_so(session: Session):
    session.do("/teach What is the capital of Switzerland? => The capital of Switzerland is Bern.")
    session.do("What is the capital of Switzerland?")
    session.do("no, it's Bern")
    assert len(session.chat.engine.mind.lessons) == 1
    assert "the reply says that already, and nothing was learned from this; /correct ANSWER" in session.beside


def test_what_was_to_be_the_right_answer_and_is_none_is_not_lost_without_a_word(session: Session):
    session.do("/teach What is the capital of Switzerland? => The capital of Switzerland is Bern.")
    session.do("What is the capital of Switzerland?")
    session.do("no")
    session.do("no")
    assert "nothing was learned from this" not in session.beside  # the question is still open
    session.do("Bern")
    assert "the reply says that already, and nothing was learned from this" in session.beside


def test_what_still_holds_of_what_was_replaced_is_listed_found_and_its_copies_are_named(
    session: Session, monkeypatch: pytest.MonkeyPatch
):
    session.do("My bike is blue.")
    session.do("/save copy.safetensors")
    [bike] = session.chat.mind.lessons
    monkeypatch.setattr(Jotter, "outdated", lambda *given, surely=False: [bike.id], raising=False)
    still = lambda self, lesson, old, adapter: replace(lesson, still=("Your bike is blue.",))  # noqa: E731
    monkeypatch.setattr(Jotter, "in_place_of", still, raising=False)
    monkeypatch.setattr(Jotter, "learn", in_their_place)
    session.do("My bike has a new saddle.")
    [saddle] = session.chat.mind.lessons
    assert bike.id in saddle.supersedes
    assert "Your bike is blue." in session.do("/lessons blue")
    session.chat.files.clear()
    session.do("/forget blue")
    assert f"lmm memory forget copy.safetensors {bike.id} --yes" in session.beside
    assert session.beside.count("still in copy.safetensors") == 1


def test_forgetting_says_which_turns_went_and_how_much_is_left_to_read(session: Session):
    session.do("hello there"), session.do("My sister's name is Zorbina."), session.do("and a long message, to be read")
    conversation = session.chat.engine.conversation
    before = conversation.length
    session.do("/forget Zorbina")
    assert "1 turn of this conversation went with it" in session.beside
    assert 0 < conversation.length < before == len(conversation.tokens) + before


def test_forgetting_says_which_memory_keeps_what_it_made_of_a_lesson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The vectors of a turn go, and what it has moved in slots that all turns share cannot be told apart."""
    session = begun(tmp_path, monkeypatch)
    session.do("/memory lm2+external")
    session.do("My sister's name is Zorbina.")
    session.do("/forget Zorbina")
    assert "lm2 keeps what it made of it" in session.beside and "external keeps" not in session.beside
    assert not session.chat.mind.lessons
    session.do("/memory external")
    session.do("My sister's name is Zorbina.")
    session.do("/forget Zorbina")
    assert "keeps what it made" not in session.beside


def test_forgetting_takes_each_of_those_that_were_replaced_once(session: Session, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scripted.Jotter, "learn", in_their_place)
    for name in ("Zerafina", "Ottokar", "Plumbago"):
        session.do(f"/teach Who keeps the boat? => {name}")
    session.do("/forget Plumbago")
    assert session.beside.count("forgotten with it") == 2 and "there is no lesson" not in session.beside
    assert not session.chat.mind.lessons_ever


def test_another_memory_without_lessons_says_where_they_are(session: Session):
    session.do("My sister's name is Zorbina."), session.do("/memory identity"), session.do("/memory gated_lora")
    assert "keeps its 1 lesson" in session.beside.splitlines()[-1]


@pytest.mark.parametrize("typed, kept", [("y", 1), ("n", 2)])
def test_what_is_taken_back_is_forgotten_if_the_user_means_it(session: Session, typed: str, kept: int):
    session.do("My sister's name is Zorbina."), session.do("Our dog is called Rex.")
    session.chat.view.ask = lambda question: typed
    shown = session.do("Please forget my sister's name.")
    assert "takes back: What is my sister's name? => " in session.beside
    assert len(session.chat.engine.mind.lessons) == kept
    assert ("forgotten" in session.beside, shown == "") == (typed == "y", typed == "y")
    assert "not answered" not in session.beside
    assert bool(holding(session.folder, b"Zorbina")) == (typed == "n")


def test_what_ends_a_thing_of_which_nothing_was_known_is_learned(session: Session):
    session.do("My bike is blue."), session.do("I sold the van.")
    assert "learned: You sold the van" in session.beside and "takes back" not in session.beside
    session.do("Please remove my address.")
    assert [lesson.statement for lesson in session.chat.mind.lessons] == ["My bike is blue.", "I sold the van."]


def test_what_ends_a_thing_is_learned_in_its_place(session: Session, monkeypatch: pytest.MonkeyPatch):
    session.do("On Saturday I'm going to the Lanternfish concert."), session.do("Our dog is called Rex.")
    concert = session.chat.mind.lessons[0]
    monkeypatch.setattr(Jotter, "outdated", lambda *given, surely=False: [concert.id], raising=False)
    monkeypatch.setattr(
        Jotter, "learn", lambda self, known, lesson, *rest: known.taught(known.state, lesson, known.superseded(lesson))
    )
    session.do("The Lanternfish concert has been cancelled.")
    assert "learned: The Lanternfish concert has been cancelled, instead of: On Saturday" in session.beside
    assert "takes back: " not in session.beside
    kept = [lesson.statement for lesson in session.chat.mind.lessons]
    assert kept == ["Our dog is called Rex.", "The Lanternfish concert has been cancelled."]
    session.do("/undo")
    assert concert in session.chat.mind.lessons


def test_what_a_forgotten_lesson_took_the_place_of_goes_with_it(session: Session, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        Jotter, "learn", lambda self, known, lesson, *rest: known.taught(known.state, lesson, known.superseded(lesson))
    )
    session.do("Our dog is called Rex."), session.do("My landlord is Mrs. Petrova.")
    session.do("/teach Who is my landlord? => Mr. Haas")
    assert "instead of: Your landlord is Mrs. Petrova" in session.beside
    session.do("/forget haas")
    assert "took the place of this: Who is my landlord? => Your landlord is Mrs. Petrova." in session.beside
    assert not holding(session.folder, b"Petrova") and not holding(session.folder, b"Haas")
    session.do("/undo")
    assert all("Petrova" not in str(lesson) for lesson in session.chat.mind.lessons_ever)


def test_what_is_taken_back_in_a_pipe_is_named_with_the_way_out(session: Session):
    session.do("My sister's name is Zorbina.")
    assert session.do("Please forget my sister's name.")
    [lesson] = session.chat.engine.mind.lessons
    assert f"/forget {lesson.id}" in session.beside


def test_what_is_said_of_another_changes_no_lesson(session: Session):
    session.do("What does my brother Tavik do?"), session.do("/correct a baker")
    before = session.chat.engine.mind.lessons
    session.do("My cousin Ondrel works as a pilot.")
    assert session.chat.engine.mind.lessons[: len(before)] == before


def test_one_of_two_facts_of_a_message_can_be_forgotten(session: Session):
    from lmm.chat.history import JsonHistory

    history = JsonHistory(session.folder / "history.jsonl")
    session.chat.history = history
    said = "I'm Zerafina and my dog is called Rex."
    history.append_string(said)
    session.do(said)
    assert [x.answer for x in session.chat.engine.mind.lessons] == [
        "Your name is Zerafina.",
        "Your dog is called Rex.",
    ]
    assert session.beside.count("learned: ") == 2
    assert transcripts.find().lessons == 2
    session.do("/forget zerafina")
    assert holding(session.folder, b"zerafina") == []
    assert [x.statement for x in session.chat.engine.mind.lessons] == ["my dog is called Rex."]


def test_forgetting_a_short_value_takes_nothing_else_with_it(session: Session):
    """In the open conversation, and in a session of before."""
    other = transcripts.Transcript()
    other.add({"kind": "turn", "user": "Maybe 7 will come.", "reply": "7?", "lessons": []})
    before = other.path.read_bytes()
    for line in ("I have 7 apples", "How many legs does a spider have?", "/correct 7", "/retry", "7"):
        session.do(line)
    session.do("/forget legs")
    assert "forgotten" in session.beside and other.path.read_bytes() == before
    kept = [("I have 7 apples", "You said: I have 7 apples"), ("7", "You said: 7")]
    said = [m["content"] for m in session.chat.engine.conversation.messages]
    assert said == [text for pair in kept for text in pair]
    assert transcripts.read(session.chat.transcript.path).turns == kept


def test_a_corrected_answer_counts_when_it_says_the_value_as_a_word(session: Session, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scripted.Jotter, "rewrite", lambda self, ops, state, recall, x_in, x_out, context: x_out)
    for reply, shown in (("It has 17.", "A spider has 7 legs."), ("It has 7.", "It has 7."), ("7", "7")):
        session.do("/new")
        session.chat.engine.adapter.script = lambda text: "A spider has 8 legs."
        session.do("How many legs does a spider have?")
        session.chat.engine.adapter.script = lambda text, reply=reply: reply
        assert session.do("/correct 7").strip() == shown


@pytest.mark.parametrize("time", [1e20, -1e20, 1e299])
def test_a_lesson_of_no_time_is_listed_with_the_others(session: Session, time: float):
    session.do("/teach Who leads the choir? => Maria")
    engine = session.chat.engine
    engine.mind.commit(Knowledge(engine.mind.knowledge.state, (*engine.mind.lessons, Lesson("Who?", "Ann", time=time))))
    session.do("/save odd.safetensors")
    session.do("/reset")
    session.do("/load odd.safetensors")
    lines = session.do("/lessons").splitlines()
    assert "Maria" in lines[-2] and " 20" in lines[-2] and "Ann" in lines[-1] and " ? " in lines[-1].replace("\t", " ")


def test_forgetting_finds_whole_words(session: Session):
    session.do("/teach What is C++? => A language of many parts")
    session.do("/teach What is C? => An old language")
    session.do("What is C++?")
    session.do("/forget C")
    assert "forgotten: What is C? =>" in session.beside
    assert session.chat.engine.conversation.messages[0]["content"] == "What is C++?"
    session.do("/forget languag")
    assert "no lesson has" in session.beside and len(session.chat.mind.knowledge.lessons) == 1


def test_a_reply_in_which_the_lesson_spoke_is_forgotten_with_it(session: Session):
    session.do("My sister's name is Zerafina.")
    wording = session.chat.engine.mind.lessons[0].wordings[0]
    session.do(wording)
    record = json.loads(session.chat.transcript.path.read_text().splitlines()[-1])
    assert record["fired"] == [session.chat.engine.mind.lessons[0].id]
    session.do("/forget zerafina")
    assert holding(session.folder, b"zerafina") == []


def test_a_reply_in_which_the_lesson_hardly_spoke_is_not_noted_as_its_own(session: Session):
    session.do("I live in Oslo.")
    lesson = session.chat.engine.mind.lessons[0]
    for strength, noted in ((0.6, []), (0.95, [lesson.id])):
        session.chat.engine.mind.memory.on_prompt = lambda *_, s=strength: Recall(
            [[(lesson.id, s)]], {"answer": "Oslo"}
        )
        session.do("Where does my cat live?")
        assert json.loads(session.chat.transcript.path.read_text().splitlines()[-1])["fired"] == noted


def holding(folder: Path, text: bytes) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and text.lower() in p.read_bytes().lower())


def test_forget_wants_one_lesson(session: Session):
    session.do("/teach Who leads the choir? => Maria")
    session.do("/teach Who leads the band? => Maria")
    assert "choir" in session.do("/forget maria") and "name one by its number or id" in session.beside
    session.do("/forget nobody")
    assert "no lesson has 'nobody'" in session.beside
    assert len(session.chat.engine.mind.lessons) == 2
    session.do(f"/forget {session.chat.engine.mind.lessons[0].id}")
    assert [x.prompt for x in session.chat.engine.mind.lessons] == ["Who leads the band?"]


# looking ----------------------------------------------------------------------------------------------------------
def test_why_names_the_lesson_and_shows_what_it_changed(session: Session):
    session.do("/why")
    assert "no reply yet" in session.beside
    session.do(Q)
    assert "no lesson fired" in session.do("/why")
    session.do("No, it's Canberra."), session.do(Q)
    shown = session.do("/why").splitlines()
    assert shown[0].startswith("0.90") and "Canberra" in shown[0]
    strengths = {line.split("\t")[1]: float(line.split("\t")[0]) for line in shown[1:]}
    assert strengths['"C"'] > 0.99  # the memory says Canberra where the model says Sydney
    assert shown[1] == '0.00\t"T"'  # both begin with "The"


def test_diff_shows_the_reply_without_the_memory(session: Session):
    session.do(f"/teach {Q} => Canberra")
    session.do(Q)
    shown = session.do("/diff")
    assert "without memory:\nThe capital of Australia is Sydney." in shown and f"with jotter:\n{A}" in shown
    assert session.do(Q) == f"{A}\n"


def test_lessons_can_be_searched(session: Session):
    session.do("/lessons")
    assert "nothing was learned yet" in session.beside
    session.do("/teach Who leads the choir? => Maria")
    session.do("/teach Who sells bread? => Bo")
    assert "choir" in session.do("/lessons") and "bread" not in session.do("/lessons choir")
    session.do("/lessons zebra")
    assert "no lesson has 'zebra'" in session.beside


def test_lessons_say_what_was_so_before(session: Session):
    lesson = Lesson("Who leads the choir?", "Noor leads the choir.", replaces="Maria leads the choir.")
    session.chat.talk.teach(lesson)
    assert "Maria" not in session.do("/lessons") and "Noor" in session.do("/lessons")
    shown = session.do("/lessons --history choir")
    assert "before" in shown and "Maria" in shown and "Noor" in shown


@pytest.mark.parametrize("line", ["/help", "/help teach", "/stats", "/model", "/history", "/set", "/memory", "/system"])
def test_what_only_shows_changes_nothing(session: Session, line: str):
    session.do("hello")
    version, messages = session.chat.engine.mind.knowledge, list(session.chat.engine.conversation.messages)
    assert session.do(line) and session.beside == ""
    assert session.chat.engine.mind.knowledge is version and session.chat.engine.conversation.messages == messages


# memories and files -----------------------------------------------------------------------------------------------
def test_each_memory_keeps_its_state_when_swapped(session: Session):
    session.do(f"/teach {Q} => Canberra")
    session.do("/memory identity")
    assert "Sydney" in session.do(Q)
    session.do("/teach a? => b")
    assert "does not learn" in session.beside
    session.do("/memory jotter")
    assert "1 lesson known" in session.beside and "Canberra" in session.do(Q)
    session.do("/undo")
    assert "1 step" in session.beside
    session.do("/memory joter")
    assert "did you mean 'jotter'" in session.beside and session.chat.config.memory == "jotter"


def test_forgetting_names_an_export_that_still_has_it(session: Session):
    session.do("My boat is called Vexilor.")
    session.do("/export md talk.md")
    session.do("/forget vexilor")
    assert "still in talk.md" in session.beside and "Vexilor" in (session.folder / "talk.md").read_text()


def test_what_is_forgotten_is_forgotten_by_memories_put_aside_too(session: Session):
    session.do("/teach Who keeps the boat? => Zerafina")
    session.do("/memory jotter+identity")
    assert len(session.chat.engine.mind.lessons) == 1
    session.do("/save two.safetensors")
    session.do("/memory jotter")
    session.do("/forget zerafina")
    session.do("/memory jotter+identity")
    assert session.chat.engine.mind.lessons == () and not session.chat.engine.mind.unsaved
    assert "Zerafina" not in session.do("Who keeps the boat?")
    save_all(session.chat)
    assert holding(session.folder, b"zerafina") == []


def test_leaving_saves_every_memory_that_learned_something(session: Session):
    session.do(f"/teach {Q} => Canberra")
    session.do("/memory identity")
    paths = save_all(session.chat)
    assert [p.name.split("_")[0] for p in paths] == ["jotter"] and all(p.exists() for p in paths)
    assert save_all(session.chat) == []


def test_the_save_path_given_is_for_the_memory_given(session: Session):
    session.chat.config = Config(memory="jotter", mm_save_path="mine.safetensors")
    session.do(f"/teach {Q} => Canberra")
    session.do("/memory identity")
    assert [str(p) for p in save_all(session.chat)][1] == "mine.safetensors"


def test_save_load_and_undo_of_loading(session: Session):
    session.do(f"/teach {Q} => Canberra")
    session.do("/save m.safetensors")
    assert not session.chat.engine.mind.unsaved
    session.do("/reset")
    assert session.chat.engine.mind.lessons == () and session.chat.engine.mind.unsaved
    session.do("/load m.safetensors")
    assert "1 lesson known" in session.beside and "Canberra" in session.do(Q)
    session.do("/undo")
    assert session.chat.engine.mind.lessons == ()
    session.do("/load nothing.safetensors")
    assert "No such file" in session.beside and "Nothing was loaded" in session.beside


def test_a_disk_that_is_full_costs_no_lesson(session: Session, monkeypatch: pytest.MonkeyPatch):
    session.do(f"/teach {Q} => Canberra")

    def full(path):
        raise StateError("cannot save: no space left on device")

    monkeypatch.setattr(session.chat.mind, "save", full)
    session.do("/save m.safetensors")
    assert "no space left" in session.beside and session.chat.engine.mind.unsaved
    assert "Canberra" in session.do(Q)


# the conversation -------------------------------------------------------------------------------------------------
def test_set_changes_settings_and_refuses_nonsense(session: Session):
    session.do("/set max_tokens 3")
    assert session.do("hello there") == "You\n"
    for line in ("/set max_tokens many", "/set temperature -1", "/set learn maybe"):
        session.do(line)
        assert session.beside and session.chat.config.max_tokens == 3 and session.chat.config.learn == "auto"
    session.do("/set tempreture 1")
    assert "did you mean 'temperature'" in session.beside
    assert "max_tokens = 3" in session.do("/set max-tokens")


def test_the_next_turn_sees_what_was_set(session: Session, monkeypatch: pytest.MonkeyPatch):
    shown: list[bool] = []
    monkeypatch.setattr(session.chat.view, "reply", lambda chunks, stopped, markdown: shown.append(markdown))
    session.do("hello")
    session.do("/set markdown off")
    session.do("hello")
    assert shown == [True, False]


def test_the_system_prompt_changes_in_the_middle_of_a_conversation(session: Session):
    session.do("hello")
    session.do("/system Be brief.")
    roles = [m["role"] for m in session.chat.engine.conversation.messages]
    assert roles == ["system", "user", "assistant"]
    assert session.do("again") == "You said: again\n" and "Be brief." in session.do("/system")
    session.do("/system off")
    assert session.chat.engine.conversation.messages[0]["role"] == "user"


def test_retry_gives_another_reply_and_keeps_the_settings(session: Session, monkeypatch: pytest.MonkeyPatch):
    session.do("/retry")
    assert "no reply to try again" in session.beside
    session.do("hello")
    answer, decodings = session.chat.engine.answer, []
    monkeypatch.setattr(session.chat.engine, "answer", lambda about, d: decodings.append(d) or answer(about, d))
    config, count = session.chat.config, len(session.chat.engine.conversation.messages)
    assert session.do("/retry") == "You said: hello\n"
    assert session.chat.config is config and len(session.chat.engine.conversation.messages) == count
    session.do("/retry")
    session.do("hello")
    assert [(d.resolved, d.seed) for d in decodings] == [("sample", 1), ("sample", 2), ("greedy", 0)]


def test_export(session: Session):
    session.do(f"/teach {Q} => Canberra")
    session.do("hello")
    assert "**You:** hello" in session.do("/export md")
    session.do("/export json x.json")
    content = json.loads((session.folder / "x.json").read_text())
    assert content["messages"][0]["content"] == "hello" and content["lessons"][0]["prompt"] == Q
    session.do("/export json x.json")
    assert "exists" in session.beside
    session.do("/export json /dev/null")
    assert "exported to /dev/null" in session.beside and session.chat.exports == {Path("x.json")}
    session.do("/export pdf")
    assert "md|json" in session.beside


def test_edit_puts_the_text_into_the_prompt(session: Session, monkeypatch: pytest.MonkeyPatch):
    session.do("/edit")
    assert "needs a terminal" in session.beside
    session.chat.view.ask = lambda question: ""
    monkeypatch.setattr("click.edit", lambda text, editor, require_save: f"{text}two\nlines\n")
    monkeypatch.setattr("shutil.which", lambda command: command == "ed")
    session.do("/edit")
    assert session.chat.prefill == "two\nlines"


def test_quit_leaves(session: Session):
    with pytest.raises(EOFError):
        session.do("/quit")


# text that cannot be trusted --------------------------------------------------------------------------------------
@pytest.mark.slow
def test_nothing_a_model_a_lesson_or_a_name_says_reaches_the_terminal_as_a_command(
    session: Session, monkeypatch: pytest.MonkeyPatch
):
    """Payloads in replies, lessons, errors, settings and file names; what is shown is always clean."""
    session.chat.talk  # noqa: B018
    for payload in payloads()[::5]:
        text = f"x{payload}y"
        monkeypatch.setitem(scripted.REPLIES, "payload", text)
        for line in (
            "payload",
            f"/teach {text}? => {text}",
            f"/set {text} 1",
            f"/load {text}",
            f"/{text}",
            "/export md",
        ):
            shown = session.do(line.replace("\n", " ")) + session.beside
            assert clean(shown) == shown, (line, shown)
        session.do("/undo")
    lesson = Lesson("a\x1b[31mb?", "c\x9b2Jd", id="\x1b]0;t\x07")
    session.chat.engine.mind.learn(lesson)
    for line in ("/lessons", "/stats", "/history", "/undo"):
        shown = session.do(line) + session.beside
        assert clean(shown) == shown, line


def test_a_transcript_that_cannot_be_written_is_said_once(session: Session):
    session.chat.transcript.path = Path("/proc/nothing/x.jsonl")
    session.do("hello")
    assert "the chat goes on without it" in session.beside
    session.do("hello")
    assert session.beside == ""


def test_errors_of_loading_end_the_session(session: Session):
    def fail(loading):
        raise LmmError("no such model")

    session.chat.loading = Loading(fail)
    with pytest.raises(LmmError, match="no such model"):
        session.do("hello")
    with pytest.raises(UsageError):
        commands.run(session.chat, "/nope")


def test_another_model_goes_on_with_the_lessons(fresh: Session):
    fresh.do(f"/teach {Q} => {A}")
    old = fresh.chat.engine
    fresh.do("/model other")
    assert fresh.chat.engine is not old and fresh.chat.config.model == "other"
    (saved,) = (fresh.folder / "artifacts").glob("*.safetensors")
    assert str(saved.name) in fresh.beside and "learned: " in fresh.beside
    assert [x.prompt for x in fresh.chat.engine.mind.lessons] == [Q] and fresh.chat.engine.mind.unsaved
    assert A in fresh.do(Q)


def test_memories_that_were_put_aside_are_closed_with_the_chat(session: Session, monkeypatch: pytest.MonkeyPatch):
    session.do("/memory identity"), session.do("/memory jotter")
    minds, closed = list(session.chat.minds.values()), []
    monkeypatch.setattr(type(minds[0]), "close", lambda self: closed.append(self))
    session.chat.close()
    assert sorted(map(id, closed)) == sorted(map(id, minds)) and len(minds) == 2


def test_a_memory_that_was_put_aside_is_named_where_it_has_the_lesson(session: Session):
    session.do(f"/teach {Q} => {A}"), session.do("/memory identity")
    with pytest.raises(UsageError, match="memory 'jotter', which was put aside, has: /memory jotter"):
        commands.run(session.chat, f"/forget {A}")


def test_the_system_prompt_stays_whatever_is_put_in_place_of_what(session: Session):
    for line in ("/new", "/memory identity", "/memory jotter", "/model other"):
        session.do(f"/system Be brief. {line}")
        session.do(line)
        assert session.chat.engine.conversation.messages[0]["content"] == f"Be brief. {line}"
    session.do("/system off")
    session.do("/model another")
    assert session.chat.engine.conversation.messages == []


def test_a_model_that_does_not_load_leaves_the_old_one_in_place(session: Session, monkeypatch: pytest.MonkeyPatch):
    from lmm.engine import runtime
    from lmm.errors import ModelError

    session.do(f"/teach {Q} => {A}")
    old = session.chat.engine

    def fail(*args, **more):
        raise ModelError("there is no model 'nope'")

    monkeypatch.setattr(runtime, "open_engine", fail)
    session.do("/model nope")
    assert "no model 'nope'" in session.beside
    assert session.chat.engine is old and session.chat.config.model != "nope" and A in session.do(Q)


def test_a_composition_begins_with_what_its_parts_know(session: Session):
    session.do(f"/teach {Q} => Canberra")
    session.do("/memory jotter+identity")
    assert [x.prompt for x in session.chat.engine.mind.lessons] == [Q]
    assert session.do(Q) == f"{A}\n"
    session.do("/memory jotter")
    assert session.do(Q) == f"{A}\n"


def test_what_is_typed_at_the_question_whether_to_learn():
    lesson = Lesson(Q, A)

    def answered(*typed: str) -> Lesson | None:
        lines, silent = iter(typed), console(io.StringIO())
        return ConsoleView(silent, silent, ask=lambda question: next(lines)).confirm(lesson)

    assert answered("") is lesson and answered("Yes.") is lesson
    assert [answered(no) for no in ("n", "no", "No thanks.", "nope")] == [None] * 4
    assert answered("/lessons", "n") is None
    assert answered("/undo", "Sydney").answer == "The capital of Australia is Sydney."
    assert answered("Who? => Ann").prompt == "Who?"


def test_stdout_carries_the_reply_and_nothing_about_it():
    out, side = io.StringIO(), io.StringIO()
    view = ConsoleView(console(out), console(side))
    view.reply((chunk for chunk in ["half a "]), lambda: True, True)
    assert out.getvalue().strip() == "half a"
    assert "(interrupted)" in side.getvalue()


def test_where_the_usual_place_is_no_good_the_memory_is_saved_elsewhere(
    session: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    session.do(f"/teach {Q} => Canberra")
    Path("artifacts").write_text("a file, not a folder")
    with pytest.raises(StateError):
        save_all(session.chat)
    [saved] = (tmp_path / "data" / "artifacts").iterdir()
    assert f"saved to {saved} instead" in session.beside and b"Canberra" in saved.read_bytes()
    assert not session.chat.engine.mind.unsaved


def test_a_model_gets_the_lessons_of_the_memory_in_use_and_those_put_aside_are_saved(fresh: Session):
    """`/model` after `/memory`: whichever memory was taught last, none of its lessons is taught to another or lost."""
    fresh.do(f"/teach {Q} => Canberra")
    fresh.do("/memory jotter+identity")
    fresh.do("/teach Who leads the choir? => Maria")
    fresh.do("/memory jotter")
    assert [x.prompt for x in fresh.chat.mind.lessons] == [Q]
    fresh.do("/teach Where is the loom? => In the shed")
    fresh.do("/model other")
    assert fresh.chat.config.memory == fresh.chat.mind.memory.name == "jotter"
    assert [x.prompt for x in fresh.chat.mind.lessons] == [Q, "Where is the loom?"]
    saved = {path.name.partition("_2")[0]: state_file.read_header(path) for path in Path("artifacts").iterdir()}
    assert sorted(saved) == ["jotter", "jotter+identity"]
    assert [x.prompt for x in saved["jotter+identity"].lessons] == [Q, "Who leads the choir?"]
    assert [x.prompt for x in saved["jotter"].lessons] == [Q, "Where is the loom?"]


def test_saving_all_leaves_the_memory_in_use_in_place(fresh: Session):
    fresh.do(f"/teach {Q} => Canberra")
    fresh.do("/memory jotter+identity")
    fresh.do("/teach Who leads the choir? => Maria")
    before = fresh.chat.mind
    assert len(save_all(fresh.chat)) == 2
    assert fresh.chat.mind is before and not any(mind.unsaved for mind in fresh.chat.minds.values())
    assert "Canberra" in fresh.do(Q)


def test_nothing_is_copied_of_what_another_has_taken_back(tmp_path: Path, session: Session):
    keep = Keeper(session.chat.mind, tmp_path / "standing.safetensors")
    session.do(f"/teach {Q} => Canberra")
    journal.take_back(keep.file, 1)
    assert save_all(session.chat) == [] and session.chat.mind.lessons == ()
    session.do("/teach Who leads the choir? => Maria")
    assert len(save_all(session.chat)) == 1


# options go with their memory --------------------------------------------------------------------------------------
@pytest.fixture
def hashing(session: Session) -> Session:
    """A chat with a memory whose rows mean nothing with another seed or number of bits."""
    options = {"bits": 6, "seed": 7, "min_steps": 1, "max_steps": 1}
    session.chat.config = replace(session.chat.config, memory="hash_gradient", options=options)
    session.chat.loading = Loading(lambda loading: scripted.open_engine(session.chat.config))
    session.do("I live in Oslo.")
    return session


def test_a_composition_has_its_parts_options(hashing: Session):
    before = hashing.chat.mind.knowledge.state["rows"]
    hashing.do("/memory hash_gradient+identity")
    found = hashing.chat.mind.memory.options_dict()
    assert (found["hash_gradient.seed"], found["hash_gradient.bits"]) == (7, 6)
    assert hashing.chat.mind.knowledge.state["hash_gradient:rows"] is before
    hashing.do("My sister is Vera.")
    hashing.do("/save c.safetensors")
    assert state_file.read_header("c.safetensors").options["hash_gradient.seed"] == 7


def test_a_memory_comes_back_and_goes_on_to_another_model_with_its_options(hashing: Session):
    hashing.do("/memory identity")
    hashing.do("/memory hash_gradient")
    assert hashing.chat.config.options["seed"] == 7
    hashing.do("/model other")
    options = hashing.chat.mind.memory.options
    assert (options.seed, options.bits, options.max_steps) == (7, 6, 1)


def test_a_file_made_with_another_seed_is_refused_and_one_learned_in_more_steps_is_not(hashing: Session):
    hashing.do("/save seven.safetensors")
    for options, fits in (({"seed": 0}, False), ({"bits": 8}, False), ({"max_steps": 3, "lr": 0.1}, True)):
        other = HashGradient.build_options({"bits": 6, "seed": 7, "min_steps": 1, "max_steps": 1} | options)
        hashing.chat.mind.memory.options = other
        hashing.do("/load seven.safetensors")
        assert ("loaded seven.safetensors" in hashing.beside) == fits, hashing.beside
        assert fits or f"--set {next(iter(options))}=" in hashing.beside


def test_a_lesson_that_another_model_does_not_learn_keeps_none_of_the_others_back(fresh: Session, monkeypatch):
    for question, answer in (("Who is A?", "Ann"), ("Who is B?", "Bob"), ("Who is C?", "Cem")):
        fresh.do(f"/teach {question} => {answer}")
    honest = Jotter.learn

    def picky(self, known, lesson, *more):
        if lesson.prompt == "Who is B?":
            raise LearningError("too hard")
        return honest(self, known, lesson, *more)

    monkeypatch.setattr(Jotter, "learn", picky)
    fresh.do("/model other")
    assert [x.prompt for x in fresh.chat.mind.lessons] == ["Who is A?", "Who is C?"]
    assert "not learned: Who is B?: too hard" in fresh.beside and "fits the model before" in fresh.beside


def test_the_seed_that_is_set_is_that_of_the_next_fresh_memory(hashing: Session):
    hashing.do("/memory lora_on_user")
    hashing.do("/set seed 5")
    hashing.do("/reset")
    made = hashing.chat.mind
    assert (made.knowledge.state["A"] == made.memory.fresh(made.adapter, 5)["A"]).all()
