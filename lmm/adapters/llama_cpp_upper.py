"""The layers of a model from one on, and its head, in torch: llama.cpp gives no gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from safetensors import safe_open
from torch import nn

from lmm.adapters.base import Adapter, Cache, Tap, TapContext
from lmm.adapters.ops import Array
from lmm.adapters.torch_lm import TorchAdapter
from lmm.adapters.torch_ops import TorchOps
from lmm.adapters.torch_wide import widen
from lmm.errors import ModelError

if TYPE_CHECKING:
    from lmm.adapters.models.chat_format import ChatFormat
    from lmm.adapters.models.source import ModelSource

LAYER = "model.layers."


class UpperLayers(TorchAdapter):
    """A model of the layers from `first` on, computed in float32; its layer 0 is layer `first` of the whole."""

    name = "llama_cpp"

    def __init__(self, source: ModelSource, format: ChatFormat, first: int) -> None:
        Adapter.__init__(self)
        self.first, self.format, self.device = first, format, "cpu"
        self.ops = TorchOps(torch.device("cpu"))
        self.model = _load(source, first)
        self._find_parts(None)

    def empty(self, tokens: np.ndarray) -> Cache:
        """A cache for `refill`: of tokens that no layer has read."""
        return replace(self.new_cache(), tokens=tokens)

    @contextlib.contextmanager
    def tapped(self, taps: Sequence[Tap], rewritten: Callable[[Tap, Array, Array], Array]) -> Iterator[None]:
        """The taps of the whole model act here too, where their layers are here."""

        def passing_on(tap: Tap) -> Callable[[Array, Array, TapContext], Array]:
            return lambda x_in, x_out, context: rewritten(tap, x_in, x_out)

        with contextlib.ExitStack() as stack:
            for tap in taps:
                if tap.site.layer >= self.first:
                    here = replace(tap.site, layer=tap.site.layer - self.first)
                    stack.enter_context(self.tap(here, passing_on(tap)))
            yield


def _load(source: ModelSource, first: int) -> Any:
    config = transformers.AutoConfig.from_pretrained(str(source.folder), local_files_only=True)
    for key, value in config.to_dict().items():  # what is said for each layer: its type, whether it rotates
        if isinstance(value, list) and len(value) == config.num_hidden_layers:
            setattr(config, key, value[first:])
    config.num_hidden_layers -= first
    kind = getattr(transformers, config.architectures[0], None)
    if kind is None:
        raise ModelError(f"{source.name}: transformers does not know {config.architectures[0]}; it cannot learn here")
    transformers.utils.logging.disable_progress_bar()
    weights = dict(_weights(source, first))
    stored = next(iter(weights.values())).dtype
    model = kind.from_pretrained(None, config=config, state_dict=weights, dtype=stored)
    model.set_input_embeddings(_Nothing(config.hidden_size))
    for module in model.modules():
        if type(module) is not nn.Linear:  # projections stay as they are stored, and are computed in float32
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.float()
    widen(model, 1)
    return model.eval().requires_grad_(False)


class _Nothing(nn.Module):
    """In place of the embeddings, which nobody asks: the layers begin with hidden states [B, T, D] in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.zeros(*ids.shape, self.width)


def _weights(source: ModelSource, first: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Those of the layers from `first` on, counted from 0, and of what stands around the layers."""
    for file in sorted(source.folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no dict
                layer, _, rest = name.removeprefix(LAYER).partition(".")
                if not name.startswith(LAYER):
                    yield name, tensors.get_tensor(name)
                elif int(layer) >= first:
                    yield f"{LAYER}{int(layer) - first}.{rest}", tensors.get_tensor(name)
