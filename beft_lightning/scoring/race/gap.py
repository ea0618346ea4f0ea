"""The gap between two entrants of a race, and its spread over the held-out batches."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True)
class Gap:
    """How far an entrant's held-out loss lies above another's.

    Args:
        difference: Mean difference of the losses.
        spread: Two standard errors of it.
        batches: Number of held-out batches.
    """

    difference: float
    spread: float
    batches: int

    @property
    def is_tie(self) -> bool:
        """Whether the difference lies within its spread, so that other held-out batches may reverse the order."""
        return self.difference <= self.spread

    @property
    def needed(self) -> int | None:
        """Held-out batches that would tell this difference apart, if it stays; ``None`` if there is no difference."""
        if not self.difference > 0:
            return None
        return max(2, math.ceil(self.batches * (self.spread / self.difference) ** 2))


def gap(losses: Sequence[float], best: Sequence[float]) -> Gap:
    r"""Compare two entrants on the same held-out batches, in pairs.

    With :math:`d_i` the difference of the two losses on batch :math:`i` of :math:`n`, the difference is
    :math:`\bar d` and the spread :math:`2\,s_d/\sqrt n`. The batches' own difficulty falls out of :math:`d_i`.

    Args:
        losses: An entrant's loss on each held-out batch, at least two.
        best: The other's.

    >>> gap([1.0, 3.0, 2.0], [0.5, 2.5, 1.5])
    Gap(difference=0.5, spread=0.0, batches=3)
    """
    differences = [one - other for one, other in zip(losses, best, strict=True)]
    if not all(map(math.isfinite, differences)):
        return Gap(math.inf, 0.0, len(differences))
    return Gap(fmean(differences), 2 * stdev(differences) / math.sqrt(len(differences)), len(differences))
