"""How often recall finds the evidence: python -m scripts.measure_recall --use FILES --qmsum FILE [--encoder NAMES]

`--use`: files of `lmm bench use` (tests/data/use): every message of all facts is memorized in one store, and each
question for a fact, in plain and in other words, and each that needs it, is a query; found is the message that told it.
`--qmsum`: each meeting is a store of its turns (a user of its own), and a query's evidence are the turns of its marked
stretches. Printed for each encoder: queries, and the share whose evidence is first, and among the first five.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from lmm.bench.use_data import load
from lmm.store.base import Memo
from lmm.store.personal import PersonalMemory

MOST = 5
Hits = dict[str, list[int]]  # of each kind of query: the place of its evidence, MOST where it is not among the first


def places(memory: PersonalMemory, queries: Iterator[tuple[str, str, set[str]]]) -> Hits:
    """Queries (kind, text, ids of its evidence) -> the place of the first that was found."""
    found: Hits = defaultdict(list)
    for kind, query, evidence in queries:
        ids = [hit.memo.id for hit in memory.recall(query, MOST)]
        found[kind].append(next((place for place, id in enumerate(ids) if id in evidence), MOST))
    return found


def use(encoder: str, path: Path) -> Hits:
    memory = PersonalMemory("memory:", encoder)
    facts, _ = load(path)
    told = [memory.memorize_all(Memo(text) for text in dict.fromkeys((*fact.before, fact.teach)))[-1] for fact in facts]

    def queries() -> Iterator[tuple[str, str, set[str]]]:
        for fact, id in zip(facts, told, strict=True):
            for kind in ("direct", "rephrase", "use"):
                for asked in fact.asked(kind):
                    yield kind, asked.q, {id}

    return places(memory, queries())


def qmsum(encoder: str, path: Path) -> Hits:
    all_of = PersonalMemory("memory:", encoder)
    found: Hits = defaultdict(list)
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        meeting, memory = json.loads(line), all_of.of(f"meeting {number}")
        turns = [f"{turn['speaker']}: {turn['content']}" for turn in meeting["meeting_transcripts"]]
        ids = memory.memorize_all(map(Memo, turns))

        def queries(meeting: dict = meeting, ids: list[str] = ids) -> Iterator[tuple[str, str, set[str]]]:
            for asked in meeting["specific_query_list"]:
                spans = [(int(a), int(b)) for a, b in asked["relevant_text_span"]]
                yield "qmsum", asked["query"], {ids[i] for a, b in spans for i in range(a, min(b + 1, len(ids)))}

        for kind, hits in places(memory, queries()).items():
            found[kind] += hits
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--use", type=Path, nargs="*", default=[])
    parser.add_argument("--qmsum", type=Path)
    parser.add_argument("--encoder", nargs="+", default=["minilm", "lam"])
    options = parser.parse_args()
    for encoder in options.encoder:
        measured = [(path.stem, use(encoder, path)) for path in options.use]
        measured += [("qmsum", qmsum(encoder, options.qmsum))] if options.qmsum else []
        for name, found in measured:
            for kind, hits in found.items():
                first, near = (sum(place < most for place in hits) / len(hits) for most in (1, MOST))
                row = {"encoder": encoder, "data": name, "queries of": kind, "queries": len(hits)}
                print(json.dumps(row | {"recall@1": round(first, 4), f"recall@{MOST}": round(near, 4)}), flush=True)


if __name__ == "__main__":
    main()
