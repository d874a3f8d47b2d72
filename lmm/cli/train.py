"""`lmm train`: offline training of a memory on a file of questions and answers."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from lmm.cli.opening import opened
from lmm.cli.options import Option, configured, out, say
from lmm.engine.training_settings import TrainingSettings
from lmm.errors import UsageError
from lmm.files import own
from lmm.files.atomic import write_atomically
from lmm.lesson import Knowledge

if TYPE_CHECKING:
    from lmm.config import Config
    from lmm.engine.mind import Mind
    from lmm.engine.training import Trained, Training


@configured("model", "memory", "files")
def train(
    config: Config,
    settings: TrainingSettings,
    data: Annotated[
        Path, Option(help='JSON lines {"question", "answer"}, e.g. of `lmm data`; "before": earlier messages, for lm2')
    ],
    state: Annotated[Path, Option("--out", help="memory file to be written")],
    valid: Annotated[Path | None, Option(help="the same, to say when to stop; default: the training loss says")] = None,
    resume: Annotated[bool, Option("--resume/--no-resume", help="go on with an interrupted run")] = True,
    checkpoint: Annotated[
        Path | None, Option(help="where a run is kept until it is saved; default: beside --out")
    ] = None,
    sweep: Annotated[
        list[str] | None,
        Option(help="a setting with several values, lr=0.01,0.003; repeatable: all combinations are trained"),
    ] = None,
    ray: Annotated[str | None, Option(help="address of a Ray cluster, on whose workers a sweep is spread")] = None,
) -> None:
    """Train a memory's tensors on questions and answers; the model stays as it is. Ctrl-C keeps a checkpoint."""
    settings = dataclasses.replace(settings, seed=config.seed)
    if config.dtype in ("auto", "int8"):
        config = dataclasses.replace(config, dtype="float32")  # small steps vanish in the half precision of both
    run = _Run(config, settings, data, valid, state, checkpoint or Path(f"{state}.checkpoint"), resume)
    if sweep:
        _sweep(run, sweep, ray)
    else:
        out(_train(run)[1])


@dataclasses.dataclass(frozen=True)
class _Run:
    """One training, from settings to a memory file."""

    config: Config
    settings: TrainingSettings
    data: Path
    valid: Path | None
    state: Path
    checkpoint: Path
    resume: bool

    def varied(self, values: Mapping[str, Any]) -> _Run:
        """With other settings of the training or options of the memory, and a file that is named after them."""
        named = "-".join(f"{name}={value}" for name, value in values.items())
        state = self.state.with_name(f"{self.state.stem}-{named}{self.state.suffix}")
        training = {name: value for name, value in values.items() if name in TrainingSettings.declared()}
        options = {name: value for name, value in values.items() if name not in training}
        return dataclasses.replace(
            self,
            config=dataclasses.replace(self.config, options=dict(self.config.options) | options),
            settings=TrainingSettings.of(dataclasses.asdict(self.settings) | training),
            state=state,
            checkpoint=Path(f"{state}.checkpoint"),
        )


def _sweep(run: _Run, given: list[str], address: str | None) -> None:
    """Train every combination, each to a file of its own; the best by its loss, on `valid` if given, is copied."""
    from lmm.bench.spread import spread
    from lmm.config import parse_settings
    from lmm.engine.runtime import check

    choices = [
        [f"{name}{sign}{value}" for value in values.split(",")]
        for name, sign, values in (pair.partition("=") for pair in given)
    ]
    runs = [run.varied(parse_settings(list(pairs))) for pairs in itertools.product(*choices)]
    own.check(run.state, own.MEMORY)
    for one in runs:
        check(one.config)
    ended = spread(_train, runs, address)
    for _, line in ended:
        out(line)
    _, best = min(zip((loss for loss, _ in ended), (one.state for one in runs), strict=True))
    write_atomically(run.state, [best.read_bytes()])
    out(f"{run.state}: the best, {best.name}")


def _train(run: _Run) -> tuple[float, str]:
    """-> the best loss, and what is to be said."""
    from lmm.bench import exact_match
    from lmm.engine import runtime
    from lmm.engine.training import Training

    _check(run.state, run.checkpoint, [path for path in (run.data, run.valid) if path is not None])
    pairs, held = (
        [(x.question, x.answer, *x.before) for x in exact_match.read(p)] if p else [] for p in (run.data, run.valid)
    )
    backend = runtime.installed_for(run.config)
    with opened(dataclasses.replace(run.config, backend=backend, log=False, fresh=True)) as mind:
        mind.detach()  # training has taps of its own
        state = mind.knowledge.state
        training = Training(mind.adapter, mind.memory, pairs, held, run.settings, state, run.checkpoint, say)
        if not run.resume:
            training.discard()
        elif training.resume():
            say(f"going on after step {training.progress.step}")
        trained = _with_progress(training)
        _save(mind, training, trained, run.state, run.data)
        training.discard()
    progress = trained.progress
    best = progress.history[progress.best_epoch - 1]
    shown = f"loss {best['train']:.4f}" + ("" if best["valid"] is None else f", validation {best['valid']:.4f}")
    told = f"{len(pairs)} examples, epoch {progress.best_epoch} is the best ({shown}); {trained.ended}"
    loss = best["train"] if best["valid"] is None else best["valid"]
    return float(loss or 0.0), f"{run.state}: {told}"


def _check(path: Path, checkpoint: Path, read: list[Path]) -> None:
    """Find out now, and not after an hour, that the result cannot be written. Raises UsageError."""
    from lmm.files import atomic

    for name, written, others, mine in (
        ("--out", path, read, own.MEMORY),
        ("--checkpoint", checkpoint, [*read, path], own.TENSORS),
    ):
        own.check(written, mine)
        for other in others:
            if written.resolve() == other.resolve():
                what = "the memory file" if other is path else "the file that is read"
                raise UsageError(f"{name} {written} is {what}; it needs a name of its own")
        try:
            atomic.check_writable(written)
        except OSError as error:
            raise UsageError(f"{name} {written} cannot be written: {error.strerror}; choose another") from error


def _with_progress(training: Training) -> Trained:
    from lmm.bench.run import progress_bars
    from lmm.chat.interrupts import Interrupts

    stopped: list[bool] = []

    def told(entry: dict[str, Any]) -> None:
        valid = "" if entry["valid"] is None else f", validation {entry['valid']:.4f}"
        say(f"epoch {entry['epoch']}: loss {entry['train']:.4f}{valid}, lr {entry['lr']:.2g}, {entry['seconds']:.0f} s")

    stop: Callable[[], None] = lambda: stopped.append(True)  # noqa: E731
    with Interrupts(stop, stop), progress_bars() as track:
        advance = track("training", training.steps)
        advance(training.progress.step)
        return training.run(lambda: bool(stopped), lambda progress: advance(1), told)


def _save(mind: Mind, training: Training, trained: Trained, path: Path, data: Path) -> None:
    """The state as a memory file; what it was trained on is in the header's `extra`."""
    about = {
        "data": data.name,
        "sha256": hashlib.sha256(data.read_bytes()).hexdigest(),
        "examples": len(training.train),
        "settings": dataclasses.asdict(training.settings),
        "history": trained.progress.history,
        "ended": trained.ended,
    }
    mind.commit(Knowledge(trained.state, mind.lessons))
    mind.save(path, {"training": about}, _how_to_save_it(training.checkpoint))


def _how_to_save_it(checkpoint: Path | None) -> str:
    if checkpoint is None or not checkpoint.exists():
        return "there was no room for a checkpoint either: the training is lost"
    return (
        f"the training is kept in {checkpoint}; free some space and give the same command again, or the same with "
        f"another --out and --checkpoint {checkpoint}"
    )
