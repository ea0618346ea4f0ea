"""The base of DataModules for data of one's own: reads the files, splits rows off, finds the labels."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from beft_lightning.data.datamodule import LanguageDataModule
from beft_lightning.data.sources import ID_COLUMNS, Located
from beft_lightning.data.subsets import draw_stratified
from beft_lightning.data.table.files import read_table
from beft_lightning.data.table.kinds import TableKind, check_columns
from beft_lightning.data.task import DEV, TRAIN, TaskRecord
from beft_lightning.errors import DataError

VALIDATION = "validation"
TEST = "test"
#: Share of the training rows set aside where no validation file is given.
_DEV_SHARE = 0.1


class FileData(LanguageDataModule):
    """Files of one's own: a subclass says what their rows mean.

    Args:
        tokenizer: The backbone's hub id or folder, for its tokenizer.
        train: Source of the training rows. The labels are found there.
        validation: Source of the rows to evaluate on during training.
        test: Source of the rows for ``test``; by default the same as for validation.
        dev_share: Without ``validation``: the share of the training rows, or from 1 on their number, that is not
            trained on but evaluated on; by default 0.1. The rows are drawn with the seed, from each label alike.
        metrics: Names of the metrics to report, the main one first; by default those of the task.
        understand: Returns how the training rows become examples, and the record of their task.
        kwargs: See :class:`~beft_lightning.data.datamodule.LanguageDataModule`.

    Raises:
        DataError: If there is nothing to train on, or the options or the rows do not go together.
    """

    def __init__(
        self,
        tokenizer: str,
        train: str | Path | None,
        validation: str | Path | None,
        test: str | Path | None,
        dev_share: float | None,
        metrics: list[str] | None,
        understand: Callable[[Dataset], tuple[TableKind, TaskRecord]],
        **kwargs: Any,
    ) -> None:
        if train is None:  # A parser that requires it only says what it was given.
            raise DataError(f"{type(self).__name__} needs a file, folder or data set to train on: give --data.train.")
        if validation is not None and dev_share is not None:
            raise DataError("dev_share splits rows off for validation, and a validation file is given: leave out one.")
        if dev_share is not None and (dev_share <= 0 or (dev_share > 1 and dev_share != int(dev_share))):
            raise DataError(f"dev_share {dev_share} must be a share below 1, or a whole number of rows.")
        self.sources = {TRAIN: train, VALIDATION: validation, TEST: test}
        table = self.read_source(train, TRAIN)
        #: How rows become examples.
        self.kind, task = understand(table)
        super().__init__(
            task=task if metrics is None else replace(task, metrics=tuple(metrics)),
            tokenizer=tokenizer,
            evaluation_splits=[VALIDATION if test is None else TEST],
            **kwargs,
        )
        if test is not None:
            if self.dev_size:
                raise DataError("with a test file, dev_size has no use: the validation rows are set aside already.")
            # Validation rows are what DEV is elsewhere: evaluated on during training, not reported.
            self.task = replace(self.task, dev=True)
        self._strata = self.kind.strata(table)
        self._parsed: dict[str, list[Any]] = {TRAIN: self._parse(TRAIN, table)}
        self.dev_share = dev_share if dev_share is not None else _DEV_SHARE
        self._announce(table)

    def read_source(self, source: str | Path, split: str) -> Dataset:
        """Read all rows of a source.

        Args:
            source: A file, a folder or a hub id.
            split: The split that it is to give.

        Raises:
            DataError: If it cannot be read.
        """
        return read_table(source, split)

    def read(self, split: str) -> list[Any]:
        """Read a split, or the part of the training rows that stands for it."""
        if self.sources.get(VALIDATION) is None and split in (TRAIN, VALIDATION):
            examples = self._parsed[TRAIN]
            dev = set(self._held_out())
            examples = [example for i, example in enumerate(examples) if (i in dev) == (split == VALIDATION)]
        elif split in self._parsed:
            examples = self._parsed[split]
        else:
            source = self.sources.get(split)
            if source is None:
                raise DataError(f"there is no {split} file: give --data.{split}.")
            examples = self._parsed[split] = self._parse(split, self.read_source(source, split))
        if split == TRAIN and len(examples) < self.batch_size:
            raise DataError(
                f"{self.sources[TRAIN]}: {len(examples)} rows to train on are fewer than a batch of "
                f"{self.batch_size}: lower --data.batch_size, or give more rows."
            )
        return examples

    def _examples(self, split: str) -> list[Any]:
        return super()._examples(VALIDATION if split == DEV and self.sources[TEST] is not None else split)

    def _held_out(self) -> list[int]:
        """Return the indices of the training rows that are set aside for validation."""
        total = len(self._strata)
        size = round(self.dev_share * total) if self.dev_share < 1 else int(self.dev_share)
        if size >= total:
            raise DataError(
                f"{self.sources[TRAIN]}: dev_share {self.dev_share} leaves none of {total} rows to train on."
            )
        return draw_stratified(self._strata, max(size, 1), np.random.RandomState(self.seed))

    def _parse(self, split: str, table: Dataset) -> list[Any]:
        source = f"{self.sources[split]}"
        check_columns(self.kind, table, source)
        needed = list(self.kind.needed)
        rows: Iterator[Located] = iter(self.kind.rows(table.select_columns(needed), source, self.task))
        if own := [name for name in ID_COLUMNS if name in table.column_names and name not in needed]:
            ids = table.select_columns(own[:1])
            rows = ((where, {**row, **row_id}) for (where, row), row_id in zip(rows, ids, strict=True))
        return self.task.parse(rows, source)

    def _announce(self, table: Dataset) -> None:
        """Log how the training table was understood."""
        rank_zero_info(f"{self.sources[TRAIN]}: {len(table):,} rows, {self.kind.describe(table, self.task)}.")
        if self.sources[VALIDATION] is None:
            rank_zero_info(
                f"No validation file: {len(self._held_out()):,} of the rows are set aside (dev_share "
                f"{self.dev_share:g}, seed {self.seed})."
            )
