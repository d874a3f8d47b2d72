"""Made-up subjects of many kinds for scripts/gate_data.py, and ones that are easily mistaken for them."""

from __future__ import annotations

import random
from pathlib import Path

DATA = Path(__file__).resolve().parent
PHRASES_FILE = DATA / "gate_phrases.txt"


def read_phrases(path: Path = PHRASES_FILE) -> dict[str, list[str]]:
    """Lists of words and phrases by name."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, values = line.partition(": ")
            found[name] = values.split(" | ")
    return found


PHRASES = read_phrases()
_LETTERS = "ABCDEFGHIKLMNOPRSTUVWXYZ"


class Names:
    """Made-up subjects of each kind, and ones that are easily mistaken for a given one."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def _pick(self, key: str) -> str:
        return self.rng.choice(PHRASES[key])

    def _coin(self, parts: int = 2, tail: str = "") -> str:
        onset, vowel, coda = PHRASES["onset"], "aeiou", ["", "", "n", "r", "l", "s", "m"]
        word = "".join(self.rng.choice(onset) + self.rng.choice(vowel) + self.rng.choice(coda) for _ in range(parts))
        return (word + tail).capitalize()

    def make(self, kind: str) -> str:
        r, pick = self.rng, self._pick
        if kind in ("me", "fact"):
            return ""
        if kind == "person":
            first = pick("first") if r.random() < 0.6 else self._coin(2)
            last = pick("last") if r.random() < 0.5 else self._coin(r.choice([2, 3]))
            forms = [f"{first} {last}"] * 6 + [
                f"{first} {self._coin(1)} {last}",
                f"{first} of {pick('place')}",
                self._coin(3),
            ]
            return r.choice([*forms, f"Princess {first} of {last}", f"{first} {last}, Duke of {self._coin(2)}"])
        if kind == "work":
            n1, n2, adj = pick("noun"), pick("noun"), pick("adj")
            forms = [f"The {adj} {n1}", f"{n1} of {n2}", f"{n1} in the {n2}", f"{adj} {n1}s", f"{self._coin(2)} {n1}"]
            return r.choice([*forms, f"{n1}, {n2}", f"A {n1} for {pick('first')}", f"{adj} Is {adj}er", self._coin(3)])
        if kind == "place":
            forms = [
                pick("place"),
                self._coin(2, "stan"),
                self._coin(3),
                f"{self._coin(2)} County",
                f"{self._coin(2)} District",
            ]
            return r.choice(
                [*forms, f"{self._coin(2)} Mountains", f"Lake {self._coin(2)}", f"{pick('adj')} {self._coin(2)}"]
            )
        number, choice, coin = r.randint, r.choice, self._coin
        makers = {
            "character": lambda: choice([coin(2), f"{pick('first')} {coin(2)}", f"Captain {coin(2)}"]),
            "org": lambda: choice(
                [f"{coin(2)} {pick('org')}", f"{pick('place')} {pick('org')}", f"The {pick('noun')}s"]
            ),
            "building": lambda: f"{choice([coin(2), pick('place'), pick('last')])} {pick('building')}",
            "vehicle": lambda: choice([f"USS {coin(2)}", f"{coin(2)} {self._code()}", f"submarine U-{number(3, 999)}"]),
            "taxon": self._taxon,
            "star": lambda: choice(
                [f"NGC {number(100, 7999)}", f"HD {number(1000, 250000)}", f"{coin(2)} {number(2, 99)}"]
            ),
            "software": lambda: choice([pick("software"), coin(2), coin(2) + "DB", f"{coin(2)} {number(2, 11)}"]),
            "chemical": lambda: choice([coin(2, "ium"), coin(3, "ine").lower(), f"CD{number(10, 300)}", self._code()]),
            "event": lambda: choice(
                [
                    f"Battle of {coin(2)}",
                    f"{number(1850, 2024)} {pick('place')} {pick('event')}",
                    f"{coin(2)} {pick('event')}",
                ]
            ),
            "key": self._key,
            "acronym": lambda: pick("acronym") if r.random() < 0.4 else "".join(r.choices(_LETTERS, k=number(3, 5))),
            "pair": lambda: self.make("place"),
            "duel": lambda: choice([pick("first"), pick("first"), self.make("person")]),
        }
        return makers[kind]() if kind in makers else pick(kind)

    def _taxon(self) -> str:
        genus, species = self._coin(2, "ia"), self._coin(2, "ensis").lower()
        return self.rng.choice([self._coin(3, "us"), f"{genus} {species}", f"{self._coin(2)} {self._pick('animal')}"])

    def _key(self) -> str:
        r = self.rng
        numbered = [f"key_{r.randint(1, 99)}", f"item-{r.randint(1, 999)}", f"order {r.randint(1000, 99999)}"]
        numbered += [f"fact{r.randint(1, 999)}", f"room {r.randint(1, 500)}", self._code()]
        return r.choice([*numbered, f"project {self._coin(2)}", f"{self._coin(2).lower()}_{self._coin(1).lower()}"])

    def _code(self) -> str:
        r = self.rng
        return "".join(r.choices(_LETTERS, k=r.randint(1, 3))) + r.choice(["-", "", " "]) + str(r.randint(2, 999))

    def second(self, kind: str) -> str:
        """What goes into the slot {x}."""
        slots = {"word": "language", "unit": "units"}
        return self._pick(slots[kind]) if kind in slots else self.make(kind)

    def near(self, kind: str, subject: str) -> str:
        """Another subject of the kind, as alike as can be."""
        r = self.rng
        digits = [i for i, c in enumerate(subject) if c.isdigit()]
        other = self.make(kind)
        if digits and r.random() < 0.8:
            at = r.choice(digits)
            swapped = subject[: digits[0]] + subject[digits[0] : digits[-1] + 1][::-1] + subject[digits[-1] + 1 :]
            changed = subject[:at] + r.choice([d for d in "0123456789" if d != subject[at]]) + subject[at + 1 :]
            return swapped if swapped != subject and r.random() < 0.4 else changed
        if kind == "relative":
            shared = [s for s in PHRASES["relative"] if s != subject and set(s.split()) & set(subject.split())]
            return r.choice(shared or [other])
        mine, theirs = subject.split(), other.split()
        if len(mine) > 1 and r.random() < 0.7:
            at = r.randrange(len(mine))
            return " ".join([*mine[:at], r.choice(theirs) if theirs[0] != mine[at] else self._coin(2), *mine[at + 1 :]])
        return other
