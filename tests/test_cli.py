"""The command line from outside: exit codes, one line for a mistake, nothing heavy before it is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmm import registry
from lmm.config import Config

pytestmark = pytest.mark.slow  # a program started for each test

HEAVY = ("torch", "mlx", "mlx_lm", "transformers", "matplotlib")


def lmm(*words: str, text: str = "", module: str = "lmm", timeout: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *words], input=text, capture_output=True, text=True, timeout=timeout
    )


def one_line(run: subprocess.CompletedProcess[str], code: int) -> str:
    """The only line on stderr of a run that failed in a way the user can act on."""
    assert run.returncode == code, run.stderr
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("lmm: "), run.stderr
    return lines[0]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nsys.argv = ['lmm', '--help']\nfrom lmm.cli.app import main\n"
        "try: main()\nexcept SystemExit as e: assert not e.code, e.code\n"
        f"print('LOADED', sorted(set(sys.modules) & set({HEAVY!r})))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "chat" in run.stdout and "memories" in run.stdout
    loaded = run.stdout.rpartition("LOADED ")[2].strip()
    assert not [name for name in ("torch", "mlx", "mlx_lm", "transformers", "matplotlib") if f"'{name}'" in loaded], (
        loaded
    )


@pytest.mark.parametrize("words", [("--help",), ("chat", "--help")])
def test_help_is_help(words: tuple[str, ...]) -> None:
    run = lmm(*words)
    assert run.returncode == 0 and "Usage" in run.stdout


def test_chat_has_every_flag_of_the_specification_and_every_setting() -> None:
    text = lmm("chat", "--help").stdout
    for flag in (
        "--backend", "--model", "--memory", "--mm-load-path", "--mm-save-path", "--mm-path", "--deterministic",
        "--non-deterministic", "--decoding-strategy", "--local-files-only", "--activation-log-path", "--system",
        "--max-tokens", "--temperature", "--top-p", "--seed", "--layer", "--no-log", "--set", "--continue", "--resume",
    ):  # fmt: skip
        assert flag in text, flag
    for name, declared in Config.declared().items():
        assert (declared.flag.split("/")[0] or f"--{name.replace('_', '-')}") + " " in text, name


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("lmm chat --memory lo", ["lora_on_user"]),
        ("lmm ask --memory keyed+ha", ["keyed+hash_gradient"]),
        ("lmm bench edit --memory keyed,mem", ["keyed,memoir"]),
        ("lmm smoke --backend ml", ["mlx_lm"]),
        ("lmm chat --learn a", ["auto", "ask"]),
        ("lmm chat --memory zz", []),
    ],
)
def test_the_shell_completes_names(line: str, offered: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    words = line.split()
    monkeypatch.setenv("_LMM_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    code = "import sys; sys.argv = ['lmm']; from lmm.cli.app import main; main()"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.split() == offered and run.returncode == 0


def test_memories_are_listed_one_line_each() -> None:
    lines = lmm("memories").stdout.strip().splitlines()
    assert [line.split()[0] for line in lines] == list(registry.table("lmm.memories"))
    assert all(len(line.split()) > 3 for line in lines)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--memory", "lora_on_usr"), "did you mean 'lora_on_user'"),
        (("--backend", "troch"), "did you mean 'torch'"),
        (("--model", "smollm2-135m-instrct", "--backend", "torch"), "did you mean 'smollm2-135m-instruct'"),
        (("--decoding-strategy", "best"), "auto, greedy, beam, sample"),
        (("--memory", "lora_on_user", "--set", "rnk=3"), "unknown option 'rnk': did you mean 'rank'"),
        (("--memory", "lora_on_user", "--set", "rank=many"), "rank must be a whole number"),
        (("--dtype", "flaot16"), "did you mean 'float16'"),
        (("--top-p", "7"), "top_p must be"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(words: tuple[str, ...], message: str) -> None:
    assert message in one_line(lmm("chat", *words, text="hello\n"), 2)


def test_an_unknown_command_or_flag_is_exit_code_2() -> None:
    assert lmm("chta").returncode == 2
    assert lmm("chat", "--modle", "x").returncode == 2


def test_a_bad_config_file_is_one_line_and_exit_code_2() -> None:
    Path(os.environ["LMM_CONFIG"]).write_text('memroy = "identity"')
    assert "did you mean 'memory'" in one_line(lmm("chat", text="hello\n"), 2)


# ---------------------------------------------------------------- real runs
QUICK = ("--backend", "torch", "--dtype", "float32", "--max-tokens", "8")


@pytest.mark.real
def test_a_pipe_is_answered_line_by_line_and_saved(tmp_path: Path) -> None:
    """Also: a memory file that does not exist yet is skipped with a notice, as specified."""
    path = tmp_path / "memory.safetensors"
    run = lmm(
        *("chat", *QUICK, "--memory", "lora_on_user", "--mm-path", str(path)), text="My name is Ada.\nWho am I?\n"
    )
    assert run.returncode == 0, run.stderr
    assert len([line for line in run.stdout.splitlines() if line.strip()]) >= 2
    assert "does not exist" in run.stderr and "fresh memory" in run.stderr
    assert path.exists() and path.stat().st_mode & 0o777 == 0o600
    assert Path("logs/memory_activations.jsonl").exists()
    shown = lmm("memory", "show", str(path))
    assert shown.returncode == 0 and "lora_on_user" in shown.stdout and "My name is Ada." in shown.stdout


@pytest.mark.real
def test_where_it_cannot_save_it_says_so_in_one_line_and_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    target = tmp_path / "file" / "memory.safetensors"
    run = lmm("chat", *QUICK, "--memory", "lora_on_user", "--mm-save-path", str(target), text="My name is Ada.\n")
    assert run.stdout.strip(), "the question was answered"
    complaints = [line for line in run.stderr.splitlines() if "cannot save" in line]
    assert len(complaints) == 1 and "Traceback" not in run.stderr and run.returncode == 1
    assert list(Path("artifacts").glob("lora_on_user_*.safetensors")), f"what was learned is lost: {run.stderr}"


CLEANING_UP = """
import os, signal, time
import lmm.cli.app
from lmm.cli import entry

class Lock:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

def run():
    lock = Lock()
    del lock
    time.sleep(30)

signal.signal(signal.SIGINT, signal.default_int_handler)
lmm.cli.app.main = run
entry.main()
"""


def test_a_name_that_the_system_refuses_is_shown_clean() -> None:
    code = "from lmm.cli.entry import main; main()"
    name = "\x1b]52;c;" + "Q" * 300 + "\x07"
    run = subprocess.run(
        [sys.executable, "-c", code, "memory", "show", name], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 1 and run.stderr.endswith("File name too long\n"), run.stderr
    assert "\x1b" not in run.stderr and "\x07" not in run.stderr


def test_an_interrupt_while_an_object_is_cleaned_up_counts() -> None:
    run = subprocess.run([sys.executable, "-c", CLEANING_UP], capture_output=True, text=True, timeout=20)
    assert (run.returncode, run.stderr) == (130, "")
