"""The layers that an attention's inputs come from, and which of their outputs become them."""

from dataclasses import dataclass
from itertools import groupby
from math import gcd

import torch
from torch import Tensor

from beft_lightning.bias.architecture import REST, Fused
from beft_lightning.bias.watching import Call, Watch


@dataclass(frozen=True)
class Source:
    """A layer, and which of its outputs an attention's input is made of.

    Args:
        layer: The layer's name.
        outputs: One flag for each output.
    """

    layer: str
    outputs: tuple[bool, ...]

    @property
    def is_whole(self) -> bool:
        """Whether the input is made of all outputs."""
        return all(self.outputs)


def source(watch: Watch, tensor: Tensor) -> Source | None:
    """Return the layer that ``tensor`` comes from: the last before the attention, which owns the bias.

    Args:
        watch: What was seen of the forward pass.
        tensor: An input of an attention.

    Returns:
        None if it comes from no layer.
    """
    nearest = set(watch.walk(tensor))
    calls = [call for edge, call in watch.calls.items() if edge in nearest]
    if not calls or calls[-1].is_embedding:
        return None
    used = used_outputs(tensor, calls[-1])
    return Source(calls[-1].name, used) if any(used) else None


def used_outputs(tensor: Tensor, call: Call) -> tuple[bool, ...]:
    """Return which outputs of a layer ``tensor`` depends on: those with a gradient, under random weights."""
    generator = torch.Generator(tensor.device).manual_seed(0)
    weights = torch.randn(tensor.shape, generator=generator, device=tensor.device, dtype=torch.float32)
    (gradient,) = torch.autograd.grad(tensor, [call.output], weights.to(tensor.dtype), retain_graph=True)
    return tuple((gradient.movedim(call.channels, -1).flatten(0, -2) != 0).any(dim=0).tolist())


def fused_layout(parts: dict[str, tuple[bool, ...]]) -> Fused | None:
    """Return the order in which a layer computes several terms.

    Args:
        parts: Term -> which outputs are its.

    Returns:
        None if the parts overlap or do not repeat evenly.
    """
    owners = [
        [term for term, flags in parts.items() if flags[place]] for place in range(len(next(iter(parts.values()))))
    ]
    if any(len(terms) > 1 for terms in owners):
        return None
    runs = [(term, len(list(run))) for term, run in groupby(terms[0] if terms else REST for terms in owners)]
    names = [term for term, _ in runs]
    period = len(set(names))
    groups, remainder = divmod(len(runs), period)
    if period < 2 or remainder or runs != runs[:period] * groups or len(set(names[:period])) != period:
        return None
    unit = gcd(*(width for _, width in runs))
    return Fused({term: width // unit for term, width in runs[:period]}, groups=groups)
