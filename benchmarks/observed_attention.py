"""Observe what attention takes in a forward pass, without a look at layers, names or gradients."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_PRODUCTS = {"matmul", "__matmul__", "mm", "bmm", "baddbmm", "einsum"}


class Observer(TorchFunctionMode):
    """Notes the tensors that enter attention, in their order.

    Attention that is spelled out shows as two products: of queries and keys, and of weights and values. The weights are
    the factor whose numbers are not negative and add up to at most one.
    """

    def __init__(self) -> None:
        super().__init__()
        #: Copies of what each attention, or each product of one that is spelled out, took.
        self.taken: list[dict[str, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "scaled_dot_product_attention":
            names = ("query", "key", "value")
            given = dict(zip(names, args, strict=False)) | {one: kwargs[one] for one in names if one in kwargs}
            self._note(**given)
        elif name in _PRODUCTS:
            factors = list(_tensors([*args, *kwargs.values()]))[-2:]
            if len(factors) == 2:
                self._saw_product(*factors)
        return func(*args, **kwargs)

    def _saw_product(self, left: Tensor, right: Tensor) -> None:
        if _are_weights(left, -1):
            self._note(weights=left, value=right)
        elif _are_weights(right, -2):
            self._note(weights=right, value=left)
        else:
            self._note(query=left, key=right)

    def _note(self, **tensors: Tensor) -> None:
        self.taken.append({name: tensor.detach().clone() for name, tensor in tensors.items()})


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among ``values`` and in lists of them, as ``einsum`` takes."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _are_weights(tensor: Tensor, dim: int) -> bool:
    """Return whether a tensor's numbers share out at most one along a dimension."""
    if not tensor.is_floating_point() or tensor.dim() < 2 or tensor.numel() == 0:
        return False
    sums = tensor.float().sum(dim)
    return bool((tensor >= 0).all() and sums.max() <= 1.001 and sums.max() > 0.01)


@torch.no_grad()
def first_changed(before: list[dict[str, Tensor]], after: list[dict[str, Tensor]]) -> set[str]:
    """Return which inputs differ in the first attention that takes something else than before."""
    for one, other in zip(before, after, strict=False):
        if changed := {name for name in one if name not in other or not torch.equal(one[name], other[name])}:
            return changed
    return set()
