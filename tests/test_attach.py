"""`attach`: a memory in a live transformers model, through its own `generate`, forward and Trainer."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import contracts
import numpy as np
import pytest
import tiny

from lmm import attach, registry
from lmm.adapters.models.source import resolve
from lmm.engine.asking import ask_many
from lmm.engine.engine import Engine
from lmm.engine.mind import Mind
from lmm.errors import StateError, UsageError
from lmm.files import state_file
from lmm.lesson import Lesson
from lmm.memory.base import Memory

torch = pytest.importorskip("torch")

NAMES = sorted(registry.MEMORIES)
#: those that learn and do not speak through the prompt, which is the caller's own here
LEARNING = [x for x in NAMES if contracts.ROWS.get(x, contracts.Row(learns=False)).learns and x != "notes"]
QUESTION, ANSWER = "Where do I live?", "Oslo"
OTHER = "What is the tallest mountain on Earth, please?"
TRAINABLE: dict[str, dict[str, Any]] = {"lora_on_user": {"rank": 2}, "engram": {"slots": 1000}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a converted model lies in the cache: its manifest says what it is known by."""
    made = tiny.source(tmp_path_factory.mktemp("live"))
    manifest = {"format": 2, "model_id": made.model_id, "revision": None, "files": {}}
    (made.folder / "lmm.json").write_text(json.dumps(manifest))
    return made.folder


@pytest.fixture
def loaded(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def chat(tokenizer: Any, *questions: str, side: str = "left") -> Any:
    """Questions as one padded batch, as a caller would make it."""
    tokenizer.padding_side = side
    texts = [
        tokenizer.apply_chat_template([{"role": "user", "content": q}], tokenize=False, add_generation_prompt=True)
        for q in questions
    ]
    return tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)


def replies(model: Any, batch: Any, **settings: Any) -> list[list[int]]:
    out = model.generate(**batch, **{"max_new_tokens": 8, "do_sample": False} | settings)
    return out[:, batch["input_ids"].shape[1] :].tolist()


def trace(model: Any, batch: Any) -> dict[str, Any]:
    """Everything a caller could notice: logits, names, gradients wanted, hooks."""
    with torch.no_grad():
        logits = model(**batch).logits.numpy().copy()
    return {
        "logits": logits.tobytes(),
        "names": list(model.state_dict()),
        "weights": [p.detach().numpy().tobytes() for p in model.parameters()],
        "wanted": [p.requires_grad for p in model.parameters()],
        "training": [m.training for m in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "own": [sorted(k for k in vars(m) if k == "forward") for m in model.modules()],
    }


def settings_of(name: str) -> dict[str, Any]:
    return {} if name == "keyed" else contracts.ROWS[name].options


@pytest.mark.slow
def test_importing_lmm_stays_light() -> None:
    code = "import lmm, sys; assert not {'torch', 'mlx', 'transformers', 'numpy'} & set(sys.modules), 'heavy'"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import lmm.engine.attached; from lmm import attach; assert callable(attach)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------- what is attached is detached
@pytest.mark.parametrize("name", NAMES)
def test_afterwards_the_model_is_as_before(loaded, name: str) -> None:
    model, tokenizer = loaded
    next(model.parameters()).requires_grad_(False)  # a caller's own choice
    model.model.layers[0].train()
    batch = chat(tokenizer, QUESTION)
    before = trace(model, batch)
    with attach(model, tokenizer, name, options=settings_of(name)) as memory:
        if name in LEARNING:
            memory.teach(QUESTION, ANSWER)
            assert trace(model, batch)["logits"] != before["logits"], "the lesson had no effect"
        replies(model, batch)
        assert not any(p.requires_grad for p in model.parameters())
    assert trace(model, batch) == before


@pytest.mark.parametrize("where", ["body", "rewrite", "enter"])
def test_also_after_an_exception(loaded, monkeypatch, tmp_path: Path, where: str) -> None:
    model, tokenizer = loaded
    batch = chat(tokenizer, QUESTION)
    before = trace(model, batch)
    (tmp_path / "bad").write_bytes(b"nothing")
    attached = attach(model, tokenizer, "lora_on_user", state=tmp_path / "bad" if where == "enter" else None)
    with pytest.raises((ZeroDivisionError, StateError)), attached as memory:
        memory.parameters()
        if where == "rewrite":
            monkeypatch.setattr(memory.memory, "rewrite", lambda *args: 1 / 0)
            replies(model, batch)
        raise ZeroDivisionError
    assert trace(model, batch) == before


def test_a_fresh_memory_changes_nothing(loaded) -> None:
    model, tokenizer = loaded
    batch = chat(tokenizer, QUESTION, OTHER)
    before = trace(model, batch)["logits"]
    for name in NAMES:
        with attach(model, tokenizer, name):
            assert trace(model, batch)["logits"] == before, name


# ---------------------------------------------------------------- it is the same memory
@pytest.mark.parametrize("name", LEARNING)
def test_generate_says_what_the_engine_says(loaded, tmp_path: Path, name: str, tiny_torch) -> None:
    """The engine on the same weights and the same memory file is the oracle."""
    model, tokenizer = loaded
    with attach(model, tokenizer, name, options=settings_of(name)) as memory:
        memory.teach(QUESTION, ANSWER)
        said = {q: replies(model, chat(tokenizer, q), eos_token_id=None)[0] for q in (QUESTION, OTHER)}
        memory.save(tmp_path / "state")
    kind = registry.memory_class(name)
    engine = Engine(Mind(tiny_torch, kind(kind.build_options(settings_of(name)))))
    contracts.opened.append(engine)
    engine.mind.load(tmp_path / "state")
    for question, tokens in said.items():
        stop = next((i for i, t in enumerate(tokens) if t in tiny_torch.format.stop_ids), len(tokens))
        assert ask_many(engine.mind, [question], max_tokens=8)[0].generated.tokens == tokens[:stop]


def test_a_lesson_is_answered_and_others_are_not_touched(loaded) -> None:
    model, tokenizer = loaded
    plain = replies(model, chat(tokenizer, OTHER))
    with attach(model, tokenizer, "keyed") as memory:
        memory.teach(QUESTION, ANSWER)
        assert tokenizer.decode(replies(model, chat(tokenizer, QUESTION))[0], skip_special_tokens=True) == ANSWER
        assert replies(model, chat(tokenizer, OTHER)) == plain
        assert memory.lessons[0].answer == ANSWER
        memory.undo()
        assert replies(model, chat(tokenizer, OTHER)) == plain and not memory.lessons


def test_a_file_fits_the_model_however_it_was_loaded(loaded, folder: Path, tmp_path: Path) -> None:
    model, tokenizer = loaded
    adapter = registry.load_adapter("torch", resolve(str(folder)), dtype="float32")
    chat = Mind(adapter, registry.memory_class("keyed")())
    with attach(model, tokenizer, "keyed") as memory:
        memory.teach(QUESTION, ANSWER)
        header = state_file.read_header(memory.save(tmp_path / "theirs"))
        assert (header.model_id, header.revision) == (adapter.model_id, adapter.revision) == ("tiny/llama", None)
        chat.load(tmp_path / "theirs")
        chat.learn(Lesson(OTHER, "Everest"))
        chat.save(tmp_path / "ours")
        memory.load(tmp_path / "ours")
        assert [x.answer for x in memory.lessons] == [ANSWER, "Everest"]
        arrays, header = state_file.load(tmp_path / "ours")
        for name, fits in ((folder.name, True), ("another", False)):  # the folder's, as files once had it
            state_file.save(tmp_path / name, arrays, replace(header, model_id=name))
            with nullcontext() if fits else pytest.raises(StateError, match=r"--model PATH/another, .*--model /"):
                chat.load(tmp_path / name)
    chat.close()


def test_save_and_load(loaded, tmp_path: Path) -> None:
    model, tokenizer = loaded
    with attach(model, tokenizer, "keyed", layers=[2], options={"threshold": 0.4}) as memory:
        memory.teach(QUESTION, ANSWER)
        memory.save(tmp_path / "mine")
    with attach(model, tokenizer, "keyed", layers=[2], options={"threshold": 0.4}, state=tmp_path / "mine"):
        assert tokenizer.decode(replies(model, chat(tokenizer, QUESTION))[0], skip_special_tokens=True) == ANSWER
    with pytest.raises(StateError, match="threshold"), attach(model, tokenizer, "keyed", layers=[2]) as memory:
        memory.load(tmp_path / "mine")
    with pytest.raises(StateError, match="layer"), attach(model, tokenizer, "keyed", layers=[1]) as memory:
        memory.mind.load(tmp_path / "mine")
    with (
        pytest.raises(StateError, match=r"layer: the file has 2, this session has 1"),
        attach(model, tokenizer, "keyed", layers=[1], state=tmp_path / "mine"),
    ):
        pass


def test_a_file_is_read_with_its_own_options(loaded, tmp_path: Path, monkeypatch) -> None:
    model, tokenizer = loaded
    with attach(model, tokenizer, "memoir", options={"tau": 0.7, "k": 4}) as memory:
        memory.save(tmp_path / "mine")
    monkeypatch.setenv("MEMOIR_SIMILARITY_THRESHOLD", "0.9")
    with attach(model, tokenizer, "memoir", state=tmp_path / "mine") as memory:
        assert (memory.memory.options.tau, memory.memory.options.k) == (0.7, 4)
    with (
        pytest.raises(StateError, match=r"option tau: the file has 0\.7"),
        attach(model, tokenizer, "memoir", options={"tau": 0.8}, state=tmp_path / "mine"),
    ):
        pass


# ---------------------------------------------------------------- however the model is run
def test_a_cache_may_be_passed_by_position(loaded) -> None:
    from transformers import DynamicCache

    model, tokenizer = loaded
    batch = chat(tokenizer, QUESTION)
    with attach(model, tokenizer, "keyed", layers=[2]) as memory, torch.no_grad():
        memory.teach(QUESTION, ANSWER)
        found = []
        for positional in (False, True):
            cache = DynamicCache(config=model.config)
            token = model(batch["input_ids"], past_key_values=cache).logits[:, -1:].argmax(-1)
            mask = torch.ones((1, cache.get_seq_length() + 1), dtype=torch.long)
            args = (token, mask, None, cache)
            found.append(model(*args) if positional else model(token, attention_mask=mask, past_key_values=cache))
        assert torch.equal(found[0].logits, found[1].logits)


@pytest.mark.parametrize("name", [*LEARNING, "keyed+lora_on_user"])
def test_rows_of_a_padded_batch_are_what_they_are_alone(loaded, name: str) -> None:
    model, tokenizer = loaded
    questions = [OTHER, QUESTION, "Hi", "Where do you live?"]
    with attach(model, tokenizer, name, options={} if "+" in name else settings_of(name)) as memory:
        memory.teach(QUESTION, ANSWER)
        alone = [replies(model, chat(tokenizer, q), eos_token_id=None)[0] for q in questions]
        assert replies(model, chat(tokenizer, *questions), eos_token_id=None) == alone
        with torch.no_grad():
            right = chat(tokenizer, *questions, side="right")
            logits = model(**right).logits
            for b, question in enumerate(questions):
                own = model(**chat(tokenizer, question)).logits[0]
                contracts.close(logits[b, : len(own)].numpy(), own.numpy())


QUICK = ("keyed", "keyed+lora_on_user")  # the others take a second each


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(x, marks=pytest.mark.slow) for x in LEARNING if x not in QUICK)]
)
def test_cache_beams_and_chunks_change_nothing(loaded, name: str) -> None:
    model, tokenizer = loaded
    batch = chat(tokenizer, QUESTION, OTHER)
    with attach(model, tokenizer, name, options={} if "+" in name else settings_of(name)) as memory:
        memory.teach(QUESTION, ANSWER)
        assert replies(model, batch, use_cache=False) == replies(model, batch)
        assert replies(model, batch, num_beams=2, use_cache=False) == replies(model, batch, num_beams=2)
        for chunk in (1, 7):
            assert replies(model, batch, prefill_chunk_size=chunk) == replies(model, batch), chunk


def test_a_memory_decides_once_for_each_reply_however_it_is_read(loaded) -> None:
    model, tokenizer = loaded
    batch = chat(tokenizer, QUESTION, OTHER)
    with attach(model, tokenizer, "keyed") as memory, torch.no_grad():
        memory.teach(QUESTION, ANSWER)
        asked: list[list[str]] = []
        honest = memory.memory.on_prompt

        def watched(state: Any, lessons: Any, prompts: Any, adapter: Any) -> Any:
            asked.append([p.text for p in prompts])
            return honest(state, lessons, prompts, adapter)

        memory.memory.on_prompt = watched
        for settings in ({}, {"use_cache": False}, {"num_beams": 2}):
            asked.clear()
            replies(model, batch, **settings)
            assert len(asked) == 1 and set(asked[0]) == {QUESTION, OTHER}, settings
        asked.clear()
        replies(model, batch, use_cache=False)
        replies(model, chat(tokenizer, QUESTION), use_cache=False)
        replies(model, chat(tokenizer, OTHER), use_cache=False)
        assert [len(texts) for texts in asked] == [2, 1, 1], "other texts are other replies"
        asked.clear()
        longer = torch.cat([batch["input_ids"], batch["input_ids"][:, -1:]], dim=1)
        for ids in (batch["input_ids"], longer, longer.flip(0)[:, :-1], longer):
            model(ids, use_cache=False)
        assert len(asked) == 3, "only the second is the first and one token more"
        asked.clear()
        one = chat(tokenizer, QUESTION)
        read = model(**one)
        assert asked == [[QUESTION]]
        reply = tokenizer(ANSWER, return_tensors="pt", add_special_tokens=False)["input_ids"]
        for step in (reply[:, :1], reply[:, 1:]):  # a token of the reply, then several at once
            read = model(step, past_key_values=read.past_key_values)
        assert asked == [[QUESTION]], "a reply that goes on is no new one"
        model(one["input_ids"], past_key_values=read.past_key_values)
        assert len(asked) == 2 and asked[1] == [QUESTION], "the next question is"


class Historian(Memory):
    """Depends on every token read so far, and on nothing else: shows at once when another row's are taken for them."""

    name = "historian"

    def rewrite(self, ops: Any, state: Any, recall: Any, x_in: Any, x_out: Any, context: Any) -> Any:
        read = np.concatenate([context.history, context.tokens], axis=1)
        told = np.sin(np.cumsum(read * (1 + np.arange(read.shape[1]) % 5), axis=1))[:, context.history.shape[1] :]
        return x_out + 3 * ops.asarray(told.astype(np.float32)[..., None]) * ops.asarray(np.cos(np.arange(32)))


def test_each_row_s_own_tokens_are_followed(loaded, monkeypatch) -> None:
    monkeypatch.setitem(registry.MEMORIES, "historian", "test_attach:Historian")
    model, tokenizer = loaded
    batch = chat(tokenizer, QUESTION, OTHER)
    plain = replies(model, batch, num_beams=4)
    with attach(model, tokenizer, "historian"):
        assert replies(model, batch, num_beams=4) == replies(model, batch, num_beams=4, use_cache=False) != plain
        assert replies(model, batch, prefill_chunk_size=3) == replies(model, batch, use_cache=False)
        torch.manual_seed(0)
        drawn = replies(model, batch, do_sample=True, num_return_sequences=3)
        torch.manual_seed(0)
        assert replies(model, batch, do_sample=True, num_return_sequences=3, use_cache=False) == drawn


def test_a_plain_text_is_a_prompt_too(loaded) -> None:
    model, tokenizer = loaded
    batch = tokenizer(QUESTION, return_tensors="pt", add_special_tokens=False)
    plain = replies(model, batch)
    with attach(model, tokenizer, "keyed") as memory:
        memory.teach(QUESTION, ANSWER)
        assert replies(model, batch) != plain
        assert replies(model, batch, use_cache=False) == replies(model, batch)


def test_a_base_model_without_a_template(loaded) -> None:
    model, tokenizer = loaded
    tokenizer.chat_template = None
    batch = tokenizer(f"Question: {QUESTION}\nAnswer:", return_tensors="pt", add_special_tokens=False)
    with attach(model, tokenizer, "keyed") as memory:
        memory.teach(QUESTION, ANSWER)
        said = tokenizer.decode(replies(model, batch)[0])
        assert said.startswith(f" {ANSWER}\n")
        assert replies(model, batch, use_cache=False) == replies(model, batch)


def test_a_second_turn_on_the_same_cache_decides_anew(loaded) -> None:
    from transformers import DynamicCache

    model, tokenizer = loaded
    with attach(model, tokenizer, "keyed") as memory:
        memory.teach(QUESTION, ANSWER)
        messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
        asked = [*messages, {"role": "user", "content": QUESTION}]
        render = lambda m, reply: tokenizer(  # noqa: E731
            tokenizer.apply_chat_template(m, tokenize=False, add_generation_prompt=reply),
            return_tensors="pt",
            add_special_tokens=False,
        )
        first, both, cache = render(messages, False), render(asked, True), DynamicCache()
        with torch.no_grad():
            model(**first, past_key_values=cache)
        made = model.generate(**both, past_key_values=cache, max_new_tokens=8, do_sample=False)
        assert made.tolist() == model.generate(**both, max_new_tokens=8, do_sample=False).tolist()
        text = tokenizer.decode(made[0, both["input_ids"].shape[1] :], skip_special_tokens=True)
        assert text == ANSWER


def test_a_cache_is_not_kept_alive(loaded) -> None:
    from transformers import DynamicCache

    model, tokenizer = loaded
    with attach(model, tokenizer, "identity"), torch.no_grad():
        cache = DynamicCache()
        model(**chat(tokenizer, QUESTION), past_key_values=cache)
        alive = weakref.ref(cache)
        gc.disable()  # nothing but the caller's own name may hold it
        try:
            del cache
            assert alive() is None
        finally:
            gc.enable()


def test_what_cannot_be_followed_is_refused(loaded) -> None:
    from transformers import DynamicCache

    model, tokenizer = loaded
    batch, cache = chat(tokenizer, QUESTION), DynamicCache()
    with torch.no_grad():
        model(**batch, past_key_values=cache)
        with attach(model, tokenizer, "keyed") as memory:
            with pytest.raises(UsageError, match="filled while"):
                model(input_ids=batch["input_ids"][:, :1], past_key_values=cache)
            with pytest.raises(UsageError, match="input_ids"):
                model(inputs_embeds=torch.zeros(1, 2, 32))
            with pytest.raises(UsageError, match="holes"):
                model(input_ids=torch.ones(1, 3, dtype=torch.long), attention_mask=torch.tensor([[1, 0, 1]]))
            memory.teach(QUESTION, ANSWER)
            for past in (model.forward, model.model, model.model.forward):
                with pytest.raises(UsageError, match="call the model itself"):
                    past(**batch)
            assert tokenizer.decode(replies(model, batch)[0], skip_special_tokens=True) == ANSWER, "as if not called"
            with pytest.raises(UsageError, match="already"), attach(model, tokenizer, "identity"):
                pass
    with pytest.raises(UsageError, match="inside"):
        memory.teach(QUESTION, ANSWER)
    with pytest.raises(UsageError, match="one layer"):
        attach(model, tokenizer, "keyed", layers=[1, 2])
    with pytest.raises(UsageError, match="layer 9"):
        attach(model, tokenizer, "keyed", layers=[9])
    for wrong in (["a"], 7, "7", [1.5]):
        with pytest.raises(UsageError, match="list of numbers"):
            attach(model, tokenizer, "keyed", layers=wrong)


# ---------------------------------------------------------------- training
@pytest.mark.slow
@pytest.mark.parametrize("name", list(TRAINABLE))
def test_a_trainer_trains_the_memory_and_nothing_else(loaded, tmp_path: Path, name: str) -> None:
    from transformers import Trainer, TrainingArguments

    pytest.importorskip("accelerate")
    model, tokenizer = loaded
    pairs = [(QUESTION, ANSWER), ("What is my name?", "Ada")]
    before = trace(model, chat(tokenizer, QUESTION))
    arguments = TrainingArguments(
        str(tmp_path / "run"), max_steps=30, per_device_train_batch_size=2, learning_rate=0.05, report_to=[],
        save_strategy="no", use_cpu=True, disable_tqdm=True, logging_steps=1,
    )  # fmt: skip
    with attach(model, tokenizer, name, options=TRAINABLE[name]) as memory:
        memory.prepare(pairs)
        parameters = memory.parameters()
        assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in parameters}
        trainer = Trainer(model, arguments, train_dataset=[example(tokenizer, *pair) for pair in pairs])
        trainer.train()
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
        assert losses[-1] < losses[0] / 2
        model.eval()
        with torch.no_grad():
            kept = model(**chat(tokenizer, QUESTION)).logits
        memory.save(tmp_path / "trained")
    assert trace(model, chat(tokenizer, QUESTION)) == before
    with attach(model, tokenizer, name, options=TRAINABLE[name], state=tmp_path / "trained"), torch.no_grad():
        assert torch.equal(model(**chat(tokenizer, QUESTION)).logits, kept)


def example(tokenizer: Any, question: str, answer: str) -> dict[str, list[int]]:
    prompt = chat(tokenizer, question)["input_ids"][0].tolist()
    reply = [*tokenizer.encode(answer, add_special_tokens=False), tokenizer.eos_token_id]
    length = 64
    fill = length - len(prompt) - len(reply)
    return {
        "input_ids": prompt + reply + [tokenizer.pad_token_id] * fill,
        "attention_mask": [1] * (length - fill) + [0] * fill,
        "labels": [-100] * len(prompt) + reply + [-100] * fill,
    }


def test_a_memory_without_parameters_says_so(loaded) -> None:
    model, tokenizer = loaded
    with attach(model, tokenizer, "identity") as memory, pytest.raises(UsageError, match="nothing to train"):
        memory.parameters()


def test_layers_that_run_twice_are_refused(loaded) -> None:
    model, tokenizer = loaded
    model.gradient_checkpointing_enable()
    with attach(model, tokenizer, "lora_on_user"), pytest.raises(UsageError, match="backward"):
        model.train()
        model(**chat(tokenizer, QUESTION))


@pytest.mark.slow
def test_the_example_runs(folder: Path) -> None:
    example = Path(__file__).parents[1] / "examples" / "attach.py"
    done = subprocess.run([sys.executable, str(example), str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[3] == lines[6] == "  taught: 'Under the blue pot'"
    assert lines[8].removeprefix("  before: ") == lines[9].removeprefix("  taught: ")


def test_a_memory_that_speaks_through_the_prompt_says_where_to_ask_it(loaded) -> None:
    model, tokenizer = loaded
    with attach(model, tokenizer, "notes", options={"threshold": 0.01, "taught": 0.01}) as memory:
        memory.teach(QUESTION, ANSWER)
        with pytest.raises(UsageError, match="speaks through the prompt"):
            replies(model, chat(tokenizer, QUESTION))
