"""Decoders of a few thousand random weights in Hugging Face layout: every backend loads them in milliseconds."""

from __future__ import annotations

import json
from pathlib import Path

from lmm.adapters.models.source import ModelSource

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
COMMON = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 262, "max_position_embeddings": 256, "tie_word_embeddings": True,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
}  # fmt: skip
EXTRA: dict[str, dict] = {
    "llama": {},
    "mistral": {"sliding_window": None, "head_dim": 8},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "phi3": {"partial_rotary_factor": 1.0},
    "gemma3_text": {
        "num_hidden_layers": 6, "head_dim": 8, "sliding_window": 16, "query_pre_attn_scalar": 8,
        "sliding_window_pattern": 3, "rope_local_base_freq": 10000.0,
    },
}  # fmt: skip
KINDS = tuple(EXTRA)


def tokenizer(template: str | None = TEMPLATE, decoder=None):
    """One token per byte, three special ones; `decoder` for tokenizers of another family."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġa", "th", "Ġth"]
    merges = [("Ġ", "a"), ("t", "h"), ("Ġ", "th")]
    raw = Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary)}, merges))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoder or decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=SPECIAL[1], eos_token=SPECIAL[2], pad_token=SPECIAL[0],
        additional_special_tokens=SPECIAL, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    made.chat_template = template
    return made


def source(folder: Path, kind: str = "llama", template: str | None = TEMPLATE) -> ModelSource:
    """A model of `kind` with seeded weights in `folder`. Needs torch, as transformers makes the weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **COMMON | EXTRA[kind])
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # far from their start, so that every part matters
            parameter.normal_(1.0 if "norm" in name and kind != "gemma3_text" else 0.0, 0.2)
    model.save_pretrained(folder)
    # transformers 5 moves the rotary settings to "rope_parameters"; models on the hub, and mlx-lm, have them here
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(written | COMMON | EXTRA[kind]))
    tokenizer(template).save_pretrained(folder)
    return ModelSource(f"tiny-{kind}", folder, f"tiny/{kind}", None)


def write_gguf(folder: Path, kind: str = "F32", family: str = "llama") -> None:
    """The Llama, or Gemma 3, of `source` in that folder as a GGUF file beside it, of the same weights, rounded to
    `kind`."""
    import gguf
    from safetensors.numpy import load_file

    weights, made = load_file(folder / "model.safetensors"), tokenizer()
    out, gemma = gguf.GGUFWriter(folder / "tiny.gguf", family), family == "gemma3"
    config = COMMON | (EXTRA["gemma3_text"] if gemma else {})
    if gemma:
        out.add_sliding_window(config["sliding_window"])
        out.add_key_length(config["head_dim"])
        out.add_value_length(config["head_dim"])
    out.add_context_length(config["max_position_embeddings"])
    out.add_block_count(config["num_hidden_layers"])
    out.add_embedding_length(config["hidden_size"])
    out.add_feed_forward_length(config["intermediate_size"])
    out.add_head_count(config["num_attention_heads"])
    out.add_head_count_kv(config["num_key_value_heads"])
    out.add_layer_norm_rms_eps(config["rms_norm_eps"])
    out.add_rope_freq_base(config["rope_theta"])
    out.add_vocab_size(config["vocab_size"])
    tokens = sorted(made.get_vocab(), key=made.get_vocab().get)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list(tokens)
    out.add_token_types([gguf.TokenType.CONTROL if t in SPECIAL else gguf.TokenType.NORMAL for t in tokens])
    out.add_token_merges(["Ġ a", "t h", "Ġ th"])
    out.add_bos_token_id(config["bos_token_id"])
    out.add_eos_token_id(config["eos_token_id"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[family.upper()], config["num_hidden_layers"])
    for name, values in weights.items():
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
        if gemma and "norm" in name:
            values = values + 1  # as llama.cpp's converter stores them
        if heads is not None and not gemma:  # llama.cpp rotates neighbours, Hugging Face the two halves of a head
            count, rows = config[heads], values.shape[0]
            values = values.reshape(count, 2, rows // count // 2, -1).swapaxes(1, 2).reshape(values.shape)
        stored = gguf.GGMLQuantizationType[kind if values.ndim == 2 else "F32"]
        values = gguf.quants.quantize(values.copy(), stored)
        out.add_tensor(names.get_name(name, (".weight",)), values, raw_dtype=stored)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
