"""Loaders of a split's batches, for one process of a run."""

import zlib
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, DistributedSampler

from beft_lightning.data.batching import batches_of_like_length, collate_one
from beft_lightning.data.preprocessors import Preprocessor
from beft_lightning.data.resumable import Grouping, ResumableDataLoader, ResumableSampler
from beft_lightning.errors import DataError
from beft_lightning.signals import leave_ending_to_parent

Features = dict[str, Any]


@dataclass(frozen=True)
class LoaderFactory:
    """Makes the loaders of a process.

    Args:
        preprocessor: Makes batches of features.
        seed: Seed of the order of training batches.
        num_workers: Number of worker processes that prepare batches.
        processes: Number of processes of the run.
        rank: Number of this process.
        grouping: How the training examples of a step are brought together by their length.
    """

    preprocessor: Preprocessor
    seed: int
    num_workers: int = 0
    processes: int = 1
    rank: int = 0
    grouping: Grouping = "blocks"

    def training(self, features: list[Features], batch_size: int, epoch: int) -> ResumableDataLoader:
        """Return batches of examples of about the same length; seed and epoch determine their order.

        Args:
            features: The features of the training set.
            batch_size: Number of examples in a batch.
            epoch: The first epoch to run.

        Raises:
            DataError: If there are fewer than processes.
        """
        if len(features) < self.processes:
            raise DataError(
                f"{len(features)} rows to train on are fewer than the {self.processes} processes. Use fewer processes, "
                "or give more rows; packed texts give more with a lower --data.max_length, or --data.packing false."
            )
        sampler = ResumableSampler(
            batch_size * self.processes,  # examples of one step, over all processes, are of like length
            self.grouping,
            num_replicas=self.processes,
            rank=self.rank,
            seed=self.seed,
            lengths=list(map(self.preprocessor.length, features)),
        )
        # Lightning says so too, but only after workers have begun to fetch.
        sampler.set_epoch(epoch)
        return ResumableDataLoader(
            features,  # type: ignore[arg-type]  # a list has what a map-style dataset needs
            batch_size=batch_size,
            sampler=sampler,
            collate_fn=self.preprocessor.collate_training,
            **self._options(),
        )

    def evaluation(self, features: list[Features], batch_size: int) -> DataLoader[Any]:
        """Return a loader whose items are whole batches, each of examples of about the same length.

        Args:
            features: The features of the split.
            batch_size: Most examples in a batch.
        """
        batches = batches_of_like_length(features, self.preprocessor.length, batch_size)
        # Lightning's own for predictions gives some processes fewer batches, and a sharded model waits for all of them.
        sampler: Any = None
        if self.processes > 1:
            sampler = DistributedSampler(batches, self.processes, self.rank, shuffle=False)  # type: ignore[arg-type]
        return DataLoader(
            batches,  # type: ignore[arg-type]
            batch_size=1,
            sampler=sampler,
            collate_fn=partial(collate_one, self.preprocessor.collate_evaluation),
            **self._options(),
        )

    def _options(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "worker_init_fn": leave_ending_to_parent,
            # Its own, since how often a loader draws from the global generator depends on its workers.
            "generator": torch.Generator().manual_seed(self.seed),
        }


def content_summary(features: list[Features]) -> str:
    """Return the number of examples, and a hash of at most a hundred of them."""
    shown = features[:: max(1, len(features) // 100)]
    return f"{len(features)} examples, checksum {zlib.crc32(repr(shown).encode()):08x}"
