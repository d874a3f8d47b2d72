"""`lmm train`: offline training of a memory on a file of questions and answers."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from lmm.cli.opening import opened
from lmm.cli.options import Option, configured, out, say
from lmm.engine.training_settings import TrainingSettings
from lmm.errors import UsageError
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
) -> None:
    """Train a memory's tensors on questions and answers; the model stays as it is. Ctrl-C keeps a checkpoint."""
    settings = dataclasses.replace(settings, seed=config.seed)
    if config.dtype == "auto":
        config = dataclasses.replace(config, dtype="float32")  # small steps vanish in half precision
    checkpoint = checkpoint or Path(f"{state}.checkpoint")
    _check(state, checkpoint, [path for path in (data, valid) if path is not None])
    with opened(dataclasses.replace(config, log=False, fresh=True)) as mind:
        _run(mind, settings, data, valid, state, checkpoint, resume)


def _run(
    mind: Mind, settings: TrainingSettings, data: Path, valid: Path | None, path: Path, checkpoint: Path, resume: bool
) -> None:
    from lmm.bench import exact_match
    from lmm.engine.training import Training

    pairs, held = ([(x.question, x.answer, *x.before) for x in exact_match.read(p)] if p else [] for p in (data, valid))
    mind.detach()  # training has taps of its own
    training = Training(mind.adapter, mind.memory, pairs, held, settings, mind.knowledge.state, checkpoint, say)
    if not resume:
        training.discard()
    elif training.resume():
        say(f"going on after step {training.progress.step}")
    trained = _with_progress(training)
    _save(mind, training, trained, path, data)
    training.discard()
    best = trained.progress.history[trained.progress.best_epoch - 1]
    shown = f"loss {best['train']:.4f}" + ("" if best["valid"] is None else f", validation {best['valid']:.4f}")
    out(f"{path}: {len(pairs)} examples, epoch {trained.progress.best_epoch} is the best ({shown}); {trained.ended}")


def _check(path: Path, checkpoint: Path, read: list[Path]) -> None:
    """Find out now, and not after an hour, that the result cannot be written. Raises UsageError."""
    from lmm.files import atomic

    for name, written, others in (("--out", path, read), ("--checkpoint", checkpoint, [*read, path])):
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
