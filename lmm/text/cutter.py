"""A text that comes in pieces, up to where it must not go on."""

from __future__ import annotations

from collections.abc import Sequence


class Cutter:
    """Hands text on up to the first stop sequence, and holds back what may become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops, self.held, self.found = stops, "", False

    def feed(self, text: str) -> str:
        self.held += text
        places = [place for stop in self.stops if (place := self.held.find(stop)) >= 0]
        if places:
            self.found = True
            ready, self.held = self.held[: min(places)], ""
            return ready
        keep = max((n for stop in self.stops for n in range(1, len(stop)) if self.held.endswith(stop[:n])), default=0)
        ready, self.held = self.held[: len(self.held) - keep], self.held[len(self.held) - keep :]
        return ready

    def rest(self) -> str:
        ready, self.held = self.held, ""
        return ready
