"""Losses and predictions of encoders."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from beft_lightning.data import GLUE_TASKS
from beft_lightning.tasks.objectives.classification import ClassificationObjective, RegressionObjective
from tests.tiny import make_model, token_ids

SST2, STSB = ClassificationObjective(GLUE_TASKS["sst2"]), RegressionObjective(GLUE_TASKS["stsb"])


def test_classification_is_cross_entropy_and_argmax() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [2.0, 0.0]])
    expected = -(math.log(3 / 4) + math.log(1 / (1 + math.exp(2)))) / 2
    assert SST2.loss_of(logits, torch.tensor([1, 1])).item() == pytest.approx(expected)
    predictions = SST2.predictions_of(logits)
    assert predictions.tolist() == [1, 0]
    assert SST2.decode(predictions, {}) == ["positive", "negative"]
    assert SST2.config == {"num_labels": 2}
    assert SST2.output_names == ("negative", "positive")


def test_regression_is_squared_error_and_the_score_itself() -> None:
    logits = torch.tensor([[1.0], [4.0]])
    assert STSB.loss_of(logits, torch.tensor([2.0, 2.0])).item() == pytest.approx((1 + 4) / 2)
    assert STSB.decode(STSB.predictions_of(logits), {}) == [1.0, 4.0]
    assert STSB.config == {"num_labels": 1}
    assert STSB.output_names == ()


def test_losses_of_half_precision_logits_are_fp32() -> None:
    half = torch.zeros(1, 2, dtype=torch.bfloat16)
    assert SST2.loss_of(half, torch.tensor([0])).dtype == torch.float32


@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert"])
def test_a_new_head_predicts_about_the_mean_score(model_type: str) -> None:
    model: Any = make_model(model_type, num_labels=1).eval()
    ids = token_ids(model)
    before = model(input_ids=ids).logits
    RegressionObjective(replace(GLUE_TASKS["stsb"], mean_score=70.5)).start_head(model)
    own = model.classifier.out_proj.bias if model_type == "roberta" else model.classifier.bias
    shifted = before - before.mean() + model(input_ids=ids).logits.mean()
    torch.testing.assert_close(model(input_ids=ids).logits, shifted, rtol=1e-4, atol=1e-4)
    assert own.item() == 70.5
