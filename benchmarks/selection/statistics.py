"""The study's numbers as pure functions."""

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean

import pandas as pd


def steps_to(curve: Sequence[float], steps: int, share: float = 0.95) -> int | None:
    """Return after how many steps a curve first reaches a share of its own best value.

    Args:
        curve: Value after each epoch.
        steps: Optimizer steps of an epoch.
        share: The share.

    Returns:
        The steps; ``None`` for a curve that never rises above 0.

    >>> steps_to([0.5, 0.70, 0.80], steps=10, share=0.9)
    30
    """
    best = max(curve)
    return next((steps * i for i, value in enumerate(curve, start=1) if value >= share * best > 0), None)


def area(curve: Sequence[float]) -> float:
    """Return the area under a curve by the trapezoidal rule, divided by its length: a mean over the course.

    >>> area([0.0, 1.0, 1.0])
    0.75
    """
    if len(curve) == 1:
        return curve[0]
    return fmean((one + other) / 2 for one, other in pairwise(curve))


def regret(results: Mapping[str, float], picked: str) -> float:
    """Return how far the result of what was picked lies below the best one.

    >>> round(regret({"value": 0.8, "query": 0.7}, "query"), 3)
    0.1
    """
    return max(results.values()) - results[picked]


def next_rate(found: Mapping[float, float], grid: Sequence[float]) -> float | None:
    """Return the rate that a sweep has to try next, so that its best rate is not at the edge of what was tried.

    Args:
        found: Rate -> result, for the rates that were tried; higher is better, and a diverged run is minus infinity.
        grid: All rates, ascending.

    Returns:
        First the middle three; then the neighbour of the best where that is at the edge; ``None`` once it is not, or
        the grid ends there.

    >>> next_rate({1e-3: 0.7, 3e-3: 0.8, 1e-2: 0.9}, [1e-3, 3e-3, 1e-2, 3e-2])
    0.03
    """
    middle = len(grid) // 2
    if waiting := [rate for rate in grid[max(0, middle - 1) : middle + 2] if rate not in found]:
        return waiting[0]
    best = grid.index(best_rate(found))
    neighbours = [grid[i] for i in (best - 1, best + 1) if 0 <= i < len(grid)]
    return next((rate for rate in neighbours if rate not in found), None)


def best_rate(found: Mapping[float, float]) -> float:
    """Return the rate with the best result; of equal ones the lowest."""
    return max(sorted(found), key=lambda rate: found[rate])


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Return Spearman's rank correlation; NaN if one of the two is tied throughout.

    >>> rank_correlation([1.0, 2.0, 3.0], [10.0, 30.0, 20.0])
    0.5
    """
    return float(pd.Series(one).rank().corr(pd.Series(other).rank()))


def bootstrap(
    values: Sequence[float], statistic: Callable[[Sequence[float]], float] = fmean, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % percentile interval of a statistic, over samples drawn with replacement.

    Args:
        values: The sample.
        statistic: The statistic, by default the mean.
        draws: Number of samples.
        seed: Seed of the draws.

    >>> bootstrap([1.0, 1.0, 1.0])
    (1.0, 1.0)
    """
    generator = random.Random(seed)
    found = sorted(statistic(generator.choices(values, k=len(values))) for _ in range(draws))
    return found[round(0.025 * (draws - 1))], found[round(0.975 * (draws - 1))]
