"""The observer of the proof sees what attention takes, be it one function or spelled out."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.observed_attention import Observer, first_changed

PARTS = ["query", "key", "value"]


def spelled_out(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query @ key.mT).softmax(-1) @ value


def in_einsum(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return torch.einsum("bij,bjd->bid", torch.softmax(torch.einsum("bid,bjd->bij", query, key), -1), value)


@pytest.mark.parametrize("attend", [scaled_dot_product_attention, spelled_out, in_einsum])
@pytest.mark.parametrize("part", PARTS)
def test_the_input_that_changes_is_named(attend: Callable[..., Tensor], part: str) -> None:
    tensors = dict(zip(PARTS, torch.randn(3, 1, 4, 2), strict=True))
    taken = []
    for shift in (0, 1):
        with Observer() as observer:
            attend(*({**tensors, part: tensors[part] + shift}).values())
        taken.append(observer.taken)
    assert first_changed(*taken) == {part}
    assert first_changed(taken[0], taken[0]) == set()
