"""Nothing is written over a store, a memory file, a chat or the config by a file name that was typed wrong."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from lmm.adapters.toy import ToyAdapter
from lmm.cli.app import app
from lmm.cli.log_plot import PlotRow, write
from lmm.config import config_path
from lmm.engine.mind import Mind
from lmm.errors import StateError, UsageError
from lmm.files import own, safefile
from lmm.files.activation_log import ActivationLog
from lmm.files.atomic import write_atomically
from lmm.files.transcripts import Transcript, data_dir
from lmm.memory.keyed.keyed import Keyed
from lmm.store.base import Memo
from lmm.store.opening import open_store


def store(folder: Path) -> Path:
    path = folder / "texts.sqlite"
    made = open_store(path)
    made.add("ann", [Memo("The key is under the pot.")])
    made.close()
    return path


def saved(folder: Path) -> Path:
    mind = Mind(ToyAdapter(), Keyed())
    path = mind.save(folder / "memory.safetensors")
    mind.close()
    return path


def weights(folder: Path) -> Path:
    path = folder / "weights.safetensors"
    write_atomically(path, safefile.to_chunks({"w": np.ones(3, np.float32)}, {"format": "pt"}))
    return path


def config(folder: Path) -> Path:
    config_path().parent.mkdir(parents=True, exist_ok=True)
    config_path().write_text("temperature = 0.5\n")
    return config_path()


def chat(folder: Path) -> Path:
    made = Transcript()
    made.add({"kind": "said", "text": "hello"})
    return made.path


def typed(folder: Path) -> Path:
    data_dir().mkdir(parents=True, exist_ok=True)
    (data_dir() / "history.jsonl").write_text('"hello"\n')
    return data_dir() / "history.jsonl"


def log(folder: Path) -> Path:
    path = folder / "log.jsonl"
    ActivationLog(path).close()
    return path


KINDS = {
    store: own.DATABASE,
    saved: own.MEMORY,
    weights: own.TENSORS,
    config: own.CONFIG,
    chat: own.CHATS,
    typed: own.CHATS,
    log: own.LOG,
}


def exported(path: Path, folder: Path) -> None:
    done = CliRunner().invoke(app, ["recall", "export", str(path), "--user", "ann", "--store", str(store(folder))])
    if done.exception is not None:
        raise done.exception


def encoded(path: Path, folder: Path) -> None:
    done = CliRunner().invoke(app, ["encode", "one", "--out", str(path)])
    if done.exception is not None:
        raise done.exception


def plotted(path: Path, folder: Path) -> None:
    picture = path.with_name(f"{path.name}.html")
    picture.symlink_to(path)
    write([PlotRow("a", [1.0])], picture)


def learned(path: Path, folder: Path) -> None:
    mind = Mind(ToyAdapter(), Keyed())
    try:
        mind.save(path)
    finally:
        mind.close()


def logged(path: Path, folder: Path) -> None:
    ActivationLog(path).close()


@pytest.mark.parametrize("made", KINDS)
@pytest.mark.parametrize(
    ("written", "mine"), [(exported, ""), (encoded, ""), (plotted, ""), (learned, own.MEMORY), (logged, own.LOG)]
)
def test_what_is_lmms_own_is_not_written_over(
    made: Callable[[Path], Path], written: Callable[[Path, Path], None], mine: str, tmp_path: Path
) -> None:
    path = made(tmp_path)
    assert own.what_is(path) == KINDS[made]
    before = path.read_bytes()
    if KINDS[made] == mine:
        written(path, tmp_path)
        return
    with pytest.raises((UsageError, StateError), match=KINDS[made]):
        written(path, tmp_path)
    assert path.read_bytes() == before


def test_what_is_none_of_it_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    for text in ("one", "{damaged", ""):
        path.write_text(text)
        assert own.what_is(path) == ""
        exported(path, tmp_path)
        assert "under the pot" in path.read_text()
    assert own.what_is(tmp_path / "none") == own.what_is("/dev/null") == own.what_is(tmp_path) == ""
    assert own.what_is("\0") == ""


def test_a_store_that_an_export_was_to_replace_is_whole(tmp_path: Path) -> None:
    path = store(tmp_path)
    with pytest.raises(UsageError, match="name another file"):
        exported(path, tmp_path)
    assert sqlite3.connect(path).execute("SELECT text FROM memos").fetchall() == [("The key is under the pot.",)]


def test_vectors_are_not_written_over_their_text(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("one")
    done = CliRunner().invoke(app, ["encode", "--file", str(path), "--out", str(path)])
    assert isinstance(done.exception, UsageError) and path.read_text() == "one"
