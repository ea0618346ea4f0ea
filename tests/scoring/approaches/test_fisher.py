"""Scores of squared gradients."""

import pytest
import torch
from torch import nn

from beft_lightning.scoring.approaches import approach_named
from beft_lightning.scoring.functional import fisher_score


@pytest.fixture
def bias() -> nn.Parameter:
    bias = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    bias.grad = torch.tensor([0.1, 0.0, -0.3])
    return bias


@pytest.mark.parametrize("name", ["fisher", "sample_fisher"])
def test_fisher_averages_squared_gradients(name: str, bias: nn.Parameter) -> None:
    approach = approach_named(name)
    assert bias.grad is not None
    assert approach.value(approach.statistic(bias, bias)) == fisher_score([bias.grad]).item()
    assert approach.averages
    assert not approach.fine_tunes
    assert approach.single_examples == (name == "sample_fisher")
    bias.grad = None
    assert approach.value(approach.statistic(bias, bias)) == 0.0
