"""Tasks that ask for exactly what was taught: key -> value, facts of an entity, preferences of a user.

Each example is one JSON line:

    question, answer    what is taught, and asked again
    wordings            other forms of the question, never taught
    category            capital, element name, ..., synthetic
    key                 what the question is about; "Q937", "user_42", "alpha_417"
    seen                in test.jsonl: is it one of train.jsonl?

Splits: 80 % train, 10 % valid and 10 % test have no key in common; test holds as many examples of train again, by
which recall is measured (what an arbitrary value of an unseen key is, nobody can know).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lmm.bench.exact_facts import ACRONYMS, CAPITALS, ELEMENTS, HTTP_CODES, PEOPLE, PORTS, UNITS
from lmm.bench.settings import DataSettings
from lmm.errors import UsageError
from lmm.files.atomic import write_atomically

SPLITS = ("train", "valid", "test")
REAL_SHARE = 0.32  # of exact-match examples are true facts, as in the Engram PoC's set of 500; the rest is synthetic
_GREEK = """
alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau upsilon phi chi psi
omega
"""


@dataclass(frozen=True)
class TaskExample:
    question: str
    answer: str
    category: str
    key: str
    wordings: tuple[str, ...] = ()
    seen: bool = False
    before: tuple[str, ...] = ()  # what was said in earlier turns, which are not read any more


Family = Iterator[list[TaskExample]]  # lists of examples with a key in common: they stay in one split
Splits = dict[str, list[TaskExample]]


# exact match ------------------------------------------------------------------------------------------------------
def _values(facts: Mapping[str, str], category: str, question: str, *wordings: str) -> Family:
    """The value of each key; `question` and `wordings` have a place for the key."""
    for key, value in facts.items():
        yield [TaskExample(question.format(key), value, category, key, tuple(w.format(key) for w in wordings))]


def _elements() -> Family:
    for number, name in enumerate(ELEMENTS, 1):
        named = (f"What is the element number {number} called?", f"Name the element with {number} protons.")
        counted = (f"Which atomic number does {name.lower()} have?", f"How many protons has {name.lower()}?")
        yield [
            TaskExample(f"Which element has atomic number {number}?", name, "element name", name, named),
            TaskExample(f"What is the atomic number of {name.lower()}?", str(number), "element number", name, counted),
        ]


def _units() -> Family:
    for family in UNITS:
        for i, (_, small, few) in enumerate(family):
            for big, _, many in family[i + 1 :]:
                if many % few == 0:
                    wordings = (f"One {big} is how many {small}?", f"How many {small} make one {big}?")
                    question = f"How many {small} are in one {big}?"
                    yield [TaskExample(question, str(many // few), "unit", f"{big} in {small}", wordings)]


REAL: dict[str, Callable[[], Family]] = {
    "capital": partial(
        _values, CAPITALS, "capital", "What is the capital of {}?",
        "Which city is the capital of {}?", "{} has which capital?",
    ),
    "element": _elements,
    "port": partial(
        _values, PORTS, "port", "What is the default port of {}?",
        "Which port does {} use by default?", "{} listens on which port?",
    ),
    "http": partial(
        _values, HTTP_CODES, "http code", "What does HTTP status code {} mean?",
        "What is the reason phrase of HTTP {}?", "HTTP {} stands for what?",
    ),
    "unit": _units,
    "acronym": partial(
        _values, ACRONYMS, "acronym", "What does {} stand for?",
        "What is {} short for?", "Spell out the acronym {}.",
    ),
}  # fmt: skip
CATEGORIES = (*REAL, "synthetic")


def _synthetic(count: int, rng: random.Random) -> Family:
    """Arbitrary values of arbitrary keys; no two alike."""
    names = [f"{letter}_{number}" for letter in _GREEK.split() for number in range(100, 1000)]
    keys, values = rng.sample(names, count), rng.sample(names, count)
    while any(key == value for key, value in zip(keys, values, strict=True)) and count > 1:
        values = [*values[1:], values[0]]  # a key's value is another name
    for key, value in zip(keys, values, strict=True):
        wordings = (f"Which value does {key} have?", f"Look up {key}.")
        yield [TaskExample(f"What is the value of {key}?", value, "synthetic", key, wordings)]


def exact_match(count: int, seed: int = 0, categories: tuple[str, ...] = CATEGORIES) -> Splits:
    """True facts from each category in turn up to REAL_SHARE (all, without "synthetic"), and synthetic pairs.

    Raises UsageError for an unknown category or negative seed, and if there are fewer facts than asked for.
    """
    rng, categories = _drawing(count, seed), tuple(dict.fromkeys(categories))
    unknown = [name for name in categories if name not in CATEGORIES]
    if unknown:
        raise UsageError(f"unknown categories: {', '.join(unknown)}; known: {', '.join(CATEGORIES)}")
    real = [list(REAL[name]()) for name in categories if name in REAL]
    for family in real:
        rng.shuffle(family)
    wanted = count if "synthetic" not in categories else round(REAL_SHARE * count)
    groups = _in_turn(real, wanted)
    left = count - sum(map(len, groups))
    if left and "synthetic" not in categories:
        raise UsageError(f"there are only {count - left} such facts; ask for fewer, or add the category synthetic")
    return _split([*groups, *_synthetic(left, rng)], rng)


def _in_turn(families: list[list[list[TaskExample]]], wanted: int) -> list[list[TaskExample]]:
    """Groups from each family in turn, until there are `wanted` examples or none left."""
    chosen: list[list[TaskExample]] = []
    left = wanted
    for i in range(max(map(len, families), default=0)):
        for family in families:
            if i < len(family) and left > 0:
                chosen.append(family[i][:left])
                left -= len(chosen[-1])
    return chosen


# entities and users -----------------------------------------------------------------------------------------------
_BORN, _DIED = "In what year was {} born?", "In what year did {} die?"
_FIELD = "What is the field of {}?"
_FIRST = "Orla Bram Cato Dunja Elio Fenna Goran Hedda Ivo Jorun Kasimir Lioba Milo Nerea Oskar Petra"
_LAST = "Venn Kalder Moreth Ostrow Pirell Quade Rasmont Selwick Tarrow Ubell Vastra Wendle Yorrin Zabel"
_FIELDS = ("botany", "cartography", "geology", "linguistics", "optics", "sculpture")


def _person(key: str, name: str, born: str, died: str, field: str, category: str) -> list[TaskExample]:
    facts = (
        (_BORN, born, ("When was {} born?", "What is the year of birth of {}?")),
        (_DIED, died, ("When did {} die?", "What is the year of death of {}?")),
        (_FIELD, field, ("What did {} work on?", "In which field was {} active?")),
    )
    return [
        TaskExample(
            f"[{key}] " + q.format(name), answer, category, key, tuple(f"[{key}] " + w.format(name) for w in more)
        )
        for q, answer, more in facts
    ]


def entity_keyed(count: int, seed: int = 0) -> Splits:
    """Facts of entities, with the entity's id before the question: real people with their Wikidata ids, then invented
    ones with ids of their own (X1000 and up). All facts of an entity are in one split. Raises UsageError for a negative
    seed."""
    rng = _drawing(count, seed)
    people = [_person(*person, category="person") for person in PEOPLE]  # type: ignore[misc]
    rng.shuffle(people)
    groups = _in_turn([people], count)
    number = 1000
    while (left := count - sum(map(len, groups))) > 0:
        born = rng.randrange(1700, 1900)
        name = f"{rng.choice(_FIRST.split())} {rng.choice(_LAST.split())}"
        died = str(born + rng.randrange(30, 91))
        groups.append(_person(f"X{number}", name, str(born), died, rng.choice(_FIELDS), "invented")[:left])
        number += 1
    return _split(groups, rng)


_PREFERENCES: dict[str, tuple[str, ...]] = {
    "theme": ("dark mode", "light mode", "high contrast"),
    "system of units": ("metric units", "imperial units"),
    "time zone": ("PST", "CET", "UTC", "JST", "EST"),
    "language": ("English", "Spanish", "German", "Japanese", "Portuguese"),
    "editor": ("Vim", "Emacs", "Nano", "VS Code"),
    "currency": ("euros", "US dollars", "yen", "pounds sterling"),
    "date format": ("YYYY-MM-DD", "DD.MM.YYYY", "MM/DD/YYYY"),
    "drink": ("green tea", "black coffee", "oat milk latte", "sparkling water"),
}


def preferences(count: int, seed: int = 0) -> Splits:
    """What invented users prefer, with the user's id before the question. All of a user's are in one split.

    Raises UsageError for a negative seed.
    """
    rng = _drawing(count, seed)
    users = rng.sample(range(1, 100_000), max(len(SPLITS), -(-count // len(_PREFERENCES))))
    groups, left = [], count
    for number, user in enumerate(users):
        key, group = f"user_{user}", []
        for what, choices in _PREFERENCES.items():
            wordings = (f"[{key}] Which {what} does this user like best?", f"[{key}] My favourite {what}?")
            question = f"[{key}] Which {what} does the user prefer?"
            group.append(TaskExample(question, rng.choice(choices), "preference", key, wordings))
        groups.append(group[: -(-left // (len(users) - number))])
        left -= len(groups[-1])
    return _split(groups, rng)


TASKS: dict[str, Callable[..., Splits]] = {
    "exact-match": exact_match,
    "entity-keyed": entity_keyed,
    "preferences": preferences,
}


# splitting and files ----------------------------------------------------------------------------------------------
def _drawing(count: int, seed: int) -> random.Random:
    """Where chance comes from. Raises UsageError for numbers that no examples can be made with."""
    return random.Random(DataSettings(count, seed).seed)


def _split(groups: list[list[TaskExample]], rng: random.Random) -> Splits:
    """Each group whole in one split; the largest are placed first, so that the sizes come out as wanted.

    Raises UsageError where there are not enough groups for all splits.
    """
    if len(groups) < len(SPLITS):
        raise UsageError(
            f"{sum(map(len, groups))} examples of {len(groups)} keys do not fill three files; ask for more"
        )
    rng.shuffle(groups)
    total = sum(map(len, groups))
    room = {"train": round(0.8 * total), "valid": round(0.1 * total)}
    room["test"] = total - sum(room.values())
    placed: dict[str, list[list[TaskExample]]] = {name: [] for name in SPLITS}
    for group in sorted(groups, key=len, reverse=True):
        fits = [name for name in SPLITS if room[name] >= len(group)] or [max(room, key=lambda name: room[name])]
        name = rng.choices(fits, [max(room[name], 1) for name in fits])[0]
        placed[name].append(group)
        room[name] -= len(group)
    for name in SPLITS:
        if not placed[name]:  # no group was small enough for it
            placed[name].append(max(placed.values(), key=len).pop())
    splits: Splits = {name: [x for group in placed[name] for x in group] for name in SPLITS}
    for examples in splits.values():
        rng.shuffle(examples)
    again = rng.sample(splits["train"], min(len(splits["test"]), len(splits["train"])))
    splits["test"] += [replace(example, seen=True) for example in again]
    return splits


def write(splits: Splits, folder: Path) -> dict[str, Path]:
    """One JSONL file for each split. Raises UsageError if the folder cannot be written to."""
    paths = {}
    for name, examples in splits.items():
        lines = "".join(json.dumps(asdict(example), ensure_ascii=False) + "\n" for example in examples)
        paths[name] = folder / f"{name}.jsonl"
        try:
            write_atomically(paths[name], [lines.encode()])
        except OSError as error:
            raise UsageError(f"cannot write {paths[name]}: {error.strerror}") from error
    return paths


def read(path: Path) -> list[TaskExample]:
    """The examples of a file; only `question` and `answer` are a must. Raises UsageError that names the bad line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read {path}: {error}; make such files with: lmm data exact-match --out DIR"
        ) from error
    examples = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                examples.append(_example(json.loads(line)))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                expected = 'expected {"question": "...", "answer": "...", ...}'
                raise UsageError(f"{path}, line {number}: {expected} ({error or type(error).__name__})") from error
    if not examples:
        raise UsageError(f"{path} holds no examples")
    return examples


def _example(values: dict[str, Any]) -> TaskExample:
    question, answer = values["question"], values["answer"]
    if not (isinstance(question, str) and isinstance(answer, str) and question.strip() and answer.strip()):
        raise ValueError("question and answer must be texts")
    category, key = str(values.get("category", "")), str(values.get("key", question))
    wordings, before = (tuple(map(str, values.get(name, ()))) for name in ("wordings", "before"))
    return TaskExample(question, answer, category, key, wordings, bool(values.get("seen", False)), before)
