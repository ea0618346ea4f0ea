"""Training batches that can begin in the middle of an epoch."""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader
from transformers.trainer_pt_utils import DistributedLengthGroupedSampler

from beft_lightning.data.batching import shuffled_steps
from beft_lightning.errors import DataError

#: How the examples of a step are brought together by their length.
Grouping = Literal["none", "blocks", "epoch"]


class ResumableSampler(DistributedLengthGroupedSampler):
    """Sampler of examples of like length, in an order of seed and epoch, that can leave out the first ones.

    Args:
        size: Number of examples in a step, over all processes.
        grouping: ``blocks`` sorts blocks of the epoch, a quarter of it or 50 steps, by length; ``epoch`` all of it, and
            shuffles the steps; ``none`` shuffles freely.
        options: Those of torch's ``DistributedSampler``, and ``lengths``.
    """

    #: Number of this process's indices to leave out when they are next asked for.
    skipped = 0

    def __init__(self, size: int, grouping: Grouping = "blocks", **options: Any) -> None:
        super().__init__(size, **options)
        self.grouping = grouping

    def __iter__(self) -> Iterator[int]:
        """Yield the indices of this process."""
        skipped, self.skipped = self.skipped, 0
        indices = super().__iter__() if self.grouping == "blocks" else self._own_order()
        return islice(indices, skipped, None)

    def _own_order(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        if self.grouping == "epoch":
            indices = shuffled_steps(self.lengths, self.batch_size, generator)
        else:
            indices = torch.randperm(len(self.lengths), generator=generator).tolist()
        # Each process needs as many.
        indices += indices[: self.total_size - len(indices)]
        return iter(indices[self.rank :: self.num_replicas])


class ResumableDataLoader(DataLoader[Any]):
    """A DataLoader with a :class:`ResumableSampler` that tells Lightning's checkpoints how far it has come."""

    #: The trainer that trains on the batches, if any: it knows how many it has finished.
    trainer: Trainer | None = None
    _given = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # a generator will do
        """Yield the batches of an epoch, or those left of it after :meth:`load_state_dict`."""
        self._given = self._sampler.skipped // self._size if self._resumable else 0
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the number of batches that each process has finished in this epoch, and what identifies the epoch."""
        return {"batches": self._done, **self._identity} if self._resumable else {"batches": 0}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Begin where the checkpoint was written.

        Args:
            state: A state of :meth:`state_dict`.

        Raises:
            DataError: If that was in the middle of an epoch of other batches.
        """
        if not state["batches"] or not self._resumable:
            return
        there = {name: value for name, value in state.items() if name != "batches"}
        if there != self._identity:
            raise DataError(
                f"the checkpoint was written in the middle of an epoch with {_described(there)}, and this run has "
                f"{_described(self._identity)}: use the same data, seed, grouping, and batch size times number of "
                "processes, or resume from a checkpoint of the end of an epoch."
            )
        self._sampler.skipped = state["batches"] * self._size

    @property
    def _done(self) -> int:
        """Number of batches of this epoch that need not be given again."""
        if self.trainer is None:
            return self._given % len(self)
        # A batch that was given may still be under way, and an epoch may be shorter than this loader.
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        return int(progress.processed % self.trainer.num_training_batches)

    @property
    def _resumable(self) -> bool:
        """False where Lightning has put in a sampler of its own, as it does for ``overfit_batches``."""
        return isinstance(self.sampler, ResumableSampler)

    @property
    def _sampler(self) -> ResumableSampler:
        assert isinstance(self.sampler, ResumableSampler)
        return self.sampler

    @property
    def _size(self) -> int:
        assert self.batch_size is not None
        return self.batch_size

    @property
    def _identity(self) -> dict[str, Any]:
        sampler = self._sampler
        return {
            "examples_a_step": self._size * sampler.num_replicas,
            "examples": len(sampler.lengths),
            "seed": sampler.seed,
            # Checkpoints of earlier versions say nothing of it.
            **({"group_by_length": sampler.grouping} if sampler.grouping != "blocks" else {}),
        }


def _described(identity: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in identity.items())
