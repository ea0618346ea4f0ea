"""The task head: the parameters that are trained beside the biases."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from transformers import (
    MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING,
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    PreTrainedModel,
)

from beft_lightning.bias.lookup import outermost_models
from beft_lightning.bias.scope import Scope, models_in
from beft_lightning.errors import ArchitectureError, TermError

#: In place of a pattern: the head as :func:`head_parameters` finds it.
AUTO = "auto"


def head_parameters(module: nn.Module, scope: Scope = None) -> list[str]:
    """Return the names of the task head's parameters, which are trained beside the biases.

    These are the parameters outside the pretrained base model, less its output embeddings (a language model's
    ``lm_head``), plus the bias of the pooler that feeds a classification head: the reference's rule, spelled out
    structurally. ``module`` may hold further layers of its own beside the model; they count as head. Other transformers
    models in it do not. Classifiers such as CLIP's and Whisper's have no base model but a part of one, which is a model
    itself: what is outside of it is head.

    Args:
        module: A model, or any module that contains one.
        scope: Names of the submodules whose biases are tuned; by default everything.
    """
    models = models_in(module, scope)
    others = [model for model in outermost_models(module).values() if all(model is not one for one in models)]
    pretrained = {id(parameter) for model in others for parameter in model.parameters()}
    for model in models:
        base = model.base_model
        assert isinstance(base, PreTrainedModel)
        parts = _pretrained_parts(model) if base is model else [base]
        pretrained |= {id(parameter) for part in parts for parameter in part.parameters()}
        output_embeddings = model.get_output_embeddings()
        if output_embeddings is not None:
            pretrained |= {id(parameter) for parameter in output_embeddings.parameters()}
        if base is not model:
            pretrained -= _pooler_biases(base)
    return [name for name, parameter in module.named_parameters() if id(parameter) not in pretrained]


def _pretrained_parts(model: PreTrainedModel) -> list[nn.Module]:
    """Return the pretrained parts of a model without a base model: itself, or the models in a classifier."""
    mappings: tuple[Any, ...] = (MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING)
    if not any(type(model) is mapping.get(type(model.config), None) for mapping in mappings):
        return [model]
    return [child for child in model.children() if isinstance(child, PreTrainedModel)]


def _pooler_biases(base: PreTrainedModel) -> set[int]:
    pooler = getattr(base, "pooler", None)
    if not isinstance(pooler, nn.Module):
        return set()
    return {id(parameter) for name, parameter in pooler.named_parameters() if name.endswith("bias")}


def select_head(
    module: nn.Module, head: str | Sequence[str], *, own_architecture: bool = False, scope: Scope = None
) -> list[str]:
    """Return the names of the parameters to train beside the biases.

    Args:
        module: A model, or any module that contains one.
        head: ``auto`` (:func:`head_parameters`, less what is frozen already), ``none``, or patterns of parameter names
            such as ``*.classifier.*``; ``auto`` may be one of them.
        own_architecture: Whether the user described the architecture, so that the module may be no transformers model.
        scope: Names of the submodules whose biases are tuned; by default everything.

    Raises:
        ArchitectureError: If ``head`` is ``auto`` and the model cannot tell its head.
        TermError: If a pattern matches nothing.
    """
    if head == "none":
        return []
    patterns = [head] if isinstance(head, str) else list(head)
    chosen = set()
    if AUTO in patterns:
        patterns.remove(AUTO)
        chosen = _automatic(module, own_architecture, scope)
    names = [name for name, _ in module.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise TermError(
                f"head pattern {pattern!r} matches no parameter; for example, there is {names[-1]!r}. "
                "Patterns match whole names, so '*.classifier.*' may be meant."
            )
    return [name for name in names if name in chosen or any(fnmatchcase(name, pattern) for pattern in patterns)]


def _automatic(module: nn.Module, own_architecture: bool, scope: Scope) -> set[str]:
    try:
        names = head_parameters(module, scope)
    except ArchitectureError as error:
        if not own_architecture:
            raise
        parts = [name for name, child in module.named_children() if any(True for _ in child.parameters())]
        example = parts[-1] if parts else "classifier"
        raise ArchitectureError(
            "head 'auto' needs a transformers model to tell the head from the pretrained part: name what is trained "
            f"beside the biases, as in BiasSelectionCallback(head=['{example}.*']), or give head 'none'. "
            f"{type(module).__name__} has the parts: {', '.join(parts) or 'none'}."
        ) from error
    return {name for name in names if module.get_parameter(name).requires_grad}
