"""Multiple choice for encoders: a context before each choice."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DataCollatorForMultipleChoice

from beft_lightning.data.preprocessors.preprocessor import NO_LABEL
from beft_lightning.data.preprocessors.text import TextPreprocessor
from beft_lightning.data.sources import Row


class MultipleChoicePreprocessor(TextPreprocessor):
    """Encodes rows of a multiple choice task: a row of token ids for each choice."""

    def _make_collator(self, length: int | None) -> Any:
        return DataCollatorForMultipleChoice(self.tokenizer, padding=self.padding, max_length=length)

    def encode(self, examples: Sequence[Row]) -> list[dict[str, Any]]:
        """Return the token ids of each choice behind the context, ``choices`` (their names), ``labels`` and ``id``."""
        return [self._encode(row) for row in examples]

    def _encode(self, row: Row) -> dict[str, Any]:
        context = " ".join(row[name].strip() for name in self.task.text)
        choices = row[self.task.options] if self.task.options else [row[name] for name in self.task.labels]
        encoded = self.tokenizer([context] * len(choices), choices, truncation=True, max_length=self.max_length)
        names = list(self.task.labels or choices)
        # The collator takes no row without a label.
        return {**encoded, "choices": names, "labels": row.get("label", NO_LABEL), "id": row["id"]}

    def _tokens(self, features: dict[str, Any]) -> int:
        return max(map(len, features["input_ids"]))

    def collate_training(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a batch: token ids of shape ``(batch, choices, tokens)``, attention mask, ``labels`` and so on.

        Where an example has fewer choices than others of the batch, its first one stands in the other places;
        ``choice_count`` says how many it has.
        """
        counts = [len(feature["choices"]) for feature in features]
        inputs = [
            {
                name: value + value[:1] * (max(counts) - count) if isinstance(value, list) else value
                for name, value in feature.items()
                if name not in ("id", "choices")
            }
            for feature, count in zip(features, counts, strict=True)
        ]
        ids = [feature["id"] for feature in features]
        return {**self._collator(inputs), "id": torch.tensor(ids), "choice_count": torch.tensor(counts)}

    def collate_evaluation(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the same as :meth:`collate_training`, and the names of the ``choices``."""
        return {**self.collate_training(features), "choices": [feature["choices"] for feature in features]}
