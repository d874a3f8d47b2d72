"""llama.cpp's C interface, as far as lmm calls it, from the library inside the `xllamacpp` wheel.

The structs below are those of one version. Before anything else is called, the library is asked for its defaults, which
must be exactly as recorded here, and a small tensor is looked at: another version is refused, not misread.

While a model runs, ggml asks before every node of its graph whether someone wants to see it. A small model has a
thousand nodes, and a Python function that says "no" a thousand times costs more than the model's own step. So the
question is answered by forty bytes of machine code that compare the node's name with a table (x86-64; elsewhere Python
answers, correct and slower).
"""

from __future__ import annotations

import ctypes
import importlib.util
import mmap
import platform
import sys
from collections import deque
from collections.abc import Callable, Sequence
from ctypes import POINTER, c_char_p, c_float, c_int8, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from lmm.errors import BackendError

PACKAGE, VERSION = "xllamacpp", "2026.10.11549"
INSTALL = "pip install 'lmm[llama]'"
F32, F16, BF16 = 0, 1, 30  # enum ggml_type
NO_FLASH, FLASH = 0, 1  # enum llama_flash_attn_type
ERROR = 4  # enum ggml_log_level
MOST_ROWS = 256  # sequences of one context, LLAMA_MAX_SEQ
NAME, SOURCES = 256, 152  # offsets in struct ggml_tensor
WORD = 8  # bytes of a name that are compared
MOST_NODES = 512  # that can be asked for at once

Callback = ctypes.CFUNCTYPE(ctypes.c_bool, c_void_p, ctypes.c_bool, c_void_p)
LogCallback = ctypes.CFUNCTYPE(None, c_int32, c_char_p, c_void_p)


class ModelParams(ctypes.Structure):
    _fields_ = [("lists", c_void_p * 2), ("n_gpu_layers", c_int32), ("more", c_int32 * 15)]


class ContextParams(ctypes.Structure):
    _fields_ = [
        ("n_ctx", c_uint32), ("n_batch", c_uint32), ("n_ubatch", c_uint32), ("n_seq_max", c_uint32),
        ("counts", c_uint32 * 3), ("n_threads", c_int32), ("n_threads_batch", c_int32),
        ("kinds", c_int32 * 4), ("flash_attn_type", c_int32), ("rope", c_float * 8),
        ("cb_eval", c_void_p), ("cb_eval_user_data", c_void_p), ("type_k", c_int32), ("type_v", c_int32),
        ("pointers", c_void_p * 3),
        ("embeddings", c_int8), ("offload_kqv", c_int8), ("no_perf", c_int8), ("op_offload", c_int8),
        ("swa_full", c_int8), ("kv_unified", c_int8), ("more", c_void_p * 3),
    ]  # fmt: skip


class LlamaBatch(ctypes.Structure):
    """Tokens of several sequences: each with its position, its sequence, and whether its logits are wanted."""

    _fields_ = [
        ("n_tokens", c_int32), ("token", POINTER(c_int32)), ("embd", POINTER(c_float)), ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)), ("seq_id", POINTER(POINTER(c_int32))), ("logits", POINTER(c_int8)),
    ]  # fmt: skip


class _InitParams(ctypes.Structure):
    _fields_ = [("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", ctypes.c_bool)]


#: 32-bit words of the defaults at these bytes: another layout shows in them
_MODEL_DEFAULTS = {16: -1, 20: 1, 24: -1, 28: 1, 72: 1 << 16}
_CONTEXT_DEFAULTS = {
    0: 512, 4: 2048, 8: 512, 12: 1, 24: 1, 28: 4, 32: 4, 40: -1, 44: -1, 48: -1, 52: -1,
    **dict.fromkeys((64, 68, 72, 76, 84), -0x40800000), 104: F16, 108: F16, 136: 0x01010100,
}  # fmt: skip

#: name: (result, arguments)
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "llama_backend_init": (None, []),
    "llama_log_set": (None, [LogCallback, c_void_p]),
    "ggml_log_set": (None, [LogCallback, c_void_p]),
    "llama_model_default_params": (ModelParams, []),
    "llama_context_default_params": (ContextParams, []),
    "llama_model_load_from_file": (c_void_p, [c_char_p, ModelParams]),
    "llama_model_free": (None, [c_void_p]),
    "llama_model_get_vocab": (c_void_p, [c_void_p]),
    "llama_model_n_layer": (c_int32, [c_void_p]),
    "llama_model_n_embd": (c_int32, [c_void_p]),
    "llama_model_n_swa": (c_int32, [c_void_p]),
    "llama_model_n_ctx_train": (c_int32, [c_void_p]),
    "llama_model_desc": (c_int32, [c_void_p, c_char_p, c_size_t]),
    "llama_vocab_n_tokens": (c_int32, [c_void_p]),
    "llama_tokenize": (
        c_int32, [c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, ctypes.c_bool, ctypes.c_bool]
    ),
    "llama_init_from_model": (c_void_p, [c_void_p, ContextParams]),
    "llama_free": (None, [c_void_p]),
    "llama_set_n_threads": (None, [c_void_p, c_int32, c_int32]),
    "llama_decode": (c_int32, [c_void_p, LlamaBatch]),
    "llama_get_logits": (c_void_p, [c_void_p]),
    "llama_get_memory": (c_void_p, [c_void_p]),
    "llama_memory_clear": (None, [c_void_p, ctypes.c_bool]),
    "llama_memory_seq_rm": (ctypes.c_bool, [c_void_p, c_int32, c_int32, c_int32]),
    "llama_memory_seq_cp": (None, [c_void_p, c_int32, c_int32, c_int32, c_int32]),
    "llama_state_seq_get_size": (c_size_t, [c_void_p, c_int32]),
    "llama_state_seq_get_data": (c_size_t, [c_void_p, c_void_p, c_size_t, c_int32]),
    "llama_state_seq_set_data": (c_size_t, [c_void_p, c_void_p, c_size_t, c_int32]),
    "llama_sampler_init_greedy": (c_void_p, []),
    "llama_sampler_sample": (c_int32, [c_void_p, c_void_p, c_int32]),
    "llama_sampler_free": (None, [c_void_p]),
    "ggml_init": (c_void_p, [_InitParams]),
    "ggml_free": (None, [c_void_p]),
    "ggml_new_tensor_2d": (c_void_p, [c_void_p, c_int32, c_int64, c_int64]),
    "ggml_mul_mat": (c_void_p, [c_void_p, c_void_p, c_void_p]),
    "ggml_set_name": (c_void_p, [c_void_p, c_char_p]),
    "ggml_nelements": (c_int64, [c_void_p]),
    "ggml_backend_tensor_get": (None, [c_void_p, c_void_p, c_size_t, c_size_t]),
    "ggml_backend_tensor_set": (None, [c_void_p, c_void_p, c_size_t, c_size_t]),
}  # fmt: skip


@cache
def library() -> Any:
    """The library, checked. Raises BackendError where it is missing or of another version than the one lmm knows."""
    if (file := _file()) is None:
        raise BackendError(f"backend 'llama_cpp' is not installed; run: {INSTALL}")
    if why := another_version():
        raise _unknown(why)
    try:
        lib = ctypes.CDLL(str(file))
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(lib, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise _unknown(str(error)) from error
    check_words("model parameters", lib.llama_model_default_params(), _MODEL_DEFAULTS)
    check_words("context parameters", lib.llama_context_default_params(), _CONTEXT_DEFAULTS)
    _check_tensor(lib)
    for set_log in (lib.llama_log_set, lib.ggml_log_set):
        set_log(_listen, None)
    lib.llama_backend_init()
    return lib


def _file() -> Path | None:
    spec = importlib.util.find_spec(PACKAGE)
    places = (spec.submodule_search_locations or []) if spec else []
    return next((file for place in places for file in Path(place).glob(f"{PACKAGE}*.so")), None)


def another_version() -> str:
    """Which one is here, where it is not the one that lmm knows; else "". Nothing is loaded."""
    return "" if (found := metadata.version(PACKAGE)) == VERSION else f"{found}, expected {VERSION}"


def is_here() -> bool:
    return _file() is not None and not another_version()


complaints: deque[str] = deque(maxlen=3)  # what went wrong last


@LogCallback
def _listen(level: int, text: bytes, data: Any) -> None:
    """llama.cpp writes pages about what it loads; only errors are of use."""
    if level == ERROR:
        complaints.append(text.decode("utf-8", "replace").strip())


def _unknown(why: str) -> BackendError:
    return BackendError(f"this {PACKAGE} is not the one that lmm knows ({why}); run: {INSTALL}")


def check_words(what: str, defaults: ctypes.Structure, wanted: dict[int, int]) -> None:
    """Raises BackendError where a 32-bit word of the defaults is another."""
    raw = bytes(defaults)
    for at, value in wanted.items():
        if (found := int.from_bytes(raw[at : at + 4], sys.byteorder, signed=True)) != value:
            raise _unknown(f"{what} differ at byte {at}: {found}, expected {value}")


def _check_tensor(lib: Any) -> None:
    """The two places in a tensor that are read without a function: its name, and what a product has multiplied."""
    context = lib.ggml_init(_InitParams(1 << 20, None, True))
    a, b = (lib.ggml_new_tensor_2d(context, F32, 2, rows) for rows in (3, 5))
    product = lib.ggml_mul_mat(context, a, b)
    lib.ggml_set_name(product, b"product")
    fits = ctypes.string_at(product + NAME) == b"product" and operand(product, 1) == b
    lib.ggml_free(context)
    if not fits:
        raise _unknown("its tensors are laid out differently")


def name_of(tensor: int) -> str:
    return ctypes.string_at(tensor + NAME).decode("utf-8", "replace")


def operand(tensor: int, place: int) -> int:
    """What a node was computed from: of a matrix product 0 the weights, 1 what they are multiplied with."""
    return c_void_p.from_address(tensor + SOURCES + 8 * place).value or 0


class Filter:
    """The callback of a context: `wanted(tensor)` is asked about nodes whose names begin as one of `watch`, and gets
    them once they are computed. Its answer says whether the pass goes on."""

    def __init__(self, seen: Callable[[int], bool]) -> None:
        self._seen, self._nodes = seen, set[str]()
        self._python = Callback(self._called)
        self._table = (ctypes.c_uint64 * (2 * MOST_NODES + 2))()
        self._table[0] = ctypes.cast(self._python, c_void_p).value or 0
        self._code = _machine_code()
        self.function = self._code[1] if self._code else self._table[0]
        self.data = ctypes.addressof(self._table)

    def watch(self, nodes: Sequence[str]) -> None:
        """Nodes by their names, for all passes from now on."""
        if self._nodes == (wanted := set(nodes)):
            return
        self._nodes = wanted
        starts = [(name.encode() + b"\0")[:WORD] for name in sorted(wanted)]  # what follows the zero is anything
        pairs = [(b"\xff" * len(start), start) for start in starts]
        for i, word in enumerate([word for pair in pairs for word in pair] + [b""]):
            self._table[1 + i] = int.from_bytes(word, "little")

    def _called(self, tensor: int, ask: bool, data: Any) -> bool:
        if ask:
            return name_of(tensor) in self._nodes
        return self._seen(tensor)


#: rdi: the tensor, rdx: the table (the Python function, then pairs of mask and word up to a mask of zero)
_X86_64 = bytes.fromhex(
    "488b8700010000"  # mov rax, [rdi+256]   the first eight characters of the name
    "488d4a08"  #       lea rcx, [rdx+8]
    "4c8b01"  #   next: mov r8, [rcx]
    "4d85c0"  #         test r8, r8
    "7411"  #           jz no
    "4921c0"  #         and r8, rax
    "4c3b4108"  #       cmp r8, [rcx+8]
    "7406"  #           je yes
    "4883c110"  #       add rcx, 16
    "ebe9"  #           jmp next
    "ff22"  #      yes: jmp [rdx]
    "31c0"  #       no: xor eax, eax
    "c3"  #             ret
)


def _machine_code() -> tuple[Any, int] | None:
    """Memory with the code and its address; None where there is none for this processor, or it may not be run."""
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        return None
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    memory.write(_X86_64)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None).mprotect
    protect.argtypes = [c_void_p, c_size_t, ctypes.c_int]
    return (memory, address) if protect(address, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC) == 0 else None
