"""An entrant of a race: a candidate at a learning rate, with a state of the model and an optimizer of its own."""

import math
from dataclasses import dataclass, field
from statistics import fmean

from torch import nn
from torch.optim import Optimizer

from beft_lightning.scoring.race.model_state import ModelState


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
    _state: ModelState | None = None

    @property
    def batches(self) -> int:
        """Training batches that it has had."""
        return self.laps[-1].batches if self.laps else 0

    @property
    def has_diverged(self) -> bool:
        """Whether its loss is not finite any more."""
        return bool(self.laps) and not math.isfinite(self.laps[-1].loss)

    def enter(self, checkpoint: ModelState) -> None:
        """Put its state into the model, at first that of the checkpoint, and make trainable what it trains alone.

        Args:
            checkpoint: The state at the checkpoint, with the values of what any entrant trains.
        """
        checkpoint.restore()
        if self._state is not None:
            self._state.restore()
        mine = set(self.parameters)
        for parameter in checkpoint.parameters:
            parameter.grad = None
            parameter.requires_grad_(parameter in mine)

    def leave(self, module: nn.Module) -> None:
        """Keep its state, to go on from there.

        Args:
            module: The module that it has trained.
        """
        self._state = ModelState(module, self.parameters)

    def drop_out(self) -> None:
        """Forget what only an entrant that goes on needs."""
        self.optimizer, self._state = None, None
