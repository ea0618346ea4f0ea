"""The scores' mathematics."""

import math

import pytest
import torch
from torch import Tensor

from beft_lightning.errors import ScoringError
from beft_lightning.scoring.functional import fisher_score, magnitude_score, projection_score


def published_formula(before: Tensor, after: Tensor) -> float:
    """The score as the published code computes it, in two cases."""
    dot, b0, bf = before.dot(after).item(), before.norm().item(), after.norm().item()
    return 1 - (dot / b0**2 if bf <= b0 else dot / bf**2)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_projection_is_the_published_formula(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    before = torch.randn(64, generator=generator, dtype=torch.float64)
    after = scale * before + 0.3 * torch.randn(64, generator=generator, dtype=torch.float64)
    assert projection_score(before, after).item() == pytest.approx(published_formula(before, after), abs=1e-12)


def test_projection_is_symmetric_and_free_of_scale() -> None:
    before, after = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    score = projection_score(before, after)
    torch.testing.assert_close(projection_score(after, before), score)
    torch.testing.assert_close(projection_score(7 * before, 7 * after), score)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([0.0, 0.0], [1.0, 5.0], 1.0),
        ([1.0, 5.0], [0.0, 0.0], 1.0),
        ([3.0, 0.0], [0.0, 0.1], 1.0),
        ([1.0, 0.0], [-1.0, 0.0], 2.0),
        ([1.0, 0.0], [-0.5, 0.0], 1.5),
        ([2.0, 0.0], [1.0, 1.0], 0.5),
    ],
)
def test_projection_is_defined_everywhere(before: list[float], after: list[float], expected: float) -> None:
    assert projection_score(torch.tensor(before), torch.tensor(after)).item() == pytest.approx(expected)


def test_projection_sees_changes_far_below_fp32_resolution_of_one() -> None:
    before = torch.tensor([1.0, 0.0])
    after = torch.tensor([1.0, 1e-5])
    # 1 - cos^2 of the angle: sin^2 = 1e-10, which 1 - x in fp32 would round to 0.
    assert projection_score(before, after).item() == pytest.approx(1e-10, rel=1e-3)


def test_scores_of_half_precision_biases_are_fp32() -> None:
    before, after = torch.ones(4, dtype=torch.bfloat16), torch.full((4,), 1.5, dtype=torch.bfloat16)
    assert magnitude_score(before, after).dtype == torch.float32
    assert projection_score(before, after).item() == pytest.approx(1 / 3)


def test_magnitude_is_the_mean_absolute_change() -> None:
    assert magnitude_score(torch.tensor([1.0, -1.0]), torch.tensor([0.5, 1.0])).item() == pytest.approx(1.25)


def test_fisher_is_the_mean_squared_gradient() -> None:
    gradients = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    assert fisher_score(gradients).item() == pytest.approx((1 + 4 + 9) / 4)
    torch.testing.assert_close(fisher_score(list(gradients)), fisher_score(gradients))


@pytest.mark.parametrize("score", [projection_score, magnitude_score])
def test_different_lengths_are_an_error(score: object) -> None:
    assert callable(score)
    with pytest.raises(ScoringError, match=r"\(3,\) and \(4,\)"):
        score(torch.zeros(3), torch.zeros(4))


def test_fisher_of_nothing_is_an_error() -> None:
    with pytest.raises(ScoringError, match="at least one gradient"):
        fisher_score([])


def test_nan_is_not_hidden() -> None:
    assert math.isnan(projection_score(torch.tensor([math.nan]), torch.tensor([1.0])).item())
