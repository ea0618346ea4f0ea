"""Batches of examples of about the same length, in an order that a seed and an epoch determine."""

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler


class EpochLengthGroupedSampler(LengthGroupedSampler):
    """Transformers' length-grouped sampler whose order depends on the seed and the epoch alone.

    A run resumed at an epoch's start therefore sees the batches that the uninterrupted run would have seen.

    Args:
        batch_size: Number of examples in a batch.
        lengths: Number of tokens of each example.
        seed: Seed of the order.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator().manual_seed(seed))
        self._seed = seed

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's order; Lightning calls this before each epoch."""
        self.generator.manual_seed(self._seed + epoch)
