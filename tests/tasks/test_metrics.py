"""The tasks' metrics against hand-computed cases."""

import pytest
import torch

from beft_lightning.data import GLUE_TASKS, SUPER_GLUE_TASKS
from beft_lightning.tasks.metrics import METRICS, task_metrics

TASKS = {**GLUE_TASKS, **SUPER_GLUE_TASKS}

PREDICTED = torch.tensor([1, 1, 0, 0, 1, 0])
TARGET = torch.tensor([1, 0, 0, 1, 1, 0])  # 2 true positives, 1 false positive, 1 false negative, 2 true negatives


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", 4 / 6),
        ("f1", 2 * 2 / (2 * 2 + 1 + 1)),
        ("macro_f1", 2 / 3),
        ("mcc", (2 * 2 - 1 * 1) / (3 * 3 * 3 * 3) ** 0.5),
    ],
)
def test_classification_metrics(name: str, expected: float) -> None:
    assert METRICS[name](2)(PREDICTED, TARGET).item() == pytest.approx(expected)


def test_macro_f1_weighs_a_rare_class_like_the_others() -> None:
    """CB: classes with F1 of 1, 2/3 and 0; a class that neither occurs nor is predicted would not count."""
    predicted, target = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 0, 0, 1, 2])
    assert METRICS["macro_f1"](3)(predicted, target).item() == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_correlations() -> None:
    predicted, target = torch.tensor([1.0, 2.0, 3.0, 10.0]), torch.tensor([1.0, 2.0, 4.0, 3.0])
    assert METRICS["spearman"](0)(predicted, target).item() == pytest.approx(0.8)
    centred = predicted - predicted.mean(), target - target.mean()
    expected = (centred[0] * centred[1]).sum() / (centred[0].norm() * centred[1].norm())
    assert METRICS["pearson"](0)(predicted, target).item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_task_has_its_metrics_under_their_names(task: str) -> None:
    metrics = task_metrics(TASKS[task], "val_")
    assert set(metrics.keys()) == {f"val_{name}" for name in TASKS[task].metrics}
