"""W_m as a torch module, and the tap that puts it beside a down-projection of a transformers model."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from lmm.adapters.structure import down_projection, find_layers
from lmm.errors import UsageError
from lmm.memory.memoir.database import EditMaskDatabase, sizes
from lmm.memory.memoir.fingerprint import TopHashFingerprinter, as_bits, as_numpy


class ResidualMemoryLayer(torch.nn.Module):
    """y = W_m (m * x), x [.., F] -> [.., D]; zero when fresh, so a model with it answers as without.

    Gradients reach only the columns of W_m where m is 1, so other edits' columns stay, given an optimiser without
    weight decay that is new for each edit: an earlier edit's momentum would go on moving its columns.
    `sparsity_ratio` is the share of channels of the masks that `fingerprinter()` makes. Raises UsageError for sizes
    that cannot be.
    """

    def __init__(
        self,
        hidden_size: int | None = None,
        max_edits: int | None = None,
        sparsity_ratio: float = 0.01,
        output_size: int | None = None,
    ) -> None:
        super().__init__()
        self.hidden_size, self.max_edits = sizes(hidden_size, max_edits)
        if not 0 < sparsity_ratio <= 1:
            raise UsageError(f"sparsity_ratio must be above 0 and at most 1, not {sparsity_ratio}")
        self.sparsity_ratio = sparsity_ratio
        self.weight = torch.nn.Parameter(torch.zeros(output_size or self.hidden_size, self.hidden_size))
        self.masks: dict[str, torch.Tensor] = {}
        self.metadata: dict[str, dict[str, Any]] = {}

    def fingerprinter(self, **more: Any) -> TopHashFingerprinter:
        """A maker of masks that fit this layer."""
        return TopHashFingerprinter(self.hidden_size, max(1, round(self.sparsity_ratio * self.hidden_size)), **more)

    def add_edit(self, edit_id: str, edit_mask: Any, metadata: dict[str, Any] | None = None) -> None:
        """Know a mask by name. Raises UsageError for a name that is taken, another shape, or a full layer."""
        if edit_id in self.masks:
            raise UsageError(f"there is an edit {edit_id!r} already")
        if len(self.masks) >= self.max_edits:
            raise UsageError(f"the layer holds {self.max_edits} edits at most (max_edits)")
        self.masks[edit_id], self.metadata[edit_id] = self._mask(edit_mask), dict(metadata or {})

    def forward(self, hidden_states: torch.Tensor, edit_mask: Any = None, edit_id: str | None = None) -> torch.Tensor:
        """The residual [.., D] under a mask [F] or [B, F], or that of a known edit; zero if neither is given.

        Raises UsageError for an id that is not known.
        """
        if edit_mask is None and edit_id is None:
            return hidden_states.new_zeros((*hidden_states.shape[:-1], self.weight.shape[0]))
        if edit_mask is None and edit_id not in self.masks:
            raise UsageError(f"there is no edit {edit_id!r}; add it with add_edit")
        mask = self.masks[edit_id] if edit_mask is None and edit_id is not None else self._mask(edit_mask)
        mask = mask.to(hidden_states)
        mask = mask[:, None] if mask.ndim == 2 else mask
        return torch.nn.functional.linear(hidden_states * mask, self.weight.to(hidden_states.dtype))

    def get_extra_state(self) -> torch.Tensor:
        """The edits as the bytes of a JSON text, so that `state_dict()` holds them, also as safetensors."""
        columns = {edit_id: mask.nonzero()[:, 0].tolist() for edit_id, mask in self.masks.items()}
        text = json.dumps([columns, self.metadata]).encode()
        return torch.frombuffer(bytearray(text), dtype=torch.uint8)

    def set_extra_state(self, state: torch.Tensor) -> None:
        columns, self.metadata = json.loads(bytes(state.tolist()))
        self.masks = {edit_id: torch.zeros(self.hidden_size) for edit_id in columns}
        for edit_id, found in columns.items():
            self.masks[edit_id][found] = 1.0

    def _mask(self, mask: Any) -> torch.Tensor:
        found = torch.as_tensor(as_bits(mask)).float()
        if found.shape[-1] != self.hidden_size or found.ndim > 2:
            raise UsageError(f"a mask has shape {tuple(found.shape)}, expected ({self.hidden_size},)")
        return found.to(self.weight.device)


class MemoirTap:
    """The three parts at one down-projection: what a MEMOIRTransformerBlock is for, without replacing a block.

    While `attached()` is open, a prompt's mask is taken when it is read and held while the reply is decoded (a pass of
    one token that follows; without a KV cache, of the prompt and one token more than before): if an edit in `database`
    is at least `threshold` similar, its stored mask is used, else the residual is zero. `threshold` defaults to
    MEMOIR_SIMILARITY_THRESHOLD or .8; raises UsageError for one that cannot be. Prompts of a batch must not be padded.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        layer: int,
        memory: ResidualMemoryLayer,
        fingerprinter: TopHashFingerprinter,
        database: EditMaskDatabase,
        threshold: float | None = None,
    ) -> None:
        from lmm.memory.memoir.options import environment

        lists = [(n, list(m)) for n, m in model.named_modules() if isinstance(m, torch.nn.ModuleList)]
        config = model.config.get_text_config()
        _, layers = find_layers(model, lists, config.num_hidden_layers, None)
        if not 0 <= layer < len(layers):
            raise UsageError(f"layer {layer} does not exist; this model has layers 0 to {len(layers) - 1}")
        self.module = down_projection(layers[layer])
        wanted = tuple(self.module.weight.shape)
        if tuple(memory.weight.shape) != wanted:
            raise UsageError(
                f"the memory layer is {tuple(memory.weight.shape)}, the down-projection of layer {layer} {wanted}; "
                f"make it with hidden_size={wanted[1]}, output_size={wanted[0]}"
            )
        self.memory, self.fingerprinter, self.database = memory, fingerprinter, database
        self.set_retrieval_threshold(environment().get("tau", 0.8) if threshold is None else threshold)
        self.forced: str | None = None
        self._held: list[tuple[str, float] | None] = []
        self._mask: torch.Tensor | None = None
        self._prompt: torch.Tensor | None = None  # what entered the site when it was read, [B, T, F]
        self._length = 0  # tokens of the last pass
        self.last_features: np.ndarray | None = None

    def set_retrieval_threshold(self, threshold: float) -> None:
        if not 0 < threshold <= 1:
            raise UsageError(f"the threshold must be above 0 and at most 1, not {threshold}")
        self.threshold = threshold

    def get_last_retrieval_info(self) -> dict[str, Any] | None:
        """{"edit_id", "similarity"} of the last prompt read (the last row of a batch); None: no edit was used."""
        last = self._held[-1] if self._held else None
        return None if last is None else {"edit_id": last[0], "similarity": last[1]}

    @contextlib.contextmanager
    def attached(self, edit_id: str | None = None) -> Iterator[MemoirTap]:
        """The residual acts inside; afterwards the model is as before. `edit_id`: use its mask whatever the prompt,
        which is how an edit is trained."""
        if edit_id is not None and edit_id not in self.memory.masks:
            raise UsageError(f"there is no edit {edit_id!r}; add it to the memory layer with add_edit")
        handle = self.module.register_forward_hook(self._on_output)
        self.forced = edit_id
        try:
            yield self
        finally:
            self.forced = None
            handle.remove()

    def _on_output(self, module: Any, args: Any, out: torch.Tensor) -> torch.Tensor:
        x = args[0]
        if self.forced is not None:
            return out + self.memory(x, edit_id=self.forced)
        if not self._goes_on(x):
            self._retrieve(x)
        self._length = x.shape[1]
        if not any(self._held):
            return out
        return out + self.memory(x, edit_mask=self._mask)

    def _goes_on(self, x: torch.Tensor) -> bool:
        """Is this pass the next token of the reply to the prompt that was read last?"""
        if self._prompt is None or len(self._prompt) != len(x):
            return False
        if x.shape[1] == 1:
            return True
        read = self._prompt.shape[1]
        if x.shape[1] != self._length + 1 or x.shape[1] <= read:
            return False
        # what enters the site is as before up to rounding, which the length of a pass changes; another token's is not
        moved, size = (x[:, :read] - self._prompt).norm(dim=-1), self._prompt.norm(dim=-1)
        return bool((moved <= 0.1 * size).all())

    def _retrieve(self, x: torch.Tensor) -> None:
        """Decide for each row of x [B, T, F] which edit applies to its prompt."""
        self.last_features = as_numpy(x.mean(dim=1))
        self._held, masks = [], []
        for row in self.last_features:
            found = self.database.find_closest(self.fingerprinter.generate_mask(row), self.threshold)
            self._held.append(None if found is None else (found[0], found[2]))
            masks.append(np.zeros(len(row), np.float32) if found is None else found[1])
        self._mask, self._prompt = torch.as_tensor(np.stack(masks)), x.detach()
