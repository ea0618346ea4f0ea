"""The task head: what a fit trains beside the biases."""

from torch import nn
from transformers import PreTrainedModel

from beft_lightning.bias.architectures import pretrained_model


def head_parameters(module: nn.Module) -> list[str]:
    """Names of the task head's parameters: what is trained beside the biases.

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
