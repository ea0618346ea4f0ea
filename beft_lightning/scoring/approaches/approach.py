"""The interface of a scoring approach."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn


class Approach(ABC):
    """A rule that scores bias vectors on a few training batches. Subclasses have no state.

    For each batch, the scoring pass back-propagates the loss and takes a statistic of each candidate vector. Statistics
    are averaged over the batches, or the newest one counts. The score of a vector is a function of its statistic.
    """

    #: Whether an optimizer step follows each backward pass, before the statistic is taken. If not, the biases keep
    #: their pretrained values and the model runs in evaluation mode, without dropout.
    fine_tunes: ClassVar[bool] = False
    #: Whether statistics are averaged over the batches; otherwise the newest one counts.
    averages: ClassVar[bool] = True
    #: Whether each example is back-propagated alone.
    single_examples: ClassVar[bool] = False
    #: Whether the gradients of whole batches are clipped jointly. Those of single examples never are.
    clips: ClassVar[bool] = True
    #: Whether a score compares with the pretrained bias, so that biases that start at zero cannot be ranked.
    needs_pretrained_biases: ClassVar[bool] = False

    @abstractmethod
    def statistic(self, pretrained: Tensor, bias: nn.Parameter) -> Tensor:
        """Return the statistic of a vector after a backward pass.

        Args:
            pretrained: The vector at the checkpoint, shape ``(d,)``.
            bias: The vector now, with its gradient, ``None`` if none arrived. Under FSDP2 both are sharded:
                :func:`~beft_lightning.parameters.full_tensor` gives the whole.

        Returns:
            A tensor of any shape, always the same one, in fp64.
        """

    def value(self, statistic: Tensor) -> float:
        """Return the score, given the statistic over all batches so far; by default a scalar statistic itself."""
        return float(statistic)

    def noise(self, batches: int) -> float:
        """Return the score that batches without anything in common would have, where it is known and not 0."""
        return 0.0
