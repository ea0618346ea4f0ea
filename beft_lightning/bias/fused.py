"""Fused biases: one vector that holds several terms, split so that one of them trains alone."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from beft_lightning.bias.architecture import Fused
from beft_lightning.bias.parametrized import parametrize_tensor


class FusedBias(nn.Module):
    """Parametrization of a fused ``bias`` by one vector for each of its parts.

    Each part is a parameter of its own: frozen ones have no gradient and no optimizer state, and stay as they are to
    the last bit.

    Args:
        layout: How the layer orders its outputs.
    """

    def __init__(self, layout: Fused) -> None:
        super().__init__()
        self.layout = layout

    def right_inverse(self, bias: Tensor) -> list[Tensor]:
        """The parts of ``bias``, each of shape ``(d,)``."""
        return [part.flatten().clone() for part in _runs(bias, self.layout)]

    def forward(self, *parts: Tensor) -> Tensor:
        """The fused bias that the layer adds to its outputs."""
        return torch.cat([part.view(self.layout.groups, -1) for part in parts], dim=1).flatten()


def split(owner: nn.Module, layout: Fused) -> None:
    """Make each part of ``owner.bias`` a parameter of its own; ``owner`` computes the same as before.

    The parts are at least fp32, whatever the bias was: a bf16 value loses updates below about 0.4 % of itself.
    """
    if is_split(owner):
        return
    bias: Any = owner.bias
    bias.data = bias.data.to(torch.promote_types(bias.dtype, torch.float32))
    parametrize_tensor(owner, "bias", FusedBias(layout))


def is_split(owner: nn.Module) -> bool:
    """Return whether the parts of ``owner.bias`` are parameters of their own."""
    parametrizations = getattr(owner, "parametrizations", {})
    return "bias" in parametrizations and isinstance(parametrizations["bias"][0], FusedBias)


def fused_parts(owner: nn.Module, layout: Fused) -> dict[str, nn.Parameter]:
    """Return each term's part of ``owner.bias``.

    Once split, the parts are the parameters themselves, of shape ``(d,)``. Before, they are views that share the bias'
    memory, of shape ``(groups, d / groups)`` if there are several groups: what is written into one changes the model,
    but no gradient arrives there.
    """
    if is_split(owner):
        originals: Any = owner.parametrizations["bias"]  # type: ignore[index]
        return {term: getattr(originals, f"original{place}") for place, term in enumerate(layout.parts)}
    bias: Any = owner.bias
    views = [run.squeeze(0) for run in _runs(bias.detach(), layout)]
    return {term: nn.Parameter(view, bias.requires_grad) for term, view in zip(layout.parts, views, strict=True)}


def fuse_biases(module: nn.Module) -> None:
    """Undo every split in ``module``: names and shapes of its parameters are those of transformers again."""
    for owner in module.modules():
        if is_split(owner):
            parametrize.remove_parametrizations(owner, "bias", leave_parametrized=True)


def is_bias(name: str) -> bool:
    """Return whether a parameter of this name is a bias or a part of one."""
    *_, parent, own = ["", *name.split(".")]
    return own == "bias" or (parent == "bias" and own.startswith("original"))


def _runs(bias: Tensor, layout: Fused) -> tuple[Tensor, ...]:
    """Views of the parts, each of shape ``(groups, d / groups)``."""
    widths = layout.widths(len(bias))
    return bias.view(layout.groups, sum(widths)).split(widths, dim=1)
