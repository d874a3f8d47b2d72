"""Memory files: what is saved comes back, and nothing else is ever loaded."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import multiprocessing
import os
import resource
import stat
import struct
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lmm.adapters.models.source import PACKAGED
from lmm.engine import memory_files
from lmm.errors import StateError
from lmm.files import atomic, safefile
from lmm.files import state_file as state_module
from lmm.files.state_file import Expected, Header, default_save_path, inspect, load, read_header, save, verify
from lmm.lesson import Lesson

FAST = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
DTYPES = [
    "float64",
    "float32",
    "float16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint64",
    "uint32",
    "uint16",
    "uint8",
    "bool",
]
LESSON = Lesson("What is my sister's name?", "Ada", "My sister's name is Ada.", time=1.5, id="0123456789ab")


def header(**changes) -> Header:
    values = Header(
        module="lora_on_user", options={"rank": 8, "lr": 1e-3}, model_id="some/model", revision="abc",
        layer=15, layers=30, width=576, tokenizer_hash="deadbeef", backend="torch", lessons=[LESSON], extra={"undo": 2},
    )  # fmt: skip
    return dataclasses.replace(values, **changes)


def small_state() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "A": generator.normal(size=(3, 2)).astype(np.float32),
        "mask": np.array([True, False, True]),
        "rows": np.arange(5),
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.safetensors"


@pytest.fixture(scope="module")
def valid(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("valid") / "m.safetensors"
    save(path, small_state(), header())
    return path.read_bytes()


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert np.array_equal(found[name], array)


def assert_same_header(found: Header, wanted: Header) -> None:
    assert dataclasses.replace(found, saved_at="", lmm_version="") == wanted


LARGEST = {"float16": 65504.0, "float32": float(np.finfo(np.float32).max), "float64": float(np.finfo(np.float32).max)}


# round trips ---------------------------------------------------------------------------------------------------
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        hnp.array_shapes(min_dims=0, min_side=0, max_side=4),
        elements={"min_value": -LARGEST[dtype], "max_value": LARGEST[dtype]} if dtype in LARGEST else None,
    )
)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda name: name != "__metadata__")
any_text = st.text(st.characters(), max_size=20)  # lone surrogates too: a terminal can deliver them
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=8,
)
lessons = st.lists(
    st.builds(
        Lesson, prompt=any_text, answer=any_text, statement=any_text, source=any_text,
        time=st.floats(-1e12, 1e12), id=st.text(min_size=1, max_size=8),
    ),
    max_size=4, unique_by=lambda lesson: lesson.id,
)  # fmt: skip


@FAST
@example(
    {}, [dataclasses.replace(LESSON, answer="\udce9t\u00e9", id="1"), LESSON], {"a": "b"}, "/models/\udcff", "\udc80"
)
@given(
    contents=st.dictionaries(names, arrays, max_size=4),
    taught=lessons,
    options=st.dictionaries(any_text, json_values, max_size=3),
    model=any_text,
    revision=st.none() | any_text,
)
def test_what_is_saved_comes_back(path, contents, taught, options, model, revision):
    wanted = header(lessons=taught, options=options, model_id=model, revision=revision, extra=options)
    save(path, contents, wanted)
    found, found_header = load(path)
    assert_same(found, contents)
    assert_same_header(found_header, wanted)
    assert verify(path) == []
    assert read_header(path) == found_header


def test_numbers_up_to_the_limits_come_back(path):
    largest = header(width=2**31 - 1, lessons=[dataclasses.replace(LESSON, time=9.9e299)])
    save(path, {}, largest)
    assert_same_header(load(path)[1], largest)


def test_a_header_longer_than_can_be_read_is_not_written(path, monkeypatch):
    assert safefile.MAX_HEADER == 100_000_000  # the library's own limit: see test_hostile_header_length
    monkeypatch.setattr(safefile, "MAX_HEADER", 500)
    with pytest.raises(StateError, match=r"its lessons and names take \d+ bytes; at most 500 are allowed"):
        save(path, small_state(), header())
    assert not path.exists()


def test_layouts_that_are_not_dense_keep_their_values(path):
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    contents = {"t": base.T, "step": base[::2, ::-1], "big_endian": base.astype(">f4"), "scalar": np.array(3.0)}
    save(path, contents, header())
    for name, array in load(path)[0].items():
        assert array.shape == contents[name].shape and np.array_equal(array, contents[name])
        assert array.flags.writeable and array.flags.aligned and array.dtype.isnative


def test_save_stamps_date_and_version(path):
    save(path, {}, header(saved_at="1999", lmm_version="0.0.0"))
    found = read_header(path)
    assert abs(datetime.fromisoformat(found.saved_at).timestamp() - time.time()) < 60
    assert found.lmm_version != "0.0.0"


def test_the_library_reads_our_files(path):
    from safetensors.numpy import load_file

    save(path, small_state(), header())
    assert_same(load_file(path), small_state())


def test_inspect_is_json_and_complete(path):
    save(path, small_state(), header())
    shown = json.loads(json.dumps(inspect(path)))
    assert shown["module"] == "lora_on_user" and shown["parameters"] == 6 + 3 + 5
    assert shown["lessons"] == [LESSON.to_dict()] and shown["bytes"] == path.stat().st_size
    assert {"name": "A", "dtype": "float32", "shape": [3, 2], "bytes": 24} in shown["tensors"]


def test_default_path():
    now = datetime(2026, 2, 3, 4, 5, 6, 78)
    assert default_save_path("hash_gradient", now=now) == Path(
        "artifacts/hash_gradient_20260203_040506_000078.safetensors"
    )


@pytest.mark.slow
def test_ten_thousand_lessons_in_a_second_or_two(path):
    many = [Lesson(f"What is fact {i}?", f"answer {i}", f"Fact {i} is answer {i}.") for i in range(10_000)]
    start = time.process_time()
    save(path, {"x": np.zeros((10_000, 64), np.float32)}, header(lessons=many))
    assert load(path)[1].lessons == many
    assert time.process_time() - start < 4


def test_no_byte_of_a_forgotten_lesson_stays(path):
    secret = Lesson(answer="Rumpelstiltskin", id="secret")
    save(path, small_state(), header(lessons=[LESSON, secret]))
    assert b"Rumpelstiltskin" in path.read_bytes()
    save(path, small_state(), header())
    assert all(b"Rumpelstiltskin" not in file.read_bytes() for file in path.parent.iterdir())


# damage --------------------------------------------------------------------------------------------------------
def loads_the_same_or_fails(path: Path, data: bytes) -> bool:
    """True if it was refused."""
    path.write_bytes(data)
    with contextlib.suppress(StateError):
        read_header(path)
    try:
        found, found_header = load(path)
    except StateError as error:
        assert "\n" not in str(error) and str(error).isprintable()
        assert verify(path)
        return True
    assert_same(found, small_state())
    assert_same_header(found_header, header())
    return False


@pytest.mark.slow
def test_every_flipped_byte_is_noticed(path, valid):
    refused = 0
    for position in range(len(valid)):
        for mask in (0x01, 0x20):
            data = bytearray(valid)
            data[position] ^= mask
            refused += loads_the_same_or_fails(path, bytes(data))
    assert refused >= 2 * len(valid) - 20  # only a padding blank may change unnoticed


@settings(FAST, max_examples=300)
@given(data=st.data())
def test_any_damage_is_noticed(path, valid, data):
    broken = bytearray(valid)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(broken)))
        length = data.draw(st.integers(0, 12))
        broken[start : start + length] = data.draw(st.binary(max_size=12))
    loads_the_same_or_fails(path, bytes(broken))


@FAST
@given(junk=st.binary(max_size=400))
def test_junk_is_refused(path, junk):
    assert loads_the_same_or_fails(path, junk)
    assert loads_the_same_or_fails(path, struct.pack("<Q", len(junk)) + junk)


def test_every_truncation_and_any_appendix_is_refused(path, valid):
    for length in range(0, len(valid), 3):
        assert loads_the_same_or_fails(path, valid[:length])
    for more in (b"\0", b" ", b"garbage" * 100, valid):
        assert loads_the_same_or_fails(path, valid + more)


def rebuilt(valid: bytes, change) -> bytes:
    """A file with a header that `change` edited, checksum and all: what an attacker can write."""
    length = struct.unpack("<Q", valid[:8])[0]
    values = json.loads(valid[8 : 8 + length])
    changed = change(values)
    text = changed if isinstance(changed, bytes) else json.dumps(changed or values).encode()
    return struct.pack("<Q", len(text)) + text + valid[8 + length :]


def tensor(name: str, **fields):
    return lambda values: values[name].update(fields)


def metadata(**fields):
    return lambda values: values["__metadata__"].update(fields)


def embedded(key: str, **fields):
    def change(values):
        inner = json.loads(values["__metadata__"]["header"])
        inner.update(fields)
        values["__metadata__"]["header"] = json.dumps(inner)

    return change


def with_lessons(*taught) -> object:
    return metadata(lessons=json.dumps(list(taught)))


def name_again(values) -> bytes:
    return json.dumps(values).encode()[:-1] + b',"A":' + json.dumps(values["A"]).encode() + b"}"


def both(*changes):
    return lambda values: [change(values) for change in changes] and None


GOOD = LESSON.to_dict()
HOSTILE = {
    "same name twice": (name_again, "twice"),
    "overlap": (tensor("mask", data_offsets=[0, 3]), "invalid offset for tensor `rows`"),
    "gap": (tensor("mask", data_offsets=[65, 68]), "invalid offset for tensor `mask`"),
    "negative offsets": (tensor("A", data_offsets=[-24, 0]), "integer `-24`"),
    "backward offsets": (tensor("A", data_offsets=[24, 0]), "invalid offset"),
    "offsets out of range": (tensor("mask", data_offsets=[2**60, 2**60 + 3]), "invalid offset"),
    "three offsets": (tensor("A", data_offsets=[0, 8, 24]), "invalid length 3"),
    "float offsets": (tensor("A", data_offsets=[0.0, 24.0]), "floating point"),
    "bool shape": (tensor("A", shape=[True, 6]), "boolean `true`"),
    "huge shape": (tensor("A", shape=[2**62, 2**62]), "overflow"),
    "huge shape with a zero": (tensor("A", shape=[0, 2**62, 9]), "invalid shape"),
    "huge rank": (tensor("A", shape=[1] * 100_000), "invalid shape"),
    "huge number": (tensor("A", shape=[10**4000]), "out of range"),
    "number too long for int": (lambda values: b'{"A":' + b"9" * 10_000 + b"}", "out of range"),
    "wrong shape": (tensor("A", shape=[3, 3]), "invalid shape"),
    "unknown dtype": (tensor("A", dtype="F8_E4M3"), "invalid shape, data type"),
    "dtype is a list": (tensor("A", dtype=["F32"]), "sequence"),
    "extra field": (tensor("A", strides=[1]), "described"),
    "dtype that NumPy lacks": (tensor("A", dtype="BF16", shape=[3, 4]), "'A' has the dtype 'BF16'"),
    "two bad tensors": (both(tensor("A", more=1), tensor("mask", dtype="U8", more=1)), "'mask' is not described"),
    "tensor is a list": (lambda values: values.update(A=[]), "invalid length 0"),
    "header is a list": (lambda values: b"[]", "sequence"),
    "deep nesting": (lambda values: b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "recursion limit"),
    "invalid UTF-8": (lambda values: b'{"\xff\xfe": 1}', "UTF-8"),
    "NUL bytes": (lambda values: b"\0" * 64, "JSON"),
    "metadata of numbers": (metadata(format_version=1), "integer `1`"),
    "metadata is a list": (lambda values: values.update(__metadata__=[]), "sequence"),
    "no metadata": (lambda values: values.pop("__metadata__") and None, "no memory file of lmm"),
    "foreign": (metadata(format="pt"), "no memory file of lmm"),
    "newer format": (metadata(format_version="2"), "upgrade lmm"),
    "odd format version": (metadata(format_version="١"), "format version"),
    "no header": (metadata(header=""), "header cannot be read"),
    "deep header": (metadata(header="[" * 100_000), "deeply"),
    "header lacks a field": (metadata(header="{}"), "lacks module"),
    "header has more": (embedded("header", colour="red"), "'colour' is unknown"),
    "layer is text": (embedded("header", layer="15"), "layer"),
    "layer is true": (embedded("header", layer=True), "layer"),
    "width is huge": (embedded("header", width=2**31), "out of range"),
    "width is negative": (embedded("header", width=-1), "out of range"),
    "lessons are a map": (metadata(lessons="{}"), "not a list"),
    "lesson is text": (with_lessons("hello"), "lesson 1"),
    "lesson lacks an id": (with_lessons({"time": 1}), "lesson 1"),
    "lesson has more": (with_lessons(GOOD, {**GOOD, "id": "x", "shell": "rm"}), "lesson 2"),
    "lesson answer is a number": (with_lessons({**GOOD, "answer": 3}), "malformed answer"),
    "lesson time is too large": (with_lessons({**GOOD, "time": 1e300}), "malformed time"),
    "lesson time is NaN": (with_lessons({**GOOD, "time": float("nan")}), "malformed time"),
    "lesson time is infinite": (metadata(lessons=json.dumps([GOOD]).replace("1.5", "1e999")), "malformed time"),
    "lesson id twice": (with_lessons(GOOD, GOOD), "id of another"),
    "other lesson": (with_lessons({**GOOD, "answer": "Bob"}), "checksum"),
    "other model": (embedded("header", model_id="other"), "checksum"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers(path, valid, name):
    change, words = HOSTILE[name]
    path.write_bytes(rebuilt(valid, change))
    with pytest.raises(StateError) as caught:
        load(path)
    assert len(str(caught.value)) < 2500 and str(caught.value).isprintable()
    assert words in "; ".join(verify(path))


@pytest.mark.parametrize("shape", [[1] * 90 + [3, 2], [0, 2**62]])
def test_shapes_that_numpy_lacks(path, shape):
    size = 24 * (shape[0] != 0)
    text = json.dumps({"A": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))
    with safefile.opened(path) as file, pytest.raises(ValueError, match="maximum"):
        file.read_tensors()


@pytest.mark.parametrize("dtype", ["XX", "BF16", "F16"])
def test_a_name_of_a_megabyte_is_cut_and_many_problems_are_counted(path, valid, dtype):
    """Whether the library refuses it, or this reader, or the header's checksum."""
    name = "\x1b[2Jx" * 200_000

    def change(values):
        for i in range(30):
            values[f"{i}{name[: 1_000_000 if i < 3 else 500]}"] = {"dtype": dtype, "shape": [0], "data_offsets": [0, 0]}

    path.write_bytes(rebuilt(valid, change))
    with pytest.raises(StateError) as caught:
        load(path)
    assert len(str(caught.value)) < 3000 and str(caught.value).isprintable()
    assert ("; and 20 more." in str(caught.value)) is (dtype == "BF16")
    problems = verify(path)
    assert len(problems) == (11 if dtype == "BF16" else 1) and max(map(len, problems)) <= 300


@pytest.mark.slow
@pytest.mark.parametrize("what", ["lessons", "tensors"])
def test_more_than_can_be_held_is_refused_before_anything_is_built(path, what):
    most = safefile.MAX_COMMAS
    many = "[" + "{}," * most + "{}]"
    if what == "tensors":
        one = '"dtype":"U8","shape":[0],"data_offsets":[0,0]'
        header = ('{"__metadata__":{}' + "".join(f',"{i}":{{{one}}}' for i in range(most // 3))).encode() + b"}"
    else:
        header = json.dumps({"__metadata__": {"format": "lmm-memory", "lessons": many}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    code = "import sys, resource; from lmm.files import state_file; before = resource.getrusage(0).ru_maxrss\n"
    code += "[problem] = state_file.verify(sys.argv[1])\n"
    code += "print(problem); print((resource.getrusage(0).ru_maxrss - before) / 1024)"
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60, check=True)
    problem, megabytes = run.stdout.splitlines()
    assert "commas" in problem and float(megabytes) < 2 * len(header) / 1e6


def test_what_cannot_be_read_again_is_not_saved(path, monkeypatch):
    monkeypatch.setattr(safefile, "MAX_COMMAS", 50)
    with pytest.raises(StateError, match="commas"):
        save(path, small_state(), header(lessons=[dataclasses.replace(LESSON, id=str(i)) for i in range(9)]))
    assert not path.exists()


def test_numbers_that_read_like_commas_are_none(monkeypatch):
    monkeypatch.setattr(safefile, "MAX_COMMAS", 50)
    assert b"".join(safefile.to_chunks({"a": np.full(100, 0x2C2C2C2C, np.uint32).view(np.float32)}, {}))


@pytest.mark.parametrize(
    ("length", "words"),
    [(2**64 - 1, "too large"), (2**63, "too large"), (100_000_001, "too large"), (10**6, "invalid JSON")],
)
def test_hostile_header_length(path, length, words):
    with path.open("wb") as file:
        file.write(struct.pack("<Q", length) + b"{}")
        file.truncate(200_000_000)  # sparse
    with pytest.raises(StateError, match=words):
        load(path)


def resigned(contents: dict[str, np.ndarray]) -> bytes:
    """A file with right checksums around values that `save` refuses."""
    strings = state_module._to_metadata(header())
    strings["data_sha256"] = state_module._data_digest(contents)
    strings["sha256"] = state_module._digest(strings, {name: (a.dtype, a.shape) for name, a in contents.items()})
    return b"".join(safefile.to_chunks(contents, strings))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_neither_saved_nor_loaded(path, dtype, bad):
    contents = {"fine": np.ones(3, dtype), "B": np.array([[1, bad]], dtype)}
    with pytest.raises(StateError, match="'B' has 1 values that are NaN or infinite"):
        save(path, contents, header())
    assert not path.exists()
    path.write_bytes(resigned(contents))
    with pytest.raises(StateError, match="'B' has 1 values that are NaN or infinite"):
        load(path)


@pytest.mark.parametrize("value", [1e300, -1e39])
def test_what_float32_cannot_hold_is_neither_saved_nor_loaded(path, value):
    """A memory's numbers are float32: after the cast these would be infinite."""
    contents = {"B": np.array([1.0, value, value])}
    with pytest.raises(StateError, match="'B' has 2 values that are NaN or infinite in float32"):
        save(path, contents, header())
    path.write_bytes(resigned(contents))
    with pytest.raises(StateError, match="'B' has 2 values that are NaN or infinite in float32"):
        load(path)


def test_each_tensor_has_aligned_memory_of_its_own(path):
    contents = {f"{i}{dtype}": np.ones(3, dtype) for i in range(5) for dtype in DTYPES}
    save(path, contents, header())
    found, _ = load(path)
    for array in found.values():
        assert array.flags.writeable and array.ctypes.data % 16 == 0
    for count, array in enumerate(found.values(), 1):
        array[:] = 0
        assert sum(other.all() for other in found.values()) == len(found) - count


def test_a_header_is_read_without_the_tensors(path, monkeypatch):
    save(path, {"x": np.zeros(1_000_000)}, header())
    read = []
    monkeypatch.setattr(safefile, "deserialize", read.append)
    assert inspect(path)["tensors"] == [{"name": "x", "dtype": "float64", "shape": [1_000_000], "bytes": 8_000_000}]
    assert read_header(path).module == "lora_on_user" and not read


def test_a_bool_that_is_neither_is_refused(path):
    contents = {"m": np.array([0, 2], np.uint8).view(bool)}
    path.write_bytes(resigned(contents))
    with pytest.raises(StateError, match="no booleans"):
        load(path)


@pytest.mark.parametrize(
    ("name", "array"),
    [("__metadata__", np.ones(2)), ("\udc80", np.ones(2)), ("c", np.ones(2, complex)),
     ("o", np.array([None])), ("s", np.array(["x"]))],
)  # fmt: skip
def test_what_the_format_cannot_keep_is_not_saved(path, name, array):
    with pytest.raises(StateError, match="cannot save"):
        save(path, {name: array}, header())
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [{"options": {"f": print}}, {"layer": -1}, {"width": "576"}, {"lessons": [LESSON, LESSON]},
     {"lessons": [dataclasses.replace(LESSON, time=float("nan"))]}, {"module": None}],
)  # fmt: skip
def test_a_header_that_would_not_load_is_not_saved(path, changes):
    with pytest.raises(StateError, match="cannot save"):
        save(path, {}, header(**changes))
    assert list(path.parent.iterdir()) == []


def test_text_from_the_file_cannot_write_to_the_terminal(path, valid):
    evil = "\x1b]0;owned\x07\x1b[2J\r\n\u202e"
    changes = [
        lambda values: values.update({evil: values.pop("A") | {"dtype": evil}}),
        metadata(format_version=evil),
        embedded("header", **{evil: evil}),
        with_lessons({**GOOD, "id": evil}, {**GOOD, "id": evil}),
    ]
    for change in changes:
        assert loads_the_same_or_fails(path, rebuilt(valid, change))
    save(path, {}, header(model_id=evil, module=evil))
    with pytest.raises(StateError) as caught:
        load(path, Expected(model_id="other", module="other"))
    assert str(caught.value).isprintable()


# what the session needs ------------------------------------------------------------------------------------------
def test_all_mismatches_in_one_error(path):
    save(path, small_state(), header())
    wanted = Expected("other/model", 9, 18, 640, "cafe", "hash_gradient")
    with pytest.raises(StateError) as caught:
        load(path, wanted)
    text = str(caught.value)
    for words in (
        "some/model",
        "other/model",
        "15",
        "9",
        "30",
        "18",
        "576",
        "640",
        "deadbeef",
        "cafe",
        "lora_on_user",
        "hash_gradient",
    ):
        assert words in text
    assert "lmm memory migrate" in text and "--model other/model" in text and "--memory lora_on_user" in text


def test_hints_name_the_model_as_it_is_typed(path):
    save(path, small_state(), header(model_id="theirs.gguf"))
    with pytest.raises(StateError) as caught:
        load(path, Expected("ours.gguf", 9, 18, typed="../models/ours.gguf"))
    text = str(caught.value)
    assert "start with --model PATH/theirs.gguf, or re-teach" in text and "--model ../models/ours.gguf" in text
    assert "--layer" not in text, "of a model with another number of layers"


@pytest.mark.parametrize(
    ("model_id", "typed"),
    [
        ("some/model", "some/model"),
        ("some/model:Q4_K_M", "hf.co/some/model:Q4_K_M"),
        ("llama3.2:1b", "ollama:llama3.2:1b"),
        ("folder", "PATH/folder"),
        (PACKAGED["gemma-3-270m"].model_id, "gemma-3-270m"),
    ],
)
def test_a_model_that_files_know_is_named_as_it_can_be_typed(model_id: str, typed: str):
    assert state_module.typable(header(model_id=model_id, revision="sha256:a5fd")) == typed


def test_the_weights_of_the_hub_are_not_those_of_a_package():
    model_id = PACKAGED["gemma-3-270m"].model_id
    assert state_module.typable(header(model_id=model_id, revision="9b0cfec892e2")) == model_id


def test_what_fits_loads_and_none_means_any(path):
    save(path, small_state(), header())
    load(path, Expected())
    load(path, Expected("some/model", 15, 30, 576, "deadbeef", "lora_on_user"))
    with pytest.raises(StateError, match=r"layer: the file has 15, this session has 14.*--layer 15") as caught:
        load(path, Expected("some/model", 14, 30))
    assert "migrate" not in str(caught.value)


# the disk --------------------------------------------------------------------------------------------------------
@pytest.fixture
def old(path):
    """A saved file, and a check that it is still there, whole and alone."""
    save(path, small_state(), header())
    before = path.read_bytes()
    yield path
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@contextlib.contextmanager
def largest_file(limit: int):
    """The kernel refuses to write beyond `limit` bytes (EFBIG), as it does on a full disk (ENOSPC)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [0, 100, 100_000])
def test_a_file_that_grows_too_large_leaves_the_old_one(old, limit):
    with largest_file(limit), pytest.raises(StateError, match=r"cannot save .*: .*large.*--mm-save-path"):
        save(old, {"x": np.zeros(100_000)}, header())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")
def test_a_device_is_not_replaced_by_a_file(tmp_path):
    for device in ("/dev/full", "/dev/null"):
        with pytest.raises(StateError, match="not a regular file"):
            save(device, {}, header())
        assert stat.S_ISCHR(os.stat(device).st_mode)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_failure_at_any_step_leaves_the_old_one(old, monkeypatch, call, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(StateError if isinstance(error, OSError) else KeyboardInterrupt):
        save(old, {}, header())


def test_order_is_data_then_name_then_folder(path, monkeypatch):
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def seen_fsync(descriptor):
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "data")
        fsync(descriptor)

    def seen_replace(*names):
        calls.append("name")
        replace(*names)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "replace", seen_replace)
    save(path, {}, header())
    assert calls == ["data", "name", "folder"]


def test_folders_are_made_and_the_file_is_private(tmp_path):
    path = tmp_path / "a" / "b" / "m.safetensors"
    save(path, {}, header())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_stays_a_link(tmp_path):
    real, link = tmp_path / "there" / "real.safetensors", tmp_path / "link.safetensors"
    link.symlink_to(real)
    for number in (1, 2):  # dangling, then not
        save(link, {"x": np.array(number)}, header())
        assert link.is_symlink() and load(real)[0]["x"] == number
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for action in (lambda: save(loop, {}, header()), lambda: load(loop)):
        with pytest.raises(StateError):
            action()


def test_paths_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    too_long = tmp_path / ("n" * 300)
    for path in (tmp_path, tmp_path / "file" / "m.safetensors", too_long, "/proc/nothing/m.safetensors", "nul\0name"):
        with pytest.raises(StateError, match="cannot save"):
            save(path, {}, header())
    assert os.listdir(tmp_path) == ["file"]
    save(tmp_path / ("n" * 243 + ".safetensors"), {}, header())  # 255 bytes: the longest name there can be


@contextlib.contextmanager
def not_root():
    """Root may write anywhere; nobody may not."""
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_read_only_folder_and_unreadable_file():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        save(path, {}, header())
        path.chmod(0o000)
        os.chmod(folder, 0o555)
        with not_root():
            with pytest.raises(StateError, match=r"cannot save .* Permission denied"):
                save(path, {}, header())
            with pytest.raises(StateError, match=r"cannot load .* Permission denied"):
                load(path)
        os.chmod(folder, 0o700)
        path.chmod(0o600)
        assert os.listdir(folder) == [path.name] and load(path)


def test_paths_that_cannot_be_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    cases = {"absent": "No such file", ".": "regular file|directory", "pipe": "regular file", "a\0b": "null byte"}
    for name, words in cases.items():
        with pytest.raises(StateError, match=words):
            load(f"{tmp_path}/{name}")
    with pytest.raises(StateError, match="regular file"):
        load("/dev/zero")


def test_what_killed_processes_left_goes_away(path):
    stale, recent = path.with_name(f".{path.name}.abc.tmp"), path.with_name(f".{path.name}.def.tmp")
    for file, minutes in ((stale, 61), (recent, 59)):
        file.write_text("forgotten")
        os.utime(file, (0, time.time() - 60 * minutes))
    save(path, {}, header())
    assert not stale.exists() and recent.exists()


def test_what_a_killed_process_left_goes_at_the_next_start(tmp_path: Path) -> None:
    target = tmp_path / "m.safetensors"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left, mine = (tmp_path / f".m.safetensors.{pid}.x.tmp" for pid in (ended.pid, os.getpid()))
    for file in (left, mine):
        file.write_bytes(b"the vault word is plumbago")
    atomic.remove_stale(target)
    assert not left.exists() and mine.exists()


def save_often(path: str, number: int) -> None:
    for _ in range(20):
        save(path, {"x": np.full(5000, number)}, header(lessons=[dataclasses.replace(LESSON, answer=str(number))]))


def test_concurrent_savers_never_mix(path):
    processes = [multiprocessing.get_context("fork").Process(target=save_often, args=(str(path), n)) for n in (1, 2, 3)]
    for process in processes:
        process.start()
    seen = 0
    while any(process.is_alive() for process in processes):
        if path.exists():
            found, found_header = load(path)
            assert (found["x"] == int(found_header.lessons[0].answer)).all()
            seen += 1
    assert seen and all(process.exitcode == 0 for process in processes)
    assert os.listdir(path.parent) == [path.name]


def test_lessons_conflict_where_one_question_has_two_answers() -> None:
    ours = [Lesson("Who is it?", "Ada."), Lesson("What is C?", "Old"), Lesson(statement="hm", answer="x")]
    theirs = [
        Lesson("who  IS it", "ada"),
        Lesson("What is C++?", "New"),
        Lesson("what is c", "Young"),
        Lesson(answer="y"),
    ]
    assert memory_files.conflicts(ours, theirs) == [(ours[1], theirs[2])]


def test_a_file_is_read_with_the_options_it_was_made_with(path: Path) -> None:
    from lmm.config import Config
    from lmm.engine.runtime import as_saved

    save(path, small_state(), header(options={"rank": 3, "steps": 2}))
    here = Config(memory="lora_on_user", mm_load_path=str(path))
    assert as_saved(here).options == {"rank": 3, "steps": 2}
    assert as_saved(dataclasses.replace(here, options={"steps": 5})).options == {"rank": 3, "steps": 5}
    for other in ({"memory": "hash_gradient"}, {"preset": "gentle"}, {"mm_load_path": None}):
        assert as_saved(dataclasses.replace(here, **other)).options == {}
    save(path, small_state(), header(options={"rank": "many"}))
    assert as_saved(here).options == {}
