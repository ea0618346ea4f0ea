"""Bare texts for encoders: one or two texts, and a label."""

from collections.abc import Sequence
from typing import Any

from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from beft_lightning.data.preprocessors.preprocessor import EncodingOptions
from beft_lightning.data.sources import Row
from beft_lightning.data.task import Task


class TextPreprocessor:
    """Encodes rows of a classification or regression task.

    Args:
        task: The task's record.
        tokenizer: The backbone's tokenizer.
        options: Longer inputs than ``max_length`` are cut from their longest text.
    """

    def __init__(self, task: Task, tokenizer: PreTrainedTokenizerBase, options: EncodingOptions) -> None:
        self.task = task
        self.tokenizer = tokenizer
        self.max_length = options.max_length
        self.padding = options.padding
        self._collator = self._make_collator(options.max_length if options.padding == "max_length" else None)

    def _make_collator(self, length: int | None) -> Any:
        return DataCollatorWithPadding(self.tokenizer, padding=self.padding, max_length=length)

    def encode(self, examples: Sequence[Row]) -> list[dict[str, Any]]:
        """Return token ids, ``id`` and, where it has a label, ``labels`` of each row."""
        texts = [[row[name] for row in examples] for name in self.task.text]
        encoded = self.tokenizer(*texts, truncation=True, max_length=self.max_length)
        return [
            {name: values[i] for name, values in encoded.items()}
            | ({"labels": row["label"]} if "label" in row else {})
            | {"id": row["id"]}
            for i, row in enumerate(examples)
        ]

    def rows(self, features: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows of a fit's batches: a row for each example."""
        return features

    def length(self, features: dict[str, Any]) -> int:
        """Return the number of tokens that an example costs."""
        # Padded to one length, all examples are equally long, and grouping them by length is a plain shuffle.
        return self.max_length if self.padding == "max_length" else self._tokens(features)

    def _tokens(self, features: dict[str, Any]) -> int:
        return len(features["input_ids"])

    def positions(self, features: dict[str, Any]) -> int:
        """Return the number of positions that an example needs."""
        return self.length(features)

    def collate_training(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a batch: token ids, attention mask, ``labels`` and ``id``."""
        return dict(self._collator(features))

    def collate_evaluation(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the same as :meth:`collate_training`."""
        return self.collate_training(features)
