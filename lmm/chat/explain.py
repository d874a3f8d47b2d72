"""Why a reply reads as it does: what the memory changed, token by token, and the reply without it.

Strength is measured, not asked of the memory: how much likelier the memory made each token of the reply,
p(token | with memory) - p(token | without), 0 where it made it less likely. So it means the same for every memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lmm.adapters import generation
from lmm.adapters.generation import Generated
from lmm.engine.conversation import Conversation
from lmm.engine.scoring import probabilities

if TYPE_CHECKING:
    from lmm.config import Decoding
    from lmm.engine.conversation import Turn
    from lmm.engine.engine import Engine


def strengths(engine: Engine, turn: Turn) -> list[tuple[str, float]]:
    """Each token of a reply, and how much likelier the memory as it is now made it: [(text, 0..1)]."""
    said = turn.generated.tokens if turn.generated else []
    if not said or not turn.read:
        return []
    with_memory = probabilities(engine.mind, [*turn.read, *said[:-1]], said, turn.recall)
    without = probabilities(engine.mind, [*_as_said(engine, turn), *said[:-1]], said, None, memory=False)
    pieces = _pieces(engine, said)
    return [(piece, max(0.0, float(p - q))) for piece, p, q in zip(pieces, with_memory, without, strict=True)]


def _pieces(engine: Engine, tokens: Sequence[int]) -> list[str]:
    """The text of each token; a character made of several shows at the last of them."""
    format, done, pieces = engine.adapter.format, "", []
    for i in range(len(tokens)):
        text = format.decode(tokens[: i + 1])
        text = done if text.endswith("\ufffd") else text
        pieces.append(text[len(done) :] or ("" if tokens[i] not in format.stop_ids else format.piece(tokens[i])))
        done = text
    return pieces


def without_memory(engine: Engine, turn: Turn, decoding: Decoding, stop: Callable[[], bool]) -> Generated:
    """What the model alone would have said, decoded greedily from the same conversation."""
    out, tokens = Generated(), _as_said(engine, turn)
    decoding = replace(decoding, decoding_strategy="greedy")
    adapter = engine.adapter
    with adapter.quiet():
        for _ in generation.stream(adapter, tokens, adapter.new_cache(), decoding, out, stop):
            pass
    return out


def _as_said(engine: Engine, turn: Turn) -> list[int]:
    """What is read before the last reply, without what a memory put into the prompt."""
    if turn.recall is None or not turn.recall.in_prompt:
        return turn.read
    said = engine.conversation
    before = Conversation(said.format, said.system, said.turns[:-1])
    before.ask(turn.user)
    return before.tokens
