"""Training batches that can begin in the middle of an epoch."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader
from transformers.trainer_pt_utils import DistributedLengthGroupedSampler

from beft_lightning.errors import DataError


class ResumableSampler(DistributedLengthGroupedSampler):
    """Indices of examples of like length, the same for a seed and epoch, that can leave out the first ones."""

    #: Number of this process's indices to leave out when they are next asked for.
    skipped = 0

    def __iter__(self) -> Iterator[int]:
        """This process's indices."""
        skipped, self.skipped = self.skipped, 0
        return islice(super().__iter__(), skipped, None)


class ResumableDataLoader(DataLoader[Any]):
    """A DataLoader with a :class:`ResumableSampler` that tells Lightning's checkpoints how far it has come."""

    _given = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # a generator will do
        """The batches of an epoch, or what is left of it after :meth:`load_state_dict`."""
        assert isinstance(self.sampler, ResumableSampler)
        assert self.batch_size is not None
        self._given = self.sampler.skipped // self.batch_size
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """How many batches of this epoch each process has had, and the examples in one batch of all processes."""
        return {"batches": self._given % len(self), "examples": self._examples}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin where the checkpoint was written.

        Raises:
            DataError: If that was in the middle of an epoch with batches of another size.
        """
        if state["batches"] and state["examples"] != self._examples:
            raise DataError(
                f"the checkpoint was written in the middle of an epoch of {state['examples']} examples a step, and "
                f"this run has {self._examples}: set data.batch_size so that batch size times number of processes is "
                "the same, or resume from a checkpoint of the end of an epoch."
            )
        assert isinstance(self.sampler, ResumableSampler)
        assert self.batch_size is not None
        self.sampler.skipped = state["batches"] * self.batch_size

    @property
    def _examples(self) -> int:
        assert isinstance(self.sampler, ResumableSampler)
        assert self.batch_size is not None
        return self.batch_size * self.sampler.num_replicas
