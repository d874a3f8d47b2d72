"""`lmm bench compare`: memories side by side on the exact-match tasks, each category on its own.

For each memory: the examples of train.jsonl are taught one after the other (`--train NAME`: then, or only, its tensors
are trained offline on them); a new instance with the saved file is asked the same questions, one other wording of
each, questions of test.jsonl that were not taught, and known facts. A sample of the taught questions is asked again
after 50 to 400 tokens of other talk; and it is timed how a decode step and the memory's own part in it depend on how
much was read. Replies are free greedy decoding; scores are exact match after SQuAD normalisation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmm.adapters.base import as_tokens
from lmm.bench import compare_report, datasets, exact_match, measure, metrics, pages, rows, run
from lmm.bench.datasets import Edit
from lmm.bench.edit import Bench, _identity
from lmm.bench.exact_match import TaskExample
from lmm.bench.plan import PromptList
from lmm.bench.runner import Build, Track, quietly
from lmm.bench.settings import CompareSettings, EditSettings
from lmm.bench.store import Folder, KeptReplies, circumstances, digest, model_of, read_json, read_lines, write_json
from lmm.config import Config, Decoding
from lmm.engine import runtime
from lmm.engine.asking import recall_many
from lmm.engine.conversation import Turn
from lmm.engine.engine import Engine
from lmm.errors import UsageError
from lmm.lesson import Knowledge

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter
    from lmm.engine.mind import Mind
    from lmm.engine.training import TrainingSettings
    from lmm.memory.base import Memory

STEPS = 9  # decode steps timed at each length
TALK = (  # is about nothing that the tasks ask for
    "The sea is never quite still. On calm mornings small waves run along the beach and draw thin lines in the sand. "
    "Gulls walk slowly at the edge of the water and look for crabs. Later the wind gets up, the boats leave the "
    "harbour one after the other, and their sails lean over in the same direction. In the evening people come down "
    "with blankets and sit on the stones until it gets dark. Some of them sing, others just listen to the waves. "
)


@dataclass(frozen=True, kw_only=True)
class CompareRequest(CompareSettings):
    """One comparison; `options`, `presets` as in `lmm bench edit`."""

    data: Path
    memories: tuple[str, ...]
    config: Config
    known: Path | None = None
    out: Path | None = None
    resume: bool = True
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    presets: Mapping[str, str] = field(default_factory=dict)
    training: TrainingSettings | None = None
    command: str = ""

    @property
    def folder(self) -> Path:
        return (
            self.out or Path("artifacts") / "compare" / f"{self.data.name}_{self.limit}_{Path(self.config.model).stem}"
        )


def compare(
    request: CompareRequest,
    track: Track = quietly,
    adapter: Adapter | None = None,
    notice: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Run it, or go on with it, and write `result.json`, `table.md` and the plots. Returns the result.

    "none", the model without a memory, is always in it. `notice` hears what is left out because the model cannot read
    so much. Raises LmmError; a wrong request before a model is loaded.
    """
    names = tuple(dict.fromkeys(("none", *request.memories)))
    unknown = sorted(request.train - set(names))
    if unknown:
        raise UsageError(f"--train names {', '.join(unknown)}, which --memory does not")
    builds = run.builders(names, request.config, request.options, request.presets)
    taught = exact_match.read(request.data / "train.jsonl")[: request.limit]
    unseen = [x for x in exact_match.read(request.data / "test.jsonl") if not x.seen][: request.limit]
    known = datasets.prompts_of(request.known)[: request.known_count] if request.known else []
    adapter = adapter or runtime.load_adapter(request.config)
    request = _that_fits(request, adapter, [x.question for x in taught], notice)
    fixed = _fixed(request, adapter, taught, unseen, known)
    folder = Folder(request.folder, fixed, request.resume)
    bench = Compare(adapter, request, taught, unseen, known, folder, track)
    about = fixed | {"data": request.data.name} | circumstances(adapter, request.command)
    result: dict[str, Any] = {"rows": [], "run": about}
    for name, build in builds.items():
        result["rows"].append(bench.row(name, build))
        write_json(request.folder / "result.json", result)
    pages.write(result, request.folder, compare_report.markdown, compare_report.plots)
    return result


def _that_fits(
    request: CompareRequest, adapter: Adapter, questions: Sequence[str], notice: Callable[[str], None]
) -> CompareRequest:
    """The request without distances and lengths beyond what the model can read. Raises UsageError if none is left."""
    context = adapter.shape.context
    if not context:
        return request  # the model does not say
    asked = max(len(adapter.format.prompt_tokens(question)) for question in questions) + request.max_tokens
    fits = {
        "distances": tuple(d for d in request.distances if talk(adapter, d)[1] + asked <= context),
        "lengths": tuple(n for n in request.lengths if n < context),
    }
    for name, kept in fits.items():
        given = getattr(request, name)
        if given and not kept:
            raise UsageError(f"the model reads {context} tokens, too few for any of --{name}; give smaller ones")
        if left_out := [str(n) for n in given if n not in kept]:
            notice(f"the model reads {context} tokens: {name} {', '.join(left_out)} are left out")
    return dataclasses.replace(request, distances=fits["distances"], lengths=fits["lengths"])


def _fixed(
    request: CompareRequest,
    adapter: Adapter,
    taught: Sequence[TaskExample],
    unseen: Sequence[TaskExample],
    known: Sequence[str],
) -> dict[str, Any]:
    """What must be the same for a run to be gone on with; memories and their options may differ."""
    said = [dataclasses.astuple(x) for x in (*taught, *unseen)]
    return {
        "examples": digest(said, list(known)),
        "taught": len(taught),
        "unseen": len(unseen),
        "known": len(known),
        "distances": list(request.distances),
        "lengths": list(request.lengths),
        "questions": request.questions,
        "seed": request.config.seed,
        "batch_size": request.batch_size,
        "max_tokens": request.max_tokens,
        **model_of(adapter),
    }


class Compare(Bench):
    """The editing benchmark's runner, on examples with categories."""

    def __init__(
        self,
        adapter: Adapter,
        request: CompareRequest,
        taught: Sequence[TaskExample],
        unseen: Sequence[TaskExample],
        known: Sequence[str],
        folder: Folder,
        track: Track = quietly,
    ) -> None:
        edits = [Edit(x.question, x.answer, rephrases=x.wordings[:1]) for x in taught]
        settings = EditSettings(request.batch_size, request.max_tokens, request.config.seed, sizes=(len(edits),))
        super().__init__(adapter, edits, known, None, folder, settings, track)
        self.request, self.taught, self.unseen = request, taught, unseen
        self._plain_unseen: dict[str, str] = {}

    def row(self, name: str, build: Build) -> dict[str, Any]:
        """Everything about one memory; read from the folder if it is there."""
        trained = self.request.training if name in self.request.train else None
        key = digest(_identity(build), dataclasses.asdict(trained) if trained else None)
        folder = self.folder.memory(name, key)
        if name == "none":
            with self._session(build) as mind:
                asked = self._ask(mind, [self._unseen_list()], self._replies(name, folder), "none: asking")
                self._plain_unseen = {prompt: record["reply"] for prompt, record in asked.items()}
        row = read_json(folder / "row.json")
        if row is None:
            self.baseline()
            file = self._learned(name, build, folder, trained)
            row = self._judged(name, build, folder, file) | {"trained": trained is not None}
            write_json(folder / "row.json", row)
        return row

    # learning --------------------------------------------------------------------------------------------------
    def _learned(self, name: str, build: Build, folder: Path, trained: TrainingSettings | None) -> Path | None:
        """The memory file after teaching and training; None if there is nothing to learn."""
        memory, count = build(), len(self.edits)
        if "lessons" in memory.learns_from or (trained is None and memory.learns_from != "nothing"):
            self._teach(name, build, folder)
        taught = folder / f"taught-{count}.safetensors"
        if trained is None:
            return taught if taught.exists() else None
        path = folder / "trained.safetensors"
        if not path.exists():
            self._train(name, build, folder, trained, taught if taught.exists() else None)
        return path

    def _train(self, name: str, build: Build, folder: Path, settings: TrainingSettings, start: Path | None) -> None:
        from lmm.engine.training import Training

        with self._session(build) as mind:
            if start is not None:
                mind.load(start)
            pairs = [(x.question, x.answer) for x in self.taught]
            training = Training(
                self.adapter, mind.memory, pairs, (), settings, mind.knowledge.state, folder / "training.checkpoint"
            )
            training.resume()
            advance = self.track(f"{name}: training", training.steps)
            advance(training.progress.step)
            with self.adapter.quiet():
                trained = training.run(on_step=lambda progress: advance(1))
            mind.commit(Knowledge(trained.state, mind.lessons))
            mind.save(folder / "trained.safetensors")
            write_json(folder / "training.json", dataclasses.asdict(trained.progress) | {"ended": trained.ended})
            training.discard()

    # asking ----------------------------------------------------------------------------------------------------
    def _judged(self, name: str, build: Build, folder: Path, file: Path | None) -> dict[str, Any]:
        size = len(self.edits)
        with self._session(build) as mind:
            if file is not None:
                mind.load(file)
            replies = self._replies(name, folder)
            asked = self._ask(mind, [*self.plan.lists(size), self._unseen_list()], replies, f"{name}: asking")
            told = {prompt: record["reply"] for prompt, record in asked.items()}
            row = {"memory": name, "options": mind.memory.options_dict()} | self._scores(told)
            row["by_distance"] = self._by_distance(mind, name)
            row["by_length"] = self._by_length(mind, name)
            row |= measure.speed(mind, self.track(f"{name}: speed", len(measure.CLOCK_PROMPTS)))
            row["state_bytes"] = measure.state_bytes(mind)
        row |= rows.costs(read_lines(folder / "lessons.jsonl"))
        training = read_json(folder / "training.json")
        return row | {"training_s": training["seconds"] if training else None}

    def _replies(self, name: str, folder: Path) -> KeptReplies:
        """Where replies are kept; those without a memory are the baseline's."""
        return KeptReplies(self.folder.part("baseline") if name == "none" else folder / "asked")

    def _unseen_list(self) -> PromptList:
        prompts = tuple(dict.fromkeys(x.question for x in self.unseen))
        return PromptList(prompts, digest("unseen", prompts))

    def _scores(self, told: Mapping[str, str]) -> dict[str, Any]:
        """Shares of exact replies, overall and by category, with their intervals."""
        groups = {"taught": [(x, x.question) for x in self.taught], "unseen": [(x, x.question) for x in self.unseen]}
        groups["wordings"] = [(x, wording) for x in self.taught for wording in x.wordings[:1]]
        row: dict[str, Any] = {}
        for kind, asked in groups.items():
            hits = [(x.category, metrics.exact(told[prompt], [x.answer])) for x, prompt in asked]
            row[kind] = self._share([hit for _, hit in hits])
            names = sorted({category for category, _ in hits})
            row[f"{kind}_by_category"] = {n: self._share([hit for c, hit in hits if c == n]) for n in names}
        row["known_unchanged"] = self._share([told[p] == (self._plain or {})[p] for p in self.known])
        row["unseen_unchanged"] = self._share([told[p] == reply for p, reply in self._plain_unseen.items()])
        return row

    def _share(self, hits: Sequence[bool]) -> dict[str, Any]:
        found = metrics.bootstrap([[float(hit)] for hit in hits], self.settings.seed)
        value = sum(hits) / len(hits) if hits else None
        return {"value": value, "count": len(hits), "interval": list(found) if found else None}

    # distance and length -----------------------------------------------------------------------------------------
    def _by_distance(self, mind: Mind, name: str) -> list[dict[str, Any]]:
        """Exact replies to a sample of the taught questions after so many tokens of other talk."""
        sample = _spread(self.taught, self.request.questions)
        advance = self.track(f"{name}: after other talk", len(sample) * len(self.request.distances))
        found = []
        for distance in self.request.distances:
            talked, tokens = talk(mind.adapter, distance)
            hits = []
            for example in sample:
                engine = Engine(mind, decoding=Decoding("greedy", max_tokens=measure.REPLY_TOKENS))
                engine.conversation.turns.append(talked)
                engine.hear(example.question, learn=False)
                for _ in engine.answer():
                    pass
                hits.append(metrics.exact(engine.conversation.turns[-1].text, [example.answer]))
                advance(1)
            found.append({"distance": distance, "tokens": tokens} | self._share(hits))
        return found

    def _by_length(self, mind: Mind, name: str) -> list[dict[str, Any]]:
        advance = self.track(f"{name}: timing by length", len(self.request.lengths))
        found = []
        for length in self.request.lengths:
            found.append(time_at(mind, self.taught[0].question, length))
            advance(1)
        return found


def _spread(examples: Sequence[TaskExample], count: int) -> list[TaskExample]:
    return [examples[i] for i in np.unique(np.linspace(0, len(examples) - 1, min(count, len(examples))).astype(int))]


def talk(adapter: Adapter, tokens: int) -> tuple[Turn, int]:
    """An exchange about nothing that was taught, of at least `tokens` tokens, and how many it has."""
    words, format = TALK.split(), adapter.format
    for count in range(1, 100 * tokens):
        said = " ".join(words[i % len(words)] for i in range(count))
        messages = [{"role": "user", "content": "Tell me about the sea."}, {"role": "assistant", "content": said}]
        length = len(format.encode(format.render(messages, reply=False)))
        if length >= tokens:
            return Turn(messages[0]["content"], said, answered=True), length
    raise AssertionError("words have tokens")


def time_at(mind: Mind, question: str, length: int) -> dict[str, Any]:
    """Seconds at a reply to `question` with `length` tokens read before it: reading them, what the memory decides once
    (`recall_s`), a decode step with and without the memory, and the part of a step that is the memory's own."""
    adapter = mind.adapter
    asked = adapter.format.prompt_tokens(question)
    before = talk_tokens(adapter, max(length - len(asked), 0))
    tokens = as_tokens([*before, *asked][-max(length, len(asked)) :])
    start = time.perf_counter()
    recall = recall_many(mind, [question])[0]
    recall_s = time.perf_counter() - start
    with mind.holding(recall, tokens.shape[1] - 1), _timed(mind.memory) as spent:
        read_s, (logits, cache) = _seconds(lambda: adapter.forward(tokens, adapter.new_cache()), adapter)
        step = as_tokens([int(np.argmax(adapter.ops.to_numpy(logits)[0, -1]))])
        with_s, own_s, without_s = [], [], []
        for _ in range(STEPS):
            spent.clear()
            with_s.append(_seconds(lambda: adapter.forward(step, cache), adapter)[0])
            own_s.append(sum(spent))
            with adapter.quiet():
                without_s.append(_seconds(lambda: adapter.forward(step, cache), adapter)[0])
    return {
        "tokens": int(tokens.shape[1]),
        "read_s": read_s,
        "recall_s": recall_s,
        "step_s": metrics.median(with_s),
        "plain_step_s": metrics.median(without_s),
        "lookup_s": metrics.median(own_s),
    }


def talk_tokens(adapter: Adapter, count: int) -> list[int]:
    tokens = adapter.format.encode(TALK)
    return [tokens[i % len(tokens)] for i in range(count)]


def _seconds(work: Any, adapter: Adapter) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    adapter.ops.evaluate(result[0])
    return time.perf_counter() - start, result


@contextlib.contextmanager
def _timed(memory: Memory) -> Iterator[list[float]]:
    """The seconds of each call of the memory's `rewrite` inside. (On MLX: of building its graph.)"""
    spent: list[float] = []
    rewrite = memory.rewrite

    def timed(*args: Any) -> Any:
        start = time.perf_counter()
        result = rewrite(*args)
        spent.append(time.perf_counter() - start)
        return result

    memory.rewrite = timed  # type: ignore[method-assign, assignment]
    try:
        yield spent
    finally:
        del memory.rewrite
