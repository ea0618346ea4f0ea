"""Losses and predictions."""

import math

import pytest
import torch

from beft_lightning.data import GLUE_TASKS
from beft_lightning.tasks.objectives.classification import classification_loss as loss
from beft_lightning.tasks.objectives.classification import predictions

SST2, STSB = GLUE_TASKS["sst2"], GLUE_TASKS["stsb"]


def test_classification_is_cross_entropy_and_argmax() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [2.0, 0.0]])
    expected = -(math.log(3 / 4) + math.log(1 / (1 + math.exp(2)))) / 2
    assert loss(SST2, logits, torch.tensor([1, 1])).item() == pytest.approx(expected)
    assert predictions(SST2, logits).tolist() == [1, 0]


def test_regression_is_squared_error_and_the_score_itself() -> None:
    logits = torch.tensor([[1.0], [4.0]])
    assert loss(STSB, logits, torch.tensor([2.0, 2.0])).item() == pytest.approx((1 + 4) / 2)
    assert predictions(STSB, logits).tolist() == [1.0, 4.0]


def test_losses_of_half_precision_logits_are_fp32() -> None:
    assert loss(SST2, torch.zeros(1, 2, dtype=torch.bfloat16), torch.tensor([0])).dtype == torch.float32
