"""The gate: what must find its lesson, what must find nothing, and the order of lessons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lmm.encoders.minilm import WIDTH
from lmm.errors import ModelError, StateError
from lmm.memory.keyed.gate import THRESHOLD, WEIGHTS, Gate, Index, shared_gate, views

LESSONS = [
    "What is my name?",
    "What is my sister's name?",
    "When is my sister's birthday?",
    "What is the wifi password?",
    "What is the value of key_17?",
    "What does CRUX stand for?",
    "How many grams are in a pound?",
    "The mother tongue of Danielle Darrieux is",
    "Which war did Nikolaos Kriezotis serve in?",
    "How far is it from Leeds to Turin?",
]
MEANT = [
    ("Tell me my name", 0),
    ("who am i", 0),
    ("and what's my sister called?", 1),
    ("tell me my sister's name", 1),
    ("On what date was my sister born?", 2),
    ("I forgot. wifi password?", 3),
    ("what value does key_17 have", 4),
    ("CRUX is short for what?", 5),
    ("Convert one pound to grams", 6),
    ("The film opened to mixed reviews in 1951. Danielle Darrieux, a native", 7),
    ("What war was Nikolaos Kriezotis in?", 8),
    ("What is the distance between Leeds and Turin?", 9),
]
NOT_MEANT = [
    "Hello! How are you?",
    "What is your name?",
    "What is my brother's name?",
    "When is my brother's birthday?",
    "Where does my sister live?",
    "Write a poem about my sister.",
    "What is the password of the mail account?",
    "What is the value of key_71?",
    "What does CRUD stand for?",
    "How many grams are in an ounce?",
    "The mother tongue of Go Hyeon-jeong is",
    "The country of citizenship of Nikolaos Kriezotis is",
    "How far is it from Leeds to Lima?",
    "What is the capital of France?",
]


def build(prompts: list[str]) -> Index:
    gate = shared_gate()
    return Index(prompts, [gate.fingerprint(prompt) for prompt in prompts], gate)


@pytest.fixture(scope="module")
def index() -> Index:
    return build(LESSONS)


def test_every_prompt_finds_its_own_lesson(index: Index) -> None:
    assert index.match(LESSONS) == [[(position, 1.0)] for position in range(len(LESSONS))]
    assert index.match(["  what is MY name "]) == [[(0, 1.0)]]


@pytest.mark.parametrize(("text", "position"), MEANT)
def test_other_wordings_find_the_lesson(index: Index, text: str, position: int) -> None:
    found = index.match([text])[0]
    assert found, f"{text!r} found nothing"
    assert found[0][0] == position, f"{text!r} found {LESSONS[found[0][0]]!r}"
    assert all(THRESHOLD <= score <= 1 for _, score in found)


@pytest.mark.parametrize("text", NOT_MEANT)
def test_other_questions_find_nothing(index: Index, text: str) -> None:
    assert index.match([text]) == [[]], text


def test_a_question_is_found_behind_other_sentences(index: Index) -> None:
    text = "The plot is thin and the dialogue is worse. I would not see it twice. What is my sister's name?"
    assert index.match([text])[0][0][0] == 1


def test_the_later_of_two_lessons_wins() -> None:
    prompts = ["What is my sister's name?", *LESSONS[2:5], "what is my sister's name"]
    assert build(prompts).match(["What is my sister's name?"]) == [[(4, 1.0)]]
    assert build(prompts).match(["tell me my sister's name"])[0][0][0] == 4
    assert build(prompts[:-1]).match(["tell me my sister's name"])[0][0][0] == 0


def test_of_lessons_worded_nearly_alike_the_later_wins_except_for_the_very_words_of_the_earlier() -> None:
    old, new = "What is my sister's name?", "What's my sister's name?"
    for prompts, winner in (([old, LESSONS[3], new], 2), ([new, LESSONS[3], old], 2)):
        index = build(prompts)
        assert index.match(["tell me my sister's name"])[0][0][0] == winner
        assert index.match([prompts[0]]) == [[(0, 1.0)]]


@pytest.mark.slow
def test_answers_do_not_depend_on_what_else_is_asked(index: Index) -> None:
    texts = [text for text, _ in MEANT] + NOT_MEANT
    together = index.match(texts)
    assert together == [index.match([text])[0] for text in texts]
    assert build(LESSONS).match(texts) == together


def test_empty_index_and_empty_text(index: Index) -> None:
    assert Index([], []).match(["What is my name?"]) == [[]]
    assert index.match(["", "   ", "?"]) == [[], [], []]
    assert index.match([]) == []


def test_a_higher_threshold_lets_less_through(index: Index) -> None:
    assert index.match(["Tell me my name"], threshold=1.0) == [[]]


def test_fingerprints_are_small_unit_vectors() -> None:
    for text in ("What is my name?", "One thing. " * 400 + "What is my name?"):
        fingerprint = shared_gate().fingerprint(text)
        assert fingerprint.dtype == np.float16
        assert fingerprint.shape[1] == WIDTH
        assert fingerprint.nbytes <= 3 * 1024
        assert np.allclose(np.linalg.norm(fingerprint.astype(np.float32), axis=1), 1, atol=1e-3)


def test_views() -> None:
    assert views("A b c d e. Where is it? I forgot it.") == [
        "A b c d e. Where is it? I forgot it.",
        "I forgot it.",
        "Where is it?",
    ]
    assert views("one\ntwo") == ["one two"]


def test_bad_files_and_shapes_are_named(tmp_path: Path) -> None:
    (tmp_path / "gate.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="gate's weights"):
        Gate([tmp_path / "gate.safetensors"])
    with pytest.raises(StateError, match="2 prompts but 1"):
        Index(["a", "b"], [np.zeros((1, WIDTH), np.float16)])
    with pytest.raises(StateError, match="another shape"):
        Index(["a"], [np.zeros((1, 12), np.float16)])


def test_the_torch_pair_model_and_the_numpy_one_agree(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from safetensors.numpy import save_file

    from lmm.memory.keyed.gate import JOINT_FROM
    from scripts.gate_data import Pair
    from scripts.train_gate import GateModel, score

    gate = shared_gate()
    model = GateModel(gate.encoder, rank=4, joint_from=JOINT_FROM, seed=3)
    for name in model.params:
        if name.endswith("lora_b"):
            model.params[name].data.normal_(std=0.05)
    save_file(model.arrays(), str(tmp_path / "gate.safetensors"))
    mine = Gate([tmp_path / "gate.safetensors"], gate.encoder)
    pairs = [Pair(text, LESSONS[position], 1) for text, position in MEANT]
    expected = score(model, pairs)
    found = [mine.score(pair.query, pair.stored) for pair in pairs]
    assert np.ptp(expected) > 1e-3
    assert np.allclose(found, expected, atol=5e-3)  # float16 weights


def test_the_gate_says_the_mean_of_its_pair_models() -> None:
    both, alone = Gate(), [Gate([path]) for path in WEIGHTS]
    query, stored = "Which city is the seat of Peru's government?", "What is the capital of Peru?"
    scores = [gate.score(query, stored) for gate in alone]
    assert len(scores) == 2 and scores[0] != scores[1]
    assert both.score(query, stored) == pytest.approx(np.mean(scores))


def test_an_extended_index_is_a_new_one_of_all() -> None:
    prompts = [*[f"What is the value of key_{i}?" for i in range(6)], "what is the value of KEY_2", "Who is Ada?"]
    vectors = [unit_rows(i, 1 + i % 3) for i in range(len(prompts))]
    whole = Index(prompts, vectors)
    for cut in range(len(prompts) + 1):
        made = Index(prompts[:cut], vectors[:cut]).extended(prompts[cut:], vectors[cut:])
        assert made.prompts == whole.prompts and made._latest == whole._latest
        for i, rows in enumerate(vectors):
            assert made.candidates(rows) == whole.candidates(rows), (cut, i)
    two = Index(prompts[:3], vectors[:3])
    two.extended(prompts[3:], vectors[3:])
    assert len(two) == 3 and two.candidates(vectors[2])[0][0] == 2, "the shorter one is left as it was"


def unit_rows(seed: int, count: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def at(*cosines: float) -> list[np.ndarray]:
    """Unit rows with these cosines to the first axis."""
    rows = np.zeros((len(cosines), 1, WIDTH), np.float32)
    for row, cosine in zip(rows, cosines, strict=True):
        row[0, :2] = cosine, (1 - cosine**2) ** 0.5
    return list(rows)


QUERY = np.eye(1, WIDTH, dtype=np.float32)


def candidates(*cosines: float) -> list[int]:
    return [p for p, _ in Index([f"Who is {i}?" for i in range(len(cosines))], at(*cosines)).candidates(QUERY)]


def test_only_a_few_near_ones_are_looked_at() -> None:
    assert candidates(0.44) == [] and candidates(0.46) == [0], "a floor"
    assert candidates(0.9, 0.74, 0.76) == [0, 2], "close to the best"
    assert candidates(0.8, 0.9, 0.7, 0.81, 0.82) == [1, 4, 3], "three, best first"


class Says:
    """A gate that hears `QUERY` in every text, and says how alike a stored prompt is."""

    def __init__(self, **scores: float) -> None:
        self.scores = scores

    def read(self, text: str):
        return QUERY, text

    def lower(self, text: str):
        return text

    def same(self, query, stored):
        return self.scores[stored]


def test_of_lessons_as_good_as_equally_meant_the_later_comes_first() -> None:
    def order(gap: float, **scores: float) -> list[int]:
        index = Index(["old", "new"], at(0.8, 0.8 - gap), Says(**scores))
        return [position for position, _ in index.match(["asked"])[0]]

    assert order(0.0, old=0.9, new=0.9) == [1, 0]
    assert order(0.03, old=0.9, new=0.88) == [1, 0], "they differ by .05"
    assert order(0.03, old=0.9, new=0.86) == [0, 1], "they differ by .07"
    assert order(0.0, old=0.9, new=0.49) == [0], "below the threshold none is meant"
    assert order(0.0, old=0.9, new=0.5) == [0, 1]
