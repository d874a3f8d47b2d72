"""What stands between a folder and a loaded model: code of its own, weights in a form that a backend cannot read, a
network that writes no text. Each is one line that says what to do instead."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmm.errors import LmmError, ModelError
from lmm.text.sanitize import clean_line

if TYPE_CHECKING:
    from lmm.adapters.models.source import ModelSource

ADAPTER = "adapter_config.json"  # of PEFT
MLX_READS = ("awq", "gptq", "compressed-tensors")  # packed formats of others that mlx-lm repacks
NO_WRITERS = ("Model", "ForMaskedLM", "Classification", "ForQuestionAnswering", "ForPreTraining", "Encoder")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file, or {} where there is none."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def own_code(folder: Path) -> list[str]:
    """Python files that the model or its tokenizer name as their own, as "modeling_x.py" or "modeling_x.py of
    owner/repo"."""
    named: list[Any] = []
    for file in ("config.json", "tokenizer_config.json"):
        content = read_json(folder / file)
        table = content.get("auto_map")
        for value in table.values() if isinstance(table, dict) else [table]:
            named += value if isinstance(value, list) else [value]
        if isinstance(content.get("model_file"), str):  # mlx-lm's
            named.append(content["model_file"].removesuffix(".py") + ".py")
    return list(dict.fromkeys(_file_of(name) for name in named if isinstance(name, str)))


def _file_of(name: str) -> str:
    """ "owner/repo--modeling_x.Class" -> "modeling_x.py of owner/repo"."""
    if name.endswith(".py"):
        return name
    place, _, module = name.rpartition("--")
    return module.partition(".")[0] + ".py" + (f" of {place}" if place else "")


def is_for_mlx(folder: Path) -> bool:
    """Are the weights in a folder quantised as mlx-lm does it?"""
    return "bits" in (read_json(folder / "config.json").get("quantization") or {})


def check(source: ModelSource, backend: str) -> None:
    """Raises ModelError for a folder that `backend` would load as something else than it is, or not at all."""
    config = read_json(source.folder / "config.json")
    kinds = [str(kind) for kind in config.get("architectures") or ()]
    wrapped = config.get("auto_map") or any(kind.endswith("LMHeadModel") for kind in kinds)
    if config.get("is_encoder_decoder"):
        raise ModelError(f"{source.name} translates one text into another ({_few(kinds)}); lmm needs a decoder alone")
    if kinds and not wrapped and all(kind.endswith(NO_WRITERS) for kind in kinds):
        raise ModelError(f"{source.name} is no language model that writes ({_few(kinds)}); choose a causal one")
    if backend != "mlx_lm" and is_for_mlx(source.folder):
        raise ModelError(f"{source.name} is quantised for MLX; use --backend mlx_lm, or the model's own weights")
    if not source.trusted and needs_own_code(config, backend):
        raise untrusted(source.name, source.folder)


def needs_own_code(config: dict[str, Any], backend: str) -> bool:
    """Whether the model of a config.json can only be made by Python code that comes with it."""
    if backend == "mlx_lm":
        return bool(config.get("model_file"))
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return bool(config.get("auto_map")) and config.get("model_type") not in CONFIG_MAPPING_NAMES


def refusal(source: ModelSource, loader: str, error: BaseException) -> ModelError:
    """What `loader` could not do, in one line with a way out."""
    if asks_for_trust(error):
        return untrusted(source.name, source.folder)
    if isinstance(error, SystemExit):  # as some modules end, after they have printed what they lack
        error = ImportError("a package that it needs is not installed")
    reason = clean_line(" ".join(str(error).split()), 300) or type(error).__name__
    if method := _method(source):
        there = ", --backend mlx_lm" if loader != "mlx-lm" and method in MLX_READS else ""
        return ModelError(
            f"{source.name} is quantised by {method}, and {loader} cannot load that here ({reason}); "
            f"use the model's own weights{there} or a GGUF file of it"
        )
    return ModelError(f"{loader} cannot load {source.name}: {reason}")


@contextlib.contextmanager
def running(source: ModelSource) -> Iterator[None]:
    """Inside, what is raised by code that comes with a model is a ModelError, whatever it is."""
    try:
        yield
    except LmmError:
        raise
    except (Exception, SystemExit) as error:
        if not (source.trusted and (code := own_code(source.folder))):
            raise
        said = clean_line(" ".join(f"{type(error).__name__}: {error}".split()), 300)
        raise ModelError(f"the code that comes with {source.name} ({', '.join(code)}) fails: {said}") from error


def asks_for_trust(error: BaseException) -> bool:
    """Whether a loader of transformers refused to run the folder's code."""
    return isinstance(error, ValueError) and "trust_remote_code" in str(error)


def untrusted(name: str, folder: Path) -> ModelError:
    code = ", ".join(own_code(folder)) or "it does not say which"
    return ModelError(
        f"{name} runs only with Python code that comes with it ({code}), and lmm runs none unasked; "
        "read that code, then say --trust-remote-code, or choose another model"
    )


def _method(source: ModelSource) -> str:
    """How the weights are quantised, as transformers calls it."""
    config = read_json(source.folder / "config.json")
    for part in (config, config.get("text_config") or {}):
        if isinstance(found := part.get("quantization_config"), dict):
            return str(found.get("quant_method") or "")
    return ""


def _few(kinds: list[str]) -> str:
    return ", ".join(kinds) or "no architecture named"
