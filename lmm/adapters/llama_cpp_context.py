"""A llama.cpp model with what it has read: sequences in one store of keys and values, which are only ever appended to.

So a cache is the first n tokens of a sequence: reading on after a cache that ends where its sequence ends appends, and
after a shorter one it begins a sequence of its own, which shares the cells of what went before. Nothing is copied.

A text gives the same logits, bit for bit, wherever it lies and whatever is read beside it. Its cells are passed over in
the order of its tokens, since no cell is used twice: what nobody holds stays until there is much of it, and then what
is held is laid afresh. And keys and values are of two types, for which ggml has one kernel of attention, which leaves
out what is not of the text; for one type it has three, by how many tokens are read, cells in use and threads.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from ctypes import POINTER, c_float, c_int8, c_int32
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lmm.adapters import llama_cpp_api as api
from lmm.errors import LmmError, ModelError

FIRST_CELLS = 2048  # tokens in the store at the beginning; it doubles when it is full
WASTE = 256  # cells of texts that nobody holds, which every step looks at and passes over
AT_ONCE = 512  # tokens in one pass through the graph
Handler = Callable[[int], bool]  # a computed node -> whether the pass goes on


class Text:
    """What one row of a cache has read; gone when nobody holds it.

    `whole` is the shortest length at which it can be read on: where layers look back a window only, a text that was
    laid afresh has nothing before its last one.
    """

    def __init__(self, number: int, length: int) -> None:
        self.number, self.length, self.whole = number, length, 0


class Model:
    """The weights of a file. Raises ModelError where llama.cpp does not take it."""

    def __init__(self, path: Path) -> None:
        self.lib, self.path = api.library(), path
        params = self.lib.llama_model_default_params()
        params.n_gpu_layers = 0
        api.complaints.clear()
        self.handle = self.lib.llama_model_load_from_file(str(path).encode(), params)
        if not self.handle:
            why = "; ".join(api.complaints) or "it does not say why"
            raise ModelError(f"llama.cpp cannot load {path.name} ({why}); another backend may: --backend torch")
        weakref.finalize(self, self.lib.llama_model_free, self.handle)
        self.vocab = self.lib.llama_model_get_vocab(self.handle)
        self.tokens = self.lib.llama_vocab_n_tokens(self.vocab)
        description = ctypes.create_string_buffer(128)
        self.lib.llama_model_desc(self.handle, description, len(description))
        self.kind = description.value.decode().split(maxsplit=2)[-1]  # "llama 8B Q4_K - Medium"
        self.window = self.lib.llama_model_n_swa(self.handle)  # tokens that some layers look back; 0: all
        self.layers, self.width = self.lib.llama_model_n_layer(self.handle), self.lib.llama_model_n_embd(self.handle)

    def encode(self, text: str) -> list[int]:
        """Text as llama.cpp's own tokenizer reads it; control tokens are tokens."""
        raw = text.encode()
        room = (c_int32 * (len(raw) + 8))()
        count = self.lib.llama_tokenize(self.vocab, raw, len(raw), room, len(room), False, True)
        return room[: max(0, count)]

    def context(self, cells: int, rows: int, precise: bool, filter: api.Filter | None, threads: int) -> int:
        """A new llama_context; `precise` keeps keys and values in float32."""
        params = self.lib.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.kv_unified = cells, rows, 1
        params.n_batch = params.n_ubatch = min(AT_ONCE, cells)
        params.n_threads = params.n_threads_batch = threads
        params.type_v, params.flash_attn_type = api.BF16, api.FLASH
        if precise:
            params.type_k = params.type_v = api.F32
            params.flash_attn_type = api.NO_FLASH
        if filter is not None:
            params.cb_eval, params.cb_eval_user_data = filter.function, filter.data
        handle = self.lib.llama_init_from_model(self.handle, params)
        if not handle:
            raise ModelError(f"llama.cpp has no room to run {self.path.name}; close other programs")
        return handle


class Context:
    """Reads tokens [B, T]; `nodes` says who sees which nodes of the graph in the pass that is running."""

    def __init__(self, model: Model, precise: bool) -> None:
        self.model, self.lib, self.precise, self.threads = model, model.lib, precise, 1
        seen = weakref.WeakMethod(self._seen)  # so that nothing holds a context that is not used any more
        self.filter = api.Filter(lambda tensor: (see := seen()) is not None and see(tensor))
        self.cells = FIRST_CELLS
        self._held = [model.context(self.cells, api.MOST_ROWS, precise, self.filter, self.threads)]
        weakref.finalize(self, _free, model, self._held)
        self._free = deque(range(api.MOST_ROWS))
        self._dropped: deque[int] = deque()  # by whoever let go last, perhaps on another thread, while a pass runs
        self._gone: list[int] = []  # dropped, and their cells are still in the store
        self._own = [0] * api.MOST_ROWS  # cells of each, without those that it began with
        self._used = self._waste = 0  # cells, and of them those that nobody holds
        self._living: weakref.WeakSet[Text] = weakref.WeakSet()
        self._nodes: dict[str, Handler] = {}
        self._error: BaseException | None = None
        self._batch = _Room(AT_ONCE)

    @property
    def _handle(self) -> int:
        return self._held[0]

    def set_threads(self, count: int) -> None:
        self.threads = count
        self.lib.llama_set_n_threads(self._handle, count, count)

    # sequences -----------------------------------------------------------------------------------------------
    def new(self) -> Text:
        """An empty sequence."""
        self._tidy()
        if not self._free:
            self._lay_afresh()
        if not self._free:
            raise LmmError(f"llama.cpp reads at most {api.MOST_ROWS} texts at a time; use a smaller --batch-size")
        made = Text(self._free.popleft(), 0)
        weakref.finalize(made, self._dropped.append, made.number)
        self._living.add(made)
        return made

    def to_read_on(self, rows: Sequence[Text], length: int) -> list[Text]:
        """For each row a sequence that ends after the `length` tokens that they begin with."""
        found: list[Text] = []
        for row in rows:
            found.append(row if row.length == length and row not in found else self.branch(row, length))
        return found

    def branch(self, text: Text, length: int) -> Text:
        """A text of its own that begins with the first `length` tokens of another."""
        made = self.new()
        self.lib.llama_memory_seq_cp(self._memory, text.number, made.number, 0, length)
        made.length, made.whole = length, text.whole
        return made

    @property
    def _memory(self) -> int:
        return self.lib.llama_get_memory(self._handle)

    def _tidy(self) -> None:
        while self._dropped:
            self._gone.append(self._dropped.popleft())
            self._waste += self._own[self._gone[-1]]
        if self._waste > max(WASTE, self._used // 4):
            self._lay_afresh()

    def _lay_afresh(self, more: int = 0) -> None:
        """All that is held, one text after another from the first cell on, with room for `more` tokens: in a larger
        store where they would fill three quarters of this one."""
        rows = [row for row in self._living if row.length]
        kept, self._used = [self._copied(row) for row in rows], sum(row.length for row in rows)
        if self._used + more > self.cells * 3 // 4:
            while self._used + more > self.cells * 3 // 4:
                self.cells *= 2
            self._held.append(self.model.context(self.cells, api.MOST_ROWS, self.precise, self.filter, self.threads))
            self.lib.llama_free(self._held.pop(0))
        else:
            self.lib.llama_memory_clear(self._memory, False)
        self._own = [0] * api.MOST_ROWS
        for row, data in zip(rows, kept, strict=True):
            self.lib.llama_state_seq_set_data(self._handle, data, len(data), row.number)
            self._own[row.number] = row.length
            row.whole = row.length if self.model.window else 0
        self._free.extend(self._gone)
        self._gone.clear()
        self._waste = 0

    def _copied(self, row: Text) -> ctypes.Array[ctypes.c_char]:
        """Keys and values of a text."""
        room = ctypes.create_string_buffer(self.lib.llama_state_seq_get_size(self._handle, row.number))
        self.lib.llama_state_seq_get_data(self._handle, room, len(room), row.number)
        return room

    # passes --------------------------------------------------------------------------------------------------
    def read(self, tokens: np.ndarray, rows: Sequence[Text], keep: int, nodes: dict[str, Handler]) -> np.ndarray:
        """Tokens [B, T], at most AT_ONCE in all, appended to `rows`, of one length -> logits [B, keep, V] of the last
        ones. Where a handler raises, the rows are as before; where it stops the pass, nothing is kept above its node.
        """
        self._tidy()
        self._nodes, self._error = nodes, None
        self.filter.watch(list(nodes))
        self._batch.fill(tokens, [row.number for row in rows], rows[0].length, keep)
        while (status := self.lib.llama_decode(self._handle, self._batch.value)) == 1:
            self._lay_afresh(tokens.size)
        if self._error is not None or status != 0:
            for row in rows:
                self.lib.llama_memory_seq_rm(self._memory, row.number, row.length, -1)
            raise self._error or LmmError(f"llama.cpp could not read {tokens.size} tokens (status {status})")
        for row in rows:
            row.length += tokens.shape[1]
            self._own[row.number] += tokens.shape[1]
        self._used += tokens.size
        shape = len(rows), keep, self.model.tokens
        if not keep:
            return np.empty(shape, np.float32)
        found = (c_float * math.prod(shape)).from_address(self.lib.llama_get_logits(self._handle))
        return np.array(found).reshape(shape)

    def _seen(self, tensor: int) -> bool:
        try:
            return self._nodes[api.name_of(tensor)](tensor)
        except BaseException as error:  # nothing may be raised through C
            self._error = error
            return False

    def get(self, tensor: int, shape: tuple[int, int]) -> torch.Tensor:
        """A node's numbers [B, T, D], as a copy."""
        values = torch.empty((*shape, self._width(tensor, shape)))
        self.lib.ggml_backend_tensor_get(tensor, values.data_ptr(), 0, values.nbytes)
        return values

    def look(self, tensor: int, shape: tuple[int, int]) -> np.ndarray:
        """The same without torch, whose first call after a pass takes longer than all else."""
        values = np.empty((*shape, self._width(tensor, shape)), np.float32)
        self.lib.ggml_backend_tensor_get(tensor, values.ctypes.data, 0, values.nbytes)
        return values

    def _width(self, tensor: int, shape: tuple[int, int]) -> int:
        return self.lib.ggml_nelements(tensor) // (shape[0] * shape[1])

    def set(self, tensor: int, values: torch.Tensor) -> None:
        values = values.detach().float().contiguous()
        self.lib.ggml_backend_tensor_set(tensor, values.data_ptr(), 0, values.nbytes)


def _free(model: Model, handles: list[int]) -> None:
    """Contexts, before the model that they are of."""
    for handle in handles:
        model.lib.llama_free(handle)


class _Room:
    """The arrays of a `llama_batch`."""

    def __init__(self, size: int) -> None:
        self.token, self.pos, self.rows, self.count = ((c_int32 * size)() for _ in range(4))
        self.count[:] = [1] * size
        self.wanted = (c_int8 * size)()
        first = ctypes.addressof(self.rows)
        addresses = [ctypes.cast(first + 4 * i, POINTER(c_int32)) for i in range(size)]
        self.seq = (POINTER(c_int32) * size)(*addresses)
        self.value = api.LlamaBatch(0, self.token, POINTER(c_float)(), self.pos, self.count, self.seq, self.wanted)

    def fill(self, tokens: np.ndarray, rows: Sequence[int], start: int, keep: int) -> None:
        """Tokens [B, T] of sequences `rows`, from position `start` on, of which the last `keep` get logits."""
        n, (count, length) = tokens.size, tokens.shape
        self.token[:n] = tokens.ravel().tolist()
        self.pos[:n] = [*range(start, start + length)] * count
        self.rows[:n] = [row for row in rows for _ in range(length)]
        self.wanted[:n] = ([0] * (length - keep) + [1] * keep) * count
        self.value.n_tokens = n


def own_greedy(store: Context, tokens: Sequence[int], most: int, ends: frozenset[int]) -> list[int]:
    """llama.cpp's own loop, in a store of its own: read, take the likeliest token, read that."""
    model, lib, room = store.model, store.lib, _Room(AT_ONCE)
    handle: Any = model.context(len(tokens) + most + 1, 1, store.precise, None, store.threads)
    sampler, made, start = lib.llama_sampler_init_greedy(), list[int](), 0
    try:
        new = np.asarray(tokens, np.int32)
        while len(made) < most:
            for part in np.split(new, range(AT_ONCE, len(new), AT_ONCE)):
                room.fill(part[None], [0], start, 1)
                lib.llama_decode(handle, room.value)
                start += len(part)
            made.append(lib.llama_sampler_sample(sampler, handle, -1))
            if made[-1] in ends:
                break
            new = np.asarray(made[-1:], np.int32)
    finally:
        lib.llama_sampler_free(sampler)
        lib.llama_free(handle)
    return made
