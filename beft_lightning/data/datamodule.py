"""The DataModule that all benchmarks share: draw, encode, batch."""

import copy
import os
from abc import abstractmethod
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from beft_lightning.data.loaders import LoaderFactory, content_summary
from beft_lightning.data.preprocessors import PREPROCESSORS, EncodingOptions, Preprocessor
from beft_lightning.data.resumable import Grouping
from beft_lightning.data.subsets import draw, draw_demonstrations, draw_training, evaluation_size, training_size
from beft_lightning.data.task import DEV, TRAIN, TaskRecord
from beft_lightning.errors import DataError
from beft_lightning.models import load_tokenizer
from beft_lightning.progress import bar


class LanguageDataModule(LightningDataModule):
    """Draws the examples of a task, encodes and batches them; a subclass reads them.

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
        max_length: Longest input, in tokens; by default the task's own.
        padding: ``longest`` pads each batch to its own longest example and groups examples of similar length;
            ``max_length`` pads all to ``max_length`` and shuffles freely, as the published encoder code does.
        demonstrations: Solved training examples in front of each prompt (in-context learning).
        demonstration_set: ``per_example`` draws others for each example, ``fixed`` shows all the same ones.
        calibrate: Subtract from an option's score what it has behind a prompt without content (SFC).
        num_workers: Number of processes that prepare batches.
        group_by_length: Which training examples share a batch: ``blocks`` sorts blocks of the epoch by length, a
            quarter of it or 50 batches; ``epoch`` sorts all of it and shuffles the batches, with the least padding;
            ``none`` shuffles freely.
    """

    def __init__(
        self,
        task: TaskRecord,
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
        group_by_length: Grouping = "blocks",
    ) -> None:
        super().__init__()
        task = task.with_baselines(demonstrations, calibrate)
        if demonstrations and dev_size:
            raise DataError("demonstrations need no dev set, as nothing is chosen by it: leave out one of the two.")
        _check_at_least(
            1,
            train_size=None if isinstance(train_size, str) else train_size,
            eval_size=None if eval_size == "all" else eval_size,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            max_length=max_length,
        )
        _check_at_least(0, dev_size=dev_size, demonstrations=demonstrations, num_workers=num_workers)
        if evaluation_splits is not None:
            task = replace(task, evaluation_splits=tuple(evaluation_splits))
        self.task = replace(task, dev=dev_size > 0, max_length=max_length or task.max_length)
        self.tokenizer_name = tokenizer
        self.gguf_file = gguf_file
        self.train_size = train_size
        self.eval_size = eval_size
        self.dev_size = dev_size
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", "0")) if seed is None else seed
        self._follows_run = seed is None
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.padding = padding
        self.demonstrations = demonstrations
        self.demonstration_set = demonstration_set
        self.num_workers = num_workers
        self.group_by_length: Grouping = group_by_length
        #: What turns the raw inputs into the backbone's: its tokenizer, image processor or feature extractor.
        self.tokenizer: Any = None
        self._preprocessor: Preprocessor | None = None
        #: Positions that the longest input read so far needs.
        self.longest = 0
        self._splits: dict[str, list[dict[str, Any]]] = {}
        #: The id that an example has in its file, by split and number.
        self._file_ids: dict[str, dict[int, Any]] = {}

    def reseeded(self, seed: int) -> Self:
        """Return the data as a run with another seed has it.

        Subsets and order stay the same if they have a seed of their own.

        Args:
            seed: Seed of the run.
        """
        other = copy.copy(self)
        other.trainer = None
        if self._follows_run:
            other.seed, other._splits, other._file_ids = seed, {}, {}
        return other

    @abstractmethod
    def read(self, split: str) -> list[Any]:
        """Read all examples of a split.

        Args:
            split: ``train`` or one of the task's evaluation splits.

        Returns:
            For a :class:`~beft_lightning.data.Task` rows with the text columns, ``label`` (a number) and ``id``, for a
            :class:`~beft_lightning.data.PromptTask` :class:`~beft_lightning.data.Prompted` examples. An example
            without an id gets its place in the split.
        """

    def load_processor(self) -> Any:
        """Load what turns the raw inputs into the backbone's: its tokenizer."""
        return load_tokenizer(self.tokenizer_name, self.gguf_file)

    @property
    def preprocessor(self) -> Preprocessor:
        """The preprocessor of the task, with the backbone's tokenizer."""
        if self._preprocessor is None:
            self.tokenizer = self.load_processor()
            options = EncodingOptions(self.task.max_length, self.padding)
            self._preprocessor = PREPROCESSORS[self.task.kind](self.task, self.tokenizer, options)
        return self._preprocessor

    def setup(self, stage: str) -> None:
        """Read, draw and encode the splits that ``stage`` needs, once each."""
        needed = self.task.validation_splits if stage in ("fit", "validate") else self.task.evaluation_splits
        splits = [split for split in ((TRAIN, *needed) if stage == "fit" else needed) if split not in self._splits]
        with bar("reading and encoding", len(splits), self.trainer) as advance:
            for split in splits:
                examples = self._examples(split)
                features = self._splits[split] = self.preprocessor.encode(examples)
                numbers = (feature["id"] for feature in features)
                self._file_ids[split] = dict(zip(numbers, self.task.file_ids(examples), strict=True))
                self.longest = max(self.longest, *map(self.preprocessor.positions, features))
                advance()

    def file_id(self, split: str, number: int) -> Any:
        """Return the id that an example has in its file, or its number if it has none there.

        Args:
            split: A split that has been read.
            number: Number of the example, as in ``id`` of its batch.
        """
        found = self._file_ids.get(split, {}).get(number)
        return number if found is None else found

    @property
    def identity(self) -> dict[str, Any]:
        """The values that all processes of a run must share: the sizes, and a checksum of each split read so far."""
        sizes = {name: getattr(self, name) for name in ("batch_size", "eval_batch_size", "seed")}
        return sizes | {f"the data of split {name!r}": content_summary(split) for name, split in self._splits.items()}

    def _examples(self, split: str) -> list[Any]:
        """Return the examples of a split that the run uses, behind their demonstrations."""
        examples = self.task.numbered(self.read(TRAIN if split == DEV else split))
        random = np.random.RandomState(self.seed)
        if split in (TRAIN, DEV):
            training, dev = draw_training(
                len(examples), self.task.sources(examples), self.dev_size, self._training_size, random
            )
            chosen = training if split == TRAIN else dev
        else:
            chosen = draw(len(examples), evaluation_size(self.eval_size, len(examples)), random)
        drawn = [examples[i] for i in chosen]
        return self._demonstrated(drawn) if self.demonstrations and split != TRAIN else drawn

    def _training_size(self, available: int) -> int:
        return training_size(self.task, self.train_size, available, self.batch_size)

    def _demonstrated(self, examples: list[Any]) -> list[Any]:
        """Return the examples behind solved ones of the training split."""
        solved = self.read(TRAIN)
        drawn = draw_demonstrations(
            len(examples),
            len(solved),
            self.demonstrations,
            per_example=self.demonstration_set == "per_example",
            random=np.random.RandomState(self.seed),
        )
        return [
            example.with_demonstrations([solved[i] for i in shown])
            for example, shown in zip(examples, drawn, strict=True)
        ]

    def train_dataloader(self) -> DataLoader[Any]:
        """Return batches of examples of about the same length; seed and epoch determine their order."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        loader = self._loaders().training(self._rows(TRAIN), self.batch_size, epoch)
        vars(loader)["trainer"] = self.trainer
        return loader

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Return a loader for each split to evaluate on during training."""
        return [self._loaders().evaluation(self._rows(s), self.eval_batch_size) for s in self.task.validation_splits]

    def test_dataloader(self) -> list[DataLoader[Any]]:
        """Return a loader for each split to report; as in the paper these are the labelled ones."""
        return [self._loaders().evaluation(self._rows(s), self.eval_batch_size) for s in self.task.evaluation_splits]

    def predict_dataloader(self) -> list[DataLoader[Any]]:
        """Return a loader for each split to report, of single examples."""
        return [self._loaders().evaluation(self._splits[s], self.eval_batch_size) for s in self.task.evaluation_splits]

    def _rows(self, split: str) -> list[dict[str, Any]]:
        """Return the rows of a split that has been read."""
        return self.preprocessor.rows(self._splits[split])

    def _loaders(self) -> LoaderFactory:
        processes, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        return LoaderFactory(self.preprocessor, self.seed, self.num_workers, processes, rank, self.group_by_length)


def _check_at_least(least: int, **options: int | None) -> None:
    """Check options that are numbers; ``None`` passes.

    Raises:
        DataError: If one is below ``least``.
    """
    for name, value in options.items():
        if value is not None and value < least:
            raise DataError(f"{name} is {value}: it must be at least {least}.")
