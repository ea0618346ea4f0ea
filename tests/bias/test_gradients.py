"""The graph of gradients."""

from typing import Any

import torch
from torch import Tensor, nn

from beft_lightning.bias.gradients import custom_functions, gradient_edge, is_vector, walk_back


class Kernel(torch.autograd.Function):
    """A function that torch does not know."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * 2


def test_the_walk_goes_back_to_where_it_ends() -> None:
    x = torch.ones(2, requires_grad=True)
    middle = x * 2
    end = middle.exp()
    places = [gradient_edge(tensor) for tensor in (end, middle, x)]
    assert list(walk_back([end, torch.ones(1)])) == places
    assert list(walk_back([end], lambda edge: edge == places[1])) == places[:2]
    assert list(walk_back([torch.ones(1)])) == []


def test_a_place_is_known_after_a_change_in_place() -> None:
    middle = torch.ones(2, requires_grad=True) * 2
    before = gradient_edge(middle)
    middle += 1
    assert gradient_edge(middle) != before
    assert before in set(walk_back([middle]))


def test_vectors_among_the_parameters() -> None:
    norm = nn.LayerNorm(2)
    edges = list(walk_back([norm(nn.Linear(2, 2)(torch.ones(1, 2)))]))
    assert [edge.node.variable.shape for edge in edges if is_vector(edge)] == [(2,), (2,), (2,)]  # type: ignore[attr-defined]


def test_functions_outside_of_torch_are_named() -> None:
    x = torch.ones(2, requires_grad=True)
    assert custom_functions([Kernel.apply(x).exp()]) == ["Kernel"]
    assert custom_functions([x.exp()]) == []
