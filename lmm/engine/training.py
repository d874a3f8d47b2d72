"""Offline training of a memory's tensors on (question, answer) pairs: `lmm train`.

The model is frozen. What lies below the memory's lowest site is read once per example and kept; each step runs the
layers above it, with the memory's `rewrite` in its taps over `state | params`, on the reply's tokens and its end of
turn. What the memory recalls for a question is decided once, on the prepared state. AdamW, cosine schedule with warm-up
(Loshchilov & Hutter, arXiv 1608.03983), gradients clipped by their global norm.

Everything that decides the next step is in the checkpoint: a run that was interrupted and goes on gives bit for bit
what it would have given.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmm.adapters.base import TapContext
from lmm.adapters.ops import Array, Params, token_cross_entropy
from lmm.engine.asking import equal_lengths
from lmm.engine.training_settings import TrainingSettings
from lmm.errors import Cancelled, LearningError, StateError, UsageError
from lmm.files import safefile
from lmm.files.atomic import write_atomically
from lmm.lesson import State
from lmm.memory.base import Memory, Prompt, Recall
from lmm.memory.batch import laid_out, rows_of
from lmm.memory.optim import Optimizer

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter, Site

Pairs = Sequence[tuple[str, ...]]  # question, answer, and what was said in earlier turns that are not read any more
KEPT_BYTES = 2_000_000_000  # of hidden states; beyond that they are computed again in every epoch
CHUNK = 16  # examples whose states are computed together, if they are kept


def asked_and_answered(pairs: Pairs) -> list[tuple[str, str]]:
    return [(question, answer) for question, answer, *_ in pairs]


class Examples:
    """Pairs as tokens, with what the memory recalls for each, and their hidden states below the memory."""

    def __init__(self, adapter: Adapter, memory: Memory, state: State, pairs: Pairs, layer: int) -> None:
        self.adapter, self.layer = adapter, layer
        self.rows = rows_of(adapter, asked_and_answered(pairs))
        self.starts = [len(prompt) - 1 for prompt, _ in self.rows]
        self.tokens = [[*prompt, *answer[:-1]] for prompt, answer in self.rows]
        prompts = [
            Prompt(question, prompt, before=tuple(before))
            for (question, _, *before), (prompt, _) in zip(pairs, self.rows, strict=True)
        ]
        self.recalls = _recalls(memory, state, prompts, adapter)
        self._chunks = self._chunks_kept()
        self._h: dict[int, Array] = {}

    def __len__(self) -> int:
        return len(self.tokens)

    def batches(self, size: int, seed: int | None = None) -> list[list[int]]:
        """Examples whose replies begin at the same position; in an order of its own for each seed."""
        order = np.arange(len(self)) if seed is None else np.random.default_rng(seed).permutation(len(self))
        made = [[int(order[i]) for i in rows] for rows in equal_lengths([range(self.starts[i]) for i in order], size)]
        if seed is not None:
            np.random.default_rng(seed).shuffle(made)
        return made

    def _chunks_kept(self) -> dict[int, list[int]]:
        """For each example whose states are kept those that are computed with it."""
        chunks: dict[int, list[int]] = {}
        room = KEPT_BYTES // (4 * self.adapter.shape.width)  # tokens
        for chunk in equal_lengths(self.tokens, CHUNK):
            room -= sum(len(self.tokens[i]) for i in chunk)
            chunks |= dict.fromkeys(chunk, chunk) if room >= 0 else {}
        return chunks

    def _read(self, i: int) -> Array:
        """Hidden states [1, T, D] of one example.

        They are computed in chunks that do not depend on the batch: it could matter in the last bits, and a run that
        was interrupted meets its examples in other batches first. What is not kept is computed alone.
        """
        if i not in self._h:
            chunk = self._chunks.get(i, [i])
            h = self.adapter.hidden(np.array([self.tokens[j] for j in chunk], np.int64), self.layer)
            new = {j: h[k : k + 1] for k, j in enumerate(chunk)}
            self.adapter.ops.evaluate(*new.values())
            if i not in self._chunks:
                return new[i]
            self._h |= new
        return self._h[i]

    def hidden(self, rows: Sequence[int]) -> Array:
        """Hidden states [B, T, D] entering the memory's layers, zero after a shorter row's end: attention is causal."""
        ops, length, parts = self.adapter.ops, max(len(self.tokens[i]) for i in rows), []
        for i in rows:
            h = self._read(i)
            filled = ops.cast_like(ops.zeros((1, length - h.shape[1], h.shape[2])), h)
            parts.append(ops.concat([h, filled], 1) if filled.shape[1] else h)
        return ops.concat(parts, 0)


def _recalls(memory: Memory, state: State, prompts: Sequence[Prompt], adapter: Adapter) -> list[Recall | None]:
    found: list[Recall | None] = []
    with adapter.quiet():
        for i in range(0, len(prompts), 32):
            some = prompts[i : i + 32]
            recall = memory.on_prompt(state, (), some, adapter)
            if recall is not None and recall.in_prompt:
                raise UsageError(f"memory {memory.name!r} speaks through the prompt; there is nothing to train")
            found += [None if recall is None else memory.row(recall, b) for b in range(len(some))]
    return found


@dataclass
class Progress:
    """Where a run stands; JSON-able. `history` has one entry for each epoch."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)  # of this epoch's steps
    history: list[dict[str, float | None]] = field(default_factory=list)
    best: float | None = None
    best_epoch: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Trained:
    """The state with the tensors of the best epoch. `ended`: "goal", "patience" or "epochs"."""

    state: State
    progress: Progress
    ended: str


class Training:
    """One run. Raises UsageError if the memory has nothing to train, or a checkpoint belongs to another run."""

    def __init__(
        self,
        adapter: Adapter,
        memory: Memory,
        pairs: Pairs,
        valid: Pairs = (),
        settings: TrainingSettings | None = None,
        state: State | None = None,
        checkpoint: Path | None = None,
        notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.adapter, self.memory, self.settings = adapter, memory, settings or TrainingSettings()
        self.checkpoint, self.notice = checkpoint, notice
        sites: tuple[Site, ...] = memory.sites(adapter)
        layer = min(site.layer for site in sites)
        with adapter.quiet():
            made = state or memory.fresh(adapter, self.settings.seed)
            self.state = memory.prepare(made, asked_and_answered(pairs), adapter)
        self.names = memory.trainable(self.state)
        if not self.names:
            raise UsageError(f"memory {memory.name!r} has nothing to train offline; teach it instead: lmm teach")
        self.train = Examples(adapter, memory, self.state, pairs, layer)
        self.valid = Examples(adapter, memory, self.state, valid, layer) if valid else None
        self.params: Params = {name: adapter.ops.float32(self.state[name]) for name in self.names}
        self.best = self.params
        self.optimizer = Optimizer(adapter.ops, "adamw", self.settings.lr, self.settings.weight_decay)
        self.progress = Progress()
        self._now: tuple[State, Recall | None] = (self.state, None)
        self._key = self._digest(pairs, valid)
        self.steps = self.settings.epochs * len(self.train.batches(self.settings.batch_size))

    # the run ---------------------------------------------------------------------------------------------------
    def run(
        self,
        stop: Callable[[], bool] = lambda: False,
        on_step: Callable[[Progress], None] = lambda progress: None,
        on_epoch: Callable[[dict[str, Any]], None] = lambda entry: None,
    ) -> Trained:
        """Train to the end. Raises Cancelled after `stop`, with a checkpoint written, and LearningError at a NaN."""
        progress, saved = self.progress, time.perf_counter()
        with self._taps():
            ended = self._verdict()
            while not ended:
                batches = self.train.batches(self.settings.batch_size, self.settings.seed + progress.epoch)
                while progress.batch < len(batches):
                    start = time.perf_counter()
                    self._step(batches[progress.batch])
                    progress.seconds += time.perf_counter() - start
                    on_step(progress)
                    if stop():
                        self.save()
                        raise Cancelled(f"training was stopped after {progress.step} steps; {self._how_to_go_on()}")
                    if time.perf_counter() - saved > self.settings.save_every_s:
                        self.save()
                        saved = time.perf_counter()
                on_epoch(self._end_epoch())
                ended = self._verdict()
        try:
            self.save()  # until the result is on the disk
        except StateError as error:  # which may have room for the result, the smaller of the two
            self.notice(str(error))
        done = {name: self.adapter.ops.cast_like(p, self.state[name]) for name, p in self.best.items()}
        return Trained(self.state | done, progress, ended)

    def _step(self, rows: list[int]) -> None:
        ops, progress = self.adapter.ops, self.progress
        loss, grads = ops.value_and_grad(self._loss_of(self.train, rows), self.params)
        norm = math.sqrt(sum(ops.item(ops.sum(ops.float32(g) * ops.float32(g))) for g in grads.values()))
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise LearningError(
                f"training ran into NaN or infinity at step {progress.step + 1} (loss {loss}, gradient {norm}); "
                "nothing was saved. Try a smaller --lr, or --dtype float32"
            )
        if self.settings.clip and norm > self.settings.clip:
            grads = {name: g * (self.settings.clip / norm) for name, g in grads.items()}
        self.optimizer.lr = self.settings.lr_at(progress.step, self.steps)
        self.params = self.optimizer.step(self.params, grads)
        ops.evaluate(*self.params.values())
        progress.losses.append(loss)
        progress.batch, progress.step = progress.batch + 1, progress.step + 1

    def _loss_of(self, examples: Examples, rows: list[int]) -> Callable[[Params], Array]:
        """Mean cross-entropy of the reply tokens of some examples, as a function of the trained tensors."""
        ops, start = self.adapter.ops, examples.starts[rows[0]]
        tokens, targets, counts = laid_out([examples.rows[i] for i in rows], self.adapter.format.end_of_turn)
        mask = counts[:, start:].astype(np.float32)
        wanted, weights = ops.asarray(targets[:, start:].copy(), "int64"), ops.asarray(mask / mask.sum())
        h, keep = examples.hidden(rows), range(start, tokens.shape[1])
        recall = self.memory.stack(ops, [examples.recalls[i] for i in rows])
        if recall is not None:
            recall.start = start

        def loss_of(params: Params) -> Array:
            self._now = (self.state | params, recall)
            logits = self.adapter.upper(tokens, h, examples.layer, keep=keep)
            return ops.sum(token_cross_entropy(ops, logits, wanted) * weights)

        return loss_of

    def loss(self, examples: Examples, params: Params) -> float:
        """Mean over the reply tokens of all examples."""
        total = count = 0.0
        for rows in examples.batches(self.settings.batch_size):
            tokens = sum(len(examples.rows[i][1]) for i in rows)
            total += self.adapter.ops.item(self._loss_of(examples, rows)(params)) * tokens
            count += tokens
        return total / count

    def _end_epoch(self) -> dict[str, Any]:
        progress = self.progress
        train = float(np.mean(progress.losses))
        valid = self.loss(self.valid, self.params) if self.valid else None
        progress.epoch, progress.batch, progress.losses = progress.epoch + 1, 0, []
        judged = train if valid is None else valid
        if valid is not None and len(progress.history) == 0 and self._out_of_reach(valid):
            self.notice(
                "what is trained changes nothing about the validation examples, so they cannot say when to stop; "
                "the loss on the training examples decides"
            )
            self.valid, judged = None, train
        if progress.best is None or judged < progress.best:
            progress.best, progress.best_epoch, self.best = judged, progress.epoch, self.params
        entry = {"epoch": progress.epoch, "train": train, "valid": valid, "lr": self.optimizer.lr}
        progress.history.append(entry | {"seconds": round(progress.seconds, 3)})
        return progress.history[-1]

    def _out_of_reach(self, valid: float) -> bool:
        assert self.valid is not None
        untouched = {name: self.adapter.ops.float32(self.state[name]) for name in self.names}
        return valid == self.loss(self.valid, untouched)

    def _verdict(self) -> str:
        """Why the run is over; "" while it is not."""
        progress = self.progress
        if progress.best is not None and progress.best <= self.settings.goal:
            return "goal"
        if progress.epoch - progress.best_epoch >= self.settings.patience and progress.epoch:
            return "patience"
        return "epochs" if progress.epoch >= self.settings.epochs else ""

    @contextlib.contextmanager
    def _taps(self) -> Iterator[None]:
        def rewrite(x_in: Array, x_out: Array, context: TapContext) -> Array:
            state, recall = self._now
            return self.memory.rewrite(self.adapter.ops, state, recall, x_in, x_out, context)

        with contextlib.ExitStack() as stack:
            for site in self.memory.sites(self.adapter):
                stack.enter_context(self.adapter.tap(site, rewrite))
            yield

    # checkpoints -----------------------------------------------------------------------------------------------
    def _digest(self, pairs: Pairs, valid: Pairs) -> str:
        """What must be the same for a run to go on."""
        settings = {k: v for k, v in dataclasses.asdict(self.settings).items() if k != "save_every_s"}
        adapter, memory = self.adapter, self.memory
        model = [adapter.model_id, adapter.revision, adapter.name, adapter.dtype, adapter.layer]
        said = [list(map(list, pairs)), list(map(list, valid)), settings, model, memory.name, memory.options_dict()]
        found = hashlib.sha256(json.dumps(said, sort_keys=True, ensure_ascii=False).encode())
        for name in self.names:
            found.update(name.encode() + adapter.ops.to_numpy(self.params[name]).tobytes())
        return found.hexdigest()

    def save(self) -> None:
        """Write the checkpoint. Raises StateError."""
        if self.checkpoint is None:
            return
        groups = {"now": self.params, "best": self.best, "m": self.optimizer.m, "v": self.optimizer.v}
        arrays = {
            f"{group}:{name}": safefile.dense(self.adapter.ops.to_numpy(a))
            for group, params in groups.items()
            for name, a in params.items()
        }
        said = {"key": self._key, "progress": dataclasses.asdict(self.progress), "judged_by_train": self.valid is None}
        try:
            write_atomically(self.checkpoint, safefile.to_chunks(arrays, {"training": json.dumps(said)}))
        except (OSError, ValueError) as error:
            raise StateError(f"cannot write the checkpoint {self.checkpoint}: {error}") from error

    def resume(self) -> bool:
        """Go on from the checkpoint, if there is one. Raises UsageError if it is another run's, or damaged."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return False
        try:
            with safefile.opened(self.checkpoint) as file:
                said, arrays = json.loads(file.metadata.get("training", "{}")), file.read_tensors()
        except (OSError, ValueError) as error:
            raise UsageError(f"the checkpoint {self.checkpoint} cannot be read ({error}); --no-resume") from error
        if said.get("key") != self._key:
            raise UsageError(
                f"{self.checkpoint} is the checkpoint of a run with other data, settings, memory or model; "
                "start over with --no-resume, or write to another --out"
            )
        groups: dict[str, Params] = {"now": {}, "best": {}, "m": {}, "v": {}}
        for name, array in arrays.items():
            group, _, own = name.partition(":")
            groups[group][own] = self.adapter.ops.asarray(array)
        self.params, self.best = groups["now"], groups["best"]
        self.optimizer.m, self.optimizer.v = groups["m"], groups["v"]
        self.progress = Progress(**said["progress"])
        self.optimizer.t = self.progress.step
        self.valid = None if said["judged_by_train"] else self.valid
        return True

    def discard(self) -> None:
        if self.checkpoint is not None:
            self.checkpoint.unlink(missing_ok=True)

    def _how_to_go_on(self) -> str:
        return "the same command goes on from here" if self.checkpoint else "nothing was kept"
