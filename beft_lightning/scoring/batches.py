"""The batches to score on, and the single examples of a batch."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Trainer
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.utils.data import IterableDataset

from beft_lightning.errors import ScoringError
from beft_lightning.scoring.plain_state import Snapshot
from beft_lightning.strategies.internals.lightning import TrainingData, flattened, requested_loaders


@contextmanager
def training_data(trainer: Trainer, snapshot: Snapshot) -> Iterator[TrainingData]:
    """Set up the training data inside this context as the fit will, which on leaving is still to do so itself.

    Args:
        trainer: A trainer inside ``fit``.
        snapshot: Takes the state of loaders, samplers and datasets, to be restored after this context.

    Yields:
        The training data.

    Raises:
        ScoringError: If there is none, or the fit would not get the same batches again.
    """
    if trainer.limit_train_batches == 0:
        raise ScoringError("there are no training batches to score on (limit_train_batches is 0).")
    loaders = requested_loaders(trainer)
    check_repeatable(flattened(loaders))
    snapshot.add(loaders)
    for loader in flattened(loaders):
        collate = getattr(loader, "collate_fn", None)  # may have a random generator of its own
        snapshot.add(loader, getattr(collate, "__self__", collate))
    data = TrainingData(trainer)
    try:
        data.set_up(loaders)
        yield data
    finally:
        data.close()


def check_repeatable(loaders: list[Any]) -> None:
    """Check that scoring can look at batches that the fit gets again.

    Args:
        loaders: The fit's loaders of training batches.

    Raises:
        ScoringError: If a loader is an iterator, or its dataset keeps one whose place cannot be restored.
    """
    for loader in loaders:
        what = None
        if isinstance(loader, Iterator):
            what = f"is an iterator ({type(loader).__name__})"
        # Worker processes have copies of the dataset.
        elif isinstance(dataset := getattr(loader, "dataset", None), IterableDataset) and not loader.num_workers:
            running = [name for name, value in vars(dataset).items() if _is_bare_iterator(value)]
            what = f"reads from an iterator, {type(dataset).__name__}.{running[0]}" if running else None
        if what:
            raise ScoringError(
                f"the training loader {what}, which gives each batch once, so that those scored on would be lost to "
                "the fit: give a loader that can be iterated again, such as a DataLoader or a list, or set "
                "`approach='fixed'` and name the terms to train."
            )


def training_batches(data: TrainingData) -> Iterator[Any]:
    """Yield the fit's own training batches in its order, over and over.

    Args:
        data: The training data.

    Yields:
        A copy of each batch, since a training step may change its batch.
    """
    for epoch in itertools.count():
        empty = True
        for batch in data.epoch(epoch):
            empty = False
            yield apply_to_collection(batch, Tensor, Tensor.clone)
        if empty:
            return


def _is_bare_iterator(value: object) -> bool:
    """Return whether a value is an iterator without attributes, as generators are."""
    return isinstance(value, Iterator) and not hasattr(value, "__dict__")


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
    texts: list[str] = []
    apply_to_collection(batch, str, texts.append)
    if texts or len(sizes) != 1:
        raise ScoringError(
            "approach 'sample_fisher' needs batches of tensors whose first dimension is the examples; this one has "
            f"{'texts or ' if texts else ''}tensors of first dimensions {sorted(sizes)}. Use approach "
            "'fisher' with clip_norm null and a data batch size of 1: then every batch is one example."
        )
    for index in range(sizes.pop()):
        yield apply_to_collection(batch, Tensor, lambda tensor, i=index: tensor[i : i + 1] if tensor.dim() else tensor)
