"""The layers in pyproject.toml hold, and an import that runs up is found."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-c", "from importlinter.cli import lint_imports_command as run; run()"]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    options = ["--no-cache", "--no-logo", str(folder / "pyproject.toml")]
    return subprocess.run([*command, *options], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("house")
    shutil.copytree(ROOT / "lmm", folder / "lmm", ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.mark.parametrize(
    ("file", "line", "found"),
    [
        ("errors.py", "", ""),
        ("text/fold.py", "import lmm.chat.app\n", "lmm.text is not allowed to import lmm.chat"),
        ("memory/optim.py", "import torch\n", "lmm.memory is not allowed to import torch"),
        ("memory/identity.py", "from lmm import feedback\n", "lmm.memory is not allowed to import lmm.feedback"),
        ("memory/isolated.py", "import lmm.text.names\n", "lmm.memory is not allowed to import lmm.text.names"),
        ("memory/isolated.py", "import lmm.text.questions\n", "lmm.memory is not allowed to import lmm.text.questions"),
        (
            "memory/identity.py",
            "from lmm.adapters.torch_lm import TorchAdapter\n",
            "lmm.memory is not allowed to import lmm.adapters.torch_lm",
        ),
        ("chat/commands.py", "import lmm.chat.session\n", "No cycles are allowed in lmm.chat"),
    ],
)
def test_layers(copy: Path, file: str, line: str, found: str) -> None:
    path = copy / "lmm" / file
    before = path.read_text()
    path.write_text(before + line)
    done = lint(copy)
    path.write_text(before)
    assert found in done.stdout
    assert done.returncode == (1 if line else 0), done.stdout + done.stderr


def test_a_memory_may_see_three_modules_of_the_adapters() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [forbidden] = (contract["forbidden_modules"] for contract in contracts if contract["type"] == "forbidden")
    names = {path.stem for path in (ROOT / "lmm" / "adapters").iterdir() if not path.stem.startswith("__")}
    assert names - {name.rpartition(".")[2] for name in forbidden if "adapters" in name} == {"base", "ops", "structure"}
