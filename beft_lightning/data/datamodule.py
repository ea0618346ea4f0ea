"""The DataModule that all benchmarks share: subset, tokenise, batch."""

import os
from abc import abstractmethod
from typing import Any, Literal

import numpy as np
from datasets import Dataset
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from beft_lightning.data.batching import EpochLengthGroupedSampler
from beft_lightning.data.sources import Row
from beft_lightning.data.task import Task
from beft_lightning.errors import DataError
from beft_lightning.models import load_tokenizer

REGIMES = ("low", "medium", "high", "all")


class LanguageDataModule(LightningDataModule):
    """Examples of a task as batches of token ids; a benchmark only says where its rows come from.

    Args:
        task: The task's record.
        tokenizer: Tokenizer to use: the backbone's hub id or folder.
        train_size: Number of training examples: a number, a regime (``low``, ``medium``, ``high``) or ``all``.
        seed: Seed of the training subset and of the order of batches; by default that of the run.
        batch_size: Number of examples in a training batch.
        eval_batch_size: Number of examples in an evaluation batch.
        max_length: Longest input, in tokens; longer ones are cut from their longest text.
        padding: ``longest`` pads each batch to its own longest example and groups examples of similar length;
            ``max_length`` pads all to ``max_length`` and shuffles freely, as the published code does.
        num_workers: Number of processes that prepare batches.
    """

    def __init__(
        self,
        task: Task,
        tokenizer: str,
        train_size: Literal["low", "medium", "high", "all"] | int = "all",
        seed: int | None = None,
        batch_size: int = 16,
        eval_batch_size: int = 64,
        max_length: int = 128,
        padding: Literal["longest", "max_length"] = "longest",
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.task = task
        self.tokenizer_name = tokenizer
        self.train_size = train_size
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", "0")) if seed is None else seed
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.max_length = max_length
        self.padding = padding
        self.num_workers = num_workers
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self._splits: dict[str, Dataset] = {}

    @abstractmethod
    def read(self, split: str) -> list[Row]:
        """All examples of a split: text columns, ``label`` and ``id``."""

    def setup(self, stage: str) -> None:
        """Read, subset and tokenise the splits that ``stage`` needs, once."""
        if self.tokenizer is None:
            self.tokenizer = load_tokenizer(self.tokenizer_name)
        for split in ("train", *self.task.evaluation_splits) if stage == "fit" else self.task.evaluation_splits:
            if split not in self._splits:
                rows = self.read(split)
                self._splits[split] = self._tokenize(self._subset(rows) if split == "train" else rows)

    def _subset(self, rows: list[Row]) -> list[Row]:
        """The first examples of a seeded permutation, so that smaller regimes are parts of larger ones."""
        size = self._size(len(rows))
        if size < self.batch_size:
            raise DataError(
                f"a training set of {size} examples is smaller than one batch of {self.batch_size}: "
                "raise `train_size` or lower `batch_size`."
            )
        permutation = np.random.RandomState(self.seed).permutation(len(rows))
        return [rows[i] for i in permutation[:size]]

    def _size(self, available: int) -> int:
        if self.train_size == "all":
            return available
        size = self.task.sizes.get(self.train_size) if isinstance(self.train_size, str) else self.train_size
        if size is None:
            raise DataError(
                f"train_size {self.train_size!r} is not defined for {self.task.name}; use "
                f"{', '.join([*self.task.sizes, 'all'])}, or a number."
            )
        if size > available:
            raise DataError(
                f"train_size {self.train_size!r} asks for {size:,} examples of {self.task.name}, but there are only "
                f"{available:,}: ask for fewer, or for 'all'."
            )
        return size

    def _tokenize(self, rows: list[Row]) -> Dataset:
        assert self.tokenizer is not None
        texts = [[row[name] for row in rows] for name in self.task.text]
        encoded = dict(self.tokenizer(*texts, truncation=True, max_length=self.max_length))
        # Not "length" of the text: it is the number of tokens that costs time.
        lengths = [len(ids) for ids in encoded["input_ids"]]
        columns = {"label": [row["label"] for row in rows], "id": [row["id"] for row in rows], "length": lengths}
        return Dataset.from_dict({**encoded, **columns})

    def train_dataloader(self) -> DataLoader[Any]:
        """Training batches: token ids, attention mask, ``labels`` and ``id``."""
        dataset = self._splits["train"]
        # Padded to one length, all examples are equally long, and grouping them leaves a plain shuffle.
        padded = [self.max_length] * len(dataset)
        lengths = list(dataset["length"]) if self.padding == "longest" else padded
        sampler = EpochLengthGroupedSampler(self.batch_size, lengths, self.seed)
        return self._dataloader(dataset, self.batch_size, sampler)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """One loader for each evaluation split, examples sorted by length."""
        return [
            self._dataloader(dataset.select(np.argsort(dataset["length"], kind="stable")), self.eval_batch_size)
            for dataset in (self._splits[split] for split in self.task.evaluation_splits)
        ]

    # The benchmarks' test labels are not public; as in the paper, the validation split is the one reported.
    test_dataloader = predict_dataloader = val_dataloader

    def _dataloader(self, dataset: Dataset, batch_size: int, sampler: Any = None) -> DataLoader[Any]:
        assert self.tokenizer is not None
        collator = DataCollatorWithPadding(
            self.tokenizer, padding=self.padding, max_length=self.max_length if self.padding == "max_length" else None
        )
        return DataLoader(
            dataset.remove_columns("length"),
            batch_size=batch_size,
            sampler=sampler,
            collate_fn=collator,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )
