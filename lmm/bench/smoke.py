"""The memorization smoke test: teach in one process, ask in another, and look at what else changed.

*separate*: a fresh memory for each name hears "I am NAME."; *shared*: one memory hears ten facts of one user. What was
learned is saved; a second process loads it and asks. Recall without damage means nothing ("I am Alice. I am Alice."
answers every question), so unrelated questions are asked too, and their answers compared with the untouched model's.

Two real processes: the first teaches every session and saves one file for each, the second loads and queries them one
after another. So the model is loaded twice, not twice per name; nothing but the files passes from one to the other.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmm.engine.asking import ask_many
from lmm.errors import LearningError, LmmError, UnknownNameError, UsageError
from lmm.text.fold import contains

if TYPE_CHECKING:
    from lmm.config import Config
    from lmm.engine.engine import Engine
    from lmm.engine.mind import Mind

PROTOCOLS = ("separate", "shared")
NAMES = ("Alice", "Bob", "Carol", "David", "Eva", "Ivan", "Yuri", "Aydar", "Mikhail", "Matvey")
RELATIONS = (  # statement, question: the facts of *shared*, one for each name
    ("I am {}.", "What is my name?"),
    ("My sister's name is {}.", "What is my sister's name?"),
    ("My dog is called {}.", "What is my dog called?"),
    ("My boss's name is {}.", "What is my boss's name?"),
    ("My best friend is {}.", "Who is my best friend?"),
    ("My neighbour's name is {}.", "What is my neighbour's name?"),
    ("My father's name is {}.", "What is my father's name?"),
    ("My teacher's name is {}.", "What is my teacher's name?"),
    ("My doctor's name is {}.", "What is my doctor's name?"),
    ("My cat is called {}.", "What is my cat called?"),
)
REWORDINGS = {"What is my name?": ("User's name is...", "What name do I go by?")}  # other ways to ask, counted apart
UNRELATED = (  # of few lengths in tokens: equal lengths are answered together
    "Who wrote Romeo and Juliet?",
    "What color is the sky?",
    "What is the largest planet?",
    "What is the capital of France?",
    "Who first walked on the moon?",
    "At what temperature does water boil?",
    "How many days are in a week?",
    "What is 2 + 2?",
    "What is the name of our galaxy?",
    "Give me a tip for cooking rice.",
)
MAX_TOKENS = 12  # of a reply; long enough for a fact in a sentence
TICK = "tick"


@dataclass(frozen=True)
class SmokeFact:
    """`answer` is what a reply to `question` must contain. `given`: taught as it stands, not read from the chat."""

    statement: str
    question: str
    answer: str
    rewordings: Sequence[str] = ()
    given: bool = False


@dataclass(frozen=True)
class SmokePlan:
    """What both processes are to do: one session for each file."""

    config: dict[str, Any]
    sessions: list[tuple[str, list[SmokeFact]]]

    @classmethod
    def read(cls, path: Path) -> SmokePlan:
        values = json.loads(path.read_text(encoding="utf-8"))
        return cls(values["config"], [(file, [SmokeFact(**f) for f in facts]) for file, facts in values["sessions"]])


@dataclass
class SmokeOutcome:
    """What `--json` prints. `recalled` of `asked`, `damaged` of `unrelated`; `seconds` is the whole run."""

    memory: str
    backend: str
    protocol: str
    preset: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    dtype: str = ""
    layer: int = 0
    asked: int = 0
    recalled: int = 0
    reworded: int = 0
    reworded_recalled: int = 0
    unrelated: int = 0
    damaged: int = 0
    seconds: float = 0.0
    teach_seconds: float = 0.0
    details: list[dict[str, Any]] = field(default_factory=list)

    def passes(self, require: float, allow_damage: float) -> bool:
        """Is recall at least, and damage at most, these shares?"""
        return self.recalled >= require * self.asked - 1e-9 and self.damaged <= allow_damage * self.unrelated + 1e-9


# the two sides of it, in a process of their own ------------------------------------------------------------------
def facts_of(protocol: str, names: Sequence[str] = NAMES, file: str | Path | None = None) -> list[SmokeFact]:
    """The facts to teach; a lone number as `names` is so many of the ten.

    Raises UsageError for a protocol, names or a file that cannot be used.
    """
    if protocol not in PROTOCOLS:
        raise UnknownNameError("protocol", protocol, PROTOCOLS)
    if file is not None:
        return _facts_in(Path(file))
    if not names or not all(name.strip() for name in names):
        raise UsageError("--names is empty; expected names separated by commas: --names Alice,Bob")
    if len(names) == 1 and names[0].strip().isdigit():
        count = int(names[0])
        if not 1 <= count <= len(NAMES):
            raise UsageError(f"--names {count}: there are 1 to {len(NAMES)}; or write them out: --names Alice,Bob")
        names = NAMES[:count]
    if protocol == "separate":
        return [_fact(*RELATIONS[0], name.strip()) for name in names]
    if len(names) > len(RELATIONS):
        raise UsageError(f"shared has {len(RELATIONS)} facts, one for each name, not {len(names)}; use --facts")
    return [_fact(*relation, name.strip()) for relation, name in zip(RELATIONS, names, strict=False)]


def _fact(statement: str, question: str, name: str) -> SmokeFact:
    return SmokeFact(statement.format(name), question, name, REWORDINGS.get(question, ()))


def _facts_in(path: Path) -> list[SmokeFact]:
    """JSON lines {"statement", "question", "answer"}; all that is wrong with the file at once."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--facts {path} cannot be read: {error}") from error
    facts, problems = [], []
    for i, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            statement, question, answer = (values[key].strip() for key in ("statement", "question", "answer"))
            facts.append(SmokeFact(statement, question, answer, given=True))
        except (ValueError, KeyError, TypeError, AttributeError):
            problems.append(str(i))
    if problems or not facts:
        wrong = f"lines {', '.join(problems)} are" if problems else "no line is"
        raise UsageError(f'--facts {path}: {wrong} not {{"statement": ..., "question": ..., "answer": ...}}')
    return facts


def teach(engine: Engine, facts: Sequence[SmokeFact]) -> list[str]:
    """One conversation in which the user says the facts; returns what could not be learned, and why.

    A memory that learns from messages hears them; one that learns from lessons gets what the chat would teach it.
    """
    problems: list[str] = []
    for i, fact in enumerate(facts):
        if not _learned(problems, fact, functools.partial(engine.hear, fact.statement)):
            engine.hear(fact.statement, learn=False)
        if "lessons" in engine.mind.memory.learns_from:
            _learned(problems, fact, functools.partial(engine.mind.learn, _lesson(fact)))
        if i + 1 < len(facts):  # the reply to the last fact would change nothing that is saved
            for _ in engine.answer():
                pass
    return problems


def _learned(problems: list[str], fact: SmokeFact, learn: Callable[[], Any]) -> bool:
    try:
        learn()
    except LearningError as error:
        problems.append(f"{fact.statement!r}: {error}")
        return False
    return True


def _lesson(fact: SmokeFact) -> Any:
    from lmm import feedback
    from lmm.lesson import Lesson

    found = None if fact.given else feedback.read(fact.statement).lesson
    return found or Lesson(prompt=fact.question, answer=fact.answer, statement=fact.statement)


def ask(mind: Mind, questions: Sequence[str], tick: Callable[[int], None] = lambda n: None) -> list[str]:
    return [reply.text for reply in ask_many(mind, questions, MAX_TOKENS, progress=tick)]


def ask_untouched(mind: Mind, questions: Sequence[str]) -> list[str]:
    """The model's own answers: the memory is fresh and detached, and put back afterwards."""
    mind.reset()
    mind.detach()
    answers = ask(mind, questions)
    mind.attach()
    return answers


def judge(facts: Sequence[SmokeFact], answers: Sequence[str], others: Sequence[str], untouched: Sequence[str]) -> dict:
    """One session in figures: replies to questions and rewordings, and to UNRELATED with and without the memory."""
    answers = list(answers)
    own = [(f.question, f.answer, answers.pop(0)) for f in facts]
    asked = [{"question": q, "answer": a, "reply": reply, "ok": contains(reply, a)} for q, a, reply in own]
    reworded = [
        {"question": q, "answer": f.answer, "reply": (reply := answers.pop(0)), "ok": contains(reply, f.answer)}
        for f in facts
        for q in f.rewordings
    ]
    damage = [
        {"question": q, "reply": reply, "untouched": before}
        for q, reply, before in zip(UNRELATED, others, untouched, strict=True)
        if reply != before or any(contains(reply, f.answer) for f in facts)
    ]
    return {"asked": asked, "reworded": reworded, "damage": damage}


def questions_of(facts: Sequence[SmokeFact]) -> list[str]:
    return [f.question for f in facts] + [q for f in facts for q in f.rewordings]


def _teach_all(plan: SmokePlan, mind: Mind, tick: Callable[[int], None]) -> list[list[str]]:
    from lmm.config import Decoding
    from lmm.engine.engine import Engine

    problems = []
    for file, facts in plan.sessions:
        mind.reset()
        problems.append(teach(Engine(mind, decoding=Decoding("greedy", max_tokens=MAX_TOKENS)), facts))
        mind.save(file)
        tick(len(facts))
    return problems


def _query_all(plan: SmokePlan, mind: Mind, tick: Callable[[int], None]) -> dict[str, Any]:
    untouched: dict[tuple[str, ...], list[str]] = {}  # asked in the same company: a batch's arithmetic depends on it
    found = []
    for file, facts in plan.sessions:
        questions = (*questions_of(facts), *UNRELATED)
        if questions not in untouched:
            untouched[questions] = ask_untouched(mind, questions)
        mind.load(file)
        answers, own = ask(mind, questions, tick), len(questions) - len(UNRELATED)
        found.append(judge(facts, answers[:own], answers[own:], untouched[questions][own:]))
    header = mind.header()
    about = {
        "backend": header.backend,
        "model": header.model_id,
        "dtype": mind.adapter.dtype,
        "layer": header.layer,
        "options": dict(header.options),
    }
    return {"about": about, "sessions": found}


def worker(side: str, folder: Path) -> None:
    """A process: reads plan.json, says `tick` for each thing done, writes <side>.json (or its error)."""
    from lmm.config import Config
    from lmm.engine.runtime import open_mind

    def tick(count: int) -> None:
        print(TICK, count, flush=True)

    out: dict[str, Any]
    try:
        plan = SmokePlan.read(folder / "plan.json")
        mind = open_mind(Config(**plan.config))
        out = {"found": {"teach": _teach_all, "query": _query_all}[side](plan, mind, tick)}
        mind.close()
    except LmmError as error:
        out = {"error": str(error), "exit_code": error.exit_code}
    (folder / f"{side}.json").write_text(json.dumps(out), encoding="utf-8")


# the parent ------------------------------------------------------------------------------------------------------
def run(config: Config, protocol: str, facts: Sequence[SmokeFact], progress: Callable[[int], None]) -> SmokeOutcome:
    """Teach in one process, ask in another. `progress` gets counts that add up to `amount_of_work`."""
    from lmm.engine import runtime

    runtime.check(config)
    start = time.perf_counter()
    plain = dataclasses.replace(
        config,
        backend=runtime.installed_for(config),
        log=False,
        fresh=True,
        mm_load_path=None,
        mm_save_path=None,
        max_tokens=MAX_TOKENS,
    )
    values = dataclasses.asdict(plain) | {"options": dict(plain.options), "deterministic": True}
    groups = [[f] for f in facts] if protocol == "separate" else [list(facts)]
    with tempfile.TemporaryDirectory(prefix="lmm-smoke-") as name:
        folder = Path(name)
        sessions = [(str(folder / f"{i}.safetensors"), group) for i, group in enumerate(groups)]
        plan = dataclasses.asdict(SmokePlan(values, sessions))
        (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
        problems = _process("teach", folder, progress)
        taught = time.perf_counter() - start
        found = _process("query", folder, progress)
    outcome = SmokeOutcome(config.memory, protocol=protocol, preset=config.preset, **found["about"])
    outcome.teach_seconds = round(taught, 1)
    outcome.seconds = round(time.perf_counter() - start, 1)
    _count(outcome, found["sessions"], problems)
    return outcome


def amount_of_work(protocol: str, facts: Sequence[SmokeFact]) -> int:
    sessions = len(facts) if protocol == "separate" else 1
    return len(facts) + len(questions_of(facts)) + sessions * len(UNRELATED)


def _count(outcome: SmokeOutcome, sessions: Sequence[dict], problems: Sequence[list[str]]) -> None:
    for session, trouble in zip(sessions, problems, strict=True):
        outcome.asked += len(session["asked"])
        outcome.recalled += sum(x["ok"] for x in session["asked"])
        outcome.reworded += len(session["reworded"])
        outcome.reworded_recalled += sum(x["ok"] for x in session["reworded"])
        outcome.unrelated += len(UNRELATED)
        outcome.damaged += len(session["damage"])
        outcome.details.append(session | {"not_learned": trouble})


def _process(side: str, folder: Path, progress: Callable[[int], None]) -> Any:
    command = [sys.executable, "-P", "-m", "lmm.bench.smoke", side, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith(TICK + " "):
                progress(int(line.split()[1]))
    path = folder / f"{side}.json"
    if child.returncode or not path.exists():
        raise LmmError(f"the process that was to {side} ended with exit code {child.returncode}; its error is above")
    out = json.loads(path.read_text(encoding="utf-8"))
    if "error" in out:
        error = LmmError(f"the process that was to {side} failed: {out['error']}")
        error.exit_code = out["exit_code"]
        raise error
    return out["found"]


def command(
    config: Config, protocol: str, facts: Sequence[SmokeFact], as_json: bool, require: float, allow_damage: float
) -> int:
    """Run, with a progress bar on stderr; print; return the exit code."""
    from rich.console import Console
    from rich.progress import Progress

    for name, share in (("--require", require), ("--allow-damage", allow_damage)):
        if not 0 <= share <= 1:
            raise UsageError(f"{name} is a share from 0 to 1, not {share:g}")
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(f"{config.memory}, {protocol}", total=amount_of_work(protocol, facts))
        outcome = run(config, protocol, facts, lambda count: bar.advance(task, count))
    passed = outcome.passes(require, allow_damage)
    print(json.dumps(dataclasses.asdict(outcome)) if as_json else report(outcome, passed))
    return 0 if passed else 1


def report(outcome: SmokeOutcome, passed: bool) -> str:
    """The outcome for people: one line for each fact, then the sums."""
    from lmm.text.sanitize import clean_line

    lines = []
    for session in outcome.details:
        lines += [f"not learned: {clean_line(x)}" for x in session["not_learned"]]
        rows = [("yes" if x["ok"] else "no", x["question"], x["reply"]) for x in session["asked"]]
        rows += [("damage", x["question"], x["reply"]) for x in session["damage"]]
        lines += [f"{mark:<8}{clean_line(q):<32}{clean_line(reply, 80)}" for mark, q, reply in rows]
    name = outcome.memory + (f" ({outcome.preset})" if outcome.preset else "")
    sums = [f"recalled {outcome.recalled} of {outcome.asked}"]
    if outcome.reworded:
        sums.append(f"in other words {outcome.reworded_recalled} of {outcome.reworded}")
    sums.append(f"unrelated answers damaged {outcome.damaged} of {outcome.unrelated}")
    lines.append(f"{name} on {outcome.backend}, {outcome.protocol}: {'; '.join(sums)}; {outcome.seconds:.0f} s")
    return "\n".join([*lines, "passed" if passed else "failed"])


if __name__ == "__main__":
    worker(sys.argv[1], Path(sys.argv[2]))
