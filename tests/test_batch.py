"""Questions with their replies as one batch: what a reply costs, with a margin and without, whatever else is in it."""

from __future__ import annotations

import numpy as np
import pytest
from contracts import numbers, on_small

from lmm.adapters.base import Adapter, as_tokens
from lmm.adapters.toy import ToyAdapter
from lmm.errors import LearningError
from lmm.lesson import Lesson
from lmm.memory.batch import MAX_ANSWER, Batch, of_one_lesson, rows_of, with_earlier
from lmm.memory.message import heard
from lmm.memory.states import last_states


def losses_alone(adapter: Adapter, question: str, answer: str, margin: float = 0.0) -> np.ndarray:
    """Cross-entropy of each token of a reply, read at once; the right token's logit is lowered by the margin."""
    prompt, made = adapter.format.lesson_tokens(question, answer)
    logits, _ = adapter.forward(as_tokens([*prompt, *made[:-1]]), adapter.new_cache(), keep=len(made))
    x = numbers(adapter, logits)[0].astype(np.float64)
    x[np.arange(len(made)), made] -= margin
    return np.log(np.exp(x).sum(-1)) - x[np.arange(len(made)), made]


@on_small
def test_a_batch_of_replies_costs_what_each_costs_alone(adapter):
    pairs = [("Who?", "Al."), ("Who is it then?", "It is Bo."), ("Who, me?", "C")]
    for everywhere in (False, True):
        batch = Batch(adapter, rows_of(adapter, pairs), adapter.middle_site(), everywhere)
        losses = numbers(adapter, batch.losses(batch.h))
        assert (batch.prefix > 0) is not everywhere
        for i, (question, answer) in enumerate(pairs):
            mine, alone = losses[i][losses[i] != 0], losses_alone(adapter, question, answer)
            np.testing.assert_allclose(mine, alone, rtol=2e-3, atol=2e-3)
            live = numbers(adapter, batch.live)[i, :, 0]
            expected = len(live) if everywhere else len(alone)
            assert live.sum() == expected and live[batch.starts[i]] == 1


@on_small
def test_last_states_do_not_depend_on_their_neighbours(adapter):
    site = adapter.middle_site()
    prompts = [adapter.format.prompt_tokens(text) for text in ("Hi", "A much longer question?")]
    both = last_states(adapter, site, prompts)
    for row, prompt in zip(both, prompts, strict=True):
        alone = numbers(adapter, adapter.hidden(as_tokens(prompt), site.first_layer))[0, -1]
        np.testing.assert_allclose(row, alone, rtol=1e-3, atol=1e-3)


@on_small
@pytest.mark.parametrize("margin", [0.0, 2.0, 6.0])
def test_the_right_tokens_must_lead_by_the_margin(adapter: Adapter, margin: float) -> None:
    batch = Batch(adapter, rows_of(adapter, [("Who?", "It is Bo.")]), adapter.middle_site())
    alone = losses_alone(adapter, "Who?", "It is Bo.", margin)
    np.testing.assert_allclose(numbers(adapter, batch.losses(batch.h, margin))[0], alone, rtol=2e-3, atol=2e-3)
    assert adapter.ops.item(batch.total(batch.h, margin)) == pytest.approx(alone.sum(), rel=2e-3)


@on_small
def test_questions_of_one_length_are_read_once(adapter: Adapter) -> None:
    pairs = [("Who is A?", "Al."), ("Who is B?", "It is Bo.")]
    batch = Batch(adapter, rows_of(adapter, pairs), adapter.middle_site())
    assert batch.starts == [0, 0] and batch.tokens.shape[1] == len(rows_of(adapter, pairs)[1][1])
    for row, (question, answer) in zip(numbers(adapter, batch.losses(batch.h)), pairs, strict=True):
        np.testing.assert_allclose(row[row != 0], losses_alone(adapter, question, answer), rtol=2e-3, atol=2e-3)
    states = last_states(adapter, adapter.middle_site(), [adapter.format.prompt_tokens(q) for q, _ in pairs])
    np.testing.assert_allclose(batch.question_states(), states, rtol=1e-3, atol=1e-3)


def test_an_answer_may_have_so_many_tokens_and_no_more() -> None:
    toy = ToyAdapter()
    assert len(of_one_lesson(toy, "Who?", "x" * (MAX_ANSWER - 1))[1]) == MAX_ANSWER == 200
    with pytest.raises(LearningError, match="201 tokens"):
        of_one_lesson(toy, "Who?", "x" * MAX_ANSWER)


def test_the_last_lessons_about_other_questions_are_taken_along() -> None:
    known = [Lesson("a", "1"), Lesson("b", "2"), Lesson(statement="Hm."), Lesson("c", "3"), Lesson("b", "4")]
    assert with_earlier([("c", "5")], known, 9) == [("c", "5"), ("a", "1"), ("b", "4")]
    assert with_earlier([("c", "5")], known, 1) == [("c", "5"), ("b", "4")]
    assert with_earlier([("c", "5")], known, 0) == [("c", "5")]


def test_a_message_that_begins_a_conversation_has_nothing_before_it(toy: ToyAdapter) -> None:
    message = heard(toy, Lesson(statement="I live in Oslo."), None, toy.middle_site())
    assert message.context.history.shape == (1, 0)
    assert message.context.positions.tolist() == list(range(message.tokens.shape[1]))
