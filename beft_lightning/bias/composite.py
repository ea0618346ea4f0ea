"""Models that are composed of others: where the whole cannot be watched, each of them is watched alone."""

from collections.abc import Mapping
from dataclasses import replace

from transformers import PreTrainedModel

from beft_lightning.bias.architecture import Architecture
from beft_lightning.bias.confirmation import check_found
from beft_lightning.bias.discovery import architectures_of_twin, confirmed
from beft_lightning.errors import ArchitectureError, NoAttentionError

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
        return {"": confirmed(model, whole)}
    except ArchitectureError as error:
        problem = error
    alone, refused = _found_alone(model)
    if not alone:
        raise problem
    outside = [one for one in whole if not one.layer.startswith(tuple(f"{name}." for name in alone))]
    found = {"": outside, **alone} if outside else alone
    try:
        if refused and not whole:
            raise problem
        check_found(model, _joined(found))
    except ArchitectureError:
        raise ArchitectureError(
            f"{problem}\nOr tune one of the models in it, as `scope`: {', '.join(alone)}."
        ) from None
    return found


def _found_alone(model: PreTrainedModel) -> tuple[dict[str, list[Architecture]], list[str]]:
    """Return what is found in each model in ``model`` alone, and the names of those where it cannot be found."""
    found: dict[str, list[Architecture]] = {}
    refused: list[str] = []
    for name, part in _inner_models(model).items():
        try:
            found |= {f"{name}.{inner}".rstrip("."): stacks for inner, stacks in found_by_model(part).items()}
        except NoAttentionError:
            continue
        except ArchitectureError:
            refused.append(name)
    return found, refused


def _inner_models(model: PreTrainedModel) -> dict[str, PreTrainedModel]:
    """Return the outermost transformers models in a model, by their names."""
    found: dict[str, PreTrainedModel] = {}
    for name, part in model.named_modules():
        if name and isinstance(part, PreTrainedModel) and not name.startswith(tuple(f"{outer}." for outer in found)):
            found[name] = part
    return found


def _joined(found: FoundByModel) -> list[Architecture]:
    return [replace(one, layer=f"{name}.{one.layer}".lstrip(".")) for name, stacks in found.items() for one in stacks]
