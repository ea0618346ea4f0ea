"""The batches to score on, and the single examples of a batch."""

import itertools
from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.utils.data import DataLoader

from beft_lightning.errors import ScoringError
from beft_lightning.strategies.internals import OwnIterator


def training_batches(trainer: Trainer) -> Iterator[Any]:
    """Yield the fit's own training batches in its order, over and over.

    Args:
        trainer: A trainer whose training dataloader is set up.
    """
    loader = CombinedLoader(apply_to_collection(trainer.train_dataloader, DataLoader, _own_iterator), "max_size_cycle")
    limit = trainer.num_training_batches
    while True:
        batches = itertools.islice(iter(loader), None if limit == float("inf") else int(limit))
        empty = True
        for batch, _, _ in batches:
            empty = False
            yield batch
        if empty:
            return


def _own_iterator(loader: DataLoader[Any]) -> DataLoader[Any] | OwnIterator:
    """Return the loader, or one with an iterator of its own if there is only one, which is the fit's."""
    return OwnIterator(loader) if loader.persistent_workers else loader


def examples(batch: Any) -> Iterator[Any]:
    """Yield each example of a batch as a batch of its own, of the same structure.

    Args:
        batch: Any nesting of lists, tuples, mappings and dataclasses. The first dimension of its tensors is the
            examples; scalars belong to all of them.

    Raises:
        ScoringError: If the tensors disagree on the number of examples, or the batch holds texts.
    """
    sizes: set[int] = set()
    apply_to_collection(batch, Tensor, lambda tensor: sizes.update(tensor.shape[:1]))
    apply_to_collection(batch, str, lambda text: sizes.add(0))
    if len(sizes) != 1:
        raise ScoringError(
            "approach 'sample_fisher' needs batches of tensors whose first dimension is the examples; this one has "
            f"{'texts or ' if 0 in sizes else ''}tensors of first dimensions {sorted(sizes - {0})}. Use approach "
            "'fisher' with clip_norm null and a data batch size of 1: then every batch is one example."
        )
    for index in range(sizes.pop()):
        yield apply_to_collection(batch, Tensor, lambda tensor, i=index: tensor[i : i + 1] if tensor.dim() else tensor)
