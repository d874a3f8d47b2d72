"""A PEFT adapter merged into its base: the model says what PEFT's own says; what is no adapter for it is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny

from lmm import registry
from lmm.adapters.models.source import resolve
from lmm.config import Config
from lmm.errors import ModelError
from lmm.files import standing

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

TOKENS = np.arange(20)[None] + 3
HOW = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "of its own strength": {"alpha_pattern": {"layers.1.self_attn.q_proj": 32}, "rank_pattern": {"v_proj": 2}},
    "with embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "with a head": {"modules_to_save": ["lm_head"]},
}


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LMM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setitem(tiny.COMMON, "tie_word_embeddings", False)
    tiny.source(tmp_path / "base")
    return tmp_path / "base"


def adapted(base: Path, folder: Path, **how) -> np.ndarray:
    """An adapter in `folder` -> PEFT's own logits [T, V] with it."""
    from transformers import AutoModelForCausalLM

    settings = {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "v_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), peft.LoraConfig(**settings | how))
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.normal_(0.0, 0.3)
        found = model(torch.as_tensor(TOKENS)).logits[0].numpy()
    model.save_pretrained(folder)
    return found


def logits(source) -> np.ndarray:
    adapter = registry.load_adapter("torch", source, dtype="float32")
    return adapter.ops.to_numpy(adapter.forward(TOKENS, adapter.new_cache(), keep=TOKENS.shape[1])[0])[0]


@pytest.mark.parametrize("how", HOW)
def test_a_merged_adapter_is_what_peft_makes_of_it(base: Path, tmp_path: Path, how: str) -> None:
    wanted = adapted(base, tmp_path / "mine", **HOW[how])
    source = resolve(str(base), adapter=str(tmp_path / "mine"))
    assert np.abs(logits(source) - wanted).max() < 1e-4 < np.abs(logits(resolve(str(base))) - wanted).max()
    assert source.model_id == "base+mine" and source.revision and source.name.endswith("base+mine")


def test_it_is_merged_once_and_again_when_it_changes(base: Path, tmp_path: Path) -> None:
    told: list[str] = []
    adapted(base, tmp_path / "mine")
    merged = [
        resolve(str(base), adapter=str(tmp_path / "mine"), progress=lambda done, total, text: told.append(text)).folder
        for _ in range(2)
    ]
    assert merged[0] == merged[1] and told == ["merging mine"]
    assert resolve(str(merged[0])).model_id == "base+mine"  # by its folder, the same model
    adapted(base, tmp_path / "mine", lora_alpha=3)
    assert resolve(str(base), adapter=str(tmp_path / "mine")).folder != merged[0]


def test_what_is_no_adapter_for_the_model_is_refused(base: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    with pytest.raises(ModelError, match="no PEFT adapter"):
        resolve(str(base), adapter=str(mine))
    adapted(base, mine)
    with pytest.raises(ModelError, match=r"--model .* --adapter"):
        resolve(str(mine))
    settings = json.loads((mine / "adapter_config.json").read_text())
    for changed, said in (({"peft_type": "LOHA"}, "LOHA"), ({"use_dora": True}, "use_dora")):
        (mine / "adapter_config.json").write_text(json.dumps(settings | changed))
        with pytest.raises(ModelError, match=said):
            resolve(str(base), adapter=str(mine))
    (mine / "adapter_config.json").write_text(json.dumps(settings))
    tiny.source(tmp_path / "other", "phi3")
    with pytest.raises(ModelError, match="not for this model"):
        resolve(str(tmp_path / "other"), adapter=str(mine))
    adapted(base, mine, modules_to_save=["lm_head"])
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    with pytest.raises(ModelError, match="whose head is its embeddings"):
        resolve(str(base), adapter=str(mine))
    assert not list((tmp_path / "cache" / "models").glob("*/")), "a failed merge left a folder"


def test_an_adapted_model_has_a_standing_memory_of_its_own(tmp_path: Path) -> None:
    files = [standing.file_of(Config(adapter=adapter)) for adapter in (None, "a/mine", "b/mine")]
    assert len(set(files)) == 3
    assert Config(adapter="a/mine").model_name == f"{Config().model}+mine"
