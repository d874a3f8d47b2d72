"""What a run keeps in its folder, so that it can go on after an interruption.

run.json               the settings; a folder holds one run
baseline/*.jsonl       replies without memory, one file for each list of prompts
<memory>/lessons.jsonl what each lesson cost
<memory>/taught-N.safetensors   the memory after N lessons
<memory>/asked-N/*.jsonl        its replies
<memory>/rows.json     its finished rows
result.json, table.md, *.png    the result
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lmm
from lmm.errors import UsageError
from lmm.files import jsonl
from lmm.files.atomic import write_atomically

if TYPE_CHECKING:
    from lmm.adapters.base import Adapter

JSON = dict[str, Any]


def write_json(path: Path, value: Any) -> None:
    write_atomically(path, [json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"])


def read_json(path: Path) -> Any:
    """The file's value; None if it is missing or half written."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def append_lines(path: Path, records: Iterable[JSON]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def read_lines(path: Path) -> list[JSON]:
    """Whole records of a JSONL file; what an interruption cut off is left out."""
    return list(jsonl.values(path)) if path.exists() else []


def digest(*parts: Any) -> str:
    """A short name for what `parts` (JSON-able) say."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


#: the parts of the package that a reply without memory depends on, those that a score of it adds, those of a memory
READING = ("adapters", "engine", "text")
SCORING = ("bench/datasets.py", "bench/metrics.py", "bench/rows.py", "text")
LEARNING = ("memory", "encoders", "bench/peers.py")


def code_digest(names: Sequence[str], *others: str | None) -> str:
    """The source and data of parts of the package, and other files: what other code answered is asked again."""
    root = Path(__file__).parent.parent
    paths = [p for name in names for p in sorted([root / name, *(root / name).rglob("*")])]
    found = hashlib.sha256()
    for path in [*paths, *(Path(other) for other in others if other)]:
        if path.is_file() and path.suffix != ".pyc":
            found.update(path.read_bytes())
    return found.hexdigest()[:16]


def commit() -> str | None:
    """The commit of the source tree this runs from; `-dirty` if files differ from it, None if it is no git tree."""
    root = Path(__file__).parents[2]

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if Path(git("rev-parse", "--show-toplevel")).resolve() == root.resolve():
            return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", "lmm") else "")
    return None


def stamp() -> JSON:
    """Which code measured something, and when."""
    return {"commit": commit(), "date": datetime.now().astimezone().isoformat(timespec="seconds")}


def model_of(adapter: Adapter) -> JSON:
    """Which model is measured: must be the same for a run to be gone on with."""
    return {
        "model": adapter.model_id,
        "revision": adapter.revision,
        "backend": adapter.name,
        "dtype": adapter.dtype,
        "layer": adapter.layer,
    }


def circumstances(adapter: Adapter, command: str) -> JSON:
    """What else a result says to be repeated by; it may change when a run is gone on with."""
    machine = {"device": adapter.device, "machine": platform.machine(), "lmm_version": lmm.__version__}
    return {"command": command} | machine | stamp()


class Folder:
    """The folder of one run. Raises UsageError if it holds a run with other settings."""

    def __init__(self, path: Path, settings: JSON, resume: bool = True) -> None:
        self.path = path
        if not resume:
            self._clear()
        path.mkdir(parents=True, exist_ok=True)
        before = read_json(path / "run.json")
        if before is not None and before != settings:
            names = sorted(key for key in before | settings if before.get(key) != settings.get(key))
            differences = "; ".join(f"{key}: {before.get(key)!r} there, {settings.get(key)!r} now" for key in names)
            raise UsageError(
                f"{path} holds a run with other settings ({differences}); start over with --no-resume, "
                "or choose another folder with --out"
            )
        write_json(path / "run.json", settings)

    def _clear(self) -> None:
        """Remove an earlier run, and only that: a folder without a run.json is not ours."""
        if (self.path / "run.json").exists():
            for part in (p for p in self.path.iterdir() if (p / ".lmm-bench").exists()):
                shutil.rmtree(part)
            for name in ("run.json", "result.json", "table.md"):
                (self.path / name).unlink(missing_ok=True)

    def part(self, name: str) -> Path:
        """A sub-folder of the run, marked as its own. Raises UsageError if one that is not is in its place."""
        folder = self.path / name
        if folder.exists() and not (folder / ".lmm-bench").exists():
            raise UsageError(f"{folder} exists and is no part of a run; choose another folder with --out")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lmm-bench").touch()
        return folder

    def memory(self, name: str, key: str) -> Path:
        """The sub-folder of a memory; what another `key` (its options, the code) left there is removed."""
        folder = self.path / name
        if (folder / ".lmm-bench").exists() and read_json(folder / "key.json") != key:
            shutil.rmtree(folder)
        folder = self.part(name)
        write_json(folder / "key.json", key)
        return folder


class KeptReplies:
    """Replies to lists of prompts: a list is answered whole, or it is asked again whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str, prompts: Sequence[str]) -> list[JSON] | None:
        records = {r["prompt"]: r for r in read_lines(self.folder / f"{key}.jsonl")}
        return [records[p] for p in prompts] if all(p in records for p in prompts) else None

    def put(self, key: str, records: Sequence[JSON]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        write_atomically(self.folder / f"{key}.jsonl", [lines.encode()])
