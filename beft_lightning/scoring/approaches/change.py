"""Approaches that compare a bias before and after a short fine-tuning of all biases."""

from abc import abstractmethod

from torch import Tensor, nn

from beft_lightning.parameters import full_tensor
from beft_lightning.scoring.approaches.approach import Approach
from beft_lightning.scoring.functional import magnitude_score, projection_score


class _Change(Approach):
    """A score of the change from the pretrained bias to the fine-tuned one."""

    fine_tunes = True
    averages = False

    @abstractmethod
    def score(self, before: Tensor, after: Tensor) -> Tensor:
        """Return the score of a change between two vectors of shape ``(d,)``, a scalar."""

    def statistic(self, pretrained: Tensor, bias: nn.Parameter) -> Tensor:
        """Return the score after the newest step."""
        return self.score(pretrained, full_tensor(bias)).double()


class Projection(_Change):
    """The projection score of BEFT (arXiv 2509.15974)."""

    needs_pretrained_biases = True

    def score(self, before: Tensor, after: Tensor) -> Tensor:
        """See :func:`~beft_lightning.scoring.functional.projection_score`."""
        return projection_score(before, after)


class Magnitude(_Change):
    """The mean absolute change, as in BitFit (arXiv 2106.10199)."""

    def score(self, before: Tensor, after: Tensor) -> Tensor:
        """See :func:`~beft_lightning.scoring.functional.magnitude_score`."""
        return magnitude_score(before, after)
