"""A memory file that has at once what a mind knows: crashes, several writers, undo, forgetting, a full disk."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from contracts import ROWS, frozen, logits_of, memory, same_state

from lmm.adapters.toy import ToyAdapter
from lmm.engine import memory_files
from lmm.engine.engine import Engine
from lmm.engine.history import Steps
from lmm.engine.keeper import Keeper
from lmm.engine.mind import Mind
from lmm.errors import LearningError, StateError
from lmm.files import journal, jsonl, known, state_file
from lmm.files.transcripts import data_dir
from lmm.lesson import Knowledge, Lesson
from lmm.memory.composite import Composite

KEPT = ["external", "lm2", "keyed", "notes", "engram", "memoir", "lora_on_user", "hash_gradient"]
A, B, C = (Lesson(f"What is {name}?", name, f"It is {name}.", id=name) for name in ("one", "two", "three"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "m.safetensors"


@pytest.fixture
def open_mind(file: Path) -> Iterator[object]:
    """Minds that keep `file`, each on a model of its own as another process has it."""
    minds: list[Mind] = []

    def made(name: str = "keyed", at: Path = file) -> Mind:
        minds.append(Mind(ToyAdapter(), memory(name)))
        Keeper(minds[-1], at)
        return minds[-1]

    yield made
    for mind in minds:
        mind.detach()


def ids(mind: Mind) -> list[str]:
    return [lesson.id for lesson in mind.lessons]


@pytest.mark.parametrize("name", KEPT)
def test_what_was_learned_is_in_the_file_when_learn_returns(open_mind, file: Path, name: str) -> None:
    first = open_mind(name)
    for lesson in (A, B):
        first.learn(lesson)
        second = open_mind(name)
        assert ids(second) == ids(first) and not second.unsaved
        assert same_state(frozen(Engine(second)), frozen(Engine(first)))
        assert np.array_equal(logits_of(Engine(second), A.prompt), logits_of(Engine(first), A.prompt))
        second.detach()


def test_what_was_learned_is_on_the_disk_when_learn_returns(open_mind, file: Path, monkeypatch) -> None:
    mind = open_mind()
    synced: list[tuple[int, int]] = []  # file, and how long it was then

    def fsync(descriptor: int, real=os.fsync) -> None:
        real(descriptor)
        synced.append((os.fstat(descriptor).st_ino, os.fstat(descriptor).st_size))

    monkeypatch.setattr(os, "fsync", fsync)
    mind.learn(A)
    kept = journal.path_of(file).stat()
    assert (kept.st_ino, kept.st_size) in synced


def test_the_journal_is_put_into_the_file_in_the_end(open_mind, file: Path) -> None:
    mind = open_mind()
    mind.learn(A)
    assert not state_file.read_header(file).lessons and journal.path_of(file).exists()
    mind.close()
    assert [x.id for x in state_file.read_header(file).lessons] == ["one"] and not journal.path_of(file).exists()
    assert os.stat(file).st_mode & 0o777 == 0o600


def test_a_crash_between_file_and_journal_does_no_harm(open_mind, file: Path) -> None:
    mind = open_mind()
    for lesson in (A, B):
        mind.learn(lesson)
    mind.forget("one")
    mind.learn(C)
    lines = journal.path_of(file).read_bytes()
    mind.close()
    journal.path_of(file).write_bytes(lines)  # as if the journal had not been taken away
    assert ids(open_mind()) == ["two", "three"]


@pytest.mark.parametrize("end", [b"", b"{", b'{"tensors": {}}\n', b"\x00\xff\n", b"[1]\n"])
def test_a_line_that_was_not_written_whole_was_never_there(open_mind, file: Path, end: bytes) -> None:
    mind = open_mind()
    mind.learn(A)
    mind.learn(B)
    path = journal.path_of(file)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + (end or lines[1][:-9]))
    after = open_mind()
    assert ids(after) == ["one"]
    after.learn(C)
    assert ids(open_mind()) == ["one", "three"]


def test_a_damaged_line_loses_none_of_those_behind_it(open_mind, file: Path) -> None:
    mind = open_mind()
    for lesson in (A, B, C):
        mind.learn(lesson)
    path = journal.path_of(file)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(lines[0] + b"#" * (len(lines[1]) - 1) + b"\n" + lines[2])
    damaged = path.read_bytes()
    for change in (lambda: journal.load(file), lambda: journal.settle(file), lambda: journal.take_back(file, 1)):
        with pytest.raises(StateError, match=r"line 2 of .* is damaged.*sed -i 2d"):
            change()
    assert "line 2" in journal.verify(file)[0] and path.read_bytes() == damaged
    path.write_bytes(whole)
    assert ids(open_mind()) == ["one", "two", "three"]


def test_a_last_line_that_is_no_change_hides_none_that_comes_after_it(open_mind, file: Path) -> None:
    mind = open_mind()
    mind.learn(A)
    with journal.path_of(file).open("ab") as lines:
        lines.write(b'{"tensors": {}}\n')
    mind.learn(B)
    assert ids(open_mind()) == ["one", "two"]


def test_minds_take_over_what_others_teach(open_mind) -> None:
    one, two = open_mind(), open_mind()
    one.learn(A)
    two.learn(B)
    assert ids(two) == ["one", "two"] and ids(one) == ["one"]
    one.learn(C)
    assert ids(one) == ["one", "two", "three"]
    two.close()  # puts all into the file
    one.undo()
    assert ids(one) == ["one", "two"], "undo takes back one's own lesson"
    one.undo()
    assert ids(one) == ["two"] and one.undo() == 0
    assert ids(open_mind()) == ["two"]


def test_a_file_is_one_by_whatever_link_it_is_named(open_mind, file: Path, tmp_path: Path) -> None:
    one = open_mind()
    one.learn(A)
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.safetensors"
    link.symlink_to(file)
    two = open_mind(at=link)
    two.learn(B)
    one.learn(C)
    assert ids(one) == ["one", "two", "three"] and not list(link.parent.glob("*.journal"))
    assert [x.id for x in journal.read_header(link).lessons] == [x.id for x in journal.read_header(file).lessons]


@pytest.mark.parametrize("array", [np.array([1e300]), np.array([np.nan], np.float32), np.array([1j], np.complex64)])
def test_a_journal_with_what_no_memory_holds_is_named_as_the_cause(open_mind, file: Path, array: np.ndarray) -> None:
    one = open_mind()
    one.learn(A)
    one.close()
    assert journal.verify(file) == []
    journal.append(file, journal.Change({"note/x": array}), None)
    [problem] = journal.verify(file)
    assert f"{file.name}.journal has what no memory holds: tensor 'note/x'" in problem
    with pytest.raises(StateError, match="journal has what no memory holds"):
        open_mind()


def test_who_only_asks_sees_what_others_taught_and_took_back(open_mind, file: Path) -> None:
    one, two = open_mind(), open_mind()
    one.learn(A)
    assert ids(two) == []
    two.look()
    assert ids(two) == ["one"] and two.undo() == 0, "what another taught is not taken back here"
    journal.take_back(file, 1)
    two.look()
    assert ids(two) == []
    one.look()
    assert ids(one) == []
    known = one.knowledge
    one.look()
    assert one.knowledge is known, "and nothing is read where nothing has changed"
    with journal.locked(file):
        one.look()


def test_neither_undo_nor_redo_brings_back_what_another_mind_has_taught_anew(open_mind, file: Path) -> None:
    mind, other = open_mind(), open_mind()
    anew = Lesson(A.prompt, "another", id="anew")
    mind.learn(A)
    mind.learn(B)
    mind.undo(2)
    other.learn(anew)
    mind.redo(2)
    assert set(ids(mind)) == {"anew", "two"} == {lesson.id for lesson in journal.load(file)[1].lessons}
    assert mind.undo(2) == 1 and ids(mind) == ["anew"]


def test_where_lessons_share_weights_undo_ends_at_another_mind(open_mind) -> None:
    one, two = open_mind("lora_on_user"), open_mind("lora_on_user")
    one.learn(A)
    two.learn(B)
    one.learn(C)
    assert ids(one) == ["one", "two", "three"] and ids(open_mind("lora_on_user")) == ids(one)
    assert one.undo(5) == 1 and ids(one) == ["one", "two"]


def test_undo_redo_and_reset_are_kept(open_mind) -> None:
    mind = open_mind()
    for lesson in (A, B):
        mind.learn(lesson)
    for step, expected in (
        (mind.undo, ["one"]),
        (mind.redo, ["one", "two"]),
        (mind.reset, []),
        (mind.undo, ["one", "two"]),
    ):
        step()
        assert ids(open_mind()) == expected


@pytest.mark.parametrize("name", ["keyed", "lora_on_user"])
def test_another_day_can_take_back_what_this_one_learned(open_mind, file: Path, name: str) -> None:
    mind = open_mind(name)
    known = [frozen(Engine(mind))]
    for lesson in (A, B, Lesson(A.prompt, "another", id="instead")):
        mind.learn(lesson)
        known.append(frozen(Engine(mind)))
    mind.close()
    again = open_mind(name)
    for before in known[-2::-1]:
        assert again.undo() == 1 and same_state(frozen(Engine(again)), before)
        assert sorted(ids(again)) == sorted(ids(open_mind(name)))
    assert again.undo() == 0 and again.redo(2) == 2 and ids(open_mind(name)) == ["one", "two"]
    again.close()
    assert [x.lessons[0].id if x.lessons else x.forgotten[0] for x in journal.take_back(file, 9)] == ["two", "one"]
    assert ids(open_mind(name)) == []


def test_a_damaged_list_of_undos_takes_nothing_back(open_mind, file: Path) -> None:
    mind = open_mind()
    for lesson in (A, B):
        mind.learn(lesson)
    lines = journal.undo_of(file).read_bytes().splitlines(keepends=True)
    journal.undo_of(file).write_bytes(lines[0] + b"nonsense\n")
    assert journal.undos(file) == [] and open_mind().undo() == 0
    journal.undo_of(file).write_bytes(lines[0] + lines[1][:20])  # cut short by a crash: its change never was
    assert len(journal.undos(file)) == 1


def test_forgetting_leaves_no_byte(open_mind, file: Path) -> None:
    mind, other = open_mind(), open_mind()
    secret = Lesson("Where is the marble?", "under Zorbina", id="secret1")
    mind.learn(secret)
    mind.learn(A)
    other.learn(B)
    mind.forget("secret1")
    for path in file.parent.rglob("*"):
        assert b"Zorbina" not in path.read_bytes() and b"secret1" not in path.read_bytes(), path
    other.learn(C)
    assert ids(other) == ["one", "two", "three"] and not [x for x in other.lessons_ever if x.id == "secret1"]


def test_a_full_disk_costs_no_lesson_and_says_so(open_mind, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mind = open_mind()
    mind.learn(A)
    before = mind.knowledge

    def full(*args: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(jsonl, "append", full)
    with pytest.raises(LearningError, match=r"nothing was learned.*No space left"):
        mind.learn(B)
    assert mind.knowledge is before and len(mind.history.undo) == 1
    monkeypatch.undo()
    assert ids(open_mind()) == ["one"]


def test_a_long_journal_on_a_full_disk_is_kept_as_it_is(open_mind, file: Path, monkeypatch) -> None:
    mind = open_mind()
    monkeypatch.setattr("lmm.engine.keeper.MOST", 100)

    def full(*args: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    mind.learn(A)
    with monkeypatch.context() as disk:
        disk.setattr(state_file, "write_atomically", full)
        mind.learn(B)
        assert ids(mind) == ["one", "two"]
    assert ids(open_mind()) == ["one", "two"]


def test_a_file_of_another_memory_is_refused_and_left_alone(open_mind, file: Path) -> None:
    open_mind().learn(A)
    stranger = Mind(ToyAdapter(), memory("memoir"))
    with pytest.raises(StateError, match="memory: the file has keyed"):
        Keeper(stranger, file)
    stranger.detach()
    assert stranger.keeper is None and ids(open_mind()) == ["one"]


def test_a_file_that_becomes_another_memory_s_is_named_before_it_does(open_mind, file: Path) -> None:
    """`keyed+notes` reads what `keyed` has learned, and not the other way round."""
    open_mind().learn(A)
    notices = list[str]()
    for name, said in (("keyed", 0), ("keyed+notes", 1)):
        mind = Mind(ToyAdapter(), Composite.named(name) if said else memory(name))
        Keeper(mind, file, notice=notices.append)
        assert len(notices) == said and ids(mind) == ["one"]
        mind.detach()
    assert str(file) in notices[0] and "a file of keyed;" in notices[0] and "keyed alone cannot read" in notices[0]
    assert state_file.read_header(file).module == "keyed", "nothing was learned"


def test_a_long_journal_is_put_into_the_file(open_mind, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mind = open_mind()
    mind.learn(A)
    monkeypatch.setattr("lmm.engine.keeper.MOST", 100)
    mind.learn(B)
    assert not journal.path_of(file).exists() and len(state_file.read_header(file).lessons) == 2
    mind.learn(C)
    assert ids(open_mind()) == ["one", "two", "three"]


@pytest.mark.parametrize("most", [1000, 2])
def test_what_others_teach_is_in_every_step_back_and_forth(
    open_mind, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr("lmm.engine.mind.MAX_UNDO", most)
    mine, other = open_mind(), open_mind()
    own = [Lesson(f"What is {i}?", f"{i}", id=f"{i}") for i in range(4)]
    theirs = [Lesson(f"What is {i}?", f"{i}", id=f"{i}") for i in "abcd"]
    for lesson, foreign in zip(own, theirs, strict=True):
        mine.learn(lesson)
        other.learn(foreign)
    again = replace(own[0], answer="another's", id="e")  # instead of mine, which no step may bring back
    other.learn(again)
    for kept in (["1", "2"], ["1"], [])[: most if most == 2 else None]:
        assert mine.undo() == 1
        assert sorted(ids(mine)) == sorted([*kept, *"abcde"])
    for kept in (["1"], ["1", "2"], ["1", "2", "3"])[-2 if most == 2 else 0 :]:
        assert mine.redo() == 1
        assert sorted(ids(mine)) == sorted([*kept, *"abcde"])


def test_many_who_teach_cost_no_step_back_anything(open_mind, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each lesson of another, every step that could be undone was looked through: eight writers took hours."""
    mine, other = open_mind(), open_mind()
    looked: list[int] = []
    adopted = Mind._adopted
    monkeypatch.setattr(Mind, "_adopted", lambda *args: (looked.append(1), adopted(*args))[1])
    for number in range(6):
        mine.learn(Lesson(f"What is {number}?", "x", id=f"{number}"))
        other.learn(Lesson(f"Who is {number}?", "y", id=f"who-{number}"))
    assert not looked
    assert len(mine.history.undo) == 6 and len(looked) == 6


def test_steps_come_back_as_they_were_in_their_order() -> None:
    chance, one = random.Random(0), Knowledge({}, ())
    steps, plain = Steps(), list[tuple[list[object], tuple[Lesson, ...]]]()
    for number in range(60):
        plain.append((list(one.state.items()), one.lessons))
        steps.append(one)
        gone = set(chance.sample(one.lessons, min(len(one.lessons), chance.randrange(3))))
        kept = [x for x in one.lessons if x not in gone] + [Lesson("What?", id=f"{number}")]
        state = {name: array for name, array in one.state.items() if chance.random() < 0.9}
        one = Knowledge(state | {f"note/{number}": np.ones(1)}, tuple(kept))
        del gone, kept
    assert [(list(known.state.items()), known.lessons) for known in steps] == plain
    held = list(steps)[30]
    while len(steps) > 31:
        assert (list(steps.newest.state.items()), steps.newest.lessons) == plain[len(steps) - 1]
        steps.pop()
    assert steps.newest is held or list(steps.newest.state.items()) == list(held.state.items())
    steps.drop_oldest()
    assert len(steps) == len(list(steps)) == 30


def test_a_step_costs_what_changed_and_not_what_is_known() -> None:
    known = Knowledge(
        {f"note/{i}": np.ones(1) for i in range(5000)}, tuple(Lesson(f"{i}?", id=f"{i}") for i in range(5000))
    )
    steps = Steps()
    tracemalloc.start()
    for number in range(50):
        steps.append(known)
        known = known.taught(known.state | {f"note/new {number}": np.ones(1)}, Lesson("New?", id=f"new {number}"))
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert taken < 3_000_000  # with a dictionary for each it is 7 MB


@pytest.mark.parametrize("beside", [journal.path_of, journal.undo_of])
@pytest.mark.parametrize("how", ["folder", "loop"])
def test_what_lies_beside_and_cannot_be_read_is_named_and_left(open_mind, file: Path, beside, how: str) -> None:
    """As an error of the system it was taken for one of the screen, and the chat ended."""
    open_mind().learn(A)
    journal.settle(file)
    place = beside(file)
    place.unlink(missing_ok=True)
    if how == "folder":
        place.mkdir()
    else:
        place.symlink_to(place.name)
    whole = file.read_bytes()
    with pytest.raises((LearningError, StateError), match=r"m\.safetensors"):
        open_mind()
    with contextlib.ExitStack() as refused:
        if beside is journal.path_of:
            refused.enter_context(pytest.raises(StateError, match=r"cannot read .*m\.safetensors\.journal"))
        journal.load(file)
    assert file.read_bytes() == whole


def test_a_lesson_that_cannot_be_taught_again_is_named_and_the_others_are_learned(open_mind) -> None:
    told: list[tuple[int, str]] = []
    lessons = [A, Lesson("Who?", "x" * 4000, id="long"), B]
    mind = open_mind()
    learned, failed = memory_files.reteach(
        mind, lessons, lambda number, lesson, problem: told.append((number, problem))
    )
    assert learned == [A, B] and ids(mind) == [A.id, B.id]
    [(lesson, problem)] = failed
    assert lesson.id == "long" and problem and told == [(1, ""), (2, problem), (3, "")]


def test_the_place_of_a_file_is_noted_once_by_however_many_processes(tmp_path: Path, monkeypatch) -> None:
    for _ in range(2):
        monkeypatch.setattr(known, "_noted", set())  # as in a new process
        known.remember(tmp_path / "a.safetensors", "memory")
    assert known.remembered("memory") == {tmp_path / "a.safetensors"}
    assert len((data_dir() / "files.jsonl").read_text().splitlines()) == 1


def test_a_memory_that_is_a_loop_of_links_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMM_DATA_DIR", str(tmp_path))
    folder = tmp_path / "memories" / "model"
    folder.mkdir(parents=True)
    (folder / "a.safetensors").symlink_to("a.safetensors")
    (folder / "b.safetensors").write_bytes(b"")
    assert {path.name for path in memory_files.known_files()} >= {"a.safetensors", "b.safetensors"}


# ---------------------------------------------------------------- processes
TEACH = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from contracts import memory
from lmm.adapters.toy import ToyAdapter
from lmm.engine.keeper import Keeper
from lmm.engine.mind import Mind
from lmm.lesson import Lesson
mind = Mind(ToyAdapter(), memory("keyed"))
Keeper(mind, Path(sys.argv[1]))
for i in range(int(sys.argv[4])):
    mind.learn(Lesson(f"What is {sys.argv[2]} {i}?", "x", id=f"{sys.argv[2]}-{i}"))
    print("learned:", f"{sys.argv[2]}-{i}", flush=True)
mind.close()
"""


def teach(file: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", TEACH, str(file), name, str(Path(__file__).parent), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> set[str]:
    assert process.stdout is not None
    return {line.split()[1] for line in process.stdout if line.endswith("\n")}


@pytest.mark.slow
def test_processes_that_teach_at_once_lose_nothing(open_mind, file: Path) -> None:
    running = [teach(file, name, 12) for name in ("a", "b", "c")]
    learned = set().union(*(said(process) for process in running))
    assert [process.wait() for process in running] == [0, 0, 0]
    assert len(learned) == 36 and set(ids(open_mind())) == learned


@pytest.mark.slow
def test_what_was_said_to_be_learned_outlives_a_kill(open_mind, file: Path) -> None:
    learned: set[str] = set()
    for number in range(4):
        process = teach(file, f"p{number}", 1000)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3 + number)]
        process.send_signal(signal.SIGKILL)
        learned |= {line.split()[1] for line in lines} | said(process)
        process.wait()
    assert learned <= set(ids(open_mind()))


def test_the_rows_of_the_contract_are_kept(open_mind, file: Path) -> None:
    """What `KEPT` leaves out has no lesson of its own here, or takes minutes of numerical gradients."""
    assert set(ROWS) - set(KEPT) == {"identity", "engram_hybrid", "gated_lora"}


def test_a_reset_after_one_lesson_is_no_undo(open_mind, file: Path) -> None:
    mind = open_mind()
    mind.learn(A)
    mind.reset()
    mind.close()
    again = open_mind()
    assert ids(again) == [] and again.undo() == 1 and ids(again) == ["one"] and again.undo() == 1 and ids(again) == []


def test_what_can_be_undone_does_not_grow_for_ever(open_mind, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "UNDO", 2)
    mind = open_mind()
    for number in range(6):
        mind.learn(Lesson(f"What is {number}?", f"{number}", id=str(number)))
    mind.close()
    assert journal.undo_of(file).read_bytes().count(b"\n") == 2
    again = open_mind()
    assert again.undo(9) == 2 and ids(again) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("refused", ["m.safetensors.journal", "m.safetensors.undo"])
def test_a_disk_that_refuses_to_remove_a_file_is_said_in_one_line(
    open_mind, file: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    mind = open_mind()
    for lesson in (A, B):
        mind.learn(lesson)
    unlink = Path.unlink

    def failing(path: Path, missing_ok: bool = False) -> None:
        if path.name == refused:
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", failing)
        with pytest.raises(StateError, match=rf"m.safetensors could not be .*: {refused}: Permission denied"):
            journal.replace(file, *journal.load(file), advice="")
    mind.forget(A.id)
    assert ids(open_mind()) == ["two"]


def test_where_another_holds_the_file_that_is_said(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmm.engine import keeper

    said: list[str] = []
    mind = Mind(ToyAdapter(), memory("keyed"))
    Keeper(mind, file, notice=said.append)
    lock, tries = journal.locked, []

    @contextlib.contextmanager
    def held(path: Path, timeout: float = -1) -> Iterator[None]:
        tries.append(path)
        if len(tries) < 13:
            raise TimeoutError
        with lock(path, timeout):
            yield

    monkeypatch.setattr(keeper.journal, "locked", held)
    mind.learn(A)
    assert len(said) == 1 and "waiting for another lmm" in said[0]
    monkeypatch.undo()
    mind.detach()
