"""The whole command on the toy model: files, table, plots, options, errors before anything is loaded."""

import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import benching
import numpy as np
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

from lmm import registry
from lmm.bench import lookup, report, run, store
from lmm.bench.settings import EditSettings, LookupSettings
from lmm.cli.app import app
from lmm.config import Config
from lmm.engine import runtime
from lmm.engine.mind import Mind
from lmm.errors import BackendError, LmmError, UsageError
from lmm.lesson import Lesson


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "edits.json"
    names = ("prompt", "answer", "rephrases", "locality")
    path.write_text(json.dumps([{n: asdict(e)[n] for n in names} for e in benching.edits(8)]))
    return path


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {**registry.MEMORIES, "told": "benching:Told", "loose": "benching:Loose"}
    monkeypatch.setattr(registry, "table", lambda group: table)
    monkeypatch.setattr(runtime, "load_adapter", lambda config: benching.adapter())
    benching.Told.heard, benching.Told.learned = [], 0


def invoke(*words: str) -> Any:
    return CliRunner().invoke(app, ["bench", "edit", *words])


@pytest.mark.slow
def test_the_command(data: Path, tmp_path: Path) -> None:
    known = tmp_path / "known.json"
    known.write_text(json.dumps([{"prompt": "sun", "attribute": "star"}]))
    out = tmp_path / "out"
    words = ["--data", str(data), "--memory", "told,none", "--edits", "2,8", "--known", str(known), "--out", str(out)]
    done = invoke(*words, "--skip", "speed")
    assert done.exit_code == 0, done.output
    result = json.loads((out / "result.json").read_text())
    rows = {(row["memory"], row["edits"]): row for row in result["rows"]}
    assert list(rows) == [("told", 2), ("told", 8), ("none", 2), ("none", 8)]
    assert rows["told", 8]["reliability"] == rows["told", 8]["locality"] == 1.0
    assert rows["none", 8]["reliability"] == 0.0
    assert rows["told", 8]["known_unchanged"] == 1.0
    assert rows["told", 8]["ppl_ratio"] is None
    picture = tmp_path / "all.png"
    drawn = CliRunner().invoke(app, ["bench", "plot", str(out), str(out / "result.json"), "--out", str(picture)])
    assert drawn.exit_code == 0 and picture.read_bytes().startswith(b"\x89PNG")
    foreign = CliRunner().invoke(app, ["bench", "plot", str(known)])
    assert isinstance(foreign.exception, UsageError)
    about = result["run"]
    assert (about["model"], about["backend"], about["data"]["format"]) == ("toy", "toy", "lmm")
    for name in ("command", "revision", "dtype", "lmm_version", "commit", "date", "seed"):
        assert name in about
    table = (out / "table.md").read_text()
    assert "| told | 8 | 1.000 [1.000, 1.000] |" in table
    assert about["data"]["sha256"] in table
    assert (out / "scores.png").read_bytes()[:4] == (out / "lesson_seconds.png").read_bytes()[:4] == b"\x89PNG"
    assert "told, N=8" in done.output
    again = invoke(*words, "--skip", "speed")
    assert again.exit_code == 0
    assert benching.Told.learned == 8  # finished: nothing is done twice
    assert json.loads((out / "result.json").read_text())["rows"] == result["rows"], "with the date of their own"
    words[words.index("told,none")] = "loose"
    assert invoke(*words, "--skip", "speed").exit_code == 0
    later = json.loads((out / "result.json").read_text())["rows"]
    assert later[:4] == result["rows"] and [row["memory"] for row in later[4:]] == ["loose", "loose"]


def test_a_single_size_gives_bars(data: Path, tmp_path: Path) -> None:
    done = invoke("--data", str(data), "--memory", "told", "--edits", "3", "--out", str(tmp_path / "o"), "--no-resume")
    assert done.exit_code == 0, done.output
    row = json.loads((tmp_path / "o" / "result.json").read_text())["rows"][0]
    assert row["lesson_vs_reply"] > 0
    assert (tmp_path / "o" / "scores.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--memory", "tolld"], "unknown memory 'tolld': did you mean 'told'"),
        (["--memory", ""], "names no memory"),
        (["--memory", "told", "--edits", "ten"], "whole numbers, by commas"),
        (["--memory", "told", "--edits", "9"], "has 8 records, fewer than the 9"),
        (["--memory", "told", "--format", "zrse"], "did you mean 'zsre'"),
        (["--memory", "told", "--set", "x=1"], "unknown option 'x'"),
        (["--memory", "told,in_context", "--set", "count=1"], "name the memory it is for, e.g. --set told.count=1"),
        (["--memory", "in_context", "--set", "count=0"], "count must be 1 or above"),
        (["--memory", "none", "--preset", "none.x"], "has no presets"),
        (["--memory", "told", "--text", "nowhere.txt"], "nowhere.txt of --text does not exist"),
        (["--memory", "told", "--known", "nowhere.json"], "nowhere.json cannot be read"),
        (["--memory", "told", "--skip", "rest"], "skip must be one of locality, "),
    ],
)
def test_mistakes_are_found_before_the_model_is_loaded(
    data: Path, words: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "load_adapter", lambda config: pytest.fail("the model was loaded"))
    sized = words if "--edits" in words else [*words, "--edits", "4"]
    done = invoke("--data", str(data), *sized)
    assert isinstance(done.exception, LmmError)
    assert message in str(done.exception)


def test_what_peft_lora_needs_is_found_missing_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "pick_backend", lambda name: "mlx_lm")
    with pytest.raises(BackendError, match="needs the torch backend, not mlx_lm"):
        run.builder("peft_lora", Config(), {}, {})
    monkeypatch.setattr(registry, "pick_backend", lambda name: "torch")
    monkeypatch.setattr(run.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"pip install 'lmm\[bench\]'"):
        run.builder("peft_lora", Config(), {}, {})


def test_without_matplotlib_the_numbers_are_still_there(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.importlib.util, "find_spec", lambda name: None)
    settings = EditSettings(sizes=(2,), skip=frozenset({"speed"}))
    run.run(run.EditRequest((data,), ("told",), settings, Config(), out=tmp_path / "o"))
    assert {p.name for p in (tmp_path / "o").iterdir()} >= {"result.json", "table.md"}
    assert not list((tmp_path / "o").glob("*.png"))


def test_options_find_their_memory() -> None:
    assert run.parse_options(["in_context.count=1", "keyed.lr=0.5"], ("keyed", "in_context")) == {
        "in_context": {"count": 1},
        "keyed": {"lr": 0.5},
    }
    assert run.parse_options(["lr=0.5"], ("none", "keyed")) == {"keyed": {"lr": 0.5}}
    assert run.builder("in_context", Config(), {"in_context": {"count": 2}}, {})().options.count == 2


def test_an_interrupted_command_keeps_what_is_finished(data: Path, tmp_path: Path) -> None:
    settings = EditSettings(sizes=(4,), skip=frozenset({"speed"}))
    request = run.EditRequest((data,), ("told", "mutates"), settings, Config(), out=tmp_path / "o")
    registry.table("lmm.memories")["mutates"] = "benching:Mutates"
    with pytest.raises(LmmError, match="left the model changed"):
        run.run(request)
    assert [row["memory"] for row in json.loads((tmp_path / "o" / "result.json").read_text())["rows"]] == ["told"]


def test_columns_without_values_are_left_out() -> None:
    rows = [
        {"memory": "m", "edits": 1, "reliability": 0.5, "locality": None, "intervals": {"reliability": [0.25, 0.75]}}
    ]
    assert report.cells(rows) == (["memory", "N", "reliability"], [["m", "1", "0.500 [0.250, 0.750]"]])


def test_contains_stands_beside_exact_match() -> None:
    """A peer that answers in a sentence is never exact: the table and the plots show what else it knows."""
    row = {"memory": "m", "edits": 1, "reliability": 0.25, "reliability_contains": 0.75, "mean_score": 0.5}
    headings, lines = report.cells([row | {"generalization_contains": 0.5, "mean_score_contains": 0.625}])
    shown = dict(zip(headings, lines[0], strict=True))
    assert (shown["reliability"], shown["reliability, contains"]) == ("0.250", "0.750")
    assert (shown["generalization, contains"], shown["mean"], shown["mean, contains"]) == ("0.500", "0.500", "0.625")
    axis = Figure().subplots()
    report._bars(axis, [row], "reliability")
    report._group(axis, [None, row], "reliability", 0, 1, "m")
    report._lines(axis, [row, row | {"edits": 10}], "reliability")
    assert [bar.get_height() for bar in axis.patches] == [0.25, 0.75, 0.25, 0.75]
    assert [list(line.get_ydata()) for line in axis.lines[-2:]] == [[0.25, 0.25], [0.75, 0.75]]
    titles = [report._title(name, [row]) for name in report.SCORES]
    assert titles == ["reliability (dotted: contains)", "generalization", "locality"]


def test_a_lookup_is_timed_with_all_its_parts() -> None:
    index = lookup.index_of(300)
    assert len(index) == 300
    for prompt, asked in zip(lookup.TAUGHT, lookup.ASKED, strict=True):
        assert index.prompts[index.match([asked])[0][0][0]] == prompt, "found by the pair model, in other words"
    found = lookup.time_lookups(LookupSettings((20, 200), 3))
    assert [f.size for f in found] == [20, 200]
    assert all(0 < f.search_s < f.whole_s <= f.whole_p95_s and f.added_s > 0 for f in found)
    assert np.allclose(np.linalg.norm(lookup.unit_vectors(4, 8, 0), axis=1), 1)


def test_lookup_times_are_a_table_or_json() -> None:
    done = CliRunner().invoke(app, ["bench", "lookup", "--sizes", "100,200", "--repeats", "2", "--reply-s", "1"])
    assert done.exit_code == 0, done.output
    assert [line.split("\t")[0] for line in done.output.splitlines()] == ["lessons", "100", "200"]
    assert done.output.count("%") == 2
    done = CliRunner().invoke(app, ["bench", "lookup", "--sizes", "100", "--repeats", "2", "--json"])
    assert [row["size"] for row in json.loads(done.output)] == [100]


@pytest.mark.slow
def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from lmm.cli.app import app; "
        "heavy = {'torch', 'mlx', 'transformers', 'matplotlib', 'peft', 'numpy'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_score_knows_all_code_it_depends_on() -> None:
    """What it does not know could change, and an old row would pass for one of today's code."""
    root = Path(store.__file__).parents[1]
    sources = [(root / name).read_text() for name in store.SCORING if name.endswith(".py")]
    imported = {name for text in sources for name in re.findall(r"^from lmm\.(\S+) import", text, re.MULTILINE)}
    known = {name.removesuffix(".py").replace("/", ".") for name in store.SCORING}
    assert imported - known == {"errors"}


def test_commit_names_this_tree_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = store.commit()
    assert found is None or len(found.removesuffix("-dirty")) == 40
    monkeypatch.setattr(store, "__file__", str(tmp_path / "lmm" / "bench" / "store.py"))
    assert store.commit() is None


@pytest.mark.slow
def test_a_memory_begins_with_a_file(data: Path, tmp_path: Path) -> None:
    """It damages "size A" from the beginning; another file by the same name is another beginning."""

    def begin(*pairs: tuple[str, str]) -> None:
        mind = Mind(benching.adapter(), benching.Told())
        for prompt, answer in pairs:
            mind.learn(Lesson(prompt=prompt, answer=answer))
        mind.save(tmp_path / "begun.safetensors")

    words = ["--data", str(data), "--edits", "2", "--skip", "speed,known", "--out", str(tmp_path / "out")]
    scores = []
    for pairs in ([("size A", "Rome"), ("color A", "Rome")], [("size C", "Rome")]):
        begin(*pairs)
        done = invoke(*words, "--memory", f"told={tmp_path / 'begun.safetensors'}")
        assert done.exit_code == 0, done.output
        [row] = json.loads((tmp_path / "out" / "result.json").read_text())["rows"]
        assert row["memory"] == "told=begun.safetensors" and row["reliability"] == 1.0
        scores.append(row["locality"])
    assert scores == [0.5, 1.0]


def test_a_beginning_that_cannot_be_is_told_before_anything_is_loaded(data: Path) -> None:
    (data.parent / "other").mkdir()
    twin = data.parent / "other" / data.name
    twin.touch()
    for names, error in (
        (("told=nowhere.safetensors",), "no such file"),
        ((f"in_context={data}",), "begins with nothing"),
        ((f"told={data}", f"told={twin}"), f"two files would both be told as told={data.name}"),
    ):
        with pytest.raises(UsageError, match=error):
            run.run(run.EditRequest((data,), names, EditSettings((1,)), Config()))


def test_an_empty_request_says_so(data: Path) -> None:
    with pytest.raises(UsageError, match="names no memory"):
        run.run(run.EditRequest((data,), (), EditSettings(sizes=(1,)), Config()))
