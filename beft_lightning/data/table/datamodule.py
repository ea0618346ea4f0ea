"""The DataModule for data of one's own: tables of texts and labels."""

from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from datasets import Dataset

from beft_lightning.data.free_text_task import with_packing
from beft_lightning.data.generation import Stop
from beft_lightning.data.generation_options import with_generation
from beft_lightning.data.table.columns import Columns
from beft_lightning.data.table.file_data import FileData
from beft_lightning.data.table.kinds import TableKind, find_kind
from beft_lightning.data.task import TRAIN, TaskRecord


class Table(FileData):
    r"""Texts and labels in files of one's own.

    A source is a CSV, TSV, JSON, JSONL, Parquet, Arrow or ``.conll`` file, a folder of ``save_to_disk``, or a folder or
    hub id that ``datasets.load_dataset`` reads. Labels that are texts, truth values or whole numbers are classes,
    numbers with a fraction are scores, lists are several labels, or tags where the texts are lists of words.

    Args:
        tokenizer: Tokenizer to use: the backbone's hub id or folder.
        train: Source of the training rows. The label names are found there.
        validation: Source of the rows to evaluate on during training.
        test: Source of the rows for ``test``; by default the same as for validation.
        text: Column of the text, or two columns of a pair, as a list or with a comma between. For tags of words, the
            column that lists the words.
        label: Column of the label; for several labels, columns of 0 and 1, too.
        kind: Kind of task, such as ``classification``, ``regression``, ``multi_label``, ``token_classification``,
            ``multiple_choice`` or ``text``; by default found from columns and labels.
        options: For multiple choice, the columns of the options, or the one column that lists them.
        dev_share: Without ``validation``: the share of the training rows, or from 1 on their number, that is not
            trained on but evaluated on; by default 0.1. The rows are drawn with the seed, from each label alike.
        prompt: For causal language models: the prompt with columns in braces, such as ``"{text} It was"``, after which
            the label names, or the row's own options, are the options, or the answer is generated; ``\n`` is a new
            line.
        answer: Column of the answer to generate behind the prompt: a text, or a list of acceptable texts, the first of
            which is learnt.
        messages: Column of conversations for a causal language model with a chat template: lists of messages, each with
            ``role`` and ``content``. Every answer of the assistant is learnt, and the last one generated.
        metrics: Names of the metrics to report, the main one first; by default those of the kind.
        max_new_tokens: Most tokens of a generated answer; by default 256.
        stop: What ends a generated answer behind a prompt: ``end_of_text``, the default, or ``line``.
        generate: Further options of transformers' ``generate``, such as ``{"num_beams": 4}``; by default an answer is
            greedy.
        packing: For free text: join texts into rows of ``max_length`` tokens, the default. ``False`` makes each text a
            row, which loses what is longer.
        kwargs: See :class:`~beft_lightning.data.datamodule.LanguageDataModule`.
    """

    def __init__(
        self,
        tokenizer: str,
        train: str | Path | None = None,
        validation: str | Path | None = None,
        test: str | Path | None = None,
        text: str | list[str] = "text",
        label: str | list[str] = "label",
        kind: str | None = None,
        options: str | list[str] | None = None,
        dev_share: float | None = None,
        prompt: str | None = None,
        answer: str | None = None,
        messages: str | None = None,
        metrics: list[str] | None = None,
        max_new_tokens: int | None = None,
        stop: Stop | None = None,
        generate: dict[str, Any] | None = None,
        packing: bool | None = None,
        **kwargs: Any,
    ) -> None:
        def understand(table: Dataset) -> tuple[TableKind, TaskRecord]:
            columns = Columns.given(text, label, options, prompt, answer, messages)
            found = find_kind(kind, columns, table, f"{train}")
            task = with_packing(found.make_task(table), packing)
            return found, with_generation(task, max_new_tokens, stop, generate)

        super().__init__(
            tokenizer=tokenizer,
            train=train,
            validation=validation,
            test=test,
            dev_share=dev_share,
            metrics=metrics,
            understand=understand,
            **kwargs,
        )
        if self.task.kind == "regression":
            scores = [example["label"] for example in self.read(TRAIN)]
            self.task = replace(self.task, mean_score=fmean(scores))  # type: ignore[call-arg]  # a Task, by its kind
