"""Models that are composed of others: where the whole cannot be watched, each of them is watched alone."""

from dataclasses import replace

from transformers import PreTrainedModel

from beft_lightning.bias.architecture import Architecture
from beft_lightning.bias.confirmation import check_found
from beft_lightning.bias.discovery import architectures_of_twin, confirmed
from beft_lightning.errors import ArchitectureError, NoAttentionError


def architectures_of_model(model: PreTrainedModel) -> list[Architecture]:
    """Find where the bias terms of a transformers model are, by watching small twins.

    Made-up inputs may not reach all of a composed model: how an image and a text fit together is its own affair. Then
    the models in it are watched in twins of their own.

    Args:
        model: Any transformers model; it is not run.

    Returns:
        An architecture for each stack of layers, in the order of the forward pass. Those of models that were watched
        alone come last, in the order in which the whole holds them.

    Raises:
        NoAttentionError: If no attention is seen.
        ArchitectureError: If no twin can be built and run, or the names of the layers speak against what was found.
            The message names the models in it that can be tuned alone.
    """
    whole: list[Architecture] = []
    try:
        whole = architectures_of_twin(model)
        return confirmed(model, whole)
    except ArchitectureError as error:
        problem = error
    alone, refused = _inner_architectures(model)
    if alone and (whole or not refused):
        outside = [one for one in whole if not one.layer.startswith(tuple(f"{name}." for name in alone))]
        joined = outside + [replace(one, layer=f"{name}.{one.layer}") for name, found in alone.items() for one in found]
        try:
            check_found(model, joined)
        except ArchitectureError:
            pass  # The problem of the whole says more.
        else:
            return joined
    if alone:
        raise ArchitectureError(f"{problem}\nOr tune one of the models in it, as `scope`: {', '.join(alone)}.")
    raise problem


def _inner_architectures(model: PreTrainedModel) -> tuple[dict[str, list[Architecture]], list[str]]:
    """Return what is found in each model in ``model`` alone, and the names of those where it cannot be found."""
    found: dict[str, list[Architecture]] = {}
    refused: list[str] = []
    for name, part in inner_models(model).items():
        try:
            found[name] = architectures_of_model(part)
        except NoAttentionError:
            continue
        except ArchitectureError:
            refused.append(name)
    return found, refused


def inner_models(model: PreTrainedModel) -> dict[str, PreTrainedModel]:
    """Return the outermost transformers models in a model, by their names."""
    found: dict[str, PreTrainedModel] = {}
    for name, part in model.named_modules():
        if name and isinstance(part, PreTrainedModel) and not name.startswith(tuple(f"{outer}." for outer in found)):
            found[name] = part
    return found
