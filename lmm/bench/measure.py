"""Capability and cost: perplexity on held text, seconds of a reply, speed with and without memory, bytes of state."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmm.bench.metrics import median
from lmm.engine.scoring import text_losses
from lmm.errors import LmmError, UsageError
from lmm.memory.base import on_host

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter
    from lmm.engine.mind import Mind
    from lmm.memory.base import Memory

WINDOWS, WINDOW = 32, 256  # pieces of held text, and tokens in each
REPLY_TOKENS = 32

#: what is said to take the time: of no data set, and long answers follow
CLOCK_PROMPTS = (
    "Write a long story about a lighthouse keeper.",
    "Explain in detail how bread is made.",
    "Describe a walk through a forest in autumn.",
    "Tell me everything you know about bridges.",
)


class BenchError(LmmError):
    """A run whose figures could not be trusted."""


# held text --------------------------------------------------------------------------------------------------
def windows(path: Path, adapter: Adapter, count: int = WINDOWS, length: int = WINDOW) -> list[list[int]]:
    """`count` pieces of `length` tokens, spread evenly over the text. Raises UsageError if it is too short."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the text {path} cannot be read: {error}") from error
    parts = [text[i : i + 8 * length] for i in np.linspace(0, max(len(text) - 8 * length, 0), count).astype(int)]
    tokens = [adapter.format.encode(part)[:length] for part in parts]
    if any(len(piece) < length for piece in tokens):
        raise UsageError(f"the text {path} is too short: {count} windows of {length} tokens are needed")
    return tokens


def perplexity(mind: Mind, pieces: Sequence[Sequence[int]], advance: Callable[[int], None]) -> float:
    """exp of the mean cross-entropy per token, with the memory in place."""
    losses = []
    for piece in pieces:
        losses.append(text_losses(mind, piece))
        advance(1)
    return float(np.exp(np.concatenate(losses).mean()))


# time -------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def without_memory(adapter: Adapter, memory: Memory | None = None) -> Iterator[Mind]:
    """A mind over the same model without memory, also while another mind's `memory` is attached."""
    from lmm.engine.mind import Mind
    from lmm.memory.identity import Identity

    suspended = getattr(memory, "suspended", contextlib.nullcontext)
    with adapter.quiet(), suspended():
        mind = Mind(adapter, Identity())
        try:
            yield mind
        finally:
            mind.detach()


def reply_seconds(mind: Mind, prompt: str) -> tuple[float, float | None]:
    """Seconds of a reply of REPLY_TOKENS tokens, alone and unbatched, and tokens per second (None: too short).

    A reply that ended by itself sooner is extended at its own speed. All that comes before decoding counts: reading
    the prompt, and asking the memory. Nothing is learned from it.
    """
    from lmm.config import Decoding
    from lmm.engine.engine import Engine

    engine = Engine(mind, decoding=Decoding("greedy", max_tokens=REPLY_TOKENS))
    start = time.perf_counter()
    engine.hear(prompt, learn=False)
    for _ in engine.answer():
        pass
    seconds = time.perf_counter() - start
    made = engine.conversation.turns[-1].generated
    assert made is not None
    if len(made.tokens) < 2:
        return seconds, None
    per_token = (made.seconds - made.first_token_s) / (len(made.tokens) - 1)
    return seconds + per_token * (REPLY_TOKENS - len(made.tokens)), 1 / per_token


def plain_reply_seconds(mind: Mind, prompt: str) -> tuple[float, float | None]:
    """The same with the mind's memory put aside."""
    with without_memory(mind.adapter, mind.memory) as plain:
        return reply_seconds(plain, prompt)


def speed(mind: Mind, advance: Callable[[int], None]) -> dict[str, float | None]:
    """With the full memory against without, turn about, so that a busy machine slows both."""
    found: dict[str, list[tuple[float, float | None]]] = {"with": [], "without": []}
    for i, prompt in enumerate(CLOCK_PROMPTS):
        for name in ("with", "without") if i % 2 else ("without", "with"):
            timed = reply_seconds(mind, prompt) if name == "with" else plain_reply_seconds(mind, prompt)
            found[name].append(timed)
        advance(1)
    pairs = list(zip(found["with"], found["without"], strict=True))
    return {
        "tokens_per_s": median([rate for _, rate in found["with"] if rate]),
        "tokens_per_s_ratio": median([a[1] / b[1] for a, b in pairs if a[1] and b[1]]),
        "reply_s": median([seconds for seconds, _ in found["without"]]),
        "reply_s_ratio": median([a[0] / b[0] for a, b in pairs]),
    }


# state ------------------------------------------------------------------------------------------------------
def state_bytes(mind: Mind) -> int:
    """What a saved file holds of the lessons: the arrays as saved, and the lessons in text."""
    arrays = sum(on_host(mind.adapter.ops, array).nbytes for array in mind.knowledge.state.values())
    lessons = json.dumps([lesson.to_dict() for lesson in mind.lessons], ensure_ascii=False)
    return arrays + (len(lessons.encode()) if mind.lessons else 0)


def largest_lesson(mind: Mind) -> int | None:
    """Bytes of the largest lesson: its own arrays, named `<kind>/<lesson id>`, and its text. None where they share."""
    own = {lesson.id: 0 for lesson in mind.lessons}
    for name, array in mind.knowledge.state.items():
        owner = name.partition("/")[2]
        if owner in own:
            own[owner] += on_host(mind.adapter.ops, array).nbytes
    if mind.knowledge.state and not all(own.values()):
        return None
    texts = {lesson.id: json.dumps(lesson.to_dict(), ensure_ascii=False) for lesson in mind.lessons}
    return max((own[owner] + len(text.encode()) for owner, text in texts.items()), default=None)


def model_digest(adapter: Adapter) -> str:
    """All of the model's weights: a memory must leave them alone."""
    found = hashlib.blake2b(digest_size=16)
    for name, array in _weights(adapter):
        found.update(name.encode())
        found.update(np.ascontiguousarray(array).view(np.uint8).data)
    return found.hexdigest()


def _weights(adapter: Adapter) -> Iterator[tuple[str, np.ndarray]]:
    model: Any = getattr(adapter, "model", None)
    if adapter.name == "torch":
        import torch

        for name, tensor in model.state_dict().items():
            yield name, tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    elif adapter.name == "mlx_lm":
        import mlx.core as mx
        from mlx.utils import tree_flatten

        for name, value in tree_flatten(model.parameters()):
            yield name, np.array(mx.view(value.flatten(), mx.uint8))
    else:
        yield from _arrays_in(adapter, "")


def _arrays_in(thing: Any, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """NumPy arrays among the attributes of a small adapter, and of its layers."""
    if isinstance(thing, np.ndarray):
        yield name, thing
    elif isinstance(thing, list):
        for i, part in enumerate(thing):
            yield from _arrays_in(part, f"{name}.{i}")
    elif name in ("", *(f".layers.{i}" for i in range(1000))) and hasattr(thing, "__dict__"):
        for key in sorted(vars(thing)):
            if not name or isinstance(vars(thing)[key], np.ndarray):
                yield from _arrays_in(vars(thing)[key], f"{name}.{key}")
