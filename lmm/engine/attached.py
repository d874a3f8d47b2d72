"""`from lmm import attach`: a memory in a transformers causal LM that you have loaded yourself.

    with attach(model, tokenizer, "keyed") as memory:
        memory.teach("Where is the spare key?", "Under the blue pot")
        model.generate(**tokenizer(text, return_tensors="pt"))
        memory.save("mine.safetensors")

Inside the block plain calls of the model, `generate` and a Trainer run with the memory; what it recalls is decided
when a prompt is read and held while the reply is decoded. After the block the model is bitwise as it was, also after
an exception.
"""

from __future__ import annotations

import contextlib
import dataclasses
import operator
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from lmm.config import Config
from lmm.engine import runtime
from lmm.engine.mind import Mind
from lmm.errors import UsageError
from lmm.files import state_file as state
from lmm.lesson import Knowledge, Lesson
from lmm.memory.base import LearnReport, Memory, Prompt, Recall

if TYPE_CHECKING:
    from lmm.adapters.base import Site, TapContext
    from lmm.adapters.ops import Array
    from lmm.adapters.torch_lm import TorchAdapter
    from lmm.engine.torch_live import Live

TRAINED = "lmm_memory"  # under this name the model holds the memory's parameters, while there are any
_models: WeakSet[Any] = WeakSet()  # those that have a memory now


def attach(
    model: Any,
    tokenizer: Any,
    memory: str = "keyed",
    layers: Sequence[int] | None = None,
    state: str | Path | None = None,
    *,
    options: dict[str, Any] | None = None,
    preset: str | None = None,
    seed: int = 0,
    layers_path: str | None = None,
) -> Attached:
    """A context manager that puts `memory` (see `lmm memories`; a+b composes) into `model` while it is open.

    `layers`: where it acts; default: its own choice. `state`: a memory file to start from, with the options that it was
    made with where none are given. Raises UsageError, ModelError for a model whose layers lmm does not find (name them
    with `layers_path`), and StateError for a file that does not fit.
    """
    from lmm.adapters.torch_lm import TorchAdapter

    adapter = TorchAdapter.of(model, tokenizer, layers_path)
    given, file = dict(options or {}), None if state is None else str(state)
    config = runtime.as_saved(
        Config(memory=memory, options=given, preset=preset, seed=seed, fresh=True, mm_load_path=file)
    )
    if layers is not None:
        config = _at_layers(config, _numbers(layers), adapter)
    return Attached(adapter, runtime.build_memory(config), state, seed)


def _numbers(layers: Sequence[int]) -> list[int]:
    try:
        return [operator.index(layer) for layer in layers]
    except TypeError as error:
        raise UsageError(f"layers must be a list of numbers, e.g. layers=[7], not {layers!r}") from error


def _at_layers(config: Config, layers: list[int], adapter: TorchAdapter) -> Config:
    """The configuration for these layers: a memory's own option `layers`, or the adapter's one layer."""
    from lmm import registry

    for layer in layers:
        adapter.site(layer)
    kind = None if "+" in config.memory else registry.memory_class(config.memory)
    if kind is not None and "layers" in {field.name for field in dataclasses.fields(kind.Options)}:
        return dataclasses.replace(config, options={**config.options, "layers": ",".join(map(str, layers))})
    if len(layers) != 1:
        raise UsageError(
            f"memory {config.memory!r} acts at one layer; give one, e.g. layers=[{adapter.shape.layers // 2}]"
        )
    adapter.layer = layers[0]
    return config


class Attached:
    """A memory in a model, inside a `with`. Everything that is learned goes through here."""

    def __init__(self, adapter: TorchAdapter, memory: Memory, state: str | Path | None = None, seed: int = 0) -> None:
        self.adapter, self.memory, self.seed = adapter, memory, seed
        self._start_from = state
        self._mind: _LiveMind | None = None
        self._frozen: list[tuple[Any, bool]] = []

    def __enter__(self) -> Attached:
        if self.adapter.model in _models:
            raise UsageError(
                "this model has a memory attached already; leave the other `with` first, or attach both as one: a+b"
            )
        _models.add(self.adapter.model)
        self._frozen = [(p, p.requires_grad) for p in self.adapter.model.parameters()]
        try:
            self.adapter.model.requires_grad_(False)
            self._mind = _LiveMind(self.adapter, self.memory, seed=self.seed)
            self._mind.live.open()
            if self._start_from is not None:
                self.load(self._start_from)
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        self._put_parameters(None)
        if self._mind is not None:
            self._mind.live.close()
            self._mind.close()
        self.adapter.context = None
        for parameter, needed in self._frozen:
            parameter.requires_grad_(needed)
        _models.discard(self.adapter.model)
        self._mind, self._frozen = None, []

    @property
    def mind(self) -> _LiveMind:
        if self._mind is None:
            raise UsageError("the memory is attached only inside `with attach(...) as memory:`")
        return self._mind

    # learning ------------------------------------------------------------------------------------------------
    @property
    def lessons(self) -> tuple[Lesson, ...]:
        return self.mind.knowledge.lessons

    def teach(self, question: str, answer: str, wordings: Sequence[str] = ()) -> LearnReport:
        """Learn that `question` is answered by `answer`. Raises LearningError; the memory is then as before."""
        with self._evaluating():
            return self.mind.learn(Lesson(question, answer, wordings=tuple(wordings)))

    def forget(self, lesson_id: str) -> Lesson:
        """Unlearn one lesson (`memory.lessons` has their ids). Raises LearningError where lessons are not separate."""
        return self.mind.forget(lesson_id)

    def undo(self, count: int = 1) -> int:
        return self.mind.undo(count)

    def save(self, path: str | Path) -> Path:
        """Write a memory file, as the chat does. Raises StateError."""
        return self.mind.save(path)

    def load(self, path: str | Path) -> state.Header:
        """Make a memory file what is known. Raises StateError before anything changes."""
        return self.mind.load(path)

    # training ------------------------------------------------------------------------------------------------
    def prepare(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Make room for (question, answer) pairs before training. The model behaves as before."""
        mind = self.mind
        with self.adapter.quiet(), self._evaluating():
            new = self.memory.prepare(mind.knowledge.state, pairs, self.adapter)
        mind.commit(Knowledge(new, mind.knowledge.lessons))

    def parameters(self) -> list[Any]:
        """The memory's trainable tensors as torch Parameters, for an optimiser or a Trainer.

        They are in the model too, as the only ones of its parameters that need gradients, so a Trainer finds them by
        itself. What an optimiser writes into them is what the memory reads, and what `save` saves. Raises UsageError
        for a memory that has none. Call again after `teach`, `prepare` or `load`: these make new ones.
        """
        import torch

        mind = self.mind
        names = self.memory.trainable(mind.knowledge.state)
        if not names:
            raise UsageError(f"memory {self.memory.name!r} has nothing to train; teach it, or attach another")
        held = mind.knowledge.state
        if not all(isinstance(held[name], torch.nn.Parameter) for name in names):
            # in float32: what is stored in half precision would not move by small steps
            made = {name: torch.nn.Parameter(held[name].detach().float().clone()) for name in names}
            mind.commit(Knowledge(held | made, mind.knowledge.lessons))
        parameters = [mind.knowledge.state[name] for name in names]
        self._put_parameters(parameters)
        return parameters

    def _put_parameters(self, parameters: list[Any] | None) -> None:
        import torch

        model = self.adapter.model
        if hasattr(model, TRAINED):
            delattr(model, TRAINED)
        if parameters is not None:
            setattr(model, TRAINED, torch.nn.ParameterList(parameters))

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        """No dropout inside; afterwards each module trains or not, as before."""
        training = [module for module in self.adapter.model.modules() if module.training]
        self.adapter.model.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True


class _LiveMind(Mind):
    """A mind whose taps also act in passes that are not its own."""

    adapter: TorchAdapter

    def __init__(self, adapter: TorchAdapter, memory: Memory, seed: int) -> None:
        from lmm.engine.torch_live import Live

        self.live: Live = Live(adapter, memory, self._decide)
        super().__init__(adapter, memory, seed)

    def _decide(self, prompts: Sequence[Prompt]) -> list[Recall | None]:
        recall = self.recall_of(prompts)
        if recall is None:
            return [None] * len(prompts)
        if recall.in_prompt:
            raise UsageError(
                f"memory {self.memory.name!r} speaks through the prompt; ask it with lmm's Engine or `lmm chat`"
            )
        return [self.memory.row(recall, b) for b in range(len(prompts))]

    def _rewriter(self, site: Site) -> Callable[[Array, Array, TapContext], Array]:
        own = super()._rewriter(site)

        def rewrite(x_in: Array, x_out: Array, context: TapContext) -> Array:
            if self.live.groups is None:  # a pass of the adapter's own
                return own(x_in, x_out, context)

            def edit(recall: Recall | None, part_in: Array, part_out: Array, where: TapContext) -> Array:
                where = dataclasses.replace(where, site=site)
                return self.memory.rewrite(self.adapter.ops, self.knowledge.state, recall, part_in, part_out, where)

            return self.live.rewrite(edit, x_in, x_out)

        return rewrite
