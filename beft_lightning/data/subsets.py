"""Random subsets: the beginning of a seeded permutation, so that smaller sets are parts of larger ones."""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from beft_lightning.data.task import TaskRecord
from beft_lightning.errors import DataError


def draw(population: int, count: int, random: np.random.RandomState) -> list[int]:
    """Return distinct indices below ``population``, the first of a permutation."""
    return list(map(int, random.permutation(population)[:count]))


def draw_sources(sources: Sequence[str], size: int, random: np.random.RandomState) -> set[str]:
    """Draw distinct sources that have at least ``size`` examples together.

    Args:
        sources: The source of each example.
        size: Number of examples.
        random: Random number generator to draw with.
    """
    examples = Counter(sources)
    names = list(examples)
    order = [names[i] for i in draw(len(names), len(names), random)]
    before = itertools.accumulate((examples[name] for name in order), initial=0)
    return {name for name, count in zip(order, before, strict=False) if count < size}


def draw_stratified(strata: Sequence[str], size: int, random: np.random.RandomState) -> list[int]:
    """Draw indices from each stratum in proportion to its size, to within one.

    Args:
        strata: The stratum of each index.
        size: Number of indices.
        random: Random number generator to draw with.

    Returns:
        The indices, in increasing order.
    """
    counts = Counter(strata)
    drawn: Counter[str] = Counter()
    places: list[tuple[float, int]] = []
    # The members of each stratum stand at equal distances between 0 and 1, so that any beginning is proportional.
    for index in draw(len(strata), len(strata), random):
        stratum = strata[index]
        places.append(((drawn[stratum] + 0.5) / counts[stratum], index))
        drawn[stratum] += 1
    chosen = sorted(places, key=lambda place: place[0])[:size]
    return sorted(index for _, index in chosen)


def draw_training(
    examples: int,
    sources: Sequence[str],
    dev_size: int,
    size_of: Callable[[int], int],
    random: np.random.RandomState,
) -> tuple[list[int], list[int]]:
    """Draw the training set and the dev set from a training split.

    The dev set follows the training set in one permutation. Where several examples share a source, the dev set is
    drawn first, as whole sources, and the training set has none of them.

    Args:
        examples: Number of examples of the split.
        sources: The source of each example; empty where no examples have to stay together.
        dev_size: Number of examples of the dev set.
        size_of: Size of the training set, given the number of examples left for it.
        random: Random number generator to draw with.

    Returns:
        Indices of the training set and of the dev set.

    Raises:
        DataError: If the dev set leaves no example to train on.
    """
    if dev_size and sources:
        reserved = draw_sources(sources, dev_size, random)
        dev = [i for i, source in enumerate(sources) if source in reserved]
        rest = [i for i, source in enumerate(sources) if source not in reserved]
        _check_rest(len(rest), dev_size)
        return [rest[i] for i in draw(len(rest), size_of(len(rest)), random)], dev
    _check_rest(examples - dev_size, dev_size)
    size = size_of(examples - dev_size)
    order = draw(examples, size + dev_size, random)
    return order[:size], order[size:]


def _check_rest(examples: int, dev_size: int) -> None:
    if examples < 1:
        raise DataError(f"dev_size {dev_size:,} leaves none of the training examples to train on: lower it.")


def draw_demonstrations(
    examples: int, solved: int, count: int, per_example: bool, random: np.random.RandomState
) -> list[list[int]]:
    """Draw the solved examples to stand in front of each example.

    Args:
        examples: Number of examples to solve.
        solved: Number of solved examples.
        count: Number of demonstrations for each example.
        per_example: Draw others for each example instead of the same ones for all.
        random: Random number generator to draw with.

    Returns:
        Indices of the demonstrations of each example.

    Raises:
        DataError: If there are fewer solved examples than demonstrations.
    """
    if count > solved:
        raise DataError(f"{count} demonstrations asked for, but {solved} training examples.")
    fixed = draw(solved, count, random)
    return [draw(solved, count, random) if per_example else fixed for _ in range(examples)]


def training_size(task: TaskRecord, asked: str | int, available: int, batch_size: int) -> int:
    """Return the number of training examples that was asked for.

    Args:
        task: The task, which knows its data regimes.
        asked: A number, the name of a regime, or ``all``.
        available: Number of examples there are, dev set excluded.
        batch_size: Number of examples in a batch.

    Raises:
        DataError: If the regime is unknown, or there are not as many examples, or fewer than a batch.
    """
    size = available if asked == "all" else asked
    if isinstance(size, str):
        size = task.regime_size(size, available)
    if size > available:
        raise DataError(
            f"train_size {asked!r} asks for {size:,} examples of {task.name}, but there are only {available:,}: ask "
            "for fewer, or for 'all'."
        )
    if size < batch_size:
        raise DataError(
            f"a training set of {size} examples is smaller than one batch of {batch_size}: raise `train_size` or lower "
            "`batch_size`."
        )
    return size


def evaluation_size(asked: Literal["all"] | int, available: int) -> int:
    """Return the number of examples to evaluate on: as many as asked for, or all if there are fewer.

    The published runs evaluate 1,000 examples where there are as many.
    """
    return available if asked == "all" else min(asked, available)
