"""Another learning rate for an optimizer that exists."""

from typing import Any

import pytest
import torch
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    OneCycleLR,
    SequentialLR,
)

from beft_lightning.errors import BeftError
from beft_lightning.learning_rate import hold_at_peak, rate_of, set_rate


def parts(rate: float, kind: str) -> tuple[Optimizer, list[Any]]:
    """Two groups, the second at three times the rate, under a scheduler."""
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": rate * factor} for factor in (1, 3)]
    optimizer = SGD(groups, lr=rate, momentum=0.9)
    if kind == "lambda":
        return optimizer, [LambdaLR(optimizer, lambda step: 1 / (1 + step))]
    if kind == "cosine":
        return optimizer, [CosineAnnealingLR(optimizer, 5)]
    if kind == "cycle":
        return optimizer, [OneCycleLR(optimizer, [rate, 3 * rate], total_steps=7)]
    if kind == "cyclic":
        return optimizer, [CyclicLR(optimizer, [rate / 10, 3 * rate / 10], [rate, 3 * rate], step_size_up=2)]
    if kind == "sequential":
        parts = [LinearLR(optimizer, 0.1, total_iters=2), CosineAnnealingLR(optimizer, 5)]
        return optimizer, [SequentialLR(optimizer, parts, milestones=[2])]
    if kind == "chained":
        decay = LambdaLR(optimizer, lambda step: 1 / (1 + step))
        return optimizer, [ChainedScheduler([decay, ExponentialLR(optimizer, 0.9)])]
    return optimizer, []


@pytest.mark.parametrize("kind", ["none", "lambda", "cosine", "cycle", "cyclic", "sequential", "chained"])
def test_the_course_is_that_of_an_optimizer_made_with_the_rate(kind: str) -> None:
    courses = []
    for start in (1e-3, 8e-3):
        optimizer, schedulers = parts(start, kind)
        set_rate(optimizer, 8e-3, schedulers)
        course = []
        for _ in range(5):
            course.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            for scheduler in schedulers:
                scheduler.step()
        courses.append(course)
    for one, other in zip(*courses, strict=True):
        assert one == pytest.approx(other, rel=1e-12)


@pytest.mark.parametrize("kind", ["none", "lambda", "cycle", "cyclic", "sequential"])
def test_the_rate_is_the_peak_of_the_schedule(kind: str) -> None:
    """A warm-up is below it, and a race trains at it."""
    optimizer, schedulers = parts(2e-3, kind)
    assert rate_of(optimizer, schedulers) == 2e-3
    hold_at_peak(optimizer, schedulers)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([2e-3, 6e-3])


def test_a_tensor_stays_the_same_tensor() -> None:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=torch.tensor(0.5))
    held = optimizer.param_groups[0]["lr"]
    set_rate(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] is held
    assert rate_of(optimizer) == 0.25
    hold_at_peak(optimizer)
    assert optimizer.param_groups[0]["lr"] is held


def test_an_optimizer_without_a_rate_is_an_error() -> None:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    del optimizer.param_groups[0]["lr"]
    with pytest.raises(BeftError, match="the groups of SGD have no `lr`"):
        set_rate(optimizer, 0.1)


def test_a_rate_of_zero_has_no_proportions() -> None:
    with pytest.raises(BeftError, match="has to start above 0"):
        set_rate(SGD([torch.zeros(1, requires_grad=True)], lr=0.0), 0.1)
