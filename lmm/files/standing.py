"""Standing memories: what was learned is known tomorrow, without a flag.

Each memory of each model has a file of its own in the user's data folder, `memories/<model>/<memory>.safetensors`, and
each profile has a folder of those: `profiles/<name>/memories/...`. A user of the server is the profile of that name.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from lmm.errors import UsageError
from lmm.files import transcripts
from lmm.files.transcripts import data_dir

if TYPE_CHECKING:
    from lmm.config import Config

PROFILE = re.compile(r"[^\W_][\w.-]{0,63}", re.ASCII)
HASHED = re.compile(r"user-[0-9a-f]{40}")


def folder_of(user: str) -> str:
    """The folder of a user's or a profile's memories: of the same name where that can name a folder, else made of its
    hash. No two share one, also where file names have no case."""
    plain = PROFILE.fullmatch(user) and user == user.lower() and not user.startswith("user-") and user[-1] != "."
    return user if plain else f"user-{hashlib.sha256(user.encode()).hexdigest()[:40]}"


def file_of(config: Config) -> Path | None:
    """The standing memory of a configuration; None where it starts empty or from a file that is named.

    Raises UsageError for a profile that is no name for a folder.
    """
    if config.fresh or config.mm_load_path or config.mm_save_path:
        return None
    model = _slug(config.model, config.revision)
    if config.adapter is not None:
        model = f"{model}+{_slug(str(Path(config.adapter).expanduser().resolve()), None)}"
    return memories_of(config.profile) / model / f"{config.memory}.safetensors"


def files() -> list[Path]:
    """Those there are."""
    folders = [data_dir() / "memories", *(data_dir() / "profiles").glob("*/memories")]
    return sorted(path for folder in folders for path in folder.glob("*/*.safetensors"))


def files_of(profile: str | None) -> list[Path]:
    """Those of a profile."""
    return sorted(memories_of(profile).glob("*/*.safetensors"))


def chats_of(profile: str | None) -> list[Path]:
    """Files of the sessions of a profile, newest first."""
    return transcripts.of_profile(lambda name: _same(name, profile))


def _same(a: str | None, b: str | None) -> bool:
    """Whether two profiles' names are of one folder."""
    return a == b if a is None or b is None else _named(a) == _named(b)


def _named(profile: str) -> str:
    return profile if HASHED.fullmatch(profile) else folder_of(profile)


def of_model(model: str) -> list[Path]:
    """Those of a model, in every profile."""
    return [path for path in files() if path.parent.name == _slug(model, None)]


def memories_of(profile: str | None) -> Path:
    """The folder of a profile's memories. Raises UsageError for a profile that is no name for a folder."""
    if profile is None:
        return data_dir() / "memories"
    if not PROFILE.fullmatch(profile):
        raise UsageError(f"--profile takes a name of letters, digits, '.', '_' and '-', as in work; not {profile!r}")
    folders, name = data_dir() / "profiles", _named(profile)
    if name != profile and folders.is_dir() and profile in os.listdir(folders):  # as earlier versions named all
        name = profile
    return folders / name / "memories"


def _slug(model: str, revision: str | None) -> str:
    """A folder's name for a model: a Hugging Face id with "--", a file or folder by its name and where it lies."""
    path = Path(model).expanduser()
    if path.exists() and ("/" in model or path.is_file()):
        where = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
        name = f"{path.resolve().stem}-{where}"
    else:
        name = model if revision is None else f"{model}@{revision}"
    return re.sub(r"[^\w.@+=-]", "-", name.replace("/", "--")).lstrip(".")[:150] or "model"
