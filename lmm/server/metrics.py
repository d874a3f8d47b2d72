"""What a server counts, in the text format of Prometheus (version 0.0.4)."""

from __future__ import annotations

import threading
from collections import Counter

LIMITS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds
HELP = {
    "lmm_requests_total": "counter Requests that were answered, by path and status.",
    "lmm_tokens_total": "counter Tokens of replies.",
    "lmm_lessons_total": "counter Lessons that were learned.",
    "lmm_requests_running": "gauge Requests that are being answered.",
    "lmm_passes_total": "counter Passes of the model that made tokens; tokens by passes is how full they were.",
    "lmm_first_token_seconds": "histogram Seconds from a request to the first of its reply.",
}


class Metrics:
    """Counters, which any thread may add to."""

    def __init__(self) -> None:
        self._values: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
        self._lock = threading.Lock()

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        with self._lock:
            self._values[name, tuple(labels.items())] += amount  # type: ignore[assignment]

    def set(self, name: str, value: float) -> None:
        with self._lock:
            self._values[name, ()] = value  # type: ignore[assignment]

    def observe(self, name: str, seconds: float) -> None:
        for limit in LIMITS:
            self.add(f"{name}_bucket", float(seconds <= limit), le=f"{limit:g}")
        self.add(f"{name}_bucket", le="+Inf")
        self.add(f"{name}_sum", seconds)
        self.add(f"{name}_count")

    def text(self) -> str:
        with self._lock:
            values = sorted(self._values.items(), key=lambda item: item[0][0])
        lines = []
        for name, about in HELP.items():
            kind, _, told = about.partition(" ")
            lines += [f"# HELP {name} {told}", f"# TYPE {name} {kind}"]
            lines += [f"{found}{_labels(labels)} {value:g}" for (found, labels), value in values if _of(found, name)]
        return "\n".join(lines) + "\n"


def _of(found: str, name: str) -> bool:
    return found in (name, f"{name}_bucket", f"{name}_sum", f"{name}_count")


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    escaped = ((name, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for name, value in labels)
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}" if labels else ""
