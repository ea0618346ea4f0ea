"""The published update rule."""

import copy
import math

import pytest
import torch
from torch import Tensor

from beft_lightning.errors import BeftError
from beft_lightning.scoring.reference_adam import ReferenceAdam, check_learning_rate


def published_rule(start: Tensor, gradients: Tensor, lr: float, eps: float) -> Tensor:
    """The rule written out: epsilon joins the square root of the uncorrected second moment."""
    p, m, v = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for t, g in enumerate(gradients, start=1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        p -= lr * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t) * m / (v.sqrt() + eps)
    return p


@pytest.mark.parametrize("size", [1.0, 1e-6, 1e-11])
def test_steps_equal_the_rule_written_out(size: float) -> None:
    gradients = size * torch.randn(20, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    start = torch.linspace(-1, 1, 7, dtype=torch.float64)
    parameter = torch.nn.Parameter(start.clone())
    optimizer = ReferenceAdam([parameter], lr=1e-2)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    torch.testing.assert_close(parameter.detach(), published_rule(start, gradients, 1e-2, 1e-6), rtol=1e-12, atol=0)


def test_rounding_noise_hardly_moves_a_parameter() -> None:
    moved = {}
    for optimizer_class, eps in ((ReferenceAdam, 1e-6), (torch.optim.Adam, 1e-12)):
        parameter = torch.nn.Parameter(torch.zeros(1))
        optimizer = optimizer_class([parameter], lr=1e-3, eps=eps)
        parameter.grad = torch.tensor([1e-11])
        optimizer.step()
        moved[optimizer_class] = parameter.abs().item()
    assert moved[ReferenceAdam] < 1e-8 < moved[torch.optim.Adam]


def test_a_copied_optimizer_takes_the_same_steps() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = copy.deepcopy(ReferenceAdam([parameter]))
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(2))]})
    for group in optimizer.param_groups:
        group["params"][0].grad = torch.full((2,), 1e-11)
    optimizer.step()
    assert all(group["params"][0].abs().max() < 1e-8 for group in optimizer.param_groups)


def test_a_restored_optimizer_goes_on_as_if_never_stopped() -> None:
    gradients = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def run(parameter: torch.nn.Parameter, optimizer: ReferenceAdam, part: Tensor) -> None:
        for gradient in part:
            parameter.grad = gradient.clone()
            optimizer.step()

    whole = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    run(whole, optimizer := ReferenceAdam([whole]), gradients[:3])
    resumed = torch.nn.Parameter(whole.detach().clone())
    other = ReferenceAdam([resumed])
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(whole, optimizer, gradients[3:])
    run(resumed, other, gradients[3:])
    assert torch.equal(whole, resumed)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, 1e38])
def test_a_learning_rate_that_cannot_train_is_an_error(value: float) -> None:
    with pytest.raises(BeftError, match=r"model.learning_rate is .*: it must be above 0 and at most 10"):
        check_learning_rate(value, "model.learning_rate")


@pytest.mark.parametrize("value", [1e-30, 1.0, 10.0])
def test_any_other_learning_rate_is_taken(value: float) -> None:
    check_learning_rate(value, "model.learning_rate")
