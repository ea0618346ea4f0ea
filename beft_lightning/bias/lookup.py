"""The transformers model inside a module, and its entry in the table of architectures."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from beft_lightning.bias.architecture import Architecture, Attention
from beft_lightning.bias.architectures import ARCHITECTURES
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
            f"{type(module).__name__} contains {len(found)} transformers models ({', '.join(sorted(found))}): freeze "
            "all but the one whose biases shall be tuned, with `requires_grad_(False)`."
        )
    return next(iter((live if len(found) > 1 else found).values()))


def outermost_models(module: nn.Module) -> dict[str, PreTrainedModel]:
    """Return the transformers models in ``module`` that are no part of another one, by their names in it."""
    found: dict[str, PreTrainedModel] = {}
    for name, child in module.named_modules():
        inside = any(not outer or name.startswith(f"{outer}.") for outer in found)
        if isinstance(child, PreTrainedModel) and not inside:
            found[name] = child
    return found


def architecture_of(module: nn.Module) -> Architecture:
    """Return the table's entry for the model that ``module`` is or contains.

    Raises:
        ArchitectureError: If the model's type is not in the table.
    """
    config = pretrained_model(module).config
    try:
        entry = ARCHITECTURES[config.model_type]
    except KeyError:
        raise ArchitectureError(
            f"model type {config.model_type!r} is unknown. Known types: {', '.join(sorted(ARCHITECTURES))}. "
            "For another one, say where its biases are, for example in YAML:\n"
            "  selection:\n"
            "    architecture:\n"
            "      layer: model.layers.{}\n"
            "      terms: {query: self_attn.q_proj, key: self_attn.k_proj, value: self_attn.v_proj}"
        ) from None
    return _resolve(entry, config)


def attention_of(config: PreTrainedConfig) -> Attention:
    """Return the facts about a model's attention; for types outside the table, those that the configuration tells."""
    if entry := ARCHITECTURES.get(config.model_type):
        attention = _resolve(entry, config).attention
    else:
        attention = Attention(alibi=getattr(config, "alibi", False))
    return attention if attention.window else replace(attention, window=getattr(config, "sliding_window", None))


def _resolve(entry: Architecture | Callable[[Any], Architecture], config: Any) -> Architecture:
    return entry if isinstance(entry, Architecture) else entry(config)
