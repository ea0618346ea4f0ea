"""The DataModule for data of one's own: tables of texts and labels."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from string import Formatter
from typing import Any, Literal

import numpy as np
from datasets import Dataset
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from beft_lightning.data.datamodule import LanguageDataModule
from beft_lightning.data.labels import score
from beft_lightning.data.prompt_task import PromptTask
from beft_lightning.data.sources import Located, is_empty
from beft_lightning.data.subsets import draw_stratified
from beft_lightning.data.table_files import read_table
from beft_lightning.data.table_labels import (
    Kind,
    check_names,
    check_types,
    class_names,
    infer_kind,
    infer_names,
    label_name,
    raw_labels,
)
from beft_lightning.data.task import DEV, TRAIN, Task, TaskRecord
from beft_lightning.data.verbalizer import Verbalizer
from beft_lightning.errors import DataError

VALIDATION = "validation"
TEST = "test"
#: Share of the training rows set aside where no validation file is given.
_DEV_SHARE = 0.1
_METRICS = {"classification": ("accuracy", "macro_f1"), "regression": ("pearson", "spearman")}


class Table(LanguageDataModule):
    r"""Texts and labels in files of one's own, for classification and regression.

    A source is a CSV, TSV, JSON, JSONL, Parquet or Arrow file, a folder of ``save_to_disk``, or a folder or hub id that
    ``datasets.load_dataset`` reads. Labels that are texts, truth values or whole numbers are classes, numbers with a
    fraction are scores.

    Args:
        tokenizer: Tokenizer to use: the backbone's hub id or folder.
        train: Source of the training rows. The label names are found there.
        validation: Source of the rows to evaluate on during training.
        test: Source of the rows for ``test``; by default the same as for validation.
        text: Column of the text, or two columns of a pair, as a list or with a comma between.
        label: Column of the label.
        kind: ``classification`` or ``regression``; by default found from the labels.
        dev_share: Without ``validation``: the share of the training rows, or from 1 on their number, that is not
            trained on but evaluated on; by default 0.1. The rows are drawn with the seed, from each label alike.
        prompt: For causal language models: the prompt with columns in braces, such as ``"{text} It was"``, after which
            the label names are the options; ``\n`` is a new line.
        kwargs: See :class:`~beft_lightning.data.datamodule.LanguageDataModule`.
    """

    def __init__(
        self,
        tokenizer: str,
        train: str | Path | None = None,
        validation: str | Path | None = None,
        test: str | Path | None = None,
        text: str | list[str] = "text",
        label: str = "label",
        kind: Literal["classification", "regression"] | None = None,
        dev_share: float | None = None,
        prompt: str | None = None,
        **kwargs: Any,
    ) -> None:
        if train is None:  # A parser that requires it only says what it was given.
            raise DataError("Table needs a file, folder or data set to train on: give --data.train.")
        if validation is not None and dev_share is not None:
            raise DataError("dev_share splits rows off for validation, and a validation file is given: leave out one.")
        if dev_share is not None and dev_share <= 0:
            raise DataError(f"dev_share {dev_share} must be a share below 1, or a number of rows.")
        self.text = [name.strip() for name in text.split(",")] if isinstance(text, str) else list(text)
        self.label = label
        self.prompt = None if prompt is None else prompt.replace("\\n", "\n")
        self.sources = {TRAIN: train, VALIDATION: validation, TEST: test}
        self._parsed: dict[str, list[Any]] = {}
        rows = self._read_table(TRAIN)
        super().__init__(
            task=self._infer_task(rows, kind),
            tokenizer=tokenizer,
            evaluation_splits=[VALIDATION if test is None else TEST],
            **kwargs,
        )
        if test is not None:
            if self.dev_size:
                raise DataError("with a test file, dev_size has no use: the validation rows are set aside already.")
            # Validation rows are what DEV is elsewhere: evaluated on during training, not reported.
            self.task = replace(self.task, dev=True)
        self._labels = raw_labels(rows, label)
        self._parsed[TRAIN] = self._parse(TRAIN, rows)
        self.dev_share = dev_share if dev_share is not None else _DEV_SHARE
        self._announce()

    def read(self, split: str) -> list[Any]:
        """Read a split, or the part of the training rows that stands for it."""
        if self.sources.get(VALIDATION) is None and split in (TRAIN, VALIDATION):
            examples = self._parsed[TRAIN]
            dev = set(self._held_out())
            examples = [example for i, example in enumerate(examples) if (i in dev) == (split == VALIDATION)]
        elif split in self._parsed:
            examples = self._parsed[split]
        else:
            if self.sources.get(split) is None:
                raise DataError(f"there is no {split} file: give --data.{split}.")
            examples = self._parsed[split] = self._parse(split, self._read_table(split))
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
        total = len(self._labels)
        size = round(self.dev_share * total) if self.dev_share < 1 else int(self.dev_share)
        if size >= total:
            raise DataError(
                f"{self.sources[TRAIN]}: dev_share {self.dev_share} leaves none of {total} rows to train on."
            )
        strata = [""] * total if self.task.kind == "regression" else list(map(label_name, self._labels))
        return draw_stratified(strata, max(size, 1), np.random.RandomState(self.seed))

    def _read_table(self, split: str) -> Dataset:
        """Read a source, and check that it has the columns."""
        source = self.sources[split]
        assert source is not None
        table = read_table(source, split)
        columns = [*self._text_columns(), self.label]
        if missing := [name for name in columns if name not in table.column_names]:
            raise DataError(
                f"{source}: no column {', '.join(map(repr, missing))}; there are: {', '.join(table.column_names)}. Set "
                "--data.text and --data.label to the columns of text and label."
            )
        return table.select_columns(columns)

    def _text_columns(self) -> list[str]:
        """Return the columns that an input is made of."""
        if self.prompt is None:
            if len(self.text) > 2 or len(set(self.text) - {self.label}) < len(self.text):
                raise DataError(
                    f"--data.text {','.join(self.text)}: give one column, or two different ones for a pair, and not "
                    f"the label's, {self.label!r}."
                )
            return self.text
        try:
            fields = [name for _, name, _, _ in Formatter().parse(self.prompt) if name is not None]
        except ValueError as error:
            raise DataError(f"--data.prompt {self.prompt!r}: {error}; write {{{{ for a brace itself.") from error
        if not fields or self.label in fields or not all(name.isidentifier() for name in fields):
            raise DataError(
                f"--data.prompt {self.prompt!r}: name at least one column in braces, such as {{text}}, and not the "
                f"label's, {self.label!r}."
            )
        return list(dict.fromkeys(fields))

    def _infer_task(self, table: Dataset, kind: Kind | None) -> TaskRecord:
        """Make the task's record from the training rows."""
        source = self.sources[TRAIN]
        values = raw_labels(table, self.label)
        check_types(values, self.label, lambda index: f"{source} row {index + 1}")
        kind = kind or infer_kind(values)
        name = Path(str(source)).stem
        if kind == "regression":
            if self.prompt is not None:
                raise DataError(f"{source}: a prompt has label names as options, and column {self.label!r} has scores.")
            return Task(name=name, kind=kind, text=tuple(self.text), metrics=_METRICS[kind])
        names = class_names(table, self.label) or infer_names(values)
        check_names(names, values, self.label, f"{source}")
        if self.prompt is None:
            return Task(name=name, kind=kind, text=tuple(self.text), labels=names, metrics=_METRICS[kind])
        # White space at the end of the prompt would belong to no token of the options.
        space = "" if self.prompt[-1:].isspace() else " "
        return PromptTask(
            name=name,
            kind="choice",
            columns=(*self._text_columns(), "label"),
            examples=Verbalizer(self.prompt, tuple(f"{space}{label}" for label in names), names),
            labels=names,
        )

    def _parse(self, split: str, table: Dataset) -> list[Any]:
        return self.task.parse(self._located(split, table), f"{self.sources[split]}")

    def _located(self, split: str, table: Dataset) -> Iterator[Located]:
        """Yield the rows of a table with checked cells: texts that are not empty, and labels of the task."""
        source = self.sources[split]
        labels = raw_labels(table, self.label)
        check_types(labels, self.label, lambda index: f"{source} row {index + 1}")
        for index, (row, label) in enumerate(zip(table, labels, strict=True)):
            where = f"{source} row {index + 1}"
            texts = {name: row[name] for name in self._text_columns()}
            if empty := [name for name, value in texts.items() if is_empty(value)]:
                raise DataError(f"{where}: column {empty[0]!r} is empty. Fill it, or remove the row.")
            if self.task.kind == "regression":
                yield where, {**texts, "label": label}
                continue
            if label_name(label) not in self.task.labels:
                raise DataError(
                    f"{where}: label {label_name(label)!r} is not among those of {self.sources[TRAIN]}: "
                    f"{', '.join(self.task.labels)}."
                )
            yield where, {**texts, "label": label_name(label)}

    def _announce(self) -> None:
        """Log how the table was understood."""
        rows = len(self._labels)
        if self.task.kind == "regression":
            scores = list(map(score, self._labels))
            labels = f"regression, scores from {min(scores):g} to {max(scores):g}"
        else:
            named = ", ".join(f"{index} = {name}" for index, name in enumerate(self.task.labels))
            labels = f"{self.task.kind}, labels {named}"
        rank_zero_info(f"{self.sources[TRAIN]}: {rows:,} rows, {labels}.")
        if self.sources[VALIDATION] is None:
            rank_zero_info(
                f"No validation file: {len(self._held_out()):,} of the rows are set aside (dev_share "
                f"{self.dev_share:g}, seed {self.seed})."
            )
