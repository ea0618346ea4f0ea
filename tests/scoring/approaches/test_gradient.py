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
