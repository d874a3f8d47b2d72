"""TopHash: which columns an edit may write, as a function of the activations alone.

`python -m lmm.memory.memoir.fingerprint` reads a case from stdin and writes its mask: the other process that
`validate_determinism` compares with.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from lmm.errors import StateError, UsageError
from lmm.files.atomic import write_atomically
from lmm.memory.memoir.tophash import check_permutation, permutation, top_hash

TOP_K = 100  # as in the document
PathLike = str | os.PathLike[str]


def as_numpy(values: Any, what: str = "activations") -> np.ndarray:
    """A NumPy copy of an array, tensor or list of numbers. Raises UsageError if there is anything else in it."""
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    try:
        return np.array(values, np.float32)
    except (TypeError, ValueError) as error:
        raise UsageError(f"the {what} must be numbers, not {type(values).__name__}: {error}") from error


def as_bits(mask: Any) -> np.ndarray:
    """Which entries of a mask are set: what is not 0, bool. Raises UsageError for what is no number, and NaN."""
    values = as_numpy(mask, "mask")
    if np.isnan(values).any():
        raise UsageError("a mask holds NaN")
    return values != 0


class TopHashFingerprinter:
    """The `top_k` of |activations - background|, sent through a fixed permutation.

    `permutation_file` (safetensors) fixes the permutation; a file that is not there is written from `seed`. Without a
    file it follows from `seed` alone. MEMOIR_TOP_K, MEMOIR_HIDDEN_SIZE and MEMOIR_PERMUTATION_FILE are the defaults.
    Raises UsageError for sizes that cannot be, StateError for a file that holds no permutation of this size.
    """

    def __init__(
        self,
        hidden_size: int | None = None,
        top_k: int | None = None,
        permutation_file: PathLike | None = None,
        background: Any = None,
        seed: int = 0,
    ) -> None:
        self.hidden_size = hidden_size if hidden_size is not None else from_environment("MEMOIR_HIDDEN_SIZE")
        self.top_k = top_k if top_k is not None else from_environment("MEMOIR_TOP_K", TOP_K)
        if not 1 <= self.top_k <= self.hidden_size:
            raise UsageError(f"top_k must be 1 to hidden_size = {self.hidden_size}, not {self.top_k}")
        self.background = as_numpy(background if background is not None else np.zeros(self.hidden_size), "background")
        if self.background.shape != (self.hidden_size,):
            raise UsageError(f"the background has shape {self.background.shape}, expected ({self.hidden_size},)")
        file = permutation_file or os.environ.get("MEMOIR_PERMUTATION_FILE")
        self.permutation = self._permutation(Path(file) if file else None, seed)

    def _permutation(self, file: Path | None, seed: int) -> np.ndarray:
        if file is None or not file.exists():
            made = permutation(self.hidden_size, seed)
            if file is not None:
                from safetensors.numpy import save

                file.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(file, [save({"permutation": made})])
            return made
        try:
            from safetensors.numpy import load_file

            found = load_file(str(file))["permutation"]
            check_permutation(found, self.hidden_size)
        except Exception as error:
            raise StateError(
                f"{file} holds no permutation of {self.hidden_size} channels: {error}; name another file, or delete "
                "it to have one made"
            ) from error
        return found

    def generate_mask(self, activations: Any) -> np.ndarray:
        """Activations [F], or [T, F] of a prompt's tokens (their mean counts) -> mask [F], float32 of 0. and 1.

        Raises UsageError for another shape, or values that are no numbers.
        """
        values = as_numpy(activations)
        values = values.mean(axis=0) if values.ndim == 2 else values
        if values.shape != (self.hidden_size,):
            raise UsageError(
                f"activations have shape {values.shape}, expected ({self.hidden_size},) or (tokens, {self.hidden_size})"
            )
        if not np.isfinite(values).all():
            raise UsageError("activations are NaN or infinite; no mask can be made of them")
        return top_hash(values - self.background, self.top_k, self.permutation).astype(np.float32)

    def validate_determinism(self, activations: Any) -> bool:
        """Is the mask the same again here, and in a new process with another hash seed?"""
        case = io.BytesIO()
        values = as_numpy(activations)
        np.savez(
            case,
            top_k=np.array(self.top_k),
            activations=values,
            background=self.background,
            permutation=self.permutation,
        )
        run = subprocess.run(
            [sys.executable, "-P", "-m", "lmm.memory.memoir.fingerprint"],
            input=case.getvalue(),
            capture_output=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": "12345"},
        )
        elsewhere = np.frombuffer(run.stdout, np.float32)
        here = self.generate_mask(values)
        return np.array_equal(here, self.generate_mask(values)) and np.array_equal(here, elsewhere)


def from_environment(name: str, default: int | None = None) -> int:
    """A whole number from a variable. Raises UsageError if it is none, or not there and has no default."""
    text = os.environ.get(name, "").strip()
    if not text and default is not None:
        return default
    if not text.isdecimal() or int(text) == 0:
        raise UsageError(f"{name} must be a whole number above 0, not {text!r}; or pass the value itself")
    return int(text)


def _child() -> None:
    case = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
    maker = TopHashFingerprinter(
        len(case["permutation"]), int(case["top_k"]), background=case["background"], permutation_file=None
    )
    maker.permutation = case["permutation"]
    sys.stdout.buffer.write(maker.generate_mask(case["activations"]).tobytes())


if __name__ == "__main__":
    os.environ.pop("MEMOIR_PERMUTATION_FILE", None)
    _child()
