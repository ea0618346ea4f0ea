"""Batches of like length."""

from itertools import pairwise

import pytest
import torch

from beft_lightning.data.batching import batches_of_like_length, shuffled_steps


def test_batches_of_like_length_hold_everything_and_little_padding() -> None:
    lengths = [3, 40, 41, 42, 43, 44, 7, 90, 3, 3]
    batches = batches_of_like_length(lengths, lambda length: length, 4)
    assert batches == [[3, 3, 3], [7], [40, 41, 42, 43], [44], [90]]


@pytest.mark.parametrize("count", [0, 1, 3, 4, 8, 103])
def test_steps_of_like_length_hold_everything_once_and_the_short_one_is_last(count: int) -> None:
    lengths = torch.randint(1, 60, (count,), generator=torch.Generator().manual_seed(1)).tolist()
    orders = [shuffled_steps(lengths, 4, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert orders[0] == orders[1]
    for order in orders:
        assert sorted(order) == list(range(count))
    if count != 103:
        return
    assert orders[0] != orders[2]
    steps = [[lengths[i] for i in orders[0][start : start + 4]] for start in range(0, count, 4)]
    assert len(steps[-1]) == 3
    assert max(steps[0]) == max(lengths)
    # Sorted by length, the steps follow one another without overlap; as they come, they do not.
    ranges = [(max(step), min(step)) for step in steps]
    by_length = sorted(ranges, reverse=True)
    assert all(first[1] >= second[0] for first, second in pairwise(by_length))
    assert ranges != by_length
