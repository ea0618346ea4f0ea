"""The batches of a race: some to train on, others to judge by."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from beft_lightning.errors import ScoringError
from beft_lightning.strategies.adapter import AdapterStrategy


@dataclass(frozen=True)
class BatchSplit:
    """The batches of a race, of one epoch of the fit, so that no example is in both parts.

    Args:
        training: Batches to train on.
        held_out: Batches to judge by.
        seed: Seed of the order of the training batches.
    """

    training: list[Any]
    held_out: list[Any]
    seed: int

    def training_batch(self, number: int) -> Any:
        """Return a copy of a training batch; each time through all of them, they have another order.

        Args:
            number: The place in the course of training, from 0.
        """
        times, place = divmod(number, len(self.training))
        generator = torch.Generator().manual_seed(self.seed + times)
        order = torch.randperm(len(self.training), generator=generator)
        return copy_of(self.training[int(order[place])])


def split_batches(batches: list[Any], held_out: int, seed: int) -> BatchSplit:
    """Split batches at random.

    Args:
        batches: Batches of one epoch, at least four.
        held_out: How many to hold out; at most half of them are.
        seed: Seed of the split, and of the order of the training batches.

    Raises:
        ScoringError: If there are too few batches.
    """
    if len(batches) < 4:
        raise ScoringError(
            f"a race holds out training batches to judge by, and an epoch has {len(batches)}: give smaller batches, or "
            "name the terms with approach 'fixed'."
        )
    order = torch.randperm(len(batches), generator=torch.Generator().manual_seed(seed)).tolist()
    count = min(held_out, len(batches) // 2)
    return BatchSplit([batches[i] for i in order[count:]], [batches[i] for i in order[:count]], seed)


def collect_batches(strategy: AdapterStrategy, epoch: Iterable[Any], most: int) -> list[Any]:
    """Return the first batches of an epoch, the same number in each process.

    Args:
        strategy: Asks the other processes.
        epoch: This process's batches.
        most: How many to take at most.
    """
    batches: list[Any] = []
    source = iter(epoch)
    while len(batches) < most:
        batch = next(source, None)
        if not strategy.reduce_boolean_decision(batch is not None, all=True):
            break
        batches.append(copy_of(batch))  # A loader may use its memory again.
    return batches


def copy_of(batch: Any) -> Any:
    """Return a copy of a batch's tensors, in the same structure: a training step may change its batch."""
    return apply_to_collection(batch, Tensor, Tensor.clone)
