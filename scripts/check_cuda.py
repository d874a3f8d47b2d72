"""Whether all of it works on an NVIDIA card, without the network: python -m scripts.check_cuda

Tiny models of random weights run in parts, learn, are attached and hand their memory files to the CPU and back; a
made-up model of a billion weights in bfloat16 says how fast decoding is beside `generate`. Needs torch, transformers
and what these bring. Prints one JSON object. Exits 3 where there is no card, 1 where something is wrong or too slow.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer

from lmm import attach
from lmm.adapters import selfcheck
from lmm.adapters.models.source import ModelSource
from lmm.adapters.torch_lm import TorchAdapter
from lmm.config import Config
from lmm.encoders import minilm
from lmm.engine.asking import ask_many
from lmm.engine.engine import Engine
from lmm.engine.mind import Mind
from lmm.memory.identity import Identity
from lmm.memory.keyed.keyed import Keyed
from lmm.memory.lora_on_user import LoraOnUser
from scripts.check_models import LESSON, make

NO_CARD = 3
KINDS = ("llama", "qwen3", "gemma3_text", "qwen3_moe", "qwen3_next", "gpt2")
BIG = {
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 4096,
}  # fmt: skip
WANTED = {"identity": 1.0, "keyed": 0.97}  # of `generate`'s tokens/s
TOKENS = 128


def parts(folder: Path, kind: str) -> dict[str, Any]:
    """What an adapter has to do on the device that torch has; "ok" or what is wrong, by name."""
    source = ModelSource(kind, folder, kind, None)
    adapter = TorchAdapter(source, dtype="float32")
    checks: dict[str, Callable[[], str]] = {
        "device": lambda: adapter.device,
        "runs in parts": lambda: selfcheck.problem(adapter) or "ok",
        "identity is generate": lambda: _ok(_as_generate(adapter)),
        "keyed learns": lambda: _ok(_said(Mind(adapter, Keyed()), teach=True) == LESSON.answer),
        "lora_on_user learns": lambda: _ok(_nearer(Mind(adapter, LoraOnUser()))),
        "attach": lambda: _ok(_attached(folder)),
        "a file moves to the CPU and back": lambda: _ok(_moved(adapter, folder)),
    }
    return {name: tried(check) for name, check in checks.items()}


def tried(check: Callable[[], Any]) -> Any:
    """What a check finds, or what it raised, whatever that is: the others are to be heard of."""
    try:
        return check()
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _ok(right: bool) -> str:
    return "ok" if right else "no"


def _as_generate(adapter: TorchAdapter) -> bool:
    engine = Engine(Mind(adapter, Identity()), decoding=replace(Config(), max_tokens=24))
    turn = engine.reply("Where?")
    made = turn.generated.tokens if turn.generated else []
    engine.close()
    return made == adapter.generate_native(turn.read, 24)


def _said(mind: Mind, teach: bool = False, load: Path | None = None, save: Path | None = None) -> str:
    """What a mind says to the lesson's question."""
    try:
        if teach:
            mind.learn(LESSON)
        if load is not None:
            mind.load(load)
        if save is not None:
            mind.save(save)
        return ask_many(mind, [LESSON.prompt], max_tokens=4)[0].text
    finally:
        mind.close()


def _nearer(mind: Mind) -> bool:
    report = mind.learn(LESSON)
    mind.close()
    return report.loss_before is not None and report.loss_after is not None and report.loss_after < report.loss_before


def _attached(folder: Path) -> bool:
    """A lesson changes what plain `generate` writes, and afterwards the model is as before."""
    adapter = TorchAdapter(ModelSource("attached", folder, "attached", None), dtype="float32")
    model, tokenizer = adapter.model, AutoTokenizer.from_pretrained(folder, local_files_only=True)
    asked = adapter.format.prompt_tokens(LESSON.prompt)
    before = adapter.generate_native(asked, 4)
    with attach(model, tokenizer, "keyed") as memory:
        memory.teach(LESSON.prompt, LESSON.answer)
        taught = adapter.format.decode(adapter.generate_native(asked, 4))
    return taught == LESSON.answer and adapter.generate_native(asked, 4) == before


def _moved(adapter: TorchAdapter, folder: Path) -> bool:
    there, back = folder / "there.safetensors", folder / "back.safetensors"
    cpu = TorchAdapter(adapter.source, dtype="float32", device="cpu")
    said = [
        _said(Mind(adapter, Keyed()), teach=True, save=there),
        _said(Mind(cpu, Keyed()), load=there, save=back),
        _said(Mind(adapter, Keyed()), load=back),
    ]
    return said == [LESSON.answer] * 3


def speed(folder: Path, tokens: int, dtype: str = "bfloat16") -> dict[str, Any]:
    """Tokens/s of `generate`, of `identity` and of `keyed` with a lesson, and the memory in use, in MB."""
    adapter = TorchAdapter(ModelSource("made up", folder, "made up", None), dtype=dtype)
    adapter.format.stop_ids = frozenset()  # random weights end where they like
    prompt = adapter.format.prompt_tokens("Tell me about the sea.")
    adapter.generate_native(prompt, 8)
    start = time.perf_counter()
    adapter.generate_native(prompt, tokens)
    plain = tokens / (time.perf_counter() - start)
    found: dict[str, Any] = {"generate": plain}
    found["identity"] = tried(lambda: _tokens_a_second(Mind(adapter, Identity()), tokens))
    found["keyed"] = tried(lambda: _tokens_a_second(_taught(Mind(adapter, Keyed())), tokens))
    found["share"] = {name: round(found[name] / plain, 3) for name in WANTED if isinstance(found[name], float)}
    found["peak MB"] = torch.cuda.max_memory_allocated() >> 20 if torch.cuda.is_available() else 0
    return found


def _taught(mind: Mind) -> Mind:
    mind.learn(LESSON)
    return mind


def _tokens_a_second(mind: Mind, tokens: int) -> float:
    engine = Engine(mind, decoding=replace(Config(), max_tokens=tokens, stop_repeats=False))
    engine.reply("Hello.")
    start = time.perf_counter()
    turn = engine.reply("Tell me about the sea.")
    spent = time.perf_counter() - start
    engine.close()
    return len(turn.generated.tokens) / spent if turn.generated else 0.0


@contextlib.contextmanager
def an_encoder(place: Path) -> Iterator[str]:
    """The sentence encoder of `keyed`, in words; one of random weights where it is not installed, since the very words
    of a lesson are asked here."""
    if importlib.util.find_spec(minilm.PACKAGE):
        yield "as installed"
        return
    wrong = tried(partial(_make_encoder, place / minilm.PACKAGE / "model"))
    sys.path.append(str(place))
    try:
        yield wrong or f"made up, since the package {minilm.PACKAGE} is not installed"
    finally:
        sys.path.remove(str(place))


def _make_encoder(folder: Path) -> None:
    """A MiniLM for which texts are alike as far as they have bytes in common."""
    folder.mkdir(parents=True)
    signs = ["[CLS]", "[SEP]", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({sign: number for number, sign in enumerate(signs)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    width, layers = minilm.WIDTH, [f"encoder.layer.{layer}." for layer in range(minilm.LAYERS)]
    wide = {"intermediate.dense": (4 * width, width), "output.dense": (width, 4 * width)}
    shapes = {f"{at}{matrix}": wide.get(matrix, (width, width)) for at in layers for matrix in minilm.MATRICES}
    norms = ["embeddings", *(f"{at}{part}" for at in layers for part in ("attention.output", "output"))]
    random = np.random.default_rng(0)
    weights = {
        "embeddings.word_embeddings.weight": random.normal(size=(len(signs), width)),
        "embeddings.position_embeddings.weight": np.zeros((minilm.MAX_TOKENS, width)),
        "embeddings.token_type_embeddings.weight": np.zeros((2, width)),
    }
    weights |= {f"{name}.weight": random.normal(0, 0.01, shape) for name, shape in shapes.items()}
    weights |= {f"{name}.bias": np.zeros(shape[0]) for name, shape in shapes.items()}
    weights |= {f"{norm}.LayerNorm.weight": np.ones(width) for norm in norms}
    weights |= {f"{norm}.LayerNorm.bias": np.zeros(width) for norm in norms}
    save_file({name: value.astype(np.float32) for name, value in weights.items()}, folder / "model.safetensors")


def check(place: Path) -> dict[str, Any]:
    """All that is printed; what is written lies in `place`."""
    for variable, name in {"CACHE_DIR": "cache", "DATA_DIR": "data", "CONFIG": "config.toml"}.items():
        os.environ[f"LMM_{variable}"] = str(place / name)  # where none is named, one more package would look for them
    start = time.perf_counter()
    found: dict[str, Any] = {"cuda": True, "card": tried(torch.cuda.get_device_name), "torch": torch.__version__}
    with an_encoder(place) as found["sentence encoder"]:
        for kind in KINDS:
            found[kind] = tried(partial(_made, kind, place / kind))
        found["speed"] = tried(lambda: _made_up_speed(place / "big"))
    found["seconds"] = round(time.perf_counter() - start, 1)
    return found


def _made(kind: str, folder: Path) -> dict[str, Any]:
    make(kind, folder)
    return parts(folder, kind)


def _made_up_speed(folder: Path) -> dict[str, Any]:
    make("llama", folder, BIG, dtype=torch.bfloat16)
    return speed(folder, TOKENS)


def is_right(found: dict[str, Any]) -> bool:
    """Whether all was checked, runs right, and is fast enough."""
    rows = [dict(found[kind]) if isinstance(found[kind], dict) else {kind: found[kind]} for kind in KINDS]
    works = all(value == "ok" for row in rows for name, value in row.items() if name != "device")
    share = found["speed"]["share"] if isinstance(found["speed"], dict) else {}
    return works and all(share.get(name, 0) >= least for name, least in WANTED.items())


def main(arguments: list[str] | None = None) -> int:
    described = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    described.parse_args(arguments)
    if not torch.cuda.is_available():
        print(json.dumps({"cuda": False, "said": "torch finds no NVIDIA card here; nothing was checked"}))
        return NO_CARD
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        found = check(Path(place))
    print(json.dumps(found, indent=1))
    return 0 if is_right(found) else 1


if __name__ == "__main__":
    sys.exit(main())
