"""Approaches that average squared gradients at the checkpoint."""

import torch
from torch import Tensor, nn

from beft_lightning.parameters import full_tensor
from beft_lightning.scoring.approaches.approach import Approach
from beft_lightning.scoring.functional import fisher_score


class Fisher(Approach):
    """The mean squared gradient of batches, clipped jointly, as in the published code."""

    def statistic(self, pretrained: Tensor, bias: nn.Parameter) -> Tensor:
        """Return the mean square of the gradient's entries; zero if no gradient arrived."""
        if bias.grad is None:
            return torch.zeros((), dtype=torch.float64, device=pretrained.device)
        return fisher_score([full_tensor(bias.grad)]).double()


class SampleFisher(Fisher):
    """The empirical Fisher information: the mean squared gradient of single examples, not clipped."""

    single_examples = True
