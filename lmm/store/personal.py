"""What one user wants remembered, word for word: memorize, recall, correct, forget.

Unlike a lesson, a memorized text is never learned by the model. It is embedded once, and found again by meaning and
by words.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmm.encoders import load_encoder
from lmm.errors import StoreError, UsageError
from lmm.files import jsonl
from lmm.files.own import write_out
from lmm.store.base import ALL, Filters, Memo, Recalled, TextStore, batches, entries
from lmm.store.checks import small_values, storable, user_name
from lmm.store.facts import Facts
from lmm.store.opening import open_store
from lmm.text.counted import counted

if TYPE_CHECKING:
    from lmm.encoders.sentences import SentenceEncoder

log = logging.getLogger("lmm")
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
        """Keep a text -> its id; that of the one there is, where the same was memorized before and nothing more is said
        now. What is said now is then added to what was: metadata of a name that is there replaces it, no other goes.

        `about` names the matter, as in "sister's name": the next text about the same takes this one's place, unless
        its `time` is before this one's.
        """
        [id] = self.memorize_all([_memo(text, context, metadata, about, time)])
        return id

    def memorize_all(self, memos: Iterable[Memo]) -> list[str]:
        """Many at once -> their ids. Raises UsageError for one that no store can hold; then none is kept."""
        made, rest = list[str](), batches([memo.checked() for memo in memos], BATCH)
        self._describe()
        with ThreadPoolExecutor(1) as other:  # embeds the next ones while the store writes
            batch = other.submit(self._embedded, next(rest, []))
            while embedded := batch.result():
                batch = other.submit(self._embedded, next(rest, []))
                made += self.store.add(self.user, embedded)
        return made

    def update(
        self,
        id: str,
        text: str,
        metadata: Mapping[str, Any] | None = None,
        context: str | None = None,
        about: str | None = None,
    ) -> str:
        """A correction: `text` in the place of an entry, which is kept as its history -> the new id.

        What is not given is as it was, each piece of metadata, too; `about=""` takes it out of its matter, and
        `metadata={}` all metadata away. An entry with this very text, or about the same, becomes history, too.
        """
        old = self.get(id)
        said = (
            old.context if context is None else context,
            old.metadata if metadata is None else metadata and {**old.metadata, **small_values(metadata)},
            old.about if about is None else about,
        )
        memo = _memo(text, *said).checked(old)
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
        filters = Filters(since, until, metadata or {})
        if top_k < 1 or not storable(query, "the query").strip():
            return []
        self._has_any = self._has_any or self.store.has_any(self.user)  # once there is one, nobody need ask again
        if not self._has_any:
            return []
        self._describe()
        vector = self.encoder.encode(query)
        return self.store.search(self.user, vector, query, top_k, filters)

    def list(
        self, since: float | None = None, until: float | None = None, metadata: Mapping[str, Any] | None = None
    ) -> Sequence[Memo]:
        return list(self.store.scan(self.user, Filters(since, until, metadata or {})))

    def versions(self) -> Sequence[Memo]:
        """All entries, superseded ones among them, in the order in which they came."""
        return list(self.store.scan(self.user, ALL, history=True))

    def __len__(self) -> int:
        return self.store.count(self.user)

    def export(self, path: Path) -> int:
        """Write all entries with their history as lines of JSON -> how many. A file gets mode 0600. Raises OSError."""
        memos = self.versions()
        write_out(path, (jsonl.line(memo.to_dict()) for memo in memos))
        return len(memos)

    def import_(self, path: Path, notice: Callable[[str], None] = log.warning) -> int:
        """Take in what `export` wrote, here or elsewhere -> how many entries are new. The later of two versions of a
        fact supersedes. `notice` hears of the lines that were left out.

        Raises UsageError for entries that replace one another in a circle, StoreError where no line can be read,
        OSError. Then nothing is taken.
        """
        with path.open("rb") as file:
            return self.import_lines(file, str(path), notice)

    def import_lines(self, given: Iterable[bytes], path: str, notice: Callable[[str], None] = log.warning) -> int:
        """The same of lines from anywhere, which `path` names where one is left out."""
        lines = {number: line for number, line in enumerate(given, 1) if line.strip()}
        read = {number: value for number, line in lines.items() if (value := _parsed(line)) is not None}
        if lines and not read:
            raise StoreError(f"{path} has {counted(len(lines), 'line')}, and none of them could be read")
        if unread := len(lines) - len(read):
            notice(f"{counted(unread, 'line')} of {path} could not be read")
        left = dict[int, str]()
        memos = self._once(read, left)
        whole = self._whole(list(memos.values()))
        if gone := len(memos) - len(whole):
            notice(
                f"{counted(gone, 'line')} of {path} left out: what they say was corrected, and the correction is gone"
            )
        before = entries(self.store, self.user)
        self._describe()
        numbers = {memo.id: number for number, memo in memos.items()}
        for batch in Facts(whole).batches(whole, BATCH):
            refused = self.store.restore(self.user, self._embedded(batch))
            left |= {numbers[id]: why for id, why in refused.items()}
        for number, why in sorted(left.items()):
            notice(f"line {number} of {path} left out: {why}")
        return entries(self.store, self.user) - before

    def _once(self, read: Mapping[int, Any], left: dict[int, str]) -> dict[int, Memo]:
        """The entries of lines, by their numbers; into `left` why a line has none. One id is one entry: lines that say
        the same of it, or that it was superseded since, may be several."""
        memos = dict[int, Memo]()
        for number, value in read.items():
            try:
                memos[number] = Memo.from_dict(value if isinstance(value, Mapping) else {})
            except UsageError as error:
                left[number] = str(error)
        there = {memo.id: memo for memo in self.store.get(self.user, list({memo.id for memo in memos.values()}))}
        known = {id: (memo, "the store") for id, memo in there.items()}
        for number, memo in list(memos.items()):
            other, where = known.setdefault(memo.id, (memo, f"line {number}"))
            timed = "time" in read[number]
            if other.text != memo.text or not other.says(memo) or (timed and other.time != memo.time):
                left[number] = f"its id {memo.id!r} is that of another entry, in {where}"
                del memos[number]
        return memos

    def _whole(self, memos: Sequence[Memo]) -> Sequence[Memo]:
        """Without those whose corrections do not lead to one that is there: nobody would see or forget them. Raises
        UsageError where they lead in a circle."""
        later = {memo.id: memo.replaced_by for memo in memos if memo.replaced_by}
        earlier = {memo.id: memo.replaces for memo in memos if memo.replaces}
        _, ends = _last(earlier), _last(later)
        there = {memo.id for memo in memos} | {memo.id for memo in self.store.get(self.user, list(set(ends.values())))}
        return [memo for memo in memos if ends.get(memo.id, memo.id) in there]

    # vectors -----------------------------------------------------------------------------------------------------
    def _embedded(self, memos: Sequence[Memo]) -> Sequence[Memo]:
        vectors = self.encoder.encode([memo.text for memo in memos])
        return [replace(memo, vector=vector) for memo, vector in zip(memos, vectors, strict=True)]

    def _describe(self) -> None:
        encoder = self.encoder
        name = {} if encoder.name == encoder.identity else {"name": encoder.name}
        self.store.describe({"encoder": encoder.identity, "width": encoder.width} | name)


def _memo(
    text: str,
    context: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    about: str = "",
    when: float | None = None,
) -> Memo:
    return Memo(text, context or "", metadata or {}, about or "", time.time() if when is None else when)


def _parsed(line: bytes) -> Any:
    """None for what is no JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _last(links: Mapping[str, str]) -> dict[str, str]:
    """The id at which the chain from each ends. Raises UsageError for a circle."""
    ends: dict[str, str] = {}
    for at in links:
        chain: dict[str, None] = {}
        while at in links and at not in ends:
            if at in chain:
                raise UsageError(f"entries replace one another in a circle: {at!r} is in it")
            chain[at] = None
            at = links[at]
        ends |= dict.fromkeys(chain, ends.get(at, at))
    return ends
