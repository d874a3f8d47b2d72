"""Many conversations on one model: each reads its own memory and nobody else's, alone or all in one pass."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from contracts import close, numbers, on, on_small, same

from lmm.adapters.base import Adapter
from lmm.config import Decoding
from lmm.engine.engine import Engine
from lmm.engine.mind import Mind
from lmm.engine.seats import MOST, Seats
from lmm.lesson import Lesson
from lmm.memory.keyed.keyed import Keyed

PROMPTS = [[65, 66, 67], [70] * 9, [80, 81, 82, 83, 84], [90, 91]]


def prompts(adapter: Adapter) -> list[list[int]]:
    return [[t % adapter.shape.vocab for t in row] for row in PROMPTS]


@on_small
def test_one_pass_for_all_is_as_a_pass_for_each(adapter: Adapter) -> None:
    caches = [adapter.forward(np.array([row]), adapter.new_cache())[1] for row in prompts(adapter)]
    tokens = [5, 6, 7, 8]
    for _ in range(3):
        alone = [adapter.forward(np.array([[t]]), c) for t, c in zip(tokens, caches, strict=True)]
        logits, after = adapter.forward_each(tokens, caches)
        for (expected, one), found, cache in zip(alone, logits, after, strict=True):
            assert found.shape == expected.shape and np.array_equal(cache.tokens, one.tokens)
            close(numbers(adapter, found), numbers(adapter, expected))
        caches = after
    assert [c.length for c in caches] == [len(row) + 3 for row in PROMPTS]


@on_small
def test_taps_see_one_conversation_at_a_time(adapter: Adapter) -> None:
    caches = [adapter.forward(np.array([row]), adapter.new_cache())[1] for row in prompts(adapter)]
    seen: list[tuple[int, int, int, tuple[int, ...]]] = []

    def rewrite(x_in, x_out, context):
        position, read = int(context.positions[0]), context.history.shape[1]
        seen.append((context.row, position, read, tuple(x_out.shape)))
        return x_out + adapter.ops.asarray(np.float32(context.row))

    with adapter.tap(adapter.site(1), rewrite):
        logits, _ = adapter.forward_each([5, 6, 7, 8], caches)
    width = adapter.shape.width
    assert seen == [(i, len(row), len(row), (1, 1, width)) for i, row in enumerate(PROMPTS)]
    plain, _ = adapter.forward_each([5, 6, 7, 8], caches)
    tapped, untouched = ([numbers(adapter, row) for row in rows] for rows in (logits, plain))
    same(adapter, tapped[0], untouched[0])  # the first row was told to add nothing
    assert not any(np.allclose(a, b, atol=1e-3) for a, b in zip(tapped[1:], untouched[1:], strict=True))


def pushed(amount: float):
    return lambda x_in, x_out, context: x_out + amount


@on("toy", "tiny-torch")
def test_a_seats_taps_act_on_nobody_elses_states(adapter: Adapter) -> None:
    rows = prompts(adapter)
    one, many = Seats(adapter), Seats(adapter)
    quiet, loud = many.seat(), many.seat()
    start = adapter.forward(np.array([rows[0]]), adapter.new_cache())
    with loud.tap(loud.site(1), pushed(3.0)):
        before = quiet.forward(np.array([rows[0]]), quiet.new_cache())
        pushed_up = loud.forward(np.array([rows[0]]), loud.new_cache())
        with ThreadPoolExecutor(2) as pool:
            both = [pool.submit(seat.forward, np.array([[7]]), start[1]) for seat in (quiet, loud)]
        results = [numbers(adapter, f.result()[0]) for f in both]
        with loud.quiet():
            assert np.array_equal(numbers(adapter, loud.forward(np.array([[7]]), start[1])[0]), results[0])
    assert np.array_equal(numbers(adapter, before[0]), numbers(adapter, start[0]))
    assert not np.array_equal(numbers(adapter, pushed_up[0]), numbers(adapter, start[0]))
    close(results[0], numbers(adapter, adapter.forward(np.array([[7]]), start[1])[0]))
    assert not np.allclose(results[0], results[1])
    many.close()
    one.close()
    assert not adapter.taps


def test_those_who_decode_at_once_share_a_pass(tiny_torch: Adapter) -> None:
    seats = Seats(tiny_torch)
    starts = [tiny_torch.forward(np.array([row]), tiny_torch.new_cache())[1] for row in prompts(tiny_torch)]
    gate = threading.Barrier(4)

    def talk(cache) -> list[int]:
        seat, token, made = seats.seat(), 5, []
        gate.wait()
        for _ in range(40):
            logits, cache = seat.forward(np.array([[token]]), cache)
            token = int(numbers(seat, logits)[0, -1].argmax())
            made.append(token)
        return made

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(talk, starts))
    assert seats.tokens == 160 and seats.passes < 120
    for made, cache in zip(found, starts, strict=True):
        token, alone = 5, []
        for _ in range(40):
            logits, cache = tiny_torch.forward(np.array([[token]]), cache)
            token = int(numbers(tiny_torch, logits)[0, -1].argmax())
            alone.append(token)
        assert made == alone


@on("toy")
def test_more_than_a_pass_takes_are_all_served(adapter: Adapter) -> None:
    seats, many = Seats(adapter), 3 * MOST
    mine = [seats.seat() for _ in range(many)]
    _, cache = adapter.forward(np.array([prompts(adapter)[0]]), adapter.new_cache())
    expected = numbers(adapter, adapter.forward(np.array([[7]]), cache)[0])
    with ThreadPoolExecutor(many) as pool:
        for _ in range(3):
            told = [pool.submit(seat.forward, np.array([[7]]), cache) for seat in mine]
            assert all(np.array_equal(numbers(adapter, one.result()[0]), expected) for one in told)
    assert not seats._waiting and seats.tokens == 3 * many


def test_a_pass_has_so_many_tokens(toy: Adapter, monkeypatch) -> None:
    monkeypatch.setattr("lmm.engine.seats.TOKENS", 10)
    seats, (_, cache) = Seats(toy), toy.forward(np.array([[65, 66, 67, 68]]), toy.new_cache())
    _, long = toy.forward(np.array([[65] * 20]), toy.new_cache())
    with ThreadPoolExecutor(5) as pool, seats.alone(seats.seat()):  # all wait for the one who is alone
        told = [pool.submit(seats.seat().forward, np.array([[7]]), one) for one in (cache, cache, cache, cache, long)]
        while len(seats._waiting) < 5:
            time.sleep(0.001)
    assert [one.result()[1].length for one in told] == [5, 5, 5, 5, 21]
    assert seats.tokens == 5 and seats.passes in (3, 4)  # 2 and 2 and the long one, in the order in which they came


def test_an_error_in_a_pass_reaches_all_who_were_in_it_and_ends_there(toy: Adapter, monkeypatch) -> None:
    seats = Seats(toy)
    seat, (_, cache) = seats.seat(), toy.forward(np.array([[65, 66]]), toy.new_cache())
    monkeypatch.setattr(toy, "forward", lambda *args: 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            seat.forward(np.array([[1]]), cache)
    monkeypatch.undo()
    assert seat.forward(np.array([[1]]), cache)[1].length == 3


def test_each_user_hears_what_they_taught(tiny_torch: Adapter) -> None:
    """Eight users teach different answers to one question, and ask it at once, again and again."""
    seats, question = Seats(tiny_torch), "What is my sister's name?"
    names = [f"{a}{b}" for a in ("Vera", "Ada", "Zo", "Mi") for b in ("", "x")]
    engines = [Engine(Mind(seats.seat(), Keyed()), decoding=Decoding(max_tokens=12)) for _ in names]
    for engine, name in zip(engines, names, strict=True):
        engine.mind.learn(Lesson(question, name))

    def ask(i: int) -> str:
        engine = engines[i]
        engine.start()
        return engine.reply(question).text

    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert list(pool.map(ask, range(8))) == names
    for engine in engines:
        engine.close()
    seats.close()
    assert not tiny_torch.taps
