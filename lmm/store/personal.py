"""What one user wants remembered, word for word: memorize, recall, correct, forget.

Unlike a lesson, a memorized text is never learned by the model. It is embedded once, and found again by meaning and
by words.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmm.encoders import load_encoder
from lmm.errors import StoreError, UsageError
from lmm.files import jsonl
from lmm.files.atomic import write_atomically
from lmm.store.base import ALL, Filters, Memo, Recalled, TextStore, batches, entries, storable, user_name
from lmm.store.opening import open_store

if TYPE_CHECKING:
    from lmm.encoders.sentences import SentenceEncoder

BATCH = 64  # texts that are embedded and written together


class PersonalMemory:
    """One user's texts in a store. `user` is a namespace: nothing passes from one to another.

    `store` is a store or what `open_store` opens; `encoder` is one, or what `load_encoder` loads. Raises StoreError
    where the store's vectors are another encoder's.
    """

    def __init__(
        self, store: TextStore | str | Path | None = None, encoder: SentenceEncoder | str = "auto", user: str = ""
    ) -> None:
        self.user = user_name(user)
        self.store = open_store(store) if store is None or isinstance(store, str | Path) else store
        self._encoder = encoder
        self._has_any = False

    def of(self, user: str) -> PersonalMemory:
        """Another user's, in the same store with the same encoder."""
        return PersonalMemory(self.store, self._encoder, user)

    @property
    def encoder(self) -> SentenceEncoder:
        """Loaded when a text is first to be embedded."""
        if isinstance(self._encoder, str):
            self._encoder = load_encoder(self._encoder)
        return self._encoder

    # one text ----------------------------------------------------------------------------------------------------
    def memorize(
        self,
        text: str,
        context: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        about: str = "",
        time: float | None = None,
    ) -> str:
        """Keep a text -> its id; that of the one there is, where the same was memorized before.

        `about` names the matter, as in "sister's name": the next text about the same takes this one's place.
        """
        [id] = self.memorize_all([_memo(text, context, metadata, about, time)])
        return id

    def memorize_all(self, memos: Iterable[Memo]) -> list[str]:
        """Many at once -> their ids."""
        made, rest = list[str](), batches(memos, BATCH)
        self._describe()
        with ThreadPoolExecutor(1) as other:  # embeds the next ones while the store writes
            batch = other.submit(self._embedded, next(rest, []))
            while embedded := batch.result():
                batch = other.submit(self._embedded, next(rest, []))
                made += self.store.add(self.user, embedded)
        return made

    def update(self, id: str, text: str, metadata: Mapping[str, Any] | None = None) -> str:
        """A correction: `text` in the place of an entry, which is kept as its history -> the new id."""
        old = self.get(id)
        memo = _memo(text, old.context, old.metadata if metadata is None else metadata, old.about)
        self._describe()
        [memo] = self._embedded([memo])
        return self.store.supersede(self.user, id, memo)

    def forget(self, id: str | Sequence[str]) -> int:
        """Remove facts and their history -> how many entries went. No file holds a byte of them then."""
        return self.store.forget(self.user, [id] if isinstance(id, str) else id)

    def get(self, id: str) -> Memo:
        """Raises UsageError."""
        found = self.store.get(self.user, [id])
        if not found:
            raise UsageError(f"there is no entry {id!r}")
        return found[0]

    def history(self, id: str) -> Sequence[Memo]:
        """All versions of a fact, the oldest first. Raises UsageError."""
        return self.store.history(self.user, self.get(id).id)

    # many --------------------------------------------------------------------------------------------------------
    def recall(
        self,
        query: str,
        top_k: int = 5,
        since: float | None = None,
        until: float | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Sequence[Recalled]:
        """The entries nearest to a query by meaning and by words, the best first."""
        if top_k < 1 or not query.strip():
            return []
        self._has_any = self._has_any or self.store.has_any(self.user)  # once there is one, nobody need ask again
        if not self._has_any:
            return []
        storable(query)
        self._describe()
        vector = self.encoder.encode(query)
        return self.store.search(self.user, vector, query, top_k, Filters(since, until, metadata or {}))

    def list(
        self, since: float | None = None, until: float | None = None, metadata: Mapping[str, Any] | None = None
    ) -> Sequence[Memo]:
        return list(self.store.scan(self.user, Filters(since, until, metadata or {})))

    def __len__(self) -> int:
        return self.store.count(self.user)

    def export(self, path: Path) -> int:
        """Write all entries with their history as lines of JSON, mode 0600 -> how many. Raises OSError."""
        memos = list(self.store.scan(self.user, ALL, history=True))
        write_atomically(path, (jsonl.line(memo.to_dict()) for memo in memos))
        return len(memos)

    def import_(self, path: Path) -> int:
        """Take in what `export` wrote, here or elsewhere -> how many entries are new. Raises UsageError, OSError."""
        before = entries(self.store, self.user)
        memos = [_read(value, number) for number, value in enumerate(jsonl.values(path), 1)]
        self._describe()
        for batch in batches(memos, BATCH):
            self.store.restore(self.user, self._embedded(batch))
        return entries(self.store, self.user) - before

    # vectors -----------------------------------------------------------------------------------------------------
    def _embedded(self, memos: Sequence[Memo]) -> Sequence[Memo]:
        vectors = self.encoder.encode([memo.text for memo in memos])
        return [replace(memo, vector=vector) for memo, vector in zip(memos, vectors, strict=True)]

    def _describe(self) -> None:
        try:
            self.store.describe({"encoder": self.encoder.name, "width": self.encoder.width})
        except StoreError as error:
            raise StoreError(f"{error}; name its encoder, or export and import into a new store") from None


def _memo(
    text: str,
    context: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    about: str = "",
    when: float | None = None,
) -> Memo:
    try:
        values = json.loads(json.dumps(dict(metadata or {}), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UsageError(f"metadata is what JSON can hold: {error}") from None
    return Memo(text, context or "", values, about, time.time() if when is None else when)


def _read(value: Any, number: int) -> Memo:
    try:
        return Memo.from_dict(value if isinstance(value, Mapping) else {})
    except UsageError as error:
        raise UsageError(f"line {number}: {error}") from None
