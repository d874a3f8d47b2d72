"""Whether all of it works on an NVIDIA card, without the network: python -m scripts.check_cuda

Tiny models of random weights run in parts, learn, are attached and hand their memory files to the CPU and back; a
made-up model of a billion weights in bfloat16 says how fast decoding is beside `generate`. Prints one JSON object.
Exits 3 where there is no card, 1 where something is wrong or too slow.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from lmm import attach
from lmm.adapters import selfcheck
from lmm.adapters.models.source import ModelSource
from lmm.adapters.torch_lm import TorchAdapter
from lmm.config import Config
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
    found: dict[str, Any] = {"device": adapter.device, "runs in parts": selfcheck.problem(adapter) or "ok"}
    checks: dict[str, Callable[[], bool]] = {
        "identity is generate": lambda: _as_generate(adapter),
        "keyed learns": lambda: _said(Mind(adapter, Keyed()), teach=True) == LESSON.answer,
        "lora_on_user learns": lambda: _nearer(Mind(adapter, LoraOnUser())),
        "attach": lambda: _attached(folder),
        "a file moves to the CPU and back": lambda: _moved(adapter, folder),
    }
    for name, check in checks.items():
        try:
            found[name] = "ok" if check() else "no"
        except Exception as error:  # whatever it is, the others are to be heard of
            found[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return found


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


def speed(folder: Path, tokens: int = TOKENS, dtype: str = "bfloat16") -> dict[str, Any]:
    """Tokens/s of `generate`, of `identity` and of `keyed` with a lesson, and the memory in use, in MB."""
    adapter = TorchAdapter(ModelSource("made up", folder, "made up", None), dtype=dtype)
    adapter.format.stop_ids = frozenset()  # random weights end where they like
    prompt = adapter.format.prompt_tokens("Tell me about the sea.")
    adapter.generate_native(prompt, 8)
    start = time.perf_counter()
    adapter.generate_native(prompt, tokens)
    found: dict[str, Any] = {"generate": tokens / (time.perf_counter() - start)}
    for name, memory in (("identity", Identity()), ("keyed", Keyed())):
        mind = Mind(adapter, memory)
        if name == "keyed":
            mind.learn(LESSON)
        engine = Engine(mind, decoding=replace(Config(), max_tokens=tokens, stop_repeats=False))
        engine.reply("Hello.")
        start = time.perf_counter()
        turn = engine.reply("Tell me about the sea.")
        spent = time.perf_counter() - start
        found[name] = len(turn.generated.tokens) / spent if turn.generated else 0.0
        engine.close()
    found["share"] = {name: round(found[name] / found["generate"], 3) for name in WANTED}
    if torch.cuda.is_available():
        found["peak MB"] = torch.cuda.max_memory_allocated() >> 20
    return found


def main() -> int:
    if not torch.cuda.is_available():
        print(json.dumps({"cuda": False, "said": "torch finds no NVIDIA card here; nothing was checked"}))
        return NO_CARD
    start = time.perf_counter()
    found: dict[str, Any] = {"cuda": True, "card": torch.cuda.get_device_name(), "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as place:
        for kind in KINDS:
            folder = Path(place, kind)
            make(kind, folder)
            found[kind] = parts(folder, kind)
        make("llama", Path(place, "big"), BIG, dtype=torch.bfloat16)
        found["speed"] = speed(Path(place, "big"))
    found["seconds"] = round(time.perf_counter() - start, 1)
    print(json.dumps(found, indent=1))
    right = all(value == "ok" for kind in KINDS for name, value in found[kind].items() if name != "device")
    fast = all(found["speed"]["share"][name] >= least for name, least in WANTED.items())
    return 0 if right and fast else 1


if __name__ == "__main__":
    sys.exit(main())
