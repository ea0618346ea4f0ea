"""Fused biases: one vector that holds several terms, split so that one of them trains alone."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from beft_lightning.bias.architecture import Fused
from beft_lightning.bias.parametrized import parametrize_tensor, unparametrize

#: Names of biases; the second is of ``nn.MultiheadAttention``.
BIAS_NAMES = ("bias", "in_proj_bias")


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
    """Make each part of the bias of ``owner`` a parameter of its own; ``owner`` computes the same as before.

    The parts are at least fp32, whatever the bias was: a bf16 value loses updates below about 0.4 % of itself.
    """
    if is_split(owner):
        return
    bias: Any = getattr(owner, layout.bias)
    bias.data = bias.data.to(torch.promote_types(bias.dtype, torch.float32))
    parametrize_tensor(owner, layout.bias, FusedBias(layout))


def split_all(owners: Iterable[tuple[nn.Module, Fused]]) -> None:
    """Split the biases of several modules. Where one parameter is the bias of two, so is each of its parts."""
    firsts: dict[Tensor, nn.Module] = {}
    for owner, layout in owners:
        if is_split(owner):
            continue
        first = firsts.setdefault(getattr(owner, layout.bias), owner)
        split(owner, layout)
        if first is not owner:
            parts = owner.get_submodule(f"parametrizations.{layout.bias}")
            for name, part in first.get_submodule(f"parametrizations.{layout.bias}").named_parameters():
                parts.register_parameter(name, part)


def split_again(owners: Iterable[tuple[nn.Module, Fused]]) -> None:
    """Split the biases of several modules in another way, or for the first time."""
    layouts = dict(owners)
    fuse(layouts)
    split_all(layouts.items())


def own_parameter(owner: nn.Module, name: str) -> nn.Module | nn.Parameter:
    """Return what tells whether two modules have one bias: a parameter, or a module that has the bias to itself."""
    if is_split(owner):
        return owner.get_parameter(f"parametrizations.{name}.original0")
    return dict(owner.named_parameters(recurse=False)).get(name, owner)


def is_split(owner: nn.Module) -> bool:
    """Return whether the parts of a fused bias of ``owner`` are parameters of their own."""
    return layout_of(owner) is not None


def layout_of(owner: nn.Module) -> Fused | None:
    """Return how ``owner`` orders the outputs that its split bias is added to; None if no bias is split."""
    for parts in getattr(owner, "parametrizations", {}).values():
        if isinstance(parts[0], FusedBias):
            return parts[0].layout
    return None


def same_layout(one: Fused, other: Fused, outputs: int) -> bool:
    """Return whether two layouts divide a bias of ``outputs`` values alike, under the same names in the same order."""
    same = list(one.parts) == list(other.parts) and (one.groups, one.bias) == (other.groups, other.bias)
    return same and one.widths(outputs) == other.widths(outputs)


def fused_parts(owner: nn.Module, layout: Fused | None) -> dict[str, nn.Parameter]:
    """Return each part of the bias of ``owner``, a term or one head of a term.

    Once split, the parts are the parameters themselves, of shape ``(d,)``. Before, they are views that share the bias'
    memory, of shape ``(groups, d / groups)`` if there are several groups: what is written into one changes the model,
    but no gradient arrives there.

    Args:
        owner: A layer.
        layout: How it orders several terms. Once split, the layout of the split counts.
    """
    if (divided := layout_of(owner)) is not None:
        originals: Any = owner.parametrizations[divided.bias]  # type: ignore[index]
        return {part: getattr(originals, f"original{place}") for place, part in enumerate(divided.parts)}
    assert layout is not None
    bias: Any = getattr(owner, layout.bias)
    views = [run.squeeze(0) for run in _runs(bias.detach(), layout)]
    return {term: nn.Parameter(view, bias.requires_grad) for term, view in zip(layout.parts, views, strict=True)}


def fuse_biases(module: nn.Module) -> None:
    """Undo every split in ``module``: names and shapes of its parameters are those of transformers again."""
    fuse(module.modules())


def fuse(owners: Iterable[nn.Module]) -> None:
    """Undo the splits of the biases that modules own. Where one bias was that of two, it is so again."""
    firsts: dict[Any, nn.Module] = {}
    for owner in owners:
        if (layout := layout_of(owner)) is not None:
            first = firsts.setdefault(own_parameter(owner, layout.bias), owner)
            unparametrize(owner, layout.bias)
            owner.register_parameter(layout.bias, first.get_parameter(layout.bias))


def bias_name(owner: nn.Module) -> str:
    """Return the name of the bias that a module has or can be given."""
    return "in_proj_bias" if isinstance(owner, nn.MultiheadAttention) else "bias"


def add_bias(owner: nn.Linear | nn.MultiheadAttention) -> None:
    """Give a layer the bias that it lacks, as zeros in fp32."""
    if isinstance(owner, nn.MultiheadAttention):
        outputs, weight = 3 * owner.embed_dim, owner.out_proj.weight
    else:
        outputs, weight = owner.out_features, owner.weight
    setattr(owner, bias_name(owner), nn.Parameter(torch.zeros(outputs, device=weight.device)))


def is_bias(name: str) -> bool:
    """Return whether a parameter of this name is a bias or a part of one."""
    *_, parent, own = ["", *name.split(".")]
    return own in BIAS_NAMES or (parent in BIAS_NAMES and own.startswith("original"))


def _runs(bias: Tensor, layout: Fused) -> tuple[Tensor, ...]:
    """Views of the parts, each of shape ``(groups, d / groups)``."""
    widths = layout.widths(len(bias))
    return bias.view(layout.groups, sum(widths)).split(widths, dim=1)
