"""A turn, on the toy model and on small random ones: what is read again, learned, undone, interrupted, swapped."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scripted
from contracts import close, engine, frozen, logits_of, memory, numbers, on, on_small, same, same_state

from lmm import registry
from lmm.adapters import generation
from lmm.adapters.base import Adapter, Site
from lmm.adapters.generation import Generated, Loop
from lmm.adapters.toy import ToyAdapter
from lmm.config import Decoding
from lmm.engine.asking import ask_many
from lmm.engine.below import Below
from lmm.engine.conversation import Turn
from lmm.engine.engine import Engine
from lmm.engine.mind import Mind
from lmm.errors import Cancelled, LearningError, StateError, TooLongError, UsageError
from lmm.files.activation_log import ActivationLog, read
from lmm.lesson import Knowledge, Lesson
from lmm.memory.base import LearnReport, Memory, Recall

LEARNERS = ["lora_on_user", "hash_gradient"]  # those whose lessons change how earlier turns are read
MESSAGES = ["My sister's name is Ada.", "I live in Oslo.", "What is her name?", "And where do I live?", "Thank you."]


def last(made: Engine) -> Turn:
    """The last turn."""
    return made.conversation.turns[-1]


def next_logits(made: Engine, token: int = 65) -> np.ndarray:
    """Logits after one more token on top of the cache as the next turn would find it."""
    made.refresh()
    with made.mind.holding(None, 0):
        out, _ = made.adapter.forward(np.array([[token]]), made.cache)
    return numbers(made.adapter, out)


def next_logits_fresh(made: Engine, token: int = 65) -> np.ndarray:
    tokens = np.concatenate([made.cache.tokens, [[token]]], axis=1)
    with made.mind.holding(None, 0):
        out, _ = made.adapter.forward(tokens, made.adapter.new_cache())
    return numbers(made.adapter, out)


# ---------------------------------------------------------------- the cache is kept
@on("toy", "tiny-torch", "tiny-mlx", "torch")
def test_a_turn_reads_only_what_is_new(adapter: Adapter) -> None:
    made = engine(adapter, max_tokens=6)
    sizes = []
    for _ in range(4):
        reply = made.reply("Tell me more about it.")
        sizes.append(reply.generated.prefill_tokens)
        assert made.cache.length >= len(made.conversation.tokens) - 1
    assert max(sizes[1:]) - min(sizes[1:]) <= 2, sizes
    assert sizes[3] <= sizes[0] + 4, "turn 4 reads no more than its own message"
    close(next_logits(made), next_logits_fresh(made))


@on_small
@pytest.mark.parametrize("name", LEARNERS)
def test_after_a_lesson_the_cache_is_that_of_a_fresh_reading(adapter: Adapter, name: str) -> None:
    made = engine(adapter, name, max_tokens=4)
    for i, text in enumerate(MESSAGES[:3]):
        made.hear(text)  # learns
        assert i == 0 or made.cache.length > 0
        if made.cache.length:
            close(next_logits(made), next_logits_fresh(made))
        for _ in made.answer():
            pass
        close(next_logits(made), next_logits_fresh(made))
    for travel in (made.mind.undo, made.mind.undo, made.mind.redo, made.mind.undo):
        travel()
        assert made.cache.length > 0
        close(next_logits(made), next_logits_fresh(made))


@on_small
@pytest.mark.parametrize("strategy", ["beam", "sample"])
def test_a_lesson_after_any_decoding_leaves_no_stale_layer(adapter: Adapter, strategy: str) -> None:
    decoding = Decoding(strategy, max_tokens=5, beams=3, temperature=3.0)
    made = engine(adapter, "lora_on_user")
    made.decoding = decoding
    for text in MESSAGES[:3]:
        made.reply(text)
        close(next_logits(made), next_logits_fresh(made))


@pytest.mark.parametrize("name", LEARNERS)
def test_questions_aside_do_not_disturb_the_conversation(toy: ToyAdapter, name: str) -> None:
    made, undisturbed = engine(toy, name), engine(ToyAdapter(), name)
    for text in MESSAGES[:2]:
        made.reply(text)
        ask_many(made.mind, ["What is your name?", "Who are you?"], max_tokens=3)
        undisturbed.reply(text)
    assert made.conversation.tokens == undisturbed.conversation.tokens
    assert same_state(frozen(made), frozen(undisturbed))
    close(next_logits(made), next_logits_fresh(made))


def test_states_below_a_memory_keep_in_step() -> None:
    ops, below = ToyAdapter().ops, Below()

    def states(start: int, length: int, mark: float = 0.0) -> np.ndarray:
        return np.arange(start, start + length, dtype=np.float32).reshape(1, -1, 1) + mark

    below.add(0, states(0, 4))
    below.add(4, states(4, 1))
    below.add(5, states(5, 1))
    assert below.length == 6 and below.joined(ops).ravel().tolist() == [0, 1, 2, 3, 4, 5]
    below.add(2, states(2, 3, 0.5))  # read again from position 2
    assert below.length == 5 and below.joined(ops).ravel().tolist() == [0, 1, 2.5, 3.5, 4.5]
    below.add(9, states(9, 1))  # after a gap
    below.add(5, np.zeros((2, 1, 1)))  # two rows
    assert below.length == 5
    below.cut(1)
    assert below.joined(ops).ravel().tolist() == [0]
    below.cut(0)
    assert below.length == 0 and not below.pieces


# ---------------------------------------------------------------- interrupting
@on_small
def test_an_interrupted_reply_is_kept_marked_and_continued(adapter: Adapter) -> None:
    made = engine(adapter, max_tokens=40)
    made.hear("Tell me a long story.")
    chunks = []
    for chunk in made.answer():
        chunks.append(chunk)
        made.mind.cancelled.set()
    out = last(made).generated
    assert out.interrupted and not out.ended and len(out.tokens) < 8
    assert made.conversation.messages[-1] == {"role": "assistant", "content": out.text}
    assert last(made).text == "".join(chunks).rstrip()
    cached = made.cache.length
    again = made.reply("Go on.")
    assert again.generated.tokens and not again.generated.interrupted
    assert again.generated.prefill_tokens + cached >= len(last(made).read) - 1
    assert again.generated.prefill_tokens < cached, "what was said before was read again"
    close(next_logits(made), next_logits_fresh(made))


@on_small
@pytest.mark.parametrize("name", ["identity", "lora_on_user"])
def test_a_reply_that_is_dropped_half_way_can_be_followed(adapter: Adapter, name: str) -> None:
    made = engine(adapter, name, max_tokens=40)
    made.reply(MESSAGES[0])
    made.hear(MESSAGES[1])
    stream = made.answer()
    next(stream)
    stream.close()  # the reader went away
    assert last(made).generated.interrupted and made.mind.recall is None
    made.decoding = Decoding(max_tokens=4)
    made.reply(MESSAGES[2])
    close(next_logits(made), next_logits_fresh(made))


def test_cancelling_from_another_thread_stops_within_one_token(toy: ToyAdapter) -> None:
    made = engine(toy, max_tokens=200)
    made.hear("Hello")
    stream = made.answer()
    next(stream)
    thread = threading.Thread(target=made.mind.cancelled.set)
    thread.start()
    thread.join()
    before = len(last(made).generated.tokens)
    list(stream)
    assert len(last(made).generated.tokens) <= before + 1 and last(made).generated.interrupted


# ---------------------------------------------------------------- learning in a turn
@on_small
@pytest.mark.parametrize("name", LEARNERS)
def test_a_message_is_learned_once_and_in_its_context(adapter: Adapter, name: str) -> None:
    made = engine(adapter, name)
    first = made.hear(MESSAGES[0])
    assert first is not None and first.steps > 0 and made.mind.lessons[0].statement == MESSAGES[0]
    for _ in made.answer():
        pass
    second = made.hear(MESSAGES[0])
    alone = engine_aside(adapter, name, made)
    assert second is not None and alone.loss_before != pytest.approx(second.loss_before, rel=1e-6)
    assert len(made.mind.lessons) == 2
    ids = first.details["user_response_target_token_ids"]
    assert adapter.format.decode(ids).strip() == MESSAGES[0]
    assert len(first.details["user_response_token_losses"]) == len(ids)


def engine_aside(adapter: Adapter, name: str, made: Engine) -> LearnReport:
    """The same message from the same state, learned without its conversation."""
    report = LearnReport()
    with adapter.quiet():
        made.mind.memory.learn(made.mind.history.undo.newest, Lesson(statement=MESSAGES[0]), adapter, None, report)
    return report


def test_hearing_without_learning(toy: ToyAdapter) -> None:
    made = engine(toy, "lora_on_user")
    state = frozen(made)
    assert made.hear("Just asking.", learn=False) is None
    assert same_state(frozen(made), state) and not made.mind.history.undo and not made.mind.unsaved


def test_a_message_too_long_for_the_model_is_not_heard(toy: ToyAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    made = engine(toy, "identity")
    made.reply("hi")
    before = list(made.conversation.messages)
    monkeypatch.setattr(toy, "shape", replace(toy.shape, context=len(made.conversation.tokens) + 40))
    with pytest.raises(TooLongError, match="the model reads fewer than"):
        made.hear("a" * 80)
    assert made.conversation.messages == before and not any(turn.left for turn in made.conversation.turns)
    made.reply("b")
    assert made.conversation.messages[:-2] == before


def test_what_is_too_long_for_the_model_is_not_learned(toy: ToyAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    mind = engine(toy, "keyed").mind
    monkeypatch.setattr(toy, "shape", replace(toy.shape, context=256))
    for lesson in (
        Lesson("Why? " * 40_000, "Because."),
        Lesson("Why?", "a" * 256),
        Lesson("Why?", "So.", wordings=("Why " * 70,)),
        Lesson(statement="a" * 200, echo="b" * 60),
    ):
        with pytest.raises(LearningError, match="tokens, and the model reads fewer than 256"):
            mind.learn(lesson)
    assert not mind.lessons and not mind.history.undo


def test_a_reply_that_finds_no_end_is_cut_and_can_go_on(toy: ToyAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmm.adapters.generation.LONGEST", 7)
    monkeypatch.setattr(toy.format, "stop_ids", frozenset())
    made = engine(toy, "identity")
    made.decoding = Decoding(stop_repeats=False)
    cut = made.reply("Tell me everything.").generated
    assert cut is not None and (len(cut.tokens), cut.cut) == (7, "length")
    assert "".join(made.more()) and len(cut.tokens) == 14


def test_the_oldest_turns_leave_when_the_conversation_outgrows_the_model(toy: ToyAdapter, monkeypatch) -> None:
    monkeypatch.setattr(toy, "shape", replace(toy.shape, context=400))
    made = engine(toy, "identity", max_tokens=3, system="Be brief.")
    sizes = []
    for number in range(30):
        made.reply(f"This is message {number}, of some length.")
        sizes.append(len(made.conversation.tokens))
    assert max(sizes) < 400 and made.conversation.turns[0].left and not made.conversation.turns[-1].left
    assert len(made.conversation.messages) == 61  # what was said is still there to be looked at
    assert made.adapter.format.decode(made.conversation.tokens).count("Be brief.") == 1
    assert sum(b < a for a, b in itertools.pairwise(sizes)) < 10  # not all read anew at every turn
    close(next_logits(made), next_logits_fresh(made))


def test_a_reply_that_was_cut_goes_on_as_if_it_had_not_been(toy: ToyAdapter) -> None:
    whole, cut = engine(toy, "identity", max_tokens=24), engine(toy, "identity", max_tokens=8)
    expected = whole.reply("hello")
    turn = cut.reply("hello")
    assert turn.generated.cut == "length" and len(turn.generated.tokens) == 8
    for _ in range(2):
        assert "".join(cut.more()) or turn.generated.ended
    assert turn.generated.tokens == expected.generated.tokens and turn.reply == expected.reply
    assert cut.conversation.tokens == whole.conversation.tokens
    close(next_logits(cut), next_logits(whole))


def test_a_whole_reply_does_not_go_on(toy: ToyAdapter) -> None:
    made = engine(toy, "identity")
    with pytest.raises(UsageError, match="/retry"):
        next(made.more())


PARAGRAPH = "The town lies at the river. The town has a church, and the church has a clock, and it is always late. "
LIST = "".join(f"{i}. The capital of land {i} is town {i}, and its river is river {i}.\n" for i in range(15))
CODE = "".join(f"def test_{name}():\n    assert run({name!r}) == 0\n\n\n" for name in "abcdefghijklmnop")
POEM = "".join(f"Verse {i} is new. {'And the river runs on, and the river runs on. ' * 3}" for i in range(5))


@pytest.mark.parametrize("piece", ["ab c ", "x" * 40 + "y", "a", PARAGRAPH, LIST[:300], "Ho! " * 5 + PARAGRAPH])
def test_a_reply_that_repeats_itself_is_ended(piece: str) -> None:
    made = scripted.engine(script=lambda text: "Well. " + piece * 400)
    turn = made.reply("go")
    assert turn.generated.cut == "repeats" and len(turn.generated.tokens) < 6 + 5 * max(len(piece), 20)


def test_a_loop_of_any_length_is_found_once_its_piece_came_three_times() -> None:
    piece = np.random.default_rng(1).integers(50000, size=3000).tolist()
    loop = Loop()
    ended = next(i for i, token in enumerate(itertools.cycle(piece), 1) if loop.feed(token))
    assert ended == 3 * len(piece)


@pytest.mark.parametrize("text", [LIST, CODE, POEM + "-" * 30, PARAGRAPH * 2 + "That was it. " + PARAGRAPH * 2])
def test_a_list_code_or_a_refrain_is_no_loop(text: str) -> None:
    made = scripted.engine(script=lambda _: text)
    assert made.reply("go").generated.cut == "" and made.conversation.last.text == text.rstrip()


@pytest.mark.parametrize(
    "goes_on, reply",
    [
        (" Dear Vera, all the best!  Your sister is Vera. Your sister", " Dear Vera, all the best!"),
        (" Your sister is Vera.", ""),
        (" Your sister is not here. Your", " Your sister is not here. Your"),
    ],
)
def test_a_reply_ends_before_it_says_its_opening_again(goes_on: str, reply: str) -> None:
    opening = "Yes. Your sister is Vera."
    made = scripted.engine(script=lambda text: opening + goes_on)
    made.conversation.ask("Is my sister Vera?")
    out = Generated(tokens=made.adapter.format.encode(opening))
    tokens = [*made.conversation.tokens, *out.tokens]
    chunks = generation.stream(made.adapter, tokens, made.adapter.new_cache(), Decoding(), out, lambda: False)
    assert "".join(chunks).rstrip() == out.text.rstrip() == opening + reply
    assert out.ended and made.adapter.format.decode(out.tokens).rstrip() == opening + reply


@pytest.mark.parametrize("error", [LearningError("NaN"), Cancelled("stopped"), KeyboardInterrupt()])
def test_a_message_whose_lesson_failed_was_not_heard(toy: ToyAdapter, monkeypatch, error) -> None:
    made = engine(toy, "lora_on_user", max_tokens=3)
    made.reply(MESSAGES[0])
    state, messages, undo = frozen(made), list(made.conversation.messages), len(made.mind.history.undo)

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(made.mind.memory, "learn", fail)
    with pytest.raises(type(error)):
        made.hear(MESSAGES[1])
    assert made.conversation.messages == messages and same_state(frozen(made), state)
    assert len(made.mind.history.undo) == undo
    made.hear(MESSAGES[1], learn=False)
    for _ in made.answer():
        pass
    assert [m["role"] for m in made.conversation.messages] == ["user", "assistant"] * 2
    close(next_logits(made), next_logits_fresh(made))


def test_learning_after_undo_forgets_the_future(toy: ToyAdapter) -> None:
    made = engine(toy, "lora_on_user")
    for text in MESSAGES[:3]:
        made.mind.learn(Lesson(statement=text))
    made.mind.undo(2)
    made.mind.learn(Lesson(statement="Something else."))
    assert made.mind.redo() == 0 and [x.statement for x in made.mind.lessons] == [MESSAGES[0], "Something else."]
    assert made.mind.undo(10) == 2 and not made.mind.lessons


def test_a_memory_that_cannot_forget_says_so_and_stays(toy: ToyAdapter) -> None:
    made = engine(toy, "lora_on_user")
    made.mind.learn(Lesson(statement=MESSAGES[0], id="abc"))
    version = made.mind.knowledge
    with pytest.raises(LearningError, match=r"cannot forget one.*undo"):
        made.mind.forget("abc")
    with pytest.raises(LearningError, match="no lesson 'xyz'"):
        made.mind.forget("xyz")
    assert made.mind.knowledge is version


# ---------------------------------------------------------------- a memory of the test's own
class Shout(Memory):
    """Pushes the reply's tokens towards one byte, where the prompt asks for it."""

    name, summary, learns_from = "shout", "for tests", "lessons"

    def on_prompt(self, state, lessons, prompts, adapter):
        fired = [[("x", 1.0)] if "loud" in p.text else [] for p in prompts]
        if not any(fired):
            return None
        gate = adapter.ops.asarray(np.array([1.0 if f else 0.0 for f in fired]))
        return Recall(
            fired, {"gate": gate}, ["Shout!" if "loud" in p.text and "text" in p.text else "" for p in prompts]
        )

    def rewrite(self, ops, state, recall, x_in, x_out, context):
        if recall is None:
            return x_out
        at = ops.asarray((context.positions >= recall.start).astype(np.float32))
        push = ops.asarray(np.linspace(-40, 40, x_out.shape[-1]).astype(np.float32))
        return x_out + ops.cast_like(recall.arrays["gate"][:, None, None] * at[None, :, None] * push, x_out)


@on_small
def test_a_reply_holds_what_was_recalled_and_the_next_one_does_not(adapter: Adapter) -> None:
    plain, made = engine(adapter, max_tokens=5), Engine(Mind(adapter, Shout()), decoding=Decoding(max_tokens=5))
    plain.mind.detach()
    try:
        quiet, loud = ask_many(made.mind, ["be calm", "be loud"], max_tokens=5)
        assert quiet.recall is None and loud.recall is not None and loud.recall.fired == [[("x", 1.0)]]
        assert quiet.generated.tokens != loud.generated.tokens
        assert made.reply("be loud").generated.tokens == loud.generated.tokens
        assert made.mind.recall is None
        made.start()
        assert made.reply("be calm").generated.tokens == quiet.generated.tokens
        mixed = ask_many(made.mind, ["be calm", "be loud", "so loud", "so calm"], max_tokens=5)
        assert [m.recall is not None for m in mixed] == [False, True, True, False]
        assert [m.generated.tokens for m in mixed[:2]] == [quiet.generated.tokens, loud.generated.tokens]
    finally:
        made.close()


@on_small
def test_text_that_a_memory_recalls_is_read_but_not_kept(adapter: Adapter) -> None:
    made = Engine(Mind(adapter, Shout()), decoding=Decoding(max_tokens=4))
    starts = []
    honest = made.mind.memory.rewrite

    def spying(ops, state, recall, x_in, x_out, context):
        if recall is not None:
            starts.append((recall.start, context.positions[-1], context.phase))
        return honest(ops, state, recall, x_in, x_out, context)

    made.mind.memory.rewrite = spying  # type: ignore[method-assign]
    try:
        made.reply("be calm")
        made.reply("be loud in text")
        assert "Shout!" in adapter.format.decode(last(made).read)
        assert starts[0][0] == len(last(made).read) - 1 == starts[0][1], "the reply begins after the text, too"
        assert last(made).generated.prefill_tokens < len(last(made).read), "the turn before was read again"
        assert "Shout!" not in adapter.format.decode(made.conversation.tokens)
        made.reply("be calm again")
        assert made.cache.length >= len(made.conversation.tokens) - 1
    finally:
        made.close()


# ---------------------------------------------------------------- swapping
@on_small
def test_a_memory_is_swapped_while_the_conversation_goes_on(adapter: Adapter) -> None:
    made = engine(adapter, "identity", max_tokens=4)
    made.reply(MESSAGES[0])
    before = list(made.conversation.tokens)
    lora, hashed = (Mind(adapter, memory(name)) for name in ("lora_on_user", "hash_gradient"))
    for mind in (lora, hashed):
        mind.detach()
    made.use(lora)
    assert not made.mind.unsaved and made.mind.undo() == 0
    made.reply(MESSAGES[1])
    assert made.conversation.tokens[: len(before)] == before and len(made.mind.lessons) == 1
    close(next_logits(made), next_logits_fresh(made))
    kept = logits_of(made, MESSAGES[2])
    made.use(hashed)
    assert not np.array_equal(logits_of(made, MESSAGES[2]), kept)
    made.use(lora)
    same(adapter, logits_of(made, MESSAGES[2]), kept)
    made.reply(MESSAGES[3])
    close(next_logits(made), next_logits_fresh(made))


def test_a_memory_that_cannot_be_attached_leaves_the_old_one_in_place(toy: ToyAdapter) -> None:
    made = engine(toy, "lora_on_user", max_tokens=3)
    made.reply(MESSAGES[0])
    version, logits = made.mind.knowledge, logits_of(made, MESSAGES[1])

    class Lost(Memory):
        name, summary = "lost", "for tests"
        places = ()

        def sites(self, adapter):
            return self.places

    lost = Mind(toy, Lost())
    lost.detach()
    Lost.places = (toy.middle_site(), Site(99))
    with pytest.raises(Exception, match="layer 99"):
        made.use(lost)
    assert made.mind.memory.name == "lora_on_user" and made.mind.knowledge is version
    assert np.array_equal(logits_of(made, MESSAGES[1]), logits)


# ---------------------------------------------------------------- files and log
def test_saving_where_it_cannot_be_saved_loses_nothing(toy: ToyAdapter, tmp_path: Path) -> None:
    made = engine(toy, "lora_on_user")
    made.mind.learn(Lesson(statement=MESSAGES[0]))
    state = frozen(made)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StateError, match="still in this session") as caught:
        made.mind.save(tmp_path / "file" / "memory.safetensors")
    assert "\n" not in str(caught.value)
    assert made.mind.unsaved and same_state(frozen(made), state)
    made.mind.save(tmp_path / "memory.safetensors")
    assert not made.mind.unsaved
    made.mind.undo()
    assert made.mind.unsaved
    made.mind.redo()
    assert not made.mind.unsaved


def test_loading_a_bad_file_changes_nothing_and_a_good_one_can_be_undone(toy: ToyAdapter, tmp_path: Path) -> None:
    made = engine(toy, "lora_on_user", max_tokens=3)
    made.reply(MESSAGES[0])
    made.mind.save(tmp_path / "good.safetensors")
    version, logits = made.mind.knowledge, logits_of(made, MESSAGES[1])
    data = bytearray((tmp_path / "good.safetensors").read_bytes())
    data[-5] ^= 1
    (tmp_path / "bad.safetensors").write_bytes(data)
    with pytest.raises(StateError, match="checksum"):
        made.mind.load(tmp_path / "bad.safetensors")
    assert made.mind.knowledge is version and np.array_equal(logits_of(made, MESSAGES[1]), logits)
    made.mind.reset()
    made.mind.load(tmp_path / "good.safetensors")
    assert np.array_equal(logits_of(made, MESSAGES[1]), logits)
    close(next_logits(made), next_logits_fresh(made))
    made.mind.undo()
    assert not made.mind.lessons
    other = engine(ToyAdapter(), "hash_gradient")
    with pytest.raises(StateError, match="lora_on_user"):
        other.mind.load(tmp_path / "good.safetensors")


def test_a_turn_is_logged(toy: ToyAdapter, tmp_path: Path) -> None:
    log = ActivationLog(tmp_path / "log.jsonl")
    made = engine(toy, "lora_on_user", log=log, max_tokens=3)
    made.reply(MESSAGES[0])
    log.close()
    records = list(read(tmp_path / "log.jsonl"))
    kinds = [r["kind"] for r in records]
    assert kinds.count("update") == 2, kinds
    hooks = [r for r in records if r["kind"] != "update"]
    assert len(hooks) >= 3 and {"prefill", "decode"} <= {r.get("phase") for r in hooks}


def test_a_message_is_logged_also_where_nothing_is_learned_from_it(toy: ToyAdapter, tmp_path: Path) -> None:
    log = ActivationLog(tmp_path / "log.jsonl")
    made = engine(toy, "identity", log=log, max_tokens=3)
    made.reply(MESSAGES[0])
    log.close()
    updates = [r for r in read(tmp_path / "log.jsonl") if r["kind"] == "update"]
    assert [r["stage"] for r in updates] == ["pre_hooks", "post_hooks"]
    assert all(r["info"]["last_user_response"] == MESSAGES[0] for r in updates)


@pytest.mark.parametrize("name", registry.MEMORIES)
def test_closing_leaves_no_tap(toy: ToyAdapter, name: str) -> None:
    made = engine(toy, name, max_tokens=2)
    made.reply(MESSAGES[0])
    assert toy.taps
    made.close()
    made.close()
    assert not toy.taps
    assert isinstance(made.mind.knowledge, Knowledge)


def test_forgetting_leaves_no_empty_step_of_undo(toy: ToyAdapter) -> None:
    mind = engine(toy, "keyed").mind
    for name in ("one", "two", "three"):
        mind.learn(Lesson(f"What is {name}?", name, id=name))
    mind.undo()
    mind.forget("two")
    assert [x.id for x in mind.lessons] == ["one"] and len(mind.history.undo) == len(mind.history.redo) == 1
    assert mind.redo() == 1 and [x.id for x in mind.lessons] == ["one", "three"]
    assert mind.undo(2) == 2 and mind.lessons == () and mind.undo() == 0
