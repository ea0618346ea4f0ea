"""The approaches: their statistics, and what the scoring pass has to know of them."""

import math

import pytest
import torch
from torch import nn

from beft_lightning.errors import ScoringError
from beft_lightning.scoring.approaches import APPROACHES, approach_named
from beft_lightning.scoring.functional import fisher_score, magnitude_score, projection_score


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


def test_only_the_projection_needs_pretrained_biases() -> None:
    """It gives 1 to every bias that starts at zero, however it moves."""
    assert [name for name, approach in APPROACHES.items() if approach.needs_pretrained_biases] == ["projection"]
    moved = nn.Parameter(torch.tensor([0.1, 0.2]))
    assert math.isclose(APPROACHES["projection"].value(APPROACHES["projection"].statistic(torch.zeros(2), moved)), 1.0)


def test_an_unknown_name_is_an_error_that_lists_the_approaches() -> None:
    with pytest.raises(ScoringError, match="no scoring approach 'guess'; choose one of: projection, magnitude, fisher"):
        approach_named("guess")
