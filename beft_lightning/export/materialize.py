"""Parametrised tensors (fused, re-parametrised, partly trained) turned into plain ones again."""

from torch import Tensor, nn
from torch.nn.utils import parametrize

#: Part of the name of every parameter of a parametrised tensor.
MARK = ".parametrizations."


def plain_name(name: str) -> str:
    """Return the name of the tensor that a parameter is, or is a part of.

    >>> plain_name("layer.3.query.parametrizations.bias.original0"), plain_name("layer.3.query.bias")
    ('layer.3.query.bias', 'layer.3.query.bias')
    """
    path, mark, part = name.partition(MARK)
    return f"{path}.{part.partition('.')[0]}" if mark else name


def materialize(module: nn.Module) -> dict[str, Tensor]:
    """Remove every parametrisation. The module computes the same, with the names of its tensors before.

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
