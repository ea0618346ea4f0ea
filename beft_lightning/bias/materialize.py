"""Parametrised tensors as plain ones again: what fused, re-parametrised and partly trained ones came to."""

from torch import Tensor, nn
from torch.nn.utils import parametrize

#: What stands in the name of a parametrised tensor's parts.
MARK = ".parametrizations."


def plain_name(name: str) -> str:
    """The name of the tensor that a parameter is, or is a part of.

    >>> plain_name("layer.3.query.parametrizations.bias.original0"), plain_name("layer.3.query.bias")
    ('layer.3.query.bias', 'layer.3.query.bias')
    """
    path, mark, part = name.partition(MARK)
    return f"{path}.{part.partition('.')[0]}" if mark else name


def materialize(module: nn.Module) -> dict[str, Tensor]:
    """Remove every parametrisation; the module computes the same and has the tensors of before it was set up.

    Args:
        module: Changed in place.

    Returns:
        The tensors that were parametrised, by their plain names.
    """
    values: dict[str, Tensor] = {}
    for path, child in module.named_modules():
        if not parametrize.is_parametrized(child):
            continue
        for name in list(child.parametrizations):
            parametrize.remove_parametrizations(child, name, leave_parametrized=True)
            values[f"{path}.{name}"] = child.get_parameter(name).detach()
    return values
