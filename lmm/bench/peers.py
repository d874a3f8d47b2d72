"""What other people do, as memories, so that they are judged by the same protocol.

    none               the model as it is
    in_context         the lessons nearest to the question are pasted into the prompt, however far they are
    in_context_floor   of these only the near ones, so that a prompt about nothing that was taught stays as it is
    echo               the nearest lesson as an exchange before the question, however far it is
    system_prompt      all lessons in the system prompt
    fine_tune          one down-projection of a late-middle layer, trained on each lesson until its loss is low
    peft_lora          the PEFT library's LoRA on queries and values, trained likewise (torch only)

They are for comparison, not for use: none of them can forget one lesson.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmm.adapters.base import Site
from lmm.adapters.ops import Array, token_cross_entropy
from lmm.errors import BackendError
from lmm.lesson import Knowledge, Lesson, State
from lmm.memory.base import LearnReport, Memory, Prompt, Recall, UserMessage
from lmm.memory.batch import Batch, rows_of
from lmm.memory.notes.notes import note_of, text_of
from lmm.memory.optim import Optimizer, fit
from lmm.options import Options, option

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter, TapContext
    from lmm.adapters.ops import Ops


class Nothing(Memory):
    name = "none"
    summary = "the model without a memory"
    learns_from = "nothing"


# text in the prompt -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class InContextOptions(Options):
    count: int = option(3, "lessons that are pasted", "[1, inf)")
    floor: float = option(-1.0, "cosine to the question that a lesson needs; -1: any", "[-1, 1]")


class InContext(Memory):
    """State: `vectors` [L, 384], one for each lesson's statement or prompt, in the order of the lessons."""

    name = "in_context"
    summary = "the lessons nearest to the question, pasted into the prompt"
    Options = InContextOptions

    def fresh(self, adapter: Adapter, seed: int = 0) -> State:
        return {"vectors": adapter.ops.zeros((0, 384))}

    def on_prompt(
        self, state: State, lessons: Sequence[Lesson], prompts: Sequence[Prompt], adapter: Adapter
    ) -> Recall | None:
        if not lessons:
            return None
        known = adapter.ops.to_numpy(state["vectors"])
        found = [self._nearest(known, vector) for vector in self._encode([p.text for p in prompts])]
        return Recall(
            fired=[[(lessons[i].id, cosine) for i, cosine in row] for row in found],
            text=[self._text([lessons[i] for i in sorted(i for i, _ in row)]) for row in found],
        )

    def _nearest(self, known: np.ndarray, vector: np.ndarray) -> list[tuple[int, float]]:
        cosines = known @ vector
        best = np.argsort(-cosines, kind="stable")[: self.options.count]
        return [(int(i), float(cosines[i])) for i in best if cosines[i] >= self.options.floor]

    @staticmethod
    def _text(lessons: Sequence[Lesson]) -> str:
        facts = "\n".join(f"- {text_of(lesson)}" for lesson in lessons)
        return f"Facts to answer from:\n{facts}" if facts else ""

    @staticmethod
    def _encode(texts: Sequence[str]) -> np.ndarray:
        from lmm.encoders.minilm import shared_encoder

        return shared_encoder().encode(texts)

    def learn(
        self, known: Knowledge, lesson: Lesson, adapter: Adapter, message: UserMessage | None, report: LearnReport
    ) -> Knowledge:
        vector = adapter.ops.asarray(self._encode([lesson.statement or lesson.prompt]))
        return known.taught({"vectors": adapter.ops.concat([known.state["vectors"], vector], 0)}, lesson)


@dataclass(frozen=True)
class FloorOptions(InContextOptions):
    floor: float = option(0.72, "cosine to the question that a lesson needs; see docs/benchmark.md", "[-1, 1]")


@dataclass(frozen=True)
class EchoOptions(InContextOptions):
    count: int = option(1, "lessons that are shown", "[1, inf)")


class InContextFloor(InContext):
    name = "in_context_floor"
    summary = "the lessons near enough to the question, pasted into the prompt"
    Options = FloorOptions


class Echo(InContext):
    name = "echo"
    summary = "the lesson nearest to the question, shown as an exchange before it"
    Options = EchoOptions

    def on_prompt(
        self, state: State, lessons: Sequence[Lesson], prompts: Sequence[Prompt], adapter: Adapter
    ) -> Recall | None:
        recall = super().on_prompt(state, lessons, prompts, adapter)
        if recall is None:
            return None
        known = {lesson.id: lesson for lesson in lessons}
        notes = [[note_of(known[i], cosine) for i, cosine in reversed(row)] for row in recall.fired]
        return Recall(recall.fired, notes=notes)


class SystemPrompt(Memory):
    """All that is known, always: what is far from the question, too."""

    name = "system_prompt"
    summary = "all lessons in the system prompt"

    def on_prompt(
        self, state: State, lessons: Sequence[Lesson], prompts: Sequence[Prompt], adapter: Adapter
    ) -> Recall | None:
        if not lessons:
            return None
        facts = "\n".join(f"- {text_of(lesson)}" for lesson in lessons)
        text = f"You are a helpful assistant. What the user has told you:\n{facts}"
        return Recall([[] for _ in prompts], system=[text] * len(prompts))

    def learn(
        self, known: Knowledge, lesson: Lesson, adapter: Adapter, message: UserMessage | None, report: LearnReport
    ) -> Knowledge:
        return known.taught(known.state, lesson)


# weights ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class TrainOptions(Options):
    lr: float = option(1e-3, "of Adam", "(0, 10)")
    goal: float = option(0.05, "mean cross-entropy of answer and end of turn that is good enough", "(0, inf)")
    steps: int = option(50, "for each lesson, at most", "[1, 10000]")


class FineTune(Memory):
    """State: `delta` [F, D] beside the frozen matrix, so that undoing is exact: y' = y + x delta."""

    name = "fine_tune"
    summary = "one down-projection, trained on each lesson until its loss is low"
    Options = TrainOptions
    rewrites_history = True

    def sites(self, adapter: Adapter) -> tuple[Site, ...]:
        return (adapter.site(adapter.shape.layers * 2 // 3, "mlp.down_proj"),)

    def fresh(self, adapter: Adapter, seed: int = 0) -> State:
        return {"delta": adapter.ops.zeros((adapter.shape.mlp_width, adapter.shape.width))}

    def rewrite(
        self, ops: Ops, state: State, recall: Recall | None, x_in: Array, x_out: Array, context: TapContext
    ) -> Array:
        return x_out + ops.cast_like(ops.float32(x_in) @ state["delta"], x_out)

    def learn(
        self, known: Knowledge, lesson: Lesson, adapter: Adapter, message: UserMessage | None, report: LearnReport
    ) -> Knowledge:
        ops, site = adapter.ops, self.sites(adapter)[0]
        batch = Batch(adapter, rows_of(adapter, [(lesson.prompt, lesson.answer)]), site, everywhere=True)

        def loss_of(params: State) -> Array:
            def through(x_in: Array, x_out: Array, context: TapContext) -> Array:
                return self.rewrite(ops, params, None, x_in, x_out, context)

            with adapter.tap(site, through):
                return batch.mean(batch.h)

        adam = Optimizer(ops, "adam", self.options.lr)
        found = fit(loss_of, known.state, adam, self.options.steps, report, self.options.goal)
        return known.taught(found.params, lesson)


@dataclass(frozen=True)
class PeftOptions(TrainOptions):
    lr: float = option(2e-3, "of Adam", "(0, 10)")
    rank: int = option(8, "of the adapter", "[1, 512]")


class PeftLora(Memory):
    """State: the adapter's tensors. They live in the model while it is `opened`, and are set before every use."""

    name = "peft_lora"
    summary = "PEFT's LoRA on queries and values, trained on each lesson until its loss is low (torch)"
    Options = PeftOptions
    rewrites_history = False

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self._weights: dict[str, Any] = {}
        self._swaps: list[tuple[Any, str, Any, Any]] = []  # parent, name, the model's own module, PEFT's
        self._placed: State | None = None

    @contextlib.contextmanager
    def opened(self, adapter: Adapter, seed: int = 0) -> Iterator[None]:
        """The model with LoRA in it; afterwards its modules are the very ones it had."""
        if adapter.name != "torch":
            raise BackendError(f"peft_lora needs the torch backend, not {adapter.name}; run with --backend torch")
        import torch
        from peft import LoraConfig, inject_adapter_in_model

        model = adapter.model  # type: ignore[attr-defined]
        before = {parent: dict(parent.named_children()) for parent in model.modules()}
        rank = self.options.rank
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["q_proj", "v_proj"])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            inject_adapter_in_model(config, model)
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.data = p.data.float()  # Adam needs it, and it is what PEFT's own get_peft_model does
                self._weights[name] = p
        self._swaps = [
            (parent, name, module, getattr(parent, name))
            for parent, children in before.items()
            for name, module in children.items()
            if getattr(parent, name) is not module
        ]
        try:
            yield
        finally:
            self._swap(lora=False)
            for name in ("peft_config", "_hf_peft_config_loaded", "active_adapter"):
                vars(model).pop(name, None)
            self._weights, self._placed, self._swaps = {}, None, []

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """The model without LoRA for a while, to be timed."""
        self._swap(lora=False)
        try:
            yield
        finally:
            self._swap(lora=True)

    def _swap(self, lora: bool) -> None:
        for parent, name, plain, wrapped in self._swaps:
            setattr(parent, name, wrapped if lora else plain)

    def fresh(self, adapter: Adapter, seed: int = 0) -> State:
        return {name: p.detach().clone() for name, p in self._weights.items()}

    def on_prompt(
        self, state: State, lessons: Sequence[Lesson], prompts: Sequence[Prompt], adapter: Adapter
    ) -> Recall | None:
        self._place(state)
        return None

    def _place(self, state: State) -> None:
        if self._placed is not state:
            for name, p in self._weights.items():
                p.data.copy_(state[name])
            self._placed = state

    def learn(
        self, known: Knowledge, lesson: Lesson, adapter: Adapter, message: UserMessage | None, report: LearnReport
    ) -> Knowledge:
        from torch.func import functional_call

        model, ops = adapter.model, adapter.ops  # type: ignore[attr-defined]
        before, answer = adapter.format.lesson_tokens(lesson.prompt, lesson.answer)
        ids, targets = ops.asarray([before + answer[:-1]], "int64"), ops.asarray(answer, "int64")

        def loss_of(params: State) -> Array:
            logits = functional_call(model, params, (ids,), {"logits_to_keep": len(answer)}).logits
            return ops.mean(token_cross_entropy(ops, logits[0], targets))

        adam = Optimizer(ops, "adam", self.options.lr)
        found = fit(loss_of, known.state, adam, self.options.steps, report, self.options.goal)
        return known.taught(found.params, lesson)


_KINDS: tuple[type[Memory], ...] = (Nothing, InContext, InContextFloor, Echo, SystemPrompt, FineTune, PeftLora)
PEERS = {kind.name: kind for kind in _KINDS}
