"""Settings: flags over the environment over the file over defaults; nothing misspelt is ignored."""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from pathlib import Path

import pytest

import lmm
from lmm.cli.config_file import changed, sample
from lmm.config import GROUPS, VARIABLES, Config, Decoding, load, parse_settings
from lmm.engine.runtime import build_memory
from lmm.errors import UsageError
from lmm.options import fitted


@pytest.fixture
def file() -> Path:
    """The config file of this test; `conftest` gives each test a path of its own."""
    return Path(os.environ["LMM_CONFIG"])


def test_without_anything_the_defaults_hold(file: Path) -> None:
    assert not file.exists() and load({}) == Config()
    assert Config().model == "smollm2-135m-instruct" and Config().deterministic


def test_flags_over_environment_over_file_over_defaults(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('max_tokens = 10\nmemory = "lora_on_user"\nlog = false\ntemperature = 1\n[options]\nrank = 4\n')
    found = load({})
    assert (found.max_tokens, found.memory, found.log, found.options) == (10, "lora_on_user", False, {"rank": 4})
    assert found.temperature == 1.0 and isinstance(found.temperature, float)
    monkeypatch.setenv("LMM_MAX_TOKENS", "20")
    monkeypatch.setenv("LMM_LOG", "yes")
    monkeypatch.setenv("LMM_TOP_P", "0.5")
    found = load({"seed": None})
    assert (found.max_tokens, found.log, found.top_p, found.memory) == (20, True, 0.5, "lora_on_user")
    found = load({"max_tokens": 30, "memory": None, "log": False})
    assert (found.max_tokens, found.log, found.memory, found.top_p) == (30, False, "lora_on_user", 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('modle = "x"', r"config\.toml.*unknown setting 'modle': did you mean 'model'"),
        ("max_tokens = 2.5", "max_tokens must be a whole number, not 2.5"),
        ("max_tokens = [1]", "max_tokens must be a whole number"),
        ("max_tokens = true", "max_tokens must be a whole number, not True"),
        ('log = "perhaps"', "log must be true or false, not 'perhaps'"),
        ('temperature = "warm"', "temperature must be a number, not 'warm'"),
        ("model = ['a']", "model must be a text"),
        ("options = 3", "options must be"),
        ("model = ", "cannot be read"),
        ("model = " + "[" * 20_000, "cannot be read"),
    ],
)
def test_a_bad_file_is_a_usage_error_that_says_where(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        load({})


def test_a_bad_environment_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMM_SEED", "seven")
    with pytest.raises(UsageError, match="the environment: seed must be a whole number, not 'seven'"):
        load({})
    monkeypatch.delenv("LMM_SEED")
    monkeypatch.setenv("LMM_MAX_TOKEN", "3")
    with pytest.raises(UsageError, match="LMM_MAX_TOKEN in the environment: did you mean LMM_MAX_TOKENS"):
        load({})
    monkeypatch.delenv("LMM_MAX_TOKEN")
    monkeypatch.setenv("LMM_SOMETHING_ELSE", "3")
    assert load({}) == Config()


def test_all_that_is_wrong_is_said_at_once_and_where(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('modle = "x"\nmax_tokens = 0\nlog = false')
    monkeypatch.setenv("LMM_SEED", "seven")
    with pytest.raises(UsageError) as caught:
        load({"top_p": 7.0, "learn": "aks"})
    problems = str(caught.value).split("; ")
    assert len(problems) == 5 and "config.toml: unknown setting 'modle'" in problems[0]
    assert "config.toml: max_tokens must be 1 or above, not 0" in problems[1]
    assert problems[2] == "the environment: seed must be a whole number, not 'seven'"
    assert problems[3] == "top_p must be above 0 and at most 1, not 7.0"
    assert problems[4] == "learn must be one of auto, ask, off, not 'aks': did you mean 'ask'?"


@pytest.mark.parametrize("key", Config.kinds())
def test_every_setting_is_declared_and_can_be_given_in_every_way(key: str, file: Path, monkeypatch) -> None:
    declared = Config.declared()[key]
    assert declared.why and declared.group in GROUPS
    default = getattr(Config(), key)
    assert default is None or fitted(default, Config.kinds()[key]) == default
    if key == "options":
        file.write_text("[options]\nrank = 4")
        assert load({}).options == {"rank": 4}
        return
    other = {bool: not default, int: 7, float: 0.5, str: declared.one_of[-1] if declared.one_of else "x"}
    value = other[Config.kinds()[key]]
    if declared.flag_only:
        assert getattr(load({key: value}), key) == value  # elsewhere: test_models_loadable
        return
    file.write_text(f"{key} = {str(value).lower() if not isinstance(value, str) else repr(value)}")
    assert getattr(load({}), key) == value
    assert getattr(load({key: default}), key) == (default if default is not None else value)
    file.unlink()
    monkeypatch.setenv(f"LMM_{key.upper()}", str(value))
    assert load({}) == dataclasses.replace(Config(), **{key: value})


def test_the_sample_names_every_setting_with_its_default() -> None:
    text = sample()
    switched_on = re.sub(r"^#(?=\w+ = .)", "", text, flags=re.M)
    assert Config.of(tomllib.loads(switched_on)) == Config() and tomllib.loads(text) == {}
    kept = {name: declared for name, declared in Config.declared().items() if not declared.flag_only}
    assert set(re.findall(r"^#\[?(\w+)", text, re.M)) == set(kept)
    for name, declared in kept.items():
        assert name == "options" or f"# {declared.help}\n#{name} =" in text


def test_other_variables_of_ours_are_named() -> None:
    found = {
        name
        for path in Path(lmm.__file__).parent.rglob("*.py")
        for name in re.findall(r"LMM_[A-Z_]*[A-Z]", path.read_text(encoding="utf-8"))
    }
    assert found - {f"LMM_{key.upper()}" for key in Config.declared()} == set(VARIABLES)


FILE = """\
# mine
model = "a # b"  # why

#stop_repeats = true
log = false

[options]  # of the memory
steps = 3
"""


@pytest.mark.parametrize(
    ("key", "value", "old", "new"),
    [
        ("model", 'c "d" \\', 'model = "a # b"  # why', 'model = "c \\"d\\" \\\\"  # why'),
        ("stop_repeats", "false", "#stop_repeats = true\n", "#stop_repeats = true\nstop_repeats = false\n"),
        ("log", "yes", "log = false", "log = true"),
        ("min_p", "0.5", "log = false\n", "log = false\nmin_p = 0.5\n"),
        ("options.steps", "4", "steps = 3", "steps = 4"),
        ("options.lr", "1e-5", "steps = 3\n", "steps = 3\nlr = 1e-05\n"),
        ("options.a.b", "x", "steps = 3\n", 'steps = 3\n"a.b" = "x"\n'),
    ],
)
def test_one_key_of_a_file_changes_and_nothing_else(key: str, value: str, old: str, new: str) -> None:
    assert changed(FILE, key, value) == FILE.replace(old, new) and old in FILE
    assert changed(changed(FILE, key, value), key, value) == changed(FILE, key, value)


def test_a_key_goes_into_an_empty_file_and_into_the_sample() -> None:
    assert changed("", "log", "no") == "log = false\n" and changed("", "options.a", "1") == "[options]\na = 1\n"
    assert changed("log = true", "options.a", "1") == "log = true\n\n[options]\na = 1\n"
    assert changed("log = true", "seed", "1") == "log = true\nseed = 1"
    text = changed(changed(sample(), "options.rank", "4"), "layer", "3")
    assert tomllib.loads(text) == {"layer": 3, "options": {"rank": 4}} and "#layer =\nlayer = 3\n" in text


@pytest.mark.parametrize(
    "text", ['system = """two\nlines"""', "options.rank = 3", '"seed" = 1', "options = {rank = 3}"]
)
def test_what_cannot_be_changed_safely_is_left_to_a_person(text: str) -> None:
    key = {"s": "system", "o": "options.rank", '"': "seed"}[text[0]]
    with pytest.raises(UsageError, match="only a person can change"):
        changed(text, key, "4")


def test_a_negative_seed_is_refused_wherever_it_stands(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"^seed must be 0 or above, not -1"):
        load({"seed": -1})
    file.write_text("seed = -1")
    with pytest.raises(UsageError, match="seed must be"):
        load({})
    monkeypatch.setenv("LMM_SEED", "-2")
    with pytest.raises(UsageError, match="seed must be 0 or above, not -2"):
        load({})
    with pytest.raises(UsageError, match="seed must be"):
        Decoding(seed=-1)
    for memory in ("memoir", "hash_gradient", "keyed+memoir"):
        options = {"memoir.seed" if "+" in memory else "seed": -1}
        with pytest.raises(UsageError, match="seed must be"):
            build_memory(Config(memory=memory, options=options))


def test_an_unreadable_file_is_a_usage_error(file: Path) -> None:
    file.mkdir()
    with pytest.raises(UsageError, match="cannot be read"):
        load({})


def test_values_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="learn must be one of auto, ask, off, not 'maybe'"):
        Config(learn="maybe")
    with pytest.raises(UsageError, match=r"dtype must be one of .*, not 'flaot16': did you mean 'float16'"):
        Config(dtype="flaot16")
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 3  # type: ignore[misc]


def test_settings_are_read_as_what_they_look_like() -> None:
    found = parse_settings(["lr=0.01", "steps=3", "optimizer=adam", "flag=true", "name = a=b "])
    assert found == {"lr": 0.01, "steps": 3, "optimizer": "adam", "flag": True, "name": "a=b"}
    for bad in ("lr", "=3", ""):
        with pytest.raises(UsageError, match="name=value"):
            parse_settings([bad])
