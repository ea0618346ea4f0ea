"""Batches of examples of about the same length."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def batches_of_like_length(examples: Sequence[T], length: Callable[[T], int], size: int) -> list[list[T]]:
    """Divide examples into batches of at most ``size``, shortest first, with little padding.

    A batch also ends where one more example would make more than a seventeenth of its tokens padding: a few long
    examples must not make a whole batch as long.

    Args:
        examples: Examples of any type.
        length: Number of tokens of an example.
        size: Most examples in a batch.
    """
    batches: list[list[T]] = []
    tokens = 0
    for example in sorted(examples, key=length):
        padded = (len(batches[-1]) + 1) * length(example) if batches else 0
        tokens += length(example)
        if not batches or len(batches[-1]) == size or padded > tokens * 17 / 16:
            batches.append([])
            tokens = length(example)
        batches[-1].append(example)
    return batches


def shuffled_steps(lengths: Sequence[int], size: int, generator: torch.Generator) -> list[int]:
    """Return the order of an epoch in which the examples of each step are neighbours in length.

    All examples are sorted by length, those of one length in random order, and cut into steps; then the steps are
    shuffled. That with the longest example comes first, so that a lack of memory shows at once. A step that is not full
    is cut out at a random place and comes last.

    Args:
        lengths: Number of tokens of each example.
        size: Number of examples in a step, over all processes.
        generator: Draws the order.
    """
    shuffled: list[int] = torch.randperm(len(lengths), generator=generator).tolist()
    ordered = sorted(shuffled, key=lambda index: -lengths[index])
    full, rest = divmod(len(ordered), size)
    cut = size * int(torch.randint(full + 1, (), generator=generator))
    last, ordered = ordered[cut : cut + rest], ordered[:cut] + ordered[cut + rest :]
    steps = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    order: list[int] = (1 + torch.randperm(max(full - 1, 0), generator=generator)).tolist()
    return [index for step in (steps[:1], [steps[place] for place in order], [last]) for part in step for index in part]


def collate_one(collate: Callable[[list[T]], Any], batches: list[list[T]]) -> Any:
    """Collate the one item of a loader whose items are whole batches of examples."""
    (examples,) = batches
    return collate(examples)
