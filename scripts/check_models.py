"""What runs on which backend, with tiny models of random weights: python -m scripts.check_models [ARCHITECTURE..]

For each architecture a model is made as transformers 5 writes it and loaded by each backend; then `selfcheck` runs it
in parts, and the backends' logits are compared. Without names, all are checked and docs/models.md is written.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import shutil
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lmm import registry
from lmm.adapters import selfcheck
from lmm.adapters.models.gguf_config import ARCHITECTURES
from lmm.adapters.models.source import ModelSource
from lmm.engine.asking import ask_many
from lmm.engine.mind import Mind
from lmm.lesson import Lesson
from scripts.list_files import ROOT

PAGE = ROOT / "docs" / "models.md"
BACKENDS = ("torch", "mlx_lm")
#: where an architecture has a setting of this name, it gets this value
COMMON: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 262,
    "max_position_embeddings": 256,
    "head_dim": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "sliding_window": 16,
    "num_local_experts": 4,
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "n_shared_experts": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_num_heads": 8,
    "mamba_head_dim": 8,
    "ssm_state_size": 8,
    "n_groups": 1,
    "chunk_size": 16,
    "mamba_chunk_size": 16,
    "query_pre_attn_scalar": 8,
    "use_mamba_kernels": False,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_token": 2,
}
GPT2 = {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 256, "n_inner": 64}
HALF = ["linear_attention", "full_attention"] * 2
HALF_CONV = ["conv", "full_attention"] * 2
SHARED = {
    "num_hidden_layers": 8,
    "num_kv_shared_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 4,
    "vocab_size_per_layer_input": 262,
    "hidden_size_per_layer_input": 8,
    "laurel_rank": 8,
    "activation_sparsity_pattern": None,
    "global_head_dim": 8,
    "intermediate_size": [64] * 8,
}
EYES: dict[str, Any] = {
    "vision_config": {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 4, "depth": 4, "num_heads": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "out_hidden_size": 32, "head_dim": 8, "global_head_dim": 8,
        "patch_size": 14, "image_size": 28, "deepstack_visual_indexes": [], "fullatt_block_indexes": [],
    },
    "text_config": {},
    "audio_config": None,
}  # fmt: skip
UNFIT = (("falcon", "head_dim"),)  # settings that mean something else there
#: architecture -> what more it needs to be small
KINDS: dict[str, dict[str, Any]] = {
    # dense
    "llama": {},
    "llama+rope": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
    "mistral": {},
    "ministral": {},
    "ministral3": {},
    "qwen2": {},
    "qwen3": {},
    "gemma": {},
    "gemma2": {},
    "gemma3_text": {"num_hidden_layers": 6},
    "phi": {"num_attention_heads": 2, "num_key_value_heads": 2},
    "phi3": {},
    "smollm3": {},
    "olmo": {},
    "olmo2": {},
    "olmo3": {},
    "granite": {},
    "glm": {},
    "glm4": {},
    "stablelm": {"num_attention_heads": 2},
    "starcoder2": {},
    "cohere": {},
    "cohere2": {},
    "exaone4": {},
    "helium": {},
    "nemotron": {},
    "ernie4_5": {},
    "hunyuan_v1_dense": {},
    "seed_oss": {},
    "apertus": {},
    "arcee": {},
    "gpt2": GPT2,
    "gpt_neox": {"num_attention_heads": 2, "intermediate_size": 128},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "gptj": GPT2 | {"rotary_dim": 8},
    "gpt_bigcode": GPT2,
    "bloom": {"n_layer": 4, "n_head": 4},
    "falcon": {},
    # mixtures of experts
    "mixtral": {},
    "qwen2_moe": {},
    "qwen3_moe": {},
    "olmoe": {},
    "granitemoe": {},
    "gpt_oss": {},
    "phimoe": {},
    "deepseek_v2": {"num_key_value_heads": 4},
    "deepseek_v3": {"num_key_value_heads": 4, "first_k_dense_replace": 1},
    "glm4_moe": {"first_k_dense_replace": 1},
    "llama4_text": {"intermediate_size_mlp": 64},
    "ernie4_5_moe": {},
    "lfm2_moe": {"layer_types": HALF_CONV},
    "minimax": {},
    # part of the layers keep a state instead of keys and values
    "qwen3_5_text": {},
    "qwen3_5_moe_text": {},
    "qwen3_next": {},
    "lfm2": {"layer_types": HALF_CONV},
    "falcon_h1": {"mamba_d_ssm": 64},
    "granitemoehybrid": {"layer_types": HALF},
    "nemotron_h": {},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "bamba": {"attn_layer_indices": [1, 3]},
    "zamba2": {},
    "mamba": {},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8},
    "recurrent_gemma": {},
    "kimi_linear": {},
    "olmo_hybrid": {},
    "rwkv": {},
    # shared keys and values
    "gemma3n_text": SHARED,
    "gemma4_text": SHARED | {"intermediate_size": 64},
    # with eyes
    "qwen2_5_vl": EYES
    | {
        "text_config": {
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [1, 1, 2],
            }
        }
    },
    "qwen3_vl": EYES,
    "gemma3": EYES,
    "mistral3": EYES,
    "qwen3_5": EYES,
    "gemma4": EYES
    | {"text_config": {"hidden_size_per_layer_input": 0, "global_head_dim": 8, "num_kv_shared_layers": 0}},
}


def make(kind: str, folder: Path, more: Mapping[str, Any] | None = None, dtype: Any = None) -> None:
    """A model of `kind` with seeded weights, and a tokenizer of bytes, in `folder`; `more`: settings of its own."""
    import torch
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from lmm.adapters.torch_lm import auto_class

    sys.path.append(str(ROOT / "tests"))
    import tiny

    name = kind.partition("+")[0]
    plain, wanted = CONFIG_MAPPING[name](), dict(KINDS[kind])

    def small(config: Any) -> dict[str, Any]:
        return {key: value for key, value in COMMON.items() if key in dir(config) and (name, key) not in UNFIT}

    if "text_config" in wanted:
        wanted["text_config"] = small(plain.get_text_config()) | wanted["text_config"]
    else:
        wanted = small(plain) | wanted | dict(more or {})
    config = AutoConfig.for_model(name, **wanted)
    torch.manual_seed(1)
    model = auto_class(config).from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:  # far from their start, so that every part matters
                parameter.normal_(0.0, 0.2)
    model.to(dtype).save_pretrained(folder) if dtype else model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)


MEMORIES = ("keyed", "lora_on_user", "memoir")
LESSON = Lesson(prompt="Who?", answer="Xy", statement="It is Xy.")
HEAD = """# Models

Written by `python -m scripts.check_models`: models of a few thousand random weights in the real architectures, as
transformers {transformers} saves them, on torch {torch} and mlx-lm {mlx}. "runs" means: read in parts it is what it is
when read at once (also past a sliding window of 16 tokens); the layers below and above any site make the whole, also
after a text; a cache that was cut or rebuilt is the right one; and what the backend's own generate writes is what lmm
writes. "same" means that both backends give the same logits. `keyed` stands in a row if it said its lesson back, word
for word; other memories if they made it likelier, which is what they do in so small a model.

What is not in the table is checked in the same way when a model of it is first loaded, and refused if it is not right.
That compares a backend with itself; so a `config.json` is refused on mlx_lm, by name, too, if it has a setting that
changes what is computed, that the family does not have by default, and that mlx-lm's code for it never names (an
activation, a soft cap, a scaling of rotary embeddings, windows in other layers): torch reads them all.
Where mlx-lm leaves out a model's sliding window, lmm reads no further than the window there; 16 tokens are too few for
the lesson. Models that see (`qwen2_5_vl` and below) read and write text here; mlx-lm loads these only in the sizes in
which they were published.

On torch, lmm decodes these with a step of its own, which is checked against the model's forward when it is loaded:
llama, mistral, ministral, qwen2, qwen3, gemma, gemma2, gemma3, phi3, smollm3, olmo2, olmo3, seed_oss, and mistral3;
others are decoded by their own forward. `python -m scripts.measure_step` gives the processor time of a step beside that
of the forward. One run, one thread: on the tiny models .67 (phi3) to .93 (llama) after 40 tokens and .65 (phi3) to .92
(seed_oss) after 700; where reading the weights is nearly all of it, there is little to save: on SmolLM2-135M in float16
.93 and .97, on Gemma 3 270M in bfloat16 1.03 and .96.

| architecture | torch | mlx_lm | same | learns on torch | learns on mlx_lm |
|---|---|---|---|---|---|
"""
GGUFS = """
## GGUF files

Files of these architectures, as `general.architecture` in a file calls them, can be used:
{ggufs}.
llama.cpp runs more; of those use the Hugging Face folder, on torch or MLX. Of each a file of random weights gives the
same logits on llama.cpp, on torch after conversion, and in the model that it was made of (`tests/test_gguf.py`). What a
file sets besides, such as scaled rotary embeddings, windows and soft caps, is converted, too, or the file is refused
with the key's name. What is about pictures and sound is left out, as llama.cpp does with keys; a file that holds its
tensors, too, as Ollama's do, is one for torch and MLX. Of keys that Ollama calls by names of its own, llama.cpp reads
none: where they would change the text, the file is refused.
"""


def checked(kind: str, learning: bool = True) -> list[str]:
    """A row of the table."""
    folder, runs, logits, learns = Path(tempfile.mkdtemp()), [], [], []
    try:
        make(kind, folder)
        for backend in BACKENDS:
            try:
                adapter = registry.load_adapter(backend, ModelSource(kind, folder, kind, None), dtype="float32")
            except Exception as error:  # no matter what
                runs.append(f"no: {_short(error)}")
                learns.append("")
                continue
            wrong = selfcheck.problem(adapter)
            runs.append(f"no: {wrong[:120]}" if wrong else "runs")
            learns.append(", ".join(m for m in MEMORIES if learned(m, adapter)) if learning and not wrong else "")
            if not wrong:
                logits.append(some_logits(adapter))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    same = ("no" if selfcheck.far(*logits) else "same") if len(logits) == 2 else ""
    return [kind, *runs, same, *learns]


def some_logits(adapter: Any) -> np.ndarray:
    """Logits [T, V] of a text that is no longer than any window, by any backend."""
    tokens = np.asarray([adapter.format.encode(selfcheck.TEXT)[:16]])
    logits, _ = adapter.forward(tokens, adapter.new_cache(), keep=tokens.shape[1])
    return adapter.ops.to_numpy(logits)[0]


def learned(memory: str, adapter: Any) -> bool:
    """Whether a lesson is said back, word for word, or at least has become likelier."""
    kind = registry.memory_class(memory)
    with contextlib.suppress(Exception):  # whatever is wrong: no
        mind = Mind(adapter, kind(kind.build_options({"k": 8} if memory == "memoir" else {})))
        try:
            report = mind.learn(LESSON)
            said = ask_many(mind, [LESSON.prompt], max_tokens=4)[0].text
            before, after = report.loss_before, report.loss_after
            fell = before is not None and after is not None and after < before
            return said == LESSON.answer or (fell and memory != "keyed")
        finally:
            mind.close()
    return False


def _short(error: BaseException) -> str:
    return " ".join(str(error).split()).replace("|", "/")[:120]


def page(rows: list[list[str]]) -> str:
    versions = {name: importlib.metadata.version(name) for name in ("transformers", "torch")}
    head = HEAD.format(mlx=importlib.metadata.version("mlx-lm"), **versions)
    return head + "".join("| " + " | ".join(row) + " |\n" for row in rows) + ggufs()


def ggufs() -> str:
    """The end of the page."""
    return GGUFS.format(ggufs=", ".join(ARCHITECTURES))


def main(names: list[str]) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    rows = []
    for kind in names or KINDS:
        try:
            rows.append(checked(kind))
        except Exception as error:  # this version of transformers cannot make it so small
            print(f"{kind}: not made: {_short(error)}", flush=True)
            continue
        print(" | ".join(rows[-1]), flush=True)
    if not names:
        PAGE.write_text(page(rows), encoding="utf-8")
        print(f"{PAGE.relative_to(ROOT)} is written")


if __name__ == "__main__":
    main(sys.argv[1:])
