"""The scores as pure functions of tensors: the three of BEFT, and those of gradients.

The published code is the only exact definition of BEFT's scores; it raises where the formulas below are merely
unusual (an angle above 90 degrees, a zero vector). Here they are defined everywhere.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from beft_lightning.errors import ScoringError


def projection_score(before: Tensor, after: Tensor) -> Tensor:
    r"""BEFT's score: how far a bias vector left its own direction and length.

    With :math:`\theta` the angle between the vectors,

    .. math:: s = 1 - \cos\theta \cdot \frac{\min(|b'|, |b|)}{\max(|b'|, |b|)}

    It is 0 if nothing changed, symmetric in its arguments and free of scale; above 90 degrees it lies in (1, 2];
    exactly one zero vector gives 1, two give 0.

    Args:
        before: Pretrained bias, shape ``(d,)``.
        after: The same bias after fine-tuning, shape ``(d,)``.

    Returns:
        A scalar in the inputs' precision, at least fp32.

    Raises:
        ScoringError: If the vectors differ in shape.

    >>> projection_score(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 0.0]))
    tensor(0.5000)
    >>> projection_score(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    tensor(1.)
    """
    result = _result_dtype(before, after)
    before, after = before.detach().double(), after.detach().double()
    longer, shorter = (before, after) if before.norm() >= after.norm() else (after, before)
    squared = longer.dot(longer)
    # 1 - <b,b'>/|longer|^2 as <longer, longer - shorter>/|longer|^2: no cancellation when little has moved.
    score = longer.dot(longer - shorter) / squared if squared > 0 else squared
    return score.to(result)


def magnitude_score(before: Tensor, after: Tensor) -> Tensor:
    """BitFit's score, the mean absolute change (arXiv 2106.10199).

    Args:
        before: Pretrained bias, shape ``(d,)``.
        after: The same bias after fine-tuning, shape ``(d,)``.

    Returns:
        A scalar in the inputs' precision, at least fp32.

    Raises:
        ScoringError: If the vectors differ in shape.

    >>> magnitude_score(torch.tensor([0.0, 1.0]), torch.tensor([1.0, -1.0]))
    tensor(1.5000)
    """
    result = _result_dtype(before, after)
    return (after.detach().double() - before.detach().double()).abs().mean().to(result)


def fisher_score(gradients: Iterable[Tensor] | Tensor) -> Tensor:
    """Empirical Fisher information: the mean squared gradient over draws and entries.

    Args:
        gradients: One gradient of shape ``(d,)`` per draw (a batch, or a sample), or all stacked, ``(n, d)``.

    Returns:
        A scalar in the gradients' precision, at least fp32.

    Raises:
        ScoringError: If there is no gradient.

    >>> fisher_score([torch.tensor([1.0, 0.0]), torch.tensor([0.0, 3.0])])
    tensor(2.5000)
    """
    stacked = list(gradients)
    if not stacked:
        raise ScoringError("the Fisher score needs at least one gradient, got none.")
    result = torch.promote_types(stacked[0].dtype, torch.float32)
    return torch.stack([gradient.detach().double().square().mean() for gradient in stacked]).mean().to(result)


def adam_gain(mean: Tensor, mean_square: Tensor) -> Tensor:
    r"""Fall of the loss that a step of Adam promises, to first order and for a learning rate of 1.

    Adam moves each entry by :math:`m / \sqrt{v}`, the mean of its gradients over the root of their mean square, and a
    small step lowers the loss by its product with the mean gradient.

    Args:
        mean: Mean gradient over batches, shape ``(d,)``.
        mean_square: Mean of the squared gradients, shape ``(d,)``.

    Returns:
        A scalar; entries without a gradient add nothing.

    >>> adam_gain(torch.tensor([2.0, -3.0, 0.0]), torch.tensor([4.0, 36.0, 0.0]))
    tensor(3.5000)
    """
    moves = mean_square > 0
    return (mean[moves].square() / mean_square[moves].sqrt()).sum()


def gradient_signal(mean: Tensor, mean_square: Tensor) -> Tensor:
    """Share of the mean squared gradient that is not noise of the batches: the squared mean over the mean square.

    It is 1 if all batches ask for the same change, and about ``1 / n`` for ``n`` batches of nothing but noise.

    Args:
        mean: Mean gradient over batches, shape ``(d,)``.
        mean_square: Mean of the squared gradients, shape ``(d,)``.

    Returns:
        A scalar; 0 where there is no gradient.

    >>> gradient_signal(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0]))
    tensor(0.5000)
    """
    total = mean_square.sum()
    return mean.square().sum() / total if total > 0 else total


def _result_dtype(before: Tensor, after: Tensor) -> torch.dtype:
    if before.shape != after.shape or before.dim() != 1:
        raise ScoringError(
            f"a score compares two vectors of one length, got shapes {tuple(before.shape)} and {tuple(after.shape)}."
        )
    return torch.promote_types(torch.promote_types(before.dtype, after.dtype), torch.float32)
