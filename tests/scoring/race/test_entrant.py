"""An entrant of a race."""

import math

import torch
from torch import nn

from beft_lightning.scoring.race.entrant import Entrant, Lap
from beft_lightning.scoring.race.model_state import ModelState


class Shared(nn.Module):
    """Two parameters of one entrant each, one of both, a buffer and a counter."""

    seen: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.one, self.other = (nn.Parameter(torch.zeros(2)) for _ in range(3))
        self.register_buffer("seen", torch.zeros(()))
        self.steps = 0


def test_entrants_do_not_see_each_others_state() -> None:
    """Each finds the checkpoint at first, later its own values, buffers and counters."""
    module = Shared()
    checkpoint = ModelState(module, module.parameters())
    first = Entrant("value", 1e-3, [module.shared, module.one])
    second = Entrant("query", 1e-3, [module.shared, module.other])

    first.enter(checkpoint)
    assert [parameter.requires_grad for parameter in module.parameters()] == [True, True, False]
    with torch.no_grad():
        module.shared.add_(1)
        module.one.add_(2)
        module.seen.fill_(math.nan)
    module.steps = 3
    first.leave(module)
    second.enter(checkpoint)
    assert [parameter.requires_grad for parameter in module.parameters()] == [True, False, True]
    assert not any(value.any() for value in (*module.parameters(), module.seen))
    assert module.steps == 0
    with torch.no_grad():
        module.other.add_(5)
    second.leave(module)
    first.enter(checkpoint)
    assert [parameter.tolist() for parameter in module.parameters()] == [[1, 1], [2, 2], [0, 0]]
    assert (module.seen.isnan().item(), module.steps) == (True, 3)


def test_gradients_end_with_the_turn() -> None:
    module = Shared()
    checkpoint = ModelState(module, module.parameters())
    module.one.grad = torch.ones(2)
    Entrant("value", 1e-3, []).enter(checkpoint)
    assert module.one.grad is None


def test_a_loss_that_is_not_finite_is_a_divergence() -> None:
    entrant = Entrant("value", 1e-3, [])
    assert (entrant.batches, entrant.has_diverged) == (0, False)
    entrant.laps.append(Lap(16, [0.5, 0.7]))
    assert (entrant.batches, entrant.has_diverged, entrant.laps[-1].loss) == (16, False, 0.6)
    entrant.laps.append(Lap(32, [0.5, math.inf]))
    assert (entrant.batches, entrant.has_diverged) == (32, True)
