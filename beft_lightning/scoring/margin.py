"""The margin between two terms' scores, and its spread over the batches."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import stdev


@dataclass(frozen=True)
class Margin:
    """The difference between a term's score and that of the next term in the ranking.

    Args:
        over: The next term.
        difference: Difference of the two scores.
        spread: Two standard errors of the difference over the batches, see :func:`margin_spread`; ``None`` if unknown.
    """

    over: str
    difference: float
    spread: float | None

    @property
    def is_near_tie(self) -> bool:
        """Whether the difference lies within its spread, so that other batches may reverse the order."""
        return self.spread is not None and self.difference <= self.spread


def margin_spread(first: Sequence[float], second: Sequence[float], *, averages: bool) -> float | None:
    r"""Return two standard errors of the difference of two terms' scores, over the batches.

    The difference after :math:`n` batches is the sum of what each batch adds, :math:`d_1 + \dots + d_n`. If these were
    drawn independently, the standard error of the sum would be :math:`\sqrt n` times their standard deviation. For
    scores that average over batches (Fisher), this is the usual standard error of a mean of paired differences. For
    scores of a change (projection, magnitude) it is a rule of thumb, since an optimizer's steps depend on each other.

    Args:
        first: A term's score after each batch.
        second: Another term's score after each of the same batches.
        averages: Whether the scores are means over the batches so far.

    Returns:
        The spread, in the unit of the scores; ``None`` for less than two batches.

    >>> margin_spread([1.0, 2.0, 3.0], [0.0, 0.0, 0.0], averages=False)  # each batch adds as much
    0.0
    >>> round(margin_spread([1.0, 0.0, 1.0], [0.0, 0.0, 0.0], averages=False), 6)  # adds 1, -1 and 1
    4.0
    """
    difference = [one - other for one, other in zip(first, second, strict=True)]
    count = len(difference)
    if count < 2:
        return None
    if averages:  # after i of n batches: their share of the mean over all n
        difference = [value * i / count for i, value in enumerate(difference, start=1)]
    return 2 * math.sqrt(count) * stdev(after - before for before, after in pairwise([0.0, *difference]))
