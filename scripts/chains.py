"""Chains of facts for `lmm bench use`: python -m scripts.chains mquake_chains.json [--hops N] [--count N] > FILE

MQuAKE-CF (Zhong et al. 2023, arXiv:2305.14795) asks what follows from several facts: every hop of a chain is said as a
sentence, `direct` asks for the last one, and the questions of more than one hop are `use`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from lmm.feedback import lesson_for


def chain(record: dict[str, Any]) -> dict[str, Any]:
    """A record as a line of `lmm bench use`."""
    *before, last = (lesson_for(hop["question"], hop["answer"]).answer for hop in record["hops"])
    accept = [record["answer"], *record["aliases"]]
    asked = [{"q": question, "accept": accept, "kind": "chain"} for question in record["questions"]]
    direct = {"q": record["hops"][-1]["question"], "accept": accept}
    return {"id": str(record["case_id"]), "before": before, "teach": last, "direct": direct, "use": asked}


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("file", type=Path)
    made.add_argument("--hops", type=int, default=2)
    made.add_argument("--count", type=int, help="records at most")
    options = made.parse_args()
    records = json.loads(options.file.read_text(encoding="utf-8"))
    for record in [one for one in records if len(one["hops"]) == options.hops][: options.count]:
        print(json.dumps(chain(record), ensure_ascii=False))


if __name__ == "__main__":
    main()
