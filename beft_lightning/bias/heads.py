"""The task head: the parameters that are trained beside the biases."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn
from transformers import PreTrainedModel

from beft_lightning.bias.lookup import pretrained_model
from beft_lightning.errors import ArchitectureError, TermError


def head_parameters(module: nn.Module) -> list[str]:
    """Return the names of the task head's parameters, which are trained beside the biases.

    These are the parameters outside the pretrained base model, less its output embeddings (a language model's
    ``lm_head``), plus the bias of the pooler that feeds a classification head: the reference's rule, spelled out
    structurally. ``module`` may hold further layers of its own beside the model; they count as head.
    """
    model = pretrained_model(module)
    base = model.base_model
    assert isinstance(base, PreTrainedModel)
    pretrained = {id(parameter) for parameter in base.parameters()}
    output_embeddings = model.get_output_embeddings()
    if output_embeddings is not None:
        pretrained |= {id(parameter) for parameter in output_embeddings.parameters()}
    pooler_biases = _pooler_biases(base) if base is not model else set()
    return [
        name
        for name, parameter in module.named_parameters()
        if id(parameter) not in pretrained or id(parameter) in pooler_biases
    ]


def _pooler_biases(base: PreTrainedModel) -> set[int]:
    pooler = getattr(base, "pooler", None)
    if not isinstance(pooler, nn.Module):
        return set()
    return {id(parameter) for name, parameter in pooler.named_parameters() if name.endswith("bias")}


def select_head(module: nn.Module, head: str | Sequence[str], *, own_architecture: bool = False) -> list[str]:
    """Return the names of the parameters to train beside the biases.

    Args:
        module: A model, or any module that contains one.
        head: ``auto`` (:func:`head_parameters`, less what is frozen already), ``none``, or patterns of parameter names
            such as ``*.classifier.*``.
        own_architecture: Whether the user described the architecture, so that the module may be no transformers model.

    Raises:
        ArchitectureError: If ``head`` is ``auto`` and the model cannot tell its head.
        TermError: If a pattern matches nothing.
    """
    if head == "none":
        return []
    if head == "auto":
        try:
            names = head_parameters(module)
        except ArchitectureError as error:
            if not own_architecture:
                raise
            raise ArchitectureError(
                "head 'auto' needs a transformers model to tell the head from the pretrained part: give patterns "
                "of the head's parameter names, or 'none'."
            ) from error
        trainable = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
        return [name for name in names if name in trainable]
    names = [name for name, _ in module.named_parameters()]
    for pattern in head:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise TermError(
                f"head pattern {pattern!r} matches no parameter; for example, there is {names[-1]!r}. "
                "Patterns match whole names, so '*.classifier.*' may be meant."
            )
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in head)]
