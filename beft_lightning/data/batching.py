"""Evaluation batches of examples of about the same length."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

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


def collate_one(collate: Callable[[list[T]], Any], batches: list[list[T]]) -> Any:
    """Collate the one item of a loader whose items are whole batches of examples."""
    (examples,) = batches
    return collate(examples)
