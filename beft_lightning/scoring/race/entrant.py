"""An entrant of a race: a candidate at a learning rate, with values and an optimizer of its own."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass(frozen=True)
class Lap:
    """An evaluation of an entrant.

    Args:
        batches: Training batches that the entrant has had.
        losses: Its loss on each held-out batch; infinite if it has diverged.
    """

    batches: int
    losses: list[float]

    @property
    def loss(self) -> float:
        """The mean loss."""
        return fmean(self.losses)


@dataclass
class Entrant:
    """A candidate at a learning rate.

    Args:
        term: Name of the candidate.
        rate: Learning rate; ``None`` for the optimizer's own, until that is known.
        parameters: What it trains, the head included.
        laps: Its evaluations so far.
        optimizer: Its own optimizer, once it has one.
    """

    term: str
    rate: float | None
    parameters: list[nn.Parameter]
    laps: list[Lap] = field(default_factory=list)
    optimizer: Optimizer | None = None
    _values: list[Tensor] | None = None

    @property
    def batches(self) -> int:
        """Training batches that it has had."""
        return self.laps[-1].batches if self.laps else 0

    @property
    def has_diverged(self) -> bool:
        """Whether its loss is not finite any more."""
        return bool(self.laps) and not math.isfinite(self.laps[-1].loss)

    def enter(self, everyone: Sequence[nn.Parameter]) -> None:
        """Put its values into the model and make them trainable, and those of nobody else.

        Args:
            everyone: What all entrants train, at the checkpoint's values.
        """
        mine = set(self.parameters)
        for parameter in everyone:
            parameter.grad = None
            parameter.requires_grad_(parameter in mine)
        if self._values is not None:
            _copy(self._values, self.parameters)

    def leave(self, checkpoint: Mapping[nn.Parameter, Tensor]) -> None:
        """Take its values out of the model, which gets those of the checkpoint back."""
        self._values = [parameter.detach().clone() for parameter in self.parameters]
        _copy([checkpoint[parameter] for parameter in self.parameters], self.parameters)

    def drop_out(self) -> None:
        """Forget what only an entrant that goes on needs."""
        self.optimizer, self._values = None, None


@torch.no_grad()
def _copy(values: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
