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
from lmm.engine.scoring import probabilities
from lmm.text.fold import contains, words

if TYPE_CHECKING:
    from lmm.config import Decoding
    from lmm.engine.conversation import Conversation, Turn
    from lmm.engine.engine import Engine
    from lmm.lesson import Lesson


def strengths(engine: Engine, turn: Turn) -> list[tuple[str, float]]:
    """Each token of a reply, and how much likelier the memory as it is now made it: [(text, 0..1)]."""
    said = turn.generated.tokens if turn.generated else []
    if not said or not turn.read:
        return []
    with_memory = probabilities(engine.mind, [*turn.read, *said[:-1]], said, turn.recall)
    without = probabilities(engine.mind, [*turn.asked, *said[:-1]], said, None, memory=False)
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


def told_before(conversation: Conversation, lessons: Sequence[Lesson]) -> str:
    """What was said before the last reply that says itself what one of its lessons does; "" if nothing does."""
    *earlier, last = conversation.turns
    said = [conversation.system, *(text for turn in earlier for text in (turn.user, turn.text)), last.user]
    taught = {lesson.id: turn.user for turn in conversation.turns for lesson in turn.lessons}
    for lesson in lessons:
        if lesson.id in taught:
            return taught[lesson.id]
        new = set(words(lesson.answer).split()) - set(words(lesson.prompt).split())
        for text in said:
            if new and all(contains(text, word) for word in new):
                return text
    return ""


def without_memory(engine: Engine, turn: Turn, decoding: Decoding, stop: Callable[[], bool]) -> Generated:
    """What the model alone would have said, decoded greedily from the same conversation."""
    out = Generated()
    decoding = replace(decoding, decoding_strategy="greedy")
    adapter = engine.adapter
    with adapter.quiet():
        for _ in generation.stream(adapter, turn.asked, adapter.new_cache(), decoding, out, stop):
            pass
    return out
