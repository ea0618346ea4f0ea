"""The DataModule that all benchmarks share: subset, encode, batch."""

import copy
import os
import zlib
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Protocol, Self

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, DistributedSampler
from transformers import PreTrainedTokenizerBase

from beft_lightning.data.batching import batches_of_like_length, collate_one
from beft_lightning.data.prompt_preprocessor import PromptPreprocessor, demonstrated
from beft_lightning.data.prompt_task import PromptTask
from beft_lightning.data.resumable import ResumableDataLoader, ResumableSampler
from beft_lightning.data.subsets import draw, draw_sources
from beft_lightning.data.task import DEV, Task
from beft_lightning.data.text_preprocessor import TextPreprocessor
from beft_lightning.errors import DataError
from beft_lightning.models import load_tokenizer


class Format(Protocol):
    """Turns a split's rows into examples of token ids, and examples into batches."""

    def encode(self, rows: list[Any]) -> list[dict[str, Any]]:
        """Token ids of the rows."""

    def length(self, features: dict[str, Any]) -> int:
        """Number of tokens that an example costs."""

    def positions(self, features: dict[str, Any]) -> int:
        """Number of positions that an example needs."""

    def collate_training(self, features: list[dict[str, Any]]) -> Any:
        """A batch to learn from."""

    def collate_evaluation(self, features: list[dict[str, Any]]) -> Any:
        """A batch to evaluate."""


class LanguageDataModule(LightningDataModule):
    """Examples of a task as batches of token ids; a benchmark only says where its rows come from.

    Args:
        task: The task's record.
        tokenizer: Tokenizer to use: the backbone's hub id or folder.
        gguf_file: Name of the GGUF file in that folder that holds the tokenizer.
        train_size: Number of training examples: a number, a regime (``low``, ``medium``, ``high``) or ``all``.
        eval_size: Number of evaluation examples of each split, a number or ``all``.
        evaluation_splits: Splits to report results on; by default the task's own.
        dev_size: Number of examples of the training split, none of which is trained on, to evaluate on during
            training; ``test`` then reports on the evaluation splits. By default they serve for both. MultiRC's
            paragraphs stay whole, so that there it is up to a paragraph's answers more.
        seed: Seed of the subsets and of the order of batches; by default that of the run.
        batch_size: Number of examples in a training batch of each process.
        eval_batch_size: Most examples in an evaluation batch.
        max_length: Longest input, in tokens; by default 128 for encoders, the task's own for prompts.
        padding: ``longest`` pads each batch to its own longest example and groups examples of similar length;
            ``max_length`` pads all to ``max_length`` and shuffles freely, as the published encoder code does.
        demonstrations: Solved training examples in front of each prompt (in-context learning).
        demonstration_set: ``per_example`` draws others for each example, ``fixed`` shows all the same ones.
        calibrate: Subtract from an option's score what it has behind a prompt without content (SFC).
        num_workers: Number of processes that prepare batches.
    """

    def __init__(
        self,
        task: Task | PromptTask,
        tokenizer: str,
        gguf_file: str | None = None,
        train_size: Literal["low", "medium", "high", "all"] | int = "all",
        eval_size: Literal["all"] | int = "all",
        evaluation_splits: list[str] | None = None,
        dev_size: int = 0,
        seed: int | None = None,
        batch_size: int = 16,
        eval_batch_size: int = 64,
        max_length: int | None = None,
        padding: Literal["longest", "max_length"] = "longest",
        demonstrations: int = 0,
        demonstration_set: Literal["per_example", "fixed"] = "per_example",
        calibrate: bool = False,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        if isinstance(task, Task) and (demonstrations or calibrate):
            raise DataError(f"demonstrations and calibrate belong to prompts, and {task.name} is read without one.")
        if demonstrations and dev_size:
            raise DataError("demonstrations need no dev set, as nothing is chosen by it: leave out one of the two.")
        if (
            min(batch_size, eval_batch_size, 1 if max_length is None else max_length) < 1
            or min(dev_size, num_workers) < 0
        ):
            raise DataError(
                f"batch_size ({batch_size}), eval_batch_size ({eval_batch_size}) and max_length ({max_length}) must be "
                f"at least 1, num_workers ({num_workers}) and dev_size ({dev_size}) at least 0."
            )
        if evaluation_splits is not None:
            task = replace(task, evaluation_splits=tuple(evaluation_splits))
        self.task = replace(task, dev=dev_size > 0)
        self.tokenizer_name = tokenizer
        self.gguf_file = gguf_file
        self.train_size = train_size
        self.eval_size = eval_size
        self.dev_size = dev_size
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", "0")) if seed is None else seed
        self._follows_run = seed is None
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.max_length = max_length
        self.padding = padding
        self.demonstrations = demonstrations
        self.demonstration_set = demonstration_set
        self.calibrate = calibrate
        self.num_workers = num_workers
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self._format: Format | None = None
        #: Positions that the longest input read so far needs.
        self.longest = 0
        self._splits: dict[str, list[dict[str, Any]]] = {}

    def reseeded(self, seed: int) -> Self:
        """The same data as a run with another seed has it: the same subsets and order if they have a seed of their own.

        Args:
            seed: Seed of the run.
        """
        other = copy.copy(self)
        other.trainer = None
        if self._follows_run:
            other.seed, other._splits = seed, {}
        return other

    @abstractmethod
    def read(self, split: str) -> list[Any]:
        """All examples of a split: rows with text columns, ``label`` and ``id``, or prompted examples."""

    @property
    def format(self) -> Format:
        """How the examples are encoded."""
        if self._format is None:
            self.tokenizer = load_tokenizer(self.tokenizer_name, self.gguf_file)
            if isinstance(self.task, PromptTask):
                length = self.max_length or self.task.max_length
                self._format = PromptPreprocessor(self.task, self.tokenizer, length, self.calibrate)
            else:
                self._format = TextPreprocessor(self.task, self.tokenizer, self.max_length or 128, self.padding)
        return self._format

    def setup(self, stage: str) -> None:
        """Read, subset and encode the splits that ``stage`` needs, once."""
        needed = self.task.validation_splits if stage in ("fit", "validate") else self.task.evaluation_splits
        for split in ("train", *needed) if stage == "fit" else needed:
            if split in self._splits:
                continue
            chosen = self._chosen(split)
            if self.demonstrations and split != "train":
                chosen = self._demonstrated(chosen)
            examples = self._splits[split] = self.format.encode(chosen)
            self.longest = max(self.longest, *map(self.format.positions, examples))

    @property
    def identity(self) -> dict[str, Any]:
        """What all processes of a run must have in common: the sizes, and a checksum of each split read so far."""
        sizes = {name: getattr(self, name) for name in ("batch_size", "eval_batch_size", "seed")}
        return sizes | {f"the data of split {name!r}": _checksum(split) for name, split in self._splits.items()}

    def _chosen(self, split: str) -> list[Any]:
        """A split's part of a seeded permutation: its first rows, so that smaller sets are parts of larger ones.

        The dev set follows the training set in the permutation of the same rows, or where several examples have a
        source in common, it is drawn before, as whole sources.
        """
        rows = self.read("train" if split == DEV else split)
        reserved, random = self.dev_size, np.random.RandomState(self.seed)
        if isinstance(self.task, PromptTask):
            rows = list(zip(rows, range(len(rows)), strict=True))
            if self.dev_size and split in ("train", DEV) and any(example.source for example, _ in rows):
                sources = draw_sources([example.source for example, _ in rows], self.dev_size, random)
                if split == DEV:
                    return [row for row in rows if row[0].source in sources]
                rows, reserved = [row for row in rows if row[0].source not in sources], 0
        if split not in ("train", DEV):
            begin, size = 0, self._eval_size(len(rows))
        elif split == "train":
            begin, size = 0, self._train_size(len(rows), reserved)
        else:
            begin, size = self._train_size(len(rows), reserved), self.dev_size
        order = draw(len(rows), begin + size, random)
        return [rows[i] for i in order[begin:]]

    def _train_size(self, rows: int, reserved: int) -> int:
        available = rows - reserved
        if available < 1:
            raise DataError(f"dev_size {self.dev_size:,} leaves none of the training examples to train on.")
        size = self._size(self.train_size, available)
        if size < self.batch_size:
            raise DataError(
                f"a training set of {size} examples is smaller than one batch of {self.batch_size}: "
                "raise `train_size` or lower `batch_size`."
            )
        return size

    def _eval_size(self, available: int) -> int:
        # The published runs evaluate 1,000 examples where there are as many.
        return available if self.eval_size == "all" else min(self.eval_size, available)

    def _size(self, asked: str | int, available: int) -> int:
        if asked == "all":
            return available
        regime = self.task.sizes.get(asked) if isinstance(asked, str) else asked
        if regime is None:
            raise DataError(
                f"train_size {asked!r} is not defined for {self.task.name}; use "
                f"{', '.join([*self.task.sizes, 'all'])}, or a number."
            )
        if isinstance(self.task, PromptTask) and isinstance(asked, str):
            return min(regime, available)
        if regime > available:
            raise DataError(
                f"train_size {asked!r} asks for {regime:,} examples of {self.task.name}, but there are only "
                f"{available:,}: ask for fewer, or for 'all'."
            )
        return regime

    def _demonstrated(self, rows: list[Any]) -> list[Any]:
        solved = self.read("train")
        if self.demonstrations > len(solved):
            raise DataError(f"{self.demonstrations} demonstrations asked for, but {len(solved)} training examples.")
        random = np.random.RandomState(self.seed)
        fixed = draw(len(solved), self.demonstrations, random)
        shown = []
        for example, place in rows:
            drawn = fixed if self.demonstration_set == "fixed" else draw(len(solved), self.demonstrations, random)
            shown.append((demonstrated(example, [solved[i] for i in drawn]), place))
        return shown

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches to learn from, of examples of about the same length; seed and epoch determine their order."""
        examples = self._splits["train"]
        processes = self.trainer.world_size if self.trainer else 1
        sampler = ResumableSampler(
            self.batch_size * processes,  # examples of one step, over all processes, are of like length
            num_replicas=processes,
            rank=self.trainer.global_rank if self.trainer else 0,
            seed=self.seed,
            lengths=list(map(self.format.length, examples)),
        )
        # Lightning says so too, but only after workers have begun to fetch.
        sampler.set_epoch(self.trainer.current_epoch if self.trainer else 0)
        loader = self._dataloader(examples, self.batch_size, self.format.collate_training, sampler, ResumableDataLoader)
        vars(loader)["trainer"] = self.trainer
        return loader

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """One loader for each split to evaluate on during training."""
        return [self._evaluation(split) for split in self.task.validation_splits]

    def test_dataloader(self) -> list[DataLoader[Any]]:
        """One loader for each split to report; as in the paper these are the labelled ones."""
        return [self._evaluation(split) for split in self.task.evaluation_splits]

    predict_dataloader = test_dataloader

    def _evaluation(self, split: str) -> DataLoader[Any]:
        """A loader that holds whole batches, each of examples of about the same length."""
        batches = batches_of_like_length(self._splits[split], self.format.length, self.eval_batch_size)
        processes = self.trainer.world_size if self.trainer else 1
        # Lightning's own for predictions gives some processes fewer batches, and a sharded model waits for all of them.
        sampler: Any = None
        if processes > 1 and self.trainer:
            sampler = DistributedSampler(batches, processes, self.trainer.global_rank, shuffle=False)  # type: ignore[arg-type]
        return self._dataloader(batches, 1, partial(collate_one, self.format.collate_evaluation), sampler)

    def _dataloader(
        self,
        examples: list[Any],
        batch_size: int,
        collate: Callable[[list[Any]], Any],
        sampler: Any = None,
        loader: type[DataLoader[Any]] = DataLoader,
    ) -> DataLoader[Any]:
        return loader(
            examples,  # type: ignore[arg-type]  # a list has what a map-style dataset needs
            batch_size=batch_size,
            sampler=sampler,
            collate_fn=collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            # Its own, since how often a loader draws from the global generator depends on its workers.
            generator=torch.Generator().manual_seed(self.seed),
        )


def _checksum(examples: list[dict[str, Any]]) -> str:
    """Number of examples, and a hash of at most a hundred of them."""
    shown = examples[:: max(1, len(examples) // 100)]
    return f"{len(examples)} examples, checksum {zlib.crc32(repr(shown).encode()):08x}"
