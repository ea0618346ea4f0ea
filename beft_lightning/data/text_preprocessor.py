"""Examples as encoders see them: one or two texts, and a label."""

from typing import Any, Literal

import torch
from transformers import DataCollatorForMultipleChoice, DataCollatorWithPadding, PreTrainedTokenizerBase

from beft_lightning.data.sources import Row
from beft_lightning.data.task import Task


class TextPreprocessor:
    """Turns rows of a classification or regression task into token ids, and those into batches.

    Args:
        task: The task's record.
        tokenizer: The backbone's tokenizer.
        max_length: Longest input, in tokens; longer ones are cut from their longest text.
        padding: ``longest`` or ``max_length``.
    """

    def __init__(
        self,
        task: Task,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        padding: Literal["longest", "max_length"],
    ) -> None:
        self.task = task
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.padding = padding
        length = max_length if padding == "max_length" else None
        self._collator = DataCollatorWithPadding(tokenizer, padding=padding, max_length=length)
        self._choice_collator = DataCollatorForMultipleChoice(tokenizer, padding=padding, max_length=length)

    def encode(self, rows: list[Row]) -> list[dict[str, Any]]:
        """Token ids, label and id of each row."""
        if self.task.kind == "multiple_choice":
            return [self._encode_choices(row) for row in rows]
        texts = [[row[name] for row in rows] for name in self.task.text]
        encoded = self.tokenizer(*texts, truncation=True, max_length=self.max_length)
        return [
            {**{name: values[i] for name, values in encoded.items()}, "label": row["label"], "id": row["id"]}
            for i, row in enumerate(rows)
        ]

    def _encode_choices(self, row: Row) -> dict[str, Any]:
        """The context before each choice: a row of token ids for each."""
        context = " ".join(row[name].strip() for name in self.task.text)
        choices = [row[name] for name in self.task.labels]
        encoded = self.tokenizer([context] * len(choices), choices, truncation=True, max_length=self.max_length)
        return {**encoded, "label": row["label"], "id": row["id"]}

    def length(self, features: dict[str, Any]) -> int:
        """Number of tokens that an example costs."""
        # Padded to one length, all examples are equally long, and grouping them by length is a plain shuffle.
        if self.padding == "max_length":
            return self.max_length
        ids = features["input_ids"]
        return max(map(len, ids)) if self.task.kind == "multiple_choice" else len(ids)

    def positions(self, features: dict[str, Any]) -> int:
        """Number of positions that an example needs."""
        return self.length(features)

    def collate_training(self, features: list[dict[str, Any]]) -> Any:
        """A batch: token ids, attention mask, ``labels`` and ``id``; for multiple choice, ids of each choice."""
        if self.task.kind != "multiple_choice":
            return self._collator(features)
        inputs = [{name: value for name, value in feature.items() if name != "id"} for feature in features]
        return {**self._choice_collator(inputs), "id": torch.tensor([feature["id"] for feature in features])}

    collate_evaluation = collate_training
