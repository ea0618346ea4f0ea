"""The interface of an approach, and the registry."""

import pytest
import torch
from torch import Tensor, nn

from beft_lightning.errors import ScoringError
from beft_lightning.scoring.approaches import Approach, approach_named


def test_an_unknown_name_is_an_error_that_lists_the_approaches() -> None:
    with pytest.raises(ScoringError, match="no scoring approach 'guess'; choose one of: projection, magnitude, fisher"):
        approach_named("guess")


def test_an_approach_of_ones_own_needs_a_statistic_alone() -> None:
    class Largest(Approach):
        """The largest entry."""

        def statistic(self, pretrained: Tensor, bias: nn.Parameter) -> Tensor:
            return bias.detach().double().max()

    mine = Largest()
    assert mine.value(mine.statistic(torch.zeros(2), nn.Parameter(torch.tensor([1.0, 3.0])))) == 3.0
    assert (mine.averages, mine.fine_tunes, mine.single_examples, mine.needs_pretrained_biases) == (True, *[False] * 3)
