"""Models that are composed of others: where the whole cannot be watched, each of them is watched alone."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from beft_lightning.bias.architecture import Architecture
from beft_lightning.bias.confirmation import check_found
from beft_lightning.bias.description import HOW_TO_MAP
from beft_lightning.bias.discovery import architectures_of_twin, confirmed
from beft_lightning.errors import ArchitectureError

#: Names of modules that hold the projections of attention.
_ATTENTION = re.compile(r"(attn|attention)\w*\.")
#: Name of a model in a model, empty for the whole -> where its terms are, by paths in it.
FoundByModel = Mapping[str, list[Architecture]]


def architectures_of_model(model: PreTrainedModel) -> list[Architecture]:
    """Find where the bias terms of a transformers model are, by watching small twins; see :func:`found_by_model`.

    Returns:
        An architecture for each stack of layers, by paths in ``model``.
    """
    return _joined(found_by_model(model))


def found_by_model(model: PreTrainedModel) -> FoundByModel:
    """Find where the bias terms of a transformers model are, by watching small twins.

    Made-up inputs may not reach all of a composed model: how an image and a text fit together is its own affair. Then
    the models in it are watched in twins of their own.

    Args:
        model: Any transformers model; it is not run.

    Returns:
        What was found in the whole, and in models in it that were watched alone. Stacks of layers are in the order of
        the forward pass, models in the order in which the whole holds them.

    Raises:
        NoAttentionError: If no attention is seen.
        ArchitectureError: If no twin can be built and run, or the names of the layers speak against what was found.
            The message names the models in it that can be tuned alone.
    """
    whole: list[Architecture] = []
    try:
        whole = architectures_of_twin(model)
        confirmed(model, whole)
        _check_parts(model, whole)
        return {"": whole}
    except ArchitectureError as error:
        problem = error
    alone = _found_alone(model)
    if not alone:
        raise problem
    outside = [one for one in whole if not one.layer.startswith(tuple(f"{name}." for name in alone))]
    found = {"": outside, **alone} if outside else alone
    try:
        check_found(model, _joined(found))
        _check_parts(model, _joined(found))
    except ArchitectureError:
        raise ArchitectureError(
            f"{problem}\nOr tune one of the models in it, as `scope`: {', '.join(alone)}."
        ) from None
    return found


def _check_parts(model: PreTrainedModel, found: Sequence[Architecture]) -> None:
    """Check that something was found in each model in ``model`` that has modules with the name of attention.

    A part that no made-up input reaches shows nothing, and its layers may have no names that tell a query.

    Raises:
        ArchitectureError: If a model in it was not seen.
    """
    for name, part in model.named_modules():
        inside = any(one.layer.startswith(f"{name}.") for one in found)
        if name and isinstance(part, PreTrainedModel) and not inside and _has_attention(part):
            raise ArchitectureError(
                f"{type(model).__name__}: no attention was seen in {name!r} ({type(part).__name__}), which made-up "
                f"inputs do not reach. {HOW_TO_MAP}"
            )


def _has_attention(module: nn.Module) -> bool:
    """Return whether layers stand in a module that is called attention."""
    layers = [name for name, child in module.named_modules() if isinstance(child, nn.Linear | Conv1D)]
    return any(_ATTENTION.search(name.lower()) for name in layers)


def _found_alone(model: PreTrainedModel) -> dict[str, list[Architecture]]:
    """Return what is found in each model in ``model`` alone, as far as it is."""
    found: dict[str, list[Architecture]] = {}
    for name, part in _inner_models(model).items():
        with suppress(ArchitectureError):
            found |= {f"{name}.{inner}".rstrip("."): stacks for inner, stacks in found_by_model(part).items()}
    return found


def _inner_models(model: PreTrainedModel) -> dict[str, PreTrainedModel]:
    """Return the outermost transformers models in a model, by their names."""
    found: dict[str, PreTrainedModel] = {}
    for name, part in model.named_modules():
        if name and isinstance(part, PreTrainedModel) and not name.startswith(tuple(f"{outer}." for outer in found)):
            found[name] = part
    return found


def _joined(found: FoundByModel) -> list[Architecture]:
    return [replace(one, layer=f"{name}.{one.layer}".lstrip(".")) for name, stacks in found.items() for one in stacks]
