"""Scores by teacher forcing, against the decode loop and against the formula."""

from collections.abc import Iterator

import benching
import numpy as np
import pytest
from benching import Prompter, Told
from contracts import on_small

from lmm.adapters.base import Adapter
from lmm.bench.measure import perplexity, reply_seconds, without_memory
from lmm.engine.asking import ask_many
from lmm.engine.engine import Engine
from lmm.engine.mind import Mind
from lmm.engine.scoring import text_losses, token_hits
from lmm.lesson import Lesson
from lmm.memory.identity import Identity


def one_by_one(adapter: Adapter, prompt: str, answer: str) -> list[bool]:
    """Each token's argmax, from a forward pass of its own."""
    format = adapter.format
    read = format.prompt_tokens(prompt)
    hits = []
    for token in format.answer_tokens(format.render([{"role": "user", "content": prompt}], reply=True), answer):
        logits, _ = adapter.forward(np.array([read]), adapter.new_cache())
        hits.append(int(adapter.ops.to_numpy(adapter.ops.argmax(logits[0, -1]))) == token)
        read = [*read, token]
    return hits


@on_small
def test_one_pass_over_a_batch_gives_what_token_by_token_gives(adapter: Adapter) -> None:
    """Answers of different lengths to prompts of equal length: what fills up the shorter ones must not matter."""
    engine = Engine(Mind(adapter, Identity()))
    try:
        prompts = ["who?", "who?", "what is", "why?", "who?"]
        said = adapter.format.decode(
            [t for t in ask_many(engine.mind, ["why?"], max_tokens=5)[0].generated.tokens if t < 128]
        )
        answers = ["ab", "a longer answer", "defgh", said or "x", "hm"]
        expected = [one_by_one(adapter, p, a) for p, a in zip(prompts, answers, strict=True)]
        assert token_hits(engine.mind, prompts, answers) == expected
        assert token_hits(engine.mind, prompts, answers, batch_size=1) == expected
    finally:
        engine.mind.detach()


def test_the_memory_is_held_over_the_answer() -> None:
    engine = Engine(Mind(benching.adapter(), Told()))
    engine.mind.learn(Lesson("capital A", "Rome"))
    assert (
        token_hits(engine.mind, ["capital A", "A capital", "size A"], ["Rome", "Rome", "Rome"])[:2] == [[True] * 5] * 2
    )
    assert not all(token_hits(engine.mind, ["size A"], ["Rome"])[0])
    assert engine.mind.recall is None


def test_text_of_a_memory_stands_before_the_prompt() -> None:
    engine = Engine(Mind(benching.adapter(), Prompter()))
    engine.mind.learn(Lesson("capital A", "Rome"))
    said = ask_many(engine.mind, ["sun"], max_tokens=8)[0]
    plain = Engine(Mind(benching.adapter(), Identity()))
    expected = ask_many(plain.mind, ["capital A Rome.\n\nsun"], max_tokens=8)[0]
    assert said.generated.tokens == expected.generated.tokens
    assert token_hits(engine.mind, ["sun"], ["ab"]) == token_hits(plain.mind, ["capital A Rome.\n\nsun"], ["ab"])


@on_small
def test_the_loss_of_a_text_is_the_formulas(adapter: Adapter) -> None:
    engine = Engine(Mind(adapter, Identity()))
    try:
        tokens = adapter.format.encode("a quick brown fox")
        logits = np.asarray(
            adapter.ops.to_numpy(adapter.forward(np.array([tokens]), adapter.new_cache(), len(tokens))[0])
        )
        logs = logits[0] - np.log(np.exp(logits[0].astype(np.float64)).sum(-1, keepdims=True))
        expected = [-logs[i, token] for i, token in enumerate(tokens[1:])]
        assert text_losses(engine.mind, tokens) == pytest.approx(expected, rel=1e-4)
        read = perplexity(engine.mind, [tokens, tokens[:5]], lambda count: None)
        assert read == pytest.approx(np.exp(np.mean([*expected, *expected[:4]])), rel=1e-4)
    finally:
        engine.mind.detach()


def test_a_memory_that_fires_on_a_text_is_counted_from_its_start() -> None:
    engine = Engine(Mind(benching.adapter(), Told()))
    tokens = engine.adapter.format.encode("capital A")
    before = text_losses(engine.mind, tokens)
    engine.mind.learn(Lesson("capital A", "Rome"))
    after = text_losses(engine.mind, tokens)
    assert after.shape == before.shape == (len(tokens) - 1,)
    assert after[0] > before[0]


class Loud(Told):
    """Changes every token once it has learned something, as shared weights do."""

    name = "loud"

    def rewrite(self, ops, state, recall, x_in, x_out, context):
        return x_out[..., ::-1] if state else x_out


def test_without_memory_is_without_memory_while_another_is_attached() -> None:
    engine = Engine(Mind(benching.adapter(), Loud()))
    plain = ask_many(engine.mind, ["sun"], max_tokens=8)[0].text
    engine.mind.learn(Lesson("capital A", "Rome"))
    changed = ask_many(engine.mind, ["sun"], max_tokens=8)[0].text
    assert changed != plain
    with without_memory(engine.adapter, engine.mind.memory) as other:
        assert ask_many(other, ["sun"], max_tokens=8)[0].text == plain
    assert ask_many(engine.mind, ["sun"], max_tokens=8)[0].text == changed
    assert len(engine.adapter.taps) == 1


def test_a_short_reply_is_extended_at_its_own_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    from lmm.adapters.generation import Generated
    from lmm.bench import measure

    engine = Engine(Mind(benching.adapter(), Identity()))

    def answer(self: Engine, about: str = "") -> Iterator[str]:
        self.conversation.turns[-1].generated = Generated([1] * 12, first_token_s=1.0, seconds=3.2)
        return iter(())

    monkeypatch.setattr(Engine, "answer", answer)
    clock = iter([10.0, 13.5])
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(clock))
    seconds, rate = reply_seconds(engine.mind, "sun")
    assert (seconds, rate) == (pytest.approx(3.5 + 0.2 * 20), pytest.approx(5.0))
