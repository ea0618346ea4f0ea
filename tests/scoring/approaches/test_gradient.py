"""Scores of the mean gradient."""

import pytest
import torch
from torch import nn

from beft_lightning.scoring.approaches import approach_named


@pytest.mark.parametrize(("name", "score"), [("gradient", 0.5), ("adam_gain", 0.7), ("gradient_signal", 1.0)])
def test_one_batch_is_scored_by_its_gradient(name: str, score: float) -> None:
    approach, bias = approach_named(name), nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    bias.grad = torch.tensor([0.3, 0.0, -0.4])
    assert approach.value(approach.statistic(bias.detach(), bias)) == pytest.approx(score)
    assert (approach.averages, approach.fine_tunes, approach.clips) == (True, False, False)
    bias.grad = None
    assert approach.value(approach.statistic(bias.detach(), bias)) == 0.0


def test_batches_that_disagree_have_no_signal() -> None:
    approach, bias = approach_named("gradient_signal"), nn.Parameter(torch.zeros(2))
    statistics = []
    for gradient in ([1.0, 2.0], [-1.0, -2.0]):
        bias.grad = torch.tensor(gradient)
        statistics.append(approach.statistic(bias.detach(), bias))
    assert approach.value(torch.stack(statistics).mean(dim=0)) == 0.0


def test_the_signal_of_noise_is_one_part_of_the_batches() -> None:
    """Of many independent gradients, on average over many vectors."""
    approach = approach_named("gradient_signal")
    gradients = torch.randn(8, 5000, generator=torch.Generator().manual_seed(0)).double()
    statistic = torch.stack([gradients.mean(dim=0), gradients.square().mean(dim=0)])
    assert approach.value(statistic) == pytest.approx(approach.noise(8), rel=0.05)
    assert approach_named("gradient").noise(8) == 0
