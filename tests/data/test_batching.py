"""Batches of like length."""

from beft_lightning.data.batching import batches_of_like_length


def test_batches_of_like_length_hold_everything_and_little_padding() -> None:
    lengths = [3, 40, 41, 42, 43, 44, 7, 90, 3, 3]
    batches = batches_of_like_length(lengths, lambda length: length, 4)
    assert batches == [[3, 3, 3], [7], [40, 41, 42, 43], [44], [90]]
