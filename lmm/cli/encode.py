"""`lmm encode`: texts to vectors, on the shell."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import typer

from lmm.cli.options import Option, given_or_piped, out, say
from lmm.errors import UsageError
from lmm.text.counted import counted
from lmm.text.utf8 import whole


def encode(
    texts: Annotated[list[str] | None, typer.Argument(help="texts; without any, or for -, each line of stdin")] = None,
    model: Annotated[str, Option(help="auto, minilm, lam, or a folder or id of sentence-transformers")] = "auto",
    files: Annotated[list[Path] | None, Option("--file", help="a file that is one text; may be repeated")] = None,
    target: Annotated[Path | None, Option("--out", help="write the vectors as a .npy file")] = None,
    max_length: Annotated[int | None, Option(help="tokens that are read of a text; default: as many as can be")] = None,
) -> None:
    """Print the unit vector of each text, a line of JSON each."""
    import json

    from lmm.encoders import load_encoder

    read = [_read(file) for file in files or []]
    given = [*given_or_piped(texts), *read] if texts or not read else read
    if not given:
        raise UsageError('there is nothing to encode; expected: lmm encode "TEXT", --file FILE, or lines on stdin')
    if target is not None and any(target.resolve() == file.resolve() for file in files or ()):
        raise UsageError(f"--out {target} is a file that is read; it needs a name of its own")
    vectors = load_encoder(model, notice=say).encode(given, max_length=max_length)
    if target is None:
        for vector in vectors:
            out(json.dumps([round(float(x), 6) for x in vector]))
        return
    import numpy as np

    from lmm.files.own import write_out

    held = io.BytesIO()
    np.save(held, vectors)
    try:
        write_out(target, [held.getbuffer()])
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror or error}") from error
    say(f"{counted(len(vectors), 'vector')} of {vectors.shape[1]} numbers in {target}")


def _read(file: Path) -> str:
    try:
        return whole(file.read_text(encoding="utf-8", errors="surrogateescape"), str(file))
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}") from error
