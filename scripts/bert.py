"""What the training of pair models has in common: a layer of BERT in torch, and the descent with its progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from lmm.encoders.minilm import HEADS, NEAR, distances

if TYPE_CHECKING:
    from torch import Tensor

Batch = TypeVar("Batch")


class Bert:
    """Layers (Devlin et al. 2018, arXiv:1810.04805) of `base`'s weights where `params` has none of that name, with the
    LoRA that `params` may have beside a matrix. In NumPy: lmm.encoders.minilm.run_layers."""

    torch: Any
    base: Mapping[str, Tensor]
    params: dict[str, Tensor]

    def weight(self, name: str) -> Tensor:
        return self.params[name] if name in self.params else self.base[name]

    def linear(self, name: str, x: Tensor) -> Tensor:
        y = x @ self.weight(name + ".weight") + self.weight(name + ".bias")
        if name + ".lora_a" in self.params:
            y = y + (x @ self.params[name + ".lora_a"]) @ self.params[name + ".lora_b"]
        return y

    def norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.weight(name + ".weight"), self.weight(name + ".bias")
        return self.torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, 1e-12)

    def block(self, layer: int, x: Tensor, mask: Tensor) -> Tensor:
        """States [B, T, D] below a layer, which tokens there are [B, T] -> those above it."""
        at, (b, t, _) = f"encoder.layer.{layer}.", x.shape
        q, k, v = (
            self.linear(f"{at}attention.self.{n}", x).view(b, t, HEADS, -1).transpose(1, 2)
            for n in ("query", "key", "value")
        )
        seen = mask[:, None, None, :]
        if NEAR in self.base:
            nearness = self.base[NEAR][self.torch.from_numpy(distances(t))].permute(2, 0, 1).to(q.dtype)
            seen = nearness.masked_fill(~seen, -1e9)
        mixed = self.torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        mixed = mixed.transpose(1, 2).reshape(b, t, -1)
        x = self.norm(f"{at}attention.output.LayerNorm", x + self.linear(f"{at}attention.output.dense", mixed))
        inner = self.torch.nn.functional.gelu(self.linear(f"{at}intermediate.dense", x))
        return self.norm(f"{at}output.LayerNorm", x + self.linear(f"{at}output.dense", inner))


def descend(
    optimizer: Any,
    params: Iterable[Tensor],
    batches: Sequence[Batch],
    loss_of: Callable[[Batch], Tensor],
    warm_up: int,
    floor: float = 0.02,
    running: float = 0.69,
    every: int = 25,
    save: Callable[[], None] | None = None,
    save_every: int = 200,
) -> None:
    """One step for each batch: the rate rises for `warm_up` steps and falls to the share `floor`; gradients are
    clipped at 1. `running` is the mean loss that the progress begins with."""
    import torch

    trained, total, start = list(params), len(batches), time.time()
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min(1, (s + 1) / warm_up) * max(floor, 1 - s / total)
    )
    for step, batch in enumerate(batches):
        loss = loss_of(batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        running += 0.04 * (float(loss.detach()) - running)
        if save is not None and step % save_every == save_every - 1:
            save()
        if step % every == 0 or step == total - 1:
            left = (time.time() - start) / (step + 1) * (total - step - 1)
            print(f"step {step + 1}/{total}  loss {running:.3f}  {left:.0f} s left", flush=True)
