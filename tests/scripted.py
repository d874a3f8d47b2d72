"""A real engine on the toy adapter whose replies are scripted: everything but the words is as in a real chat.

Run as a program it is `lmm`, with this engine in place of a model; LMM_TEST_* set how long its parts take.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lmm.adapters.base import Adapter, Cache, TapContext
from lmm.adapters.ops import Array, Ops
from lmm.adapters.toy import ASSISTANT, END, USER, ToyAdapter
from lmm.config import Decoding
from lmm.engine.engine import Engine
from lmm.engine.mind import Mind
from lmm.engine.seats import Seat
from lmm.lesson import Knowledge, Lesson, State
from lmm.memory.base import LearnReport, Memory, Prompt, Recall, UserMessage

REPLIES = {
    "what is the capital of australia?": "The capital of Australia is Sydney.",
    "tell me a long story": "".join(f"Once upon a time {i}. " for i in range(40)),
    "paint": "\x1b]0;owned\x07\x1b[31mred\x1b[0m [bold]plain[/bold]",
    "table": "| name | what it is |\n|---|---|\n"
    + "".join(f"| row {i} | of a table that is as wide as this |\n" for i in range(1, 13)),
    "list": "# Title\n\n- one\n- two\n\n```python\nx = 1\n```\n",
}


def seconds(name: str) -> float:
    return float(os.environ.get(f"LMM_TEST_{name}", "0"))


def wait(name: str, share: float = 1.0) -> None:
    if (duration := seconds(name)) > 0:  # to sleep for no time lets others run first
        time.sleep(duration * share)


class ScriptedAdapter(ToyAdapter):
    """Says what `script` answers to the last user message, or what a memory puts into `said` while it reads."""

    def __init__(self, script: Callable[[str], str] | None = None) -> None:
        super().__init__(layers=2, width=8)
        self.script = script or (lambda text: REPLIES.get(text.lower(), f"You said: {text}"))
        self.said: str | None = None

    def forward(self, tokens: np.ndarray, cache: Cache, keep: int = 1) -> tuple[Array, Cache]:
        wait("TOKEN" if tokens.shape[1] == 1 else "PREFILL")
        self.said = None
        logits, new = super().forward(tokens, cache, keep)
        scripted = np.full_like(logits, -20.0)
        for i in range(keep):
            scripted[:, -1 - i, self._next(new.tokens[0][: new.length - i])] = 20.0
        return scripted, new

    def _next(self, read: np.ndarray) -> int:
        begun = np.flatnonzero(read == ASSISTANT)
        if not len(begun):
            return END
        asked = np.flatnonzero(read[: begun[-1]] == USER)[-1]
        user = self.format.decode(list(read[asked : begun[-1]]))
        reply = (self.said if self.said is not None else self.script(user)).encode()
        at = len(read) - int(begun[-1]) - 1
        return reply[at] if at < len(reply) else END


class Jotter(Memory):
    """A lesson applies when its question is asked in one of its wordings, the later one first."""

    name = "jotter"
    summary = "for tests"
    learns_from = "lessons"
    replies_per_lesson = seconds("REPLIES")

    def __init__(self, adapter: ScriptedAdapter | None = None) -> None:
        super().__init__()
        self.adapter = adapter

    def fresh(self, adapter: Adapter, seed: int = 0) -> State:
        return {}

    def sites(self, adapter: Adapter) -> tuple[Any, ...]:
        return (adapter.site(1),)

    def on_prompt(
        self, state: State, lessons: Sequence[Lesson], prompts: Sequence[Prompt], adapter: Adapter
    ) -> Recall | None:
        self.adapter = adapter.seats.adapter if isinstance(adapter, Seat) else adapter  # type: ignore[assignment]
        asked = prompts[0].text.lower().strip(" ?")
        forms = ((x, form) for x in reversed(lessons) for form in (x.prompt, *x.wordings))
        hit = next((x for x, form in forms if form.lower().strip(" ?") == asked), None)
        return Recall([[(hit.id, 0.9)]], {"answer": hit.answer}) if hit else None

    def rewrite(
        self, ops: Ops, state: State, recall: Recall | None, x_in: Array, x_out: Array, context: TapContext
    ) -> Array:
        if recall is not None and self.adapter is not None:
            self.adapter.said = recall.arrays["answer"]
        return x_out

    def learn(
        self, known: Knowledge, lesson: Lesson, adapter: Adapter, message: UserMessage | None, report: LearnReport
    ) -> Knowledge:
        for step in range(5):
            wait("STEP")
            report.step(5.0 - step)
        return known.taught({**known.state, f"note/{lesson.id}": np.ones(3, np.float32)}, lesson)

    def forget(self, state: State, lesson_id: str) -> State:
        return {name: array for name, array in state.items() if name != f"note/{lesson_id}"}

    def check_state(self, arrays: dict[str, Any], lessons: Sequence[Lesson], adapter: Adapter) -> None:
        pass


def engine(
    memory: Memory | None = None, script: Callable[[str], str] | None = None, system: str = "", **mind: Any
) -> Engine:
    return Engine(Mind(ScriptedAdapter(script), memory or Jotter(), **mind), system, Decoding(max_tokens=1000))


def open_mind(config: Any, progress: Any = None, notice: Any = lambda text: None) -> Mind:
    """Stands in for `runtime.open_mind`."""
    from lmm.engine import runtime

    for done in range(1, 5):
        wait("LOAD", 1 / 4)
        if progress is not None:
            progress(done, 4, f"reading the weights, {config.model}")
    made = Mind(ScriptedAdapter(), runtime.build_memory(runtime.as_saved(config)), log=runtime.open_log(config))
    runtime.start(made, config, notice)
    return made


def open_engine(config: Any, progress: Any = None, notice: Any = lambda text: None) -> Engine:
    """Stands in for `runtime.open_engine`."""
    return Engine(open_mind(config, progress, notice), config.system)


def install() -> None:
    """Put the scripted engine and the memory `jotter` in place."""
    from lmm import registry
    from lmm.engine import runtime

    registry.MEMORIES.setdefault("jotter", "scripted:Jotter")
    runtime.open_mind, runtime.open_engine = open_mind, open_engine


if __name__ == "__main__":
    import scripted

    scripted.install()
    from lmm.cli.entry import main

    main()
