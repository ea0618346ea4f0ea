"""Random subsets: always the beginning of a seeded permutation."""

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np


def draw(population: int, count: int, random: np.random.RandomState) -> list[int]:
    """Distinct indices below ``population``, the first of a permutation."""
    return list(map(int, random.permutation(population)[:count]))


def draw_sources(sources: Sequence[str], size: int, random: np.random.RandomState) -> set[str]:
    """Distinct sources at random that have at least ``size`` examples together.

    Args:
        sources: The source of each example.
        size: Number of examples.
        random: What draws.
    """
    examples = Counter(sources)
    names = list(examples)
    order = [names[i] for i in draw(len(names), len(names), random)]
    before = itertools.accumulate((examples[name] for name in order), initial=0)
    return {name for name, count in zip(order, before, strict=False) if count < size}
