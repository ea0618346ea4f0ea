"""How sure it is that one term scores higher than another: its lead, and the spread of that lead over the batches."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import stdev


@dataclass(frozen=True)
class Margin:
    """How far a term is ahead of the next one.

    Args:
        over: The next term.
        margin: Difference of the two scores.
        spread: Two standard errors of the margin over the batches, see :func:`margin_spread`; ``None`` if not known.
    """

    over: str
    margin: float
    spread: float | None

    @property
    def is_near_tie(self) -> bool:
        """Whether other batches might well have turned the order."""
        return self.spread is not None and self.margin <= self.spread


def margin_spread(first: Sequence[float], second: Sequence[float], *, mean: bool) -> float | None:
    r"""Two standard errors of the difference of two terms' scores, over the batches.

    The difference after :math:`n` batches is a sum of what each batch has added, :math:`d_1 + \dots + d_n`. Were these
    drawn independently, the sum would have the standard error :math:`\sqrt n` times their standard deviation. For
    Fisher scores, which are means over batches, this is the usual standard error of a mean of paired differences. For
    scores of a change (projection, magnitude) it is a rule of thumb, since the steps of an optimizer hang together: a
    lead that grows with every batch is called sure, one that comes and goes is not.

    Args:
        first: A term's score after each batch.
        second: Another term's, after the same batches.
        mean: Whether the scores are means over the batches so far.

    Returns:
        The spread, in the scores' unit; ``None`` for less than two batches.

    >>> margin_spread([1.0, 2.0, 3.0], [0.0, 0.0, 0.0], mean=False)  # each batch adds as much
    0.0
    >>> round(margin_spread([1.0, 0.0, 1.0], [0.0, 0.0, 0.0], mean=False), 6)  # adds 1, -1 and 1
    4.0
    """
    lead = [one - other for one, other in zip(first, second, strict=True)]
    count = len(lead)
    if count < 2:
        return None
    if mean:  # after i of n batches, what they will have added to the mean of all n
        lead = [value * i / count for i, value in enumerate(lead, start=1)]
    return 2 * math.sqrt(count) * stdev(after - before for before, after in pairwise([0.0, *lead]))
