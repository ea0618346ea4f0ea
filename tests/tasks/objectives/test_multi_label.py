"""Any number of labels for each text."""

import math

import pytest
import torch

from beft_lightning.data import Task
from beft_lightning.tasks.objectives.multi_label import MultiLabelObjective

OBJECTIVE = MultiLabelObjective(
    Task(name="made up", kind="multi_label", text=("text",), labels=("a", "b", "c"), metrics=("micro_f1",))
)


def test_loss_is_binary_cross_entropy_over_all_labels() -> None:
    logits = torch.tensor([[0.0, math.log(3.0), 0.0]])  # probabilities 1/2, 3/4, 1/2
    expected = -(math.log(1 / 2) + math.log(3 / 4) + math.log(1 / 2)) / 3
    assert OBJECTIVE.loss_of(logits, torch.tensor([[1, 1, 0]])).item() == pytest.approx(expected)
    assert OBJECTIVE.loss_of(logits.bfloat16(), torch.tensor([[1, 1, 0]])).dtype == torch.float32
    assert OBJECTIVE.config == {"num_labels": 3, "problem_type": "multi_label_classification"}


def test_labels_above_one_half_are_predicted() -> None:
    predictions = OBJECTIVE.predictions_of(torch.tensor([[0.1, -0.1, 2.0], [-1.0, 0.0, -1.0]]))
    assert predictions.tolist() == [[1, 0, 1], [0, 0, 0]]
    assert OBJECTIVE.decode(predictions, {}) == ["a,c", ""]


def test_rows_have_every_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.tensor([[math.log(3.0), -math.log(3.0), 0.0]])
    monkeypatch.setattr(OBJECTIVE, "logits", lambda model, batch: logits)
    (row,) = OBJECTIVE.rows(None, {})  # type: ignore[arg-type]
    assert row["labels"] == ["a"]
    assert row["probabilities"] == pytest.approx({"a": 3 / 4, "b": 1 / 4, "c": 1 / 2})
