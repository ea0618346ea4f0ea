"""Single heads of attention: the slices of a bias that belong to them, as parameters of their own."""

from collections import Counter
from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from beft_lightning.bias.architecture import REST, Architectures, Fused
from beft_lightning.bias.fused import fused_parts, layout_of, split_again
from beft_lightning.bias.names import in_towers, parsed, role, split_name
from beft_lightning.bias.owners import Place, chosen, places_of
from beft_lightning.bias.scope import Scope
from beft_lightning.errors import ArchitectureError, TermError
from beft_lightning.parameters import clean_name, full_tensor, numel
from beft_lightning.strategies.internals.deepspeed import is_partitioned

#: The terms that have heads.
HEADED_TERMS = ("query", "key", "value", "cross_query", "cross_key", "cross_value")
#: Attributes of attention that say how many values a head has: of one term first, then of all.
_WIDTHS_OF_TERMS = {"query": "qk_head_dim", "key": "qk_head_dim", "value": "v_head_dim"}
_WIDTHS = ("head_dim", "attention_head_size", "head_size", "key_value_proj_dim")


class HeadedBias(nn.Parameter):
    """A bias vector whose heads are parameters of their own: a copy of its values, to read.

    ``heads`` are the parameters, from head 0 on.
    """

    heads: list[nn.Parameter]


def headed_bias(parts: Mapping[str, nn.Parameter], term: str) -> HeadedBias:
    """Return the bias vector of a term that stands in a split bias by its heads.

    Args:
        parts: The parts of the bias. Where they are sharded, all processes must call this together.
        term: The term, without its tower.
    """
    heads = [parameter for part, parameter in parts.items() if split_name(part)[0] == term]
    bias = HeadedBias(torch.cat([full_tensor(head) for head in heads]), requires_grad=False)
    bias.heads = heads
    return bias


def pieces(bias: nn.Parameter) -> list[nn.Parameter]:
    """Return the parameters that a bias vector consists of: itself, or its heads."""
    return bias.heads if isinstance(bias, HeadedBias) else [bias]


def head_sizes(layers: Mapping[int, nn.Parameter]) -> list[list[int]]:
    """Return, for each bias vector of a term, the number of values of each of its heads, if they are set apart."""
    return [[numel(piece) for piece in pieces(bias)] for bias in layers.values()]


def whole_vector(bias: nn.Parameter) -> nn.Parameter:
    """Return a bias vector with its gradient as they are now: itself, or of heads that are set apart a new copy.

    Where they are sharded, all processes must call this together.
    """
    if not isinstance(bias, HeadedBias):
        return bias
    heads = bias.heads
    whole = nn.Parameter(torch.cat([full_tensor(head) for head in heads]))
    if any(head.grad is not None for head in heads):
        gradients = [torch.zeros_like(head) if head.grad is None else head.grad for head in heads]
        whole.grad = torch.cat([full_tensor(gradient) for gradient in gradients])
    return whole


def set_heads_apart(
    module: nn.Module, names: Iterable[str], architecture: Architectures = None, scope: Scope = None
) -> list[str]:
    """Make each head of some bias vectors a parameter of its own; the model's output does not change.

    A vector then stands in the state dict as ``parametrizations.bias.original0``, ``original1``, ...;
    :func:`~beft_lightning.bias.fuse_biases` undoes it. Where query, key and value of each head stand together in a
    fused bias (GPT-NeoX), all three are divided.

    Args:
        module: A model, or any module that contains one. It has the biases, and is not sharded.
        names: ``"value"`` (all layers), ``"value.3"`` (layer 3), or ``"value.3.h5"`` (the layer of that head).
        architecture: Where the terms are; by default looked up by the model's type, or found by watching it.
        scope: Names of the submodules to look at; by default everything.

    Returns:
        The names of the parameters that were made, of all parts of the biases that were divided; empty if the heads
        were apart.

    Raises:
        TermError: If a term has no heads, or the model has no such bias, layer or head.
        ArchitectureError: If nothing says how many values a head has, or the model is sharded.
    """
    if not (names := list(names)):
        return []
    places = places_of(module, architecture, scope)
    paths = {child: clean_name(path) for path, child in module.named_modules()}
    layouts: dict[nn.Module, Fused] = {}
    for name in in_towers(names, places):
        term, _, head = parsed(name)
        for place in _places(name, places):
            owner = place.owner
            layout = layouts.get(owner) or layout_of(owner) or place.layout
            if layout is None or role(term) in layout.parts:
                _check_whole(place, name, paths[owner])
                width = place.head_width or _head_width(owner, role(term), paths)
                layout = _by_heads(layout, place, role(term), width, paths[owner])
            count = sum(split_name(part)[0] == role(term) for part in layout.parts)
            if head is not None and head >= count:
                raise TermError(f"{name!r} names no head; heads of {term!r} there: h0..h{count - 1}.")
            layouts |= dict.fromkeys((owner, *place.tied), layout)
    divided = {owner: layout for owner, layout in layouts.items() if layout_of(owner) != layout}
    split_again(divided.items())
    made = {id(part) for owner, layout in divided.items() for part in fused_parts(owner, layout).values()}
    return [clean_name(name) for name, parameter in module.named_parameters() if id(parameter) in made]


def _places(name: str, places: Mapping[str, Mapping[int, Place]]) -> Iterable[Place]:
    """Return the places that a name means."""
    term, layer, _ = parsed(name)
    layers = chosen([term], places)[term]
    if role(term) not in HEADED_TERMS:
        headed = ", ".join(known for known in places if role(known) in HEADED_TERMS)
        raise TermError(f"{name!r}: {term!r} has no heads; the terms of this model that have some: {headed or 'none'}.")
    if layer is not None and layer not in layers:
        raise TermError(f"{name!r} names no layer; layers of {term!r}: {min(layers)}..{max(layers)}.")
    return layers.values() if layer is None else [layers[layer]]


def _check_whole(place: Place, name: str, path: str) -> None:
    """Check that there is a bias that can be divided."""
    if place.bias is None:
        raise TermError(f"the model has no bias for {name!r}; add_missing_biases gives it one.")
    for parameter in place.owner.parameters():
        if is_partitioned(parameter) or isinstance(parameter, DTensor):
            raise ArchitectureError(
                f"{name!r}: the bias of {path!r} is sharded, and its heads cannot be set apart any more. Under FSDP2, "
                "call beft_lightning.bias.set_heads_apart() before fully_shard(). ZeRO-3 shards a model as it is "
                "loaded: use another strategy for single heads, or train whole terms or layers."
            )


def _head_width(owner: nn.Module, term: str, paths: Mapping[nn.Module, str]) -> int:
    """Return the number of values of a head, as the innermost module around a layer says that knows it."""
    path = paths[owner]
    around = {outer: child for child, outer in paths.items() if not outer or f"{path}.".startswith(f"{outer}.")}
    names = (_WIDTHS_OF_TERMS.get(term.removeprefix("cross_"), ""), *_WIDTHS)
    for outer in sorted(around, key=len, reverse=True):
        for name in names:
            if type(width := getattr(around[outer], name, None)) is int and width > 0:
                return width
    raise ArchitectureError(
        f"nothing says how many values a head of {path!r} has: no module around it has an attribute "
        f"{', '.join(map(repr, _WIDTHS))}. Give the number in the `architecture`, as attention: {{head_width: 64}}."
    )


def _by_heads(layout: Fused | None, place: Place, term: str, width: int, path: str) -> Fused:
    """Return a layout in which a term stands by its heads.

    Args:
        layout: How the bias is divided now; None if it is of the term alone.
        place: Where the bias is.
        term: The term, without its tower.
        width: Number of values of a head.
        path: Name of the bias' owner, for messages.
    """
    assert place.bias is not None
    outputs = len(place.bias)
    groups = layout.groups if layout else 1
    widths = dict(zip(layout.parts, layout.widths(outputs), strict=True)) if layout else {term: outputs}
    divided = list(widths) if groups > 1 else [term]
    parts: dict[str, int] = {}
    count = Counter[str]()
    for _ in range(groups):
        for part, run in widths.items():
            step = run if part == REST or part not in divided else width
            if run % step:
                raise ArchitectureError(
                    f"the {run} outputs of {path!r} that are {part} are no whole number of heads of {width} values: "
                    "give the right number in the `architecture`, as attention: {head_width: 64}."
                )
            for _ in range(run // step):
                parts[f"{part}.h{count[part]}" if part in divided else part] = step
                count[part] += 1
    return Fused(parts, bias=place.name)
