"""Approaches that take the mean gradient at the checkpoint: no value is trained before the choice."""

import torch
from torch import Tensor, nn

from beft_lightning.parameters import full_tensor
from beft_lightning.scoring.approaches.approach import Approach
from beft_lightning.scoring.functional import adam_gain, gradient_signal


class Gradient(Approach):
    """The norm of the mean gradient over the batches, not clipped."""

    clips = False

    def statistic(self, pretrained: Tensor, bias: nn.Parameter) -> Tensor:
        """Return the gradient and its square, shape ``(2, d)``; zeros if no gradient arrived."""
        gradient = (torch.zeros_like(pretrained) if bias.grad is None else full_tensor(bias.grad)).double()
        return torch.stack([gradient, gradient.square()])

    def value(self, statistic: Tensor) -> float:
        """Return the norm of the first row."""
        return float(statistic[0].norm())


class AdamGain(Gradient):
    """The fall of the loss that a step of Adam promises."""

    def value(self, statistic: Tensor) -> float:
        """See :func:`~beft_lightning.scoring.functional.adam_gain`."""
        return float(adam_gain(*statistic))


class GradientSignal(Gradient):
    """The share of the gradient that the batches have in common."""

    def value(self, statistic: Tensor) -> float:
        """See :func:`~beft_lightning.scoring.functional.gradient_signal`."""
        return float(gradient_signal(*statistic))

    def noise(self, batches: int) -> float:
        """Return the share that is left of independent gradients with a mean of zero."""
        return 1 / batches
