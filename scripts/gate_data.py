"""Pairs (query, stored prompt, same question?) to train and validate the gate on.

Sources: our own wordings (scripts/gate_relations.txt) filled with made-up subjects; the records of two editing data
sets that no score is taken on (counterfact[500:], zsre[500:]); the STS benchmark's training half; sentences of plain
text as distractors.
Hard negatives come for free: same subject and other relation, same relation and a similar subject, slots swapped.
"""

from __future__ import annotations

import csv
import json
import random
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from scripts.gate_names import DATA, PHRASES, Names

RELATIONS = DATA / "gate_relations.txt"
#: kinds whose subjects a knowledge base describes: they get "The <label> of S is" and "S <label>" as negatives
ENTITY_KINDS = {
    *("person", "work", "character", "org", "place", "building"),
    *("vehicle", "taxon", "star", "software", "chemical", "event"),
}
#: kinds about the user, and how often "my" and "I" are turned into "your" and "you" for a negative
USER_KINDS = {"me": 0.8, "relative": 0.3, "favourite": 0.5, "thing": 0.2}
#: how often a stored question has its own label's fragment as a negative, and how often a fragment is what was taught
OWN_LABEL_NEGATIVES, TAUGHT_FRAGMENTS = 0.08, 0.12
KB_FORM = re.compile(r"^The [\w' ]+ of \{\} (is|was|are)$")


@dataclass(frozen=True)
class Pair:
    query: str
    stored: str
    label: int
    source: str = ""
    told: bool = False  # the query is no question but told: is what is stored no longer true?


@dataclass(frozen=True)
class Relation:
    """One question of a kind of subject: its labels in a knowledge base, and its wordings."""

    kind: str
    labels: tuple[str, ...]
    wordings: tuple[str, ...]


def read_relations(path: Path = RELATIONS) -> list[Relation]:
    kind, relations = "", []
    for raw in path.read_text(encoding="utf-8").splitlines():
        line = raw.strip()
        if line.startswith("["):
            kind = line.strip("[]")
        elif line and not line.startswith("#"):
            labels, *wordings = (part.strip() for part in line.split(" | "))
            relations.append(Relation(kind, tuple(labels.split(", ")), tuple(wordings)))
    return relations


_STOP = {"the", "of", "is", "was", "a", "to", "did", "does", "in", "'s", "for", "by"}


def garble(text: str, rng: random.Random) -> str:
    """The text as a bad translation would have it: a small word lost, added or moved."""
    words = text.split()
    small = [i for i, w in enumerate(words) if w.lower() in _STOP]
    if small and rng.random() < 0.6:
        del words[rng.choice(small)]
    else:
        at = rng.randrange(len(words))
        words.insert(at, rng.choice(["the", "of", "his", "is", "in", "which", "had"]))
    swaps = {"What": "Which", "Which": "What", "was": "is", "is": "was", "Who": "What person", "Where": "In what place"}
    return " ".join(swaps.get(w, w) if rng.random() < 0.3 else w for w in words)


def sentences(folder: Path, limit: int = 12000) -> list[str]:
    """Distractors: sentences of 4-22 words from plain text, and headings run together as web text has them."""
    found: list[str] = []
    for name in ("wikitext2_valid.txt", "movie_reviews.txt", "pros_cons.txt", "inaugural.txt"):
        text = (folder / name).read_text(encoding="utf-8", errors="ignore")
        text = re.sub(r"</?(Cons|Pros)>", "", text)
        parts = re.split(
            r"(?<=[.!?])\s+|\n+",
            text.replace(" @-@ ", "-").replace("<unk>", "Kolmar").replace(" ,", ",").replace(" .", "."),
        )
        found += [p.strip() for p in parts if 4 <= len(p.split()) <= 22][: limit // 2]
    random.Random(0).shuffle(found)
    return found[:limit]


class Composer:
    """Fills wordings with subjects."""

    def __init__(self, seed: int, distractors: list[str], relations: list[Relation]) -> None:
        self.rng = random.Random(seed)
        self.names = Names(self.rng)
        self.distractors = distractors
        self.kinds: dict[str, list[Relation]] = defaultdict(list)
        for relation in relations:
            self.kinds[relation.kind].append(relation)
        self.labels = sorted(
            {label for r in relations if r.kind in ENTITY_KINDS for label in r.labels} | set(PHRASES["label"])
        )
        # kinds with many relations count more, but no kind starves
        self.weights = {k: len(rs) ** 0.7 * (2 if k in USER_KINDS else 1) for k, rs in self.kinds.items()}

    def dress(self, text: str, strong: float = 0.3) -> str:
        """The query as a person types it or as a data set garbles it; the question stays the same."""
        r = self.rng
        if r.random() < 0.12:
            text = text.rstrip("?")
        if r.random() < 0.12:
            text = text.lower()
        if r.random() < 0.12:
            text = r.choice(PHRASES["wrap"]).replace("{}", text)
        if r.random() < strong:
            text = f"{r.choice(self.distractors)} {text}"
        return text

    def pairs(self, count: int) -> list[Pair]:
        kinds, weights = zip(*self.weights.items(), strict=True)
        found: list[Pair] = []
        while len(found) < count:
            found += self.about(self.rng.choices(kinds, weights)[0])
        return found[:count]

    def about(self, kind: str, relation: Relation | None = None) -> list[Pair]:
        """Two positives and about three negatives around one relation and one subject."""
        r, names = self.rng, self.names
        relation = relation or r.choice(self.kinds[kind])
        subject, x = names.make(kind), names.second(kind) if any("{x}" in w for w in relation.wordings) else ""
        stored_wording = r.choice(relation.wordings)
        if kind in ENTITY_KINDS and r.random() < TAUGHT_FRAGMENTS:
            stored_wording = f"The {r.choice(relation.labels)} of {{}} is"
        stored = fill(stored_wording, subject, x)
        found: list[Pair] = []
        for wording in r.sample(relation.wordings, min(3, len(relation.wordings))):
            if len(found) < 2 and not (
                kind in ENTITY_KINDS and KB_FORM.match(wording) and stored_wording.endswith("?")
            ):
                text = fill(wording, subject, x)
                text = garble(text, r) if r.random() < 0.2 else text
                if text != stored or r.random() < 0.2:
                    found.append(Pair(self.dress(text), stored, 1, kind))
        # the convention of ZsRE: a knowledge base's fragment does not ask what a question asks (docs/lab-log.md)
        if kind in ENTITY_KINDS and stored_wording.endswith("?") and r.random() < OWN_LABEL_NEGATIVES:
            label = r.choice(relation.labels)
            found.append(Pair(r.choice([f"The {label} of {subject} is", f"{subject} {label}"]), stored, 0, kind))
        wrong = [q for q in self.negatives(kind, relation, subject, x) if q]
        return found + [Pair(self.dress(q, 0.2), stored, 0, kind) for q in wrong]

    def negatives(self, kind: str, relation: Relation, subject: str, x: str) -> list[str]:
        r, names = self.rng, self.names
        if kind == "fact":  # neighbouring lines are near misses, and two of each are drawn
            at = self.kinds[kind].index(relation)
            around = [o for o in self.kinds[kind][max(at - 1, 0) : at + 2] if o is not relation]
            return [r.choice(o.wordings) for o in (r.choice(around), r.choice(self.kinds[kind])) if o is not relation]
        others = [o for o in self.kinds[kind] if o is not relation and not set(o.labels) & set(relation.labels)]
        other = r.choice(others) if others else relation
        away = x if "{x}" in "".join(other.wordings) else ""
        away = away or (names.second(kind) if kind in ("word", "unit", "pair", "duel") else "")
        found = [fill(r.choice(other.wordings), subject, away)] if others else []
        if kind in ENTITY_KINDS and r.random() < 0.6:
            label = r.choice([label for label in self.labels if label not in relation.labels])
            found.append(r.choice([f"The {label} of {subject} is", f"{subject} {label}"]))
        if subject:
            close = names.near(kind, subject)
            if close != subject:
                found.append(fill(r.choice(relation.wordings), close, x))
        if x and kind in ("pair", "duel") and r.random() < 0.6 and not _symmetric(relation):
            found.append(fill(r.choice(relation.wordings), x, subject))
        elif x:
            found.append(fill(r.choice(relation.wordings), subject, names.second(kind)) if r.random() < 0.7 else "")
        if kind in USER_KINDS and r.random() < USER_KINDS[kind]:
            found.append(to_you(fill(r.choice(relation.wordings), subject, x)))
        roll = r.random()
        if roll < 0.12 and subject:
            found.append(r.choice(PHRASES["chatter"]).replace("{}", subject))
        elif roll < 0.16 and f"statement {kind}" in PHRASES:
            found.append(fill(r.choice(PHRASES[f"statement {kind}"]), subject))
        elif roll < 0.2:
            found.append(r.choice(PHRASES["small talk"]))
        elif roll < 0.24 and subject:  # the stored subject as a distraction, the question about another
            talk, question = r.choice(PHRASES["chatter"]), r.choice(relation.wordings)
            found.append(f"{fill(talk, subject)} {fill(question, names.make(kind), x)}")
        elif roll < 0.27:
            negated = re.sub(
                r"\b(is|was|did|does)\b", r"\1 not", fill(r.choice(relation.wordings), subject, x), count=1
            )
            found.append(negated if " not" in negated else "")
        stored_forms = {fill(w, subject, x) for w in relation.wordings}
        return [q for q in found if q not in stored_forms]


def to_you(text: str) -> str:
    """The user's question about themselves -> the same about the one they talk to."""
    for pattern, other in (
        (r"\bam I\b", "are you"),
        (r"\bwas I\b", "were you"),
        (r"\b(I|me)\b", "you"),
        (r"\b[Mm]y\b", "your"),
    ):
        text = re.sub(pattern, other, text)
    return text[:1].upper() + text[1:]


def _symmetric(relation: Relation) -> bool:
    return relation.labels[0] in ("distance", "travel time", "relation", "who won against", "met")


def fill(wording: str, subject: str, x: str = "") -> str:
    return wording.replace("{x}", x).replace("{}", subject)


def _template(prompt: str, subject: str) -> str | None:
    at = prompt.rfind(subject)
    if at < 0:
        return None
    return re.split(r"(?<=[.!?\n)])\s+", prompt[:at])[-1] + "{}" + prompt[at + len(subject) :]


def counterfact_pairs(records: list[dict], seed: int, distractors: list[str]) -> list[Pair]:
    """Rephrases; same relation with another subject; the same subject with a template of another relation.

    Two templates are of other relations when they share no rephrase template (the data has no relation ids here).
    """
    rng = random.Random(seed)
    shared: dict[str, set[str]] = defaultdict(set)
    counts: Counter[str] = Counter()
    for record in records:
        mine, other = (_template(record[key], record["subject"]) for key in ("prompt", "rephrase_prompt"))
        if mine and other:
            shared[mine] |= {other, mine}
            counts[mine] += 1
    common = [t for t, n in counts.items() if n >= 2]
    found = []
    for record in records:
        stored, subject = record["prompt"], record["subject"]
        mine = _template(stored, subject)
        found.append(Pair(record["rephrase_prompt"], stored, 1, "counterfact"))
        rephrase = _template(record["rephrase_prompt"], subject)
        if rephrase:
            clean = fill(rephrase, subject)
            found.append(
                Pair(f"{rng.choice(distractors)} {clean}" if rng.random() < 0.4 else clean, stored, 1, "counterfact")
            )
            near = rng.choice(records)["subject"]
            found.append(Pair(fill(rephrase, near), stored, 0, "counterfact")) if near != subject else None
        found.append(Pair(record["locality_prompt"], stored, 0, "counterfact"))
        others = [t for t in common if mine and not shared[t] & shared[mine]]
        if others:
            text = fill(rng.choice(others), subject)
            found.append(
                Pair(f"{rng.choice(distractors)} {text}" if rng.random() < 0.2 else text, stored, 0, "counterfact")
            )
    return found


def zsre_pairs(records: list[dict], seed: int, composer: Composer) -> list[Pair]:
    """Rephrases and locality as the data labels them, each rephrase also garbled or behind a distractor."""
    rng = random.Random(seed)
    found = []
    for record in records:
        stored = record["prompt"]
        found += [
            Pair(record["rephrase_prompt"], stored, 1, "zsre"),
            Pair(composer.dress(record["rephrase_prompt"]), stored, 1, "zsre"),
        ]
        found.append(Pair(stored, record["rephrase_prompt"], 1, "zsre"))
        found += [
            Pair(item["prompt"], stored, 0, "zsre") for item in record["locality"].get("Relation_Specificity", [])
        ]
        other = rng.choice(records)
        if other["subject"] != record["subject"]:
            found.append(
                Pair(
                    stored.replace(record["subject"], other["subject"]),
                    stored,
                    int(record["subject"] not in stored),
                    "zsre",
                )
            )
    return found


def zsre_transplants(records: list[dict], seed: int, composer: Composer) -> list[Pair]:
    """The records' wordings about each other's subjects: what a wording means does not hang on whom it is about.

    Positives are prompt and rephrase, either way round; negatives are another record's rephrase that has no telling
    word in common with this one.
    """
    rng, found = random.Random(seed), []
    subjects = [record["subject"] for record in records]
    both = [(_template(r["prompt"], r["subject"]), _template(r["rephrase_prompt"], r["subject"])) for r in records]
    forms = [(prompt, rephrase) for prompt, rephrase in both if prompt and rephrase]
    for prompt, rephrase in forms:
        subject = rng.choice(subjects)
        stored, query = (prompt, rephrase) if rng.random() < 0.7 else (rephrase, prompt)
        text = fill(query, subject)
        text = garble(text, rng) if rng.random() < 0.3 else text
        found.append(Pair(composer.dress(text), fill(stored, subject), 1, "zsre"))
        _, other = rng.choice(forms)
        if not _telling(other) & (_telling(prompt) | _telling(rephrase)):
            found.append(Pair(fill(other, subject), fill(stored, subject), 0, "zsre"))
    return found


def _telling(template: str) -> set[str]:
    """Beginnings of a wording's longer words: what may say which relation it asks for."""
    return {word[:4] for word in re.findall(r"[a-z]{4,}", template.lower())} - {"what", "whic", "name", "when", "wher"}


def sts_pairs(path: Path, limit: int = 700) -> list[Pair]:
    """Sentences that people judged the same (4.8 and more of 5) or not (3 and less), alike in words either way."""
    rows = [(float(score), a, b) for a, b, score in csv.reader(path.open(encoding="utf-8", newline=""))]
    alike = [Pair(a, b, 1, "sts") for score, a, b in rows if score >= 4.8 and a != b]
    other = [Pair(a, b, 0, "sts") for score, a, b in rows if 1.5 <= score <= 3.0]
    rng = random.Random(0)
    return [pair for side in (alike, other) for pair in rng.sample(side, min(limit, len(side)))]


def load_records(folder: Path, name: str) -> list[dict]:
    return json.loads((folder / "editing" / f"{name}.json").read_text(encoding="utf-8"))


def datasets(folder: Path, seed: int, synthetic: int) -> tuple[list[Pair], list[Pair]]:
    """Training and validation pairs. No record that a score is taken on (the first 500 of each file) is in either."""
    distractors = sentences(folder / "text")
    relations = read_relations()
    held = {id(r) for i, r in enumerate(relations) if i % 12 == 5}
    counterfact, zsre = load_records(folder, "counterfact")[500:], load_records(folder, "zsre")[500:]
    composer = Composer(seed, distractors, [r for r in relations if id(r) not in held])
    train = composer.pairs(synthetic)
    for repeat in range(2):
        train += counterfact_pairs(counterfact[:1300], seed + repeat, distractors)
    for repeat in range(4):
        train += zsre_pairs(zsre[:100], seed + repeat, composer)
    for repeat in range(10):
        train += zsre_transplants(zsre[:100], seed + repeat, composer)
    train += sts_pairs(folder / "sts" / "stsb-en-train.csv")
    check = Composer(seed + 999, distractors, relations)  # the held relations, with all of their kind as negatives
    valid = []
    for relation in relations:
        if id(relation) in held:
            rows = [pair for _ in range(15) for pair in check.about(relation.kind, relation)]
            valid += [Pair(p.query, p.stored, p.label, "held relations") for p in rows]
    held_composer = Composer(seed + 7, distractors, relations)
    valid += [Pair(p.query, p.stored, p.label, "synthetic") for p in held_composer.pairs(1500)]
    valid += counterfact_pairs(counterfact[1300:], seed, distractors) + zsre_pairs(zsre[100:], seed, check)
    return train, valid
