"""The transformers model inside a module, and where its bias terms are."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from beft_lightning.bias.architecture import Architecture, Architectures, Attention
from beft_lightning.bias.architectures import ARCHITECTURES
from beft_lightning.bias.composite import architectures_of_model
from beft_lightning.bias.description import described
from beft_lightning.bias.found import note_found, noted
from beft_lightning.errors import ArchitectureError


def pretrained_model(module: nn.Module) -> PreTrainedModel:
    """Return the transformers model that ``module`` is or contains: the outermost one, with its task head.

    Among several, the one that is not frozen is meant: a student, not its teacher.

    Raises:
        ArchitectureError: If there is none, or more than one to choose from.
    """
    found = outermost_models(module)
    if not found:
        raise ArchitectureError(
            f"{type(module).__name__} contains no transformers model, so its bias terms cannot be located. "
            "Give the module that contains one, or describe your model with an `architecture` mapping "
            "(layer and terms)."
        )
    live = {name: model for name, model in found.items() if any(p.requires_grad for p in model.parameters())}
    if len(found) > 1 and len(live) != 1:
        raise ArchitectureError(
            f"{type(module).__name__} contains {len(found)} transformers models ({', '.join(sorted(found))}): name "
            f"those whose biases shall be tuned as `scope`, such as scope={sorted(found)}, which keeps their terms "
            "apart, or freeze all but one with `requires_grad_(False)`."
        )
    return next(iter((live if len(found) > 1 else found).values()))


def outermost_models(module: nn.Module) -> dict[str, PreTrainedModel]:
    """Return the transformers models in ``module`` that are no part of another one, by their names in it.

    A part that the module also holds under a name of its own stays a part.
    """
    found = {name: child for name, child in module.named_modules() if isinstance(child, PreTrainedModel)}
    parts = {id(part) for model in found.values() for part in model.modules() if part is not model}
    return {name: model for name, model in found.items() if id(model) not in parts}


def watched_models(module: nn.Module) -> dict[str, PreTrainedModel]:
    """Return the outermost transformers models in ``module``, by name; for one whose parts were watched, these."""
    found: dict[str, PreTrainedModel] = {}
    for outer, model in outermost_models(module).items():
        inside = {
            name: part for name, part in model.named_modules() if noted(part) and isinstance(part, PreTrainedModel)
        }
        if noted(model) is None and inside:
            found |= {f"{outer}.{name}".strip("."): part for name, part in inside.items()}
        else:
            found[outer] = model
    return found


def architecture_of(module: nn.Module) -> Architecture:
    """Return where the bias terms are in the model that ``module`` is or contains.

    Raises:
        ArchitectureError: If nothing is known of the model, or its stacks of layers differ in where the terms are.
    """
    found = architectures_of(module)
    if len(found) > 1:
        raise ArchitectureError(
            f"the model has {len(found)} stacks of layers of its own architecture each:\n{described(found)}"
        )
    return found[0]


def architectures_of(module: nn.Module) -> list[Architecture]:
    """Return where the bias terms are in the model that ``module`` is or contains, for each of its stacks of layers.

    The checkpoint that the model was restored from says so, or the table, or else a small twin of the model that is
    watched. What a twin showed is noted on the model, for its checkpoints.

    Raises:
        ArchitectureError: If neither says it, and no attention of it was seen.
    """
    model = pretrained_model(module)
    if (found := noted(model)) is not None:
        return found
    if entry := ARCHITECTURES.get(model.config.model_type):
        return [_resolve(entry, model.config)]
    return note_found(model, architectures_of_model(model))


def architecture_stacks(module: nn.Module, architecture: Architectures) -> Sequence[Architecture]:
    """Return one architecture for each stack of layers: as given, or else as :func:`architectures_of` says."""
    if architecture is None:
        return architectures_of(module)
    return [architecture] if isinstance(architecture, Architecture) else architecture


def attention_of(config: PreTrainedConfig) -> Attention:
    """Return the facts about a model's attention; for types outside the table, those that the configuration tells."""
    if entry := ARCHITECTURES.get(config.model_type):
        attention = _resolve(entry, config).attention
    else:
        attention = Attention(alibi=getattr(config, "alibi", False))
    return attention if attention.window else replace(attention, window=getattr(config, "sliding_window", None))


def _resolve(entry: Architecture | Callable[[Any], Architecture], config: Any) -> Architecture:
    return entry if isinstance(entry, Architecture) else entry(config)
