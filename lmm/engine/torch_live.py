"""Reading along while the caller runs a transformers model: which tokens, at which positions, of which reply.

A forward pre-hook on the model follows every call (`model(...)`, `generate`, a Trainer's step) by its token ids and its
cache, and tells the adapter's taps where they are. Rows of a batch are followed each on its own: without its padding,
with its own positions and its own prompt. Where the adapter itself runs the model, for a memory, the hooks stand aside.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import Cache

from lmm.adapters.base import TapContext
from lmm.adapters.models.chat_format import MARK, HFChatFormat
from lmm.adapters.ops import Array
from lmm.adapters.torch_lm import TorchAdapter
from lmm.errors import UsageError
from lmm.memory.base import Memory, Prompt, Recall

Decide = Callable[[Sequence[Prompt]], list[Recall | None]]
IGNORED = -100  # the label of tokens that are no target, in transformers


@dataclass(frozen=True)
class ReadRow:
    """One row of a batch as read so far: `tokens` [T] without padding, `start` the last token of its prompt."""

    tokens: np.ndarray
    start: int = 0
    recall: Recall | None = None


@dataclass(frozen=True)
class Group:
    """Rows that can be rewritten together: columns `low` to `high` of the call are new tokens of all of them."""

    rows: list[int]
    low: int
    high: int
    recall: Recall | None
    context: TapContext


class Prompts:
    """Where in a row of tokens the reply begins, and what the user said before it, by the model's own chat template."""

    def __init__(self, format: HFChatFormat) -> None:
        asked = {"role": "user", "content": MARK}
        before, _, self.tail = format.render([asked], reply=True).partition(MARK)
        again = format.render([asked, {"role": "assistant", "content": MARK}, asked], reply=False).split(MARK)[2]
        shared = (i for i in range(min(len(before), len(again))) if before[-1 - i] != again[-1 - i])
        length = next(shared, min(len(before), len(again)))
        self.lead = again[len(again) - length :]
        self.format, self.tail_tokens = format, np.asarray(format.encode(self.tail))

    def reply_start(self, tokens: np.ndarray) -> int | None:
        """Position of the last token before the last reply; None where the template does not show it."""
        ends = range(len(tokens), len(self.tail_tokens) - 1, -1)
        return next((end - 1 for end in ends if self.opens_reply(tokens[:end])), None)

    def opens_reply(self, tokens: np.ndarray) -> bool:
        return np.array_equal(tokens[-len(self.tail_tokens) :], self.tail_tokens)

    def prompt(self, tokens: np.ndarray) -> Prompt:
        """The tokens up to a reply, with the words of the user's last message; of a plain text, all of it."""
        whole = self.format.tokenizer.decode(tokens.tolist(), clean_up_tokenization_spaces=False)
        before, found, _ = whole.rpartition(self.tail)
        text = before.rpartition(self.lead)[2] if found else self.format.decode(tokens.tolist())
        return Prompt(text.strip(), tokens.tolist())


class Live:
    """Hooks on a model while open. `decide` says, once per reply, what a memory recalls for each of B prompts."""

    def __init__(self, adapter: TorchAdapter, memory: Memory, decide: Decide) -> None:
        self.adapter, self.memory, self.decide = adapter, memory, decide
        self.prompts = Prompts(adapter.format)  # type: ignore[arg-type]
        self.groups: list[Group] | None = None  # of the call that is running
        self._reading: list[ReadRow] = []
        self._known: weakref.WeakKeyDictionary[Cache, list[ReadRow]] = weakref.WeakKeyDictionary()
        self._uncached: list[ReadRow] = []
        self._handles: list[Any] = []

    def open(self) -> None:
        model = self.adapter.model
        self._handles.append(model.register_forward_pre_hook(self._before, with_kwargs=True))
        self._handles.append(model.register_forward_hook(self._after, with_kwargs=True, always_call=True))
        for layer in {tap.site.layer for tap in self.adapter.taps}:
            self._handles.append(self.adapter.layers[layer].register_forward_pre_hook(self._check_seen))

    def close(self) -> None:
        for handle in reversed(self._handles):
            handle.remove()
        for cache in list(self._known):
            vars(cache).pop("reorder_cache", None)
        self._handles, self.groups = [], None
        self._known.clear()

    def rewrite(self, edit: Callable[[Recall | None, Array, Array, TapContext], Array], x_in: Array, x_out: Array):
        """`edit` over the rows that belong together, each without its padding: [B, T, D] -> [B, T, D]."""
        groups = self.groups or []
        if len(groups) == 1 and len(groups[0].rows) == x_out.shape[0] and groups[0].high == x_out.shape[1]:
            only = groups[0]
            if only.low == 0:
                return edit(only.recall, x_in, x_out, only.context)
        new = x_out.clone()
        for group in groups:
            columns = slice(group.low, group.high)
            new[group.rows, columns] = edit(
                group.recall, x_in[group.rows, columns], x_out[group.rows, columns], group.context
            )
        return new

    # hooks ---------------------------------------------------------------------------------------------------
    def _before(self, module: Any, args: Any, kwargs: Any) -> None:
        if self.adapter.context is not None:
            return  # the adapter's own pass
        if module.training and any(getattr(x, "gradient_checkpointing", False) for x in self.adapter.layers):
            raise UsageError("a memory cannot act in layers that are run again in the backward pass; train without it")
        given = self._named(module, args, kwargs)
        ids, mask, cache = _ids_of(given), given.get("attention_mask"), given.get("past_key_values")
        past = int(cache.get_seq_length()) if cache is not None else 0
        before = self._rows_before(ids, cache, past, mask)
        spans = [_span(row) for row in _real(mask, ids.shape, past)]
        read = [
            replace(row, tokens=np.concatenate([row.tokens, new[low:high]]))
            for row, new, (low, high) in zip(before, ids, spans, strict=True)
        ]
        if not self._goes_on(read, ids, past):
            read = self._decided(read, given.get("labels"), spans)
        self._reading = read
        self.groups = self._grouped(read, spans, "decode" if past and ids.shape[1] == 1 else "prefill")
        self.adapter.context = self.groups[0].context if self.groups else None

    def _check_seen(self, module: Any, args: Any) -> None:
        """A layer that runs in a call that `_before` did not see would answer as the plain model, unnoticed."""
        if self.groups is None and self.adapter.context is None and any(tap.enabled for tap in self.adapter.taps):
            raise UsageError(
                "the memory did not see this call: call the model itself, model(...) or model.generate(...); "
                "model.forward(...) and calls of its parts run past a module's hooks"
            )

    @staticmethod
    def _named(module: Any, args: Any, kwargs: Any) -> dict[str, Any]:
        """The call's arguments by name: a cache may come as the fourth."""
        return kwargs if not args else inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments

    def _after(self, module: Any, args: Any, kwargs: Any, output: Any) -> None:
        if self.groups is None:
            return
        self.groups, self.adapter.context = None, None
        cache = self._named(module, args, kwargs).get("past_key_values")
        cache = cache if cache is not None else getattr(output, "past_key_values", None)
        if cache is None:
            self._uncached = self._reading
            return
        if cache not in self._known:
            held = weakref.ref(cache)  # a cache is large: it must not keep itself alive
            cache.reorder_cache = lambda beams: self._reordered(held(), beams)
        self._known[cache] = self._reading

    def _reordered(self, cache: Any, beams: torch.Tensor) -> None:
        """Beam search puts rows of the cache in another order; so are ours."""
        self._known[cache] = [self._known[cache][i] for i in beams.tolist()]
        type(cache).reorder_cache(cache, beams)

    # following rows ------------------------------------------------------------------------------------------
    def _rows_before(self, ids: np.ndarray, cache: Cache | None, past: int, mask: Any) -> list[ReadRow]:
        if not past:
            return [ReadRow(np.zeros(0, np.int64))] * len(ids)
        rows = self._known.get(cache) if cache is not None else None
        if rows is None or len(rows) != len(ids):
            raise UsageError(
                "this cache was filled while the memory was not attached, so what is in it is unknown; "
                "read the whole text again, inside `with attach(...)`"
            )
        padding = [past - int(real.sum()) for real in _real(mask, (len(ids), past), 0)]
        return [replace(row, tokens=row.tokens[: past - pad]) for row, pad in zip(rows, padding, strict=True)]

    def _goes_on(self, read: list[ReadRow], ids: np.ndarray, past: int) -> bool:
        """Are these the next tokens of a reply that has begun? Without a cache: the same texts, one token longer."""
        if past and ids.shape[1] == 1:
            return not any(self.prompts.opens_reply(row.tokens) for row in read)
        if past:
            starts = [self.prompts.reply_start(row.tokens) for row in read]
            return all(start == row.start for start, row in zip(starts, read, strict=True))
        known = self._uncached
        if len(known) != len(read) or any(
            len(row.tokens) != len(old.tokens) + 1 or not np.array_equal(row.tokens[:-1], old.tokens)
            for row, old in zip(read, known, strict=True)
        ):
            return False
        read[:] = [replace(old, tokens=row.tokens) for row, old in zip(read, known, strict=True)]
        return True

    def _decided(self, read: list[ReadRow], labels: Any, spans: list[tuple[int, int]]) -> list[ReadRow]:
        targets = [None] * len(read) if labels is None else list(labels.detach().cpu().numpy())
        starts = [
            self._start(row.tokens, target, low) for row, target, (low, _) in zip(read, targets, spans, strict=True)
        ]
        some = [b for b, row in enumerate(read) if len(row.tokens)]
        prompts = [self.prompts.prompt(read[b].tokens[: starts[b] + 1]) for b in some]
        recalls = dict(zip(some, self.decide(prompts), strict=True))
        return [ReadRow(row.tokens, starts[b], recalls.get(b)) for b, row in enumerate(read)]

    def _start(self, tokens: np.ndarray, labels: np.ndarray | None, low: int) -> int:
        """The last token of the prompt: by the labels of a training step, by the template, or the last there is."""
        if labels is not None and labels[low] == IGNORED and (labels != IGNORED).any():
            return int(np.flatnonzero(labels != IGNORED)[0]) - 1 - low
        found = self.prompts.reply_start(tokens)
        if found is not None:
            return found
        return 0 if labels is not None else max(len(tokens) - 1, 0)

    def _grouped(self, read: list[ReadRow], spans: list[tuple[int, int]], phase: str) -> list[Group]:
        alike: dict[tuple[int, ...], list[int]] = {}
        for b, (row, (low, high)) in enumerate(zip(read, spans, strict=True)):
            if high > low:  # else a part of the prompt in which this row has only padding
                alike.setdefault((low, high, len(row.tokens), row.start), []).append(b)
        groups = []
        for (low, high, length, start), rows in alike.items():
            recall = self.memory.stack(self.adapter.ops, [read[b].recall for b in rows])
            if recall is not None:
                recall.start = start
            tokens, old = np.stack([read[b].tokens for b in rows]), length - (high - low)
            context = TapContext(tokens[:, old:], np.arange(old, length), tokens[:, :old], phase)
            groups.append(Group(rows, low, high, recall, context))
        return groups


def _ids_of(given: dict[str, Any]) -> np.ndarray:
    ids = given.get("input_ids")
    if ids is None:
        raise UsageError("a memory needs the token ids: call the model with input_ids, not with inputs_embeds")
    return ids.detach().cpu().numpy().astype(np.int64)


def _real(mask: Any, shape: tuple[int, ...], past: int) -> np.ndarray:
    """Which of the new columns hold a token of each row, [B, T]."""
    if mask is None:
        return np.ones(shape[:2], bool)
    if not isinstance(mask, torch.Tensor) or mask.ndim != 2:
        raise UsageError("a memory needs the plain attention mask [batch, tokens]; use the default (dynamic) cache")
    return mask[:, past : past + shape[1]].detach().cpu().numpy().astype(bool)


def _span(real: np.ndarray) -> tuple[int, int]:
    """The columns [low, high) of a row's tokens. Raises UsageError if they are not in one piece."""
    columns = np.flatnonzero(real)
    low, high = (int(columns[0]), int(columns[-1]) + 1) if len(columns) else (0, 0)
    if high - low != len(columns):
        raise UsageError("the attention mask has holes; a memory needs each row's tokens in one piece")
    return low, high
