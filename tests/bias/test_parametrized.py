"""Parametrized tensors whose modules can be pickled."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from beft_lightning.bias.parametrized import parametrize_tensor


class Sum(nn.Module):
    """A tensor as the sum of two."""

    def right_inverse(self, tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return tensor - 1, torch.ones_like(tensor)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return first + second


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_computes_the_same_and_can_be_trained_on(copied: Callable[[Any], Any]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    for name in ("weight", "bias"):
        parametrize_tensor(model[0], name, Sum())
    model.get_parameter("0.parametrizations.bias.original0").requires_grad_(False)
    twin: nn.Module = copied(copied(model))
    assert list(twin.state_dict()) == list(model.state_dict())
    assert [p.requires_grad for p in twin.parameters()] == [p.requires_grad for p in model.parameters()]
    assert isinstance(twin.get_submodule("0"), nn.Linear)
    inputs = torch.randn(4, 2)
    torch.testing.assert_close(twin(inputs), model(inputs), rtol=0, atol=0)
    twin(inputs).sum().backward()
    part = twin.get_parameter("0.parametrizations.bias.original1")
    assert part.grad is not None
    part.data.add_(part.grad)
    assert not torch.equal(twin(inputs), model(inputs))
    parametrize.remove_parametrizations(twin.get_submodule("0"), "bias")
    assert "0.bias" in twin.state_dict()


def test_an_optimizer_pickled_along_keeps_its_parameters() -> None:
    owner = nn.Linear(2, 3)
    parametrize_tensor(owner, "bias", Sum())
    optimizer = torch.optim.SGD(owner.parameters(), lr=1.0)
    twin, its_optimizer = pickle.loads(pickle.dumps((owner, optimizer)))
    assert set(its_optimizer.param_groups[0]["params"]) == set(twin.parameters())
