"""Parametrized tensors (fused, re-parametrized, partly trained) turned into plain ones again."""

from torch import Tensor, nn
from torch.nn.utils import parametrize

from beft_lightning.bias.parametrized import unparametrize


def materialize(module: nn.Module) -> dict[str, Tensor]:
    """Remove every parametrization but torch's own, such as weight norm, which belong to the pretrained model.

    The module computes the same, with the names of its tensors before.

    Args:
        module: Changed in place.

    Returns:
        The tensors that were parametrized, by their plain names.
    """
    values: dict[str, Tensor] = {}
    for path, child in module.named_modules():
        if not parametrize.is_parametrized(child):
            continue
        for name, computed in list(child.parametrizations.items()):
            if type(computed[0]).__module__.startswith("torch."):
                continue
            unparametrize(child, name)
            values[f"{path}.{name}"] = child.get_parameter(name).detach()
    return values
