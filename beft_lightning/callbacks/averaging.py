"""Lightning's averages of weights, over a module of which little is trained."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from torch import Tensor

from beft_lightning.strategies.internals.lightning import averaged_model


@dataclass(frozen=True)
class ExactAverage:
    """An average where equal values stay as they are.

    Otherwise a frozen weight moves: the average of equal values that torch's exponential moving average computes,
    ``d * w + (1 - d) * w``, is rounded.

    Args:
        average: A function of the average, the present values and the number of earlier updates.
    """

    average: Callable[[Tensor, Tensor, Any], Tensor]

    def __call__(self, averaged: Tensor, current: Tensor, updates: Any) -> Tensor:
        """Return the new average."""
        return torch.where(averaged == current, averaged, self.average(averaged, current, updates))


def copy_again(trainer: Trainer, module: LightningModule) -> None:
    """Let Lightning's weight averaging copy the module as it is now.

    It does so in ``setup``, where biases are not added yet, and some models not even made.
    """
    for callback in _callbacks(trainer):
        if isinstance(callback, WeightAveraging | StochasticWeightAveraging):
            callback.setup(trainer, module, "fit")


def average_exactly(trainer: Trainer) -> None:
    """Let Lightning's WeightAveraging leave frozen weights as they are. StochasticWeightAveraging does so by itself."""
    for callback in _callbacks(trainer):
        model = averaged_model(callback) if isinstance(callback, WeightAveraging) else None
        if model is not None and model.avg_fn is not None and not isinstance(model.avg_fn, ExactAverage):
            model.avg_fn = ExactAverage(model.avg_fn)


def _callbacks(trainer: Trainer) -> list[Callback]:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return callbacks
