"""Parametrized tensors (fused, re-parametrized, partly trained) turned into plain ones again."""

from torch import Tensor, nn
from torch.nn.utils import parametrize


def materialize(module: nn.Module) -> dict[str, Tensor]:
    """Remove every parametrization. The module computes the same, with the names of its tensors before.

    Args:
        module: Changed in place.

    Returns:
        The tensors that were parametrized, by their plain names.
    """
    values: dict[str, Tensor] = {}
    for path, child in module.named_modules():
        if not parametrize.is_parametrized(child):
            continue
        for name in list(child.parametrizations):
            parametrize.remove_parametrizations(child, name, leave_parametrized=True)
            values[f"{path}.{name}"] = child.get_parameter(name).detach()
    return values
