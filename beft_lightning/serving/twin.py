"""A second model over the same weights, with biases of its own."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from beft_lightning.bias.structure import add_biases
from beft_lightning.serving.adapter import Adapter


def twin(model: PreTrainedModel, num_labels: int | None = None) -> PreTrainedModel:
    """Return a copy of a model that shares its matrices; vectors, such as biases, are copied.

    Args:
        model: A model; unchanged.
        num_labels: Number of outputs of the copy's head. With another one than the model has, the copy's head is new,
            and its values are arbitrary.
    """
    tensors = [*model.parameters(), *model.buffers()]
    copied: PreTrainedModel = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors if tensor.dim() != 1})
    if num_labels in (None, model.config.num_labels):
        return copied
    config = copy.deepcopy(model.config)
    config.num_labels = num_labels
    with torch.device("meta"):
        headed = type(model)(config)
    body = copied.base_model
    setattr(headed, headed.base_model_prefix, body)
    for child in headed.children():
        if child is not body:
            child.to_empty(device=model.device)
    return headed.eval()


@torch.no_grad()
def merged(model: PreTrainedModel, adapter: Adapter) -> PreTrainedModel:
    """Return a :func:`twin` with the values of one adapter in its biases and its head."""
    alone = twin(model, _outputs(model, adapter.head))
    add_biases(alone, [f"{layer}.bias" for layer in adapter.deltas])
    for layer, delta in adapter.deltas.items():
        alone.get_parameter(f"{layer}.bias").data += delta.to(alone.device)
    for name, value in adapter.head.items():
        owner, _, own = name.rpartition(".")
        # The parameter may be shared with the model.
        alone.get_submodule(owner).register_parameter(own, torch.nn.Parameter(value.to(alone.device)))
    return alone.requires_grad_(False)


def _outputs(model: PreTrainedModel, head: Mapping[str, Tensor]) -> int | None:
    """Return the number of outputs of an adapter's head; None if it has the model's."""
    parameters = dict(model.named_parameters())
    return next((len(value) for name, value in head.items() if len(value) != len(parameters[name])), None)
