"""The callback that watches a run of a comparison."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from beft_lightning.commands.best_epoch import BestEpoch


@pytest.mark.parametrize(
    ("values", "epoch"),
    [([0.5, 0.75, 0.75], 2), ([0.75, 0.5], 1), ([math.nan, 0.5, 0.75, math.nan], 3), ([math.nan], None)],
)
def test_the_first_of_the_best_finite_values_decides(values: list[float], epoch: int | None) -> None:
    watch = BestEpoch("val_accuracy", keep=True)
    module: Any = nn.Linear(1, 1)
    module.bias.requires_grad_(False)
    for number, value in enumerate(values):
        nn.init.constant_(module.weight, number + 1)
        trainer: Any = SimpleNamespace(
            sanity_checking=False, callback_metrics={"val_accuracy": torch.tensor(value)}, current_epoch=number
        )
        watch.on_validation_end(trainer, module)
    assert len(watch.history) == len(values)
    assert watch.epoch == epoch
    assert {name: value.item() for name, value in watch.parameters.items()} == ({"weight": epoch} if epoch else {})
