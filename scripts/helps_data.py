"""Pairs (question, note, does the note help?) to train and validate the gate of notes on.

Sources: files of notes written by hand, each with questions it helps with and near misses (`--helps`); our own notes
(scripts/helps_notes.txt) filled with made-up names and numbers; the records of two editing data sets that no score is
taken on (counterfact[500:], zsre[500:]), as question and answer. Of each note, questions about others are negatives,
too: with the name or number in them changed, and those of notes about something else.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scripts.gate_data import Pair, counterfact_pairs, load_records, sentences, zsre_pairs, zsre_transplants
from scripts.gate_names import DATA
from scripts.helps_names import SLOT, filled

NOTES = DATA / "helps_notes.txt"
PEOPLE = {"rel", "name"}  # a note that does not name them does not help with questions that do
KEPT = 6  # every so manieth note, with all that is asked about it, is kept apart for validation


@dataclass(frozen=True)
class Noted:
    """A note, what it helps with, and what it does not. `topic`: notes of one topic are kept apart together."""

    note: str
    helps: tuple[str, ...]
    near: tuple[str, ...]
    topic: str = ""


def from_file(path: Path) -> list[Noted]:
    """JSON lines `{"note", "not": [..]}` and what the note helps with: `"question"`, `"asks": [..]`, `"helps": [..]`,
    `"yes_no": [[question, answer], ..]`."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        asked = [record["question"].replace("the user's", "my")] if "question" in record else []
        asked += [*record.get("asks", ()), *record.get("helps", ()), *(q for q, _ in record.get("yes_no", ()))]
        found.append(Noted(record["note"], tuple(dict.fromkeys(asked)), tuple(record["not"]), record["note"]))
    return found


def from_turns(path: Path) -> list[Noted]:
    """Turns that state something, as the reader is trained on: `{"text", "facts": [{"question"}]}`. No near misses."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        asked = tuple(fact["question"] for fact in record["facts"] if fact.get("question"))
        if asked and record["kind"] != "nothing":
            found.append(Noted(record["text"], asked, (), record["text"]))
    return found


@dataclass(frozen=True)
class Told:
    """An earlier message, later ones that make it out of date, and later ones that leave it true."""

    old: str
    new: tuple[str, ...]
    beside: tuple[str, ...]
    language: str


def told_from(path: Path) -> list[Told]:
    """JSON lines `{"old", "new": [..], "beside": [..]}`."""
    records = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [
        Told(record["old"], tuple(record["new"]), tuple(record["beside"]), record["language"]) for record in records
    ]


OTHERS = 4  # other earlier messages for each line


def told_pairs(some: Sequence[Told], rng: random.Random) -> Iterator[Pair]:
    """Later messages with the earlier one, and with others of its language, beside which they stand."""
    for one in some:
        peers = [other.old for other in some if other.language == one.language and other is not one]
        for text, label in (*((t, 1) for t in one.new), *((t, 0) for t in one.beside)):
            yield Pair(typed(text, rng), one.old, label, "told", told=True)
        later = (*one.new, *one.beside)
        for old in rng.sample(peers, min(OTHERS, len(later), len(peers))):
            yield Pair(typed(rng.choice(later), rng), old, 0, "told", told=True)


def chained(path: Path, rng: random.Random) -> Iterator[Pair]:
    """Lines of `lmm bench use` whose `use` needs two notes, `before` and `teach`; `rephrase` asks for the first,
    `direct` for the second, `near` for neither. Read with one note as one text, does the other help?"""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for record in records:
        first, then = record["before"][0], record["teach"]
        stranger = rng.choice([other for other in records if other is not record])
        for one in record["use"]:
            yield Pair(f"{typed(one['q'], rng)} {first}", then, 1, "chained")
            yield Pair(f"{one['q']} {first}", stranger["teach"], 0, "chained")
            yield Pair(f"{one['q']} {stranger['before'][0]}", then, 0, "chained")
        for one in (*record["rephrase"], *record["near"]):
            yield Pair(f"{typed(one['q'], rng)} {first}", then, 0, "chained")
        yield Pair(f"{typed(record['direct']['q'], rng)} {then}", first, 0, "chained")


@dataclass
class NoteBlock:
    """Wordings of a note, what it helps with and near misses, with slots for names and numbers."""

    name: str
    notes: list[str] = field(default_factory=list)
    helps: list[str] = field(default_factory=list)
    near: list[str] = field(default_factory=list)


def blocks(path: Path = NOTES) -> list[NoteBlock]:
    """Our own notes."""
    found: list[NoteBlock] = []
    for raw in path.read_text(encoding="utf-8").splitlines():
        line = raw.strip()
        if line.startswith("["):
            found.append(NoteBlock(line.strip("[]")))
        elif line and not line.startswith("#"):
            texts = {"=": found[-1].notes, "+": found[-1].helps, "-": found[-1].near}[line[0]]
            texts.append(line[1:].strip())
    return found


def from_blocks(rng: random.Random, times: int) -> list[Noted]:
    """Each block `times` over, with other names and numbers; within one filling, the same slot says the same."""
    found = []
    for block in blocks():
        for _ in range(times):
            slots: dict[str, str] = {}
            note = rng.choice(block.notes)
            fits = [text for text in block.helps if not PEOPLE & set(SLOT.findall(text)) - set(SLOT.findall(note))]
            said = filled(note, slots, rng)
            helps, near = (
                tuple(filled(text, slots, rng) for text in rng.sample(some, min(6, len(some))))
                for some in (fits, block.near)
            )
            found.append(Noted(said, helps, near, block.name))
    return found


NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}\b(?! [A-Z])")
YES_OR_NO = re.compile(r"(?:is|are|was|do|does|did|can|could|has|have|should|would|will)\b", re.IGNORECASE)
OTHER_NAMES = ("Marlow", "Tessa", "Brisk", "Odile", "Kasper", "Wendla", "Ivo", "Perrin", "Saskia", "Dunmore")


def pairs(noted: Sequence[Noted], rng: random.Random, source: str) -> Iterator[Pair]:
    """What each note helps with, its near misses, and questions of other notes; typed now with care, now without."""
    for one in noted:
        for question in one.helps:
            yield Pair(typed(question, rng), one.note, 1, source)
            named = [name for name in NAME.findall(question) if name in one.note]
            if named and not YES_OR_NO.match(question) and rng.random() < 0.4:  # the same about somebody else
                other = rng.choice([name for name in OTHER_NAMES if name not in one.note])
                yield Pair(typed(question.replace(named[0], other), rng), one.note, 0, f"{source}, other name")
        for question in one.near:
            yield Pair(typed(question, rng), one.note, 0, source)
        for stranger in rng.sample(noted, min(4, len(noted))):
            if stranger.topic != one.topic:
                yield Pair(typed(rng.choice(stranger.helps), rng), one.note, 0, f"{source}, other note")


def typed(text: str, rng: random.Random) -> str:
    """As it is, or as a person in a hurry types it."""
    roll = rng.random()
    if roll < 0.12:
        return text.lower().rstrip("?.")
    if roll < 0.2:
        return text.rstrip("?.")
    return text


def edits(folder: Path, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Records of editing data sets as notes of question and answer. What follows from a fact needs it, too."""
    from scripts.gate_data import Composer, read_relations

    distractors = sentences(folder / "text")
    composer = Composer(seed, distractors, read_relations())
    counterfact, zsre = load_records(folder, "counterfact")[500:], load_records(folder, "zsre")[500:]

    def of(some_counterfact: list[dict], some_zsre: list[dict], repeats: int) -> list[Pair]:
        said = {r["prompt"]: f"{r['prompt']} {r['target_new']}" for r in (*some_counterfact, *some_zsre)}
        found = counterfact_pairs(some_counterfact, seed, distractors)
        for repeat in range(repeats):
            found += zsre_pairs(some_zsre, seed + repeat, composer)
            found += zsre_transplants(some_zsre, seed + repeat, composer)
        found = [Pair(p.query, said.get(p.stored, p.stored), p.label, p.source) for p in found]
        for record in some_zsre:
            for question in (q for some in (record.get("portability") or {}).values() for q in some):
                found += [Pair(question["prompt"], said[record["prompt"]], 1, "zsre, portability")] * (2 * repeats - 1)
        return found

    return of(counterfact[:1300], zsre[:110], 2), of(counterfact[1300:][:150], zsre[110:], 1)


def datasets(
    folder: Path, helps: Sequence[Path], turns: Sequence[Path], seed: int, times: int, repeats: int
) -> tuple[list[Pair], list[Pair]]:
    """Training and validation pairs: no note and no block of ours is in both. What is written by hand is drawn
    `repeats` times, each time with other notes' questions and typed otherwise; our own are filled `times` over."""
    rng = random.Random(seed)
    written = [one for path in helps for one in from_file(path)]
    heard = [one for path in turns for one in from_turns(path)]
    kept = {one.topic for one in (*written[KEPT // 2 :: KEPT], *heard[KEPT // 2 :: KEPT])}
    kept |= {block.name for i, block in enumerate(blocks()) if i % KEPT == KEPT // 2}
    train, valid = edits(folder, seed)
    for noted, count, source in (
        (written, repeats, "by hand"),
        (heard, repeats, "turns"),
        (from_blocks(rng, times), 1, "our own"),
    ):
        apart = [one for one in noted if one.topic in kept]
        for _ in range(count):
            train += pairs([one for one in noted if one.topic not in kept], rng, source)
        valid += pairs(apart[:: max(1, len(apart) // 60)], rng, source)
    return train, valid
