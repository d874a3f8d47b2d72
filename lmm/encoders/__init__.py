"""Sentence encoders: sentences to unit vectors"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lmm import registry
from lmm.errors import LmmError, ModelError, UnknownNameError

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter
    from lmm.encoders.sentences import SentenceEncoder

log = logging.getLogger("lmm")
ORDER = ("minilm", "states")  # of "auto": the first that is there; stores hold the first one's vectors


def load_encoder(
    name: str = "auto", adapter: Adapter | None = None, notice: Callable[[str], None] = log.warning
) -> SentenceEncoder:
    """An encoder by its name in the registry, or a folder or id that sentence-transformers loads.

    "auto" is the first of ORDER that is there; `notice` hears of each that is not, and there are never random vectors.
    "states" are those of a chat model, `adapter`. Raises ModelError, with what to install, and UnknownNameError for a
    name that is nearly one of the registry.
    """
    if name == "auto":
        return _first(adapter, notice)
    known = registry.table("lmm.encoders")
    if name not in known:
        from lmm.encoders.sentences import Transformer

        near = difflib.get_close_matches(name, [*known, "auto"], cutoff=0.6)
        if not name.strip() or (near and not Path(name).exists()):
            raise UnknownNameError("encoder", name, [*known, "auto"])
        return Transformer(name)
    kind = registry.find("lmm.encoders", "encoder", name)
    if name != "states":
        return kind()
    if adapter is None:
        raise ModelError("the encoder 'states' reads with a chat model, and there is none")
    return kind(adapter)


def _first(adapter: Adapter | None, notice: Callable[[str], None]) -> SentenceEncoder:
    problems = []
    for name in (name for name in ORDER if name in registry.table("lmm.encoders")):
        try:
            found = load_encoder(name, adapter)
        except LmmError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            notice(f"{problem}; texts are encoded by {found.name}")
        return found
    raise ModelError(f"there is no encoder: {'; '.join(problems)}")
