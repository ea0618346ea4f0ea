"""An entrant of a race."""

import math

import torch
from torch import nn

from beft_lightning.scoring.race.entrant import Entrant, Lap


def test_entrants_do_not_see_each_others_values() -> None:
    """Each finds the checkpoint at first, later its own values, and leaves the checkpoint behind."""
    shared, one, other = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    checkpoint = {parameter: parameter.detach().clone() for parameter in (shared, one, other)}
    first, second = Entrant("value", 1e-3, [shared, one]), Entrant("query", 1e-3, [shared, other])

    first.enter([*checkpoint])
    assert [parameter.requires_grad for parameter in checkpoint] == [True, True, False]
    with torch.no_grad():
        shared.add_(1)
        one.add_(2)
    first.leave(checkpoint)
    second.enter([*checkpoint])
    assert [parameter.requires_grad for parameter in checkpoint] == [True, False, True]
    assert not any(parameter.any() for parameter in checkpoint)
    second.leave(checkpoint)
    first.enter([*checkpoint])
    assert [parameter.tolist() for parameter in checkpoint] == [[1, 1], [2, 2], [0, 0]]


def test_gradients_end_with_the_turn() -> None:
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.ones(2)
    Entrant("value", 1e-3, []).enter([weight])
    assert weight.grad is None


def test_a_loss_that_is_not_finite_is_a_divergence() -> None:
    entrant = Entrant("value", 1e-3, [])
    assert (entrant.batches, entrant.has_diverged) == (0, False)
    entrant.laps.append(Lap(16, [0.5, 0.7]))
    assert (entrant.batches, entrant.has_diverged, entrant.laps[-1].loss) == (16, False, 0.6)
    entrant.laps.append(Lap(32, [0.5, math.inf]))
    assert (entrant.batches, entrant.has_diverged) == (32, True)
