"""The learning curves of a fit."""

from typing import Any

import pandas as pd
import pytest

from beft_lightning.errors import BeftError
from beft_lightning.pictures import learning_curves


def test_training_and_validation_share_a_panel_and_gaps_are_left_out() -> None:
    metrics = pd.DataFrame(
        {
            "step": [0, 9, 19, 19],
            "epoch": [None, 0, 0, 0],
            "bias_score/value": [0.1, None, None, None],
            "train_loss": [None, 0.7, 0.5, None],
            "val_loss": [None, None, None, 0.6],
            "val_accuracy": [None, None, None, 0.75],
        }
    )
    loss, accuracy = learning_curves(metrics).axes
    assert (loss.get_title(), accuracy.get_title()) == ("loss", "accuracy")
    assert [line.get_label() for line in loss.lines] == ["training", "validation"]
    lines: list[Any] = [*loss.lines]
    assert [line.get_xydata().tolist() for line in lines] == [[[10, 0.7], [20, 0.5]], [[20, 0.6]]]


def test_without_metrics_there_is_nothing_to_draw() -> None:
    with pytest.raises(BeftError, match="no metrics over steps"):
        learning_curves(pd.DataFrame({"step": [0], "bias_score/value": [0.1]}))
