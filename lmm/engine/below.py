"""Hidden states below a memory, in step with the KV cache: after a lesson only the layers above run again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmm.adapters.ops import Array, Ops


class Below:
    """States [1, T, D] of the first `length` tokens of a conversation, in the pieces in which they were read."""

    def __init__(self) -> None:
        self.pieces: list[Array] = []
        self.length = 0

    def add(self, start: int, h: Array) -> None:
        """States of the tokens from position `start` on; what was known of these is replaced.

        Several rows are beams, which come and go, and states after a gap belong to nothing: both are left out, and
        the tokens are read again when they are needed.
        """
        if h.shape[0] != 1 or start > self.length:
            return
        self.cut(start)
        self.pieces.append(h)
        self.length += h.shape[1]

    def cut(self, length: int) -> None:
        """Keep the first `length` tokens."""
        while self.length > length:
            last = self.pieces.pop()
            self.length -= last.shape[1]
            if self.length < length:
                self.pieces.append(last[:, : length - self.length])
                self.length = length

    def joined(self, ops: Ops) -> Array:
        """All of it as one array [1, T, D]; there must be some."""
        self.pieces = [ops.concat(self.pieces, axis=1)] if len(self.pieces) > 1 else self.pieces
        return self.pieces[0]
