"""What the measurements can be told, in a file of its own: flags are made of it before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass

from lmm.options import Options, option

#: what can be left out with --skip
PARTS = ("locality", "known", "portability", "teacher-forced", "perplexity", "speed")


@dataclass(frozen=True)
class AskingSettings(Options):
    """How questions are asked."""

    batch_size: int = option(32, "questions answered together", "[1, inf)")
    max_tokens: int = option(32, "longest reply, in tokens", "[1, inf)")


@dataclass(frozen=True)
class RunSettings(AskingSettings):
    """One run over several memories, apart from these and the model."""

    seed: int = option(0, "of fresh memories and intervals", "[0, inf)")
    save_every_s: float = option(30.0, "seconds between checkpoints", "[0, inf)")


@dataclass(frozen=True)
class EditSettings(RunSettings):
    """A run of `lmm bench edit`. `sizes`: numbers of edits, each scored."""

    sizes: tuple[int, ...] = option((100,), "how many edits; several by commas: each is scored", flag="--edits")
    skip: frozenset[str] = option(frozenset(), "leave out, by commas", one_of=PARTS)

    def together(self) -> list[str]:
        if not self.sizes or list(self.sizes) != sorted(set(self.sizes)) or self.sizes[0] < 1:
            return [f"--edits must be rising numbers from 1, not {','.join(map(str, self.sizes))}"]
        return []


@dataclass(frozen=True)
class CompareSettings(AskingSettings):
    """A run of `lmm bench compare`. `limit` examples are taught; `questions` of them are asked after other talk."""

    limit: int = option(100, "examples of train.jsonl to teach", "[1, inf)")
    train: frozenset[str] = option(frozenset(), "memories whose tensors are trained offline, by commas")
    known_count: int = option(100, "true facts of --known, at most", "[0, inf)")
    distances: tuple[int, ...] = option(
        (50, 100, 200, 400), "tokens of other talk before a question, by commas", "[0, inf)"
    )
    lengths: tuple[int, ...] = option(
        (64, 128, 256, 512, 1024, 2048), "tokens read before a timed step, by commas", "[1, inf)"
    )
    questions: int = option(20, "taught questions asked after other talk", "[1, inf)")


@dataclass(frozen=True)
class LookupSettings(Options):
    """What `lmm bench lookup` times."""

    sizes: tuple[int, ...] = option((1_000, 10_000, 100_000), "numbers of lessons, by commas", "[4, inf)")
    repeats: int = option(50, "look-ups timed at each size", "[1, inf)")


def _examples(count: int) -> int:
    return option(count, "how many, over all splits", "[10, 20000]")


@dataclass(frozen=True)
class DataSettings(Options):
    """Examples that `lmm data` makes up; the other tasks differ in how many there are if nothing is said."""

    num_examples: int = _examples(500)
    seed: int = option(0, "the same seed gives the same files", "[0, inf)")


@dataclass(frozen=True)
class EntitySettings(DataSettings):
    num_examples: int = _examples(300)


@dataclass(frozen=True)
class PreferenceSettings(DataSettings):
    num_examples: int = _examples(400)
