"""Where the memories of a session are saved."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lmm.errors import StateError
from lmm.files import state_file
from lmm.files.transcripts import data_dir

if TYPE_CHECKING:
    from lmm.chat.session import Chat
    from lmm.engine.mind import Mind


def save(chat: Chat, memory: str, path: str | None = None) -> Path:
    """Write a memory of the session -> the file. Raises StateError.

    The save path that was given is meant for the memory the session was started with.
    """
    chosen = path or (chat.config.mm_save_path if memory == chat.first_memory else None)
    return _write(
        chat, chat.minds[memory], Path(chosen).expanduser() if chosen else state_file.default_save_path(memory)
    )


def save_all(chat: Chat) -> list[Path]:
    """Write every memory that has learned something since, and the one in use in any case where a file was named for
    it. Raises StateError; where only the place that was asked for is no good, what was learned is in another one by
    then."""
    failed: StateError | None = None
    paths: list[Path] = []
    named = bool(chat.config.mm_load_path or chat.config.mm_save_path)
    for name, mind in chat.minds.items():
        mind.look()
        if not _has_learned(mind) and not (named and mind is chat.mind):
            continue
        try:
            paths.append(save(chat, name))
        except StateError as error:
            failed = error
            paths.append(_save_elsewhere(chat, mind))
            chat.view.say(f"saved to {paths[-1]} instead")
    if failed is not None:
        raise failed
    return paths


def _has_learned(mind: Mind) -> bool:
    """Whether there is something new to copy: what was taught here may have been taken back by another lmm."""
    taken_back = mind.keeper is not None and not mind.keeper.taught and mind.memory.learns_from == "lessons"
    return mind.unsaved and not taken_back


def _write(chat: Chat, mind: Mind, target: Path) -> Path:
    mind.save(target)
    chat.files.add(target.resolve())
    chat.record({"kind": "saved", "path": str(target.resolve())})
    return target


def _save_elsewhere(chat: Chat, mind: Mind) -> Path:
    """In the usual place, with the user's data, or where temporary files go. Raises StateError if none will do."""
    for folder in (Path("artifacts"), data_dir() / "artifacts", Path(tempfile.gettempdir())):
        with contextlib.suppress(StateError):
            return _write(chat, mind, state_file.default_save_path(mind.memory.name, folder))
    raise StateError(f"nowhere could the memory be saved: {state_file.IN_A_SESSION}")
