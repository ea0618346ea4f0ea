"""Scores of the change from the pretrained bias to the fine-tuned one."""

import math

import pytest
import torch
from torch import nn

from beft_lightning.scoring.approaches import APPROACHES, approach_named
from beft_lightning.scoring.functional import magnitude_score, projection_score


@pytest.fixture
def bias() -> nn.Parameter:
    bias = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    bias.grad = torch.tensor([0.1, 0.0, -0.3])
    return bias


@pytest.mark.parametrize(("name", "score"), [("projection", projection_score), ("magnitude", magnitude_score)])
def test_a_change_is_scored_after_the_newest_step(name: str, score: object, bias: nn.Parameter) -> None:
    pretrained, approach = torch.tensor([1.0, -1.0, 0.0]), approach_named(name)
    assert callable(score)
    assert approach.value(approach.statistic(pretrained, bias)) == score(pretrained, bias).item()
    assert approach.fine_tunes
    assert not approach.averages


def test_only_the_projection_needs_pretrained_biases() -> None:
    """It gives 1 to every bias that starts at zero, however it moves."""
    assert [name for name, approach in APPROACHES.items() if approach.needs_pretrained_biases] == ["projection"]
    moved = nn.Parameter(torch.tensor([0.1, 0.2]))
    assert math.isclose(APPROACHES["projection"].value(APPROACHES["projection"].statistic(torch.zeros(2), moved)), 1.0)
